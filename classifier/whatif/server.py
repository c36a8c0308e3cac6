"""A model of an inference server: how long requests take when they share its capacity.

*Limited processor sharing*: at most `slots` requests run at once, the others wait in the order of their arrival. Those that
run share the capacity evenly, and none is faster than `speed`. That is what an inference server with continuous batching does:
each step makes one token for every sequence of the batch (Yu et al., "Orca: A Distributed Serving System for
Transformer-Based Generative Models", OSDI 2022; vLLM's `max_num_seqs` is the number of slots), and the queue is the one of
Zhang, Dai and Zwart, "Law of Large Number Limits of Limited Processor-Sharing Queues", 2009.

The *work* of a request is in output tokens: its output, and its input at `input_weight`, since a prompt is read in parallel.
Left out: that memory for long contexts limits the batch, that prompts delay the steps of others, and more than one model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
SPEED = 50.0
"""Tokens/s of a single answer, unless stated: what a large model gives one client on current accelerators, about."""
FULL = 0.5
"""Share of the full speed at which a server counts as fully loaded."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that makes `capacity` tokens/s. `patience` is how long a client waits for its first token, s."""

    capacity: float
    speed: float = SPEED
    input_weight: float = 0.1
    patience: float = 60.0
    slowest: float = 0.25

    @property
    def slots(self) -> int:
        """Requests that run at once: so many that each keeps the share `slowest` of its speed when all slots are taken."""
        return max(1, math.ceil(self.capacity / (self.speed * self.slowest)))

    @property
    def figures(self) -> tuple[float, float, int, float]:
        """Capacity, speed, slots and patience."""
        return float(self.capacity), float(self.speed), self.slots, float(self.patience)

    def work(self, input_tokens: Floats, output_tokens: Floats) -> Floats:
        """Return the work of requests in output tokens, float64[n]; NaN counts as none."""
        return np.asarray(np.nan_to_num(output_tokens) + self.input_weight * np.nan_to_num(input_tokens))


@dataclass(frozen=True, slots=True)
class Served:
    """What became of n requests: `begin` and `end` float64[n] in s, NaN where the client gave up waiting."""

    begin: Floats
    end: Floats

    def delay(self, arrival: Floats, own: Floats) -> Floats:
        """Return by how much each took longer than alone (`own`, s), float64[n]; NaN where its client gave up."""
        return np.asarray(np.maximum(self.end - arrival - own, 0.0))


@dataclass(frozen=True, slots=True)
class Pressed:
    """Whom load turns away, n requests: those `open` to it (bool[n]) whose `raw` (float32[n]) reaches the threshold of the
    moment. That is `marks[k]` (float32[steps + 1], not rising), where k grows from 0 to `steps` with the load above `begins`,
    `weight` times as fast (float64[n]). Who `can` (bool[n]) solve the challenge goes on to the server, unless that is full.
    """

    raw: npt.NDArray[np.float32]
    marks: npt.NDArray[np.float32]
    begins: float
    weight: Floats
    open: Flags
    can: Flags


def serve(server: Server, arrival: Floats, work: Floats) -> Served:
    """Serve requests that arrive at `arrival` (float64[n], s, ascending) and take `work` (float64[n], tokens).

    A request whose client has waited longer than the patience leaves the queue; one that has begun runs to its end. Work
    of 0 needs no server and ends at once.
    """
    if np.any(arrival[1:] < arrival[:-1]):
        raise ValueError("arrivals must be in the order of time")
    begin, end = arrival.copy(), arrival.copy()
    needs = np.flatnonzero(work > 0)
    started, ended = np.full(len(needs), np.nan), np.full(len(needs), np.nan)
    _serve(arrival[needs], work[needs], *server.figures, *_UNPRESSED, *_UNPRESSED[-2:], started, ended)
    begin[needs], end[needs] = started, ended
    return Served(begin, end)


def challenged_under_load(server: Server, arrival: Floats, work: Floats, pressed: Pressed) -> tuple[Flags, Flags]:
    """Return who is challenged because the server is busy when it arrives, and of them for whom it is full, bool[n] each.

    Arrivals and work are as for `serve`. The load is 1, and the server full, when those that run get half of their full speed
    or less. A request that is to be refused anyway has no work and is not open.
    """
    n = len(arrival)
    begin, end, challenged, full = np.empty(n), np.empty(n), np.zeros(n, np.bool_), np.zeros(n, np.bool_)
    _serve(
        arrival, work, *server.figures, pressed.raw, pressed.marks, float(pressed.begins), pressed.weight, pressed.open,
        pressed.can, challenged, full, begin, end,
    )  # fmt: skip
    return challenged, full


_UNPRESSED = (
    np.empty(0, np.float32), np.empty(0, np.float32), 1.0, np.empty(0), np.empty(0, np.bool_), np.empty(0, np.bool_)
)  # fmt: skip


@njit(cache=True, nogil=True)
def _serve(  # type: ignore[no-untyped-def]
    arrival,
    work,
    capacity,
    speed,
    slots,
    patience,
    raw,
    marks_at,
    begins,
    weight,
    open_,
    can,
    challenged,
    full,
    begin,
    end,
):
    """Run the queue. All that run get the same rate, so each ends when the work done per slot reaches a fixed mark.

    Where nobody is pressed, `raw` and what stands beside it are empty.
    """
    n = len(arrival)
    pressed = len(raw) > 0
    gone = np.zeros(n, np.bool_)  # takes nothing from the server
    marks, owners = np.empty(slots), np.empty(slots, np.int64)  # a heap of marks, the lowest first
    running = 0
    done, now = 0.0, 0.0  # work that a slot has done since the server was last empty; the time of that
    head, tail = 0, 0  # the queue: requests from `head` up to `tail`, those that have begun or left skipped
    while head < n:
        until = arrival[tail] if tail < n else np.inf
        while running and now + (marks[0] - done) / min(speed, capacity / running) <= until:
            now += (marks[0] - done) / min(speed, capacity / running)
            done = marks[0]
            end[owners[0]] = now
            running -= 1
            _sift_down(marks, owners, running)
            while head < tail and running < slots:
                if not gone[head] and now - arrival[head] <= patience:
                    begin[head] = now
                    _push(marks, owners, running, done + work[head], head)
                    running += 1
                head += 1
            if running == 0:
                done = 0.0
        if tail == n:
            if running == 0:
                break
            continue
        if running:
            done += (until - now) * min(speed, capacity / running)
        now = until
        gone[tail] = work[tail] <= 0
        if pressed and open_[tail]:
            load = min(FULL * running * speed / capacity, 1.0)
            over = max((load - begins) / (1.0 - begins), 0.0)
            if over > 0.0 and raw[tail] >= marks_at[round((len(marks_at) - 1) * min(over * weight[tail], 1.0))]:
                challenged[tail] = True
                full[tail] = load >= 1.0
                gone[tail] |= full[tail] or not can[tail]
        if head == tail and gone[tail]:
            head += 1
        elif head == tail and running < slots:
            begin[tail] = now
            _push(marks, owners, running, done + work[tail], tail)
            running += 1
            head += 1
        tail += 1
    while running:
        now += (marks[0] - done) / min(speed, capacity / running)
        done = marks[0]
        end[owners[0]] = now
        running -= 1
        _sift_down(marks, owners, running)


@njit(cache=True, nogil=True)
def _push(marks, owners, size, mark, owner):  # type: ignore[no-untyped-def]
    place = size
    while place > 0 and marks[(place - 1) // 2] > mark:
        above = (place - 1) // 2
        marks[place], owners[place] = marks[above], owners[above]
        place = above
    marks[place], owners[place] = mark, owner


@njit(cache=True, nogil=True)
def _sift_down(marks, owners, size):  # type: ignore[no-untyped-def]
    """Take the lowest out of a heap that had `size` + 1 entries."""
    mark, owner = marks[size], owners[size]
    place = 0
    while 2 * place + 1 < size:
        below = 2 * place + 1
        if below + 1 < size and marks[below + 1] < marks[below]:
            below += 1
        if marks[below] >= mark:
            break
        marks[place], owners[place] = marks[below], owners[below]
        place = below
    if size:
        marks[place], owners[place] = mark, owner
