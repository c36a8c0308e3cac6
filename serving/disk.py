"""Folders that one service has for itself, and files that are whole or not there, also after a power cut."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from classifier.errors import InputError

LOCK = ".lock"


def lock(folder: Path) -> int:
    """Keep other services out of a folder, which is made where it is missing, as long as the number returned is open.

    Raises InputError when another has it: two would write over each other's files.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        number = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(number)
            raise
    except BlockingIOError as error:
        raise InputError(
            f"{folder} is in use by another service: stop it, or give this one a folder of its own"
        ) from error
    except OSError as error:
        raise InputError(f"{folder} cannot be used: {error.strerror}; give a folder that can be written") from error
    return number


def put(path: Path, content: bytes) -> None:
    """Put a content in a file, whole and on disk, or leave the file as it was. Raises OSError."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        with suppress(OSError):
            partial.unlink()  # on a full disk the room is needed
        raise
    sync(path.parent)


def put_aside(path: Path) -> Path:
    """Let a damaged file make room for another, if that can be; return the name it has then."""
    aside = path.with_suffix(".damaged")
    with suppress(OSError):
        path.replace(aside)
    return aside


def sync(folder: Path) -> None:
    """Put on disk which files a folder has. Raises OSError."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
