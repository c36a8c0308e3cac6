"""Accounts made in bulk: some used at once and thrown away, some left to age."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import numpy as np

from classifier.traffic import hiding, pacing, prompts
from classifier.traffic.campaigns import shares
from classifier.traffic.family import AttackFamily, Change, Effort, Parameters
from classifier.traffic.flow import Act, Flow, Scene, acts, mixed_acts
from classifier.traffic.software import Software

BROWSING = {Act.HOME: 0.25, Act.SIGNUP_PAGE: 0.3, Act.SIGNUP: 0.2, Act.DOCS: 0.15, Act.ASSET: 0.1}
STRAIGHT = {Act.SIGNUP: 0.9, Act.SIGNUP_PAGE: 0.1}


class RegistrationAbuse(AttackFamily):
    """Bulk sign-ups from rotating addresses, to farm free credit or to have accounts ready."""

    name = "registration_abuse"
    source = "registration limited by DeepSeek during the attacks of January 2025 (read as quoted)"
    hides = "a few sign-ups from each address, pages around them, pauses, half of the accounts left to age"
    needs = "sign-ups"
    parameters: ClassVar[Parameters] = {
        "gap_s": (1.0, 12.0),
        "success": (0.5, 0.9),
        "aged": 0.45,
        "aged_days": (2.0, 45.0),
        "vpn": 0.5,
        "pace_s_evasive": (8.0, 25.0),
        "stretch_evasive": (5.0, 12.0),
    }
    share_of_clients = 0.08
    share_of_requests = 0.04
    lasts = (0.2, 0.8)
    replays = (Act.SIGNUP,)
    in_web = True

    def flows(self, scene: Scene, effort: Effort, rng: np.random.Generator) -> Iterator[Flow]:
        """Some of the clients sign up, the others are the accounts that come of it, fresh or aged."""
        tool = scene.software(rng, "tool")
        template = prompts.fixed_template(rng, "probe")
        signing = max(1, effort.clients if scene.web else round(effort.clients * 0.4))
        origins = scene.addresses(rng, signing, "vpn" if rng.random() < self.draw(rng, "vpn") else "home")
        total = effort.requests if scene.web else effort.requests // 2
        made: list[Flow] = []
        for origin, n in zip(origins, shares(rng, signing, total, least=5), strict=True):
            address = self._rotated(scene, n, rng) if self.evasive else origin
            runs = scene.software(rng, "browser") if self.evasive else tool
            made.append(self._sign_ups(scene, effort, address, runs, n, rng))
        yield from made
        if scene.web:
            return
        used = max(1, effort.clients - signing)
        for i, n in enumerate(shares(rng, used, effort.requests - total, least=3)):
            yield self._usage(scene, effort, made[i % signing], template, n, rng)

    def _sign_ups(
        self, scene: Scene, effort: Effort, address: str | list[str], runs: Software, n: int, rng: np.random.Generator
    ) -> Flow:
        if self.evasive:
            times = np.sort(hiding.human_hours(scene, effort, n, rng, self.draw(rng, "pace_s_evasive"), 7))
        else:
            times = hiding.in_one_go(effort, n, 1.0 / self.draw(rng, "gap_s"), float(rng.uniform(0.1, 0.6)), rng)
        return Flow(
            family=self.name,
            malicious=True,
            times=times,
            acts=mixed_acts(rng, n, BROWSING if self.evasive else STRAIGHT),
            address=address,
            software=runs,
            success=self.draw(rng, "success"),
            limit=30,
            referers="site" if self.evasive and not scene.web else "none",
            focus=None if self.evasive else (int(rng.integers(2**31)), 6),
        )

    def _rotated(self, scene: Scene, n: int, rng: np.random.Generator) -> str | list[str]:
        stretch = self.draw(rng, "stretch_evasive")
        return hiding.rotating(scene, rng, n, max(1, round(n / stretch)), stretch, self.draw(rng, "vpn"))

    def _usage(
        self, scene: Scene, effort: Effort, sign_ups: Flow, template: str, n: int, rng: np.random.Generator
    ) -> Flow:
        """Use one account from the address it was made at: soon after it was made, or after it has aged."""
        aged = rng.random() < self.draw(rng, "aged")
        programmed = self.evasive and rng.random() < 0.7
        made = -self.draw(rng, "aged_days") * hiding.DAY if aged else float(rng.choice(sign_ups.times))
        begin = float(rng.uniform(effort.start, effort.end)) if aged else made + float(rng.lognormal(3.0, 1.0))
        return Flow(
            family=self.name,
            malicious=True,
            times=pacing.walk(rng, n, begin, 30.0 if self.evasive else 2.0, 1.0 if self.evasive else 0.3),
            acts=acts(Act.CHAT, n),
            address=sign_ups.address if isinstance(sign_ups.address, str) else sign_ups.address[-1],
            software=scene.software(rng, "sdk") if programmed else sign_ups.software,
            account=scene.account(rng, made),
            appetite="ordinary" if self.evasive else "tiny",
            prompts=prompts.wordings(rng, "ask", n) if self.evasive else prompts.fill(rng, template, n),
            limit=20,
            referers="none" if programmed else sign_ups.referers,
        )

    def purpose(self, scene: Scene, effort: Effort, rng: np.random.Generator) -> Change:
        """Sign up and use the service as somebody new does; some accounts were made long before and left to age."""

        def change(flow: Flow) -> Flow:
            if flow.account is None or rng.random() >= self.draw(rng, "aged"):
                return flow
            before = flow.account.created - self.draw(rng, "aged_days") * hiding.DAY
            return replace(flow, account=replace(flow.account, created=round(before, 3)))

        return change
