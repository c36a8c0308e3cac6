"""The forest of `model.onnx` compiled: the same raw score as the graph, bit for bit, many times as fast for few rows.

Leaves lie on a grid on which every sum is exact (`rounding`), so the order of summation does not matter. The probability
follows the graph's float32 steps up to the sigmoid, and is the same for any batch size and number of threads.

A node is four numbers side by side: the column it reads, its threshold, its left child and, for a leaf, its value. The right
child follows the left one. A row is held twice, once with -inf for NaN, which is at most any threshold, and once as it is:
NaN is at most none. So a comparison alone sends NaN the way that the node does. A leaf is its own left child and sends
everything there, so trees can be walked in step for as many steps as the deepest has, without asking whether one has arrived.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from classifier.errors import BundleError
from classifier.features.numerics import exp2
from classifier.model.forest import LEAF, OWN, Forest

FloatRows = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float32]

NAME = "CPUCompiledForest"
_LANES = 8
"""Trees of one row, or rows of one tree, that are walked in step: the loads of one hide behind those of the others."""
_BLOCK = 64
"""Rows that one tree is walked for before the next tree: both stay in the cache."""
_ROWS_PER_THREAD = 4096
_LOG2_E = 1.4426950408889634
_COLUMN, _THRESHOLD, _LEFT, _VALUE, _WIDTH = range(5)


class CompiledEngine:
    """A forest with its limit on the group part and its calibration (slope, offset), ready to score."""

    def __init__(self, forest: Forest, calibration: tuple[float, float], clip: float, threads: int = 1) -> None:
        self.n_features, self._threads = forest.n_features, threads
        self.providers: tuple[str, ...] = (NAME,)
        nodes, roots, depths = _laid_out(forest)
        own = forest.part == OWN
        self._arrays: tuple[Any, ...] = (
            nodes.view(np.int32), nodes,
            *_in_step(roots[own], depths[own], forest.n_nodes), *_in_step(roots[~own], depths[~own], forest.n_nodes),
            np.float32(clip), np.float32(calibration[0]), np.float32(calibration[1]),
        )  # fmt: skip
        self.score(np.zeros((1, self.n_features), np.float32))  # whoever asks first shall not wait for the compiler

    def score(self, rows: FloatRows) -> tuple[Scores, Scores]:
        """Return raw scores and probabilities, float32[n] each, of C-ordered rows float32[n, F]."""
        raw, probability = np.empty(len(rows), np.float32), np.empty(len(rows), np.float32)
        parts = min(self._threads, len(rows) // _ROWS_PER_THREAD)
        if parts < 2:
            _score(rows, *self._arrays, raw, probability)
            return raw, probability
        with ThreadPoolExecutor(parts) as pool:
            for done in [
                pool.submit(_score, *(rows[begin:end], *self._arrays, raw[begin:end], probability[begin:end]))
                for begin, end in pairwise(np.linspace(0, len(rows), parts + 1).astype(int).tolist())
            ]:
                done.result()
        return raw, probability


def _laid_out(forest: Forest) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Return (nodes float32[n * 4], the place of each root int32[t], the depth of each tree int32[t]).

    Nodes of a tree stand level by level, siblings side by side; a leaf stands at the end, for lots that are not full.
    """
    nodes = np.zeros((forest.n_nodes + 1, _WIDTH), np.float32)
    whole = nodes.view(np.int32)
    depths = np.zeros(forest.n_trees, np.int32)
    place = 0
    for tree, root in enumerate(forest.roots.tolist()):
        level, begin = [root], place
        place += 1
        while level:
            after: list[int] = []
            for node in level:
                split = forest.feature[node] != LEAF
                nodes[begin, _THRESHOLD] = forest.threshold[node] if split else np.inf
                nodes[begin, _VALUE] = forest.value[node]
                whole[begin, _LEFT] = place + len(after) if split else begin
                if split:
                    to_right = 0 if forest.nan_left[node] else forest.n_features
                    whole[begin, _COLUMN] = forest.feature[node] + to_right
                    after += [int(forest.left[node]), int(forest.right[node])]
                begin += 1
            depths[tree] += bool(after)
            begin, place, level = place, place + len(after), after
    nodes[place, _THRESHOLD], whole[place, _LEFT] = np.inf, place
    return nodes.reshape(-1), np.array(forest.roots, np.int32), depths


def _in_step(
    roots: npt.NDArray[np.int32], depths: npt.NDArray[np.int32], idle: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return roots int64 in order of depth, the shallow lot filled up with `idle`, and the steps that each lot takes."""
    order = np.argsort(depths, kind="stable")
    missing = -len(roots) % _LANES
    filled = np.append(np.full(missing, idle), roots[order]).astype(np.int64)
    steps = np.append(np.zeros(missing), depths[order]).reshape(-1, _LANES).max(axis=1, initial=0)
    return filled, steps.astype(np.int64)


def read_graph(model: bytes) -> tuple[Forest, tuple[float, float], float]:
    """Read (forest, calibration, clip) back from the bytes of a graph that `export.to_onnx` wrote.

    Raises BundleError for bytes that are no such graph.
    """
    from google.protobuf.message import DecodeError
    from onnx import load_from_string, numpy_helper

    try:
        graph = load_from_string(model)
        constants = {one.name: float(numpy_helper.to_array(one)) for one in graph.graph.initializer}
        numbers = [constants[name] for name in ("slope", "offset", "clip_high")]
    except (DecodeError, KeyError, TypeError, ValueError) as error:
        raise BundleError(f"the model is no graph of botsieve's ({error}); train or copy the bundle again") from error
    return Forest.from_onnx(graph), (numbers[0], numbers[1]), numbers[2]


@njit(cache=True, nogil=True)
def _score(  # type: ignore[no-untyped-def]
    rows, whole, nodes, own, own_steps, group, group_steps, clip, slope, offset, raw, probability
):
    """Score rows: few of them one by one, many of them tree by tree in blocks."""
    n, width = rows.shape
    if n < _LANES:
        row = np.empty(2 * width, np.float32)
        for i in range(n):
            _spread(rows, i, row, 0)
            mine = _trees_of_row(row, own, own_steps, whole, nodes)
            shared = _trees_of_row(row, group, group_steps, whole, nodes)
            _finish(mine, shared, clip, slope, offset, raw, probability, i)
        return
    block = np.zeros(_BLOCK * 2 * width, np.float32)
    mine_of, shared_of = np.empty(_BLOCK), np.empty(_BLOCK)
    for start in range(0, n, _BLOCK):
        count = min(_BLOCK, n - start)
        for i in range(count):
            _spread(rows, start + i, block, 2 * width * i)
        mine_of[:], shared_of[:] = 0.0, 0.0
        _trees_of_block(block, count, 2 * width, own, own_steps, whole, nodes, mine_of)
        _trees_of_block(block, count, 2 * width, group, group_steps, whole, nodes, shared_of)
        for i in range(count):
            _finish(mine_of[i], shared_of[i], clip, slope, offset, raw, probability, start + i)


@njit(cache=True, nogil=True)
def _spread(rows, i, out, begin):  # type: ignore[no-untyped-def]
    """Write a row twice, once with -inf for NaN."""
    width = rows.shape[1]
    for j in range(width):
        value = rows[i, j]
        out[begin + j] = -np.float32(np.inf) if value != value else value
        out[begin + width + j] = value


@njit(cache=True, nogil=True, inline="always")
def _next(row, begin, whole, nodes, node):  # type: ignore[no-untyped-def]
    """Return the child that a row goes to, by arithmetic: a branch would be predicted wrongly half of the time."""
    return whole[_WIDTH * node + _LEFT] + (
        not row[begin + whole[_WIDTH * node + _COLUMN]] <= nodes[_WIDTH * node + _THRESHOLD]
    )


@njit(cache=True, nogil=True, inline="always")
def _leaf(nodes, node):  # type: ignore[no-untyped-def]
    """Return the value of a leaf, in the precision that leaves are summed in."""
    return np.float64(nodes[_WIDTH * node + _VALUE])


@njit(cache=True, nogil=True)
def _trees_of_row(row, roots, steps, whole, nodes):  # type: ignore[no-untyped-def]
    """Sum the leaves that one row reaches."""
    total = 0.0
    for s in range(len(steps)):
        i = s * _LANES
        a, b, c, d = roots[i], roots[i + 1], roots[i + 2], roots[i + 3]
        e, f, g, h = roots[i + 4], roots[i + 5], roots[i + 6], roots[i + 7]
        for _ in range(steps[s]):
            a = _next(row, 0, whole, nodes, a)
            b = _next(row, 0, whole, nodes, b)
            c = _next(row, 0, whole, nodes, c)
            d = _next(row, 0, whole, nodes, d)
            e = _next(row, 0, whole, nodes, e)
            f = _next(row, 0, whole, nodes, f)
            g = _next(row, 0, whole, nodes, g)
            h = _next(row, 0, whole, nodes, h)
        total += _leaf(nodes, a) + _leaf(nodes, b) + _leaf(nodes, c) + _leaf(nodes, d)
        total += _leaf(nodes, e) + _leaf(nodes, f) + _leaf(nodes, g) + _leaf(nodes, h)
    return total


@njit(cache=True, nogil=True)
def _trees_of_block(block, count, width, roots, steps, whole, nodes, sums):  # type: ignore[no-untyped-def]
    """Add the leaves that the rows of a block reach, eight rows in step; what lies behind `count` is walked in vain."""
    for t in range(len(roots)):
        root, depth = roots[t], steps[t // _LANES]
        for i in range(0, count, _LANES):
            a, b, c, d, e, f, g, h = root, root, root, root, root, root, root, root
            p = i * width
            for _ in range(depth):
                a = _next(block, p, whole, nodes, a)
                b = _next(block, p + width, whole, nodes, b)
                c = _next(block, p + 2 * width, whole, nodes, c)
                d = _next(block, p + 3 * width, whole, nodes, d)
                e = _next(block, p + 4 * width, whole, nodes, e)
                f = _next(block, p + 5 * width, whole, nodes, f)
                g = _next(block, p + 6 * width, whole, nodes, g)
                h = _next(block, p + 7 * width, whole, nodes, h)
            sums[i] += _leaf(nodes, a)
            sums[i + 1] += _leaf(nodes, b)
            sums[i + 2] += _leaf(nodes, c)
            sums[i + 3] += _leaf(nodes, d)
            sums[i + 4] += _leaf(nodes, e)
            sums[i + 5] += _leaf(nodes, f)
            sums[i + 6] += _leaf(nodes, g)
            sums[i + 7] += _leaf(nodes, h)


@njit(cache=True, nogil=True)
def _finish(mine, shared, clip, slope, offset, raw, probability, i):  # type: ignore[no-untyped-def]
    """Add both parts, the group's within its limit, and calibrate, in the float32 steps of the graph."""
    total = np.float32(np.float32(mine) + min(max(np.float32(shared), -clip), clip))
    raw[i] = total
    log_odds = np.float32(np.float32(total * slope) + offset)
    probability[i] = np.float32(1.0 / (1.0 + exp2(min(-np.float64(log_odds) * _LOG2_E, 1022.0))))
