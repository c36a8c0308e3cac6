"""What the protocol runs: the sizes and seeds of its logs, in two forms. Nothing here was chosen on a reported "
"figure."""

from __future__ import annotations

from dataclasses import dataclass

from classifier.traffic import GRADES, Each


@dataclass(frozen=True)
class Log:
    """One simulated log: `duration` in s, `clients` legitimate ones, attackers of each family and grade, and "
    "the seed."""

    name: str
    seed: int
    clients: int
    duration: float = 7200.0
    each: Each | None = None
    surge: float = 0.0


@dataclass(frozen=True)
class Plan:
    """The logs of a run and how much is made of them.

    `train` is learnt from, `validation` is what choices are shown on, `test` is reported; no two share a client or a
    campaign. `left_out_trees` are the trees (own, group) of models that leave a family or a grade out, and of the model
    with everything that they are compared with. `flood_clients` are the legitimate clients of the floods (0: no floods).
    """

    name: str
    train: Log
    validation: Log
    test: Log
    surge: Log
    own_trees: int = 120
    group_trees: int = 60
    left_out: tuple[str, ...] | None = None
    resamples: int = 500
    flood_clients: int = 250
    flood_grades: tuple[str, ...] = GRADES
    real_data: bool = True


FULL = Plan(
    "full",
    train=Log("train", 11, 4000, each=Each(48, 0.4)),
    validation=Log("validation", 12, 4000, each=Each(48, 0.4)),
    test=Log("test", 13, 10_000, each=Each(120, 0.4)),
    surge=Log("surge", 14, 4000, surge=10.0),
)
SMALL = Plan(
    "small",
    train=Log("train", 21, 500, each=Each(16, 0.3)),
    validation=Log("validation", 22, 500, each=Each(16, 0.3)),
    test=Log("test", 23, 1000, each=Each(16, 0.3)),
    surge=Log("surge", 24, 500, surge=10.0),
    own_trees=60,
    group_trees=30,
    left_out=("distillation", "jailbreak", "proxy_flood"),
    resamples=100,
    flood_clients=0,
    real_data=False,
)
PLANS = {plan.name: plan for plan in (FULL, SMALL)}
