"""Keeps the engine's state on disk while the service runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from serving.gate import Gate
from serving.snapshot import Snapshots, Writer

log = logging.getLogger("botsieve.serving")

PAUSE_S = 0.002
"""Between two pieces: a snapshot takes a small share of the loop, however large the state."""


class Keeper:
    """Writes snapshots of one gate: between requests at an interval, and at once when the service stops."""

    def __init__(self, gate: Gate, snapshots: Snapshots, now: Callable[[], float]) -> None:
        self._gate, self._snapshots, self._now = gate, snapshots, now
        self._writing = asyncio.Lock()

    async def keep(self, interval_s: float) -> None:
        """Write a snapshot every `interval_s`, until cancelled."""
        while True:
            await asyncio.sleep(interval_s)
            if self._gate.engine.start is not None:
                await self.write()

    async def write(self) -> None:
        """Write a snapshot in pieces, requests in between. A failure is counted and logged, and changes nothing."""
        async with self._writing:
            await self._write()

    async def renew(self) -> None:
        """Remove the snapshots, which hold a client that was forgotten, and write one without it."""
        async with self._writing:
            self._snapshots.forget()
            if self._gate.engine.start is not None:
                await self._write()

    async def _write(self) -> None:
        try:
            writer = await asyncio.to_thread(Writer, self._snapshots.folder)
            with writer:
                for piece in self._snapshots.pieces(self._gate.engine, self._now(), lambda: self._gate.runs):
                    await asyncio.to_thread(writer.write, piece)
                    await asyncio.sleep(PAUSE_S)
                size = await asyncio.to_thread(writer.finish)
        except OSError as error:
            self._failed(error)
            return
        self._written(size)

    def save(self) -> None:
        """Write a snapshot at once."""
        if self._gate.engine.start is None:
            return
        try:
            size = self._snapshots.save(self._gate.engine, self._now(), lambda: self._gate.runs)
        except OSError as error:
            self._failed(error)
            return
        self._written(size)

    def _written(self, size: int) -> None:
        self._gate.tallies.snapshots["written"] += 1
        log.info("snapshot written", extra={"bytes": size})

    def _failed(self, error: OSError) -> None:
        self._gate.tallies.snapshots["failed"] += 1
        log.error("snapshot failed", extra={"why": error.strerror or str(error)})
