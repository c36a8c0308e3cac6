"""uvicorn's HTTP protocol with what it leaves open: so many connections, and headers that come in time and have an end."""

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
    most_connections = 4096
    rejected: Counter[str]
    """Counts what is refused here, by reason."""
    _timer: asyncio.TimerHandle | None = None
    _head = 0
    _in_head = True

    def connection_made(self, transport: Any) -> None:
        """Start to wait for the first request, unless there are too many connections."""
        super().connection_made(transport)
        if len(self.connections) > self.most_connections:
            self._refuse(Problem(503, "connections", f"there are more than {self.most_connections} connections"))
            return
        self._timer = self.loop.call_later(self.seconds, self._late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take data in; wait for the rest of headers, and give up on those that have no end."""
        super().data_received(data)
        if not self._in_head:
            return
        self._head += len(data)
        if self._head > self.most_bytes:
            self._refuse(Problem(431, "headers_too_large", f"the headers have more than {self.most_bytes} bytes"))
        elif self._timer is None and not self.transport.is_closing():
            self._timer = self.loop.call_later(self.seconds, self._late)

    def on_message_begin(self) -> None:
        """Begin with the headers of a request."""
        super().on_message_begin()
        self._head, self._in_head = 0, True

    def on_headers_complete(self) -> None:
        """The headers are there: what follows is limited where bodies are read."""
        self._head_is_there()
        super().on_headers_complete()

    def _head_is_there(self) -> None:
        self._stop()
        self._in_head = False

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        self._refuse(Problem(408, "timeout", f"the headers did not come within {self.seconds:g} s"))

    def send_400_response(self, msg: str) -> None:
        """Count what is no HTTP, which uvicorn refuses."""
        self.rejected["malformed"] += 1
        super().send_400_response(msg)

    def _refuse(self, problem: Problem) -> None:
        """Say why and close, unless an answer to an earlier request is still on its way."""
        self._stop()
        if self.transport.is_closing():
            return
        self.rejected[problem.reason] += 1
        if self.cycle is None or self.cycle.response_complete:
            body = msgspec.json.encode(problem.document())
            head = f"HTTP/1.1 {problem.status} {problem.document()['title']}\r\nconnection: close\r\n"
            head += f"content-type: application/problem+json\r\ncontent-length: {len(body)}\r\n\r\n"
            self.transport.write(head.encode() + body)
        self.transport.close()


def limits(settings: Settings, rejected: Counter[str]) -> dict[str, Any]:
    """Return the limits of the settings, for a class; twice the headers' limit leaves room for the URL and separators."""
    return {
        "seconds": settings.body_timeout_s,
        "most_bytes": 2 * settings.max_header_bytes,
        "most_connections": settings.max_connections,
        "rejected": rejected,
    }
