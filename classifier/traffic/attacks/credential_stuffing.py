"""Passwords and keys tried one after the other, half of it through VPN exits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import numpy as np

from classifier.traffic import hiding, pacing, prompts
from classifier.traffic.campaigns import shares
from classifier.traffic.family import AttackFamily, Change, Effort, Parameters
from classifier.traffic.flow import Act, Flow, Scene, acts, mixed_acts

BROWSING = {Act.LOGIN_PAGE: 0.2, Act.HOME: 0.2, Act.DOCS: 0.15, Act.ASSET: 0.1}
"""What an evasive attacker does besides trying, for each trial."""


class CredentialStuffing(AttackFamily):
    """Logins or API keys from lists; what works is used for a few cheap requests."""

    name = "credential_stuffing"
    source = (
        "password brute force on DeepSeek, half through VPN exits, reported by XLab, January 2025; "
        "stolen keys reported by Sysdig as LLMjacking (read as quoted)"
    )
    hides = "one or two trials from each address, pages around them as people load them, pauses, fresh lists"
    needs = "log-ins"
    parameters: ClassVar[Parameters] = {
        "gap_s": (0.3, 4.0),
        "success": (0.0, 0.02),
        "success_evasive": (0.05, 0.25),
        "success_mimic": (0.15, 0.3),
        "keys": 0.4,
        "vpn": 0.5,
        "pace_s_evasive": (10.0, 70.0),
        "stretch_evasive": (3.0, 8.0),
    }
    share_of_clients = 0.08
    share_of_requests = 0.07
    lasts = (0.2, 0.7)
    replays = (Act.LOGIN,)
    in_web = True

    def flows(self, scene: Scene, effort: Effort, rng: np.random.Generator) -> Iterator[Flow]:
        """Each address tries its part of the list; now and then one succeeds and is used."""
        tool = scene.software(rng, "tool")
        keys = rng.random() < self.draw(rng, "keys")  # API keys instead of passwords
        trial = {Act.MODELS: 0.5, Act.CHAT: 0.5} if keys else {Act.LOGIN: 1.0}
        around = BROWSING if self.evasive else {Act.LOGIN_PAGE: 0.02}
        enumerating = {Act.PROBE: 0.5} if scene.web else {}
        for n in shares(rng, effort.clients, effort.requests, least=5):
            address = self._address(scene, n, rng)
            runs = scene.software(rng, "sdk" if keys and not scene.web else "browser") if self.evasive else tool
            yield Flow(
                family=self.name,
                malicious=True,
                times=self._times(scene, effort, n, rng),
                acts=mixed_acts(rng, n, {**trial, **around, **enumerating}),
                address=address,
                software=runs,
                credential=[rng.bytes(8).hex() for _ in range(n)],
                success=self.draw(rng, "success_evasive" if self.evasive else "success"),
                appetite="tiny",
                prompts=prompts.wordings(rng, "probe", n),
                limit=60,
                referers="site" if self.evasive and not scene.web else "none",
                focus=None if self.evasive else (int(rng.integers(2**31)), 6),
            )
            if rng.random() < (0.6 if self.evasive else 0.25) and not scene.web:
                yield self._use(scene, effort, address if isinstance(address, str) else address[-1], n, rng)

    def _address(self, scene: Scene, n: int, rng: np.random.Generator) -> str | list[str]:
        vpn = self.draw(rng, "vpn")
        if not self.evasive:
            return scene.addresses(rng, 1, "vpn" if rng.random() < vpn else "home")[0]
        stretch = self.draw(rng, "stretch_evasive")
        return hiding.rotating(scene, rng, n, max(1, round(n / stretch)), stretch, vpn)

    def _times(self, scene: Scene, effort: Effort, n: int, rng: np.random.Generator) -> pacing.F64:
        if self.evasive:
            return np.sort(hiding.human_hours(scene, effort, n, rng, self.draw(rng, "pace_s_evasive")))
        return hiding.in_one_go(effort, n, 1.0 / self.draw(rng, "gap_s"), float(rng.uniform(0.1, 0.9)), rng)

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
            account=hiding.bought_account(scene, rng, 150.0),
            appetite="ordinary" if self.evasive else "tiny",
            prompts=prompts.wordings(rng, "ask" if self.evasive else "probe", n),
            limit=60,
        )

    def purpose(self, scene: Scene, effort: Effort, rng: np.random.Generator) -> Change:
        """Try other passwords where the replayed client logs in; what it did with its account follows a success only."""
        success = self.draw(rng, "success_mimic")

        def change(flow: Flow) -> Flow:
            trying = bool((flow.acts == Act.LOGIN).any())
            if trying:
                tried = [rng.bytes(8).hex() for _ in range(len(flow))]
                return replace(flow, success=success, credential=tried)
            return flow if flow.account is None or rng.random() < success else flow.take(np.empty(0, np.int64))

        return change
