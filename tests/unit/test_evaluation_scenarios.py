"""The logs that the evaluation of floods and surges plays: what they promise of their traffic."""

from __future__ import annotations

import numpy as np
import pytest

from classifier.evaluation.flood import BEFORE_S, BEFORE_SURGE_S, FLOOD_S, Scenario, flooded, honest, surged
from classifier.events import MICROSECONDS


def _seconds(scenario: Scenario) -> np.ndarray:
    time = scenario.events.column("time").to_numpy()
    assert (np.diff(time) >= 0).all()
    return (time - time[0]) / MICROSECONDS


@pytest.mark.parametrize("family", ["request_flood", "slow_botnet"])
def test_a_flood_comes_in_the_last_half_hour_at_the_stated_rate(family: str) -> None:
    scenario = flooded(60, 5, family, "evasive", 10.0, "requests")
    hostile, seconds = (
        scenario.events.column("malicious").to_numpy(zero_copy_only=False).astype(bool),
        _seconds(scenario),
    )
    assert seconds[hostile].min() >= scenario.begins - 1.0
    ours = (~hostile & (seconds >= scenario.begins)).sum()
    assert 5 * ours < hostile.sum() < 15 * ours
    assert seconds[-1] <= BEFORE_S + FLOOD_S
    assert not set(scenario.events.filter(hostile)["ip"].to_pylist()) & set(
        scenario.events.filter(~hostile)["ip"].to_pylist()
    )


def test_a_surge_is_of_new_accounts_alone() -> None:
    scenario = surged(100, 5, 10.0)
    seconds = _seconds(scenario)
    assert not scenario.events.column("malicious").to_numpy(zero_copy_only=False).any()
    usual = honest(100, 5, BEFORE_SURGE_S + 3600.0)
    assert scenario.events.num_rows > usual.num_rows

    def accounts(low: float, high: float) -> int:
        there = (seconds >= low) & (seconds < high)
        family = scenario.events.column("family").to_numpy(zero_copy_only=False)
        made = scenario.events.filter(there & (family == "newcomer"))["account"].drop_null()
        return len(set(made.to_pylist()))

    assert accounts(scenario.begins, scenario.begins + 3600) > 5 * max(accounts(0, 3600), 1)
