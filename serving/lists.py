"""The allow list and the deny list: networks, accounts and fingerprints that win over the model.

What is known best of a request counts first: an entry for its account, then one for its fingerprint, then the longest network
that its address lies in. Lists live in memory; with a state folder each change is on disk before it is in force.
"""

from __future__ import annotations

import heapq
import secrets
import socket
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Literal

import msgspec
from pytricia import PyTricia

from classifier.errors import InputError
from classifier.events import Event
from serving.disk import put

ListName = Literal["allow", "deny"]
Kind = Literal["network", "account", "fingerprint"]
MOST = 100_000
FILE = "lists.json"


class Entry(msgspec.Struct, frozen=True):
    """One entry; times are Unix seconds, `expires` None for never."""

    id: str
    list: ListName
    kind: Kind
    value: str
    created: float
    expires: float | None = None
    note: str = ""


class Lists:
    """Both lists. At most `MOST` entries; of one value the newest entry counts."""

    def __init__(self, folder: Path | None, now: Callable[[], float]) -> None:
        """Read the lists of a state folder. Raises InputError when its file is damaged: nobody should be let in by that."""
        self._file, self._now = None if folder is None else folder / FILE, now
        entries: list[Entry] = []
        if self._file is not None and self._file.exists():
            try:
                entries = msgspec.json.decode(self._file.read_bytes(), type=list[Entry])
            except msgspec.MsgspecError as error:
                raise InputError(f"{self._file} holds no lists: {error}; mend it or move it away") from error
        self._entries: dict[tuple[Kind, str], Entry] = {}
        self._rebuild(entries)

    def __len__(self) -> int:
        return len(self._entries)

    def all(self) -> list[Entry]:
        """Return the entries that have not expired, oldest first."""
        self._drop_expired()
        return sorted(self._entries.values(), key=lambda entry: (entry.created, entry.id))

    def made(self, name: ListName, kind: Kind, value: str, expires: float | None = None, note: str = "") -> Entry:
        """Return an entry that `put` can take. Raises InputError."""
        self._drop_expired()
        value = _one_spelling(kind, value)
        if expires is not None and not expires > self._now():
            raise InputError("expires lies in the past")
        if len(self._entries) >= MOST and (kind, value) not in self._entries:
            raise InputError(f"the lists hold {MOST} entries, which is all they can")
        return Entry(secrets.token_hex(6), name, kind, value, self._now(), expires, note)

    def put(self, entry: Entry) -> None:
        """Put an entry on its list, in place of what stood there of its value. Raises OSError when it cannot be kept."""
        self._change({**self._entries, (entry.kind, entry.value): entry})

    def find(self, identity: str) -> Entry | None:
        """Return an entry by its id; None if there is none."""
        self._drop_expired()
        return next((entry for entry in self._entries.values() if entry.id == identity), None)

    def remove(self, entry: Entry) -> None:
        """Remove an entry. Raises OSError, and then it stays."""
        self._change({key: other for key, other in self._entries.items() if other is not entry})

    def of(self, event: Event) -> ListName | None:
        """Return the list that whoever asks stands on."""
        if not self._entries:
            return None
        self._drop_expired()
        found = self._entries.get(("account", event.account or "")) or self._entries.get(
            ("fingerprint", event.fingerprint or "")
        )
        if found is not None:
            return found.list
        try:
            name = self._networks[":" in event.ip].get(event.ip)
        except ValueError:  # a host name or a pseudonym
            return None
        return name  # type: ignore[no-any-return]

    def _drop_expired(self) -> None:
        if not self._due or self._due[0][0] > self._now():
            return
        now = self._now()
        while self._due and self._due[0][0] <= now:
            _, kind, value = heapq.heappop(self._due)
            del self._entries[kind, value]
            if kind == "network":
                del self._networks[":" in value][value]

    def _change(self, entries: dict[tuple[Kind, str], Entry]) -> None:
        """Put the entries on disk, then in force."""
        if self._file is not None:
            put(self._file, msgspec.json.format(msgspec.json.encode(list(entries.values()))))
        self._rebuild(list(entries.values()))

    def _rebuild(self, entries: list[Entry]) -> None:
        now = self._now()
        self._entries = {
            (entry.kind, entry.value): entry for entry in entries if entry.expires is None or entry.expires > now
        }
        kept = self._entries.values()
        self._due = [(entry.expires, entry.kind, entry.value) for entry in kept if entry.expires is not None]
        heapq.heapify(self._due)
        self._networks = (PyTricia(32, socket.AF_INET), PyTricia(128, socket.AF_INET6))
        for entry in kept:
            if entry.kind == "network":
                self._networks[":" in entry.value][entry.value] = entry.list


def _one_spelling(kind: Kind, value: str) -> str:
    if kind != "network":
        if not 0 < len(value) <= 255:
            raise InputError(f"the {kind} must have 1 to 255 characters")
        return value
    try:
        network: IPv4Network | IPv6Network = ip_network(value, strict=False)
    except ValueError as error:
        raise InputError(f"{value[:80]!r} is no network such as 192.0.2.0/24, and no address") from error
    if isinstance(network, IPv6Network) and network.prefixlen >= 96 and network.network_address.ipv4_mapped is not None:
        return str(IPv4Network((network.network_address.ipv4_mapped, network.prefixlen - 96)))
    return str(network)
