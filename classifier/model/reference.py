"""Training histograms of features and scores: what drift is measured against."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt

from classifier.features.spec import NAMES
from classifier.model.dataset import Dataset
from classifier.model.train import Trained

BINS = 10


def reference_histograms(data: Dataset, trained: Trained) -> bytes:
    """Return `reference.json`: for each feature and the raw score, bin edges (deciles), shares, and the share of NaN."""
    raw = trained.boosters.raw(np.ascontiguousarray(data.rows[:, trained.columns]))
    content = {NAMES[column]: _histogram(data.rows[:, column], data.weight) for column in trained.columns}
    content["raw"] = _histogram(raw, data.weight)
    return json.dumps({"bins": BINS, "features": content}, separators=(",", ":")).encode()


def _histogram(values: npt.NDArray[Any], weight: npt.NDArray[np.float64]) -> dict[str, object]:
    known = ~np.isnan(values)
    if not known.any():
        return {"edges": [], "shares": [], "missing": 1.0}
    edges = np.unique(np.quantile(values[known].astype(np.float64), np.linspace(0, 1, BINS + 1)[1:-1]))
    place = np.searchsorted(edges, values[known], side="left")
    counts = np.bincount(place, weights=weight[known], minlength=len(edges) + 1)
    total = weight.sum()
    return {
        "edges": [float(edge) for edge in edges],
        "shares": [float(share) for share in counts / total],
        "missing": float(weight[~known].sum() / total),
    }
