"""The protocol's figures, as PNG files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from classifier.evaluation.comparison import OURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"plain": "#0067a5", "evasive": "#c2410c", "mimic": "#7a3e9d"}
HATCHES, MARKS = {"plain": "", "evasive": "//", "mimic": "xx"}, {"plain": "o", "evasive": "s", "mimic": "^"}
"""What tells the grades apart for who does not tell the colours apart."""
GRID = "#d5dbe1"
DPI = 160


class Drawn(NamedTuple):
    """A figure: its file, what it shows, how it is to be read, what a reader who cannot see it should know, and inches."""

    file: str
    title: str
    caption: str
    alt: str
    size: tuple[float, float]


def draw(result: dict[str, Any], folder: Path) -> list[Drawn]:
    """Write every figure into the folder."""
    return [_methods(result, folder), _limit(result, folder)]


def _methods(result: dict[str, Any], folder: Path) -> Drawn:
    means = [row for row in result["comparison"]["means"] if row["rate"] == 0.01]
    names = list(dict.fromkeys(row["method"] for row in means))
    grades = list(dict.fromkeys(row["grade"] for row in means))
    figure = _figure(9.0, 0.42 * len(names) + 1.6)
    axes = figure.add_subplot()
    _ground(axes)
    for place, grade in enumerate(grades):
        rows = {row["method"]: row for row in means if row["grade"] == grade}
        at = np.arange(len(names)) + (place - 1) * 0.26
        value = np.array([rows[name]["value"] for name in names])
        ends = [[value[i] if (bound := rows[name][end]) is None else bound for i, name in enumerate(names)]
                for end in ("low", "high")]  # fmt: skip
        bounds = np.array(ends)
        axes.barh(at, 100 * value, 0.25, xerr=100 * np.abs(bounds - value), color=COLOURS[grade], label=grade,
                  hatch=HATCHES[grade], edgecolor="white", linewidth=0, error_kw={"linewidth": 0.8})  # fmt: skip
    axes.set_yticks(np.arange(len(names)), names)
    axes.get_yticklabels()[names.index(OURS)].set_fontweight("bold")
    axes.invert_yaxis()
    axes.set_xlabel("recall per client at 1 % false positives, mean over families, %")
    axes.set_xlim(0, 100)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(grades), frameon=False)
    title = "Recall of every method"
    return _saved(
        figure, folder / "methods.png", title,
        "How many attackers each method finds where 1 % of legitimate clients are accused, by grade: longer is better. Lines are"
        " 95 % intervals; no bar is 0 %.",
        f"{title} at 1 % false positives, by grade; the table Beside other methods has the numbers",
    )  # fmt: skip


def _limit(result: dict[str, Any], folder: Path) -> Drawn:
    rows = result["limit"]["rows"]
    at, names = np.arange(len(rows)), ["none" if r["limit"] is None else f"{r['limit']:g}" for r in rows]
    figure = _figure(9.0, 5.6)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    for grade, colour in COLOURS.items():
        if grade in rows[0]["recall"]:
            for rate, style in ((0, ":"), (1, "-")):
                label = f"{grade}, {'1' if rate else '0.1'} %"
                value = [100 * r["recall"][grade][rate] for r in rows]
                above.plot(at, value, style, marker=MARKS[grade], markersize=4, color=colour, label=label)
    above.set_ylabel("recall per client, %")
    above.set_ylim(0, 103)
    above.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, title="grade, false positives")
    below.plot(at, [100 * r["neighbours_after"] for r in rows], "k-", label="beside a bad tenant")
    below.plot(at, [100 * r["neighbours_before"] for r in rows], "k:", label="before it came")
    below.set_ylabel("neighbours' requests\nchallenged, %")
    below.set_ylim(0)
    below.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    below.set_xticks(at, names)
    below.set_xlabel("limit c on the group part (0: no group features)")
    for axes in (above, below):
        _ground(axes)
    title = "The limit on the company that a client keeps"
    return _saved(
        figure, folder / "limit.png", title,
        "Above, attackers found: higher is better. Below, requests of a bad tenant's neighbours that are challenged: lower is"
        " better.",
        f"{title}: recall, and neighbours of a bad tenant that are challenged, over the limit c",
    )  # fmt: skip


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _ground(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)


def _saved(figure: Figure, path: Path, title: str, caption: str, alt: str) -> Drawn:
    figure.suptitle(title, fontweight="bold", fontsize=11)
    figure.savefig(path, dpi=DPI, metadata={"Software": "botsieve"})
    width, height = figure.get_size_inches()
    return Drawn(path.name, title, caption, alt, (float(width), float(height)))
