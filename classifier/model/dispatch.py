"""Which engine takes how many rows, found by measuring; and what happens when the device fails in the middle of it."""

from __future__ import annotations

import logging
import statistics
import time
from bisect import bisect_right
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

FloatRows = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float32]

log = logging.getLogger("botsieve.model")

CPU_SIZES = (1, 16, 256)
"""Batches that engines of the CPU are compared at: their order does not change beyond."""
DEVICE_SIZES = (1, 16, 64, 256, 1_024, 4_096, 16_384)
_REPEATS = 3
_GAIN = 0.9
"""An engine has to take less than this share of the first one's time to be preferred to it."""


class Engine(Protocol):
    """One way to run a model. `n_features` is the length of a row, `providers` is what really runs it."""

    n_features: int

    @property
    def providers(self) -> tuple[str, ...]:
        """What really runs it, the most important first."""
        ...

    def score(self, rows: FloatRows) -> tuple[Scores, Scores]:
        """Return raw scores and probabilities, float32[n] each, of C-ordered rows float32[n, F] with n > 0."""
        ...


class Guarded:
    """A device's engine with one of the CPU behind it: after the first fault of the device the CPU does all the work.

    A fault leaves a CUDA context unusable, so the device is not tried again. `faults` counts them.
    """

    def __init__(self, device: Engine, cpu: Engine) -> None:
        self.n_features, self.faults = device.n_features, 0
        self._device, self._cpu = device, cpu

    @property
    def providers(self) -> tuple[str, ...]:
        """The device, or the CPU once the device has failed."""
        return self._cpu.providers if self.faults else self._device.providers

    def score(self, rows: FloatRows) -> tuple[Scores, Scores]:
        """Score on the device; whatever it raises, on the CPU from then on."""
        if not self.faults:
            try:
                return self._device.score(rows)
            except Exception as error:  # a fault of the device has no class of its own
                self.faults += 1
                log.error("the device failed, the CPU takes over", extra={"error": type(error).__name__})
        return self._cpu.score(rows)


class Dispatch:
    """Several engines, each for the batches from some number of rows on: [(1, …), (rows, …), …]."""

    def __init__(self, plan: Sequence[tuple[int, Engine]]) -> None:
        self.plan = list(plan)
        self._from = [rows for rows, _ in self.plan]
        self.n_features = self.plan[0][1].n_features

    @property
    def providers(self) -> tuple[str, ...]:
        """What really runs it, by the size of batches."""
        return tuple(dict.fromkeys(name for _, engine in self.plan for name in engine.providers))

    def engine(self, rows: int) -> Engine:
        """Return the engine that was the fastest for so many rows."""
        return self.plan[max(bisect_right(self._from, rows) - 1, 0)][1]

    def score(self, rows: FloatRows) -> tuple[Scores, Scores]:
        """Score with the engine that was the fastest for so many rows."""
        return self.engine(len(rows)).score(rows)


def measured(engines: Sequence[Engine], sizes: Sequence[int]) -> dict[int, list[float]]:
    """Return the median seconds of each engine for each number of rows. They take turns, over rows that are new each time."""
    rng = np.random.default_rng(0)
    times: dict[int, list[float]] = {}
    for size in sizes:
        taken: list[list[float]] = [[] for _ in engines]
        for _ in range(_REPEATS + 1):
            rows = rng.standard_normal((size, engines[0].n_features)).astype(np.float32)
            for engine, seconds in zip(engines, taken, strict=True):
                begun = time.perf_counter()
                engine.score(rows)
                seconds.append(time.perf_counter() - begun)
        times[size] = [statistics.median(seconds[1:]) for seconds in taken]
    return times


def planned(engines: Sequence[Engine], times: dict[int, list[float]]) -> list[tuple[int, Engine]]:
    """Return the fastest engine by number of rows; the first one unless another is clearly faster.

    An engine takes over at the first measured size that it wins.
    """
    plan: list[tuple[int, Engine]] = []
    for size, seconds in sorted(times.items()):
        best = min(range(len(engines)), key=seconds.__getitem__)
        chosen = engines[best if seconds[best] < _GAIN * seconds[0] else 0]
        if not plan or plan[-1][1] is not chosen:
            plan.append((size if plan else 1, chosen))
    return plan
