"""Errors as problem documents (RFC 9457), for the raw ASGI routes and for FastAPI's alike."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = Sequence[tuple[bytes, bytes]]

JSON = (b"content-type", b"application/json")
PROBLEM = (b"content-type", b"application/problem+json")
CLOSE = (b"connection", b"close")


class Problem(Exception):  # noqa: N818 - the word of RFC 9457
    """A request that is not served: HTTP status, a word for the counter, and what to tell the caller."""

    def __init__(self, status: int, reason: str, detail: str, headers: Headers = (), close: bool = False) -> None:
        super().__init__(detail)
        self.status, self.reason, self.detail = status, reason, detail
        self.headers: list[tuple[bytes, bytes]] = [*headers, *([CLOSE] if close else [])]

    def document(self) -> dict[str, Any]:
        """Return the problem document."""
        title = HTTPStatus(self.status).phrase
        return {
            "type": "about:blank",
            "title": title,
            "status": self.status,
            "detail": self.detail,
            "reason": self.reason,
        }


async def respond(send: Send, status: int, body: bytes, headers: Headers) -> None:
    """Send a whole answer."""
    size = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, size]})
    await send({"type": "http.response.body", "body": body})


async def refuse(send: Send, problem: Problem) -> None:
    """Send a problem document."""
    await respond(send, problem.status, msgspec.json.encode(problem.document()), [PROBLEM, *problem.headers])
