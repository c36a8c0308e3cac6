"""A what-if from beginning to end: score as if enforced, tune the other defences, play each, sum up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from classifier.errors import InputError
from classifier.events import MICROSECONDS
from classifier.model.wording import percent
from classifier.policy import Policy
from classifier.whatif.causal import ROUNDS, Enforced, Score, Solved, enforced
from classifier.whatif.comparison import (
    CALIBRATION,
    ENOUGH,
    LOAD,
    Course,
    Defence,
    Outcome,
    Setup,
    capacity_for,
    check_enough,
    defences,
    enough_capacity,
    outcome,
)
from classifier.whatif.forecast import forecast
from classifier.whatif.pressing import pressed
from classifier.whatif.server import SPEED, Server
from classifier.whatif.solving import Solving
from classifier.whatif.traffic import Decided, Flags, Traffic


@dataclass(frozen=True, slots=True)
class Options:
    """What a user may state. `capacity` is in tokens/s; without it legitimate requests make a load of 60 % at their busiest."""

    capacity: float | None = None
    speed: float = SPEED
    deadline: float = 10.0
    calibration: float = CALIBRATION
    explain: bool = True
    begins: float | None = None
    """Where the measured part begins, s since the first arrival; else after the calibration share."""
    rounds: int = ROUNDS
    """Times that the log is scored at most."""

    def __post_init__(self) -> None:
        """Raise InputError for what cannot be."""
        for name in ("capacity", "speed", "deadline"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise InputError(f"--{name} is a number above 0, not {value:g}")
        if not 0 < self.calibration < 1:
            raise InputError(f"--calibration is a share of the log between 0 and 1, not {self.calibration:g}")


@dataclass(frozen=True, slots=True)
class WhatIf:
    """The results, the course of each defence, and the requests they come from."""

    setup: Setup
    solving: Solving
    traffic: Traffic
    enforced: Enforced
    outcomes: list[Outcome]
    courses: list[Course]
    forecast: dict[str, Any]
    situation: list[dict[str, Any]]
    """Verdicts about the whole service, as `LogWatch.stretches` gives them; empty where nobody watched."""
    notes: list[str]

    def as_json(self) -> dict[str, Any]:
        """Return what `whatif.json` holds."""
        setup, traffic = self.setup, self.traffic
        return {
            "labelled": traffic.labelled,
            "start": traffic.start,
            "measured_from": traffic.start + setup.begins,
            "end": traffic.start + traffic.span,
            "server": {
                "capacity_tokens_per_s": setup.server.capacity,
                "slots": setup.server.slots,
                "speed_tokens_per_s": setup.server.speed,
                "input_weight": setup.server.input_weight,
                "patience_s": setup.server.patience,
            },
            "deadline_s": setup.deadline,
            "budget": setup.budget,
            "solves": sorted(self.solving.names),
            "attackers_solve": self.solving.attackers,
            "scored_rounds": self.enforced.rounds,
            "unsettled_decisions": self.enforced.unsettled,
            "defences": [outcome.as_json() for outcome in self.outcomes],
            "forecast": self.forecast,
            "situation": self.situation,
            "notes": self.notes,
        }


def what_if(
    tables: list[pa.Table],
    score: Score,
    budget: float,
    solving: Solving,
    options: Options,
    solved: Solved | None = None,
    situation: Callable[[], list[dict[str, Any]]] = list,
    policy: Policy | None = None,
    notes: tuple[str, ...] = (),
) -> WhatIf:
    """Play event tables (in input order) behind every defence.

    `budget` is the challenge budget that limits are tuned to; `solved` replaces `solving` where more is known than a log
    says; `situation` gives the verdicts about the service of the last scoring. With `policy` budgets widen under load.
    Raises InputError where the log is too short or has no tokens.
    """
    begins = _begins(tables, options)
    chosen = solved or (lambda traffic: solving.solve(traffic.software, traffic.family, traffic.attack))
    servers: list[Server] = []

    def server_for(traffic: Traffic) -> Server:
        if not servers:
            check_enough(traffic, begins)
            plain = Server(capacity=1.0, speed=options.speed)
            servers.append(replace(plain, capacity=options.capacity or capacity_for(traffic, begins, plain)))
        return servers[0]

    def under_load(traffic: Traffic, decided: Decided, can: Flags, acts: Flags) -> Decided:
        server = server_for(traffic)
        return decided if policy is None else pressed(policy, situation(), traffic, decided, server, can, acts)

    run = enforced(tables, score, chosen, begins, under_load=under_load, rounds=options.rounds, explain=options.explain)
    traffic, server = run.traffic, servers[0]
    setup = Setup(server, options.deadline, budget, begins)
    tried = defences(traffic, run, setup)
    played = [outcome(traffic, tried[0], setup, alone=True)] if traffic.attack.any() else []
    played += [outcome(traffic, defence, setup) for defence in tried]
    told = [
        *notes,
        *_notes(traffic, run, options, server.capacity),
        *_too_small(traffic, tried[0], setup, played[0][0]),
    ]
    return WhatIf(
        setup, solving, traffic, run, [one for one, _ in played], [course for _, course in played],
        forecast(traffic, run, begins), situation(), told,
    )  # fmt: skip


def _begins(tables: list[pa.Table], options: Options) -> float:
    if options.begins is not None:
        return options.begins
    ends = [(t.min(), t.max()) for t in (table.column("time").to_numpy() for table in tables) if len(t)]
    if not ends:
        raise InputError("the log holds no request that could be read: there is nothing to forecast")
    low, high = np.array(ends).T
    return options.calibration * float(high.max() - low.min()) / MICROSECONDS


def _too_small(traffic: Traffic, nothing: Defence, setup: Setup, bare: Outcome) -> list[str]:
    """Say that the capacity is too small for the log, if it is, and what would do; `bare` is the best there could be."""
    share = bare.in_time / max(bare.legitimate, 1)
    if share >= ENOUGH:
        return []
    whose = "legitimate requests" if traffic.labelled else "requests"
    return [
        f"The capacity of {setup.server.capacity:,.0f} tokens/s is too small for this log: even without an attack only"
        f" {percent(share)} of the {whose} would be in time. Try --capacity {enough_capacity(traffic, nothing, setup)}, with"
        f" which at least {100 * ENOUGH:.0f} % would."
    ]


def _notes(traffic: Traffic, run: Enforced, options: Options, capacity: float) -> list[str]:
    """Say in plain words what this forecast rests on, beyond what the tables show."""
    notes = []
    if options.capacity is None:
        whose = "legitimate requests" if traffic.labelled else "the requests"
        notes.append(
            f"No capacity was stated: {capacity:,.0f} tokens/s let {whose} fill {100 * LOAD:.0f} % in their busiest hour."
        )
    if not traffic.labelled:
        notes.append("The log has no labels: every request counts as legitimate, and what is refused as lost.")
    if run.unsettled:
        notes.append(
            f"After scoring the log {run.rounds} times, {run.unsettled:,} decisions still changed from one time to the next:"
            " what refusals do to later decisions is told nearly, not exactly."
        )
    if traffic.refused_before:
        notes.append(
            f"{traffic.refused_before:,} requests were already refused when the log was written; what they would have cost is"
            " not known, so they cost nothing here."
        )
    return notes
