"""Every fault that a client can make is answered, counted under its reason, and changes nothing else."""

from __future__ import annotations

import asyncio
from typing import Any

import altcha
import httpx
import pytest

from classifier.model.judge import Judge
from serving.app import Service
from serving.challenge import TRIES
from tests.service.challenge_site import payload
from tests.service.served import Moment, client_of, event, post, service
from tests.service.sockets import request, run

BODY = {"altcha": "nonsense"}


def silent(*parts: bytes) -> Any:
    """Send what is no whole request, then nothing; return what comes until the connection is closed."""

    async def story(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _state: Any) -> bytes:
        for part in parts:
            writer.write(part)
            await writer.drain()
        return await reader.read()

    return story


DECIDE = request("/v1/decide", event())
VERIFY = request("/v1/challenge/verify", BODY, content_type="application/json")


@pytest.mark.parametrize(
    "parts",
    [(DECIDE[:30],), (DECIDE[:30], DECIDE[30:50]), (DECIDE[:-9],), (VERIFY[:-9],), (DECIDE, DECIDE[:-9])],
    ids=["slow headers", "headers in pieces", "slow body", "slow body of a route of FastAPI", "behind a whole one"],
)
def test_who_is_slow_is_given_up_and_counted(judge: Judge, parts: tuple[bytes, ...]) -> None:
    app = service(judge, body_timeout_s=0.05)
    told = run(app, silent(*parts))
    assert b"HTTP/1.1 408" in told
    assert b'"reason":"timeout"' in told
    assert app.gate.tallies.rejected == {"timeout": 1}
    assert app.gate.engine.arrivals == len(parts[:-1]) * (parts[0] == DECIDE)


@pytest.mark.parametrize(
    ("content", "headers", "status", "reason"),
    [
        (b"{", {}, 400, "malformed"),
        (b'{"altcha": 5}', {}, 400, "malformed"),
        (b'{"altcha": "nonsense"}', {}, 400, "malformed"),
        (b'{"altcha": "nonsense"}', {"content_type": "text/plain"}, 415, "malformed"),
        (b"altcha=nonsense&next=/", {"content_type": "application/x-www-form-urlencoded"}, 400, "malformed"),
        (b"\xff", {"content_type": "application/x-www-form-urlencoded"}, 400, "malformed"),
        (b'{"altcha": "nonsense"}', {"sec_fetch_site": "cross-site"}, 403, "site"),
    ],
)
def test_what_is_no_solution_is_counted(
    judge: Judge, content: bytes, headers: dict[str, str], status: int, reason: str
) -> None:
    app = service(judge)
    assert post(client_of(app), "/v1/challenge/verify", content, **headers).status_code == status
    assert app.gate.tallies.challenges == {reason: 1}


def challenged(judge: Judge, now: Moment, **settings: Any) -> tuple[Service, Any, str]:
    """Return a service that challenges everybody, its client, and where the first challenge is."""
    app = service(judge, now, challenge_work_least=1, challenge_work_most=16, challenge_budget=0.99, **settings)
    client = client_of(app)
    for place in range(50):
        answer = post(client, "/v1/decide", event(path=f"/{place}")).json()
        if answer["enforced"] == "challenge":
            return app, client, answer["challenge"]["url"]
    raise AssertionError("nobody was challenged")


def test_challenges_that_are_unknown_or_expired_are_counted(judge: Judge) -> None:
    now = Moment()
    app, client, url = challenged(judge, now, challenge_s=60.0)
    assert client.get(url).status_code == 200
    for unknown in (f"{url}x", "/v1/challenge/0-00000000", "/v1/challenge/" + "a" * 2000):
        assert (answer := client.get(unknown)).status_code == 404
        assert answer.json()["reason"] == "unknown"
    assert client.get("/v1/challenge/static/secret").status_code == 404
    now.seconds += 61.0
    assert client.get(url).json()["reason"] == "expired"
    page = client.get(url, headers={"accept": "text/html"})
    assert (page.status_code, page.headers["content-type"]) == (410, "text/html; charset=utf-8")
    assert app.gate.tallies.rejected == {"unknown": 3, "no_route": 1, "expired": 2}
    assert not app.gate.tallies.challenges


def test_a_flood_of_decisions_takes_no_challenge_away_and_a_restart_neither(judge: Judge) -> None:
    _, client, url = challenged(judge, Moment(), decisions_kept=1)
    for number in range(3):
        post(client, "/v1/decide", event(path=f"/{number}"))
    solved = payload(client.get(url).json())
    assert post(client, "/v1/challenge/verify", {"altcha": solved}).status_code == 200
    restarted = client_of(service(judge, Moment()))
    assert restarted.get(url).json()["url"] == url
    assert restarted.get(url, headers={"accept": "text/html"}).status_code == 200


def test_wrong_answers_to_one_challenge_keep_nobody_else_out(judge: Judge) -> None:
    app, client, url = challenged(judge, Moment())
    puzzle, honest = altcha.Challenge.from_dict(client.get(url).json()), payload(client.get(url).json())
    guesses = [altcha.Payload(puzzle, altcha.Solution(place, "00" * 32)).to_base64() for place in range(200)]

    async def flood() -> list[int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as asker:
            sent = [asker.post("/v1/challenge/verify", json={"altcha": one}) for one in [*guesses, honest]]
            return [answer.status_code for answer in await asyncio.gather(*sent)]

    assert asyncio.run(flood())[-1] == 200
    assert app.gate.tallies.challenges == {"unsolved": TRIES, "spent": 200 - TRIES, "solved": 1}


@pytest.mark.parametrize(
    ("settings", "seconds", "why"), [({"pass_requests": 2}, 0.0, "used"), ({"pass_s": 60.0}, 61.0, "expired")]
)
def test_a_pass_ends(judge: Judge, settings: dict[str, Any], seconds: float, why: str) -> None:
    now = Moment()
    app, client, url = challenged(judge, now, **settings)
    granted = post(client, "/v1/challenge/verify", {"altcha": payload(client.get(url).json())}).json()["pass"]
    asked = event(path="/0")

    def ask() -> Any:
        return post(client, "/v1/decide", asked, x_botsieve_pass=granted).json()

    assert [ask()["enforced"] for _ in range(2)] == ["allow", "allow"]
    now.seconds += seconds
    assert ask()["enforced"] == "challenge"
    assert app.gate.tallies.passes == {"admitted": 2, why: 1}
