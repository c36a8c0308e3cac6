"""Scoring with a bundle: what engines are given, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from classifier.errors import BundleError, InputError
from classifier.model.bundle import Bundle, load_bundle, write_bundle
from classifier.model.export import to_onnx
from classifier.model.scorer import Scorer
from tests.forests import WIDTH, model
from tests.unit.test_bundle import manifest

NAMES = tuple(f"feature_{column}" for column in range(WIDTH))


@pytest.fixture
def served(tmp_path: Path) -> Bundle:
    graph = to_onnx(model("nan in training", 1)[0].forest(WIDTH), (1.25, -3.5), np.inf)
    return write_bundle(tmp_path / "bundle", manifest(features=NAMES), {"model.onnx": graph.SerializeToString()})


def test_a_bundle_its_folder_and_its_graph_score_alike(served: Bundle) -> None:
    boosters, rows, _ = model("nan in training", 1)
    expected = boosters.raw(rows).astype(np.float32)
    for source in (served, load_bundle(served.path), served.path, str(served.path), served.path / "model.onnx"):
        raw, probability = Scorer(source).score(rows)
        assert raw.dtype == probability.dtype == np.float32
        assert raw.shape == probability.shape == (len(rows),)
        np.testing.assert_array_equal(raw, expected)


def test_auto_runs_on_the_cpu_and_says_so(served: Bundle) -> None:
    assert Scorer(served, device="auto", threads=2).providers == ("CPUCompiledForest",)
    assert Scorer(served, engine="onnxruntime").providers == ("CPUExecutionProvider",)


def test_no_rows_get_no_scores(served: Bundle) -> None:
    raw, probability = Scorer(served).score(np.empty((0, WIDTH), np.float32))
    assert len(raw) == len(probability) == 0


def test_columns_of_a_larger_matrix_are_scored(served: Bundle) -> None:
    rows = model("nan in training", 1)[1]
    wide = np.asfortranarray(np.hstack([rows, rows]))
    np.testing.assert_array_equal(Scorer(served).score(wide[:, :WIDTH])[0], Scorer(served).score(rows)[0])


@pytest.mark.parametrize(
    "rows", [np.zeros((3, WIDTH)), np.zeros((3, WIDTH + 1), np.float32), np.zeros(WIDTH, np.float32)]
)
def test_rows_of_another_kind_are_refused(served: Bundle, rows: np.ndarray) -> None:  # type: ignore[type-arg]
    with pytest.raises(InputError, match=rf"takes float32 of shape \(n, {WIDTH}\)"):
        Scorer(served).score(rows)


def test_devices_that_cannot_run_it_are_refused(served: Bundle) -> None:
    with pytest.raises(InputError, match="use --device cpu"):
        Scorer(served, device="cuda")
    with pytest.raises(InputError, match="unknown device"):
        Scorer(served, device="tpu")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="threads"):
        Scorer(served, threads=0)


def test_graphs_that_are_none_are_refused(tmp_path: Path, served: Bundle) -> None:
    (tmp_path / "junk.onnx").write_bytes(b"not a graph")
    for missing_or_junk in ("junk.onnx", "missing.onnx"):
        with pytest.raises(BundleError) as caught:
            Scorer(tmp_path / missing_or_junk)
        assert "\n" not in str(caught.value)
    narrow = write_bundle(tmp_path / "narrow", manifest(features=NAMES[:3]), {"model.onnx": served.model})
    with pytest.raises(BundleError, match=f"takes {WIDTH} features but the manifest of .* names 3"):
        Scorer(narrow)
