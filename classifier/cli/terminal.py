"""What a person sees while a command runs: bars and lines on standard error, results on standard output."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from classifier.model.bundle import Manifest
    from classifier.model.metrics import Metrics

ERRORS = Console(stderr=True, highlight=False, soft_wrap=True)
OUTPUT = Console(highlight=False)


def say(text: str, quiet: bool = False) -> None:
    """Print a line on standard error, unless quiet."""
    if not quiet:
        ERRORS.print(text, markup=False)


@contextmanager
def bar(what: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar; the callable takes (done, total). Nothing is shown when quiet or not on a terminal."""
    if quiet or not sys.stderr.isatty():
        say(f"{what} …", quiet)
        yield lambda done, total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[share]}"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=ERRORS) as progress:
        task = progress.add_task(what, total=None, share="")  # nothing is claimed of what has no known end

        def show(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total, share=f"{100 * done / max(total, 1):3.0f} %")

        yield show
        if progress.tasks[task].total is None:
            progress.update(task, completed=1, total=1, share="done")


class Terminal:
    """Tells a person at a terminal how a training goes on, and what came of it."""

    def __init__(self, quiet: bool, table: bool = True) -> None:
        """Say nothing if `quiet`, and print no table of decisions unless `table`."""
        self._quiet, self._table = quiet, table

    def say(self, text: str) -> None:
        """Print a line, unless quiet."""
        say(text, self._quiet)

    def bar(self, what: str) -> AbstractContextManager[Callable[[int, int], None]]:
        """Show a progress bar, unless quiet."""
        return bar(what, self._quiet)

    def result(self, metrics: Metrics, manifest: Manifest) -> None:
        """Print the table of decisions, unless quiet or without it."""
        if self._table and not self._quiet:
            from classifier.model.summary import print_summary

            thresholds: Any = manifest.thresholds
            print_summary(metrics, OUTPUT, thresholds, manifest.budgets["challenge"])


def threads_of(asked: int) -> int:
    """Return the number of threads for `--threads`: 0 is one a core that this process may use, and no more are of any use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(asked or cores, cores)
