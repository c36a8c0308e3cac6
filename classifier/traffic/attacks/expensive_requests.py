"""Few requests, each as expensive as the service allows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from classifier.traffic import hiding, prompts
from classifier.traffic.campaigns import shares
from classifier.traffic.family import AttackFamily, Effort, Parameters
from classifier.traffic.flow import Act, Flow, Scene, acts, usual_cap

LARGEST_INPUT = 120_000.0
"""Tokens of the longest prompt that the simulated service takes."""


class ExpensiveRequests(AttackFamily):
    """Huge prompts and the largest `max_tokens`: cost, without a rate that a limit would notice."""

    name = "expensive_requests"
    source = "unbounded consumption, OWASP top ten for LLM applications 2025, LLM10 (as commonly described)"
    hides = "long prompts between ordinary ones, lengths and caps of heavy tenants, accounts and pauses of people"
    needs = "tokens"
    parameters: ClassVar[Parameters] = {
        "gap_s": (5.0, 90.0),
        "input": (6_000.0, 90_000.0),
        "input_evasive": (900.0, 12_000.0),
        "long": (0.25, 0.6),
    }
    share_of_clients = 0.04
    share_of_requests = 0.03
    lasts = (0.2, 0.8)
    mimic_seen_by = ("input_tokens",)

    def flows(self, scene: Scene, effort: Effort, rng: np.random.Generator) -> Iterator[Flow]:
        """Each account sends few requests; when evasive, only some of them are long."""
        template = prompts.fixed_template(rng, "job")
        for n in shares(rng, effort.clients, effort.requests, 8.0, least=4):
            text = prompts.fill(rng, template, n)
            if self.evasive:
                times = hiding.human_hours(scene, effort, n, rng, float(rng.uniform(15, 60)))
                long = rng.random(n) < self.draw(rng, "long")
                cap = usual_cap(rng, n)
            else:
                times = hiding.in_one_go(effort, n, 1.0 / self.draw(rng, "gap_s"), float(rng.uniform(0.1, 0.8)), rng)
                long = np.ones(n, np.bool_)
                cap = np.full(n, float(rng.choice((8192, 16384, 32768))))
            spread = self.draw(rng, "input_evasive" if self.evasive else "input") * rng.lognormal(0.0, 0.5, n)
            yield Flow(
                family=self.name,
                malicious=True,
                times=times,
                acts=acts(Act.CHAT, n),
                address=hiding.rotating(scene, rng, n, 1 + int(rng.random() < 0.4))
                if self.evasive
                else scene.addresses(rng, 1, "datacenter")[0],
                software=hiding.borrowed_software(scene, rng, 0.1) if self.evasive else scene.software(rng, "tool"),
                account=hiding.bought_account(scene, rng),
                appetite="huge",
                input_tokens=np.minimum(np.where(long, spread, rng.lognormal(5.5, 1.0, n)), LARGEST_INPUT),
                output_tokens=rng.lognormal(5.3 if self.evasive else 8.0, 1.0, n),
                max_tokens=cap,
                prompts=hiding.covered(rng, text, 0.6) if self.evasive else text,
                model=None if self.evasive else "large-70b",
                limit=60,
                retries=1,
            )
