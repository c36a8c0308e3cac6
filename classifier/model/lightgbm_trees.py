"""LightGBM's own account of its trees, read from the model text it writes.

The text carries thresholds and leaf values with 17 significant digits, so reading it back loses nothing. Parsing text
also keeps LightGBM itself out of this module: any object with `model_to_string()` will do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from classifier.errors import ExportError

_CATEGORICAL = 1
_DEFAULT_LEFT = 2
_MISSING_NONE, _MISSING_ZERO, _MISSING_NAN = 0, 1, 2


class Booster(Protocol):
    """What is used of a `lightgbm.Booster`."""

    def model_to_string(self) -> str:
        """Write the model as text."""
        ...

    def num_feature(self) -> int:
        """Return the length of a row."""
        ...

    def set_leaf_output(self, tree_id: int, leaf_id: int, value: float) -> Any:
        """Set the value of a leaf."""
        ...

    def predict(self, data: npt.NDArray[np.float32], **kind: bool) -> Any:
        """Return raw scores, leaf numbers or contributions by row."""
        ...


@dataclass(frozen=True)
class Tree:
    """One tree as LightGBM numbers it: `leaves - 1` internal nodes, node 0 the root, and `leaves` leaves.

    `left` and `right` (int32) name an internal node by its number and leaf j as -1 - j. `nan_left` says where NaN goes
    once LightGBM's missing type has been taken into account. `threshold` and `leaf_value` are LightGBM's float64.
    Counts are training rows.
    """

    feature: npt.NDArray[np.int32]
    threshold: npt.NDArray[np.float64]
    left: npt.NDArray[np.int32]
    right: npt.NDArray[np.int32]
    nan_left: npt.NDArray[np.bool_]
    internal_count: npt.NDArray[np.float64]
    leaf_value: npt.NDArray[np.float64]
    leaf_count: npt.NDArray[np.float64]

    @property
    def leaves(self) -> int:
        """Number of leaves; 1 for a tree that never split."""
        return len(self.leaf_value)


def read_trees(booster: Booster) -> list[Tree]:
    """Read the trees that `booster.predict` uses (up to its best iteration).

    Raises ExportError for what cannot be exported exactly: several classes, averaged output (random forests),
    categorical splits, linear trees, and zero treated as missing.
    """
    header, *sections = booster.model_to_string().split("\nTree=")
    _check_header(header)
    return [_read_tree(number, _fields(section)) for number, section in enumerate(sections)]


def _fields(section: str) -> dict[str, str]:
    """Split one section into its `key=value` lines; the text after the last tree has no bearing on it."""
    lines = section.split("\n\n", 1)[0].splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def _check_header(header: str) -> None:
    fields = _fields(header)
    if fields.get("num_class", "1") != "1" or fields.get("num_tree_per_iteration", "1") != "1":
        raise ExportError("the LightGBM model has several classes; train it with objective=binary")
    if "average_output" in header.splitlines():
        raise ExportError("the LightGBM model averages its trees (boosting=rf); train it with boosting=gbdt")


def _read_tree(number: int, fields: dict[str, str]) -> Tree:
    if fields.get("num_cat", "0") != "0":
        raise ExportError(f"tree {number} splits on a categorical feature; train with numeric features only")
    if fields.get("is_linear", "0") != "0":
        raise ExportError(f"tree {number} has linear leaves; train with linear_tree=false")
    threshold = _floats(fields["threshold"])
    if np.isnan(threshold).any():
        raise ExportError(f"tree {number} has a threshold that is not a number; train again on finite features")
    return Tree(
        feature=_ints(fields["split_feature"]),
        threshold=threshold,
        left=_ints(fields["left_child"]),
        right=_ints(fields["right_child"]),
        nan_left=_nan_left(number, _ints(fields["decision_type"]), threshold),
        internal_count=_floats(fields["internal_count"]),
        leaf_value=_floats(fields["leaf_value"]),
        leaf_count=_floats(fields.get("leaf_count", "0")),
    )


def _nan_left(
    number: int, decision: npt.NDArray[np.int32], threshold: npt.NDArray[np.float64]
) -> npt.NDArray[np.bool_]:
    """Say where NaN goes: by the default direction, or as 0.0 where training saw no NaN (missing type none)."""
    missing = (decision >> 2) & 3
    if (decision & _CATEGORICAL).any():
        raise ExportError(f"tree {number} splits on a categorical feature; train with numeric features only")
    if (missing == _MISSING_ZERO).any():
        raise ExportError(f"tree {number} treats zero as missing; train with zero_as_missing=false")
    nan_left: npt.NDArray[np.bool_] = np.where(missing == _MISSING_NONE, threshold >= 0, (decision & _DEFAULT_LEFT) > 0)
    return nan_left


def _ints(text: str) -> npt.NDArray[np.int32]:
    return np.array(text.split(), dtype=np.int32)


def _floats(text: str) -> npt.NDArray[np.float64]:
    return np.array(text.split(), dtype=np.float64)
