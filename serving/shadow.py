"""A second model in shadow: it scores what the first has answered, in a thread of its own, and nobody waits for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import numpy as np
import numpy.typing as npt

from classifier.model.judge import Judge
from classifier.policy import decide

FAILED, SKIPPED = ("failed", "failed"), ("skipped", "skipped")


class Shadow:
    """Counts where a challenger would have decided otherwise. It never holds a request up, whatever it does."""

    def __init__(self, judge: Judge, most_rows: int = 8_192) -> None:
        """Compare with `judge`; rows beyond `most_rows` that wait, and rows after `close`, are skipped and counted."""
        self.judge, self._most = judge, most_rows
        self._counts: Counter[tuple[str, str]] = Counter()
        self._waiting, self._lock = 0, Lock()
        self._thread = ThreadPoolExecutor(1, "challenger")

    def compare(self, rows: npt.NDArray[np.float32], decisions: Sequence[str]) -> None:
        """Let the challenger score feature rows, float32[n, features], that the champion decided about."""
        with self._lock:
            if self._waiting + len(rows) > self._most:
                self._counts[SKIPPED] += len(rows)
                return
            self._waiting += len(rows)
        try:
            self._thread.submit(self._compare, rows, decisions)
        except RuntimeError:  # the service stops, or the system has no thread left: the champion has answered
            with self._lock:
                self._waiting -= len(rows)
                self._counts[SKIPPED] += len(rows)

    def counts(self) -> Counter[tuple[str, str]]:
        """Return how often the champion's decision met the challenger's; `FAILED` and `SKIPPED` for rows without one."""
        with self._lock:
            return self._counts.copy()

    def wait(self) -> None:
        """Wait until all that was handed over has been compared."""
        self._thread.submit(int).result()

    def close(self) -> None:
        """Drop what waits, and let go of the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _compare(self, rows: npt.NDArray[np.float32], decisions: Sequence[str]) -> None:
        try:
            raw, probability = self.judge.score(rows)
            thresholds = self.judge.thresholds
            scores = zip(raw.tolist(), probability.tolist(), strict=True)
            found: Counter[tuple[str, str]] = Counter(
                zip(decisions, (decide(r, p, thresholds).decision for r, p in scores), strict=True)
            )
        except Exception:  # whatever the challenger does, the champion has answered
            found = Counter({FAILED: len(rows)})
        with self._lock:
            self._waiting -= len(rows)
            self._counts.update(found)
