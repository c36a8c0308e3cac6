"""Connections that are held open or sent to without end are closed; others are served."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from typing import Any
from unittest.mock import Mock

import pytest
import uvicorn
import uvloop
from uvicorn.server import ServerState

from serving.protocol import Guarded


async def _app(scope: Any, receive: Any, send: Any) -> None:
    """Read no body."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def _telling(scope: Any, receive: Any, send: Any) -> None:
    """Read the body, and tell it and the headers."""
    body, more = b"", True
    while more:
        part = await receive()
        body, more = body + part.get("body", b""), part.get("more_body", False)
    told = repr((scope["headers"], body)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(told))]})
    await send({"type": "http.response.body", "body": told})


async def _listening(kind: Any, app: Any, keep_alive: float) -> tuple[asyncio.Server, ServerState]:
    """Start a server of a protocol; return it and what it knows of its connections."""
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="off", ws="none", timeout_keep_alive=keep_alive
    )
    config.load()
    state = ServerState()
    return await asyncio.get_running_loop().create_server(lambda: kind(config, state, {}), "127.0.0.1", 0), state


async def _talk(
    *parts: bytes, seconds: float, most: int = 2000, app: Any = _app, keep_alive: float = 5.0
) -> tuple[bytes, Counter[str]]:
    """Send parts to a server; return all it sends until it closes the connection, and what it counted."""
    rejected: Counter[str] = Counter()
    limits = {"seconds": seconds, "most_bytes": most, "most_unread": 2 * most, "rejected": rejected}
    kind = type("Quick", (Guarded,), limits)
    server, _ = await _listening(kind, app, keep_alive)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.005)
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


GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nhost: y\r\nconnection: close\r\n\r\n"


@pytest.mark.parametrize(
    "parts",
    [
        (b"1\r\nx\r\n", b"0\r\n" + b"a:b\r\n" * 400),
        (b"1\r\nx\r\n0\r\n", *[b"a:b\r\n" * 100] * 5),
        (b"1\r\nx\r\n0\r\na: ", *[b"v" * 500] * 5),
        (b"1\r\nx\r\n1;", *[b"v" * 500] * 5),
    ],
)
def test_what_comes_outside_a_body_without_end_is_refused(parts: tuple[bytes, ...]) -> None:
    told, rejected = asyncio.run(_talk(CHUNKED, *parts, seconds=60.0, app=_telling))
    assert told.startswith(b"HTTP/1.1 431")
    assert told.count(b"HTTP/1.1") == 1
    assert rejected == {"headers_too_large": 1}


def test_trailers_are_dropped() -> None:
    trailers = b"0\r\nhost: z\r\nexpect: 100-continue\r\nlast: 1\r\n\r\n"
    told, rejected = asyncio.run(_talk(CHUNKED + b"2\r\nhi\r\n", trailers + LAST, seconds=60.0, app=_telling))
    assert told.count(b"HTTP/1.1 200") == 2
    assert b"([(b'host', b'x'), (b'transfer-encoding', b'chunked')], b'hi')" in told
    assert told.endswith(b"([(b'host', b'y'), (b'connection', b'close')], b'')")
    assert not rejected


def test_a_body_that_is_read_may_be_long_and_come_in_small_parts() -> None:
    chunks = [b"1\r\nx\r\n" * 50] * 20
    told, rejected = asyncio.run(_talk(CHUNKED, *chunks, b"0\r\n\r\n" + LAST, seconds=0.05, app=_telling))
    assert b"x" * 1000 in told
    assert told.count(b"HTTP/1.1 200") == 2
    assert not rejected


def test_a_body_that_nobody_reads_has_a_limit_and_must_come_in_time() -> None:
    head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9999\r\n\r\n"
    for parts, seconds, reason in (([b"x" * 1500] * 3, 60.0, "body_too_large"), ([b"x"], 0.05, "timeout")):
        told, rejected = asyncio.run(_talk(head, *parts, seconds=seconds))
        assert told.endswith(b"ok")
        assert told.count(b"HTTP/1.1") == 1, "it was answered before"
        assert rejected == {reason: 1}


def test_an_unread_body_within_the_limit_leaves_the_connection() -> None:
    head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3000\r\n\r\n"
    told, rejected = asyncio.run(_talk(head, b"x" * 1500, b"x" * 1500, LAST, seconds=60.0))
    assert told.count(b"HTTP/1.1 200") == 2
    assert not rejected


def test_an_empty_line_does_not_hold_a_connection() -> None:
    told, rejected = asyncio.run(_talk(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"\r\n", seconds=0.05, keep_alive=60.0))
    assert told.startswith(b"HTTP/1.1 200")
    assert rejected == {"timeout": 1}


BIG = 4_000_000


async def _big(scope: Any, receive: Any, send: Any) -> None:
    """Send more than the sockets hold, in parts."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % BIG)]})
    for left in range(3, -1, -1):
        await send({"type": "http.response.body", "body": b"x" * (BIG // 4), "more_body": left > 0})


def _unread(data: bytes, keep_alive: float) -> tuple[bool, list[str]]:
    """Send requests and read nothing; return whether the connection is given up, and the errors that are logged."""
    errors: list[str] = []

    async def play() -> bool:
        kind = type("Quick", (Guarded,), {"rejected": Counter()})
        server, state = await _listening(kind, _big, keep_alive)
        with socket.create_connection(server.sockets[0].getsockname()) as silent:
            silent.sendall(data)
            while not state.connections:
                await asyncio.sleep(0.01)
            (connection,) = state.connections
            connection.logger = Mock(error=lambda message, **_: errors.append(message))
            for _ in range(50):
                await asyncio.sleep(0.02)
                if not state.connections:
                    break
            given_up = not state.connections
            await asyncio.sleep(0.05)  # what still runs may fail now
        server.close()
        return given_up

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as in service: others forgive writing on
        return runner.run(play()), errors


@pytest.mark.parametrize("data", [GET, GET * 5, GET.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")])
def test_who_does_not_read_is_given_up(data: bytes) -> None:
    assert _unread(data, keep_alive=0.2) == (True, [])
    assert _unread(data, keep_alive=60.0) == (False, [])


@pytest.mark.parametrize("upgrade", [b"h2c", b"websocket"])
def test_the_body_of_an_upgrade_is_no_request(upgrade: bytes) -> None:
    head = b"POST / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: " + upgrade
    head += b"\r\ncontent-length: %d\r\n\r\n" % len(GET)
    for parts in ([head + GET], [head, GET], [head[:-1], head[-1:] + GET[:5], GET[5:]], [GET + head, GET]):
        told, rejected = asyncio.run(_talk(*parts, seconds=60.0))
        assert told.count(b"HTTP/1.1") == (2 if parts[0].startswith(GET) else 1)
        assert told.endswith(b"connection: close\r\n\r\nok")
        assert not rejected


def test_headers_are_counted() -> None:
    head = GET[:-2] + b"connection: close\r\n"
    assert asyncio.run(_talk(head + b"a:\r\n" * 254 + b"\r\n", seconds=60.0))[0].endswith(b"ok")
    told, rejected = asyncio.run(_talk(head + b"a:\r\n" * 255 + b"\r\n", seconds=60.0))
    assert told.startswith(b"HTTP/1.1 431")
    assert rejected == {"headers_too_large": 1}
