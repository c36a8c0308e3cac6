"""A what-if in words, tables and a page."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classifier.model import wording
from classifier.model.page import rendered
from classifier.model.summary import show_table
from classifier.model.wording import situation_lines, situation_rows
from classifier.whatif.comparison import ALONE, BOTSIEVE, NONE, Outcome
from classifier.whatif.drawing import colour_of
from classifier.whatif.run import WhatIf

if TYPE_CHECKING:
    from rich.console import Console

TEMPLATE = Path(__file__).with_name("whatif.html")


def sentences(found: WhatIf) -> list[str]:
    """Sum the results up, the most important first."""
    by = {outcome.name: outcome for outcome in found.outcomes}
    ours, bare = by[BOTSIEVE], by[NONE]
    share = found.forecast["shares"]["legitimate" if found.traffic.labelled else "all"]
    whose = "legitimate requests" if found.traffic.labelled else "requests"
    told = []
    if ALONE in by:
        told.append(
            f"With botsieve {wording.percent(in_time(ours))} of {ours.legitimate:,} {whose} are served in time, without a"
            f" defence {wording.percent(in_time(bare))}; had there been no attack, {wording.percent(in_time(by[ALONE]))}."
        )
        told.append(
            f"Attackers get {wording.percent(_attack(ours))} of their {bare.attack_tokens:,.0f} tokens, without a defence"
            f" {wording.percent(_attack(bare))}."
        )
    told.append(
        f"botsieve would touch {wording.percent(share['touched'])} of {share['requests']:,} {whose}, of"
        f" {share['clients_touched']:,} of {share['clients']:,} clients: {wording.percent(share['challenged'])} challenged"
        f" ({wording.percent(share['solved'])} solved), {wording.percent(share['blocked'])} blocked;"
        f" {wording.percent(share['lost'])} would be lost. The budget is {wording.percent(found.setup.budget)}."
    )
    return told


def in_time(outcome: Outcome) -> float:
    """Return the share of legitimate requests served in time."""
    return outcome.in_time / max(outcome.legitimate, 1)


def _attack(outcome: Outcome) -> float | None:
    return outcome.attack_tokens_served / outcome.attack_tokens if outcome.attack_tokens else None


def _seconds(value: float) -> str:
    return f"{value:.1f}" if value < 99.95 else f"{value:,.0f}"


COLUMNS = ("in time", "late", "gave up", "lost", "attack tokens", "wait p50, s", "wait p99, s", "load")


def cells(outcome: Outcome) -> list[str]:
    """Return the cells of `COLUMNS`."""
    all_ours = max(outcome.legitimate, 1)
    shares = [getattr(outcome, name) / all_ours for name in ("in_time", "late", "gave_up", "lost")]
    return [
        *(wording.percent(share) for share in shares),
        wording.percent(_attack(outcome)),
        _seconds(outcome.wait_p50),
        _seconds(outcome.wait_p99),
        f"{100 * outcome.load:.0f} %",
    ]


def print_table(found: WhatIf, console: Console) -> None:
    """Print the table of defences, who would be touched, and the sentences."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("defence", no_wrap=True)
    for name in COLUMNS:
        table.add_column(name.replace(" ", "\n", 1), justify="right", no_wrap=True)
    for outcome in found.outcomes:
        table.add_row(outcome.name, *cells(outcome), style="bold" if outcome.name == BOTSIEVE else "")
    show_table(table, console)
    console.print(_caption(found), style="italic dim")
    clients = found.forecast["clients"][:8]
    if clients:
        most = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
        for name in ("most touched", "kind" if found.traffic.labelled else "software"):
            most.add_column(name, no_wrap=True)
        for name in ("requests", "touched"):
            most.add_column(name, justify="right", no_wrap=True)
        most.add_column("reasons")
        for line in clients:
            most.add_row(
                Text(line["client"]), Text(line["family"] or line["software"]), f"{line['requests']:,}",
                f"{line['touched']:,}", Text(" ".join(line["reasons"])),
            )  # fmt: skip
        words = [["reasons"], *(line["reasons"] for line in clients)]
        longest = max(len(" ".join(some)) for some in words)
        show_table(most, console, spare=longest - max(len(word) for some in words for word in some))
    for sentence in [*sentences(found), *_situation(found), *found.notes]:
        console.print(Text(sentence), soft_wrap=False)


def _situation(found: WhatIf) -> list[str]:
    if found.situation and all(stretch["state"] == "calm" for stretch in found.situation):
        return ["At no time did botsieve see a surge or an attack."]  # which is not to say that there was none
    return situation_lines(found.situation)


def _caption(found: WhatIf) -> str:
    return (
        f"Of {found.outcomes[0].legitimate:,} {'legitimate ' if found.traffic.labelled else ''}requests with tokens; in time:"
        f" done {found.setup.deadline:g} s after, at the latest, twice the time taken alone. Wait: longer than alone."
    )


def page(found: WhatIf, png: bytes, command: str) -> str:
    """Return the page as text: one file that needs nothing else."""
    by = {outcome.name: outcome for outcome in found.outcomes}
    rows = [
        {"outcome": one, "cells": cells(one), "colour": colour_of(one.name, place), "ours": one.name == BOTSIEVE}
        for place, one in enumerate(found.outcomes)
    ]
    return rendered(
        TEMPLATE, found=found, told=sentences(found), columns=COLUMNS, rows=rows, title=_title(by),
        tone=_tone(found, by), caption=_caption(found), tiles=_tiles(found, by), command=command,
        plot="data:image/png;base64," + base64.b64encode(png).decode(), server=found.setup.server,
        facts=facts(found), situation=situation_rows(found.situation), forecast=found.forecast, labelled=found.traffic.labelled,
    )  # fmt: skip


def _title(by: dict[str, Outcome]) -> str:
    ours, bare = by[BOTSIEVE], by[NONE]
    if ALONE in by:
        with_it, without = wording.percent(in_time(ours)), wording.percent(in_time(bare))
        return f"{with_it} of legitimate requests in time with botsieve, {without} without"
    return f"botsieve would refuse {wording.percent(ours.lost / max(ours.legitimate, 1))} of this traffic"


def _tone(found: WhatIf, by: dict[str, Outcome]) -> str:
    ours = by[BOTSIEVE]
    lost = ours.lost / max(ours.legitimate, 1)
    if ALONE in by:
        kept = in_time(ours) / max(in_time(by[ALONE]), 1e-9)
        return "good" if kept >= 0.98 else "fair" if in_time(ours) > in_time(by[NONE]) else "poor"
    return "good" if lost <= found.setup.budget else "fair" if lost <= 5 * found.setup.budget else "poor"


def _tiles(found: WhatIf, by: dict[str, Outcome]) -> list[dict[str, str]]:
    ours = by[BOTSIEVE]
    share = found.forecast["shares"]["legitimate" if found.traffic.labelled else "all"]
    whose = "legitimate requests" if found.traffic.labelled else "requests"
    tiles = [{"name": f"{whose} served in time", "value": wording.percent(in_time(ours)), "more": "with botsieve"}]
    if ALONE in by:
        tiles.append({"name": "attackers’ tokens served", "value": wording.percent(_attack(ours)),
                      "more": f"{wording.percent(_attack(by[NONE]))} without a defence"})  # fmt: skip
    tiles.append({"name": f"{whose} touched", "value": wording.percent(share["touched"]),
                  "more": f"{share['clients_touched']:,} of {share['clients']:,} clients"})  # fmt: skip
    tiles.append({"name": f"{whose} lost", "value": wording.percent(share["lost"]),
                  "more": f"budget {wording.percent(found.setup.budget)}"})  # fmt: skip
    return tiles


def facts(found: WhatIf) -> dict[str, str]:
    """Return what was assumed, by name."""
    setup, server = found.setup, found.setup.server
    start, end = (datetime.fromtimestamp(found.traffic.start + t, UTC) for t in (setup.begins, found.traffic.span))
    return {
        "measured": f"{start:%d %b %Y %H:%M} to {end:%d %b %H:%M} UTC; what lies before warms the scorer and tunes the limits",
        "server": (
            f"{server.capacity:,.0f} tokens/s shared evenly, at most {server.speed:g} to one answer, {server.slots:,} at once;"
            f" an input token counts {server.input_weight:g}; clients wait {server.patience:g} s for the first token"
        ),
        "in time": f"done {setup.deadline:g} s after, at the latest, twice the time that the request takes on an idle server",
        "limits": f"the lowest that refuse {wording.percent(setup.budget)} of the legitimate requests before the measured part",
        "challenges": (
            f"solved by: {', '.join(sorted(found.solving.names)) or 'nobody'}; attackers: {found.solving.attackers};"
            " who cannot solve one has lost the request"
        ),
        "refusals": (
            f"heard by the scorer: the log was scored {found.enforced.rounds} times, {found.enforced.unsettled:,} decisions"
            " unsettled"
        ),
        "load": (
            "under attack, the busier the server the more of the clients that are not known are challenged; all of them when"
            " answers take twice as long as on an idle one, and then no solution helps"
        ),
        "clients": "send what the log says they sent: nobody tries again or goes away because of what happens here",
    }


def as_any(found: WhatIf) -> dict[str, Any]:
    """Return what `whatif.json` holds, the sentences included."""
    return {**found.as_json(), "summary": sentences(found)}
