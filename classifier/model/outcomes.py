"""What was decided about each attack family and each kind of legitimate client, and how soon."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from classifier.model.bootstrap import Figure, figure, missing, share
from classifier.model.labelled import LabelledRequests, first_actions
from classifier.model.metrics import GroupMetrics, Kind

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]
QUANTILES = {"median": 0.5, "p90": 0.9}
NO_TOKENS = "no event carries token counts"
CLIENTS, REQUESTS, ALLOWED, CHALLENGED, BLOCKED, TOKENS, TOKENS_ACTED, CLIENTS_ACTED = range(8)


class _Group(NamedTuple):
    """One line of the table: a group, or all groups of a kind. `members` are its clients' numbers."""

    kind: Kind
    family: str
    overall: bool
    members: slice


class Sample(NamedTuple):
    """Sums float64[lines, 8] and waits float64[lines, 2 (requests, tokens), quantiles] under one weighting."""

    sums: Floats
    waits: Floats


class Outcomes:
    """Decisions summed once per client, then weighted per client as often as the bootstrap likes."""

    def __init__(self, requests: LabelledRequests):
        self._requests = requests
        self._sums = _sums_by_client(requests)
        self._lines = _lines(requests)
        waits = first_actions(requests)
        # Sorted once per line; NaN-free, since never acted on is an infinity.
        self._waits = [
            [(wait[line.members][order], order) for wait in waits for order in [np.argsort(wait[line.members])]]
            for line in self._lines
            if line.kind == "attack"
        ]

    def measure(self, weight: Floats) -> Sample:
        """Measure with a weight per client, float64[clients]."""
        sums = np.array([weight[line.members] @ self._sums[line.members] for line in self._lines])
        attacks = iter(self._waits)
        waits = np.full((len(self._lines), 2, len(QUANTILES)), np.nan)
        for place, line in enumerate(self._lines):
            if line.kind == "attack":
                of_line = weight[line.members]
                waits[place] = [_quantiles(values, of_line[order]) for values, order in next(attacks)]
        return Sample(sums, waits)

    def report(self, resampled: list[Sample]) -> list[GroupMetrics]:
        """Return the metrics of every line, attacks first, with intervals from the resamples."""
        whole = self.measure(np.ones(len(self._requests.group_of_client)))
        sums = np.array([sample.sums for sample in resampled]).reshape(-1, *whole.sums.shape)
        waits = np.array([sample.waits for sample in resampled]).reshape(-1, *whole.waits.shape)
        return [
            self._line(line, Sample(whole.sums[i], whole.waits[i]), Sample(sums[:, i], waits[:, i]))
            for i, line in enumerate(self._lines)
        ]

    def _line(self, line: _Group, whole: Sample, resampled: Sample) -> GroupMetrics:
        sums, clients = whole.sums, int(whole.sums[CLIENTS])

        def part(of: Places | int, total: int) -> Figure:
            top, tops = np.sum(sums[of]), resampled.sums[:, np.atleast_1d(of)].sum(axis=1)
            return share(float(top / sums[total]), tops / np.maximum(resampled.sums[:, total], 1e-300), clients)

        acted = np.array([CHALLENGED, BLOCKED])
        caught = part(CLIENTS_ACTED, CLIENTS)
        attack = line.kind == "attack"
        tokens_known = self._requests.has_tokens and sums[TOKENS] > 0
        return GroupMetrics(
            kind=line.kind,
            family=line.family,
            overall=line.overall,
            clients=clients,
            requests=round(sums[REQUESTS]),
            tokens=round(sums[TOKENS]) if self._requests.has_tokens else None,
            allowed=part(ALLOWED, REQUESTS),
            challenged=part(CHALLENGED, REQUESTS),
            blocked=part(BLOCKED, REQUESTS),
            acted_on=part(acted, REQUESTS),
            tokens_acted_on=part(TOKENS_ACTED, TOKENS) if tokens_known else missing(self._no_tokens()),
            clients_acted_on=caught,
            never_acted_on=_complement(caught),
            requests_before_action=_waits(whole.waits[0], resampled.waits[:, 0], clients) if attack else None,
            tokens_before_action=self._token_waits(whole, resampled, clients) if attack else None,
        )

    def _token_waits(self, whole: Sample, resampled: Sample, clients: int) -> dict[str, Figure]:
        if not self._requests.has_tokens:
            return {name: missing(NO_TOKENS) for name in QUANTILES}
        return _waits(whole.waits[1], resampled.waits[:, 1], clients)

    def _no_tokens(self) -> str:
        return "no tokens were used" if self._requests.has_tokens else NO_TOKENS


def _sums_by_client(requests: LabelledRequests) -> Floats:
    clients = len(requests.group_of_client)

    def count(of_request: Any) -> Floats:
        return np.bincount(requests.client, requests.weight * of_request, clients).astype(np.float64)

    acted = requests.code > 0
    verdicts = [count(requests.code == code) for code in range(3)]
    tokens, tokens_acted = count(requests.tokens), count(requests.tokens * acted)
    return np.column_stack(
        [np.ones(clients), count(1.0), *verdicts, tokens, tokens_acted, verdicts[1] + verdicts[2] > 0]
    )


def _lines(requests: LabelledRequests) -> list[_Group]:
    """Return the lines in reading order: all attacks, each family, all legitimate clients, each kind."""
    edges = np.searchsorted(requests.group_of_client, np.arange(len(requests.groups) + 1))
    lines: list[_Group] = []
    for kind in ("attack", "legitimate"):
        of_kind = [place for place, (k, _) in enumerate(requests.groups) if k == kind]
        if of_kind:
            lines.append(_Group(kind, "all", True, slice(edges[of_kind[0]], edges[of_kind[-1] + 1])))
        lines += [_Group(kind, requests.groups[i][1], False, slice(edges[i], edges[i + 1])) for i in of_kind]
    return lines


def _quantiles(values: Floats, weight: Floats) -> Floats:
    """Return nearest-rank quantiles of sorted values with weights; they need no arithmetic on infinities."""
    reached = np.cumsum(weight)
    places = np.searchsorted(reached, np.array(list(QUANTILES.values())) * reached[-1] * (1 - 1e-12))
    return np.asarray(values[places])


def _waits(whole: Floats, resampled: Floats, clients: int) -> dict[str, Figure]:
    result = {}
    for place, (name, quantile) in enumerate(QUANTILES.items()):
        if np.isinf(whole[place]):
            result[name] = missing(f"more than {100 - 100 * quantile:.0f} % of the attackers are never acted on")
        else:
            result[name] = figure(whole[place], resampled[:, place], clients)
    return result


def _complement(of: Figure) -> Figure:
    def rest(value: float | None) -> float | None:
        return None if value is None else 1 - value

    return Figure(value=rest(of["value"]), low=rest(of["high"]), high=rest(of["low"]), reason=of["reason"])
