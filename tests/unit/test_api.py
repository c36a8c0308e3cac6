"""The public interface: its names, its documented examples, and that it says what the command line says."""

from __future__ import annotations

import ast
import doctest
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import classifier
from classifier import api
from classifier.errors import InputError
from classifier.events import EVENT_SCHEMA, FIELDS
from classifier.features.spec import NAMES
from classifier.logs import read_log
from classifier.model.apply import Model
from tests.unit.command_line import Made, small_forests


@pytest.fixture(scope="module")
def detector(made: Made) -> classifier.Detector:
    return classifier.load(made.bundle)


def test_the_package_lists_what_the_interface_has() -> None:
    errors = {"BotsieveError", "BundleError", "InputError", "LogError", "PromotionError"}
    assert set(classifier.__all__) == (set(api.__all__) - {"Log"}) | errors
    for name in classifier.__all__:
        assert getattr(classifier, name).__doc__, name
    assert set(classifier.__all__) <= set(dir(classifier))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = classifier.nothing  # type: ignore[attr-defined]


def test_the_names_for_type_checkers_are_the_same() -> None:
    tree = ast.parse(Path(classifier.__file__).read_text(encoding="utf-8"))
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("classifier.")
        for alias in node.names
    }
    assert imported == set(classifier.__all__)


def test_every_name_is_documented_on_the_page() -> None:
    page = (Path(classifier.__file__).parents[1] / "docs" / "api.md").read_text(encoding="utf-8")
    assert [name for name in classifier.__all__ if f"`{name}`" not in page] == []
    public = {name for name in vars(classifier.Detector) if not name.startswith("_")}
    assert [name for name in public if f"`{name}`" not in page] == []


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, classifier; print([m for m in ('pandas', 'numpy', 'pyarrow', 'numba') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_documented_example_runs(made: Made, tmp_path: Path) -> None:
    finder = doctest.DocTestFinder(exclude_empty=False)
    names = {"log": made.log, "bundle": made.bundle, "folder": tmp_path}
    runner = doctest.DocTestRunner(
        optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL
    )
    shown = set()
    with small_forests():
        for test in finder.find(api, globs={**vars(api), **names}):
            if test.examples:
                shown.add(test.name.removeprefix("classifier.api."))
                runner.run(test)
    assert runner.summarize(verbose=False).failed == 0
    functions = {name for name in api.__all__ if callable(getattr(api, name)) and name[0].islower()}
    methods = {"Detector.score", "Detector.evaluate", "Detector.explain", "Detector.drift", "Detector.threshold"}
    assert functions | methods | {"Detector"} <= shown


def test_events_go_to_a_data_frame_and_back_unchanged(made: Made) -> None:
    table = read_log([made.log])
    frame = classifier.read_log(made.log)
    assert list(frame.columns) == ["time", "client", *(f.name for f in FIELDS if f.name != "time")]
    assert api._table_of(frame).equals(table)
    assert frame["client"].tolist() == [
        a or ip for a, ip in zip(table["account"].to_pylist(), table["ip"].to_pylist(), strict=True)
    ]


def test_several_logs_are_one(made: Made, tmp_path: Path) -> None:
    lines = made.log.read_bytes().splitlines(keepends=True)
    parts = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    parts[0].write_bytes(b"".join(lines[:900]))
    parts[1].write_bytes(b"".join(lines[900:]))
    pd.testing.assert_frame_equal(classifier.read_log(parts), classifier.read_log(made.log))


def test_scores_are_those_of_the_command_line_and_join_to_the_log(made: Made, detector: classifier.Detector) -> None:
    expected = pa.concat_tables(part.results for part in Model.load(str(made.bundle)).scored([read_log([made.log])]))
    expected = expected.sort_by("row")
    events = classifier.read_log(made.log)
    events.index = pd.Index(np.arange(len(events))[::-1], name="mine")
    scores = detector.score(events)
    assert scores.index.equals(events.index)
    assert scores["client"].equals(events["client"])
    for name in ("raw", "probability", "score", "decision", "reasons"):
        found = [None if pd.isna(value) else value for value in scores[name]]
        assert found == expected.column(name).to_pylist(), name
    assert (scores["time"] == events["time"]).all()
    per_client = detector.score(events, per="client")
    assert per_client["requests"].sum() == len(events)


def test_part_of_a_log_is_a_log(made: Made, detector: classifier.Detector) -> None:
    events = classifier.read_log(made.log)
    some = events[events["client"].isin(events["client"].unique()[:20])]
    assert detector.score(some).index.equals(some.index)
    assert classifier.features_of(some)[list(NAMES)].shape == (len(some), len(NAMES))


def test_an_explanation_adds_up_and_shows_the_clients_requests(made: Made, detector: classifier.Detector) -> None:
    events = classifier.read_log(made.log)
    worst = detector.score(events, per="client").iloc[0]
    found = detector.explain(worst["client"], events)
    assert len(found.requests) == worst["requests"] == (events["client"] == worst["client"]).sum()
    top = found.requests.set_index("row").loc[found.worst]
    assert found.contributions["log_odds"].sum() + found.bias == pytest.approx(top["raw"], abs=1e-6)
    assert found.reasons.sum() == pytest.approx(found.contributions["log_odds"].sum())
    assert top["reasons"].split()[0] == found.reasons.index[0]
    assert found.contributions["below"].dropna().between(0, 1).all()
    assert str(found).startswith(worst["client"])
    with pytest.raises(InputError, match="has no client nobody"):
        detector.explain("nobody", events)


def test_an_evaluation_has_tables(made: Made, detector: classifier.Detector) -> None:
    evaluation = detector.evaluate(made.log, resamples=10)
    groups = evaluation.groups
    assert groups.loc[("attack", "all"), "requests"] == evaluation.metrics["groups"][0]["requests"]
    assert (groups["acted_on_high"].fillna(1.0) >= groups["acted_on"]).all()
    assert set(evaluation.ranking.index.get_level_values("unit")) == {"request", "client"}
    assert list(evaluation.calibration.columns) == ["predicted", "observed", "low", "high", "requests"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda frame: frame.drop(columns="ip"), "lacks ip"),
        (lambda frame: frame.assign(status="teapot"), "holds no events"),
        (lambda frame: frame.assign(time=pd.NaT), "lacks time"),
    ],
)
def test_a_data_frame_that_is_no_log_is_refused(made: Made, change: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        classifier.features_of(change(classifier.read_log(made.log)))


def test_a_frame_without_optional_fields_is_a_log(made: Made) -> None:
    frame = classifier.read_log(made.log)[["time", "ip", "method", "path"]]
    table = api._table_of(frame)
    assert table.schema == EVENT_SCHEMA
    assert table.column("status").null_count == len(frame)
