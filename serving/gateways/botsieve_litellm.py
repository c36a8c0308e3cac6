"""botsieve in LiteLLM's proxy: a guardrail that asks before each call, and tells how it ended.

Copy this file beside the proxy's configuration (litellm.yaml shows it). It needs nothing but LiteLLM and httpx.

A call is decided before it is routed. Its end is told once: by the success or failure event, by the stream when the client goes
away in the middle of it, or by the failure hook. Calls with a bad key never reach a guardrail; the failure hook decides and
ends them, so that guessing keys is seen. Prompts go to botsieve and are kept nowhere; keys are never sent.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from hashlib import blake2b
from ipaddress import ip_address
from traceback import walk_tb
from typing import Any
from urllib.parse import urlsplit

import httpx
from fastapi import HTTPException
from litellm._logging import verbose_proxy_logger as log
from litellm.integrations.custom_guardrail import CustomGuardrail
from litellm.proxy._types import UserAPIKeyAuth
from starlette.requests import Request

MOST_OPEN = 100_000
"""Calls that are remembered until they end; beyond it the oldest end untold, and expire in botsieve."""
MOST_SAME = 1_000
"""The same, of the calls to which a client gave one id."""
MOST_PROMPT = 100_000
MOST_TEXT = 2_000
"""Characters of a header, a path or a pass; botsieve reads no more of them, and refuses what is far more."""
CLIENT_CLOSED = 499


class BotsieveGuardrail(CustomGuardrail):
    """Asks botsieve about each call. `fail_mode` says what happens when it does not answer in `timeout_s`: open or closed."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8460",
        token: str | None = None,
        fail_mode: str = "open",
        timeout_s: float = 0.5,
        **given: Any,
    ) -> None:
        if fail_mode not in ("open", "closed"):
            raise ValueError(f"fail_mode is open or closed, not {fail_mode!r}")
        super().__init__(**given)
        self._closed = fail_mode == "closed"
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.AsyncClient(base_url=url, headers=headers, timeout=float(timeout_s), trust_env=False)
        self._open: OrderedDict[str, list[Any]] = OrderedDict()  # call: ids of decisions, and when they began
        self._shared: OrderedDict[str, None] = OrderedDict()  # calls of which several were open at once
        self._refused: OrderedDict[str, list[Any]] = OrderedDict()  # calls that this guardrail refused
        self._tasks: set[asyncio.Task[Any]] = set()

    # --- before the call -------------------------------------------------------------------------------------------------

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: Any
    ) -> None:
        """Ask, and refuse what botsieve refuses."""
        call = str(data.get("litellm_call_id") or "")
        answer = await self._decide(self.event(data, user_api_key_dict), _headers(data).get("x-botsieve-pass"))
        if answer is None:
            if self._closed:
                _keep(self._refused, call, True)
                raise HTTPException(
                    503, {"title": "unavailable", "detail": "Requests cannot be checked at the moment."}
                )
            return
        if answer["enforced"] == "allow":
            if call in self._open:
                self._shared[call] = None
                if len(self._shared) > MOST_OPEN:
                    self._shared.popitem(last=False)
            _keep(self._open, call, (answer["id"], time.monotonic()))
            return
        _keep(self._refused, call, True)
        raise _refusal(answer)

    def event(self, data: dict[str, Any], key: Any) -> dict[str, Any]:
        """Return what is known of a call, as botsieve's event."""
        headers, request = _headers(data), data.get("proxy_server_request") or {}
        token = getattr(key, "token", None) or getattr(key, "api_key", None)
        created: Any = getattr(key, "created_at", None)
        size = headers.get("content-length", "")
        known = {
            "ip": _address(_written(data).get("requester_ip_address")),
            "method": request.get("method") or "POST",
            "path": _path(request.get("url")),
            "account": _digest(token) if token else None,
            "account_created": created.timestamp() if hasattr(created, "timestamp") else None,
            "user_agent": headers.get("user-agent", "")[:MOST_TEXT] or None,
            "referer": headers.get("referer", "")[:MOST_TEXT] or None,
            "request_bytes": int(size) if size.isascii() and size.isdigit() and len(size) < 16 else None,
            "model": str(data["model"])[:200].encode("utf-8", "replace").decode() if data.get("model") else None,
            "max_tokens": _cap(data),
            "prompt": _prompt(data),
        }  # fmt: skip
        return {name: value for name, value in known.items() if value is not None}

    async def _decide(self, event: dict[str, Any], carried: str | None) -> dict[str, Any] | None:
        """Return botsieve's answer, None when there is none.

        What it cannot read is a client's doing, which must not bring about the fail mode: it is asked again about the rest.
        """
        bare = {name: event[name] for name in ("time", "ip", "method", "path", "account") if name in event}
        if carried and not (len(carried) <= MOST_TEXT and carried.isascii() and carried.isprintable()):
            carried = None
        for asked in (event, bare):
            try:
                reply = await self._http.post(
                    "/v1/decide", json=asked, headers={"x-botsieve-pass": carried} if carried else {}
                )
                if reply.status_code == 200:
                    return dict(reply.json())
                log.error("botsieve answered %s", reply.status_code)
                if reply.status_code >= 500:
                    break
            except httpx.HTTPError as error:
                log.error("botsieve did not answer: %s", type(error).__name__)
                break
            except ValueError as error:
                log.error("a call cannot be told to botsieve: %s", type(error).__name__)
        return None

    # --- how it ended ----------------------------------------------------------------------------------------------------

    async def async_log_success_event(
        self, kwargs: dict[str, Any], response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """Tell of a call that was answered."""
        payload = kwargs.get("standard_logging_object") or {}
        self._ended(
            str(kwargs.get("litellm_call_id") or ""),
            200,
            payload.get("prompt_tokens"),
            payload.get("completion_tokens"),
        )

    async def async_log_failure_event(
        self, kwargs: dict[str, Any], response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """Tell of a call that failed behind the proxy."""
        self._ended(str(kwargs.get("litellm_call_id") or ""), _status(kwargs.get("exception")))

    async def async_post_call_failure_hook(
        self,
        request_data: dict[str, Any],
        original_exception: Exception,
        user_api_key_dict: Any,
        traceback_str: str | None = None,
    ) -> None:
        """Tell of a call that failed; where it never reached the guardrail (a bad key), decide about it, too."""
        call = str(request_data.get("litellm_call_id") or "")
        if _take(self._refused, call):  # by us: botsieve knows
            return
        status = _status(original_exception)
        if _written(request_data):
            # Of one of several `async_log_failure_event` alone tells, so that none ends twice.
            if call not in self._shared:
                self._ended(call, status)
        elif status in (401, 403):
            refused = _request(original_exception)
            self._start(self._decide_bad_key(request_data, user_api_key_dict, refused, status))

    async def async_post_call_streaming_iterator_hook(
        self, user_api_key_dict: Any, response: Any, request_data: dict[str, Any]
    ) -> Any:
        """Pass a stream on; when the client goes away in its middle, tell how far it came."""
        call, pieces, whole = str(request_data.get("litellm_call_id") or ""), 0, False
        try:
            async for chunk in response:
                pieces += _has_text(chunk)
                yield chunk
            whole = True
        finally:
            if not whole and call not in self._shared:
                self._ended(call, CLIENT_CLOSED, None, pieces)

    async def _decide_bad_key(self, data: dict[str, Any], key: Any, request: Request | None, status: int) -> None:
        # LiteLLM has not cleaned these data of what the client writes under LiteLLM's own names.
        headers = dict(request.headers) if request else {}
        own = {"url": str(request.url), "method": request.method, "headers": headers} if request else {}
        event = self.event({**data, "proxy_server_request": own}, None)
        event["ip"] = _address(_peer(request)) if request else "unknown"
        given = headers.get("authorization") or headers.get("x-api-key") or getattr(key, "api_key", None)
        if given:
            event["credential"] = _digest(str(given))
        answer = await self._decide(event, None)
        if answer is not None and answer["enforced"] == "allow":
            await self._complete({"id": answer["id"], "status": status})

    def _ended(self, call: str, status: int, read: int | None = None, written: int | None = None) -> None:
        found = _take(self._open, call)
        if found is None:
            return
        completion = {"id": found[0], "status": status, "duration": round(time.monotonic() - found[1], 6),
                      "input_tokens": read, "output_tokens": written}  # fmt: skip
        self._start(self._complete({name: value for name, value in completion.items() if value is not None}))

    async def _complete(self, completion: dict[str, Any]) -> None:
        try:
            await self._http.post("/v1/complete", json=completion)
        except httpx.HTTPError as error:
            log.error("botsieve did not hear how a call ended: %s", type(error).__name__)

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


_BLOCKED = "This request is blocked: it looks like an attack."
_CHALLENGED = "Solve the challenge of this request, then send it again with the pass that this earns."
_WAITING = "The service is full and under attack: send this request again later, with the same pass."


def _refusal(answer: dict[str, Any]) -> HTTPException:
    """Return the error that LiteLLM wraps: the fields of botsieve's problem document."""
    detail: dict[str, Any] = {
        "id": answer["id"],
        "title": "blocked",
        "detail": _BLOCKED,
    }
    headers = {"x-botsieve-id": answer["id"], "cache-control": "no-store"}
    if answer["enforced"] != "challenge":
        return HTTPException(403, detail, headers)
    detail |= {
        "title": "challenge",
        "detail": _CHALLENGED,
    }
    if answer.get("challenge"):
        detail["challenge"] = answer["challenge"]
        headers["www-authenticate"] = f'Botsieve challenge="{answer["challenge"]["url"]}"'
        if "wait" in answer["challenge"]:
            detail["detail"] = _WAITING
            headers["retry-after"] = str(answer["challenge"]["wait"])
    return HTTPException(401, detail, headers)


def _headers(data: dict[str, Any]) -> dict[str, str]:
    found = (data.get("proxy_server_request") or {}).get("headers") or {}
    return {str(name).lower(): str(value) for name, value in found.items()}


def _written(data: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata that LiteLLM itself wrote: by route one of two, and the other one is the client's.

    No JSON that a client sends makes an object of LiteLLM's.
    """
    for name in ("litellm_metadata", "metadata"):
        found = data.get(name)
        if isinstance(found, dict) and isinstance(found.get("user_api_key_auth"), UserAPIKeyAuth):
            return found
    return {}


def _address(told: Any) -> str:
    """Return the address that LiteLLM tells. Of a list of hops (`use_x_forwarded_for`) the last is the nearest proxy's word."""
    hop = str(told or "").rpartition(",")[2].strip()
    try:
        return str(ip_address(hop))
    except ValueError:
        return "unknown"


def _path(url: Any) -> str:
    try:
        return urlsplit(str(url or "")).path[:MOST_TEXT] or "/"
    except ValueError:
        return "/"


def _request(error: Exception) -> Request | None:
    """Return the request that was refused, out of the frames of the refusal: LiteLLM hands it to no hook."""
    for frame, _ in walk_tb(error.__traceback__):
        request = frame.f_locals.get("request")
        if isinstance(request, Request):
            return request
    return None


def _peer(request: Request) -> str | None:
    """Return the address of a request as LiteLLM has it of any other."""
    from litellm.proxy.proxy_server import general_settings

    if general_settings.get("use_x_forwarded_for") is True and "x-forwarded-for" in request.headers:
        return request.headers["x-forwarded-for"]
    return request.client.host if request.client else None


def _keep(held: OrderedDict[str, list[Any]], call: str, value: Any) -> None:
    """Remember a call. Its id may be the client's (`x-litellm-call-id`), and that of others, too."""
    same = held.setdefault(call, [])
    same.append(value)
    del same[:-MOST_SAME]
    if len(held) > MOST_OPEN:
        held.popitem(last=False)


def _take(held: OrderedDict[str, list[Any]], call: str) -> Any:
    """Return what was first remembered of a call, and forget it; None if there is nothing."""
    same = held.pop(call, None)
    if same is None:
        return None
    value = same.pop(0)
    if same:
        held[call] = same
    return value


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=12, person=b"botsieve").hexdigest()


def _status(error: Any) -> int:
    code = getattr(error, "status_code", None) or getattr(error, "code", None)
    try:
        return int(code) if code is not None else 500
    except ValueError:
        return 500


def _has_text(chunk: Any) -> bool:
    """Whether a piece of a stream holds text: about one token each."""
    for choice in getattr(chunk, "choices", None) or ():
        delta = getattr(choice, "delta", None)
        if getattr(delta, "content", None) or getattr(choice, "text", None):
            return True
    return False


def _prompt(data: dict[str, Any]) -> str | None:
    """Return the text of a call as LiteLLM's logs are read, too: the last user message, else the prompt or input."""
    for name in ("messages", "prompt", "input"):
        text = _text(data.get(name))
        if text is not None:
            # What cannot be sent must not keep botsieve from being asked: too long, or no Unicode.
            return text[:MOST_PROMPT].encode("utf-8", "replace").decode()
    return None


def _text(messages: Any) -> str | None:
    if isinstance(messages, str):
        return messages or None
    users = (
        (m for m in reversed(messages) if isinstance(m, dict) and m.get("role") == "user")
        if isinstance(messages, list)
        else ()
    )
    content = next(iter(users), {}).get("content")
    if isinstance(content, list):
        parts = [part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)]
        content = "\n".join(parts)
    return content if isinstance(content, str) and content else None


def _cap(data: dict[str, Any]) -> int | None:
    """Return the cap on output tokens."""
    for name in ("max_completion_tokens", "max_tokens", "max_output_tokens"):
        value = data.get(name)
        if type(value) is int and 0 <= value < 2**53:
            return value
    return None
