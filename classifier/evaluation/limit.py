"""The limit c on the group part, over its whole range: what it finds, and what it does to a bad tenant's neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np

from classifier.evaluation.bystanders import Planted
from classifier.evaluation.judging import Parts
from classifier.evaluation.recall import RATES, Recalls
from classifier.evaluation.requests import Requests
from classifier.model.group_limit import LIMITS
from classifier.model.ranking import highest
from classifier.policy import Budgets, legitimate_curve


def over_limits(validation: Requests, parts: Parts, planted: Planted, planted_parts: Parts) -> list[dict[str, Any]]:
    """Return, for each limit (0: no group features), recall by grade and rate and the shares of neighbours challenged.

    The threshold of challenges holds the default budget on the legitimate requests of the log as it was. `planted_parts` are
    of the changed log, row by row.
    """
    clients, malicious = validation.clients, validation.malicious
    neighbour = planted.neighbour[validation.row]
    found = []
    for limit in (0.0, *LIMITS):
        raw, changed = parts.raw(limit), planted_parts.raw(limit)
        recalls = Recalls(highest(raw, validation.client, len(clients)), clients, RATES, 0)
        curve = legitimate_curve(raw[~malicious], validation.key[~malicious], Budgets())
        threshold = curve.threshold(Budgets().challenge)
        before, after = raw[neighbour] >= threshold, changed[neighbour] >= threshold
        found.append(
            {
                "limit": limit if np.isfinite(limit) else None,
                "recall": {
                    grade: [recalls.mean(rate, grade)[0] for rate in range(len(RATES))] for grade in clients.grades()
                },
                "neighbours_before": float(before.mean()),
                "neighbours_after": float(after.mean()),
                "neighbour_clients_after": _clients(after, validation.client[neighbour]),
            }
        )
    return found


def _clients(acted: Any, client: Any) -> float:
    """Return the share of clients of which a request was acted on."""
    everyone = np.unique(client)
    return float(len(np.unique(client[acted])) / max(len(everyone), 1))
