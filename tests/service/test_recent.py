"""What is handed on in bulk: all of it, in order, bounded, and without power over a decision."""

from __future__ import annotations

import numpy as np
import pytest

from classifier.features import layout as at
from classifier.model.judge import Judge
from serving import recent
from serving.recent import Batch
from tests.service.served import Moment, bundle, client_of, event, judge, post, service  # noqa: F401


def test_everything_is_handed_on_once_and_in_order(judge: Judge) -> None:  # noqa: F811
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
    assert [answer.id for answer in batch.answers] == ids == [arrival.id for arrival in batch.arrivals]
    assert batch.time.tolist() == [arrival.time for arrival in batch.arrivals]
    assert batch.client.tolist() == [int(arrival.hashes[at.H_CLIENT]) for arrival in batch.arrivals]
    assert batch.raw.tolist() == [answer.raw for answer in batch.answers]
    assert np.array_equal(batch.rows([6, 1]), [batch.arrivals[6].row, batch.arrivals[1].row], equal_nan=True)


def test_what_waits_is_bounded(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr(recent, "MOST_ROWS", 10)
    app = service(judge)
    seen: list[int] = []
    app.recent.followers.append(lambda batch: seen.append(len(batch)))
    client = client_of(app)
    for _ in range(25):
        post(client, "/v1/decide", event())
    assert seen == [10, 10]
    assert len(app.recent._waiting) == 5


def test_a_follower_that_fails_changes_no_answer(judge: Judge) -> None:  # noqa: F811
    app = service(judge, console=True, token="a token that is long")
    client = client_of(app, headers={"authorization": "Bearer a token that is long"})
    seen: list[int] = []

    def fails(batch: Batch) -> None:
        raise RuntimeError("of the test")

    app.recent.followers[:] = [fails, lambda batch: seen.append(len(batch))]
    assert post(client, "/v1/decide", event()).status_code == 200
    app.recent.pass_on()
    assert seen == [1], "the others go on"
    assert "botsieve_follow_failures 1.0" in client.get("/metrics").text
