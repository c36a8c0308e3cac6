"""The limit on the group part: as low as it can be while it costs next to nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from classifier.model.group_limit import FEWEST_CLIENTS, LIMITS, TOLERANCE, fit_limit, least_block
from classifier.policy import Budgets, legitimate_curve, thresholds_from_curve


def scores(
    clients: int, needs_group: bool, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return (own, group, malicious, key, family) with one attacker for ten legitimate clients, two requests each."""
    rng = np.random.default_rng(seed)
    malicious = np.repeat(np.arange(clients) % 11 == 0, 2)
    own = rng.normal(0, 1, 2 * clients) + (0 if needs_group else 8) * malicious
    group = rng.normal(0, 0.2, 2 * clients) + (9 if needs_group else 0.5) * malicious
    return own, group, malicious, np.repeat(np.arange(clients, dtype=np.uint64), 2), np.where(malicious, "a", "person")


def test_where_the_own_part_is_enough_the_group_part_is_limited_to_the_least() -> None:
    assert fit_limit(*scores(3 * FEWEST_CLIENTS, needs_group=False)) == LIMITS[0]


def test_where_only_company_tells_the_limit_lets_it_speak() -> None:
    own, group, malicious, key, family = scores(3 * FEWEST_CLIENTS, needs_group=True)
    limit = fit_limit(own, group, malicious, key, family)
    assert limit >= 5.0

    def found(c: float) -> float:
        raw = own + np.clip(group, -c, c)
        return float((raw[malicious] > np.quantile(raw[~malicious], 0.995)).mean())

    assert found(limit) >= found(math.inf) - 3 * TOLERANCE


def test_too_few_clients_limit_nothing() -> None:
    assert fit_limit(*scores(FEWEST_CLIENTS, needs_group=False)) == math.inf


def test_without_attackers_or_without_a_group_part_there_is_nothing_to_limit() -> None:
    own, group, malicious, key, family = scores(3 * FEWEST_CLIENTS, needs_group=False)
    assert fit_limit(own, group, np.zeros_like(malicious), key, family) == math.inf
    assert fit_limit(own, np.zeros_like(group), malicious, key, family) == math.inf


def test_a_client_of_two_families_leaves_none_without_a_figure() -> None:
    own, group, malicious, key, family = scores(3 * FEWEST_CLIENTS, needs_group=False)
    family = family.astype(object)
    first = np.flatnonzero(malicious)[0]
    assert key[first] == key[first + 1]
    family[first], family[first + 1] = "0", "z"  # one of them has no other client
    assert fit_limit(own, group, malicious, key, family) == LIMITS[0]


def test_nobody_is_blocked_for_the_company_alone() -> None:
    """Whoever is blocked has an own part that is rare among legitimate requests, whatever the group part adds."""
    rng = np.random.default_rng(5)
    n, limit = 200_000, 4.0
    own = np.round(rng.standard_normal(n), 3).astype(np.float32)
    group = np.where(rng.random(n) < 0.01, np.float32(9), np.float32(-1))  # one in a hundred in very bad company
    key, budgets = np.arange(n), Budgets()
    raw = own + np.clip(group, -limit, limit).astype(np.float32)
    alone = legitimate_curve(own, key, budgets)
    curve = legitimate_curve(raw, key, budgets)
    free = thresholds_from_curve(curve, budgets)
    held = thresholds_from_curve(replace(curve, least_block=least_block(alone, budgets.challenge, limit)), budgets)
    suspicious = alone.threshold(budgets.challenge)
    assert own[raw >= free.block].min() < suspicious
    assert own[raw >= held.block].size == 0 or own[raw >= held.block].min() >= suspicious
    tempted = np.float32(suspicious) - np.float32(0.001) + np.float32(limit)
    assert tempted < held.block
