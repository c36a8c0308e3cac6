"""The forest of `model.onnx` compiled: the same raw score as the graph, bit for bit, many times as fast.

Leaves lie on a grid on which every sum is exact (`rounding`), so the order of summation does not matter. The probability
follows the graph's float32 steps up to the sigmoid, and is the same for any batch size and number of threads.

A few rows are walked one by one (`walk`), more are ranked and taken in blocks (`ranked`).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from numba import njit

from classifier.errors import BundleError
from classifier.features.numerics import exp2
from classifier.model import ranked, walk
from classifier.model.forest import Forest
from classifier.model.ranked import BLOCK, add_leaves, columns_of, rank_block, work_of
from classifier.model.walk import both_parts, spread

FloatRows = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float32]

NAME = "CPUCompiledForest"
_FEW = 4
"""Rows up to which they are walked one by one."""
_ROWS_PER_THREAD = 4096
_LOG2_E = 1.4426950408889634


class CompiledEngine:
    """A forest with its limit on the group part and its calibration (slope, offset), ready to score."""

    def __init__(self, forest: Forest, calibration: tuple[float, float], clip: float, threads: int = 1) -> None:
        self.n_features, self._threads = forest.n_features, threads
        self.providers: tuple[str, ...] = (NAME,)
        self._walked = walk.lay_out(forest)
        self._ranked = ranked.lay_out(forest) if ranked.fits(forest) else None
        self._finish = (np.float32(clip), np.float32(calibration[0]), np.float32(calibration[1]))
        for rows in (1, BLOCK):  # whoever asks first shall not wait for the compiler
            self.score(np.zeros((rows, self.n_features), np.float32))

    def score(self, rows: FloatRows) -> tuple[Scores, Scores]:
        """Return raw scores and probabilities, float32[n] each, of C-ordered rows float32[n, F]."""
        raw, probability = np.empty(len(rows), np.float32), np.empty(len(rows), np.float32)
        parts = min(self._threads, len(rows) // _ROWS_PER_THREAD)
        if parts < 2:
            self._part(rows, raw, probability)
            return raw, probability
        with ThreadPoolExecutor(parts) as pool:
            for done in [
                pool.submit(self._part, rows[begin:end], raw[begin:end], probability[begin:end])
                for begin, end in pairwise(np.linspace(0, len(rows), parts + 1).astype(int).tolist())
            ]:
                done.result()
        return raw, probability

    def probability(self, raw: Scores) -> Scores:
        """Return the probabilities that go with raw scores, float32[n] each: the same bits as `score` gives."""
        probability = np.empty(len(raw), np.float32)
        _calibrate(raw, self._finish, probability)
        return probability

    def _part(self, rows: FloatRows, raw: Scores, probability: Scores) -> None:
        if self._ranked is None or len(rows) <= _FEW:
            _score_each(rows, self._walked, self._finish, raw, probability)
        else:
            _score_blocks(rows, self._ranked, self._finish, raw, probability)


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
def _score_each(rows, forest, finish, raw, probability):  # type: ignore[no-untyped-def]
    """Walk rows one by one."""
    row = np.empty(2 * rows.shape[1], np.float32)
    for i in range(len(rows)):
        spread(rows, i, row)
        own, group = both_parts(row, forest)
        raw[i], probability[i] = _finished(own, group, finish)


@njit(cache=True, nogil=True)
def _score_blocks(rows, forest, finish, raw, probability):  # type: ignore[no-untyped-def]
    """Rank rows and choose their leaves, a block at a time."""
    columns, work = columns_of(forest), work_of(forest)
    own, group = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    for start in range(0, len(rows), BLOCK):
        count = min(BLOCK, len(rows) - start)
        rank_block(rows, start, count, forest, columns)
        own[:], group[:] = np.float32(0.0), np.float32(0.0)
        add_leaves(count, forest, columns, work, own, group)
        for i in range(count):
            raw[start + i], probability[start + i] = _finished(own[i], group[i], finish)


@njit(cache=True, nogil=True)
def _calibrate(raw, finish, probability):  # type: ignore[no-untyped-def]
    """Write the probabilities of raw scores."""
    for i in range(len(raw)):
        probability[i] = _finished(raw[i], np.float32(0.0), finish)[1]


@njit(cache=True, nogil=True)
def _finished(own, group, finish):  # type: ignore[no-untyped-def]
    """Add both parts, the group's within its limit, and calibrate, in the float32 steps of the graph."""
    clip, slope, offset = finish
    total = own + min(max(group, -clip), clip)
    log_odds = np.float32(np.float32(total * slope) + offset)
    return total, np.float32(1.0 / (1.0 + exp2(min(-np.float64(log_odds) * _LOG2_E, 1022.0))))
