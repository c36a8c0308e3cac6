"""The client's side: solve a challenge by itself and repeat the request with the pass it earns.

    client = httpx.Client(auth=BotsieveAuth())
    openai.OpenAI(http_client=httpx2.Client(auth=BotsieveAuth2()), …)

It needs `altcha` and either `httpx` (for `BotsieveAuth`) or `httpx2` (for `BotsieveAuth2`), both of which bring `anyio`,
and nothing else of botsieve, so the file can be copied into a program. Answers are not read before the program asks for
them: streaming stays streaming.

Where a service under attack is full, who has a pass may have to wait for room: it does, for `patience` in all.

A server tells its client how hard to work, so there are bounds: a puzzle above `work_most`, of another kind, or on a host
that is not the request's own or the stated `service` is left unsolved, and the 401 is handed to the program as it came.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import AsyncGenerator, Generator
from typing import Any

import altcha
import anyio

PASS = "x-botsieve-pass"
_PREFIX = re.compile(r"[0-9a-f]{1,8}")
_ALGORITHM = "PBKDF2/SHA-256"
WAITS = 6
"""How often one request waits for room at most. httpx counts what the flow sends as redirects, of which it follows 20."""
_CHALLENGE = re.compile(r'(?i)\bBotsieve\b[^"]{0,64}\bchallenge="([^"\\]{1,2048})"')


class _Flow:
    """What both kinds of httpx share: requests go out by `yield`, answers come back from it."""

    _httpx: Any
    """Which of the two."""

    def __init__(
        self,
        *,
        service: str | None = None,
        attempts: int = 2,
        work_most: float = 16_000_000,
        seconds: float = 60.0,
        patience: float = 120.0,
    ) -> None:
        """`service`: the URL where botsieve is reached, if not on the host of the requests.

        `attempts`: challenges solved for one request at most. `work_most`: PBKDF2 iterations that a puzzle may be expected
        to take (about 0.4 µs each). `seconds`: when to give one up. `patience`: s that one request waits for room at most,
        in `WAITS` pieces at most, so that of a long patience each is longer than the service asked for.
        """
        self._service = self._httpx.URL(service) if service else None
        self._attempts = attempts
        self._work_most = work_most
        self._seconds = seconds
        self._patience = patience
        self._passes: dict[str, str] = {}
        # Only one of many requests that are refused together solves; the others wait and take its pass.
        self._thread_lock = threading.Lock()
        self._task_lock = anyio.Lock()

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """The flow of `Client`."""
        request.read()  # to be able to send it again
        response = yield self._carry(request)
        solved, patience = 0, self._patience
        while solved < self._attempts and self._challenge_url(request, response) is not None:
            wait = 0.0
            with self._thread_lock:
                if not self._renewed(request):
                    errand = self._errand(request, response)
                    step = next(errand)
                    while not isinstance(step, float):
                        if isinstance(step, altcha.Challenge):
                            step = errand.send(self._solve(step))
                        else:
                            answer = yield step
                            answer.read()
                            step = errand.send(answer)
                    wait = step
            if 0 < wait <= patience:
                patience -= wait
                time.sleep(wait)
                response = yield self._carry(request)
                continue
            renewed = self._renewed(request)
            response = yield self._carry(request)
            if not renewed:
                return
            solved += 1

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        """The flow of `AsyncClient`; the puzzle is solved in a thread."""
        await request.aread()
        response = yield self._carry(request)
        solved, patience = 0, self._patience
        while solved < self._attempts and self._challenge_url(request, response) is not None:
            wait = 0.0
            async with self._task_lock:
                if not self._renewed(request):
                    errand = self._errand(request, response)
                    step = next(errand)
                    while not isinstance(step, float):
                        if isinstance(step, altcha.Challenge):
                            step = errand.send(await anyio.to_thread.run_sync(self._solve, step))
                        else:
                            answer = yield step
                            await answer.aread()
                            step = errand.send(answer)
                    wait = step
            if 0 < wait <= patience:
                patience -= wait
                await anyio.sleep(wait)
                response = yield self._carry(request)
                continue
            renewed = self._renewed(request)
            response = yield self._carry(request)
            if not renewed:
                return
            solved += 1

    def _errand(self, request: Any, response: Any) -> Generator[Any, Any, None]:
        """Fetch the challenge, have it solved, exchange it for a pass. Ends with how long to wait for room, s, float."""
        url = self._challenge_url(request, response)
        answer = yield _beside(request, "GET", url)
        told = _object(answer)
        challenge = self._accepted(told)
        verify = self._trusted(request, str(told.get("verify", "")))
        if challenge is not None and verify is not None:
            solution = yield challenge
            if solution is not None:
                payload = altcha.Payload(challenge, solution).to_base64()
                answer = yield _beside(request, "POST", verify, json={"altcha": payload})
                if answer.status_code == 200 and answer.headers.get(PASS):
                    self._passes[_origin(request.url)] = answer.headers[PASS]
        wait = _wait_of(told)
        yield max(wait, self._patience / WAITS) if wait else 0.0

    def _carry(self, request: Any) -> Any:
        token = self._passes.get(_origin(request.url))
        if token is not None:
            request.headers[PASS] = token
        return request

    def _renewed(self, request: Any) -> bool:
        """Whether there is a pass that this request has not been sent with."""
        token = self._passes.get(_origin(request.url))
        return token is not None and request.headers.get(PASS) != token

    def _challenge_url(self, request: Any, response: Any) -> str | None:
        if response.status_code != 401:
            return None
        found = _CHALLENGE.search(response.headers.get("www-authenticate", ""))
        return self._trusted(request, found[1]) if found else None

    def _trusted(self, request: Any, url: str) -> str | None:
        """The URL made absolute, if it leads to the service or to the host of the request itself."""
        base = self._service or self._httpx.URL(str(request.url))
        try:
            target = base.join(url)
        except self._httpx.InvalidURL:
            return None
        known = {_origin(base), _origin(request.url)}
        return str(target) if url and _origin(target) in known else None

    def _accepted(self, told: dict[str, Any]) -> altcha.Challenge | None:
        try:
            challenge = altcha.Challenge.from_dict(told)
            asked = challenge.parameters
            known = asked.algorithm == _ALGORITHM and _PREFIX.fullmatch(asked.key_prefix) and 0 < asked.key_length <= 64
            bounded = known and 0 < asked.cost * 16 ** len(asked.key_prefix) <= self._work_most
            bytes.fromhex(asked.nonce + asked.salt)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            return None
        return challenge if bounded else None

    def _solve(self, challenge: altcha.Challenge) -> altcha.Solution | None:
        return altcha.solve_challenge(challenge, timeout=self._seconds)


def _beside(request: Any, method: str, url: str | None, **content: Any) -> Any:
    """A request of the flow's own: with the agent and the timeouts of the program's, and none of its keys."""
    headers = {"accept": "application/json", "user-agent": request.headers.get("user-agent", "BotsieveAuth")}
    extensions = {"timeout": request.extensions.get("timeout", {})}
    return type(request)(method, url, headers=headers, extensions=extensions, **content)


def _origin(url: Any) -> str:
    return f"{url.scheme}://{url.host}:{url.port or ''}"


def _object(response: Any) -> dict[str, Any]:
    """The JSON object of an answer, an empty one for anything else."""
    try:
        content = response.json()
    except ValueError:
        return {}
    return content if response.status_code == 200 and isinstance(content, dict) else {}


def _wait_of(told: dict[str, Any]) -> float:
    """How long a service tells to wait, s; 0 where it does not."""
    wait = told.get("wait")
    return float(wait) if isinstance(wait, int | float) and 0 < wait < 86_400 else 0.0


try:
    import httpx
except ImportError:
    pass
else:

    class BotsieveAuth(_Flow, httpx.Auth):
        """For `httpx.Client` and `httpx.AsyncClient`."""

        _httpx = httpx


try:
    import httpx2
except ImportError:
    pass
else:

    class BotsieveAuth2(_Flow, httpx2.Auth):
        """For `httpx2.Client` and `httpx2.AsyncClient`."""

        _httpx = httpx2
