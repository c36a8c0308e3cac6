"""Requests that arrive together share one call of the scorer.

A request is checked as soon as it has been read. Its arrival and its scoring are put off for as long as each turn of the event
loop brings others, since what a call costs beside its rows is a good part of it; no turn waits for that, and once there are
enough they go. Of a crowd, only so many go in one turn: their answers leave before the next ones are scored.

As long as the scorer keeps its deadline it runs right here, which costs no switch between threads. Once it has been late, it
runs in a thread of its own for a while, so that the fail mode can answer in time and the loop goes on; it comes back when no call
has been late for a minute. A call that goes to a GPU, which may hang, is made in that thread from the first. Requests wait
in line for the thread, each until its own deadline, and none is scored here meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from serving.gate import Answer, Arrival, Gate, Judged, Live, Pending

log = logging.getLogger("botsieve.serving")

TRUST_AFTER_S = 60.0
TOGETHER = 16
"""Rows of a turn: what a call costs beside its rows is then shared by enough of them."""
MOST_ASIDE = 1024
"""Rows that go to the scorer at once when it runs in the thread."""
MOST_CALLS = 64
"""Calls that wait for the thread; whoever comes then is late at once."""


class Waiter(Protocol):
    """Who waits for answers: a future, or whatever is told as one is."""

    def done(self) -> bool:
        """Whether nobody waits any more."""
        ...

    def set_result(self, result: list[Answer], /) -> None:
        """Take the answers. Must not raise: others wait as well."""
        ...

    def set_exception(self, exception: Exception, /) -> None:
        """Hear that there will be none. Must not raise."""
        ...


_Waiting = tuple[Sequence[Pending], Live, Waiter]


class Batcher:
    """Collects requests, lets them arrive together and answers them together."""

    def __init__(
        self,
        gate: Gate,
        deadline_s: float,
        *,
        clock: Callable[[], float] = time.perf_counter,
        judge: Callable[[Sequence[Arrival]], Judged] | None = None,
    ) -> None:
        """Answer through `gate`. `judge` replaces the gate's, for tests."""
        self._gate, self._deadline, self._clock = gate, deadline_s, clock
        self._judge = judge or gate.judge
        self._waiting: list[_Waiting] = []
        self._rows = 0  # of those who wait
        self._thread: ThreadPoolExecutor | None = None
        self._calls: set[Future[Judged]] = set()  # those that the thread has not done
        self._suspect_until = -float("inf")
        self._tasks: set[asyncio.Task[None]] = set()
        self.in_flight = 0
        self.sizes: Callable[[int], None] = lambda rows: None

    def submit(self, pending: Sequence[Pending], live: Live | None = None) -> asyncio.Future[list[Answer]]:
        """Return a future of the answers to checked requests, which arrive and are scored in the loop's next turn."""
        future: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()
        self.enqueue(pending, live or Live(), future)
        return future

    def enqueue(self, pending: Sequence[Pending], live: Live, waiter: Waiter) -> None:
        """Let `waiter` have the answers to checked requests, as `submit` does."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._gather, 0)
        self._waiting.append((pending, live, waiter))
        self._rows += len(pending)
        self.in_flight += len(pending)

    def close(self) -> None:
        """Let go of the thread, if there is one."""
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def _gather(self, before: int) -> None:
        """Flush once a turn has brought nobody else, or there are enough: each turn looks at the sockets, and does not wait."""
        if before < self._rows < TOGETHER:
            asyncio.get_running_loop().call_soon(self._gather, self._rows)
        else:
            self._flush()

    def _flush(self) -> None:
        """Take what one turn can take. What is left goes on in the next, after these answers and before who comes then."""
        aside = bool(self._calls) or self._clock() < self._suspect_until
        taken = _most_of(self._waiting, MOST_ASIDE if aside else TOGETHER)
        part, self._waiting = self._waiting[:taken], self._waiting[taken:]
        self._rows -= sum(len(group) for group, _, _ in part)
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._gather, 0)
        try:
            arrivals = self._gate.arrive_all(
                [one for group, _, _ in part for one in group], [live for group, live, _ in part for _ in group]
            )
        except Exception as error:  # nothing of ours should raise here; whoever waits must hear of it
            for group, _, waiter in part:
                self.in_flight -= len(group)
                if not waiter.done():
                    waiter.set_exception(error)
            return
        if aside or self._gate.model.on_device(len(arrivals)):
            task = asyncio.get_running_loop().create_task(self._aside(part, arrivals))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self._here(part, arrivals)

    def _here(self, part: list[_Waiting], arrivals: list[Arrival]) -> None:
        self.sizes(len(arrivals))
        began = self._clock()
        try:
            judged = self._judge(arrivals)
        except Exception as error:  # whatever a scorer raises, the fail mode answers
            self._fail(part, arrivals, "error", error)
            return
        if self._clock() - began > self._deadline:
            self._suspect_until = self._clock() + TRUST_AFTER_S
            self._fail(part, arrivals, "late")
            return
        self._answer(part, arrivals, judged)

    async def _aside(self, part: list[_Waiting], arrivals: list[Arrival]) -> None:
        """Let the thread score them, after those that it has. Only a call that was late itself prolongs the distrust."""
        self.sizes(len(arrivals))
        if len(self._calls) >= MOST_CALLS:
            self._fail(part, arrivals, "late")
            return
        self._thread = self._thread or ThreadPoolExecutor(1, "scorer")
        try:
            call = self._thread.submit(self._judge, arrivals)
        except RuntimeError as refused:  # no thread can be started
            self._fail(part, arrivals, "error", refused)
            return
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        asked = asyncio.wrap_future(call)
        await asyncio.wait([asked], timeout=self._deadline)
        if not asked.done():
            if not call.cancel():  # it is being worked on: nobody else is to blame
                self._suspect_until = self._clock() + TRUST_AFTER_S
                asked.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._fail(part, arrivals, "late")
        elif (error := asked.exception()) is not None:
            if not isinstance(error, Exception):
                raise error
            self._fail(part, arrivals, "error", error)
        else:
            self._answer(part, arrivals, asked.result())

    def _answer(self, part: list[_Waiting], arrivals: list[Arrival], judged: Judged) -> None:
        model = self._gate.model
        # Another model was loaded meanwhile, and its device may hang here.
        if judged.by not in (None, model) and model.on_device(len(arrivals)):
            self._fail(part, arrivals, "late")
            return
        try:
            answers = self._gate.answer(arrivals, judged)
        except Exception as error:
            self._fail(part, arrivals, "error", error)
            return
        self._deliver(part, answers)

    def _fail(self, part: list[_Waiting], arrivals: list[Arrival], cause: str, error: Exception | None = None) -> None:
        log.error("scoring failed", extra={"cause": cause, "error": type(error).__name__ if error else None})
        self._deliver(part, self._gate.fail(arrivals, cause))

    def _deliver(self, part: list[_Waiting], answers: list[Answer]) -> None:
        begin = 0
        for group, _, waiter in part:
            self.in_flight -= len(group)
            if not waiter.done():
                waiter.set_result(answers[begin : begin + len(group)])
            begin += len(group)


def _most_of(waiting: list[_Waiting], most: int) -> int:
    """Return how many groups, at least one, have at most `most` rows together."""
    rows = 0
    for place, (group, _, _) in enumerate(waiting):
        rows += len(group)
        if rows > most:
            return max(place, 1)
    return len(waiting)
