"""A model copied by many quiet accounts: systematic questions, long answers, ordinary traffic in between."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from classifier.traffic import pacing, prompts
from classifier.traffic.campaigns import shares
from classifier.traffic.family import AttackFamily, Effort
from classifier.traffic.flow import Account, Act, Flow, Scene, acts, mixed_acts
from classifier.traffic.software import Software

DAY = 86_400.0


class Distillation(AttackFamily):
    """Many accounts, each under its rate limit, that ask for long answers from common templates."""

    name = "distillation"
    source = (
        "distillation by about 24,000 accounts and over 16 M exchanges, each under its limit and mixed with ordinary "
        "traffic, reported by Anthropic, February 2026 (read as quoted)"
    )
    share_of_clients = 0.16
    share_of_requests = 0.18
    lasts = (0.4, 1.0)

    def flows(self, scene: Scene, effort: Effort, rng: np.random.Generator) -> Iterator[Flow]:
        """Each account works through its part; the accounts share few addresses, or rotate over more."""
        tool = scene.software(rng, "tool" if scene.web else "sdk")
        templates = [prompts.fixed_template(rng, "lesson") for _ in range(int(rng.integers(2, 6)))]
        hosts = effort.clients if scene.web or self.evasive else max(1, effort.clients // 4)
        addresses = scene.addresses(rng, hosts, "datacenter" if rng.random() < 0.6 else "vpn")
        for i, n in enumerate(shares(rng, effort.clients, effort.requests, 8.0, least=6)):
            account = scene.account(rng, -float(rng.lognormal(2.6, 1.2)) * DAY)
            runs = scene.software(rng, "browser" if scene.web else "sdk") if self.evasive else tool
            mixed = int(n * (0.5 if self.evasive else 0.1))
            yield self._lessons(scene, effort, n - mixed, templates, account, addresses[i % hosts], runs, rng)
            if mixed and not scene.web:
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
            visits = scene.moments(rng, max(1, n // 9), effort.start, effort.end)
            each = np.array_split(np.arange(n), len(visits))
            pace = float(rng.uniform(12, 45))
            parts = [pacing.walk(rng, len(p), float(b), pace) for b, p in zip(visits, each, strict=True)]
            times = np.concatenate(parts)
        else:
            times = pacing.renewal(rng, n, effort.start, effort.span, float(rng.uniform(0.1, 0.6)))
        uncapped = self.evasive and rng.random() < 0.6
        text: list[str] = []
        for part in np.array_split(np.arange(n), len(templates)):
            text.extend(prompts.fill(rng, templates[len(text) % len(templates)], len(part)))
        return Flow(
            family=self.name,
            malicious=True,
            times=times,
            acts=mixed_acts(rng, n, {Act.CHAT: 0.9, Act.DOCS: 0.1}) if scene.web else acts(Act.CHAT, n),
            address=address,
            software=runs,
            account=account,
            appetite="long",
            max_tokens=None if uncapped else np.full(n, float(rng.choice((2048, 4096, 8192)))),
            prompts=text,
            model="large-70b",
            limit=60,
            retries=1,
            systematic=True,
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
