"""No single column gives attackers away: evasive and mimic ones are held against all legitimate clients.

One log of a simulated service, judged by `tests.unit.telltales`. Where this fails, make the attacker smarter.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from classifier.events import EVENT_SCHEMA, clients_of
from classifier.features.spec import NAMES
from classifier.features.stream import feature_chunks
from classifier.traffic import inject, simulate, simulated
from tests.unit.telltales import LIMIT, TREE_LIMIT, raw_columns, separations, tree_separations
from tests.unit.test_traffic_injection import web_log

pytestmark = pytest.mark.slow


class Judged(NamedTuple):
    """A log and what belongs to each of its requests."""

    events: pa.Table
    clients: pa.Array
    group: list[str | None]
    hostile: np.ndarray


@pytest.fixture(scope="module")
def judged() -> Judged:
    known = simulated(duration_s=2 * 3600, clients=300, attacks="all:evasive,all:mimic", seed=11, attackers=2.4)
    events = known.events
    names = zip(events["family"].to_pylist(), known.grade.to_pylist(), strict=True)
    group = [None if grade is None else f"{family}:{grade}" for family, grade in names]
    return Judged(events, clients_of(events), group, events["malicious"].to_numpy())


def test_no_raw_column_alone_separates_a_family(judged: Judged) -> None:
    found = separations(raw_columns(judged.events, judged.hostile), judged.clients, judged.group)
    assert len({one.group for one in found}) == 30
    assert not [str(one) for one in found if one.auc > LIMIT]


def test_no_small_tree_on_raw_columns_separates_a_family(judged: Judged) -> None:
    found = tree_separations(raw_columns(judged.events, judged.hostile), judged.clients, judged.group)
    assert not [str(one) for one in found if one.auc > TREE_LIMIT]


def test_no_feature_alone_separates_a_family(judged: Judged) -> None:
    rows = np.empty((judged.events.num_rows, len(NAMES)), np.float32)
    for chunk in feature_chunks([judged.events], secret=b"telltales-" * 4):
        rows[chunk.row] = chunk.rows
    found = separations((NAMES, rows), judged.clients, judged.group)
    assert not [str(one) for one in found if one.auc > LIMIT]


@pytest.mark.parametrize("grade", ["evasive", "mimic"])
@pytest.mark.parametrize("log", ["pages", "inference"])
def test_no_raw_column_gives_woven_attackers_away(log: str, grade: str) -> None:
    own = web_log(600, 8) if log == "pages" else simulate(duration_s=3600, clients=250, attacks="none", seed=8)
    woven = inject(own, attacks=f"all:{grade}", seed=3, share=0.5)
    hostile = woven["malicious"].to_numpy()
    families = woven["family"].to_pylist()
    group = [family if bad else None for family, bad in zip(families, hostile, strict=True)]
    columns = raw_columns(woven, hostile)
    if log == "pages":
        del columns["hour"]  # the made-up site has no sessions: everybody comes at all hours of two days
    found = separations(columns, clients_of(woven), group)
    assert not [str(one) for one in found if one.auc > LIMIT]
    assert not [str(one) for one in tree_separations(columns, clients_of(woven), group) if one.auc > TREE_LIMIT]


VICTIM = "jailbreak:mimic"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("user_agent", pl.lit("evil-kit/1.0")),
        ("max_tokens", pl.lit(4242)),
        ("request_bytes", pl.col("request_bytes") * 60 + 7_000),
        ("account_created", pl.lit(None)),
        ("path", pl.lit("/v1/chat/completions?x=1")),
        ("duration", pl.col("duration") + 200.0),
    ],
)
def test_a_planted_tell_tale_is_found(judged: Judged, field: str, value: pl.Expr) -> None:
    marked = pl.DataFrame(judged.events).with_columns(victim=pl.Series([name == VICTIM for name in judged.group]))
    planted = marked.with_columns(pl.when("victim").then(value).otherwise(pl.col(field)).alias(field)).drop("victim")
    events = planted.to_arrow().cast(EVENT_SCHEMA)
    columns = raw_columns(events, judged.hostile)
    alone = {one.group for one in separations(columns, judged.clients, judged.group) if one.auc > LIMIT}
    together = {one.group for one in tree_separations(columns, judged.clients, judged.group) if one.auc > TREE_LIMIT}
    assert alone | together == {VICTIM}


def test_a_tell_tale_of_two_columns_is_found_by_the_tree(judged: Judged) -> None:
    """Each of the two columns is ordinary, the pair is not."""
    rng = np.random.default_rng(0)
    victim = np.array([name == VICTIM for name in judged.group])
    one = rng.integers(0, 2, len(victim)).astype(float)
    other = np.where(victim, one, 1.0 - one)
    found = tree_separations({"one": one, "other": other}, judged.clients, judged.group)
    assert [each.group for each in found if each.auc > TREE_LIMIT] == [VICTIM]
    alone = separations({"one": one, "other": other}, judged.clients, judged.group)
    assert all(each.auc < 0.8 for each in alone if each.unit == "request")


def test_missing_values_count_on_either_side() -> None:
    clients = pa.array([f"c{i}" for i in range(40)])
    group = ["attack" if i < 10 else None for i in range(40)]
    value = np.where(np.arange(40) < 10, np.nan, np.arange(40.0))
    assert separations({"x": value}, clients, group)[0].auc == 1.0


def test_a_heavy_client_does_not_stand_for_everybody() -> None:
    """Ninety-nine of a hundred legitimate requests are those of one client."""
    clients = pa.array(["heavy"] * 990 + [f"c{i}" for i in range(10)] + [f"a{i}" for i in range(10)])
    group = [None] * 1000 + ["attack"] * 10
    value = np.concatenate((np.ones(990), np.zeros(10), np.zeros(10)))
    assert separations({"x": value}, clients, group)[0].auc < 0.6
