"""The report's figures, as SVG on a light ground (they lie on light cards by night too).

Every figure is drawn with matplotlib's object interface, so that no global state or display is needed. Names from logs
appear in legends: they are kept from being read as mathematics and cut short.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from classifier.events import MICROSECONDS, VERDICTS
from classifier.model.labelled import LabelledRequests, first_actions
from classifier.model.metrics import CalibrationMetrics
from classifier.model.ranking import highest
from classifier.model.wording import ThresholdValues, percent, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.float64]
LEGITIMATE, ATTACK, INK, GRID = "#0067a5", "#c2410c", "#1f2933", "#d5dbe1"
DECISIONS = {"allow": "#9fb3c8", "challenge": "#e69f00", "block": "#b3123f"}
FAMILIES: tuple[tuple[str, Any], ...] = (
    ("#c2410c", "-"), ("#0067a5", "--"), ("#7a3e9d", "-."), ("#00795f", ":"),
    ("#b8860b", (0, (5, 1))), ("#b3123f", (0, (3, 1, 1, 1, 1, 1))), ("#4a5568", (0, (1, 1))),
)  # fmt: skip
"""Colour and dashes of each family: who does not tell the colours apart has the dashes."""
SIZE = (4.4, 3.2)
MOST_FAMILIES = len(FAMILIES)
_STYLE: Any = {
    "svg.hashsalt": "botsieve",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
}


class Plot(NamedTuple):
    """One figure of the report: `alt` says what a reader who cannot see it should know, `source` is a data: address."""

    title: str
    caption: str
    alt: str
    source: str


def all_plots(
    requests: LabelledRequests, calibration: CalibrationMetrics, thresholds: ThresholdValues | None
) -> list[Plot]:
    """Draw every figure the data allow."""
    plots = [score_histogram(requests, thresholds)]
    if requests.malicious.any():
        plots.append(first_action_curve(requests))
    plots.append(timeline(requests))
    if 0 < requests.malicious.sum() < len(requests.malicious):
        plots += [roc_curve(requests), precision_recall_curve(requests), reliability_plot(calibration)]
    return plots


def score_histogram(requests: LabelledRequests, thresholds: ThresholdValues | None) -> Plot:
    """Draw how raw scores are spread in each class, with the thresholds."""
    low, high = float(requests.raw.min()), float(requests.raw.max())
    bins = np.linspace(low, high if high > low else low + 1, 61)

    def draw(ax: Axes) -> None:
        classes = ((False, "legitimate", LEGITIMATE, "-"), (True, "malicious", ATTACK, "--"))
        for label, name, colour, line in classes:
            rows = requests.malicious == label
            if rows.any():
                counts = np.histogram(requests.raw[rows], bins, weights=requests.weight[rows])[0]
                share = counts / counts.sum()
                ax.stairs(share, bins, fill=True, color=colour, alpha=0.22)
                ax.stairs(share, bins, color=colour, label=name, linestyle=line, linewidth=1.5)
        ax.set_yscale("log")
        ax.set(xlabel="raw score (higher is more suspect)", ylabel="share of the class's requests")
        _percent_axis(ax, "y")
        for name, value in thresholds.items() if thresholds else ():
            if isinstance(value, float):
                ax.axvline(value, color=DECISIONS[name], linewidth=1.6, label=f"{name} from {value:.2f}")
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, 1.24), ncols=2)

    middle = {name: np.median(requests.raw[requests.malicious == label]) for name, label in _classes(requests)}
    return _plot(
        "Scores",
        "How raw scores are spread among legitimate and malicious requests. The further apart, the better; what lies right of"
        " a threshold is acted on.",
        "Histogram of raw scores; median "
        + ", ".join(f"{value:.2f} for {name} requests" for name, value in middle.items()),
        draw,
    )


def first_action_curve(requests: LabelledRequests) -> Plot:
    """Draw the share of attackers acted on against the requests they got through before."""
    before = first_actions(requests)[0]
    edges = np.searchsorted(requests.group_of_client, np.arange(len(requests.groups) + 1))
    attacks = [i for i, (kind, _) in enumerate(requests.groups) if kind == "attack"]
    largest = sorted(attacks, key=lambda i: edges[i] - edges[i + 1])[:MOST_FAMILIES]
    waits = {requests.groups[i][1]: before[edges[i] : edges[i + 1]] for i in sorted(largest)}
    everyone = before[requests.attack_clients]
    furthest = max(everyone[np.isfinite(everyone)].max(initial=1.0), 10.0)

    def draw(ax: Axes) -> None:
        for (colour, dashes), (name, values) in zip(FAMILIES, waits.items(), strict=False):
            ax.step(*_cumulative(values, furthest), where="post", color=colour, linestyle=dashes, label=_label(name),
                    linewidth=1.4)  # fmt: skip
        ax.step(*_cumulative(everyone, furthest), where="post", color=INK, label="all attackers", linewidth=2.4)
        ax.set_xscale("symlog", linthresh=1, linscale=0.4)
        ax.set(xlim=(0, furthest * 1.1), ylim=(0, 1.02))
        ax.set(xlabel="requests let through before the first action", ylabel="share of attackers acted on")
        _percent_axis(ax, "y")
        ticks = [0.0, *(k * 10.0**e for e in range(7) for k in (1, 2, 5))]
        shown = [t for t in ticks if t <= furthest * 1.1]
        ax.set_xticks(shown if len(shown) < 9 else [0.0, *shown[1::3]], minor=False)
        ax.set_xticks([], minor=True)
        ax.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
        ax.legend(loc="lower center", bbox_to_anchor=(0.45, 1.0), ncols=2, handlelength=3)

    acted = float(np.isfinite(everyone).mean())
    return _plot(
        "First action",
        "How many requests attackers got through before they were first challenged or blocked"
        + (f"; of the {len(attacks)} families, those of most clients. " if len(attacks) > len(waits) else ". ")
        + "Higher and further left is better.",
        f"Cumulative share of attackers acted on; it ends at {percent(acted)}.",
        draw,
    )


def timeline(requests: LabelledRequests) -> Plot:
    """Draw requests per minute by decision, attackers above legitimate clients."""
    seconds = (requests.time - requests.time[0]) / MICROSECONDS
    width = _bucket(float(seconds[-1]))
    place = (seconds // width).astype(np.intp)
    minutes = (np.arange(place[-1] + 2)) * width
    start = requests.time[0] / MICROSECONDS

    def draw(figure: Figure) -> None:
        classes = _classes(requests)[::-1]
        axes = figure.subplots(len(classes), 1, sharex=True, squeeze=False)[:, 0]
        for ax, (name, label) in zip(axes, classes, strict=True):
            floor = np.zeros(len(minutes) - 1)
            for code, decision in enumerate(VERDICTS):
                rows = (requests.malicious == label) & (requests.code == code)
                rate = np.bincount(place[rows], requests.weight[rows], minlength=len(floor)) * 60 / width
                ax.stairs(floor + rate, minutes, baseline=floor, fill=True, color=DECISIONS[decision], label=decision)
                floor = floor + rate
            ax.set_title(f"{name} requests per minute", fontsize=10, loc="left", color=INK)
            ax.set_ylim(bottom=0)
            ax.yaxis.set_major_formatter(lambda y, _: f"{y:,.0f}" if y == int(y) else f"{y:g}")
            ax.yaxis.get_major_locator().set_params(nbins=4)
        axes[-1].set_xticks(_ticks(start, float(minutes[-1])))
        axes[-1].xaxis.set_major_formatter(lambda x, _: _clock(start + x, float(seconds[-1])))
        axes[-1].set_xlabel("time (UTC)")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=3)

    weight = requests.weight
    acted = {
        name: weight[rows & (requests.code > 0)].sum() / weight[rows].sum()
        for name, label in _classes(requests)
        for rows in [requests.malicious == label]
    }
    return _figure(
        "Over time",
        f"Requests per minute and what was decided about them, in steps of {_span(width)}: of malicious ones little should be"
        " allowed, of legitimate ones all.",
        "Timeline of decisions; acted on: " + ", ".join(f"{percent(v)} of {k} requests" for k, v in acted.items()),
        draw,
    )


def roc_curve(requests: LabelledRequests) -> Plot:
    """Draw recall against the false-positive rate, per request and per client."""
    curves = _curves(requests)

    def draw(ax: Axes) -> None:
        least = min(1 / max(curve.negatives, 10) for curve in curves.values())
        for (unit, curve), colour, line in zip(curves.items(), (LEGITIMATE, ATTACK), ("-", "--"), strict=True):
            false = np.maximum(curve.false / curve.negatives, least / 2)
            ax.step(false, curve.true / curve.positives, line, where="post", color=colour, label=f"per {unit}")
        ax.set_xscale("log")
        for rate in (0.001, 0.01):
            ax.axvline(rate, color=INK, linewidth=0.9, linestyle=":")
        ax.set(xlim=(least, 1), ylim=(0, 1.02))
        ax.set(xlabel="false-positive rate (share of legitimate)", ylabel="recall (share of malicious)")
        _percent_axis(ax, "x")
        _percent_axis(ax, "y")
        ax.legend(loc="lower right")

    return _plot(
        "Recall and false positives",
        "Recall at each false-positive rate, whatever the thresholds. Left of the dotted lines (0.1 % and 1 %) is "
        "where a gateway works. A client counts with its highest score.",
        "Receiver operating characteristic on a logarithmic axis; recall at 1 % false positives: "
        + ", ".join(f"{percent(curve.recall_at(0.01))} per {unit}" for unit, curve in curves.items()),
        draw,
    )


def precision_recall_curve(requests: LabelledRequests) -> Plot:
    """Draw precision against recall, per request and per client."""
    curves = _curves(requests)

    def draw(ax: Axes) -> None:
        for (unit, curve), colour, line in zip(curves.items(), (LEGITIMATE, ATTACK), ("-", "--"), strict=True):
            precision = curve.true / (curve.true + curve.false)
            ax.plot(curve.true / curve.positives, precision, line, color=colour, label=f"per {unit}")
        ax.set(xlim=(0, 1.02), ylim=(0, 1.03))
        ax.set(xlabel="recall (share of malicious found)", ylabel="precision (share rightly accused)")
        _percent_axis(ax, "x")
        _percent_axis(ax, "y")
        ax.legend(loc="lower left")

    bases = {unit: c.positives / (c.positives + c.negatives) for unit, c in curves.items()}
    mixed = " and ".join(f"{percent(base)} of {unit}s" for unit, base in bases.items())
    return _plot(
        "Precision and recall",
        f"The nearer to the upper right corner, the better. Precision depends on how common attacks are: here {mixed} are"
        " malicious.",
        "Precision against recall, per request and per client",
        draw,
    )


def reliability_plot(calibration: CalibrationMetrics) -> Plot:
    """Draw observed shares of attacks against stated probabilities, both in log-odds."""
    low, high = 1e-5, 0.9999
    ticks = [1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.5, 0.9, 0.99, 0.999]

    def place(probability: Floats | list[float] | float) -> Floats:
        p = np.clip(np.asarray(probability, np.float64), low, high)
        return np.asarray(np.log(p / (1 - p)))

    def draw(ax: Axes) -> None:
        points = calibration["points"]
        x, y = place([p["predicted"] for p in points]), place([p["observed"] for p in points])
        below, above = y - place([p["low"] for p in points]), place([p["high"] for p in points]) - y
        ax.plot(place([low, high]), place([low, high]), color=INK, linewidth=1, linestyle=":", label="as stated")
        ax.errorbar(x, y, [below, above], fmt="o", color=LEGITIMATE, markersize=4.5, linewidth=1.2, label="observed")
        labels = [f"{100 * t:g} %" for t in ticks]
        ax.set_xticks(place(ticks), labels, rotation=40, ha="right", rotation_mode="anchor")
        ax.set_yticks(place(ticks), labels)
        ends = place([low, high]) + np.array([-0.6, 0.6])
        ax.set(xlim=tuple(ends), ylim=tuple(ends))
        ax.set(xlabel="stated probability of attack", ylabel="observed share of attacks")
        ax.legend(loc="upper left")

    error = percent(calibration["ece"]["value"])
    return _plot(
        "Calibration",
        f"Where attacks are {100 * calibration['prior']:g} % of requests. Expected calibration error {error}; "
        "points on the dotted line mean what they say, bars are 95 % intervals. Points at an edge were 0 or 100 %.",
        f"Reliability plot in log-odds; expected calibration error {error}",
        draw,
    )


class _Curve(NamedTuple):
    """Rows at or above each of some falling scores, by class."""

    false: Floats
    true: Floats

    @property
    def negatives(self) -> int:
        return int(self.false[-1])

    @property
    def positives(self) -> int:
        return int(self.true[-1])

    def recall_at(self, rate: float) -> float:
        within = self.true[self.false <= rate * self.negatives]
        return float(within.max(initial=0.0) / self.positives)


def _curves(requests: LabelledRequests) -> dict[str, _Curve]:
    of_client = highest(requests.raw, requests.client, len(requests.group_of_client))
    each = np.ones(len(of_client))
    return {
        "request": _curve(requests.raw, requests.malicious, requests.weight),
        "client": _curve(of_client, requests.attack_clients, each),
    }


def _curve(raw: npt.NDArray[np.float32], malicious: npt.NDArray[np.bool_], weight: Floats) -> _Curve:
    order = np.argsort(-raw, kind="stable")
    ends = np.flatnonzero(np.append(raw[order][1:] != raw[order][:-1], True))
    true = np.cumsum((malicious * weight)[order])[ends]
    false = np.cumsum((~malicious * weight)[order])[ends]
    some = np.unique(np.rint(np.geomspace(1, len(ends), 700)).astype(np.intp) - 1)
    even = np.unique(np.linspace(0, len(ends) - 1, 300).astype(np.intp))
    kept = np.union1d(some, even)
    return _Curve(false[kept], true[kept])


def _cumulative(waits: Floats, furthest: float) -> tuple[Floats, Floats]:
    finite = np.sort(waits[np.isfinite(waits)])
    share = np.arange(len(finite) + 1) / len(waits)
    return np.concatenate([[0.0], finite, [furthest * 1.1]]), np.append(share, share[-1])


def _classes(requests: LabelledRequests) -> list[tuple[str, bool]]:
    return [
        (name, label)
        for name, label in (("legitimate", False), ("malicious", True))
        if (requests.malicious == label).any()
    ]


_WIDTHS = (10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21_600, 86_400)


_STEPS = sorted({*_WIDTHS, 1, 2, 5, 900, 10_800, 43_200, 172_800, 604_800})


def _bucket(seconds: float) -> float:
    """Return a round width that makes at most about 150 steps, s."""
    return next((w for w in _WIDTHS if seconds / w <= 150), 86_400 * math.ceil(seconds / 86_400 / 150))


def _ticks(start: float, length: float) -> Floats:
    """Return at most 5 round moments after the start, s."""
    step = next((w for w in _STEPS if length / w <= 5), math.ceil(length / 5))
    return np.arange(math.ceil(start / step) * step - start, length, step)


def _span(seconds: float) -> str:
    for size, name in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            return f"{seconds / size:g} {name}{'' if seconds == size else 's'}"
    return f"{seconds:g} seconds"


def _clock(second: float, length: float) -> str:
    moment = datetime.fromtimestamp(second, UTC)
    return moment.strftime("%H:%M:%S" if length < 600 else "%H:%M" if length < 86_400 else "%d %b %H:%M")


def _percent_axis(ax: Axes, which: str) -> None:
    axis = ax.xaxis if which == "x" else ax.yaxis
    axis.set_major_formatter(lambda value, _: f"{100 * value:g} %" if value > 0 else "0 %")


def _label(name: str) -> str:
    """Return a name that matplotlib draws as it is, in glyphs its own font has."""
    plain = "".join(c if c.isascii() else "?" for c in printable(name, 24).replace("…", "..").replace("\ufffd", "?"))
    return ("\u200b" if plain.startswith("_") else "") + plain.replace("$", r"\$")


def _plot(title: str, caption: str, alt: str, draw: Callable[[Axes], None]) -> Plot:
    return _figure(title, caption, alt, lambda figure: draw(figure.subplots()))


def _figure(title: str, caption: str, alt: str, draw: Callable[[Figure], None]) -> Plot:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=SIZE, layout="constrained", facecolor="white")
        draw(figure)
        drawn = io.BytesIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    return Plot(title, caption, alt, "data:image/svg+xml;base64," + base64.b64encode(drawn.getvalue()).decode())
