"""One bad tenant beside honest clients: what happens to those who share an address or a library with an attacker.

A log is changed so that behind each shared address (of a university, a carrier, a company's exit) one plain attacker with an
account sits, and some more use the library that is popular this month. Nothing else differs from the log as it was, so
whatever more is challenged of the neighbours' requests is challenged for the company they keep.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from classifier.evaluation.traffic import Traffic
from classifier.traffic.software import NEW_LIBRARY

PLACES = ("university", "mobile_carrier", "corporate_vpn")
LIBRARY = "popular_library"
FEWEST_NEIGHBOURS = 8
USERS = 5
"""Attackers who use the library."""
WHO = ("request_flood", "enumeration", "jailbreak", "expensive_requests", "distillation", "stolen_keys")
"""Families of the bad tenants."""


@dataclass(frozen=True)
class Planted:
    """The changed log; `neighbour` bool[n] marks the legitimate requests of those who share with a bad tenant.

    `places` and `tenants` count the shared addresses and the bad tenants (users of the library included).
    """

    traffic: Traffic
    neighbour: npt.NDArray[np.bool_]
    places: int
    tenants: int


def planted(traffic: Traffic, seed: int = 0) -> Planted:
    """Put one plain attacker behind each shared address, and some on the popular library. Rows keep their order."""
    events = traffic.events
    ip, account, family = (_objects(events[name]) for name in ("ip", "account", "family"))
    malicious = events["malicious"].to_numpy(zero_copy_only=False).astype(bool)
    agent, fingerprint = (_objects(events[name]) for name in ("user_agent", "fingerprint"))
    rng = np.random.default_rng(seed)
    shared = _shared(ip, account, np.isin(family, PLACES) & ~malicious)
    plain = malicious & (_objects(traffic.grade) == "plain") & np.isin(family, WHO) & (account != None)  # noqa: E711
    candidates = sorted(set(account[plain]))
    drawn = [candidates[i] for i in rng.permutation(len(candidates))[: len(shared) + USERS]]
    for who, where in zip(drawn, shared, strict=False):
        ip[malicious & (account == who)] = where
    users = drawn[len(shared) :]
    of_library = malicious & np.isin(account.astype(str), users)
    agent[of_library], fingerprint[of_library] = NEW_LIBRARY.user_agent, NEW_LIBRARY.fingerprint
    neighbour = ~malicious & (np.isin(ip.astype(str), shared) | (family == LIBRARY))
    changed = events
    for name, values in (("ip", ip), ("user_agent", agent), ("fingerprint", fingerprint)):
        at = changed.schema.get_field_index(name)
        changed = changed.set_column(at, changed.schema.field(name), pa.array(values, changed.schema.field(name).type))
    return Planted(Traffic(changed, traffic.grade, traffic.campaign), neighbour, len(shared), len(drawn))


def _shared(ip: npt.NDArray[Any], account: npt.NDArray[Any], at: npt.NDArray[np.bool_]) -> list[str]:
    """Return the addresses with several accounts behind them."""
    pairs = {pair for pair in zip(ip[at].tolist(), account[at].tolist(), strict=True) if pair[1] is not None}
    count = Counter(where for where, _ in pairs)
    return sorted(where for where, n in count.items() if n >= FEWEST_NEIGHBOURS)


def _objects(column: Any) -> npt.NDArray[Any]:
    return np.array(column.to_pylist(), object)
