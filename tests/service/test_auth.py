"""The client's helper: it works for its own service, and not for whoever sends it a 401.

That it solves and is served is shown with the OpenAI client through real gateways, in tests/gateways.
"""

from __future__ import annotations

import asyncio
import importlib.util
import sys
import time
from typing import Any

import altcha
import httpx
import httpx2
import pytest

from serving import auth
from serving.auth import PASS, BotsieveAuth

SITE = "https://gateway.example"


class Site:
    """A gateway that challenges whoever has no pass, as it is told to."""

    def __init__(
        self, cost: int = 10, url: str = "/v1/challenge/7-aa", verify: str = "/v1/challenge/verify", **other: Any
    ) -> None:
        made = altcha.create_challenge("PBKDF2/SHA-256", cost, hmac_secret="secret", key_prefix="00").to_dict()
        made["parameters"] |= other
        self.challenge, self.url = {**made, "verify": verify}, url
        self.asked: list[tuple[str, str, bool]] = []
        self.solved = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append((request.method, str(request.url), "authorization" in request.headers))
        if request.url.path.endswith("verify"):
            self.solved += 1
            return httpx.Response(200, headers={PASS: "a pass"}, json={})
        if "/v1/challenge/" in request.url.path:
            return httpx.Response(200, json=self.challenge)
        if request.headers.get(PASS) == "a pass":
            return httpx.Response(200, json={"served": request.content.decode()})
        return httpx.Response(401, headers={"www-authenticate": f'Botsieve challenge="{self.url}"'})


def asked(site: Site, **options: Any) -> httpx.Response:
    """Ask as a program does, with a key of its own."""
    client = httpx.Client(auth=BotsieveAuth(**options), transport=httpx.MockTransport(site))
    with client:
        return client.post(f"{SITE}/v1/chat", content=b"body", headers={"authorization": "Bearer key"})


def test_a_challenge_is_solved_and_the_request_repeated_whole_without_giving_the_key_away() -> None:
    site = Site()
    answer = asked(site)
    assert answer.json() == {"served": "body"}
    assert [path.removeprefix(SITE) for _, path, _ in site.asked] == [
        "/v1/chat", "/v1/challenge/7-aa", "/v1/challenge/verify", "/v1/chat",
    ]  # fmt: skip
    assert [key for _, _, key in site.asked] == [True, False, False, True]


@pytest.mark.parametrize("changes", [
    {"cost": 10_000_000}, {"url": "https://evil.example/v1/challenge/1"}, {"url": "//evil.example/x"}, {"url": "file:///etc/passwd"},
    {"verify": "https://evil.example/verify"}, {"keyPrefix": "0000000000"}, {"keyPrefix": ""}, {"algorithm": "SHA-256"},
    {"keyLength": 10**9}, {"nonce": "no hex"}, {"cost": -1},
])  # fmt: skip
def test_what_is_too_hard_foreign_or_strange_is_handed_to_the_program(changes: dict[str, Any]) -> None:
    site = Site(**{name: value for name, value in changes.items() if name != "cost"})
    site.challenge["parameters"]["cost"] = changes.get("cost", site.challenge["parameters"]["cost"])
    answer = asked(site, seconds=5.0)
    assert answer.status_code == 401
    assert site.solved == 0
    assert all(url.startswith(SITE) for _, url, _ in site.asked)


def test_a_401_that_is_not_ours_is_left_alone() -> None:
    calls = []

    def other(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        return httpx.Response(401, headers={"www-authenticate": 'Bearer realm="x"'})

    with httpx.Client(auth=BotsieveAuth(), transport=httpx.MockTransport(other)) as client:
        assert client.get(SITE).status_code == 401
    assert len(calls) == 1


def test_a_site_that_challenges_forever_is_given_up() -> None:
    site = Site()
    served = site.__call__

    def stubborn(request: httpx.Request) -> httpx.Response:
        request.headers.pop(PASS, None)
        return served(request)

    with httpx.Client(auth=BotsieveAuth(), transport=httpx.MockTransport(stubborn)) as client:
        assert client.get(f"{SITE}/v1/chat").status_code == 401
    assert site.solved <= 2


class Full(Site):
    """A gateway that is full for the first of those who have a pass."""

    def __init__(self, waits: int, wait: Any = 0.01) -> None:
        super().__init__()
        self.waits, self.puzzle, self.told = waits, self.challenge, {"wait": wait, "detail": "no room"}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        waiting = self.waits > 0 and request.headers.get(PASS) == "a pass"
        if not waiting:
            return super().__call__(request)
        self.waits -= 1
        self.challenge = self.told
        return httpx.Response(401, headers={"www-authenticate": f'Botsieve challenge="{self.url}"'})


def test_who_has_a_pass_waits_for_room_with_it() -> None:
    site = Full(3)
    assert asked(site, patience=0.06).json() == {"served": "body"}
    assert site.solved == 1

    async def later() -> httpx.Response:
        transport = httpx.MockTransport(Full(3))
        async with httpx.AsyncClient(auth=BotsieveAuth(patience=0.06), transport=transport) as client:
            return await client.post(f"{SITE}/v1/chat", content=b"body")

    assert asyncio.run(later()).json() == {"served": "body"}


@pytest.mark.parametrize(("wait", "waits"), [(0.03, 3), (60, 1), (1e9, 2), ("20", 2), (-1, 2), (True, 2)])
def test_who_waits_is_patient_only_so_long(wait: Any, waits: int) -> None:
    """What is no time to wait is left alone as any 401 that cannot be solved."""
    site = Full(1_000, wait)
    started = time.monotonic()
    assert asked(site, patience=0.1).status_code == 401
    assert time.monotonic() - started < 5.0
    assert site.solved == 1
    assert 1_000 - site.waits <= waits + 2


@pytest.mark.parametrize("wait", [1e-300, 10, 75.0])
def test_however_long_the_patience_it_comes_back_only_so_often(wait: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """For httpx all that a flow sends are redirects, and after twenty of them it raises an error."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    site = Full(1_000, wait)
    assert asked(site, patience=600.0).status_code == 401
    assert slept == [100.0] * auth.WAITS
    assert asked(Full(auth.WAITS, wait), patience=600.0).json() == {"served": "body"}


def test_it_works_where_only_the_newer_httpx_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    spec = importlib.util.spec_from_file_location("copied_auth", auth.__file__)
    assert spec is not None
    assert spec.loader is not None
    copied = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copied)
    assert not hasattr(copied, "BotsieveAuth")
    made = altcha.create_challenge("PBKDF2/SHA-256", 10, hmac_secret="secret", key_prefix="00").to_dict()

    def site(request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/v1/challenge/verify":
            return httpx2.Response(200, headers={PASS: "a pass"}, json={})
        if request.url.path == "/v1/challenge/7-aa":
            return httpx2.Response(200, json={**made, "verify": "/v1/challenge/verify"})
        if request.headers.get(PASS) == "a pass":
            return httpx2.Response(200, json={"served": request.content.decode()})
        return httpx2.Response(401, headers={"www-authenticate": 'Botsieve challenge="/v1/challenge/7-aa"'})

    for service in (None, SITE):
        client = httpx2.Client(auth=copied.BotsieveAuth2(service=service), transport=httpx2.MockTransport(site))
        with client:
            assert client.post(f"{SITE}/v1/chat", content=b"body").json() == {"served": "body"}
