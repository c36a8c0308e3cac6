"""Histograms of features and scores, their distance, and how much of it is chance: what drift is measured with.

A histogram counts weights into bins between edges, and into one more for values that are missing. It also says how far another
sample of the same traffic would lie from it. Requests of one client resemble each other, and so do requests of one hour: a
thousand requests of three clients are closer to three observations than to a thousand. So the covariance V of the shares q is
estimated from clusters (the sandwich estimate of survey sampling, W. G. Cochran, "Sampling Techniques", 1977), once with a
client for a cluster and, where there are enough, once with an hour. The larger is kept:

    noise = Σ over bins of V_bb / q_b          degrees = noise² / Σ over bins of (V_bc² / (q_b q_c))

`noise` is the population stability index that is to be expected although nothing has changed, from this sample alone.
Nothing here needs a training library, so that a service can measure, too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from classifier.errors import BundleError
from classifier.events import MICROSECONDS
from classifier.model.bundle import Bundle

REFERENCE_FILE = "reference.json"
RAW = "raw"
"""Name of the raw score among the histograms."""
BINS = 10
LEAST_SHARE = 1e-3
"""Shares below it count as it: an empty bin would make the index infinite."""
HOUR = 3600 * MICROSECONDS
FEWEST_HOURS = 6
"""Hours of a log from which they say something of how hours differ."""

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Histogram:
    """Shares of a feature's values under weights: float64[len(edges) + 2], the last being that of missing ones."""

    edges: Floats
    shares: Floats
    noise: float
    degrees: float

    def below(self, value: float) -> float:
        """Return about which share of known values is smaller, read from the deciles; NaN where it is missing."""
        known = self.shares[:-1].sum()
        if np.isnan(value) or known == 0:
            return float("nan")
        place = int(np.searchsorted(self.edges, value, side="left"))
        return float((self.shares[:place].sum() + self.shares[place] / 2) / known)


@dataclass(frozen=True)
class Clusters:
    """Rows of n requests that resemble each other: their weights float64[n], and numbers from 0 of client and hour."""

    weight: Floats
    client: Places
    hour: Places

    @classmethod
    def of(cls, key: npt.NDArray[np.uint64], time: npt.NDArray[np.int64], stands_for: Floats) -> Clusters:
        """Number the clients `key` uint64[n] and the hours of `time` int64[n] µs, and weigh each client by sqrt(n).

        `stands_for` is how many requests a row stands for, float64[n].
        """
        client = np.unique(key, return_inverse=True)[1]
        hour = np.unique(time // HOUR, return_inverse=True)[1]
        return cls(stands_for / np.sqrt(np.bincount(client, stands_for))[client], client, hour)

    def take(self, index: npt.NDArray[np.bool_]) -> Clusters:
        """Return the chosen rows; the weights stay."""
        client = np.unique(self.client[index], return_inverse=True)[1]
        return Clusters(self.weight[index], client, np.unique(self.hour[index], return_inverse=True)[1])


def deciles(values: npt.NDArray[np.floating[Any]], weight: Floats) -> Floats:
    """Return the inner edges of at most `BINS` bins of about equal weight, rising float64; of no known value, none."""
    known = ~np.isnan(values)
    if not known.any():
        return np.empty(0)
    order = np.argsort(values[known], kind="stable")
    rising, mass = values[known][order].astype(np.float64), np.cumsum(weight[known][order])
    places = np.searchsorted(mass, np.arange(1, BINS) / BINS * mass[-1])
    return np.unique(rising[np.minimum(places, len(rising) - 1)])


def histogram(values: npt.NDArray[np.floating[Any]], edges: Floats, clusters: Clusters) -> Histogram:
    """Count values, float[n], into the bins between `edges`, and estimate how much the shares owe to chance."""
    known = ~np.isnan(values)
    place = np.where(known, np.searchsorted(edges, values, side="left"), len(edges) + 1)
    bins = len(edges) + 2
    shares = np.bincount(place, clusters.weight, bins) / clusters.weight.sum()
    numbers = [clusters.client]
    if int(clusters.hour.max()) + 1 >= FEWEST_HOURS:
        numbers.append(clusters.hour)
    noise, degrees = max(_noise(place, bins, shares, clusters.weight, number) for number in numbers)
    return Histogram(edges, shares, noise, degrees)


def _noise(place: Places, bins: int, shares: Floats, weight: Floats, cluster: Places) -> tuple[float, float]:
    count = int(cluster.max()) + 1
    sums = np.bincount(cluster * bins + place, weight, count * bins).reshape(count, bins)
    total = sums.sum(axis=1)
    rest = (sums - total[:, None] * shares) / (total.sum() * np.sqrt(np.maximum(shares, LEAST_SHARE)))
    scaled = rest.T @ rest * (count / max(count - 1, 1))
    noise, square = float(np.trace(scaled)), float((scaled**2).sum())
    if count == 1:  # one cluster says nothing of how clusters differ: as if it were one observation
        return float(bins - 1), 1.0
    return noise, noise**2 / square if square else 1.0


def stability_index(before: Floats, now: Floats) -> float:
    """Return the population stability index of two histograms over the same bins, float64[bins] each; 0 if they are equal."""
    q, p = np.maximum(before, LEAST_SHARE), np.maximum(now, LEAST_SHARE)
    return float(((p - q) * np.log(p / q)).sum())


def chance_limit(expected: float, degrees: float, level: float) -> float:
    """Return what a scaled chi-square of mean `expected` exceeds with probability `level`.

    The quantile is that of E. B. Wilson and M. M. Hilferty, "The Distribution of Chi-Square" (1931).
    """
    spread = 2.0 / (9.0 * max(degrees, 1.0))
    return expected * (1.0 - spread + NormalDist().inv_cdf(1.0 - level) * math.sqrt(spread)) ** 3


def read_reference(bundle: Bundle) -> dict[str, Histogram]:
    """Return the histograms of a bundle by feature name, and that of `RAW`. Raises BundleError where there are none."""
    try:
        content: Mapping[str, Any] = _reference(bundle)["features"]
        return {
            name: Histogram(
                np.array(entry["edges"], np.float64), np.array([*entry["shares"], entry["missing"]], np.float64),
                float(entry["noise"]), float(entry["degrees"]),
            )
            for name, entry in content.items()
        }  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise _other_version(bundle) from error


def read_fields(bundle: Bundle) -> dict[str, float]:
    """Return which share of training's clients had each event field; of a bundle that does not say, nothing."""
    try:
        return {str(name): float(share) for name, share in _reference(bundle).get("fields", {}).items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise _other_version(bundle) from error


def _reference(bundle: Bundle) -> Mapping[str, Any]:
    content: Mapping[str, Any] = json.loads(bundle.read(REFERENCE_FILE))
    return content


def _other_version(bundle: Bundle) -> BundleError:
    return BundleError(f"{REFERENCE_FILE} of the bundle {bundle.path} is of another version; train it again")
