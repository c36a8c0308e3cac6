"""Recall per client at a false-positive rate, by family and grade, with intervals over campaigns.

A client counts as found when one of its requests reaches the threshold, decided at that request with nothing seen later. So
a client's score is the highest of its requests, and the threshold is the lowest that at most the given share of legitimate
clients ever reaches, ties included.

Clients of one campaign resemble each other, so what is drawn anew for an interval are campaigns (with all of their
clients); legitimate clients are drawn within their kind, and the threshold is taken anew each time. 95 %, percentiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from classifier.evaluation.requests import Clients
from classifier.model.bootstrap import Figure, share

Floats = npt.NDArray[np.float64]
RATES = (0.001, 0.01)


@dataclass(frozen=True)
class Cell:
    """One family in one grade: its clients' places, int[n], and the campaign of each, int[n] from 0."""

    family: str
    grade: str
    members: npt.NDArray[np.int64]
    campaign: npt.NDArray[np.int64]

    @property
    def campaigns(self) -> int:
        """How many campaigns there are."""
        return int(self.campaign.max()) + 1


def cells_of(clients: Clients) -> list[Cell]:
    """Return the cells of a log, family by family, grade by grade."""
    found = []
    for family in clients.families():
        for grade in clients.grades():
            members = np.flatnonzero(clients.malicious & (clients.group == family) & (clients.grade == grade))
            if len(members):
                _, campaign = np.unique(clients.campaign[members].astype(str), return_inverse=True)
                found.append(Cell(family, grade, members, campaign))
    return found


class Recalls:
    """Recall of one method in every cell and at every rate, on the whole log and on each resample.

    value float64[rates, cells]; drawn float64[resamples, rates, cells]; threshold float64[rates]. The draws of two
    `Recalls` with the same clients and seed are the same, so that their difference can be taken draw by draw.
    """

    def __init__(
        self,
        score: npt.NDArray[np.floating],
        clients: Clients,
        rates: Sequence[float] = RATES,
        resamples: int = 500,
    ) -> None:
        """Judge clients by their highest scores, [clients] of floats; -inf for one without requests."""
        score = score.astype(np.float64)
        self.cells, self.rates = cells_of(clients), tuple(rates)
        rng = np.random.default_rng(0)
        legitimate = np.flatnonzero(~clients.malicious)
        order = legitimate[np.argsort(clients.group[legitimate].astype(str), kind="stable")]
        _, kind = np.unique(clients.group[order].astype(str), return_inverse=True)
        size = np.bincount(kind)
        start = (np.cumsum(size) - size)[kind]
        self._legitimate, self._attack = score[order], [score[cell.members] for cell in self.cells]
        everyone = np.arange(len(order))
        self.threshold = self._thresholds(everyone)
        self.value = self._recall(self.threshold, [np.ones(cell.campaigns) for cell in self.cells])
        drawn = []
        for _ in range(resamples):
            picked = start + (rng.random(len(order)) * size[kind]).astype(np.int64)
            weights = [
                np.bincount(rng.integers(0, cell.campaigns, cell.campaigns), minlength=cell.campaigns).astype(float)
                for cell in self.cells
            ]
            drawn.append(self._recall(self._thresholds(picked), weights))
        self.drawn = np.array(drawn).reshape(resamples, len(self.rates), len(self.cells))

    def _thresholds(self, picked: npt.NDArray[np.int64]) -> Floats:
        """Return the lowest thresholds that at most each rate of the legitimate clients reaches, float64[rates]."""
        ranked = np.sort(self._legitimate[picked])[::-1]
        allowed = [int(rate * len(ranked) * (1 + 1e-9)) for rate in self.rates]
        return np.array([np.nextafter(ranked[n], np.inf) if n < len(ranked) else -np.inf for n in allowed])

    def _recall(self, threshold: Floats, weights: Sequence[Floats]) -> Floats:
        found = np.empty((len(threshold), len(self.cells)))
        for place, (cell, score, weight) in enumerate(zip(self.cells, self._attack, weights, strict=True)):
            of_client = weight[cell.campaign]
            for rate, limit in enumerate(threshold):
                found[rate, place] = of_client[score >= limit].sum() / max(of_client.sum(), 1e-300)
        return found

    def figure(self, rate: int, cell: int) -> Figure:
        """Return the recall of one cell with its interval; campaigns are what it rests on."""
        return share(float(self.value[rate, cell]), self.drawn[:, rate, cell], self.cells[cell].campaigns)

    def mean(self, rate: int, grade: str) -> tuple[float, Floats]:
        """Return the mean over families of the recall in a grade, and that of each resample, float64[resamples]."""
        at = [place for place, cell in enumerate(self.cells) if cell.grade == grade]
        return float(self.value[rate, at].mean()), self.drawn[:, rate][:, at].mean(axis=1)
