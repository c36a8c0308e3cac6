"""One combined line, parsed exactly: escaped or stray quotes, odd requests, broken tails.

The vectorised parser (`combined`) hands over what it cannot match. What both can match, both read alike (tested).

Decisions
- A request that is no `METHOD target [protocol]` (`-`, nothing, a TLS handshake sent to a plain port) is a scanner's
  evidence and no bad line: method `-`, path = the text as logged, `-` where there is none.
- A server's `host:port` before the client (Apache's `vhost_combined`) is passed over. It is told by its port, by what
  follows, which is no `-`, and by the fields after that.
- Referer and user agent may be missing or cut off: the line counts with what it has. Address, time, request, status
  and size must be whole.
- `\\"`, `\\\\` and `\\xHH` are undone where that gives printable text. Control characters stay (or become) `\\xHH`, so
  no value carries them into a terminal.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_PATH = 4_096
NO_COMBINED = "line is no combined log line"
NUL = "line holds NUL bytes"


class Fields(NamedTuple):
    """The texts of one line; `-` and None both mean that a value is absent."""

    ip: str
    user: str
    stamp: str
    method: str
    path: str
    status: str
    size: str
    referer: str | None
    agent: str | None
    request_time: str | None


_HOST = r"(?:(?:[^ :\[]+|\[[^ \]]+\]):[0-9]+ (?=[^ -]))?"
_FRONT = re.compile(_HOST + r"([^ ]+) [^ ]+ (.{1,4096}?) \[([0-9]{2}/[A-Za-z]{3}/[0-9:]{13} [+-][0-9]{4})\] \"")
_QUOTED = r"((?:[^\"\\]|\\.)*)"
_STATUS = r" ([0-9]{3}) ([0-9]+|-)(?: +(.*))?"
_REQUEST = re.compile(_QUOTED + '"' + _STATUS)
_STRAY_REQUEST = re.compile(r"(.*?)\"" + _STATUS)
_TAIL = re.compile(rf'"{_QUOTED}" "{_QUOTED}"( .*)?')
_STRAY_TAIL = re.compile(r'"(.*?)(?:" "(.*?)(?:"( .*)?)?)?')
_CALL = re.compile(r"([A-Za-z][A-Za-z_-]{0,31}) ([^ ].*?)(?: HTTP/[0-9.]+)?")
_REQUEST_TIME = re.compile(r'(?: "(?:[^"\\]|\\.)*"| [^ "]*)*? (?:rt=|request_time=)?([0-9]+\.[0-9]{3})(?: .*)?')
_ESCAPES = re.compile(r'(?:\\x[0-9A-Fa-f]{2})+|\\["\\nrtvbf]')
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def parse(line: str) -> Fields:
    """Parse one line without its line feed. Raises ValueError with the reason when it is no combined line."""
    if "\0" in line:
        raise ValueError(NUL)
    front = _FRONT.match(line)
    if not front:
        raise ValueError(NO_COMBINED)
    rest = line[front.end() :]
    request = _REQUEST.fullmatch(rest) or _STRAY_REQUEST.fullmatch(rest)
    if not request:
        raise ValueError(NO_COMBINED)
    method, path = _call(request[1])
    referer, agent, further = _tail(request[4])
    return Fields(
        front[1], front[2], front[3], method, path, request[2], request[3], referer, agent, request_time(further)
    )


def request_time(further: str | None) -> str | None:
    """Return nginx's `$request_time` out of the fields after the user agent, or None.

    It is the first unquoted number with three decimals, bare or as `rt=` or `request_time=`. A whole number is not
    taken: it may be Apache's %D (µs) as well as its %T (s).
    """
    if not further:
        return None
    match = _REQUEST_TIME.fullmatch(further)
    return match[1] if match else None


def _call(request: str) -> tuple[str, str]:
    call = _CALL.fullmatch(request)
    if not call:
        return "-", _tame(request)[:MAX_PATH] or "-"
    return call[1], _unescape(call[2])


def _tail(text: str | None) -> tuple[str | None, str | None, str | None]:
    text = (text or "").rstrip(" ")
    if not text.startswith('"'):
        return None, None, " " + text if text else None
    tail = _TAIL.fullmatch(text) or _STRAY_TAIL.fullmatch(text)
    if not tail:
        return None, None, None
    referer, agent = (_unescape(value) if value is not None else None for value in (tail[1], tail[2]))
    return referer, agent, tail[3]


def _unescape(text: str) -> str:
    return _tame(_ESCAPES.sub(_undo, text) if "\\" in text else text)


def _tame(text: str) -> str:
    """Write control characters as nginx does."""
    return _CONTROL.sub(lambda c: f"\\x{ord(c[0]):02x}", text)


def _undo(match: re.Match[str]) -> str:
    code = match[0]
    if not code.startswith("\\x"):
        return code[1] if code[1] in '"\\' else code
    return bytes.fromhex(code.replace("\\x", "")).decode("utf-8", "backslashreplace")
