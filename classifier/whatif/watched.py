"""A bundle as a what-if asks it: scores, the verdict about the whole service, and the policy as a service would have it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from classifier.model.apply import LogWatch, Model, Scored
from classifier.policy import Policy


class Watched:
    """A model with a watch over each scoring. `budget` is its challenge budget."""

    def __init__(self, model: Model, threads: int) -> None:
        manifest = model.bundle.manifest
        self.budget = float(manifest.budgets["challenge"])
        self.policy = Policy(model.thresholds, budget=self.budget, curve=manifest.policy_curve())
        self._model, self._threads = model, threads
        self._watch = LogWatch(model)

    def score(self, tables: Iterable[pa.Table], explain: bool) -> Iterator[Scored]:
        """Score event tables, with reasons where `explain` says so; the service is watched anew."""
        self._watch = LogWatch(self._model)
        return self._model.scored(tables, threads=self._threads, explain=explain, watch=self._watch)

    def situation(self) -> list[dict[str, Any]]:
        """Return the verdicts about the service of the last scoring, as `LogWatch.stretches`."""
        return self._watch.stretches()
