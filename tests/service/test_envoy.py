"""Envoy's gRPC services: what a gateway may ask, what it is told, and that nothing it sends breaks or moves anything."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import grpc
import grpc.aio
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifier.errors import InputError
from classifier.model.judge import Judge
from serving.__main__ import _check_free
from serving.app import Service
from serving.envoy import AUTHORIZATION, FILTER, LOGS
from serving.envoy_messages import CheckRequest, CheckResponse, LogMessage
from tests.service.served import Moment, service

TOKEN = "a token of sixteen characters"
Call = Callable[..., Coroutine[Any, Any, Any]]


class Caller:
    """Speaks to a service as Envoy does."""

    def __init__(self, app: Service, channel: grpc.aio.Channel) -> None:
        self.app = app
        self._check = channel.unary_unary(f"/{AUTHORIZATION}/Check")
        self._logs = channel.stream_unary(f"/{LOGS}/StreamAccessLogs")

    async def check(self, content: bytes, token: str | None = TOKEN) -> Any:
        """Ask; return the answer, or the code of the error."""
        try:
            return CheckResponse.FromString(await self._check(content, metadata=_metadata(token)))
        except grpc.aio.AioRpcError as error:
            return error.code()

    async def log(self, *contents: bytes, token: str | None = TOKEN) -> Any:
        """Tell of what ended."""
        try:
            return await self._logs(iter(contents), metadata=_metadata(token))
        except grpc.aio.AioRpcError as error:
            return error.code()


def _metadata(token: str | None) -> tuple[tuple[str, str], ...]:
    return () if token is None else (("x-botsieve-token", token),)


def spoken(judge: Judge, talk: Callable[[Caller], Coroutine[Any, Any, None]], **changes: Any) -> Service:
    """Let a service be talked to by gRPC and return it."""
    given = {"token": TOKEN, "trusted_proxies": ["127.0.0.1/32"], "grpc_port": 0, "mode": "shadow", **changes}
    app = service(judge, Moment(), **given)
    assert app.envoy is not None

    async def run() -> None:
        assert app.envoy is not None
        await app.envoy.start("127.0.0.1", 0)
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{app.envoy.port}") as channel:
                await talk(Caller(app, channel))
        finally:
            await app.envoy.stop()

    asyncio.run(run())
    return app


def asked(
    body: bytes = b"", size: int | None = None, address: str = "192.0.2.9", path: bytes = b"/v1/x?y=1", **headers: Any
) -> bytes:
    message = CheckRequest()
    message.attributes.source.address.socket_address.address = address
    http = message.attributes.request.http
    http.method, http.path, http.raw_body, http.size = b"POST", path, body, len(body) if size is None else size
    for name, value in headers.items():
        http.headers.add(
            key=name.replace("_", "-").encode(), value=value if isinstance(value, bytes) else value.encode()
        )
    content: bytes = message.SerializeToString()
    return content


def ended(identity: str, enforced: str = "allow", status: int = 200, **tokens: float) -> bytes:
    message = LogMessage()
    entry = message.http_logs.log_entry.add()
    entry.response.response_code.value, entry.response.response_body_bytes = status, 1234
    entry.common_properties.duration.FromMilliseconds(1500)
    entry.common_properties.metadata.filter_metadata.add(key=FILTER).value.update(
        {"id": identity, "enforced": enforced}
    )
    if tokens:
        entry.common_properties.metadata.filter_metadata.add(key="io.envoy.ai_gateway").value.update(tokens)
    content: bytes = message.SerializeToString()
    return content


def test_an_answer_is_that_of_the_gate_and_the_body_is_read(judge: Judge, tmp_path: Any) -> None:
    body = {
        "model": "m",
        "max_completion_tokens": 9,
        "messages": [{"role": "system", "content": "no"}, {"role": "user", "content": "Tell"}],
    }

    async def talk(caller: Caller) -> None:
        content = asked(msgspec.json.encode(body), user_agent="curl/8", x_account="a", authorization="Bearer k")
        answer = await caller.check(content)
        assert answer.status.code == 0
        assert list(answer.ok_response.headers_to_remove) == ["x-botsieve-pass"]
        told = dict(answer.dynamic_metadata)
        kept = caller.app.gate.decision(told["id"])
        assert kept is not None
        assert (told["decision"], told["enforced"], told["score"]) == (kept.decision, kept.enforced, kept.score)
        await caller.log(ended(told["id"], llm_input_token=7.0, llm_output_token=3.0))

    app = spoken(judge, talk, journal=tmp_path / "journal", account_header="x-account")
    assert app.journal is not None
    app.journal.close()
    from classifier.logs import read_log

    (event,) = read_log([tmp_path / "journal"]).to_pylist()
    wanted = {"ip": "192.0.2.9", "method": "POST", "path": "/v1/x?y=1", "user_agent": "curl/8", "account": "a", "model": "m",
              "max_tokens": 9, "prompt_length": 4, "request_bytes": len(msgspec.json.encode(body)), "status": 200,
              "duration": 1.5, "response_bytes": 1234, "input_tokens": 7, "output_tokens": 3, "verdict": "allow"}  # fmt: skip
    assert {name: event[name] for name in wanted} == wanted
    assert event["credential"] not in (None, "Bearer k")


def test_a_refused_request_is_given_its_page_or_its_document(judge: Judge) -> None:
    async def talk(caller: Caller) -> None:
        caller.app.gate.hooks.decide = lambda *_: (type("Decided", (), {"decision": verdict, "score": 20})(), ())
        for verdict, status, code in (("challenge", 401, 16), ("block", 403, 7)):
            answer = await caller.check(asked())
            assert (answer.status.code, answer.denied_response.status.code) == (code, status)
            headers = {option.header.key: option.header.value for option in answer.denied_response.headers}
            assert headers["content-type"] == "application/problem+json"
            assert headers["x-botsieve-enforced"] == verdict
            assert msgspec.json.decode(answer.denied_response.body)["status"] == status
            await caller.log(ended(dict(answer.dynamic_metadata)["id"], verdict))
        verdict = "challenge"
        answer = await caller.check(asked(accept="text/html"))
        assert "<html" in answer.denied_response.body

    app = spoken(judge, talk, mode="enforce", warm_up_s=0.0)
    assert app.gate.tallies.completions == {}  # a refusal has ended with the answer, and its log line is not counted
    assert app.gate.engine.in_flight == 0


def test_who_has_a_pass_and_no_room_is_told_when_to_come_again(judge: Judge) -> None:
    async def talk(caller: Caller) -> None:
        hooks = caller.app.gate.hooks
        hooks.decide = lambda *_: (type("Decided", (), {"decision": "challenge", "score": 20})(), ())
        hooks.full, hooks.admit = lambda _: True, lambda *_: None
        for accept, kind in (("*/*", "application/problem+json"), ("text/html", "text/html; charset=utf-8")):
            answer = await caller.check(asked(x_botsieve_pass="a pass", accept=accept))
            told = [(option.header.key, option.header.value) for option in answer.denied_response.headers]
            headers = dict(told)
            assert (answer.denied_response.status.code, headers["content-type"]) == (401, kind)
            assert 10 <= int(headers["retry-after"]) <= 30
            assert len(headers) == len(told), "no header comes twice"

    spoken(judge, talk, mode="enforce", warm_up_s=0.0)


def test_only_a_trusted_gateway_with_the_token_is_heard(judge: Judge) -> None:
    async def talk(caller: Caller) -> None:
        for token in (None, "wrong token of the client"):
            assert await caller.check(asked(), token) == grpc.StatusCode.UNAUTHENTICATED
            assert await caller.log(ended("0-00000000"), token=token) == grpc.StatusCode.UNAUTHENTICATED

    assert spoken(judge, talk).gate.tallies.rejected == {"token": 4}

    async def foreign(caller: Caller) -> None:
        assert await caller.check(asked()) == grpc.StatusCode.PERMISSION_DENIED
        assert await caller.log(ended("0-00000000")) == grpc.StatusCode.PERMISSION_DENIED

    app = spoken(judge, foreign, trusted_proxies=["10.0.0.0/8"])
    assert app.gate.tallies.rejected == {"untrusted": 2}
    assert app.gate.engine.arrivals == 0


def test_who_has_no_token_keeps_no_place(judge: Judge) -> None:
    async def talk(caller: Caller) -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{caller.app.envoy.port}") as channel:
            begin = channel.stream_unary(f"/{AUTHORIZATION}/Check")  # a call whose message never comes
            silent = [begin(metadata=_metadata("wrong token of the client")) for _ in range(12)]
            codes = [await asyncio.wait_for(call.code(), 10) for call in silent]
        assert set(codes) <= {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert isinstance(await caller.check(asked()), CheckResponse)

    app = spoken(judge, talk, max_connections=4)
    assert set(app.gate.tallies.rejected) == {"token"}
    assert app.gate.engine.arrivals == 1


BODIES = [
    b"", b"{", b"[]", b"7", b"\xff\xfe", b"{}" + b" " * 100, b'{"model": 7, "messages": 7, "max_tokens": "x"}',
    b'{"messages": [{"role": "user", "content": [{"text": 7}, {"text": "a"}]}, 7]}', b'{"max_tokens": 1e400}',
    b'{"max_tokens": 100000000000000000000000000}', b'{"max_tokens": -1}', b'{"max_tokens": true}', b'{"model": "\\ud800"}',
    b'{"prompt": "\\udfff\\ud800"}', b'{"prompt": ["a", "b"]}', b'{"input": "text"}', b"[" * 100_000,
    b'{"messages":' + b"[" * 5000,
]  # fmt: skip


def test_no_request_of_a_client_is_an_error(judge: Judge) -> None:
    """An error would make Envoy's fail mode act, and let whoever causes it pass."""

    async def talk(caller: Caller) -> None:
        for body in BODIES:
            assert isinstance(await caller.check(asked(body)), CheckResponse), body
        for changes in (
            {"path": b"\xff\x00"}, {"path": b""}, {"path": b"/" + b"a" * 8000}, {"x_botsieve_pass": b"\xff" * 4000},
            {"cookie": "botsieve_pass=" + "x" * 8000}, {"user_agent": b"\xff"}, {"user_agent": "a\n\x00"}, {"size": -1},
            {"size": 2**62}, {"content_length": "-5"}, {"content_length": "9" * 40}, {"accept": "x" * 8000},
            {"authorization": b"\xff"}, {"x_botsieve_time": "nan"},
        ):  # fmt: skip
            assert isinstance(await caller.check(asked(**changes)), CheckResponse), changes
        assert isinstance(await caller.check(asked(b"x" * (1 << 20))), CheckResponse)

    app = spoken(judge, talk)
    assert app.gate.tallies.rejected == {}
    assert app.gate.engine.arrivals == len(BODIES) + 15


def test_what_is_not_of_envoys_api_is_counted_and_moves_nothing(judge: Judge) -> None:
    async def talk(caller: Caller) -> None:
        assert await caller.check(b"\xff\xff\xff") == grpc.StatusCode.INVALID_ARGUMENT
        assert await caller.check(b"") == grpc.StatusCode.INVALID_ARGUMENT  # says of nobody who it is
        assert await caller.check(asked(address="not an address!")) == grpc.StatusCode.INVALID_ARGUMENT
        assert await caller.check(asked(b"x" * (3 << 20))) == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await caller.log(b"\xff\xff\xff") == grpc.StatusCode.INVALID_ARGUMENT

    app = spoken(judge, talk)
    assert app.gate.tallies.rejected == {"malformed": 2, "gateway_address": 1, "invalid": 1}
    assert app.gate.engine.arrivals == 0


def test_ends_that_fit_nothing_are_counted(judge: Judge) -> None:
    async def talk(caller: Caller) -> None:
        identity = dict((await caller.check(asked())).dynamic_metadata)["id"]
        foreign = LogMessage()
        foreign.http_logs.log_entry.add().response.response_code.value = 200
        early = LogMessage.FromString(ended(identity))
        early.http_logs.log_entry[0].common_properties.intermediate_log_entry = True
        await caller.log(foreign.SerializeToString(), early.SerializeToString(), b"")
        assert caller.app.gate.engine.in_flight == 1
        await caller.log(ended(identity), ended(identity), ended("7-00000000"), ended(identity, status=5000))

    app = spoken(judge, talk)
    assert app.gate.tallies.completions == {"recorded": 1, "duplicate": 1, "unknown": 1}
    assert app.gate.tallies.rejected == {"invalid": 1}


@settings(max_examples=60, deadline=None)
@given(contents=st.lists(st.binary(max_size=200), min_size=1, max_size=20))
def test_any_bytes_are_answered_or_refused(judge: Judge, contents: list[bytes]) -> None:
    async def talk(caller: Caller) -> None:
        for content in contents:
            reply = await caller.check(content)
            assert isinstance(reply, CheckResponse) or reply == grpc.StatusCode.INVALID_ARGUMENT
            await caller.log(content)

    app = spoken(judge, talk)
    assert app.gate.engine.arrivals == sum(app.gate.tallies.decisions.values())


def test_a_taken_port_is_bad_input_before_the_service_starts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(InputError, match="grpc_port"):
        _check_free("127.0.0.1", taken.getsockname()[1], "grpc_port")


def test_the_port_opens_with_the_service_and_a_taken_one_is_bad_input(judge: Judge) -> None:
    app = service(judge, grpc_port=0)

    async def run() -> None:
        assert app.envoy is not None
        async with app.router.lifespan_context(app):
            async with grpc.aio.insecure_channel(f"127.0.0.1:{app.envoy.port}") as channel:
                await asyncio.wait_for(channel.channel_ready(), 10)
            other = service(judge, grpc_port=app.envoy.port)
            assert other.envoy is not None
            with pytest.raises(InputError, match="grpc_port"):
                await other.envoy.start("127.0.0.1", app.envoy.port)

    asyncio.run(run())
