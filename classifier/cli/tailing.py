"""`botsieve tail`: tells a service how requests ended, from a gateway's access log in JSON.

Reads what the configurations of nginx, Caddy and Envoy in `serving/gateways/` write. A line without an id was not guarded and is
skipped. The log may be rotated or truncated; while the service does not answer, or refuses the token, lines wait in the file.
"""

from __future__ import annotations

import glob
import json
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from classifier.cli.files import check_spared, complete_or_nothing
from classifier.cli.replaying import Service, Unreachable
from classifier.cli.terminal import say
from classifier.errors import BotsieveError, InputError
from classifier.events import MAX_COUNT, VERDICTS
from classifier.logs.lines import MAX_LINE

GROUP = 256
"""Most completions in a request."""
POLL_S = 0.2
LONGEST_WAIT_S = 30.0
_IDS = ("botsieve_id", "x-botsieve-id", "x_botsieve_id")


def run(path: Path, url: str, once: bool, quiet: bool, position: Path | None = None) -> None:
    """Follow the log, from its end on; with `once`, send all of it and stop. `position` keeps how far it was sent."""
    if not path.is_file():
        raise InputError(f"{path} is no file: name the access log that the gateway writes")
    check_spared([position], [path])
    service = Service(url)
    tail, log = Tail(service.post), Lines(path, from_start=once, position=position)
    try:
        for lines in log.read(once):
            tail.send(lines)
    except KeyboardInterrupt:
        pass
    finally:
        service.close()
    counts = tail.counts
    say(
        f"read {counts['read']:,} lines = sent {counts['sent']:,} + without an id {counts['skipped']:,}"
        f" + refused or unreadable {counts['rejected']:,}",
        quiet,
    )


def completion_of(line: bytes) -> dict[str, Any] | None:
    """Return the completion in a line, None if the request was not guarded.

    Raises ValueError, TypeError, OverflowError or RecursionError for what is no such line.
    """
    entry = json.loads(line)
    if not isinstance(entry, dict):
        raise ValueError("no object")
    found = next((entry[name] for name in _IDS if entry.get(name)), None)
    enforced = entry.get("enforced") or None
    if found is None:
        found, enforced = _of_headers(entry.get("resp_headers")), None
    if not found:
        return None
    if not isinstance(found, str) or len(found) > 64 or not found.isascii():
        raise ValueError("no id")
    if enforced not in (None, *VERDICTS):
        raise ValueError("no verdict")
    completion = {
        "id": found, "status": _whole(entry.get("status")), "duration": _seconds(entry.get("duration"), entry.get("duration_ms")),
        "response_bytes": _whole(entry.get("response_bytes", entry.get("size"))), "verdict": enforced,
    }  # fmt: skip
    return {name: value for name, value in completion.items() if value is not None}


def _of_headers(headers: Any) -> Any:
    """Return the id among the headers of an answer, as Caddy logs them: lists of values by name."""
    for name, values in headers.items() if isinstance(headers, dict) else ():
        if name.lower() == "x-botsieve-id" and isinstance(values, list) and values:
            return values[0]
    return None


def _whole(value: Any) -> int | None:
    if value is None or value == "":
        return None
    number = int(value)
    if not 0 <= number <= MAX_COUNT:
        raise ValueError("no count")
    return number


def _seconds(value: Any, milliseconds: Any) -> float | None:
    if value is None or value == "":
        if milliseconds is None:
            return None
        value = float(milliseconds) / 1e3
    number = float(value)
    if not math.isfinite(number) or number < 0:
        raise ValueError("no duration")
    return number


class Tail:
    """Sends the completions of lines, and counts: read = sent + skipped + rejected."""

    def __init__(self, post: Callable[[str, Any], Any], sleep: Callable[[float], None] = time.sleep) -> None:
        self._post, self._sleep = post, sleep
        self.counts: Counter[str] = Counter()

    def send(self, lines: list[bytes]) -> None:
        """Send the completions of some lines; wait for a service that does not answer, or not about them."""
        found = []
        for line in lines:
            self.counts["read"] += 1
            try:
                completion = completion_of(line)
            except (ValueError, TypeError, OverflowError, RecursionError):
                self.counts["rejected"] += 1
                continue
            if completion is None:
                self.counts["skipped"] += 1
            else:
                found.append(completion)
        for begin in range(0, len(found), GROUP):
            self._send(found[begin : begin + GROUP])

    def _send(self, completions: list[dict[str, Any]]) -> None:
        wait = 0.25
        while True:
            try:
                self._post("/v1/complete", completions)
            except Unreachable as error:
                if wait == 0.25:
                    say(f"{error}; waiting", False)
                self._sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT_S)
                continue
            except BotsieveError as error:
                if len(completions) > 1:  # one that is refused must not take the others with it
                    for completion in completions:
                        self._send([completion])
                    return
                self.counts["rejected"] += 1
                say(str(error), False)
                return
            self.counts["sent"] += len(completions)
            return


class Lines:
    """Follows a file by its name, through rotation and truncation."""

    def __init__(self, path: Path, *, from_start: bool, position: Path | None = None) -> None:
        """Begin where `position` says, if there is such a file, and keep it. Raises InputError when it cannot be kept."""
        self._path, self._rest, self._position = path, b"", position
        kept = _kept(position)
        self._file: BinaryIO = _with_inode(path, kept[0] if kept else None).open("rb")
        status = os.fstat(self._file.fileno())
        if kept and kept[0] == status.st_ino and kept[1] <= status.st_size:
            self._file.seek(kept[1])
        elif not kept and not from_start:
            self._file.seek(0, os.SEEK_END)
        try:
            self._keep()
        except OSError as error:
            self._file.close()
            raise InputError(f"the position cannot be written to {position} ({error.strerror})") from error

    def read(self, once: bool, sleep: Callable[[float], None] = time.sleep) -> Iterator[list[bytes]]:
        """Yield whole lines as they come; with `once`, until the file's end. What was yielded is done with when it goes on."""
        try:
            while True:
                if lines := self._new():
                    yield lines
                    self._keep()
                elif self._renewed():
                    continue
                elif once:
                    if self._rest:
                        lines, self._rest = [self._rest], b""
                        yield lines
                        self._keep()
                    return
                else:
                    sleep(POLL_S)
        finally:
            self._file.close()

    def _new(self) -> list[bytes]:
        data = self._file.read(MAX_LINE)
        if not data:
            return []
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE:
            lines, self._rest = [*lines, self._rest], b""
        return [line for line in lines if line.strip()]

    def _renewed(self) -> bool:
        """Go on with the file of this name, if it is another one by now, or has been cut."""
        here = os.fstat(self._file.fileno())
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return False
        if (here.st_ino, here.st_dev) != (there.st_ino, there.st_dev):
            if self._file.read(1):  # written between our last look and the rotation
                self._file.seek(-1, os.SEEK_CUR)
                return True
            fresh = self._path.open("rb")
            self._file.close()
            self._file = fresh
            if self._rest:
                self._rest += b"\n"
            return True
        if there.st_size < self._file.tell():
            self._file.seek(0)
            self._rest = b""
            return True
        return False

    def _keep(self) -> None:
        if self._position is None:
            return
        told = {"inode": os.fstat(self._file.fileno()).st_ino, "offset": self._file.tell() - len(self._rest)}
        with complete_or_nothing(self._position) as partial:
            partial.write_text(json.dumps(told), encoding="utf-8")


def _kept(position: Path | None) -> tuple[int, int] | None:
    """Return inode and offset out of a position file, None without one."""
    if position is None or not position.exists():
        return None
    try:
        told = json.loads(position.read_bytes())
        inode, offset = told["inode"], told["offset"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{position} holds no position: name another file, or remove it") from error
    if type(inode) is not int or type(offset) is not int or offset < 0:
        raise InputError(f"{position} holds no position: name another file, or remove it")
    return inode, offset


def _with_inode(path: Path, inode: int | None) -> Path:
    """Return the file that was read last: the log, or a rotated one beside it; the log where that is gone."""
    if inode is not None and path.stat().st_ino != inode:
        for beside in path.parent.glob(glob.escape(path.name) + "?*"):
            if beside.is_file() and beside.stat().st_ino == inode:
                return beside
    return path
