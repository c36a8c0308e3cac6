"""Envoy's JSON access logs, as Envoy, Envoy Gateway, Istio and Envoy AI Gateway write them.

The operator chooses the keys, so each field is looked for under the names these projects' own formats use; other names
are mapped with `columns={event_field: key}`. Dynamic metadata may come flattened (`gen_ai.usage.input_tokens`,
`io.envoy.ai_gateway:llm_input_token`) or as objects (`{"io.envoy.ai_gateway": {"llm_input_token": 7}}`, also below
`dynamic_metadata` or `filter_metadata`). Numbers may be text, since Envoy writes them so in text formats; `-` and null
are absent.

`start_time` is the arrival; `duration` is in ms. The address is Envoy's own view of the client (`downstream_remote_
address`, which honours its trusted hops), else `x-envoy-external-address`, else the last hop of `x-forwarded-for`, the
one the proxy itself added; an earlier hop is what the client claims. Accounts need `columns`: no key of Envoy's is
verified by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from classifier.events import VERDICTS, Event

_METADATA = "io.envoy.ai_gateway"
_NESTS = ("dynamic_metadata", "filter_metadata", "metadata")
_TEXT: dict[str, tuple[str, ...]] = {
    "time": ("start_time",),
    "method": ("method", ":method", "x-envoy-original-method", "request_method"),
    "path": ("x-envoy-origin-path", "x-envoy-original-path", "path", ":path"),
    "user_agent": ("user-agent", "user_agent"),
    "referer": ("referer",),
    "fingerprint": ("ja4", "tls_ja4_fingerprint", "tls_ja3_fingerprint"),
    "model": ("gen_ai.request.model", "x-ai-eg-model", "request_model", "model", "gen_ai.response.model"),
    "verdict": ("x-botsieve-enforced",),
    "account": (),
    "credential": (),
    "family": (),
}
_NUMBERS: dict[str, tuple[str, ...]] = {
    "status": ("response_code",),
    "request_bytes": ("bytes_received",),
    "response_bytes": ("bytes_sent",),
    "input_tokens": ("gen_ai.usage.input_tokens", "llm_input_token", "gen_ai.usage.prompt_tokens", "input_tokens"),
    "output_tokens": (
        "gen_ai.usage.output_tokens",
        "llm_output_token",
        "gen_ai.usage.completion_tokens",
        "output_tokens",
    ),
    "max_tokens": ("gen_ai.request.max_tokens",),
}
_MILLISECONDS = ("duration", "duration_ms")
_ADDRESSES = ("downstream_remote_address", "x-envoy-external-address", "downstream_direct_remote_address")
_FORWARDED = ("x-forwarded-for", "x_forwarded_for")
_RECORD = msgspec.json.Decoder(dict[str, Any])
MAPPABLE = frozenset({*_TEXT, *_NUMBERS, "ip"})


def decoder(columns: Mapping[str, str] | None) -> Callable[[bytes], Event]:
    """Return a decoder of one line; a key named in `columns` comes before the usual ones.

    The decoder raises msgspec.ValidationError or ValueError where a line gives no event.
    """
    extra = dict(columns or {})
    texts = {field: _first(extra, field, keys) for field, keys in _TEXT.items()}
    numbers = {field: _first(extra, field, keys) for field, keys in _NUMBERS.items()}
    addresses = _first(extra, "ip", _ADDRESSES)

    def decode(line: bytes) -> Event:
        record = _flat(_RECORD.decode(line))
        fields: dict[str, Any] = {field: _text(record, keys) for field, keys in texts.items()}
        fields.update({field: _integer(record, keys) for field, keys in numbers.items()})
        for name in ("time", "method", "path"):
            if not fields[name]:
                raise ValueError(f"{texts[name][0]} is missing")
        if fields["verdict"] not in VERDICTS:
            fields["verdict"] = None
        milliseconds = _number(record, _MILLISECONDS)
        fields["duration"] = None if milliseconds is None else milliseconds / 1000
        return Event(ip=_address(record, addresses), **fields)

    return decode


def _first(extra: Mapping[str, str], field: str, keys: tuple[str, ...]) -> tuple[str, ...]:
    return (extra[field].lower(), *keys) if field in extra else keys


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """Bring keys to lower case and the AI gateway's metadata to the top, under its plain keys."""
    flat: dict[str, Any] = {}
    for key, value in record.items():
        name = key.lower()
        if isinstance(value, dict):
            if name == _METADATA:
                flat.update({k.lower(): v for k, v in value.items()})
            elif name in _NESTS:
                flat.update(_flat(value))
        else:
            flat[name.removeprefix(_METADATA + ":").removeprefix(_METADATA + ".")] = value
    return flat


def _find(record: Mapping[str, Any], keys: tuple[str, ...]) -> tuple[str, Any]:
    for key in keys:
        value = record.get(key)
        if value is not None and value not in ("-", ""):
            return key, value
    return "", None


def _text(record: Mapping[str, Any], keys: tuple[str, ...]) -> str | None:
    key, value = _find(record, keys)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"Expected `str` - at `$.{key}`")
    return value


def _number(record: Mapping[str, Any], keys: tuple[str, ...]) -> float | None:
    key, value = _find(record, keys)
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            value = None
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"Expected a number - at `$.{key}`")
    return float(value)


def _integer(record: Mapping[str, Any], keys: tuple[str, ...]) -> int | None:
    value = _number(record, keys)
    if value is not None and value != int(value):
        raise ValueError(f"Expected `int` - at `$.{_find(record, keys)[0]}`")
    return None if value is None else int(value)


def _address(record: Mapping[str, Any], keys: tuple[str, ...]) -> str:
    address = _text(record, keys)
    if address is None:
        hops = _text(record, _FORWARDED)
        if hops is None:
            raise ValueError("downstream_remote_address is missing, and no other address is logged")
        address = hops.rpartition(",")[2].strip()
    return _without_port(address)


def _without_port(address: str) -> str:
    if address.startswith("["):
        return address[1:].partition("]")[0]
    host, _, port = address.rpartition(":")
    return host if port.isdigit() and host and ":" not in host else address
