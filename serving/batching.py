"""Requests that arrive together share one call of the scorer.

Profiles move as soon as a request has been read; scoring is put off to the end of the event loop's turn, so it takes all
that came in during it and waits for nothing else. As long as the scorer keeps its deadline it runs right here, which costs no
switch between threads. Once it has been late, it runs in a thread of its own for a while, so that the fail mode can answer
in time and the loop goes on; it comes back when it has kept the deadline for a minute.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from serving.gate import Answer, Arrival, Gate, Judged

log = logging.getLogger("botsieve.serving")

TRUST_AFTER_S = 60.0
_Waiting = tuple[Sequence[Arrival], "asyncio.Future[list[Answer]]"]


class Batcher:
    """Collects arrivals and answers them together."""

    def __init__(
        self,
        gate: Gate,
        deadline_s: float,
        *,
        most: int = 1024,
        clock: Callable[[], float] = time.perf_counter,
        judge: Callable[[Sequence[Arrival]], Judged] | None = None,
    ) -> None:
        """Answer through `gate`; at most `most` rows go to the scorer at once. `judge` replaces the gate's, for tests."""
        self._gate, self._deadline, self._most, self._clock = gate, deadline_s, most, clock
        self._judge = judge or gate.judge
        self._waiting: list[_Waiting] = []
        self._thread: ThreadPoolExecutor | None = None
        self._busy: asyncio.Future[Judged] | None = None
        self._suspect_until = -float("inf")
        self._tasks: set[asyncio.Task[None]] = set()
        self.in_flight = 0
        self.sizes: Callable[[int], None] = lambda rows: None

    def submit(self, arrivals: Sequence[Arrival]) -> asyncio.Future[list[Answer]]:
        """Return a future of the answers to arrivals, which are scored in the loop's next turn."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Answer]] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._flush)
        self._waiting.append((arrivals, future))
        self.in_flight += len(arrivals)
        return future

    def close(self) -> None:
        """Let go of the thread, if there is one."""
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        while waiting:
            taken = _most_of(waiting, self._most)
            part, waiting = waiting[:taken], waiting[taken:]
            if self._clock() < self._suspect_until:
                task = asyncio.get_running_loop().create_task(self._aside(part))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            else:
                self._here(part)

    def _here(self, part: list[_Waiting]) -> None:
        arrivals = [arrival for group, _ in part for arrival in group]
        self.sizes(len(arrivals))
        began = self._clock()
        try:
            judged = self._judge(arrivals)
        except Exception as error:  # whatever a scorer raises, the fail mode answers
            self._fail(part, "error", error)
            return
        if self._clock() - began > self._deadline:
            self._suspect_until = self._clock() + TRUST_AFTER_S
            self._fail(part, "late")
            return
        self._answer(part, arrivals, judged)

    async def _aside(self, part: list[_Waiting]) -> None:
        arrivals = [arrival for group, _ in part for arrival in group]
        self.sizes(len(arrivals))
        if self._busy is not None and not self._busy.done():
            self._late(part)
            return
        self._thread = self._thread or ThreadPoolExecutor(1, "scorer")
        self._busy = asyncio.get_running_loop().run_in_executor(self._thread, self._judge, arrivals)
        try:
            judged = await asyncio.wait_for(asyncio.shield(self._busy), self._deadline)
        except TimeoutError:
            self._busy.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._late(part)
        except Exception as error:
            self._fail(part, "error", error)
        else:
            self._answer(part, arrivals, judged)

    def _late(self, part: list[_Waiting]) -> None:
        self._suspect_until = self._clock() + TRUST_AFTER_S
        self._fail(part, "late")

    def _answer(self, part: list[_Waiting], arrivals: list[Arrival], judged: Judged) -> None:
        try:
            answers = self._gate.answer(arrivals, judged)
        except Exception as error:
            self._fail(part, "error", error)
            return
        self._deliver(part, answers)

    def _fail(self, part: list[_Waiting], cause: str, error: Exception | None = None) -> None:
        log.error("scoring failed", extra={"cause": cause, "error": type(error).__name__ if error else None})
        self._deliver(part, self._gate.fail([arrival for group, _ in part for arrival in group], cause))

    def _deliver(self, part: list[_Waiting], answers: list[Answer]) -> None:
        begin = 0
        for group, future in part:
            self.in_flight -= len(group)
            if not future.done():  # cancelled: nobody waits for it any more
                future.set_result(answers[begin : begin + len(group)])
            begin += len(group)


def _most_of(waiting: list[_Waiting], most: int) -> int:
    """Return how many groups, at least one, have at most `most` rows together."""
    rows = 0
    for place, (group, _) in enumerate(waiting):
        rows += len(group)
        if rows > most:
            return max(place, 1)
    return len(waiting)
