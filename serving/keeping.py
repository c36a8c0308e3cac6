"""Keeps the engine's state on disk while the service runs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from serving.gate import Gate
from serving.snapshot import Snapshots, Writer

log = logging.getLogger("botsieve.serving")

PAUSE_S = 0.002
"""Between two pieces: a snapshot takes a small share of the loop, however large the state."""


class Keeper:
    """Writes snapshots of one gate: between requests at an interval, and at once when the service stops."""

    def __init__(self, gate: Gate, snapshots: Snapshots, now: Callable[[], float], written: float | None) -> None:
        """Keep the state of `gate`; `written` is when the snapshot was that it goes on from, Unix s."""
        self._gate, self._snapshots, self._now = gate, snapshots, now
        self._newest = now() if written is None else written
        self._writing = asyncio.Lock()
        self._closing = False

    def age(self) -> float:
        """Return what a crash would lose: s since the newest snapshot was begun, or the start; 0 before the first arrival."""
        return 0.0 if self._gate.engine.start is None else max(self._now() - self._newest, 0.0)

    async def keep(self, interval_s: float) -> None:
        """Write snapshots, until cancelled; one that is being written then goes on, and `close` waits for it.

        From the beginning of one to the end of the next `interval_s` pass, so that no profile on disk is older, as long as the
        next takes no longer than the last did. What takes more than half of the interval is written without a rest.
        """
        began, took = time.monotonic(), interval_s / 2  # as long as nobody knows how long one takes
        told = False
        while True:
            await asyncio.sleep(max(began + interval_s - took - time.monotonic(), PAUSE_S))
            began = time.monotonic()
            if self._gate.engine.start is None:
                continue
            await asyncio.shield(self.write())
            took = time.monotonic() - began
            if took > interval_s / 2 and not told:
                told = True
                log.warning(
                    "a snapshot takes longer than half of snapshot_s: profiles on disk may be older than it",
                    extra={"seconds": round(took, 3)},
                )

    async def write(self) -> None:
        """Write a snapshot in pieces, requests in between. A failure is counted and logged, and changes nothing."""
        with suppress(Exception):
            async with self._writing:
                await self._write()

    async def renew(self) -> None:
        """Write a snapshot without a client that was forgotten, then remove every other. Raises OSError: some may hold it."""
        async with self._writing:
            empty = self._gate.engine.start is None
            if not empty:
                await self._write()
            with self._counted():
                await asyncio.to_thread(self._snapshots.forget, newest=empty)

    async def close(self) -> None:
        """Write a last snapshot, after one that is being written."""
        self._closing = True
        async with self._writing:
            self.save()

    async def _write(self) -> None:
        began = self._now()
        with self._counted():
            writer = await asyncio.to_thread(Writer, self._snapshots.folder)
            with writer:
                for piece in self._snapshots.pieces(self._gate.engine, began, lambda: self._gate.runs):
                    await asyncio.to_thread(writer.write, piece)
                    await asyncio.sleep(0.0 if self._closing else PAUSE_S)
                size = await asyncio.to_thread(writer.finish)
        self._written(size, began)

    def save(self) -> None:
        """Write a snapshot at once."""
        if self._gate.engine.start is None:
            return
        began = self._now()
        with suppress(Exception):
            with self._counted():
                size = self._snapshots.save(self._gate.engine, began, lambda: self._gate.runs)
            self._written(size, began)

    def _written(self, size: int, began: float) -> None:
        self._newest = began
        self._gate.tallies.snapshots["written"] += 1
        log.info("snapshot written", extra={"bytes": size})

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Count and log a failure: of the disk, or whatever else (no thread, no memory)."""
        try:
            yield
        except OSError as error:
            self._failed(error.strerror or str(error), None)
            raise
        except Exception as error:
            self._failed(type(error).__name__, error)
            raise

    def _failed(self, why: str, error: Exception | None) -> None:
        self._gate.tallies.snapshots["failed"] += 1
        log.error("snapshot failed", exc_info=error, extra={"why": why})
