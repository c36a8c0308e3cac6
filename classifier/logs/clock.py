"""Turns down the lone line whose stamp lies more than a day ahead of its neighbours.

One bad stamp must not freeze everything that is counted in decayed sums, and yet a real gap (a quiet weekend) must not
cost the rest of a log. The rule, for each file by itself and in input order:

    The running clock is the largest accepted arrival so far. A line more than a day ahead of it is rejected when it is
    also more than a day ahead of the lower median of the next 15 arrivals of the file. At the very end of a file, where
    no arrival follows, it is rejected. The first line has no clock before it and is judged by those that follow.

So after a gap the first line is kept, for its followers lie as far ahead; a first line cannot poison the clock; and
eight bad stamps in a row are taken for a gap, after which nothing more is rejected. The rule looks at arrivals in
input order alone: how the file is cut into chunks plays no part.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from classifier.events import MICROSECONDS

DAY_US = 86_400 * MICROSECONDS
LOOKAHEAD = 15
AHEAD = "time is more than a day ahead of the lines around it"
_NEVER = -(2**62)
_WINDOW = 4_096


class Clock:
    """The running clock of one file, µs."""

    def __init__(self) -> None:
        self._now = _NEVER

    def judge(self, times: npt.NDArray[np.int64], final: bool) -> npt.NDArray[np.bool_]:
        """Decide about arrivals int64[n], µs, that follow those decided before; bool[m], true where accepted.

        m may be less than n: the rest needs more lines to be decided, and comes first in the next call. With `final`
        the file ends here and everything is decided.
        """
        accepted = np.ones(len(times), bool)
        at = 0
        while at < len(times):
            window = times[at : at + _WINDOW]
            running = np.maximum.accumulate(np.concatenate(([self._now], window)))
            ahead = np.flatnonzero(window > running[:-1] + DAY_US)
            if not len(ahead):
                self._now, at = int(running[-1]), at + len(window)
                continue
            first = int(ahead[0])
            following = times[at + first + 1 : at + first + 1 + LOOKAHEAD]
            self._now, at = int(running[first]), at + first
            if len(following) < LOOKAHEAD and not final:
                return accepted[:at]
            accepted[at] = self._believes(int(times[at]), following)
            if accepted[at]:
                self._now = int(times[at])
            at += 1
        return accepted

    def _believes(self, time: int, following: Any) -> bool:
        if not len(following):
            return self._now == _NEVER
        return time <= int(np.sort(following)[(len(following) - 1) // 2]) + DAY_US
