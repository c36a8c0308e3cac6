"""Work on the next thing while the last one is used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Taken = TypeVar("Taken")
Made = TypeVar("Made")


def one_ahead(work: Callable[[Taken], Made], things: Iterable[Taken]) -> Iterator[Made]:
    """Yield work(thing) of each thing, in order, while a thread already works on the next one.

    At most two things are held. An error of `things` or of `work` is raised where its result was due.
    """
    with ThreadPoolExecutor(1, "ahead") as thread:
        waiting: Future[Made] | None = None
        for thing in things:
            begun = thread.submit(work, thing)
            if waiting is not None:
                yield waiting.result()
            waiting = begun
        if waiting is not None:
            yield waiting.result()
