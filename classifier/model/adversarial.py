"""Rows built to tell two engines apart that route a forest differently.

For every split of every tree that a row can reach: a row that *reaches* it, and the same row meeting the threshold
there, its two float32 neighbours, NaN and an infinity. And natural rows with zeros, denormals, the largest floats,
infinities and NaN put into one column at a time and into all columns at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from classifier.model.forest import LEAF, Forest
from classifier.model.rounding import ZERO_ZONE, next_above, next_below

FloatRows = npt.NDArray[np.float32]

_FLOAT32 = np.finfo(np.float32)
_SMALL = np.array([0.0, _FLOAT32.smallest_subnormal, _FLOAT32.tiny, 1e-36], dtype=np.float32)
_ZEROS = np.concatenate([_SMALL, -_SMALL])
_SPECIAL = np.concatenate([_ZEROS, np.array([_FLOAT32.max, _FLOAT32.min, np.inf, -np.inf, np.nan], dtype=np.float32)])


def adversarial_rows(forest: Forest, natural_rows: FloatRows) -> FloatRows:
    """Rows float32[m, F] that reach every node that a row can reach, and there meet its threshold from all sides.

    A row starts as one of `natural_rows`; the columns that its node's path reads are moved into the path's intervals
    where they are not in them already; then the node's own column takes the threshold, the float32 below, the one
    above, NaN, and +inf or -inf in turn. Thresholds at LightGBM's zero zone also meet zeros and denormals.
    """
    return np.concatenate([special_rows(natural_rows), *node_rows(forest, natural_rows)])


def special_rows(natural_rows: FloatRows) -> FloatRows:
    """Natural rows with ±0, denormals, the largest floats, ±inf and NaN in one column at a time and in all at once."""
    n, width = natural_rows.shape
    everywhere = np.repeat(_SPECIAL[:, None], width, axis=1)
    base = natural_rows[np.arange(len(_SPECIAL) * width) % n]
    base[np.arange(len(base)), np.tile(np.arange(width), len(_SPECIAL))] = np.repeat(_SPECIAL, width)
    return np.concatenate([everywhere, base])


def node_rows(forest: Forest, natural: FloatRows) -> Iterator[FloatRows]:
    """Yield blocks of rows: one that reaches each split, then a block for each kind of value it meets there."""
    nodes, entry_row, path = reachable_splits(forest)
    if not len(nodes):
        return
    reaching = natural[np.arange(len(nodes)) % len(natural)]
    _move_into(reaching, entry_row, path)
    row, column, threshold = np.arange(len(nodes)), forest.feature[nodes], forest.threshold[nodes]
    yield reaching
    infinity = np.where(row % 2 == 0, np.float32(np.inf), np.float32(-np.inf))
    for value in (threshold, next_below(threshold), next_above(threshold), np.full_like(threshold, np.nan), infinity):
        rows = reaching.copy()
        rows[row, column] = value
        yield rows
    near_zero = np.flatnonzero(np.abs(threshold) <= 2 * ZERO_ZONE)
    for zero in _ZEROS if len(near_zero) else ():
        rows = reaching[near_zero]
        rows[np.arange(len(near_zero)), column[near_zero]] = zero
        yield rows


@dataclass(frozen=True)
class _Interval:
    """What a path asks of one column: above < x <= upto, or NaN if `nan`. (-inf itself is left to `special_rows`.)"""

    above: np.float32
    upto: np.float32
    nan: bool

    @property
    def empty(self) -> bool:
        return not self.above < self.upto and not self.nan


@dataclass(frozen=True)
class _Path:
    """Intervals of many paths, flattened: an entry for each column that a path reads."""

    column: npt.NDArray[np.intp]
    above: npt.NDArray[np.float32]
    upto: npt.NDArray[np.float32]
    nan: npt.NDArray[np.bool_]


def reachable_splits(forest: Forest) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], _Path]:
    """Find the splits some float32 row can reach: their nodes, and the paths' entries with the place of their node."""
    nodes: list[int] = []
    owners: list[int] = []
    entries: list[tuple[int, _Interval]] = []
    everything = _Interval(np.float32(-np.inf), np.float32(np.inf), True)
    pending: list[tuple[int, dict[int, _Interval]]] = [(int(root), {}) for root in forest.roots]
    while pending:
        node, path = pending.pop()
        column = int(forest.feature[node])
        if column == LEAF:
            continue
        owners += [len(nodes)] * len(path)
        entries += path.items()
        nodes.append(node)
        before, threshold, nan_left = path.get(column, everything), forest.threshold[node], bool(forest.nan_left[node])
        left = _Interval(before.above, min(before.upto, threshold), before.nan and nan_left)
        right = _Interval(max(before.above, threshold), before.upto, before.nan and not nan_left)
        for child, interval in ((forest.left[node], left), (forest.right[node], right)):
            if not interval.empty:
                pending.append((int(child), {**path, column: interval}))
    return np.array(nodes, dtype=np.intp), np.array(owners, dtype=np.intp), _flatten(entries)


def _flatten(entries: list[tuple[int, _Interval]]) -> _Path:
    return _Path(
        column=np.array([column for column, _ in entries], dtype=np.intp),
        above=np.array([interval.above for _, interval in entries], dtype=np.float32),
        upto=np.array([interval.upto for _, interval in entries], dtype=np.float32),
        nan=np.array([interval.nan for _, interval in entries], dtype=np.bool_),
    )


def _move_into(rows: FloatRows, row: npt.NDArray[np.intp], path: _Path) -> None:
    """Move, in place, the values that lie outside their path's interval to its upper end (or just above its lower)."""
    value = rows[row, path.column]
    outside = np.where(np.isnan(value), ~path.nan, ~((path.above < value) & (value <= path.upto)))
    inside = np.where(np.isfinite(path.upto), path.upto, next_above(path.above))
    inside = np.where(path.above < path.upto, inside, np.float32(np.nan))
    rows[row[outside], path.column[outside]] = inside[outside]
