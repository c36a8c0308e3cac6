"""`botsieve serve` with a device that fails, or with the CPU in its part.

python -m tests.gpu.service [--stand-in] [--fail-at N] …, and what else is given goes to the service.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from classifier.model import cuda, scorer
from serving.__main__ import main
from tests.gpu.stand_in import FAULT, StandIn


def failing(device: Any, fails_at: int) -> Any:
    """Return a device that runs so many times, the warm-up not counted, and then raises."""

    class Failing:
        n_features, provider = device.n_features, device.provider
        left = fails_at

        def prepared(self, size: int) -> cuda.Run:
            return FailingRun(device.prepared(size))

    class FailingRun:
        def __init__(self, whole: cuda.Run) -> None:
            self.whole, self.counts = whole, False

        def load(self, rows: Any) -> None:
            self.counts = bool(rows.any())  # a warm-up's rows are zeros
            self.whole.load(rows)

        def scores(self, n: int) -> Any:
            Failing.left -= self.counts
            if Failing.left < 0:
                raise RuntimeError(FAULT)
            return self.whole.scores(n)

    return Failing()


def start() -> int:
    """Put the device in its place and serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--stand-in", action="store_true")
    parser.add_argument("--fail-at", type=int)
    given, rest = parser.parse_known_args()
    made: Any = StandIn if given.stand_in else cuda.CudaDevice
    if given.fail_at is not None:
        whole = made
        made = lambda graph: failing(whole(graph), given.fail_at)  # noqa: E731
    scorer.CudaDevice = made  # type: ignore[misc]
    return main(rest)


if __name__ == "__main__":
    sys.exit(start())
