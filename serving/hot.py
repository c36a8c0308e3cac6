"""The routes that carry the load, as raw ASGI: decide, decide/batch and complete.

They stand in front of FastAPI, which would take most of the time of a request. What they accept is typed by msgspec and
checked by `classifier.events.check`, as strictly as a log; `openapi.py` puts them into the OpenAPI document.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from classifier.errors import InputError
from serving.access import Access, HeaderList, only
from serving.batching import Batcher
from serving.gate import Completion, Gate, Live, LiveEvent, Rejected, Result
from serving.metrics import Metrics
from serving.problems import JSON, Problem, Receive, Scope, Send, refuse, respond

Handler = Callable[[HeaderList, Receive, Send], Awaitable[None]]
RESULT_STATUS: dict[Result, int] = {"recorded": 200, "refused": 200, "duplicate": 409, "expired": 410, "unknown": 404}
_SAY: dict[Result, str] = {
    "duplicate": "this request has been completed before; nothing was changed",
    "expired": "this request arrived too long ago to be completed; nothing was changed",
    "unknown": "no request is known by this id; it may be of an earlier start of the service",
}


class Hot:
    """Serves the hot routes for one gate."""

    def __init__(self, gate: Gate, batcher: Batcher, access: Access, metrics: Metrics) -> None:
        self._gate, self._batcher, self._access, self._metrics = gate, batcher, access, metrics
        required = gate.settings.clock == "event"
        kind: Any = _Timed if required else LiveEvent
        self._event = msgspec.json.Decoder(kind)
        self._events = msgspec.json.Decoder(list[kind])
        self._completion = msgspec.json.Decoder(Completion | list[Completion])
        self._encode = msgspec.json.Encoder().encode
        self.routes: dict[str, Handler] = {
            "/v1/decide": self.decide,
            "/v1/decide/batch": self.decide_batch,
            "/v1/complete": self.complete,
        }

    async def __call__(self, handler: Handler, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request for one of the routes."""
        try:
            headers: HeaderList = scope["headers"]
            self._access.check_headers(headers)
            if scope["method"] != "POST":
                raise Problem(405, "method", "use POST", [(b"allow", b"POST")], close=True)
            self._access.check_bearer(headers)
            await handler(headers, receive, send)
        except Problem as problem:
            self._gate.tallies.rejected[problem.reason] += 1
            await refuse(send, problem)

    async def decide(self, headers: HeaderList, receive: Receive, send: Send) -> None:
        """Decide about one event."""
        body = await self._access.body(headers, receive, self._gate.settings.max_body_bytes)
        with self._metrics.latency("decide"):
            pending = self._prepare([decode(self._event, body)])
            answers = await self._batcher.submit(pending, live_of(headers))
            content = self._encode(answers[0])
        await respond(send, 200, content, _JSON)

    async def decide_batch(self, headers: HeaderList, receive: Receive, send: Send) -> None:
        """Decide about a list of events, which arrive in its order."""
        body = await self._access.body(headers, receive, self._gate.settings.max_batch_bytes)
        with self._metrics.latency("batch"):
            events = decode(self._events, body)
            self._check_length(events)
            pending, live = self._prepare(events), live_of(headers)
            content = self._encode(await self._batcher.submit(pending, live) if pending else [])
        await respond(send, 200, content, _JSON)

    async def complete(self, headers: HeaderList, receive: Receive, send: Send) -> None:
        """Record one completion or a list of them."""
        body = await self._access.body(headers, receive, self._gate.settings.max_batch_bytes)
        given = decode(self._completion, body)
        many = given if isinstance(given, list) else [given]
        self._check_length(many)
        for completion in many:
            try:
                self._gate.check_completion(completion)
            except Rejected as error:
                raise Problem(422, error.reason, str(error)) from error
        results = [(completion.id, self._gate.complete(completion)) for completion in many]
        if isinstance(given, list):
            content = [{"id": identity, "result": result} for identity, result in results]
            await respond(send, 200, self._encode(content), _JSON)
            return
        identity, result = results[0]
        if result in _SAY:
            # Counted as a completion, and not as a request that could not be read.
            await refuse(send, Problem(RESULT_STATUS[result], result, _SAY[result]))
            return
        await respond(send, 200, self._encode({"id": identity, "result": result}), _JSON)

    def _prepare(self, events: list[LiveEvent]) -> Any:
        try:
            return self._gate.prepare(events)
        except Rejected as error:
            raise Problem(422, error.reason, str(error)) from error
        except InputError as error:
            raise Problem(422, "invalid", str(error)) from error

    def _check_length(self, items: list[Any]) -> None:
        most = self._gate.settings.max_batch
        if len(items) > most:
            raise Problem(422, "list_too_long", f"the list has {len(items)} entries, more than {most}")


class _Timed(LiveEvent, kw_only=True):
    """An event where its own time counts."""

    time: int | float | str


_JSON = (JSON,)


def decode(decoder: Any, body: bytes) -> Any:
    """Decode a body. Raises Problem 400 for what is no JSON, 422 for the wrong type, naming the field."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise Problem(422, "invalid", str(error)[:300]) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        detail = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        raise Problem(400, "malformed", f"the body is no JSON: {detail}") from error


def live_of(headers: HeaderList) -> Live:
    """Return what the headers say of the request beside its event: the pass, and how loaded the gateway is."""
    live = Live()
    token = only(headers, b"x-botsieve-pass")
    if token is not None:
        live.token = token.decode("latin-1")
    load = only(headers, b"x-botsieve-load")
    if load is not None:
        live.load = load_of(load)
    return live


def load_of(text: bytes) -> float:
    """Return a load from 0 to 1. Raises Problem 422."""
    try:
        value = float(text.decode("ascii"))
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise Problem(422, "invalid", "x-botsieve-load is a number from 0 to 1")
    return value
