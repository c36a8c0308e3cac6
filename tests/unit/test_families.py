"""Families are named where one fits, and a family that training never saw is unknown."""

from __future__ import annotations

import json

import numpy as np
import pytest

from classifier.errors import BundleError
from classifier.features.spec import NAMES
from classifier.model.dataset import Dataset, training_weights
from classifier.model.families import UNKNOWN, Families
from classifier.model.family_training import train_families

COLUMNS = list(range(20))
CENTRES = {"flood": 0, "stuffing": 1, "copying": 2}


def traffic(kinds: list[str], clients: int, seed: int = 0) -> Dataset:
    """Requests of clients, each kind with a column of its own in which it stands out; "" is legitimate."""
    rng = np.random.default_rng(seed)
    per_client = 20
    kind = np.repeat(np.array(kinds, object), clients * per_client)
    n = len(kind)
    rows = rng.normal(size=(n, len(NAMES))).astype(np.float32)
    for row, name in enumerate(kind):
        if name:
            rows[row, CENTRES.get(name, 7)] += 6.0
    rows[rng.random(rows.shape) < 0.05] = np.nan
    client = np.repeat(np.arange(len(kinds) * clients), per_client)
    return Dataset(
        rows, np.arange(n), np.arange(n) * 1_000_000, client.astype(np.uint64), kind != "", np.ones(n),
        client.astype(object), np.where(kind == "", "person", kind), np.full(n, np.nan), np.full(n, np.nan),
    )  # fmt: skip


@pytest.fixture(scope="module")
def families() -> Families:
    data = traffic(["", *CENTRES], 30)
    model = train_families(data, COLUMNS, training_weights(data))
    assert model is not None
    return Families(model.SerializeToString())


def test_families_that_were_learnt_are_named(families: Families) -> None:
    assert families.names == tuple(sorted(CENTRES))
    fresh = traffic(list(CENTRES), 20, seed=1)
    named = np.array(families.of(np.ascontiguousarray(fresh.rows[:, COLUMNS])))
    assert np.mean(named == fresh.family) > 0.9
    assert np.mean((named != fresh.family) & (named != UNKNOWN)) < 0.02


def test_what_was_never_seen_is_unknown(families: Families) -> None:
    fresh = traffic(["something else"], 40, seed=2)
    named = np.array(families.of(np.ascontiguousarray(fresh.rows[:, COLUMNS])))
    assert np.mean(named == UNKNOWN) > 0.9


def test_a_row_has_the_same_name_alone_and_in_a_crowd(families: Families) -> None:
    rows = np.ascontiguousarray(traffic(list(CENTRES), 5, seed=3).rows[:, COLUMNS])
    together = families.probabilities(rows)
    alone = np.concatenate([families.probabilities(row[None]) for row in rows])
    assert together.tobytes() == alone.tobytes()
    assert families.of(rows[:0]) == []


def test_a_family_of_too_few_attackers_is_not_learnt() -> None:
    data = traffic(["", "flood", "stuffing"], 10)
    few = data.take(~((data.family == "stuffing") & (data.key % 10 > 1)))
    model = train_families(few, COLUMNS, training_weights(few))
    assert model is not None
    assert json.loads({prop.key: prop.value for prop in model.metadata_props}["families"]) == ["flood"]
    nobody = data.take(~data.malicious)
    assert train_families(nobody, COLUMNS, np.ones(len(nobody))) is None


def test_a_file_that_is_none_of_ours_is_refused() -> None:
    with pytest.raises(BundleError, match=r"family\.onnx"):
        Families(b"no graph")
