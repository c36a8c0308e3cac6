"""Evaluation: what a bundle's decisions and scores are worth on labelled requests.

A client's score at any moment is the highest raw score of its requests so far; it lies above a threshold exactly when
one of its requests did, decided at that request with nothing seen later. So rates per client are taken over the
highest score that a client reached.

*Acted on* means challenged or blocked: a challenge to a client that cannot solve it is a loss, so it counts as one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from classifier.events import MICROSECONDS
from classifier.model.bootstrap import FEWEST_CLIENTS, LEVEL, ClientResampler, missing, share
from classifier.model.labelled import LabelledRequests, labelled_requests
from classifier.model.metrics import (
    CalibrationMetrics,
    GroupMetrics,
    Metrics,
    RankingMetrics,
    RecallAt,
    ReliabilityPoint,
    Unit,
)
from classifier.model.outcomes import Outcomes
from classifier.model.ranking import Ranking, Ranks, highest
from classifier.model.reliability import FEWEST_ROWS, BinShares, Reliability, equal_mass_bins, log_odds_bins
from classifier.model.wording import printable
from classifier.policy import unresolved

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]
RATES = (0.001, 0.01)
"""False-positive rates at which recall is given."""
NAMED = 8
"""Families named in one note at most."""


class _Part(Protocol):
    """One part of the evaluation: measured once per resample, reported at the end."""

    def measure(self, weight: Floats, /) -> Any: ...


def evaluate(
    scored: pd.DataFrame,
    prior: float = 0.01,
    resamples: int = 200,
    seed: int = 0,
    on_resample: Callable[[], object] | None = None,
) -> Metrics:
    """Evaluate scored requests.

    `scored` has the columns row, time (int64 µs), client, raw (float32), probability, decision, malicious and family,
    and may have input_tokens, output_tokens, and weight (how many requests of its client a row stands for). Rows without
    a label are left out and counted. `prior` is the manifest's. `on_resample` is called after each of the `resamples` of
    the bootstrap. Same input and seed give the same result.

    Raises InputError when a column is missing, a decision is unknown, a score is NaN or no row has a label. What the
    data cannot resolve is a figure without a value and with a reason, and stands in `notes`.
    """
    requests = labelled_requests(scored)
    outcomes, calibration = Outcomes(requests), _CalibrationPart(requests, prior)
    rankings = [_RankingPart(requests, unit, overall) for unit in ("request", "client") for overall in (True, False)]
    parts: list[_Part] = [outcomes, calibration, *rankings]
    drawn: list[list[Any]] = [[] for _ in parts]
    resampler = ClientResampler(requests.group_of_client, seed)
    for _ in range(resamples):
        weight = resampler.draw()
        for part, kept in zip(parts, drawn, strict=True):
            kept.append(part.measure(weight))
        if on_resample is not None:
            on_resample()
    metrics = Metrics(
        format=1,
        requests=round(requests.weight.sum()),
        clients=len(requests.group_of_client),
        unlabelled=requests.unlabelled,
        start=float(requests.time[0] / MICROSECONDS),
        end=float(requests.time[-1] / MICROSECONDS),
        bootstrap={"unit": "client", "resamples": resamples, "seed": seed, "level": LEVEL},
        groups=outcomes.report(drawn[0]),
        calibration=calibration.report(drawn[1]),
        ranking=[line for part, kept in zip(rankings, drawn[2:], strict=True) for line in part.report(kept)],
        notes=[],
    )
    metrics["notes"] = _notes(metrics)
    return metrics


class _RankingPart:
    """ROC-AUC, PR-AUC and recall of all attacks together, or of each family, per request or per client."""

    def __init__(self, requests: LabelledRequests, unit: Unit, overall: bool):
        self._unit, self._overall = unit, overall
        self._clients = len(requests.group_of_client)
        client = np.arange(self._clients) if unit == "client" else requests.client
        raw = (
            highest(requests.raw, requests.client, len(requests.group_of_client)) if unit == "client" else requests.raw
        )
        of_row = None if unit == "client" else requests.weight
        malicious = requests.attack_clients[client]
        families = [family for kind, family in requests.groups if kind == "attack"]
        group = requests.group_of_client[client] - (len(requests.groups) - len(families))
        self._names = ["all"] if overall else families
        group = np.zeros_like(group) if overall else group
        self._positives = np.bincount(group[malicious], minlength=len(self._names))
        self._attackers = np.bincount(
            group[malicious] if unit == "client" else _groups_of_attackers(requests, overall),
            minlength=len(self._names),
        )
        self._negatives = int((~malicious).sum())
        one_class = self._negatives in (0, len(malicious))
        self._ranking = None if one_class else Ranking(raw, malicious, client, group, RATES, of_row)

    def measure(self, weight: Floats) -> Ranks | None:
        """Measure with a weight per client, float64[clients]; None when a class is missing."""
        return None if self._ranking is None else self._ranking.measure(weight)

    def report(self, resampled: list[Ranks | None]) -> list[RankingMetrics]:
        """Return the metrics of every group, with intervals from the resamples."""
        return [self._line(place, resampled) for place in range(len(self._names))]

    def _line(self, place: int, resampled: list[Ranks | None]) -> RankingMetrics:
        line = RankingMetrics(
            unit=self._unit,
            family=self._names[place],
            overall=self._overall,
            positives=int(self._positives[place]),
            negatives=self._negatives,
            roc_auc=missing(_one_class(self._negatives)),
            pr_auc=missing(_one_class(self._negatives)),
            recall_at=[RecallAt(rate=rate, recall=missing(_one_class(self._negatives)), raw=None) for rate in RATES],
        )
        if self._ranking is None:
            return line
        ones = np.ones(self._clients)
        whole, drawn = self._ranking.measure(ones), [ranks for ranks in resampled if ranks is not None]
        clients = int(self._attackers[place])
        line["roc_auc"] = share(whole.roc_auc[place], np.array([r.roc_auc[place] for r in drawn]), clients)
        line["pr_auc"] = share(whole.pr_auc[place], np.array([r.pr_auc[place] for r in drawn]), clients)
        for i, at in enumerate(line["recall_at"]):
            refusal = unresolved(self._negatives, at["rate"], f"legitimate {self._unit}s", budget=False)
            if refusal is not None:
                at["recall"] = missing(f"a false-positive rate of {100 * at['rate']:g} % {refusal}")
                continue
            at["recall"] = share(whole.recall[i, place], np.array([r.recall[i, place] for r in drawn]), clients)
            at["raw"] = self._ranking.threshold(at["rate"], ones)
        return line


class _CalibrationPart:
    """Expected calibration error, and the points of the plot."""

    def __init__(self, requests: LabelledRequests, prior: float):
        self._prior, self._clients = prior, len(requests.group_of_client)
        p, malicious = requests.probability, requests.malicious
        self._negatives = int((~malicious).sum())
        self._whole: tuple[Reliability, Reliability] | None = None
        if 0 < self._negatives < len(p):
            plotted = log_odds_bins(p)
            self._rows = np.bincount(plotted)
            bins = (equal_mass_bins(p, malicious, prior, requests.weight), plotted)
            equal_mass, log_odds = (Reliability(p, malicious, requests.client, prior, b, requests.weight) for b in bins)
            self._whole = (equal_mass, log_odds)

    def measure(self, weight: Floats) -> tuple[float, Floats] | None:
        """Return the ECE and the observed share of each plotted bin, float64[bins]; None when a class is missing."""
        if self._whole is None:
            return None
        return self._whole[0].measure(weight).error(), self._whole[1].measure(weight).observed

    def report(self, resampled: list[tuple[float, Floats]]) -> CalibrationMetrics:
        """Return the metrics, with intervals from the resamples."""
        if self._whole is None:
            return CalibrationMetrics(prior=self._prior, ece=missing(_one_class(self._negatives)), points=[])
        ones = np.ones(self._clients)
        error = self._whole[0].measure(ones).error()
        bins = self._whole[1].measure(ones)
        observed = np.array([sample[1] for sample in resampled]).reshape(-1, len(self._rows))
        return CalibrationMetrics(
            prior=self._prior,
            ece=share(error, np.array([sample[0] for sample in resampled]), self._clients),
            points=[
                self._point(int(place), bins, observed[:, place]) for place in np.flatnonzero(self._rows >= FEWEST_ROWS)
            ],
        )

    def _point(self, place: int, bins: BinShares, resampled: Floats) -> ReliabilityPoint:
        seen = bins.observed[place]
        known = np.append(resampled[~np.isnan(resampled)], seen)
        low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="inverted_cdf")
        return ReliabilityPoint(
            predicted=float(bins.predicted[place]),
            observed=float(seen),
            low=float(min(low, seen)),
            high=float(max(high, seen)),
            requests=int(self._rows[place]),
        )


def _groups_of_attackers(requests: LabelledRequests, overall: bool) -> Places:
    attackers = requests.group_of_client[requests.attack_clients]
    legitimate = sum(kind == "legitimate" for kind, _ in requests.groups)
    return np.zeros_like(attackers) if overall else attackers - legitimate


def _one_class(negatives: int) -> str:
    return "there are no attacks in the data" if negatives else "there is no legitimate traffic in the data"


def _notes(metrics: Metrics) -> list[str]:
    """Say each thing that could not be measured, once."""
    notes = []
    if metrics["unlabelled"]:
        notes.append(f"{metrics['unlabelled']:,} requests carry no label and were left out.")
    for line in metrics["ranking"]:
        for at in line["recall_at"] if line["overall"] else ():
            if at["recall"]["reason"]:
                notes.append(f"Recall per {line['unit']}: {at['recall']['reason']}.")
    few = [printable(group["family"], 24) for group in metrics["groups"] if _too_few(group)]
    if few:
        named = ", ".join(few[:NAMED]) + (f" and {len(few) - NAMED} more" if len(few) > NAMED else "")
        notes.append(f"Fewer than {FEWEST_CLIENTS} clients, so no intervals: {named}.")
    if all(group["tokens"] is None for group in metrics["groups"]):
        notes.append("No event carries token counts, so nothing is said about tokens.")
    return list(dict.fromkeys(notes))


def _too_few(group: GroupMetrics) -> bool:
    return not group["overall"] and group["clients"] < FEWEST_CLIENTS
