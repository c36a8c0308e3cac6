"""The protocol's parts: what counts as found, what baselines see, and that the page carries the stored figures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from classifier.evaluation.baselines import damped, limits, sessions
from classifier.evaluation.bystanders import planted
from classifier.evaluation.comparison import OURS, compared
from classifier.evaluation.document import filled
from classifier.evaluation.document import write as write_result
from classifier.evaluation.judging import evenly
from classifier.evaluation.legitimate import touched
from classifier.evaluation.plan import PLANS, Log
from classifier.evaluation.recall import Recalls
from classifier.evaluation.requests import Clients, Requests, kept, requests_of
from classifier.evaluation.traffic import DAY_SEED, Traffic, file_of, read, write
from classifier.model.ranking import highest
from classifier.policy import Thresholds
from classifier.traffic import GRADES, Each, families

DOCS = Path(__file__).parents[2] / "docs"


def clients_of(legitimate: int, campaigns: int, each: int) -> Clients:
    """Return legitimate clients, then the attackers of one family and grade."""
    n = campaigns * each
    return Clients(
        np.repeat([False, True], [legitimate, n]),
        np.array(["person"] * legitimate + ["jailbreak"] * n, object),
        np.array([""] * legitimate + ["plain"] * n, object),
        np.array([""] * legitimate + [f"c{i // each}" for i in range(n)], object),
    )


@pytest.fixture(scope="module")
def traffic(tmp_path_factory: pytest.TempPathFactory) -> Traffic:
    log = Log("tiny", 5, 40, duration=1800.0, each=Each(3, 0.05))
    path = file_of(log, tmp_path_factory.mktemp("logs"))
    write(log, path)
    return read(path)


@pytest.fixture(scope="module")
def requests(traffic: Traffic) -> Requests:
    return requests_of(traffic, threads=1)


def test_recall_takes_the_lowest_threshold_that_so_many_legitimate_clients_reach() -> None:
    clients = clients_of(1000, 8, 25)
    score = np.concatenate([np.arange(1000.0), np.repeat([990.0, 989.0, 999.5, 0.0] * 2, 25)])
    recalls = Recalls(score, clients, (0.001, 0.01), resamples=50)
    assert recalls.value[:, 0].tolist() == [0.25, 0.5]  # 1 of 1000 may reach it, ten may
    assert ((score[:1000] >= recalls.threshold[1]).sum(), (score[:1000] >= recalls.threshold[0]).sum()) == (10, 1)
    figure = recalls.figure(1, 0)
    assert figure["low"] is not None
    assert figure["low"] < 0.5 < figure["high"]  # campaigns are what is drawn: all or nothing for each


def test_an_interval_rests_on_as_many_campaigns_as_there_were() -> None:
    def all_found(campaigns: int, each: int) -> tuple[float | None, float | None]:
        score = np.concatenate([np.arange(1000.0), np.full(campaigns * each, 2000.0)])
        figure = Recalls(score, clients_of(1000, campaigns, each), (0.01,), resamples=20).figure(0, 0)
        return figure["low"], figure["high"]

    assert all_found(6, 20) == (pytest.approx(0.025 ** (1 / 6)), 1.0)  # Clopper and Pearson's for six of six
    assert all_found(1, 120) == (None, None)


def test_ties_count_against_the_method() -> None:
    recalls = Recalls(np.ones(1100), clients_of(1000, 4, 25), (0.01,), resamples=0)
    assert recalls.value[0, 0] == 0.0


def test_a_client_is_found_by_its_highest_request() -> None:
    assert highest(np.array([1.0, 5.0, 2.0]), np.array([0, 1, 0], np.int32), 3).tolist() == [2.0, 5.0, -np.inf]


def test_the_comparison_pairs_draws_and_picks_the_best_baseline_of_each_line() -> None:
    clients = clients_of(1000, 4, 25)
    legitimate = np.arange(1000.0)
    scores = {OURS: [2000.0] * 75 + [0.0] * 25, "weak": [0.0] * 100, "strong": [2000.0] * 50 + [0.0] * 50}
    found = {name: Recalls(np.concatenate([legitimate, s]), clients, resamples=20) for name, s in scores.items()}
    for line in compared(found, ["plain"])["against_best"]:
        assert line["best"] == "strong"
        assert line["lead"]["value"] == pytest.approx(0.25)
        assert line["gone"]["value"] == pytest.approx(0.5)
        assert line["ahead_of_every"]


def test_each_family_acts_in_each_grade_in_several_campaigns(traffic: Traffic) -> None:
    malicious = traffic.events["malicious"].to_numpy(zero_copy_only=False).astype(bool)
    columns = traffic.events["family"], traffic.grade, traffic.campaign
    family, grade, campaign = (np.array(column.to_pylist(), object)[malicious] for column in columns)
    campaigns: dict[tuple[str, str], set[str]] = {}
    for f, g, c in zip(family, grade, campaign, strict=True):
        campaigns.setdefault((f, g), set()).add(c)
    assert set(campaigns) == {(f, g) for f in families() for g in GRADES}
    assert min(len(found) for found in campaigns.values()) > 1


def test_no_two_days_of_a_plan_share_a_seed() -> None:
    for plan in PLANS.values():
        logs = (plan.train, plan.validation, plan.test, plan.surge)
        seeds = [log.seed + DAY_SEED * day for log in logs for day in range(log.days)]
        assert len(set(seeds)) == len(seeds)


def test_a_log_of_two_days_has_other_clients_and_campaigns_on_the_second(tmp_path: Path) -> None:
    log = Log("two", 3, 40, 600.0, Each(2), days=2)
    write(log, tmp_path / "two.parquet")
    found = read(tmp_path / "two.parquet")
    time = found.events["time"].to_numpy()
    second = time >= time[0] + 600e6
    assert (np.diff(time) >= 0).all()
    for column in (found.events["account"], found.campaign):
        values = np.array(column.to_pylist(), object)
        first, then = set(values[~second]) - {None}, set(values[second]) - {None}
        assert first
        assert then
        assert not first & then


def test_the_surge_of_a_log_comes_on_its_last_day(tmp_path: Path) -> None:
    write(Log("surge", 3, 200, 3600.0, surge=10.0, days=2), tmp_path / "surge.parquet")
    events = read(tmp_path / "surge.parquet").events
    surged = events.filter(pc.equal(events["family"], "surge"))["time"]
    assert len(surged)
    assert pc.min(surged).as_py() >= events["time"][0].as_py() + 3600e6


def test_the_full_plan_is_of_the_size_that_acceptance_asks_for() -> None:
    plan = PLANS["full"]
    assert plan.test.clients >= 10_000
    assert plan.test.each is not None
    assert plan.test.each.attackers >= 100


def test_a_window_sums_what_its_key_had_up_to_the_request() -> None:
    time = np.array([0, 10, 20, 59, 60, 61, 200]) * 1_000_000
    key = np.array([0, 1, 0, 0, 0, 0, 0])
    amount = np.array([1.0, 5.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    assert limits.windowed(time, key, amount, 60).tolist() == [1.0, 5.0, 3.0, 6.0, 9.0, 14.0, 6.0]


def test_limits_and_damped_statistics_see_nothing_later(requests: Requests) -> None:
    half = len(requests) // 2
    whole, first = requests.events, requests.events.slice(0, half)
    for name, score in limits.scores(whole).items():
        assert np.array_equal(score[:half], limits.scores(first)[name]), name
    assert np.array_equal(damped.statistics(whole)[:half], damped.statistics(first))


def test_session_statistics_grow_batch_by_batch(requests: Requests) -> None:
    rows, client = sessions.statistics(requests.events, requests.client)
    assert len(rows) == len(client)
    assert np.isfinite(rows).all()
    assert set(client) == set(requests.client.tolist())
    counted = np.bincount(client, weights=rows[:, 1], minlength=len(requests.clients))
    assert counted.tolist() == np.bincount(requests.client, minlength=len(requests.clients)).tolist()


def test_an_even_choice_takes_so_many_of_each_client(requests: Requests) -> None:
    count = np.bincount(requests.client)
    chosen = kept(requests, evenly(requests, 7))
    assert np.bincount(chosen.client, minlength=len(count)).tolist() == np.minimum(count, 7).tolist()
    assert chosen.events.num_rows == len(chosen.rows)


def test_what_a_new_service_would_not_enforce_does_not_count(traffic: Traffic, requests: Requests) -> None:
    time = traffic.events["time"].to_numpy()
    counts_from = time.min() + (time.max() - time.min()) / 3
    assert len(requests) == (time >= counts_from).sum()
    assert requests.time.min() >= counts_from


def test_touched_counts_each_request_once(requests: Requests) -> None:
    raw = np.where(np.arange(len(requests)) % 3 == 0, np.float32(1), np.float32(0))
    everyone, *kinds = touched(requests, raw, Thresholds(0.5, 2.0), resamples=10)
    assert everyone["challenged"]["value"] == pytest.approx(raw[~requests.malicious].mean())
    assert everyone["blocked"]["value"] == 0.0
    assert everyone["requests"] == sum(kind["requests"] for kind in kinds) == (~requests.malicious).sum()


def test_clients_carry_their_grade_and_campaign(requests: Requests) -> None:
    clients = requests.clients
    assert (clients.grade[clients.malicious] != "").all()
    assert (clients.grade[~clients.malicious] == "").all()
    assert (clients.group != "").all()


def test_a_bad_tenant_moves_in_and_nobody_else_changes(traffic: Traffic) -> None:
    found = planted(traffic)
    assert found.neighbour.any()
    before, after = traffic.events, found.traffic.events
    moved = np.array(before["ip"].to_pylist()) != np.array(after["ip"].to_pylist())
    assert not (moved & ~before["malicious"].to_numpy(zero_copy_only=False).astype(bool)).any()
    same = [name for name in before.column_names if name not in ("ip", "user_agent", "fingerprint")]
    assert before.select(same).equals(after.select(same))


def test_an_autoencoder_finds_what_is_unlike_its_training() -> None:
    rng = np.random.default_rng(0)
    known = rng.normal(0, 1, (20_000, 6)).astype(np.float32)
    known[:, 3:] = known[:, :3]
    strange = known[:100].copy()
    strange[:, 3:] += 6
    net = damped.Autoencoder(known)
    assert np.median(net.score(strange)) > 2 * np.median(net.score(known))


def test_the_page_carries_the_figures_that_are_stored() -> None:
    page = (DOCS / "evaluation.md").read_text(encoding="utf-8")
    result = json.loads((DOCS / "evaluation.json").read_text(encoding="utf-8"))
    assert "<!-- table means -->" in page
    assert filled(page, result) == page


def test_the_html_page_says_the_result_first_and_how_its_figures_are_read(tmp_path: Path) -> None:
    result = json.loads((DOCS / "evaluation.json").read_text(encoding="utf-8"))
    result["comparison"]["against_best"][0].update(ahead_of_every=False, best="<b>")
    write_result(result, tmp_path)
    page = (tmp_path / "evaluation.html").read_text(encoding="utf-8").replace("\u00a0", " ")
    assert "Ahead of every baseline in 5 of 6 comparisons" in page
    assert "Too close to tell from the best baseline: plain at 1 %." in page
    assert page.count("<figcaption>") == page.count("<img ") == 2
    assert page.count("<section") == page.count("<li><a href") > 10
    assert page.count('<th scope="') == page.count("<th ")
    assert "<b>" not in page
    assert 'src="http' not in page
    assert "{" not in page.partition("</style>")[2]


def test_events_of_a_log_keep_their_types(traffic: Traffic) -> None:
    assert isinstance(traffic.events, pa.Table)
    assert traffic.events["time"].type == pa.int64()
