"""How a log stamps time: to the second or finer, and whether the stamps of a published log still mean anything."""

from __future__ import annotations

from typing import Final

import numpy as np

from classifier.events import MICROSECONDS
from classifier.traffic.flow import I64

_MINUTE: Final = 60 * MICROSECONDS
SHUFFLED = 0.3
"""Share of lines stamped before the line above them from which a log that lost its minutes lost its seconds, too."""


class Stamps:
    """How a log stamps time: to the second or finer, at which minutes of the hour, and whether seconds mean anything.

    time int64[n], µs, in the order of the log's lines.
    """

    def __init__(self, time: I64):
        self._step = next((step for step in (MICROSECONDS, 1000, 1) if not np.any(time % step)), 1)
        minutes = np.unique(time // _MINUTE % 60)
        odd = len(time) >= 200 and len(minutes) <= 30 and int(np.ptp(time)) > 3 * 3600 * MICROSECONDS
        # Some published logs lost their minutes (every line at the fifth): attackers between them would stand out.
        self._minutes = minutes if odd else None
        # And their seconds: half of the lines stand before the one above them, where a server writes nearly in order.
        # Attackers with true seconds would be told by their pace, which nobody else in such a log has.
        self._shuffled = odd and float(np.mean(np.diff(time) < 0)) > SHUFFLED
        self._low, self._high = int(time.min()), int(time.max())

    def fit(self, time: I64, rng: np.random.Generator) -> I64:
        """Return times as this log would have stamped them."""
        if self._shuffled:
            time = time - time % _MINUTE + rng.integers(0, _MINUTE, len(time))
        fitted = time // self._step * self._step
        if self._minutes is not None:
            minute = fitted // _MINUTE % 60
            nearest = np.abs(self._minutes[None, :] - minute[:, None]).argmin(axis=1)
            fitted = fitted + (self._minutes[nearest] - minute) * _MINUTE
        return np.clip(fitted, self._low, self._high)
