"""The running clock: a lone stamp from the future is turned down, a gap in the log is not, however it is chunked."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from classifier.logs.clock import _NEVER, DAY_US, LOOKAHEAD, Clock

HOUR = DAY_US // 24
START = 16_000 * DAY_US


def judge(times: list[int], cuts: list[int] | None = None) -> list[bool]:
    """Judge arrivals as a reader does: chunk by chunk, what is undecided first in the next."""
    clock, accepted, waiting = Clock(), [], np.zeros(0, np.int64)
    for begin, end in zip([0, *(cuts or [])], [*(cuts or []), len(times)], strict=True):
        waiting = np.concatenate((waiting, np.array(times[begin:end], np.int64)))
        decided = clock.judge(waiting, False)
        accepted += decided.tolist()
        waiting = waiting[len(decided) :]
    return accepted + clock.judge(waiting, True).tolist()


def by_the_rule(times: list[int]) -> list[bool]:
    """The rule as it is documented, line by line."""
    now, accepted = _NEVER, []
    for i, time in enumerate(times):
        following = sorted(times[i + 1 : i + 1 + LOOKAHEAD])
        good = True
        if time > now + DAY_US:
            good = time <= following[(len(following) - 1) // 2] + DAY_US if following else now == _NEVER
        if good:
            now = max(now, time)
        accepted.append(good)
    return accepted


def steady(lines: int, begin: int = START) -> list[int]:
    return [begin + i * HOUR // 60 for i in range(lines)]


def test_a_lone_outlier_is_turned_down_first_last_and_between() -> None:
    far = START + 9_000 * DAY_US
    assert judge([far, *steady(5)]) == [False] + [True] * 5
    assert judge([*steady(5), far]) == [True] * 5 + [False]
    assert judge([*steady(5), far, far, *steady(9)]) == [True] * 5 + [False] * 2 + [True] * 9


def test_a_quiet_weekend_costs_nothing() -> None:
    assert all(judge(steady(30) + steady(30, START + 3 * DAY_US)))


def test_an_outlier_right_before_a_gap_is_still_found() -> None:
    times = [*steady(20), START + 9_000 * DAY_US, *steady(20, START + 3 * DAY_US)]
    assert judge(times) == [True] * 20 + [False] + [True] * 20


def test_a_clock_that_was_set_right_rejects_nothing_afterwards() -> None:
    assert all(judge(steady(10) + steady(40, START + 400 * DAY_US) + steady(40)))


def test_one_line_alone_is_believed_and_steps_back_always_are() -> None:
    assert judge([START]) == [True]
    assert judge([]) == []
    assert all(judge([START, START, START - 900 * DAY_US, START]))


TIMES = st.lists(
    st.builds(lambda day, us: START + day * DAY_US + us, st.sampled_from([0, 0, 0, 1, 3, 4, 900]), st.integers(-2, 2)),
    max_size=60,
)


@given(TIMES, st.data())
def test_the_rule_whatever_the_chunks(times: list[int], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(times)), max_size=8)))
    assert judge(times, cuts) == by_the_rule(times)
