"""The forest as tensor operators, for ONNX Runtime's CUDA provider, which has no tree ensemble.

Every tree is padded to a perfect one of the forest's depth, and all rows walk all trees down one level at a time:

    column = Gather(columns of the level, place)           int32 [N, T]
    value  = GatherElements(row twice over, column)        float [N, T]
    left   = LessOrEqual(value, Gather(thresholds, place))
    place  = place + Where(left, 0, T * 2^level)           int32 [N, T]

`place` is tree + T * (the turns so far, the first one lowest), so that no level needs a table of children. A row is held twice,
once with -inf for NaN, which is at most any threshold, and once as it is: NaN is at most none; a node reads the half that
sends NaN its way. Below a leaf of the tree as it was trained every turn is to the left. No operator branches or
asks for a shape, so a run over a fixed number of rows can be captured as a CUDA graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from classifier import __version__
from classifier.errors import ExportError
from classifier.model.forest import LEAF, OWN, Forest

if TYPE_CHECKING:
    import onnx

OPSET, IR_VERSION = 18, 9
DEEPEST = 12
"""A perfect tree of this depth has 4,096 leaves; deeper forests are left to the CPU."""

LEAVES, VALUES = "leaf_values", "leaves"
"""The table of leaf values, and the tensor [N, T] of those that rows reached."""

Constants = dict[str, npt.NDArray[Any]]


def depth_of(forest: Forest) -> int:
    """Return the number of splits on the longest path, at least 1: a forest that never split is walked down once in vain."""
    level = np.zeros(forest.n_nodes, np.int64)
    for node in np.flatnonzero(forest.feature != LEAF):  # every child follows its parent
        level[forest.left[node]] = level[forest.right[node]] = level[node] + 1
    return max(int(level.max()), 1)


def to_tensors(forest: Forest, calibration: tuple[float, float], clip: float) -> onnx.ModelProto:
    """Write `forest` as a graph of tensor operators; inputs, outputs and raw scores are those of `export.to_onnx`.

    Raises ExportError for a forest that is deeper than `DEEPEST`.
    """
    from onnx import TensorProto, checker, helper, numpy_helper

    depth = depth_of(forest)
    if depth > DEEPEST:
        raise ExportError(f"the forest is {depth} levels deep and tensors are made for {DEEPEST}; bound max_depth")
    constants: Constants = {
        "minus_infinity": np.array(-np.inf, np.float32),
        "slope": np.array(calibration[0], np.float32),
        "offset": np.array(calibration[1], np.float32),
        "trees": np.array([1], np.int64),
        "zero": np.array(0, np.int32),
        LEAVES: leaf_table(forest, forest.value, depth),
    }
    nodes = [*_twice(), *_levels(forest, depth, constants), *_sums(forest, clip, constants), *_calibrated()]
    graph = helper.make_graph(
        nodes,
        "botsieve_tensors",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", forest.n_features])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in ("raw", "probability")],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="botsieve",
        producer_version=__version__,
    )
    checker.check_model(model, full_check=True)
    return model


def tensor_leaf_graph(model: onnx.ModelProto, forest: Forest) -> onnx.ModelProto:
    """Return a copy of the graph that ends with the leaf that each tree took, `leaves` float32[N, trees].

    Only the table of leaf values changes, to leaf numbers; routing is the original's, table by table.
    """
    from onnx import ModelProto, TensorProto, helper, numpy_helper

    copy = ModelProto()
    copy.CopyFrom(model)
    nodes = list(copy.graph.node)
    last = next(i for i, node in enumerate(nodes) if VALUES in node.output)
    del copy.graph.node[last + 1 :]
    del copy.graph.output[:]
    copy.graph.output.append(helper.make_tensor_value_info(VALUES, TensorProto.FLOAT, ["N", forest.n_trees]))
    numbers = leaf_table(forest, forest.leaf.astype(np.float32), depth_of(forest))
    used = {name for node in copy.graph.node for name in node.input}
    kept = [tensor for tensor in copy.graph.initializer if tensor.name in used and tensor.name != LEAVES]
    del copy.graph.initializer[:]
    copy.graph.initializer.extend([*kept, numpy_helper.from_array(numbers, LEAVES)])
    return copy


def leaf_table(forest: Forest, values: npt.NDArray[np.float32], depth: int) -> npt.NDArray[np.float32]:
    """Return what stands at the bottom of the perfect trees, float32[2^depth * T], of one number for each node."""
    return values[_perfect(forest, depth)[depth]].astype(np.float32)


def _perfect(forest: Forest, depth: int) -> list[npt.NDArray[np.int64]]:
    """Return for every level the node of the forest at each place, int64[2^level * T]; a leaf stays below itself."""
    levels = [forest.roots.astype(np.int64)]
    for _ in range(depth):
        above = levels[-1]
        split = forest.feature[above] != LEAF
        children = [np.where(split, side[above], above) for side in (forest.left, forest.right)]
        levels.append(np.concatenate(children))
    return levels


def _twice() -> list[onnx.NodeProto]:
    from onnx import helper

    return [
        helper.make_node("IsNaN", ["features"], ["missing"]),
        helper.make_node("Where", ["missing", "minus_infinity", "features"], ["to_left"]),
        helper.make_node("Concat", ["to_left", "features"], ["row"], axis=1),
    ]


def _levels(forest: Forest, depth: int, constants: Constants) -> list[onnx.NodeProto]:
    """Walk down; the first level reads the same columns for every row, the others by where each row is."""
    from onnx import helper

    trees = forest.n_trees
    nodes: list[onnx.NodeProto] = []
    for level, places in enumerate(_perfect(forest, depth)[:depth]):
        split = forest.feature[places] != LEAF
        to_right = np.where(forest.nan_left[places], 0, forest.n_features)
        # What stands below a leaf reads the half where NaN is -inf, and its threshold sends everything to the left.
        columns = np.where(split, forest.feature[places] + to_right, 0).astype(np.int32)
        thresholds = np.where(split, forest.threshold[places], np.float32(np.inf)).astype(np.float32)
        turn = np.int32(trees << level)
        here = {
            name: f"{name}_{level}" for name in ("columns", "thresholds", "column", "value", "left", "turn", "step")
        }
        constants[here["columns"]], constants[here["thresholds"]] = columns, thresholds
        place, after = f"place_{level}", f"place_{level + 1}"
        if level == 0:
            constants["first_left"] = np.arange(trees, dtype=np.int32)
            constants["first_right"] = constants["first_left"] + turn
            nodes += [
                helper.make_node("Gather", ["row", here["columns"]], [here["value"]], axis=1),
                helper.make_node("LessOrEqual", [here["value"], here["thresholds"]], [here["left"]]),
                helper.make_node("Where", [here["left"], "first_left", "first_right"], [after]),
            ]
            continue
        constants[here["turn"]] = np.array(turn, np.int32)
        nodes += [
            helper.make_node("Gather", [here["columns"], place], [here["column"]], axis=0),
            helper.make_node("GatherElements", ["row", here["column"]], [here["value"]], axis=1),
            helper.make_node("Gather", [here["thresholds"], place], [f"threshold_{level}"], axis=0),
            helper.make_node("LessOrEqual", [here["value"], f"threshold_{level}"], [here["left"]]),
            helper.make_node("Where", [here["left"], "zero", here["turn"]], [here["step"]]),
            helper.make_node("Add", [place, here["step"]], [after]),
        ]
    return nodes


def _sums(forest: Forest, clip: float, constants: Constants) -> list[onnx.NodeProto]:
    from onnx import helper

    own = int((forest.part == OWN).sum())
    if (forest.part[:own] != OWN).any():
        raise ExportError("trees of the own part do not come first; export the forest as training made it")
    depth = depth_of(forest)
    nodes = [helper.make_node("Gather", [LEAVES, f"place_{depth}"], [VALUES], axis=0)]
    parts = [name for name, count in (("own", own), ("group", forest.n_trees - own)) if count]
    taken = VALUES
    if len(parts) == 2:
        constants["parts"] = np.array([own, forest.n_trees - own], np.int64)
        nodes.append(helper.make_node("Split", [VALUES, "parts"], ["own_leaves", "group_leaves"], axis=1))
    for part in parts:
        leaves = taken if len(parts) == 1 else f"{part}_leaves"
        nodes.append(helper.make_node("ReduceSum", [leaves, "trees"], [part], keepdims=0))
    if "group" in parts:
        constants |= {"clip_low": np.array(-clip, np.float32), "clip_high": np.array(clip, np.float32)}
        nodes.append(helper.make_node("Clip", ["group", "clip_low", "clip_high"], ["clipped"]))
    if len(parts) == 2:
        nodes.append(helper.make_node("Add", ["own", "clipped"], ["raw"]))
    else:
        nodes[-1].output[0] = "raw"
    return nodes


def _calibrated() -> list[onnx.NodeProto]:
    from onnx import helper

    return [
        helper.make_node("Mul", ["raw", "slope"], ["scaled"]),
        helper.make_node("Add", ["scaled", "offset"], ["log_odds"]),
        helper.make_node("Sigmoid", ["log_odds"], ["probability"]),
    ]
