"""Drift: whether today's legitimate traffic still looks like that which the model learned from.

    PSI = Σ over bins of (p_b - q_b) · ln(p_b / q_b)        p: shares today, q: shares in training

The population stability index of credit scoring (N. Siddiqi, "Credit Risk Scorecards", 2006), with its customary bands: under
0.1 steady, to 0.25 moved, above drifted. The bands know nothing of counts: among a few clients an index of 0.3 is
chance. So an index only counts where it also lies beyond what sampling explains (`Histogram.noise` of both sides;
a scaled chi-square, matched by its mean and degrees, at `LEVEL`). Where even 0.25 would lie
within that, the feature is *unresolved*: the log has too few clients to tell.

Rows are weighed as in training (a client with n requests by sqrt(n), thinned likewise). Requests that are labelled malicious
or that the model itself acts on are left out and counted: an attack is not drift. The verdict counts what clients do
themselves, and a raw score that has risen (`stability.compared`). Features of groups (addresses, networks, libraries,
everyone) are shown and do not count, since a log holds many requests and few groups; nor do those that tell of the length of
a log: age of the profile, requests seen, and rates over more than an hour (`stability.UNSETTLED`). A field that most
clients of training had and nobody of a stretch has alarms at once: features that remember for days show that late.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from classifier.errors import InputError
from classifier.events import MICROSECONDS
from classifier.features.spec import COLUMN, FEATURES
from classifier.features.stream import feature_chunks
from classifier.model.apply import Model
from classifier.model.dataset import GROWN_PER_CLIENT, WARM_UP_SHARE, field_filled
from classifier.model.histograms import RAW, Clusters, Floats, Histogram, histogram, read_fields, read_reference
from classifier.model.stability import (
    DRIFTED,
    LEVEL,
    MOVED,
    WARM_UP_S,
    FeatureDrift,
    State,
    Verdict,
    compared,
    verdict_on,
)

DAY = 86_400 * MICROSECONDS
USUAL = 0.5
"""Share of training's clients from which a field is usual, so that its absence from a whole day is no chance."""
FEWEST_CLIENTS = 10
"""Clients of a stretch from which the absence of a field is more than one client's way."""
LABELS = ("malicious", "family", "verdict")


@dataclass(frozen=True)
class Window:
    """A stretch of the log: Unix seconds, rows and clients measured, acted on, the verdict, and every feature.

    `lost` are the event fields that most clients of training had and nobody of this stretch has.
    """

    start: float
    end: float
    requests: int
    clients: int
    acted_on: int
    verdict: Verdict
    features: tuple[FeatureDrift, ...]
    lost: tuple[str, ...]

    @property
    def raw(self) -> FeatureDrift:
        """The raw score."""
        return self.features[-1]

    def counting(self, state: State) -> list[FeatureDrift]:
        """Return the features in a state, of those that count, the furthest first."""
        found = [each for each in self.features if each.state == state and each.counts]
        return sorted(found, key=lambda each: -each.psi)


@dataclass(frozen=True)
class Drift:
    """The verdict on a log: that of its worst window. `whole` is all of it, `days` each day of a longer one."""

    verdict: Verdict
    whole: Window
    days: tuple[Window, ...]

    def table(self) -> pd.DataFrame:
        """Return a row a feature of the whole log, the furthest first: psi, expected, limit, state, counts, meaning."""
        meanings = {feature.name: feature.meaning for feature in FEATURES} | {RAW: "the raw score"}
        names = ("name", "psi", "expected", "limit", "state", "counts")
        lines = [{name: getattr(each, name) for name in names} for each in self.whole.features]
        table = pd.DataFrame(lines).assign(meaning=lambda frame: frame["name"].map(meanings))
        return table.sort_values("psi", ascending=False, kind="stable").set_index("name")

    def as_json(self) -> dict[str, Any]:
        """Return every figure."""
        return {
            "verdict": self.verdict, "bands": {"moved": MOVED, "drifted": DRIFTED}, "level": LEVEL,
            "whole": asdict(self.whole), "days": [asdict(day) for day in self.days],
        }  # fmt: skip


@dataclass(frozen=True)
class _Before:
    """What training's traffic was: histograms by feature, and the event fields that most of its clients had."""

    histograms: Mapping[str, Histogram]
    usual: Sequence[str]


def measure_drift(model: Model, tables: Iterable[pa.Table], *, threads: int = 1) -> Drift:
    """Compare a log with the traffic a bundle was trained on.

    The first stretch of the log, in which nobody is known yet, is left out as in training. Raises InputError where
    nothing is left, BundleError for a bundle without histograms.
    """
    usual = [name for name, share in read_fields(model.bundle).items() if share >= USUAL and name not in LABELS]
    rows = _collect(model, tables, threads, usual)
    before = _Before(read_reference(model.bundle), usual)
    whole = _window(rows, np.ones(len(rows.time), bool), before)
    days = _days(rows, before)
    order: tuple[Verdict, ...] = ("unresolved", "steady", "watch", "drift")
    return Drift(max((w.verdict for w in (whole, *days)), key=order.index), whole, tuple(days))


@dataclass(frozen=True)
class _Rows:
    rows: npt.NDArray[np.float32]
    raw: npt.NDArray[np.float32]
    time: npt.NDArray[np.int64]
    key: npt.NDArray[np.uint64]
    stands_for: Floats
    acted_on: npt.NDArray[np.bool_]
    has: npt.NDArray[np.bool_]


def _collect(model: Model, tables: Iterable[pa.Table], threads: int, usual: Sequence[str]) -> _Rows:
    rng = np.random.default_rng(0)
    parts: list[_Rows] = []
    for chunk in feature_chunks(tables, sizes=model.sizes, threads=threads, prompts=model.prompts):
        seen = np.maximum(chunk.rows[:, COLUMN["client_requests_seen"]] / GROWN_PER_CLIENT, 1.0).astype(np.float64)
        at = np.flatnonzero(rng.random(len(seen)) * seen < 1.0)
        raw, _ = model.score(chunk.rows[at])
        malicious = chunk.events.column("malicious").take(pa.array(at)).to_pylist()
        acted_on = np.array([label is True for label in malicious], bool)
        acted_on |= raw >= np.float32(min(model.thresholds.challenge, model.thresholds.block))
        time = chunk.events.column("time").to_numpy()[at]
        columns = [field_filled(chunk.events, name)[at] for name in usual]
        has = np.stack(columns, axis=1) if columns else np.empty((len(at), 0), bool)
        parts.append(_Rows(chunk.rows[at], raw, time, chunk.client[at], seen[at], acted_on, has))
    if not parts:
        raise InputError("the log holds no requests")
    rows = _Rows(*(np.concatenate([getattr(part, name) for part in parts]) for name in _Rows.__annotations__))
    begin, end = int(rows.time.min()), int(rows.time.max())
    warm = rows.time >= begin + min(WARM_UP_SHARE * (end - begin), WARM_UP_S * MICROSECONDS)
    rows = _Rows(*(getattr(rows, name)[warm] for name in _Rows.__annotations__))
    if not (~rows.acted_on).any():
        raise InputError("every request of the log is acted on or labelled malicious: nothing legitimate is left")
    return rows


def _days(rows: _Rows, before: _Before) -> list[Window]:
    """Return a window for each day since the log began; of a log of a day or less, none. A rest joins the day before."""
    begin, end = int(rows.time.min()), int(rows.time.max())
    count = max(round((end - begin) / DAY), 1)
    if count == 1:
        return []
    day = np.minimum((rows.time - begin) // DAY, count - 1)
    inside = (day == number for number in range(count))
    return [_window(rows, mask, before) for mask in inside if (mask & ~rows.acted_on).any()]


def _window(rows: _Rows, inside: npt.NDArray[np.bool_], before: _Before) -> Window:
    kept = inside & ~rows.acted_on
    clusters = Clusters.of(rows.key[kept], rows.time[kept], rows.stands_for[kept])
    values = rows.rows[kept]
    features = tuple(
        compared(
            name, each, histogram(rows.raw[kept] if name == RAW else values[:, COLUMN[name]], each.edges, clusters)
        )
        for name, each in sorted(before.histograms.items(), key=lambda item: item[0] == RAW)
    )
    clients = int(clusters.client.max()) + 1
    lost = tuple(
        name
        for name, some in zip(before.usual, np.any(rows.has[kept], axis=0).tolist(), strict=True)
        if not some and clients >= FEWEST_CLIENTS
    )
    return Window(
        start=float(rows.time[inside].min()) / MICROSECONDS,
        end=float(rows.time[inside].max()) / MICROSECONDS,
        requests=round(float(rows.stands_for[kept].sum())),
        clients=clients,
        acted_on=round(float(rows.stands_for[inside & rows.acted_on].sum())),
        verdict="drift" if lost else verdict_on(features),
        features=features,
        lost=lost,
    )
