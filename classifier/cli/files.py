"""Tables to files, by the ending of the file's name."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from classifier.errors import InputError

TABLE_ENDINGS = (".parquet", ".csv", ".jsonl")


def check_ending(path: Path, endings: tuple[str, ...] = TABLE_ENDINGS) -> None:
    """Raise InputError when `path` has another ending, or lies in no folder."""
    if path.suffix not in endings:
        raise InputError(f"{path}: the name must end in {' or '.join(endings)}")
    if not path.parent.is_dir():
        raise InputError(f"the folder {path.parent} does not exist; make it first")


def write_tables(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> int:
    """Write tables of one schema one after another; return the number of rows. The file appears only when complete."""
    partial = path.with_name(path.name + ".partial")
    rows = 0
    try:
        if path.suffix == ".parquet":
            with pq.ParquetWriter(partial, schema, compression="zstd") as parquet:
                for table in tables:
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
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return rows
