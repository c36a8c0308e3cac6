"""Drift, live: how far what is answered now lies from the bundle's `reference.json`, over about a day.

The same index, bands and verdict as `botsieve drift` (classifier.model.stability), of a sample: some requests of each
second, counted into one histogram a feature and hour. Requests that the model acts on are left out, and so is the first hour
of an empty start. A client with n requests in the window counts as sqrt(n), as in training: its k-th one weighs
sqrt(k) - sqrt(k - 1).

What chance explains is estimated more simply than offline, where whole clients can be resampled: a client counts as one
observation, so the index to be expected is (bins - 1) / clients, clients in Kish's sense (L. Kish, "Survey Sampling", 1965),
added to the noise that training stated. Memory is fixed: about 3 MB, whatever comes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from classifier.errors import BundleError
from classifier.events import MICROSECONDS
from classifier.features.spec import COLUMN
from classifier.model.histograms import RAW, REFERENCE_FILE, Histogram, read_reference
from classifier.model.judge import Judge
from classifier.model.stability import MEANINGS, WARM_UP_S, FeatureDrift, Verdict, compared, verdict_on
from serving.gate import Gate
from serving.recent import Batch

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
HOURS = 24
HOUR_US = 3600 * MICROSECONDS
SAMPLE = 64
"""Requests that are counted each time, once or twice a second."""
FEWEST_CLIENTS = 20.0
"""Clients below which nothing is said."""
CACHED_S = 10.0
_SEATS = 65_536


class Window:
    """Histograms of the last `HOURS` hours over the bins of a bundle's reference."""

    def __init__(self, reference: dict[str, Histogram]) -> None:
        """Count into the bins of `reference`, by feature name, the raw score among them."""
        self._names = sorted(reference, key=lambda name: name == RAW)  # the raw score stands last
        self._before = [reference[name] for name in self._names]
        self._columns = np.array([COLUMN[name] for name in self._names if name != RAW], np.intp)
        self._bins = max(len(each.edges) for each in self._before) + 2
        self._edges = np.full((len(self._names), self._bins - 2), np.inf)
        for place, each in enumerate(self._before):
            self._edges[place, : len(each.edges)] = each.edges
        self._counts = np.zeros((HOURS, len(self._names), self._bins))
        self._begin = np.arange(len(self._names)) * self._bins
        self._hour = -1
        self._seen = np.zeros(_SEATS)
        self.requests = 0.0

    def count(
        self,
        hour: int,
        rows: npt.NDArray[np.float32],
        raw: npt.NDArray[np.float32],
        clients: list[int],
        stands_for: float,
    ) -> None:
        """Count n sampled requests of an hour: rows float32[n, features], raw float32[n], keyed hashes of clients.

        Each stands for so many. Hours must not fall.
        """
        self._advance(hour)
        values = np.column_stack([rows[:, self._columns], raw]).astype(np.float64)
        # As histograms.histogram: the bin of a value is the number of edges below it, and the last is that of missing ones.
        place = (values[:, :, None] > self._edges[None]).sum(axis=2)
        place[np.isnan(values)] = self._bins - 1
        weight = np.repeat(self._weigh(clients, stands_for), len(self._names))
        flat = np.bincount((place + self._begin).ravel(), weight, len(self._names) * self._bins)
        self._counts[self._hour % HOURS] += flat.reshape(len(self._names), self._bins)
        self.requests += stands_for * len(raw)

    def _weigh(self, clients: list[int], stands_for: float) -> npt.NDArray[np.float64]:
        seen, out = self._seen, np.empty(len(clients))
        for place, client in enumerate(clients):
            before = seen.item(client % _SEATS)
            seen[client % _SEATS] = before + stands_for
            out[place] = (before + stands_for) ** 0.5 - before**0.5
        return out

    def _advance(self, hour: int) -> None:
        if self._hour < 0 or hour - self._hour >= HOURS:
            self._counts[:], self._seen[:], self._hour, self.requests = 0.0, 0.0, hour, 0.0
        while self._hour < hour:
            self._hour += 1
            self._counts[self._hour % HOURS] = 0.0
            self._seen *= 1.0 - 1.0 / HOURS  # about: what each client sent in each hour is not remembered
            self.requests *= 1.0 - 1.0 / HOURS

    @property
    def clients(self) -> float:
        """How many clients of equal weight would tell as much as those that were counted."""
        total = float(self._seen.sum())
        return float(np.sqrt(self._seen).sum() ** 2 / total) if total else 0.0

    def measure(self) -> list[FeatureDrift]:
        """Compare each feature, and last the raw score, with training; of nothing counted, nothing."""
        sums, clients = self._counts.sum(axis=0), self.clients
        if clients <= 0.0 or not sums[-1].sum():
            return []
        found = []
        for name, before, counts in zip(self._names, self._before, sums, strict=True):
            bins = len(before.edges) + 2
            shares = np.append(counts[: bins - 1], counts[-1])
            degrees = float(max(bins - 1, 1))
            now = Histogram(before.edges, shares / shares.sum(), degrees / clients, degrees)
            found.append(compared(name, before, now))
        return found


class Drift(Collector):
    """The drift of what one gate answers, as metrics. A bundle without a reference has none."""

    def __init__(self, gate: Gate, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives s, and counts only for how long a measurement is kept."""
        self._gate, self._clock = gate, clock
        self._of: Judge | None = None
        self._window: Window | None = None
        self._measured: tuple[float, list[FeatureDrift]] | None = None

    def follow(self, batch: Batch) -> None:
        """Count a sample of what was answered."""
        gate = self._gate
        window = self._current()
        start = gate.engine.start
        if window is None or start is None or batch.time - start < WARM_UP_S * MICROSECONDS:
            return
        acted = np.float32(min(gate.thresholds.challenge, gate.thresholds.block))
        some, all_spared = batch.some, int(np.count_nonzero(batch.raw < acted))
        raw = some.raw
        spared = np.flatnonzero(raw < acted)
        if not len(spared):
            return
        chosen = spared[np.unique(np.linspace(0, len(spared) - 1, min(len(spared), SAMPLE)).astype(np.intp))]
        clients = some.client[chosen].tolist()
        window.count(batch.time // HOUR_US, some.rows(chosen.tolist()), raw[chosen], clients, all_spared / len(chosen))

    def _current(self) -> Window | None:
        """Return the window; another model has other bins, and begins anew."""
        if self._of is not self._gate.model:
            self._of, self._measured = self._gate.model, None
            try:
                stated = REFERENCE_FILE in self._of.bundle.manifest.files
                self._window = Window(read_reference(self._of.bundle)) if stated else None
            except BundleError:
                self._window = None
        return self._window

    def measured(self) -> list[FeatureDrift]:
        """Return every feature and last the raw score, as they were at most `CACHED_S` ago; nothing where nothing is known."""
        window, now = self._current(), self._clock()
        if self._measured is None or now - self._measured[0] >= CACHED_S:
            known = window is not None and window.clients >= FEWEST_CLIENTS
            self._measured = (now, window.measure() if known and window is not None else [])
        return self._measured[1]

    @property
    def clients(self) -> float:
        """Clients in the window."""
        return 0.0 if self._window is None else self._window.clients

    def shown(self, most: int = 8) -> dict[str, Any]:
        """Return the verdict and what lies furthest from training, for people."""
        found = self.measured()
        counting = sorted((each for each in found if each.counts), key=lambda each: -each.psi)
        return {
            "verdict": verdict_on(found) if found else "unresolved",
            "clients": round(self.clients),
            "requests": round(0.0 if self._window is None else self._window.requests),
            "known": bool(found),
            "features": [
                {
                    "name": each.name,
                    "meaning": MEANINGS[each.name],
                    "psi": round(each.psi, 4),
                    "limit": round(each.limit, 4),
                    "state": each.state,
                }
                for each in counting[:most]
            ],
        }

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the index and its limit by feature, the verdict, and how many clients speak for it."""
        found = self.measured()
        index = GaugeMetricFamily("botsieve_drift_index", "Population stability index", labels=["feature"])
        limit = GaugeMetricFamily("botsieve_drift_limit", "Index that chance could make", labels=["feature"])
        for each in found:
            index.add_metric([each.name], each.psi)
            limit.add_metric([each.name], each.limit)
        yield index
        yield limit
        state = GaugeMetricFamily("botsieve_drift", "Verdict on drift", labels=["verdict"])
        now = verdict_on(found) if found else "unresolved"
        for verdict in VERDICTS:
            state.add_metric([verdict], float(verdict == now))
        yield state
        yield GaugeMetricFamily("botsieve_drift_clients", "Clients that drift is judged by", value=self.clients)
