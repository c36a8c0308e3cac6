"""What `inject` promises: the rows of the log untouched, and attackers that fit in and use only what the log has."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifier.errors import InputError
from classifier.events import EVENT_SCHEMA, Event, empty_table, table_of
from classifier.traffic import families, inject, simulate

PAGES = ("/", "/blog/a", "/blog/b?page=2", "/articles/x/", "/style.css", "/img/logo.png", "/nowhere")
IN_WEB = {name for name, family in families().items() if family.in_web and "duration" not in family.seen_by}
"""Families that can be seen in a combined log without durations."""
AGENTS = (
    "Mozilla/5.0 (X11; Linux x86_64; rv:25.0) Gecko/20100101 Firefox/25.0",
    "Mozilla/5.0 (Windows NT 6.1) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/32.0.1700.107 Safari/537.36",
    "Tiny Reader/1.0",
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
)


def web_log(clients: int = 240, each: int = 6, step_s: int = 1) -> pa.Table:
    """Write a combined-format log: no account, no tokens, stamps in whole seconds."""
    rng = np.random.default_rng(0)
    events = []
    for client in range(clients):
        for _ in range(each):
            path = PAGES[int(rng.integers(len(PAGES)))]
            events.append(
                Event(
                    time=1_431_800_000 + int(rng.integers(0, 172_800)) // step_s * step_s,
                    ip=f"81.{client // 250}.7.{client % 250 + 1}",
                    method="GET",
                    path=path,
                    status=404 if path == "/nowhere" else 200,
                    response_bytes=287 if path == "/nowhere" else 1000 + len(path),
                    referer="http://site.example/" if rng.random() < 0.5 else None,
                    user_agent=AGENTS[client % len(AGENTS)],
                )
            )
    return table_of(events)


@pytest.fixture(scope="module")
def log() -> pa.Table:
    return web_log()


@pytest.fixture(scope="module")
def woven(log: pa.Table) -> pl.DataFrame:
    return pl.DataFrame(inject(log, seed=4))


def _unlabelled(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.drop("malicious", "family")


def test_the_users_rows_are_all_there_and_unchanged(log: pa.Table, woven: pl.DataFrame) -> None:
    own = woven.filter(~pl.col("malicious"))
    assert set(own["family"]) == {"log"}
    assert _unlabelled(own).equals(_unlabelled(pl.DataFrame(log).sort("time", maintain_order=True)))


def test_labels_of_the_log_are_kept() -> None:
    labelled = simulate(duration_s=1200, clients=60, seed=1)
    own = pl.DataFrame(inject(labelled, seed=1)).filter(pl.col("ip").is_in(pl.DataFrame(labelled)["ip"].implode()))
    assert own.equals(pl.DataFrame(labelled))


def test_the_result_is_sorted_labelled_and_the_same_each_time(log: pa.Table, woven: pl.DataFrame) -> None:
    again = inject(log, seed=4)
    assert again.schema.equals(EVENT_SCHEMA)
    assert pl.DataFrame(again).equals(woven)
    assert woven["time"].is_sorted()
    assert woven["malicious"].null_count() == 0
    assert set(woven.filter("malicious")["family"]) == IN_WEB
    assert not pl.DataFrame(inject(log, seed=5)).equals(woven)


def test_attackers_use_only_fields_that_the_log_has(log: pa.Table, woven: pl.DataFrame) -> None:
    hostile = woven.filter("malicious")
    for name in EVENT_SCHEMA.names:
        if log[name].null_count == log.num_rows and name not in ("malicious", "family"):
            assert hostile[name].null_count() == hostile.height, name


def test_attackers_have_new_addresses_and_borrow_the_rest(log: pa.Table, woven: pl.DataFrame) -> None:
    own, hostile = woven.filter(~pl.col("malicious")), woven.filter("malicious")
    assert not set(own["ip"]) & set(hostile["ip"])
    assert hostile["path"].is_in(own["path"].implode()).mean() > 0.5
    assert hostile["user_agent"].is_in(own["user_agent"].implode()).mean() > 0.6
    near = hostile["ip"].str.split(".").list.head(2).list.join(".").is_in(["81.0"])
    assert 0.2 < near.mean() < 0.8


def test_attackers_are_as_many_as_promised(woven: pl.DataFrame) -> None:
    own, hostile = woven.filter(~pl.col("malicious")), woven.filter("malicious")
    assert hostile.height <= 0.6 * own.height
    per_family = hostile.group_by("family").agg(pl.col("ip").n_unique().alias("attackers"), pl.len().alias("requests"))
    assert per_family["attackers"].min() >= 2
    # A short log has few attackers rather than many that do next to nothing.
    assert (per_family["requests"] / per_family["attackers"]).min() >= 5
    assert 0.1 < hostile["ip"].n_unique() / own["ip"].n_unique() < 0.3


def test_both_halves_have_attackers_of_every_family(log: pa.Table, woven: pl.DataFrame) -> None:
    time = log["time"].to_numpy()
    middle = (time.min() + time.max()) // 2
    hostile = woven.filter("malicious")
    for half in (hostile.filter(pl.col("time") < middle), hostile.filter(pl.col("time") >= middle)):
        assert set(half["family"]) == IN_WEB
    assert hostile["time"].min() >= time.min()
    assert hostile["time"].max() <= time.max()


def test_a_mimic_repeats_the_rows_of_one_client() -> None:
    woven = pl.DataFrame(inject(web_log(clients=120, each=20), seed=4, attacks="request_flood:mimic"))
    columns = ["method", "path", "status", "response_bytes", "user_agent", "referer"]
    known = {
        tuple(rows.sort("time", *columns).select(columns).rows())
        for _, rows in woven.filter(~pl.col("malicious")).group_by("ip")
    }
    hostile = woven.filter("malicious")
    assert hostile["ip"].n_unique() > 4
    repeated = 0
    for _, rows in hostile.group_by("ip"):
        repeated += tuple(rows.sort("time", *columns).select(columns).rows()) in known
    assert repeated >= 0.8 * hostile["ip"].n_unique()  # less what lies before the log begins or after it ends


def test_a_mimic_in_an_inference_log_keeps_all_but_its_prompts() -> None:
    own = pl.DataFrame(simulate(duration_s=3600, clients=80, attacks="none", seed=8))
    woven = pl.DataFrame(inject(own.to_arrow().cast(EVENT_SCHEMA), seed=8, attacks="jailbreak:mimic"))
    hostile = woven.filter("malicious", pl.col("account").is_not_null())
    for name in (
        "path",
        "input_tokens",
        "output_tokens",
        "duration",
        "request_bytes",
        "user_agent",
        "max_tokens",
        "model",
    ):
        assert hostile[name].drop_nulls().is_in(own[name].implode()).all(), name
    assert 0.1 < hostile["prompt"].drop_nulls().is_in(own["prompt"].implode()).mean() < 0.9
    assert not set(hostile["account"]) & set(own["account"].drop_nulls())


def test_a_long_log_is_sampled_by_request_and_by_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("classifier.traffic.woven.DONORS", 400)
    hostile = pl.DataFrame(inject(web_log(), seed=4)).filter("malicious")
    assert set(hostile["family"]) == IN_WEB


def test_stamps_are_as_coarse_as_the_logs(woven: pl.DataFrame) -> None:
    assert (woven["time"] % 1_000_000).max() == 0


def test_a_log_that_lost_its_minutes_gets_attackers_without_them() -> None:
    coarse = web_log()
    hours = pl.DataFrame(coarse).with_columns(pl.col("time") // 3_600_000_000 * 3_600_000_000 + 300_000_000)
    woven = pl.DataFrame(inject(hours.to_arrow().cast(EVENT_SCHEMA)))
    assert set(woven["time"] // 60_000_000 % 60) == {5}


def test_an_inference_log_gets_accounts_tokens_and_prompts() -> None:
    own = simulate(duration_s=3600, clients=150, attacks="none", seed=8)
    hostile = pl.DataFrame(inject(own, seed=8)).filter("malicious")
    distilling = hostile.filter(pl.col("family") == "distillation")
    assert distilling["account"].n_unique() > 2
    assert distilling.filter(pl.col("model").is_not_null())["prompt"].null_count() == 0
    plain = pl.DataFrame(inject(own, seed=8, attacks="distillation:plain")).filter("malicious")
    served = plain.filter(pl.col("output_tokens").is_not_null())
    assert served["output_tokens"].median() > pl.DataFrame(own)["output_tokens"].drop_nulls().median()
    tried = hostile.filter(pl.col("family") == "credential_stuffing")
    assert tried["credential"].n_unique() > 20
    assert tried["status"].is_in([401]).mean() > 0.3
    assert not set(hostile["account"].drop_nulls()) & set(pl.DataFrame(own)["account"].drop_nulls())


def test_a_log_without_user_agents_gets_none() -> None:
    bare = table_of([Event(time=1_700_000_000.5 + i, ip=f"9.9.9.{i % 50}", method="GET", path="/") for i in range(500)])
    hostile = pl.DataFrame(inject(bare)).filter("malicious")
    assert hostile.height > 0
    assert hostile["user_agent"].null_count() == hostile.height
    assert hostile["status"].null_count() == hostile.height


def test_nothing_is_woven_into_nothing() -> None:
    assert inject(empty_table()).num_rows == 0
    own = web_log(clients=3, each=2)
    assert inject(own, attacks="none").num_rows == own.num_rows


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({"attacks": "teapot"}, "request_flood"),
        ({"attacks": "jailbreak"}, "inference calls"),
        ({"attacks": "all:plain,slow_requests:mimic"}, "slow_requests"),
        ({"share": 0.0}, "share"),
        ({"share": 2.0}, "share"),
        ({"seed": -2}, "seed"),
    ],
)
def test_bad_arguments_are_refused(log: pa.Table, arguments: dict[str, object], names: str) -> None:
    with pytest.raises(InputError, match=names):
        inject(log, **arguments)


_EVENTS = st.builds(
    Event,
    time=st.integers(1, 5_000_000_000),
    ip=st.sampled_from(["1.2.3.4", "2001:db8::1", "x", "1.2.3"]),
    method=st.sampled_from(["GET", "HEAD", "POST", "-"]),
    path=st.text(min_size=1, max_size=12),
    status=st.none() | st.integers(0, 999),
    account=st.none() | st.text(max_size=3),
    output_tokens=st.none() | st.integers(0, 10),
    prompt=st.none() | st.text(max_size=5),
    malicious=st.none() | st.booleans(),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(_EVENTS, max_size=12), st.integers(0, 3))
def test_any_log_can_be_woven_into(events: list[Event], seed: int) -> None:
    own = table_of(events)
    woven = inject(own, seed=seed)
    assert woven.num_rows >= own.num_rows
    assert woven.num_rows <= own.num_rows * 1.6
    assert woven["malicious"].null_count == 0
    assert np.all(np.diff(woven["time"].to_numpy()) >= 0)
