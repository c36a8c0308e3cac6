"""The two-part LightGBM model as training made it: what every other form of the model is compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from classifier.model.forest import Forest
from classifier.model.lightgbm_trees import Booster
from classifier.model.rounding import round_leaves

FloatRows = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Boosters:
    """A two-part LightGBM model: `own` on the columns `own_columns` of the full row, `group` on the full row.

    The raw score of a row is own's plus group's limited to ±clip. Either part may be absent.
    """

    own: Booster | None
    own_columns: Sequence[int]
    group: Booster | None

    def round_leaves(self) -> int:
        """Round the leaves of both parts in place (`rounding.round_leaves`) and return k."""
        return round_leaves([booster for booster in (self.own, self.group) if booster is not None])

    def forest(self, n_features: int | None = None) -> Forest:
        """Read the forest out of both boosters."""
        return Forest.from_lightgbm(self.own, self.own_columns, self.group, n_features)

    def raw(self, rows: FloatRows, clip: float = np.inf) -> npt.NDArray[np.float64]:
        """Raw scores by LightGBM itself, float64[n]."""
        own, group = self.parts(rows)
        return own + np.clip(group, -clip, clip)

    def parts(self, rows: FloatRows) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Sums of the own and the group part by LightGBM itself, float64[n] each, before any limit."""
        scores = list(self._predict(rows, raw_score=True))
        own, group = (np.zeros(len(rows)) if part is None else part.astype(np.float64) for part in scores)
        return own, group

    def leaves(self, rows: FloatRows) -> npt.NDArray[np.int32]:
        """Leaf numbers by LightGBM itself, int32[n, trees], own trees first."""
        parts = [part.reshape(len(rows), -1) for part in self._predict(rows, pred_leaf=True) if part is not None]
        return np.concatenate(parts, axis=1).astype(np.int32)

    def _predict(self, rows: FloatRows, **kind: bool) -> tuple[npt.NDArray[Any] | None, npt.NDArray[Any] | None]:
        own = None if self.own is None else _predictor(self.own)(rows[:, list(self.own_columns)], **kind)
        group = None if self.group is None else _predictor(self.group)(rows, **kind)
        return own, group


def _predictor(booster: Booster) -> Callable[..., npt.NDArray[Any]]:
    return lambda rows, **kind: np.asarray(booster.predict(np.ascontiguousarray(rows), **kind))
