"""The proof that a graph equals LightGBM: leaf by leaf as ONNX Runtime routes it, and raw scores bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from classifier.errors import ExportError
from classifier.model.adversarial import node_rows, reachable_splits, special_rows
from classifier.model.boosters import Boosters
from classifier.model.forest import Forest
from classifier.model.rounding import sums_exactly
from classifier.model.scorer import Session, cpu_session
from classifier.model.tensors import tensor_leaf_graph

if TYPE_CHECKING:
    import onnx

FloatRows = npt.NDArray[np.float32]

LARGEST_PROBABILITY_ERROR = 1e-6
"""Engines may differ this much in probability, never in raw."""

_ROWS_AT_A_TIME = 8192
_ROWS_SUMMED = 16_384


@dataclass(frozen=True)
class Verification:
    """What a graph was compared on: rows, and splits reached on purpose."""

    rows: int
    splits: int
    splits_reached: int


def verify(
    boosters: Boosters, model: onnx.ModelProto, natural_rows: FloatRows, tensors: onnx.ModelProto | None = None
) -> Verification:
    """Prove that `model` equals LightGBM on natural and adversarial rows; raise ExportError at the first that differs.

    Leaves are compared as ONNX Runtime routes the very graph, with leaf numbers for weights and a target for each tree.
    Raw scores are compared bit for bit, and probabilities with a float64 sigmoid within 1e-6. `tensors`, the same forest as
    tensor operators, is proved on the same rows.
    """
    forest = Forest.from_onnx(model)
    natural = np.ascontiguousarray(natural_rows, dtype=np.float32)
    if natural.ndim != 2 or natural.shape[1] != forest.n_features or not len(natural):
        raise ExportError(f"verification needs natural rows of {forest.n_features} features, got shape {natural.shape}")
    if not sums_exactly(forest.leaf_values()):
        raise ExportError("the graph's leaves are not on the grid that keeps sums exact; call round_leaves first")
    graphs = [(_session(leaf_graph(model)), _session(model))]
    if tensors is not None:
        graphs.append((_session(tensor_leaf_graph(tensors, forest)), _session(tensors)))
    constants = _constants(model)
    seen, summed = 0, 0
    for rows in _blocks(natural, forest):
        leaves = boosters.leaves(rows)
        for routes, _ in graphs:
            _compare_leaves(leaves, forest, routes, rows, seen)
        if summed < _ROWS_SUMMED:
            exact = boosters.raw(rows, constants["clip_high"])
            for _, scores in graphs:
                _compare_scores(exact, constants, scores, rows, seen)
            summed += len(rows)
        seen += len(rows)
    return Verification(seen, int((forest.leaf < 0).sum()), len(reachable_splits(forest)[0]))


def leaf_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of the tree ensemble in `model` whose output `leaves` float32[N, trees] is the leaf each tree took.

    Only the leaves' weights and targets change; routing is the original's, attribute by attribute.
    """
    from onnx import ModelProto, NodeProto, TensorProto, helper

    forest = Forest.from_onnx(model)
    node = NodeProto()
    node.CopyFrom(next(node for node in model.graph.node if node.op_type == "TreeEnsembleRegressor"))
    node.output[:] = ["leaves"]
    is_leaf = forest.leaf >= 0
    for attribute in node.attribute:
        if attribute.name == "n_targets":
            attribute.i = forest.n_trees
        elif attribute.name == "target_ids":
            attribute.ints[:] = forest.tree_of_node[is_leaf].tolist()
        elif attribute.name == "target_weights":
            attribute.floats[:] = forest.leaf[is_leaf].astype(np.float32).tolist()
    output = helper.make_tensor_value_info("leaves", TensorProto.FLOAT, ["N", forest.n_trees])
    graph = helper.make_graph([node], "leaves", list(model.graph.input), [output])
    leaves: ModelProto = helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=model.ir_version)
    return leaves


def _session(model: onnx.ModelProto) -> Session:

    return cpu_session(model.SerializeToString(), threads=1)


def _compare_leaves(
    expected: npt.NDArray[np.int32], forest: Forest, session: Session, rows: FloatRows, first: int
) -> None:
    found = session.run(["leaves"], {"features": rows})[0].astype(np.int32)
    if expected.shape != found.shape:
        raise ExportError(f"the graph has {found.shape[1]} trees where LightGBM has {expected.shape[1]}")
    if np.array_equal(expected, found):
        return
    row, tree = np.argwhere(expected != found)[0]
    raise ExportError(
        f"the graph sends row {first + row} to leaf {found[row, tree]} of tree {tree} where LightGBM takes leaf"
        f" {expected[row, tree]}{_parting(forest, rows[row], int(tree), int(expected[row, tree]))}; no graph is written"
    )


def _parting(forest: Forest, row: FloatRows, tree: int, leaf: int) -> str:
    """Say at which split the forest's own walk leaves LightGBM's path; empty if it does not."""
    span = slice(int(forest.roots[tree]), int(forest.tree_ends[tree]))
    path = [span.start + int(np.flatnonzero(forest.leaf[span] == leaf)[0])]
    parent = {int(forest.left[i]): i for i in range(span.start, span.stop) if forest.left[i] >= 0}
    parent |= {int(forest.right[i]): i for i in range(span.start, span.stop) if forest.right[i] >= 0}
    while path[-1] in parent:
        path.append(parent[path[-1]])
    for node, child in zip(path[:0:-1], path[-2::-1], strict=True):
        value = row[forest.feature[node]]
        goes_left = value <= forest.threshold[node] or (np.isnan(value) and forest.nan_left[node])
        if goes_left != (child == forest.left[node]):
            return f" (feature {forest.feature[node]} = {value!r} against {forest.threshold[node]!r})"
    return ""


def _compare_scores(
    exact: npt.NDArray[np.float64], constants: dict[str, float], session: Session, rows: FloatRows, first: int
) -> None:
    raw, probability = session.run(["raw", "probability"], {"features": rows})
    expected = exact.astype(np.float32)
    wrong = np.flatnonzero((expected.view(np.int32) != raw.view(np.int32)) | (expected != exact))
    if len(wrong):
        row = int(wrong[0])
        raise ExportError(
            f"the graph gives row {first + row} the raw score {raw[row]!r} where LightGBM gives {exact[row]!r};"
            " round leaves and limit to one grid (round_leaves, round_clip); no graph is written"
        )
    log_odds = constants["slope"] * exact + constants["offset"]
    error = np.abs(probability - np.exp(-np.logaddexp(0.0, -log_odds))).max()
    if not error <= LARGEST_PROBABILITY_ERROR:
        raise ExportError(f"probabilities are off by {error:.1e}, more than 1e-6: the calibration slope is too steep")


def _constants(model: onnx.ModelProto) -> dict[str, float]:
    from onnx import numpy_helper

    return {tensor.name: float(numpy_helper.to_array(tensor)) for tensor in model.graph.initializer}


def _blocks(natural: FloatRows, forest: Forest) -> Iterator[FloatRows]:
    """All rows of the proof in blocks that keep the matrix of leaves small; the natural and special ones first."""
    for rows in (natural, special_rows(natural), *node_rows(forest, natural)):
        for start in range(0, len(rows), _ROWS_AT_A_TIME):
            yield rows[start : start + _ROWS_AT_A_TIME]
