"""Reasons: contributions add up to the raw score, and the reasons are the groups that push most."""

from __future__ import annotations

import lightgbm
import numpy as np
import pytest

from classifier.model.attribution import Explainer, contributions, expected_values, top_groups
from classifier.model.boosters import Boosters
from classifier.model.export import to_onnx
from classifier.model.forest import GROUP, LEAF, Forest
from tests.forests import BASE, CASES, KINDS, WIDTH, model

REASONS = ["rate", "burst", "rate", "tokens", "tokens", "timing", "burst", "paths", "paths", "paths"]


@pytest.mark.parametrize(("kind", "seed"), CASES)
@pytest.mark.parametrize("clip", [np.inf, 0.25])
def test_contributions_and_bias_add_up_to_the_raw_score(kind: str, seed: int, clip: float) -> None:
    boosters, rows, _ = model(kind, seed)
    credited, bias = contributions(boosters.forest(WIDTH), rows, clip)
    assert credited.shape == rows.shape
    np.testing.assert_allclose(credited.sum(axis=1) + bias, boosters.raw(rows, clip), rtol=0, atol=1e-9)
    explainer = Explainer(boosters.forest(WIDTH), REASONS, clip)
    by_group = np.stack(
        [credited[:, [reason == name for reason in REASONS]].sum(axis=1) for name in explainer.names], axis=1
    )
    np.testing.assert_allclose(explainer.reason_sums(rows), by_group, rtol=0, atol=1e-9)


def two_leaves(column: int, threshold: float, left: float, right: float, cover: tuple[int, int]) -> dict[str, list]:  # type: ignore[type-arg]
    """One split by hand, as columns of a forest."""
    return {
        "feature": [column, LEAF, LEAF], "threshold": [threshold, 0, 0], "left": [1, LEAF, LEAF],
        "right": [2, LEAF, LEAF], "nan_left": [False] * 3, "value": [0, left, right],
        "cover": [sum(cover), *cover], "leaf": [LEAF, 0, 1],
    }  # fmt: skip


def by_hand(*trees: dict[str, list], part: tuple[int, ...]) -> Forest:  # type: ignore[type-arg]
    types = {
        "feature": np.int32, "threshold": np.float32, "left": np.int32, "right": np.int32, "nan_left": np.bool_,
        "value": np.float32, "cover": np.float32, "leaf": np.int32,
    }  # fmt: skip
    arrays = {name: np.concatenate([np.array(tree[name], kind) for tree in trees]) for name, kind in types.items()}
    for child in ("left", "right"):
        offset = np.repeat(np.arange(len(trees), dtype=np.int32) * 3, 3)
        arrays[child] = np.where(arrays[child] >= 0, arrays[child] + offset, LEAF).astype(np.int32)
    roots = np.arange(len(trees), dtype=np.int32) * 3
    return Forest(**arrays, roots=roots, part=np.array(part, np.uint8), n_features=2)


def test_a_forest_by_hand() -> None:
    own = two_leaves(0, 0.0, left=-1.0, right=3.0, cover=(3, 1))
    group = two_leaves(1, 5.0, left=-2.0, right=2.0, cover=(1, 1))
    forest = by_hand(own, group, part=(0, 1))
    assert expected_values(forest)[forest.roots].tolist() == [0.0, 0.0]
    rows = np.array([[1, 9], [-1, 9], [np.nan, 1]], np.float32)
    assert contributions(forest, rows)[0].tolist() == [[3, 2], [-1, 2], [3, -2]]
    # The company somebody keeps counts for at most the limit.
    assert contributions(forest, rows, 0.5)[0].tolist() == [[3, 0.5], [-1, 0.5], [3, -0.5]]
    reasons = Explainer(forest, ["what you did", "company"]).reasons(rows)
    assert reasons == [("what you did", "company"), ("company",), ("what you did",)]


def test_a_bias_beyond_the_limit_turns_no_contribution_around() -> None:
    group = two_leaves(1, 5.0, left=4.0, right=8.0, cover=(1, 1))
    credited, bias = contributions(by_hand(group, part=(GROUP,)), np.array([[0, 9], [0, 1]], np.float32), 5.0)
    assert bias == 5.0
    assert credited.tolist() == [[0, 0], [0, -1]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_alone_gets_the_reasons_it_gets_in_a_batch(kind: str) -> None:
    boosters, rows, _ = model(kind, 2)
    explainer = Explainer(boosters.forest(WIDTH), REASONS, 0.5)
    together = explainer.reason_sums(rows[:100])
    alone = np.concatenate([explainer.reason_sums(rows[i : i + 1]) for i in range(100)])
    assert together.tobytes() == alone.tobytes()
    assert explainer.reasons(rows[:100]) == [explainer.reasons(rows[i : i + 1])[0] for i in range(100)]


def test_the_onnx_file_alone_gives_the_same_reasons() -> None:
    boosters, rows, _ = model("nan in training", 1)
    read_back = Forest.from_onnx(to_onnx(boosters.forest(WIDTH), (1.0, 0.0), 0.5))
    ours, theirs = (Explainer(forest, REASONS, 0.5) for forest in (boosters.forest(WIDTH), read_back))
    assert ours.reason_sums(rows).tobytes() == theirs.reason_sums(rows).tobytes()


def test_top_groups_are_positive_strongest_first_and_earlier_at_a_tie() -> None:
    rng = np.random.default_rng(0)
    sums = np.round(rng.standard_normal((500, 7)), 1)
    sums[0] = [0, -1, np.nan, 0, 0, 0, 0]
    found = top_groups(sums, 3)
    for row, places in zip(sums, found.tolist(), strict=True):
        expected = sorted((place for place in range(7) if row[place] > 0), key=lambda place: -row[place])[:3]
        assert places == expected + [-1] * (3 - len(expected))


def test_rows_of_another_kind_are_refused() -> None:
    explainer = Explainer(model("stumps", 1)[0].forest(WIDTH), REASONS)
    for wrong in (np.zeros((2, WIDTH)), np.zeros((2, WIDTH - 1), np.float32), np.zeros(WIDTH, np.float32)):
        with pytest.raises(ValueError, match="float32"):
            explainer.reasons(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="reason groups"):
        Explainer(model("stumps", 1)[0].forest(WIDTH), REASONS[:-1])


def test_the_top_reason_is_mostly_treeshaps() -> None:
    """TreeSHAP (Lundberg et al. 2018) is LightGBM's `pred_contrib` of both parts, summed by reason group."""
    boosters, rows = lookalike_traffic()
    shap = np.asarray(boosters.group.predict(rows, pred_contrib=True))[:, :-1]
    shap[:, boosters.own_columns] += boosters.own.predict(rows[:, boosters.own_columns], pred_contrib=True)[:, :-1]
    explainer = Explainer(boosters.forest(40), [f"group {column // 4}" for column in range(40)])
    theirs = shap.reshape(len(rows), len(explainer.names), 4).sum(axis=2)
    agreement = (top_groups(theirs, 1) == top_groups(explainer.reason_sums(rows), 1)).mean()
    print(f"top reason agrees with TreeSHAP on {agreement:.1%} of {len(rows)} rows")
    assert agreement > 0.75


def lookalike_traffic() -> tuple[Boosters, np.ndarray]:  # type: ignore[type-arg]
    """Ten groups of four features that say nearly the same (as rates at several half-lives do), three kinds of attack."""
    rng = np.random.default_rng(7)
    groups = rng.gamma(2.0, 1.0, (6000, 10))
    kind = np.where(rng.random(6000) < 0.15, rng.integers(0, 3, 6000), -1)
    for attack in range(3):
        groups[kind == attack, 2 * attack] += 4.0
        groups[kind == attack, 2 * attack + 1] += 2.0
    rows = (np.repeat(groups, 4, axis=1) * rng.lognormal(0, 0.25, (6000, 40))).astype(np.float32)
    own_columns = list(range(24))
    params = BASE | {"num_leaves": 31, "learning_rate": 0.05}
    own = lightgbm.train(params, lightgbm.Dataset(rows[:, own_columns], kind >= 0), 60)
    score = own.predict(rows[:, own_columns], raw_score=True)
    group = lightgbm.train(params, lightgbm.Dataset(rows, kind >= 0, init_score=score), 30)
    boosters = Boosters(own, own_columns, group)
    boosters.round_leaves()
    return boosters, rows[:1500]
