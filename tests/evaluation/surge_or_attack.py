"""How often the verdict about the whole service is right: calm days, surges, and attacks.

    python -m tests.evaluation.surge_or_attack --bundle DIR [--days 3] [--seeds 2] [--times 2] [--families NAMES]

Three kinds of logs, all of clients that the bundle has not seen: days without an attack; surges of ten times as many new
accounts within an hour; and an hour and a half of calm with ten minutes of one attack family in one grade after it, of `--times`
as many requests as legitimate clients send meanwhile. Counted are minutes by verdict, the first half hour (in which nothing is
said) left out; of an attack those from its second minute on.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from classifier.evaluation.flood import flooded, surged
from classifier.events import MICROSECONDS
from classifier.model.apply import LogWatch, Model
from classifier.situation import FEWEST, MINUTE_US, STATES
from classifier.traffic import families, simulate
from classifier.traffic.family import GRADES

BEFORE_S = 5400.0
"""s of calm before an attack."""
REACTION = 1
"""Minutes that a verdict may take."""


def verdicts(model: Model, events: pa.Table) -> tuple[list[str], LogWatch]:
    """Return the verdict in force as each minute of a log ends."""
    watch = LogWatch(model)
    states: list[str] = []
    time = events.column("time").to_numpy()
    minute = time // MINUTE_US
    for _ in model.scored([events], threads=2, explain=False, watch=watch):
        pass
    watch.situation.advance(int(time[-1]) + MINUTE_US)
    stretches = [(-(-v.since // MINUTE_US), v.state) for v in watch.situation.changes]
    for now in range(int(minute[0]) + 1, int(minute[-1]) + 2):
        states.append(next((state for since, state in reversed(stretches) if since <= now), "unsure"))
    return states, watch


def main() -> None:
    """Print a line for each log, and the table of minutes by truth and verdict."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--days", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--times", type=float, default=2.0)
    parser.add_argument("--clients", type=int, default=300)
    parser.add_argument("--surge-clients", type=int, default=1000)
    parser.add_argument("--families", default=",".join(families()))
    given = parser.parse_args()
    model = Model.load(str(given.bundle), threads=2)
    table: dict[str, Counter[str]] = {}

    def play(truth: str, name: str, make: Callable[[], tuple[pa.Table, float]]) -> None:
        events, since = make()
        states, watch = verdicts(model, events)
        counted = Counter(states[max(int(since // 60), FEWEST + 1) :])
        table.setdefault(truth, Counter()).update(counted)
        told = watch.situation.changes
        wrong = [f"{'; '.join(v.evidence)}" for v in told if v.state != truth and v.rule not in (1, 6)]
        print(f"{truth}  {name}: " + ", ".join(f"{state} {counted[state]}" for state in STATES if counted[state]),
              *(f"    {line}" for line in wrong[:2]), sep="\n", flush=True)  # fmt: skip

    for day in range(given.days):
        play("calm", f"day {day}", partial(_calm, given.clients, 200 + day))
    for seed in range(given.seeds):
        play("surge", f"seed {seed}", partial(_surge, given.surge_clients, 300 + seed))
    for family in given.families.split(","):
        for grade in GRADES if family else ():
            for seed in range(given.seeds):
                play("attack", f"{family}:{grade} seed {seed}", partial(_attack, given, family, grade, 400 + seed))
    print("\ntruth     " + "".join(f"{state:>9}" for state in STATES) + "  (minutes)")
    for truth, counted in table.items():
        print(f"{truth:10}" + "".join(f"{counted[state]:9}" for state in STATES))


def _calm(clients: int, seed: int) -> tuple[pa.Table, float]:
    return simulate(duration_s=86_400, clients=clients, attacks="none", seed=seed), 0.0


def _surge(clients: int, seed: int) -> tuple[pa.Table, float]:
    """Return a surge, counted over its whole hour: calm at its thin ends is no mistake."""
    scenario = surged(clients, seed, 10.0)
    return scenario.events, scenario.begins


def _attack(given: argparse.Namespace, family: str, grade: str, seed: int) -> tuple[pa.Table, float]:
    scenario = flooded(given.clients, seed, family, grade, given.times, "requests", BEFORE_S)
    events = scenario.events
    hostile = events.column("malicious").to_numpy(zero_copy_only=False).astype(bool)
    seconds = (events.column("time").to_numpy() - events.column("time")[0].as_py()) / MICROSECONDS
    assert BEFORE_S > 60 * FEWEST
    first, last = (float(seconds[hostile][place]) for place in (0, -1))
    kept = np.flatnonzero(seconds <= last)
    return events.take(pa.array(kept)), first + 60 * REACTION


if __name__ == "__main__":
    main()
