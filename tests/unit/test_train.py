"""What training does with a log that nobody labelled: whom it leaves out, and how carefully it grows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from classifier.events import UNLABELLED
from classifier.features.spec import COLUMN, FEATURES
from classifier.model import train as training
from classifier.model.calibrate import fit_platt
from classifier.model.dataset import Dataset, build
from classifier.model.pipeline import TrainOptions, train_bundle, weaving_into
from classifier.model.train import SHORT_ROWS, SUSPICIOUS_CLIENTS, Settings, suspicious_clients
from classifier.policy import Budgets, LegitimateCurve
from classifier.traffic import simulate

CLIENTS = 1_000


def rows_of(clients: int, each: int, family: str, malicious: bool, first_key: int) -> Dataset:
    """Make rows of clients that differ in nothing but their key."""
    n = clients * each
    features = np.zeros((n, len(FEATURES)), np.float32)
    features[:, COLUMN["client_requests_seen"]] = 1
    return Dataset(
        rows=features,
        row=np.arange(n) + first_key * 1_000_000,
        time=np.arange(n),
        key=np.repeat(np.arange(first_key, first_key + clients, dtype=np.uint64), each),
        malicious=np.full(n, malicious),
        weight=np.ones(n),
        client=np.full(n, "client", object),
        family=np.full(n, family, object),
        input_tokens=np.full(n, np.nan),
        output_tokens=np.full(n, np.nan),
    )


def test_the_most_suspicious_half_per_cent_of_unlabelled_clients_is_found() -> None:
    data = Dataset.join(
        [
            rows_of(CLIENTS, 3, UNLABELLED, False, 0),
            rows_of(50, 3, "person", False, 5_000),
            rows_of(50, 3, "request_flood", True, 9_000),
        ]
    )
    raw = np.full(len(data), -5.0, np.float32)
    raw[data.key >= 5_000] = 9.0  # labelled: never left out, however they score
    raw[np.flatnonzero(data.key == 17)[1]] = 3.0  # one request is enough
    raw[data.key == 4] = 2.0
    found = suspicious_clients(data, raw)
    assert len(found) == round(SUSPICIOUS_CLIENTS * CLIENTS)
    assert found[:2].tolist() == [17, 4]
    assert found.max() < CLIENTS


def test_the_first_stretch_is_that_of_the_log_not_of_its_labels() -> None:
    log = simulate(duration_s=3600.0, clients=20, attacks="none", seed=1).sort_by("time")
    second = (log["time"].to_numpy() - log["time"][0].as_py()) / 1e6
    label = pa.array(np.zeros(len(log), bool), mask=second > 600)
    place = log.schema.get_field_index("malicious")
    early = log.set_column(place, "malicious", label)
    kept = build(lambda: iter([early]))
    assert (
        360
        <= (kept.time.min() - log["time"][0].as_py()) / 1e6
        <= (kept.time.max() - log["time"][0].as_py()) / 1e6
        <= 600
    )


def test_who_is_too_suspicious_to_be_learnt_from_does_not_calibrate_either(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Dataset.join([rows_of(600, 4, UNLABELLED, False, 0), rows_of(100, 4, "request_flood", True, 9_000)])
    hidden = data.malicious | (data.key < 3)  # unlabelled attackers
    data.rows[:, COLUMN["client_requests_seen"]] = np.random.default_rng(3).normal(6.0 * hidden, 1.0)
    data.time = np.random.default_rng(4).permutation(len(data))
    seen: list[tuple[int, int]] = []

    def fitted(raw: Any, malicious: Any, *rest: Any) -> Any:
        seen.append((int(malicious.sum()), int((~malicious).sum())))
        return fit_platt(raw, malicious, *rest)

    monkeypatch.setattr(training, "fit_platt", fitted)
    found = training.train(data, settings=Settings(own_trees=20, group_trees=4))
    known = data.take(found.split.train)
    later = known.time >= known.time.min() + training.CALIBRATION_TIME * (known.time.max() - known.time.min())
    taken = later & ~np.isin(known.key, found.suspicious)
    assert taken.sum() < later.sum()
    assert seen == [(int((taken & known.malicious).sum()), int((taken & ~known.malicious).sum()))]


def test_what_calibration_has_to_say_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "fit_platt", lambda *given: replace(fit_platt(*given), note="doubtful"))
    data = Dataset.join([rows_of(200, 4, "person", False, 0), rows_of(200, 4, "request_flood", True, 9_000)])
    assert "doubtful" in training.train(data, settings=Settings(own_trees=2)).thresholds.notes


def test_of_labelled_clients_none_is_left_out() -> None:
    data = rows_of(CLIENTS, 2, "person", False, 0)
    assert not len(suspicious_clients(data, np.zeros(len(data), np.float32)))


def test_trees_stay_small_where_attackers_are_woven_into_a_short_log() -> None:
    usual = Settings()
    assert usual.for_woven(SHORT_ROWS) == usual
    assert usual.for_woven(SHORT_ROWS - 1).leaves < usual.leaves


def test_a_long_log_grows_more_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Dataset.join([rows_of(40, 9, "person", False, 0), rows_of(40, 9, "request_flood", True, 500)])
    data.rows[:, COLUMN["client_requests_seen"]] = np.where(data.malicious, 2, 1)
    settings = Settings(own_trees=3, group_trees=2, fewest_rows=5)
    for long, trees in ((len(data) + 1, (3, 2)), (1, (6, 4))):
        monkeypatch.setattr(training, "LONG_ROWS", long)
        boosters = training.train(data, settings=settings).boosters
        assert (boosters.own.num_trees(), boosters.group.num_trees()) == trees


@pytest.mark.parametrize("challenge", [0.01, 0.0])
def test_nobody_is_blocked_for_the_company_they_keep(challenge: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attackers show in the company alone, and a few legitimate clients share it."""
    monkeypatch.setattr(training, "fit_limit", lambda *_: 4.0)
    data = Dataset.join([rows_of(1_500, 8, "person", False, 0), rows_of(150, 8, "request_flood", True, 9_000)])
    rng = np.random.default_rng(2)
    data.rows[:, COLUMN["client_requests_seen"]] = rng.normal(data.malicious, 3.0)
    shared = data.malicious | (data.key % 100 == 7)
    data.rows[:, COLUMN["address_requests_seen"]] = np.where(shared, 50, 1)
    settings = Settings(own_trees=8, group_trees=40, fewest_rows=20)
    found = training.train(data, settings=settings, budgets=Budgets(challenge, challenge / 5))
    assert np.isfinite(found.clip)
    least, curve = found.curve.least_block, LegitimateCurve.from_json(json.loads(json.dumps(found.curve.as_json())))
    assert found.thresholds.block >= least > found.curve.threshold(0.002)
    assert curve == found.curve
    own, group = found.boosters.parts(np.ascontiguousarray(data.rows[:, found.columns]))
    raw = own + np.clip(group, -found.clip, found.clip)
    assert own[raw >= least].min(initial=np.inf) >= least - found.clip
    assert any("company" in note for note in found.thresholds.notes) == (challenge > 0)
    stated = training.train(data, settings=settings, budgets=found.budgets, strict_budgets=("block",))
    assert stated.curve.least_block == -np.inf  # for the service, too, which reads thresholds for other budgets from it


def test_a_model_of_woven_traffic_does_not_look_at_everyone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = simulate(duration_s=3600, clients=60, attacks="none", seed=1)
    for name in ("malicious", "family"):
        place = own.schema.get_field_index(name)
        own = own.set_column(place, name, pa.nulls(own.num_rows, own.schema.field(place).type))
    monkeypatch.setattr(training, "SUSPICIOUS_CLIENTS", 0.05)  # of 60 clients, half a per cent is none
    options = TrainOptions(tmp_path / "bundle", inject="request_flood", capacity=256, challenge_budget=0.05)
    again = weaving_into(own, "request_flood", seed=0)
    bundle = train_bundle(options, again(0), again)
    entities = {FEATURES[COLUMN[name]].entity for name in bundle.manifest.features}
    assert "everyone" not in entities
    assert "client" in entities
    assert json.loads((bundle.path / "manifest.json").read_text())["without"] == ["everyone"]
    assert "were not taken as legitimate" in (bundle.path / "report.html").read_text()
