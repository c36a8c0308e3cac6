"""Drift, live: the same bins as offline, silence while nothing has changed, an alarm when it has, and bounded memory."""

from __future__ import annotations

import dataclasses
from unittest.mock import Mock

import numpy as np
import numpy.typing as npt
import pytest
from msgspec import structs
from prometheus_client import CollectorRegistry, generate_latest

from classifier.features.spec import COLUMN, FEATURES
from classifier.model.histograms import RAW, Clusters, Histogram, deciles, histogram
from classifier.model.judge import Judge
from classifier.model.stability import COUNTED, WARM_UP_S, verdict_on
from serving.drifting import HOURS, SAMPLE, Drift, Window
from serving.recent import Recent
from tests.service.served import Moment, client_of, event, post, service

OWN = sorted(name for name in COUNTED if name != RAW)[:12]
Floats = npt.NDArray[np.float64]


def traffic(rng: np.random.Generator, clients: int, shift: float = 0.0) -> tuple[npt.NDArray[np.float32], list[int]]:
    """Rows of clients with habits of their own, and whose they are; a tenth of one feature is missing."""
    requests = 1 + np.minimum(rng.pareto(1.2, clients) * 20, 500).astype(int)
    who = np.repeat(rng.integers(1 << 62, size=clients), requests)
    habit = np.repeat(rng.standard_normal((clients, len(OWN))) * 2, requests, axis=0)
    rows = np.zeros((len(who), len(FEATURES)), np.float32)
    values = shift + habit + rng.standard_normal(habit.shape)
    values[rng.random(len(who)) < 0.1, 0] = np.nan
    rows[:, [COLUMN[name] for name in OWN]] = values
    order = rng.permutation(len(who))
    return rows[order], who[order].tolist()


def reference(rng: np.random.Generator, clients: int) -> dict[str, Histogram]:
    rows, who = traffic(rng, clients)
    clusters = Clusters.of(np.array(who, np.uint64), np.zeros(len(who), np.int64), np.ones(len(who)))
    columns = {name: rows[:, COLUMN[name]] for name in OWN} | {RAW: rows[:, COLUMN[OWN[1]]]}
    return {name: histogram(values, deciles(values, clusters.weight), clusters) for name, values in columns.items()}


def counted(window: Window, rows: npt.NDArray[np.float32], who: list[int], hour: int = 0) -> None:
    raw = rows[:, COLUMN[OWN[1]]]
    for begin in range(0, len(rows), SAMPLE):
        part = slice(begin, begin + SAMPLE)
        window.count(hour, rows[part], raw[part], who[part], 1.0)


def test_values_fall_into_the_bins_of_the_histograms_offline() -> None:
    rng = np.random.default_rng(0)
    before = reference(rng, 400)
    rows, who = traffic(rng, 200)
    window = Window(before)
    counted(window, rows, who)
    clusters = Clusters.of(np.array(who, np.uint64), np.zeros(len(who), np.int64), np.ones(len(who)))
    for each in window.measure():
        values = rows[:, COLUMN[OWN[1] if each.name == RAW else each.name]]
        offline = histogram(values, before[each.name].edges, clusters)
        assert each.now == pytest.approx(offline.shares, abs=0.01), "as weighed by the square root of their requests"


@pytest.mark.parametrize("seed", range(10))
def test_the_same_traffic_raises_no_alarm_and_other_traffic_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    before = reference(rng, 500)
    same, other = Window(before), Window(before)
    counted(same, *traffic(rng, 300))
    assert verdict_on(same.measure()) in ("steady", "unresolved")
    counted(other, *traffic(rng, 300, shift=2.0))
    assert verdict_on(other.measure()) == "drift"


def test_few_clients_resolve_nothing() -> None:
    rng = np.random.default_rng(1)
    window = Window(reference(rng, 500))
    counted(window, *traffic(rng, 5))
    assert verdict_on(window.measure()) == "unresolved"


def test_what_is_over_leaves_after_a_day() -> None:
    rng = np.random.default_rng(2)
    window = Window(reference(rng, 500))
    counted(window, *traffic(rng, 300, shift=3.0), hour=0)
    for hour in range(1, HOURS + 1):
        counted(window, *traffic(rng, 40), hour=hour)
    assert verdict_on(window.measure()) != "drift"
    counted(window, *traffic(rng, 300), hour=1000)
    assert window.requests < 100_000


def test_its_memory_does_not_grow() -> None:
    rng = np.random.default_rng(3)
    window = Window(reference(rng, 100))
    size = window._counts.nbytes + window._seen.nbytes
    counted(window, *traffic(rng, 3000))
    assert window._counts.nbytes + window._seen.nbytes == size < 4_000_000


def test_a_service_measures_what_it_answers(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    moment, rng = Moment(), np.random.default_rng(4)
    before = reference(rng, 100)
    monkeypatch.setattr("serving.drifting.REFERENCE_FILE", "model.onnx")  # the bundle of the tests has no reference
    monkeypatch.setattr("serving.drifting.read_reference", lambda _: before)
    app = service(judge, moment)
    client = client_of(app)

    def ask(count: int) -> None:
        moment.seconds += 1
        post(client, "/v1/decide/batch", [event(ip=f"10.0.{number}.7") for number in range(count)])
        app.recent.pass_on()

    ask(50)
    assert app.drift.clients == 0.0, "the first hour counts for nothing"
    moment.seconds += WARM_UP_S
    for _ in range(8):
        ask(100)
    assert app.drift.clients > 0.0
    measured = Drift(app.gate, clock=lambda: 0.0)
    assert measured.measured() == [], "nothing has been counted yet"
    text = client.get("/metrics").text
    assert 'botsieve_drift{verdict="' in text
    assert "botsieve_drift_clients" in text
    shown = app.drift.shown()
    assert shown["verdict"] in ("drift", "watch", "unresolved", "steady")
    assert all(one["meaning"] for one in shown["features"])


def test_a_bundle_without_a_reference_has_no_drift(judge: Judge) -> None:
    app = service(judge)
    registry = CollectorRegistry()
    registry.register(app.drift)
    text = generate_latest(registry).decode()
    assert 'botsieve_drift{verdict="unresolved"} 1.0' in text
    assert "botsieve_drift_index{" not in text
    assert not app.drift.shown()["known"]


def test_what_the_model_acts_on_is_left_out(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.drifting.REFERENCE_FILE", "model.onnx")
    before = reference(np.random.default_rng(5), 50)
    monkeypatch.setattr("serving.drifting.read_reference", lambda _: before)
    app = service(judge)
    client = client_of(app)
    post(client, "/v1/decide", event())
    app.gate.engine.start = -1e15  # long ago
    seen: list[tuple[int, float]] = []
    monkeypatch.setattr(
        Window, "count", lambda self, hour, rows, raw, clients, stands_for: seen.append((len(raw), stands_for))
    )
    (arrival,), (answer,) = app.recent._some.arrivals, app.recent._some.answers
    recent = Recent()
    recent.followers.append(app.drift.follow)

    def follow(raws: list[float]) -> None:
        answers = [structs.replace(answer, raw=raw) for raw in raws]
        recent.answered([dataclasses.replace(arrival) for _ in raws], answers, Mock())
        recent.pass_on()

    follow([-9.0, 99.0, 99.0, 99.0] * 10)
    assert seen == [(10, 1.0)]
    follow([99.0] * 200)
    assert seen == [(10, 1.0)]
    follow([-9.0] * 1000)
    assert seen == [(10, 1.0), (SAMPLE, 1000 / SAMPLE)], "a sample stands for all"
