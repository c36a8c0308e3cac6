"""A flood through open proxies: thousands of addresses, a few requests from each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from classifier.traffic import hiding, prompts
from classifier.traffic.campaigns import shares
from classifier.traffic.family import AttackFamily, Effort, Parameters
from classifier.traffic.flow import Act, Flow, Scene, mixed_acts, usual_cap


class ProxyFlood(AttackFamily):
    """An HTTP-proxy flood: one script whose requests leave through as many addresses as can be had."""

    name = "proxy_flood"
    source = (
        "HTTP-proxy floods from hundreds to thousands of addresses on DeepSeek, XLab, January 2025 (read as quoted)"
    )
    hides = "residential proxies, several accounts, other software at each exit, sizes and pauses of people"
    needs = "volume"
    parameters: ClassVar[Parameters] = {
        "rate": (0.1, 2.0),
        "pace_evasive": (3.0, 25.0),
        "exits_each": (1.0, 4.0),
        "covered": (0.3, 0.8),
    }
    share_of_clients = 0.12
    share_of_requests = 0.14
    lasts = (0.05, 0.4)
    in_web = True

    def flows(self, scene: Scene, effort: Effort, rng: np.random.Generator) -> Iterator[Flow]:
        """Each address gets its part of the requests: at once when plain, in sessions when evasive."""
        tool = scene.software(rng, "tool")
        template = prompts.fixed_template(rng, "probe" if rng.random() < 0.4 else "job")
        focus = (int(rng.integers(2**31)), 2)
        shared = [hiding.bought_account(scene, rng, 20.0) for _ in range(1 + effort.clients // 6)]
        share = self.draw(rng, "covered")
        mix = {
            Act.CHAT: 0.75,
            Act.COMPLETION: 0.1,
            Act.HOME: 0.1,
            Act.MODELS: 0.05,
            Act.PROBE: 0.1 if scene.web and not self.evasive else 0.0,
        }
        for n in shares(rng, effort.clients, effort.requests, least=4):
            text = prompts.fill(rng, template, n)
            if self.evasive:
                owned = rng.random() < 0.9
                account = hiding.bought_account(scene, rng) if owned else None
                times = hiding.human_hours(scene, effort, n, rng, self.draw(rng, "pace_evasive"), 10)
                runs = hiding.borrowed_software(scene, rng)
                address = hiding.rotating(scene, rng, n, round(self.draw(rng, "exits_each")))
                text = hiding.covered(rng, text, share)
            else:
                account = shared[int(rng.integers(len(shared)))] if rng.random() < 0.4 else None
                times = hiding.in_one_go(effort, n, self.draw(rng, "rate"), float(rng.uniform(0.2, 1.2)), rng)
                runs, address = tool, scene.addresses(rng, 1, "datacenter" if rng.random() < 0.7 else "home")[0]
            yield Flow(
                family=self.name,
                malicious=True,
                times=times,
                acts=mixed_acts(rng, n, mix),
                address=address,
                software=runs,
                account=account,
                credential=None if account else [rng.bytes(8).hex()] * n,
                success=0.0,
                appetite="ordinary" if self.evasive else "tiny",
                max_tokens=usual_cap(rng, n),
                prompts=text,
                limit=60,
                retries=1 if self.evasive else 0,
                referers="site" if self.evasive and runs.kind == "browser" else "none",
                focus=None if self.evasive or rng.random() < 0.5 else focus,
            )
