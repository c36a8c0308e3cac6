"""Training histograms of features and scores: what drift is measured against.

They are of *legitimate* requests: an attack is not drift. A client with n requests weighs sqrt(n), as in training, so that
a heavy tenant's habits are not taken for everybody's. Bins are deciles under these weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from classifier.features.spec import NAMES
from classifier.model.dataset import Dataset
from classifier.model.histograms import BINS, RAW, Clusters, Histogram, deciles, histogram, stability_index
from classifier.model.train import Trained


def reference_histograms(data: Dataset, trained: Trained, seen: Mapping[str, float]) -> bytes:
    """Return `reference.json`: for each feature and the raw score, bin edges, shares, the share of NaN, and the noise.

    `seen` is the share of clients that have each event field (`dataset.fields_seen`); it is kept beside them.

    Features are those of all legitimate rows; the raw score is that of the training part by models that never saw the
    client, since a forest scores what it was grown on too well. Those models are not quite the final one: how far its scores
    of the held-out clients lie from theirs, beyond chance, counts as noise.
    """
    legitimate = ~data.malicious
    clusters = Clusters.of(data.key[legitimate], data.time[legitimate], data.weight[legitimate])
    content = {
        NAMES[column]: _as_json(_measured(data.rows[legitimate, column], clusters)) for column in trained.columns
    }
    known = legitimate & trained.split.train
    raw = trained.unseen[~data.malicious[trained.split.train]]
    measured = _measured(raw, clusters.take(known[legitimate]))
    unseen = legitimate & trained.split.test & ~np.isin(data.key, data.key[trained.split.train])
    if unseen.any():
        scores = trained.boosters.raw(np.ascontiguousarray(data.rows[unseen][:, trained.columns]), trained.clip)
        other = histogram(scores, measured.edges, clusters.take(unseen[legitimate]))
        beyond_chance = stability_index(measured.shares, other.shares) - measured.noise - other.noise
        measured = replace(measured, noise=measured.noise + max(beyond_chance, 0.0))
    content[RAW] = _as_json(measured)
    counted = {"bins": BINS, "clients": int(clusters.client.max()) + 1, "fields": seen, "features": content}
    return json.dumps(counted).encode()


def _measured(values: npt.NDArray[np.floating[Any]], clusters: Clusters) -> Histogram:
    return histogram(values, deciles(values, clusters.weight), clusters)


def _as_json(measured: Histogram) -> dict[str, Any]:
    return {
        "edges": measured.edges.tolist(),
        "shares": measured.shares[:-1].tolist(),
        "missing": float(measured.shares[-1]),
        "noise": measured.noise,
        "degrees": measured.degrees,
    }
