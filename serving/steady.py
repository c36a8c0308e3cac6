"""Time that goes on evenly, whatever is done to the machine's clock."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable

log = logging.getLogger("botsieve.serving")

LEAP_S = 5.0
"""What the machine's clock may gain or lose between two looks; more is a leap. NTP's slewing is far below it."""


def _since_boot() -> float:
    """Return seconds that go on while the machine sleeps, too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Steady:
    """Unix seconds by the machine's clock, but for its leaps.

    A profile that has seen a wrong year would stand still until that year comes, and a clock that is set back an hour would
    stop time for an hour. So a leap is not followed: time goes on as it would have, and `leaps` counts it.
    """

    def __init__(
        self,
        reached: float = -math.inf,
        wall: Callable[[], float] = time.time,
        even: Callable[[], float] = _since_boot,
    ) -> None:
        """Begin now, or at `reached` (Unix s), where what is remembered is already there."""
        self._wall, self._even = wall, even
        self._last, self._beat = wall(), even()
        self._ahead = max(reached - self._last, 0.0)
        self.leaps = 0
        self._looking = threading.Lock()  # a leap that two threads saw would be taken off twice
        if self._ahead > LEAP_S:
            log.warning(
                "the clock is behind what is remembered; time goes on from there", extra={"seconds": self._ahead}
            )

    def __call__(self) -> float:
        """Return the time, Unix seconds; any thread may ask."""
        with self._looking:
            now, beat = self._wall(), self._even()
            leap = (now - self._last) - (beat - self._beat)
            self._last, self._beat = now, beat
            if abs(leap) > LEAP_S:
                self._ahead -= leap
                self.leaps += 1
                log.warning("the machine's clock leapt; time goes on without it", extra={"seconds": leap})
            return now + self._ahead
