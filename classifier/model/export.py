"""The forest as an ONNX graph for the CPU, and the proof that it and the one for CUDA (`tensors`) equal LightGBM.

features [N, F] ──TreeEnsembleRegressor──> [N, 2] ──> own ─────────────────────────┐
                                                 └──> group ──Clip(-c, c)──────────┴Add──> raw [N]
raw ──Mul(a)──Add(b)──Sigmoid──> probability [N]
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from classifier import __version__
from classifier.errors import ExportError
from classifier.model.boosters import Boosters
from classifier.model.bundle import CUDA_FILE, MODEL_FILE
from classifier.model.forest import GROUP, LEAF, OWN, Forest
from classifier.model.proof import verify
from classifier.model.tensors import DEEPEST, depth_of, to_tensors

if TYPE_CHECKING:
    import onnx

FloatRows = npt.NDArray[np.float32]

OPSET, ML_OPSET, IR_VERSION = 18, 3, 9
"""ai.onnx.ml 3 has the newest TreeEnsembleRegressor that is not deprecated, and ONNX Runtime has run it for years."""

_TREE_OUTPUT = "parts"


class Exported(NamedTuple):
    """A forest and its graphs: `model` for the CPU, `tensors` for CUDA (None where it is too deep)."""

    model: onnx.ModelProto
    tensors: onnx.ModelProto | None
    forest: Forest

    def files(self) -> dict[str, bytes | Path]:
        """Return the files that a bundle holds of it."""
        graphs = {MODEL_FILE: self.model, CUDA_FILE: self.tensors}
        return {name: graph.SerializeToString() for name, graph in graphs.items() if graph is not None}


def export_model(
    boosters: Boosters,
    calibration: tuple[float, float],
    clip: float,
    natural_rows: FloatRows,
    n_features: int,
) -> Exported:
    """Build the graphs of a rounded two-part model and return them only once they are proved equal to LightGBM.

    `natural_rows` are float32[n, F] rows as training saw them (some hundreds are enough). Raises ExportError if any row
    is routed or summed differently. A forest deeper than `tensors.DEEPEST` has no second graph.
    """
    forest = boosters.forest(n_features)
    model = to_onnx(forest, calibration, clip)
    tensors = to_tensors(forest, calibration, clip) if depth_of(forest) <= DEEPEST else None
    verify(boosters, model, natural_rows, tensors)
    return Exported(model, tensors, forest)


def to_onnx(forest: Forest, calibration: tuple[float, float], clip: float) -> onnx.ModelProto:
    """Write `forest` as a graph; `calibration` is (a, b) of probability = sigmoid(a * raw + b), `clip` is c (or inf).

    Input `features` float32[N, F]; outputs `raw` float32[N] and `probability` float32[N]. The file alone gives the
    forest back (`Forest.from_onnx`), training counts included, as nodes_hitrates. Raises ExportError for a slope that
    is not positive or a limit that is negative.
    """
    from onnx import TensorProto, checker, helper, numpy_helper

    slope, offset = calibration
    if not (slope > 0 and np.isfinite(slope) and np.isfinite(offset)):
        raise ExportError(f"the calibration slope is {slope} and its offset {offset}; fit a positive, finite slope")
    if not clip >= 0:
        raise ExportError(f"the limit on the group part is {clip}; it must be 0 or more")
    constants = {
        "own_column": np.int64(OWN),
        "group_column": np.int64(GROUP),
        "clip_low": np.float32(-clip),
        "clip_high": np.float32(clip),
        "slope": np.float32(slope),
        "offset": np.float32(offset),
    }
    nodes = [
        tree_node(forest, 2, _TREE_OUTPUT),
        helper.make_node("Gather", [_TREE_OUTPUT, "own_column"], ["own"], axis=1),
        helper.make_node("Gather", [_TREE_OUTPUT, "group_column"], ["group"], axis=1),
        helper.make_node("Clip", ["group", "clip_low", "clip_high"], ["clipped"]),
        helper.make_node("Add", ["own", "clipped"], ["raw"]),
        helper.make_node("Mul", ["raw", "slope"], ["scaled"]),
        helper.make_node("Add", ["scaled", "offset"], ["log_odds"]),
        helper.make_node("Sigmoid", ["log_odds"], ["probability"]),
    ]
    graph = helper.make_graph(
        nodes,
        "botsieve",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", forest.n_features])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in ("raw", "probability")],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    model = helper.make_model(
        graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="botsieve", producer_version=__version__
    )
    checker.check_model(model)
    return model


def tree_node(forest: Forest, targets: int, output: str) -> onnx.NodeProto:
    """Write the trees as one ensemble node: `output` float32[N, targets] sums them by their `part`."""
    from onnx import helper

    split = forest.feature != LEAF
    leaf = ~split
    tree = forest.tree_of_node
    base = forest.roots[tree]
    number = np.arange(forest.n_nodes) - base
    modes = np.where(split, "BRANCH_LEQ", "LEAF")
    return helper.make_node(
        "TreeEnsembleRegressor",
        ["features"],
        [output],
        name="forest",
        domain="ai.onnx.ml",
        n_targets=targets,
        aggregate_function="SUM",
        post_transform="NONE",
        nodes_treeids=tree.tolist(),
        nodes_nodeids=number.tolist(),
        nodes_featureids=np.where(split, forest.feature, 0).tolist(),
        nodes_values=forest.threshold.tolist(),
        nodes_modes=modes.tolist(),
        nodes_truenodeids=np.where(split, forest.left - base, 0).tolist(),
        nodes_falsenodeids=np.where(split, forest.right - base, 0).tolist(),
        nodes_missing_value_tracks_true=forest.nan_left.astype(np.int64).tolist(),
        nodes_hitrates=forest.cover.tolist(),
        target_treeids=tree[leaf].tolist(),
        target_nodeids=number[leaf].tolist(),
        target_ids=forest.part[tree[leaf]].astype(np.int64).tolist(),
        target_weights=forest.value[leaf].tolist(),
    )
