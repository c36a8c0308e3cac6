"""The application: FastAPI for what is asked seldom, raw ASGI in front of it for what is asked all the time.

`create_app` puts the parts together and starts nothing; `Service.__call__` sends each request to the layer that serves it.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from classifier import __version__
from classifier.errors import InputError
from classifier.events import MICROSECONDS
from classifier.features.engine import Engine
from classifier.features.hashing import SECRET_VARIABLE, secret_from_environment
from classifier.model.judge import Judge
from serving import admin, challenging, circumstances, openapi, routes, situation, status_routes
from serving.access import Access
from serving.authorize import PREFIX, Authorize
from serving.batching import Batcher
from serving.console import routes as console_routes
from serving.console.desk import Desk
from serving.drifting import Drift
from serving.envoy import Envoy
from serving.gate import Gate
from serving.hot import Hot
from serving.journal import Journal
from serving.keeping import Keeper
from serving.metrics import Metrics
from serving.problems import Problem, Receive, Scope, Send, refuse
from serving.recent import Recent
from serving.records import Lines
from serving.settings import Settings
from serving.snapshot import Clock, Snapshots
from serving.status import Status
from serving.steady import LEAP_S, Steady
from serving.switch import Switch

log = logging.getLogger("botsieve.serving")

OPEN = ("/healthz", "/readyz", "/v1/challenge/")
"""Paths that need no token: health, and what clients themselves ask for."""
OPEN_BODY_BYTES = 16_384
"""Largest body on a path that needs no token; a solution and the forms of the console are far smaller."""

EXPIRED, EXPIRED_S = 2_048, 2 * LEAP_S
"""Requests that may expire each second while nobody comes, and for how long they must have been due: what has been read and not
yet processed is never so old, nor does the clock go back so far."""


class Service(FastAPI):
    """The FastAPI application with its gate, and the raw layer in front of its routes."""

    gate: Gate
    batcher: Batcher
    access: Access
    metrics: Metrics
    hot: Hot
    authorize: Authorize
    envoy: Envoy | None
    observer: circumstances.Observer
    keeper: Keeper | None
    journal: Journal | None
    recent: Recent
    drift: Drift
    desk: Desk | None
    status: Status | None
    closers: list[Callable[[], None]]
    """What is to be closed when the service stops, in this order."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        try:
            await self._serve(scope, receive, send)
        except Exception:  # answered 500, and logged, by whoever catches it next
            self.gate.tallies.rejected["failed"] += 1
            raise

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        route = self.hot.routes.get(path)
        if route is not None:
            await self.hot(route, scope, receive, send)
        elif path.startswith(PREFIX) and path[len(PREFIX) : len(PREFIX) + 1] in ("", "/"):
            await self.authorize(scope, receive, send)
        else:
            await self._seldom(path, scope, receive, send)

    async def _seldom(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request as the raw routes do and hand it to FastAPI, its body read and within the limit."""
        try:
            self.access.check_headers(scope["headers"])
            most = self.gate.settings.max_body_bytes
            if self._is_open(path):
                most = min(most, OPEN_BODY_BYTES)
            else:
                self.access.check_bearer(scope["headers"])
            body = await self.access.body(scope["headers"], receive, most)
        except Problem as problem:
            self.gate.tallies.rejected[problem.reason] += 1
            await refuse(send, problem)
            return
        await super().__call__(scope, _replay(body, receive), send)

    def _is_open(self, path: str) -> bool:
        """Whether a path needs no bearer token. The console's need a session, which its routes check."""
        return (
            path.startswith(OPEN)
            or (self.desk is not None and console_routes.is_open(path))
            or (self.status is not None and status_routes.is_open(path))
        )

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document, the raw routes included."""
        if not self.openapi_schema:
            self.openapi_schema = openapi.complete(super().openapi(), self.gate.settings)
        return self.openapi_schema


def create_app(
    settings: Settings,
    model: Judge,
    *,
    now: Callable[[], float] | None = None,
    secret: bytes | None = None,
    challenger: Judge | None = None,
    restored: tuple[Engine, Clock] | None = None,
) -> Service:
    """Put a service together.

    `now` gives Unix seconds (None: the machine's, without its leaps); `secret` keys the hashes (None: that of the environment);
    `restored` is what a snapshot held.
    """
    key = secret_from_environment() if secret is None else secret
    wall = now or time.time  # what is written for people has the machine's time
    if now is None:
        now = Steady(restored[0].clock / MICROSECONDS if restored and settings.clock == "server" else -math.inf)
    gate = Gate(settings, model, key, now, challenger=challenger, restored=restored)
    app = Service(title="botsieve", version=__version__, lifespan=_lifespan, docs_url=None, redoc_url=None)
    app.gate, app.access, app.metrics = gate, Access(settings), Metrics(gate)
    app.batcher = Batcher(gate, settings.deadline_s)
    app.closers = [app.batcher.close]
    if gate.shadow is not None:
        app.closers.append(gate.shadow.close)
    app.batcher.sizes = app.metrics.batches.observe
    app.hot = Hot(gate, app.batcher, app.access, app.metrics)
    app.authorize = Authorize(gate, app.batcher, app.access, app.metrics, key)
    app.envoy = Envoy(gate, app.authorize, app.access) if settings.grpc_port is not None else None
    gate.hooks.recorder = app.journal = _journal(gate, now, given=secret is not None)
    audit = Lines(settings.state, "audit", wall)
    switch = Switch(settings)
    gate.mode_override = switch.read()
    labels = Lines(settings.journal or settings.state, "labels", wall)  # beside the journal: training looks there
    app.include_router(routes.router(gate, app.metrics, app.access, audit))
    challenges, pages = challenging.attach(gate, now, challenging.signing_secret(secret))
    app.closers.append(challenges.close)
    app.keeper = None
    if settings.state is not None:
        written = None if restored is None else restored[1].written
        app.keeper = Keeper(gate, Snapshots(settings.state, key), now, written)
        app.metrics.gauges["snapshot_age_seconds"] = ("Since the newest snapshot was begun", app.keeper.age)
    observer = app.observer = circumstances.attach(gate, now, wall)
    app.metrics.gauges["load"] = ("How loaded the gateway is", observer.load.now)
    app.metrics.gauges["listed"] = ("Entries of the allow and deny lists", lambda: len(observer.lists))
    app.metrics.gauges["clock_leaps"] = (
        "Times the machine's clock leapt, which was not followed",
        lambda: now.leaps if isinstance(now, Steady) else 0,
    )
    app.metrics.registry.register(observer.watch)
    app.include_router(situation.router(observer.watch))
    app.include_router(admin.router(gate, observer, app.access, app.keeper, switch, audit, labels))
    app.include_router(pages)
    _watched(app, now)
    if app.journal is not None:
        app.closers.append(app.journal.close)
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(Exception, _unexpected)
    return app


def _watched(app: Service, now: Callable[[], float]) -> None:
    """Let drift, the status and the console follow what is answered, as far as the settings ask for them."""
    gate, settings = app.gate, app.gate.settings
    app.recent, app.drift = Recent(now), Drift(gate)
    if settings.clock == "server":
        app.recent.beats.append(lambda: app.observer.watch.advance(round(now() * MICROSECONDS)))
        app.recent.beats.append(lambda: gate.engine.expire((now() - EXPIRED_S) * MICROSECONDS, EXPIRED))
    gate.hooks.answered = app.recent.answered
    app.recent.followers.append(app.drift.follow)
    app.metrics.registry.register(app.drift)
    app.metrics.gauges["follow_failures"] = (
        "Times that what was answered could not be followed for drift, status or console",
        lambda: app.recent.failures,
    )
    app.desk = app.status = None
    if settings.console:
        app.desk = Desk(gate, app.observer, app.drift, app.recent, now)
        app.include_router(console_routes.router(gate, app.desk, app.access))
    if settings.shows_status:
        app.status = Status(gate, app.observer.watch, now)
        if app.status.registers:
            app.recent.attendants.append(app.status.answered)
        app.include_router(status_routes.router(app.status, settings.site))
        app.closers.append(app.status.close)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    assert isinstance(app, Service)
    await asyncio.to_thread(app.gate.warm)
    gc.collect()
    gc.freeze()  # what has been loaded stays: the collector need not look at it again and again
    log.info(
        "started",
        extra={
            "bundle": app.gate.bundle[:16],
            "providers": app.gate.model.providers,
            "mode": app.gate.settings.mode,
            "clock": app.gate.settings.clock,
            "warming_up": app.gate.warming_up,
        },
    )
    tasks = [asyncio.create_task(app.recent.keep())]
    if app.status is not None:
        tasks.append(asyncio.create_task(app.status.keep()))
    if app.keeper is not None:
        tasks.append(asyncio.create_task(app.keeper.keep(app.gate.settings.snapshot_s)))
    if app.journal is not None:
        tasks.append(asyncio.create_task(app.journal.keep()))
    if app.envoy is not None:
        await app.envoy.start(app.gate.settings.host, app.gate.settings.grpc_port or 0)
        log.info("listening for Envoy", extra={"port": app.envoy.port})
    yield
    if app.envoy is not None:
        with _going_on():
            await app.envoy.stop()
    for task in tasks:
        task.cancel()
        with _going_on(), suppress(asyncio.CancelledError):
            await task
    if app.keeper is not None:
        with _going_on():
            await app.keeper.close()
    for close in app.closers:
        with _going_on():
            close()
    log.info("stopped")


@contextmanager
def _going_on() -> Iterator[None]:
    """Log what goes wrong while the service stops: the rest is closed all the same."""
    try:
        yield
    except Exception as error:
        log.error("something could not be stopped in order", exc_info=error)


def _journal(gate: Gate, now: Callable[[], float], *, given: bool) -> Journal | None:
    """Return the journal that the settings ask for; `given` tells that the hashes are keyed by a secret."""
    settings = gate.settings
    if settings.journal is None:
        return None
    if settings.pseudonyms and not given and SECRET_VARIABLE not in os.environ:
        raise InputError(f"pseudonyms need a secret of your own: set {SECRET_VARIABLE} (openssl rand -hex 32)")
    try:
        return Journal(
            settings.journal, gate.run, gate.first, now, gate.tallies.journal,
            days=settings.journal_days, pseudonyms=settings.pseudonyms,
        )  # fmt: skip
    except OSError as error:
        raise InputError(f"the journal {settings.journal} cannot be written: {error.strerror or error}") from error


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives a body which has been read, and then whatever comes."""
    given = False

    async def replayed() -> Any:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


def answer(problem: Problem) -> Response:
    """Return a problem document as a response."""
    headers = {name.decode(): value.decode() for name, value in problem.headers}
    content = msgspec.json.encode(problem.document())
    return Response(content, problem.status, headers, "application/problem+json")


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    request.app.gate.tallies.rejected[error.reason] += 1
    return answer(error)


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = [(name.lower().encode(), value.encode()) for name, value in (error.headers or {}).items()]
    reason = {404: "no_route", 405: "method"}.get(error.status_code, "invalid")
    return await _problem(request, Problem(error.status_code, reason, str(error.detail), headers))


async def _validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return await _problem(request, Problem(400, "malformed", "the body is no JSON"))
    where = ".".join(str(part) for part in first["loc"])
    return await _problem(request, Problem(422, "invalid", f"{where}: {first['msg']}"[:300]))


async def _unexpected(request: Request, error: Exception) -> Response:
    log.error("a request failed", exc_info=error, extra={"route": request.url.path[:64]})
    return answer(Problem(500, "failed", "the service failed to answer; its log has the place"))
