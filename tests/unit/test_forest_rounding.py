"""Roundings: thresholds down, leaves to a grid on which sums are exact."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from classifier.errors import ExportError
from classifier.model.lightgbm_trees import read_trees
from classifier.model.rounding import (
    FEWEST_LEAF_BITS,
    MANTISSA_BITS,
    ZERO_ZONE,
    floor32,
    largest_sum,
    round_clip,
    round_leaves,
    route_thresholds,
    sums_exactly,
    to_grid,
)
from tests.forests import model, train

EDGES = (1e300, -1e300, 1e-300, -1e-300, 1e-45, -1e-45, 1e-35, -1e-35, 0.0, -0.0, math.inf, -math.inf, 3.4028235e38)
thresholds = st.floats(allow_nan=False) | st.sampled_from(EDGES) | st.floats(-1e-34, 1e-34)
floats32 = st.floats(width=32, allow_nan=False)


def around(threshold: float) -> list[np.float32]:
    """float32 at and next to a threshold, where a wrong rounding would show."""
    with np.errstate(over="ignore", under="ignore"):
        nearest = np.float32(threshold)
        return [nearest, np.nextafter(nearest, np.float32(-np.inf)), np.nextafter(nearest, np.float32(np.inf))]


@given(thresholds, floats32)
def test_rounding_down_keeps_every_comparison(threshold: float, x: float) -> None:
    floor = floor32(np.array([threshold]))[0]
    for value in [np.float32(x), *around(threshold)]:
        assert (float(value) <= threshold) == (value <= floor)


@given(thresholds, floats32)
@example(float(ZERO_ZONE), float(ZERO_ZONE))
@example(-float(ZERO_ZONE), -float(ZERO_ZONE))
def test_routing_follows_lightgbms_zero(threshold: float, x: float) -> None:
    routed = route_thresholds(np.array([threshold]))[0]
    edges = [ZERO_ZONE, -ZERO_ZONE, *around(float(ZERO_ZONE)), *around(-float(ZERO_ZONE)), np.float32(0)]
    for value in [np.float32(x), *around(threshold), *edges]:
        lightgbm_sees = 0.0 if abs(float(value)) <= float(ZERO_ZONE) else float(value)
        assert (lightgbm_sees <= threshold) == (value <= routed)


def test_the_grid_is_the_finest_that_keeps_sums_exact() -> None:
    boosters, _ = train("nan in training", 1)
    before = [tree.leaf_value for part in (boosters.own, boosters.group) if part for tree in read_trees(part)]
    bits = boosters.round_leaves()
    after = [tree.leaf_value for part in (boosters.own, boosters.group) if part for tree in read_trees(part)]
    assert sums_exactly(after)
    assert largest_sum(after) < 2.0 ** (MANTISSA_BITS - bits)
    assert largest_sum([to_grid(values, bits + 1) for values in before]) >= 2.0 ** (MANTISSA_BITS - bits - 1)
    for old, new in zip(before, after, strict=True):
        assert np.abs(old - new).max() <= 2.0 ** -(bits + 1)
    assert boosters.round_leaves() == bits, "rounding what is rounded changes nothing"


def test_leaves_are_never_minus_zero() -> None:
    values = to_grid(np.array([-1e-9, -0.0, 1e-9]), 20)
    assert not np.signbit(values).any()


def test_scores_too_large_for_the_grid_are_refused() -> None:
    boosters, _ = train("stumps", 1)
    assert boosters.own is not None
    boosters.own.set_leaf_output(0, 0, 2.0 ** (MANTISSA_BITS - FEWEST_LEAF_BITS))
    with pytest.raises(ExportError, match="train fewer trees"):
        boosters.round_leaves()
    boosters.own.set_leaf_output(0, 0, math.inf)
    with pytest.raises(ExportError, match="not finite"):
        round_leaves([boosters.own])


def test_limits_lie_on_the_leaves_grid() -> None:
    _, _, bits = model("nan in training", 1)
    clip = round_clip(0.3, bits)
    assert math.ldexp(clip, bits).is_integer()
    assert abs(clip - 0.3) <= 2.0 ** -(bits + 1)
    assert round_clip(math.inf, bits) == math.inf
    assert round_clip(2.0 ** (MANTISSA_BITS - bits), bits) == math.inf
    for wrong in (-0.1, math.nan):
        with pytest.raises(ExportError):
            round_clip(wrong, bits)
