"""The CPU in the part of a GPU: the very graph that CUDA would run, in runs of fixed sizes. It can be told to fail.

It shows that rows are cut, padded, scored and, after a fault, taken over; it says nothing about a GPU.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from classifier.model.cuda import Run
from classifier.model.scorer import cpu_session

Rows = npt.NDArray[np.float32]
FAULT = "CUDA failure 719: unspecified launch failure"


class StandIn:
    """A device whose call number `fails_at`, and all after it, raise. `calls` has the size and the rows of each call."""

    provider = "CPUStandIn"

    def __init__(self, graph: bytes, fails_at: int | None = None) -> None:
        self._session = cpu_session(graph, threads=1)
        self.n_features = int(self._session.get_inputs()[0].shape[1])
        self.calls: list[tuple[int, int]] = []
        self.fails_at = fails_at

    def prepared(self, size: int) -> Run:
        """Return a run over `size` rows; what lies behind the rows of a call is of an earlier one."""
        return _StandInRun(self, size)

    def run(self, rows: Rows, n: int) -> tuple[Rows, Rows]:
        """Run over all rows, of which n are meant."""
        if self.fails_at is not None and len(self.calls) >= self.fails_at:
            raise RuntimeError(FAULT)
        self.calls.append((len(rows), n))
        raw, probability = self._session.run(None, {"features": rows})
        return raw[:n], probability[:n]


class _StandInRun:
    def __init__(self, device: StandIn, size: int) -> None:
        self._device, self._held = device, np.full((size, device.n_features), np.nan, np.float32)

    def load(self, rows: Rows) -> None:
        self._held[: len(rows)] = rows

    def scores(self, n: int) -> tuple[Rows, Rows]:
        return self._device.run(self._held, n)
