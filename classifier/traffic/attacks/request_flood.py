"""Few hosts, many requests: to exhaust the service, or only to be in its way."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from classifier.traffic import pacing, prompts
from classifier.traffic.campaigns import shares
from classifier.traffic.family import AttackFamily, Effort
from classifier.traffic.flow import Act, Flow, Scene, mixed_acts, usual_cap

DAY = 86_400.0


class RequestFlood(AttackFamily):
    """A request flood by a handful of hosts."""

    name = "request_flood"
    source = "HTTP floods on DeepSeek reported by XLab, January 2025 (read as quoted)"
    share_of_clients = 0.10
    share_of_requests = 0.36
    lasts = (0.05, 0.35)

    def flows(self, scene: Scene, effort: Effort, rng: np.random.Generator) -> Iterator[Flow]:
        """Each host sends as fast as its rate, in one go when plain, in bursts when evasive."""
        shared_tool = scene.software(rng, "tool")
        target = rng.choice((Act.CHAT, Act.COMPLETION, Act.CHAT, Act.HOME))
        template = prompts.fixed_template(rng, "probe" if rng.random() < 0.6 else "job")
        focus = (int(rng.integers(2**31)), int(rng.integers(1, 4)))
        for n in shares(rng, effort.clients, effort.requests):
            mix = {Act(target): 0.85, Act.MODELS: 0.06, Act.DOCS: 0.05, Act.PROBE: 0.2 if scene.web else 0.01}
            owned = rng.random() < (0.95 if self.evasive else 0.6)
            if self.evasive:
                times = self._bursts(effort, n, rng)
                mix[Act.CHAT] = 0.8
            else:
                length = min(n / float(rng.lognormal(1.2, 0.8)), effort.span)
                begin = effort.start + float(rng.uniform(0, 0.3)) * max(effort.span - length, 0.0)
                times = pacing.renewal(rng, n, begin, length, float(rng.uniform(0.1, 0.7)))
            posing = rng.random() < (0.7 if scene.web else 0.1)
            yield Flow(
                family=self.name,
                malicious=True,
                times=times,
                acts=mixed_acts(rng, n, mix),
                address=scene.addresses(rng, 1, "datacenter" if rng.random() < 0.6 else "home")[0],
                software=scene.software(rng, "browser" if posing else "sdk") if self.evasive else shared_tool,
                account=scene.account(rng, -float(rng.lognormal(3.0, 1.5)) * DAY) if owned else None,
                credential=None if owned else [rng.bytes(8).hex()] * n,
                success=0.0,
                appetite="ordinary" if self.evasive else "tiny",
                max_tokens=usual_cap(rng, n),
                prompts=prompts.wordings(rng, "ask", n) if self.evasive else prompts.fill(rng, template, n),
                limit=float(rng.choice((300, 600, 6_000))),
                retries=1 if self.evasive else 0,
                referers="fake" if self.evasive and rng.random() < 0.3 else "none",
                focus=focus,
            )

    def _bursts(self, effort: Effort, n: int, rng: np.random.Generator) -> pacing.F64:
        """Spread n requests over bursts with pauses, at rates that heavy legitimate clients have too."""
        rate = float(rng.lognormal(-0.4, 0.7))
        length = min(n / rate, effort.span)
        begin = effort.start + float(rng.uniform(0, 1)) * max(effort.span - length, 0.0)
        return pacing.renewal(rng, n, begin, length, float(rng.uniform(0.9, 3.0)))
