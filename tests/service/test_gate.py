"""Modes, warm-up, fail modes, refused requests, challenges and passes, and what gateways learn by status."""

from __future__ import annotations

import asyncio
import threading
from copy import copy
from dataclasses import replace
from typing import Any
from unittest.mock import DEFAULT, Mock

import altcha
import numpy as np
import pytest

from classifier.model.judge import Judge
from serving.app import Service
from serving.batching import MOST_CALLS, TRUST_AFTER_S, Batcher
from serving.gate import Answer, Judged, LiveEvent
from serving.settings import FailMode
from tests.service.served import START, Moment, client_of, event, post, service

TOKEN = "a token of the tests, long enough"
PROXY = "192.0.2.1"


def scored(app: Service, raw: float, times: list[int] | None = None) -> None:
    """Let every row have this raw score."""

    def fixed(arrivals: Any) -> Judged:
        if times is not None:
            times.append(len(arrivals))
        return replace(judged(arrivals, raw), reasons=["rate"] * len(arrivals))

    app.batcher._judge = fixed


def judged(arrivals: Any, raw: float = -9.0) -> Judged:
    """Give every row the same scores."""
    n = len(arrivals)
    return Judged(np.full(n, raw, np.float32), np.full(n, 0.4, np.float32), [None] * n, [None] * n)


async def ask(app: Service, batcher: Batcher) -> Answer:
    """Ask about a request."""
    return (await batcher.submit(app.gate.prepare([LiveEvent("1.1.1.1", "GET", "/")])))[0]


def of(judge: Judge, name: str) -> float:
    return {"allow": -9.0, "challenge": judge.thresholds.challenge, "block": judge.thresholds.block}[name]


@pytest.mark.parametrize("decision", ["allow", "challenge", "block"])
@pytest.mark.parametrize("mode", ["shadow", "enforce"])
def test_shadow_decides_and_enforces_nothing(judge: Judge, mode: str, decision: str) -> None:
    app = service(judge, mode=mode)
    scored(app, of(judge, decision))
    answer = post(client_of(app), "/v1/decide", event()).json()
    assert answer["decision"] == decision
    assert answer["enforced"] == (decision if mode == "enforce" else "allow")


def test_the_first_route_that_fits_sets_the_mode(judge: Judge) -> None:
    routes = [{"path": "/v1/chat/*", "mode": "enforce"}, {"path": "/v1/*", "mode": "shadow"}]
    app = service(judge, mode="enforce", routes=routes)
    scored(app, of(judge, "block"))
    client = client_of(app)
    told = {
        path: post(client, "/v1/decide", event(path=path)).json()["enforced"]
        for path in ("/v1/chat/x?y=1", "/v1/x", "/")
    }
    assert told == {"/v1/chat/x?y=1": "block", "/v1/x": "allow", "/": "block"}


def test_a_route_has_budgets_of_its_own(judge: Judge) -> None:
    routes = [{"path": "/costly*", "challenge_budget": 0.7}, {"path": "/signup*", "block_budget": 0.7, "registration": True},
              {"path": "/costly*", "challenge_budget": 0.9}]  # fmt: skip
    app = service(judge, mode="enforce", warm_up_s=0, routes=routes)
    curve = judge.bundle.manifest.policy_curve()
    wide = curve.threshold(0.7)
    assert wide < judge.thresholds.challenge
    client = client_of(app)
    for raw, expected in (
        (wide, ["challenge", "block", "allow"]),
        (np.nextafter(np.float32(wide), -np.inf), ["allow"] * 3),
    ):
        scored(app, raw)
        told = [
            post(client, "/v1/decide", event(path=path)).json()["decision"] for path in ("/costly/x", "/signup", "/")
        ]
        assert told == expected


def test_a_young_service_enforces_nothing_and_says_so(judge: Judge) -> None:
    now = Moment()
    app = service(judge, now, warm_up_s=60.0)
    scored(app, of(judge, "block"))
    client = client_of(app)
    young = post(client, "/v1/decide", event()).json()
    assert (young["decision"], young["enforced"], young["warming_up"]) == ("block", "allow", True)
    assert client.get("/readyz").json()["warming_up"]
    now.seconds += 61
    assert post(client, "/v1/decide", event()).json()["enforced"] == "block"
    assert not client.get("/readyz").json()["warming_up"]


def test_what_is_refused_has_ended_and_moves_no_sums(judge: Judge) -> None:
    app = service(judge)
    scored(app, of(judge, "block"))
    client = client_of(app)
    answer = post(client, "/v1/decide", event()).json()
    assert app.gate.engine.in_flight == 0
    before = [array.tobytes() for array in app.gate.engine.arrays]
    done = post(client, "/v1/complete", {"id": answer["id"], "status": 403, "duration": 0.1})
    assert (done.status_code, done.json()["result"]) == (200, "refused")
    assert [array.tobytes() for array in app.gate.engine.arrays] == before


@pytest.mark.parametrize(("fail_mode", "enforced"), [("open", "allow"), ("closed", "block")])
@pytest.mark.parametrize("kind", ["raises", "nan", "late"])
def test_when_scoring_fails_the_fail_mode_answers(judge: Judge, fail_mode: str, enforced: str, kind: str) -> None:
    app = service(judge, fail_mode=fail_mode, routes=[{"path": "/open", "fail_mode": "open"}])
    scored(app, float("nan") if kind == "nan" else 0.0)
    if kind == "raises":
        app.batcher._judge = lambda arrivals: 1 / 0
    if kind == "late":
        ticks = iter(np.arange(0, 1000, 0.2))
        app.batcher._clock = lambda: float(next(ticks))
    answer = post(client_of(app), "/v1/decide", event()).json()
    assert (answer["enforced"], answer["failed"], answer["raw"], answer["score"]) == (enforced, fail_mode, None, None)
    cause = "late" if kind == "late" else "error"
    assert app.gate.tallies.failed == {(cause, fail_mode): 1}
    assert "botsieve_fail_mode_answers_total{" in client_of(app).get("/metrics").text
    assert app.gate.engine.arrivals == 1


def test_a_service_whose_fail_mode_answers_everything_is_not_ready(judge: Judge) -> None:
    now = Moment()
    app = service(judge, now)
    client, scorer = client_of(app), app.batcher._judge

    def ready(seconds: float) -> int:
        now.seconds += seconds
        return int(client.get("/readyz").status_code)

    def failed() -> Any:
        return post(client, "/v1/decide", event()).json()

    app.batcher._judge = lambda arrivals: 1 / 0
    assert failed()["failed"] == "open"
    assert ready(9.0) == 200
    assert ready(5.0) == 200  # asked once, and long ago
    failed()
    assert ready(0.0) == 503
    assert client.get("/readyz").json()["reason"] == "failing"
    assert client.get("/healthz").status_code == 200
    assert ready(11.0) == 200  # nobody has asked since, and somebody should try
    failed()
    assert ready(0.0) == 503
    app.batcher._judge = scorer
    assert "failed" not in failed()
    assert ready(0.0) == 200


def test_requests_that_arrive_together_share_a_call(judge: Judge) -> None:
    app = service(judge)
    sizes: list[int] = []
    scored(app, -9.0, sizes)

    async def together() -> list[Any]:
        async def one(number: int) -> Any:
            pending = app.gate.prepare([LiveEvent("1.1.1.1", "GET", f"/{number}")])
            return (await app.batcher.submit(pending))[0].id

        return await asyncio.gather(*(one(number) for number in range(20)))

    ids = asyncio.run(together())
    assert sizes == [16, 4]  # no more in a turn of the loop than gain by it
    assert [int(i.partition("-")[0], 16) for i in ids] == list(range(20))
    assert app.batcher.in_flight == 0


def test_who_comes_while_others_are_read_shares_their_call(judge: Judge) -> None:
    app = service(judge)
    sizes: list[int] = []
    scored(app, -9.0, sizes)

    async def one_a_turn(count: int) -> None:
        waiting = []
        for number in range(count):
            waiting.append(app.batcher.submit(app.gate.prepare([LiveEvent("1.1.1.1", "GET", f"/{number}")])))
            await asyncio.sleep(0)
        await asyncio.gather(*waiting)

    asyncio.run(one_a_turn(5))
    assert sizes == [5]
    sizes.clear()
    asyncio.run(one_a_turn(20))
    assert sizes == [16, 4]


def test_a_request_that_cannot_arrive_is_told_so_and_the_rest_goes_on(
    judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = service(judge)
    arrive = app.gate.arrive_all
    monkeypatch.setattr(app.gate, "arrive_all", Mock(side_effect=[MemoryError("no room"), DEFAULT], wraps=arrive))

    async def story() -> Any:
        with pytest.raises(MemoryError, match="no room"):
            await ask(app, app.batcher)
        assert app.batcher.in_flight == 0
        return await ask(app, app.batcher)

    assert asyncio.run(story()).failed is None
    assert app.batcher.in_flight == 0


def test_after_a_late_call_the_scorer_runs_aside_until_it_is_trusted_again(judge: Judge) -> None:
    app = service(judge)
    now = [0.0]
    slow = [1.0]

    def slowly(arrivals: Any) -> Judged:
        now[0] += slow[0]
        return judged(arrivals)

    batcher = Batcher(app.gate, 0.5, clock=lambda: now[0], judge=slowly)

    async def story() -> list[Any]:
        told = [(await ask(app, batcher)).failed]
        slow[0] = 0.0
        told.append((await ask(app, batcher)).failed)
        told.append(batcher._thread is not None)
        now[0] += TRUST_AFTER_S + 1
        batcher._thread = None
        told.append((await ask(app, batcher)).failed)
        told.append(batcher._thread is None)
        return told

    assert asyncio.run(story()) == ["open", None, True, None, True]
    batcher.close()


def test_aside_requests_wait_in_line_and_only_a_late_call_prolongs_the_distrust(judge: Judge) -> None:
    app = service(judge)
    now, hold = [0.0], threading.Event()
    begun: list[int] = []

    def scores(arrivals: Any) -> Judged:
        begun.append(len(arrivals))
        if len(begun) == 1:
            now[0] += 1.0
        if len(begun) == 2:
            hold.wait(10)
        return judged(arrivals)

    batcher = Batcher(app.gate, 0.5, clock=lambda: now[0], judge=scores)

    async def failed() -> FailMode | None:
        return (await ask(app, batcher)).failed

    async def story() -> None:
        assert await failed() == "open"  # here, and late
        distrust = batcher._suspect_until
        first = asyncio.ensure_future(failed())
        while len(begun) < 2:
            await asyncio.sleep(0)
        second = asyncio.ensure_future(failed())
        await asyncio.sleep(0.01)  # it meets a thread that works
        hold.set()
        assert await asyncio.gather(first, second) == [None, None]
        assert batcher._suspect_until == distrust

    asyncio.run(story())
    batcher.close()


def test_a_scorer_that_hangs_holds_up_nobody_and_is_not_called_here(judge: Judge) -> None:
    app = service(judge)
    now, release = [0.0], threading.Event()
    begun: list[int] = []

    def scores(arrivals: Any) -> Judged:
        begun.append(len(arrivals))
        now[0] += 1.0
        if len(begun) > 1:
            release.wait(30)
        return judged(arrivals)

    batcher = Batcher(app.gate, 0.02, clock=lambda: now[0], judge=scores)

    async def failed() -> FailMode | None:
        return (await ask(app, batcher)).failed

    async def story() -> None:
        assert [await failed(), await failed(), await failed()] == ["open"] * 3
        now[0] += 2 * TRUST_AFTER_S  # the minute is over, and it still hangs
        assert await asyncio.gather(*(failed() for _ in range(5))) == ["open"] * 5
        assert len(begun) == 2  # none of them was begun here, and those in line were taken out of it
        assert len(batcher._calls) <= 1 + MOST_CALLS
        release.set()

    asyncio.run(story())
    assert app.gate.tallies.failed == {("late", "open"): 8}
    batcher.close()


def test_a_call_to_a_device_that_hangs_does_not_hold_the_loop(judge: Judge) -> None:
    app = service(judge)
    app.gate.model = copy(judge)
    app.gate.model.on_device = lambda rows: rows >= 4  # type: ignore[method-assign]
    release, threads = threading.Event(), []

    def scores(arrivals: Any) -> Judged:
        threads.append(threading.current_thread().name)
        if len(arrivals) >= 4 and not release.is_set():
            release.wait(30)
        return replace(judged(arrivals), by=app.gate.model)

    now = [0.0]
    batcher = Batcher(app.gate, 0.2, clock=lambda: now[0], judge=scores)

    async def failed(rows: int) -> set[FailMode | None]:
        events = [LiveEvent("1.1.1.1", "GET", "/")] * rows
        return {answer.failed for answer in await batcher.submit(app.gate.prepare([copy(event) for event in events]))}

    async def story() -> None:
        here = threading.current_thread().name
        assert await failed(1) == {None}
        assert threads == [here]
        many = asyncio.ensure_future(failed(4))
        while len(threads) < 2:
            await asyncio.sleep(0)
        few = asyncio.ensure_future(failed(1))
        await asyncio.sleep(0)  # the loop goes on
        assert (len(threads), few.done()) == (2, False)
        assert await asyncio.gather(many, few) == [{"open"}, {"open"}]
        release.set()
        batcher._deadline = 30.0
        while batcher._calls:
            await asyncio.sleep(0.001)
        now[0] += TRUST_AFTER_S + 1
        assert [await failed(1), await failed(5), await failed(2)] == [{None}] * 3
        assert threads[1] != here
        assert threads[2:] == [here, threads[1], here]

    asyncio.run(story())
    batcher.close()


def test_where_no_thread_can_be_started_the_fail_mode_answers(judge: Judge) -> None:
    app = service(judge)
    app.gate.model = copy(judge)
    app.gate.model.on_device = lambda rows: True  # type: ignore[method-assign]
    batcher = Batcher(app.gate, 5.0)
    batcher._thread = Mock()
    batcher._thread.submit.side_effect = RuntimeError("can't start new thread")
    assert asyncio.run(ask(app, batcher)).failed == "open"
    assert batcher.in_flight == 0
    assert app.gate.tallies.failed == {("error", "open"): 1}


def test_another_model_that_was_loaded_meanwhile_is_not_asked_on_its_device_here(judge: Judge) -> None:
    app = service(judge)
    fresh = copy(judge)
    fresh.on_device = lambda rows: True  # type: ignore[method-assign]

    def scores(arrivals: Any) -> Judged:
        app.gate.model = fresh  # reloaded while the old one scored
        return replace(judged(arrivals), by=judge)

    assert asyncio.run(ask(app, Batcher(app.gate, 5.0, judge=scores))).failed == "open"
    assert app.gate.tallies.failed == {("late", "open"): 1}


def test_what_one_model_scored_is_not_decided_by_the_thresholds_of_another(judge: Judge) -> None:
    app = service(judge)
    arrivals = app.gate.arrive_all(app.gate.prepare([LiveEvent("1.1.1.1", "GET", "/")]))
    found = app.gate.judge(arrivals)
    wrong = replace(found, raw=found.raw + np.float32(50), by=copy(judge))
    assert app.gate.answer(arrivals, wrong)[0].raw == found.raw[0]


@pytest.mark.parametrize(("decision", "status"), [("allow", 200), ("challenge", 401), ("block", 403)])
def test_authorize_answers_by_status(judge: Judge, decision: str, status: int) -> None:
    app = service(judge)
    scored(app, of(judge, decision))
    answer = client_of(app).get("/v1/authorize/v1/chat?x=1", headers={"accept": "application/json"})
    assert answer.status_code == status
    assert answer.headers["x-botsieve-decision"] == answer.headers["x-botsieve-enforced"] == decision
    assert answer.headers["x-botsieve-score"] == "59"
    told = client_of(app).get(f"/v1/decisions/{answer.headers['x-botsieve-id']}").json()
    assert told["path"] == "/v1/chat?x=1"
    if status == 401:
        url = f"/v1/challenge/{answer.headers['x-botsieve-challenge']}"
        assert answer.headers["www-authenticate"] == f'Botsieve challenge="{url}"'
        assert told["id"] in client_of(app).get(url, headers={"accept": "text/html"}).text
    if status > 200:
        assert answer.headers["content-type"] == "application/problem+json"
        assert "rate" not in answer.text  # reasons would tell an attacker what to change


def test_a_browser_gets_a_page_under_a_strict_policy(judge: Judge) -> None:
    app = service(judge)
    scored(app, of(judge, "challenge"))
    answer = client_of(app).get("/v1/authorize/", headers={"accept": "text/html,*/*;q=0.8"})
    assert answer.status_code == 401
    assert "<html" in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_a_challenge_is_solved_once_and_its_pass_lifts_challenges_only(judge: Judge) -> None:
    app = service(judge, challenge_work_least=1, challenge_work_most=16)
    scored(app, of(judge, "challenge"))
    client = client_of(app)
    challenged = post(client, "/v1/decide", event()).json()
    issued = client.get(challenged["challenge"]["url"]).json()
    puzzle = altcha.Challenge.from_dict(issued)
    solved = altcha.Payload(puzzle, altcha.solve_challenge(puzzle)).to_base64()
    granted = post(client, "/v1/challenge/verify", {"altcha": solved}).json()["pass"]
    assert post(client, "/v1/challenge/verify", {"altcha": solved}).status_code == 409
    assert post(client, "/v1/decide", event(), x_botsieve_pass=granted).json()["enforced"] == "allow"
    assert post(client, "/v1/decide", event(ip="192.0.2.8"), x_botsieve_pass=granted).json()["enforced"] == "challenge"
    scored(app, of(judge, "block"))
    assert post(client, "/v1/decide", event(), x_botsieve_pass=granted).json()["enforced"] == "block"
    assert app.gate.tallies.passes == {"admitted": 1, "client": 1}
    assert app.gate.tallies.challenges == {"solved": 1, "spent": 1}


def seen(app: Service, peer: str, **headers: str) -> Any:
    """Return what the gate made of a call of authorize by a peer."""
    events: list[LiveEvent] = []
    arrive = app.gate.arrive_all
    app.gate.arrive_all = lambda pending, lives=None: (events.extend(p.event for p in pending), arrive(pending, lives))[
        1
    ]  # type: ignore[method-assign]
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = client_of(app, client=(peer, 1)).get("/v1/authorize/own?q", headers=named)
    return events[0] if events else answer


FORGED = {
    "x_forwarded_for": "6.6.6.6", "x_real_ip": "6.6.6.6", "x_envoy_external_address": "6.6.6.6", "forwarded": "for=6.6.6.6",
    "x_forwarded_uri": "/forged", "x_original_uri": "/forged", "x_forwarded_method": "PUT", "x_account": "boss",
}  # fmt: skip


@pytest.mark.parametrize("peer", ["203.0.113.9", "127.0.0.1", "::1"])
@pytest.mark.parametrize("gateway", ["forwarded", "nginx", "envoy"])
def test_nobody_is_believed_who_is_not_configured(judge: Judge, peer: str, gateway: str) -> None:
    app = service(judge, gateway=gateway, account_header="x-account")
    found = seen(app, peer, **FORGED)
    assert (found.ip, found.method, found.path, found.account) == (peer, "GET", "/own?q", None)
    assert "botsieve_forwarded_ignored_total 1.0" in client_of(app).get("/metrics").text


@pytest.mark.parametrize(
    ("gateway", "headers", "expected"),
    [
        ("forwarded", {"x_forwarded_for": "6.6.6.6, 9.9.9.9", "x_forwarded_uri": "/a?b", "x_forwarded_method": "POST"},
         ("9.9.9.9", "POST", "/a?b")),
        ("forwarded", {"x_forwarded_for": "6.6.6.6, 9.9.9.9, 192.0.2.1"}, ("9.9.9.9", "GET", "/own?q")),
        ("forwarded", {"x_forwarded_for": "garbage, 192.0.2.1"}, ("192.0.2.1", "GET", "/own?q")),
        ("forwarded", {"x_forwarded_for": "6.6.6.6, unknown, 192.0.2.1, 192.0.2.1"}, ("192.0.2.1", "GET", "/own?q")),
        ("forwarded", {"x_forwarded_for": "garbage, 9.9.9.9"}, ("9.9.9.9", "GET", "/own?q")),
        ("forwarded", {"x_forwarded_for": ",192.0.2.1"}, ("192.0.2.1", "GET", "/own?q")),
        ("forwarded", {"x_forwarded_for": "[2001:DB8::1]:443", "x_original_uri": "/forged"}, ("2001:db8::1", "GET", "/own?q")),
        ("nginx", {"x_real_ip": "9.9.9.9", "x_forwarded_for": "6.6.6.6", "x_original_uri": "/a", "x_original_method": "PUT"},
         ("9.9.9.9", "PUT", "/a")),
        ("nginx", {"x_real_ip": "::ffff:9.9.9.9", "x_original_uri": "https://host/a?b"}, ("9.9.9.9", "GET", "/a?b")),
        ("envoy", {"x_envoy_external_address": "9.9.9.9", "x_forwarded_uri": "/forged"}, ("9.9.9.9", "GET", "/own?q")),
    ],
)  # fmt: skip
def test_a_trusted_gateway_tells_who_asks_for_what(judge: Judge, gateway: str, headers: Any, expected: Any) -> None:
    app = service(judge, gateway=gateway, trusted_proxies=[f"{PROXY}/32"], account_header="X-Account")
    found = seen(app, PROXY, x_account="boss", authorization="Bearer secret", **headers)
    assert (found.ip, found.method, found.path) == expected
    assert found.account == "boss"
    assert found.credential
    assert "secret" not in found.credential
    assert app.gate.tallies.unbelieved == 0


@pytest.mark.parametrize(
    ("peer", "text", "told"),
    [
        (PROXY, "0.9", 0.9), (PROXY, "1", 1.0), ("203.0.113.9", "0.9", None), ("127.0.0.1", "0.9", None),
        ("203.0.113.9", "x", None),
        *[(PROXY, text, None) for text in ("", "x", "1.5", "-0.1", "nan", "1e400", "0,5", "0.9, 0.9")],
    ],
)  # fmt: skip
def test_a_load_is_believed_of_a_trusted_gateway_and_never_an_error(
    judge: Judge, peer: str, text: str, told: float | None
) -> None:
    app = service(judge, trusted_proxies=[f"{PROXY}/32"])
    lives: list[Any] = []
    submit = app.batcher.submit

    async def noted(pending: Any, told: Any = None) -> Any:
        lives.append(told)
        return await submit(pending, told)

    app.batcher.submit = noted  # type: ignore[method-assign]
    assert seen(app, peer, x_forwarded_for="9.9.9.9", x_botsieve_load=text).path == "/own?q"
    assert [one.load for one in lives] == [told]


@pytest.mark.parametrize("value", [None, "", "unknown", "9.9.9.9, nonsense"])
def test_a_gateway_that_does_not_say_who_asks_is_an_error_of_the_gateway(judge: Judge, value: str | None) -> None:
    app = service(judge, trusted_proxies=[f"{PROXY}/32"])
    answer = seen(app, PROXY, **({} if value is None else {"x_forwarded_for": value}))
    assert answer.status_code == 500
    assert app.gate.engine.arrivals == 0


def test_a_wrong_service_token_is_a_500_so_that_the_gateway_acts(judge: Judge) -> None:
    app = service(judge, token=TOKEN)
    client = client_of(app)
    for headers in ({}, {"x-botsieve-token": "wrong"}, {"authorization": f"Bearer {TOKEN}"}):
        assert client.get("/v1/authorize/", headers=headers).status_code == 500
    assert app.gate.engine.arrivals == 0
    assert client.get("/v1/authorize/", headers={"x-botsieve-token": TOKEN}).status_code in (200, 401, 403)
    assert app.gate.tallies.rejected == {"token": 3}


def test_ids_of_another_start_are_unknown(judge: Judge) -> None:
    one, two = service(judge, Moment(START)), service(judge, Moment(START))
    identity = post(client_of(one), "/v1/decide", event()).json()["id"]
    post(client_of(two), "/v1/decide", event())
    assert post(client_of(two), "/v1/complete", {"id": identity}).status_code == 404
    assert client_of(two).get(f"/v1/decisions/{identity}").status_code == 404


def test_text_that_is_no_time_is_refused_where_the_time_is_not_needed_too(judge: Judge) -> None:
    app = service(judge, clock="server")
    client = client_of(app)
    assert post(client, "/v1/decide", event(time="2026-01-02T03:04:05Z")).status_code == 200
    assert post(client, "/v1/decide", event(time="tomorrow")).status_code == 422
    assert app.gate.tallies.rejected["invalid"] == 1


def test_a_clock_that_goes_back_moves_no_time_back_and_is_counted(judge: Judge) -> None:
    now = Moment()
    app = service(judge, now, mode="shadow")
    client = client_of(app)
    first = post(client, "/v1/decide", event()).json()
    now.seconds += 10.0
    second = post(client, "/v1/decide", event()).json()
    before = app.gate.clock
    now.seconds -= 3600.0
    third = post(client, "/v1/decide", event()).json()
    for answer in (first, second, third):
        assert post(client, "/v1/complete", {"id": answer["id"], "status": 200}).status_code == 200
    assert before <= app.gate.clock < before + 10  # µs: each transition still has its own place
    assert app.gate.engine.in_flight == 0
    assert app.gate.tallies.behind == 1
    assert "botsieve_clock_behind_total 1.0" in client.get("/metrics").text
    now.seconds += 3700.0
    assert post(client, "/v1/decide", event()).status_code == 200
    assert app.gate.clock == round(now.seconds * 1e6)
    assert app.gate.tallies.behind == 1
