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
from classifier.model.stability import FeatureDrift

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
    windows = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in (
        "from (UTC)",
        "requests",
        "clients",
        "acted on",
        "score PSI",
        "drifted",
        "moved",
        "unresolved",
        "verdict",
    ):
        windows.add_column(name, justify="left" if name in ("from (UTC)", "verdict") else "right", no_wrap=True)
    for window in (found.whole, *found.days):
        windows.add_row(*_cells(window))
    OUTPUT.print(windows)
    lost = dict.fromkeys(name for window in (found.whole, *found.days) for name in window.lost)
    if lost:
        OUTPUT.print(f"No request has this any more, on a whole day or longer: {', '.join(lost)}.")
    far = [each for each in found.whole.features if each.counts and each.state in ("drifted", "moved")]
    for day in found.days:
        known = {each.name for each in far}
        far += [each for each in day.counting("drifted") if each.name not in known]
    if far:
        OUTPUT.print(_features(sorted(far, key=lambda each: -each.psi)[:SHOWN]))
    OUTPUT.print(Text(SAYS[found.verdict], style=f"bold {TONES[found.verdict]}"))


def _cells(window: Window) -> list[str]:
    begin = datetime.fromtimestamp(window.start, UTC)
    counts = (len(window.counting(state)) for state in ("drifted", "moved", "unresolved"))
    return [
        f"{begin:%Y-%m-%d %H:%M}", f"{window.requests:,}", f"{window.clients:,}", f"{window.acted_on:,}",
        f"{window.raw.psi:.2f}", *(f"{count:,}" for count in counts), window.verdict,
    ]  # fmt: skip


def _features(far: list[FeatureDrift]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("feature", "PSI", "by chance", "at most", "state"):
        table.add_column(name, justify="left" if name in ("feature", "state") else "right", no_wrap=True)
    for each in far:
        table.add_row(each.name, f"{each.psi:.2f}", f"{each.expected:.2f}", f"{each.limit:.2f}", each.state)
    return table
