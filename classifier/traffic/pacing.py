"""When requests come: renewal processes of a given burstiness, sessions of people, timers, and the shape of the day.

All times are seconds since the start of the traffic, float64, and sorted unless said otherwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
_SHAPES = np.geomspace(0.12, 12.0, 240)
_WEIBULL_CV = np.array(
    [math.sqrt(max(math.exp(math.lgamma(1 + 2 / k) - 2 * math.lgamma(1 + 1 / k)) - 1, 1e-9)) for k in _SHAPES]
)


def weibull_shape(cv: float) -> float:
    """Return the Weibull shape k whose coefficient of variation is `cv` (clamped to what 0.12 <= k <= 12 reach).

    cv^2 = G(1 + 2/k) / G(1 + 1/k)^2 - 1, with G the gamma function.
    """
    return float(np.interp(cv, _WEIBULL_CV[::-1], _SHAPES[::-1]))


def gaps(rng: np.random.Generator, n: int, cv: float, pattern: str = "gamma") -> F64:
    """Draw n inter-arrival times of mean 1 and coefficient of variation `cv` (gamma or weibull)."""
    if pattern == "weibull":
        k = weibull_shape(cv)
        mean = math.exp(math.lgamma(1 + 1 / k))
        return np.asarray(rng.weibull(k, n) / mean, np.float64)
    shape = 1.0 / max(cv, 0.02) ** 2
    return np.asarray(rng.gamma(shape, 1.0 / shape, n), np.float64)


def renewal(
    rng: np.random.Generator, n: int, start: float, span: float, cv: float = 1.0, pattern: str = "gamma"
) -> F64:
    """Place exactly n arrivals in [start, start + span), their gaps of coefficient of variation `cv`.

    The gaps are scaled to fill the span, which keeps the rate exact and the cv close to what was asked for.
    """
    if n <= 0:
        return np.empty(0)
    between = gaps(rng, n + 1, cv, pattern)
    at = np.cumsum(between)
    return np.asarray(start + span * at[:-1] / max(float(at[-1]), 1e-12), np.float64)


def timer(rng: np.random.Generator, start: float, end: float, period: float, jitter: float = 0.01) -> F64:
    """Return the ticks of a timer in [start, end): each period s, each tick late by a share `jitter` of the period."""
    n = max(int((end - start) / period), 0)
    return np.sort(start + period * (np.arange(n) + rng.random(n) * jitter))


def thoughts(rng: np.random.Generator, n: int, median: float, sigma: float) -> F64:
    """Draw n log-normal think times in s: what passes between two requests of a person."""
    return rng.lognormal(math.log(median), sigma, n)


def walk(rng: np.random.Generator, n: int, start: float, median: float, sigma: float = 0.9) -> F64:
    """Return the n request times of one session that begins at `start`, with log-normal think times."""
    if n <= 0:
        return np.empty(0)
    return start + np.concatenate(([0.0], np.cumsum(thoughts(rng, n - 1, median, sigma))))


def sessions(rng: np.random.Generator, n: int, begins: F64, median: float, sigma: float = 0.9) -> F64:
    """Return n request times, shared among sessions that begin at `begins`, each with think times of its own."""
    parts = np.array_split(np.arange(n), len(begins))
    return np.concatenate([walk(rng, len(p), float(b), median, sigma) for b, p in zip(begins, parts, strict=True)])


@dataclass(frozen=True)
class Clock:
    """How activity is spread over a span: piecewise constant weights between `edges` (s)."""

    edges: F64
    weights: F64

    def draw(self, rng: np.random.Generator, n: int, low: float = 0.0, high: float = math.inf) -> F64:
        """Draw n moments within [low, high), as dense as the activity is; sorted."""
        total = np.concatenate(([0.0], np.cumsum(self.weights * np.diff(self.edges))))
        ends = np.interp([low, min(high, float(self.edges[-1]))], self.edges, total)
        if ends[1] <= ends[0]:
            return np.sort(rng.uniform(low, max(min(high, float(self.edges[-1])), low), n))
        return np.sort(np.interp(rng.uniform(ends[0], ends[1], n), total, self.edges))


def daily_clock(duration: float, first_hour: float, factors: F64) -> Clock:
    """Return the clock of `duration` s that begin at `first_hour` of the day, with one factor for each hour."""
    edges = np.arange(0.0, duration + 900.0, 900.0)
    edges[-1] = max(duration, edges[-2] + 1e-6)
    hours = (first_hour + edges[:-1] / 3600.0).astype(np.int64) % 24
    return Clock(edges, factors[hours])
