"""A trained forest as plain arrays: the one shape that the exporter, the reasons and other engines read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from classifier.errors import BundleError, ExportError
from classifier.model import rounding
from classifier.model.lightgbm_trees import Booster, Tree, read_trees

if TYPE_CHECKING:
    import onnx

OWN, GROUP = 0, 1
"""The two parts of a model: trees on a client's own features, and trees on all features."""

LEAF = -1
"""What `feature`, `left` and `right` hold at a leaf."""


@dataclass(frozen=True, eq=False)
class Forest:
    """All trees, one after another, in arrays over nodes (n) and trees (t).

    Within a tree of L leaves the L - 1 internal nodes come first in LightGBM's order (the root first, every child
    after its parent), then the L leaves. A row goes left if `x[feature] <= threshold`, or if it is NaN and `nan_left`.

    feature    int32[n]    column of the full feature row; -1 at a leaf
    threshold  float32[n]  0 at a leaf
    left       int32[n]    absolute node index; -1 at a leaf
    right      int32[n]    absolute node index; -1 at a leaf
    nan_left   bool[n]
    value      float32[n]  leaf value (log odds); 0 at an internal node
    cover      float32[n]  training rows that passed (float32, as the ONNX file holds it)
    leaf       int32[n]    LightGBM's leaf number; -1 at an internal node
    roots      int32[t]    absolute index of each root
    part       uint8[t]    0 own, 1 group; or the class, for a forest `of_classes`
    n_features             length of the full feature row
    """

    feature: npt.NDArray[np.int32]
    threshold: npt.NDArray[np.float32]
    left: npt.NDArray[np.int32]
    right: npt.NDArray[np.int32]
    nan_left: npt.NDArray[np.bool_]
    value: npt.NDArray[np.float32]
    cover: npt.NDArray[np.float32]
    leaf: npt.NDArray[np.int32]
    roots: npt.NDArray[np.int32]
    part: npt.NDArray[np.uint8]
    n_features: int

    @property
    def n_trees(self) -> int:
        """Number of trees in both parts."""
        return len(self.roots)

    @property
    def n_nodes(self) -> int:
        """Number of nodes, leaves included."""
        return len(self.feature)

    @property
    def tree_ends(self) -> npt.NDArray[np.int32]:
        """One past the last node of each tree, int32[t]."""
        return np.append(self.roots[1:], np.int32(self.n_nodes))

    @property
    def tree_of_node(self) -> npt.NDArray[np.int32]:
        """The tree each node belongs to, int32[n]."""
        return np.repeat(np.arange(self.n_trees, dtype=np.int32), self.tree_ends - self.roots)

    def leaf_values(self) -> list[npt.NDArray[np.float64]]:
        """Leaf values of each tree, float64 (exact)."""
        spans = zip(self.roots, self.tree_ends, strict=True)
        return [self.value[start:end][self.leaf[start:end] >= 0].astype(np.float64) for start, end in spans]

    @classmethod
    def from_lightgbm(
        cls,
        own: Booster | None,
        own_columns: Sequence[int],
        group: Booster | None,
        n_features: int | None = None,
    ) -> Forest:
        """Read a two-part model out of LightGBM.

        `own` was trained on the columns `own_columns` of the full row, `group` on the full row from own's raw score as
        `init_score`. `n_features` is the length of the full row; without it, that of `group`, else the last own column.
        Leaves must have been rounded (`rounding.round_leaves`). Raises ExportError for what cannot be exact.
        """
        columns = np.asarray(own_columns, dtype=np.int32)
        if own is not None and own.num_feature() != len(columns):
            raise ExportError(f"the own part has {own.num_feature()} features, but {len(columns)} columns are named")
        if n_features is None:
            n_features = group.num_feature() if group is not None else int(columns.max(initial=-1)) + 1
        identity = np.arange(n_features, dtype=np.int32)
        trees: list[tuple[int, npt.NDArray[np.int32], Tree]] = []
        for part, booster, remap in ((OWN, own, columns), (GROUP, group, identity)):
            if booster is not None:
                trees += [(part, remap, tree) for tree in read_trees(booster)]
        return _assemble(trees, n_features)

    @classmethod
    def of_classes(cls, boosters: Sequence[Booster], n_features: int) -> Forest:
        """Read one model a class out of LightGBM; `part` is the class. Leaves must have been rounded, all together."""
        columns = np.arange(n_features, dtype=np.int32)
        return _assemble(
            [(part, columns, tree) for part, b in enumerate(boosters) for tree in read_trees(b)], n_features
        )

    @classmethod
    def from_onnx(cls, model: onnx.ModelProto) -> Forest:
        """Read the arrays back from a graph that `export.to_onnx` wrote; equal to what it was given.

        Raises BundleError if the graph holds no forest of ours or one that points outside itself.
        """
        nodes = [node for node in model.graph.node if node.op_type == "TreeEnsembleRegressor"]
        if len(nodes) != 1:
            raise BundleError(f"the model has {len(nodes)} tree ensembles where 1 was expected; train the bundle again")
        try:
            forest = _from_attributes(_attributes(nodes[0]), _input_width(model))
        except (KeyError, ValueError, IndexError, OverflowError) as error:
            raise BundleError(f"the model's tree ensemble cannot be read ({error}); train the bundle again") from error
        return forest

    def equals(self, other: Forest) -> bool:
        """Whether all arrays are equal, bit for bit."""
        return all(_same_bits(getattr(self, field.name), getattr(other, field.name)) for field in fields(self))


def _same_bits(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and bool(one.tobytes() == other.tobytes())
    return bool(one == other)


def _assemble(trees: list[tuple[int, npt.NDArray[np.int32], Tree]], n_features: int) -> Forest:
    if not trees:
        raise ExportError("the model has no trees; train it on data with both classes")
    values = [tree.leaf_value for _, _, tree in trees]
    if not rounding.sums_exactly(values):
        raise ExportError("the leaves are not rounded, so sums would depend on their order; call round_leaves first")
    sizes = np.array([2 * tree.leaves - 1 for _, _, tree in trees], dtype=np.int64)
    roots = (np.cumsum(sizes) - sizes).astype(np.int32)
    parts = [_nodes(tree, remap, int(root)) for (_, remap, tree), root in zip(trees, roots, strict=True)]
    arrays = {name: np.concatenate([nodes[name] for nodes in parts]) for name in parts[0]}
    part = np.array([part for part, _, _ in trees], dtype=np.uint8)
    forest = Forest(**arrays, roots=roots, part=part, n_features=n_features)
    if problem := _structural_problem(forest):
        raise ExportError(f"LightGBM's model is not a forest: {problem}; train it again")
    return forest


def _nodes(tree: Tree, remap: npt.NDArray[np.int32], root: int) -> dict[str, npt.NDArray[Any]]:
    """Lay out one tree: internal nodes in LightGBM's order, then leaves by number."""
    leaves = tree.leaves
    none = np.full(leaves, LEAF, dtype=np.int32)
    zeros = np.zeros(leaves, dtype=np.float32)
    internal = np.zeros(leaves - 1, dtype=np.float32)

    def absolute(child: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        return np.where(child >= 0, root + child, root + leaves - 2 - child).astype(np.int32)

    return {
        "feature": np.concatenate([remap[tree.feature], none]),
        "threshold": np.concatenate([rounding.route_thresholds(tree.threshold), zeros]),
        "left": np.concatenate([absolute(tree.left), none]),
        "right": np.concatenate([absolute(tree.right), none]),
        "nan_left": np.concatenate([tree.nan_left, np.zeros(leaves, dtype=np.bool_)]),
        "value": np.concatenate([internal, tree.leaf_value.astype(np.float32)]),
        "cover": np.concatenate([tree.internal_count, tree.leaf_count]).astype(np.float32),
        "leaf": np.concatenate([np.full(leaves - 1, LEAF, np.int32), np.arange(leaves, dtype=np.int32)]),
    }


def _structural_problem(forest: Forest) -> str | None:
    """Name what would let a walk leave its tree or never end. Kernels without bounds checks rely on this."""
    split = forest.feature != LEAF
    index = np.arange(forest.n_nodes)
    ends = forest.tree_ends[forest.tree_of_node]
    if forest.roots[0] != 0 or (forest.tree_ends <= forest.roots).any():
        return "a tree has no nodes"
    if (forest.feature[split] < 0).any() or (forest.feature[split] >= forest.n_features).any():
        return f"a split reads a column outside the {forest.n_features} features"
    for child in (forest.left, forest.right):
        if (child[split] <= index[split]).any() or (child[split] >= ends[split]).any():
            return "a child does not follow its parent within its tree"
    children = np.concatenate([forest.left[split], forest.right[split]])
    if len(np.unique(children)) != len(children) or len(children) != forest.n_nodes - forest.n_trees:
        return "a node is reached from two places, or from none"
    if (forest.leaf[~split] < 0).any():
        return "a leaf stands before the splits of its tree"
    if np.isnan(forest.threshold).any() or not np.isfinite(forest.value).all():
        return "a threshold or leaf value is not a number"
    return None


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    import onnx

    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def _input_width(model: onnx.ModelProto) -> int:
    return int(model.graph.input[0].type.tensor_type.shape.dim[1].dim_value)


def _from_attributes(attributes: dict[str, Any], n_features: int) -> Forest:
    tree_of_node = np.array(attributes["nodes_treeids"], dtype=np.int32)
    split = np.array([mode == b"BRANCH_LEQ" for mode in attributes["nodes_modes"]], dtype=np.bool_)
    roots = np.flatnonzero(np.diff(tree_of_node, prepend=-1) > 0).astype(np.int32)
    base = roots[tree_of_node]
    position = np.arange(len(split), dtype=np.int32) - base
    if not np.array_equal(position, attributes["nodes_nodeids"]):
        raise ValueError("nodes are not in the order botsieve writes")
    internal = np.add.reduceat(split.astype(np.int32), roots)[tree_of_node]
    value, part = _leaf_values(attributes, split, tree_of_node)
    forest = Forest(
        feature=_where(split, attributes["nodes_featureids"]),
        threshold=np.array(attributes["nodes_values"], dtype=np.float32),
        left=_where(split, attributes["nodes_truenodeids"], base),
        right=_where(split, attributes["nodes_falsenodeids"], base),
        nan_left=np.array(attributes["nodes_missing_value_tracks_true"], dtype=np.bool_),
        value=value,
        cover=np.array(attributes["nodes_hitrates"], dtype=np.float32),
        leaf=np.where(split, np.int32(LEAF), position - internal).astype(np.int32),
        roots=roots,
        part=part,
        n_features=n_features,
    )
    lengths = {len(getattr(forest, field.name)) for field in fields(forest)[:8]}
    if lengths != {len(split)}:
        raise ValueError("its arrays differ in length")
    if problem := _structural_problem(forest):
        raise ValueError(problem)
    return forest


def _where(
    split: npt.NDArray[np.bool_], numbers: Sequence[int], base: npt.NDArray[np.int32] | int = 0
) -> npt.NDArray[np.int32]:
    return np.where(split, np.array(numbers, dtype=np.int32) + base, np.int32(LEAF)).astype(np.int32)


def _leaf_values(
    attributes: dict[str, Any], split: npt.NDArray[np.bool_], tree_of_node: npt.NDArray[np.int32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Spread the target arrays (one entry a leaf, in node order) over nodes, and read each tree's part."""
    leaves = np.flatnonzero(~split)
    if not np.array_equal(tree_of_node[leaves], attributes["target_treeids"]):
        raise ValueError("leaves and their values do not match")
    value = np.zeros(len(split), dtype=np.float32)
    value[leaves] = np.array(attributes["target_weights"], dtype=np.float32)
    part = np.zeros(int(tree_of_node[-1]) + 1, dtype=np.uint8)
    part[tree_of_node[leaves]] = np.array(attributes["target_ids"], dtype=np.uint8)
    if not np.array_equal(part[tree_of_node[leaves]], attributes["target_ids"]) or part.max() > GROUP:
        raise ValueError("a tree belongs to no single part")
    return value, part
