"""Many addresses, each quiet, all asking the same."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from classifier.traffic import pacing, prompts
from classifier.traffic.campaigns import shares
from classifier.traffic.family import AttackFamily, Effort
from classifier.traffic.flow import Account, Act, Flow, Scene, mixed_acts, usual_cap

DAY = 86_400.0


class SlowBotnet(AttackFamily):
    """A botnet whose members stay below every limit and share a tool and a template."""

    name = "slow_botnet"
    source = "botnet waves of Mirai variants on DeepSeek reported by XLab, January 2025 (read as quoted)"
    share_of_clients = 0.34
    share_of_requests = 0.26
    lasts = (0.3, 0.9)

    def flows(self, scene: Scene, effort: Effort, rng: np.random.Generator) -> Iterator[Flow]:
        """Every member gets its share of the requests; plain ones tick like clocks, evasive ones pause like people."""
        tools = [scene.software(rng, "tool") for _ in range(1 if rng.random() < 0.6 else 2)]
        covers = [scene.software(rng, "browser" if scene.web or rng.random() < 0.4 else "sdk") for _ in range(4)]
        template = prompts.fixed_template(rng, "probe" if rng.random() < 0.5 else "job")
        stolen = [scene.account(rng, -float(rng.lognormal(4.5, 1.0)) * DAY) for _ in range(1 + effort.clients // 8)]
        focus = (int(rng.integers(2**31)), int(rng.integers(2, 8)))
        probing = (0.35 if rng.random() < 0.5 else 0.05) if scene.web else 0.01
        mix = {Act.CHAT: 0.8, Act.COMPLETION: 0.08, Act.MODELS: 0.06, Act.HOME: 0.06, Act.PROBE: probing}
        period = effort.span / max(effort.requests / effort.clients, 1.0)
        for n in shares(rng, effort.clients, effort.requests, least=5):
            account = self._account(scene, stolen, rng)
            text = prompts.fill(rng, template, n)
            if self.evasive:
                other = prompts.wordings(rng, "ask", n)
                text = [t if keep else w for t, w, keep in zip(text, other, rng.random(n) < 0.5, strict=True)]
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
                focus=focus if rng.random() < 0.6 else None,
            )

    def _account(self, scene: Scene, stolen: list[Account], rng: np.random.Generator) -> Account | None:
        """Choose an own account, one of few stolen ones that many members share, or none."""
        luck = rng.random()
        if self.evasive and luck < 0.75:
            return scene.account(rng, -float(rng.lognormal(3.2, 1.5)) * DAY)
        return stolen[int(rng.integers(len(stolen)))] if luck < (0.92 if self.evasive else 0.3) else None

    def _times(self, scene: Scene, effort: Effort, n: int, period: float, rng: np.random.Generator) -> pacing.F64:
        if not self.evasive:
            length = min(n * period, effort.span)
            begin = effort.start + float(rng.uniform(0, max(effort.span - length, 0.0) + 1e-3))
            return pacing.renewal(rng, n, begin, length, float(rng.uniform(0.05, 0.5)))
        visits = np.sort(scene.moments(rng, max(1, n // 6), effort.start, effort.end))
        parts = [pacing.walk(rng, len(part), float(begin), float(rng.uniform(8, 60)), 1.0)
                 for begin, part in zip(visits, np.array_split(np.arange(n), len(visits)), strict=True)]  # fmt: skip
        return np.sort(np.concatenate(parts))
