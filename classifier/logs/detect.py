"""Tells the format of a log by its first lines, and whether combined stamps mark the start or the end of a request."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec

from classifier.errors import LogError
from classifier.events import EVENT_SCHEMA
from classifier.logs import exact
from classifier.logs.jsonlines import UNREADABLE, is_array, lacking
from classifier.logs.lines import BLANKS, MAX_LINE
from classifier.logs.source import BOM, PIECE_BYTES, Source
from classifier.logs.tables import header_of

SAMPLE_LINES = 100
SAMPLE_BYTES = 256 << 10
PARQUET = b"PAR1"
_STAMP = re.compile(r" \[[0-9]{2}/[A-Za-z]{3}/[0-9]{4}:")
_OBJECT = msgspec.json.Decoder(dict[str, Any])
_FIRST = json.JSONDecoder()
_ENVOY_KEYS = {"response_code", "response_flags", "x-envoy-origin-path", "bytes_sent", "duration", "duration_ms"}


def sample(source: Source) -> list[str]:
    """Return the first lines that hold more than blanks and are not too long: 100, or what reaches 256 KiB.

    At least one is whole; the last may be cut.
    """
    lines: list[str] = []
    taken = 0
    for line in io.BytesIO(source.head().removeprefix(BOM)):
        if len(lines) == SAMPLE_LINES or taken >= SAMPLE_BYTES:
            break
        if len(line) <= MAX_LINE + 1 and line.strip(BLANKS):
            lines.append(line.rstrip(b"\r\n").decode("utf-8", "backslashreplace"))
            taken += len(line)
    return lines


def is_blank(source: Source) -> bool:
    """Say whether a file holds nothing but blanks (a broken stream of which nothing came out is blank too)."""
    head = source.head()
    return len(head) < PIECE_BYTES and not head.removeprefix(BOM).strip(BLANKS)


def format_of(source: Source, columns: Mapping[str, str] | None, formats: tuple[str, ...]) -> str:
    """Tell the format that most of the first lines have. Raises LogError when it is none of the known ones."""
    if source.magic.startswith(PARQUET):
        return "parquet"
    lines = sample(source)
    mapped = set((columns or {}).values())
    if is_array(source) and (record := _first_element(source)) and (kind := _object_format(record, mapped)):
        return kind
    votes = Counter(kind for line in lines if (kind := _line_format(line, mapped)))
    if votes:
        return votes.most_common(1)[0][0]
    if keys := keys_of(source):
        raise LogError(f"{source.path} {lacking(keys, columns)}")
    if lines and _is_header(lines[0], mapped):
        return "csv"
    raise _unknown(source, formats)


def keys_of(source: Source) -> list[str]:
    """Return the keys of the JSON objects among the first lines, or of the first element of an array."""
    if is_array(source):
        return list(_first_element(source) or {})
    return list(dict.fromkeys(key for line in sample(source) for key in _object(line) or {}))


def _line_format(line: str, mapped: set[str]) -> str | None:
    record = _object(line)
    if record is not None:
        return _object_format(record, mapped)
    return "combined" if _STAMP.search(line) and not line.lstrip().startswith("{") else None


def _object(line: str) -> dict[str, Any] | None:
    try:
        return _OBJECT.decode(line) if line.lstrip().startswith("{") else None
    except UNREADABLE:
        return None


def _object_format(record: dict[str, Any], mapped: set[str]) -> str | None:
    keys = {key.lower() for key in record}
    if "startTime" in record:
        return "litellm"
    if "start_time" in keys and keys & _ENVOY_KEYS:
        return "envoy"
    return "jsonl" if keys & {"time", "ip"} or mapped & set(record) else None


def _first_element(source: Source) -> dict[str, Any] | None:
    """Return the first element of a JSON array; None where it is no object (an address may begin with `[`)."""
    head = source.head().removeprefix(BOM).lstrip(BLANKS)[1:].lstrip(BLANKS).decode("utf-8", "replace")
    try:
        record, _ = _FIRST.raw_decode(head)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _is_header(line: str, mapped: set[str]) -> bool:
    """Say whether a line names any column that can be read; the reader says which ones are missing."""
    names, _ = header_of(line)
    return len(names) > 1 and not mapped.union(EVENT_SCHEMA.names).isdisjoint(names)


def _unknown(source: Source, formats: tuple[str, ...]) -> LogError:
    return LogError(
        f"{source.path} is of no known format; name it with --format, one of {', '.join(formats)}"
        " (a CSV or JSON Lines may need --columns event_field=column)"
    )


def stamps_mark_end(lines: list[str]) -> bool:
    """Say whether at least half of the combined lines carry nginx's request time: nginx stamps a line at the end."""
    parsed = with_time = 0
    for line in lines:
        try:
            with_time += exact.parse(line).request_time is not None
            parsed += 1
        except ValueError:
            continue
    return 2 * with_time >= parsed > 0
