"""How much traffic default budgets take: the same training on fewer clients, judged on the same test log.

A budget of 0.2 % that also holds when each client counts once is less than one client where there are some hundred: the threshold
then lies above whoever of them looks worst. Features are those of the whole log; only the clients that are learnt from are fewer.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from classifier.evaluation.judging import evenly, parts_of
from classifier.evaluation.legitimate import acted_on
from classifier.evaluation.requests import Requests
from classifier.features.spec import NAMES
from classifier.model.train import Settings, train

SHARES = (0.1, 0.3)
PER_CLIENT = 64


def learning_curve(known: Requests, test: Requests) -> list[dict[str, Any]]:
    """Return for each share of the clients what a model that learnt from them acts on, by grade, on `test`."""
    lot = np.random.default_rng(0).random(len(known.clients))
    data = known.dataset().take(evenly(known, PER_CLIENT))
    client = data.client.astype(np.int64)
    found = []
    for size in SHARES:
        part = data.take(lot[client] < size)
        trained = train(part, settings=Settings().for_rows(len(part)))
        raw = parts_of(trained.boosters.forest(len(NAMES)), test.rows).raw(trained.clip)
        legitimate = ~test.malicious
        found.append(
            {
                "share": size,
                "clients": int((~known.clients.malicious & (lot < size)).sum()),
                "limit": trained.clip if np.isfinite(trained.clip) else None,
                "legitimate_acted_on": float((raw[legitimate] >= np.float32(trained.thresholds.challenge)).mean()),
                "grades": acted_on(test, raw, trained.thresholds),
            }
        )
    return found
