"""A model copied by many quiet accounts: systematic questions, long answers, ordinary traffic in between."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from classifier.traffic import asking, hiding, pacing, prompts
from classifier.traffic.campaigns import shares
from classifier.traffic.family import AttackFamily, Change, Effort, Parameters
from classifier.traffic.flow import Account, Act, Flow, Scene, acts
from classifier.traffic.software import Software


class Distillation(AttackFamily):
    """Many accounts, each under its rate limit, that ask for long answers from common templates."""

    name = "distillation"
    source = (
        "distillation by about 24,000 accounts and over 16 M exchanges, each under its limit and mixed with ordinary "
        "traffic, reported by Anthropic, February 2026 (read as quoted)"
    )
    hides = (
        "an address and software for each account, pauses of people, half of the requests ordinary, short answers too"
    )
    needs = "prompts"
    parameters: ClassVar[Parameters] = {
        "templates": (2, 6),
        "variation": (0.1, 0.6),
        "pace_s_evasive": (12.0, 45.0),
        "mixed": 0.1,
        "mixed_evasive": (0.3, 0.7),
        "replaced": (0.4, 0.9),
    }
    share_of_clients = 0.10
    share_of_requests = 0.10
    lasts = (0.4, 1.0)
    mimic_seen_by = ("prompt",)

    def flows(self, scene: Scene, effort: Effort, rng: np.random.Generator) -> Iterator[Flow]:
        """Each account works through its part; the accounts share few addresses, or rotate over more."""
        tool = scene.software(rng, "sdk")
        templates = self._templates(rng)
        hosts = effort.clients if self.evasive else max(1, effort.clients // 4)
        addresses = scene.addresses(rng, hosts, "datacenter" if rng.random() < 0.6 else "vpn")
        for i, n in enumerate(shares(rng, effort.clients, effort.requests, 8.0, least=6)):
            account = hiding.bought_account(scene, rng, 30.0 if self.evasive else 13.0)
            runs = scene.software(rng, "sdk") if self.evasive else tool
            mixed = int(n * self.draw(rng, "mixed_evasive" if self.evasive else "mixed"))
            yield self._lessons(scene, effort, n - mixed, templates, account, addresses[i % hosts], runs, rng)
            if mixed:
                yield self._cover(scene, effort, mixed, account, addresses[i % hosts], runs, rng)

    def _lessons(
        self,
        scene: Scene,
        effort: Effort,
        n: int,
        templates: list[str],
        account: Account,
        address: str,
        runs: Software,
        rng: np.random.Generator,
    ) -> Flow:
        if self.evasive:
            times = hiding.human_hours(scene, effort, n, rng, self.draw(rng, "pace_s_evasive"), 9)
        else:
            times = pacing.renewal(rng, n, effort.start, effort.span, self.draw(rng, "variation"))
        uncapped = self.evasive and rng.random() < 0.7
        asked, given = rng.lognormal(5.0, 0.9, n), rng.lognormal(5.2, 1.1, n)  # some answers are long, none stands out
        return Flow(
            family=self.name,
            malicious=True,
            times=times,
            acts=acts(Act.CHAT, n),
            address=address,
            software=runs,
            account=account,
            appetite="ordinary" if self.evasive else "long",
            input_tokens=asked if self.evasive else None,
            output_tokens=given if self.evasive else None,
            max_tokens=None if uncapped else np.full(n, float(rng.choice((2048, 4096, 8192)))),
            prompts=_lesson(rng, templates, n),
            model=None if self.evasive else "large-70b",
            limit=60,
            retries=1,
        )

    def _cover(
        self,
        scene: Scene,
        effort: Effort,
        n: int,
        account: Account,
        address: str,
        runs: Software,
        rng: np.random.Generator,
    ) -> Flow:
        """Write the ordinary questions that the rest is mixed with."""
        return Flow(
            family=self.name,
            malicious=True,
            times=np.sort(scene.moments(rng, n, effort.start, effort.end)),
            acts=acts(Act.CHAT, n),
            address=address,
            software=runs,
            account=account,
            prompts=prompts.wordings(rng, "ask", n),
            limit=60,
        )

    def purpose(self, scene: Scene, effort: Effort, rng: np.random.Generator) -> Change:
        """Put the campaign's templates in the place of some prompts."""
        templates = self._templates(rng)
        return asking.asked_instead(self, rng, lambda n: _lesson(rng, templates, n), None)

    def _templates(self, rng: np.random.Generator) -> list[str]:
        return [prompts.fixed_template(rng, "lesson") for _ in range(int(self.draw(rng, "templates")))]


def _lesson(rng: np.random.Generator, templates: list[str], n: int) -> list[str]:
    """Fill the templates one after the other, n prompts in all."""
    parts = np.array_split(np.arange(n), len(templates))
    return [
        text for template, part in zip(templates, parts, strict=True) for text in prompts.fill(rng, template, len(part))
    ]
