"""Legitimate requests that default budgets touch, kind by kind, on a usual day and in a surge of popularity."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from classifier.evaluation.requests import Requests
from classifier.model.bootstrap import share
from classifier.policy import Thresholds
from classifier.traffic import legitimate


def touched(
    requests: Requests, raw: npt.NDArray[np.float32], thresholds: Thresholds, resamples: int
) -> list[dict[str, Any]]:
    """Return a row for each kind, for all kinds, and for the surge: shares of requests challenged and blocked.

    Challenged means challenged and not blocked. Intervals are over clients, drawn within their kind.
    """
    clients = requests.clients
    kinds = [kind for kind in (*legitimate.FAMILIES,) if (clients.group[~clients.malicious] == kind).any()]
    blocked = raw >= np.float32(thresholds.block)
    challenged = (raw >= np.float32(thresholds.challenge)) & ~blocked
    per_client = {
        name: np.bincount(requests.client, weights=marks, minlength=len(clients))
        for name, marks in (("requests", np.ones(len(raw))), ("challenged", challenged), ("blocked", blocked))
    }
    rng = np.random.default_rng(0)
    rows = []
    for kind in ("all", *kinds):
        of = ~clients.malicious if kind == "all" else ~clients.malicious & (clients.group == kind)
        members = np.flatnonzero(of & (per_client["requests"] > 0))
        if not len(members):
            continue
        drawn = members[rng.integers(0, len(members), (resamples, len(members)))]
        total, totals = per_client["requests"][members].sum(), per_client["requests"][drawn].sum(axis=1)
        row: dict[str, Any] = {
            "kind": kind,
            "awkward": kind in legitimate.AWKWARD or kind in (legitimate.SURGE, "tenant_heavy"),
            "clients": len(members),
            "requests": int(total),
            "clients_touched": float(np.mean((per_client["challenged"] + per_client["blocked"])[members] > 0)),
        }
        for what in ("challenged", "blocked"):
            value = per_client[what][members].sum() / total
            row[what] = share(float(value), per_client[what][drawn].sum(axis=1) / totals, len(members))
            del row[what]["reason"]
        rows.append(row)
    return rows


def acted_on(requests: Requests, raw: npt.NDArray[np.float32], thresholds: Thresholds) -> list[dict[str, Any]]:
    """Return for each grade what default budgets do about attackers: shares of requests and of clients acted on."""
    clients, acted = requests.clients, raw >= np.float32(thresholds.challenge)
    rows = []
    for grade in clients.grades():
        of = clients.malicious & (clients.grade == grade)
        hit = np.zeros(len(clients), bool)
        hit[requests.client[acted]] = True
        mine = of[requests.client]
        rows.append(
            {
                "grade": grade,
                "clients": int(of.sum()),
                "requests": int(mine.sum()),
                "requests_acted_on": float(acted[mine].mean()),
                "clients_acted_on": float(hit[of].mean()),
            }
        )
    return rows
