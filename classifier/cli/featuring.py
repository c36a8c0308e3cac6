"""`botsieve features`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from classifier.cli.files import check_ending, write_tables
from classifier.cli.logs import LogOptions
from classifier.cli.terminal import say, threads_of
from classifier.events import MICROSECONDS, clients_of
from classifier.features.spec import NAMES
from classifier.features.stream import FeatureChunk, feature_chunks

SCHEMA = pa.schema([
    ("row", pa.int64()), ("time", pa.float64()), ("client", pa.string()), ("malicious", pa.bool_()), ("family", pa.string()),
    *((name, pa.float32()) for name in NAMES),
])  # fmt: skip


def run(log: LogOptions, out: Path, threads: int) -> None:
    """Write the features of a log, in the order of time; `row` is the place of the request in the log."""
    check_ending(out, (".parquet",))

    def tables() -> Iterator[pa.Table]:
        for chunk in feature_chunks(log.tables(out, "computing features"), threads=threads_of(threads)):
            yield _table(chunk)
        log.conclude()  # before the file takes its name: too many rejects leave none behind

    rows = write_tables(out, SCHEMA, tables())
    say(f"{out}: {rows:,} rows of {len(NAMES)} features", log.quiet)


def _table(chunk: FeatureChunk) -> pa.Table:
    columns = np.ascontiguousarray(chunk.rows.T)
    events = chunk.events
    arrays = [
        pa.array(chunk.row), pa.array(events.column("time").to_numpy() / MICROSECONDS), clients_of(events),
        events.column("malicious"), events.column("family"), *(pa.array(column) for column in columns),
    ]  # fmt: skip
    return pa.table(arrays, schema=SCHEMA)
