"""Tables on real labelled data, where these are at hand: web sessions (CERTH), and the prompt score's sources."""

from __future__ import annotations

from typing import Any

import numpy as np

from classifier.evaluation import certh, prompts
from classifier.evaluation.judging import OWN, parts_of
from classifier.model.forest import Forest

SHOWN = (certh.PROTOCOL, certh.VARIANTS[4])
"""What the page shows: the protocol, and pages only. `python -m classifier.evaluation.certh` has the others."""
ABSENT = "the data are not at {path} (data/README.md says where to get them)"


def web_sessions(forest: Forest) -> dict[str, Any]:
    """Return areas under the ROC curve of human against bot sessions, or why there are none.

    Learnt: features of the client itself, trained on other sessions of the set, five folds. Transferred: the own part of the
    shipped forest, which has seen simulated traffic only, on the same sessions as they are.
    """
    if not certh.REQUESTS.is_file():
        return {"skipped": ABSENT.format(path=certh.REQUESTS)}
    found = [{"how": f"learnt, {variant.name}", **_areas(certh.measure(variant, certh.REQUESTS))} for variant in SHOWN]
    requests = certh.read(certh.REQUESTS)
    labels = certh.labels_of(requests)
    scores = []
    for seed in certh.SEEDS:
        rng = np.random.default_rng(seed)
        data = certh.dataset(certh.events(certh.without_sizes(requests, rng), rng))
        judged = certh.judged_rows(data, 1.0)
        rows = np.full((len(judged), forest.n_features), np.nan, np.float32)
        rows[:, OWN] = data.rows[judged]
        scores.append(parts_of(forest, rows).own)
    moved = certh.areas(np.array(scores, np.float64), labels.to_numpy(object))
    return {"sessions": len(labels), "areas": [*found, {"how": "transferred from simulated traffic", **_areas(moved)}]}


def _areas(found: certh.Areas) -> dict[str, dict[str, float]]:
    return {
        kind: {"value": area.value, "low": area.low, "high": area.high}
        for kind, area in (("moderate", found.moderate), ("advanced", found.advanced))
    }


def prompt_sources() -> dict[str, Any]:
    """Return the prompt score's figures source by source, neither source seen in training, or why there are none."""
    if not prompts.DATA.is_dir():
        return {"skipped": ABSENT.format(path=prompts.DATA)}
    rows = []
    for malicious, row in prompts.leave_one_out(prompts.Trial.of(prompts.DATA, "report")).items():
        for benign, cell in row.items():
            rows.append(
                {
                    "malicious": malicious,
                    "benign": benign,
                    "malicious_prompts": cell.recall.malicious,
                    "benign_prompts": cell.recall.benign,
                    "auc": cell.auc,
                    "recall": {"value": cell.recall.value, "low": cell.recall.low, "high": cell.recall.high},
                }
            )
    return {"rows": rows}
