"""The forest's arrays, read from LightGBM and back from the graph, and what it refuses."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import lightgbm
import numpy as np
import onnx
import pytest

from classifier.errors import BundleError, ExportError
from classifier.model.export import to_onnx
from classifier.model.forest import GROUP, LEAF, OWN, Forest
from classifier.model.rounding import round_leaves
from tests.forests import BASE, CASES, OWN_COLUMNS, WIDTH, model


@pytest.mark.parametrize(("kind", "seed"), CASES)
def test_the_graph_gives_the_same_arrays_back(kind: str, seed: int) -> None:
    forest = model(kind, seed)[0].forest(WIDTH)
    built = onnx.load_model_from_string(to_onnx(forest, (1.0, 0.0), 0.5).SerializeToString())
    again = Forest.from_onnx(built)
    for field in dataclasses.fields(Forest):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(forest, field.name), err_msg=field.name)
    assert again.equals(forest)


def test_parts_columns_and_counts_are_lightgbms() -> None:
    boosters, rows, _ = model("nan in training", 1)
    forest = boosters.forest()
    assert forest.n_features == WIDTH
    assert (forest.part == OWN).sum() == (forest.part == GROUP).sum() == 12
    own_nodes = forest.part[forest.tree_of_node] == OWN
    assert set(forest.feature[own_nodes]) <= {LEAF, *OWN_COLUMNS}
    np.testing.assert_array_equal(forest.cover[forest.roots], len(rows))
    split = forest.feature != LEAF
    np.testing.assert_array_equal(
        forest.cover[split], forest.cover[forest.left[split]] + forest.cover[forest.right[split]]
    )


def test_a_forest_differs_from_one_with_another_bit() -> None:
    forest = model("stumps", 1)[0].forest(WIDTH)
    other = dataclasses.replace(forest, threshold=np.nextafter(forest.threshold, np.float32(np.inf)))
    assert not forest.equals(other)


def test_early_stopping_ends_the_forest_where_predict_ends() -> None:
    booster = train()
    booster.best_iteration = 2
    round_leaves([booster])
    forest = Forest.from_lightgbm(booster, range(4), None)
    assert forest.n_trees == booster.predict(np.zeros((1, 4), np.float32), pred_leaf=True).shape[1] == 2


def train(**params: Any) -> lightgbm.Booster:
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 5, (300, 4)).astype(np.float64)
    labels = rng.integers(0, params.get("num_class", 2), 300)
    data = lightgbm.Dataset(rows, labels, categorical_feature=params.pop("categorical", "auto"))
    return lightgbm.train(BASE | {"min_data_per_group": 1, "cat_smooth": 0} | params, data, 3)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"categorical": [0, 1, 2, 3]}, "categorical"),
        ({"linear_tree": True}, "linear"),
        ({"zero_as_missing": True}, "zero as missing"),
        ({"objective": "multiclass", "num_class": 3}, "several classes"),
        ({"boosting": "rf", "bagging_fraction": 0.5, "bagging_freq": 1}, "averages"),
    ],
)
def test_what_cannot_be_exact_is_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        Forest.from_lightgbm(train(**params), range(4), None)


def test_a_model_without_trees_or_with_other_columns_is_refused() -> None:
    with pytest.raises(ExportError, match="no trees"):
        Forest.from_lightgbm(None, (), None)
    with pytest.raises(ExportError, match="4 features, but 3 columns"):
        Forest.from_lightgbm(train(), range(3), None)


def attribute(built: onnx.ModelProto, name: str) -> onnx.AttributeProto:
    return next(part for part in built.graph.node[0].attribute if part.name == name)


def point_outside(built: onnx.ModelProto) -> None:
    attribute(built, "nodes_truenodeids").ints[0] = 10_000


def point_back(built: onnx.ModelProto) -> None:
    attribute(built, "nodes_falsenodeids").ints[1] = 0


def point_below_zero(built: onnx.ModelProto) -> None:
    attribute(built, "nodes_truenodeids").ints[0] = -5


def read_a_column_outside(built: onnx.ModelProto) -> None:
    attribute(built, "nodes_featureids").ints[0] = WIDTH


def share_a_child(built: onnx.ModelProto) -> None:
    attribute(built, "nodes_truenodeids").ints[0] = attribute(built, "nodes_falsenodeids").ints[0]


def number_huge(built: onnx.ModelProto) -> None:
    attribute(built, "nodes_featureids").ints[0] = 1 << 40


def lose_an_attribute(built: onnx.ModelProto) -> None:
    attribute(built, "nodes_hitrates").name = "nodes_something"


def shorten(built: onnx.ModelProto) -> None:
    del attribute(built, "nodes_hitrates").floats[3:]


def make_a_leaf_nan(built: onnx.ModelProto) -> None:
    attribute(built, "target_weights").floats[0] = float("nan")


def third_part(built: onnx.ModelProto) -> None:
    ids = attribute(built, "target_ids").ints
    ids[:] = [2] * len(ids)


def no_forest(built: onnx.ModelProto) -> None:
    del built.graph.node[0]


@pytest.mark.parametrize(
    "damage",
    [
        point_outside, point_back, point_below_zero, read_a_column_outside, share_a_child, number_huge,
        lose_an_attribute, shorten, make_a_leaf_nan, third_part, no_forest,
    ],
)  # fmt: skip
def test_a_graph_that_points_outside_itself_is_refused(damage: Callable[[onnx.ModelProto], None]) -> None:
    built = to_onnx(model("nan in training", 1)[0].forest(WIDTH), (1.0, 0.0), np.inf)
    damage(built)
    with pytest.raises(BundleError, match="train the bundle again"):
        Forest.from_onnx(built)


def test_what_serving_imports_loads_no_training_library() -> None:
    modules = ("scorer", "attribution", "bundle", "forest", "rounding")
    code = "import sys\n" + "".join(f"import classifier.model.{name}\n" for name in modules)
    code += "print(sorted({'lightgbm', 'sklearn', 'pandas', 'mlflow'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
