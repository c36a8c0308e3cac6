"""What one actor does: a flow of acts, before anything is said about how a log shows them.

Legitimate clients and attackers alike are written as flows. A scene renders flows into events: the simulated service
(`classifier.traffic.service`) or a user's own log (`classifier.traffic.woven`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from classifier.traffic.addresses import Origin
from classifier.traffic.pacing import F64
from classifier.traffic.software import Software

Appetite = Literal["ordinary", "long", "huge", "tiny"]
Referers = Literal["none", "site", "fake"]
Disguise = Literal["tool", "sdk", "browser", "crawler"]


class Act(IntEnum):
    """What a request is for. A scene knows which path, method and sizes that means."""

    HOME = 0
    DOCS = 1
    ASSET = 2
    LOGIN_PAGE = 3
    LOGIN = 4
    SIGNUP_PAGE = 5
    SIGNUP = 6
    CHAT = 7
    COMPLETION = 8
    EMBEDDING = 9
    MODELS = 10
    HEALTH = 11
    PROBE = 12


INFERENCE = (Act.CHAT, Act.COMPLETION, Act.EMBEDDING)
KEYED = (*INFERENCE, Act.MODELS)
"""Acts that carry an account or a credential."""
PAGES = (Act.HOME, Act.DOCS)
Acts = npt.NDArray[np.int8]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Account:
    """An account: its id and when it was made (Unix s)."""

    id: str
    created: float


@dataclass(frozen=True, kw_only=True)
class Flow:
    """The requests of one actor, n of them; a sequence holds one value for each request.

    `times` are s since the start of the traffic and need not be sorted. Keyed acts carry `account`, or `credential`
    where there is no account. `success` is how often a login, a sign-up or an unverified credential is accepted.
    Without token counts or prompts the scene chooses them, by `appetite`. `limit` is how many requests a minute the
    service allows this client before it answers 429, and `retries` how often the client tries again after 429 and 5xx.
    A client waits `backoff` s before its first new try, twice as long before each further one, and fails again with
    probability `fails_again`. `hold` is how much longer than its answer takes a client keeps each connection, s.
    On a site of pages, `systematic` asks for them in order, one after the other, and flows of one `focus` (seed,
    number) ask for the same few, where others ask by popularity. `repeats` are the rows of a user's log that the
    requests repeat (see `WovenScene.original`).
    """

    family: str
    malicious: bool
    times: F64
    acts: Acts
    address: str | Sequence[str]
    software: Software | Sequence[Software]
    account: Account | None = None
    credential: Sequence[str] | None = None
    success: float = 1.0
    appetite: Appetite = "ordinary"
    input_tokens: F64 | None = None
    output_tokens: F64 | None = None
    max_tokens: F64 | None = None
    prompts: Sequence[str | None] | None = None
    model: str | Sequence[str | None] | None = None
    stream: bool = False
    retries: int = 0
    backoff: float = 0.5
    fails_again: float = 0.35
    limit: float = 600.0
    hold: F64 | None = None
    referers: Referers = "none"
    systematic: bool = False
    focus: tuple[int, int] | None = None
    repeats: I64 | None = None

    def __len__(self) -> int:
        return len(self.times)

    def take(self, rows: npt.NDArray[np.int64]) -> Flow:
        """Return the flow of the requests at `rows` (positions)."""
        return replace(self, **{name: _taken(getattr(self, name), rows) for name in _EACH})

    def within(self, span: float) -> Flow:
        """Return the flow without what lies before 0 or at or beyond `span` s."""
        keep = np.flatnonzero((self.times >= 0) & (self.times < span))
        return self if len(keep) == len(self.times) else self.take(keep)


_EACH = ("times", "acts", "address", "software", "credential", "input_tokens", "output_tokens", "max_tokens", "prompts",
         "model", "hold", "repeats")  # fmt: skip
"""Fields of a flow that may hold one value for each request."""


def _taken(values: Any, rows: npt.NDArray[np.int64]) -> Any:
    if values is None or isinstance(values, str | Software):
        return values
    if isinstance(values, np.ndarray):
        return values[rows]
    return [values[i] for i in rows.tolist()]


def acts(act: Act, n: int) -> Acts:
    """Return n times the same act."""
    return np.full(n, act, np.int8)


def mixed_acts(rng: np.random.Generator, n: int, weights: dict[Act, float]) -> Acts:
    """Draw n acts by weight."""
    share = np.array(list(weights.values()))
    return rng.choice(np.array(list(weights), np.int8), n, p=share / share.sum())


def usual_cap(rng: np.random.Generator, n: int) -> F64 | None:
    """Draw how n requests of one client set `max_tokens`: mostly not at all, else one round figure for all."""
    if rng.random() < 0.55:
        return None
    return np.full(n, float(rng.choice((64, 128, 256, 512, 1024, 2048, 4096))))


@dataclass(frozen=True)
class Originals:
    """The legitimate clients of a scene in figures, n of them: whom an attacker may replay.

    counts int64[n, acts]: how often each does each act; tokens float64[n]: input tokens in all; begins float64[n]:
    its first request, s.
    """

    counts: I64
    tokens: F64
    begins: F64

    def __len__(self) -> int:
        return len(self.begins)

    def doing(self, wanted: Sequence[Act]) -> I64:
        """Return how many requests of each client are one of these acts, int64[n]."""
        return np.asarray(self.counts[:, [int(act) for act in wanted]].sum(axis=1), np.int64)


class Scene(Protocol):
    """Where attackers act: what they can borrow from it, and how long it lasts."""

    span: float
    """Length of the traffic, s."""
    web: bool
    """True where the traffic is pages and files, without inference calls."""

    def addresses(self, rng: np.random.Generator, n: int, origin: Origin) -> list[str]:
        """Draw n different addresses that no legitimate client of the scene has."""

    def beside(self, rng: np.random.Generator, address: str, used: Collection[str]) -> str:
        """Draw an address that no legitimate client has and is not in `used`, in the network of one that somebody has."""

    def software(self, rng: np.random.Generator, disguise: Disguise) -> Software:
        """Draw client software that looks like a bare tool, an ordinary API client, a browser or a declared crawler."""

    def account(self, rng: np.random.Generator, created: float) -> Account:
        """Make an account, created at `created` s since the start of the traffic (negative: before it)."""

    def moments(self, rng: np.random.Generator, n: int, low: float, high: float) -> F64:
        """Draw n moments in [low, high), as dense as the scene's own activity; sorted."""

    def shows(self, field: str) -> bool:
        """Say whether the log of this scene has a field of the event."""

    def models(self, rng: np.random.Generator, n: int) -> list[str]:
        """Draw n models to ask for, one after the other as somebody does who tries them all."""

    def originals(self) -> Originals:
        """Return the legitimate clients that may be replayed."""

    def original(self, number: int) -> list[Flow]:
        """Return everything that a legitimate client does, as it did it."""
