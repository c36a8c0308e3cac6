"""Surge or attack, live: the same verdict as offline, shown over HTTP and in the metrics, and what it lets load do."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from classifier.events import microseconds, table_of
from classifier.features import layout as at
from classifier.model.apply import LogWatch, Model
from classifier.model.judge import Judge
from classifier.situation import MINUTE_US, Verdict
from serving.app import Service
from serving.gate import LiveEvent
from tests.service.challenge_site import payload
from tests.service.served import SECRET, START, Moment, client_of, event, mixed_events, post, service
from tests.service.test_gate import of, scored


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


def challenged(judge: Judge, **settings: Any) -> tuple[Service, TestClient, str]:
    """Return a service under attack that challenges everybody, a client that nobody knows, and its pass."""
    quick = {"challenge_work_least": 1, "challenge_work_most": 16, "known_client_s": 600.0, "known_requests": 3}
    app = service(judge, Moment(), **{**quick, **settings})
    scored(app, of(judge, "challenge"))
    client = client_of(app, client=("192.0.2.7", 1))
    under(app, "attack", microseconds(START))
    first = post(client, "/v1/decide", event(), x_botsieve_load="1").json()
    assert first["enforced"] == "challenge"
    assert "wait" not in first["challenge"], "who has no pass yet can earn one meanwhile"
    solved = payload(client.get(first["challenge"]["url"]).json())
    return app, client, post(client, "/v1/challenge/verify", {"altcha": solved}).json()["pass"]


def test_at_a_full_gateway_under_attack_who_is_not_known_waits_with_its_pass(judge: Judge) -> None:
    app, client, granted = challenged(judge)

    def asked(load: str) -> dict[str, Any]:
        answer: dict[str, Any] = post(
            client, "/v1/decide", event(), x_botsieve_pass=granted, x_botsieve_load=load
        ).json()
        return answer

    waits = asked("1")
    assert (waits["decision"], waits["enforced"]) == ("challenge", "challenge")
    assert "wait" in waits["reasons"]
    assert "pass" not in waits["reasons"]
    assert 10 <= waits["challenge"]["wait"] <= 30
    url = waits["challenge"]["url"]
    told = client.get(url)
    assert told.headers["retry-after"] == str(waits["challenge"]["wait"])
    assert told.json().keys() == {"detail", "url", "verify", "wait"}, "there is nothing to solve"
    page = client.get(url, headers={"accept": "text/html"}, params={"next": "/chat?x=1"})
    assert f"again in {waits['challenge']['wait']} seconds or later" in page.text, "for who has no scripts"
    assert 'href="/chat?x=1"' in page.text
    assert "refresh" not in page.text, "a page does not load itself anew under who is reading it"
    assert re.findall(r"<script.*?>", page.text) == ['<script type="module" src="/v1/challenge/static/wait.js">'], (
        "nothing is inline, which the policy forbids"
    )
    assert client.get("/v1/challenge/static/wait.js").headers["content-type"].startswith("text/javascript")
    assert asked("0.99")["enforced"] == "allow", "there is room"
    assert app.gate.tallies.passes == {"waits": 1, "admitted": 1}
    under(app, "surge")
    assert asked("1")["enforced"] == "allow"


def test_waiting_uses_no_pass_up_and_needs_one(judge: Judge) -> None:
    app, client, granted = challenged(judge, pass_requests=1)
    for _ in range(3):
        post(client, "/v1/decide", event(), x_botsieve_pass=granted, x_botsieve_load="1")
    other = post(client, "/v1/decide", event(ip="192.0.2.8"), x_botsieve_pass=granted, x_botsieve_load="1").json()
    assert "wait" not in other["reasons"], "it is another's"
    last = post(client, "/v1/decide", event(), x_botsieve_pass=granted, x_botsieve_load="0.9").json()
    assert last["enforced"] == "allow"
    again = post(client, "/v1/decide", event(), x_botsieve_pass=granted, x_botsieve_load="1").json()
    assert "wait" not in again["reasons"], "a pass that is used up has to be earned anew first"
    assert app.gate.tallies.passes == {"waits": 3, "client": 1, "admitted": 1, "used": 1}


def test_who_may_wait_is_a_setting(judge: Judge) -> None:
    _, client, granted = challenged(judge, newcomers_wait=False)
    answer = post(client, "/v1/decide", event(), x_botsieve_pass=granted, x_botsieve_load="1").json()
    assert answer["enforced"] == "allow"
    assert "pass" in answer["reasons"]


def test_who_is_known_does_not_wait(judge: Judge) -> None:
    now = Moment()
    app = service(judge, now, known_client_s=600.0, known_requests=3, mode="shadow")
    for _ in range(4):
        now.seconds += 300
        (arrival,) = app.gate.arrive_all(app.gate.prepare([LiveEvent(**event())]))
    arrival.live.load = 1.0
    assert not app.observer.full(arrival)
    under(app, "attack", microseconds(now.seconds))
    assert not app.observer.full(arrival)
    under(app, "attack", microseconds(now.seconds - 600))
    assert app.observer.full(arrival)


@pytest.mark.parametrize("accept", ["application/json", "text/html"])
def test_gateways_are_told_to_wait(judge: Judge, accept: str) -> None:
    _, client, granted = challenged(judge)
    post(client, "/v1/load", {"load": 1.0})
    headers = {"accept": accept, "x-botsieve-pass": granted}
    answer = client.get("/v1/authorize/v1/chat/completions", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith('Botsieve challenge="/v1/challenge/')
    seconds = answer.headers["retry-after"]
    assert 10 <= int(seconds) <= 30
    if accept == "text/html":
        assert f'data-wait="{seconds}"' in answer.text
        assert 'href="/v1/chat/completions"' in answer.text
    else:
        assert answer.json()["challenge"]["wait"] == int(seconds)
        assert "with the same pass" in answer.json()["detail"]
