"""Drift: ten ordinary weeks, each of other clients than those trained on, and changes planted on the fourth day of a week.

Trains on one simulated week with attacks in it, and judges weeks without attackers, weeks with other attackers, and weeks with
a change. A row a week: the verdict, and on each day how many features had drifted. An alarm in an ordinary week is a false
one; a planted change should raise one on day 4.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from classifier.events import MICROSECONDS
from classifier.model.apply import Model
from classifier.model.drift import measure_drift
from classifier.model.pipeline import TrainOptions, train_bundle
from classifier.traffic import simulate

DAY = 86_400
PLANTED_AFTER = 3


def with_field(events: pa.Table, name: str, values: Any) -> pa.Table:
    """Return events whose field has other values from the fourth day on."""
    begin = pc.min(events.column("time")).as_py() + PLANTED_AFTER * DAY * MICROSECONDS
    late = pc.greater_equal(events.column("time"), begin)
    place, field = events.schema.get_field_index(name), events.schema.field(name)
    return events.set_column(place, field, pc.if_else(late, values.cast(field.type), events.column(name)))


def planted(events: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """Yield changes of legitimate traffic, as an operator makes or meets them."""
    nothing = pa.chunked_array([pa.nulls(events.num_rows)])
    yield "the gateway logs no user agent", with_field(events, "user_agent", nothing)
    moved = pc.replace_substring(events.column("path"), "/v1/chat/completions", "/api/v2/inference/run/chat")
    yield "the API moves to another path", with_field(events, "path", moved)
    longer = events
    for name, factor in (("output_tokens", 4), ("max_tokens", 8), ("duration", 4.0)):
        longer = with_field(longer, name, pc.multiply(events.column(name), factor))
    yield "answers of four times the length", longer
    yield "the gateway logs no duration", with_field(events, "duration", nothing)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=40)
    parser.add_argument("--weeks", type=int, default=10)
    options, _ = parser.parse_known_args()
    span: dict[str, Any] = {"duration_s": 7.0 * DAY, "clients": options.clients}
    with tempfile.TemporaryDirectory() as folder:
        learn = simulate(**span, attacks="all", seed=0)
        train_bundle(TrainOptions(Path(folder) / "bundle", capacity=65_536), lambda: iter((learn,)))
        model = Model.load(str(Path(folder) / "bundle"))
        print("| week | requests | clients | verdict | features drifted, day 1 to 7 | days of alarm |")
        print("|---|---|---|---|---|---|")
        for seed in range(1, options.weeks + 1):
            show(f"{seed}, with attackers", model, simulate(**span, attacks="all", seed=seed))
            events = simulate(**span, attacks="none", seed=seed)
            show(f"{seed}, without", model, events)
        for name, changed in planted(events):
            show(name, model, changed)


def show(name: str, model: Model, events: pa.Table) -> None:
    """Print the row of a week."""
    found = measure_drift(model, [events])
    drifted = " ".join(str(len(day.counting("drifted"))) for day in found.days)
    alarms = " ".join(str(number) for number, day in enumerate(found.days, 1) if day.verdict == "drift") or "–"
    print(
        f"| {name} | {events.num_rows:,} | {found.whole.clients} | {found.verdict} | {drifted} | {alarms} |", flush=True
    )


if __name__ == "__main__":
    main()
