"""LiteLLM's logs: the StandardLoggingPayload that its callbacks write, and rows of its spend logs, one object a line.

`startTime` is the arrival and `endTime` the last byte. Both may be Unix seconds or text; text without an offset is UTC,
as LiteLLM writes it.

- account: the virtual key's hash. LiteLLM checked it, unless it refused the request for that very key: a key that was
  turned down (401 or 403 by the proxy itself) is a `credential`.
- ip: of several hops (`use_x_forwarded_for`) the last, the nearest proxy's word, as the guardrail takes it. What is no
  address, and `unknown` to the guardrail, stays as it is: it may be a pseudonym.
- path: LiteLLM logs the kind of call; the route of the request is taken where the log has it, else derived.
- status: of a failure its error code (500 where it names none), of a success 200.
- prompt: the text of the last user message, where messages are logged.
- `end_user` is what the client says of itself and is not read.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import msgspec

from classifier.events import LATEST_S, MAX_COUNT, MICROSECONDS, Event, microseconds

_PATHS = {
    "completion": "/v1/chat/completions",
    "text_completion": "/v1/completions",
    "embedding": "/v1/embeddings",
    "responses": "/v1/responses",
    "anthropic_messages": "/v1/messages",
    "image_generation": "/v1/images/generations",
    "moderation": "/v1/moderations",
    "transcription": "/v1/audio/transcriptions",
    "speech": "/v1/audio/speech",
    "rerank": "/v1/rerank",
}
_USER_AGENT_TAG = "User-Agent: "
_Time = float | int | str


class _Metadata(msgspec.Struct):
    user_api_key_hash: str | None = None
    user_api_key: str | None = None
    user_api_key_user_id: str | None = None
    user_api_key_request_route: str | None = None
    requester_ip_address: str | None = None
    status: str | None = None
    error_information: _Error | None = None


class _Error(msgspec.Struct):
    error_code: str | int | None = None
    error_class: str | None = None
    llm_provider: str | None = None


class _Record(msgspec.Struct, rename={"start": "startTime", "end": "endTime"}):
    start: _Time
    end: _Time | None = None
    call_type: str | None = None
    status: str | None = None
    model: str | None = None
    model_group: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    requester_ip_address: str | None = None
    api_key: str | None = None
    user: str | None = None
    metadata: _Metadata | str | None = None
    error_information: _Error | None = None
    model_parameters: Any = None
    messages: Any = None
    request_tags: Any = None


_DECODER = msgspec.json.Decoder(_Record)
_METADATA = msgspec.json.Decoder(_Metadata)


def decode(line: bytes) -> Event:
    """Turn one log record into an event. Raises msgspec.ValidationError or ValueError where that cannot be done."""
    record = _DECODER.decode(line)
    meta = _metadata(record.metadata)
    error = record.error_information or meta.error_information
    status = _status(record.status or meta.status, error)
    ip = record.requester_ip_address or meta.requester_ip_address
    if not ip:
        raise ValueError("requester_ip_address is missing; let LiteLLM log it (store the proxy's request metadata)")
    start, end = _time(record.start, "startTime"), _time(record.end, "endTime") if record.end else None
    key = _hashed(meta.user_api_key_hash or record.api_key or meta.user_api_key)
    refused = status in (401, 403) and not (error and error.llm_provider)
    return Event(
        time=start,
        ip=ip.rpartition(",")[2].strip() or "unknown",
        method="POST",
        path=meta.user_api_key_request_route or _path(record.call_type),
        duration=None if end is None else _seconds(end, start),
        status=status,
        account=None if refused else key or meta.user_api_key_user_id or record.user or None,
        credential=key if refused else None,
        user_agent=_user_agent(record.request_tags),
        model=record.model_group or record.model or None,
        input_tokens=record.prompt_tokens,
        output_tokens=record.completion_tokens,
        max_tokens=max_tokens_of(record.model_parameters),
        prompt=prompt_of(record.messages),
    )


def _metadata(value: _Metadata | str | None) -> _Metadata:
    if isinstance(value, str):
        return _METADATA.decode(value) if value else _Metadata()
    return value or _Metadata()


def _time(time: _Time, name: str) -> _Time:
    """Return a time as events have it: text without an offset is UTC."""
    try:
        if not isinstance(time, str):
            if 0 < time < LATEST_S:
                return time
        else:
            stamp = datetime.fromisoformat(time)
            return (stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)).isoformat()
    except ValueError:
        pass
    raise ValueError(f"{name} is no time: neither Unix seconds of 1970 to 2261 nor RFC 3339 text")


def _seconds(end: _Time, start: _Time) -> float:
    return (microseconds(end) - microseconds(start)) / MICROSECONDS


def _status(status: str | None, error: _Error | None) -> int | None:
    if status == "success":
        return 200
    if status != "failure":
        return None
    code = str(error.error_code or "") if error else ""
    return int(code) if code.isascii() and code.isdigit() and len(code) == 3 else 500


def _path(call_type: str | None) -> str:
    kind = (call_type or "completion").lstrip("/")
    return _PATHS.get(kind) or _PATHS.get(kind.removeprefix("a")) or f"/{kind}"


def _hashed(key: str | None) -> str | None:
    """Return the hash of a key; one that was logged in clear is hashed as LiteLLM does, and never kept."""
    if not key:
        return None
    return hashlib.sha256(key.encode()).hexdigest() if key.startswith("sk-") else key


def _user_agent(tags: Any) -> str | None:
    """Return the longest user agent among the request tags, where LiteLLM puts it whole and by its first word."""
    if isinstance(tags, str):
        try:
            tags = msgspec.json.decode(tags)
        except msgspec.DecodeError:
            return None
    if not isinstance(tags, list):
        return None
    agents = [t.removeprefix(_USER_AGENT_TAG) for t in tags if isinstance(t, str) and t.startswith(_USER_AGENT_TAG)]
    return max(agents, key=len, default=None)


def max_tokens_of(parameters: Any) -> int | None:
    """Return the cap on output tokens among a call's parameters; one that no event can hold is none."""
    if not isinstance(parameters, dict):
        return None
    for name in ("max_completion_tokens", "max_tokens", "max_output_tokens"):
        value = parameters.get(name)
        if type(value) is int and 0 <= value <= MAX_COUNT:
            return value
    return None


def prompt_of(messages: Any) -> str | None:
    """Return the prompt of a call: the text itself, or that of the last user message."""
    if isinstance(messages, str):
        return messages or None
    if not isinstance(messages, list):
        return None
    for message in reversed(messages):
        if isinstance(message, dict) and message.get("role") == "user":
            return _content(message.get("content"))
    return None


def _content(content: Any) -> str | None:
    if isinstance(content, str):
        return content or None
    if not isinstance(content, list):
        return None
    texts = [p["text"] for p in content if isinstance(p, dict) and isinstance(p.get("text"), str)]
    return "\n".join(texts) or None
