"""Lines of JSON that are on disk before they are answered: who changed what (audit), and what was told of decisions (labels)."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from serving.problems import Problem

log = logging.getLogger("botsieve.serving")


class Lines:
    """A file that only grows, one JSON object a line. Without a folder the lines go to the log alone."""

    def __init__(self, folder: Path | None, name: str, now: Callable[[], float]) -> None:
        self._file, self._name, self._now = None if folder is None else folder / f"{name}.jsonl", name, now
        self._adding = threading.Lock()

    @property
    def kept(self) -> bool:
        """Whether there is a file."""
        return self._file is not None

    def add(self, **fields: Any) -> dict[str, Any]:
        """Write a line with the time, Unix s; return it. Raises OSError when it cannot be kept.

        It waits for the disk, so call it in another thread than that of the requests.
        """
        line = {"time": round(self._now(), 6), **fields}
        if self._file is not None:
            data = msgspec.json.encode(line) + b"\n"
            with self._adding, self._file.open("a+b", buffering=0) as file:
                before = file.tell()
                if before and os.pread(file.fileno(), 1, before - 1) != b"\n":
                    data = b"\n" + data  # the last was torn by a crash
                try:
                    if file.write(data) != len(data):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    os.fsync(file.fileno())
                except OSError:
                    with suppress(OSError):
                        file.truncate(before)  # what is refused leaves no line
                    raise
        log.info(self._name, extra=fields)  # of which the log takes what is no address, account or text: logs.FIELDS
        return line

    def newest(self, most: int) -> list[dict[str, Any]]:
        """Return the newest lines, newest first; one that was torn by a crash is left out."""
        if self._file is None or not self._file.exists():
            return []
        with self._file.open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - 4096 * most, 0))
            lines = file.read().splitlines()[-most:]
        found: list[dict[str, Any]] = []
        for line in reversed(lines):
            try:
                found.append(msgspec.json.decode(line, type=dict[str, Any]))
            except msgspec.MsgspecError:
                continue
        return found


@contextmanager
def on_disk() -> Iterator[None]:
    """Turn a full or broken disk into a problem that says so."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        raise Problem(507, "disk", f"this could not be kept on disk, and is not in force: {why}") from error


@asynccontextmanager
async def audited(audit: Lines, action: str, **fields: Any) -> AsyncIterator[None]:
    """Put a line in the audit, then let it take effect; where that fails a line `failed` follows. Raises Problem 507."""
    with on_disk():
        await asyncio.to_thread(audit.add, action=action, **fields)
        try:
            yield
        except Exception as error:
            with suppress(OSError):
                await asyncio.to_thread(audit.add, action="failed", of=action, **fields, why=str(error))
            raise
