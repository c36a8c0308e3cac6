"""Why a row got its score: path attribution over the forest, with no training library, the same offline and online.

Walking down a tree, each split moves the expected value of the rows that remain; that movement is credited to the
split's feature (A. Saabas, "Interpreting random forests", 2014). Expected values are leaf values weighted by training
counts. Contributions and bias add up to the raw score exactly in real numbers, to about 1e-12 in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from classifier.model.forest import GROUP, LEAF, OWN, Forest

FloatRows = npt.NDArray[np.float32]
Contributions = npt.NDArray[np.float64]

_ROWS_AT_A_TIME = 8192
_TREES_IN_STEP = 4


class Explainer:
    """Contributions and reasons of rows under one forest; prepares once what every call reads.

    `reason_of_feature` names the reason group of each of the F features. `clip` is the limit c on the group part: where
    it acts, the group's contributions are scaled to what the limit leaves of them.
    """

    def __init__(self, forest: Forest, reason_of_feature: Sequence[str], clip: float = np.inf) -> None:
        if len(reason_of_feature) != forest.n_features:
            raise ValueError(f"{len(reason_of_feature)} reason groups for {forest.n_features} features")
        self.names = tuple(dict.fromkeys(reason_of_feature))
        number = {name: place for place, name in enumerate(self.names)}
        self.group_of_feature = np.array([number[name] for name in reason_of_feature], dtype=np.int32)
        expected = expected_values(forest)
        at_root = expected[forest.roots]
        self._clip = float(clip)
        self._group_bias = float(at_root[forest.part == GROUP].sum())
        self.bias = float(at_root[forest.part == OWN].sum()) + min(max(self._group_bias, -self._clip), self._clip)
        self._nodes = _nodes(forest, expected)
        self._own, self._group = (_in_step(forest.roots[forest.part == part], forest.n_nodes) for part in (OWN, GROUP))
        self._columns = _places(self._nodes, np.arange(forest.n_features))
        self._groups = _places(self._nodes, self.group_of_feature)

    def contributions(self, rows: FloatRows) -> Contributions:
        """Return log odds credited to each feature, float64[n, F]; with `bias` they add up to the raw score."""
        return self._sums(rows, self._columns, len(self.group_of_feature))

    def reason_sums(self, rows: FloatRows) -> Contributions:
        """Return log odds credited to each reason group, float64[n, groups] in the order of `names`."""
        return self._sums(rows, self._groups, len(self.names))

    def _sums(self, rows: FloatRows, place: npt.NDArray[np.int32], width: int) -> Contributions:
        if rows.dtype != np.float32 or rows.ndim != 2 or rows.shape[1] != len(self.group_of_feature):
            raise ValueError(
                f"rows are {rows.dtype} of shape {rows.shape}, not float32 (n, {len(self.group_of_feature)})"
            )
        out = np.zeros((len(rows), width))
        rows = np.ascontiguousarray(rows)
        _add_moves(rows, *self._nodes, place, self._own, self._group, self._group_bias, self._clip, out)
        return out

    def reasons(self, rows: FloatRows, top: int = 3) -> list[tuple[str, ...]]:
        """Return, for each row, the reason groups that push most towards malicious, strongest first, at most `top`."""
        found: list[tuple[str, ...]] = []
        for start in range(0, len(rows), _ROWS_AT_A_TIME):
            places = top_groups(self.reason_sums(rows[start : start + _ROWS_AT_A_TIME]), top)
            found += [tuple(self.names[place] for place in row if place >= 0) for row in places.tolist()]
        return found


def contributions(forest: Forest, rows: FloatRows, clip: float = np.inf) -> tuple[Contributions, float]:
    """Return (contributions float64[n, F], bias) of rows float32[n, F]; see `Explainer` for many calls."""
    explainer = Explainer(forest, [str(column) for column in range(forest.n_features)], clip)
    return explainer.contributions(rows), explainer.bias


def top_groups(sums: Contributions, top: int) -> npt.NDArray[np.int32]:
    """Return the places of the largest positive sums of each row, int32[n, top], largest first, -1 where there is none.

    Equal sums keep the order of the groups, so the answer is the same on any machine.
    """
    out = np.full((len(sums), top), -1, dtype=np.int32)
    _top(sums, out)
    return out


def expected_values(forest: Forest) -> Contributions:
    """Return the mean leaf value of the training rows that pass each node, float64[nodes]."""
    expected = forest.value.astype(np.float64)
    cover = forest.cover.astype(np.float64)
    # Children stand after their parents, so one pass from the end meets them first.
    for node in np.flatnonzero(forest.feature != LEAF)[::-1]:
        children = [forest.left[node], forest.right[node]]
        weight = cover[children] if cover[children].sum() > 0 else np.ones(2)
        expected[node] = (weight * expected[children]).sum() / weight.sum()
    return expected


class _Nodes(NamedTuple):
    """What the walk reads, over all nodes and one more: a leaf that stands in for missing trees.

    A leaf is its own child on both sides, so trees of different depth can be walked in step. `moves` is what arriving
    at a node adds. The children of node i are `children[2 * i]` (left) and `children[2 * i + 1]`.
    """

    feature: npt.NDArray[np.int32]
    threshold: npt.NDArray[np.float32]
    nan_left: npt.NDArray[np.bool_]
    children: npt.NDArray[np.int32]
    is_leaf: npt.NDArray[np.bool_]
    moves: npt.NDArray[np.float64]


def _nodes(forest: Forest, expected: Contributions) -> _Nodes:
    split = np.flatnonzero(forest.feature != LEAF)
    itself = np.arange(forest.n_nodes + 1, dtype=np.int32)
    children = np.stack([itself, itself], axis=1)
    children[split] = np.stack([forest.left[split], forest.right[split]], axis=1)
    moves = np.zeros(forest.n_nodes + 1)
    for child in (forest.left[split], forest.right[split]):
        moves[child] = expected[child] - expected[split]
    return _Nodes(
        feature=np.append(np.maximum(forest.feature, 0), np.int32(0)),
        threshold=np.append(forest.threshold, np.float32(0)),
        nan_left=np.append(forest.nan_left, np.False_),
        children=children.reshape(-1),
        is_leaf=np.append(forest.feature == LEAF, np.True_),
        moves=moves,
    )


def _in_step(roots: npt.NDArray[np.int32], stand_in: int) -> npt.NDArray[np.int32]:
    """Fill up to whole lots of trees with the node that stands in for a tree."""
    return np.append(roots, np.full(-len(roots) % _TREES_IN_STEP, stand_in)).astype(np.int32)


def _places(nodes: _Nodes, place_of_feature: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
    """Where each node's split adds, int32[nodes]: its feature's place, and one place past all for leaves."""
    past_all = int(place_of_feature.max(initial=-1)) + 1
    return np.where(nodes.is_leaf, past_all, place_of_feature[nodes.feature]).astype(np.int32)


@njit(cache=True, nogil=True)
def _add_moves(  # type: ignore[no-untyped-def]
    rows, feature, threshold, nan_left, children, is_leaf, moves, place, own, group, group_bias, clip, out
):
    """Add each row's moves to the places of their features, the group part scaled to what its limit leaves."""
    width = out.shape[1]
    sums = np.zeros(width + 1)
    for i in range(rows.shape[0]):
        _walk_trees(rows[i], own, feature, threshold, nan_left, children, is_leaf, moves, place, sums)
        for j in range(width):
            out[i, j], sums[j] = sums[j], 0.0
        _walk_trees(rows[i], group, feature, threshold, nan_left, children, is_leaf, moves, place, sums)
        moved = 0.0
        for j in range(width):
            moved += sums[j]
        kept = _kept_share(moved, group_bias, clip)
        for j in range(width):
            out[i, j] += kept * sums[j]
            sums[j] = 0.0


@njit(cache=True, nogil=True)
def _kept_share(moved, bias, clip):  # type: ignore[no-untyped-def]
    """Share of a move away from `bias` that remains once both its ends are limited to ±clip: within 0 and 1."""
    if moved == 0.0 or (abs(bias) <= clip and abs(bias + moved) <= clip):
        return 1.0
    return (min(max(bias + moved, -clip), clip) - min(max(bias, -clip), clip)) / moved


@njit(cache=True, nogil=True)
def _walk_trees(  # type: ignore[no-untyped-def]
    row, roots, feature, threshold, nan_left, children, is_leaf, moves, place, sums
):
    """Walk all trees, four in step so that the loads of one hide behind those of the others (30 % faster than alone).

    A tree that has arrived goes on from leaf to the same leaf and adds to the last place, which nobody reads.
    """
    for t in range(0, len(roots), 4):
        a, b, c, d = roots[t], roots[t + 1], roots[t + 2], roots[t + 3]
        while not (is_leaf[a] & is_leaf[b] & is_leaf[c] & is_leaf[d]):
            next_a = _step(row, feature, threshold, nan_left, children, a)
            next_b = _step(row, feature, threshold, nan_left, children, b)
            next_c = _step(row, feature, threshold, nan_left, children, c)
            next_d = _step(row, feature, threshold, nan_left, children, d)
            sums[place[a]] += moves[next_a]
            sums[place[b]] += moves[next_b]
            sums[place[c]] += moves[next_c]
            sums[place[d]] += moves[next_d]
            a, b, c, d = next_a, next_b, next_c, next_d


@njit(cache=True, nogil=True)
def _step(row, feature, threshold, nan_left, children, node):  # type: ignore[no-untyped-def]
    """Return the child a row goes to, by arithmetic: a branch would be predicted wrongly half of the time."""
    value = row[feature[node]]
    left = (value <= threshold[node]) | ((value != value) & nan_left[node])
    return children[2 * node + 1 - left]


@njit(cache=True, nogil=True)
def _top(sums, out):  # type: ignore[no-untyped-def]
    """Insert each positive sum into the row's short list, behind those not smaller."""
    for i in range(sums.shape[0]):
        kept = 0
        for group in range(sums.shape[1]):
            value = sums[i, group]
            if not value > 0.0:
                continue
            at = kept
            while at > 0 and sums[i, out[i, at - 1]] < value:
                at -= 1
            if at >= out.shape[1]:
                continue
            kept = min(kept + 1, out.shape[1])
            for later in range(kept - 1, at, -1):
                out[i, later] = out[i, later - 1]
            out[i, at] = group
