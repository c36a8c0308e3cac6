"""Surge or attack: the rules, that the verdict does not flap, that state is bounded, and that online is offline."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier.features.spec import COLUMN, NAMES
from classifier.policy import LegitimateCurve, Thresholds
from classifier.situation import (
    ACTED,
    DAY,
    MINUTE_US,
    NEW,
    NEW_ACCOUNT,
    RETURNS_US,
    SPREADING,
    UNUSUAL_MARK,
    Levels,
    Situation,
)

START = 1_767_600_000 * 1_000_000


class Day:
    """Minutes of a service, one after the other; requests of a minute are spread over it."""

    def __init__(self, seed: int = 0) -> None:
        self.situation, self.minute = Situation(), 0
        self._rng = np.random.default_rng(seed)
        self.states: list[str] = []

    def pass_by(self, minutes: int, *groups: tuple[int, int, int], ordinary: int = 200) -> list[str]:
        """Let minutes pass: ordinary requests of 80 clients, and groups of (requests, clients, marks); return the states."""
        first = len(self.states)
        for _ in range(minutes):
            parts = [(self._rng.poisson(ordinary), 80, 0), (2, 10_000, NEW), *groups]
            client = np.concatenate([self._rng.integers(0, c, n) + 100_000 * i for i, (n, c, _) in enumerate(parts)])
            marks = np.concatenate([np.full(n, m) for n, _, m in parts]).astype(np.uint8)
            order = self._rng.permutation(len(client))
            time = START + self.minute * MINUTE_US + np.sort(self._rng.integers(0, MINUTE_US, len(client)))
            keys = (client.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))[order]
            self.situation.observe_all(time, keys, marks[order])
            self.minute += 1
            self.situation.advance(START + self.minute * MINUTE_US)
            self.states.append(self.situation.state)
        return self.states[first:]


HOSTILE = ACTED | UNUSUAL_MARK


def test_nothing_is_said_before_there_is_a_usual_minute() -> None:
    day = Day()
    assert set(day.pass_by(29, (2_000, 500, HOSTILE))) == {"unsure"}
    assert day.situation.verdict.rule == 1


def test_a_quiet_day_is_calm() -> None:
    day = Day()
    day.pass_by(40)
    assert set(day.pass_by(400)) == {"calm"}


def test_a_surge_of_people_is_a_surge_and_never_an_attack() -> None:
    day = Day()
    day.pass_by(60)
    states = day.pass_by(60, (400, 300, 0), (40, 10_000, NEW))
    assert set(states[3:]) == {"surge"}
    assert "attack" not in states
    assert any("new clients a minute" in line for line in day.situation.verdict.evidence)
    assert day.pass_by(20)[-1] == "calm"


def test_a_small_service_sees_its_surge_in_new_accounts() -> None:
    day = Day()
    day.pass_by(60, ordinary=30)
    states = day.pass_by(20, (3, 10_000, NEW | NEW_ACCOUNT), ordinary=30)
    assert set(states[5:]) == {"surge"}
    assert any("new accounts a minute" in line for line in day.situation.verdict.evidence)


def test_a_flood_from_many_clients_is_an_attack_within_seconds_and_does_not_become_usual() -> None:
    day = Day()
    day.pass_by(60)
    day.pass_by(1, (1_000, 50, HOSTILE))
    begun = day.situation.verdict
    assert (begun.state, begun.rule) == ("attack", 2)
    assert 0 < begun.since - (START + 60 * MINUTE_US) < MINUTE_US // 10
    assert "of this minute so far score like attackers" in day.situation.changes[-1].evidence[0]
    assert set(day.pass_by(2 * DAY, (100, 50, HOSTILE), ordinary=20)) == {"attack"}
    assert day.situation.verdict.since == begun.since
    assert "score like attackers" in day.situation.verdict.evidence[0]
    assert day.pass_by(15)[-1] == "calm"


def test_a_small_attack_is_one_once_its_minutes_tell() -> None:
    day = Day()
    day.pass_by(60, ordinary=120)
    assert day.pass_by(10, (18, 16, HOSTILE), ordinary=120)[:2] == ["calm", "calm"]
    assert day.situation.state == "attack"


@pytest.mark.parametrize("groups", [((900, 1, HOSTILE), (20, 10, HOSTILE)), ((900, 2, HOSTILE),), ((19, 19, HOSTILE),)])
def test_a_minute_of_one_or_two_clients_or_of_little_is_no_flood(groups: tuple[tuple[int, int, int], ...]) -> None:
    day = Day()
    day.pass_by(60, ordinary=40)
    assert "attack" not in day.pass_by(1, *groups, ordinary=40)


def at_once(day: Day, requests: int, clients: int, marks: int, second: float = 0.0) -> str:
    """Let requests come within a tenth of a second of the minute that begins; return the state after them."""
    client = np.arange(requests) % clients + 5_000_000
    time = START + day.minute * MINUTE_US + int(second * 1e6) + np.arange(requests) * (100_000 // requests)
    keys = client.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    day.situation.observe_all(time, keys, np.full(requests, marks, np.uint8))
    return day.situation.state


def test_a_few_hostile_requests_at_the_begin_of_a_minute_are_no_flood() -> None:
    day = Day()
    day.pass_by(60, ordinary=600)
    assert at_once(day, 50, 10, HOSTILE) == "calm", "fifty of fifty, and a twelfth of a usual minute"
    assert day.pass_by(3, ordinary=600) == ["calm"] * 3


def test_a_flood_that_its_own_minute_does_not_confirm_is_taken_back() -> None:
    day = Day()
    day.pass_by(60, ordinary=600)
    assert at_once(day, 80, 20, HOSTILE) == "attack"
    assert day.pass_by(1, ordinary=1_900) == ["calm"]
    assert "over at once" in day.situation.changes[-1].evidence[0]
    assert day.pass_by(5, ordinary=600) == ["calm"] * 5
    day.pass_by(1, (1_000, 50, HOSTILE), ordinary=600)
    assert day.situation.verdict.onset == day.situation.verdict.since, "what was taken back began no attack"


def test_a_flood_whose_minute_shows_half_of_it_and_a_rise_stays_one() -> None:
    day = Day()
    day.pass_by(60)
    assert at_once(day, 80, 20, UNUSUAL_MARK) == "attack"
    assert day.pass_by(1, (100, 60, UNUSUAL_MARK), (700, 300, 0)) == ["attack"]
    assert day.pass_by(1, (100, 60, UNUSUAL_MARK), (700, 300, 0)) == ["attack"]
    again = Day()
    again.pass_by(60)
    assert at_once(again, 80, 20, UNUSUAL_MARK) == "attack"
    assert again.pass_by(1, (700, 300, 0)) == ["calm"], "a rise alone is none"


def test_an_attack_that_comes_again_is_the_same_one() -> None:
    day = Day()
    day.pass_by(60)
    flood = (1_000, 50, HOSTILE)
    day.pass_by(3, flood)
    first = day.situation.verdict
    assert first.onset == first.since > 0
    assert day.pass_by(20)[-1] == "calm"
    assert day.situation.verdict.onset == 0
    day.pass_by(3, flood)
    assert day.situation.verdict.since > first.since
    assert day.situation.verdict.onset == first.onset
    day.pass_by(RETURNS_US // MINUTE_US + 20)
    day.pass_by(3, flood)
    assert day.situation.verdict.onset == day.situation.verdict.since > first.onset


def test_after_a_day_of_silence_there_is_no_flood_either() -> None:
    day = Day()
    day.pass_by(60)
    day.minute += DAY + 10
    assert at_once(day, 500, 50, HOSTILE) != "attack"


@pytest.mark.parametrize("minutes", [29, 30])
def test_a_flood_is_told_once_there_is_a_usual_minute(minutes: int) -> None:
    day = Day()
    day.pass_by(minutes)
    assert ("attack" in day.pass_by(1, (500, 50, HOSTILE))) == (minutes >= 30)


def test_an_attack_that_was_there_from_the_beginning_is_not_usual() -> None:
    day = Day()
    assert day.pass_by(60, (100, 50, HOSTILE))[-1] == "attack"


def test_an_attack_within_a_surge_is_an_attack() -> None:
    day = Day()
    day.pass_by(60)
    day.pass_by(20, (400, 300, 0), (40, 10_000, NEW))
    assert day.pass_by(10, (400, 300, 0), (40, 10_000, NEW), (300, 100, HOSTILE))[-1] == "attack"


def test_a_flood_of_requests_that_are_merely_unusual_is_an_attack_within_seconds() -> None:
    day = Day()
    day.pass_by(60)
    day.pass_by(1, (600, 100, UNUSUAL_MARK))
    assert day.situation.state == "attack"
    assert 0 < day.situation.verdict.since - (START + 60 * MINUTE_US) < MINUTE_US // 4
    assert "above all but 5 % of legitimate ones" in day.situation.changes[-1].evidence[0]
    assert set(day.pass_by(10, (600, 100, UNUSUAL_MARK))) == {"attack"}


def test_unusual_requests_without_a_rise_are_no_attack() -> None:
    day = Day()
    day.pass_by(60)
    assert "attack" not in day.pass_by(30, (180, 100, UNUSUAL_MARK), ordinary=20)
    day = Day()
    day.pass_by(60, ordinary=600)
    assert at_once(day, 300, 100, UNUSUAL_MARK, second=30.0) == "calm", "half a usual minute, at half of the minute"


def test_an_unusual_rise_of_one_client_is_no_attack() -> None:
    day = Day()
    day.pass_by(60)
    assert set(day.pass_by(30, (900, 1, UNUSUAL_MARK), (4, 10, UNUSUAL_MARK))[2:]) == {"unsure"}
    assert day.situation.verdict.rule == 3


@pytest.mark.parametrize("others", [0, 4])
def test_one_client_is_no_attack_on_the_service(others: int) -> None:
    day = Day()
    day.pass_by(60)
    states = day.pass_by(30, (900, 1, HOSTILE), (others, 10, HOSTILE))
    assert set(states[2:]) == {"unsure"}
    assert day.situation.verdict.rule == 3


def test_one_loud_client_hides_no_flood_of_others() -> None:
    day = Day()
    day.pass_by(60)
    loud = (300, 1, HOSTILE)
    day.pass_by(10, loud)
    assert day.situation.verdict.rule == 3
    assert set(day.pass_by(20, loud, (700, 100, UNUSUAL_MARK))) == {"attack"}
    assert "above all but 5 %" in day.situation.verdict.evidence[0]


def test_a_rise_that_is_odd_is_unsure() -> None:
    day = Day()
    day.pass_by(60)
    assert day.pass_by(10, (300, 300, 0), (70, 60, UNUSUAL_MARK))[-1] == "unsure"
    assert day.situation.verdict.rule == 4
    spreading = Day()
    spreading.pass_by(60)
    assert spreading.pass_by(10, (300, 300, SPREADING))[-1] == "unsure"
    assert spreading.situation.verdict.rule == 4


def test_the_verdict_does_not_flap() -> None:
    day = Day()
    day.pass_by(60)
    states = []
    for _ in range(40):  # two minutes on, two minutes off
        states += day.pass_by(2, (200, 60, HOSTILE))
        states += day.pass_by(2)
    changes = sum(a != b for a, b in pairwise(states))
    assert changes <= 2


@given(st.integers(0, 1_000), st.lists(st.integers(1, 5_000), max_size=8))
def test_one_by_one_is_the_same_as_all_at_once(seed: int, cuts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    n = 5_000
    time = START + np.sort(rng.integers(0, 50 * MINUTE_US, n))
    client, marks = rng.integers(0, 2**63, n).astype(np.uint64), rng.integers(0, 32, n).astype(np.uint8)
    whole, parts = Situation(), Situation()
    whole.observe_all(time, client, marks)
    for low, high in zip([0, *sorted(cuts)], [*sorted(cuts), n], strict=True):
        parts.observe_all(time[low:high], client[low:high], marks[low:high])
        if low < high:
            parts.advance(int(time[high - 1]))  # looking changes nothing
    assert whole.verdict == parts.verdict
    assert whole.changes == parts.changes


def test_marks_of_many_are_those_of_each() -> None:
    rng = np.random.default_rng(0)
    rows = rng.choice(np.array([0, 1, 2, 3, 8, 20, np.nan], np.float32), (500, len(NAMES)))
    levels = Levels(-1.0, 0.25)
    raw = rng.choice(np.array([-2, -1, 0, 0.25, 3], np.float32), 500)
    many = levels.marks(rows, raw)
    assert [levels.mark(row, float(score)) for row, score in zip(rows, raw, strict=True)] == many.tolist()
    assert set(many.tolist()) >= {0, NEW, UNUSUAL_MARK, HOSTILE, SPREADING}
    assert any(mark & NEW_ACCOUNT for mark in many.tolist())
    row = rows[:1].copy()
    row[0, COLUMN["request_prompt_length"]] = np.nan  # pages have no prompt to spread
    assert not levels.marks(row, raw[:1])[0] & SPREADING


def test_levels_come_from_the_bundle_or_from_its_curve() -> None:
    curve = LegitimateCurve(1_000, 10, (0.0, 1.0, 2.0, 3.0), (1_000, 10, 2, 0), (1.0, 0.01, 0.002, 0.0))
    assert Levels.of(Thresholds(2.5, 3.0), curve) == Levels(1.0, 2.5)
    assert Levels.of(Thresholds(float("inf"), float("inf")), curve) == Levels(1.0, 2.0)


def test_silence_is_calm_and_after_a_day_of_it_nothing_is_usual() -> None:
    day = Day()
    day.pass_by(60)
    day.situation.advance(START + (60 + 600) * MINUTE_US)
    assert day.situation.state == "calm"
    assert day.situation.verdict.evidence == ("no request in the last 5 minutes",)
    day.minute = 60 + 600 + DAY + 5
    assert day.pass_by(10)[-1] == "unsure"
    assert len(day.situation.changes) < 10


@pytest.mark.parametrize("silence", [DAY - 2, DAY, DAY + 2, DAY + 60])
def test_silence_is_the_same_minute_by_minute_and_at_once(silence: int) -> None:
    """A service looks each second whether a minute is over; a log says so with the next request."""
    watched, read = Day(), Day()
    for day in (watched, read):
        day.pass_by(60, (10, 5, HOSTILE))
    for minute in range(60, 60 + silence):
        watched.situation.advance(START + minute * MINUTE_US)
    for day in (watched, read):
        day.minute += silence
        day.pass_by(40)
    assert watched.situation.verdict == read.situation.verdict
    assert watched.situation.changes == read.situation.changes
    forgotten = [one for one in read.situation.changes if one.rule == 1 and one.since > START + 60 * MINUTE_US]
    assert bool(forgotten) == (silence >= DAY)


def test_an_attack_is_not_over_while_requests_have_not_come_down_but_for_an_hour_at_most() -> None:
    """Careful attackers score like everybody after some minutes; they have not gone."""
    day = Day()
    day.pass_by(60)
    assert day.pass_by(3, (300, 60, HOSTILE))[-1] == "attack"
    assert set(day.pass_by(20, (300, 60, 0))) == {"attack"}
    assert day.situation.verdict.evidence[0].startswith("requests have not come down since the attack: 5")
    onset = day.situation.verdict.onset
    assert set(day.pass_by(5)) <= {"attack", "calm"}
    assert day.pass_by(10)[-1] == "calm", "they have"
    day.pass_by(2, (300, 60, HOSTILE))
    states = day.pass_by(90, (300, 60, 0))
    assert day.situation.changes[-2].onset == onset
    assert states[58] == "attack"
    assert set(states[75:]) == {"surge"}, "what stays for an hour without a sign of an attack is none"


def test_an_attack_within_a_surge_is_over_when_only_the_surge_is_left() -> None:
    day = Day()
    day.pass_by(60)
    assert day.pass_by(20, (400, 300, 0), (40, 10_000, NEW))[-1] == "surge"
    assert day.pass_by(5, (600, 60, HOSTILE), (400, 300, 0), (40, 10_000, NEW))[-1] == "attack"
    assert day.pass_by(12, (400, 300, 0), (40, 10_000, NEW))[-1] == "surge"


def test_on_a_service_that_swings_an_attack_lasts_as_long_as_its_rise() -> None:
    """What is usual over a day is no measure of the hour at hand."""
    day = Day()
    for _ in range(12):
        day.pass_by(10, ordinary=1_500)
        day.pass_by(10, ordinary=150)
    assert day.pass_by(3, (700, 60, HOSTILE), ordinary=150)[-1] == "attack"
    assert set(day.pass_by(20, (700, 60, 0), ordinary=150)) == {"attack"}
