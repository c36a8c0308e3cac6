"""Whether probabilities mean what they say: expected calibration error and the points of a reliability plot.

A log holds attacks in some proportion of its own, probabilities are stated at a prior. So each class is weighted to the
prior first; observed shares are then those one would see where attacks make up that share of requests.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]
ECE_BINS = 20
LOG_ODDS_STEP = 1.0
FEWEST_ROWS = 10
"""Rows a point of the plot must stand for."""


class BinShares(NamedTuple):
    """Mean probability and observed share of attacks in each bin, float64[bins] (NaN where empty), and its mass."""

    mass: Floats
    predicted: Floats
    observed: Floats

    def error(self) -> float:
        """Return the expected calibration error: Σ mass · |predicted − observed|."""
        return float(np.nansum(self.mass * np.abs(self.predicted - self.observed)))


class Reliability:
    """Requests in bins of their probability, to be measured with a weight per client."""

    def __init__(
        self,
        probability: Floats,
        malicious: npt.NDArray[np.bool_],
        client: Places,
        prior: float,
        bins: Places,
        requests: Floats,
    ):
        """`probability` float64[n], `malicious` bool[n] with both classes, `client` and `bins` intp[n].

        `requests` float64[n] is how many requests each row stands for.
        """
        self._count = int(bins.max()) + 1
        self._classes = [
            (mass, client[rows], bins[rows], probability[rows], requests[rows])
            for mass, rows in ((prior, malicious), (1 - prior, ~malicious))
        ]

    def measure(self, weight: Floats) -> BinShares:
        """Measure with a weight per client, float64[clients]."""
        sums = np.zeros(self._count)
        masses: list[Floats] = []
        for mass, client, bins, probability, requests in self._classes:
            own = weight[client] * requests
            own *= mass / own.sum()
            masses.append(np.bincount(bins, own, self._count).astype(np.float64))
            sums += np.bincount(bins, own * probability, self._count)
        total = masses[0] + masses[1]
        with np.errstate(invalid="ignore", divide="ignore"):
            return BinShares(total, sums / total, masses[0] / total)


def equal_mass_bins(probability: Floats, malicious: npt.NDArray[np.bool_], prior: float, requests: Floats) -> Places:
    """Return bins of equal mass after weighting to the prior, intp[n]; equal probabilities share a bin.

    `requests` float64[n] is how many requests each row stands for.
    """
    weight = requests * np.where(malicious, prior / requests[malicious].sum(), (1 - prior) / requests[~malicious].sum())
    order = np.argsort(probability, kind="stable")
    mass = np.cumsum(weight[order])
    edges = probability[order][np.searchsorted(mass, np.arange(1, ECE_BINS) / ECE_BINS).clip(max=len(order) - 1)]
    return np.searchsorted(np.unique(edges), probability, side="left")


def log_odds_bins(probability: Floats) -> Places:
    """Return bins one unit of log-odds wide, intp[n]: on that scale rare attacks and sure ones are seen alike."""
    p = np.clip(probability, 1e-9, 1 - 1e-9)
    place = np.floor(np.log(p / (1 - p)) / LOG_ODDS_STEP).astype(np.intp)
    return np.asarray(place - place.min())
