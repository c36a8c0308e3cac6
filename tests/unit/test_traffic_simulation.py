"""What `simulate` promises: labels, order, determinism, volume, and attackers that no single column gives away."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from classifier.errors import InputError
from classifier.events import EVENT_SCHEMA
from classifier.traffic import GRADES, families, simulate
from classifier.traffic.legitimate import FAMILIES, KINDS, census

SMALL = {"duration_s": 1800.0, "clients": 120, "seed": 5}


@pytest.fixture(scope="module")
def small() -> pa.Table:
    return simulate(**SMALL)


@pytest.fixture(scope="module")
def hour() -> pl.DataFrame:
    table = pl.DataFrame(simulate(duration_s=2 * 3600, clients=400, seed=3))
    return table.with_columns(client=pl.coalesce("account", "ip"))


def test_events_have_the_schema_and_are_sorted_and_labelled(small: pa.Table) -> None:
    assert small.schema.equals(EVENT_SCHEMA)
    assert np.all(np.diff(small["time"].to_numpy()) >= 0)
    for name in ("time", "ip", "method", "path", "malicious", "family"):
        assert small[name].null_count == 0
    assert small["verdict"].null_count == small.num_rows


def test_the_same_seed_gives_the_same_bytes(small: pa.Table) -> None:
    assert simulate(**SMALL).equals(small)
    assert not simulate(**{**SMALL, "seed": 6}).equals(small)


def test_legitimate_events_do_not_depend_on_the_attacks(small: pa.Table) -> None:
    honest = pl.DataFrame(small).filter(~pl.col("malicious"))
    assert pl.DataFrame(simulate(**SMALL, attacks="none")).equals(honest)


def test_an_attack_does_not_depend_on_the_other_attacks(small: pa.Table) -> None:
    alone = pl.DataFrame(simulate(**SMALL, attacks="slow_botnet")).filter(pl.col("malicious"))
    assert alone.equals(pl.DataFrame(small).filter(pl.col("family") == "slow_botnet"))


def test_families_are_attack_families_or_kinds_of_legitimate_client(small: pa.Table) -> None:
    frame = pl.DataFrame(small)
    assert set(frame.filter(pl.col("malicious"))["family"]) == set(families())
    assert set(frame.filter(~pl.col("malicious"))["family"]) <= set(FAMILIES)


def test_no_client_is_both(hour: pl.DataFrame) -> None:
    labels = hour.group_by("client").agg(pl.col("malicious").n_unique())
    assert labels["malicious"].max() == 1


def test_volume_and_shares_are_as_documented(hour: pl.DataFrame) -> None:
    assert 40_000 < hour.height < 300_000
    assert 0.1 < hour["malicious"].mean() < 0.4
    clients = hour.group_by("client").agg(pl.col("malicious").first())
    assert 0.05 < clients["malicious"].mean() < 0.25


def test_both_halves_have_attackers_of_every_family(hour: pl.DataFrame) -> None:
    middle = (hour["time"].min() + hour["time"].max()) // 2
    for half in (hour.filter(pl.col("time") < middle), hour.filter(pl.col("time") >= middle)):
        assert set(half.filter("malicious")["family"]) == set(families())


def test_automated_clients_are_among_the_legitimate_and_the_heaviest(hour: pl.DataFrame) -> None:
    busiest = hour.group_by("client", "family", "malicious").len().sort("len", descending=True).head(10)
    assert set(busiest.filter(~pl.col("malicious"))["family"]) & {"tenant_heavy", "sdk_batch", "tenant"}


def test_accounts_share_addresses_and_addresses_share_accounts(hour: pl.DataFrame) -> None:
    honest = hour.filter(~pl.col("malicious"), pl.col("account").is_not_null())
    assert honest.group_by("ip").agg(pl.col("account").n_unique())["account"].max() >= 5
    assert honest.group_by("account").agg(pl.col("ip").n_unique())["ip"].max() >= 3


def test_requests_are_retried_after_failures(hour: pl.DataFrame) -> None:
    batch = hour.filter(pl.col("family").is_in(["tenant", "tenant_heavy", "sdk_batch"])).sort("client", "time")
    again = batch.with_columns(again=(pl.col("prompt") == pl.col("prompt").shift(1)).over("client"))
    assert again.filter(pl.col("status").shift(1).is_in([429, 500, 503]))["again"].sum() > 0


def test_fields_fit_together(hour: pl.DataFrame) -> None:
    served = pl.col("output_tokens").is_not_null()
    assert hour.filter(served)["status"].unique().to_list() == [200]
    assert (
        hour.filter(served & pl.col("max_tokens").is_not_null())
        .select((pl.col("output_tokens") <= pl.col("max_tokens")).all())
        .item()
    )
    assert hour.filter(pl.col("method") == "GET")["request_bytes"].max() == 0
    assert hour.filter(pl.col("account").is_not_null())["account_created"].null_count() == 0
    assert hour.filter(pl.col("model").is_not_null())["prompt"].null_count() == 0
    assert hour["duration"].min() > 0
    assert hour.filter(pl.col("account_created") * 1_000_000 > pl.col("time") + 1).height == 0


def test_stuffing_tries_many_credentials_and_expired_keys_only_one(hour: pl.DataFrame) -> None:
    tried = (
        hour.filter(pl.col("credential").is_not_null()).group_by("family", "ip").agg(pl.col("credential").n_unique())
    )
    assert tried.filter(pl.col("family") == "credential_stuffing")["credential"].median() > 10
    assert tried.filter(pl.col("family") == "expired_key")["credential"].max() == 1


def test_progress_ends_at_the_total() -> None:
    calls: list[tuple[int, int]] = []
    simulate(duration_s=600, clients=10, attacks="none", progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (10, 10)
    assert [done for done, _ in calls] == list(range(1, 11))


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({"attacks": "teapot"}, "slow_botnet"),
        ({"attacks": ["request_flood", "x"]}, "request_flood"),
        ({"attacks": "slow_botnet:perfect"}, "evasive"),
        ({"duration_s": 0}, "60 s"),
        ({"duration_s": float("nan")}, "60 s"),
        ({"clients": 0}, "clients"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_arguments_name_what_is_known(arguments: dict[str, object], names: str) -> None:
    with pytest.raises(InputError, match=names):
        simulate(**arguments)


@pytest.mark.parametrize("name", sorted(families()))
@pytest.mark.parametrize("grade", GRADES)
def test_every_family_acts_in_every_grade(name: str, grade: str) -> None:
    family = families()[name]
    assert family(grade).grade == grade
    assert len(family.source) > 20
    assert family.__doc__
    events = simulate(duration_s=900, clients=40, attacks=f"{name}:{grade}", seed=2)
    assert name in events["family"].to_pylist()


def test_shares_of_the_families_sum_to_one() -> None:
    assert sum(f.share_of_clients for f in families().values()) == pytest.approx(1.0)
    assert sum(f.share_of_requests for f in families().values()) == pytest.approx(1.0, abs=0.03)


def test_an_unknown_grade_is_refused() -> None:
    with pytest.raises(InputError, match="plain, evasive"):
        families()["slow_botnet"]("perfect")


def test_census_gives_every_client_a_kind() -> None:
    assert sum(kind.share for kind in KINDS.values()) == pytest.approx(1.0)
    for clients in (1, 7, 400):
        assert len(census(clients)) == clients
    assert set(census(400)) == set(KINDS)


def _auc(positive: np.ndarray, value: np.ndarray) -> float:
    """Area under the ROC curve of a value with ties, whichever direction is the better."""
    _, inverse, counts = np.unique(value, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    n = int(positive.sum())
    area = (rank[positive].sum() - n * (n + 1) / 2) / (n * (len(positive) - n))
    return max(area, 1 - area)


def _category_as_number(frame: pl.DataFrame, name: str) -> np.ndarray:
    """Encode each value by how often other clients' requests with it are malicious (four folds by client)."""
    fold = frame["client"].hash(1) % 4
    keys = frame.select(
        key=pl.col(name).cast(pl.String).fill_null("-"), malicious="malicious", fold=fold
    ).with_row_index()
    encoded = np.full(frame.height, float(frame["malicious"].mean()))
    for held_out in range(4):
        known = keys.filter(pl.col("fold") != held_out).group_by("key").agg(share=pl.col("malicious").mean())
        joined = keys.filter(pl.col("fold") == held_out).join(known, on="key")
        encoded[joined["index"].to_numpy()] = joined["share"].to_numpy()
    return encoded


def test_no_single_column_gives_evasive_attackers_away() -> None:
    table = simulate(duration_s=2 * 3600, clients=400, attacks="all:evasive", seed=11)
    frame = pl.DataFrame(table).with_columns(client=pl.coalesce("account", "ip"))
    positive = frame["malicious"].to_numpy()
    areas: dict[str, float] = {}
    for name in (
        "duration",
        "account_created",
        "request_bytes",
        "response_bytes",
        "input_tokens",
        "output_tokens",
        "max_tokens",
    ):
        value = frame[name].cast(pl.Float64).to_numpy()
        areas[name] = max(_auc(positive, np.where(np.isnan(value), missing, value)) for missing in (-1e18, 1e18))
    for name in ("method", "path", "status", "user_agent", "referer", "fingerprint", "model"):
        areas[name] = _auc(positive, _category_as_number(frame, name))
    for name in ("account", "credential", "prompt"):
        areas[f"{name} missing"] = _auc(positive, frame[name].is_null().to_numpy().astype(float))
    assert max(areas.values()) <= 0.95, areas
