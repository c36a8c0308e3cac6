"""What the routes accept and answer, who may call them, and that nothing moves on a refusal."""

from __future__ import annotations

import re
import sys
import threading
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from classifier.errors import BundleError
from classifier.events import FIELDS
from classifier.model.bundle import Bundle
from classifier.model.judge import Judge
from serving.app import Service, create_app
from serving.settings import Settings
from serving.shadow import FAILED, SKIPPED, Shadow
from tests.service.served import SECRET, START, Moment, client_of, event, make_bundle, post, service

TOKEN = "a token of the tests, long enough"
BEARER = f"Bearer {TOKEN}"


def state(app: Service) -> tuple[Any, ...]:
    """Everything a refused request must leave alone."""
    engine = app.gate.engine
    arrays = tuple(array.tobytes() for array in engine.arrays)
    return arrays, engine.arrivals, engine.in_flight, engine.clock, app.gate.clock


def test_a_decision_says_everything_of_the_contract(live: Any) -> None:
    _app, client = live
    answer = post(client, "/v1/decide", event(max_tokens=16, nonsense=[1, {"a": 2}]))
    assert answer.status_code == 200
    assert {"id", "decision", "enforced", "raw", "probability", "score", "reasons", "family"} <= answer.json().keys()
    told = client.get(f"/v1/decisions/{answer.json()['id']}").json()
    assert {name: told[name] for name in ("id", "decision", "raw", "score")} == {
        name: answer.json()[name] for name in ("id", "decision", "raw", "score")
    }
    assert "192.0.2.7" not in str(told)


def test_a_list_is_answered_in_order(live: Any) -> None:
    _, client = live
    answers = post(client, "/v1/decide/batch", [event(ip=f"192.0.2.{n}") for n in range(5)]).json()
    assert [int(answer["id"].partition("-")[0], 16) for answer in answers] == list(range(5))
    assert post(client, "/v1/decide/batch", []).json() == []


MALFORMED = [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"ip": "\\ud800"}', b"nul"]
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"ip": 4}, "ip"), ({"ip": ""}, "ip"), ({"ip": "a b"}, "ip"), ({"method": None}, "method"), ({"path": 1}, "path"),
    ({"status": "200"}, "status"), ({"status": 1000}, "status"), ({"duration": -1}, "duration"), ({"duration": True}, "duration"),
    ({"max_tokens": 1.5}, "max_tokens"), ({"max_tokens": 2**53}, "max_tokens"), ({"verdict": "perhaps"}, "verdict"),
    ({"malicious": 1}, "malicious"), ({"account_created": 1e12}, "account_created"), ({"prompt": ["x"]}, "prompt"),
]  # fmt: skip


@pytest.mark.parametrize("path", ["/v1/decide", "/v1/decide/batch", "/v1/complete", "/v1/clock", "/v1/model/reload"])
@pytest.mark.parametrize("body", MALFORMED)
def test_what_is_no_json_is_refused_and_changes_nothing(live: Any, path: str, body: bytes) -> None:
    app, client = live
    before = state(app)
    answer = post(client, path, body)
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"
    assert state(app) == before
    assert app.gate.tallies.rejected == {answer.json()["reason"]: 1}
    assert answer.json()["reason"] in ("malformed", "invalid")


@pytest.mark.parametrize(("change", "field"), WRONG)
def test_a_wrong_field_is_named(live: Any, change: dict[str, Any], field: str) -> None:
    app, client = live
    before = state(app)
    for path, body in (("/v1/decide", event(**change)), ("/v1/decide/batch", [event(), event(**change)])):
        answer = post(client, path, body)
        assert answer.status_code == 422
        assert field in answer.json()["detail"]
    assert state(app) == before
    assert app.gate.tallies.rejected["invalid"] == 2


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
almost_events = st.fixed_dictionaries(
    {}, optional={field.name: st.one_of(json_values, st.just("1"), st.just(1)) for field in FIELDS}
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(almost_events, json_values, st.binary(max_size=40)))
def test_no_body_is_a_failure_and_no_refusal_moves_anything(live: Any, body: Any) -> None:
    app, client = live
    try:
        content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    except (UnicodeEncodeError, msgspec.MsgspecError, ValueError):
        return
    for path in ("/v1/decide", "/v1/decide/batch", "/v1/complete"):
        before = state(app)
        status = post(client, path, content).status_code
        assert status < 500
        assert status == 200 or state(app) == before


def test_limits(judge: Judge) -> None:
    app = service(judge, max_body_bytes=2000, max_batch_bytes=3000, max_batch=3, max_header_bytes=1000)
    client = client_of(app)
    assert post(client, "/v1/decide", event(prompt="x" * 3000)).status_code == 413
    assert post(client, "/v1/decide/batch", [event(prompt="x" * 3000)]).status_code == 413
    assert post(client, "/v1/decide/batch", [event()] * 4).status_code == 422
    assert post(client, "/v1/complete", [{"id": "x"}] * 4).status_code == 422
    assert post(client, "/v1/clock", b" " * 3000).status_code == 413
    assert post(client, "/v1/decide", event(), x_long="x" * 1000).status_code == 431
    assert client.get("/metrics", headers={"x-long": "x" * 1000}).status_code == 431
    assert app.gate.engine.arrivals == 0
    counted = app.gate.tallies.rejected
    assert (counted["body_too_large"], counted["list_too_long"], counted["headers_too_large"]) == (3, 2, 2)


@pytest.mark.parametrize("path", ["/healthz", "/v1/challenge/verify", "/v1/challenge/x", "/console/sign-in", "/status"])
def test_without_a_token_bodies_are_short(judge: Judge, path: str) -> None:
    app = service(judge, token=TOKEN, console=True)
    client = client_of(app)
    assert post(client, path, b" " * 16_385).status_code == 413
    assert app.gate.tallies.rejected == {"body_too_large": 1}
    assert post(client, path, b" " * 16_384).status_code != 413
    assert post(client, "/v1/clock", b" " * 20_000, authorization=f"Bearer {TOKEN}").status_code == 400


def test_a_body_without_a_length_is_limited_too(judge: Judge) -> None:
    app = service(judge, max_body_bytes=2000)
    answer = client_of(app).post("/v1/decide", content=(b"x" * 500 for _ in range(10)))
    assert answer.status_code == 413
    assert app.gate.tallies.rejected == {"body_too_large": 1}


def test_the_token_is_asked_of_all_but_health(judge: Judge) -> None:
    app = service(judge, token=TOKEN)
    client = client_of(app)
    for path in ("/healthz", "/readyz"):
        assert client.get(path).status_code == 200
    for method, path in (
        ("POST", "/v1/decide"), ("POST", "/v1/decide/batch"), ("POST", "/v1/complete"), ("GET", "/metrics"),
        ("GET", "/v1/model"), ("POST", "/v1/model/reload"), ("GET", "/v1/decisions/0-0"), ("GET", "/openapi.json"),
    ):  # fmt: skip
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": TOKEN}):
            answer = client.request(method, path, json={}, headers=headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert TOKEN not in answer.text
    assert app.gate.engine.arrivals == 0
    assert post(client, "/v1/decide", event(), authorization=BEARER).status_code == 200
    assert client.get("/metrics", headers={"authorization": BEARER}).status_code == 200


def test_a_fault_of_ours_is_counted(live: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    app, client = live
    monkeypatch.setattr(app.metrics, "gauges", {"broken": ("", lambda: 1 / 0)})
    assert client.get("/metrics").status_code == 500
    assert app.gate.tallies.rejected == {"failed": 1}


def test_wrong_methods_and_unknown_paths(live: Any) -> None:
    app, client = live
    assert client.get("/v1/decide").status_code == 405
    assert client.get("/v1/decide").headers["allow"] == "POST"
    assert client.get("/v1/nothing").status_code == 404
    assert client.post("/healthz").status_code == 405
    assert app.gate.tallies.rejected == {"method": 3, "no_route": 1}


def test_completions_are_matched_by_id_and_each_counts_once(judge: Judge) -> None:
    now = Moment()
    app = service(judge, now, mode="shadow")
    client = client_of(app)
    first = post(client, "/v1/decide", event()).json()["id"]
    now.seconds += 1
    done = {"id": first, "status": 200, "duration": 1.0, "output_tokens": 7}
    assert post(client, "/v1/complete", done).json() == {"id": first, "result": "recorded"}
    before = state(app)
    assert post(client, "/v1/complete", done).status_code == 409
    for unknown in ("", "0", "0-ffffffff", f"{first}x", f"00{first}", f"ff-{first.partition('-')[2]}", "é"):
        assert post(client, "/v1/complete", {"id": unknown}).status_code == 404
    assert state(app)[0] == before[0]
    twice = post(client, "/v1/decide", event()).json()["id"]
    answer = post(client, "/v1/complete", [{"id": twice, "status": 200}] * 2)
    assert [entry["result"] for entry in answer.json()] == ["recorded", "duplicate"]
    second = post(client, "/v1/decide", event()).json()["id"]
    now.seconds += 700
    answer = post(client, "/v1/complete", [{"id": second, "status": 200}, {"id": "x"}])
    assert [entry["result"] for entry in answer.json()] == ["expired", "unknown"]
    assert post(client, "/v1/complete", {"id": second, "status": "200"}).status_code == 422
    assert app.gate.tallies.completions == {"recorded": 2, "duplicate": 2, "unknown": 8, "expired": 1}


def test_an_end_beyond_its_expiry_moves_nothing(judge: Judge) -> None:
    app = service(judge, clock="event")
    client = client_of(app)
    first, second = (post(client, "/v1/decide", event(time=START)).json()["id"] for _ in range(2))
    before = state(app)
    for seconds in (601, 31_622_400):
        assert post(client, "/v1/complete", {"id": first, "duration": seconds}).status_code == 410
    assert state(app) == before
    assert app.gate.engine.in_flight == 2
    for completed in (first, second):
        assert post(client, "/v1/complete", {"id": completed, "duration": 600}).json()["result"] == "recorded"
    now = Moment()
    app = service(judge, now)
    client = client_of(app)
    late = post(client, "/v1/decide", event()).json()["id"]
    now.seconds += 601
    before = state(app)
    assert post(client, "/v1/complete", {"id": late}).status_code == 410
    assert state(app) == before


def test_the_same_end_twice_in_one_list_counts_once(judge: Judge) -> None:
    app = service(judge, mode="shadow")
    client = client_of(app)
    first = post(client, "/v1/decide", event()).json()["id"]
    answer = post(client, "/v1/complete", [{"id": first, "status": 200}, {"id": first, "status": 500}])
    assert [entry["result"] for entry in answer.json()] == ["recorded", "duplicate"]
    assert app.gate.tallies.completions == {"recorded": 1, "duplicate": 1}


def test_long_texts_are_not_remembered(judge: Judge) -> None:
    app = service(judge)
    client = client_of(app)
    kept = app.gate._preparer._kept
    for number in range(3):
        text = f"/{number}" + "x" * 30_000
        answer = post(
            client, "/v1/decide", event(path=text, user_agent=text, model=text, account=text, fingerprint=text)
        )
        assert answer.status_code == 200
        assert len(client.get(f"/v1/decisions/{answer.json()['id']}").json()["path"]) <= 512
    assert all(say.cache_info().currsize == 0 for say in kept)  # type: ignore[attr-defined]


def test_an_event_far_ahead_is_refused_and_a_late_one_taken_now(judge: Judge) -> None:
    app = service(judge, clock="event")
    client = client_of(app)
    assert post(client, "/v1/decide", event(time=START)).status_code == 200
    before = state(app)
    answer = post(client, "/v1/decide", event(time=START + 301))
    assert (answer.status_code, answer.json()["reason"]) == (422, "ahead")
    assert post(client, "/v1/decide/batch", [event(time=START + 200), event(time=START + 501)]).status_code == 422
    assert state(app) == before
    assert app.gate.tallies.rejected["ahead"] == 2
    late = post(client, "/v1/decide", event(time=START - 50)).json()["id"]
    assert client.get(f"/v1/decisions/{late}").json()["time"] == START
    assert post(client, "/v1/clock", {"time": START + 301}).status_code == 200
    assert post(client, "/v1/decide", event(time=START + 301)).status_code == 200
    for bad in ("soon", "2026-01-01T00:00:00", 1e300, -5, 0, None, True):
        assert post(client, "/v1/decide", event(time=bad)).status_code == 422
        assert post(client, "/v1/clock", {"time": bad}).status_code == 422
    assert post(client, "/v1/decide", event()).status_code == 422


def test_the_clock_of_the_service_is_nobody_elses(judge: Judge) -> None:
    now = Moment()
    app = service(judge, now, mode="shadow")
    client = client_of(app)
    assert post(client, "/v1/clock", {"time": START}).status_code == 409
    assert post(client, "/v1/decide", event(time=5e9)).status_code == 200
    assert app.gate.clock == START * 1_000_000
    now.seconds -= 100  # the machine's clock goes back: ours does not
    assert post(client, "/v1/decide", event()).status_code == 200
    assert app.gate.clock == START * 1_000_000


def test_another_bundle_takes_over_and_goes_back(judge: Judge, tmp_path: Any) -> None:
    other = make_bundle(tmp_path / "other", seed=1)
    app = service(judge, token=TOKEN)
    client = client_of(app, headers={"authorization": BEARER})
    post(client, "/v1/decide", event())
    answer = post(client, "/v1/model/reload", {"bundle": str(other.path)})
    assert (
        answer.json()["champion"]["bundle"] == other.manifest.manifest_sha256 == client.get("/readyz").json()["bundle"]
    )
    assert post(client, "/v1/decide", event()).status_code == 200
    assert post(client, "/v1/model/rollback", {}).json()["champion"]["bundle"] == judge.bundle.manifest.manifest_sha256
    (other.path / "model.onnx").write_bytes(b"damaged")
    answer = post(client, "/v1/model/reload", {"bundle": str(other.path)})
    assert (answer.status_code, answer.json()["reason"]) == (409, "bundle")
    with pytest.raises(BundleError):
        Judge.load(str(other.path))
    assert post(client_of(service(judge)), "/v1/model/reload", {}).status_code == 403


@pytest.mark.parametrize(
    "budgets",
    [
        {"routes": [{"path": "/v1/chat/*", "challenge_budget": 0.005}]},
        {"routes": [{"path": "/v1/*", "mode": "enforce"}, {"path": "/login", "block_budget": 0.001}]},
        {"routes": [{"path": "/v1/chat/*", "registration": True}], "registration_challenge_budget": 0.005},
        {"challenge_budget": 0.005},
    ],
)
def test_a_bundle_that_cannot_hold_a_budget_changes_nothing(judge: Judge, tmp_path: Any, budgets: Any) -> None:
    short = make_bundle(tmp_path / "short", seed=1, legitimate=1_000)
    app = service(judge, token=TOKEN, state=tmp_path / "state", **budgets)
    client = client_of(app, headers={"authorization": BEARER})
    policies, levels, thresholds = app.observer._policies, app.observer.watch.levels, app.gate.thresholds
    answer = post(client, "/v1/model/reload", {"bundle": str(short.path)})
    assert (answer.status_code, answer.json()["reason"]) == (409, "bundle")
    assert "legitimate requests to be measured" in answer.json()["detail"]
    assert app.gate.model is judge
    assert app.gate.thresholds is thresholds
    assert app.observer._policies is policies
    assert app.observer.watch.levels is levels
    assert [line["action"] for line in client.get("/v1/audit").json()] == ["failed", "reload"]
    assert not app.gate.tallies.failed
    for path in ("/v1/chat/completions", "/login", "/"):
        assert "failed" not in post(client, "/v1/decide", event(path=path)).json()


def test_another_bundle_brings_the_thresholds_of_every_route(judge: Judge, tmp_path: Any) -> None:
    other = make_bundle(tmp_path / "other", seed=1)
    routes = [{"path": "/a", "challenge_budget": 0.3}, {"path": "/b", "registration": True}]
    app = service(judge, token=TOKEN, routes=routes, registration_challenge_budget=0.3)
    client = client_of(app, headers={"authorization": BEARER})

    def holds() -> tuple[float, float, float]:
        policies = app.observer._policies
        return policies["/a"].calm.challenge, policies["/b"].registration.challenge, policies["*"].calm.challenge

    before, levels = holds(), app.observer.watch.levels
    assert post(client, "/v1/model/reload", {"bundle": str(other.path)}).status_code == 200
    curve = other.manifest.policy_curve()
    assert holds() == (curve.threshold(0.3), curve.threshold(0.3), app.gate.thresholds.challenge) != before
    assert app.observer.watch.levels != levels
    assert post(client, "/v1/model/rollback", {}).status_code == 200
    assert holds() == before
    assert app.observer.watch.levels == levels


def test_a_challenger_is_scored_and_never_obeyed(judge: Judge, tmp_path: Any) -> None:
    other = Judge(make_bundle(tmp_path / "other", seed=2))
    chosen = Settings(bundle=judge.bundle.path, mode="shadow")
    alone, both = (create_app(chosen, judge, now=Moment(), secret=SECRET, challenger=c) for c in (None, other))
    events = [event(ip=f"192.0.2.{n % 7}", path=f"/{n}", account=f"a{n % 3}") for n in range(60)]
    one, two = (post(client_of(app), "/v1/decide/batch", events).json() for app in (alone, both))
    assert [answer["raw"] for answer in one] == [answer["raw"] for answer in two]
    both.gate.shadow.wait()
    assert both.gate.shadow.counts().total() == 60
    text = client_of(both).get("/metrics").text
    assert "botsieve_challenger_disagreements_total" in text


def test_a_slow_or_failing_challenger_holds_nobody_up(judge: Judge, tmp_path: Any) -> None:
    other = Judge(make_bundle(tmp_path / "other", seed=2))
    free, score = threading.Event(), other.score

    def slowly(rows: Any) -> Any:
        assert free.wait(60)
        return score(rows)

    other.score = slowly  # type: ignore[method-assign]
    shadow = Shadow(other, most_rows=5)
    app = create_app(Settings(bundle=judge.bundle.path), judge, now=Moment(), secret=SECRET)
    app.gate.shadow = shadow
    client = client_of(app)
    for number in range(8):
        assert post(client, "/v1/decide", event(path=f"/{number}")).status_code == 200
    assert shadow.counts() == {SKIPPED: 3}
    free.set()
    shadow.wait()
    assert shadow.counts().total() == 8
    other.score = lambda rows: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    assert post(client, "/v1/decide", event()).status_code == 200
    shadow.wait()
    assert shadow.counts()[FAILED] == 1
    shadow.close()


def test_metrics_and_health_tell_what_happens(live: Any) -> None:
    _app, client = live
    post(client, "/v1/decide", event())
    post(client, "/v1/decide", b"{")
    text = client.get("/metrics").text
    for zero in ('snapshots_total{result="failed"}', 'fail_mode_answers_total{cause="late",mode="open"}'):
        assert f"botsieve_{zero} 0.0" in text, "an alert on a rise has to see where it began"
    for line in (
        'botsieve_rejected_total{reason="malformed"} 1.0', 'botsieve_latency_seconds_count{route="decide"} 1.0',
        "botsieve_arrivals_total 1.0", 'provider="CPUCompiledForest"',
    ):  # fmt: skip
        assert line in text
    if sys.platform == "linux":
        assert float(re.search(r"^process_resident_memory_bytes (.*)$", text, re.MULTILINE)[1]) > 1e7  # type: ignore[index]
    assert client.get("/readyz").json()["providers"] == ["CPUCompiledForest"]
    assert client.get("/v1/model").json()["challenger"] is None


def test_every_route_stands_in_the_openapi_document(live: Any, bundle: Bundle) -> None:
    app, client = live
    document = client.get("/openapi.json").json()
    assert set(app.hot.routes) <= document["paths"].keys()
    assert "/v1/authorize/{path}" in document["paths"]
    assert set(document["components"]["schemas"]["Event"]["properties"]) == {field.name for field in FIELDS}
