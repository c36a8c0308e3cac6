"""What `simulate` promises: labels, order, determinism, volume, and attackers that no single column gives away."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from classifier.errors import InputError
from classifier.events import EVENT_SCHEMA
from classifier.traffic import GRADES, families, simulate, simulated
from classifier.traffic.family import NEEDS
from classifier.traffic.legitimate import AWKWARD, FAMILIES, KINDS, SURGE, census

SMALL = {"duration_s": 1800.0, "clients": 120, "seed": 5}


@pytest.fixture(scope="module")
def small() -> pa.Table:
    return simulate(**SMALL)


@pytest.fixture(scope="module")
def hour() -> pl.DataFrame:
    known = simulated(duration_s=2 * 3600, clients=400, seed=3)
    grade = pl.Series(known.grade.to_pylist(), dtype=pl.String)
    return pl.DataFrame(known.events).with_columns(client=pl.coalesce("account", "ip"), grade=grade)


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
    assert 0.2 < clients["malicious"].mean() < 0.5


def test_awkward_legitimate_kinds_are_there_and_look_it(hour: pl.DataFrame) -> None:
    honest = hour.filter(~pl.col("malicious"))
    assert set(AWKWARD) <= set(honest["family"])
    storm = honest.filter(pl.col("family") == "retry_storm")
    assert storm["status"].is_in([429, 503]).mean() > 0.2
    campus = honest.filter(pl.col("family") == "university", pl.col("account").is_not_null())
    assert campus["ip"].n_unique() == 1
    assert campus["account"].n_unique() > 5
    library = honest.filter(pl.col("family") == "popular_library")
    assert library["fingerprint"].n_unique() == 1
    assert not set(library["fingerprint"]) & set(honest.filter(pl.col("family") != "popular_library")["fingerprint"])
    batch = honest.filter(pl.col("family") == "nightly_batch").group_by("client").agg(pl.col("time").min())
    assert (batch["time"] // 1_000_000 % 3600).max() < 60


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
        hour.filter(pl.col("credential").is_not_null(), pl.col("grade").fill_null("plain") == "plain")
        .group_by("family", "ip")
        .agg(pl.col("credential").n_unique())
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
        ({"surge": -1.0}, "surge"),
        ({"attackers": 0.0}, "attackers"),
    ],
)
def test_bad_arguments_name_what_is_known(arguments: dict[str, object], names: str) -> None:
    with pytest.raises(InputError, match=names):
        simulate(**arguments)


@pytest.mark.parametrize("name", sorted(families()))
def test_every_family_says_what_it_is(name: str) -> None:
    family = families()[name]
    assert [family(grade).grade for grade in GRADES] == list(GRADES)
    assert len(family.source) > 20
    assert len(family.hides) > 20
    assert family.needs in NEEDS
    assert family.parameters
    assert family.__doc__


def test_every_family_acts_in_every_grade(hour: pl.DataFrame) -> None:
    acted = hour.filter("malicious").select("family", "grade").unique()
    assert acted.height == len(families()) * len(GRADES)


def test_shares_of_the_families_sum_to_one() -> None:
    assert sum(f.share_of_clients for f in families().values()) == pytest.approx(1.0)
    assert sum(f.share_of_requests for f in families().values()) == pytest.approx(1.0, abs=0.03)


def test_an_unknown_grade_is_refused() -> None:
    with pytest.raises(InputError, match="plain, evasive, mimic"):
        families()["slow_botnet"]("perfect")


def test_census_gives_every_client_a_kind() -> None:
    assert sum(kind.share for kind in KINDS.values()) == pytest.approx(1.0)
    for clients in (1, 7, 400):
        assert sum(census(clients).values()) == clients
    assert all(census(400).values())
    assert set(census(400)) == set(KINDS)


def test_a_surge_brings_new_people_and_changes_nobody_else() -> None:
    usual = pl.DataFrame(simulate(duration_s=2 * 3600, clients=60, attacks="none", seed=4))
    surged = pl.DataFrame(simulate(duration_s=2 * 3600, clients=60, attacks="none", seed=4, surge=10.0))
    came = surged.filter(pl.col("family") == SURGE)
    assert surged.filter(pl.col("family") != SURGE).equals(usual)
    assert came["account"].drop_nulls().n_unique() == 24  # ten times 60 * 0.08 newcomers in two hours
    assert not came["malicious"].any()
    signed_up = came.filter(pl.col("path") == "/v1/register", pl.col("status") == 201)
    assert (signed_up["time"].max() - signed_up["time"].min()) / 1e6 < 1.3 * 3600


def test_a_surge_does_not_change_how_much_attackers_send() -> None:
    names = ["jailbreak:plain", "request_flood:plain"]
    usual, surged = (
        pl.DataFrame(simulate(duration_s=900, clients=40, attacks=names, seed=4, surge=surge)) for surge in (0.0, 20.0)
    )
    assert surged.filter("malicious").height == pytest.approx(usual.filter("malicious").height, rel=0.1)


def test_grades_and_campaigns_are_told_for_each_request() -> None:
    known = simulated(**SMALL)
    frame = pl.DataFrame(known.events).with_columns(
        grade=pl.Series(known.grade.to_pylist()), campaign=pl.Series(known.campaign.to_pylist())
    )
    assert known.events.equals(simulate(**SMALL))
    assert frame.filter(~pl.col("malicious"))["grade"].null_count() == frame.filter(~pl.col("malicious")).height
    hostile = frame.filter("malicious")
    assert set(hostile["grade"]) == set(GRADES)
    assert hostile.group_by("campaign").agg(pl.col("family", "grade").n_unique())["family"].max() == 1
    assert hostile.select((pl.col("campaign").str.starts_with(pl.col("family") + ":" + pl.col("grade"))).all()).item()


def test_a_mimic_repeats_a_legitimate_client_but_for_what_it_needs() -> None:
    """Sizes, software, acts and times between requests are somebody's; the prompts are the campaign's."""
    frame = pl.DataFrame(simulate(duration_s=3600, clients=60, attacks="jailbreak:mimic", seed=9))
    honest, hostile = frame.filter(~pl.col("malicious")), frame.filter("malicious", pl.col("account").is_not_null())
    for name in ("user_agent", "fingerprint", "path", "model"):
        assert hostile[name].drop_nulls().is_in(honest[name].implode()).all(), name
    ages = honest["account_created"].drop_nulls()
    created = hostile["account_created"].unique()
    assert all((ages - value).abs().min() <= 301 for value in created)
    networks = honest["ip"].str.split(":").list.first().str.split(".").list.head(3).list.join(".")
    near = hostile["ip"].str.split(":").list.first().str.split(".").list.head(3).list.join(".")
    assert near.is_in(networks.implode()).all()
    assert not set(hostile["ip"]) & set(honest["ip"])
    assert 0.1 < hostile["prompt"].drop_nulls().is_in(honest["prompt"].implode()).mean() < 0.9


def test_mimics_send_about_as_much_as_the_others(hour: pl.DataFrame) -> None:
    sent = hour.filter("malicious").group_by("family", "grade").len().pivot("grade", index="family", values="len")
    ratio = sent["mimic"] / sent["evasive"]
    assert ratio.min() > 0.03
    assert ratio.max() < 12
    assert 0.3 < sent["mimic"].sum() / sent["evasive"].sum() < 3
