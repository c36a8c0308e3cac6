"""`inject`: attackers woven into a user's own log."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from classifier.errors import InputError
from classifier.events import EVENT_SCHEMA, UNLABELLED, clients_of
from classifier.traffic.campaigns import plan
from classifier.traffic.family import Chosen, chosen, visible
from classifier.traffic.simulation import generator
from classifier.traffic.woven import WovenScene

SHARE = 0.15
"""Attackers for each client of the log."""
MOST = 0.6
"""Attackers' requests for each request of the log, at most."""
LEAST_REQUESTS = 18.0
"""Requests of an attacker on average; where there is no room for so many, there are fewer attackers."""
BUSY_LOG = 200
"""Clients of a log from which every family gets at least `LEAST_ATTACKERS`, where they have requests to send."""
LEAST_ATTACKERS = 5


def inject(events: pa.Table, *, attacks: str | Sequence[str] = "all", seed: int = 0, share: float = SHARE) -> pa.Table:
    """Weave attackers into a real log, which is taken as legitimate where it has no labels.

    events: a table with `EVENT_SCHEMA`. attacks: names of families, "all" or "none"; `family:grade` asks for one grade.
    share: attackers for each client of the log. Returns the log's rows, unchanged but for `malicious` (False where it
    was null) and `family` ("log" where it was null), together with the attackers', sorted by time (equal times keep
    their order, the log's rows first). Attackers have addresses that the log does not have, fields that it has, and
    send at most 0.6 requests for each of its own. The same events and seed give the same bytes.
    Raises InputError for an unknown family or grade, a share that is not in (0, 1] or a negative seed.
    """
    if not 0 < share <= 1:
        raise InputError(f"share {share:g} is not above 0 and at most 1")
    if seed < 0:
        raise InputError(f"seed {seed} is negative; give 0 or more")
    families = chosen(attacks)
    own = _labelled(events.cast(EVENT_SCHEMA))
    if not own.num_rows or not families:
        return _sorted(own)
    scene = WovenScene(own, generator(seed, "woven"))
    families = visible(families, scene, _named(attacks))
    parts: list[pa.Table] = []
    possible = visible(chosen("all"), scene, ())
    for what, clients, requests in _divide(own, families, possible, share):
        for campaign in plan(what, clients, requests, scene.span, generator(seed, "plan", what.family.name)):
            rng = generator(seed, "campaign", what.family.name, campaign.number)
            parts.extend(scene.render(flow, rng) for flow in campaign.flows(scene, rng))
    if not parts:
        return _sorted(own)
    hostile = pa.concat_tables(parts).combine_chunks()
    most = int(MOST * own.num_rows)
    if hostile.num_rows > most:
        kept = generator(seed, "thinned").choice(hostile.num_rows, most, replace=False)
        hostile = hostile.take(pa.array(np.sort(kept)))
    return _sorted(pa.concat_tables([own, hostile]))


def to_weave(inject: str) -> list[str]:
    """Return what `--inject` names as `inject` takes it; a family without a grade comes plain and evasive.

    Mimics have to be asked for: a model that learns from them learns that what legitimate clients do is malicious.
    Raises InputError for an unknown family or grade.
    """
    names = [name.strip() for name in inject.split(",") if name.strip()]
    entries = [
        entry
        for name in names
        for entry in ([name] if ":" in name or name == "none" else [f"{name}:plain", f"{name}:evasive"])
    ]
    chosen(entries)
    return entries


def _divide(
    own: pa.Table, families: list[Chosen], possible: list[Chosen], share: float
) -> list[tuple[Chosen, float, float]]:
    """Return how many attackers and requests each family gets.

    Every family weighs in with the shares that it has when all `possible` ones take part, those that the log can show, so
    that one more changes no other. A campaign without the requests that its purpose needs would be none: a short log has
    few attackers rather than many that do next to nothing.
    """
    clients = len(pc.unique(clients_of(own)))
    least = LEAST_ATTACKERS if clients >= BUSY_LOG else 2
    each = max(LEAST_REQUESTS, 1.5 * own.num_rows / clients)
    of_clients = sum(what.family.share_of_clients for what in possible)
    of_requests = sum(what.family.share_of_requests for what in possible)
    divided = []
    for what in families:
        weight = what.family.share_of_requests / of_requests
        attackers = max(share * clients * what.family.share_of_clients / of_clients, float(least))
        average = each * (what.family.share_of_requests / what.family.share_of_clients) ** 0.5
        requests = min(attackers * average, 0.9 * MOST * own.num_rows * weight)
        divided.append((what, min(attackers, max(requests / LEAST_REQUESTS, 2.0)), requests))
    return divided


def _named(attacks: str | Sequence[str]) -> set[str]:
    names = attacks.split(",") if isinstance(attacks, str) else attacks
    return {name.strip().partition(":")[0] for name in names}


def _labelled(events: pa.Table) -> pa.Table:
    names = EVENT_SCHEMA.names
    labelled = events.set_column(names.index("malicious"), "malicious", pc.fill_null(events["malicious"], False))
    return labelled.set_column(names.index("family"), "family", pc.fill_null(events["family"], UNLABELLED))


def _sorted(events: pa.Table) -> pa.Table:
    whole = events.combine_chunks()
    order = np.argsort(whole["time"].to_numpy(), kind="stable")
    return whole.take(pa.array(order)).cast(EVENT_SCHEMA)
