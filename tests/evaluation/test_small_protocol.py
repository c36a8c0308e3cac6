"""The protocol in its small form against stored bounds: a change that costs recall, or ground against the baselines, is seen.

Bounds lie well below what was measured (`python -m pytest -s` prints it), for small logs make rough figures.
"""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from classifier.evaluation.document import write
from classifier.evaluation.plan import SMALL
from classifier.evaluation.protocol import run_protocol

LEAST = {("plain", 0.01): 0.9, ("evasive", 0.01): 0.6, ("mimic", 0.01): 0.15}
"""Least recall per client, the mean over families."""
MOST_TOUCHED = 0.01
"""Most legitimate requests that default budgets may touch on the test log."""


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("protocol")
    begin = time.perf_counter()
    found = run_protocol(SMALL, folder)
    write(found, folder)
    print(f"\n{time.perf_counter() - begin:.0f} s")
    assert {path.name for path in folder.iterdir()} >= {
        "evaluation.json", "tables.md", "evaluation.html", "methods.png", "limit.png",
    }  # fmt: skip
    return dict(json.loads((folder / "evaluation.json").read_text()))


@pytest.mark.slow
def test_recall_is_within_bounds_and_ahead_of_every_baseline(result: dict[str, Any]) -> None:
    for line in result["comparison"]["against_best"]:
        print({name: line[name] for name in ("grade", "rate", "recall", "best", "best_recall")})
        if line["rate"] == 0.01:
            assert line["recall"] >= LEAST[line["grade"], 0.01]
            assert line["ahead_of_every"]


@pytest.mark.slow
def test_few_legitimate_requests_are_touched(result: dict[str, Any]) -> None:
    for name in ("legitimate", "surge"):
        everyone = result["budgets"][name][0]
        assert everyone["kind"] == "all"
        assert everyone["challenged"]["value"] + everyone["blocked"]["value"] <= MOST_TOUCHED
