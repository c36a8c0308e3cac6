"""CSV and Parquet: one column for each event field, under the field's name or one given by `columns`.

In these tables a time without an offset is UTC, integers may be written as `200.0` (pandas does, where some are
missing), and an empty cell or NaN is absent. A CSV record is one line: a quote that is not closed costs its own line
and no other. Prompts with line feeds in them need JSON Lines or Parquet.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from classifier.errors import LogError
from classifier.events import EVENT_SCHEMA, FIELDS, MICROSECONDS, REQUIRED, Event, microseconds
from classifier.logs.batch import NO_OFFSET, Batch, of_block
from classifier.logs.jsonlines import some, table_of
from classifier.logs.lines import MAX_LINE, Block
from classifier.logs.reading import Reject
from classifier.logs.screen import screen

csv.field_size_limit(MAX_LINE)  # else a quoted cell may hold 128 KiB, and one without quotes as much as a line

PARQUET_ROWS = 32_768
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}(\.0*)?")
_WORDS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}


def used_columns(path: Path, names: list[str], columns: Mapping[str, str] | None) -> dict[str, str]:
    """Return the column of each event field that the table has. Raises LogError where a needed one is missing."""
    mapped = dict(columns or {})
    for field, column in mapped.items():
        if column not in names:
            raise LogError(f"{path} has no column {column} (for {field}); it has {some(names)}")
    used = {field.name: mapped.get(field.name, field.name) for field in FIELDS}
    used = {field: column for field, column in used.items() if column in names}
    missing = [field for field in REQUIRED if field not in used]
    if missing:
        raise LogError(
            f"{path} has no column {missing[0]}; name it with --columns {missing[0]}=COLUMN, of {some(names)}"
        )
    return used


def header_of(line: str) -> tuple[list[str], str]:
    """Split a CSV header; returns the column names and the delimiter: the commonest of comma, semicolon and tab."""
    delimiter = max(",;\t", key=line.count)
    try:
        names = next(csv.reader([line.rstrip("\r\n")], delimiter=delimiter, strict=True), [])
    except csv.Error:
        names = []
    return [name.strip() for name in names], delimiter


class CsvReader:
    """Parses blocks of CSV; the first line of the file is the header. With `end_stamps` time is the request's end."""

    def __init__(self, path: Path, columns: Mapping[str, str] | None, end_stamps: bool, keep: bool) -> None:
        self._path = path
        self._columns = columns
        self._end_stamps = end_stamps
        self._keep = keep
        self._width = 0
        self._delimiter = ","
        self._takes: list[tuple[str, int, Callable[[str], Any]]] = []

    def parse(self, block: Block) -> Batch:
        """Parse one block. Lines that cannot be read become rejects; the header is no line."""
        rows, refused, events = [], {}, []
        for row in block.filled().tolist():
            if not self._width:
                self._take_header(block.line(row))
                continue
            try:
                events.append(self._event(block.line(row)))
                rows.append(row)
            except UnicodeDecodeError:
                refused[row] = "line is no UTF-8"
            except csv.Error as error:
                refused[row] = f"line is no CSV record: {error}"
            except ValueError as error:
                refused[row] = str(error)
        table, kept, reasons = table_of(events, self._end_stamps)
        refused.update({rows[i]: reason for i, reason in reasons.items()})
        return of_block(block, np.array(rows, np.int64)[kept], table, refused, self._keep)

    def _take_header(self, line: bytes) -> None:
        names, self._delimiter = header_of(line.decode("utf-8", "replace"))
        used = used_columns(self._path, names, self._columns)
        self._width = len(names)
        self._takes = [(field, names.index(column), _CONVERT[field]) for field, column in used.items()]

    def _event(self, line: bytes) -> Event:
        text = line.decode().rstrip("\r\n")
        if "\0" in text:
            raise ValueError("line holds NUL bytes")
        cells = self._quoted(text) if '"' in text else text.split(self._delimiter)
        if len(cells) != self._width:
            raise ValueError("line has another number of cells than the header")
        fields: dict[str, Any] = {}
        for field, at, convert in self._takes:
            if cells[at] != "":
                try:
                    fields[field] = convert(cells[at])
                except ValueError as error:
                    raise ValueError(f"{field} is no {_KINDS[field]}") from error
            elif field in REQUIRED:
                raise ValueError(f"{field} is missing")
        return Event(**fields)

    def _quoted(self, text: str) -> list[str]:
        return next(csv.reader([text], delimiter=self._delimiter, strict=True))


def _integer(text: str) -> int | None:
    text = text.strip()
    if not _INTEGER.fullmatch(text):
        if text.lower() == "nan":
            return None
        raise ValueError(text)
    return int(text.partition(".")[0])


def _number(text: str) -> float | None:
    value = float(text)
    return None if math.isnan(value) else value


def _truth(text: str) -> bool:
    try:
        return _WORDS[text.strip().lower()]
    except KeyError:
        raise ValueError(text) from None


def _time(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        stamp = datetime.fromisoformat(text.strip())
        return (stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)).isoformat()


def _kind(field: Any) -> str:
    if field.name == "time":
        return "time"
    return {pa.int64(): "whole number", pa.float64(): "number", pa.bool_(): "truth value"}.get(field.type, "text")


_KINDS = {field.name: _kind(field) for field in FIELDS}
_BY_KIND: dict[str, Callable[[str], Any]] = {
    "time": _time,
    "whole number": _integer,
    "number": _number,
    "truth value": _truth,
    "text": str,
}
_CONVERT = {name: _BY_KIND[kind] for name, kind in _KINDS.items()}


class ParquetReader:
    """Reads a Parquet file in batches; rows are numbered from 1. With `end_stamps` time is the request's end."""

    def __init__(self, path: Path, columns: Mapping[str, str] | None, end_stamps: bool) -> None:
        self._path = path
        self._end_stamps = end_stamps
        try:
            self._file = pq.ParquetFile(path, page_checksum_verification=True)
        except (pa.ArrowException, OSError) as error:
            raise LogError(f"{path} is no whole Parquet file ({_first_line(error)}); write it again") from error
        self._used = used_columns(path, self._file.schema_arrow.names, columns)

    def batches(self) -> Iterator[tuple[Batch, float]]:
        """Yield batches of rows, each with the share of the file that is read by then.

        Raises LogError where a part of the file cannot be unpacked.
        """
        first = 1
        batches = self._file.iter_batches(PARQUET_ROWS, columns=list(dict.fromkeys(self._used.values())))
        while True:
            try:
                batch = next(batches, None)
            except (pa.ArrowException, OSError) as error:
                raise LogError(f"{self._path} is damaged after row {first - 1} ({_first_line(error)})") from error
            if batch is None:
                return
            first += batch.num_rows
            yield self._batch(batch, first - batch.num_rows), (first - 1) / self._file.metadata.num_rows

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _batch(self, batch: Any, first: int) -> Batch:
        arrays, fractions = {}, {}
        for field in EVENT_SCHEMA:
            if field.name not in self._used:
                arrays[field.name] = pa.nulls(batch.num_rows, field.type)
                continue
            column = batch.column(self._used[field.name])
            arrays[field.name], wrong = self._converted(field, column)
            fractions.update(dict.fromkeys(np.flatnonzero(wrong).tolist(), f"{field.name} is no {_KINDS[field.name]}"))
        if self._end_stamps:
            arrays["time"] = _begin(arrays["time"], arrays["duration"])
        table, kept, reasons = screen(pa.table(arrays, schema=EVENT_SCHEMA))
        reasons.update(fractions)
        kept[list(fractions)] = False
        rows = np.flatnonzero(kept)
        rejects = [Reject(first + i, None, reason, None) for i, reason in sorted(reasons.items())]
        offset = np.full(len(rows), NO_OFFSET, np.int64)
        return Batch(table.filter(pa.array(kept)), first + rows, offset, None, rejects)

    def _converted(self, field: Any, column: Any) -> tuple[Any, Any]:
        """Return the column in the event's type, and bool[rows] true where its value is none of that type."""
        kind = _KINDS[field.name]
        have = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        none = np.zeros(len(column), bool)
        if pa.types.is_null(have):
            return pa.nulls(len(column), field.type), none
        if kind == "time":
            return self._times(column, have), none
        if kind == "text" and _is_text(have):
            return column.cast(pa.string()), none
        if kind == "truth value" and pa.types.is_boolean(have):
            return column.cast(pa.bool_()), none
        if kind == "number" and (pa.types.is_floating(have) or pa.types.is_integer(have) or pa.types.is_decimal(have)):
            values = column.cast(pa.float64(), safe=False)
            return pc.if_else(pc.is_nan(values), None, values), none
        if kind == "whole number" and pa.types.is_integer(have):
            return column.cast(pa.int64(), safe=False), none
        if kind == "whole number" and pa.types.is_floating(have):
            return _whole(column.cast(pa.float64()))
        raise self._wrong(field.name, have, kind)

    def _times(self, column: Any, have: Any) -> Any:
        if pa.types.is_timestamp(have):
            return column.cast(pa.timestamp("us", have.tz), safe=False).cast(pa.int64())
        if pa.types.is_floating(have) or pa.types.is_integer(have):
            known = column.is_valid().to_numpy(zero_copy_only=False)
            if pa.types.is_integer(have):
                seconds = column.fill_null(0).cast(pa.int64(), safe=False).to_numpy(zero_copy_only=False)
                exact = np.clip(seconds, 0, 9_223_372_036_853) * MICROSECONDS
            else:
                seconds = column.cast(pa.float64()).fill_null(0.0).to_numpy(zero_copy_only=False)
                exact = np.rint(np.nan_to_num(np.clip(seconds, 0.0, 9.2e12)) * MICROSECONDS).astype(np.int64)
            return pa.array(exact, mask=~known)
        if _is_text(have):
            return pa.array([None if text is None else _text_time(text) for text in column.to_pylist()], pa.int64())
        raise self._wrong("time", have, "time")

    def _wrong(self, field: str, have: Any, kind: str) -> LogError:
        return LogError(f"{self._path}: column {self._used[field]} holds {have}, and {field} is a {kind}; convert it")


def _is_text(type_: Any) -> bool:
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_))


def _text_time(text: str) -> int:
    """Return µs, or 0, which no event may have, where the text is no time."""
    try:
        return microseconds(_time(text))
    except (ValueError, OverflowError):
        return 0


def _whole(values: Any) -> tuple[Any, Any]:
    numbers = values.fill_null(np.nan).to_numpy(zero_copy_only=False)
    wrong = ~np.isnan(numbers) & ((numbers != np.rint(numbers)) | (np.abs(numbers) > 2.0**62))
    absent = np.isnan(numbers) | wrong
    return pa.array(np.where(absent, 0.0, numbers).astype(np.int64), mask=absent), wrong


def _begin(times: Any, durations: Any) -> Any:
    spent = np.clip(durations.fill_null(0.0).to_numpy(zero_copy_only=False), 0.0, 1e9)
    return pc.subtract(times, pa.array(np.rint(spent * MICROSECONDS).astype(np.int64)))


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
