"""`botsieve score`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pyarrow as pa

from classifier.cli.files import check_ending, write_tables
from classifier.cli.logs import LogOptions
from classifier.cli.terminal import say, threads_of
from classifier.errors import InputError
from classifier.model.apply import SCORES, Model, PerClient, in_input_order
from classifier.model.scorer import Device
from classifier.model.wording import counted


def run(log: LogOptions, bundle: Path, out: Path, per: str, device: str, threads: int) -> None:
    """Score a log and write a row for each request or client."""
    if per not in ("request", "client"):
        raise InputError(f"--per takes request or client, not {per}")
    check_ending(out)
    count = threads_of(threads)
    model = Model.load(str(bundle), device=cast(Device, device), threads=count)  # checked there
    for note in model.thresholds.notes:
        say(f"of the bundle: {note}", log.quiet)
    decisions: Counter[str] = Counter()

    def results() -> Iterator[pa.Table]:
        for scored in model.scored(log.tables(out, "scoring"), threads=count):
            for entry in scored.results.column("decision").value_counts():
                decisions[entry["values"].as_py()] += entry["counts"].as_py()
            yield scored.results
        log.conclude()  # before the file takes its name: too many rejects leave none behind

    told = ""
    if per == "request":
        write_tables(out, SCORES, in_input_order(results()))
    else:
        clients = PerClient()
        for table in results():
            clients.add(table)
        table = pa.Table.from_pandas(clients.table(), preserve_index=False)
        write_tables(out, table.schema, [table])
        told = f"; clients: {counted(Counter(table.column('decision').to_pylist()))}"
    say(f"{out}: requests: {counted(decisions)}{told}", log.quiet)
