"""Legitimate clients of an inference service, by kind. Most of them are programs, and the heaviest are honest.

`KINDS` is the one table of kinds: how many of the clients are of a kind, what writes their flows, and whether they are
among those that look bad. A kind's name becomes the `family` of its events.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from classifier.traffic.legitimate import people, programs
from classifier.traffic.legitimate.place import HOUR, Place, Writer, settle

__all__ = [
    "AWKWARD",
    "FAMILIES",
    "KINDS",
    "ORDINARY",
    "SURGE",
    "Kind",
    "Place",
    "census",
    "settle",
    "surge_size",
    "writer",
]


class Kind(NamedTuple):
    """A kind of legitimate client: its share of the clients, what writes one of them, and why it looks bad, if it does."""

    share: float
    write: Writer
    looks_bad: str = ""


KINDS = {
    "person": Kind(0.33, people.person),
    "ide_assistant": Kind(0.07, people.ide_assistant, "a request at every pause of the typing"),
    "sdk_batch": Kind(0.04, programs.sdk_batch, "one template over many records, heavy and regular"),
    "tenant": Kind(0.05, programs.tenant, "the heaviest production tenants (labelled tenant_heavy) send without end"),
    "tenant_bursty": Kind(0.01, programs.tenant_bursty, "the burstiest production tenants: nothing, then everything"),
    "agent": Kind(0.05, programs.agent, "bursts of calls without a pause, with a context that grows"),
    "ci_job": Kind(0.03, programs.ci_job, "trivial prompts in bursts on the hour, from changing addresses"),
    "team": Kind(0.015, people.team, "one account, many addresses and libraries"),
    "newcomer": Kind(0.08, people.newcomer, "fresh accounts, trivial prompts, errors"),
    "visitor": Kind(0.09, people.visitor),
    "monitor": Kind(0.01, programs.monitor, "the same request like clockwork"),
    "crawler": Kind(0.015, programs.crawler, "declared good bots that take many pages"),
    "expired_key": Kind(0.025, programs.expired_key, "the same 401 for hours"),
    "nightly_batch": Kind(0.01, programs.nightly_batch, "thousands of requests that begin at the full hour"),
    "evaluation_run": Kind(0.015, programs.evaluation_run, "a list of questions put to one model after the other"),
    "backfill": Kind(0.01, programs.backfill, "a whole collection of documents embedded as fast as the limit allows"),
    "university": Kind(0.03, people.university, "hundreds of people behind one address, who begin with the lecture"),
    "mobile_carrier": Kind(0.03, people.mobile_carrier, "strangers who share a few addresses"),
    "corporate_vpn": Kind(0.03, people.corporate_vpn, "a company behind the exits of a VPN"),
    "retry_storm": Kind(0.01, programs.retry_storm, "hasty new tries after every 429 and 5xx"),
    "popular_library": Kind(0.03, people.popular_library, "one new fingerprint, many young accounts"),
    "security_researcher": Kind(0.01, people.security_researcher, "jailbreaks and extraction, within the terms"),
    "asks_security": Kind(0.01, people.asks_security, "questions about attacks, from people who defend"),
}
ORDINARY = (
    "person", "ide_assistant", "sdk_batch", "tenant", "agent", "ci_job", "team", "newcomer", "visitor", "monitor", "crawler",
    "expired_key",
)  # fmt: skip
"""Kinds that a small service has from its first day: those of `make demo`."""
AWKWARD = tuple(name for name, kind in KINDS.items() if kind.looks_bad)
"""Kinds that look bad in some way."""
SURGE = "surge"
"""The `family` of those who come in a surge of popularity (`simulate(surge=...)`)."""
FAMILIES = ("tenant_heavy", SURGE, *KINDS)
"""Every `family` of legitimate events."""


def writer(kind: str) -> Writer:
    """Return what writes one client of a kind."""
    return people.surge if kind == SURGE else KINDS[kind].write


def census(clients: int, kinds: Sequence[str] = tuple(KINDS)) -> dict[str, int]:
    """Return how many of `clients` clients are of each of `kinds`: by share, with the largest remainders rounded up."""
    whole = round(sum(KINDS[name].share for name in kinds), 9)
    exact = {name: KINDS[name].share / whole * clients for name in kinds}
    counts = {name: int(x) for name, x in exact.items()}
    left = clients - sum(counts.values())
    for name in sorted(exact, key=lambda name: counts[name] - exact[name])[:left]:
        counts[name] += 1
    return counts


def surge_size(clients: int, span: float, times: float) -> int:
    """Return how many people come in a surge: `times` as many new accounts within an hour as come in a usual one."""
    usual = KINDS["newcomer"].share * clients / max(span / HOUR, 1.0)
    return round(times * usual)
