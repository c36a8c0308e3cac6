"""Figures and verdicts in plain words, the same in the report and in the terminal."""

from __future__ import annotations

import math
import re
from collections import Counter
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, TypedDict

from classifier.events import VERDICTS
from classifier.model.bootstrap import Figure
from classifier.model.metrics import GroupMetrics, Metrics
from classifier.policy import unresolved

Tone = Literal["good", "fair", "poor"]
CAUGHT = ((0.95, "Catches nearly all attackers"), (0.8, "Catches most attackers"), (0.5, "Catches many attackers"))
"""Least share of attackers acted on, and how that is called; below it, "few"."""
MOST_STRETCHES = 6
"""Stretches of a log that a terminal is told of."""


class ThresholdValues(TypedDict):
    """Raw thresholds as the manifest has them; None for never."""

    challenge: float | None
    block: float | None


class Verdict(NamedTuple):
    """The evaluation in a line, and in some sentences."""

    tone: Tone
    title: str
    sentences: list[str]


def percent(share: float | None) -> str:
    """Write a share as a percentage with about two digits of its distance from 0 or 1."""
    if share is None:
        return "–"
    rest = 100 * min(abs(share), abs(1 - share))
    digits = 0 if rest < 1e-9 or rest >= 9.95 else min(max(0, 1 - math.floor(math.log10(rest))), 4)
    return f"{100 * share:.{digits}f} %"


def unbroken(text: str) -> str:
    """Return text for a page, in which no line ends between a number and its per cent sign."""
    return re.sub(r"(?<=\d) %", "\u00a0%", text)


def percent_interval(figure: Figure) -> str:
    """Write the interval of a share, such as "1.2 to 3.4 %"; empty when there is none."""
    if figure["low"] is None or figure["high"] is None:
        return ""
    low, high = percent(figure["low"]), percent(figure["high"])
    return f"{low.removesuffix(' %')} to {high}"


def whole(figure: Figure | None) -> str:
    """Write a number of requests or tokens; "never" where most are never acted on."""
    if figure is None:
        return "–"
    if figure["value"] is None:
        return "never" if "never" in (figure["reason"] or "") else "–"
    return f"{figure['value']:,.0f}"


def printable(text: str, longest: int = 64) -> str:
    """Return text from a log fit to be shown: control characters replaced, long ones cut in the middle."""
    clean = "".join(c if c.isprintable() else "\ufffd" for c in text)
    if len(clean) <= longest:
        return clean
    return f"{clean[: longest - longest // 3 - 1]}…{clean[-(longest // 3) :]}"


def plural(count: int, noun: str) -> str:
    """Write a count with its noun."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def counted(decisions: Counter[str]) -> str:
    """Write how many requests or clients each verdict was given."""
    return ", ".join(f"{verdict} {decisions[verdict]:,}" for verdict in VERDICTS)


def situation_rows(stretches: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Return the stretches of `LogWatch` as text: when, how many minutes, state, evidence."""
    rows = []
    for stretch in stretches:
        begin, end = (datetime.fromtimestamp(stretch[name], UTC) for name in ("since", "until"))
        rows.append(
            {
                "when": f"{begin:%d %b %H:%M} to {end:%H:%M}" if begin.date() == end.date()
                else f"{begin:%d %b %H:%M} to {end:%d %b %H:%M}",
                "minutes": _minutes((stretch["until"] - stretch["since"]) / 60),
                "state": stretch["state"],
                "evidence": "; ".join(stretch["evidence"]),
            }
        )  # fmt: skip
    return rows


def _minutes(length: float) -> str:
    return f"{length:,.0f}" if length >= 1 else "under 1"


def situation_lines(stretches: list[dict[str, Any]]) -> list[str]:
    """Return what a terminal says of the stretches: those that are not calm, and how many more there are."""
    rows = [row for row in situation_rows(stretches) if row["state"] != "calm"]
    lines = [
        f"{row['state']}, {row['when']} UTC ({row['minutes']} min): {row['evidence']}." for row in rows[:MOST_STRETCHES]
    ]
    if len(rows) > MOST_STRETCHES:
        lines.append(f"… and {len(rows) - MOST_STRETCHES} more such stretches.")
    return lines or (["botsieve saw neither a surge nor an attack of the whole service."] if stretches else [])


def overall(metrics: Metrics, kind: str) -> GroupMetrics | None:
    """Return the line of all attacks or of all legitimate clients; None when there are none."""
    return next((g for g in metrics["groups"] if g["overall"] and g["kind"] == kind), None)


def verdict(metrics: Metrics, thresholds: ThresholdValues | None = None, budget: float | None = None) -> Verdict:
    """Sum an evaluation up. `budget` is the challenge budget: legitimate requests that may be acted on."""
    attack, legitimate = overall(metrics, "attack"), overall(metrics, "legitimate")
    caught, catching = _caught(attack)
    cost, costing = _cost(legitimate, budget)
    title, tone = f"{catching}{costing}", _worse(caught, cost)
    if thresholds is not None and thresholds["challenge"] is None and thresholds["block"] is None:
        title, tone = "Takes no action: the data resolve no threshold", "poor"
    return Verdict(tone, title, [*_attack_sentences(attack), *_legitimate_sentences(legitimate, budget)])


def _caught(attack: GroupMetrics | None) -> tuple[Tone, str]:
    if attack is None:
        return "fair", "No attacks to catch"
    share = attack["clients_acted_on"]["value"] or 0.0
    if share == 0:
        return "poor", "Catches no attacker"
    words = next((words for least, words in CAUGHT if share >= least), "Catches few attackers")
    return "good" if share >= CAUGHT[1][0] else "fair" if share >= CAUGHT[2][0] else "poor", words


def _cost(legitimate: GroupMetrics | None, budget: float | None) -> tuple[Tone, str]:
    if legitimate is None or budget is None:
        return "good", ""
    touched = legitimate["acted_on"]
    if (touched["value"] or 0.0) <= budget:
        if unresolved(legitimate["requests"], budget) is not None:
            return "fair", ", but legitimate requests are too few to tell what it costs them"
        return "good", ", within the budget for legitimate requests"
    if touched["low"] is not None and touched["low"] > budget:
        return "poor", ", but touches more legitimate requests than the budget allows"
    if (touched["value"] or 0.0) <= 2 * budget:
        return "fair", ", slightly over the budget for legitimate requests"
    return "fair", ", and over the budget for legitimate requests, perhaps by chance"


def _worse(*tones: Tone) -> Tone:
    order: tuple[Tone, ...] = ("good", "fair", "poor")
    return order[max(order.index(tone) for tone in tones)]


def _attack_sentences(attack: GroupMetrics | None) -> list[str]:
    if attack is None:
        return ["The data hold no attacks, so nothing can be said about catching them."]
    caught = attack["clients_acted_on"]["value"] or 0.0
    number = round(caught * attack["clients"])
    first = f"{number:,} of {plural(attack['clients'], 'attacker')} ({percent(caught)}) were challenged or blocked"
    median = (attack["requests_before_action"] or {}).get("median")
    if median is not None and median["value"] is not None:
        passed = int(median["value"])
        first += (
            f"; half of all attackers got at most {plural(passed, 'request')} through first"
            if passed
            else ("; half of all attackers at their very first request")
        )
    sentences = [first + "."]
    if attack["tokens_acted_on"]["value"] is not None:
        sentences.append(f"{percent(attack['tokens_acted_on']['value'])} of the attackers' tokens were stopped.")
    return sentences


def _legitimate_sentences(legitimate: GroupMetrics | None, budget: float | None) -> list[str]:
    if legitimate is None:
        return ["The data hold no legitimate traffic, so nothing can be said about harm to it."]
    touched = legitimate["acted_on"]["value"] or 0.0
    clients = round((legitimate["clients_acted_on"]["value"] or 0.0) * legitimate["clients"])
    rule = "" if budget is None else f"; the budget is {percent(budget)}"
    requests = plural(legitimate["requests"], "legitimate request")
    if not touched:
        return [f"None of {requests} was challenged or blocked{rule}."]
    return [
        f"{percent(touched)} of {requests} were challenged or blocked{rule}. "
        f"They came from {clients:,} of {plural(legitimate['clients'], 'legitimate client')}."
    ]
