"""What one actor does: a flow of acts, before anything is said about how a log shows them.

Legitimate clients and attackers alike are written as flows. A scene renders flows into events: the simulated service
(`classifier.traffic.service`) or a user's own log (`classifier.traffic.woven`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from classifier.traffic.addresses import Origin
from classifier.traffic.pacing import F64
from classifier.traffic.software import Software

Appetite = Literal["ordinary", "long", "tiny"]
Referers = Literal["none", "site", "fake"]
Disguise = Literal["tool", "sdk", "browser"]


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
Acts = npt.NDArray[np.int8]


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
    On a site of pages, `systematic` asks for them in order, one after the other, and flows of one `focus` (seed,
    number) ask for the same few, where others ask by popularity.
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
    prompts: Sequence[str] | None = None
    model: str | None = None
    stream: bool = False
    retries: int = 0
    limit: float = 600.0
    referers: Referers = "none"
    systematic: bool = False
    focus: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.times)

    def within(self, span: float) -> Flow:
        """Return the flow without what lies before 0 or at or beyond `span` s."""
        keep = np.flatnonzero((self.times >= 0) & (self.times < span))
        if len(keep) == len(self.times):
            return self
        rows: list[int] = keep.tolist()
        return replace(
            self,
            times=self.times[keep],
            acts=self.acts[keep],
            address=self.address if isinstance(self.address, str) else [self.address[i] for i in rows],
            software=self.software if isinstance(self.software, Software) else [self.software[i] for i in rows],
            credential=None if self.credential is None else [self.credential[i] for i in rows],
            input_tokens=None if self.input_tokens is None else self.input_tokens[keep],
            output_tokens=None if self.output_tokens is None else self.output_tokens[keep],
            max_tokens=None if self.max_tokens is None else self.max_tokens[keep],
            prompts=None if self.prompts is None else [self.prompts[i] for i in rows],
        )


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


class Scene(Protocol):
    """Where attackers act: what they can borrow from it, and how long it lasts."""

    span: float
    """Length of the traffic, s."""
    web: bool
    """True where the traffic is pages and files, without inference calls."""

    def addresses(self, rng: np.random.Generator, n: int, origin: Origin) -> list[str]:
        """Draw n different addresses that no legitimate client of the scene has."""

    def software(self, rng: np.random.Generator, disguise: Disguise) -> Software:
        """Draw client software that looks like a bare tool, an ordinary API client or a browser."""

    def account(self, rng: np.random.Generator, created: float) -> Account:
        """Make an account, created at `created` s since the start of the traffic (negative: before it)."""

    def moments(self, rng: np.random.Generator, n: int, low: float, high: float) -> F64:
        """Draw n moments in [low, high), as dense as the scene's own activity; sorted."""
