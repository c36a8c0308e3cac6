"""Proof-of-work challenges: issued without keeping anything, redeemed once.

A challenge is an ALTCHA v2 puzzle: find a counter for which PBKDF2 of it begins with the given digits. All that the
service has to know later travels sealed: in the URL that a decision names, whose challenge it is, how hard and since when;
inside the puzzle's signed parameters, whose it is, until when, and which record of spent ids. So neither a decision nor
issuing takes memory, however many there are, and nobody can ask for the challenge of another.

The expiry is sealed too and not ALTCHA's `expiresAt`: browsers compare that with their own clock, which is often wrong.
"""

from __future__ import annotations

import base64
import binascii
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import altcha
import msgspec

from classifier.errors import BotsieveError, InputError
from serving.seal import Seal, derive
from serving.spent import Spent, SpentError

ALGORITHM = "PBKDF2/SHA-256"
PAYLOAD_CHARACTERS = 8192
TRIES = 8
"""Solutions that are checked for one challenge: the right one comes first, unless somebody guesses or wants us busy."""
TRIED = 65_536
"""Challenges whose tries are remembered, about 150 bytes each; the oldest is forgotten first."""

WAITING = (
    "You have passed the check, but there is no room just now: the service is full and under attack, and who was here before it"
    " comes first. Send your request again later, with the same pass."
)
"""What is said to who holds a pass and has to wait, in words for the person or program that asked."""

# Why there is no challenge or a solution is not accepted, in words for the person or program that asked.
REFUSALS = {
    "unknown": "There is no challenge here. Send your request again to get one.",
    "malformed": "This is not a solved challenge. Send what the widget or BotsieveAuth made, unchanged.",
    "tampered": "This challenge was not issued here, or was changed. Get a new one and solve that.",
    "expired": "This challenge has expired. Send your request again to get a new one, and solve that.",
    "unsolved": "The solution is wrong. Get a new challenge and solve that.",
    "client": "This challenge was issued to another client. Get one of your own.",
    "spent": "This challenge has been used before, and each works once, or was tried too often. Get a new one and solve that.",
    "store": "The solution cannot be recorded just now. Send it again in a moment.",
}

# Iterations per try from which a longer prefix is asked for instead: checking a solution costs one try, so tries have to
# stay cheap; below about 250 iterations a browser spends longer on starting a try than on the try itself.
_TRY_ITERATIONS = 4000


class Refused(BotsieveError):  # noqa: N818 - it is an answer, not a fault
    """A challenge that is not given out, or a solution that earns nothing. `reason` is a key of REFUSALS."""

    def __init__(self, reason: str) -> None:
        super().__init__(REFUSALS[reason])
        self.reason = reason


@dataclass(frozen=True)
class ChallengeOptions:
    """How long a challenge may be solved, how hard it is, and how many spent ids are kept.

    `lifetime_s` in seconds; `work_least` (at score 99) and `work_most` (at score 1) in expected PBKDF2 iterations, about
    0.4 µs each on one core; `capacity` in ids; `path` is where clients reach the routes through the gateway.
    """

    lifetime_s: float = 300.0
    work_least: int = 256_000
    work_most: int = 4_096_000
    capacity: int = 1_000_000
    path: str = "/v1/challenge"

    def __post_init__(self) -> None:
        if not 0 < self.work_least <= self.work_most <= 2**40:
            raise InputError(
                f"challenge work from {self.work_least} to {self.work_most}: the least must be positive, the most no less"
            )
        if self.lifetime_s <= 0 or self.capacity <= 0:
            raise InputError("the lifetime of a challenge and the capacity for spent ones must be positive")


class Described(msgspec.Struct, array_like=True, frozen=True):
    """What the challenge of a decision needs: its id, the client (16 hex digits), the score (1 to 99), when (Unix seconds).

    Where there is nothing to solve, because the client has a pass and there is no room, `wait` says when to come again, s.
    """

    decision: str
    client: str
    score: int
    time: float
    wait: int = 0


@dataclass(frozen=True)
class Redeemed:
    """Whose challenge was solved (16 hex digits of the client's keyed hash), and of which decision."""

    client: str
    decision_id: str


class _Ticket(msgspec.Struct, array_like=True, frozen=True):
    decision: str
    client: str
    expires: float
    epoch: bytes


class _Parameters(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    algorithm: str
    nonce: str
    salt: str
    cost: int
    key_length: int
    key_prefix: str
    data: dict[str, str]


class _Challenge(msgspec.Struct, frozen=True):
    parameters: _Parameters
    signature: str


class _Solution(msgspec.Struct, frozen=True, rename="camel"):
    counter: int
    derived_key: str


class _Payload(msgspec.Struct, frozen=True):
    challenge: _Challenge
    solution: _Solution


@dataclass(frozen=True)
class Admitted:
    """A solution of a challenge that was issued here, has not expired and may be tried; whether it is right is not known."""

    solved: altcha.Payload
    ticket: _Ticket
    nonce: bytes


def work(score: int, options: ChallengeOptions) -> float:
    """Expected PBKDF2 iterations for a score of 1 to 99: from the most to the least in equal ratios."""
    suspicion = (99 - min(max(score, 1), 99)) / 98
    return float(options.work_least * (options.work_most / options.work_least) ** suspicion)


def puzzle(iterations: float) -> tuple[str, int]:
    """The hex prefix and the iterations per try whose product of tries and iterations is nearest to what is asked."""
    digits = max(2, math.ceil(math.log(max(iterations, 1.0) / _TRY_ITERATIONS, 16)))
    return "0" * digits, max(1, round(iterations / 16**digits))


class Challenges:
    """Issues challenges and redeems their solutions.

    `secret` of at least 16 random bytes, the same after a restart; `folder` holds the record of spent ids; `now` gives
    Unix seconds. Safe under threads. InputError: the secret is short, or the folder cannot be written.
    """

    def __init__(
        self,
        secret: bytes,
        folder: Path,
        options: ChallengeOptions | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.options = options or ChallengeOptions()
        self.now = now
        self._key = derive(secret, "challenge")
        self._names = Seal(secret, "challenge url", Described)
        self._seal = Seal(secret, "challenge ticket", _Ticket)
        self._spent = Spent(folder / "spent.sqlite", self.options.capacity)
        self._decode = msgspec.json.Decoder(_Payload).decode
        self._lock = threading.Lock()
        self._tries: OrderedDict[bytes, int] = OrderedDict()

    def brief(self, described: Described) -> dict[str, Any]:
        """Where to get and where to send the challenge of a decision, or how long to wait; cheap enough for every answer."""
        return self.at(self._names.close(described), described.wait)

    def at(self, name: str, wait: int = 0) -> dict[str, Any]:
        """The same, by the name under which a challenge stands in its URL."""
        at = {"url": f"{self.options.path}/{name}", "verify": f"{self.options.path}/verify"}
        return {**at, "wait": wait} if wait else at

    def described(self, name: str) -> Described:
        """What a name in a URL tells. Refused: it was not given out here ("unknown"), or "expired"."""
        described = self._names.open(name)
        if described is None:
            raise Refused("unknown")
        # An old decision must not go on giving out puzzles as easy as its client once deserved.
        if self.now() - described.time > self.options.lifetime_s:
            raise Refused("expired")
        return described

    def issue(self, decision_id: str, client: str, score: int) -> dict[str, object]:
        """A challenge for one client (16 hex digits), harder the lower the score (1 to 99); JSON-ready.

        ALTCHA's `parameters` and `signature`, with `expires` (Unix seconds). Writes nothing. SpentError: the clock went back
        and the record cannot be renewed.
        """
        now = self.now()
        expires = now + self.options.lifetime_s
        ticket = _Ticket(decision_id, client, expires, self._spent.epoch(now))
        prefix, cost = puzzle(work(score, self.options))
        challenge = altcha.create_challenge(
            ALGORITHM, cost, key_prefix=prefix, data={"ticket": self._seal.close(ticket)}, hmac_secret=self._key
        )
        return {**challenge.to_dict(), "expires": int(expires)}

    def redeem(self, payload: str, client: str | None = None) -> Redeemed:
        """Accept a solution once: `admit`, then `settle`. Refused: with the reason."""
        return self.settle(self.admit(payload, client))

    def admit(self, payload: str, client: str | None = None) -> Admitted:
        """Check what takes a fraction of a millisecond, and count a try of the challenge. Refused: with the reason.

        `payload` is the base64 text that the widget puts into its form field; `client`, where the caller knows who is
        sending it, has to be the one it was issued to.
        """
        solved = self._parse(payload)
        now = self.now()
        ticket = self._seal.open(solved.challenge.parameters.data.get("ticket", ""))
        if ticket is None:
            raise Refused("tampered")
        if not now <= ticket.expires:
            raise Refused("expired")
        if client is not None and client != ticket.client:
            raise Refused("client")
        admitted = Admitted(self._signed(solved), ticket, bytes.fromhex(solved.challenge.parameters.nonce))
        self._try(admitted.nonce)
        return admitted

    def settle(self, admitted: Admitted) -> Redeemed:
        """Accept an admitted solution once: it is recorded on disk before this returns.

        Takes up to some milliseconds (one try of the puzzle and a flush to disk): call it in a thread. Refused: with the
        reason.
        """
        if not altcha.verify_solution(admitted.solved, self._key).verified:
            raise Refused("unsolved")
        self._spend(admitted)
        return Redeemed(admitted.ticket.client, admitted.ticket.decision)

    def close(self) -> None:
        """Close the record of spent ids."""
        self._spent.close()

    def _parse(self, payload: str) -> _Payload:
        if len(payload) > PAYLOAD_CHARACTERS:
            raise Refused("malformed")
        try:
            return self._decode(base64.b64decode(payload.encode("ascii"), validate=True))
        except (binascii.Error, UnicodeError, msgspec.MsgspecError, RecursionError) as problem:
            raise Refused("malformed") from problem

    def _signed(self, solved: _Payload) -> altcha.Payload:
        """Return a solution for ALTCHA. Refused unless its challenge is as it was signed."""
        given = solved.challenge.parameters
        parameters = altcha.ChallengeParameters(
            algorithm=given.algorithm,
            nonce=given.nonce,
            salt=given.salt,
            cost=given.cost,
            key_length=given.key_length,
            key_prefix=given.key_prefix,
            data=given.data,
        )
        challenge = altcha.Challenge(parameters, solved.challenge.signature)
        solution = altcha.Solution(solved.solution.counter, solved.solution.derived_key)
        payload = altcha.Payload(challenge, solution)
        if altcha.verify_solution(payload, self._key, _derive_nothing).invalid_signature:
            raise Refused("tampered")
        return payload

    def _try(self, nonce: bytes) -> None:
        with self._lock:
            tries = self._tries.get(nonce, 0)
            if tries >= TRIES:
                raise Refused("spent")
            self._tries[nonce] = tries + 1
            while len(self._tries) > TRIED:
                self._tries.popitem(last=False)

    def _spend(self, admitted: Admitted) -> None:
        ticket = admitted.ticket
        try:
            why = self._spent.spend(admitted.nonce, ticket.epoch, ticket.expires, self.now())
        except SpentError as problem:
            raise Refused("store") from problem
        if why is not None:
            raise Refused(why)
        with self._lock:
            self._tries[admitted.nonce] = TRIES


def _derive_nothing(parameters: altcha.ChallengeParameters, salt: bytes, password: bytes) -> bytes:
    """Stands in for the costly part of a check of which only the signature counts."""
    return b""
