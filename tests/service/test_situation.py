"""Surge or attack, live: the same verdict as offline, shown over HTTP and in the metrics, and what it lets load do."""

from __future__ import annotations

import numpy as np
import pytest

from classifier.events import microseconds, table_of
from classifier.features import layout as at
from classifier.model.apply import LogWatch, Model
from classifier.model.judge import Judge
from classifier.situation import MINUTE_US, Verdict
from serving.app import Service
from serving.gate import LiveEvent
from tests.service.served import SECRET, START, Moment, client_of, event, mixed_events, post, service


def under(app: Service, state: str, since: int = 0) -> None:
    """Let the service be in a state, whatever it counts."""
    situation = app.observer.watch.situation
    situation.verdict = Verdict(state, since, 0, ("told by a test",), {}, since)  # type: ignore[arg-type]


def test_online_is_offline_bit_for_bit(judge: Judge) -> None:
    events = [e for e in mixed_events(600) if e.duration is None]  # they end at once, or expire with the engine's clock
    for place, one in enumerate(events):
        one.time, one.duration, one.status = START + place * 37 + place % 3, None, None
        one.input_tokens = one.output_tokens = one.response_bytes = one.verdict = None
    app = service(judge, clock="event", ahead_s=1e9)
    client = client_of(app)
    for one in events:
        body = {name: getattr(one, name) for name in one.__struct_fields__ if getattr(one, name) is not None}
        answer = post(client, "/v1/decide", body)
        assert answer.status_code == 200
        post(client, "/v1/complete", {"id": answer.json()["id"]})
    model = Model(judge.bundle)
    watch = LogWatch(model)
    for _ in model.scored([table_of(events)], secret=SECRET, watch=watch):
        pass
    live_one, offline = app.observer.watch.situation, watch.situation
    for situation in (live_one, offline):
        situation.advance(microseconds(events[-1].time) + MINUTE_US)
    assert live_one.verdict.rule != 1
    assert live_one.verdict == offline.verdict
    assert live_one.changes == offline.changes


def test_the_verdict_is_shown(judge: Judge) -> None:
    app = service(judge)
    client = client_of(app)
    shown = client.get("/v1/situation").json()
    assert shown["state"] == "unsure"
    assert shown["evidence"] == ["no whole minute has been seen yet"]
    under(app, "attack")
    assert client.get("/v1/situation").json()["state"] == "attack"
    metrics = client.get("/metrics").text
    assert 'botsieve_situation{state="attack"} 1.0' in metrics
    assert 'botsieve_situation{state="calm"} 0.0' in metrics


@pytest.mark.parametrize(("state", "when", "counts"), [("attack", "attack", True), ("surge", "attack", False),
    ("unsure", "attack", False), ("calm", "attack", False), ("surge", "always", True)])  # fmt: skip
def test_only_an_attack_lets_load_tighten(judge: Judge, state: str, when: str, counts: bool) -> None:
    app = service(judge, Moment(), load_when=when)
    under(app, state)
    pending = app.gate.prepare([LiveEvent(ip="192.0.2.7", method="POST", path="/v1/chat/completions")])
    (arrival,) = app.gate.arrive_all(pending)
    arrival.live.load = 0.9
    assert app.observer.circumstances(arrival, app.gate.rules.of(arrival.event.path)).load == (0.9 if counts else 0.0)


def test_known_is_who_came_before_the_attack(judge: Judge) -> None:
    now = Moment()
    app = service(judge, now, known_client_s=600.0, known_requests=3)

    def comes(account: str) -> bool:
        given = LiveEvent(ip="192.0.2.7", method="POST", path="/v1/chat/completions", account=account)
        (arrival,) = app.gate.arrive_all(app.gate.prepare([given]))
        arrival.live.load = 0.9
        return app.observer.circumstances(arrival, app.gate.rules.of(arrival.event.path)).known

    assert [comes("early") for _ in range(3)] == [False] * 3
    now.seconds += 700
    assert not comes("late")
    under(app, "attack", microseconds(now.seconds))
    assert comes("early")
    now.seconds += 10_000
    assert [comes("late") for _ in range(5)] == [False] * 5
    assert comes("early")
    under(app, "calm")
    assert not comes("early"), "nobody asks where load does not count"


def test_an_arrival_is_counted_once_and_by_its_client(judge: Judge) -> None:
    app = service(judge)
    seen = []
    app.observer.watch.situation.observe = lambda *one: seen.append(one)  # type: ignore[method-assign]
    post(client_of(app), "/v1/decide", event())
    assert len(seen) == 1
    time, client, marks = seen[0]
    assert time == app.gate.clock
    assert isinstance(client, int)
    assert 0 <= marks < 32
    assert at.H_CLIENT == 0
    assert np.uint64(client) > 0
