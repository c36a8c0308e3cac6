"""`simulate`: a whole log of a simulated inference service, legitimate clients and attackers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import pyarrow as pa

from classifier.errors import InputError
from classifier.events import EVENT_SCHEMA, MICROSECONDS, empty_table
from classifier.traffic import legitimate, pacing, tenants
from classifier.traffic.campaigns import Campaign, plan
from classifier.traffic.family import Chosen, chosen
from classifier.traffic.flow import Flow
from classifier.traffic.mimicry import BY_VOLUME
from classifier.traffic.service import Service

START = 1_767_600_000.0
"""Unix s of the first moment simulated by default: a Monday in 2026, 8 o'clock."""
FIRST_HOUR = 8.0
MALICIOUS_CLIENTS = 0.3
"""Attackers for each legitimate client, all families together."""
MALICIOUS_EVENTS = 0.40
"""Attackers' requests for each legitimate one, all families together."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Simulated:
    """A simulated log, and what no log says of its requests.

    events: table [n] with `EVENT_SCHEMA`. grade, campaign: string arrays [n], null where a request is legitimate; a
    campaign is named after its family, grade and number.
    """

    events: pa.Table
    grade: pa.Array
    campaign: pa.Array


@dataclass(frozen=True)
class Each:
    """How many attackers each family has in each grade, instead of a share of all clients: for evaluations by grade.

    A mimic that is about a volume has twice as many at its disposal: it replays heavy clients, and so uses fewer.
    intensity: requests of an attacker, relative to what his family's attackers send when all take part by share.
    """

    attackers: int
    intensity: float = 1.0


def generator(seed: int, *path: str | int) -> np.random.Generator:
    """Return the random generator of one part of the traffic.

    Parts are named, so that one more client or family changes no other.
    """
    key = [crc32(part.encode()) if isinstance(part, str) else part for part in path]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=tuple(key))))


def simulate(
    *,
    duration_s: float = 6 * 3600,
    clients: int = 400,
    attacks: str | Sequence[str] = "all",
    seed: int = 0,
    surge: float = 0.0,
    attackers: float = MALICIOUS_CLIENTS,
    kinds: Sequence[str] = tuple(legitimate.KINDS),
    progress: Progress | None = None,
) -> pa.Table:
    """Simulate the request log of an inference service.

    duration_s: length of the log, s. clients: legitimate clients. attacks: names of attack families, "all" or "none";
    `family:grade` asks for one grade only. surge: how many times more new accounts than usual come within one hour, all
    of them people (0: no surge). attackers: attackers for each legitimate client, all families together. kinds:
    kinds of legitimate clients (`legitimate.KINDS`). progress: called with (done, total) parts.
    Returns events with `EVENT_SCHEMA`, labelled in `malicious` and `family`, sorted by time. The same seed gives the
    same bytes, and legitimate events do not depend on which attacks are chosen.
    Raises InputError for an unknown family or grade and for a duration or a number of clients that is not positive.
    """
    return simulated(
        duration_s=duration_s, clients=clients, attacks=attacks, seed=seed, surge=surge, attackers=attackers,
        kinds=kinds, progress=progress,
    ).events  # fmt: skip


def simulated(
    *,
    duration_s: float = 6 * 3600,
    clients: int = 400,
    attacks: str | Sequence[str] = "all",
    seed: int = 0,
    surge: float = 0.0,
    attackers: float = MALICIOUS_CLIENTS,
    kinds: Sequence[str] = tuple(legitimate.KINDS),
    each: Each | None = None,
    progress: Progress | None = None,
) -> Simulated:
    """Simulate as `simulate` does, and tell also the grade and the campaign of each request.

    With `each`, every family acts in every grade asked for, with so many attackers; `attackers` then says nothing.
    """
    if not 60 <= duration_s <= 366 * 86_400:
        raise InputError(f"duration {duration_s:g} s is not between 60 s and a year")
    if not 1 <= clients <= 1_000_000:
        raise InputError(f"clients {clients} is not between 1 and 1000000")
    if seed < 0:
        raise InputError(f"seed {seed} is negative; give 0 or more")
    if not 0 <= surge <= 1000:
        raise InputError(f"surge {surge:g} is not between 0 (none) and 1000 times as many new accounts")
    if not 0 < attackers <= 100:
        raise InputError(f"attackers {attackers:g} for each client is not above 0 and at most 100")
    families = chosen(attacks)
    clock = pacing.daily_clock(duration_s, FIRST_HOUR, np.array(tenants.hours()))
    service = Service(generator(seed, "service"), START, duration_s, clock)
    place = legitimate.settle(service, generator(seed, "place"), clients)
    members = [(kind, number) for kind, n in legitimate.census(clients, kinds).items() for number in range(n)]
    members += [(legitimate.SURGE, number) for number in range(legitimate.surge_size(clients, duration_s, surge))]
    total = len(members) + len(families)
    parts: list[pa.Table] = []
    usual = 0
    for done, (kind, number) in enumerate(members):
        tables = _client(service, place, seed, kind, number)
        parts.extend(tables)
        usual += sum(table.num_rows for table in tables) if kind != legitimate.SURGE else 0
        _report(progress, done + 1, total)
    service.taken = {address for part in parts for address in part["ip"].unique().to_pylist()}
    marks: list[tuple[str | None, str | None]] = [(None, None)] * len(parts)
    for done, family in enumerate(families):
        name = family.family.name
        several = clients * attackers * family.family.share_of_clients
        requests = usual * MALICIOUS_EVENTS * family.family.share_of_requests
        planned = (
            [(c, generator(seed, "campaign", name, c.number))
             for c in plan(family, several, requests, duration_s, generator(seed, "plan", name))]
            if each is None
            else list(_by_grade(family, each, usual / clients, duration_s, seed))
        )  # fmt: skip
        for campaign, rng in planned:
            tables = [service.render(flow, rng) for flow in campaign.flows(service, rng)]
            parts.extend(tables)
            grade = campaign.family.grade
            marks.extend([(grade, f"{name}:{grade}:{campaign.number}")] * len(tables))
        _report(progress, len(members) + done + 1, total)
    return _by_time(parts, marks, duration_s)


def _by_grade(
    family: Chosen, each: Each, usual: float, span: float, seed: int
) -> Iterator[tuple[Campaign, np.random.Generator]]:
    """Plan a family's campaigns grade by grade. `usual` is the number of requests of a legitimate client."""
    name = family.family.name
    relative = family.family.share_of_requests / family.family.share_of_clients
    requests = each.intensity * usual * relative * MALICIOUS_EVENTS / MALICIOUS_CLIENTS
    for grade in family.grades:
        one = Chosen(family.family, (grade,))
        several = each.attackers * (2 if grade == "mimic" and family.family.needs in BY_VOLUME else 1)
        for campaign in plan(one, several, several * requests, span, generator(seed, "plan", name, grade)):
            yield campaign, generator(seed, "campaign", name, grade, campaign.number)


def _client(service: Service, place: legitimate.Place, seed: int, kind: str, number: int) -> list[pa.Table]:
    """Write one legitimate client, note how to write it again, and render it."""

    def write() -> list[Flow]:
        return list(legitimate.writer(kind)(place, generator(seed, "client", kind, number)))

    flows = write()
    if kind != legitimate.SURGE:
        service.clients.add(flows, write)
    rng = generator(seed, "client", kind, number, "rendered")
    return [service.render(flow, rng) for flow in flows]


def _by_time(parts: list[pa.Table], marks: list[tuple[str | None, str | None]], span: float) -> Simulated:
    """Put tables together, sort by time (equal times keep their order) and drop what lies outside the span (s)."""
    whole = pa.concat_tables(parts).combine_chunks() if parts else empty_table()
    time = whole["time"].to_numpy()
    order = np.argsort(time, kind="stable")
    low, high = START * MICROSECONDS, (START + span) * MICROSECONDS
    order = order[(time[order] >= low) & (time[order] < high)]
    part = np.repeat(np.arange(len(parts)), [table.num_rows for table in parts])[order]
    grades, campaigns = (pa.array([mark[i] for mark in marks], pa.string()) for i in (0, 1))
    return Simulated(
        whole.take(pa.array(order)).cast(EVENT_SCHEMA), grades.take(pa.array(part)), campaigns.take(pa.array(part))
    )


def _report(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)
