"""nginx and Apache combined logs, and the common log line without referer and user agent.

    host ident user [stamp] "request" status size "referer" "user agent" further fields...

Whole blocks go through one regular expression that needs no backtracking and has one way to match (Rust's regex crate
then runs it as a one-pass automaton). What it does not match goes to the patterns of the common log line and of Apache's
`vhost_combined` (the server's `host:port` stands before the client), and what is left to `exact`, line by line. nginx's
`$request_time` is looked for in the further fields (see `exact.request_time`); addresses in further fields are not
taken: whose hop wrote them is not known here.

The remote user is what a client claimed, so it becomes an `account` only where the operator says that it is verified,
with `columns={"account": "remote_user"}` (or `credential`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from classifier.errors import LogError
from classifier.events import EVENT_SCHEMA, MAX_COUNT
from classifier.logs import exact, stamps
from classifier.logs.batch import Batch, of_block
from classifier.logs.lines import Block, IntArray
from classifier.logs.screen import screen

_TEXT = r'[^"\\\x00-\x1f\x7f]'
_FRONT = (
    r" [^ \x00-\x1f]+ ([^ \x00-\x1f]+) \[([^\]]+)\] "
    r'"([A-Za-z][A-Za-z_-]{0,31}) ([^ "\\\x00-\x1f\x7f]+) HTTP/[0-9.]+" ([0-9]{3}) ([0-9]+|-)'
)
_TAIL = rf' "({_TEXT}*)" "({_TEXT}*)"( [^\r\n\x00]*)?\r?\n$'
_COMBINED = r"^([^ \x00-\x1f]+)" + _FRONT + _TAIL
_COMMON = r"^([^ \x00-\x1f]+)" + _FRONT + r" *\r?\n$"
_HOSTED = r"^(?:[^ :\[\x00-\x1f]+|\[[^ \]\x00-\x1f]+\]):[0-9]+ ([^ \x00-\x1f-][^ \x00-\x1f]*)" + _FRONT + _TAIL
_NAMES = exact.Fields._fields
_SCHEMA = dict.fromkeys(_NAMES, pl.String)
_SIMPLE_TIME = r'^(?: "[^"\\]*")* (?:rt=|request_time=)?([0-9]+\.[0-9]{3})(?: [^\n]*)?$'
_ANY_TIME = r'^(?: "[^"]*"| [^ "]*)*? (?:rt=|request_time=)?([0-9]+\.[0-9]{3})(?: .*)?$'
_ABSOLUTE = r"^[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*"
BAD_STAMP = "time is no such day or hour"


class CombinedReader:
    """Parses blocks of combined lines. With `end_stamps` a line's time less its request time is the arrival."""

    def __init__(self, columns: Mapping[str, str] | None, end_stamps: bool, keep: bool) -> None:
        self._columns = dict(columns or {})
        for field, column in self._columns.items():
            if column != "remote_user" or field not in ("account", "credential"):
                raise LogError(
                    f"a combined log has no column {column} for {field}; the only one to map is remote_user, "
                    "to account or credential"
                )
        self._end_stamps = end_stamps
        self._keep = keep

    def parse(self, block: Block) -> Batch:
        """Parse one block. Lines that cannot be read become rejects."""
        lines, refused = _lines(block)
        frame, good = _typed(lines)
        rows = lines["row"].to_numpy()
        refused.update({int(i): BAD_STAMP for i in rows[~good]})
        table = self._events(frame.filter(pl.Series(good)))
        rows = rows[good]
        table, kept, reasons = screen(table)
        refused.update({int(rows[i]): reason for i, reason in reasons.items()})
        if reasons:
            table, rows = table.filter(pa.array(kept)), rows[kept]
        return of_block(block, rows, table, refused, self._keep)

    def _events(self, frame: pl.DataFrame) -> pa.Table:
        time = frame["time"]
        if self._end_stamps:
            spent = frame["duration"].fill_null(0.0).clip(0.0, 1e9)
            time = time - (spent * 1e6).round(mode="half_to_even").cast(pl.Int64)
        columns = {name: frame[name] for name in frame.columns if name not in ("time", "user")}
        for field in self._columns:
            columns[field] = frame["user"]
        return table_of(time, columns)


def table_of(time: pl.Series, columns: Mapping[str, pl.Series]) -> pa.Table:
    """Build an event table from polars columns; fields that are not there are null."""
    arrays = []
    for field in EVENT_SCHEMA:
        series = time if field.name == "time" else columns.get(field.name)
        if series is None:
            arrays.append(pa.nulls(len(time), field.type))
        else:
            arrays.append(series.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(field.type))
    return pa.Table.from_arrays(arrays, schema=EVENT_SCHEMA)


def _lines(block: Block) -> tuple[pl.DataFrame, dict[int, str]]:
    """Split a block's lines into their texts (columns of `exact.Fields` and `row`), in order, and the refused lines."""
    texts = pl.from_arrow(block.text())
    assert isinstance(texts, pl.Series)
    rows = np.arange(len(block), dtype=np.int64)
    frames = []
    for pattern in (_COMBINED, _COMMON, _HOSTED):
        groups = texts.str.extract_groups(pattern).struct.unnest()
        matched = groups.to_series(0).is_not_null()
        if matched.all():
            frames.append(_named(groups, rows))
            return _in_order(frames), {}
        if matched.any():
            frames.append(_named(groups.filter(matched), rows[matched.to_numpy()]))
        texts, rows = texts.filter(~matched), rows[~matched.to_numpy()]
    left, refused = _exactly(texts, rows, set(block.filled().tolist()))
    frames.append(left)
    return _in_order(frames), refused


def _named(groups: pl.DataFrame, rows: IntArray) -> pl.DataFrame:
    """Name the groups of a pattern, add the columns it lacks, and find the request time among the further fields."""
    named = groups.rename(dict(zip(groups.columns, _NAMES, strict=False)))
    missing = [pl.lit(None, pl.String).alias(name) for name in _NAMES[len(groups.columns) :]]
    named = named.with_columns(*missing, pl.Series("row", rows))
    further = named["request_time"]
    if further.null_count() < len(further):
        named = named.with_columns(_request_time(further))
    return named


def _request_time(further: pl.Series) -> pl.Series:
    simple = further.str.extract(_SIMPLE_TIME)
    if simple.null_count() == further.null_count():
        return simple
    hard = simple.is_null() & further.is_not_null() & (further.str.len_bytes() > 1)
    if not hard.any():
        return simple
    escaped = further.str.contains("\\", literal=True)
    return pl.select(
        pl.when(hard & ~escaped)
        .then(further.str.extract(_ANY_TIME))
        .when(hard)
        .then(further.map_elements(exact.request_time, return_dtype=pl.String))
        .otherwise(simple)
        .alias("request_time")
    ).to_series()


def _exactly(texts: pl.Series, rows: IntArray, filled: set[int]) -> tuple[pl.DataFrame, dict[int, str]]:
    parsed, at, refused = [], [], {}
    for row, text in zip(rows.tolist(), texts.to_list(), strict=True):
        if row not in filled:
            continue
        try:
            parsed.append(exact.parse(text.rstrip("\r\n")))
            at.append(row)
        except ValueError as error:
            refused[row] = str(error)
    frame = pl.DataFrame(parsed, schema=_SCHEMA, orient="row")
    return frame.with_columns(pl.Series("row", at, dtype=pl.Int64)), refused


def _in_order(frames: list[pl.DataFrame]) -> pl.DataFrame:
    return frames[0] if len(frames) == 1 else pl.concat(frames).sort("row")


def _typed(lines: pl.DataFrame) -> tuple[pl.DataFrame, Any]:
    """Give the texts their types. Returns the event fields (and `user`), and bool[rows] where the stamp is a time."""
    good = (lines["stamp"].str.len_bytes() == stamps.LENGTH).to_numpy()
    time = np.zeros(len(lines), np.int64)
    whole = lines["stamp"].filter(pl.Series(good)).to_arrow(compat_level=pl.CompatLevel.oldest())
    time[good], good[good] = stamps.microseconds_of(whole)
    size = lines["size"].cast(pl.Int64, strict=False)
    typed = pl.DataFrame(
        {
            "time": time,
            "ip": lines["ip"],
            "method": lines["method"],
            "path": _paths(lines),
            "status": lines["status"].cast(pl.Int64),
            "response_bytes": size.set(size > MAX_COUNT, None) if (size > MAX_COUNT).any() else size,
            "duration": lines["request_time"].cast(pl.Float64, strict=False),
            "referer": _absent(lines["referer"]),
            "user_agent": _absent(lines["agent"]),
            "user": _absent(lines["user"]),
        }
    )
    return typed, good


def _absent(texts: pl.Series) -> pl.Series:
    dash = texts == "-"
    return texts.set(dash, None) if dash.any() else texts


def _paths(lines: pl.DataFrame) -> pl.Series:
    """Drop scheme and host of absolute-form targets, and cut paths at 4,096 characters."""
    path = lines["path"]
    absolute = path.str.contains(_ABSOLUTE) & (lines["method"] != "-") if (~_rooted(path)).any() else None
    if absolute is not None and absolute.any():
        path = path.zip_with(~absolute, _relative(path))
    if (path.str.len_bytes() > exact.MAX_PATH).any():
        path = path.str.slice(0, exact.MAX_PATH)
    return path


def _rooted(path: pl.Series) -> pl.Series:
    return path.str.starts_with("/")


def _relative(path: pl.Series) -> pl.Series:
    rest = path.str.replace(_ABSOLUTE, "")
    return pl.select(pl.when(_rooted(rest)).then(rest).otherwise(pl.concat_str(pl.lit("/"), rest))).to_series()
