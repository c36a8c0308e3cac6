"""Many rows through the forest at once: comparisons of bytes, many rows side by side, and no walking at all.

A split asks only whether a value lies beyond its threshold, and a feature meets a few hundred thresholds in the whole forest.
So a value is replaced, once for all trees, by its *rank*: the number of its feature's thresholds that it lies beyond. Ranks
fit in a byte (a feature with more than 255 thresholds is given several columns), and x > threshold number k exactly if
rank > k. NaN ranks below all in one column and above all in another, and a split reads the column that sends it the right way.

On bytes a vector instruction compares 16, 32 or 64 rows at a time. That pays for looking at *every* split of a tree instead of
those on a row's path: from the leaves up, each split takes the leaf number that its left or its right child came to, and the
root ends with the leaf of every row.

ranks of a block ──for each split of a tree: leaf[left] or leaf[right]──> leaf of each row ──> its value, added up
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from classifier.errors import BundleError
from classifier.model.forest import LEAF, OWN, Forest
from classifier.model.vectors import count_below, selector

BLOCK = 64
"""Rows of a block: their ranks and a tree's leaf numbers stay in the first cache."""
MOST_LEAVES = 256
"""Leaf numbers are bytes; a forest with a larger tree has to be walked (`walk`)."""
_RANKS = 255
"""Thresholds of a column. A rank from 0 to 255 is held as int8, less 128."""
_SIDE = 16
"""A column's thresholds are searched in two steps of so many comparisons."""
_COLUMN, _LEFT, _RIGHT, _RANK, _WIDTH = range(5)
_LARGEST = 1 << 16

_choose_16, _choose_32, _choose_64 = selector(16), selector(32), selector(BLOCK)


class Ranked(NamedTuple):
    """A forest laid out for blocks of rows.

    features    int64[s]           column of the row that each scale ranks
    splitters   float32[s * 16]    the last threshold of each sixteen of a scale
    thresholds  float32[s * 256]   thresholds of each scale in order, filled up with inf
    nodes       uint16[n * 4]      column, left, right, rank of each split, children before parents
    splits      int64[t]           splits of each tree
    first_leaf  int64[t]           where its leaf values begin
    values      float32[l]         leaf values by LightGBM's number
    own         int64              trees of the own part, which come first
    leaves      int64              leaves of the largest tree

    Column 2s is scale s with NaN below all thresholds, 2s + 1 the same with NaN above all. A child is named by its place in the
    working memory of a tree: first come its leaves by number, then its splits in the order of `nodes`.
    """

    features: npt.NDArray[np.int64]
    splitters: npt.NDArray[np.float32]
    thresholds: npt.NDArray[np.float32]
    nodes: npt.NDArray[np.uint16]
    splits: npt.NDArray[np.int64]
    first_leaf: npt.NDArray[np.int64]
    values: npt.NDArray[np.float32]
    own: int
    leaves: int


def fits(forest: Forest) -> bool:
    """Whether every tree's leaf numbers fit in a byte."""
    return int(_leaves(forest).max()) <= MOST_LEAVES


def lay_out(forest: Forest) -> Ranked:
    """Lay a forest out. Raises BundleError for one with more thresholds than columns can be numbered for."""
    order = np.argsort(forest.part != OWN, kind="stable")
    leaves = _leaves(forest)
    largest = int(leaves.max())
    features, table, column, rank = _scales(forest)
    if 2 * len(features) >= _LARGEST:
        raise BundleError("the forest has too many different thresholds to be compiled; train fewer or smaller trees")
    split = forest.feature != LEAF
    # Every child follows its parent, so that splits in reverse order find their children done.
    place = np.where(split, largest + leaves[forest.tree_of_node] - 2 - _number(forest), forest.leaf)
    nodes = np.zeros((forest.n_nodes, _WIDTH), np.uint16)
    nodes[split, _COLUMN], nodes[split, _RANK] = column, rank
    nodes[split, _LEFT], nodes[split, _RIGHT] = place[forest.left[split]], place[forest.right[split]]
    spans = [(int(forest.roots[tree]), int(forest.roots[tree] + leaves[tree] - 1)) for tree in order]
    ends = forest.tree_ends
    return Ranked(
        features=features,
        splitters=np.ascontiguousarray(table[:, _SIDE - 1 :: _SIDE]).reshape(-1),
        thresholds=table.reshape(-1),
        nodes=np.concatenate([nodes[begin:end][::-1] for begin, end in spans]).reshape(-1),
        splits=leaves[order] - 1,
        first_leaf=np.cumsum(leaves[order]) - leaves[order],
        values=np.concatenate([forest.value[end : ends[tree]] for tree, (_, end) in zip(order, spans, strict=True)]),
        own=int((forest.part == OWN).sum()),
        leaves=largest,
    )


def _leaves(forest: Forest) -> npt.NDArray[np.int64]:
    return np.add.reduceat((forest.leaf >= 0).astype(np.int64), forest.roots)


def _number(forest: Forest) -> npt.NDArray[np.int64]:
    """Return the number of each node within its tree."""
    return np.arange(forest.n_nodes) - forest.roots[forest.tree_of_node]


def _scales(
    forest: Forest,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return (features int64[s], thresholds float32[s, 256]) and, of each split, its column and its threshold's rank."""
    splits = np.flatnonzero(forest.feature != LEAF)
    features: list[int] = []
    tables: list[npt.NDArray[np.float32]] = []
    column, rank = np.zeros(len(splits), np.int64), np.zeros(len(splits), np.int64)
    for feature in np.unique(forest.feature[splits]).tolist():
        reads = forest.feature[splits] == feature
        thresholds, position = np.unique(forest.threshold[splits[reads]], return_inverse=True)
        column[reads] = 2 * (len(features) + position // _RANKS) + ~forest.nan_left[splits[reads]]
        rank[reads] = position % _RANKS
        for begin in range(0, len(thresholds), _RANKS):
            table = np.full(_SIDE * _SIDE, np.inf, np.float32)
            some = thresholds[begin : begin + _RANKS]
            table[: len(some)] = some
            features.append(feature)
            tables.append(table)
    return np.array(features, np.int64), np.array(tables, np.float32).reshape(-1, _SIDE * _SIDE), column, rank


@njit(cache=True, nogil=True)
def columns_of(forest):  # type: ignore[no-untyped-def]
    """Return memory for the ranks of a block, int8."""
    return np.empty(2 * BLOCK * len(forest.features), np.int8)


@njit(cache=True, nogil=True)
def work_of(forest):  # type: ignore[no-untyped-def]
    """Return memory for the leaf numbers that a tree's nodes come to, uint8; a leaf comes to its own."""
    work = np.empty(2 * forest.leaves * BLOCK, np.uint8)
    for leaf in range(forest.leaves):
        work[leaf * BLOCK : (leaf + 1) * BLOCK] = leaf
    return work


@njit(cache=True, nogil=True)
def rank_block(rows, start, count, forest, columns):  # type: ignore[no-untyped-def]
    """Write the ranks of rows[start : start + count] into `columns`, a column's rows side by side."""
    for s in range(len(forest.features)):
        feature, begin = forest.features[s], np.uint64(2 * BLOCK * s)
        for i in range(count):
            value = rows[start + i, feature]
            sixteen = count_below(forest.splitters, np.uint64(_SIDE * s), value)
            rank = _SIDE * sixteen
            rank += count_below(forest.thresholds, np.uint64(_SIDE * (_SIDE * s + sixteen)), value) - 128
            columns[begin + np.uint64(i)] = rank
            columns[begin + np.uint64(BLOCK + i)] = np.int64(127) if value != value else rank


@njit(cache=True, nogil=True)
def add_leaves(count, forest, columns, work, own, group):  # type: ignore[no-untyped-def]
    """Add the leaves of both parts that the first `count` rows of a block reach to `own` and `group`, float32[BLOCK].

    Where a block is not full, 16 or 32 rows are chosen for; what lies behind `count` is chosen for in vain.
    """
    node = np.uint64(0)
    for tree in range(len(forest.splits)):
        out = np.uint64(forest.leaves * BLOCK)
        for _ in range(forest.splits[tree]):
            column, left, right, rank = _node(forest.nodes, node)
            if count > 32:
                _choose_64(columns, work, column, left, right, out, rank)
            elif count > 16:
                _choose_32(columns, work, column, left, right, out, rank)
            else:
                _choose_16(columns, work, column, left, right, out, rank)
            out += np.uint64(BLOCK)
            node += np.uint64(_WIDTH)
        # The root is chosen last; a tree that never split has leaf 0 at the very beginning.
        root = out - np.uint64(BLOCK) if forest.splits[tree] else np.uint64(0)
        sums, leaf = own if tree < forest.own else group, np.uint64(forest.first_leaf[tree])
        for i in range(np.uint64(count)):
            sums[i] += forest.values[leaf + np.uint64(work[root + i])]


@njit(cache=True, nogil=True, inline="always")
def _node(nodes, node):  # type: ignore[no-untyped-def]
    """Return column, left and right as offsets in bytes, and the rank as int8."""
    return (
        np.uint64(nodes[node]) * np.uint64(BLOCK),
        np.uint64(nodes[node + np.uint64(_LEFT)]) * np.uint64(BLOCK),
        np.uint64(nodes[node + np.uint64(_RIGHT)]) * np.uint64(BLOCK),
        np.int8(np.int64(nodes[node + np.uint64(_RANK)]) - 128),
    )
