"""Campaigns: each attack family acts several times, with other parameters, sizes, grades and hours each time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from classifier.traffic.family import AttackFamily, Chosen, Effort
from classifier.traffic.flow import Flow, Scene

CAMPAIGNS = (2, 6)
"""Least and most campaigns of one family; there is at least one for each of its grades."""
PER_CAMPAIGN = 4.0
"""Attackers of each campaign below which there are fewer campaigns."""


@dataclass(frozen=True)
class Campaign:
    """One campaign of a family."""

    number: int
    family: AttackFamily
    effort: Effort

    def flows(self, scene: Scene, rng: np.random.Generator) -> Iterator[Flow]:
        """Write its flows; flows without requests are left out."""
        return (flow for flow in self.family.campaign(scene, self.effort, rng) if len(flow))


def plan(what: Chosen, clients: float, requests: float, span: float, rng: np.random.Generator) -> list[Campaign]:
    """Divide a family's attackers and requests among campaigns all over the span (s).

    Each campaign has its middle in a part of the span of its own: where a log is cut in two, both have attackers.
    """
    least, most = CAMPAIGNS
    n = int(np.clip(clients / PER_CAMPAIGN, max(least, len(what.grades)), most))
    weights = rng.dirichlet(np.full(n, 12.0))
    first = int(rng.integers(len(what.grades)))
    middles = (np.arange(n) + rng.uniform(0.1, 0.9, n)) / n * span
    campaigns = []
    for i, (middle, weight) in enumerate(zip(middles, weights, strict=True)):
        length = float(rng.uniform(*what.family.lasts)) * span
        begin = max(float(middle) - length / 2, 0.0)
        effort = Effort(
            clients=max(1, round(clients * float(weight))),
            requests=max(1, round(requests * float(weight))),
            start=begin,
            end=min(begin + length, span),
        )
        grade = what.grades[(first + i) % len(what.grades)]
        campaigns.append(Campaign(i, what.family(grade), effort))
    return campaigns


def shares(rng: np.random.Generator, n: int, total: int, evenness: float = 3.0, least: int = 1) -> list[int]:
    """Divide `total` requests among n attackers, unevenly, at least `least` each."""
    return [max(least, round(total * float(w))) for w in rng.dirichlet(np.full(n, evenness))]
