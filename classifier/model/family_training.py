"""Growing the forest that names families (`families`): one binary LightGBM model a family, in one graph."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from classifier import __version__
from classifier.errors import ExportError
from classifier.model.dataset import Dataset, thinned, training_weights
from classifier.model.export import IR_VERSION, ML_OPSET, OPSET, tree_node
from classifier.model.families import NAMES_KEY, UNKNOWN, Families
from classifier.model.forest import Forest
from classifier.model.rounding import round_leaves
from classifier.model.train import Trained

if TYPE_CHECKING:
    import onnx

MOST_ROWS = 40_000
FEWEST_CLIENTS = 3
"""Attackers of a family in training, below which it is not learnt: its requests would all be one client's habits."""
ROUNDS, LEAVES, DEPTH = 24, 15, 6
TOLERANCE = 1e-5
"""Greatest difference of a probability between the graph and LightGBM, over the rows that grew the trees."""
_NOT_AN_ATTACK = ""


def families_of(data: Dataset, trained: Trained, *, threads: int, seed: int) -> onnx.ModelProto | None:
    """Grow the forest on the rows that the model was grown on, with its features."""
    known = data.take(trained.split.train)
    positions, stands_for = thinned(known, seed)
    grown = known.take(positions)
    grown.weight = stands_for
    return train_families(grown, trained.columns, training_weights(grown), threads=threads, seed=seed)


def train_families(
    data: Dataset, columns: list[int], weight: npt.NDArray[np.float64], *, threads: int = 2, seed: int = 0
) -> onnx.ModelProto | None:
    """Grow the forest on labelled rows; None where no family has enough attackers.

    `columns` of the full rows are the features the model takes; `weight` float64[n] that of each row in training. Raises
    ExportError if the graph answers differently from LightGBM for any row that it was trained on.
    """
    import lightgbm as lgb

    names = _learnable(data)
    if not names:
        return None
    kinds = np.where(data.malicious, data.family.astype(str), _NOT_AN_ATTACK)
    known = np.flatnonzero(np.isin(kinds, [*names, _NOT_AN_ATTACK]))
    chance = np.minimum(weight[known] * (MOST_ROWS / weight[known].sum()), 1.0) if len(known) > MOST_ROWS else 1.0
    kept = np.random.default_rng(seed).random(len(known)) < chance
    weight, known = (weight[known] / chance)[kept], known[kept]
    rows = np.ascontiguousarray(data.rows[known][:, columns])
    grown = lgb.Dataset(rows, kinds[known] == names[0], weight=weight, free_raw_data=False)
    parameters = {
        "objective": "binary", "num_leaves": LEAVES, "max_depth": DEPTH, "learning_rate": 0.2, "min_data_in_leaf": 20,
        "feature_fraction": 0.5, "bagging_fraction": 0.8, "bagging_freq": 1, "lambda_l2": 5.0, "max_bin": 63, "seed": seed,
        "deterministic": True, "force_row_wise": True, "num_threads": threads, "verbosity": -1,
    }  # fmt: skip
    boosters = []
    for name in names:  # the rows are put into bins once
        boosters.append(lgb.train(parameters, grown.set_label(kinds[known] == name), num_boost_round=ROUNDS))
    round_leaves(boosters)
    model = to_onnx(Forest.of_classes(boosters, len(columns)), names)
    _check(model, rows, np.column_stack([booster.predict(rows) for booster in boosters]))
    return model


def _learnable(data: Dataset) -> list[str]:
    """Return the families that enough attackers have, sorted."""
    families, inverse = np.unique(data.family[data.malicious].astype(str), return_inverse=True)
    keys = data.key[data.malicious]
    return [
        str(name)
        for place, name in enumerate(families)
        if name not in ("None", "", UNKNOWN) and len(np.unique(keys[inverse == place])) >= FEWEST_CLIENTS
    ]


def to_onnx(forest: Forest, names: list[str]) -> onnx.ModelProto:
    """Write the graph of a forest `of_classes`, one for each name."""
    from onnx import TensorProto, checker, helper

    nodes = [
        tree_node(forest, len(names), "log_odds"),
        helper.make_node("Sigmoid", ["log_odds"], ["probability"]),
    ]
    graph = helper.make_graph(
        nodes,
        "botsieve families",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", forest.n_features])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["N", len(names)])],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    model = helper.make_model(
        graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="botsieve", producer_version=__version__
    )
    helper.set_model_props(model, {NAMES_KEY: json.dumps(names)})
    checker.check_model(model)
    return model


def _check(model: onnx.ModelProto, rows: npt.NDArray[np.float32], expected: npt.NDArray[np.float64]) -> None:
    found = Families(model.SerializeToString()).probabilities(rows)
    worst = float(np.abs(found - expected).max(initial=0.0))
    if not worst <= TOLERANCE:
        raise ExportError(f"the graph of the families differs from LightGBM by {worst:.2g}; report this")


def agreement(families: Families, test: Dataset, acted: npt.NDArray[np.bool_], columns: list[int]) -> dict[str, int]:
    """Count what the attackers' requests that were acted on, bool[n], are called: rightly, otherwise, unknown."""
    attacks = test.take(acted & test.malicious)
    named = np.array(families.of(np.ascontiguousarray(attacks.rows[:, columns])), object)
    right, unknown = named == attacks.family, named == UNKNOWN
    return {"right": int(right.sum()), "other": int((~right & ~unknown).sum()), "unknown": int(unknown.sum())}
