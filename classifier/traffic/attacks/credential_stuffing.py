"""Passwords and keys tried one after the other, half of it through VPN exits."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from classifier.traffic import pacing, prompts
from classifier.traffic.campaigns import shares
from classifier.traffic.family import AttackFamily, Effort
from classifier.traffic.flow import Act, Flow, Scene, acts, mixed_acts

DAY = 86_400.0
BROWSING = {Act.LOGIN_PAGE: 0.2, Act.HOME: 0.2, Act.DOCS: 0.15, Act.ASSET: 0.1}
"""What an evasive attacker does besides trying, for each trial."""


class CredentialStuffing(AttackFamily):
    """Logins or API keys from lists; what works is used for a few cheap requests."""

    name = "credential_stuffing"
    source = (
        "password brute force on DeepSeek, half through VPN exits, reported by XLab, January 2025; "
        "stolen keys reported by Sysdig as LLMjacking (read as quoted)"
    )
    share_of_clients = 0.18
    share_of_requests = 0.12
    lasts = (0.2, 0.7)

    def flows(self, scene: Scene, effort: Effort, rng: np.random.Generator) -> Iterator[Flow]:
        """Each address tries its part of the list; now and then one succeeds and is used."""
        tool = scene.software(rng, "tool")
        keys = rng.random() < 0.4  # API keys instead of passwords
        trial = {Act.MODELS: 0.5, Act.CHAT: 0.5} if keys else {Act.LOGIN: 1.0}
        around = BROWSING if self.evasive else {Act.LOGIN_PAGE: 0.02}
        enumerating = {Act.PROBE: 0.5} if scene.web else {}
        for n in shares(rng, effort.clients, effort.requests, least=5):
            address = scene.addresses(rng, 1, "vpn" if rng.random() < 0.5 else "home")[0]
            runs = scene.software(rng, "sdk" if keys and not scene.web else "browser") if self.evasive else tool
            yield Flow(
                family=self.name,
                malicious=True,
                times=self._times(scene, effort, n, rng),
                acts=mixed_acts(rng, n, {**trial, **around, **enumerating}),
                address=address,
                software=runs,
                credential=[rng.bytes(8).hex() for _ in range(n)],
                success=float(rng.uniform(0.05, 0.25)) if self.evasive else float(rng.uniform(0.0, 0.02)),
                appetite="tiny",
                prompts=prompts.wordings(rng, "probe", n),
                limit=60,
                referers="site" if self.evasive and not scene.web else "none",
                focus=(int(rng.integers(2**31)), 6),
            )
            if rng.random() < (0.6 if self.evasive else 0.25) and not scene.web:
                yield self._use(scene, effort, address, n, rng)

    def _times(self, scene: Scene, effort: Effort, n: int, rng: np.random.Generator) -> pacing.F64:
        if not self.evasive:
            length = min(n * float(rng.lognormal(0.0, 0.8)), effort.span)
            begin = effort.start + float(rng.uniform(0, 0.9)) * max(effort.span - length, 0.0)
            return pacing.renewal(rng, n, begin, length, float(rng.uniform(0.1, 0.9)))
        visits = scene.moments(rng, max(1, n // 8), effort.start, effort.end)
        parts = [pacing.walk(rng, len(part), float(begin), float(rng.uniform(10, 70)), 0.9)
                 for begin, part in zip(visits, np.array_split(np.arange(n), len(visits)), strict=True)]  # fmt: skip
        return np.concatenate(parts)

    def _use(self, scene: Scene, effort: Effort, address: str, n: int, rng: np.random.Generator) -> Flow:
        """Use a stolen account from the address that took it."""
        n = max(3, n // 2)
        begin = float(rng.uniform(effort.start, effort.end))
        return Flow(
            family=self.name,
            malicious=True,
            times=pacing.walk(rng, n, begin, 12.0 if self.evasive else 3.0),
            acts=acts(Act.CHAT, n),
            address=address,
            software=scene.software(rng, "sdk"),
            account=scene.account(rng, -float(rng.lognormal(5.0, 0.8)) * DAY),
            appetite="ordinary" if self.evasive else "tiny",
            prompts=prompts.wordings(rng, "ask" if self.evasive else "probe", n),
            limit=60,
        )
