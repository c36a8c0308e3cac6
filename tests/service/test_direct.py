"""A hot request is answered the same where it was read as through uvicorn, and connections go on as if it had been."""

from __future__ import annotations

import asyncio
import re
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest
from uvicorn.server import ServerState

from classifier.model.judge import Judge
from tests.service.served import event, service
from tests.service.sockets import Story, answer, request, run

TOKEN = "a token that is long enough"


def whole(data: bytes) -> Story:
    """Send a request in one piece, and return the answer and whether the connection is open after it."""

    async def story(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _state: Any) -> Any:
        writer.write(data)
        return await answer(reader), not await closed(reader, writer)

    return story


def in_pieces(data: bytes) -> Story:
    """Send it in two pieces, so that uvicorn answers it."""

    async def story(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, state: Any) -> Any:
        writer.write(data[:-1])
        while not any(one.headers for one in state.connections):  # type: ignore[attr-defined]
            await asyncio.sleep(0)
        writer.write(data[-1:])
        return await answer(reader), not await closed(reader, writer)

    return story


async def closed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Whether the other side closes the connection instead of answering once more."""
    writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
    try:
        return await reader.read(12) != b"HTTP/1.1 200"
    except ConnectionError:
        return True


ONE = event(account="a", prompt="Tell me about 12 of the Danes", max_tokens=64)
CASES = {
    "decide": request("/v1/decide", ONE),
    "a pass and a load": request("/v1/decide", ONE, x_botsieve_pass="é", x_botsieve_load="0.5"),
    "a load that is none": request("/v1/decide", ONE, x_botsieve_load="much"),
    "batch": request("/v1/decide/batch", [ONE, ONE]),
    "no batch": request("/v1/decide/batch", []),
    "too long a batch": request("/v1/decide/batch", [ONE] * 5),
    "unknown completion": request("/v1/complete", {"id": "0-00000000", "status": 200}),
    "list of completions": request("/v1/complete", [{"id": "x"}]),
    "impossible completion": request("/v1/complete", {"id": "x", "status": 5000}),
    "no JSON": request("/v1/decide", b"{"),
    "nested": request("/v1/decide", b"[" * 1800),
    "wrong type": request("/v1/decide", event(ip=5)),
    "impossible": request("/v1/decide", event(max_tokens=-1)),
    "too large": request("/v1/decide", b" " * 3000),
    "headers too large": request("/v1/decide", ONE, x="y" * 700),
    "wrong token": request("/v1/decide", ONE, authorization="Bearer nonsense"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_answer_is_uvicorns(judge: Judge, case: str) -> None:
    settings: dict[str, Any] = {"max_body_bytes": 2000, "max_header_bytes": 600, "max_batch": 4}
    told, counted = [], []
    data = CASES[case]
    if case == "wrong token":
        settings["token"] = TOKEN
    for way in (whole, in_pieces):
        app = service(judge, **settings)
        app.gate.run = "0" * 8
        app.hot.serve = Mock(wraps=app.hot.serve)  # type: ignore[method-assign]
        told.append(run(app, way(data)))
        counted.append((app.gate.tallies.rejected, app.gate.tallies.completions, app.gate.engine.arrivals))
        assert app.hot.serve.called == (way is whole)
    # The name of a challenge is sealed anew each time.
    first, second = ((re.sub(rb"/v1/challenge/[^\"]+", b"", answer), is_open) for answer, is_open in told)
    assert first == second
    assert counted[0] == counted[1]


@pytest.mark.parametrize(
    ("data", "first"),
    [
        (request("/v1/decide", ONE, version="1.0"), b"HTTP/1.1 200"),
        (request("/v1/decide", ONE, version="1.0", connection="keep-alive"), b"HTTP/1.1 200"),
        (request("/v1/decide", ONE, connection="close"), b"HTTP/1.1 200"),
        (request("/v1/decide", ONE, expect="100-continue"), b"HTTP/1.1 100"),
        (request("/v1/decide", ONE, connection="upgrade", upgrade="h2c"), b"HTTP/1.1 400"),  # it reads no body then
        (request("/v1/decide?x=1", ONE), b"HTTP/1.1 200"),
        (request("/v1/decide", ONE, method="PUT"), b"HTTP/1.1 405"),
        (request("/v1/nothing", ONE), b"HTTP/1.1 404"),
    ],
)
def test_what_is_not_plain_is_uvicorns(judge: Judge, data: bytes, first: bytes) -> None:
    app = service(judge)
    app.hot.serve = Mock()  # type: ignore[method-assign]
    told, _ = run(app, whole(data))
    assert told.startswith(first)
    app.hot.serve.assert_not_called()


def test_a_body_in_chunks_is_read(judge: Judge) -> None:
    content = msgspec.json.encode(ONE)
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (content[:9], content[9:]))
    head = b"POST /v1/decide HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    told, stays = run(service(judge), whole(head + chunks + b"0\r\n\r\n"))
    assert told.startswith(b"HTTP/1.1 200")
    assert stays


def test_requests_behind_each_other_are_answered_in_their_order(judge: Judge) -> None:
    async def story(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _state: Any) -> list[bytes]:
        decide, health = request("/v1/decide", ONE), b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
        writer.write(decide + health + decide + decide + health)
        return [await answer(reader) for _ in range(5)]

    told = run(service(judge), story)
    assert [b'"ok"' in one for one in told] == [False, True, False, False, True]
    serials = [re.search(rb'"id":"([0-9a-f]+)-', told[place])[1] for place in (0, 2, 3)]  # type: ignore[index]
    assert serials == [b"0", b"1", b"2"]


def test_what_is_no_http_is_refused_once(judge: Judge) -> None:
    async def story(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _state: Any) -> bytes:
        head = b"POST /v1/decide HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        writer.write(head + b"5\r\n{nonsense")
        return await reader.read()

    app = service(judge)
    told = run(app, story)
    assert told.startswith(b"HTTP/1.1 400")
    assert told.count(b"HTTP/1.1") == 1
    assert app.gate.engine.arrivals == 0


def test_a_fault_of_ours_is_told_and_ends_the_connection(judge: Judge) -> None:
    app = service(judge)
    app.gate.arrive_all = Mock(side_effect=MemoryError("no room"))  # type: ignore[method-assign]
    told, stays = run(app, whole(request("/v1/decide", ONE)))
    assert told.startswith(b"HTTP/1.1 500")
    assert b"connection: close" in told
    assert not stays
    assert app.batcher.in_flight == 0
    assert app.gate.tallies.rejected == {"failed": 1}
    app = service(judge)
    app.gate.prepare = Mock(side_effect=MemoryError("no room"))  # type: ignore[method-assign]
    assert run(app, whole(request("/v1/decide", ONE)))[0].startswith(b"HTTP/1.1 500")


def test_who_has_gone_is_not_waited_for(judge: Judge) -> None:
    app = service(judge)

    async def story(_reader: Any, writer: asyncio.StreamWriter, state: ServerState) -> None:
        serve = app.hot.serve

        def gone(*given: Any) -> None:
            serve(*given)
            (connection,) = state.connections
            connection.connection_lost(ConnectionResetError())  # type: ignore[union-attr]

        app.hot.serve = gone  # type: ignore[method-assign]
        writer.write(request("/v1/decide", ONE))
        while app.gate.engine.arrivals == 0:
            await asyncio.sleep(0)

    run(app, story)
    assert app.batcher.in_flight == 0
    assert app.gate.tallies.decisions.total() == 1


def test_a_stop_lets_an_exchange_end_and_then_closes(judge: Judge) -> None:
    app = service(judge)

    async def story(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, state: ServerState) -> bytes:
        serve = app.hot.serve

        def stopping(*given: Any) -> None:
            serve(*given)
            (connection,) = state.connections
            connection.shutdown()

        app.hot.serve = stopping  # type: ignore[method-assign]
        writer.write(request("/v1/decide", ONE))
        return await reader.read()

    told = run(app, story)
    assert told.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in told


def test_beyond_the_most_connections_new_ones_are_closed_and_the_others_served(judge: Judge) -> None:
    app = service(judge, max_connections=2)

    async def story(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, state: ServerState) -> list[bytes]:
        address = writer.get_extra_info("peername")
        writer.write(request("/v1/decide", ONE))
        told = [await answer(reader)]
        _, idle = await asyncio.open_connection(*address)
        while len(state.connections) < 2:
            await asyncio.sleep(0)
        late, another = await asyncio.open_connection(*address)
        told.append(await late.read())
        for path in ("/v1/decide", "/v1/clock"):
            writer.write(request(path, ONE))
            told.append(await answer(reader))
        another.close()
        idle.close()
        while len(state.connections) > 1:
            await asyncio.sleep(0)
        again, third = await asyncio.open_connection(*address)
        third.write(request("/v1/decide", ONE))
        told.append(await answer(again))
        third.close()
        return told

    told = run(app, story)
    assert [one[9:12] for one in told] == [b"200", b"503", b"200", b"422", b"200"]
    assert b'"reason":"connections"' in told[1]
    assert app.gate.tallies.rejected == {"connections": 1, "invalid": 1}


@pytest.mark.parametrize("path", ["/v1/decide", "/healthz"])
def test_a_connection_on_which_nothing_comes_is_closed(judge: Judge, path: str) -> None:
    async def story(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _state: Any) -> bytes:
        for _ in range(3):
            writer.write(request("/v1/decide", ONE))
            await answer(reader)
        writer.write(request(path, ONE, method="POST" if path == "/v1/decide" else "GET"))
        return await reader.read()

    assert run(service(judge), story, timeout_keep_alive=0.05).startswith(b"HTTP/1.1 200")


def test_an_empty_line_behind_an_exchange_does_not_hold_the_connection(judge: Judge) -> None:
    async def story(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _state: Any) -> bytes:
        writer.write(request("/v1/decide", ONE))
        await answer(reader)
        writer.write(b"\r\n")
        return await reader.read()

    app = service(judge, body_timeout_s=0.05)
    assert run(app, story, timeout_keep_alive=60).startswith(b"HTTP/1.1 408")
    assert app.gate.tallies.rejected == {"timeout": 1}


def test_a_long_body_that_begins_in_the_piece_of_its_head_is_read(judge: Judge) -> None:
    app = service(judge, max_header_bytes=600)
    told, _ = run(app, in_pieces(request("/v1/decide/batch", [ONE] * 50)))
    assert told.startswith(b"HTTP/1.1 200")
