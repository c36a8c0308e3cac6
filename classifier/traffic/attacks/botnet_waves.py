"""A botnet that attacks in waves: its members are told to begin, and they all begin."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from classifier.traffic import hiding, pacing, prompts
from classifier.traffic.campaigns import shares
from classifier.traffic.family import AttackFamily, Effort, Parameters
from classifier.traffic.flow import Act, Flow, Scene, mixed_acts, usual_cap


class BotnetWaves(AttackFamily):
    """Waves of a botnet of Mirai's kind: infected home devices that start together and stop together."""

    name = "botnet_waves"
    source = "two Mirai variants that attacked DeepSeek in waves, reported by XLab, January 2025 (read as quoted)"
    hides = "starts that are minutes apart, software and sizes of others, accounts of its own, prompts that differ"
    needs = "waves"
    parameters: ClassVar[Parameters] = {
        "waves": (2, 6),
        "wave_s": (60.0, 600.0),
        "late_s": 4.0,
        "late_s_evasive": 400.0,
        "covered": (0.3, 0.8),
    }
    share_of_clients = 0.10
    share_of_requests = 0.10
    lasts = (0.3, 0.9)
    in_web = True

    def flows(self, scene: Scene, effort: Effort, rng: np.random.Generator) -> Iterator[Flow]:
        """Each member takes part in most waves, a little late, and is still in between."""
        tool = scene.software(rng, "tool")
        template = prompts.fixed_template(rng, "probe" if rng.random() < 0.6 else "job")
        starts = np.sort(rng.uniform(effort.start, effort.end, int(self.draw(rng, "waves"))))
        length, focus = self.draw(rng, "wave_s"), (int(rng.integers(2**31)), 3)
        share = self.draw(rng, "covered")
        mix = {
            Act.CHAT: 0.8,
            Act.HOME: 0.15,
            Act.MODELS: 0.05,
            Act.PROBE: 0.2 if scene.web and not self.evasive else 0.0,
        }
        for n in shares(rng, effort.clients, effort.requests, 8.0, least=5):
            joined = starts[rng.random(len(starts)) < 0.8] if len(starts) > 1 else starts
            joined = joined if len(joined) else starts[:1]
            account = hiding.bought_account(scene, rng, 20.0) if rng.random() < (0.9 if self.evasive else 0.3) else None
            text = prompts.fill(rng, template, n)
            runs = hiding.borrowed_software(scene, rng) if self.evasive else tool
            yield Flow(
                family=self.name,
                malicious=True,
                times=self._times(joined, n, length, rng),
                acts=mixed_acts(rng, n, mix),
                address=scene.addresses(rng, 1, "home" if rng.random() < 0.85 else "mobile")[0],
                software=runs,
                account=account,
                credential=None if account else [rng.bytes(8).hex()] * n,
                success=0.0,
                appetite="ordinary" if self.evasive else "tiny",
                max_tokens=usual_cap(rng, n),
                prompts=hiding.covered(rng, text, share) if self.evasive else text,
                limit=60,
                retries=1 if self.evasive else 0,
                referers="site" if self.evasive and runs.kind == "browser" else "none",
                focus=None if self.evasive or rng.random() < 0.4 else focus,
            )

    def _times(self, waves: pacing.F64, n: int, length: float, rng: np.random.Generator) -> pacing.F64:
        late = self.draw(rng, "late_s_evasive" if self.evasive else "late_s")
        parts = np.array_split(np.arange(n), len(waves))
        if self.evasive:
            begins = waves + rng.exponential(late, len(waves))
            return pacing.sessions(rng, n, begins, float(rng.uniform(4, 30)), 1.0)
        return np.concatenate([
            pacing.renewal(rng, len(part), float(begin + rng.exponential(late)), length, float(rng.uniform(0.1, 0.6)))
            for begin, part in zip(waves, parts, strict=True)
        ])  # fmt: skip
