"""The graph is the LightGBM model: every leaf, every bit of the raw score, and no graph at all where it is not."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from classifier.errors import ExportError
from classifier.model import ranked, rounding
from classifier.model.adversarial import adversarial_rows, node_rows, reachable_splits
from classifier.model.boosters import Boosters
from classifier.model.export import export_model, to_onnx
from classifier.model.forest import Forest
from classifier.model.proof import leaf_graph, verify
from classifier.model.rounding import round_clip
from classifier.model.scorer import Kind, Scorer, cpu_session
from tests.forests import CASES, KINDS, OWN_COLUMNS, WIDTH, model, train

CALIBRATION = (1.3, -2.5)
BATCHES = (1, 2, 3, 5, 31, 64, 257, 1024, 4096, 10_000)


def clip_of(bits: int) -> float:
    return round_clip(0.4, bits)


def graph(kind: str, seed: int) -> tuple[Boosters, onnx.ModelProto, npt.NDArray[np.float32]]:
    boosters, rows, bits = model(kind, seed)
    return boosters, to_onnx(boosters.forest(WIDTH), CALIBRATION, clip_of(bits)), rows


def lightgbm_leaves(boosters: Boosters, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Leaf numbers straight from the boosters, without any code of ours but the choice of columns."""
    parts = []
    if boosters.own is not None:
        parts.append(boosters.own.predict(np.ascontiguousarray(rows[:, OWN_COLUMNS]), pred_leaf=True))
    if boosters.group is not None:
        parts.append(boosters.group.predict(rows, pred_leaf=True))
    return np.hstack([part.reshape(len(rows), -1) for part in parts]).astype(np.int64)


def lightgbm_raw(boosters: Boosters, rows: npt.NDArray[np.float32], clip: float) -> npt.NDArray[np.float64]:
    raw = np.zeros(len(rows))
    if boosters.own is not None:
        raw += boosters.own.predict(np.ascontiguousarray(rows[:, OWN_COLUMNS]), raw_score=True)
    if boosters.group is not None:
        raw += np.clip(boosters.group.predict(rows, raw_score=True), -clip, clip)
    return raw


@pytest.mark.parametrize(("kind", "seed"), CASES)
def test_every_row_reaches_lightgbms_leaf_in_every_tree(kind: str, seed: int) -> None:
    boosters, built, natural = graph(kind, seed)
    rows = np.vstack([natural, adversarial_rows(boosters.forest(WIDTH), natural)])
    leaves = cpu_session(leaf_graph(built).SerializeToString(), threads=1).run(["leaves"], {"features": rows})[0]
    np.testing.assert_array_equal(leaves.astype(np.int64), lightgbm_leaves(boosters, rows))


@pytest.mark.parametrize(("kind", "seed"), CASES)
def test_raw_scores_are_lightgbms_bit_for_bit_in_any_batch_on_any_threads(kind: str, seed: int, tmp_path: Path) -> None:
    boosters, built, natural = graph(kind, seed)
    clip = clip_of(model(kind, seed)[2])
    adversarial = adversarial_rows(boosters.forest(WIDTH), natural)
    rows = np.resize(np.vstack([natural[::3], adversarial[:: 1 + len(adversarial) // 4000]]), (10_000, WIDTH))
    exact = lightgbm_raw(boosters, rows, clip)
    expected = exact.astype(np.float32)
    np.testing.assert_array_equal(expected.astype(np.float64), exact)
    (tmp_path / "model.onnx").write_bytes(built.SerializeToString())
    whole = Scorer(tmp_path / "model.onnx", threads=1, engine="compiled").score(rows)[1].tobytes()
    for engine, threads in product(get_args(Kind), (1, 2)):
        scorer = Scorer(tmp_path / "model.onnx", threads=threads, engine=engine)
        for batch in BATCHES:
            # Small batches over the first rows only: a call for each of 10,000 rows would say no more.
            upto = min(len(rows), 300 * batch)
            scored = [scorer.score(rows[start : start + batch]) for start in range(0, upto, batch)]
            raw = np.concatenate([raw for raw, _ in scored])
            assert raw.tobytes() == expected[:upto].tobytes(), (engine, threads, batch)
            probability = np.concatenate([probability for _, probability in scored])
            log_odds = CALIBRATION[0] * exact[:upto] + CALIBRATION[1]
            np.testing.assert_allclose(probability, 1 / (1 + np.exp(-log_odds)), rtol=0, atol=1e-6)
            if engine == "compiled":  # the very same probability, too, however the rows are cut
                assert probability.tobytes() == whole[: probability.nbytes], (threads, batch)


def test_forests_at_the_bounds_of_the_ranks_are_among_the_cases() -> None:
    """More thresholds of a feature than a byte ranks, and trees with more leaves than a byte numbers."""
    forest = model("many thresholds", 1)[0].forest(WIDTH)
    assert ranked.fits(forest)
    assert max(len(np.unique(forest.threshold[forest.feature == column])) for column in range(WIDTH)) > 255
    assert not ranked.fits(model("large trees", 1)[0].forest(WIDTH))


@pytest.mark.parametrize(("kind", "seed"), CASES)
def test_the_exporter_vouches_for_its_own_graphs(kind: str, seed: int) -> None:
    boosters, built, natural = graph(kind, seed)
    verification = verify(boosters, built, natural[:500])
    assert verification.splits_reached == verification.splits
    assert verification.rows >= 500 + 6 * verification.splits


def test_what_is_exported_is_what_was_proved() -> None:
    boosters, natural, bits = model("zeros", 1)
    built = export_model(boosters, CALIBRATION, clip_of(bits), natural[:500], WIDTH)
    assert Forest.from_onnx(built.model).equals(built.forest)
    assert set(built.files()) == {"model.onnx", "model.cuda.onnx"}


def nearest(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    with np.errstate(all="ignore"):
        return values.astype(np.float32)


@pytest.mark.parametrize("kind", ["neighbouring floats", "no nan in training", "nan in training", "deep"])
def test_thresholds_rounded_to_nearest_are_refused(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    boosters, natural, bits = model(kind, 1)
    monkeypatch.setattr(rounding, "floor32", nearest)
    with pytest.raises(ExportError, match=r"to leaf \d+ of tree \d+ where LightGBM takes leaf \d+ \(feature"):
        export_model(boosters, CALIBRATION, clip_of(bits), natural[:50], WIDTH)


def attribute(built: onnx.ModelProto, name: str) -> onnx.AttributeProto:
    return next(part for part in built.graph.node[0].attribute if part.name == name)


def raise_threshold(built: onnx.ModelProto, node: int) -> None:
    values = attribute(built, "nodes_values").floats
    values[node] = float(np.nextafter(np.float32(values[node]), np.float32(np.inf)))


def lower_threshold(built: onnx.ModelProto, node: int) -> None:
    values = attribute(built, "nodes_values").floats
    values[node] = float(np.nextafter(np.float32(values[node]), np.float32(-np.inf)))


def turn_nan(built: onnx.ModelProto, node: int) -> None:
    flags = attribute(built, "nodes_missing_value_tracks_true").ints
    flags[node] = 1 - flags[node]


def swap_children(built: onnx.ModelProto, node: int) -> None:
    left, right = attribute(built, "nodes_truenodeids").ints, attribute(built, "nodes_falsenodeids").ints
    left[node], right[node] = right[node], left[node]


def read_another_column(built: onnx.ModelProto, node: int) -> None:
    columns = attribute(built, "nodes_featureids").ints
    columns[node] = (columns[node] + 1) % WIDTH


@pytest.mark.parametrize("damage", [raise_threshold, lower_threshold, turn_nan, swap_children, read_another_column])
@pytest.mark.parametrize("kind", ["nan in training", "zeros", "random thresholds"])
def test_one_damaged_split_anywhere_is_found(kind: str, damage: Callable[[onnx.ModelProto, int], None]) -> None:
    boosters, built, natural = graph(kind, 1)
    splits = np.flatnonzero(boosters.forest(WIDTH).leaf < 0)
    for node in splits[:: max(1, len(splits) // 6)]:
        damaged = onnx.ModelProto()
        damaged.CopyFrom(built)
        damage(damaged, int(node))
        with pytest.raises(ExportError, match="no graph is written"):
            verify(boosters, damaged, natural[:20])


def test_a_changed_leaf_or_limit_is_found() -> None:
    boosters, built, natural = graph("nan in training", 1)
    forest = boosters.forest(WIDTH)
    step = float(np.ldexp(1.0, -model("nan in training", 1)[2]))
    attribute(built, "target_weights").floats[0] += step
    with pytest.raises(ExportError, match="raw score"):
        verify(boosters, built, natural)
    off_grid = to_onnx(forest, CALIBRATION, 0.1 + step / 3)
    with pytest.raises(ExportError, match="one grid"):
        verify(boosters, off_grid, natural)


def test_wrong_columns_for_the_own_part_are_found() -> None:
    boosters, natural, bits = model("no nan in training", 1)
    built = to_onnx(Boosters(boosters.own, (0, 1, 2, 3, 4), boosters.group).forest(WIDTH), CALIBRATION, clip_of(bits))
    with pytest.raises(ExportError, match="where LightGBM takes leaf"):
        verify(boosters, built, natural[:100])


def test_unrounded_leaves_are_refused() -> None:
    boosters, natural = train("no nan in training", 1)
    with pytest.raises(ExportError, match="call round_leaves first"):
        export_model(boosters, CALIBRATION, np.inf, natural, WIDTH)


@pytest.mark.parametrize(
    ("calibration", "clip"), [((0.0, 0.0), 1.0), ((-1.0, 0.0), 1.0), ((np.nan, 0.0), 1.0), ((1.0, 0.0), -1.0)]
)
def test_a_slope_or_limit_that_turns_scores_around_is_refused(calibration: tuple[float, float], clip: float) -> None:
    boosters, _, _ = model("stumps", 1)
    with pytest.raises(ExportError):
        to_onnx(boosters.forest(WIDTH), calibration, clip)


@pytest.mark.parametrize("kind", KINDS)
def test_adversarial_rows_reach_the_splits_they_are_made_for(kind: str) -> None:
    boosters, natural, _ = model(kind, 1)
    forest = boosters.forest(WIDTH)
    splits, _, _ = reachable_splits(forest)
    assert len(splits) == (forest.leaf < 0).sum()
    # The first block has a row for each split, before any value is put into the split's own column.
    reaching = next(iter(node_rows(forest, natural)), natural[:0])
    for row, split in zip(reaching, splits, strict=True):
        assert split in path(forest, row, int(forest.roots[forest.tree_of_node[split]]))


def path(forest: Forest, row: npt.NDArray[np.float32], node: int) -> list[int]:
    """Walk one tree the slow way."""
    nodes = []
    while forest.leaf[node] < 0:
        nodes.append(node)
        value = row[forest.feature[node]]
        left = bool(forest.nan_left[node]) if np.isnan(value) else bool(value <= forest.threshold[node])
        node = int(forest.left[node] if left else forest.right[node])
    return nodes
