"""A flood on a gateway at 60 % load, and a surge without an attack: what each defence serves.

    python -m classifier.evaluation.flood --bundle DIR [--families NAMES] [--grades NAMES] [--times 10] [--out DIR]

Trained elsewhere (`botsieve train`), the bundle meets legitimate clients of another seed. The flood lasts ten minutes; it has
`--times` as many requests as legitimate clients send meanwhile, or with `--by tokens` as many tokens. Attackers of the grade
`mimic` solve their challenges, others do not; people in browsers do. A day and two hours come before it, in which clients
become known and limits are tuned; of these the last are what mimics replay. The surge comes after an hour and a half, and is one
in which ten times as many people as usual make their account within an hour.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from classifier.events import EVENT_SCHEMA, MICROSECONDS
from classifier.model.apply import Model
from classifier.traffic import families, legitimate, pacing, simulate, tenants
from classifier.traffic.family import GRADES, Effort
from classifier.traffic.flow import Flow, Scene
from classifier.traffic.service import Service
from classifier.traffic.simulation import FIRST_HOUR, START, generator
from classifier.traffic.woven import WovenScene
from classifier.whatif.causal import ROUNDS
from classifier.whatif.comparison import LOAD, NONE
from classifier.whatif.drawing import plot
from classifier.whatif.run import Options, WhatIf, what_if
from classifier.whatif.server import Server
from classifier.whatif.solving import Solving
from classifier.whatif.telling import COLUMNS, as_any, cells, page
from classifier.whatif.traffic import Traffic
from classifier.whatif.watched import Watched

FLOODS = ("request_flood", "proxy_flood", "botnet_waves", "slow_botnet", "expensive_requests")
FLOOD_S, BEFORE_S, BEFORE_SURGE_S = 600.0, 26 * 3600.0, 5400.0
REPLAYED_S = 6000.0
"""s up to the end of the log from which mimics take the clients that they replay."""
HOSTS = {"request_flood": 40}
EACH = 40
"""Requests of one attacker, where the family is not of few hosts."""
MOST_REQUESTS = 600_000


@dataclass(frozen=True)
class Scenario:
    """A log, when the measured part begins (s since the first arrival), and the seconds of the log's first event."""

    name: str
    events: pa.Table
    begins: float
    grade: str


@lru_cache(maxsize=1)
def honest(clients: int, seed: int, span: float) -> pa.Table:
    """Return legitimate traffic of `span` s."""
    return simulate(duration_s=span, clients=clients, attacks="none", seed=seed)


def flooded(
    clients: int, seed: int, family: str, grade: str, times: float, by: str, before: float = BEFORE_S
) -> Scenario:
    """Return `before` s of legitimate traffic, and ten minutes of it with a flood."""
    span = before + FLOOD_S
    own = honest(clients, seed, span)
    first = own.column("time")[0].as_py() / MICROSECONDS
    begin, end = START + before, START + span
    meanwhile = _between(own, begin, end)
    wanted = times * meanwhile.num_rows
    attack = _attack(own, clients, seed, family, grade, round(wanted), before)
    if by == "tokens":
        factor = times * _tokens(meanwhile) / max(_tokens(attack), 1.0)
        attack = _attack(own, clients, seed, family, grade, round(min(wanted * factor, MOST_REQUESTS)), before)
    return Scenario(f"{family}:{grade}", _by_time([own, attack]), begin - first, grade)


def surged(clients: int, seed: int, times: float) -> Scenario:
    """Return legitimate traffic with a surge of newcomers in its last hour, and no attack."""
    span = BEFORE_SURGE_S + 3600.0
    own = honest(clients, seed, span)
    first = own.column("time")[0].as_py() / MICROSECONDS
    service, place = _place(clients, seed, span)
    place = replace(place, surge=BEFORE_SURGE_S)
    parts = [own]
    for number in range(legitimate.surge_size(clients, span, times)):
        rng = generator(seed, "client", "surge", number)
        for flow in legitimate.writer("newcomer")(place, rng):
            parts.append(service.render(_from(flow, BEFORE_SURGE_S, rng), rng))
    kept = _between(_by_time(parts), START, START + span)
    return Scenario(f"surge {times:g}x", kept, START + BEFORE_SURGE_S - first, "none")


def _from(flow: Flow, low: float, rng: np.random.Generator) -> Flow:
    """Shift a newcomer who came outside the surge into its hour."""
    start = float(flow.times.min())
    shift = 0.0 if start >= low else low + 3600.0 * rng.beta(1.2, 2.5) - start
    return replace(flow, times=flow.times + shift)


def _place(clients: int, seed: int, span: float) -> tuple[Service, legitimate.Place]:
    """Make the service anew that `simulate` made for this seed."""
    clock = pacing.daily_clock(span, FIRST_HOUR, np.array(tenants.hours()))
    service = Service(generator(seed, "service"), START, span, clock)
    return service, legitimate.settle(service, generator(seed, "place"), clients)


def _attack(own: pa.Table, clients: int, seed: int, family: str, grade: str, requests: int, before: float) -> pa.Table:
    span = before + FLOOD_S
    rng = generator(seed, "flood", family, grade)
    attackers = HOSTS.get(family, max(requests // EACH, 10))
    scene: Scene
    if grade == "mimic":
        # It replays clients of the log, at their own times: ten of each, of which the flood's part counts.
        replayed = min(REPLAYED_S, span)
        recent = _between(own, START + span - replayed, START + span)
        scene, effort = WovenScene(recent, rng), Effort(attackers, round(requests * replayed / FLOOD_S), 0.0, replayed)
    else:
        service, _ = _place(clients, seed, span)
        service.taken = set(own.column("ip").unique().to_pylist())
        scene, effort = service, Effort(attackers, requests, before, span)
    flows = families()[family](grade).campaign(scene, effort, rng)
    parts = [scene.render(flow, rng) for flow in flows if len(flow)]
    attack = _between(pa.concat_tables(parts).combine_chunks().cast(EVENT_SCHEMA), START + before, START + span)
    if attack.num_rows > 1.1 * requests:
        kept = np.sort(rng.choice(attack.num_rows, requests, replace=False))
        attack = attack.take(pa.array(kept))
    return attack


def _by_time(parts: list[pa.Table]) -> pa.Table:
    whole = pa.concat_tables(parts).combine_chunks()
    order = np.argsort(whole.column("time").to_numpy(), kind="stable")
    return whole.take(pa.array(order)).cast(EVENT_SCHEMA)


def _between(events: pa.Table, low: float, high: float) -> pa.Table:
    time = events.column("time").to_numpy()
    return events.take(pa.array(np.flatnonzero((time >= low * MICROSECONDS) & (time < high * MICROSECONDS))))


def _tokens(events: pa.Table) -> float:
    asked, given = (np.nan_to_num(events.column(n).to_numpy().astype(float)) for n in ("input_tokens", "output_tokens"))
    return float(Server(1.0).work(asked, given).sum())


def played(scenario: Scenario, model: Model, threads: int = 2, explain: bool = False, rounds: int = ROUNDS) -> WhatIf:
    """Play a scenario behind every defence, the gateway at 60 % load of legitimate requests while it lasts.

    `rounds` is how often it is scored, at most.
    """
    events = scenario.events
    label = events.column("malicious").to_numpy(zero_copy_only=False).astype(bool)
    time = events.column("time").to_numpy()
    seconds = (time - time[0]) / MICROSECONDS
    ours = events.take(pa.array(np.flatnonzero(~label & (seconds >= scenario.begins))))
    capacity = _tokens(ours) / (seconds[-1] - scenario.begins) / LOAD
    solving = Solving(attackers="all" if scenario.grade == "mimic" else "none")

    watched = Watched(model, threads)

    def solved(traffic: Traffic) -> npt.NDArray[np.bool_]:
        return solving.solve(traffic.software, traffic.family, traffic.attack)

    options = Options(capacity=capacity, explain=explain, begins=scenario.begins, rounds=rounds)
    return what_if([events], watched.score, watched.budget, solving, options, solved, watched.situation, watched.policy)


def lines(name: str, found: WhatIf) -> list[list[str]]:
    """Return a row of text for each defence."""
    bare = next(one for one in found.outcomes if one.name == NONE)
    requests = f"{bare.attack / max(bare.legitimate, 1):.1f}x requests"
    return [[name, requests, one.name, *cells(one), f"{100 * one.touched:.3f} %"] for one in found.outcomes]


def main() -> None:
    """Play every flood, then the surge, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--families", default=",".join(FLOODS))
    parser.add_argument("--grades", default=",".join(GRADES))
    parser.add_argument("--times", type=float, default=10.0)
    parser.add_argument("--by", choices=("requests", "tokens"), default="requests")
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    model = Model.load(str(given.bundle), threads=2)
    makers: list[Callable[[], Scenario]] = [
        partial(flooded, given.clients, given.seed, family, grade, given.times, given.by)
        for family in given.families.split(",")
        for grade in given.grades.split(",")
        if family and grade
    ]
    makers.append(partial(surged, given.clients, given.seed, given.times))
    print("  ".join(("scenario", "flood", "defence", *COLUMNS, "touched")))
    for make in makers:
        scenario = make()
        found = played(scenario, model, explain=given.out is not None)
        for line in lines(scenario.name, found):
            print("  ".join(line), flush=True)
        if given.out is not None:
            folder = given.out / scenario.name.replace(":", "-").replace(" ", "-")
            folder.mkdir(parents=True, exist_ok=True)
            drawn = plot(found)
            (folder / "whatif.png").write_bytes(drawn)
            (folder / "whatif.html").write_text(
                page(found, drawn, "python -m classifier.evaluation.flood"), encoding="utf-8"
            )
            (folder / "whatif.json").write_text(json.dumps(as_any(found), indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
