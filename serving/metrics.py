"""Prometheus metrics, in a registry of each service's own.

What happens per request is counted in plain counters (`gate.Tallies`) and turned into samples when it is asked for: labels
looked up under a lock would cost more than the decision.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from classifier.events import MICROSECONDS
from serving.gate import Gate

BOUNDS = (0.00025, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Upper bounds of latencies, s."""
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


SNAPSHOTS = dict.fromkeys(("written", "failed"), 0)
FAILED = {(cause, mode): 0 for cause in ("error", "late") for mode in ("open", "closed")}
"""Counters that alerts watch are there from the start: Prometheus sees no rise in one that begins above 0."""


class Histogram:
    """Counts of values up to each bound."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds, self.counts, self.sum = bounds, [0] * (len(bounds) + 1), 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """Return (upper bound, values up to it), as Prometheus wants it."""
        bounds = [*(f"{bound:g}" for bound in self.bounds), "+Inf"]
        return list(zip(bounds, map(float, accumulate(self.counts)), strict=True))


class Metrics(Collector):
    """What `/metrics` shows of one gate. More gauges can be added by name: `gauges[name] = (help, function)`."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.latencies = {route: Histogram(BOUNDS) for route in ("decide", "batch", "authorize")}
        self.batches = Histogram(ROWS)
        self.gauges: dict[str, tuple[str, Callable[[], float]]] = {}
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    @contextmanager
    def latency(self, route: str) -> Iterator[None]:
        """Measure from a read request to its answer; what is refused is not measured."""
        began = time.perf_counter()
        yield
        self.latencies[route].observe(time.perf_counter() - began)

    def text(self) -> bytes:
        """Return everything in Prometheus's text format."""
        return generate_latest(self.registry)

    def describe(self) -> Iterable[Metric]:
        """Name nothing in advance."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield every metric as it is now."""
        gate, tallies = self._gate, self._gate.tallies
        yield _counter("decisions", "Decisions taken", ("decision", "enforced"), tallies.decisions)
        yield _counter("reasons", "Reasons of challenges and blocks", ("reason", "decision"), tallies.reasons)
        yield _counter("asked_tokens", "max_tokens of the requests decided", ("decision", "enforced"), tallies.tokens)
        yield _counter("rejected", "Requests that could not be taken", ("reason",), _one(tallies.rejected))
        yield _counter("completions", "Completions by what became of them", ("result",), _one(tallies.completions))
        yield _counter("passes", "Passes shown where a challenge was due", ("result",), _one(tallies.passes))
        yield _counter("challenges", "Solutions of challenges", ("result",), _one(tallies.challenges))
        yield _counter("snapshots", "Snapshots of the state", ("result",), _one({**SNAPSHOTS, **tallies.snapshots}))
        yield _counter("journal_rows", "Rows of the journal", ("result",), _one(tallies.journal))
        yield _counter("fail_mode_answers", "Answers of the fail mode", ("cause", "mode"), {**FAILED, **tallies.failed})
        compared = Counter() if gate.shadow is None else gate.shadow.counts()
        yield _counter("challenger", "Decisions of both models", ("champion", "challenger"), compared)
        apart = sum(count for (one, other), count in compared.items() if one != other)
        yield _counter("challenger_disagreements", "Requests the challenger decided otherwise", (), {(): apart})
        yield _counter("arrivals", "Arrivals processed", (), {(): gate.engine.arrivals})
        yield _counter(
            "forwarded_ignored", "Forwarded addresses of senders that are not trusted", (), {(): tallies.unbelieved}
        )
        yield _counter("clock_behind", "Arrivals while the machine's clock had gone back", (), {(): tallies.behind})
        yield _counter(
            "device_faults",
            "Times the GPU failed; from the first on the CPU scores",
            (),
            {(): gate.model.device_faults},
        )
        yield _counter("overflowed", "Requests in flight that were forgotten early", (), {(): gate.engine.overflowed})
        latency = HistogramMetricFamily(
            "botsieve_latency_seconds", "From a read request to its answer", labels=["route"]
        )
        for route, histogram in self.latencies.items():
            latency.add_metric([route], histogram.buckets(), histogram.sum)
        yield latency
        rows = HistogramMetricFamily("botsieve_scored_rows", "Rows in a call of the scorer")
        rows.add_metric([], self.batches.buckets(), self.batches.sum)
        yield rows
        yield _gauge("in_flight", "Requests that have arrived and not ended", gate.engine.in_flight)
        yield _gauge("state_bytes", "Memory of the profiles when every slot is in use", gate.engine.tables.bytes)
        yield _gauge("warming_up", "1 while nothing is enforced because too little has been seen", gate.warming_up)
        yield _gauge("clock_seconds", "The running clock", max(gate.clock, 0) / MICROSECONDS)
        for name, (what, value) in self.gauges.items():
            yield _gauge(name, what, value())
        model = InfoMetricFamily("botsieve_model", "The model that decides, and what runs it")
        model.add_metric([], {"bundle": gate.bundle[:16], "provider": gate.model.providers[0]})
        yield model


def _one(counts: dict[str, int]) -> dict[tuple[str, ...], int]:
    return {(label,): count for label, count in counts.items()}


def _counter(name: str, what: str, labels: tuple[str, ...], counts: Mapping[Any, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(f"botsieve_{name}", what, labels=labels)
    for values, count in list(counts.items()):
        family.add_metric(values, count)
    return family


def _gauge(name: str, what: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"botsieve_{name}", what, value=float(value))
