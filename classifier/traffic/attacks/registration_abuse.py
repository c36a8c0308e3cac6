"""Accounts made in bulk: some used at once and thrown away, some left to age."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from classifier.traffic import pacing, prompts
from classifier.traffic.campaigns import shares
from classifier.traffic.family import AttackFamily, Effort
from classifier.traffic.flow import Act, Flow, Scene, acts, mixed_acts
from classifier.traffic.software import Software

DAY = 86_400.0
BROWSING = {Act.HOME: 0.25, Act.SIGNUP_PAGE: 0.3, Act.SIGNUP: 0.2, Act.DOCS: 0.15, Act.ASSET: 0.1}
STRAIGHT = {Act.SIGNUP: 0.9, Act.SIGNUP_PAGE: 0.1}


class RegistrationAbuse(AttackFamily):
    """Bulk sign-ups from rotating addresses, to farm free credit or to have accounts ready."""

    name = "registration_abuse"
    source = "registration limited by DeepSeek during the attacks of January 2025 (read as quoted)"
    share_of_clients = 0.22
    share_of_requests = 0.06
    lasts = (0.2, 0.8)

    def flows(self, scene: Scene, effort: Effort, rng: np.random.Generator) -> Iterator[Flow]:
        """Some of the clients sign up, the others are the accounts that come of it, fresh or aged."""
        tool = scene.software(rng, "tool")
        template = prompts.fixed_template(rng, "probe")
        signing = max(1, effort.clients if scene.web else round(effort.clients * 0.4))
        addresses = scene.addresses(rng, signing, "vpn" if rng.random() < 0.5 else "home")
        total = effort.requests if scene.web else effort.requests // 2
        made: list[Flow] = []
        for address, n in zip(addresses, shares(rng, signing, total, least=5), strict=True):
            runs = scene.software(rng, "browser") if self.evasive else tool
            made.append(self._sign_ups(scene, effort, address, runs, n, rng))
        yield from made
        if scene.web:
            return
        used = max(1, effort.clients - signing)
        for i, n in enumerate(shares(rng, used, effort.requests - total, least=3)):
            yield self._usage(scene, effort, made[i % signing], template, n, rng)

    def _sign_ups(
        self, scene: Scene, effort: Effort, address: str, runs: Software, n: int, rng: np.random.Generator
    ) -> Flow:
        if self.evasive:
            visits = scene.moments(rng, max(1, n // 7), effort.start, effort.end)
            each = np.array_split(np.arange(n), len(visits))
            parts = [pacing.walk(rng, len(p), float(b), 15.0, 1.0) for b, p in zip(visits, each, strict=True)]
            times = np.concatenate(parts)
        else:
            length = min(n * float(rng.lognormal(1.3, 0.7)), effort.span)
            begin = effort.start + float(rng.uniform(0, 0.9)) * max(effort.span - length, 0.0)
            times = pacing.renewal(rng, n, begin, length, float(rng.uniform(0.1, 0.6)))
        return Flow(
            family=self.name,
            malicious=True,
            times=times,
            acts=mixed_acts(rng, n, BROWSING if self.evasive else STRAIGHT),
            address=address,
            software=runs,
            success=float(rng.uniform(0.5, 0.9)),
            limit=30,
            referers="site" if self.evasive and not scene.web else "none",
            focus=(int(rng.integers(2**31)), 6),
        )

    def _usage(
        self, scene: Scene, effort: Effort, sign_ups: Flow, template: str, n: int, rng: np.random.Generator
    ) -> Flow:
        """Use one account from the address it was made at: soon after it was made, or after it has aged."""
        aged = rng.random() < 0.45
        programmed = self.evasive and rng.random() < 0.7
        made = -float(rng.uniform(2, 45)) * DAY if aged else float(rng.choice(sign_ups.times))
        begin = float(rng.uniform(effort.start, effort.end)) if aged else made + float(rng.lognormal(3.0, 1.0))
        return Flow(
            family=self.name,
            malicious=True,
            times=pacing.walk(rng, n, begin, 30.0 if self.evasive else 2.0, 1.0 if self.evasive else 0.3),
            acts=acts(Act.CHAT, n),
            address=sign_ups.address,
            software=scene.software(rng, "sdk") if programmed else sign_ups.software,
            account=scene.account(rng, made),
            appetite="ordinary" if self.evasive else "tiny",
            prompts=prompts.wordings(rng, "ask", n) if self.evasive else prompts.fill(rng, template, n),
            limit=20,
            referers="none" if programmed else sign_ups.referers,
        )
