"""JSON logs: one object a line, or one array of objects in the file.

The event schema itself is decoded here, strictly typed, with unknown keys ignored; under keys of other names
(`columns={event_field: key}`) also as gateways write it: numbers may be text, and `""` and `-` are absent. LiteLLM and
Envoy give a decoder of their own (`litellm`, `envoy`). A JSON array is read as a whole, so only up to 256 MiB; its
rejects are numbered by element and have no byte offset.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from classifier.errors import LogError
from classifier.events import EVENT_SCHEMA, FIELDS, MICROSECONDS, REQUIRED, Event, check, microseconds
from classifier.logs.batch import NO_OFFSET, Batch, of_block
from classifier.logs.lines import BLANKS, MAX_LINE, TOO_LONG, Block, IntArray
from classifier.logs.reading import CONTENT_BYTES, Reject
from classifier.logs.screen import BAD_TIME, reason_of, screen
from classifier.logs.source import BOM, Source

MAX_ARRAY = 256 << 20
ARRAY_STEP = 16_384
NOT_JSON = "line is no JSON object"
TOO_DEEP = "line's JSON is nested too deeply"
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding raises for bytes that are no JSON, of the wrong types, no UTF-8, or nested too deeply."""

Decode = Callable[[bytes], Event]
_EVENT = msgspec.json.Decoder(Event)
_RECORD = msgspec.json.Decoder(dict[str, Any])
_ABSENT = (None, "", "-")


class JsonReader:
    """Decodes blocks of JSON Lines with `decode`, one line to one event. With `end_stamps` time is the request's end.

    `decode` raises one of UNREADABLE or ValueError for a line it cannot take.
    """

    def __init__(self, decode: Decode, end_stamps: bool, keep: bool) -> None:
        self._decode = decode
        self._end_stamps = end_stamps
        self._keep = keep

    def parse(self, block: Block) -> Batch:
        """Decode one block. Lines that cannot be read become rejects."""
        rows = block.filled()
        refused: dict[int, str] = {}
        events = self._at_once(block, rows) if self._decode is decode_event else None
        if events is None:
            events = []
            for row in rows.tolist():
                event = self._one(block.line(row))
                if isinstance(event, str):
                    refused[row] = event
                else:
                    events.append(event)
            rows = rows[[row not in refused for row in rows.tolist()]] if refused else rows
        table, kept, reasons = table_of(events, self._end_stamps)
        refused.update({int(rows[i]): reason for i, reason in reasons.items()})
        return of_block(block, rows[kept], table, refused, self._keep)

    def parse_array(self, source: Source) -> Iterator[Batch]:
        """Decode a file that is one JSON array."""
        elements = _elements(source)
        for begin in range(0, len(elements), ARRAY_STEP):
            yield self._elements(elements[begin : begin + ARRAY_STEP], begin + 1)

    def _elements(self, elements: list[msgspec.Raw], first: int) -> Batch:
        results = [self._one(bytes(element)) for element in elements]
        rows = np.array([i for i, result in enumerate(results) if isinstance(result, Event)], np.int64)
        table, kept, reasons = table_of([r for r in results if isinstance(r, Event)], self._end_stamps)
        refused = {i: result for i, result in enumerate(results) if isinstance(result, str)}
        refused.update({int(rows[i]): reason for i, reason in reasons.items()})
        heads = [bytes(element)[:CONTENT_BYTES] for element in elements] if self._keep else None
        rejects = [Reject(first + i, None, why, heads[i] if heads else None) for i, why in sorted(refused.items())]
        rows = rows[kept]
        content = pa.array([heads[i] for i in rows.tolist()], pa.large_binary()) if heads else None
        return Batch(table, rows + first, np.full(len(rows), NO_OFFSET, np.int64), content, rejects)

    def _at_once(self, block: Block, rows: IntArray) -> list[Event] | None:
        """Decode a block in one call, or return None where a line is bad (it is then found line by line)."""
        if not _braced(block, rows):
            return None
        try:
            events = _EVENT.decode_lines(block.data)
        except UNREADABLE:
            return None
        return events if len(events) == len(rows) else None

    def _one(self, line: bytes) -> Event | str:
        if len(line) > MAX_LINE + 1:
            return TOO_LONG
        try:
            return self._decode(line)
        except UnicodeDecodeError:
            return "line is no UTF-8"
        except msgspec.ValidationError as error:
            return reason_of(error)
        except msgspec.DecodeError:
            return NOT_JSON
        except RecursionError:
            return TOO_DEEP
        except ValueError as error:
            return reason_of(error)


def _braced(block: Block, rows: IntArray) -> bool:
    """Say whether each line goes from `{` to `}`. No object in JSON holds `}`, a line feed and `{` one after the other:
    then as many objects as lines are one a line.
    """
    data = np.frombuffer(block.data, np.uint8)
    last = block.bounds[rows + 1] - 2
    last = np.where(data[last] == ord("\r"), last - 1, last)
    return bool((data[block.bounds[rows]] == ord("{")).all() and (data[last] == ord("}")).all())


def decode_event(line: bytes) -> Event:
    """Decode one line of the event schema."""
    return _EVENT.decode(line)


def decoder(columns: Mapping[str, str] | None) -> Decode:
    """Return a decoder of one line, for a log that has some event fields under keys of other names."""
    if not columns:
        return decode_event
    places = {field.name: columns.get(field.name, field.name) for field in FIELDS}

    def decode_mapped(line: bytes) -> Event:
        record = _RECORD.decode(line)
        fields = {field: record[key] for field, key in places.items() if record.get(key) not in _ABSENT}
        for field in REQUIRED:
            if field not in fields:
                raise ValueError(f"{field} is missing")
        if isinstance(fields["time"], str):
            fields["time"] = _number_or_text(fields["time"])
        return msgspec.convert(fields, Event, strict=False)

    return decode_mapped


def _number_or_text(time: str) -> float | str:
    try:
        return float(time)
    except ValueError:
        return time


def lacking(keys: Sequence[str], columns: Mapping[str, str] | None) -> str:
    """Say which needed fields a log with these keys lacks, and how to name them; empty where it lacks none."""
    mapped = dict(columns or {})
    missing = [field for field in REQUIRED if mapped.get(field, field) not in keys]
    for field in missing:
        if field in mapped:
            return f"has no key {mapped[field]} (for {field}); it has {some(keys)}"
    if not missing:
        return ""
    wanted = ",".join(f"{field}=KEY" for field in missing)
    return f"has no {', no '.join(missing)}; name the keys that hold them with --columns {wanted}, of {some(keys)}"


def in_vain(keys: Sequence[str], columns: Mapping[str, str] | None) -> str:
    """Say which of `columns` are no keys of a log; empty where all are."""
    absent = [f"no key {key} (for {field})" for field, key in (columns or {}).items() if key not in keys]
    return f"has {', '.join(absent)} in its first lines; it has {some(keys)}" if absent else ""


def some(names: Sequence[str]) -> str:
    """Return names as a message may show them: the first 20, none of them long, and nothing that moves a cursor."""
    shown = ", ".join("".join(c if c.isprintable() else "?" for c in name[:40]) for name in names[:20])
    return shown + (", …" if len(names) > 20 else "")


def is_array(source: Source) -> bool:
    """Say whether a JSON file is one array."""
    return source.head()[:4096].removeprefix(BOM).lstrip(BLANKS).startswith(b"[")


def _elements(source: Source) -> list[msgspec.Raw]:
    whole = bytearray()
    for piece in source.pieces():
        whole += piece
        if len(whole) > MAX_ARRAY:
            raise LogError(f"{source.path} is one JSON array of more than 256 MiB; write it as JSON Lines")
    if source.broken:
        raise LogError(f"{source.path}: {source.broken}, inside a JSON array; write it as JSON Lines")
    try:
        return msgspec.json.decode(bytes(whole).removeprefix(BOM), type=list[msgspec.Raw])
    except UNREADABLE as error:
        raise LogError(
            f"{source.path} is no whole JSON array ({error}); repair it or write it as JSON Lines"
        ) from error


def table_of(events: list[Event], end_stamps: bool) -> tuple[pa.Table, Any, dict[int, str]]:
    """Build the table of the good events among these; returns it, bool[n] of the good ones, and the others' reasons."""
    try:
        table, kept, reasons = screen(_columns(events, end_stamps))
        return (table if kept.all() else table.filter(pa.array(kept))), kept, reasons
    except (ValueError, OverflowError, pa.ArrowException):
        # a time that is no time, or a number beyond 64 bits: find it event by event
        good, kept, reasons = _sorted_out(events)
        table, screened, more = screen(_columns(good, end_stamps))
        rows = np.flatnonzero(kept)
        reasons.update({int(rows[i]): reason for i, reason in more.items()})
        kept[rows[~screened]] = False
        return table.filter(pa.array(screened)), kept, reasons


def _sorted_out(events: list[Event]) -> tuple[list[Event], Any, dict[int, str]]:
    good, kept, reasons = [], np.zeros(len(events), bool), {}
    for i, event in enumerate(events):
        try:
            check(event)
            microseconds(event.time)
            good.append(event)
            kept[i] = True
        except (ValueError, OverflowError) as error:
            reasons[i] = reason_of(error) if isinstance(error, ValueError) else BAD_TIME
    return good, kept, reasons


def _columns(events: list[Event], end_stamps: bool) -> pa.Table:
    columns = {field.name: list(map(attrgetter(field.name), events)) for field in FIELDS}
    times = _times(columns.pop("time"))
    arrays = {name: pa.array(column, EVENT_SCHEMA.field(name).type) for name, column in columns.items()}
    if end_stamps:
        spent = np.array([d or 0.0 for d in columns["duration"]], np.float64)
        times = times - np.rint(np.clip(spent, 0.0, 1e9) * MICROSECONDS).astype(np.int64)
    return pa.table({"time": pa.array(times), **arrays}, schema=EVENT_SCHEMA)


def _times(times: Any) -> Any:
    """Turn times into int64 µs, as `events.microseconds` does one by one."""
    if all(type(time) is float for time in times):
        seconds = np.array(times, np.float64)
        if (np.abs(seconds) < 9e12).all():  # false for NaN too
            return np.rint(seconds * MICROSECONDS).astype(np.int64)
    return np.array([microseconds(time) for time in times], np.int64)
