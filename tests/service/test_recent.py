"""What is handed on in bulk: all of it, in order, bounded, and without power over a decision."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier.features import layout as at
from classifier.model.judge import Judge
from classifier.situation import MINUTE_US
from serving import recent
from serving.recent import Batch, Sample
from tests.service.served import Moment, client_of, event, post, service


def test_everything_is_handed_on_once_and_in_order(judge: Judge) -> None:
    moment = Moment()
    app = service(judge, moment)
    client = client_of(app)
    seen: list[Batch] = []
    app.recent.followers.append(seen.append)
    ids = []
    for number in range(5):
        moment.seconds += 1
        ids.append(post(client, "/v1/decide", event(ip=f"10.0.0.{number}")).json()["id"])
    ids += [one["id"] for one in post(client, "/v1/decide/batch", [event(ip="10.0.0.9")] * 3).json()]
    app.recent.pass_on()
    app.recent.pass_on()
    (batch,) = seen
    some = batch.some
    assert [answer.id for answer in some.answers] == ids == [arrival.id for arrival in some.arrivals]
    assert batch.minute.tolist() == [arrival.time // MINUTE_US for arrival in some.arrivals]
    assert batch.time == some.arrivals[-1].time
    assert some.client.tolist() == [int(arrival.hashes[at.H_CLIENT]) for arrival in some.arrivals]
    assert batch.raw.tolist() == [answer.raw for answer in some.answers]
    assert batch.score.tolist() == [answer.score for answer in some.answers]
    assert np.array_equal(some.rows([6, 1]), [some.arrivals[6].row, some.arrivals[1].row], equal_nan=True)
    assert all(arrival.row.base is None and arrival.hashes.base is None for arrival in some.arrivals)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=40), st.integers(2, 16))
def test_a_sample_is_every_so_manieth_of_all(parts: list[int], most: int) -> None:
    numbers = iter(range(sum(parts)))
    sample, seen = Sample(most), 0
    for part in parts:
        arrivals: list[Any] = [
            SimpleNamespace(number=next(numbers), row=np.zeros(1), hashes=np.zeros(1)) for _ in range(part)
        ]
        if sample.due < seen + part:
            sample.take(seen, arrivals, arrivals)
        seen += part
        assert len(sample) <= most
    kept = [arrival.number for arrival in sample.arrivals]
    assert kept == list(range(0, sum(parts), sample.step)) == [answer.number for answer in sample.answers]
    assert sample.step == 1 or len(sample) > most // 4, "no more are let go than need be"
    assert sample.next().step == max(sample.step // 2, 1)


def test_what_waits_is_bounded(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "MOST_ROWS", 10)
    app = service(judge)
    seen: list[int] = []
    app.recent.followers.append(lambda batch: seen.append(len(batch)))
    client = client_of(app)
    for _ in range(25):
        post(client, "/v1/decide", event())
    assert seen == [10, 10]
    assert len(app.recent._raw) == 5


def test_a_follower_that_fails_changes_no_answer(judge: Judge) -> None:
    app = service(judge, console=True, token="a token that is long")
    client = client_of(app, headers={"authorization": "Bearer a token that is long"})
    seen: list[int] = []

    def fails(batch: Batch | None) -> None:
        raise RuntimeError("of the test")

    app.recent.followers[:] = [fails, lambda batch: seen.append(len(batch))]
    app.recent.attendants.append(lambda arrivals, answers: fails(None))
    assert post(client, "/v1/decide", event()).status_code == 200
    app.recent.pass_on()
    assert seen == [1], "the others go on"
    assert "botsieve_follow_failures 2.0" in client.get("/metrics").text


def test_requests_expire_while_nobody_comes_some_at_a_time(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.app.EXPIRED", 3)
    moment = Moment()
    app = service(judge, moment)
    client = client_of(app)
    for number in range(5):
        post(client, "/v1/decide", event(ip=f"10.0.0.{number}"))
    left = []
    for pause in (600.0, 11.0, 1.0):
        moment.seconds += pause
        for beat in app.recent.beats:
            beat()
        left.append(app.gate.engine.in_flight)
    assert left == [5, 2, 0]
    assert post(client, "/v1/decide", event(ip="10.0.0.1")).status_code == 200
    assert app.gate.engine.in_flight == 1
    app = service(judge, moment, clock="event")
    assert not app.recent.beats, "time is that of the events"
