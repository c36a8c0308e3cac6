"""Passes: what a solved challenge earns, for some minutes, some requests and one client.

A pass is a sealed token; only the number of its uses is kept here. It answers one question, whether a *challenge* may be
waved through. It never lifts a block, and the model still runs on every request: the policy asks for a pass only where
the decision was to challenge.

The counts are in memory. After a restart a pass that is still within its minutes is counted from nothing, so in the worst
case it serves twice its requests; its end stands in the token and stays. With the table full of running passes, a pass
that is not in it yet is not admitted, and its client is challenged as if it had none.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from classifier.errors import InputError
from serving.seal import Seal

HEADER = "x-botsieve-pass"
COOKIE = "botsieve_pass"


@dataclass(frozen=True)
class PassOptions:
    """`lifetime_s` in seconds, `requests` that one pass serves, `capacity` of passes counted at once (about 150 bytes each)."""

    lifetime_s: float = 600.0
    requests: int = 200
    capacity: int = 100_000

    def __post_init__(self) -> None:
        if self.lifetime_s <= 0 or self.requests <= 0 or self.capacity <= 0:
            raise InputError("the lifetime, the requests and the capacity of passes must be positive")


class _Pass(msgspec.Struct, array_like=True, frozen=True):
    identity: bytes
    client: str
    expires: float


class Passes:
    """Grants passes and admits requests by them.

    `secret` of at least 16 random bytes, the same after a restart; `now` gives Unix seconds. Safe under threads.
    """

    def __init__(self, secret: bytes, options: PassOptions, now: Callable[[], float]) -> None:
        self.options = options
        self._now = now
        self._seal = Seal(secret, "pass", _Pass)
        self._lock = threading.Lock()
        # Two generations of counts, each a lifetime long: a pass that has left both is past its end. No scan, no sweep.
        self._young: dict[bytes, int] = {}
        self._old: dict[bytes, int] = {}
        self._turned = now()

    def grant(self, client: str) -> str:
        """A new pass for a client (16 hex digits). Writes nothing: it is counted from its first use."""
        return self._seal.close(_Pass(secrets.token_bytes(8), client, self._now() + self.options.lifetime_s))

    def admit(self, token: str, client: str, spend: bool = True) -> str | None:
        """None if the pass holds for this client; else why it does not. With `spend` one of its requests is then used up.

        "malformed": not made here. "client": another client's. "expired": its minutes are over. "used": its requests are.
        "full": too many passes are running to count this one.
        """
        held = self._seal.open(token)
        if held is None:
            return "malformed"
        if held.client != client:
            return "client"
        now = self._now()
        if not now < held.expires:
            return "expired"
        with self._lock:
            return self._count(held.identity, now, spend)

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def _count(self, identity: bytes, now: float, spend: bool) -> str | None:
        self._turn(now)
        used = self._young.get(identity)
        if used is None:
            used = self._old.get(identity)
        if used is None:
            if len(self) >= self.options.capacity:
                return "full"
            used = 0
        if used >= self.options.requests:
            return "used"
        if spend:  # what is only looked at takes no place from those that are used
            self._old.pop(identity, None)
            self._young[identity] = used + 1
        return None

    def _turn(self, now: float) -> None:
        past = now - self._turned
        if past < self.options.lifetime_s:
            return
        self._old = self._young if past < 2 * self.options.lifetime_s else {}
        self._young = {}
        self._turned = now
