"""The allow list and the deny list: networks, accounts and fingerprints that win over the model.

What is known best of a request counts first: an entry for its account, then one for its fingerprint, then the longest network
that its address lies in. Lists live in memory; with a state folder each change is on disk before it is in force.
"""

from __future__ import annotations

import heapq
import re
import secrets
import socket
import threading
from collections.abc import Callable, Iterable
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
_ZONE = re.compile(r"%[^/]*")


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
        """Read the lists of a state folder. Raises InputError when its file is damaged: nobody should be let in by that.

        `now` gives Unix seconds.
        """
        self._file, self._now = None if folder is None else folder / FILE, now
        self._held = _Held([] if self._file is None else _read(self._file), now())
        self._changing = threading.Lock()

    def __len__(self) -> int:
        return len(self._held.entries)

    def all(self) -> list[Entry]:
        """Return the entries that have not expired, oldest first."""
        self._drop_expired()
        return sorted(self._held.entries.values(), key=lambda entry: (entry.created, entry.id))

    def made(self, name: ListName, kind: Kind, value: str, expires: float | None = None, note: str = "") -> Entry:
        """Return an entry that `put` can take. Raises InputError."""
        self._drop_expired()
        value = _one_spelling(kind, value)
        if expires is not None and not expires > self._now():
            raise InputError("expires lies in the past")
        if len(self) >= MOST and (kind, value) not in self._held.entries:
            raise InputError(f"the lists hold {MOST} entries, which is all they can")
        return Entry(secrets.token_hex(6), name, kind, value, self._now(), expires, note)

    def put(self, entry: Entry) -> None:
        """Put an entry on its list, in place of what stood there of its value. Raises OSError when it cannot be kept.

        This and `remove` take a while with many entries, and may run in other threads.
        """
        with self._changing:
            self._change({**self._held.entries, (entry.kind, entry.value): entry})

    def find(self, identity: str) -> Entry | None:
        """Return an entry by its id; None if there is none."""
        self._drop_expired()
        return next((entry for entry in self._held.entries.values() if entry.id == identity), None)

    def remove(self, entry: Entry) -> None:
        """Remove an entry. Raises OSError, and then it stays."""
        with self._changing:
            entries = self._held.entries.copy()
            entries.pop((entry.kind, entry.value), None)
            self._change(entries)

    def of(self, event: Event) -> ListName | None:
        """Return the list that whoever asks stands on."""
        if not self._held.entries:
            return None
        self._drop_expired()
        entries = self._held.entries
        found = entries.get(("account", event.account or "")) or entries.get(("fingerprint", event.fingerprint or ""))
        if found is not None:
            return found.list
        try:
            name = self._held.networks[":" in event.ip].get(event.ip.partition("%")[0])  # whatever its zone
        except ValueError:  # a host name or a pseudonym
            return None
        return name  # type: ignore[no-any-return]

    def _drop_expired(self) -> None:
        held = self._held
        if not held.due or held.due[0][0] > self._now():
            return
        now = self._now()
        while held.due and held.due[0][0] <= now:
            _, kind, value = heapq.heappop(held.due)
            del held.entries[kind, value]
            if kind == "network":
                del held.networks[":" in value][value]

    def _change(self, entries: dict[tuple[Kind, str], Entry]) -> None:
        """Put the entries on disk, then in force: all at once, so that another thread sees the old or the new."""
        held = _Held(entries.values(), self._now())
        if self._file is not None:
            # One by one, so that other threads have their turn.
            lines = [msgspec.json.encode(entry) for entry in entries.values()]
            put(self._file, b"[\n" + b",\n".join(lines) + b"\n]\n")
        self._held = held


class _Held:
    """Entries by their value, when those that expire do so, and the list of each network."""

    def __init__(self, entries: Iterable[Entry], now: float) -> None:
        self.entries: dict[tuple[Kind, str], Entry] = {
            (entry.kind, entry.value): entry for entry in entries if entry.expires is None or entry.expires > now
        }
        kept = self.entries.values()
        self.due = [(entry.expires, entry.kind, entry.value) for entry in kept if entry.expires is not None]
        heapq.heapify(self.due)
        self.networks = (PyTricia(32, socket.AF_INET), PyTricia(128, socket.AF_INET6))
        for entry in kept:
            if entry.kind == "network":
                self.networks[":" in entry.value][entry.value] = entry.list


def _read(file: Path) -> list[Entry]:
    """Return the entries of a file; none where it is missing. Raises InputError."""
    try:
        entries = msgspec.json.decode(file.read_bytes(), type=list[Entry])
        return [msgspec.structs.replace(entry, value=_one_spelling(entry.kind, entry.value)) for entry in entries]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}; mend it or move it away") from error
    except (ValueError, InputError) as error:  # no JSON, or an entry that is none
        raise InputError(f"{file} holds no lists: {error}; mend it or move it away") from error


def _one_spelling(kind: Kind, value: str) -> str:
    if kind != "network":
        if not 0 < len(value) <= 255:
            raise InputError(f"the {kind} must have 1 to 255 characters")
        return value
    if ":" in value:
        value = _ZONE.sub("", value)  # addresses are looked up without theirs
    try:
        network: IPv4Network | IPv6Network = ip_network(value, strict=False)
    except ValueError as error:
        raise InputError(f"{value[:80]!r} is no network such as 192.0.2.0/24, and no address") from error
    if isinstance(network, IPv6Network) and network.prefixlen >= 96 and network.network_address.ipv4_mapped is not None:
        return str(IPv4Network((network.network_address.ipv4_mapped, network.prefixlen - 96)))
    return str(network)
