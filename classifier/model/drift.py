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

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from classifier.errors import InputError
from classifier.events import MICROSECONDS
from classifier.features.spec import COLUMN
from classifier.features.stream import feature_chunks
from classifier.model.apply import Model
from classifier.model.dataset import GROWN_PER_CLIENT, WARM_UP_SHARE, field_filled
from classifier.model.histograms import RAW, Clusters, Floats, Histogram, histogram, read_fields, read_reference
from classifier.model.stability import (
    DRIFTED,
    LEVEL,
    MEANINGS,
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
    """A stretch of the log: begin and end (Unix s), what is compared, what is left out, the verdict, and every feature.

    `malicious` requests are labelled so; `acted_on` are those of the others that the model itself acts on. `lost` are the event
    fields that most clients of training had and nobody of this stretch has.
    """

    start: float
    end: float
    requests: int
    clients: int
    malicious: int
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
    """The verdict on a log: that of its worst window. `whole` is all of it, `days` each day of a longer one.

    `warm_up` requests at its begin, when nobody is known yet, belong to no window.
    """

    verdict: Verdict
    whole: Window
    days: tuple[Window, ...]
    warm_up: int

    def table(self) -> pd.DataFrame:
        """Return a row a feature of the whole log, the furthest first: psi, expected, limit, state, counts, meaning."""
        names = ("name", "psi", "expected", "limit", "state", "counts")
        lines = [{name: getattr(each, name) for name in names} for each in self.whole.features]
        table = pd.DataFrame(lines).assign(meaning=lambda frame: frame["name"].map(MEANINGS))
        return table.sort_values("psi", ascending=False, kind="stable").set_index("name")

    def as_json(self) -> dict[str, Any]:
        """Return every figure."""
        return {
            "verdict": self.verdict, "bands": {"moved": MOVED, "drifted": DRIFTED}, "level": LEVEL, "warm_up": self.warm_up,
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
    rows, every = _collect(model, tables, threads, usual)
    begin, end = int(every.time[0]), int(every.time[-1])
    warm = begin + math.ceil(min(WARM_UP_SHARE * (end - begin), WARM_UP_S * MICROSECONDS))
    before = _Before(read_reference(model.bundle), usual)
    whole = _window(rows, every, warm, end + 1, before)
    if whole is None:
        raise InputError("every request of the log is acted on or labelled malicious: nothing legitimate is left")
    found = (_window(rows, every, low, high, before) for low, high in pairwise(_edges(warm, end)))
    days = tuple(day for day in found if day is not None)
    order: tuple[Verdict, ...] = ("unresolved", "steady", "watch", "drift")
    worst = max((window.verdict for window in (whole, *days)), key=order.index)
    return Drift(worst, whole, days, warm_up=int((every.time < warm).sum()))


def _edges(begin: int, end: int) -> list[int]:
    """Return where days begin, counted from `begin`, and the end; of a day or less, nothing. A rest joins the day before."""
    count = round((end - begin) / DAY)
    return [*(begin + day * DAY for day in range(count)), end + 1] if count > 1 else []


@dataclass(frozen=True)
class _Every:
    """Every request of the log, in the order of time (int64[n] µs): whether it is labelled malicious, else acted on, bool[n]."""

    time: npt.NDArray[np.int64]
    malicious: npt.NDArray[np.bool_]
    acted_on: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _Rows:
    """Those that are compared, thinned as in training: each stands for so many requests of its client."""

    rows: npt.NDArray[np.float32]
    raw: npt.NDArray[np.float32]
    time: npt.NDArray[np.int64]
    key: npt.NDArray[np.uint64]
    stands_for: Floats
    has: npt.NDArray[np.bool_]


def _collect(model: Model, tables: Iterable[pa.Table], threads: int, usual: Sequence[str]) -> tuple[_Rows, _Every]:
    rng = np.random.default_rng(0)
    acts = np.float32(min(model.thresholds.challenge, model.thresholds.block))
    parts: list[_Rows] = []
    whole: list[_Every] = []
    for chunk in feature_chunks(tables, sizes=model.sizes, threads=threads, prompts=model.prompts):
        raw, _ = model.score(chunk.rows)
        time = chunk.events.column("time").to_numpy()
        malicious = chunk.events.column("malicious").fill_null(False).to_numpy().astype(bool)
        acted_on = (raw >= acts) & ~malicious
        whole.append(_Every(time, malicious, acted_on))
        seen = np.maximum(chunk.rows[:, COLUMN["client_requests_seen"]] / GROWN_PER_CLIENT, 1.0).astype(np.float64)
        at = np.flatnonzero((rng.random(len(seen)) * seen < 1.0) & ~malicious & ~acted_on)
        columns = [field_filled(chunk.events, name)[at] for name in usual]
        has = np.stack(columns, axis=1) if columns else np.empty((len(at), 0), bool)
        parts.append(_Rows(chunk.rows[at], raw[at], time[at], chunk.client[at], seen[at], has))
    if not parts:
        raise InputError("the log holds no requests")
    return _joined(_Rows, parts), _joined(_Every, whole)


_Some = TypeVar("_Some", _Rows, _Every)


def _joined(kind: type[_Some], parts: list[_Some]) -> _Some:
    return kind(*(np.concatenate([getattr(part, name) for part in parts]) for name in kind.__annotations__))


def _window(rows: _Rows, every: _Every, low: int, high: int, before: _Before) -> Window | None:
    """Compare the requests from `low` until `high`, µs; of nothing to compare, nothing."""
    kept = (rows.time >= low) & (rows.time < high)
    if not kept.any():
        return None
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
    inside = slice(*np.searchsorted(every.time, (low, high)))
    malicious, acted_on = int(every.malicious[inside].sum()), int(every.acted_on[inside].sum())
    time = every.time[inside]
    return Window(
        start=low / MICROSECONDS,
        end=float(time[-1]) / MICROSECONDS,
        requests=len(time) - malicious - acted_on,
        clients=clients,
        malicious=malicious,
        acted_on=acted_on,
        verdict="drift" if lost else verdict_on(features),
        features=features,
        lost=lost,
    )
