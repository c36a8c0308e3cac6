"""Envoy over gRPC: ext_authz (`Check`) asks for decisions, the access-log service (`StreamAccessLogs`) tells how requests ended.

`Check` may carry the request's body, out of which model, prompt and `max_tokens` are read. The decision's id travels as dynamic
metadata of the filter: Envoy hands it back with the access log, and no client and no upstream ever sees it. The port is for
gateways: whoever speaks to it must come from `trusted_proxies` and carry the token. An error makes Envoy's own fail mode act.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import unquote

import grpc
import grpc.aio
import msgspec
from google.protobuf.message import DecodeError

from classifier.errors import InputError
from classifier.events import MAX_COUNT, MICROSECONDS
from classifier.logs.address import without_port
from classifier.logs.litellm import max_tokens_of, prompt_of
from serving.authorize import STATUS, TOKEN_HEADER, Authorize, carried_pass, size_of, text_of
from serving.envoy_messages import CheckRequest, CheckResponse, LogMessage, LogResponse
from serving.gate import Completion, Gate, Live, LiveEvent, Rejected, Tallies
from serving.hot import load_of
from serving.passes import HEADER
from serving.problems import Problem

if TYPE_CHECKING:
    from serving.access import Access, HeaderList

AUTHORIZATION, LOGS = "envoy.service.auth.v3.Authorization", "envoy.service.accesslog.v3.AccessLogService"
FILTER = "envoy.filters.http.ext_authz"
"""Under this name Envoy keeps the metadata that `Check` answers with: the filter's name in its configuration."""
AI_GATEWAY = "io.envoy.ai_gateway"
_DENIED = {401: 16, 403: 7}  # google.rpc.Code: UNAUTHENTICATED, PERMISSION_DENIED
_OVERWRITE = 2
_ENVELOPE = 65_536

log = logging.getLogger("botsieve.serving")


class Envoy:
    """Serves Envoy for one gate, on a port of its own and in the same event loop."""

    def __init__(self, gate: Gate, authorize: Authorize, access: Access) -> None:
        self._gate, self._authorize, self._access = gate, authorize, access
        self._server: grpc.aio.Server | None = None
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Listen; port 0 takes any that is free. Raises InputError where that cannot be."""
        settings = self._gate.settings
        limit = settings.max_body_bytes + settings.max_header_bytes + _ENVELOPE
        server = grpc.aio.server(
            options=[("grpc.max_receive_message_length", limit), ("grpc.so_reuseport", 0)],
            maximum_concurrent_rpcs=settings.max_connections,
            interceptors=(_Door(self._access, self._gate.tallies),),
        )
        check: Any = grpc.unary_unary_rpc_method_handler(self._check)
        logs: Any = grpc.stream_unary_rpc_method_handler(self._logs)
        server.add_generic_rpc_handlers((
            grpc.method_handlers_generic_handler(AUTHORIZATION, {"Check": check}),
            grpc.method_handlers_generic_handler(LOGS, {"StreamAccessLogs": logs}),
        ))  # fmt: skip
        try:
            self.port = server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        except RuntimeError as error:
            await server.stop(None)
            raise InputError(f"grpc_port {port} cannot be listened on; choose another") from error
        await server.start()
        self._server = server

    async def stop(self) -> None:
        """End what runs, within seconds."""
        if self._server is not None:
            await self._server.stop(1.0)

    # --- asking ----------------------------------------------------------------------------------------------------------

    async def _check(self, content: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        try:
            self._admit(context)
            attributes = _parsed(CheckRequest, content).attributes
            headers = _headers(attributes.request.http)
            self._access.check_headers(headers)
            event = self._event(attributes, headers)
            load = text_of(headers, "x-botsieve-load")
            live = Live(carried_pass(headers), None if load is None else load_of(load.encode()))
            reply = await self._authorize.decide(event, live, text_of(headers, "accept") or "")
        except Problem as problem:
            await self._refuse(problem, context)
        response = CheckResponse()
        answer = reply.answer
        response.dynamic_metadata.update({"id": answer.id, "decision": answer.decision, "enforced": answer.enforced})
        if answer.score is not None:
            response.dynamic_metadata.update({"score": answer.score})
        if reply.status == STATUS["allow"]:
            response.status.code = 0
            response.ok_response.headers_to_remove.append(HEADER)
        else:
            response.status.code = _DENIED[reply.status]
            response.denied_response.status.code = reply.status
            response.denied_response.body = reply.body.decode()
            for name, value in reply.headers:
                option = response.denied_response.headers.add(append_action=_OVERWRITE)
                option.header.key, option.header.value = name.decode(), value.decode("latin-1")
        return _bytes(response)

    def _event(self, attributes: Any, headers: HeaderList) -> LiveEvent:
        asked = attributes.request.http
        address = attributes.source.address.socket_address.address
        event = LiveEvent(ip=address, method=_text(asked.method) or "-", path=_text(asked.path) or "/")
        if not event.ip:
            raise Problem(500, "gateway_address", "Envoy did not say who the client is")
        self._authorize.forwarded.describe(event, headers)
        if self._gate.settings.clock == "event":
            event.time = self._authorize.forwarded.time(headers)
        body = asked.raw_body or asked.body
        event.request_bytes = size_of(text_of(headers, "content-length"))
        if event.request_bytes is None and 0 <= asked.size <= MAX_COUNT:
            event.request_bytes = asked.size  # what has come of it so far
        if body:
            _read_body(body, event)
        return event

    # --- how it ended ----------------------------------------------------------------------------------------------------

    async def _logs(self, messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        try:
            self._admit(context)
            async for content in messages:
                for entry in _parsed(LogMessage, content).http_logs.log_entry:
                    self._ended(entry)
        except Problem as problem:
            await self._refuse(problem, context)
        return _bytes(LogResponse())

    def _ended(self, entry: Any) -> None:
        common, response = entry.common_properties, entry.response
        metadata = {one.key: one.value for one in common.metadata.filter_metadata}
        told = metadata.get(FILTER)
        if common.intermediate_log_entry or told is None or "id" not in told.fields or told["enforced"] != "allow":
            return  # not its end, not asked about, or refused, which has ended it
        code = response.response_code.value
        completion = Completion(
            str(told["id"]),
            status=code or None,
            duration=common.duration.ToMicroseconds() / MICROSECONDS if common.HasField("duration") else None,
            response_bytes=response.response_body_bytes,
            input_tokens=_count(metadata.get(AI_GATEWAY), "llm_input_token"),
            output_tokens=_count(metadata.get(AI_GATEWAY), "llm_output_token"),
        )
        try:
            self._gate.check_completion(completion)
        except Rejected as error:
            self._gate.tallies.rejected[error.reason] += 1
            return
        self._gate.complete(completion)

    # --- who may speak ---------------------------------------------------------------------------------------------------

    def _admit(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Raise Problem unless the gateway is trusted; that it carries the token has been seen to at the door."""
        kind, _, address = unquote(context.peer()).partition(":")
        if kind not in ("ipv4", "ipv6") or not self._authorize.forwarded.trusts(without_port(address)):
            raise Problem(403, "untrusted", "the gateway's address is not within trusted_proxies")

    async def _refuse(self, problem: Problem, context: grpc.aio.ServicerContext[Any, Any]) -> NoReturn:
        self._gate.tallies.rejected[problem.reason] += 1
        code = grpc.StatusCode.PERMISSION_DENIED if problem.status == 403 else grpc.StatusCode.INVALID_ARGUMENT
        await context.abort(code, problem.detail)
        raise AssertionError("abort has raised")


class _Door(grpc.aio.ServerInterceptor):
    """Turns away who has no token before a message is waited for: a call that never sends one would keep its place."""

    def __init__(self, access: Access, tallies: Tallies) -> None:
        self._access, self._tallies = access, tallies

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        """Return who serves a call."""
        given = dict(details.invocation_metadata or ()).get(TOKEN_HEADER.decode())
        if self._access.token_fits(given.encode() if isinstance(given, str) else given):
            return await continuation(details)
        self._tallies.rejected["token"] += 1
        return grpc.stream_unary_rpc_method_handler(_turned_away)


async def _turned_away(_: Any, context: Any) -> NoReturn:
    detail = f"the gateway must send the service's token as {TOKEN_HEADER.decode()}"
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, detail)
    raise AssertionError("abort has raised")


class _Body(msgspec.Struct):
    """What is read of a request's body (OpenAI's interface and those like it); any of it may be of any type."""

    model: Any = None
    messages: Any = None
    prompt: Any = None
    input: Any = None
    max_tokens: Any = None
    max_completion_tokens: Any = None
    max_output_tokens: Any = None


_BODY = msgspec.json.Decoder(_Body)


def _read_body(body: bytes, event: LiveEvent) -> None:
    """Take model, prompt and cap out of a body; one that is no JSON, or was cut off, tells its size alone."""
    try:
        asked = _BODY.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return
    if isinstance(asked.model, str):
        event.model = asked.model
    event.max_tokens = max_tokens_of(msgspec.structs.asdict(asked))
    event.prompt = next(
        (text for given in (asked.messages, asked.prompt, asked.input) if (text := prompt_of(given)) is not None), None
    )


def _count(metadata: Any, name: str) -> int | None:
    value = None if metadata is None or name not in metadata.fields else metadata[name]
    return int(value) if isinstance(value, float) and 0 <= value <= MAX_COUNT else None


def _headers(asked: Any) -> HeaderList:
    return [(entry.key.lower(), entry.value) for entry in asked.headers]


def _text(content: bytes) -> str:
    return content.decode("latin-1")


def _parsed(kind: Any, content: bytes) -> Any:
    try:
        return kind.FromString(content)
    except DecodeError as error:
        raise Problem(400, "malformed", "the message is not of Envoy's API") from error


def _bytes(message: Any) -> bytes:
    content: bytes = message.SerializeToString()
    return content
