"""Probabilities mean what they say, at the prior that is stated."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifier.errors import InputError
from classifier.model.calibrate import fit_platt


def logistic_sample(n: int, a: float, b: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Raw scores whose true probability of attack is sigmoid(a · raw + b)."""
    rng = np.random.default_rng(seed)
    raw = rng.normal(0, 2, n).astype(np.float32)
    return raw, rng.random(n) < 1 / (1 + np.exp(-(a * raw + b)))


def test_the_true_map_is_found_when_the_prior_is_the_samples_own() -> None:
    raw, malicious = logistic_sample(100_000, 1.5, -2.0)
    fitted = fit_platt(raw, malicious, float(malicious.mean()))
    assert fitted.a == pytest.approx(1.5, rel=0.03)
    assert fitted.b == pytest.approx(-2.0, rel=0.03)
    assert fitted.note is None


def test_scikit_learn_finds_the_same_minimum() -> None:
    from sklearn.linear_model import LogisticRegression

    raw, malicious = logistic_sample(50_000, 0.7, -1.0, seed=5)
    weight = np.where(malicious, 0.02 / malicious.sum(), 0.98 / (~malicious).sum()) * len(raw)
    peer = LogisticRegression(C=np.inf, tol=1e-10).fit(raw[:, None], malicious, sample_weight=weight)
    fitted = fit_platt(raw, malicious, 0.02)
    assert fitted.a == pytest.approx(peer.coef_[0, 0], rel=5e-3)
    assert fitted.b == pytest.approx(peer.intercept_[0], rel=5e-3)


@pytest.mark.parametrize("prior", [0.001, 0.01, 0.3])
def test_the_mean_probability_at_the_prior_is_the_prior(prior: float) -> None:
    raw, malicious = logistic_sample(40_000, 1.0, 0.0)
    p = fit_platt(raw, malicious, prior).probability(raw)
    assert prior * p[malicious].mean() + (1 - prior) * p[~malicious].mean() == pytest.approx(prior, rel=0.02)


@pytest.mark.parametrize("rows", [2, 20, 2_000])
def test_separated_classes_give_finite_and_modest_probabilities(rows: int) -> None:
    raw = np.repeat(np.array([-3, 4], np.float32), rows)
    fitted = fit_platt(raw, raw > 0, 0.01)
    low, high = fitted.probability(np.array([-3, 4], np.float32))
    assert 0 < low < 0.01 < high < 1
    odds = high / (1 - high) / (0.01 / 0.99)
    assert odds == pytest.approx(rows + 1, rel=0.01)  # the rule of succession, and no surer


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-3, 1.0, 1e4]), st.floats(0.001, 0.9))
def test_the_order_of_scores_is_always_kept(seed: int, scale: float, prior: float) -> None:
    rng = np.random.default_rng(seed)
    raw = (rng.standard_normal(60) * scale + rng.normal() * scale).astype(np.float32)
    malicious = rng.random(60) < 0.4
    malicious[:2] = [True, False]
    fitted = fit_platt(raw, malicious, prior)
    assert fitted.a > 0
    assert np.isfinite(fitted.b)
    assert (np.diff(fitted.probability(np.sort(raw))) >= 0).all()
    assert fitted == fit_platt(raw, malicious, prior)


@pytest.mark.parametrize("raw", [np.array([1, 2, -1, -2], np.float32), np.full(4, 7.0, np.float32)])
def test_scores_that_say_nothing_give_the_prior_and_a_note(raw: np.ndarray) -> None:
    fitted = fit_platt(raw, np.array([False, False, True, True]), 0.05)
    assert fitted.a > 0
    assert fitted.note is not None
    np.testing.assert_allclose(fitted.probability(raw), 0.05, rtol=0.01)


def test_a_client_weighed_down_counts_as_little_as_one_with_few_rows() -> None:
    raw, malicious = logistic_sample(5_000, 1.0, -1.0)
    loud = np.zeros(20_000, np.float32) + 5
    both = np.concatenate([raw, loud]), np.concatenate([malicious, np.zeros(20_000, bool)])
    weights = np.concatenate([np.ones(5_000), np.full(20_000, 1e-9)])
    assert fit_platt(*both, 0.1, weights).a == pytest.approx(fit_platt(raw, malicious, 0.1).a, rel=1e-3)


def test_a_and_b_are_float32_values() -> None:
    fitted = fit_platt(*logistic_sample(1_000, 1.0, -1.0))
    assert (fitted.a, fitted.b) == (float(np.float32(fitted.a)), float(np.float32(fitted.b)))


@pytest.mark.parametrize(("label", "missing"), [(True, "legitimate"), (False, "malicious")])
def test_one_class_is_refused_with_advice(label: bool, missing: str) -> None:
    with pytest.raises(InputError, match=f"holds no {missing} one: give a longer log"):
        fit_platt(np.arange(5, dtype=np.float32), np.full(5, label))


@pytest.mark.parametrize("prior", [0.0, 1.0, -0.1, float("nan")])
def test_an_impossible_prior_is_refused(prior: float) -> None:
    with pytest.raises(InputError, match="prior"):
        fit_platt(*logistic_sample(100, 1.0, 0.0), prior)


def test_a_score_that_is_not_finite_is_refused() -> None:
    with pytest.raises(InputError, match="not finite"):
        fit_platt(np.array([0, np.nan], np.float32), np.array([True, False]))
