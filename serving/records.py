"""Lines of JSON that are on disk before they are answered: who changed what (audit), and what was told of decisions (labels)."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

log = logging.getLogger("botsieve.serving")


class Lines:
    """A file that only grows, one JSON object a line. Without a folder the lines go to the log alone."""

    def __init__(self, folder: Path | None, name: str, now: Callable[[], float]) -> None:
        self._file, self._name, self._now = None if folder is None else folder / f"{name}.jsonl", name, now

    def add(self, **fields: Any) -> dict[str, Any]:
        """Write a line with the time, Unix s; return it. Raises OSError when it cannot be kept."""
        line = {"time": round(self._now(), 6), **fields}
        if self._file is not None:
            with self._file.open("ab") as file:
                file.write(msgspec.json.encode(line) + b"\n")
                file.flush()
                os.fsync(file.fileno())
        log.info(self._name, extra={"action": fields.get("action"), "id": fields.get("id")})
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
