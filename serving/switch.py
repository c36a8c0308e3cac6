"""The switch of all routes to shadow or enforce, kept over a restart where there is a state folder."""

from __future__ import annotations

import logging
from contextlib import suppress

import msgspec

from serving import disk
from serving.settings import Mode, Settings

FILE = "mode.json"

log = logging.getLogger("botsieve.serving")


class _Kept(msgspec.Struct):
    mode: Mode


class Switch:
    """Keeps the mode that an operator has switched to, as long as it is another than the settings say."""

    def __init__(self, settings: Settings) -> None:
        self._file = None if settings.state is None else settings.state / FILE
        self._settings = settings.mode
        self._said = {settings.mode, *(route.mode for route in settings.routes if route.mode is not None)}

    def read(self) -> Mode | None:
        """Return the mode that was switched to before the start, and log it; None for what the settings say.

        A file that cannot be read is put aside and logged: it is not worth a start that fails.
        """
        if self._file is None or not self._file.exists():
            return None
        try:
            mode = msgspec.json.decode(self._file.read_bytes(), type=_Kept).mode
        except (OSError, msgspec.MsgspecError) as error:
            aside = disk.put_aside(self._file)
            log.error(
                "the switched mode cannot be read: that of the settings holds",
                extra={"settings": self._settings, "why": str(error)[:200], "aside": aside.name},
            )
            return None
        if self._said == {mode}:
            with suppress(OSError):
                self._file.unlink()
            return None
        log.warning(
            "the mode was switched before the start and stays so", extra={"mode": mode, "settings": self._settings}
        )
        return mode

    def keep(self, mode: Mode | None) -> None:
        """Keep a mode, or nothing where the settings say the same. Raises OSError."""
        if self._file is None:
            return
        if mode is not None and self._said != {mode}:
            disk.put(self._file, msgspec.json.encode(_Kept(mode)))
        elif self._file.exists():
            self._file.unlink()
            disk.sync(self._file.parent)
