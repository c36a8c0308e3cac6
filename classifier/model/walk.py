"""One row through the forest, eight trees in step: the loads of one tree hide behind those of the others.

A node is eight bytes: which column it reads and how far on its left child lies (16 bits each), and its threshold. The right
child follows the left one. A row is held twice, once with -inf for NaN, which is at most any threshold, and once as it is:
NaN is at most none. So a comparison alone sends NaN the way that the node does. A leaf is its own left child and sends
everything there, so trees can be walked in step for as many steps as the deepest has, without asking whether one has arrived.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from classifier.errors import BundleError
from classifier.model.forest import LEAF, OWN, Forest

_TREES = 8
"""Trees that are walked in step."""
_LARGEST = 1 << 16
_ONE = np.uint64(1)
_TWO, _LOW, _HIGH = np.uint64(2), np.uint64(_LARGEST - 1), np.uint64(16)


class Walked(NamedTuple):
    """A forest laid out for single rows.

    nodes   uint32[2 * n]  65536 * (how far on its left child lies) + the column it reads, and the bits of its threshold
    values  float32[n]     leaf values
    eights  uint32[9 * e]  the roots of eight trees that are about equally deep, and the steps that they take
    own     int            how many eights, the first ones, are of the own part
    """

    nodes: npt.NDArray[np.uint32]
    values: npt.NDArray[np.float32]
    eights: npt.NDArray[np.uint32]
    own: int


def lay_out(forest: Forest) -> Walked:
    """Lay a forest out. Raises BundleError for one with too large trees or too many features."""
    widest = int((forest.tree_ends - forest.roots).max())
    if 2 * forest.n_features > _LARGEST or widest > _LARGEST:
        raise BundleError(
            f"a tree of {widest:,} nodes over {forest.n_features:,} features is too large to be compiled;"
            f" train with fewer leaves (at most {_LARGEST:,} nodes a tree and {_LARGEST // 2:,} features)"
        )
    nodes = np.zeros((forest.n_nodes + 1, 2), np.uint32)
    thresholds, values = nodes.view(np.float32)[:, 1], np.zeros(forest.n_nodes + 1, np.float32)
    thresholds[:] = np.inf
    depths = np.zeros(forest.n_trees, np.int64)
    place = 0
    for tree, root in enumerate(forest.roots.tolist()):
        level, begin = [root], place
        place += 1
        while level:  # nodes of a tree stand level by level, siblings side by side
            after: list[int] = []
            for node in level:
                values[begin] = forest.value[node]
                if forest.feature[node] != LEAF:
                    to_right = 0 if forest.nan_left[node] else forest.n_features
                    nodes[begin, 0] = (place + len(after) - begin) * _LARGEST + int(forest.feature[node]) + to_right
                    thresholds[begin] = forest.threshold[node]
                    after += [int(forest.left[node]), int(forest.right[node])]
                begin += 1
            depths[tree] += bool(after)
            begin, place, level = place, place + len(after), after
    own = forest.part == OWN
    first, second = (_in_eights(forest.roots[part], depths[part], place) for part in (own, ~own))
    return Walked(
        nodes=nodes.reshape(-1), values=values, eights=np.concatenate([first, second]).reshape(-1), own=len(first)
    )


def _in_eights(roots: npt.NDArray[np.int32], depths: npt.NDArray[np.int64], idle: int) -> npt.NDArray[np.uint32]:
    """Return roots in order of depth and the steps of each eight, uint32[e, 9]; the leaf `idle` fills the shallow one up."""
    order = np.argsort(depths, kind="stable")
    missing = -len(roots) % _TREES
    filled = np.append(np.full(missing, idle), roots[order]).reshape(-1, _TREES)
    steps = np.append(np.zeros(missing), depths[order]).reshape(-1, _TREES).max(axis=1, initial=0)
    return np.column_stack([filled, steps]).astype(np.uint32)


@njit(cache=True, nogil=True)
def spread(rows, i, out):  # type: ignore[no-untyped-def]
    """Write row i twice, once with -inf for NaN."""
    width = rows.shape[1]
    for j in range(width):
        value = rows[i, j]
        out[j] = -np.float32(np.inf) if value != value else value
        out[width + j] = value


@njit(cache=True, nogil=True)
def both_parts(row, forest):  # type: ignore[no-untyped-def]
    """Return the sums of the leaves that a spread row reaches in the own and in the group part, float32."""
    nodes, thresholds, values = forest.nodes, forest.nodes.view(np.float32), forest.values
    own = group = np.float32(0.0)
    for eight in range(len(forest.eights) // (_TREES + 1)):
        roots = forest.eights[(_TREES + 1) * eight : (_TREES + 1) * (eight + 1)]
        a, b, c, d = np.uint64(roots[0]), np.uint64(roots[1]), np.uint64(roots[2]), np.uint64(roots[3])
        e, f, g, h = np.uint64(roots[4]), np.uint64(roots[5]), np.uint64(roots[6]), np.uint64(roots[7])
        for _ in range(roots[_TREES]):
            a = _next(row, nodes, thresholds, a)
            b = _next(row, nodes, thresholds, b)
            c = _next(row, nodes, thresholds, c)
            d = _next(row, nodes, thresholds, d)
            e = _next(row, nodes, thresholds, e)
            f = _next(row, nodes, thresholds, f)
            g = _next(row, nodes, thresholds, g)
            h = _next(row, nodes, thresholds, h)
        found = values[a] + values[b] + values[c] + values[d] + (values[e] + values[f] + values[g] + values[h])
        if eight < forest.own:
            own += found
        else:
            group += found
    return own, group


@njit(cache=True, nogil=True, inline="always")
def _next(row, nodes, thresholds, node):  # type: ignore[no-untyped-def]
    """Return the child that a row goes to, by arithmetic: a branch would be predicted wrongly half of the time."""
    link = np.uint64(nodes[_TWO * node])
    return node + (link >> _HIGH) + np.uint64(not row[link & _LOW] <= thresholds[_TWO * node + _ONE])
