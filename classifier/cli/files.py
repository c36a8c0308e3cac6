"""Tables to files, by the ending of the file's name."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from classifier.errors import InputError

TABLE_ENDINGS = (".parquet", ".csv", ".jsonl")
ROW_GROUP = 65_536
"""Rows that a group of a Parquet file has at least, but for the last."""


def check_ending(path: Path, endings: tuple[str, ...] = TABLE_ENDINGS) -> None:
    """Raise InputError when `path` has another ending, or is no place for a file (see `check_place`)."""
    if path.suffix not in endings:
        raise InputError(f"{path}: the name must end in {' or '.join(endings)}")
    check_place(path)


def check_place(path: Path) -> None:
    """Raise InputError when `path` lies in no folder or in one that cannot be written to, or is one."""
    if not path.parent.is_dir():
        if path.parent.exists():
            raise InputError(f"{path.parent} is no folder, so {path} cannot be written; name a file in a folder")
        raise InputError(f"the folder {path.parent} does not exist; make it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise InputError(f"the folder {path.parent} cannot be written to; name a file in another")
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file in it")


def check_spared(outputs: Iterable[Path | None], logs: Iterable[Path]) -> None:
    """Raise InputError when a file to write is one of the logs to read: writing it would destroy the log."""
    for output in outputs:
        for log in logs:
            if output is not None and output.exists() and log.exists() and output.samefile(log):
                raise InputError(f"{output} is one of the logs and would be overwritten; name another file to write")


@contextmanager
def complete_or_nothing(path: Path) -> Iterator[Path]:
    """Give a path to write to; it takes the name `path` at the end, or is removed when the writing fails."""
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_tables(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> int:
    """Write tables of one schema one after another; return the number of rows. The file appears only when complete."""
    rows = 0
    with complete_or_nothing(path) as partial:
        if path.suffix == ".parquet":
            with pq.ParquetWriter(partial, schema, compression="zstd") as parquet:
                for table in _row_groups(tables):
                    parquet.write_table(table)
                    rows += table.num_rows
        elif path.suffix == ".csv":
            with pa_csv.CSVWriter(str(partial), schema) as csv:
                for table in tables:
                    csv.write_table(table)
                    rows += table.num_rows
        else:
            with partial.open("w", encoding="utf-8") as lines:
                for table in tables:
                    lines.writelines(json.dumps(record) + "\n" for record in table.to_pylist())
                    rows += table.num_rows
    return rows


def _row_groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Join small tables: every row group costs a file its place in the footer, column by column."""
    held: list[pa.Table] = []
    for table in tables:
        held.append(table)
        if sum(part.num_rows for part in held) >= ROW_GROUP:
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)
