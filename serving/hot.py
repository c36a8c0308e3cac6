"""The routes that carry the load: decide, decide/batch and complete, without FastAPI, which would take most of a request's time.

What they accept is typed by msgspec and checked by `classifier.events.check`, as strictly as a log; `openapi.py` puts them into
the OpenAPI document. `Hot.serve` knows no HTTP beyond headers, body and status, and tells whoever asked (`Asker`) in this turn
of the loop or a later one: `serving.direct` asks it where a request was read, the ASGI application for all other requests.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import msgspec

from classifier.errors import InputError
from serving.access import Access, HeaderList, check_size, only
from serving.batching import Batcher
from serving.gate import Answer, Completion, Gate, Live, LiveEvent, Rejected, Result
from serving.metrics import Histogram, Metrics
from serving.passes import HEADER
from serving.problems import JSON, PROBLEM, Headers, Problem, Receive, Scope, Send, respond

RESULT_STATUS: dict[Result, int] = {"recorded": 200, "refused": 200, "duplicate": 409, "expired": 410, "unknown": 404}
_SAY: dict[Result, str] = {
    "duplicate": "this request has been completed before; nothing was changed",
    "expired": "this request arrived too long ago to be completed; nothing was changed",
    "unknown": "no request is known by this id; it may be of an earlier start of the service",
}
_JSON = (JSON,)
LOAD_HEADER, PASS_HEADER = b"x-botsieve-load", HEADER.encode()


class Asker(Protocol):
    """Who asked, and is told once."""

    def done(self) -> bool:
        """Whether nobody waits for the answer any more."""
        ...

    def tell(self, status: int, body: bytes, headers: Headers) -> None:
        """Send a whole answer. Must not raise."""
        ...

    def fail(self, error: Exception) -> None:
        """Say that there is none, because of a fault of ours. Must not raise."""
        ...


class Route(NamedTuple):
    """A hot route: what serves it, and the largest body it takes."""

    serve: Callable[[HeaderList, bytes, Asker], None]
    most_bytes: int


class Hot:
    """Serves the hot routes for one gate."""

    def __init__(self, gate: Gate, batcher: Batcher, access: Access, metrics: Metrics) -> None:
        self._gate, self._batcher, self._access, self._metrics = gate, batcher, access, metrics
        self.rejected = gate.tallies.rejected
        settings = gate.settings
        kind: Any = _Timed if settings.clock == "event" else LiveEvent
        self._event = msgspec.json.Decoder(kind)
        self._events = msgspec.json.Decoder(list[kind])
        self._completion = msgspec.json.Decoder(Completion | list[Completion])
        self._encode = msgspec.json.Encoder().encode
        self.routes = {
            "/v1/decide": Route(self._decide, settings.max_body_bytes),
            "/v1/decide/batch": Route(self._decide_batch, settings.max_batch_bytes),
            "/v1/complete": Route(self._complete, settings.max_batch_bytes),
        }

    async def __call__(self, route: Route, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request for one of the routes that comes by ASGI."""
        headers: HeaderList = scope["headers"]
        asker = _Waiting()
        try:
            self._admit(scope["method"], headers)
            body = await self._access.body(headers, receive, route.most_bytes)
        except Problem as problem:
            self._refuse(problem, asker)
        else:
            self._serve(route, headers, body, asker)
        status, content, more = await asker.future
        await respond(send, status, content, more)

    def serve(self, route: Route, method: str, headers: HeaderList, body: bytes, asker: Asker) -> None:
        """Answer a request that has been read whole; refusals are answers, too."""
        try:
            self._admit(method, headers)
            check_size(len(body), route.most_bytes)
        except Problem as problem:
            self._refuse(problem, asker)
        else:
            self._serve(route, headers, body, asker)

    def _admit(self, method: str, headers: HeaderList) -> None:
        """Raise Problem for a request of which nothing more is to be read."""
        self._access.check_headers(headers)
        if method != "POST":
            raise Problem(405, "method", "use POST", [(b"allow", b"POST")], close=True)
        self._access.check_bearer(headers)

    def _serve(self, route: Route, headers: HeaderList, body: bytes, asker: Asker) -> None:
        try:
            route.serve(headers, body, asker)
        except Problem as problem:
            self._refuse(problem, asker)
        except Exception as error:  # whatever it is, whoever asked must not wait for ever
            asker.fail(error)

    def _refuse(self, problem: Problem, asker: Asker) -> None:
        self.rejected[problem.reason] += 1
        _tell_problem(problem, asker)

    def _decide(self, headers: HeaderList, body: bytes, asker: Asker) -> None:
        """Decide about one event."""
        began = time.perf_counter()
        pending = self._prepare([decode(self._event, body)])
        told = _Told(asker, self._encode_first, self._metrics.latencies["decide"], began)
        self._batcher.enqueue(pending, live_of(headers), told)

    def _encode_first(self, answers: list[Answer]) -> bytes:
        return self._encode(answers[0])

    def _decide_batch(self, headers: HeaderList, body: bytes, asker: Asker) -> None:
        """Decide about a list of events, which arrive in its order."""
        began = time.perf_counter()
        events = decode(self._events, body)
        self._check_length(events)
        pending, live = self._prepare(events), live_of(headers)
        told = _Told(asker, self._encode, self._metrics.latencies["batch"], began)
        if pending:
            self._batcher.enqueue(pending, live, told)
        else:
            told.set_result([])

    def _complete(self, headers: HeaderList, body: bytes, asker: Asker) -> None:
        """Record one completion or a list of them."""
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
            asker.tell(200, self._encode(content), _JSON)
            return
        identity, result = results[0]
        if result in _SAY:
            # Counted as a completion, and not as a request that could not be read.
            _tell_problem(Problem(RESULT_STATUS[result], result, _SAY[result]), asker)
            return
        asker.tell(200, self._encode({"id": identity, "result": result}), _JSON)

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


class _Waiting:
    """An asker that is waited for."""

    def __init__(self) -> None:
        self.future: asyncio.Future[tuple[int, bytes, Headers]] = asyncio.get_running_loop().create_future()
        self.done, self.fail = self.future.done, self.future.set_exception

    def tell(self, status: int, body: bytes, headers: Headers) -> None:
        self.future.set_result((status, body, headers))


class _Told:
    """Waits for the batcher's answers, and tells them to whoever asked."""

    __slots__ = ("_asker", "_began", "_encode", "_latency", "done")

    def __init__(self, asker: Asker, encode: Callable[[list[Answer]], bytes], latency: Histogram, began: float) -> None:
        self._asker, self._encode, self._latency, self._began = asker, encode, latency, began
        self.done = asker.done

    def set_result(self, answers: list[Answer]) -> None:
        try:
            content = self._encode(answers)
        except Exception as error:
            self._asker.fail(error)
            return
        self._latency.observe(time.perf_counter() - self._began)
        self._asker.tell(200, content, _JSON)

    def set_exception(self, error: Exception) -> None:
        self._asker.fail(error)


def _tell_problem(problem: Problem, asker: Asker) -> None:
    asker.tell(problem.status, msgspec.json.encode(problem.document()), (PROBLEM, *problem.headers))


class _Timed(LiveEvent, kw_only=True):
    """An event where its own time counts."""

    time: int | float | str


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
    for name, _ in headers:
        if name.startswith(b"x-botsieve-"):
            break
    else:
        return Live()
    token, given = only(headers, PASS_HEADER), only(headers, LOAD_HEADER)
    load = None if given is None else load_of(given)
    if given is not None and load is None:
        raise Problem(422, "invalid", "x-botsieve-load is a number from 0 to 1")
    return Live(None if token is None else token.decode("latin-1"), load)


def load_of(text: bytes) -> float | None:
    """Return a load from 0 to 1; None for what is none."""
    try:
        value = float(text.decode("ascii"))
    except ValueError:
        return None
    return value if 0.0 <= value <= 1.0 else None
