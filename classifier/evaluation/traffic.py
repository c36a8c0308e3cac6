"""The logs of the protocol: simulated once, kept as Parquet with what no log says (the grade and the campaign)."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from classifier.evaluation.plan import Log
from classifier.events import EVENT_SCHEMA, MICROSECONDS
from classifier.traffic import Simulated, simulated

PROCESSES = 2
DAY_SEED = 1000
"""What the seed of a day adds to that of the day before."""


@dataclass(frozen=True)
class Traffic:
    """A log as it was simulated: events [n] by time, and the grade and campaign of each (null where legitimate)."""

    events: pa.Table
    grade: pa.ChunkedArray
    campaign: pa.ChunkedArray


def write(log: Log, path: Path) -> None:
    """Simulate a log and keep it."""
    table = pa.concat_tables([_day(log, day) for day in range(log.days)])
    partial_file = path.with_suffix(".partial")
    pq.write_table(table, partial_file, compression="zstd", row_group_size=65_536)
    partial_file.replace(path)


def _day(log: Log, day: int) -> pa.Table:
    """Simulate one day of a log, in its place after the days before it."""
    found: Simulated = simulated(
        duration_s=log.duration, clients=log.clients, attacks="all" if log.each else "none",
        seed=log.seed + DAY_SEED * day, surge=log.surge if day == log.days - 1 else 0.0, each=log.each,
    )  # fmt: skip
    events, at = found.events, found.events.schema.get_field_index("time")
    time = pc.add(events["time"], round(day * log.duration * MICROSECONDS))
    campaign = pc.binary_join_element_wise(found.campaign, pa.scalar(f"day {day}"), " ") if day else found.campaign
    return (
        events.set_column(at, events.schema.field(at), time)
        .append_column("grade", found.grade)
        .append_column("campaign", campaign)
    )


def read(path: Path) -> Traffic:
    """Read what `write` kept."""
    table = pq.read_table(path)
    return Traffic(table.select(EVENT_SCHEMA.names).cast(EVENT_SCHEMA), table["grade"], table["campaign"])


def file_of(log: Log, folder: Path) -> Path:
    """Where a log is kept: its name tells everything that it was made from but the simulator's own code."""
    each = f"-{log.each.attackers}x{log.each.intensity:g}" if log.each else ""
    more = f"{each}{f'-surge{log.surge:g}' * (log.surge > 0)}{f'-{log.days}days' * (log.days > 1)}"
    return folder / f"{log.name}-{log.seed}-{log.clients}-{log.duration:g}{more}.parquet"


def simulate_all(logs: Sequence[Log], folder: Path) -> dict[str, Path]:
    """Simulate those logs that are not kept yet, the largest first, in two processes; return where each is, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {log.name: file_of(log, folder) for log in logs}
    wanted = sorted((log for log in logs if not files[log.name].exists()), key=lambda log: -log.clients * log.days)
    if wanted:
        # A process that is spawned inherits no threads of libraries, which a forked one could wait for without end.
        with ProcessPoolExecutor(min(PROCESSES, len(wanted)), mp_context=get_context("spawn")) as pool:
            list(pool.map(partial(_write_into, folder), wanted))
    return files


def _write_into(folder: Path, log: Log) -> None:
    write(log, file_of(log, folder))
