"""Leaps of the machine's clock are counted and not followed."""

from __future__ import annotations

import pytest

from serving.steady import LEAP_S, Steady


class Machine:
    def __init__(self) -> None:
        self.wall, self.even = 1_700_000_000.0, 50.0

    def passes(self, seconds: float, gained: float = 0.0) -> None:
        self.wall += seconds + gained
        self.even += seconds


def steady(machine: Machine, reached: float = 0.0) -> Steady:
    return Steady(reached, lambda: machine.wall, lambda: machine.even)


@pytest.mark.parametrize("leap", [3600.0, -3600.0, 86_400.0 * 365])
def test_time_goes_on_evenly_over_a_leap_and_back(leap: float) -> None:
    machine = Machine()
    now = steady(machine)
    begin = now()
    machine.passes(1.0)
    machine.passes(1.0, leap)
    assert now() == pytest.approx(begin + 2.0)
    machine.passes(10.0)
    assert now() == pytest.approx(begin + 12.0)
    machine.passes(1.0, -leap)
    assert now() == pytest.approx(begin + 13.0) == machine.wall
    assert now.leaps == 2


def test_what_ntp_does_is_followed() -> None:
    machine = Machine()
    now = steady(machine)
    for _ in range(100):
        machine.passes(1.0, 0.9 * LEAP_S)
        now()
    assert now() == machine.wall
    assert now.leaps == 0


def test_time_goes_on_from_what_is_remembered() -> None:
    machine = Machine()
    now = steady(machine, machine.wall + 7200)
    begin = now()
    assert begin == machine.wall + 7200
    machine.passes(3.0)
    assert now() == pytest.approx(begin + 3.0)
