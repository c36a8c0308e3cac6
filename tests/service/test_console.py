"""The console: who may see it, that it shows what the metrics count, and that no traffic makes it grow or tell secrets."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from fastapi.testclient import TestClient

from classifier.features.spec import COLUMN
from classifier.model.judge import Judge
from classifier.policy import Budgets, thresholds_from_curve
from serving.app import Service, create_app
from serving.console import desk as desks
from serving.console.desk import Desk
from serving.console.scores import Scores
from serving.console.sessions import COOKIE, LIFETIME_S, MOST, Sessions
from serving.console.suspects import Suspects, network_of, shown_path
from serving.recent import Recent
from serving.settings import Settings
from tests.service.served import SECRET, Moment, client_of, event, mixed_events, post, service

TOKEN = "the token of the console's tests"
COUNT = 160
BEARER = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def moment() -> Moment:
    return Moment()


@pytest.fixture
def app(judge: Judge, moment: Moment) -> Service:
    return service(judge, moment, console=True, token=TOKEN, console_secure=False)


def desk_of(app: Service) -> Desk:
    assert app.desk is not None
    return app.desk


@pytest.fixture
def browser(app: Service) -> TestClient:
    """A browser that has signed in."""
    client = client_of(app, follow_redirects=False)
    answer = client.post("/console/sign-in", data={"token": TOKEN})
    assert (answer.status_code, answer.headers["location"]) == (303, "/console")
    return client


def decided(app: Service, moment: Moment, count: int = COUNT) -> None:
    """Let the service decide about mixed events."""
    client = client_of(app, headers=BEARER)
    for one in mixed_events(count, seed=3):
        moment.seconds += 0.7
        body = {name: getattr(one, name) for name in one.__struct_fields__ if getattr(one, name) is not None}
        for name in ("time", "verdict", "duration", "status", "output_tokens", "response_bytes", "input_tokens"):
            body.pop(name, None)
        assert post(client, "/v1/decide", body).status_code == 200
    app.recent.pass_on()


# --- who may see it -------------------------------------------------------------------------------------------------------


def test_it_is_off_unless_it_is_turned_on(judge: Judge) -> None:
    client = client_of(service(judge, token=TOKEN))
    assert client.get("/console").status_code == 401
    assert client.get("/console", headers=BEARER).status_code == 404
    assert client.get("/status", headers=BEARER).status_code == 404


def test_it_needs_a_token(judge: Judge) -> None:
    with pytest.raises(ValueError, match="the console needs a token"):
        Settings(bundle=judge.bundle.path, console=True)


@pytest.mark.parametrize("path", ["/console", "/console/clients/0123456789abcdef"])
def test_without_a_session_a_page_leads_to_the_form(app: Service, path: str) -> None:
    answer = client_of(app, follow_redirects=False).get(path)
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/sign-in")


@pytest.mark.parametrize("path", ["/console/events", "/console/budgets"])
def test_without_a_session_there_are_no_figures(app: Service, path: str) -> None:
    assert client_of(app).get(path).status_code == 401
    assert client_of(app).get(path, headers=BEARER).status_code == 401, "a cookie, and nothing else, opens it"
    assert client_of(app, cookies={COOKIE: "guessed"}).get(path).status_code == 401


def test_a_wrong_token_is_refused_and_counted(app: Service) -> None:
    client = client_of(app)
    for token in ("", "wrong", TOKEN + "x", "é"):
        answer = client.post("/console/sign-in", data={"token": token})
        assert answer.status_code == 403
        assert "not the token" in answer.text
        assert COOKIE not in answer.cookies
    assert app.gate.tallies.rejected["token"] == 4
    assert client.post("/console/sign-in", content=b"\xff").status_code == 400


def test_a_form_from_another_site_is_refused(app: Service) -> None:
    for path in ("/console/sign-in", "/console/sign-out", "/console/clients"):
        answer = client_of(app).post(path, data={"token": TOKEN}, headers={"sec-fetch-site": "cross-site"})
        assert answer.status_code == 403


def test_the_cookie_is_for_this_site_and_no_script(judge: Judge) -> None:
    client = client_of(service(judge, console=True, token=TOKEN), follow_redirects=False)
    cookie = client.post("/console/sign-in", data={"token": TOKEN}).headers["set-cookie"]
    for part in ("HttpOnly", "SameSite=strict", "Secure", "Path=/console"):
        assert part in cookie
    assert TOKEN not in cookie


def test_signing_out_ends_the_session(browser: TestClient) -> None:
    assert browser.get("/console").status_code == 200
    cookie = browser.cookies[COOKIE]
    assert browser.post("/console/sign-out").status_code == 303
    browser.cookies.set(COOKIE, cookie, path="/console")
    assert browser.get("/console").status_code == 303, "nor is it of use to who has kept it"


def test_sessions_end_and_there_are_few() -> None:
    now = Moment()
    sessions = Sessions(now)
    first = sessions.begin()
    others = [sessions.begin() for _ in range(MOST)]
    assert not sessions.holds(first), "the oldest went"
    assert all(map(sessions.holds, others))
    now.seconds += LIFETIME_S
    assert not any(map(sessions.holds, others))
    assert not sessions.holds(None)


def test_every_page_is_strict_and_has_no_code_in_it(browser: TestClient, app: Service, moment: Moment) -> None:
    decided(app, moment, 60)
    client = desk_of(app).suspects.top(1)[0]["client"]
    for path in ("/console", "/console/sign-in", f"/console/clients/{client}", "/console/clients/unknown"):
        answer = browser.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["cache-control"] == "no-store"
        assert not re.search(r"<script(?![^>]* src=)|<style| style=| on[a-z]+=", answer.text)
        assert not re.search(r"(?:src|href|action)=\"(?!/|#)", answer.text), "nothing comes from elsewhere"


def test_the_files_of_the_pages_are_there(browser: TestClient) -> None:
    page = browser.get("/console").text
    files = re.findall(r'(?:src|href)="(/console/static/[^"]+)"', page)
    assert len(files) >= 4
    for file in [*files, "/console/static/uplot/LICENSE.txt", "/console/static/console/charts.js"]:
        assert browser.get(file).status_code == 200
    assert browser.get("/console/static/../routes.py").status_code == 404


# --- what it shows --------------------------------------------------------------------------------------------------------


def metric(app: Service, **labels: str) -> float:
    text = client_of(app).get("/metrics", headers=BEARER).text
    rows = [row for row in text.splitlines() if row.startswith("botsieve_decisions_total{")]
    return sum(
        float(row.rpartition(" ")[2])
        for row in rows
        if all(f'{name}="{value}"' in row for name, value in labels.items())
    )


def test_the_figures_are_those_of_the_metrics(app: Service, moment: Moment) -> None:
    decided(app, moment)
    desk = desk_of(app)
    desk.tick()
    shown = desk.shown()
    for verdict in ("allow", "challenge", "block"):
        assert shown["totals"]["decided"][verdict] == metric(app, decision=verdict) > 0
        assert shown["totals"]["enforced"][verdict] == metric(app, enforced=verdict)
    assert shown["second"][1:4] == list(shown["totals"]["decided"].values())
    assert shown["challenges"]["issued"] == shown["totals"]["enforced"]["challenge"]
    share = sum(shown["second"][2:4]) / sum(shown["second"][1:4])
    assert shown["acted_share"] == pytest.approx(share)
    desk.tick()
    assert desk.shown()["second"][1:4] == [0, 0, 0]
    assert sum(shown["scores"]["hour"]) == COUNT


def test_challenges_and_the_challenger_are_those_of_the_metrics(judge: Judge, moment: Moment) -> None:
    settings = Settings(bundle=judge.bundle.path, console=True, token=TOKEN, mode="enforce", warm_up_s=0.0)
    app = create_app(settings, judge, now=moment, secret=SECRET, challenger=judge)
    decided(app, moment, 60)
    assert app.gate.shadow is not None
    app.gate.shadow.wait()
    app.gate.tallies.challenges.update(solved=2, spent=1)
    app.gate.tallies.passes.update(waits=3, admitted=4)
    shown = desk_of(app).shown()
    issued = metric(app, enforced="challenge")
    assert shown["challenges"] == {
        "issued": issued, "waits": 3, "puzzles": issued - 3, "solved": 2, "refused": 1, "rate": 2 / (issued - 3), "passes": 4,
    }  # fmt: skip
    assert shown["challenger"] == {"compared": 60, "apart": 0, "rate": 0.0, "pairs": [], "not_compared": 0}
    app.gate.shadow._counts["allow", "block"] += 20
    again = desk_of(app).shown()["challenger"]
    assert (again["apart"], again["rate"]) == (20, 0.25)
    assert again["pairs"] == [{"champion": "allow", "challenger": "block", "count": 20}]
    app.gate.shadow.close()


def test_the_stream_begins_with_what_is_known_and_goes_on(app: Service) -> None:
    desk = desk_of(app)
    desk.tick()

    async def read() -> list[bytes]:
        stream = desk.follow(lambda: True)
        read = [await anext(stream), await anext(stream)]
        desk.tick()
        read.append(await anext(stream))
        desk.close()
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        return read

    history, now, later = asyncio.run(read())
    assert b"event: history\n" in history
    assert later.startswith(b"event: now\ndata: {")
    assert json.loads(now.partition(b"data: ")[2])["situation"]["state"] == "unsure"


def test_a_browser_that_does_not_read_is_let_go(app: Service) -> None:
    desk = desk_of(app)

    async def read() -> int:
        stream = desk.follow(lambda: True)
        await anext(stream)
        for _ in range(desks.SLOW + 3):
            desk.tick()
        return len([message async for message in stream])

    assert asyncio.run(read()) == desks.SLOW + 1
    assert not desk.full


def test_a_stream_ends_with_its_session(app: Service) -> None:
    desk, signed_in = desk_of(app), True

    async def read() -> int:
        nonlocal signed_in
        stream = desk.follow(lambda: signed_in)
        await anext(stream)
        await anext(stream)
        signed_in = False
        desk.tick()
        return len([message async for message in stream])

    assert asyncio.run(read()) == 0


def test_only_so_many_browsers_follow(app: Service, browser: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desks, "STREAMS", 0)
    assert browser.get("/console/events").status_code == 503


# --- other budgets --------------------------------------------------------------------------------------------------------


def test_other_budgets_are_counted_exactly(app: Service, moment: Moment, browser: TestClient) -> None:
    curve = app.gate.model.bundle.manifest.policy_curve()
    app.gate.thresholds = replace(app.gate.thresholds, block=curve.least_block)
    app.observer.prepare_model(app.gate.model, app.gate.thresholds)()
    assert curve.least_block not in curve.raw
    decided(app, moment)
    raws = np.array([kept.raw for kept in app.gate._kept.values()])
    found = browser.get("/console/budgets").json()
    assert found["requests"] == len(raws) == COUNT
    for step in found["steps"]:
        threshold = thresholds_from_curve(curve, Budgets(step["budget"], 0.0)).challenge
        assert step["at"] == (raws >= threshold).sum(), step
    thresholds = app.gate.thresholds
    assert found["now"]["challenge"]["at"] == (raws >= thresholds.challenge).sum()
    assert found["now"]["block"]["at"] == (raws >= thresholds.block).sum()
    assert found["now"]["challenge"]["at"] == metric(app, decision="challenge") + metric(app, decision="block")


def test_what_is_older_than_an_hour_is_not_counted(app: Service, moment: Moment) -> None:
    decided(app, moment, 50)
    scores = desk_of(app).scores
    assert scores.budgets()["requests"] == 50
    moment.seconds += 3_700
    decided(app, moment, 7)
    assert scores.budgets()["requests"] == 7
    assert sum(scores.histogram()["hour"]) == 7


def test_another_model_begins_anew(app: Service, moment: Moment, judge: Judge) -> None:
    decided(app, moment, 20)
    desk = desk_of(app)
    assert desk.shown()["clients"]
    before = {suspect["client"] for suspect in desk.suspects.top(100)}
    app.gate.load(Judge(judge.bundle))
    assert desk.scores.budgets()["requests"] == 0
    post(client_of(app, headers=BEARER), "/v1/decide", event(ip="198.51.100.9"))
    app.recent.pass_on()
    assert not before & {suspect["client"] for suspect in desk.suspects.top(100)}, "scores of two models do not compare"
    assert not before & {suspect["client"] for suspect in desk.shown()["clients"]}
    assert not any(map(desk.rows.of, before))


def test_time_passes_where_nobody_comes(app: Service, moment: Moment) -> None:
    decided(app, moment, 50)
    desk = desk_of(app)
    acted = desk.suspects.top()[0]["acted"]
    moment.seconds += 300
    desk.beat()
    assert desk.suspects.top()[0]["acted"] <= 0.6 * acted
    moment.seconds += 3_600
    desk.beat()
    assert desk.scores.budgets()["requests"] == 0
    assert sum(desk.scores.histogram()["hour"]) == 0
    assert not desk.shown()["clients"]


def test_the_mode_is_told_by_route_where_routes_differ(judge: Judge) -> None:
    routes = [{"path": "/v1/*", "mode": "shadow"}]
    app = service(judge, console=True, token=TOKEN, routes=routes)
    assert desk_of(app).shown()["mode"] == "mixed"
    app.gate.mode_override = "shadow"
    assert desk_of(app).shown()["mode"] == "shadow"


# --- clients --------------------------------------------------------------------------------------------------------------


def test_a_clients_page_has_its_requests_features_and_contributions(
    app: Service, moment: Moment, browser: TestClient
) -> None:
    decided(app, moment)
    desk = desk_of(app)
    top = desk.suspects.top(3)
    assert top[0]["acted"] >= top[1]["acted"] > 0
    about = asyncio.run(desk.clients.about(top[0]["client"]))
    assert about is not None
    assert about.raw is not None
    sums = about.bias + about.rest + sum(one.log_odds for one in about.contributions)
    assert sums == pytest.approx(about.raw, abs=1e-4), "contributions add up to the score"
    assert about.requests == sorted(about.requests, key=lambda one: one["time"], reverse=True)
    page = browser.get(f"/console/clients/{about.client}")
    assert page.status_code == 200
    assert about.contributions[0].name in page.text
    assert about.requests[0]["path"] in page.text


def test_a_client_is_found_by_address_account_and_id(app: Service, moment: Moment, browser: TestClient) -> None:
    decided(app, moment)
    for name in ("1.2.3.4", "::ffff:1.2.3.4", "a"):
        found = browser.post("/console/clients", data={"client": name})
        assert found.status_code == 303, name
        assert browser.get(found.headers["location"]).status_code == 200
    identity = found.headers["location"].rpartition("/")[2]
    assert browser.post("/console/clients", data={"client": identity}).headers["location"].endswith(identity)
    decision = next(reversed(app.gate._kept.values()))
    found = browser.post("/console/clients", data={"client": decision.id})
    assert found.headers["location"].endswith(decision.client)
    for nobody in ("8.8.8.8", "0-" + decision.id, "", "0" * 16, "<script>"):
        assert browser.post("/console/clients", data={"client": nobody}).status_code == 404


def test_nothing_of_prompts_keys_and_accounts_is_shown(app: Service, moment: Moment, browser: TestClient) -> None:
    client = client_of(app, headers=BEARER)
    for _ in range(40):
        moment.seconds += 0.1
        post(client, "/v1/decide", event(
            prompt="my SECRET prompt", path="/wp-login.php?key=SECRET", account="SECRET-account", credential="SECRET-key",
            referer="https://SECRET.example/",
        ))  # fmt: skip
    app.recent.pass_on()
    desk = desk_of(app)
    desk.tick()
    shown = json.dumps(desk.shown())
    (identity,) = [one.client for one in desk.suspects._by_client.values()] or [
        app.gate.client_ids("SECRET-account")[0]
    ]
    page = browser.get(f"/console/clients/{identity}").text
    assert "/wp-login.php" in page
    for text in (shown, page, browser.get("/console/budgets").text):
        assert "SECRET" not in text


def test_with_pseudonyms_no_address_is_kept(judge: Judge, moment: Moment) -> None:
    app = service(judge, moment, console=True, token=TOKEN, pseudonyms=True)
    decided(app, moment)
    desk = desk_of(app)
    desk.tick()
    shown = json.dumps(desk.shown())
    assert desk.suspects.top()
    assert "9.8.7.6" not in shown
    assert "1.2.3." not in shown


def test_a_forgotten_client_is_gone_from_the_console_too(app: Service, moment: Moment) -> None:
    decided(app, moment)
    desk = desk_of(app)
    (identity, _) = app.gate.client_ids("a")
    assert asyncio.run(desk.clients.about(identity)) is not None
    app.gate.forget("a")
    assert asyncio.run(desk.clients.about(identity)) is None
    assert desk.rows.of(identity) is None


def test_a_forgotten_address_is_gone_from_the_clients_that_came_from_it(app: Service, moment: Moment) -> None:
    decided(app, moment)
    suspects = desk_of(app).suspects
    theirs = [one for one in suspects._by_client.values() if one.account and one.address == "1.2.3.4"]
    assert theirs
    app.gate.forget("1.2.3.4")
    assert all(one.address is None and one.network == "" for one in theirs)
    assert suspects.of(theirs[0].client) is theirs[0], "the account stays"


def test_the_newest_row_of_each_client_is_kept(app: Service, moment: Moment) -> None:
    decided(app, moment, 100)
    (identity, _) = app.gate.client_ids("a")
    row = desk_of(app).rows.of(identity)
    kept = app.gate.decisions_of(identity, 0, 1000)[::-1]
    assert row is not None
    assert (row.time, row.raw) == (kept[0].time, kept[0].raw)
    assert row.values[COLUMN["client_requests_seen"]] == len(kept)


def arrived(client: int = 0xAA, **seen: Any) -> Any:
    """An arrival, as far as the table of suspects looks at it."""
    told = SimpleNamespace(**{"ip": "10.0.0.1", "path": "/", "user_agent": "a", "account": None, **seen})
    row, hashes = np.zeros(len(COLUMN), np.float32), np.zeros(8, np.uint64)
    return SimpleNamespace(client=f"{client:016x}", time=60_000_000, row=row, event=told, hashes=hashes)


def answered(decision: str = "block", *reasons: str) -> Any:
    return SimpleNamespace(decision=decision, raw=1.0, score=1, reasons=reasons or ("rate",), family=None)


def test_who_waits_is_told_in_words(app: Service, moment: Moment, browser: TestClient) -> None:
    decided(app, moment)
    kept = next(reversed(app.gate._kept.values()))
    kept.reasons = ("load", "wait", "address_activity")
    assert "load, waits for room, address activity" in browser.get(f"/console/clients/{kept.client}").text

    suspects, recent = Suspects(), Recent()
    recent.followers.append(suspects.follow)
    for reasons in (("rate", "paths", "tokens"), ("wait", "rate", "paths", "tokens")):
        recent.answered([arrived()], [answered("challenge", *reasons)], Mock())
    recent.pass_on()
    for one in (*suspects.top(), *suspects.campaigns()):
        assert one["reasons"] == ["rate", "paths", "tokens", "waits for room"], "it is not lost among the others"


def test_no_flood_of_clients_makes_it_grow() -> None:
    suspects, recent = Suspects(most=64), Recent()
    recent.followers.append(suspects.follow)
    for start in range(0, 20_000, 200):
        arrivals = [
            arrived(number, ip=f"10.0.{number // 256 % 256}.{number % 256}", path="/x" * 500, user_agent="a" * 5000)
            for number in range(start, start + 200)
        ]
        recent.answered(arrivals, [answered()] * len(arrivals), Mock())
        recent.pass_on()
        assert len(suspects) <= 64
    (campaign,) = suspects.campaigns()
    assert len(campaign["shares"][0]["value"]) <= 80
    assert len(json.dumps([suspects.top(), suspects.campaigns()])) < 20_000


def test_counts_of_a_sample_add_up_to_all_that_was_acted_on() -> None:
    suspects, recent = Suspects(), Recent()
    recent.followers.append(suspects.follow)

    for acted, allowed in ((3000, 0), (1, 0), (700, 900), (2, 3)):
        for count, decision in ((acted, "block"), (allowed, "allow")):
            if count:
                recent.answered([arrived() for _ in range(count)], [answered(decision)] * count, Mock())
        recent.pass_on()
    (suspect,) = suspects.top()
    assert suspect["acted"] == suspect["blocked"] == 3703
    assert suspect["asked"] == pytest.approx(3703 + 903, rel=0.02)


def test_what_is_shown_of_paths_and_addresses() -> None:
    assert shown_path("/a?key=1") == "/a"
    assert len(shown_path("/" + "x" * 1000)) == 80
    assert network_of("192.0.2.7") == "192.0.2.0/24"
    assert network_of("2001:db8::1") == "2001:db8::/48"
    assert network_of("a-pseudonym") == ""


def test_scores_take_no_more_memory_whatever_comes(app: Service) -> None:
    scores = Scores(app.gate)
    assert scores._raw.nbytes + scores._scores.nbytes < 500_000
