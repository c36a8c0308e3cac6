"""Connections that are kept: requests whose bodies come slowly, answers that are read slowly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import numpy as np

from classifier.traffic import hiding, prompts
from classifier.traffic.campaigns import shares
from classifier.traffic.family import AttackFamily, Change, Effort, Parameters
from classifier.traffic.flow import INFERENCE, Act, Flow, Scene, mixed_acts
from classifier.traffic.pacing import F64


class SlowRequests(AttackFamily):
    """Slow requests that hold connections until there are none left."""

    name = "slow_requests"
    source = "slow HTTP attacks, CAPEC-469 and the R.U.D.Y. and Slowloris tools (as commonly described)"
    hides = "only some connections are kept, no longer than long streamed answers take, from several addresses"
    needs = "connections"
    parameters: ClassVar[Parameters] = {
        "hold_s": (60.0, 500.0),
        "hold_s_evasive": (4.0, 45.0),
        "held_evasive": (0.2, 0.5),
        "held_mimic": (0.06, 0.25),
    }
    share_of_clients = 0.04
    share_of_requests = 0.03
    lasts = (0.2, 0.7)
    in_web = True
    seen_by = ("duration",)

    def flows(self, scene: Scene, effort: Effort, rng: np.random.Generator) -> Iterator[Flow]:
        """Each client opens connection after connection and keeps it."""
        tool = scene.software(rng, "tool")
        mix = {Act.CHAT: 0.8, Act.DOCS: 0.2} if self.evasive else {Act.CHAT: 0.7, Act.HOME: 0.3}
        for n in shares(rng, effort.clients, effort.requests, 8.0, least=5):
            owned = rng.random() < (0.9 if self.evasive else 0.5)
            if self.evasive:
                times = hiding.human_hours(scene, effort, n, rng, float(rng.uniform(5, 30)), 12)
            else:
                times = hiding.in_one_go(effort, n, float(rng.uniform(0.1, 1.0)), float(rng.uniform(0.1, 0.6)), rng)
            yield Flow(
                family=self.name,
                malicious=True,
                times=times,
                acts=mixed_acts(rng, n, mix),
                address=hiding.rotating(scene, rng, n, 1 + int(rng.random() < 0.5))
                if self.evasive
                else scene.addresses(rng, 1, "datacenter")[0],
                software=hiding.borrowed_software(scene, rng) if self.evasive else tool,
                account=hiding.bought_account(scene, rng) if owned else None,
                credential=None if owned else [rng.bytes(8).hex()] * n,
                success=0.0,
                appetite="ordinary" if self.evasive else "tiny",
                prompts=prompts.wordings(rng, "ask", n),
                stream=self.evasive,
                limit=60,
                hold=self._holds(n, rng),
                referers="site" if self.evasive and scene.web else "none",
            )

    def _holds(self, n: int, rng: np.random.Generator) -> F64:
        if not self.evasive:
            return self.draw(rng, "hold_s") * rng.lognormal(0.0, 0.3, n)
        held = rng.random(n) < self.draw(rng, "held_evasive")
        return np.where(held, self.draw(rng, "hold_s_evasive") * rng.lognormal(0.0, 0.6, n), 0.0)

    def purpose(self, scene: Scene, effort: Effort, rng: np.random.Generator) -> Change:
        """Keep some connections of the replayed client as long as long answers take."""

        def keep(flow: Flow) -> Flow:
            n = len(flow)
            able = np.isin(flow.acts, INFERENCE) if not scene.web else np.ones(n, np.bool_)
            held = able & (rng.random(n) < self.draw(rng, "held_mimic"))
            return replace(
                flow, hold=np.where(held, self.draw(rng, "hold_s_evasive") * rng.lognormal(0.0, 0.6, n), 0.0)
            )

        return keep
