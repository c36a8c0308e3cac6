"""The same traffic behind one defence after the other, through the same server."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from classifier.errors import InputError
from classifier.policy import unresolved
from classifier.whatif.causal import Enforced
from classifier.whatif.limits import Counted, tuned
from classifier.whatif.server import Served, Server, serve
from classifier.whatif.traffic import Traffic

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
CALIBRATION = 1 / 3
"""Share of the log's time that nothing is enforced in and that limits are tuned on; also the scorer's warm-up."""
FINE = 1.05
"""Ratio to which a capacity that is enough is looked for."""
LOAD = 0.6
"""Load that legitimate requests make where no capacity is stated."""
FEWEST = 100
"""Requests with tokens that the measured part needs."""
ENOUGH = 0.95
"""Share of legitimate requests in time, were nobody to attack, from which a capacity is enough for a log."""
ALONE, NONE, BOTSIEVE = "legitimate alone", "no defence", "botsieve"


@dataclass(frozen=True, slots=True)
class Setup:
    """The stated conditions. In time is whoever is done `deadline` s after, at the latest, twice the time taken alone."""

    server: Server
    deadline: float
    budget: float
    begins: float
    """Where the measured part begins, s since the first arrival."""


@dataclass(frozen=True, slots=True)
class Defence:
    """A defence as it acts on the requests: which it refuses, bool[n], in the measured part; `limit` a minute, if any."""

    name: str
    what: str
    refused: Flags
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the measured part behind one defence. Requests are those that take tokens; shares are of them.

    `lost` counts refused ones, `gave_up` those whose client left the queue, `late` those done after the deadline. Waiting
    is how much longer than on an idle server; for who gave up, the patience. `touched` is of all legitimate requests, those
    without tokens too.
    """

    name: str
    what: str
    limit: float | None
    legitimate: int
    in_time: int
    late: int
    gave_up: int
    lost: int
    touched: float
    wait_p50: float
    wait_p99: float
    attack: int
    attack_served: int
    attack_tokens: float
    attack_tokens_served: float
    load: float

    def as_json(self) -> dict[str, Any]:
        """Return the form of `whatif.json`."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Course:
    """How the measured part went, bin by bin: edges float64[b + 1] in s, and per bin the share of legitimate requests in time
    (NaN where none came) and attackers' and legitimate work served, tokens/s."""  # fmt: skip

    edges: Floats
    in_time: Floats
    attack_rate: Floats
    legitimate_rate: Floats


def check_enough(traffic: Traffic, begins: float) -> None:
    """Raise InputError where the log has no tokens, or too few requests after `begins` (s)."""
    if not np.any(traffic.tokens > 0):
        raise InputError(
            "no request of the log carries input_tokens or output_tokens, and a gateway's time cannot be forecast without:"
            " give a log of an inference gateway (LiteLLM, Envoy, JSON Lines), or name the column with --columns"
        )
    after = int(np.sum((traffic.time >= begins) & (traffic.tokens > 0) & traffic.legitimate))
    if after < FEWEST:
        raise InputError(
            f"the log is too short: {after:,} legitimate requests with tokens lie after the part that limits are tuned on,"
            f" and {FEWEST} are needed; give a longer log"
        )


def capacity_for(traffic: Traffic, begins: float, server: Server) -> float:
    """Return the capacity, tokens/s, at which the busiest hour of legitimate requests after `begins` makes `LOAD`."""
    ours = traffic.legitimate & (traffic.time >= begins)
    work = server.work(traffic.input_tokens, traffic.output_tokens)[ours]
    length = traffic.span - begins
    hours = max(int(length // 3600), 1)
    width = length / hours
    place = np.minimum(((traffic.time[ours] - begins) // width).astype(np.int64), hours - 1)
    return float(np.bincount(place, work).max() / width / LOAD)


def enough_capacity(traffic: Traffic, defence: Defence, setup: Setup) -> int:
    """Return about the lowest capacity, tokens/s in two digits, at which `ENOUGH` would be in time, were nobody to attack."""

    def enough(capacity: float) -> bool:
        larger = replace(setup, server=replace(setup.server, capacity=capacity))
        alone, _ = outcome(traffic, defence, larger, alone=True)
        return alone.in_time >= ENOUGH * alone.legitimate

    low, high = setup.server.capacity, 2 * setup.server.capacity
    while not enough(high):
        low, high = high, 2 * high
    while high / low > FINE:
        middle = (low * high) ** 0.5
        low, high = (low, middle) if enough(middle) else (middle, high)
    digit = int(10 ** max(math.floor(math.log10(high)) - 1, 0))
    return math.ceil(high / digit) * digit


def defences(traffic: Traffic, enforced: Enforced, setup: Setup) -> list[Defence]:
    """Return the defences, each limit tuned so that it refuses as many legitimate requests as botsieve's budget allows.

    The tuning sees the legitimate requests before `setup.begins` alone. Raises InputError where they are too few for that.
    """
    acts = traffic.time >= setup.begins
    calm = traffic.legitimate & ~acts
    refusal = unresolved(int(calm.sum()), setup.budget)
    if refusal is not None:
        raise InputError(f"the log is too short: to tune limits on its first part, the budget {refusal}")
    found = [Defence(NONE, "every request goes to the model", np.zeros(len(traffic), np.bool_))]
    ones = np.ones(len(traffic))
    for name, unit, key, amount in (
        ("address requests", "requests a minute for each address", traffic.address, ones),
        ("address tokens", "tokens a minute for each address", traffic.address, traffic.tokens),
        ("key tokens", "tokens a minute for each key (address without one)", traffic.client, traffic.tokens),
    ):
        counted = Counted(traffic.time, key, amount)
        limit = tuned(counted.take(calm), setup.budget)
        found.append(Defence(name, f"{limit:,.0f} {unit}", counted.refused(limit) & acts, limit))
    found.append(Defence(BOTSIEVE, "this bundle at its budgets", enforced.refused))
    return found


def outcome(traffic: Traffic, defence: Defence, setup: Setup, alone: bool = False) -> tuple[Outcome, Course]:
    """Play the requests through the server behind a defence; `alone` leaves the attackers away.

    The whole log is played, so that the server is as full as it would be when the measured part begins.
    """
    server = setup.server
    work = server.work(traffic.input_tokens, traffic.output_tokens)
    goes = ~defence.refused & (~traffic.attack if alone else np.ones(len(traffic), np.bool_))
    rows = np.flatnonzero(goes)
    served = serve(server, traffic.time[rows], work[rows])
    begin, end = np.full(len(traffic), np.nan), np.full(len(traffic), np.nan)
    begin[rows], end[rows] = served.begin, served.end
    measured = (traffic.time >= setup.begins) & (work > 0)
    ours, theirs = traffic.legitimate & measured, traffic.attack & measured & ~np.bool_(alone)
    own = work / server.speed
    delay = Served(begin, end).delay(traffic.time, own)
    done = np.isfinite(end)
    in_time = done & (end - traffic.time <= setup.deadline + 2 * own)
    waits = np.where(done, delay, server.patience)[ours & goes]
    every = traffic.legitimate & (traffic.time >= setup.begins)
    length = traffic.span - setup.begins
    result = Outcome(
        name=ALONE if alone else defence.name,
        what="the same, had there been no attack" if alone else defence.what,
        limit=defence.limit,
        legitimate=int(ours.sum()),
        in_time=int((ours & in_time).sum()),
        late=int((ours & done & ~in_time).sum()),
        gave_up=int((ours & goes & ~done).sum()),
        lost=int((ours & defence.refused).sum()),
        touched=float(defence.refused[every].mean()) if every.any() else 0.0,
        wait_p50=float(np.quantile(waits, 0.5)) if len(waits) else 0.0,
        wait_p99=float(np.quantile(waits, 0.99)) if len(waits) else 0.0,
        attack=int(theirs.sum()),
        attack_served=int((theirs & done).sum()),
        attack_tokens=float(traffic.tokens[theirs].sum()),
        attack_tokens_served=float(traffic.tokens[theirs & done].sum()),
        load=float(work[measured & done].sum() / server.capacity / max(length, 1e-9)),
    )
    return result, _course(traffic, setup, ours, theirs, in_time, done, work)


def _course(
    traffic: Traffic, setup: Setup, ours: Flags, theirs: Flags, in_time: Flags, done: Flags, work: Floats
) -> Course:
    bins = int(np.clip((traffic.span - setup.begins) / 60, 12, 120))
    edges = np.linspace(setup.begins, traffic.span, bins + 1)

    def sums(rows: Flags, of: Floats) -> Floats:
        return np.histogram(traffic.time[rows], edges, weights=of[rows])[0]

    ones, width = np.ones(len(traffic)), edges[1] - edges[0]
    came = sums(ours, ones)
    with np.errstate(invalid="ignore"):
        share = np.where(came > 0, sums(ours & in_time, ones) / came, np.nan)
    return Course(edges, share, sums(theirs & done, work) / width, sums(ours & done, work) / width)
