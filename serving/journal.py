"""The journal: every transition as it was processed, with what was answered, and never a prompt.

Rows go to a thread of their own, which appends them to a segment (`….part`, an Arrow stream) at least once a second and turns it
into a Parquet file when it is large or old. A crash loses at most the last second: a segment that was left behind becomes a
Parquet file at the next start, and one whose end could not be written becomes it with the next segment. Rows that cannot be
written are counted and dropped; no request waits for the disk, and memory has a bound: files are read and written in row groups.
`classifier.logs.journal` reads it back.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from ipaddress import IPv6Address
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from classifier.errors import LogError
from classifier.events import MICROSECONDS, Event
from classifier.features import layout as at
from classifier.logs.journal import (
    ARRIVAL,
    ARRIVAL_FIELDS,
    COMPLETION,
    COMPLETION_FIELDS,
    EXPIRY,
    FIRST,
    RUN,
    SOLVED,
    TRANSITIONS,
    files_of,
    is_journal,
    metadata,
)  # fmt: skip

if TYPE_CHECKING:
    from serving.gate import Arrival, Decided

BATCH_ROWS = 512
WAITING_ROWS = 262_144
"""Rows that may wait for the disk; later ones are dropped."""
WAITING_CHARACTERS = 64_000_000
"""Characters of texts that may wait, of the rows after the first `UNCOUNTED_ROWS`: a quick disk costs no counting."""
UNCOUNTED_ROWS = 4_096
FILE_BYTES = 128 << 20
"""Bytes of a segment after which it becomes a file: how long the texts are is up to clients."""
GROUP_BYTES = 16 << 20
"""Bytes of a row group; a file is turned into another one group at a time."""
FLUSH_S, FILE_S = 1.0, 3600.0
BELIEVED_S = 86_400.0
"""By how much the machine's clock may be ahead of the newest file where old ones are removed."""
PART, WRITING = ".part", ".writing"
_PSEUDONYMS = int(IPv6Address("fdb0:75::"))
"""Addresses are written as those of this network, which is nobody's (RFC 4193), with the keyed hash as the lower half."""
_NO_ARRIVAL = (None,) * (1 + len(ARRIVAL_FIELDS))
_NO_COMPLETION = (None,) * len(COMPLETION_FIELDS)
_NO_ANSWER = (None,) * (len(TRANSITIONS) - 4 - len(ARRIVAL_FIELDS) - len(COMPLETION_FIELDS))

log = logging.getLogger("botsieve.serving")


class Journal:
    """Writes the journal of one start of a service."""

    def __init__(
        self,
        folder: Path,
        run: str,
        first: int,
        now: Callable[[], float],
        tally: Counter[str],
        *,
        days: float,
        pseudonyms: bool = False,
        rows_per_file: int = 262_144,
    ) -> None:
        """Begin a journal in a folder, which is made where it is missing, and finish what an earlier start left.

        `run` names this start and `first` is its first serial number; `now` gives Unix seconds. `tally` counts rows
        "written", "dropped" and "failed". Files older than `days` are removed; one is finished at `rows_per_file` or
        `FILE_BYTES`, or after `FILE_S`. Raises OSError where the folder cannot be made.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._run, self._first, self._now, self._tally = folder, run, first, now, tally
        self._days, self._pseudonyms, self._most = days, pseudonyms, rows_per_file
        self._schema = TRANSITIONS.with_metadata(metadata(run, first))
        self._rows: list[tuple[Any, ...]] = []
        # Rows and characters given to the thread, and done with by it: each is counted by one side.
        self._handed = self._settled = 0
        self._handed_characters = self._settled_characters = 0
        tally.update(written=0, failed=0, dropped=0)
        self._thread = ThreadPoolExecutor(1, "journal")
        self._segment: _Segment | None = None
        self._number = 0
        self._failing: str | None = None  # why rows cannot be written: a full disk fills no log
        self._rotate()

    # --- what is seen (the event loop) -----------------------------------------------------------------------------------

    def arrived(self, arrival: Arrival, decided: Decided) -> None:
        """Take an arrival that has been answered."""
        event, hashes = arrival.event, arrival.hashes.tolist()
        fields = [getattr(event, name) for name in ARRIVAL_FIELDS]
        if self._pseudonyms:
            fields[_IP] = str(IPv6Address(_PSEUDONYMS + hashes[at.H_ADDRESS]))
            fields[_ACCOUNT] = None if fields[_ACCOUNT] is None else f"account-{hashes[at.H_CLIENT]:016x}"
        length = arrival.prompt_length
        template = None if length is None else hashes[at.H_TEMPLATE]
        self._add((
            ARRIVAL, arrival.time, arrival.serial, arrival.id, *fields, *_NO_COMPLETION, hashes[at.H_CLIENT],
            hashes[at.H_ADDRESS], hashes[at.H_NETWORK], template, length, arrival.prompt_score, decided.raw, decided.probability,
            decided.score,
            decided.decision, decided.enforced, " ".join(decided.reasons), decided.bundle,
        ))  # fmt: skip

    def ended(self, serial: int, moment: int, completion: Event | None) -> None:
        """Take the end of an arrival; without a completion it expired."""
        fields = _NO_COMPLETION if completion is None else [getattr(completion, name) for name in COMPLETION_FIELDS]
        kind = EXPIRY if completion is None else COMPLETION
        self._add((kind, moment, serial, *_NO_ARRIVAL, *fields, *_NO_ANSWER))

    def solved(self, serial: int) -> None:
        """Take note that the challenge of a request was solved."""
        moment = round(self._now() * MICROSECONDS)
        self._add((SOLVED, moment, serial, *_NO_ARRIVAL, *_NO_COMPLETION, *_NO_ANSWER))

    def _add(self, row: tuple[Any, ...]) -> None:
        self._rows.append(row)
        if len(self._rows) >= BATCH_ROWS:
            self.flush()

    def flush(self) -> None:
        """Hand what has gathered to the thread."""
        rows, self._rows = self._rows, []
        if not rows:
            return
        waiting = self._handed - self._settled
        characters = (
            0 if waiting < UNCOUNTED_ROWS else sum(len(text) for row in rows for text in row if type(text) is str)
        )
        if (
            waiting > WAITING_ROWS
            or self._handed_characters - self._settled_characters + characters > WAITING_CHARACTERS
        ):
            self._tally["dropped"] += len(rows)
            return
        self._handed += len(rows)
        self._handed_characters += characters
        self._thread.submit(self._write, rows, characters)

    async def keep(self) -> None:
        """Write what gathers in quiet times, and remove what is too old, until cancelled."""
        began = -1e9
        while True:
            self.flush()
            if time.monotonic() - began >= 600.0:
                began = time.monotonic()
                self._thread.submit(self._expire)
            await asyncio.sleep(FLUSH_S)

    async def forget(self, clients: Collection[str]) -> bool:
        """Remove clients (16 hex digits each) from every file; return whether one was in it. Raises OSError.

        It is done a file at a time, and what is waiting is written in between.
        """
        self.flush()
        left = await asyncio.wrap_future(self._thread.submit(self._rotate))
        forgotten = _Forgotten([int(client, 16) for client in clients])
        for path in files_of(self._folder):
            try:
                await asyncio.wrap_future(self._thread.submit(forgotten.leave, path))
            except (OSError, pa.ArrowException, LogError) as error:
                left.append(f"{path.name}: {_why(error)}")
        if left:
            raise OSError(f"{left[0]}; and {len(left) - 1} others" if len(left) > 1 else left[0])
        return forgotten.found

    def close(self) -> None:
        """Write what is left and finish the file."""
        self.flush()
        self._thread.submit(self._rotate)
        self._thread.shutdown()

    # --- what is done with it (the thread) -------------------------------------------------------------------------------

    def _write(self, rows: list[tuple[Any, ...]], characters: int) -> None:
        try:
            columns = [
                pa.array(values, field.type) for values, field in zip(zip(*rows, strict=True), TRANSITIONS, strict=True)
            ]
            self._append(pa.record_batch(columns, schema=self._schema))
            self._tally["written"] += len(rows)
            if self._failing is not None:
                self._failing = None
                log.warning("journal is written again; what failed meanwhile is lost")
        except Exception as error:  # whatever it is: nobody looks at what this thread raises
            self._tally["failed"] += len(rows)
            if self._failing != (why := _why(error)):
                self._failing = why
                log.error("journal failed", extra={"why": why})
        finally:
            self._settled += len(rows)
            self._settled_characters += characters
        segment = self._segment
        if segment is not None and (
            segment.rows >= self._most or segment.bytes >= FILE_BYTES or time.monotonic() - segment.began >= FILE_S
        ):
            self._rotate()

    def _append(self, batch: pa.RecordBatch) -> None:
        """Add rows to the segment. One whose end cannot be written is left for `_rotate`, and the next rows begin another."""
        segment, self._segment = self._segment or self._begin(), None
        try:
            segment.write(batch)
        except BaseException:
            segment.abandon()
            raise
        self._segment = segment

    def _begin(self) -> _Segment:
        stamp = datetime.fromtimestamp(self._now(), UTC).strftime("%Y%m%dT%H%M%SZ")
        self._number += 1
        return _Segment(self._folder / f"{stamp}-{self._run}-{self._number:06d}{PART}", self._schema)

    def _rotate(self) -> list[str]:
        """Finish the segment, and those that could not be finished before; return which still cannot be, and why."""
        segment, self._segment = self._segment, None
        if segment is not None:
            with suppress(OSError, pa.ArrowException):
                segment.close()
        left = []
        torn = self._folder.glob(f"*{WRITING}")  # of a killed service; what it was made of is there
        for path in chain(torn, sorted(self._folder.glob(f"*{PART}"))):
            try:
                if path.suffix == PART:
                    _finish(path)
                else:
                    path.unlink()
            except Exception as error:  # the others are finished all the same
                log.error("journal failed", extra={"why": _why(error), "file": path.name})
                left.append(f"{path.name}: {_why(error)}")
        return left

    def _expire(self) -> None:
        """Remove what is too old. A clock that is far ahead of the newest file is not believed: machines start with any date."""
        ages: dict[Path, float] = {}
        for path in files_of(self._folder):
            with suppress(OSError):
                ages[path] = path.stat().st_mtime
        oldest = min(time.time(), max(ages.values(), default=0.0) + BELIEVED_S) - self._days * 86_400.0
        for path, age in ages.items():
            with suppress(OSError, LogError):
                if age < oldest and is_journal(path):
                    path.unlink()


class _Forgotten:
    """Takes clients out of files, which are to be given in their order."""

    def __init__(self, keys: list[int]) -> None:
        self.found = False
        self._keys = pa.array(keys, pa.uint64())
        self._serials = np.zeros(0, np.int64)  # of their arrivals so far: what ended them may lie in a later file
        self._run: bytes | None = None

    def leave(self, path: Path) -> None:
        """Take them out of a file, if it is of a journal. Raises OSError, ArrowException or LogError."""
        if not is_journal(path):
            return
        with pq.ParquetFile(path) as file:
            table = file.read(["kind", "serial", "client_key"])
            told = file.schema_arrow.metadata or {}
            if told.get(RUN) != self._run:  # from its first number on, a start gives numbers out anew
                self._run = told.get(RUN)
                self._serials = self._serials[self._serials < int(told.get(FIRST, b"0"))]
            serial = table.column("serial")
            theirs = pc.fill_null(pc.is_in(table.column("client_key"), self._keys), False)
            self._serials = np.union1d(self._serials, serial.filter(theirs).to_numpy())
            ended = pc.and_(pc.is_in(serial, pa.array(self._serials)), pc.not_equal(table.column("kind"), ARRIVAL))
            gone = pc.or_(theirs, ended).to_numpy()
            if gone.any():
                self.found = True
                _put(path, file.schema_arrow, _without(file, gone), path.stat().st_mtime)


class _Segment:
    """A file that rows are appended to; what has been written can be read after a crash."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path, self.rows, self.bytes, self.began = path, 0, 0, time.monotonic()
        self._file = path.open("xb")
        self._writer = pa.ipc.new_stream(self._file, schema)

    def write(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch)
        self._file.flush()
        self.rows += batch.num_rows
        self.bytes = self._file.tell()

    def close(self) -> None:
        try:
            self._writer.close()
        finally:
            self._file.close()

    def abandon(self) -> None:
        """Close it where it cannot be written to; without a row there is nothing to keep of it."""
        with suppress(OSError, pa.ArrowException):
            self.close()
        if not self.rows:
            with suppress(OSError):
                self.path.unlink()


def _why(error: Exception) -> str:
    told = error.strerror if isinstance(error, OSError) else None  # another's text may hold what a row does
    return told or type(error).__name__


def _finish(part: Path) -> None:
    """Turn a segment into a Parquet file of the same age, then remove it.

    It stays where that fails, or where it is damaged before its end; what was torn off there is left out.
    """
    batches = _batches(part)
    first = next(batches, None)
    if first is not None:
        age = part.stat().st_mtime
        _put(part.with_suffix(".parquet"), first.schema, chain([first], batches), age)
    part.unlink()


def _batches(part: Path) -> Iterator[pa.RecordBatch]:
    """Yield what a segment holds, as far as it was written."""
    with part.open("rb") as file:
        try:
            with pa.ipc.open_stream(file) as stream:
                yield from stream
        except (pa.ArrowException, OSError) as error:
            system = isinstance(error, OSError) and error.errno is not None  # Arrow's own have no number
            if system or file.tell() < part.stat().st_size:
                raise


def _without(file: pq.ParquetFile, gone: npt.NDArray[np.bool_]) -> Iterator[pa.RecordBatch]:
    """Yield a file without the rows that are `gone`."""
    begin = 0
    for batch in file.iter_batches(BATCH_ROWS):
        here = gone[begin : begin + batch.num_rows]
        yield batch.filter(pa.array(~here)) if here.any() else batch
        begin += batch.num_rows


def _put(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch], age: float) -> None:
    """Write a Parquet file, whole and on disk, or leave what was there; its time becomes `age` (Unix s)."""
    partial = path.with_suffix(WRITING)
    try:
        with partial.open("wb") as file:
            with pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True) as writer:
                for group in _groups(batches):
                    writer.write_table(pa.Table.from_batches(group, schema))
            file.flush()
            os.fsync(file.fileno())
        os.utime(partial, (age, age))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _groups(batches: Iterable[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    """Yield batches together, about `GROUP_BYTES` each time."""
    group: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        group.append(batch)
        size += batch.nbytes
        if size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


_IP, _ACCOUNT = ARRIVAL_FIELDS.index("ip"), ARRIVAL_FIELDS.index("account")
