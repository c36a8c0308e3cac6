"""Surge or attack, live: the verdict about the whole service over HTTP and in the metrics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from classifier.features import layout as at
from classifier.model.judge import Judge
from classifier.policy import Thresholds
from classifier.situation import STATES, Levels, Situation, State
from serving.gate import Arrival, Gate


class Watch(Collector):
    """Counts the arrivals of one gate that were scored, and shows the verdict."""

    def __init__(self, gate: Gate) -> None:
        self.situation = Situation()
        self.levels = levels_of(gate.model, gate.thresholds)

    def observe(self, arrival: Arrival, raw: float) -> None:
        """Count an arrival and its raw score."""
        self.situation.observe(arrival.time, arrival.hashes.item(at.H_CLIENT), self.levels.mark(arrival.row, raw))

    def advance(self, time: int) -> None:
        """Let time pass where nobody comes, µs: without it, an attack that has ended in silence would go on."""
        if self.situation.begun:
            self.situation.advance(time)

    @property
    def state(self) -> State:
        """The verdict in a word."""
        return self.situation.state

    @property
    def onset(self) -> int:
        """When the attack began, µs."""
        return self.situation.verdict.onset

    def shown(self) -> dict[str, Any]:
        """Return the verdict and the newest changes, newest first."""
        changes = [verdict.as_json() for verdict in self.situation.changes]
        return {**self.situation.verdict.as_json(), "changes": changes[::-1][:20]}

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield `botsieve_situation`: 1 for the state that holds."""
        gauge = GaugeMetricFamily("botsieve_situation", "What the whole service is in", labels=["state"])
        for state in STATES:
            gauge.add_metric([state], float(state == self.state))
        yield gauge


def levels_of(model: Judge, thresholds: Thresholds) -> Levels:
    """Return the raw scores that count under a model."""
    return Levels.of(thresholds, model.bundle.manifest.policy_curve())


def router(watch: Watch) -> APIRouter:
    """Return the route of the verdict."""
    api = APIRouter()

    @api.get("/v1/situation")
    async def situation() -> dict[str, Any]:
        """Whether the whole service is calm, in a surge or under attack, and what speaks for it."""
        return watch.shown()

    return api
