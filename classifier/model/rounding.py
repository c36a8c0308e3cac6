"""The roundings that make every engine give the same raw score, bit for bit.

Thresholds go **down** to float32, leaves to a multiple of 2^-k. With Σ over trees of max|leaf| < 2^(24-k) every partial
sum is a multiple of 2^-k below 2^(24-k) and so has at most 24 significant bits: it is exact in float32, and the order
in which an engine adds no longer matters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from classifier.errors import ExportError
from classifier.model.lightgbm_trees import Booster, Tree, read_trees

MANTISSA_BITS = 24
"""Significant bits of a float32."""

FEWEST_LEAF_BITS = 14
"""Coarsest leaf grid that is accepted: 2^-14 is 0.00006 in log odds."""

MOST_LEAF_BITS = 64
"""Finest grid tried; only a forest whose leaves are all (almost) zero reaches it."""

ZERO_ZONE = np.float32(1e-35)
"""LightGBM's kZeroThreshold: `Booster.predict` on a dense row takes |x| <= this as 0.0 (float32 value of 1e-35)."""


def floor32(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Round float64 down to float32, so that for every float32 x: x <= t iff x <= floor32(t).

    Values above the largest finite float32 become that, values below the smallest become -inf; ±inf stay.
    """
    with np.errstate(over="ignore", under="ignore"):
        nearest = values.astype(np.float32)
    rounded_up = nearest.astype(np.float64) > values
    return np.where(rounded_up, next_below(nearest), nearest)


def next_below(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the next smaller float32 of each value; below the smallest finite one comes -inf."""
    with np.errstate(over="ignore", under="ignore"):
        return np.nextafter(values, np.float32(-np.inf))


def next_above(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the next larger float32 of each value; above the largest finite one comes inf."""
    with np.errstate(over="ignore", under="ignore"):
        return np.nextafter(values, np.float32(np.inf))


def route_thresholds(thresholds: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Turn LightGBM's thresholds into float32 ones that send every float32 the same way under a plain x <= t.

    LightGBM takes |x| <= 1e-35 for zero before it compares, other engines do not. A threshold inside that zone is
    moved to the zone's edge: at or above 0 the whole zone goes left, below 0 the whole zone goes right.
    """
    routed = floor32(thresholds)
    edge = np.float64(ZERO_ZONE)
    below_zone = next_below(np.array([-ZERO_ZONE]))[0]
    routed = np.where((thresholds >= 0) & (thresholds < edge), ZERO_ZONE, routed)
    return np.where((thresholds < 0) & (thresholds >= -edge), below_zone, routed)


def round_leaves(boosters: Sequence[Booster]) -> int:
    """Round every leaf of `boosters` in place to a multiple of 2^-k and return k, chosen for all of them together.

    k is the largest with Σ over all trees of max|leaf| < 2^(24-k), counted over the rounded leaves. Afterwards the
    boosters *are* the rounded model: `predict` uses the new leaves (scores cached while training are stale). Raises
    ExportError if k would be below 14: then the scores are too large for that precision.
    """
    forests = [read_trees(booster) for booster in boosters]
    leaf_values = [tree.leaf_value for trees in forests for tree in trees]
    bits = _finest_grid(leaf_values)
    for booster, trees in zip(boosters, forests, strict=True):
        for number, tree in enumerate(trees):
            _set_leaves(booster, number, tree, to_grid(tree.leaf_value, bits))
    return bits


def to_grid(values: npt.NDArray[np.float64], bits: int) -> npt.NDArray[np.float64]:
    """Round to the nearest multiple of 2^-bits (ties to even); never -0.0, which would differ in its bits from 0.0."""
    rounded: npt.NDArray[np.float64] = np.ldexp(np.rint(np.ldexp(values, bits)), -bits) + 0.0
    return rounded


def round_clip(clip: float, bits: int) -> float:
    """Round the group limit c to the leaves' grid; a limit that no sum can reach becomes infinity.

    Raises ExportError for a negative limit or NaN.
    """
    if not clip >= 0:
        raise ExportError(f"the limit on the group part is {clip}; it must be 0 or more")
    if clip >= math.ldexp(1.0, MANTISSA_BITS - bits):
        return math.inf
    return float(to_grid(np.array([clip]), bits)[0])


def sums_exactly(leaf_values: Sequence[npt.NDArray[np.float64]]) -> bool:
    """Whether leaves (one array a tree) lie on a grid on which every sum over trees is exact in float32."""
    total = largest_sum(leaf_values)
    for bits in _grids():
        if total < math.ldexp(1.0, MANTISSA_BITS - bits):
            # A coarser grid is part of this one, so the finest that the bound allows decides.
            return all(np.array_equal(to_grid(values, bits), values) for values in leaf_values)
    return False


def largest_sum(leaf_values: Sequence[npt.NDArray[np.float64]]) -> float:
    """Σ over trees of max|leaf|: no partial sum, in any order, is larger."""
    return math.fsum(float(np.abs(values).max()) for values in leaf_values)


def _grids() -> range:
    return range(MOST_LEAF_BITS, FEWEST_LEAF_BITS - 1, -1)


def _finest_grid(leaf_values: Sequence[npt.NDArray[np.float64]]) -> int:
    if not all(np.isfinite(values).all() for values in leaf_values):
        raise ExportError("a leaf value is not finite; train with a smaller learning rate or more regularisation")
    for bits in _grids():
        # Rounding can lift a maximum by half a step, so the bound is checked on what will be stored.
        if largest_sum([to_grid(values, bits) for values in leaf_values]) < math.ldexp(1.0, MANTISSA_BITS - bits):
            return bits
    raise ExportError(
        f"the largest leaves add up to {largest_sum(leaf_values):.0f}, too much for steps of 2^-{FEWEST_LEAF_BITS};"
        " train fewer trees or with a smaller learning rate"
    )


def _set_leaves(booster: Booster, number: int, tree: Tree, values: npt.NDArray[np.float64]) -> None:
    for leaf in np.flatnonzero(values.view(np.int64) != tree.leaf_value.view(np.int64)):
        booster.set_leaf_output(number, int(leaf), float(values[leaf]))
