"""Signing in: a browser cannot send a bearer header for a page or an event stream, so the token is exchanged for a cookie.

A session is a random number, kept as its hash, in memory alone: it ends with the process, after `LIFETIME_S`, or when somebody
signs out. There are few of them, and the oldest goes first.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from hashlib import blake2b

COOKIE = "botsieve_console"
LIFETIME_S = 12 * 3600.0
MOST = 32


class Sessions:
    """The sessions of one service."""

    def __init__(self, now: Callable[[], float]) -> None:
        """`now` gives seconds that do not go back."""
        self._now = now
        self._until: dict[bytes, float] = {}

    def begin(self) -> str:
        """Begin a session and return what its cookie holds."""
        given = secrets.token_urlsafe(32)
        self._until[_hash(given)] = self._now() + LIFETIME_S
        while len(self._until) > MOST:
            del self._until[next(iter(self._until))]
        return given

    def holds(self, given: str | None) -> bool:
        """Whether a cookie is that of a session. What is looked up is a hash, so the time it takes tells nothing of it."""
        if not given or len(given) > 128:
            return False
        return self._until.get(_hash(given), -1.0) > self._now()

    def end(self, given: str | None) -> None:
        """End a session."""
        if given:
            self._until.pop(_hash(given), None)


def _hash(given: str) -> bytes:
    return blake2b(given.encode(), digest_size=32).digest()
