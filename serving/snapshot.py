"""The engine's state on disk: written while it moves, read back when the service starts.

A snapshot is taken in pieces of some slots, each copied whole between two requests, so that no request waits for more than
one piece. Pieces are of different moments; a profile is whole in its piece, and the requests in flight of all profiles are
counted again on reading, from the arrivals that were in flight at the end.

A file is a line of JSON (what it needs to fit), pieces of occupied slots, the arrivals in flight, a line of JSON (the clock)
and a BLAKE2b digest of it all. It takes its name when it is complete and on disk; the one before it is kept under another
name, and is read when the newest is torn. One that cannot be gone on from (torn, another key, other tables) is put aside under
a third name, so that nothing is written over it. No pickle; numbers are little-endian.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from classifier.features import layout as at
from classifier.features.engine import Engine, Tables
from classifier.features.hashing import Hasher
from classifier.features.prepare import Events
from classifier.features.spec import spec_hash
from serving.disk import sync

FORMAT = 3
STEP = 512
"""Slots of a piece: less than half a MiB to copy between two requests."""
PENDING = 2048
"""Requests in flight of a piece."""
NEWEST, PREVIOUS = "state.snapshot", "state.previous"
ASIDE, PARTIAL = ".aside", ".partial"
_DIGEST = 32
_LINE = 65_536

log = logging.getLogger("botsieve.serving")


class UnusableError(Exception):
    """A snapshot that cannot be gone on from, and why."""


@dataclass(frozen=True, slots=True)
class Clock:
    """What a snapshot knows beside the profiles: µs of the first arrival and of the clock, arrivals so far, Unix seconds of
    its writing, and the random parts of ids with the number of arrivals up to which each was given out."""

    start: float
    clock: float
    arrivals: int
    written: float
    runs: dict[str, int]


def pieces(engine: Engine, key_check: int, written: float, runs: Callable[[], dict[str, int]]) -> Iterator[bytes]:
    """Yield a snapshot of an engine that has seen an arrival, in pieces; the engine may move between two of them.

    `runs` is asked at the end, when the number of arrivals is written.
    """
    yield json.dumps(_fits(engine.tables, key_check)).encode() + b"\n"
    own, own_tags, group, group_tags = engine.arrays
    for number, (table, tags) in enumerate(((own, own_tags), (group, group_tags))):
        for first in range(0, len(tags), STEP):
            used = np.flatnonzero(tags[first : first + STEP]) + first
            if len(used):
                head = np.array([number, len(used), *used.tolist()], "<i8")
                yield head.tobytes() + tags[used].tobytes() + table[used].tobytes()
    for serials, events in engine.pending_parts(PENDING):
        yield np.array([-1, len(serials)], "<i8").tobytes() + b"".join(
            part.tobytes() for part in (serials, events.time, events.end, events.hashes, events.values)
        )
    yield np.array([-2, 0], "<i8").tobytes()
    assert engine.start is not None
    yield json.dumps([engine.start, engine.clock, engine.arrivals, written, runs()]).encode() + b"\n"


def _fits(tables: Tables, key_check: int) -> dict[str, Any]:
    widths = [at.OWN_WIDTH, at.GROUP_WIDTH]
    return {
        "botsieve": FORMAT, "spec": spec_hash(), "widths": widths, "slots": tables.as_slots(), "key": f"{key_check:016x}"
    }  # fmt: skip


class Snapshots:
    """The snapshots in one folder."""

    def __init__(self, folder: Path, secret: bytes) -> None:
        """`secret` keys the hashes; a snapshot under another one is refused. The folder is made where it is missing."""
        self.folder = folder
        self._key_check = Hasher(secret, "snapshot").of("botsieve")
        folder.mkdir(parents=True, exist_ok=True)

    def pieces(self, engine: Engine, written: float, runs: Callable[[], dict[str, int]]) -> Iterator[bytes]:
        """Yield the pieces of a snapshot for a `Writer`."""
        return pieces(engine, self._key_check, written, runs)

    def save(self, engine: Engine, written: float, runs: Callable[[], dict[str, int]]) -> int:
        """Write a snapshot at once; return its bytes. Raises OSError, and then the ones before it are as they were."""
        with Writer(self.folder) as writer:
            for piece in self.pieces(engine, written, runs):
                writer.write(piece)
            return writer.finish()

    def restore(self, tables: Tables, pending_limit: int = 1_000_000) -> tuple[Engine, Clock] | None:
        """Return an engine with these tables that goes on from the newest snapshot that fits, or None without any.

        Those that do not fit are put aside, each in place of what was aside of its name. Where only one aside fits, it is used:
        an earlier start had another key or bundle. It then stays, and what that start wrote is written over.
        """
        unfit: list[tuple[str, Exception]] = []
        found, used = None, ""
        for used in (NEWEST, PREVIOUS, NEWEST + ASIDE, PREVIOUS + ASIDE):
            try:
                found = read(self.folder / used, tables, self._key_check, pending_limit)
                break
            except FileNotFoundError:
                continue
            except (UnusableError, OSError) as error:
                unfit.append((used, error))
        told = {} if found is None else {"file": used, "seconds": max(round(time.time() - found[1].written), 0)}
        if found is not None and used.endswith(ASIDE):
            log.warning("goes on from a snapshot that had been put aside, so many seconds old", extra=told)
            return found
        for name, why in unfit:
            if not name.endswith(ASIDE):
                self._put_aside(name, str(why))
        if found is not None:
            log.info("goes on from a snapshot, so many seconds old", extra=told)
        return found

    def _put_aside(self, name: str, why: str) -> None:
        try:
            (self.folder / name).replace(self.folder / (name + ASIDE))
            log.warning("snapshot not used", extra={"file": name, "why": why, "aside": name + ASIDE})
        except OSError as error:
            why = f"{why}; and it cannot be put aside: {error.strerror}"
            log.error("snapshot not used", extra={"file": name, "why": why})

    def forget(self, *, newest: bool) -> None:
        """Remove every snapshot, those put aside too, because they may hold a client that is to be forgotten.

        The newest stays unless it is named: it was written without the client. Raises OSError.
        """
        names = [PREVIOUS, NEWEST + ASIDE, PREVIOUS + ASIDE, NEWEST + PARTIAL]
        for name in [NEWEST, *names] if newest else names:
            (self.folder / name).unlink(missing_ok=True)
        sync(self.folder)


class Writer:
    """Writes one snapshot. Leaves the folder as it was unless `finish` returns."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._partial = folder / (NEWEST + PARTIAL)
        self._file = self._partial.open("wb")
        self._digest = hashlib.blake2b(digest_size=_DIGEST)
        self._bytes = 0

    def write(self, piece: bytes) -> None:
        """Write a piece."""
        self._digest.update(piece)
        self._file.write(piece)
        self._bytes += len(piece)

    def finish(self) -> int:
        """Put the snapshot on disk and in the place of the newest, which becomes the previous one; return its bytes."""
        self._file.write(self._digest.digest())
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        newest = self._folder / NEWEST
        if newest.exists():
            newest.replace(self._folder / PREVIOUS)
        self._partial.replace(newest)
        sync(self._folder)
        return self._bytes + _DIGEST

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # of the flush, when the disk is full: the file goes anyway
            self._file.close()
        self._partial.unlink(missing_ok=True)


def read(path: Path, tables: Tables, key_check: int, pending_limit: int) -> tuple[Engine, Clock]:
    """Return the engine of a snapshot and its clock. Raises UnusableError, and FileNotFoundError without one."""
    with path.open("rb") as file:
        source = _Source(file)
        _check_fit(source.line(), _fits(tables, key_check))
        engine = Engine(tables, pending_limit=pending_limit)
        own, own_tags, group, group_tags = engine.arrays
        pending: list[tuple[npt.NDArray[Any], ...]] = []
        while True:
            number, count = source.array(2, "<i8").tolist()
            if number == -2:
                break
            if number == -1:
                pending.append(_pending(source, count))
                continue
            if not 0 <= number <= 1 or not 0 < count <= STEP:
                raise UnusableError("it is damaged")
            table, tags = ((own, own_tags), (group, group_tags))[number]
            slots = source.array(count, "<i8")
            if slots.min() < 0 or slots.max() >= len(tags):
                raise UnusableError("it is damaged")
            tags[slots] = source.array(count, "<u8")
            table[slots] = source.array(count * table.shape[1], "<f8").reshape(count, -1)
        clock = _clock(source.line())
        source.check()
    serials, time, end, hashes, values = map(np.concatenate, zip(*pending, strict=True)) if pending else _NOBODY
    events = Events(time, end, hashes, values, np.arange(len(serials)))
    engine.resume(clock.start, clock.clock, clock.arrivals, serials, events)
    return engine, clock


def _check_fit(found: Any, wanted: dict[str, Any]) -> None:
    if not isinstance(found, dict) or found.get("botsieve") != FORMAT:
        raise UnusableError("it is no snapshot of this version")
    if found.get("key") != wanted["key"]:
        raise UnusableError("it was written under another BOTSIEVE_HASH_KEY")
    if found.get("slots") != wanted["slots"]:
        raise UnusableError(f"its tables have slots {found.get('slots')}, those of the bundle {wanted['slots']}")
    if found != wanted:
        raise UnusableError("its profiles are those of other features")


def _clock(fields: Any) -> Clock:
    try:
        start, clock, arrivals, written, runs = fields
        return Clock(
            float(start), float(clock), int(arrivals), float(written), {str(k): int(v) for k, v in runs.items()}
        )
    except (TypeError, ValueError, OverflowError, AttributeError) as error:
        raise UnusableError("it is damaged") from error


def _pending(source: _Source, count: int) -> tuple[npt.NDArray[Any], ...]:
    """Return serial numbers, times, ends, hashes and values of arrivals in flight."""
    if not 0 <= count <= PENDING:
        raise UnusableError("it is damaged")
    serials, time, end = (source.array(count, "<i8") for _ in range(3))
    hashes = source.array(count * at.HASHES, "<u8").reshape(count, at.HASHES)
    values = source.array(count * at.VALUES, "<f4").reshape(count, at.VALUES)
    return serials, time, end, hashes, values


_NOBODY: tuple[npt.NDArray[Any], ...] = (
    *(np.zeros(0, np.int64) for _ in range(3)), np.zeros((0, at.HASHES), np.uint64), np.zeros((0, at.VALUES), np.float32)
)  # fmt: skip


class _Source:
    """Reads a snapshot's parts in order, and checks the digest at the end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._digest = file, hashlib.blake2b(digest_size=_DIGEST)
        self._left = os.fstat(file.fileno()).st_size - _DIGEST

    def _take(self, count: int) -> bytes:
        if count < 0 or count > self._left:
            raise UnusableError("it is torn")
        data = self._file.read(count)
        if len(data) != count:
            raise UnusableError("it is torn")
        self._left -= count
        self._digest.update(data)
        return data

    def array(self, count: int, dtype: str) -> npt.NDArray[Any]:
        return np.frombuffer(self._take(count * np.dtype(dtype).itemsize), dtype).copy()

    def line(self) -> Any:
        data = self._file.readline(_LINE)
        self._left -= len(data)
        self._digest.update(data)
        try:
            return json.loads(data)
        except ValueError as error:
            raise UnusableError("it is damaged") from error

    def check(self) -> None:
        if self._left != 0 or self._file.read() != self._digest.digest():
            raise UnusableError("its checksum is wrong")
