"""What the protocol runs: the sizes and seeds of its logs, in two forms. Nothing here was chosen on a reported
figure.
"""

from __future__ import annotations

from dataclasses import dataclass

from classifier.traffic import GRADES, Each


@dataclass(frozen=True)
class Log:
    """One simulated log: `duration` in s, `clients` legitimate ones, attackers of each family and grade,
    and the seed.

    With several `days` there is so much each day, one day after the other, with other clients and campaigns each day.
    `surge` is how many times as many new accounts as usual come within an hour, on the last day (0: no surge).
    """

    name: str
    seed: int
    clients: int
    duration: float = 7200.0
    each: Each | None = None
    surge: float = 0.0
    days: int = 1


@dataclass(frozen=True)
class Plan:
    """The logs of a run and how much is made of them.

    `train` is learnt from, `validation` is what choices are shown on, `test` is reported; no two share a client or a
    campaign. `left_out` are the families that are left out in turn (None: all). `flood_clients` are the legitimate clients
    of the floods (0: no floods).
    """

    name: str
    train: Log
    validation: Log
    test: Log
    surge: Log
    left_out: tuple[str, ...] | None = None
    resamples: int = 500
    flood_clients: int = 500
    flood_grades: tuple[str, ...] = GRADES
    real_data: bool = True


JUDGED_S = 3 * 3600.0
"""The length of logs that are judged, s: in the first of the three hours a service enforces nothing (see `requests_of`)."""

FULL = Plan(
    "full",
    train=Log("train", 11, 4000, each=Each(48, 0.4), surge=5.0, days=2),
    validation=Log("validation", 12, 4000, JUDGED_S, each=Each(48, 0.4)),
    test=Log("test", 13, 10_000, JUDGED_S, each=Each(150, 0.4)),  # so that of each a hundred come after the first hour
    surge=Log("surge", 15, 4000, JUDGED_S, surge=10.0),  # of seed 14 the surge comes in the hour that does not count
)
SMALL = Plan(
    "small",
    train=Log("train", 21, 300, each=Each(8, 0.3), surge=5.0, days=2),
    validation=Log("validation", 22, 200, each=Each(6, 0.2)),
    test=Log("test", 23, 600, each=Each(8, 0.3)),
    surge=Log("surge", 24, 200, surge=10.0),
    left_out=("distillation", "jailbreak"),
    resamples=100,
    flood_clients=0,
    real_data=False,
)
PLANS = {plan.name: plan for plan in (FULL, SMALL)}
