"""An evaluation's figures are what their definitions say, and what cannot be known is not given."""

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from classifier.errors import InputError
from classifier.model.bootstrap import ClientResampler, share
from classifier.model.evaluate import evaluate
from classifier.model.labelled import first_actions, labelled_requests
from classifier.model.metrics import GroupMetrics, Metrics, RankingMetrics
from tests.unit.scored_traffic import scored_traffic


def requests(rows: list[tuple[str, float, str, bool | None, str | None, int | None]]) -> pd.DataFrame:
    """Scored requests one second apart: client, raw, decision, malicious, family, output tokens."""
    frame = pd.DataFrame(rows, columns=["client", "raw", "decision", "malicious", "family", "output_tokens"])
    frame["raw"] = frame["raw"].astype(np.float32)
    frame["output_tokens"] = frame["output_tokens"].astype("Int64")
    frame["row"] = np.arange(len(frame))
    frame["time"] = 1_700_000_000_000_000 + frame["row"] * 1_000_000
    frame["probability"] = 1 / (1 + np.exp(-frame["raw"].astype(float)))
    return frame


def group(metrics: Metrics, family: str, kind: str = "attack", overall: bool = False) -> GroupMetrics:
    (found,) = (g for g in metrics["groups"] if (g["family"], g["kind"], g["overall"]) == (family, kind, overall))
    return found


def ranking(metrics: Metrics, unit: str, family: str = "all") -> RankingMetrics:
    (found,) = (g for g in metrics["ranking"] if (g["family"], g["unit"]) == (family, unit))
    return found


@st.composite
def small_slices(draw: st.DrawFn) -> pd.DataFrame:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(2, 120))
    frame = requests([("", 0.0, "allow", None, None, None)] * n)
    frame["client"] = rng.integers(0, draw(st.sampled_from([2, 10, 100])), n).astype(str)
    steps = draw(st.sampled_from([1, 4, 1000]))
    frame["raw"] = (np.round(rng.standard_normal(n) * steps) / steps).astype(np.float32)
    frame["malicious"] = np.append([True, False], rng.random(n - 2) < 0.4)
    frame["family"] = np.where(frame["malicious"], rng.choice(["a", "b"], n), "people")
    frame["decision"] = rng.choice(["allow", "allow", "challenge", "block"], n)
    frame["output_tokens"] = pd.array(rng.integers(0, 50, n), "Int64")
    frame["time"] = rng.integers(1, 20, n) * 1_000_000
    return frame


@settings(max_examples=40, deadline=None)
@given(small_slices())
def test_areas_under_the_curves_are_scikit_learns(frame: pd.DataFrame) -> None:
    metrics = evaluate(frame, resamples=0)
    by_client = frame.groupby(["client", "malicious", "family"], as_index=False)["raw"].max()
    for unit, table in (("request", frame), ("client", by_client)):
        for family in ("all", *frame.loc[frame["malicious"], "family"].unique()):
            part = table[~table["malicious"] | (table["family"] == family)] if family != "all" else table
            line = ranking(metrics, unit, family)
            assert line["roc_auc"]["value"] == pytest.approx(roc_auc_score(part["malicious"], part["raw"]))
            assert line["pr_auc"]["value"] == pytest.approx(average_precision_score(part["malicious"], part["raw"]))
            assert (line["positives"], line["negatives"]) == (part["malicious"].sum(), (~part["malicious"]).sum())


@settings(max_examples=40, deadline=None)
@given(small_slices())
def test_first_actions_are_found_as_one_would_by_hand(frame: pd.DataFrame) -> None:
    data = labelled_requests(frame)
    before, cost = first_actions(data)
    expected = []
    for _, mine in frame.sort_values(["time", "row"]).groupby(["malicious", "family", "client"]):
        acted = (mine["decision"] != "allow").to_numpy()
        first = int(acted.argmax()) if acted.any() else math.inf
        tokens = mine["output_tokens"].astype(float).to_numpy()
        expected.append((first, tokens[:first].sum() if acted.any() else math.inf))
    assert sorted(zip(before.tolist(), cost.tolist(), strict=True)) == sorted(expected)


def test_recall_is_taken_where_at_most_that_share_of_legitimate_requests_lies_at_or_above() -> None:
    rng = np.random.default_rng(1)
    legitimate = np.round(rng.normal(0, 1, 12_000), 2)
    attacks = np.round(rng.normal(3, 1, 500), 2)
    frame = requests(
        [(f"u{i}", raw, "allow", False, "people", None) for i, raw in enumerate(legitimate)]
        + [(f"a{i % 50}", raw, "block", True, "flood", None) for i, raw in enumerate(attacks)]
    )
    for at in ranking(evaluate(frame, resamples=20), "request")["recall_at"]:
        allowed = [t for t in attacks if np.mean(legitimate >= t) <= at["rate"]]
        recall = at["recall"]
        assert recall["value"] == pytest.approx(len(allowed) / 500)
        assert at["raw"] == pytest.approx(min(allowed))
        assert recall["low"] is not None
        assert recall["high"] is not None
        assert recall["low"] <= len(allowed) / 500 <= recall["high"]


def test_decisions_tokens_and_first_actions_of_a_family() -> None:
    frame = requests(
        [
            ("bot", 1, "allow", True, "flood", 100),
            ("bot", 2, "challenge", True, "flood", 50),
            ("bot", 3, "block", True, "flood", 250),
            ("late", 0, "allow", True, "flood", 100),
            ("user", 0, "allow", False, "people", 400),
            ("user", 1, "challenge", False, "people", 100),
        ]
    )
    metrics = evaluate(frame, resamples=10)
    flood, people = group(metrics, "flood"), group(metrics, "people", "legitimate")
    assert (flood["clients"], flood["requests"], flood["tokens"]) == (2, 4, 500)
    assert [flood[k]["value"] for k in ("allowed", "challenged", "blocked")] == [0.5, 0.25, 0.25]  # type: ignore[literal-required]
    assert flood["tokens_acted_on"]["value"] == pytest.approx(0.6)
    assert flood["clients_acted_on"]["value"] == flood["never_acted_on"]["value"] == 0.5
    assert flood["requests_before_action"] is not None
    assert flood["tokens_before_action"] is not None
    assert flood["requests_before_action"]["median"]["value"] == 1
    assert flood["tokens_before_action"]["median"]["value"] == 100
    assert flood["requests_before_action"]["p90"]["reason"] == "more than 10 % of the attackers are never acted on"
    assert people["acted_on"]["value"] == 0.5
    assert people["tokens_acted_on"]["value"] == pytest.approx(0.2)
    assert people["requests_before_action"] is None
    assert flood["acted_on"]["low"] is None, "two clients make no interval"


def test_a_row_that_stands_for_several_requests_counts_as_often() -> None:
    frame = scored_traffic(60, 20, seed=4)
    rng = np.random.default_rng(4)
    frame["weight"] = rng.integers(1, 4, len(frame)).astype(float)
    often = frame.loc[frame.index.repeat(frame["weight"].astype(int))].drop(columns="weight").reset_index(drop=True)
    often["row"] = np.arange(len(often))
    thin, whole = evaluate(frame, resamples=20), evaluate(often, resamples=20)
    assert thin["requests"] == whole["requests"] == len(often)
    for one, other in zip(thin["groups"], whole["groups"], strict=True):
        assert (one["requests"], one["tokens"], one["acted_on"]) == (
            other["requests"],
            other["tokens"],
            other["acted_on"],
        )
    assert thin["calibration"]["ece"]["value"] == pytest.approx(whole["calibration"]["ece"]["value"], abs=0.01)
    for found, expected in zip(thin["ranking"], whole["ranking"], strict=True):
        assert found["roc_auc"]["value"] == pytest.approx(expected["roc_auc"]["value"])
        assert found["pr_auc"]["value"] == pytest.approx(expected["pr_auc"]["value"])


def test_a_stolen_account_counts_as_its_owner_and_as_the_thief() -> None:
    frame = requests([("key", 0, "allow", False, "people", 1), ("key", 5, "block", True, "stolen_key", 1)])
    metrics = evaluate(frame, resamples=0)
    assert metrics["clients"] == 2
    assert group(metrics, "stolen_key")["clients_acted_on"]["value"] == 1
    assert group(metrics, "people", "legitimate")["clients_acted_on"]["value"] == 0


def test_calibration_is_measured_at_the_prior_and_not_at_the_logs_own_share() -> None:
    rng = np.random.default_rng(7)
    malicious = rng.random(40_000) < 0.5
    raw = rng.normal(np.where(malicious, 1.5, -1.5), math.sqrt(3))  # log-odds of the classes: exactly raw
    frame = requests([("", float(r), "allow", bool(m), "x", None) for r, m in zip(raw, malicious, strict=True)])
    frame["client"] = np.arange(len(frame)).astype(str)
    frame["probability"] = 1 / (1 + np.exp(-(raw + math.log(0.01 / 0.99))))
    right = evaluate(frame, prior=0.01, resamples=20)["calibration"]
    assert right["ece"]["value"] == pytest.approx(0, abs=0.002)
    for point in right["points"]:
        assert point["low"] <= point["observed"] <= point["high"]
        if 0.001 < point["predicted"] < 0.5:  # elsewhere a bin holds few requests of one class
            assert point["observed"] == pytest.approx(point["predicted"], rel=0.35)
    wrong = evaluate(frame, prior=0.5, resamples=0)["calibration"]["ece"]["value"]
    assert wrong is not None
    assert wrong > 0.2


def test_the_result_is_json_without_nan_and_the_same_for_the_same_seed() -> None:
    frame = scored_traffic(60, 40, scale=0.1)
    metrics = evaluate(frame, resamples=30)
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    assert evaluate(frame.sample(frac=1, random_state=3), resamples=30) == metrics
    assert evaluate(frame, resamples=30, seed=1) != metrics


def test_every_share_lies_within_its_interval() -> None:
    metrics = evaluate(scored_traffic(100, 60, scale=0.1), resamples=50)
    figures = [v for g in metrics["groups"] for v in g.values() if isinstance(v, dict) and "value" in v]
    assert len(figures) > 50
    for f in figures:
        if f["low"] is not None:
            assert 0 <= f["low"] <= f["value"] <= f["high"] <= 1


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    """100 logs of 40 clients that are wholly stopped or not: the share's interval should hold 0.6 in about 95."""
    rng = np.random.default_rng(11)
    held = 0
    for seed in range(100):
        stopped = (rng.random(40) < 0.6).astype(float)
        resampler = ClientResampler(np.zeros(40, np.intp), seed)
        f = share(stopped.mean(), np.array([resampler.draw() @ stopped / 40 for _ in range(100)]), 40)
        held += f["low"] <= 0.6 <= f["high"]  # type: ignore[operator]
    assert 85 <= held <= 100


def test_none_of_thirty_is_not_certainty() -> None:
    f = share(0.0, np.zeros(50), 30)
    assert f["low"] == 0
    assert f["high"] == pytest.approx(0.1157, abs=1e-4)  # Clopper–Pearson, 0 of 30


def test_resamples_keep_the_number_of_clients_of_each_family() -> None:
    of = np.repeat(np.array([0, 1, 2]), [50, 1, 7])
    resampler = ClientResampler(of, 0)
    for _ in range(20):
        np.testing.assert_array_equal(np.bincount(of, resampler.draw()), [50, 1, 7])


def test_a_rate_that_the_data_cannot_resolve_is_not_given() -> None:
    metrics = evaluate(scored_traffic(100, 40, scale=0.1), resamples=0)
    at = ranking(metrics, "client")["recall_at"][1]
    assert at["recall"]["value"] is None
    assert "needs at least 1,000 legitimate clients to be measured and there are 100" in str(at["recall"]["reason"])
    assert any(note.startswith("Recall per client: a false-positive rate of 1 %") for note in metrics["notes"])


@pytest.mark.parametrize(("label", "reason"), [(True, "no legitimate traffic"), (False, "no attacks")])
def test_one_class_gives_what_can_be_given(label: bool, reason: str) -> None:
    frame = requests([(f"c{i % 9}", i, "allow", label, None, i) for i in range(40)])
    metrics = evaluate(frame, resamples=5)
    assert [g["family"] for g in metrics["groups"]] == ["all", "unnamed"]
    assert metrics["calibration"]["ece"]["value"] is None
    assert all(reason in str(line["roc_auc"]["reason"]) for line in metrics["ranking"])
    json.dumps(metrics, allow_nan=False)


def test_unlabelled_requests_are_left_out_and_counted() -> None:
    frame = requests([(f"c{i}", i, "allow", [True, False, None][i % 3], None, None) for i in range(30)])
    metrics = evaluate(frame, resamples=0)
    assert (metrics["requests"], metrics["unlabelled"]) == (20, 10)
    assert "10 requests carry no label and were left out." in metrics["notes"]
    assert "No event carries token counts, so nothing is said about tokens." in metrics["notes"]
    assert group(metrics, "unnamed")["tokens_acted_on"]["reason"] == "no event carries token counts"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns=["raw", "client"]), "lack the columns client, raw"),
        (lambda f: f.assign(malicious=None), "no request has a label"),
        (lambda f: f.assign(decision="deny"), "a decision is none of allow, challenge, block: 'deny'"),
        (lambda f: f.assign(raw=np.float32(np.nan)), "score the log again"),
        (lambda f: f.assign(probability=1.5), "score the log again"),
    ],
)
def test_bad_input_is_one_clear_line(change: Any, message: str) -> None:
    frame = requests([("a", 0, "allow", True, "x", 1), ("b", 1, "allow", False, "y", 1)])
    with pytest.raises(InputError, match=message) as caught:
        evaluate(change(frame))
    assert "\n" not in str(caught.value)


def test_progress_is_told_once_per_resample() -> None:
    ticks: list[int] = []
    evaluate(scored_traffic(20, 10, scale=0.05), resamples=7, on_resample=lambda: ticks.append(1))
    assert len(ticks) == 7
