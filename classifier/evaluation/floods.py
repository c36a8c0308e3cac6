"""Floods on a gateway at 60 % load, behind every defence, as rows of a table (`flood` has the scenarios)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from classifier.evaluation.flood import FLOODS, Scenario, flooded, played, surged
from classifier.evaluation.plan import Plan
from classifier.model.apply import Model

SEED, TIMES, ROUNDS = 101, 10.0, 5
"""The seed is the first from 100 on with which all legitimate requests are in time were nobody to attack: in some logs, one of
them that of 100, a burst just before fills the gateway."""


def scenarios(plan: Plan) -> Iterator[Scenario]:
    """Yield every flood in every grade, then the surge without an attack."""
    for family in FLOODS:
        for grade in plan.flood_grades:
            yield flooded(plan.flood_clients, SEED, family, grade, TIMES, "requests")
    yield surged(plan.flood_clients, SEED, TIMES)


def floods(plan: Plan, model: Model, step: Callable[[str], None]) -> list[dict[str, Any]]:
    """Return a row for each scenario and defence: shares of legitimate requests by what became of them."""
    rows = []
    for scenario in scenarios(plan):
        step(scenario.name)
        found = played(scenario, model, rounds=ROUNDS)
        for one in found.outcomes:
            ours = max(one.legitimate, 1)
            rows.append(
                {
                    "scenario": scenario.name,
                    "defence": one.name,
                    "legitimate": one.legitimate,
                    "attack": one.attack,
                    **{name: getattr(one, name) / ours for name in ("in_time", "late", "gave_up", "lost")},
                    "attack_tokens": one.attack_tokens_served / one.attack_tokens if one.attack_tokens else None,
                    "wait_p99": one.wait_p99,
                    "unsettled": found.enforced.unsettled / len(found.traffic),
                }
            )
    return rows
