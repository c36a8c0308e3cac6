"""The checks that hold for events of every format, over whole columns.

`events.check` is the one statement of what an event may hold; here the same bounds are looked for in columns, and only
rows that break one go through `events.check` itself, for the reason (a property test holds the two together).
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from classifier.events import (
    COUNTS,
    EVENT_SCHEMA,
    LATEST_ACCOUNT_S,
    LATEST_S,
    MAX_COUNT,
    MAX_DURATION_S,
    MICROSECONDS,
    REQUIRED,
    VERDICTS,
    Event,
    check,
)  # fmt: skip
from classifier.logs.address import MAX_LENGTH, client_address

_LATEST_US = LATEST_S * MICROSECONDS
_BEFORE_LATEST = float(np.nextafter(LATEST_ACCOUNT_S, 0))
_BOUNDS: dict[str, tuple[float, float]] = {
    "time": (1, _LATEST_US - 1),
    "duration": (0.0, MAX_DURATION_S),
    "status": (0, 999),
    "account_created": (-_BEFORE_LATEST, _BEFORE_LATEST),
    **dict.fromkeys(COUNTS, (0, MAX_COUNT)),
}
BAD_TIME = "time is not in the years 1970 to 2261 (is it in Unix seconds?)"
_PLAIN = np.isin(np.arange(256), np.frombuffer(b"0123456789.", np.uint8))
_VALUE = re.compile(r"^(\w+) .+ (?=is (?:not|no|none) |has no )", re.DOTALL)
_PLACE = re.compile(r" \(byte \d+\)|\[\d+\]")


def reason_of(error: Exception) -> str:
    """Turn an error about one line into a reason: no values of the line in it, and few different ones in all."""
    text = str(error)
    if "isoformat" in text:
        return "time is no RFC 3339 text"
    return _PLACE.sub("", _VALUE.sub(r"\1 ", text))[:200]


def screen(table: pa.Table) -> tuple[pa.Table, npt.NDArray[np.bool_], dict[int, str]]:
    """Bring addresses into one spelling and find impossible rows.

    Returns the table (all rows), bool[rows] true where a row is good, and the reasons of the others by row.
    """
    bad = np.zeros(table.num_rows, bool)
    for name, (low, high) in _BOUNDS.items():
        column = table[name]
        if column.null_count < len(column):
            outside = pc.invert(pc.and_(pc.greater_equal(column, low), pc.less_equal(column, high)))
            bad |= _mask(outside)
    for name in REQUIRED:
        bad |= _mask(pc.is_null(table[name]))
    for name in REQUIRED[1:]:
        bad |= _mask(pc.equal(table[name], ""))
    if table["verdict"].null_count < table.num_rows:
        bad |= _mask(pc.invert(pc.is_in(table["verdict"], pa.array([*VERDICTS, None]))))
    spelled, strange = _one_spelling(table)
    bad |= strange
    return spelled, ~bad, {i: _reason(table.slice(i, 1).to_pylist()[0]) for i in np.flatnonzero(bad).tolist()}


def _mask(column: Any) -> npt.NDArray[np.bool_]:
    return np.asarray(pc.fill_null(column, False).to_numpy(zero_copy_only=False), bool)


def _one_spelling(table: pa.Table) -> tuple[pa.Table, npt.NDArray[np.bool_]]:
    """Rewrite the addresses that are not plain IPv4 digits; the mask is true where one is impossible."""
    column = table["ip"].combine_chunks()
    strange = np.zeros(len(column), bool)
    if _all_plain(column):
        return table, strange
    odd = _mask(pc.match_substring_regex(column, "[^0-9.]|.{256}"))
    if not odd.any():
        return table, strange
    codes = column.filter(pa.array(odd)).dictionary_encode()
    spelled = [_spell(text) for text in codes.dictionary.to_pylist()]
    impossible = np.array([text is None for text in spelled], bool)
    strange[odd] = impossible[codes.indices.to_numpy()]
    values = pa.DictionaryArray.from_arrays(codes.indices, pa.array(spelled, pa.string())).cast(pa.string())
    kept = pc.replace_with_mask(column, pa.array(odd), values)
    # an impossible address is null from here on; its row is rejected and its reason read from the old table
    return table.set_column(table.schema.get_field_index("ip"), EVENT_SCHEMA.field("ip"), kept), strange


def _all_plain(column: Any) -> bool:
    """Say whether a string array holds only digits and dots; a look at its bytes is cheaper than a regex."""
    if not len(column):
        return True
    ends = np.frombuffer(column.buffers()[1], np.int32, len(column) + 1, column.offset * 4)
    text = np.frombuffer(column.buffers()[2] or b"", np.uint8, int(ends[-1] - ends[0]), int(ends[0]))
    return bool(_PLAIN[text].all()) and int(np.diff(ends).max()) <= MAX_LENGTH


def _spell(text: str) -> str | None:
    try:
        return client_address(text)
    except ValueError:
        return None


def _reason(row: dict[str, Any]) -> str:
    for name in REQUIRED:
        if row[name] is None:
            return f"{name} is missing"
    try:
        if not 0 < row["time"] < _LATEST_US:
            return BAD_TIME
        check(Event(**row))
        client_address(row["ip"])
    except ValueError as error:
        return reason_of(error)
    raise AssertionError("a row was called bad that events.check finds good")
