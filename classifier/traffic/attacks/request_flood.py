"""Few hosts, many requests: to exhaust the service, or only to be in its way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from classifier.traffic import hiding, prompts
from classifier.traffic.campaigns import shares
from classifier.traffic.family import AttackFamily, Effort, Parameters
from classifier.traffic.flow import Act, Flow, Scene, mixed_acts, usual_cap


class RequestFlood(AttackFamily):
    """A request flood by a handful of hosts."""

    name = "request_flood"
    source = "HTTP floods on DeepSeek reported by XLab, January 2025 (read as quoted)"
    hides = "bursts at the rates of heavy legitimate clients, own accounts, ordinary prompts and sizes"
    needs = "volume"
    parameters: ClassVar[Parameters] = {
        "rate": (0.7, 15.0),
        "rate_evasive": (0.25, 1.6),
        "variation_evasive": (0.9, 3.0),
        "targets": (1, 4),
    }
    share_of_clients = 0.06
    share_of_requests = 0.20
    lasts = (0.05, 0.35)
    in_web = True

    def flows(self, scene: Scene, effort: Effort, rng: np.random.Generator) -> Iterator[Flow]:
        """Each host sends as fast as its rate, in one go when plain, in bursts when evasive."""
        shared_tool = scene.software(rng, "tool")
        target = rng.choice((Act.CHAT, Act.COMPLETION, Act.CHAT, Act.HOME))
        template = prompts.fixed_template(rng, "probe" if rng.random() < 0.6 else "job")
        focus = (int(rng.integers(2**31)), int(self.draw(rng, "targets")))
        for n in shares(rng, effort.clients, effort.requests):
            mix = {
                Act(int(target)): 0.85,
                Act.MODELS: 0.06,
                Act.DOCS: 0.05,
                Act.PROBE: 0.2 if scene.web and not self.evasive else 0.0,
            }
            owned = rng.random() < (0.95 if self.evasive else 0.6)
            if self.evasive:
                rate, variation = self.draw(rng, "rate_evasive"), self.draw(rng, "variation_evasive")
                mix[Act.CHAT] = 0.8
            else:
                rate, variation = self.draw(rng, "rate"), float(rng.uniform(0.1, 0.7))
            posing = 0.7 if scene.web else 0.1
            yield Flow(
                family=self.name,
                malicious=True,
                times=hiding.in_one_go(effort, n, rate, variation, rng),
                acts=mixed_acts(rng, n, mix),
                address=scene.addresses(rng, 1, "datacenter" if rng.random() < 0.6 else "home")[0],
                software=hiding.borrowed_software(scene, rng, posing) if self.evasive else shared_tool,
                account=hiding.bought_account(scene, rng, 20.0) if owned else None,
                credential=None if owned else [rng.bytes(8).hex()] * n,
                success=0.0,
                appetite="ordinary" if self.evasive else "tiny",
                max_tokens=usual_cap(rng, n),
                prompts=prompts.wordings(rng, "ask", n) if self.evasive else prompts.fill(rng, template, n),
                limit=float(rng.choice((300, 600, 6_000))),
                retries=1 if self.evasive else 0,
                referers="fake" if self.evasive and rng.random() < 0.3 else "none",
                focus=None if self.evasive else focus,
            )
