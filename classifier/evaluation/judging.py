"""Models of the protocol: the shipped one from its bundle, and smaller ones that are trained on part of the rows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from classifier.evaluation.requests import Requests
from classifier.features.spec import FEATURES, NAMES
from classifier.model.boosters import Boosters
from classifier.model.bundle import MODEL_FILE, Bundle
from classifier.model.compiled import CompiledEngine, read_graph
from classifier.model.dataset import Dataset, thinned, training_weights
from classifier.model.forest import Forest
from classifier.model.train import Settings, fit

Scores = npt.NDArray[np.float32]
OWN = [column for column, feature in enumerate(FEATURES) if feature.part == "own"]


@dataclass(frozen=True)
class Parts:
    """Sums of the own and the group part of requests, float32[n] each; the raw score under a limit is their sum."""

    own: Scores
    group: Scores

    def raw(self, limit: float) -> Scores:
        """Return own + clip(group, -limit, limit), float32[n]."""
        return np.asarray(self.own + np.clip(self.group, np.float32(-limit), np.float32(limit)), np.float32)


def parts_of(forest: Forest, rows: npt.NDArray[np.float32], threads: int = 2) -> Parts:
    """Return both parts of a forest's score for full feature rows float32[n, features]."""
    ends = [CompiledEngine(forest, (1.0, 0.0), limit, threads).score(rows)[0] for limit in (0.0, np.inf)]
    return Parts(ends[0], ends[1] - ends[0])  # exact: both lie on the leaves' grid


def shipped_forest(bundle: Bundle) -> tuple[Forest, float]:
    """Return a bundle's forest and its limit c. The bundle takes every feature."""
    if bundle.manifest.features != NAMES:
        raise ValueError("the protocol's bundle must take every feature")
    forest, _, limit = read_graph(bundle.read(MODEL_FILE))
    return forest, limit


def grown(requests: Requests, per_client: int, seed: int = 0) -> Dataset:
    """Return rows to train on: about `per_client` requests of each client, weighted by how many each stands for."""
    data = requests.dataset()
    positions, stands_for = thinned(data, seed, per_client)
    chosen = data.take(positions)
    chosen.weight = stands_for
    return chosen


def learn(data: Dataset, settings: Settings) -> Boosters:
    """Train both parts on all rows of `data`."""
    boosters, _ = fit(np.ascontiguousarray(data.rows), data.malicious, training_weights(data), OWN, settings)
    return boosters


def smaller(trees: tuple[int, int]) -> Settings:
    """Return training's settings with other numbers of trees (own, group)."""
    return replace(Settings(), own_trees=trees[0], group_trees=trees[1])


def evenly(requests: Requests, most: int) -> npt.NDArray[np.bool_]:
    """Mark at most `most` requests of each client, evenly spread over those it has, bool[n]."""
    order = np.argsort(requests.client, kind="stable")
    client = requests.client[order]
    count = np.bincount(client, minlength=len(requests.clients))
    start = np.cumsum(count) - count
    place = np.arange(len(order)) - start[client]
    n = np.maximum(count[client], 1)
    # Row i of n is taken where the number of taken ones grows from i to i + 1.
    take = (place + 1) * most // n > place * most // n
    marked = np.zeros(len(order), bool)
    marked[order] = take | (n <= most)
    return marked
