"""Connections that are held open with unfinished requests are closed; others are served."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from serving.protocol import Guarded


async def _app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def _talk(*parts: bytes, seconds: float, most: int = 2000) -> tuple[bytes, Counter[str]]:
    """Send parts to a server; return all it sends until it closes the connection, and what it counted."""
    rejected: Counter[str] = Counter()
    kind = type("Quick", (Guarded,), {"seconds": seconds, "most_bytes": most, "rejected": rejected})
    config = uvicorn.Config(_app, log_config=None, access_log=False, lifespan="off")
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: kind(config, state, {}), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        return await asyncio.wait_for(reader.read(), 10), rejected
    finally:
        writer.close()
        server.close()


@pytest.mark.parametrize(
    "parts", [(), (b"GET / HT",), (b"GET / HTTP/1.1\r\nx: y\r\n",), (b"GET / HTTP/1.1\r\nx: ", b"y")]
)
def test_headers_that_do_not_come_are_given_up(parts: tuple[bytes, ...]) -> None:
    told, rejected = asyncio.run(_talk(*parts, seconds=0.05))
    assert told.startswith(b"HTTP/1.1 408")
    assert rejected == {"timeout": 1}


def test_a_second_request_that_does_not_come_whole_is_given_up() -> None:
    told, rejected = asyncio.run(_talk(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"GET / HTTP", seconds=0.05))
    assert rejected == {"timeout": 1}
    assert told.startswith(b"HTTP/1.1 200")
    assert b"HTTP/1.1 408" in told


@pytest.mark.parametrize("endless", [b"GET /" + b"a" * 5000, b"GET / HTTP/1.1\r\nx: " + b"a" * 5000])
def test_headers_without_end_are_refused_before_they_end(endless: bytes) -> None:
    told, rejected = asyncio.run(_talk(endless, seconds=60.0))
    assert told.startswith(b"HTTP/1.1 431")
    assert rejected == {"headers_too_large": 1}


@pytest.mark.parametrize(
    "nonsense", [b"nonsense\r\n\r\n", b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n", b"\x16\x03\x01\x02\x00"]
)
def test_what_is_no_http_is_refused_and_counted(nonsense: bytes) -> None:
    told, rejected = asyncio.run(_talk(nonsense, seconds=60.0))
    assert told.startswith(b"HTTP/1.1 400")
    assert rejected == {"malformed": 1}


def test_a_whole_request_is_served_however_it_comes() -> None:
    told, rejected = asyncio.run(_talk(b"GET / HTTP/1.1\r\nhost: x\r\n", b"connection: close\r\n\r\n", seconds=5.0))
    assert told.startswith(b"HTTP/1.1 200")
    assert told.endswith(b"ok")
    assert not rejected
