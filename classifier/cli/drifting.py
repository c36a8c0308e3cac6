"""`botsieve drift`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from classifier.cli.files import check_place, check_spared, complete_or_nothing
from classifier.cli.logs import LogOptions
from classifier.cli.terminal import OUTPUT, say, threads_of
from classifier.model.apply import Model
from classifier.model.drift import Drift, Window, measure_drift
from classifier.model.summary import show_table

SHOWN = 10
"""Features shown at most."""
TONES = {"steady": "green", "watch": "yellow", "drift": "red", "unresolved": "yellow"}
SAYS = {
    "steady": "Steady: the traffic looks like that of training.",
    "watch": "Watch: something has moved, not enough for an alarm.",
    "drift": "Drift: the traffic no longer looks like that of training. Look at what moved, and train anew.",
    "unresolved": "Unresolved: too few clients to tell drift from chance. Give a longer log.",
}


def run(log: LogOptions, bundle: Path, json_file: Path | None, threads: int) -> None:
    """Measure drift; print the verdict and what moved, and write every figure."""
    if json_file is not None:
        check_place(json_file)
        check_spared((json_file,), log.logs)
    count = threads_of(threads)
    model = Model.load(str(bundle), device="cpu", threads=count)
    found = measure_drift(model, log.tables(json_file or Path("drift"), "comparing"), threads=count)
    log.conclude()
    if json_file is not None:
        with complete_or_nothing(json_file) as partial:
            partial.write_text(json.dumps(found.as_json(), indent=1) + "\n", encoding="utf-8")
        say(f"figures: {json_file}", log.quiet)
    _show(found)


def _show(found: Drift) -> None:
    OUTPUT.print(Text(_account(found)))
    windows = Table("", box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    for name in ("compared", "clients", "acted\non", "score\nPSI", "features\ndrifted", "moved", "unresolved"):
        windows.add_column(name, justify="right")
    windows.add_column("verdict")
    for window in (found.whole, *found.days):
        counts = (len(window.counting(state)) for state in ("drifted", "moved", "unresolved"))
        windows.add_row(
            _name(found, window), f"{window.requests:,}", f"{window.clients:,}", f"{window.acted_on:,}",
            f"{window.raw.psi:.2f}", *(f"{count:,}" for count in counts), window.verdict,
        )  # fmt: skip
    show_table(windows, OUTPUT)
    lost = dict.fromkeys(name for window in (found.whole, *found.days) for name in window.lost)
    if lost:
        OUTPUT.print(f"No request has this any more, on a whole day or longer: {', '.join(lost)}.")
    _show_features(found)
    OUTPUT.print(Text(SAYS[found.verdict], style=f"bold {TONES[found.verdict]}"))


def _account(found: Drift) -> str:
    """Say where each request of the log has gone, so that the sum closes."""
    whole = found.whole
    parts = {
        "compared": whole.requests, "that the model acts on": whole.acted_on, "labelled malicious": whole.malicious,
        "of the beginning, when nobody is known yet": found.warm_up,
    }  # fmt: skip
    told = " + ".join(f"{count:,} {what}" for what, count in parts.items() if count)
    begin, end = (f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M}" for moment in (whole.start, whole.end))
    days = f", in days from {begin[-5:]} on" if found.days else ""
    return f"{sum(parts.values()):,} requests = {told}.\nCompared from {begin} to {end} UTC{days}."


def _name(found: Drift, window: Window) -> str:
    return "whole log" if window is found.whole else f"{datetime.fromtimestamp(window.start, UTC):%Y-%m-%d}"


def _show_features(found: Drift) -> None:
    """Print what moved in the whole log, and what drifted on a day alone, the furthest first."""
    far = {each.name: (found.whole, each) for state in ("drifted", "moved") for each in found.whole.counting(state)}
    for day in found.days:
        far = {each.name: (day, each) for each in day.counting("drifted")} | far
    if not far:
        return
    table = Table("feature", "when", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("PSI", "by chance", "at most"):
        table.add_column(name, justify="right")
    table.add_column("state")
    for window, each in sorted(far.values(), key=lambda pair: -pair[1].psi)[:SHOWN]:
        figures = (f"{figure:.2f}" for figure in (each.psi, each.expected, each.limit))
        table.add_row(each.name, _name(found, window), *figures, each.state)
    show_table(table, OUTPUT)
    if len(far) > SHOWN:
        OUTPUT.print(f"… and {len(far) - SHOWN:,} more; --json has every figure.")
