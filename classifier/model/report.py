"""The evaluation as one HTML page that needs nothing else: no host, no script, figures inside.

The page is for a person with a minute: the verdict in plain words, then the tables and figures that support it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
import pandas as pd

from classifier.model import wording
from classifier.model.labelled import labelled_requests
from classifier.model.metrics import Metrics
from classifier.model.page import rendered
from classifier.model.plots import all_plots

TEMPLATE = Path(__file__).with_name("report.html")
MOST_CLIENTS = 12
MOST_REASONS = 3


class ReportMeta(TypedDict, total=False):
    """What the report says beside the metrics; every part may be absent.

    about       what the requests are that were measured, in sentences
    invented    whether the attackers are simulated: nobody has their addresses
    title       heading; bundle: name or digest of what was evaluated; command: what made this report
    created     when the bundle was made, as text
    thresholds  {"challenge": raw or None, "block": raw or None} as in the manifest; further keys are ignored
    budgets     {"challenge": share, "block": share}
    prior       the stated prior of attack
    training    what the model was trained on, label to value, in the order to be shown
    versions    library versions, name to version
    notes       remarks of training (budgets that could not be resolved, a calibration without slope)
    """

    title: str
    about: str
    invented: bool
    bundle: str
    command: str
    created: str
    thresholds: dict[str, Any]
    budgets: dict[str, float]
    prior: float
    training: dict[str, Any]
    versions: dict[str, str]
    notes: list[str]


class ActedClient(NamedTuple):
    """One client that was challenged or blocked."""

    client: str
    family: str
    requests: int
    challenged: int
    blocked: int
    probability: float
    first: int
    reasons: list[str]


def write_report(path: Path | str, metrics: Metrics, scored: pd.DataFrame, meta: ReportMeta) -> None:
    """Write the report of an evaluation.

    `metrics` is what `evaluate` gave for `scored`; `scored` may have a column `reasons` (a list of texts, or one text
    with "; " between them), which is then told for the clients acted on. Replaces the file if there is one.
    """
    Path(path).write_text(report_page(metrics, scored, meta), encoding="utf-8", errors="backslashreplace")


def report_page(metrics: Metrics, scored: pd.DataFrame, meta: ReportMeta) -> str:
    """Return the page of `write_report` as text."""
    thresholds, budgets = _thresholds(meta), meta.get("budgets", {})
    acted = _acted_clients(scored)
    return rendered(
        TEMPLATE,
        meta=dict.fromkeys(ReportMeta.__annotations__) | meta,
        metrics=metrics,
        verdict=wording.verdict(metrics, thresholds, budgets.get("challenge")),
        tiles=_tiles(metrics),
        tables=[_table(metrics, kind) for kind in ("attack", "legitimate")],
        plots=all_plots(labelled_requests(scored), metrics["calibration"], thresholds),
        top=[
            (
                "Attackers acted on most",
                "Simulated: nobody has these addresses." if meta.get("invented") else "",
                acted[0],
            ),
            (
                "Legitimate clients acted on most",
                "False alarms, if the labels are right: look at these first.",
                acted[1],
            ),
        ],
        actions=_actions(thresholds, budgets),
        notes=list(dict.fromkeys([*meta.get("notes", []), *metrics["notes"]])),
        period=_period(metrics),
    )


def _thresholds(meta: ReportMeta) -> wording.ThresholdValues | None:
    given = meta.get("thresholds")
    return None if given is None else {"challenge": given["challenge"], "block": given["block"]}


def _tiles(metrics: Metrics) -> list[dict[str, Any]]:
    """Return the few figures that matter most, each with its interval."""
    attack, legitimate = (wording.overall(metrics, kind) for kind in ("attack", "legitimate"))
    tiles: list[dict[str, Any]] = []
    if attack is not None:
        tiles += [
            {"name": "attackers caught", "figure": attack["clients_acted_on"], "of": f"of {attack['clients']:,}"},
            {"name": "attacker tokens stopped", "figure": attack["tokens_acted_on"], "of": ""},
        ]
    if legitimate is not None:
        tiles += [
            {
                "name": "legitimate requests touched",
                "figure": legitimate["acted_on"],
                "of": f"of {legitimate['requests']:,}",
            },
            {
                "name": "legitimate clients touched",
                "figure": legitimate["clients_acted_on"],
                "of": f"of {legitimate['clients']:,}",
            },
        ]
    return tiles


def _table(metrics: Metrics, kind: str) -> dict[str, Any]:
    attack = kind == "attack"
    return {
        "attack": attack,
        "title": "Attacks, by family" if attack else "Legitimate clients, by kind",
        "tokens": "stopped" if attack else "touched",
        "clients": "caught" if attack else "touched",
        "rows": [group for group in metrics["groups"] if group["kind"] == kind],
    }


def _actions(thresholds: wording.ThresholdValues | None, budgets: dict[str, float]) -> list[dict[str, Any]]:
    if thresholds is None:
        return []
    values = (("challenge", thresholds["challenge"]), ("block", thresholds["block"]))
    return [{"name": name, "raw": value, "budget": budgets.get(name)} for name, value in values]


def _period(metrics: Metrics) -> str:
    start, end = (datetime.fromtimestamp(metrics[key], UTC) for key in ("start", "end"))
    return f"{start:%d %b %Y %H:%M} to {end:%d %b %Y %H:%M} UTC"


def _acted_clients(scored: pd.DataFrame) -> tuple[list[ActedClient], list[ActedClient]]:
    """Return the malicious and the legitimate clients with most requests acted on."""
    rows = scored[scored["malicious"].notna()].sort_values(["time", "row"], kind="stable")
    acted = rows["decision"] != "allow"
    found = []
    for label in (True, False):
        counts = rows.loc[acted & (rows["malicious"].astype(bool) == label), "client"].value_counts(sort=False)
        most = counts.sort_index().sort_values(ascending=False, kind="stable").index[:MOST_CLIENTS]
        mine = rows[rows["client"].isin(most) & (rows["malicious"].astype(bool) == label)]
        by_client = dict(list(mine.groupby("client", sort=False)))
        found.append([_acted_client(str(client), by_client[client]) for client in most])
    return found[0], found[1]


def _acted_client(client: str, rows: pd.DataFrame) -> ActedClient:
    acted = rows["decision"] != "allow"
    families = rows["family"].dropna()
    weight = rows["weight"].to_numpy() if "weight" in rows else np.ones(len(rows))
    first = int(np.argmax(acted.to_numpy()))
    return ActedClient(
        client=wording.printable(client),
        family=wording.printable(str(families.iloc[0]), 24) if len(families) else "–",
        requests=round(weight.sum()),
        challenged=round(weight[(rows["decision"] == "challenge").to_numpy()].sum()),
        blocked=round(weight[(rows["decision"] == "block").to_numpy()].sum()),
        probability=float(rows["probability"].max()),
        first=round(weight[:first].sum()) + 1,
        reasons=_reasons(rows.loc[acted, "reasons"]) if "reasons" in rows else [],
    )


def _reasons(cells: Iterable[Any]) -> list[str]:
    """Return the commonest reasons, most frequent first."""
    counted: Counter[str] = Counter()
    for cell in cells:
        if isinstance(cell, str):
            counted.update(cell.split())
        elif isinstance(cell, Iterable):
            counted.update(str(reason) for reason in cell)
    return [wording.printable(reason, 80) for reason, _ in counted.most_common(MOST_REASONS)]
