"""What has just been answered, handed on in bulk: to drift, the public status and the console.

The hot path appends once for each call of the scorer and does nothing else. Some times a second, what has gathered is passed to
whoever follows it, so that each follower works on arrays of many requests instead of on single ones.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from classifier.features import layout as at
from serving.gate import Answer, Arrival, Judged

log = logging.getLogger("botsieve.serving")

INTERVAL_S = 0.5
MOST_ROWS = 8_192
"""Requests that may wait to be passed on: beyond them it happens at once, so the memory is bounded."""


class Batch:
    """n requests that were scored and answered, in the order in which they arrived."""

    def __init__(self, arrivals: list[Arrival], answers: list[Answer], raw: npt.NDArray[np.float32]) -> None:
        """Take arrivals, their answers, and their raw scores, float32[n]."""
        self.arrivals, self.answers, self.raw = arrivals, answers, raw

    def __len__(self) -> int:
        return len(self.arrivals)

    @cached_property
    def time(self) -> npt.NDArray[np.int64]:
        """When they arrived, µs, int64[n]."""
        return np.array([arrival.time for arrival in self.arrivals], np.int64)

    @cached_property
    def client(self) -> npt.NDArray[np.uint64]:
        """Keyed hashes of their clients, uint64[n]."""
        hashes = np.concatenate([arrival.hashes for arrival in self.arrivals]).reshape(len(self), -1)
        return np.ascontiguousarray(hashes[:, at.H_CLIENT])

    def rows(self, places: Sequence[int]) -> npt.NDArray[np.float32]:
        """Return the feature rows of some of them, float32[len(places), features]. `places` must not be empty."""
        found = np.concatenate([self.arrivals[place].row for place in places])
        return found.reshape(len(places), -1)


Follower = Callable[[Batch], None]


class Recent:
    """Gathers what a gate answers, and passes it on."""

    def __init__(self) -> None:
        self.followers: list[Follower] = []
        self.failures = 0
        self._waiting: list[tuple[Sequence[Arrival], Sequence[Answer], Judged]] = []
        self._rows = 0

    def answered(self, arrivals: Sequence[Arrival], answers: Sequence[Answer], judged: Judged) -> None:
        """Take note of requests that were scored and answered together: the hook of the gate."""
        self._waiting.append((arrivals, answers, judged))
        self._rows += len(arrivals)
        if self._rows >= MOST_ROWS:
            self.pass_on()

    def pass_on(self) -> None:
        """Hand on what has gathered. A follower that fails is logged and counted, and changes no answer."""
        if not self._waiting:
            return
        waiting, self._waiting, self._rows = self._waiting, [], 0
        batch = Batch(
            [arrival for arrivals, _, _ in waiting for arrival in arrivals],
            [answer for _, answers, _ in waiting for answer in answers],
            np.concatenate([judged.raw for _, _, judged in waiting]),
        )
        for follower in self.followers:
            try:
                follower(batch)
            except Exception as error:  # whatever it is, decisions must not depend on who watches them
                self.failures += 1
                log.error("what was answered could not be followed", exc_info=error)

    async def keep(self) -> None:
        """Pass on some times a second, until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            self.pass_on()
