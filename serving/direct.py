"""Hot requests answered where they are read: no task, no ASGI messages, one write.

uvicorn makes a task, a scope and several events of each request, which takes longer than the decision. So requests for the hot
routes whose body ends in the piece of data in which their head did are answered in its protocol. All others are its own: those
that come in pieces (and with them every limit on slow and large ones), that wait behind another of their connection, that
announce an upgrade or `Expect`, that are the last of their connection, and all of HTTP/1.0.
"""

from __future__ import annotations

import asyncio
import logging
from functools import lru_cache
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from serving.hot import Hot, Route
from serving.problems import CLOSE, Headers
from serving.protocol import Guarded, limits
from serving.settings import Settings

log = logging.getLogger("botsieve.serving")


class Exchange:
    """One request that is answered directly. It stands where uvicorn keeps the cycle of a request, and is asked as one is."""

    __slots__ = ("_connection", "disconnected", "keep_alive", "response_complete")

    def __init__(self, connection: Direct) -> None:
        self._connection = connection
        self.keep_alive, self.disconnected, self.response_complete = True, False, False

    @property
    def message_event(self) -> Exchange:
        """What uvicorn wakes when the connection is lost."""
        return self

    def set(self) -> None:
        """Wake nobody: nobody reads from an exchange."""

    def done(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self.disconnected or self.response_complete

    def tell(self, status: int, body: bytes, headers: Headers) -> None:
        """Send a whole answer."""
        self.response_complete = True
        if self.disconnected:
            return
        close = not self.keep_alive and CLOSE not in headers
        given = (*headers, CLOSE) if close else tuple(headers)
        self._connection.send(
            b"%scontent-length: %d\r\n\r\n%s" % (_head(status, given), len(body), body), CLOSE in given
        )

    def fail(self, error: Exception) -> None:
        """Answer that the service failed, as uvicorn does."""
        log.error("a request failed", exc_info=error)
        self._connection.rejected["failed"] += 1
        self.tell(500, b"Internal Server Error", ((b"content-type", b"text/plain; charset=utf-8"), CLOSE))


@lru_cache(maxsize=256)
def _head(status: int, headers: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """Return the beginning of a response. The headers are our own: what clients send stands in none of them."""
    return STATUS_LINE[status] + b"".join(b"%s: %s\r\n" % pair for pair in headers)


class Direct(Guarded):
    """The guarded protocol, which answers hot requests by itself."""

    hot: Hot
    routes: dict[bytes, Route]
    _route: Route | None = None
    """The route of a request that is being read and will be answered here, if it is whole by the end of this piece."""
    _read = b""
    _quiet_since: float | None = None
    _quiet_timer: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """Take data in; a request that is not whole with it is uvicorn's."""
        self._quiet_since = None
        super().data_received(data)
        if self._route is not None:
            self._leave_to_uvicorn()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self._quiet_timer is not None:
            self._quiet_timer.cancel()
        super().connection_lost(exc)

    def on_headers_complete(self) -> None:
        """Keep a request for a hot route to be answered here."""
        route = self.routes.get(self.url)
        if route is not None and self._is_plain():
            self._head_is_there()
            self._route = route
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        if self._route is None:
            super().on_body(body)
        else:
            self._outside = 0
            self._read = self._read + body if self._read else body

    def on_message_complete(self) -> None:
        """Answer a request."""
        route, self._route = self._route, None
        if route is None:
            super().on_message_complete()
            return
        self._request_is_there()
        exchange, body = Exchange(self), self._read
        self.cycle, self._read = cast(Any, exchange), b""
        self.hot.serve(route, "POST", self.headers, body, exchange)

    def send(self, response: bytes, close: bool) -> None:
        """Send the response of the exchange, and go on to whatever waits behind it."""
        if self.transport.is_closing():
            return
        self.transport.write(response)
        if close:
            self._close()
        elif self.pipeline:
            self.on_response_complete()
        else:
            self.server_state.total_requests += 1
            self._be_quiet()

    def _is_plain(self) -> bool:
        """Whether nothing about a request, its head being read, needs uvicorn."""
        parser = self.parser
        return (
            (self.cycle is None or self.cycle.response_complete)
            and not self.expect_100_continue
            and not self.flow.write_paused
            and parser.get_method() == b"POST"
            and parser.should_keep_alive()
            and not parser.should_upgrade()
            and parser.get_http_version() == "1.1"
        )

    def _leave_to_uvicorn(self) -> None:
        body, self._route, self._read = self._read, None, b""
        if self.transport.is_closing():  # what is no HTTP has been answered already
            return
        super().on_headers_complete()
        if body:
            super().on_body(body)

    def _be_quiet(self) -> None:
        """Close the connection when nothing comes for the time that uvicorn keeps one alive.

        Its own timer is made anew for every request; ours looks again when it ends.
        """
        self._quiet_since = self.loop.time()
        if self._quiet_timer is None:
            self._quiet_timer = self.loop.call_later(self.timeout_keep_alive, self._look)

    def _look(self) -> None:
        self._quiet_timer = None
        if self._quiet_since is None:  # a request is on its way, and looks again after its answer
            return
        left = self._quiet_since + self.timeout_keep_alive - self.loop.time()
        if left <= 0.001:
            self.timeout_keep_alive_handler()
        else:
            self._quiet_timer = self.loop.call_later(left, self._look)


def direct(settings: Settings, hot: Hot) -> type[Direct]:
    """Return the protocol with the limits of the settings, over the routes of a service."""
    routes = {path.encode(): route for path, route in hot.routes.items()}
    return type("Direct", (Direct,), {**limits(settings, hot.rejected), "hot": hot, "routes": routes})
