"""What has just been answered, handed on in bulk: to drift, the public status and the console.

The hot path puts down two numbers a request and keeps a few of the requests. Once a second this is passed to whoever
follows it, so that each follower works on arrays of many requests instead of on single ones. Keeping every request, even for some
ms, would cost more than all the rest: what is freed at once lies in the same memory again, and what is kept does not.
"""

from __future__ import annotations

import asyncio
import logging
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from classifier.features import layout as at
from classifier.situation import MINUTE_US
from serving.gate import Answer, Arrival, Judged

log = logging.getLogger("botsieve.serving")

MOST_ROWS = 8_192
"""Requests whose numbers may wait to be passed on: beyond them it happens at once, so the memory is bounded."""
SAMPLE = 128
"""Requests that are kept of those that wait, at most: every one, or every second, fourth, eighth one."""
ACTED = 128
"""The same, of those that were challenged or blocked."""


class Sample:
    """Every `step`-th of a sequence of requests whose length is not known before, at most `most` of them, in order."""

    def __init__(self, most: int, step: int = 1) -> None:
        self.most, self.step = most, step
        self.arrivals: list[Arrival] = []
        self.answers: list[Answer] = []
        self.due = 0
        """Place in the sequence of the next request that is wanted."""
        self.count = 0
        """Requests so far, as of the last that were wanted."""

    def __len__(self) -> int:
        return len(self.arrivals)

    def take(self, begin: int, arrivals: Sequence[Arrival], answers: Sequence[Answer]) -> None:
        """Go on with these requests, the first of which is at place `begin`; there is no need to where none is due."""
        self.count = begin + len(arrivals)
        for place in range(self.due - begin, len(arrivals), self.step):
            arrival = arrivals[place]
            # Views, which would keep the rows of everybody who arrived together.
            arrival.row, arrival.hashes = arrival.row.copy(), arrival.hashes.copy()
            self.arrivals.append(arrival)
            self.answers.append(answers[place])
        while len(self.arrivals) > self.most:
            del self.arrivals[1::2], self.answers[1::2]
            self.step *= 2
        self.due = -(-self.count // self.step) * self.step

    @property
    def weight(self) -> float:
        """How many requests each stands for. Only where `take` saw them all, and where there are some."""
        return self.count / len(self.arrivals)

    def next(self) -> Sample:
        """Return an empty sample for what comes now, which is likely to be about as much."""
        return Sample(self.most, max(self.step // 2, 1))

    @property
    def client(self) -> npt.NDArray[np.uint64]:
        """Keyed hashes of their clients, uint64[n]. There must be some."""
        return np.array([arrival.hashes[at.H_CLIENT] for arrival in self.arrivals], np.uint64)

    @property
    def raw(self) -> npt.NDArray[np.float32]:
        """Their raw scores, float32[n]."""
        return np.array([answer.raw for answer in self.answers], np.float32)

    def rows(self, places: Sequence[int]) -> npt.NDArray[np.float32]:
        """Return the feature rows of some of them, float32[len(places), features]. `places` must not be empty."""
        return np.concatenate([self.arrivals[place].row for place in places]).reshape(len(places), -1)


@dataclass(slots=True)
class Batch:
    """n requests that were scored and answered, in the order in which they arrived."""

    raw: npt.NDArray[np.float32]
    """Raw scores, float32[n]."""
    score: npt.NDArray[np.uint8]
    """Scores from 1 to 99, uint8[n]."""
    minute: npt.NDArray[np.int64]
    """When they arrived, minutes of the gate's clock, int64[n]; they do not fall."""
    time: int
    """When the newest arrived, µs."""
    some: Sample
    """Some of them, never none."""
    acted: Sample
    """Some of those that were not allowed; it has seen them all."""

    def __len__(self) -> int:
        return len(self.raw)


Follower = Callable[[Batch], None]


class Recent:
    """Gathers what a gate answers, and passes it on."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        """`now` gives Unix s; seconds begin by it."""
        self.followers: list[Follower] = []
        """Who is told about once a second what was answered, if anything was."""
        self.attendants: list[Callable[[Sequence[Arrival], Sequence[Answer]], None]] = []
        """Who has to see every request, and does while it is answered."""
        self.beats: list[Callable[[], None]] = []
        """What is done each second, after that."""
        self.failures = 0
        self._now = now
        self._begin(Sample(SAMPLE), Sample(ACTED))

    def _begin(self, some: Sample, acted: Sample) -> None:
        self._raw, self._score = array("f"), array("B")
        self._time, self._until = 0, -1
        self._minutes: list[int] = []
        self._begins: list[int] = []
        self._some, self._acted = some, acted

    def answered(self, arrivals: Sequence[Arrival], answers: Sequence[Answer], judged: Judged) -> None:
        """Take note of requests that were scored and answered together: the hook of the gate."""
        raws, scores, acted = self._raw, self._score, False
        for answer in answers:
            raws.append(answer.raw)  # type: ignore[arg-type]  # there are scores, or nothing would have been answered
            scores.append(answer.score)  # type: ignore[arg-type]
            if answer.decision != "allow":
                acted = True
        self._time = arrivals[-1].time
        if self._time >= self._until:
            self._note_minutes(arrivals)
        if len(raws) > self._some.due:
            self._some.take(len(raws) - len(arrivals), arrivals, answers)
        if acted:
            places = [place for place, answer in enumerate(answers) if answer.decision != "allow"]
            self._acted.take(self._acted.count, [arrivals[i] for i in places], [answers[i] for i in places])
        for attendant in self.attendants:
            try:
                attendant(arrivals, answers)
            except Exception as error:
                self._failed(error)
        if len(raws) >= MOST_ROWS:
            self.pass_on()

    def _note_minutes(self, arrivals: Sequence[Arrival]) -> None:
        """Note from which request on it is another minute."""
        for place, arrival in enumerate(arrivals, len(self._raw) - len(arrivals)):
            if arrival.time >= self._until:
                minute = arrival.time // MINUTE_US
                self._minutes.append(minute)
                self._begins.append(place)
                self._until = (minute + 1) * MINUTE_US

    def pass_on(self) -> None:
        """Hand on what has gathered. A follower that fails is logged and counted, and changes no answer."""
        if not self._raw:
            return
        batch = Batch(
            np.frombuffer(self._raw, np.float32),
            np.frombuffer(self._score, np.uint8),
            np.repeat(self._minutes, np.diff([*self._begins, len(self._raw)])),
            self._time,
            self._some,
            self._acted,
        )
        self._begin(self._some.next(), self._acted.next())
        for follower in self.followers:
            try:
                follower(batch)
            except Exception as error:
                self._failed(error)

    def _failed(self, error: Exception) -> None:
        """Log and count what went wrong: whatever it is, decisions must not depend on who watches them."""
        self.failures += 1
        log.error("what was answered could not be followed", exc_info=error)

    async def keep(self) -> None:
        """Pass on each second, until cancelled."""
        while True:
            await asyncio.sleep(1.0 - self._now() % 1.0)
            self.pass_on()
            for beat in self.beats:
                try:
                    beat()
                except Exception as error:
                    self._failed(error)
