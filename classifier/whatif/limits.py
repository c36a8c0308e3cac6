"""Limits as gateways have them: so many requests, or tokens, a minute for each address or key."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
WINDOW_S = 60.0
_STEPS = 60


@dataclass(frozen=True, slots=True)
class Counted:
    """What a limit counts: `key` int64[n] (codes from 0) of who asks at `time` float64[n] (s, ascending), and `amount`."""

    time: Floats
    key: Places
    amount: Floats

    def take(self, rows: Flags) -> Counted:
        """Return the rows that are marked."""
        return Counted(self.time[rows], self.key[rows], self.amount[rows])

    def refused(self, limit: float) -> Flags:
        """Mark what a limit of so much a minute refuses, bool[n].

        A leaky bucket: it drains by `limit` a minute, takes what is let through and refuses while it is full, so that a
        minute's worth may come at once. What is refused is not counted. Tokens are counted when a request comes, as
        if the gateway knew its answer's length: a limit on tokens can only be worse than that.
        """
        keys = int(self.key.max(initial=-1)) + 1
        return np.asarray(_refused(self.time, self.key, self.amount, float(limit), WINDOW_S, keys))


def tuned(counted: Counted, share: float) -> float:
    """Return the lowest limit (a minute) that refuses at most `share` of these requests, to about 1e-4 of itself."""
    if not len(counted.time):
        raise ValueError("there are no requests to tune a limit on")
    high = 1.0
    while float(np.mean(counted.refused(high))) > share:
        high *= 2
    low = high / 2 if high > 1 else 1e-6
    for _ in range(_STEPS):
        if high / low < 1.0001:
            break
        middle = float(np.sqrt(low * high))
        if float(np.mean(counted.refused(middle))) > share:
            low = middle
        else:
            high = middle
    return high


@njit(cache=True, nogil=True)
def _refused(time, key, amount, limit, window, keys):  # type: ignore[no-untyped-def]
    level, last = np.zeros(keys), np.zeros(keys)
    refused = np.zeros(len(time), np.bool_)
    for i in range(len(time)):
        k = key[i]
        level[k] = max(level[k] - (time[i] - last[k]) * limit / window, 0.0)
        last[k] = time[i]
        if level[k] >= limit:
            refused[i] = True
        else:
            level[k] += amount[i]
    return refused
