"""What became of the lines: running totals, and the file in which rejects are noted.

A line is *read* when it holds more than blanks; every line read is accepted or rejected, so read = accepted + rejected
at any moment. A compressed stream that breaks off counts as one more line read, and rejected.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple

from classifier.errors import LogError

CONTENT_BYTES = 1_024
"""How much of a rejected line is kept where the user asks for its content."""


@dataclass
class FileReading:
    """One file: its path, format, which end of the request its stamps mark, and how many lines were read.

    `note` is what to know of its keys; `broken` says why its compressed stream ended early, if it did.
    """

    path: Path
    format: str
    stamp: str
    lines: int = 0
    note: str = ""
    broken: str | None = None


@dataclass
class Reading:
    """Running totals over the files of one call, filled while its events are iterated."""

    read: int = 0
    accepted: int = 0
    rejected: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    files: list[FileReading] = field(default_factory=list)

    def accept(self, rows: int) -> None:
        """Count accepted lines of the newest file."""
        self.read += rows
        self.accepted += rows
        self.files[-1].lines += rows

    def reject(self, reason: str) -> None:
        """Count one rejected line of the newest file."""
        self.read += 1
        self.rejected += 1
        self.reasons[reason] += 1
        self.files[-1].lines += 1


class Reject(NamedTuple):
    """A line turned down: its number from 1, byte offset in the unpacked stream (None in tables), why, and itself."""

    line: int
    offset: int | None
    reason: str
    content: bytes | None


class RejectFile:
    """The JSON Lines file of rejects: file, line, offset, reason; content only where the user asked to keep it.

    It is made with the first reject; one of an earlier run is emptied at once.
    """

    def __init__(self, path: Path | None, keep: bool) -> None:
        self._path, self._keep = path, keep
        self._file: IO[str] | None = self._open(path) if path and path.exists() else None

    def note(self, file: Path, reject: Reject) -> None:
        """Write one reject."""
        if self._path is None:
            return
        if self._file is None:
            self._file = self._open(self._path)
        entry = {"file": str(file), "line": reject.line, "offset": reject.offset, "reason": reject.reason}
        if self._keep and reject.content is not None:
            entry["content"] = reject.content[:CONTENT_BYTES].rstrip(b"\r\n").decode("utf-8", "backslashreplace")
        self._file.write(json.dumps(entry) + "\n")

    @staticmethod
    def _open(path: Path) -> IO[str]:
        try:
            return path.open("w", encoding="utf-8")
        except OSError as error:
            raise LogError(
                f"rejected lines cannot be noted in {path} ({error.strerror}); name a file that can be written with --rejects"
            ) from error

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
