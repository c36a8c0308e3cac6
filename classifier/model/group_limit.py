"""The limit c on the group part: raw = own + clip(group, -c, c), so that company alone can neither condemn nor clear a client.

One bad tenant behind a shared address or library raises the group part of everybody there. Without a limit that can be as much as
any evidence of what they do themselves; with too low a limit, campaigns that only show as a crowd are missed. So c is as low
as it can be while it costs next to nothing: the lowest limit whose recall, on clients that the model has not seen, is within
`TOLERANCE` of the best. Recall is per client, at two false-positive rates, the mean over attack families.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from classifier.model.ranking import highest
from classifier.policy import LegitimateCurve

Floats = npt.NDArray[np.floating]
LIMITS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, math.inf)
"""Limits that are tried, in log odds."""
RATES = (0.001, 0.01)
TOLERANCE = 0.01
FEWEST_CLIENTS = 1000
"""Legitimate clients below which nothing can be said about such rates, and the group part is not limited."""


def fit_limit(
    own: Floats,
    group: Floats,
    malicious: npt.NDArray[np.bool_],
    key: npt.NDArray[np.uint64],
    family: npt.NDArray[np.object_],
) -> float:
    """Return the limit for requests that the model has not seen; infinity where the data are too few to choose.

    own and group float[n], sums of the two parts; malicious bool[n]; key uint64[n] of the client; family object[n]. A client
    of several families counts for one of them.
    """
    if not malicious.any() or not np.any(group):
        return math.inf
    clients, client = np.unique(key, return_inverse=True)
    hostile = np.zeros(len(clients), bool)
    hostile[client[malicious]] = True
    if (~hostile).sum() < FEWEST_CLIENTS:
        return math.inf
    _, kind = np.unique(family[malicious].astype(str), return_inverse=True)
    of_client = np.zeros(len(clients), np.intp)
    of_client[client[malicious]] = kind
    found = [_recall(own + np.clip(group, -c, c), client, hostile, of_client[hostile]) for c in LIMITS]
    return next(c for c, recall in zip(LIMITS, found, strict=True) if recall >= max(found) - TOLERANCE)


def least_block(alone: LegitimateCurve, challenge: float, limit: float) -> float:
    """Return the raw score, a float32 value, below which nobody is blocked: company alone must not be enough.

    `alone` is the curve of the own parts of legitimate requests, `challenge` the share of them that a challenge budget allows.
    Company adds at most the limit; so who is blocked has an own part that no more than that share of them reaches.
    """
    return float(np.float32(alone.threshold(challenge)) + np.float32(limit))


def _recall(
    raw: Floats, client: npt.NDArray[np.intp], hostile: npt.NDArray[np.bool_], family: npt.NDArray[np.intp]
) -> float:
    """Return the recall per client, the mean over rates and families."""
    of_client = highest(raw, client, len(hostile))
    ranked = np.sort(of_client[~hostile])[::-1]
    families = np.bincount(family)
    recalls = []
    for rate in RATES:
        caught = of_client[hostile] > ranked[int(rate * len(ranked))]
        found = np.bincount(family[caught], minlength=len(families))
        recalls.append(np.mean(found[families > 0] / families[families > 0]))
    return float(np.mean(recalls))
