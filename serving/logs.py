"""Logs of the service: one JSON object a line on standard error. No prompts, no addresses, no credentials, no bodies."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

FIELDS = (
    "action", "address", "aside", "before", "bundle", "bytes", "cause", "clock", "decision", "error", "expires",
    "file", "folder", "host", "id", "journal", "kind", "list", "mode", "of", "port", "providers", "reason", "route",
    "rows", "seconds", "settings", "status", "warming_up", "why",
)  # fmt: skip
"""All that a line may carry beside time, level, logger and message: what is not named here is not written."""


class JsonLines(logging.Formatter):
    """Formats a record as JSON. An exception is written by its type and place, never by its text or its values."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: getattr(record, name) for name in FIELDS if getattr(record, name, None) is not None}
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            line["at"] = _place(record.exc_info[2])
        return json.dumps(line, default=str)


def _place(traceback: object) -> list[str]:
    """Return the innermost frames of a traceback as file:line."""
    places = []
    while traceback is not None:
        frame = traceback.tb_frame  # type: ignore[attr-defined]
        places.append(f"{frame.f_code.co_filename.rpartition('/')[2]}:{traceback.tb_lineno}")  # type: ignore[attr-defined]
        traceback = traceback.tb_next  # type: ignore[attr-defined]
    return places[-5:]


def configure(level: str) -> None:
    """Send the service's and uvicorn's logs to standard error as JSON; uvicorn's access log, which has addresses, is off."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in ("botsieve", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level.upper())
    access = logging.getLogger("uvicorn.access")
    access.handlers, access.propagate, access.disabled = [], False, True
