"""The gateway that a what-if plays requests into: its server, and the limits of the other defences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier.whatif.limits import Counted, tuned
from classifier.whatif.server import FULL, Pressed, Server, challenged_under_load, serve


def test_a_request_alone_runs_at_its_own_speed() -> None:
    served = serve(Server(capacity=1000, speed=50), np.array([3.0]), np.array([200.0]))
    assert served.begin.tolist() == [3.0]
    assert served.end.tolist() == [7.0]


def test_requests_share_the_capacity_evenly() -> None:
    server = Server(capacity=100, speed=50, slowest=0.25)
    served = serve(server, np.zeros(4), np.full(4, 100.0))
    assert served.end.tolist() == [4.0] * 4  # 25 tokens/s each, not 50


def test_what_needs_no_tokens_ends_at_once_and_holds_nothing_up() -> None:
    served = serve(Server(capacity=1, speed=1, slowest=1.0), np.array([0.0, 1.0, 2.0]), np.array([100.0, 0.0, 0.0]))
    assert served.end.tolist() == [100.0, 1.0, 2.0]


def test_who_waits_too_long_gives_up_and_costs_nothing() -> None:
    server = Server(capacity=1, speed=1, slowest=1.0, patience=5)
    assert server.slots == 1
    served = serve(server, np.array([0.0, 1.0, 8.0]), np.array([10.0, 1.0, 1.0]))
    assert np.isnan(served.end[1])
    assert served.end[[0, 2]].tolist() == [10.0, 11.0]


def test_arrivals_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="order of time"):
        serve(Server(capacity=1), np.array([1.0, 0.0]), np.ones(2))


def _slowly(server: Server, arrival: np.ndarray, work: np.ndarray, step: float) -> np.ndarray:
    """The same queue in small steps of time, written for its plainness."""
    left, end, running, queue, now, coming = work.astype(float), np.full(len(work), np.nan), [], [], 0.0, 0
    while coming < len(work) or running or queue:
        while coming < len(work) and arrival[coming] <= now + 1e-9:
            queue.append(coming)
            coming += 1
        while queue and len(running) < server.slots:
            first = queue.pop(0)
            if now - arrival[first] <= server.patience + 1e-9:
                running.append(first)
        for one in running:
            left[one] -= step * min(server.speed, server.capacity / len(running))
        now += step
        for one in [r for r in running if left[r] <= 1e-9]:
            running.remove(one)
            end[one] = now
    return end


@given(st.integers(0, 10_000), st.integers(1, 40))
def test_the_queue_is_that_of_small_steps_of_time(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    server = Server(capacity=float(rng.integers(10, 100)), speed=10.0, slowest=float(rng.choice((0.25, 0.5, 1.0))),
                    patience=1e9)  # fmt: skip
    arrival, work = np.sort(rng.uniform(0, 20, n)), rng.uniform(1, 60, n)
    step = 0.01
    exact, rough = serve(server, arrival, work).end, _slowly(server, arrival, work, step)
    assert np.allclose(exact, rough, atol=step * (n + 2))


@given(st.integers(0, 10_000))
def test_the_server_does_no_more_than_it_can_and_loses_no_work(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 300
    server = Server(capacity=100.0, speed=20.0, patience=30.0)
    arrival, work = np.sort(rng.uniform(0, 60, n)), rng.lognormal(3, 1, n)
    served = serve(server, arrival, work)
    done = np.isfinite(served.end)
    assert (np.isnan(served.begin) == ~done).all()
    assert (served.end[done] - arrival[done] >= work[done] / server.speed - 1e-6).all()
    assert (served.begin[done] - arrival[done] <= server.patience + 1e-9).all()
    assert work[done].sum() <= server.capacity * (served.end[done].max() - arrival[0]) + 1e-6
    moments = np.sort(served.begin[done])
    active = [((served.begin <= t) & (served.end > t)).sum() for t in moments]
    assert max(active) <= server.slots


def test_a_limit_lets_a_minute_through_at_once_and_then_drains() -> None:
    time = np.concatenate([np.zeros(10), [6.0, 7.0, 60.0]])
    counted = Counted(time, np.zeros(13, np.int64), np.ones(13))
    assert np.flatnonzero(counted.refused(5.0)).tolist() == [5, 6, 7, 8, 9, 11]
    assert not counted.refused(12.0).any()


def test_a_limit_counts_each_key_for_itself() -> None:
    counted = Counted(np.zeros(6), np.array([0, 1, 2, 0, 1, 2]), np.ones(6))
    assert np.flatnonzero(counted.refused(1.0)).tolist() == [3, 4, 5]


@pytest.mark.parametrize("share", [0.0, 0.002, 0.05])
def test_a_limit_is_tuned_to_the_share_of_the_budget(share: float) -> None:
    rng = np.random.default_rng(1)
    n = 20_000
    counted = Counted(np.sort(rng.uniform(0, 7200, n)), rng.zipf(1.5, n) % 500, rng.lognormal(5, 1, n))
    limit = tuned(counted, share)
    assert counted.refused(limit).mean() <= share
    assert counted.refused(limit * 0.99).mean() > share


@given(st.integers(0, 10_000), st.booleans())
def test_load_challenges_by_how_full_the_server_is_at_that_moment(seed: int, solve: bool) -> None:
    """The server is played once more without those who were turned away: each finds it as full as the decision said."""
    rng = np.random.default_rng(seed)
    n, server = 120, Server(capacity=200.0, speed=50.0, patience=4.0)
    arrival, work = np.sort(rng.uniform(0, 60, n)), rng.exponential(150, n) * (rng.random(n) < 0.9)
    marks = np.linspace(0.9, 0.1, 9).astype(np.float32)
    pressed = Pressed(
        rng.random(n).astype(np.float32),
        marks,
        0.5,
        rng.uniform(0.5, 1.5, n),
        rng.random(n) < 0.8,
        rng.random(n) < solve,
    )
    challenged, full = challenged_under_load(server, arrival, work, pressed)
    left = challenged & (full | ~pressed.can)
    served = serve(server, arrival, np.where(left, 0.0, work))
    runs = ~left & (work > 0)
    for i in range(n):
        before = runs & (np.arange(n) < i)
        running = int(np.sum(before & (served.begin <= arrival[i]) & (served.end > arrival[i])))
        load = min(FULL * running * server.speed / server.capacity, 1.0)
        over = max((load - 0.5) / 0.5, 0.0)
        expected = (
            pressed.open[i] and over > 0 and pressed.raw[i] >= marks[round(8 * min(over * pressed.weight[i], 1.0))]
        )
        assert challenged[i] == expected
        assert full[i] == (expected and load == 1.0)
