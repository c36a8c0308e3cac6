"""The public status: what state holds when, what is kept of it, and that it tells of nobody."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from classifier.model.judge import Judge
from serving.app import Service
from serving.status import BITS, FILE, MINUTES, UNKNOWN, History, Status
from serving.status_routes import NAMES, SAYS
from tests.service.served import START, Moment, client_of, event, post, service
from tests.service.test_situation import under

MINUTE = START // 60


@pytest.fixture
def moment() -> Moment:
    return Moment(MINUTE * 60 + 1)


def status_of(app: Service) -> Status:
    assert app.status is not None
    return app.status


def made(judge: Judge, moment: Moment, **settings: object) -> tuple[Service, Status]:
    app = service(judge, moment, status_page=True, **settings)
    return app, status_of(app)


def test_anybody_may_ask_and_is_told_the_same_in_both_forms(judge: Judge, moment: Moment) -> None:
    app, status = made(judge, moment, token="a token that nobody sends")
    status.tick()
    client = client_of(app)
    for path in ("/status", "/status.json"):
        told = client.get(path)
        assert told.json()["state"] == "normal"
        assert told.json()["days"] == [
            {"day": "2023-11-14", "minutes": {"normal": 1}, "hours": [None] * 22 + ["normal", None]}
        ]
    page = client.get("/status", headers={"accept": "text/html"})
    assert page.headers["content-type"].startswith("text/html")
    assert SAYS["normal"] in page.text
    hours = page.text.partition("<tbody>")[2]
    assert hours.count("<rect") == 23, "an hour that has not come yet is not shown as unknown"
    assert '<rect class="normal" x="220" y="6"' in hours
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "<script" not in page.text
    assert client.get("/status/static/console/console.css").status_code == 200
    assert client.get("/metrics").status_code == 401


def test_the_console_brings_it_along_and_a_setting_takes_it_away(judge: Judge) -> None:
    token = "a token that is long"
    assert service(judge, console=True, token=token).status is not None
    assert service(judge, console=True, token=token, status_page=False).status is None
    assert service(judge).status is None


def test_an_attack_is_said_and_kept(judge: Judge, moment: Moment) -> None:
    app, status = made(judge, moment)
    assert status.states() == []
    under(app, "attack")
    status.tick()
    moment.seconds += 120
    status.tick()
    under(app, "surge")
    moment.seconds += 60
    status.tick()
    shown = status.shown()
    assert shown["state"] == "normal"
    assert shown["days"][0]["minutes"] == {"under_attack": 2, "unknown": 1, "normal": 1}
    assert [one["state"] for one in shown["incidents"]] == ["under_attack", "under_attack"]
    assert shown["incidents"][1] == {
        "state": "under_attack",
        "since": "2023-11-14T22:13Z",
        "until": "2023-11-14T22:14Z",
    }


def test_answers_of_the_fail_mode_degrade_it_for_a_minute(judge: Judge, moment: Moment) -> None:
    app, status = made(judge, moment)
    status.tick()
    tallies = app.gate.tallies
    tallies.decisions["allow", "allow"] += 1000
    tallies.failed["late", "open"] += 9
    assert status.states() == []
    tallies.failed["late", "open"] += 1
    assert status.states() == ["degraded"]
    for _ in range(14):
        moment.seconds += 5
        status.tick()
    assert status.states() == []


@pytest.mark.parametrize(("mode", "states"), [("enforce", ["registrations_limited"]), ("shadow", [])])
def test_registrations_are_limited_where_they_are_refused(
    judge: Judge, moment: Moment, mode: str, states: list[str]
) -> None:
    app, status = made(judge, moment, mode=mode, routes=[{"path": "/signup*", "registration": True}],
                       registration_challenge_budget=0.7)  # fmt: skip
    client = client_of(app)
    for number in range(40):
        moment.seconds += 0.01
        post(client, "/v1/decide", event(path="/signup", ip=f"10.0.0.{number}"))
    app.recent.pass_on()
    refused = sum(count for (_, enforced), count in app.gate.tallies.decisions.items() if enforced != "allow")
    assert (refused >= 5) == (mode == "enforce")
    assert status.states() == states
    moment.seconds += 400
    assert status.states() == []


def test_several_states_may_hold_and_the_worst_is_named_first(judge: Judge, moment: Moment) -> None:
    app, status = made(judge, moment)
    status.tick()
    under(app, "attack")
    app.gate.tallies.failed["late", "open"] += 1
    assert status.states() == ["under_attack", "degraded"]
    status.tick()
    assert status.shown()["days"][0]["minutes"] == {"under_attack": 1}


def test_the_history_outlives_a_restart(judge: Judge, moment: Moment, tmp_path: Path) -> None:
    app, status = made(judge, moment, state=tmp_path)
    under(app, "attack")
    status.tick()
    for close in app.closers:
        close()
    moment.seconds += 600
    again = made(judge, moment, state=tmp_path)[1]
    again.tick()
    assert again.shown()["days"][0]["minutes"] == {"under_attack": 1, "unknown": 9, "normal": 1}
    assert again.shown()["incidents"][0]["state"] == "under_attack"
    again.close()


def test_it_is_bounded_and_forgets_after_seven_days(tmp_path: Path) -> None:
    history = History(tmp_path, 60.0 * MINUTE)
    history.note(MINUTE, BITS["under_attack"])
    for minute in range(MINUTE + 1, MINUTE + MINUTES):
        history.note(minute, 0)
    assert history.in_order()[0] == (MINUTE, BITS["under_attack"])
    history.note(MINUTE + MINUTES, 0)
    assert history.in_order()[0] == (MINUTE + 1, 0)
    assert len(history.minutes) == MINUTES
    history.note(MINUTE + 10 * MINUTES, 0)
    assert {bits for _, bits in history.in_order()[:-1]} == {UNKNOWN}
    history.write(history.content())
    assert (tmp_path / FILE).stat().st_size < 16_384
    assert not history.note(MINUTE, 4), "a clock that goes back changes nothing of what is no longer kept"


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"newest":1,"minutes":"AAAA"}', b'{"newest":"x","minutes":""}', b"\xff"]
)
def test_a_damaged_history_begins_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    history = History(tmp_path, 60.0 * MINUTE)
    assert history.newest == 0
    assert set(history.minutes) == {UNKNOWN}
    assert (tmp_path / "status.damaged").read_bytes() == content, "it is put aside"


def test_a_history_from_the_future_begins_anew(tmp_path: Path) -> None:
    history = History(tmp_path, 60.0 * MINUTE)
    history.note(MINUTE, 0)
    history.write(history.content())
    assert History(tmp_path, 60.0 * (MINUTE - 100)).newest == MINUTE
    again = History(tmp_path, 60.0 * (MINUTE - 2000))
    assert again.newest == 0
    assert again.note(MINUTE - 2000, 0), "or nothing could be added before that day"


def test_an_attack_that_ends_in_silence_ends(judge: Judge, moment: Moment) -> None:
    app, status = made(judge, moment)
    post(client_of(app), "/v1/decide", event())
    watch = app.observer.watch
    watch.situation.verdict = dataclasses.replace(watch.situation.verdict, state="attack", rule=2)
    watch.situation._usual[:40], watch.situation._kept = 1.0, 40
    assert status.states() == ["under_attack"]
    for _ in range(60):
        moment.seconds += 60
        for beat in app.recent.beats:
            beat()
    assert status.states() == []


def test_many_who_ask_cost_one_answer(judge: Judge, moment: Moment, monkeypatch: pytest.MonkeyPatch) -> None:
    app, status = made(judge, moment)
    client = client_of(app)
    first = client.get("/status.json").content
    monkeypatch.setattr(status, "shown", lambda: pytest.fail("it was made anew"))
    for _ in range(20):
        assert client.get("/status.json").content == first


def test_it_tells_of_nobody(judge: Judge, moment: Moment) -> None:
    app, status = made(judge, moment)
    client = client_of(app)
    for number in range(30):
        moment.seconds += 0.1
        post(client, "/v1/decide", event(ip="198.51.100.77", account="someone", path=f"/wp-login.php?{number}"))
    app.recent.pass_on()
    status.tick()
    told = client.get("/status.json").json()
    assert set(told) == {"state", "states", "time", "scope", "days", "incidents"}
    text = client.get("/status.json").text + client.get("/status", headers={"accept": "text/html"}).text
    for secret in ("198.51", "someone", "wp-login", *app.gate.client_ids("someone")):
        assert secret not in text


def test_every_state_has_a_name_and_a_sentence() -> None:
    assert set(NAMES) == {"normal", "unknown", *BITS}
    assert set(SAYS) == {"normal", *BITS}
