"""Random two-part LightGBM models, each of a kind that has led an exporter astray somewhere."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt

from classifier.model.boosters import Boosters

FloatRows = npt.NDArray[np.float32]
WIDTH = 10
ROWS = 1500
OWN_COLUMNS = (7, 0, 3, 8, 5)
"""Not in order: the exporter must map the own part's columns, not count on them."""

BASE: dict[str, Any] = {
    "objective": "binary", "verbose": -1, "num_threads": 1, "deterministic": True, "num_leaves": 15, "max_depth": 6,
    "learning_rate": 0.15, "min_data_in_leaf": 5,
}  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """What the features look like, how LightGBM is told to grow, and the number of trees of each part (-1: no part)."""

    columns: str
    params: dict[str, Any]
    own_trees: int = 12
    group_trees: int = 12


KINDS = {
    "nan in training": Kind("nan", {}),
    "no nan in training": Kind("plain", {}),
    "nan taken for zero": Kind("nan", {"use_missing": False}),
    "zeros": Kind("zeros", {}),
    "neighbouring floats": Kind("neighbours", {}),
    "huge and tiny": Kind("magnitudes", {}),
    "denormals": Kind("denormals", {}),
    "counts": Kind("counts", {}),
    "deep": Kind("nan", {"num_leaves": 200, "max_depth": -1, "min_data_in_leaf": 1, "min_sum_hessian_in_leaf": 0}),
    "many thresholds": Kind(
        "plain", {"num_leaves": 90, "max_depth": -1, "min_data_in_leaf": 1, "max_bin": 4095}, 24, 24
    ),
    "large trees": Kind(
        "plain", {"num_leaves": 400, "max_depth": -1, "min_data_in_leaf": 1, "min_sum_hessian_in_leaf": 0}
    ),
    "stumps": Kind("nan", {"num_leaves": 2}),
    "one leaf": Kind("plain", {"min_data_in_leaf": ROWS}),
    "own only": Kind("nan", {}, group_trees=-1),
    "group only": Kind("nan", {}, own_trees=-1),
    "large leaves": Kind("plain", {"learning_rate": 0.6, "min_data_in_leaf": 1}),
    "random thresholds": Kind("nan", {"extra_trees": True, "bagging_fraction": 0.5, "bagging_freq": 1}),
}
SEEDS = (1, 2)
CASES = [(kind, seed) for kind in KINDS for seed in SEEDS]


@cache
def model(kind: str, seed: int) -> tuple[Boosters, FloatRows, int]:
    """Return a trained and rounded model, its training rows (float32[n, 10]) and k. Do not change them."""
    boosters, rows = train(kind, seed)
    return boosters, rows, boosters.round_leaves()


def train(kind: str, seed: int) -> tuple[Boosters, FloatRows]:
    """Train a model of one kind, with leaves as LightGBM made them."""
    shape = KINDS[kind]
    rng = np.random.default_rng([seed, len(kind)])
    rows = _columns(shape.columns, rng)
    malicious = _labels(rows, rng)
    params = BASE | shape.params | {"seed": seed}
    own = group = score = None
    if shape.own_trees >= 0:
        own_rows = np.ascontiguousarray(rows[:, OWN_COLUMNS])
        own = lightgbm.train(params, lightgbm.Dataset(own_rows, malicious), shape.own_trees)
        score = own.predict(own_rows, raw_score=True)
    if shape.group_trees >= 0:
        group = lightgbm.train(params, lightgbm.Dataset(rows, malicious, init_score=score), shape.group_trees)
    return Boosters(own, OWN_COLUMNS, group), rows


def _labels(rows: FloatRows, rng: np.random.Generator) -> npt.NDArray[np.int32]:
    ranks = np.argsort(np.argsort(np.nan_to_num(rows), axis=0), axis=0) / len(rows)
    odds = ranks[:, 0] + ranks[:, 3] * ranks[:, 7] + 0.5 * (ranks[:, 1] > 0.6) + 0.3 * np.isnan(rows[:, 2])
    noisy = odds + 0.2 * rng.standard_normal(len(rows))
    return (noisy > np.quantile(noisy, 0.7)).astype(np.int32)


def _columns(name: str, rng: np.random.Generator) -> FloatRows:
    normal = rng.standard_normal((ROWS, WIDTH))
    if name == "nan":
        normal[rng.random(normal.shape) < np.linspace(0, 0.5, WIDTH)] = np.nan
    elif name == "zeros":
        normal[rng.random(normal.shape) < 0.6] = 0.0
    elif name == "counts":
        normal = np.floor(np.exp(normal))
    elif name == "neighbours":
        # A dozen float32 next to each other: every threshold is the midpoint of two neighbours, half of them odd.
        return (np.float32(1.5).view(np.int32) + rng.integers(0, 12, normal.shape, dtype=np.int32)).view(np.float32)
    elif name == "magnitudes":
        normal = np.sign(normal) * 10.0 ** rng.uniform(-37, 38, normal.shape)
        normal[rng.random(normal.shape) < 0.05] = np.inf
    elif name == "denormals":
        normal = normal * 10.0 ** rng.uniform(-44, -33, normal.shape)
    return normal.astype(np.float32)
