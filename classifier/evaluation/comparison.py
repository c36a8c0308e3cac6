"""Ours beside the baselines: recall at the same false-positive rates on the same events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from classifier.evaluation.recall import RATES, Recalls
from classifier.model.bootstrap import LEVEL

OURS = "botsieve"


def compared(found: Mapping[str, Recalls], grades: list[str]) -> dict[str, Any]:
    """Return means over families of every method, and how ours stands to the best baseline of each grade and rate.

    `gone` is the share of the best baseline's misses that ours finds, `lead` the recall that ours is ahead of it; the best is
    chosen for each grade and rate by what it reached on these very events. Draws are paired.
    """
    means = [
        {"method": name, "grade": grade, "rate": RATES[rate], **_interval(*recalls.mean(rate, grade))}
        for name, recalls in found.items()
        for grade in grades
        for rate in range(len(RATES))
    ]
    against = []
    for grade in grades:
        for rate in range(len(RATES)):
            ours, drawn = found[OURS].mean(rate, grade)
            others = {name: recalls.mean(rate, grade) for name, recalls in found.items() if name != OURS}
            best = max(others, key=lambda name: others[name][0])
            theirs, their_drawn = others[best]
            gone = 1.0 - (1.0 - ours) / (1.0 - theirs) if theirs < 1.0 else None
            misses = np.maximum(1.0 - their_drawn, 1e-9)
            against.append(
                {
                    "grade": grade,
                    "rate": RATES[rate],
                    "best": best,
                    "best_recall": theirs,
                    "recall": ours,
                    "lead": _interval(ours - theirs, drawn - their_drawn),
                    "gone": None if gone is None else _interval(gone, 1.0 - (1.0 - drawn) / misses),
                    "ahead_of_every": bool(all(ours > other for other, _ in others.values())),
                }
            )
    return {"means": means, "against_best": against}


def table_of(recalls: Recalls) -> list[dict[str, Any]]:
    """Return recall with counts and intervals for each family, grade and rate."""
    return [
        {
            "family": cell.family,
            "grade": cell.grade,
            "rate": RATES[rate],
            "clients": len(cell.members),
            "campaigns": cell.campaigns,
            **{name: recalls.figure(rate, place)[name] for name in ("value", "low", "high")},
        }
        for place, cell in enumerate(recalls.cells)
        for rate in range(len(RATES))
    ]


def _interval(value: float, drawn: Any) -> dict[str, float | None]:
    if not len(drawn):
        return {"value": value, "low": None, "high": None}
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return {"value": float(value), "low": float(min(low, value)), "high": float(max(high, value))}
