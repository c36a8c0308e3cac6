"""The request event: one HTTP request as a gateway saw it.

`FIELDS` is the one table of its fields; the Arrow schema of event tables and the decoder of JSON events derive from it.
In memory, events are an Arrow table with `EVENT_SCHEMA`: missing is null, and `time` is in int64 microseconds.
In files, `time` is a number of Unix seconds or RFC 3339 text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

MICROSECONDS = 1_000_000
LATEST_S = 9_214_646_400
"""Unix s at which 2262 begins: times lie before it."""
LATEST_ACCOUNT_S = 1e11
"""Unix s within which an account was made; more are milliseconds."""
MAX_DURATION_S = 366 * 86_400.0
"""Longest duration believed, s; longer ones are errors of the log."""
COUNTS = ("request_bytes", "response_bytes", "input_tokens", "output_tokens", "max_tokens")
MAX_COUNT = 2**53 - 1
"""Most bytes or tokens: what a float64 holds exactly."""
EXPIRY_S = 600
"""A completion later than this after its arrival does not count: the request has expired."""
UNLABELLED = "log"
"""The `family` that rows of a user's own log get when they are taken as legitimate for want of a label."""
VERDICTS = ("allow", "challenge", "block")


class Field(NamedTuple):
    """One field of the event: its name, Arrow type, when it is known, and what it means."""

    name: str
    type: pa.DataType
    known: str
    meaning: str


FIELDS = (
    Field("time", pa.int64(), "arrival", "arrival at the gateway (µs in memory; Unix s or RFC 3339 in files)"),
    Field("ip", pa.string(), "arrival", "client address as the trusted proxy saw it"),
    Field("method", pa.string(), "arrival", "HTTP method"),
    Field("path", pa.string(), "arrival", "path without scheme and host"),
    Field("duration", pa.float64(), "completion", "s, from arrival to the last byte"),
    Field("status", pa.int64(), "completion", "response status"),
    Field("account", pa.string(), "arrival", "account or API-key id from a source declared verified"),
    Field("credential", pa.string(), "arrival", "hash of an unverified credential"),
    Field("account_created", pa.float64(), "arrival", "Unix s, when the account was made"),
    Field("user_agent", pa.string(), "arrival", "request header"),
    Field("referer", pa.string(), "arrival", "request header"),
    Field("fingerprint", pa.string(), "arrival", "TLS client fingerprint, JA4 by preference"),
    Field("request_bytes", pa.int64(), "arrival", "request body size, bytes"),
    Field("response_bytes", pa.int64(), "completion", "response body size, bytes"),
    Field("model", pa.string(), "arrival", "model asked for"),
    Field("input_tokens", pa.int64(), "completion", "prompt tokens used"),
    Field("output_tokens", pa.int64(), "completion", "completion tokens used"),
    Field("max_tokens", pa.int64(), "arrival", "the cap on output tokens that was asked for"),
    Field("prompt", pa.string(), "arrival", "prompt text; never stored or logged"),
    Field("verdict", pa.string(), "completion", "what botsieve enforced: allow, challenge, block"),
    Field("malicious", pa.bool_(), "label", "label, where known"),
    Field("family", pa.string(), "label", "attack family, or kind of legitimate client"),
)
EVENT_SCHEMA = pa.schema([(f.name, f.type) for f in FIELDS])
REQUIRED = ("time", "ip", "method", "path")
JOURNAL_SCHEMA = pa.schema([
    ("end", pa.int64()), ("client_key", pa.uint64()), ("address_key", pa.uint64()), ("network_key", pa.uint64()),
    ("template_key", pa.uint64()), ("prompt_length", pa.int64()),
    ("prompt_score", pa.float32()),
])  # fmt: skip
"""What event tables of a journal hold beside EVENT_SCHEMA: the moment of the completion as it was processed (µs), keyed hashes
as they were when the event was processed, and of a prompt only its template's hash, its length in characters and its score."""


class Event(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=False):
    """One event as JSON carries it. A wrong type is an error; an unknown key is ignored."""

    time: int | float | str
    ip: str
    method: str
    path: str
    duration: float | None = None
    status: int | None = None
    account: str | None = None
    credential: str | None = None
    account_created: float | None = None
    user_agent: str | None = None
    referer: str | None = None
    fingerprint: str | None = None
    request_bytes: int | None = None
    response_bytes: int | None = None
    model: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    max_tokens: int | None = None
    prompt: str | None = None
    verdict: str | None = None
    malicious: bool | None = None
    family: str | None = None


def microseconds(time: float | str) -> int:
    """Turn a number of Unix seconds or an RFC 3339 text into int64 microseconds.

    Raises ValueError when the text is no time with an offset, or the time is not after 1970 or not before 2262.
    """
    if isinstance(time, str):
        stamp = datetime.fromisoformat(time)
        if stamp.tzinfo is None:
            raise ValueError(f"time {time!r} has no UTC offset")
        whole = int(stamp.replace(microsecond=0).timestamp())
        value = whole * MICROSECONDS + stamp.microsecond
    else:
        if not math.isfinite(time):
            raise ValueError(f"time {time!r} is not a finite number")
        value = round(time * MICROSECONDS)
    if not 0 < value < LATEST_S * MICROSECONDS:
        raise ValueError(f"time {time!r} is not in the years 1970 to 2261 (is it in Unix seconds?)")
    return value


def check(event: Event) -> None:
    """Raise ValueError when a field's value is of the right type and still impossible."""
    if not event.ip or not event.method or not event.path:
        raise ValueError("ip, method and path must not be empty")
    if event.duration is not None and not 0 <= event.duration <= MAX_DURATION_S:
        raise ValueError(f"duration {event.duration!r} is not between 0 s and a year")
    if event.status is not None and not 0 <= event.status <= 999:
        raise ValueError(f"status {event.status!r} is no HTTP status")
    if event.verdict is not None and event.verdict not in VERDICTS:
        raise ValueError(f"verdict {event.verdict!r} is none of {', '.join(VERDICTS)}")
    if event.account_created is not None and not abs(event.account_created) < LATEST_ACCOUNT_S:
        raise ValueError(f"account_created {event.account_created!r} is not in Unix seconds")
    for name in COUNTS:
        count = getattr(event, name)
        if count is not None and not 0 <= count <= MAX_COUNT:
            raise ValueError(f"{name} {count!r} is not between 0 and 2^53")


def empty_table() -> pa.Table:
    """Return an event table without rows."""
    return EVENT_SCHEMA.empty_table()


def table_of(events: Iterable[Event]) -> pa.Table:
    """Build an event table from checked events, in their order."""
    rows = list(events)
    columns = {f.name: pa.array([getattr(e, f.name) for e in rows], f.type) for f in FIELDS[1:]}
    times = pa.array([microseconds(e.time) for e in rows], pa.int64())
    return pa.table({"time": times, **columns}, schema=EVENT_SCHEMA)


def clients_of(events: pa.Table) -> pa.ChunkedArray:
    """Return the client of each event: its account when there is one, else its address."""
    return pc.coalesce(events.column("account"), events.column("ip"))


def records(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Yield each event of a table as the JSON object of the contract: time in Unix seconds, missing fields absent."""
    for batch in table.to_batches(max_chunksize=16_384):
        for record in batch.to_pylist():
            record["time"] = record["time"] / MICROSECONDS
            yield {name: value for name, value in record.items() if value is not None}
