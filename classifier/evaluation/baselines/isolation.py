"""An isolation forest on our own features of the client (Liu, Ting and Zhou, ICDM 2008; scikit-learn's).

It sees what the own part of our model sees, and legitimate clients only. NaN becomes the feature's least value less one: for
a tree that cuts at random, a value of its own at the edge.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from classifier.evaluation.judging import OWN

TREES, SAMPLES, BLOCK = 100, 1024, 100_000


class Isolation:
    """Fitted on legitimate rows float32[n, features]."""

    def __init__(self, legitimate: npt.NDArray[np.float32], seed: int, threads: int) -> None:
        from sklearn.ensemble import IsolationForest

        own = legitimate[:, OWN]
        self._edge = np.nan_to_num(np.nanmin(np.where(np.isnan(own), np.inf, own), axis=0), posinf=0.0) - 1.0
        self._forest = IsolationForest(n_estimators=TREES, max_samples=SAMPLES, random_state=seed, n_jobs=threads)
        self._forest.fit(self._filled(own))

    def score(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return how easily each row is isolated, float64[n]."""
        parts = [rows[begin : begin + BLOCK, OWN] for begin in range(0, len(rows), BLOCK)]
        return np.concatenate([-self._forest.score_samples(self._filled(part)) for part in parts])

    def _filled(self, own: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.where(np.isnan(own), self._edge, own).astype(np.float32)
