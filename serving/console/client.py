"""A client's page: its recent requests, its features beside the crowd's, and what credited its score."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from classifier.errors import BundleError
from classifier.events import MICROSECONDS
from classifier.features.spec import FEATURES
from classifier.model.histograms import REFERENCE_FILE, Histogram, read_reference
from classifier.model.judge import Judge
from serving.console.rows import NewestRows, Row
from serving.console.suspects import Suspects, shown_path, shown_reason
from serving.gate import Decided, Gate

MOST_REQUESTS = 30
MOST_FEATURES = 20
LOOKED_AT = 4_096
"""Decisions that are looked at in one turn of the loop, about half a millisecond."""
STRONGEST = 0.005
"""Log odds below which a contribution is not shown."""


@dataclass(frozen=True)
class Contribution:
    """A feature of one row: its value, log odds credited to it, and how much of the legitimate crowd lies below (0 to 1)."""

    name: str
    meaning: str
    value: str
    unit: str
    log_odds: float
    below: float | None
    reason: str
    part: str


@dataclass(frozen=True)
class About:
    """What is known of a client; `which` says of which request the contributions are."""

    client: str
    kind: str
    address: str | None
    requests: list[dict[str, Any]]
    which: str
    raw: float | None
    bias: float
    rest: float
    contributions: list[Contribution]


class Clients:
    """Tells of clients from what the parts of the console remember."""

    def __init__(self, gate: Gate, suspects: Suspects, rows: NewestRows) -> None:
        self._gate, self._suspects, self._rows = gate, suspects, rows
        self._of: Judge | None = None
        self._reference: dict[str, Histogram] = {}

    async def about(self, client: str) -> About | None:
        """Return what is known of a client (16 hex digits); None if it is nothing."""
        kept = await self._newest(client)
        suspect, newest = self._suspects.of(client), self._rows.of(client)
        if not kept and suspect is None and newest is None:
            return None
        row, which = (suspect.worst, "most suspicious") if suspect is not None else (newest, "newest")
        contributions, bias, rest = ([], 0.0, 0.0) if row is None else self._contributions(row)
        requests = [
            {
                "time": moment(one.time),
                "path": shown_path(one.path),
                "decision": one.decision,
                "enforced": one.enforced,
                "score": one.score,
                "reasons": [shown_reason(name) for name in one.reasons],
                "family": one.family,
                "id": one.id,
            }
            for one in kept
        ]
        kind = "unknown" if suspect is None else "account" if suspect.account else "address"
        return About(
            client, kind, None if suspect is None else suspect.address, requests, which,
            None if row is None else row.raw, bias, rest, contributions,
        )  # fmt: skip

    async def _newest(self, client: str) -> list[Decided]:
        """Return the newest decisions about a client, newest first. Requests are served between two looks."""
        found: list[Decided] = []
        newest = self._gate.engine.arrivals
        oldest = max(newest - self._gate.settings.decisions_kept, 0)
        for end in range(newest, oldest, -LOOKED_AT):
            found += reversed(self._gate.decisions_of(client, max(end - LOOKED_AT, oldest), end))
            if len(found) >= MOST_REQUESTS:
                break
            await asyncio.sleep(0)
        return found[:MOST_REQUESTS]

    def _contributions(self, row: Row) -> tuple[list[Contribution], float, float]:
        """Return the strongest contributions, the bias, and the sum of what is not shown."""
        model = self._gate.model
        if self._of is not model:
            self._of, self._reference = model, _reference(model)
        explainer = model.explainer()
        values = np.ascontiguousarray(row.values[None, model.columns])
        log_odds = explainer.contributions(values)[0]
        order = np.argsort(-np.abs(log_odds), kind="stable")[:MOST_FEATURES]
        order = order[np.abs(log_odds[order]) >= STRONGEST]
        found = [self._contribution(model.columns[place], float(values[0, place]), float(log_odds[place]))
                 for place in order]  # fmt: skip
        return found, explainer.bias, float(log_odds.sum() - log_odds[order].sum())

    def _contribution(self, column: int, value: float, log_odds: float) -> Contribution:
        feature = FEATURES[column]
        crowd = self._reference.get(feature.name)
        below = math.nan if crowd is None else crowd.below(value)
        return Contribution(
            feature.name, feature.meaning, "missing" if math.isnan(value) else f"{value:.4g}", feature.unit, log_odds,
            None if math.isnan(below) else below, feature.reason, feature.part,
        )  # fmt: skip


def _reference(model: Judge) -> dict[str, Histogram]:
    if REFERENCE_FILE not in model.bundle.manifest.files:
        return {}
    try:
        return read_reference(model.bundle)
    except BundleError:
        return {}


def moment(time: int) -> str:
    """Return a moment in µs as text, UTC."""
    return datetime.fromtimestamp(time / MICROSECONDS, UTC).strftime("%Y-%m-%d %H:%M:%S")
