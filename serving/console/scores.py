"""Scores of the last hour, counted by minute: the histogram that is shown, and what other budgets would have done.

Any threshold that a stated budget can choose is a point of the manifest's curve of legitimate scores. So it is enough to count,
minute by minute, how many raw scores lie between two points, or a point and the least that a block takes otherwise: what a
budget would have done is then exact, with no score kept.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from classifier.policy import Thresholds, unresolved
from serving.gate import Gate
from serving.recent import Batch

MINUTES = 60
RECENT_MINUTES = 5
SCORES = 100
"""Scores run from 1 to 99; place 0 stays empty."""
BUDGETS = (0.0, *(float(f"{step}e-{power}") for power in (5, 4, 3, 2) for step in (1, 2, 5)), 0.1, 0.2)
"""Shares of legitimate requests that the slider offers, as far as the curve resolves them."""


class Scores:
    """Counts what one gate answers, in minutes of its own clock."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._of: Thresholds | None = None
        self._renew()

    def _renew(self) -> None:
        """Begin anew: another model has another curve, and its scores mean something else."""
        self._of = self._gate.thresholds
        self._curve = self._gate.model.bundle.manifest.policy_curve()
        least = self._curve.least_block
        self._points = np.unique([*self._curve.raw, *([least] if math.isfinite(least) else [])])
        self._raw = np.zeros((MINUTES, len(self._points) + 1), np.int64)
        self._scores = np.zeros((MINUTES, SCORES), np.int64)
        self._newest = -1

    def follow(self, batch: Batch) -> None:
        """Count what was answered."""
        if self._of is not self._gate.thresholds:
            self._renew()
        self.advance(int(batch.minute[-1]))
        slot = (batch.minute % MINUTES)[kept := batch.minute > self._newest - MINUTES]
        # As decisions compare: a raw score equal to a point has reached it.
        reached = np.searchsorted(self._points, batch.raw[kept].astype(np.float64), side="right")
        self._raw += _counted(slot, reached, self._raw.shape)
        self._scores += _counted(slot, batch.score[kept], self._scores.shape)

    def advance(self, minute: int) -> None:
        """Let time pass; minutes of the gate's clock."""
        if minute - self._newest >= MINUTES:
            self._raw[:], self._scores[:], self._newest = 0, 0, minute
        while self._newest < minute:
            self._newest += 1
            self._raw[self._newest % MINUTES], self._scores[self._newest % MINUTES] = 0, 0

    def histogram(self, width: int = 5) -> dict[str, Any]:
        """Return how many requests had scores of 1 to 5, 6 to 10 and so on: in the last minutes, and in the last hour."""
        recent = [(self._newest - back) % MINUTES for back in range(RECENT_MINUTES)]
        whole = self._scores.sum(axis=0)[1:]
        last = self._scores[recent].sum(axis=0)[1:]
        starts = np.arange(0, SCORES - 1, width)
        return {
            "width": width,
            "recent": np.add.reduceat(last, starts).tolist(),
            "hour": np.add.reduceat(whole, starts).tolist(),
            "minutes": RECENT_MINUTES,
        }

    def budgets(self) -> dict[str, Any]:
        """Return what each budget would have done in the last hour, by the model's score alone.

        `at` requests score at or above the threshold of a budget; `legitimate` is the share of validation's legitimate
        requests that do. The first budget is 0: nothing is done.
        """
        if self._of is not self._gate.thresholds:
            self._renew()
        reached = self._raw.sum(axis=0)
        # Of points[i]: all whose number of points reached is more than i.
        beyond = np.append(np.cumsum(reached[::-1])[::-1][1:], 0)
        steps = [
            self._step(budget, self._curve.threshold(budget), beyond)
            for budget in BUDGETS
            if unresolved(self._curve.rows, budget) is None
        ]
        thresholds = self._gate.thresholds
        return {
            "requests": int(reached.sum()),
            "minutes": MINUTES,
            "steps": steps,
            "now": {
                "challenge": self._step(None, thresholds.challenge, beyond),
                "block": self._step(None, thresholds.block, beyond),
            },
        }

    def _step(self, budget: float | None, threshold: float, beyond: npt.NDArray[np.int64]) -> dict[str, Any]:
        place = int(np.searchsorted(self._points, threshold, side="left"))
        shares = (0.0, 0.0) if math.isinf(threshold) else self._curve.shares(threshold)
        return {
            "budget": budget,
            "threshold": None if math.isinf(threshold) else round(threshold, 4),
            "at": int(beyond[place]) if place < len(self._points) else 0,
            "legitimate": round(max(shares), 6),
        }


def _counted(slot: npt.NDArray[np.int64], place: npt.NDArray[Any], shape: tuple[int, int]) -> npt.NDArray[np.int64]:
    flat = np.bincount(slot * shape[1] + place, minlength=shape[0] * shape[1])
    return flat.reshape(shape)
