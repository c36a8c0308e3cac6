"""Who is acted on: clients with their reasons, and campaigns with what their clients share.

Counts fade with a half-life of five minutes, so that what is over leaves. A client is named by its keyed hash; of its address the
newest one is kept, for the operator to act on, unless the settings ask for pseudonyms. Of accounts, prompts, credentials and the
query of a path nothing is kept. A flood is sampled, and the table has a size that no attacker can raise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from heapq import nlargest
from ipaddress import ip_network
from typing import Any

from classifier.features import layout as at
from classifier.features.agents import normal_agent
from classifier.policy import WAIT
from classifier.situation import MINUTE_US
from serving.console.rows import Row
from serving.gate import Answer, Arrival
from serving.recent import Batch

HALF_LIFE_MIN = 5
MOST = 2_048
LEAST = 0.05
"""A count below it is forgotten."""
TEXT = 80
"""Characters of a path or a user agent that are kept."""
REASONS = 3


@dataclass(slots=True)
class Suspect:
    """A client that was acted on. Counts fade; `worst` is the row of the highest raw score since it came into the table."""

    client: str
    account: bool
    address: str | None
    place: int
    """The keyed hash of the address, by which it is forgotten."""
    network: str
    path: str
    software: str
    family: str
    worst: Row
    score: int
    time: int
    asked: float = 0.0
    acted: float = 0.0
    blocked: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)


class Suspects:
    """The clients that one gate acts on, most acted on first."""

    def __init__(self, *, addresses: bool = True, most: int = MOST) -> None:
        """Remember at most `most` clients, and their newest address only where `addresses`."""
        self._addresses, self._most = addresses, most
        self._by_client: dict[str, Suspect] = {}
        self._minute = -1

    def __len__(self) -> int:
        return len(self._by_client)

    def follow(self, batch: Batch) -> None:
        """Take note of what was acted on."""
        self.fade(batch.time // MINUTE_US)
        known, some, acted = self._by_client, batch.some, batch.acted
        if known:
            weight = len(batch) / len(some)
            for arrival, answer in zip(some.arrivals, some.answers, strict=True):
                if answer.decision == "allow" and (suspect := known.get(arrival.client)) is not None:
                    suspect.asked += weight
        for arrival, answer in zip(acted.arrivals, acted.answers, strict=True):
            self._act(arrival, answer, acted.weight)
        if len(known) > self._most:
            kept = nlargest(self._most // 2, known.values(), key=lambda suspect: suspect.acted)
            self._by_client = {suspect.client: suspect for suspect in kept}

    def _act(self, arrival: Arrival, answer: Answer, stands_for: float) -> None:
        event, raw = arrival.event, answer.raw or 0.0
        suspect = self._by_client.get(arrival.client)
        if suspect is None:
            suspect = self._by_client[arrival.client] = Suspect(
                arrival.client, event.account is not None, None, 0, "", "", "", "",
                Row(arrival.row.copy(), arrival.time, raw), answer.score or 1, arrival.time,
            )  # fmt: skip
        elif raw > suspect.worst.raw:
            suspect.worst, suspect.score = Row(arrival.row.copy(), arrival.time, raw), answer.score or 1
        suspect.asked += stands_for
        suspect.acted += stands_for
        suspect.blocked += stands_for * (answer.decision == "block")
        for reason in answer.reasons:
            suspect.reasons[reason] += 1
        suspect.time, suspect.path = arrival.time, shown_path(event.path)
        suspect.software = normal_agent(event.user_agent)[:TEXT] if event.user_agent else "none stated"
        suspect.family = answer.family or "unknown"
        if self._addresses and event.ip != suspect.address:
            suspect.address, suspect.network = event.ip[:TEXT], network_of(event.ip)
            suspect.place = int(arrival.hashes[at.H_ADDRESS])

    def fade(self, minute: int) -> None:
        """Let the counts fade once a minute; minutes of the gate's clock."""
        passed = minute - self._minute
        if self._minute < 0 or passed <= 0:
            self._minute = max(self._minute, minute)
            return
        self._minute = minute
        factor = 0.5 ** (passed / HALF_LIFE_MIN)
        for suspect in list(self._by_client.values()):
            suspect.asked, suspect.acted = suspect.asked * factor, suspect.acted * factor
            suspect.blocked *= factor
            if suspect.acted < LEAST:
                del self._by_client[suspect.client]

    def of(self, client: str) -> Suspect | None:
        """Return a client, by its 16 hex digits."""
        return self._by_client.get(client)

    def clear(self) -> None:
        """Forget everybody."""
        self._by_client.clear()

    def forget(self, clients: Collection[str]) -> None:
        """Remove clients, and addresses from which other clients have come."""
        for client in clients:
            self._by_client.pop(client, None)
        places = {int(client, 16) for client in clients}
        for suspect in self._by_client.values():
            if suspect.place in places:
                suspect.address, suspect.network, suspect.place = None, "", 0

    def top(self, most: int = 10) -> list[dict[str, Any]]:
        """Return those that were acted on most."""
        chosen = nlargest(most, self._by_client.values(), key=lambda suspect: (suspect.acted, suspect.client))
        return [
            {
                "client": suspect.client,
                "kind": "account" if suspect.account else "address",
                "address": suspect.address,
                "asked": round(suspect.asked, 1),
                "acted": round(suspect.acted, 1),
                "blocked": round(suspect.blocked, 1),
                "score": suspect.score,
                "family": suspect.family,
                "reasons": _commonest(suspect.reasons),
            }
            for suspect in chosen
        ]

    def campaigns(self, most: int = 6) -> list[dict[str, Any]]:
        """Return the attack families that are acted on: how many clients, why, and what these clients share most."""
        families: dict[str, list[Suspect]] = {}
        for suspect in self._by_client.values():
            families.setdefault(suspect.family, []).append(suspect)
        largest = nlargest(most, families.items(), key=lambda item: sum(one.acted for one in item[1]))
        return [
            {
                "family": family,
                "clients": len(members),
                "acted": round(sum(one.acted for one in members), 1),
                "reasons": _commonest(_summed(members)),
                "shares": [shared for name in _MARKS if (shared := _shared(name, members)) is not None],
            }
            for family, members in largest
        ]


_MARKS = ("software", "path", "network")


def _summed(members: Iterable[Suspect]) -> Counter[str]:
    reasons: Counter[str] = Counter()
    for one in members:
        reasons.update(one.reasons)
    return reasons


def _commonest(reasons: Counter[str]) -> list[str]:
    """Return the commonest reasons, and also that there is waiting: it begins later than the others, and is seldom among them."""
    names = [reason for reason, _ in reasons.most_common(REASONS)]
    if WAIT in reasons and WAIT not in names:
        names.append(WAIT)
    return [shown_reason(name) for name in names]


def _shared(name: str, members: list[Suspect]) -> dict[str, Any] | None:
    """Return the commonest value of a mark, and by which share of the clients it is held; None where it says nothing."""
    counts = Counter(getattr(one, name) for one in members)
    value, count = counts.most_common(1)[0]
    if not value:
        return None
    return {"what": name, "value": value, "share": count / len(members), "values": len(counts)}


def shown_reason(name: str) -> str:
    """Return a reason in words."""
    return "waits for room" if name == WAIT else name.replace("_", " ")


def shown_path(path: str) -> str:
    """Return a path as people may see it: without its query, in which keys are sent, and short."""
    return path.partition("?")[0][:TEXT]


def network_of(address: str) -> str:
    """Return the /24 or /48 of an address; of what is none, nothing."""
    try:
        return str(ip_network(f"{address}/{48 if ':' in address else 24}", strict=False))
    except ValueError:
        return ""
