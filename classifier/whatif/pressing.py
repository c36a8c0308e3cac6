"""Load in a what-if: while the service is under attack, budgets widen for clients that are not known, as a service does it.

When it is full, they wait, and no solution of a challenge helps: not of one for load, and not of one for their score.

What is turned away relieves the server, which lets the next one in. So who is challenged for load is decided arrival by
arrival, with the server as full as it then is (`server.challenged_under_load`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from classifier.circumstances import Known
from classifier.policy import ALLOW, CHALLENGE, LOAD, WAIT, Policy
from classifier.whatif.server import Pressed, Server, challenged_under_load
from classifier.whatif.traffic import Decided, Flags, Traffic


def pressed(
    policy: Policy,
    situation: Iterable[dict[str, Any]],
    traffic: Traffic,
    decided: Decided,
    server: Server,
    can: Flags,
    acts: Flags,
) -> Decided:
    """Return the decisions with those that load brings about.

    `situation` are verdicts about the service (`LogWatch.stretches`), `can` says who solves a challenge, `acts` where
    decisions are enforced, bool[n] each.
    """
    opened, moment = np.zeros(len(traffic), np.bool_), traffic.start + traffic.time
    for stretch in situation:
        if stretch["state"] == "attack":
            during = (moment >= stretch["since"]) & (moment <= stretch["until"])
            opened |= during & ~(decided.history - (moment - stretch["onset"]) >= Known().client_s)
    opened &= acts & ~decided.refused(can, acts)
    if not opened.any():
        return decided
    work = np.where(decided.refused(can, acts), 0.0, server.work(traffic.input_tokens, traffic.output_tokens))
    pressure, allowed = policy.pressure, decided.code == ALLOW
    raw = np.where(allowed, decided.raw, np.float32(np.inf))  # who is challenged anyway is so at any load
    asked = Pressed(raw, policy.widened(), pressure.begins, pressure.weights(decided.cost), opened, can)
    challenged, full = challenged_under_load(server, traffic.time, work, asked)
    turned, waits = challenged & allowed, full & can
    reasons = decided.reasons.copy()
    for rows, why in ((waits, WAIT), (turned, LOAD)):
        reasons[rows] = [f"{why} {of}" if of else why for of in reasons[rows]]
    return replace(decided, code=np.where(turned, np.uint8(CHALLENGE), decided.code), reasons=reasons, waits=waits)
