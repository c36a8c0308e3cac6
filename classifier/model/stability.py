"""How far today's shares of a feature lie from training's, in words: the bands, what chance explains, and the verdict.

Shared by `classifier.model.drift`, which measures a log, and by the service, which measures what it answers. Nothing here
needs a training library.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from classifier.features.spec import FEATURES
from classifier.model.histograms import RAW, Floats, Histogram, chance_limit, stability_index

State = Literal["steady", "moved", "drifted", "unresolved"]
Verdict = Literal["steady", "watch", "drift", "unresolved"]

WARM_UP_S = 3600
"""s after an empty start in which nearly nobody is known: what is seen then tells nothing of traffic."""
MOVED, DRIFTED = 0.1, 0.25
"""The customary bands of the index."""
LEVEL = 1e-4
"""Chance that one feature's index exceeds its limit although nothing has changed."""
ALARM = 3
"""Features that must have drifted for an alarm where the raw score has not: a change of traffic mostly shows in several."""
FAR = 3.0
"""A single feature suffices where its index is so many times what chance could make."""
GROWING = frozenset({"client_age", "client_requests_seen"})
"""Features that grow with the length of the log."""
UNSETTLED = frozenset(
    f"client_{name}"
    for name in (
        "rate_4096s", "rate_65536s", "burst_long", "input_token_rate_4096s", "output_token_rate_4096s",
        "output_token_rate_65536s",
    )
)  # fmt: skip
"""Rates of a half-life beyond `WARM_UP_S`, and what divides by one. An engine that has not lived through many half-lives yet
divides a rate by those it has, so that one request reads otherwise each hour of the first day, or of the first week. Of
visitors who come once that is all there is, and a day of a log would drift from the whole of it."""
COUNTED = frozenset({feature.name for feature in FEATURES if feature.part == "own"} - GROWING - UNSETTLED | {RAW})
"""What the verdict counts: the client's own features but those that tell of the length of the log, and the raw score."""
MEANINGS = {feature.name: feature.meaning for feature in FEATURES} | {RAW: "the raw score"}


@dataclass(frozen=True)
class FeatureDrift:
    """One feature (or `raw`): its index, what chance explains of it, and what that makes of it.

    `expected` is the index to be expected of chance alone, `limit` that which chance exceeds once in 1 / `LEVEL` times.
    `counts` is true for `COUNTED`, but for a raw score that does not rise (see `compared`). `before` and `now` are the shares
    of the bins between `edges`, and last of missing values, in training and in this window.
    """

    name: str
    psi: float
    expected: float
    degrees: float
    limit: float
    state: State
    counts: bool
    edges: tuple[float, ...]
    before: tuple[float, ...]
    now: tuple[float, ...]


def compared(name: str, before: Histogram, now: Histogram) -> FeatureDrift:
    """Compare a histogram with that of training; both have the same edges.

    The raw score counts only where it rises, in the mean or in its highest tenth. Training's are those of models that never
    saw the client; the model in use has learnt from more clients, and from those that come again, so that legitimate requests
    score lower although nothing has changed.
    """
    psi = stability_index(before.shares, now.shares)
    expected, degrees = before.noise + now.noise, min(before.degrees, now.degrees)
    limit = chance_limit(expected, degrees, LEVEL)
    if psi < MOVED:
        state: State = "steady"
    elif psi <= limit:
        state = "unresolved" if limit >= DRIFTED else "steady"
    else:
        state = "drifted" if psi >= DRIFTED else "moved"
    counts = name in COUNTED and (name != RAW or _rises(before.shares, now.shares))
    return FeatureDrift(
        name, psi, expected, degrees, limit, state, counts,
        tuple(before.edges.tolist()), tuple(before.shares.tolist()), tuple(now.shares.tolist()),
    )  # fmt: skip


def _rises(before: Floats, now: Floats) -> bool:
    """Say whether a score, which is never missing, lies in higher bins in the mean, or more often in the highest."""
    place = np.arange(len(now) - 1)
    return bool(now[:-1] @ place > before[:-1] @ place or now[-2] > before[-2])


def verdict_on(features: Sequence[FeatureDrift]) -> Verdict:
    """Alarm where the raw score, which stands last, has risen, or `ALARM` features drifted, or one by `FAR`; watch for less."""
    counting = [each for each in features if each.counts]
    drifted = [each for each in counting if each.state == "drifted"]
    score: State = features[-1].state if features[-1].counts else "steady"
    far = any(each.psi > FAR * each.limit for each in drifted)
    if score == "drifted" or far or len(drifted) >= ALARM:
        return "drift"
    if drifted or score == "moved":
        return "watch"
    unresolved = sum(each.state == "unresolved" for each in counting)
    return "unresolved" if score == "unresolved" or unresolved > len(counting) / 2 else "steady"
