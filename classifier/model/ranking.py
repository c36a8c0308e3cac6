"""How well raw scores rank attacks above legitimate traffic: ROC-AUC, PR-AUC and recall at a false-positive rate.

Everything is found from one sort, with a weight per client that may change (the bootstrap's). Ties are counted in full:
ROC-AUC takes half of them, PR-AUC is the average precision Σ (R_k − R_{k−1}) P_k over distinct scores, and recall at a
false-positive rate takes the lowest score at which the rate of legitimate rows *at or above* is still within it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]


def highest(score: npt.NDArray[np.floating], client: npt.NDArray[np.integer], clients: int) -> npt.NDArray[Any]:
    """Return the highest score of each client's rows, [clients] of the scores' dtype; -inf for one without rows.

    score [n] of floats; client [n], the place of each row's client among `clients`.
    """
    found = np.full(clients, -np.inf, score.dtype)
    np.maximum.at(found, client, score)
    return found


class Ranks(NamedTuple):
    """ROC-AUC and PR-AUC, float64[groups], and recall, float64[rates, groups]."""

    roc_auc: Floats
    pr_auc: Floats
    recall: Floats


class Ranking:
    """One sort of scores. Each group of positives (an attack family) is ranked against all negatives.

    raw        float32[n] scores; malicious bool[n]; client intp[n], the place of its client's weight
    group      intp[n], group number of each row from 0 without gaps among the malicious; of others it is ignored
    rates      false-positive rates at which recall is wanted
    requests   float64[n], how many requests each row stands for (None: one)
    Needs at least one row of each class.
    """

    def __init__(
        self,
        raw: npt.NDArray[np.float32],
        malicious: npt.NDArray[np.bool_],
        client: Places,
        group: Places,
        rates: tuple[float, ...],
        requests: Floats | None = None,
    ):
        requests = np.ones(len(raw)) if requests is None else requests
        negative, positive = np.flatnonzero(~malicious), np.flatnonzero(malicious)
        negative = negative[np.argsort(-raw[negative], kind="stable")]
        positive = positive[np.lexsort((-raw[positive], group[positive]))]
        self.rates = rates
        self.raw = raw[positive]
        self._negative_client, self._client = client[negative], client[positive]
        self._negative_requests, self._requests = requests[negative], requests[positive]
        descending = -raw[negative]
        self._at_or_above = np.searchsorted(descending, -self.raw, side="right")
        self._above = np.searchsorted(descending, -self.raw, side="left")
        of = group[positive]
        self._start = np.flatnonzero(np.append(True, of[1:] != of[:-1]))
        self._group = of
        last = np.append((self.raw[1:] != self.raw[:-1]) | (of[1:] != of[:-1]), True)
        ends = np.flatnonzero(last)
        self._tie_end = ends[np.cumsum(last) - last]

    def measure(self, weight: Floats) -> Ranks:
        """Measure with a weight per client, float64[clients]; each group and the negatives need a positive sum."""
        false = self._false(weight)
        own = weight[self._client] * self._requests
        at_or_above = false[self._at_or_above]
        true = np.cumsum(own)
        before = true[self._start] - own[self._start]
        true = true[self._tie_end] - before[self._group]
        total = self._sum(own)
        roc = 1.0 - self._sum(own * (at_or_above + false[self._above])) / (2.0 * total * false[-1])
        precision = true / np.maximum(true + at_or_above, np.finfo(np.float64).tiny)
        recall = [self._sum(own * (at_or_above <= rate * false[-1] * (1 + 1e-9))) / total for rate in self.rates]
        return Ranks(roc, self._sum(own * precision) / total, np.array(recall))

    def threshold(self, rate: float, weight: Floats) -> float | None:
        """Return the lowest positive score whose false-positive rate is within the rate; None if there is none."""
        false = self._false(weight)
        within = self.raw[false[self._at_or_above] <= rate * false[-1] * (1 + 1e-9)]
        return float(within.min()) if within.size else None

    def _false(self, weight: Floats) -> Floats:
        return np.append(0.0, np.cumsum(weight[self._negative_client] * self._negative_requests))

    def _sum(self, values: Floats) -> Floats:
        return np.asarray(np.add.reduceat(values, self._start))
