"""Legitimate requests that default budgets touch, kind by kind, on a usual day and in a surge of popularity."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from classifier.evaluation.requests import Requests
from classifier.model.bootstrap import share
from classifier.policy import Thresholds
from classifier.traffic import legitimate

Flags = npt.NDArray[np.bool_]


def touched(
    requests: Requests, raw: npt.NDArray[np.float32], thresholds: Thresholds, resamples: int
) -> list[dict[str, Any]]:
    """Return a row for each kind, for all kinds, and for the surge: shares of requests challenged and blocked.

    Challenged means challenged and not blocked. Intervals are over clients, drawn within their kind.
    """
    clients = requests.clients
    kinds = [kind for kind in legitimate.FAMILIES if (clients.group[~clients.malicious] == kind).any()]
    blocked = raw >= np.float32(thresholds.block)
    marks = {"challenged": (raw >= np.float32(thresholds.challenge)) & ~blocked, "blocked": blocked}
    counts, rng = _Counts(requests, marks), np.random.default_rng(0)
    rows = []
    for kind in ("all", *kinds):
        of = ~clients.malicious if kind == "all" else ~clients.malicious & (clients.group == kind)
        awkward = kind in legitimate.AWKWARD or kind in (legitimate.SURGE, "tenant_heavy")
        rows.append({"kind": kind, "awkward": awkward, **counts.of(of, rng, resamples)})
    return rows


class _Counts:
    """How many requests of each client there are, and how many of them are marked."""

    def __init__(self, requests: Requests, marks: dict[str, Flags]) -> None:
        def counted(weights: Flags | None) -> npt.NDArray[np.int64 | np.float64]:
            return np.bincount(requests.client, weights, minlength=len(requests.clients))

        self._requests = counted(None)
        self._marked = {name: counted(flags) for name, flags in marks.items()}

    def of(self, clients: Flags, rng: np.random.Generator, resamples: int) -> dict[str, Any]:
        """Return figures of these clients, of which at least one has a request."""
        members = np.flatnonzero(clients & (self._requests > 0))
        drawn = members[rng.integers(0, len(members), (resamples, len(members)))]
        total, totals = self._requests[members].sum(), self._requests[drawn].sum(axis=1)
        found: dict[str, Any] = {
            "clients": len(members),
            "requests": int(total),
            "clients_touched": float(np.mean(sum(marked[members] for marked in self._marked.values()) > 0)),
        }
        for name, marked in self._marked.items():
            found[name] = share(float(marked[members].sum() / total), marked[drawn].sum(axis=1) / totals, len(members))
            del found[name]["reason"]
        return found


def acted_on(requests: Requests, raw: npt.NDArray[np.float32], thresholds: Thresholds) -> list[dict[str, Any]]:
    """Return for each grade what default budgets do about attackers: shares of requests and of clients acted on, and blocked."""
    clients = requests.clients
    reached = {"acted_on": raw >= np.float32(thresholds.challenge), "blocked": raw >= np.float32(thresholds.block)}
    rows = []
    for grade in clients.grades():
        of = clients.malicious & (clients.grade == grade)
        mine = of[requests.client]
        row: dict[str, Any] = {"grade": grade, "clients": int(of.sum()), "requests": int(mine.sum())}
        for name, flags in reached.items():
            hit = np.zeros(len(clients), bool)
            hit[requests.client[flags]] = True
            row |= {f"requests_{name}": float(flags[mine].mean()), f"clients_{name}": float(hit[of].mean())}
        rows.append(row)
    return rows
