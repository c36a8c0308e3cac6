"""The record of solutions that have been used, on disk before anyone is told.

One SQLite file in write-ahead mode with `synchronous = FULL`: when `spend` returns, the id has been flushed, and taken over from
the log beside the file, so neither `kill -9` nor a power cut nor the loss of that log makes a solution new again. Ids leave when
their challenge has expired, and at most `capacity` of them are held.

A record that is lost, damaged or put behind its own past cannot say any more what was spent. Each record therefore has an
**epoch**, a random number that every challenge carries; when the record begins anew so does the epoch, and challenges of
another epoch are refused. People who were solving one get a new one; nobody gets a second use.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import sqlite3
import threading
import weakref
from pathlib import Path

from classifier.errors import BotsieveError, InputError

# Ids are kept this much longer than they need to be, so that a clock set back by less does no harm.
GRACE_S = 60.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS spent (id BLOB PRIMARY KEY, expires REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS spent_by_expiry ON spent (expires);
CREATE TABLE IF NOT EXISTS record (one INTEGER PRIMARY KEY CHECK (one = 1), epoch BLOB NOT NULL, forgotten REAL NOT NULL);
"""

_log = logging.getLogger("botsieve.serving")


class SpentError(BotsieveError):
    """The record is full or cannot be written, so nothing may be counted as spent."""


class Spent:
    """Ids of used solutions, durable and bounded. Safe under threads and under processes that share the file.

    `path` is the file, made where it is missing; `capacity` the most ids that are held at once (about 70 bytes each).
    InputError: the folder cannot be written.
    """

    def __init__(self, path: Path, capacity: int) -> None:
        self._path = path
        self._capacity = capacity
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = self._open()
        except (OSError, sqlite3.OperationalError) as problem:
            raise InputError(
                f"the record of spent challenges {path} cannot be opened ({problem}): give a folder that can be written"
            ) from problem
        weakref.finalize(self, self._database.close)  # for whoever forgets the record without closing it
        self._rows = int(self._database.execute("SELECT count(*) FROM spent").fetchone()[0])
        self._epoch, self._forgotten = self._read_record()

    def epoch(self, now: float) -> bytes:
        """The epoch that a challenge issued at `now` has to carry (8 bytes).

        Begins a new one when the clock stands before ids that were already forgotten: those could be spent again.
        """
        if now < self._forgotten:
            with self._lock:
                if now < self._forgotten:
                    self._begin(now)
        return self._epoch

    def spend(self, identity: bytes, epoch: bytes, expires: float, now: float) -> str | None:
        """Write that `identity` is used, flushed to disk. None the first time, then "spent".

        "expired" where the record cannot say: the epoch is another, or ids of that age have been forgotten. `expires` and
        `now` are Unix seconds. SpentError: it could not be recorded; it then is not spent.
        """
        with self._lock:
            try:
                return self._spend(identity, epoch, expires, now)
            except sqlite3.Error as problem:
                raise self._failed(problem) from problem

    def __len__(self) -> int:
        with self._lock:
            return int(self._database.execute("SELECT count(*) FROM spent").fetchone()[0])

    def close(self) -> None:
        """Close the file. What was spent is on disk already."""
        with self._lock:
            self._database.close()

    def _spend(self, identity: bytes, epoch: bytes, expires: float, now: float) -> str | None:
        run = self._database.execute
        run("BEGIN IMMEDIATE")
        self._epoch, forgotten = self._read_record()
        gone = run("DELETE FROM spent WHERE expires < ?", (now - GRACE_S,)).rowcount
        if gone:
            forgotten = max(forgotten, now - GRACE_S)
            run("UPDATE record SET forgotten = ?", (forgotten,))
        current = epoch == self._epoch and expires >= forgotten
        if current and self._rows - gone >= self._capacity:
            run("ROLLBACK")
            raise SpentError(f"the record of spent challenges {self._path} is full ({self._capacity} ids)")
        first = current and run("INSERT OR IGNORE INTO spent VALUES (?, ?)", (identity, expires)).rowcount == 1
        run("COMMIT")
        self._move()
        self._forgotten = forgotten
        self._rows += int(first) - gone
        if not current:
            return "expired"
        return None if first else "spent"

    def _begin(self, forgotten: float) -> None:
        epoch = secrets.token_bytes(8)
        try:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.execute("DELETE FROM spent")  # of an epoch that nobody accepts any more
            self._database.execute("UPDATE record SET epoch = ?, forgotten = ?", (epoch, forgotten))
            self._database.execute("COMMIT")
            self._move()
        except sqlite3.Error as problem:
            raise self._failed(problem) from problem
        self._epoch, self._forgotten, self._rows = epoch, forgotten, 0

    def _move(self) -> None:
        """Take what was committed over into the file itself: the log beside it could get lost unnoticed, with what is in it."""
        with contextlib.suppress(sqlite3.Error):  # it is durable, and the next takes it over
            self._database.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _failed(self, problem: sqlite3.Error) -> SpentError:
        with contextlib.suppress(sqlite3.Error):
            self._database.execute("ROLLBACK")
        return SpentError(f"the record of spent challenges {self._path} cannot be written: {problem}")

    def _read_record(self) -> tuple[bytes, float]:
        epoch, forgotten = self._database.execute("SELECT epoch, forgotten FROM record").fetchone()
        return bytes(epoch), float(forgotten)

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.OperationalError:
            raise  # locked, or not writable: not the file's fault
        except sqlite3.DatabaseError as problem:
            aside = self._path.with_name(self._path.name + ".damaged")
            _log.warning("%s is damaged (%s): moved to %s, outstanding challenges end", self._path, problem, aside.name)
            self._path.replace(aside)
            for part in ("-wal", "-shm"):
                self._path.with_name(self._path.name + part).unlink(missing_ok=True)
            return self._connect()

    def _connect(self) -> sqlite3.Connection:
        self._path.touch(mode=0o600)
        database = sqlite3.connect(self._path, timeout=5.0, isolation_level=None, check_same_thread=False)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            verdict = database.execute("PRAGMA quick_check(1)").fetchone()[0]
            if verdict != "ok":
                raise sqlite3.DatabaseError(verdict)
            database.executescript(_SCHEMA)
            database.execute("INSERT OR IGNORE INTO record VALUES (1, ?, 0)", (secrets.token_bytes(8),))
        except BaseException:
            database.close()
            raise
        return database
