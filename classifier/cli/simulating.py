"""`botsieve simulate`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from classifier.cli.files import check_ending, complete_or_nothing
from classifier.cli.terminal import bar, say
from classifier.events import MICROSECONDS, records
from classifier.traffic import legitimate, simulate


def run(
    out: Path,
    duration: float,
    clients: int,
    attacks: str,
    seed: int,
    quiet: bool,
    kinds: Sequence[str] = tuple(legitimate.KINDS),
) -> None:
    """Simulate a log of these kinds of legitimate clients and write it."""
    check_ending(out, (".jsonl", ".parquet"))
    with bar("simulating", quiet) as progress:
        events = simulate(
            duration_s=duration, clients=clients, attacks=names_of(attacks), seed=seed, kinds=kinds, progress=progress
        )
    write_log(out, events)
    malicious = events.column("malicious").to_numpy().sum()
    say(f"{out}: {events.num_rows:,} requests, {malicious:,} of them malicious", quiet)


def names_of(attacks: str) -> str | list[str]:
    """Return `--attacks` or `--inject` as the traffic package takes it."""
    return attacks if attacks in ("all", "none") else [name.strip() for name in attacks.split(",") if name.strip()]


def write_log(out: Path, events: pa.Table) -> None:
    """Write events as JSON Lines or Parquet, by the name's ending. `time` is in Unix seconds in both."""
    with complete_or_nothing(out) as partial:
        if out.suffix == ".parquet":
            seconds = pa.array(events.column("time").to_numpy() / MICROSECONDS)
            pq.write_table(events.set_column(0, "time", seconds), partial, compression="zstd")
            return
        with partial.open("w", encoding="utf-8") as lines:
            for record in records(events):
                lines.write(json.dumps(record, separators=(",", ":"), ensure_ascii=False) + "\n")
