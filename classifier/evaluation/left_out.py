"""What a model finds that it has never seen: trained without a family, or without a grade, and asked for it.

Every model here is smaller than the shipped one and trained on the same rows but for those left out, the one called `seen` on all
of them; they are compared with one another, on at most `JUDGED` requests of each client.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from classifier.evaluation.judging import evenly, grown, learn, parts_of, smaller
from classifier.evaluation.recall import RATES, Recalls
from classifier.evaluation.requests import Requests, kept
from classifier.features.spec import NAMES
from classifier.model.dataset import Dataset
from classifier.model.ranking import highest

GROWN, JUDGED = 4, 64
TREES = (40, 20)
"""Own and group trees."""


def left_out(
    train: Requests,
    test: Requests,
    limit: float,
    resamples: int,
    families: Sequence[str] | None,
    step: Callable[[str], None],
) -> dict[str, Any]:
    """Return recall seen and left out for each of `families` (all if None) by grade, and for each grade by family."""
    data, judged = grown(train, GROWN), kept(test, evenly(test, JUDGED))
    grade = train.clients.grade[data.client.astype(np.int64)]
    asked = list(families or test.clients.families())

    def recalls(of: Dataset) -> Recalls:
        forest = learn(of, smaller(TREES)).forest(len(NAMES))
        raw = parts_of(forest, judged.rows).raw(limit)
        return Recalls(highest(raw, judged.client, len(judged.clients)), judged.clients, RATES, resamples)

    step("with everything")
    seen = recalls(data)
    by_family, by_grade = [], []
    for family in asked:
        step(f"without {family}")
        by_family += _rows(seen, recalls(data.take(data.family != family)), family)
    for one in test.clients.grades():
        step(f"without {one}")
        by_grade += _rows(seen, recalls(data.take(grade != one)), one)
    return {"family": by_family, "grade": by_grade, "trees": list(TREES), "grown": len(data), "judged": len(judged)}


def _rows(seen: Recalls, without: Recalls, left: str) -> list[dict[str, Any]]:
    """Return the rows of the family or grade that was left out."""
    return [
        {
            "family": cell.family,
            "grade": cell.grade,
            "rate": RATES[rate],
            "clients": len(cell.members),
            "campaigns": cell.campaigns,
            "seen": float(seen.value[rate, place]),
            **{name: without.figure(rate, place)[name] for name in ("value", "low", "high")},
        }
        for place, cell in enumerate(without.cells)
        if left in (cell.family, cell.grade)
        for rate in range(len(RATES))
    ]
