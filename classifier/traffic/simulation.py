"""`simulate`: a whole log of a simulated inference service, legitimate clients and attackers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from zlib import crc32

import numpy as np
import pyarrow as pa

from classifier.errors import InputError
from classifier.events import EVENT_SCHEMA, MICROSECONDS, empty_table
from classifier.traffic import legitimate, pacing, tenants
from classifier.traffic.campaigns import plan
from classifier.traffic.family import chosen
from classifier.traffic.service import Service

START = 1_767_600_000.0
"""Unix s of the first moment simulated by default: a Monday in 2026, 8 o'clock."""
FIRST_HOUR = 8.0
MALICIOUS_CLIENTS = 0.26
"""Attackers for each legitimate client, all families together."""
MALICIOUS_EVENTS = 0.40
"""Attackers' requests for each legitimate one, all families together."""
Progress = Callable[[int, int], None]


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
    progress: Progress | None = None,
) -> pa.Table:
    """Simulate the request log of an inference service.

    duration_s: length of the log, s. clients: legitimate clients. attacks: names of attack families, "all" or "none";
    `family:grade` asks for one grade only. progress: called with (done, total) parts.
    Returns events with `EVENT_SCHEMA`, labelled in `malicious` and `family`, sorted by time. The same seed gives the
    same bytes, and legitimate events do not depend on which attacks are chosen.
    Raises InputError for an unknown family or grade and for a duration or a number of clients that is not positive.
    """
    if not 60 <= duration_s <= 366 * 86_400:
        raise InputError(f"duration {duration_s:g} s is not between 60 s and a year")
    if not 1 <= clients <= 1_000_000:
        raise InputError(f"clients {clients} is not between 1 and 1000000")
    if seed < 0:
        raise InputError(f"seed {seed} is negative; give 0 or more")
    families = chosen(attacks)
    clock = pacing.daily_clock(duration_s, FIRST_HOUR, np.array(tenants.hours()))
    service = Service(generator(seed, "service"), START, duration_s, clock)
    place = legitimate.settle(service, generator(seed, "place"), clients)
    kinds = legitimate.census(clients)
    total = len(kinds) + len(families)
    parts: list[pa.Table] = []
    numbers: dict[str, int] = {}
    for done, kind in enumerate(kinds):
        number = numbers[kind] = numbers.get(kind, -1) + 1
        rng = generator(seed, "client", kind, number)
        flows = legitimate.KINDS[kind].write(place, rng)
        parts.extend(service.render(flow, rng) for flow in flows)
        _report(progress, done + 1, total)
    honest = by_time(parts, START, duration_s)
    service.taken = set(honest["ip"].unique().to_pylist())
    hostile: list[pa.Table] = []
    for done, family in enumerate(families):
        name, attackers = family.family.name, clients * MALICIOUS_CLIENTS * family.family.share_of_clients
        requests = honest.num_rows * MALICIOUS_EVENTS * family.family.share_of_requests
        for campaign in plan(family, attackers, requests, duration_s, generator(seed, "plan", name)):
            rng = generator(seed, "campaign", name, campaign.number)
            hostile.extend(service.render(flow, rng) for flow in campaign.flows(service, rng))
        _report(progress, len(kinds) + done + 1, total)
    return by_time([honest, *hostile], START, duration_s)


def by_time(parts: Iterable[pa.Table], start: float, span: float) -> pa.Table:
    """Put tables together, sort by time (equal times keep their order) and drop what lies outside the span (s)."""
    tables = list(parts)
    whole = pa.concat_tables(tables).combine_chunks() if tables else empty_table()
    time = whole["time"].to_numpy()
    order = np.argsort(time, kind="stable")
    low, high = start * MICROSECONDS, (start + span) * MICROSECONDS
    order = order[(time[order] >= low) & (time[order] < high)]
    return whole.take(pa.array(order)).cast(EVENT_SCHEMA)


def _report(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)
