"""Tables in the terminal, that of decisions above all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from classifier.model.metrics import GroupMetrics, Metrics
from classifier.model.wording import ThresholdValues, percent, printable, verdict, whole

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

TONES = {"good": "green", "fair": "yellow", "poor": "red"}


def print_summary(
    metrics: Metrics, console: Console, thresholds: ThresholdValues | None = None, budget: float | None = None
) -> None:
    """Print decisions by family and kind, then the verdict; fits 80 columns.

    `thresholds` and the challenge `budget` are those of the manifest; without them the verdict does not judge by them.
    """
    from rich.text import Text

    console.print(_table(metrics))
    summed = verdict(metrics, thresholds, budget)
    console.print(Text(summed.title, style=f"bold {TONES[summed.tone]}"))
    for sentence in [*summed.sentences, *metrics["notes"]]:
        console.print(Text(sentence), soft_wrap=False)


def show_table(table: Table, console: Console, spare: int = 0) -> None:
    """Print a table as wide as it is: a cell that is cut tells nothing. Its last column can `spare` so much to a terminal."""
    from rich.measure import Measurement

    width = Measurement.get(console, console.options.update(max_width=WIDEST), table).maximum
    table.width = max(width - spare, min(width, console.width)) if console.is_terminal else width
    console.print("", table, "", sep="\n", crop=False)


WIDEST = 1_000
"""Characters that a table may take."""
COLUMNS = ("clients", "requests", "allow %", "chall. %", "block %", "tokens %", "after")
CAPTION = (
    "tokens %: of requests challenged or blocked; after: requests that the median attacker got through before that"
)


def _table(metrics: Metrics) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0, caption=CAPTION, caption_justify="left")
    table.add_column("family or kind", no_wrap=True, overflow="ellipsis", min_width=12)
    for name in COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    for place, group in enumerate(metrics["groups"]):
        if group["overall"] and place:
            table.add_section()
        table.add_row(*(Text(cell) for cell in _cells(group)), style="bold" if group["overall"] else "")
    return table


def _cells(group: GroupMetrics) -> list[str]:
    name = {"attack": "all attacks", "legitimate": "all legitimate"}[group["kind"]]
    waits = group["requests_before_action"]
    shares = (group["allowed"], group["challenged"], group["blocked"], group["tokens_acted_on"])
    return [
        name if group["overall"] else printable(group["family"], 22),
        f"{group['clients']:,}",
        f"{group['requests']:,}",
        *(percent(share["value"]).removesuffix(" %") for share in shares),
        whole(waits["median"]) if waits else "–",
    ]
