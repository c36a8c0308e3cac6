"""uvicorn's HTTP protocol with what it leaves open: so many connections, and an end to whatever a client holds up or sends on."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.problems import Problem
from serving.settings import Settings


class Guarded(HttpToolsProtocol):
    """Closes connections whose headers are slow or endless: clients that only hold them open must not use them up.

    Beyond the most connections, new ones are closed; requests on those that are there are served. (uvicorn's own limit refuses
    every request as long as there are too many connections, however idle.)
    """

    seconds = 10.0
    most_bytes = 32_768
    most_headers = 256
    most_unread = 1 << 20
    """Bytes of a body that has been answered without being read."""
    most_connections = 4096
    rejected: Counter[str]
    """Counts what is refused here, by reason."""
    _timer: asyncio.TimerHandle | None = None
    _in_body = False
    """Whether the head of a request is there and its end is not."""
    _outside = 0
    """Bytes since the last of a body that is read, or since the end of a head or a request: heads, trailers, empty lines."""

    _deaf = False
    """Whether all that still comes is dropped: what stands behind an upgrade that we do not make."""
    _broken: Problem | None = None
    """Why the parser was made to stop."""
    _stuck: asyncio.TimerHandle | None = None
    _running: Any = None
    """What uvicorn has begun to answer last; further requests may wait behind it."""

    def connection_made(self, transport: Any) -> None:
        """Start to wait for the first request, unless there are too many connections."""
        super().connection_made(transport)
        if len(self.connections) > self.most_connections:
            self._refuse(Problem(503, "connections", f"there are more than {self.most_connections} connections"))
            return
        self._timer = self.loop.call_later(self.seconds, self._late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting, and tell who answers: uvicorn tells the last request of the connection alone."""
        self._stop()
        if self._stuck is not None:
            self._stuck.cancel()
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take data in; give up on headers, trailers and unread bodies that have no end or do not come."""
        if self._deaf:
            return
        self._outside += len(data)
        super().data_received(data)
        if not self._outside or self.transport.is_closing():
            return
        unread = self._in_body and self.cycle is not None and self.cycle.response_complete
        if unread and self._outside > self.most_unread:
            self._refuse(Problem(413, "body_too_large", f"more than {self.most_unread} bytes came that nobody reads"))
        elif not unread and self._outside > self.most_bytes:
            self._refuse(Problem(431, "headers_too_large", f"the headers have more than {self.most_bytes} bytes"))
        elif self._timer is None and (unread or not self._in_body):
            self._timer = self.loop.call_later(self.seconds, self._late)

    def on_message_begin(self) -> None:
        """Begin with the headers of a request."""
        super().on_message_begin()
        self._outside = self._outside or 1  # at least its first byte is there

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header. Nobody reads trailers."""
        if self._in_body:
            return
        if len(self.headers) == self.most_headers:
            self._broken = Problem(431, "headers_too_large", f"there are more than {self.most_headers} headers")
            raise self._broken
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The headers are there: what follows is limited where bodies are read.

        The parser takes no body of a request for an upgrade, but the next request in its place. So this one is the last.
        """
        self._head_is_there()
        super().on_headers_complete()
        if self.parser.should_upgrade():
            self._deaf, self.cycle.keep_alive = True, False

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        if not self.cycle.response_complete:
            self._outside = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request."""
        self._request_is_there()
        super().on_message_complete()

    def pause_writing(self) -> None:
        """Wait for who does not read, as long as for who does not send."""
        super().pause_writing()
        self._give_up_later()

    def resume_writing(self) -> None:
        """Go on writing."""
        super().resume_writing()
        if self._stuck is not None and not self.transport.is_closing():
            self._stuck.cancel()
            self._stuck = None

    def on_response_complete(self) -> None:
        """Go on to the next request, or to the end."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._give_up_later()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection."""
        self._close()

    def _close(self) -> None:
        """Close as soon as all is sent, and in any case after a while."""
        self.transport.close()
        self._give_up_later()

    def _give_up_later(self) -> None:
        if self._stuck is None:
            self._stuck = self.loop.call_later(self.timeout_keep_alive, self.transport.abort)

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _head_is_there(self) -> None:
        self._stop()
        self._in_body, self._outside = True, 0

    def _request_is_there(self) -> None:
        self._stop()
        self._in_body, self._outside = False, 0

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        self._refuse(Problem(408, "timeout", f"the headers did not come within {self.seconds:g} s"))

    def send_400_response(self, msg: str) -> None:
        """Count what is no HTTP, which uvicorn refuses."""
        if self._broken is not None:
            self._refuse(self._broken)
            return
        self.rejected["malformed"] += 1
        super().send_400_response(msg)
        self._give_up_later()

    def _refuse(self, problem: Problem) -> None:
        """Say why, unless this request or one before it is being answered, and close."""
        self._stop()
        if self.transport.is_closing():
            return
        self.rejected[problem.reason] += 1
        if self._is_next():
            body = msgspec.json.encode(problem.document())
            head = f"HTTP/1.1 {problem.status} {problem.document()['title']}\r\nconnection: close\r\n"
            head += f"content-type: application/problem+json\r\ncontent-length: {len(body)}\r\n\r\n"
            self.transport.write(head.encode() + body)
        self._close()

    def _is_next(self) -> bool:
        """Whether the request that is being read is the next to be answered."""
        if self._in_body:
            return not self.pipeline and not getattr(self.cycle, "response_started", True)
        return self.cycle is None or self.cycle.response_complete


def limits(settings: Settings, rejected: Counter[str]) -> dict[str, Any]:
    """Return the limits of the settings, for a class; twice the headers' limit leaves room for the URL and separators."""
    return {
        "seconds": settings.body_timeout_s,
        "most_bytes": 2 * settings.max_header_bytes,
        "most_unread": settings.max_body_bytes,
        "most_connections": settings.max_connections,
        "rejected": rejected,
    }
