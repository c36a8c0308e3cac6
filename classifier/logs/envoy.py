"""Envoy's JSON access logs, as Envoy, Envoy Gateway, Istio and Envoy AI Gateway write them.

The operator chooses the keys, so each field is looked for under the names these projects' own formats use; other names
are mapped with `columns={event_field: key}`. Dynamic metadata may come flattened (`gen_ai.usage.input_tokens`,
`io.envoy.ai_gateway:llm_input_token`) or as objects (`{"io.envoy.ai_gateway": {"llm_input_token": 7}}`, also below
`dynamic_metadata` or `filter_metadata`). Numbers may be text, since Envoy writes them so in text formats; `-` and null
are absent.

`start_time` is the arrival; `duration` is in ms. The address is Envoy's own view of the client (`downstream_remote_
address`, which honours its trusted hops), else `x-envoy-external-address`, else the last hop of `x-forwarded-for`, which
is what Envoy's own view is without trusted hops; an earlier hop is what the client claims. Last comes the direct peer
(`downstream_direct_remote_address`), which behind a balancer is the balancer for every client. Accounts need `columns`:
no key of Envoy's is verified by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from classifier.events import VERDICTS, Event
from classifier.logs.address import without_port

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
_ADDRESSES = ("downstream_remote_address", "x-envoy-external-address")
_FORWARDED = ("x-forwarded-for", "x_forwarded_for")
_PEER = ("downstream_direct_remote_address",)
_RECORD = msgspec.json.Decoder(dict[str, Any])
_MAX_SHAPES = 256
_TOO_LARGE = 2.0**63
MAPPABLE = frozenset({*_TEXT, *_NUMBERS, "ip"})


def decoder(columns: Mapping[str, str] | None) -> Callable[[bytes], Event]:
    """Return a decoder of one line; a key named in `columns` comes before the usual ones.

    The decoder raises msgspec.ValidationError or ValueError where a line gives no event.
    """
    return _Decoder(dict(columns or {})).decode


class _Decoder:
    """Decodes lines, and remembers for each set of keys under which of them a field can be.

    The lines of one log have the same keys nearly throughout, so names are compared once and not line by line.
    """

    def __init__(self, extra: Mapping[str, str]) -> None:
        usual = {**_TEXT, **_NUMBERS, "duration": _MILLISECONDS}
        usual |= {"ip": _ADDRESSES, "forwarded": _FORWARDED, "peer": _PEER}
        self._keys = {f: (extra[f].lower(), *keys) if f in extra else keys for f, keys in usual.items()}
        self._shapes: dict[tuple[str, ...], _Shape] = {}

    def decode(self, line: bytes) -> Event:
        record = _RECORD.decode(line)
        shape = self._shape(record)
        if shape.nested:
            record = _flat(record)
            shape = self._shape(record)
        found = {field: _value(record, keys) for field, keys in shape.places.items()}
        fields: dict[str, Any] = {field: _text(shape, field, value) for field, value in found.items() if field in _TEXT}
        fields.update(
            {f: _integer(shape, f, value) for f, value in found.items() if value is not None and f in _NUMBERS}
        )
        for name in ("time", "method", "path"):
            if not fields.get(name):
                raise ValueError(f"{self._keys[name][0]} is missing")
        if fields.get("verdict") not in VERDICTS:
            fields["verdict"] = None
        if found.get("duration") is not None:
            fields["duration"] = _number(shape, "duration", found["duration"]) / 1000
        return Event(ip=_address(shape, found), **fields)

    def _shape(self, record: Mapping[str, Any]) -> _Shape:
        keys = tuple(record)
        shape = self._shapes.get(keys)
        if shape is None:
            if len(self._shapes) >= _MAX_SHAPES:
                self._shapes.clear()
            shape = self._shapes[keys] = _shape_of(keys, self._keys)
        return shape


class _Shape(NamedTuple):
    """One set of keys: whether some may hold metadata objects, and the keys of each field, the best first."""

    nested: bool
    places: dict[str, tuple[str, ...]]


def _shape_of(keys: tuple[str, ...], wanted: Mapping[str, tuple[str, ...]]) -> _Shape:
    plain = {_plain(key): key for key in keys}
    places = {field: tuple(plain[name] for name in names if name in plain) for field, names in wanted.items()}
    nested = any(name == _METADATA or name in _NESTS for name in plain)
    return _Shape(nested, {field: names for field, names in places.items() if names})


def _plain(key: str) -> str:
    return key.lower().removeprefix(_METADATA + ":").removeprefix(_METADATA + ".")


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """Bring the AI gateway's metadata to the top, under its plain keys, and drop all other objects."""
    flat: dict[str, Any] = {}
    for key, value in record.items():
        name = _plain(key)
        if not isinstance(value, dict):
            flat[name] = value
        elif name == _METADATA:
            flat.update({_plain(inner): v for inner, v in value.items() if not isinstance(v, dict)})
        elif name in _NESTS:
            flat.update(_flat(value))
    return flat


def _value(record: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    for key in keys:
        value = record[key]
        if value is not None and value != "-" and value != "":
            return value
    return None


def _text(shape: _Shape, field: str, value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"Expected `str` - at `$.{_usual(shape, field)}`")
    return value


def _number(shape: _Shape, field: str, value: Any) -> float:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            value = None
    if type(value) not in (int, float) or not abs(value) < _TOO_LARGE:  # false for NaN too
        raise ValueError(f"Expected a number - at `$.{_usual(shape, field)}`")
    return float(value)


def _integer(shape: _Shape, field: str, value: Any) -> int:
    if type(value) is int:
        return value
    number = _number(shape, field, value)
    if number != int(number):
        raise ValueError(f"Expected `int` - at `$.{_usual(shape, field)}`")
    return int(number)


def _usual(shape: _Shape, field: str) -> str:
    return shape.places[field][0][:60]


def _address(shape: _Shape, found: Mapping[str, Any]) -> str:
    address = _text(shape, "ip", found.get("ip"))
    if address is None:
        hops = _text(shape, "forwarded", found.get("forwarded"))
        address = _text(shape, "peer", found.get("peer")) if hops is None else hops.rpartition(",")[2].strip()
    if address is None:
        raise ValueError("downstream_remote_address is missing, and no other address is logged")
    return without_port(address)
