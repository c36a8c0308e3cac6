"""Many addresses, each quiet, all asking the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from classifier.traffic import hiding, prompts
from classifier.traffic.campaigns import shares
from classifier.traffic.family import AttackFamily, Effort, Parameters
from classifier.traffic.flow import Account, Act, Flow, Scene, mixed_acts, usual_cap
from classifier.traffic.pacing import F64


class SlowBotnet(AttackFamily):
    """A botnet whose members stay below every limit and share a tool and a template."""

    name = "slow_botnet"
    source = "botnets of Mirai variants on DeepSeek reported by XLab, January 2025 (read as quoted)"
    hides = (
        "sessions like those of people, software of others, mostly accounts of its own, half of the prompts ordinary"
    )
    needs = "volume"
    parameters: ClassVar[Parameters] = {
        "variation": (0.05, 0.5),
        "pace_evasive": (8.0, 60.0),
        "covered": 0.5,
        "targets": (2, 8),
    }
    share_of_clients = 0.10
    share_of_requests = 0.08
    lasts = (0.3, 0.9)
    in_web = True

    def flows(self, scene: Scene, effort: Effort, rng: np.random.Generator) -> Iterator[Flow]:
        """Every member gets its share of the requests; plain ones tick like clocks, evasive ones pause like people."""
        tools = [scene.software(rng, "tool") for _ in range(1 if rng.random() < 0.6 else 2)]
        covers = [scene.software(rng, "browser" if scene.web or rng.random() < 0.4 else "sdk") for _ in range(4)]
        template = prompts.fixed_template(rng, "probe" if rng.random() < 0.5 else "job")
        stolen = [hiding.bought_account(scene, rng, 90.0) for _ in range(1 + effort.clients // 8)]
        focus = (int(rng.integers(2**31)), int(self.draw(rng, "targets")))
        probing = (0.35 if rng.random() < 0.5 else 0.05) if scene.web and not self.evasive else 0.0
        mix = {Act.CHAT: 0.8, Act.COMPLETION: 0.08, Act.MODELS: 0.06, Act.HOME: 0.06, Act.PROBE: probing}
        period = effort.span / max(effort.requests / effort.clients, 1.0)
        for n in shares(rng, effort.clients, effort.requests, least=5):
            account = self._account(scene, stolen, rng)
            text = prompts.fill(rng, template, n)
            if self.evasive:
                text = hiding.covered(rng, text, self.draw(rng, "covered"))
            yield Flow(
                family=self.name,
                malicious=True,
                times=self._times(scene, effort, n, period, rng),
                acts=mixed_acts(rng, n, mix),
                address=scene.addresses(rng, 1, "home" if rng.random() < 0.8 else "datacenter")[0],
                software=covers[int(rng.integers(4))] if self.evasive else tools[int(rng.integers(len(tools)))],
                account=account,
                credential=None if account else [rng.bytes(8).hex()] * n,
                success=0.0,
                appetite="ordinary" if self.evasive else "tiny",
                max_tokens=usual_cap(rng, n),
                prompts=text,
                limit=60,
                referers="fake" if self.evasive and rng.random() < 0.5 else "none",
                focus=None if self.evasive or rng.random() < 0.4 else focus,
            )

    def _account(self, scene: Scene, stolen: list[Account], rng: np.random.Generator) -> Account | None:
        """Choose an own account, one of few stolen ones that many members share, or none."""
        luck = rng.random()
        if self.evasive and luck < 0.75:
            return hiding.bought_account(scene, rng, 25.0)
        return stolen[int(rng.integers(len(stolen)))] if luck < (0.92 if self.evasive else 0.3) else None

    def _times(self, scene: Scene, effort: Effort, n: int, period: float, rng: np.random.Generator) -> F64:
        if self.evasive:
            return hiding.human_hours(scene, effort, n, rng, self.draw(rng, "pace_evasive"), 6)
        return hiding.in_one_go(effort, n, 1.0 / period, self.draw(rng, "variation"), rng)
