"""The plot of a what-if: who is served in time behind each defence, and what attackers take."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from classifier.model.plots import ATTACK, GRID, INK, LEGITIMATE
from classifier.whatif.comparison import ALONE, BOTSIEVE, NONE
from classifier.whatif.run import WhatIf

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {ALONE: "#6b7785", NONE: ATTACK, BOTSIEVE: LEGITIMATE}
OTHERS = ("#7a3e9d", "#00795f", "#b8860b")
LINES: dict[str, Any] = {ALONE: ":", NONE: "--", BOTSIEVE: "-"}
OTHER_LINES = ((0, (6, 2)), (3, (6, 2, 1, 2)), (6, (3, 3)))
"""Dashes that are out of step: of lines that lie on one another, each is seen."""
DPI = 160


def plot(found: WhatIf) -> bytes:
    """Return the plot as a PNG: above the share of legitimate requests in time, below the work served, against time."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    style: Any = {"font.family": "DejaVu Sans", "font.size": 10, "text.color": INK, "axes.labelcolor": INK,
             "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.spines.top": False,
             "axes.spines.right": False}  # fmt: skip
    attacked = bool(found.traffic.attack.any())
    with rc_context(style):
        figure = Figure(figsize=(8.6, 6.4), layout="constrained", facecolor="white")
        above, below = figure.subplots(2, 1, sharex=True)
        _in_time(above, found, attacked)
        _work(below, found, attacked)
        _clock(below, found)
        figure.legend(*above.get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False, fontsize=9,
                      handlelength=3.2)  # fmt: skip
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", dpi=DPI, metadata={"Software": None})
    return drawn.getvalue()


def colour_of(name: str, place: int) -> str:
    """Return the colour of a defence; `place` is its place among the outcomes."""
    return COLOURS.get(name) or OTHERS[place % len(OTHERS)]


def _line(name: str, place: int) -> dict[str, Any]:
    """Return how the line of a defence is drawn."""
    ours = name == BOTSIEVE
    return {
        "baseline": None, "color": colour_of(name, place), "linestyle": LINES.get(name, OTHER_LINES[place % len(OTHER_LINES)]),
        "linewidth": 2.4 if ours else 1.5, "zorder": 3 if ours else 2,
    }  # fmt: skip


def _in_time(ax: Axes, found: WhatIf, attacked: bool) -> None:
    for place, (outcome, course) in enumerate(zip(found.outcomes, found.courses, strict=True)):
        ax.stairs(100 * course.in_time, course.edges, label=outcome.name, **_line(outcome.name, place))
    ax.set(ylim=(-3, 103), ylabel="%")
    ax.set_title(f"{'legitimate ' if attacked else ''}requests served in time", fontsize=10, loc="left")
    ax.grid(color=GRID, linewidth=0.6)
    ax.set_axisbelow(True)


def _work(ax: Axes, found: WhatIf, attacked: bool) -> None:
    """Draw what attackers take behind each defence; without attackers, all that is served."""
    for place, (outcome, course) in enumerate(zip(found.outcomes, found.courses, strict=True)):
        if attacked and outcome.name == ALONE:
            continue
        rate = course.attack_rate if attacked else course.legitimate_rate
        ax.stairs(rate, course.edges, **_line(outcome.name, place))
    capacity = found.setup.server.capacity
    ax.axhline(capacity, color=INK, linewidth=1.2, linestyle=(0, (1, 2)))
    ax.annotate(f"capacity {capacity:,.0f} tokens/s", (1, capacity), xycoords=("axes fraction", "data"), ha="right",
                xytext=(0, 4), textcoords="offset points", fontsize=9)  # fmt: skip
    ax.set(ylim=(0, None), ylabel="tokens/s")
    ax.set_title(f"{'attackers’ ' if attacked else ''}work served", fontsize=10, loc="left")
    ax.yaxis.set_major_formatter(lambda y, _: f"{y:,.0f}")
    ax.grid(color=GRID, linewidth=0.6)
    ax.set_axisbelow(True)


def _clock(ax: Axes, found: WhatIf) -> None:
    low, high = found.setup.begins, found.traffic.span
    start = found.traffic.start
    form = "%H:%M" if high - low < 86_400 else "%d %b %H:%M"
    step = next(
        (s for s in (60, 300, 600, 1800, 3600, 7200, 21_600, 86_400) if (high - low) / s <= 8), (high - low) / 6
    )
    ticks = np.arange(np.ceil((start + low) / step) * step, start + high, step) - start
    ax.set_xticks(ticks, [datetime.fromtimestamp(start + t, UTC).strftime(form) for t in ticks])
    ax.set(xlim=(low, high), xlabel="time of arrival, UTC")
