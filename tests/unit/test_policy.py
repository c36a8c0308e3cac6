"""What a request is answered, and which thresholds keep the budgets."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier.errors import InputError
from classifier.policy import (
    Budgets,
    Circumstances,
    Decision,
    LegitimateCurve,
    Policy,
    Thresholds,
    decide,
    decide_batch,
    legitimate_curve,
    thresholds_from_budgets,
    thresholds_from_curve,
    unresolved,
)

raw_scores = st.floats(width=32, allow_nan=False)
probabilities = st.floats(0, 1)
thresholds = st.tuples(raw_scores, raw_scores).map(lambda pair: Thresholds(min(pair), max(pair)))


def test_a_threshold_belongs_to_the_stricter_side() -> None:
    limits = Thresholds(1.0, 2.0)
    assert [decide(raw, 0.5, limits).decision for raw in (np.nextafter(np.float32(1), 0), 1.0, 1.5, 2.0)] == [
        "allow",
        "challenge",
        "challenge",
        "block",
    ]


@pytest.mark.parametrize(("probability", "score"), [(0.0, 99), (0.005, 99), (0.25, 75), (0.999, 1), (1.0, 1)])
def test_the_score_falls_from_99_to_1_as_the_probability_rises(probability: float, score: int) -> None:
    assert decide(0.0, probability, Thresholds(1.0, 2.0)) == Decision("allow", score)


def test_without_thresholds_nothing_is_done() -> None:
    never = Thresholds(math.inf, math.inf)
    assert decide(3.4e38, 1.0, never).decision == "allow"


@given(st.lists(st.tuples(raw_scores, probabilities), max_size=30), thresholds)
def test_a_batch_is_decided_as_each_request_alone(rows: list[tuple[float, float]], limits: Thresholds) -> None:
    raw = np.array([row[0] for row in rows] + [limits.challenge, limits.block], np.float32)
    p = np.array([row[1] for row in rows] + [0.0, 1.0])
    batch = decide_batch(raw, p, limits)
    alone = [decide(r, q, limits) for r, q in zip(raw.tolist(), p.tolist(), strict=True)]
    assert [Decision(v, s) for v, s in zip(batch.verdicts(), batch.scores.tolist(), strict=True)] == alone


@given(st.lists(st.floats(0, 1, width=32), max_size=30))
def test_float32_probabilities_give_the_same_score_alone_and_in_a_batch(values: list[float]) -> None:
    p = np.array(values, np.float32)
    batch = decide_batch(np.zeros(len(p), np.float32), p, Thresholds(1.0, 2.0))
    assert batch.scores.tolist() == [decide(0.0, q, Thresholds(1.0, 2.0)).score for q in p]


@pytest.mark.parametrize(("raw", "probability"), [(math.nan, 0.5), (0.0, math.nan), (0.0, 1.5), (0.0, -0.1)])
def test_a_failed_score_is_not_decided(raw: float, probability: float) -> None:
    with pytest.raises(ValueError, match="scoring failed"):
        decide(raw, probability, Thresholds(1.0, 2.0))
    with pytest.raises(ValueError, match="scoring failed"):
        decide_batch(np.array([raw], np.float32), np.array([probability]), Thresholds(1.0, 2.0))


def test_a_batch_of_float64_scores_is_refused() -> None:
    with pytest.raises(TypeError, match="float32"):
        decide_batch(np.zeros(1), np.zeros(1), Thresholds(1.0, 2.0))  # type: ignore[arg-type]


@pytest.mark.parametrize(("challenge", "block"), [(0.1, 0.2), (2.0, 1.0), (math.nan, 1.0)])
def test_thresholds_are_float32_and_in_order(challenge: float, block: float) -> None:
    with pytest.raises(ValueError, match="threshold"):
        Thresholds(challenge, block)


@pytest.mark.parametrize(("challenge", "block"), [(0.001, 0.002), (1.0, 0.5), (0.1, -0.1), (math.nan, 0.0)])
def test_impossible_budgets_are_refused(challenge: float, block: float) -> None:
    with pytest.raises(InputError, match="budgets must satisfy"):
        Budgets(challenge, block)


@pytest.mark.parametrize("limits", [Thresholds(0.5, math.inf, ("why",)), Thresholds(math.inf, math.inf)])
def test_thresholds_come_back_from_json(limits: Thresholds) -> None:
    assert Thresholds.from_json(json.loads(json.dumps(limits.as_json(), allow_nan=False))) == limits


@st.composite
def legitimate_scores(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Scores with many ties, of a few clients of very different size."""
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    n = draw(st.integers(1, 3000))
    steps = draw(st.sampled_from([3, 50, 100_000]))
    clients = draw(st.sampled_from([1, 3, 40, 3000]))
    raw = (np.round(rng.standard_normal(n) * steps) / steps).astype(np.float32)
    return raw, np.minimum(rng.geometric(min(1.0, 3 / clients), n), clients)


def shares(raw: np.ndarray, clients: np.ndarray, threshold: float) -> tuple[float, float]:
    """The two shares, by their definition."""
    over = raw >= np.float32(threshold)
    return float(over.mean()), float(np.mean([over[clients == c].mean() for c in np.unique(clients)]))


@given(legitimate_scores(), st.sampled_from([0.5, 0.1, 0.037, 0.01]))
def test_both_shares_are_within_the_budget_and_a_lower_threshold_would_break_one(
    scores: tuple[np.ndarray, np.ndarray], budget: float
) -> None:
    raw, clients = scores
    limits = thresholds_from_budgets(raw, clients, Budgets(budget, 0))
    if unresolved(len(raw), budget):
        assert limits.challenge == math.inf
        return
    assert max(shares(raw, clients, limits.challenge)) <= budget + 1e-9
    lower = raw[raw < np.float32(limits.challenge)]
    assert max(shares(raw, clients, lower.max())) > budget
    assert limits.block == math.inf


@given(legitimate_scores(), st.floats(0.001, 0.9))
def test_any_budget_read_from_the_curve_is_kept(scores: tuple[np.ndarray, np.ndarray], budget: float) -> None:
    raw, clients = scores
    curve = legitimate_curve(raw, clients)
    threshold = curve.threshold(budget)
    true = shares(raw, clients, threshold)
    assert max(true) <= budget + 1e-9
    np.testing.assert_allclose(curve.shares(threshold), true, atol=1e-9)
    assert curve.shares(-math.inf) == pytest.approx((1.0, 1.0))


def test_the_curve_is_small_and_comes_back_from_json() -> None:
    rng = np.random.default_rng(3)
    raw, clients = rng.standard_normal(200_000).astype(np.float32), rng.integers(0, 500, 200_000)
    curve = legitimate_curve(raw, clients)
    assert len(curve.raw) < 450
    assert (curve.rows, curve.clients, curve.rows_beyond[0]) == (200_000, 500, 200_000)
    assert LegitimateCurve.from_json(json.loads(json.dumps(curve.as_json(), allow_nan=False))) == curve


def test_a_row_that_stands_for_several_requests_counts_as_often() -> None:
    """Of busy clients training keeps some requests only: the budget is a share of all."""
    rng = np.random.default_rng(8)
    raw, clients = rng.standard_normal(20_000).astype(np.float32), rng.integers(0, 300, 20_000)
    weight = np.where(clients < 3, 50.0, 1.0)
    often = np.repeat(np.arange(20_000), weight.astype(int))
    for budget in (0.001, 0.01, 0.2):
        thin = legitimate_curve(raw, clients, Budgets(budget, 0), weight)
        whole = legitimate_curve(raw[often], clients[often], Budgets(budget, 0))
        assert thin.threshold(budget) == pytest.approx(whole.threshold(budget), abs=1e-9)
        np.testing.assert_allclose(thin.shares(thin.threshold(budget)), whole.shares(thin.threshold(budget)), atol=1e-4)
        assert thin.rows == 20_000  # what can be resolved is what was seen


@pytest.mark.parametrize("budget", [0.0001, 0.001, 0.002])
def test_nothing_is_blocked_below_the_least_that_a_block_takes(budget: float) -> None:
    raw = np.linspace(0, 1, 200_000, dtype=np.float32)
    curve = legitimate_curve(raw, np.arange(200_000))
    higher = replace(curve, least_block=1.5)
    assert LegitimateCurve.from_json(json.loads(json.dumps(higher.as_json(), allow_nan=False))) == higher
    free, held = (thresholds_from_curve(one, Budgets(0.002, budget)) for one in (curve, higher))
    assert (held.challenge, held.block) == (free.challenge, 1.5)
    assert thresholds_from_curve(replace(curve, least_block=0.5), Budgets(0.002, budget)) == free
    assert "state it to have it so" in held.notes[0]
    assert thresholds_from_curve(higher, Budgets(0.002, budget), strict=("block",)) == free
    assert thresholds_from_curve(higher, Budgets(0.002, 0)).block == math.inf


@pytest.mark.parametrize("budgets", [Budgets(), Budgets(0.03, 0.0007), Budgets(0.00123, 0.00123)])
def test_the_curve_of_the_manifest_gives_the_thresholds_of_the_bundle(budgets: Budgets) -> None:
    rng = np.random.default_rng(4)
    raw, clients = rng.standard_normal(150_000).astype(np.float32), rng.zipf(1.5, 150_000)
    chosen = thresholds_from_budgets(raw, clients, budgets)
    assert thresholds_from_curve(legitimate_curve(raw, clients, budgets), budgets) == chosen
    assert chosen.notes == ()


def test_a_loud_client_does_not_hide_the_small_ones() -> None:
    """99,000 quiet requests of one client would leave room for every request of the hundred small clients."""
    raw = np.concatenate([np.zeros(99_000), np.ones(100)]).astype(np.float32)
    clients = np.concatenate([np.zeros(99_000), np.arange(1, 101)]).astype(int)
    assert float((raw >= 1).mean()) < 0.002
    assert thresholds_from_budgets(raw, clients, Budgets(0.002, 0)).challenge > 1.0


def test_a_default_budget_the_data_cannot_resolve_turns_the_action_off_and_says_so() -> None:
    raw = np.linspace(0, 1, 20_000, dtype=np.float32)
    limits = thresholds_from_budgets(raw, np.arange(20_000), Budgets())
    assert limits.challenge < 1.0
    assert limits.block == math.inf
    (note,) = limits.notes
    assert note.startswith("Nothing is blocked: the block budget of 0.01 % needs at least 100,000 legitimate requests")
    assert "or a budget of at least 0.05 %" in note


def test_a_budget_the_user_gave_is_refused_with_the_size_it_needs() -> None:
    raw = np.zeros(999, np.float32)
    with pytest.raises(InputError, match=r"challenge budget of 0\.2 % needs at least 5,000 .* there are 999"):
        thresholds_from_budgets(raw, np.arange(999), Budgets(), strict=("challenge",))
    with pytest.raises(InputError, match="block budget of 1 % needs at least 1,000"):
        thresholds_from_budgets(raw, np.arange(999), Budgets(0.02, 0.01), strict=("block",))


@pytest.mark.parametrize(("rows", "share"), [(5_000, 0.002), (100_000, 0.0001), (1_000, 0.01), (30, 1 / 3)])
def test_ten_rows_beyond_are_enough(rows: int, share: float) -> None:
    assert unresolved(rows, share) is None
    assert unresolved(rows - 1, share) is not None


def test_no_legitimate_rows_is_an_error_with_advice() -> None:
    with pytest.raises(InputError, match="no legitimate requests"):
        legitimate_curve(np.zeros(0, np.float32), np.zeros(0))


# --- live requests ------------------------------------------------------------------------------------------------------

CURVE = legitimate_curve(np.arange(20_000, dtype=np.float32), np.arange(20_000))
LIVE = Policy(Thresholds(19_960.0, 19_998.0), budget=0.002, curve=CURVE)
circumstances = st.builds(
    Circumstances, st.sampled_from([None, "allow", "deny"]), st.booleans(), st.booleans(), st.floats(0, 1),
    st.floats(1e-6, 1e6),
)  # fmt: skip
SEVERITY = {"allow": 0, "challenge": 1, "block": 2}


@given(st.integers(0, 20_100), st.floats(0, 1))
def test_in_calm_a_live_request_is_decided_as_in_a_log(raw: int, probability: float) -> None:
    assert LIVE.decide(raw, probability) == (decide(raw, probability, LIVE.calm), ())


@given(st.integers(0, 20_100), circumstances)
def test_lists_win_and_say_so(raw: int, about: Circumstances) -> None:
    decision, why = LIVE.decide(raw, 0.5, about)
    if about.listed == "allow":
        assert (decision.decision, why) == ("allow", ("allow_list",))
    elif about.listed == "deny":
        assert (decision.decision, why) == ("block", ("deny_list",))
    else:
        assert not {"allow_list", "deny_list"} & set(why)


@given(st.integers(0, 20_100), st.floats(0, 1), st.floats(0, 1), st.floats(1e-3, 1e3), st.floats(1, 1e3))
def test_more_load_and_more_cost_are_never_milder(
    raw: int, load: float, more: float, cost: float, times: float
) -> None:
    def severity(**about: Any) -> int:
        return SEVERITY[LIVE.decide(raw, 0.5, Circumstances(**about))[0].decision]

    calm = severity()
    assert calm <= severity(load=min(load, more), cost=cost) <= severity(load=max(load, more), cost=cost * times)
    assert severity(known=True, load=load, cost=cost) == calm, "known clients keep their thresholds"
    assert severity(load=load, cost=cost) < 2 or calm == 2, "load alone blocks nobody"


def test_at_equal_probability_the_request_of_a_hundredfold_cost_is_limited_first() -> None:
    def first_load(cost: float) -> float:
        return next(
            load for load in np.linspace(0, 1, 201) if LIVE.decide(19_800, 0.5, Circumstances(load=load, cost=cost))[1]
        )

    assert 0.7 < first_load(100.0) < first_load(1.0) <= 1.0
    assert first_load(0.01) > first_load(1.0)
    assert not LIVE.decide(19_000, 0.5, Circumstances(load=1.0, cost=0.01))[1], "goes half of the way at most"
    assert LIVE.decide(19_000, 0.5, Circumstances(load=1.0, cost=1.0))[1] == ("load",)


@given(st.integers(0, 19_959), st.floats(0, 1), st.lists(st.floats(1e-4, 1e4), min_size=1, max_size=5))
def test_a_what_if_finds_the_thresholds_of_a_service(raw: int, load: float, costs: list[float]) -> None:
    marks, pressure = LIVE.widened(), LIVE.pressure
    assert marks[0] == LIVE.calm.challenge
    assert (np.diff(marks) <= 0).all()
    over = max((load - pressure.begins) / (1.0 - pressure.begins), 0.0)
    for cost, weight in zip(costs, pressure.weights(np.array(costs)).tolist(), strict=True):
        mark = marks[round((len(marks) - 1) * min(over * weight, 1.0))]
        challenged = LIVE.decide(raw, 0.5, Circumstances(load=load, cost=cost))[0].decision == "challenge"
        assert challenged == (over > 0 and raw >= mark)


def test_registration_has_thresholds_of_its_own() -> None:
    policy = Policy(Thresholds(10.0, 20.0), registration=Thresholds(5.0, 20.0))
    assert policy.decide(7.0, 0.5)[0].decision == "allow"
    assert policy.decide(7.0, 0.5, Circumstances(registration=True)) == (Decision("challenge", 50), ("registration",))
    assert policy.decide(25.0, 0.5, Circumstances(registration=True)) == (Decision("block", 50), ())
    milder = Policy(Thresholds(10.0, 20.0), registration=Thresholds(15.0, 90.0))
    assert milder.decide(25.0, 0.5, Circumstances(registration=True)) == (Decision("challenge", 50), ())


def test_a_budget_of_nothing_stays_nothing_under_load() -> None:
    policy = Policy(Thresholds(math.inf, math.inf), budget=0.0, curve=CURVE)
    assert policy.decide(1e9, 0.5, Circumstances(load=1.0, cost=1e6))[0].decision == "allow"
