"""From a raw score to a decision, and from budgets to the thresholds it is compared with.

A *budget* is a share of legitimate requests that may lie at or above a threshold. It is held twice: when every request
counts once, and when every client counts once (a request then weighs 1 / requests of its client, so that a tenant with
a million requests does not hide a hundred small ones). The higher of the two thresholds is taken. The challenge budget
counts what is challenged *or* blocked.

Raw scores are exact in float32 and the same in every engine; probabilities may differ in the last digits. So decisions
compare raw scores, and only the score from 1 to 99 that people read is made from the probability.
"""

from __future__ import annotations

import math
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from classifier.errors import InputError
from classifier.events import VERDICTS

Verdict: TypeAlias = Literal["allow", "challenge", "block"]
ALLOW, CHALLENGE, BLOCK = range(3)
"""Codes of the verdicts in batches: their places in `VERDICTS`."""
ROWS_BEYOND = 10
"""Legitimate rows that must lie beyond a threshold before its share is believed."""
_TOLERANCE = 1e-9
"""Relative slack for products such as 0.002 · 5000, which need not be whole in float64."""


class Decision(NamedTuple):
    """What the policy decided for one request. `score` runs from 1 (bot) to 99 (not a bot)."""

    decision: Verdict
    score: int


@dataclass(frozen=True, slots=True)
class DecisionBatch:
    """Decisions of n requests: `codes` uint8[n], places in `VERDICTS`, and `scores` uint8[n], 1 to 99."""

    codes: npt.NDArray[np.uint8]
    scores: npt.NDArray[np.uint8]

    def verdicts(self) -> npt.NDArray[np.object_]:
        """Return the decisions as text, object[n]."""
        return np.array(VERDICTS, dtype=object)[self.codes]


@dataclass(frozen=True, slots=True)
class Budgets:
    """Shares of legitimate requests: challenged or blocked, and blocked. 0 turns an action off."""

    challenge: float = 0.002
    block: float = 0.0001

    def __post_init__(self) -> None:
        if not 0 <= self.block <= self.challenge < 1:
            raise InputError(
                f"budgets must satisfy 0 <= block <= challenge < 1, not block {self.block:g}, challenge "
                f"{self.challenge:g}: the challenge budget counts blocked requests too"
            )


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Raw scores from which a request is challenged and blocked; float32 values, +inf for never.

    `notes` say in plain words what the data could not resolve.
    """

    challenge: float
    block: float
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("challenge", "block"):
            value = getattr(self, name)
            if value != _float32(value):
                raise ValueError(f"the {name} threshold {value!r} is no float32 value")
        if self.challenge > self.block:
            raise ValueError(f"challenge threshold {self.challenge!r} lies above block threshold {self.block!r}")

    def as_json(self) -> dict[str, Any]:
        """Return the form of the manifest: null for never, because JSON has no infinity."""
        return {
            "challenge": None if math.isinf(self.challenge) else self.challenge,
            "block": None if math.isinf(self.block) else self.block,
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Thresholds:
        """Read what `as_json` wrote."""
        challenge, block = (math.inf if value[name] is None else float(value[name]) for name in ("challenge", "block"))
        return cls(challenge, block, tuple(value.get("notes", ())))


def decide(raw: float, probability: float, thresholds: Thresholds) -> Decision:
    """Decide one request.

    1. A score that is no number is nobody's score: scoring failed, and the fail mode must answer.
    2. The thresholds are those of a calm gateway.
    3. At or above the block threshold: block.
    4. Else at or above the challenge threshold: challenge.
    5. Else: allow.
    6. The score people read is 100 · (1 − probability), rounded down and kept within 1 and 99.

    `raw` is a float32 value, `probability` lies in [0, 1]. Raises ValueError otherwise (step 1).
    """
    # 1
    raw, probability = float(raw), float(probability)
    if math.isnan(raw) or not 0.0 <= probability <= 1.0:
        raise ValueError(f"raw score {raw!r} with probability {probability!r}: scoring failed, nothing can be decided")
    # 2
    challenge, block = thresholds.challenge, thresholds.block
    # 3 to 5
    verdict: Verdict = "block" if raw >= block else "challenge" if raw >= challenge else "allow"
    # 6
    return Decision(verdict, min(max(math.floor(100.0 * (1.0 - probability)), 1), 99))


def decide_batch(
    raw: npt.NDArray[np.float32], probability: npt.NDArray[np.floating[Any]], thresholds: Thresholds
) -> DecisionBatch:
    """Decide n requests: `decide` for arrays, by the same steps.

    `raw` is float32[n], `probability` float[n] in [0, 1]. Raises TypeError for another dtype of `raw`, and ValueError
    as `decide` does.
    """
    # 1
    if raw.dtype != np.float32:
        raise TypeError(f"raw scores must be float32, not {raw.dtype}: thresholds are compared in float32")
    p = probability.astype(np.float64)
    if np.isnan(raw).any() or not ((p >= 0.0) & (p <= 1.0)).all():
        raise ValueError("a raw score is NaN or a probability not in [0, 1]: scoring failed, nothing can be decided")
    # 2
    challenge, block = np.float32(thresholds.challenge), np.float32(thresholds.block)
    # 3 to 5: a verdict's code is the number of thresholds it reaches
    codes = (raw >= challenge).astype(np.uint8) + (raw >= block).astype(np.uint8)
    # 6
    scores = np.clip(np.floor(100.0 * (1.0 - p)), 1.0, 99.0).astype(np.uint8)
    return DecisionBatch(codes, scores)


@dataclass(frozen=True, slots=True)
class LegitimateCurve:
    """How legitimate raw scores are spread: at each raw score, who lies at or above it.

    `raw` rises and holds float32 values; the last lies above every legitimate score seen. `rows_beyond` counts the
    legitimate rows at or above (where rows stand for several requests each: the share of requests, of `rows`, rounded up),
    `client_share` is their share when each client counts once. The manifest carries it,
    and thresholds for any budget are read from it: exact at the round budgets (1 to 9 times a power of ten) and at
    those it was made for, otherwise on the careful side. Unless somebody states the block budget, nothing is blocked below
    the raw score `least_block`: see `model.group_limit.least_block`.
    """

    rows: int
    clients: int
    raw: tuple[float, ...]
    rows_beyond: tuple[int, ...]
    client_share: tuple[float, ...]
    least_block: float = -math.inf

    def threshold(self, budget: float) -> float:
        """Return the lowest raw score of the curve whose two shares are within the budget; +inf for a budget of 0."""
        if budget == 0:
            return math.inf
        return self.raw[bisect_left(range(len(self.raw)), True, key=lambda i: self._holds(i, budget))]

    def shares(self, threshold: float) -> tuple[float, float]:
        """Return the shares of legitimate requests at or above a threshold: per request, and each client counted once.

        Between two points of the curve it is the lower point's, so the true shares are at most these.
        """
        place = max(bisect_right(self.raw, threshold) - 1, 0)
        return self.rows_beyond[place] / self.rows, self.client_share[place]

    def _holds(self, place: int, budget: float) -> bool:
        limit = budget * (1 + _TOLERANCE)
        return self.rows_beyond[place] <= limit * self.rows and self.client_share[place] <= limit

    def as_json(self) -> dict[str, Any]:
        """Return the form of the manifest."""
        return {
            "rows": self.rows,
            "clients": self.clients,
            "raw": list(self.raw),
            "rows_beyond": list(self.rows_beyond),
            "client_share": list(self.client_share),
            "least_block": None if self.least_block == -math.inf else self.least_block,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> LegitimateCurve:
        """Read what `as_json` wrote."""
        return cls(
            int(value["rows"]),
            int(value["clients"]),
            tuple(float(raw) for raw in value["raw"]),
            tuple(int(rows) for rows in value["rows_beyond"]),
            tuple(float(share) for share in value["client_share"]),
            -math.inf if (least := value.get("least_block")) is None else float(least),
        )


def legitimate_curve(
    raw_legit: npt.NDArray[np.float32],
    client_ids: npt.NDArray[Any],
    budgets: Budgets | None = None,
    weight: npt.NDArray[np.float64] | None = None,
) -> LegitimateCurve:
    """Measure the curve of legitimate raw scores in some hundreds of points, dense at the top.

    `raw_legit` is float32[n], `client_ids` anything sortable [n] (integer codes are quickest), `weight` positive
    float64[n], how many requests each row stands for (None: one). Thresholds for `budgets` (the default budgets if None)
    are kept exactly. Raises InputError without rows, ValueError for scores that are not finite.
    """
    full = _full_curve(raw_legit, client_ids, np.ones(len(raw_legit)) if weight is None else weight)
    wanted = budgets or Budgets()
    keep = _kept_points(full, [*_ROUND_BUDGETS, wanted.challenge, wanted.block])
    return LegitimateCurve(
        full.rows,
        full.clients,
        tuple(full.raw[i] for i in keep),
        tuple(full.rows_beyond[i] for i in keep),
        tuple(full.client_share[i] for i in keep),
    )


def thresholds_from_budgets(
    raw_legit: npt.NDArray[np.float32],
    client_ids: npt.NDArray[Any],
    budgets: Budgets,
    strict: Collection[str] = (),
) -> Thresholds:
    """Choose the raw thresholds that hold the budgets on legitimate validation scores.

    `raw_legit` is float32[n], `client_ids` [n]. A threshold is the lowest legitimate score at which both shares (per
    request; each client counted once) are at most the budget, ties included; where even the highest score is too many,
    the next float32 above it. A budget that fewer than 10 of n rows could exceed cannot be measured: InputError if its
    name is in `strict` (the user asked for it), else that action is never taken and a note says so.
    """
    return thresholds_from_curve(legitimate_curve(raw_legit, client_ids, budgets), budgets, strict)


def thresholds_from_curve(curve: LegitimateCurve, budgets: Budgets, strict: Collection[str] = ()) -> Thresholds:
    """Read the thresholds for budgets from a curve; that of block is at least its `least_block`, unless it is in `strict`.

    Refusals and notes are as in `thresholds_from_budgets`.
    """
    chosen: dict[str, float] = {}
    notes: list[str] = []
    for name, done in (("challenge", "challenged"), ("block", "blocked")):
        budget = getattr(budgets, name)
        refusal = unresolved(curve.rows, budget)
        if refusal is None:
            chosen[name] = curve.threshold(budget)
            if name == "block" and name not in strict and curve.least_block > chosen[name]:
                notes.append(
                    f"Blocks begin at a raw score of {curve.least_block:.4g}, not {chosen[name]:.4g} as the block budget of "
                    f"{100 * budget:g} % allows, so that nobody is blocked for the company they keep; state it to have it so."
                )
                chosen[name] = curve.least_block
            continue
        if name in strict:
            raise InputError(f"the {name} budget of {100 * budget:g} % {refusal}")
        chosen[name] = math.inf
        notes.append(f"Nothing is {done}: the {name} budget of {100 * budget:g} % {refusal}.")
    return Thresholds(chosen["challenge"], chosen["block"], tuple(notes))


def unresolved(rows: int, share: float, what: str = "legitimate requests", *, budget: bool = True) -> str | None:
    """Say why so few rows cannot resolve a share, and what it would need; None when they can (or the share is 0).

    Of a `budget` it says as well which they could resolve: somebody may state another.
    """
    if share == 0 or rows * share >= ROWS_BEYOND * (1 - _TOLERANCE):
        return None
    needed = math.ceil(ROWS_BEYOND / share * (1 - _TOLERANCE))
    smallest = 100 * ROWS_BEYOND / rows if rows and budget else math.inf
    other = f", or a budget of at least {_round_up(smallest):g} %" if smallest < 100 else ""
    return f"needs at least {needed:,} {what} to be measured and there are {rows:,}: use a longer log{other}"


def _round_up(percent: float) -> float:
    """Round up to two significant digits, so that the advice is itself resolvable."""
    digit = 10.0 ** (math.floor(math.log10(percent)) - 1)
    return math.ceil(percent / digit) * digit


class Circumstances(NamedTuple):
    """What is known of a live request beside its score. The defaults are those of a log: nobody is listed, all is calm.

    `load` runs from 0 to 1; `cost` is the tokens that the request will take, over those of a typical one.
    """

    listed: Literal["allow", "deny"] | None = None
    registration: bool = False
    known: bool = False
    load: float = 0.0
    cost: float = 1.0


CALM = Circumstances()
ALLOW_LIST, DENY_LIST, LOAD, REGISTRATION = "allow_list", "deny_list", "load", "registration"
PASS, WAIT = "pass", "wait"
"""Reasons that are not the model's. A pass lifts a challenge, or its holder waits because the gateway is full."""


@dataclass(frozen=True, slots=True)
class Pressure:
    """How budgets widen under load: from `begins` (a load) up to `budget` at load 1; 1 challenges whoever is not known."""

    begins: float = 0.7
    budget: float = 1.0

    def share(self, base: float, load: float, cost: float) -> float:
        """Return the challenge budget at a load for a request of this relative cost, never below `base`.

        It moves from `base` to `budget` in equal factors: all the way at load 1 for a request of typical cost, sooner for
        one that costs more (one of a hundred times the cost at two thirds of the way), half of it for one of a hundredth.
        """
        load = min(max((load - self.begins) / (1.0 - self.begins), 0.0), 1.0)
        weight = min(max(1.0 + math.log10(max(cost, 1e-9)) / 4.0, 0.5), 1.5)
        return self.at(base, round(_STEPS * min(load * weight, 1.0)))

    def at(self, base: float, step: int) -> float:
        """Return the challenge budget after so many of `_STEPS` steps from `base`."""
        return base * float((max(self.budget, base) / base) ** (step / _STEPS))

    def weights(self, cost: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return how fast requests of these relative costs go that way, float64[n] in [0.5, 1.5]; a typical one at 1."""
        return np.clip(1.0 + np.log10(np.maximum(cost, 1e-9)) / 4.0, 0.5, 1.5)


_STEPS = 64
"""Budgets between the calm and the widest one: their thresholds are looked up once each."""


class Policy:
    """Decides live requests: thresholds by circumstances, and the lists that win over the model."""

    def __init__(
        self,
        calm: Thresholds,
        *,
        budget: float = 0.0,
        curve: LegitimateCurve | None = None,
        pressure: Pressure | None = None,
        registration: Thresholds | None = None,
    ) -> None:
        """`budget` is the challenge budget that `calm` was chosen for, `curve` the legitimate scores to widen it on."""
        self.calm, self.registration = calm, registration or calm
        self._budget, self._curve, self.pressure = budget, curve, pressure or Pressure()
        self._widened: dict[float, float] = {}

    def decide(self, raw: float, probability: float, about: Circumstances = CALM) -> tuple[Decision, tuple[str, ...]]:
        """Decide one request; return the decision and the reasons that are not the model's.

        1. Who is listed is allowed or blocked, whatever the model says.
        2. The thresholds are the calm ones; where accounts are made, those of registration.
        3. Under load the challenge threshold of clients that are not known falls, further the more a request costs. Known
           clients keep theirs, and so does the block threshold: what load alone brings about can be solved.
        4. Then as `decide`.

        Raises ValueError as `decide` does, for listed clients too: the caller's fail mode answers.
        """
        calm = self.registration if about.registration else self.calm
        decision = decide(raw, probability, calm)
        # 1
        if about.listed is not None:
            verdict: Verdict = "allow" if about.listed == "allow" else "block"
            return Decision(verdict, decision.score), (ALLOW_LIST if verdict == "allow" else DENY_LIST,)
        # 2
        if decision.decision != "allow":
            usual = decide(raw, probability, self.calm).decision if about.registration else decision.decision
            harsher = VERDICTS.index(decision.decision) > VERDICTS.index(usual)
            return decision, (REGISTRATION,) if harsher else ()
        # 3
        if about.known or about.load <= self.pressure.begins:
            return decision, ()
        if raw >= self._threshold(self.pressure.share(self._budget, about.load, about.cost) if self._budget else 0.0):
            return Decision("challenge", decision.score), (LOAD,)
        return decision, ()

    def widened(self) -> npt.NDArray[np.float32]:
        """Return the challenge thresholds of step 3, float32[steps + 1], from no load on to the widest budget."""
        budgets = [self.pressure.at(self._budget, step) if self._budget else 0.0 for step in range(_STEPS + 1)]
        return np.array([self._threshold(budget) for budget in budgets], np.float32)

    def _threshold(self, budget: float) -> float:
        found = self._widened.get(budget)
        if found is None:
            curve = self._curve
            if budget >= 1.0:  # whoever it is: also whose score lies below all that training saw
                return self._widened.setdefault(budget, -math.inf)
            known = budget > 0 and curve is not None and unresolved(curve.rows, budget) is None
            found = self._widened[budget] = curve.threshold(budget) if known and curve is not None else math.inf
        return found


_ROUND_BUDGETS = [k * 10.0**-e for e in range(1, 7) for k in range(1, 10)]
_TOP_POINTS = 64
_SPREAD_POINTS = 256


def _kept_points(full: LegitimateCurve, budgets: list[float]) -> list[int]:
    """Return the places to keep: those budgets choose, the top ones, and a spread that is even in log rank."""
    last = len(full.raw) - 1
    chosen = [bisect_left(full.raw, full.threshold(budget)) for budget in budgets if budget > 0]
    top = range(max(last - _TOP_POINTS, 0), last + 1)
    spread = last + 1 - np.geomspace(1, last + 1, _SPREAD_POINTS)
    return sorted({*chosen, *top, *np.rint(spread).astype(int).tolist()})


def _full_curve(
    raw_legit: npt.NDArray[np.float32], client_ids: npt.NDArray[Any], weight: npt.NDArray[np.float64]
) -> LegitimateCurve:
    """Return the curve with a point at every distinct score, and one above them all."""
    if raw_legit.dtype != np.float32 or raw_legit.shape != client_ids.shape:
        given = f"{raw_legit.dtype}{raw_legit.shape} and {client_ids.shape}"
        raise TypeError(f"need float32[n] scores and their n clients, not {given}")
    if raw_legit.size == 0:
        raise InputError("there are no legitimate requests to take thresholds from: give a log that has some")
    if not np.isfinite(raw_legit).all():
        raise ValueError("a legitimate raw score is not finite")
    _, client = np.unique(client_ids, return_inverse=True)
    requests = np.bincount(client, weight)
    descending = np.argsort(-raw_legit, kind="stable")
    raw, counts = raw_legit[descending], weight[descending]
    share = np.cumsum(counts / requests[client[descending]]) / len(requests)
    beyond = np.cumsum(counts)
    rows_beyond = np.ceil(beyond * (len(raw) / beyond[-1]) * (1 - _TOLERANCE)).astype(np.int64)
    last_of_tie = np.flatnonzero(np.append(raw[1:] != raw[:-1], True))[::-1]
    above = np.nextafter(raw[0], np.float32(np.inf))
    return LegitimateCurve(
        len(raw),
        len(requests),
        (*raw[last_of_tie].tolist(), float(above)),
        (*rows_beyond[last_of_tie].tolist(), 0),
        (*share[last_of_tie].tolist(), 0.0),
    )


def _float32(value: float) -> float:
    """Round to float32 without numpy; an overflow becomes an infinity."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return math.copysign(math.inf, value)
