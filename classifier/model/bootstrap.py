"""Intervals by resampling clients.

Requests of one client resemble each other, so the client is what is drawn: with replacement, within its own family or
kind, so that no resample lacks a rare family. Intervals are percentile intervals at the 95 % level.
"""

from __future__ import annotations

import math
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
LEVEL = 0.95
FEWEST_CLIENTS = 5
"""With fewer clients a bootstrap says nothing, and no interval is given."""


class Figure(TypedDict):
    """One measured value with its interval. Where `value` is None, `reason` says why.

    A bound that is None beside a value is not known (too few clients) or, for a number of requests, without limit.
    """

    value: float | None
    low: float | None
    high: float | None
    reason: str | None


def missing(reason: str) -> Figure:
    """Return a figure that cannot be given."""
    return Figure(value=None, low=None, high=None, reason=reason)


def figure(value: float, resampled: Floats, clients: int) -> Figure:
    """Return a value with the interval of its resamples, float64[resamples]; infinities become None."""
    if clients < FEWEST_CLIENTS or resampled.size == 0:
        return Figure(value=_finite(value), low=None, high=None, reason=None)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail], method="inverted_cdf")
    return Figure(value=_finite(value), low=_finite(min(low, value)), high=_finite(max(high, value)), reason=None)


def share(value: float, resampled: Floats, clients: int) -> Figure:
    """Return a share in [0, 1] with its interval.

    Where no resample differs from 0 (or 1) the bootstrap knows nothing beyond the sample, so the bound is Clopper and
    Pearson's for none (or all) of that many clients, about 3.7 / clients. For figures that are no shares of clients
    (requests, tokens, areas under curves) that is a stand-in.
    """
    result = figure(value, resampled, clients)
    if result["low"] is not None and result["low"] == result["high"] and value in (0.0, 1.0):
        unseen = 1 - ((1 - LEVEL) / 2) ** (1 / clients)
        result["low"], result["high"] = (0.0, unseen) if value == 0.0 else (1 - unseen, 1.0)
    return result


class ClientResampler:
    """Draws how often each client counts. Clients are numbered so that those of one group follow each other."""

    def __init__(self, group: npt.NDArray[np.intp], seed: int):
        """`group` is the group number of each client, rising, intp[clients]."""
        size = np.bincount(group)
        self._size = size[group]
        self._start = (np.cumsum(size) - size)[group]
        self._random = np.random.default_rng(seed)

    def draw(self) -> Floats:
        """Return one resample: how often each client was drawn, float64[clients]."""
        picked = self._start + (self._random.random(len(self._start)) * self._size).astype(np.intp)
        return np.bincount(picked, minlength=len(picked)).astype(np.float64)


def _finite(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None
