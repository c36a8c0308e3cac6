"""The protocol's figures, as PNG files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from classifier.evaluation.comparison import OURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"plain": "#0067a5", "evasive": "#c2410c", "mimic": "#7a3e9d"}


def draw(result: dict[str, Any], folder: Path) -> list[tuple[str, str]]:
    """Write every figure into the folder; return (file name, what it shows)."""
    return [_methods(result, folder), _limit(result, folder)]


def _methods(result: dict[str, Any], folder: Path) -> tuple[str, str]:
    means = [row for row in result["comparison"]["means"] if row["rate"] == 0.01]
    names = list(dict.fromkeys(row["method"] for row in means))
    grades = list(dict.fromkeys(row["grade"] for row in means))
    axes, save = _figure(8.0, 0.42 * len(names) + 1.2)
    for place, grade in enumerate(grades):
        rows = {row["method"]: row for row in means if row["grade"] == grade}
        at = np.arange(len(names)) + (place - 1) * 0.26
        value = np.array([rows[name]["value"] for name in names])
        ends = [[value[i] if (bound := rows[name][end]) is None else bound for i, name in enumerate(names)]
                for end in ("low", "high")]  # fmt: skip
        bounds = np.array(ends)
        axes.barh(at, 100 * value, 0.25, xerr=100 * np.abs(bounds - value), color=COLOURS[grade], label=grade,
                  error_kw={"linewidth": 0.8})  # fmt: skip
    axes.set_yticks(np.arange(len(names)), names)
    axes.get_yticklabels()[names.index(OURS)].set_fontweight("bold")
    axes.invert_yaxis()
    axes.set_xlabel("recall per client at 1 % false positives, mean over families, %")
    axes.set_xlim(0, 100)
    axes.legend(frameon=False)
    return save(folder / "methods.png"), "Recall at 1 % false positives of every method, by grade"


def _limit(result: dict[str, Any], folder: Path) -> tuple[str, str]:
    rows = result["limit"]["rows"]
    at, names = np.arange(len(rows)), ["none" if r["limit"] is None else f"{r['limit']:g}" for r in rows]
    axes, save = _figure(8.0, 3.6)
    for grade, colour in COLOURS.items():
        if grade in rows[0]["recall"]:
            for rate, style in ((0, ":"), (1, "-")):
                label = f"{grade}, {'1' if rate else '0.1'} %"
                axes.plot(at, [100 * r["recall"][grade][rate] for r in rows], style, color=colour, label=label)
    axes.set_xticks(at, names)
    axes.set_xlabel("limit c on the group part (0: no group features)")
    axes.set_ylabel("recall per client, %")
    other = axes.twinx()
    other.plot(at, [100 * r["neighbours_after"] for r in rows], "k-", label="neighbours of a bad tenant")
    other.plot(at, [100 * r["neighbours_before"] for r in rows], "k:", label="the same before it came")
    other.set_ylabel("requests challenged, %")
    other.set_ylim(0)
    lines = [*axes.get_lines(), *other.get_lines()]
    axes.legend(lines, [str(line.get_label()) for line in lines], frameon=False, fontsize=7, loc="center left")
    return save(folder / "limit.png"), "Recall, and neighbours of a bad tenant that are challenged, over the limit c"


def _figure(width: float, height: float) -> tuple[Axes, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top"]].set_visible(False)
    axes.grid(True, color="#d5dbe1", linewidth=0.6)
    axes.set_axisbelow(True)

    def save(path: Path) -> str:
        figure.savefig(path, dpi=110, metadata={"Software": "botsieve"})
        return path.name

    return axes, save
