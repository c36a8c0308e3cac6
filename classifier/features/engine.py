"""The engine: bounded tables of profiles, run over many transitions or over one. It is the same kernel either way.

engine = Engine()                                   # batch: whole chunks in the order of section "order"
rows = engine.run(orderer.push(chunk))              # float32[arrivals, features]

serial, row = engine.arrive(preparer.arrival(e))    # online: one request at a time
engine.complete(serial, time, values)
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from classifier.errors import InputError
from classifier.features import layout as at
from classifier.features import profile
from classifier.features.flight import Flight
from classifier.features.order import EXPIRY_US, Transitions
from classifier.features.prepare import Events
from classifier.features.spec import COLUMN, ENTITIES, MEASURE_INDEX, MEASURES, NAMES, RATIOS, REQUEST, measures_of

Rows = npt.NDArray[np.float32]
Profile = npt.NDArray[np.float64]
WIDTHS = (at.OWN_WIDTH, *(at.GROUP_WIDTH for _ in ENTITIES[1:]))
"""Numbers of a profile per entity kind."""


@dataclass(frozen=True)
class Tables:
    """Sizes of the tables: sets (a power of two) and ways per entity kind. Slots = sets * ways."""

    sets: tuple[int, ...]
    ways: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.sets) != len(ENTITIES) or len(self.ways) != len(ENTITIES):
            raise InputError(f"tables need a size for each of {', '.join(ENTITIES)}")
        if any(s < 1 or s & (s - 1) for s in self.sets) or any(w < 1 for w in self.ways):
            raise InputError("the number of sets of a table must be a power of two, and that of ways at least 1")

    @classmethod
    def for_clients(cls, clients: int) -> Tables:
        """Return tables that hold `clients` clients and as many addresses, and less of the entities that are fewer."""
        sets = 1 << max(int(np.ceil(np.log2(max(clients, 16) / 16))), 0)
        return cls((sets, sets, max(sets // 8, 1), max(sets // 32, 1), max(sets // 8, 1), 1), (16, 16, 16, 16, 16, 1))

    @classmethod
    def from_slots(cls, slots: Mapping[str, int]) -> Tables:
        """Return the tables with these slots per entity kind, as a manifest states them (16 ways; `everyone` is one)."""
        missing = [entity for entity in ENTITIES if entity not in slots]
        if missing:
            raise InputError(f"the tables' sizes lack {', '.join(missing)}; train the bundle again")
        ways = tuple(min(16, slots[entity]) for entity in ENTITIES)
        return cls(tuple(slots[entity] // w for entity, w in zip(ENTITIES, ways, strict=True)), ways)

    def as_slots(self) -> dict[str, int]:
        """Return slots by entity kind, for a manifest."""
        return dict(zip(ENTITIES, self.slots, strict=True))

    @property
    def slots(self) -> tuple[int, ...]:
        """Slots per entity kind."""
        return tuple(s * w for s, w in zip(self.sets, self.ways, strict=True))

    @property
    def bytes(self) -> int:
        """Memory of the profiles when every slot is in use, bytes."""
        return sum(n * (8 * w + 8) for n, w in zip(self.slots, WIDTHS, strict=True))


DEFAULT_TABLES = Tables.for_clients(1 << 19)


def _columns() -> npt.NDArray[np.int64]:
    columns = np.full((len(ENTITIES), len(MEASURES)), -1, np.int64)
    for index, entity in enumerate(ENTITIES):
        for name in measures_of(entity):
            columns[index, MEASURE_INDEX[name]] = COLUMN[f"{entity}_{name}"]
    return columns


_COLUMNS = _columns()
_OWN_COLUMNS = len(REQUEST) + len(measures_of("client"))  # which come first


def _ratios_among(entities: tuple[str, ...]) -> npt.NDArray[np.int64]:
    """Return the columns of the ratios between these entities, of what is above and of what is below: int64[3, ratios]."""
    known = [
        (COLUMN[name], COLUMN[f"{above}_{measure}"], COLUMN[f"{below}_{other}"])
        for name, above, measure, below, other, _ in RATIOS
        if above in entities and below in entities
    ]
    return np.array(known, np.int64).reshape(-1, 3).T.copy()


class Engine:
    """Profiles of every entity kind, and the clock they share."""

    def __init__(
        self,
        tables: Tables = DEFAULT_TABLES,
        *,
        threads: int = 1,
        shards: int | None = None,
        entities: tuple[str, ...] = ENTITIES,
        pending_limit: int = 1_000_000,
        record: Callable[[float, int, int], None] | None = None,
    ) -> None:
        """Make an engine that knows nobody.

        `threads` work on `shards` of the keys, as many as threads unless stated. `entities` leaves kinds out: their columns
        stay NaN, and rows of clients alone end with theirs. `pending_limit` bounds the requests in flight that the online form
        remembers; beyond it the oldest expires early and `overflowed` counts it. `record(time, kind, serial)` sees each online
        transition; it may be set later.
        """
        self.tables = tables
        self.start: float | None = None  # µs, first arrival
        self.clock = -np.inf
        self.arrivals = 0
        self.overflowed = 0
        self._threads = threads
        self._shards = threads if shards is None else shards
        self._kinds = np.array([ENTITIES.index(entity) for entity in entities])
        slots = np.array(tables.slots)
        bases = np.concatenate([[0, 0], np.cumsum(slots[1:])[:-1]])  # clients have a table of their own
        self._places = np.column_stack([bases, np.array(tables.sets) - 1, tables.ways]).astype(np.int64)
        self.own = zeros_of((int(slots[0]), at.OWN_WIDTH))
        self.own_tags = np.zeros(int(slots[0]), np.uint64)
        self.group = zeros_of((int(slots[1:].sum()), at.GROUP_WIDTH))
        self.group_tags = np.zeros(int(slots[1:].sum()), np.uint64)
        self._ratios = _ratios_among(entities)
        self._kernel_arrays = (self._places, _COLUMNS, *self.arrays, self._ratios)
        self._scratch = _scratch(profile.BLOCK)
        self._flight = Flight(pending_limit + 1)
        self._due: list[tuple[float, int]] = []
        self._pending_limit = pending_limit
        self.record = record

    def profile(self, entity: str, key: int) -> Profile | None:
        """Return a copy of a profile's record, float64[1, width] (see `layout`), by the keyed hash; None if it is unknown."""
        kind = ENTITIES.index(entity)
        slot = self._slot(kind, key)
        return None if slot < 0 else (self.own if kind == 0 else self.group)[slot : slot + 1].copy()

    def _slot(self, kind: int, key: int) -> int:
        base, mask, ways = (int(n) for n in self._places[kind])
        tags = self.own_tags if kind == 0 else self.group_tags
        return int(profile.find(tags, base + ((key >> 8) & mask) * ways, ways, np.uint64(key)))

    @property
    def arrays(self) -> tuple[npt.NDArray[Any], ...]:
        """All that the engine remembers of its keys: profiles and tags of the clients, then of the groups."""
        return self.own, self.own_tags, self.group, self.group_tags

    # --- many transitions ----------------------------------------------------------------------------------------------

    def run(self, transitions: Transitions) -> Rows:
        """Move all profiles through the transitions; return float32[arrivals, features], in the order of arrival."""
        t = transitions
        out = _rows(len(t.arrivals), self._kinds)
        if not len(t.time):
            return out
        if self.start is None:
            self.start = float(t.time[np.argmax(t.kind == at.ARRIVAL)])
        self.clock = max(self.clock, float(t.time.max()))
        rows = np.full(len(t.events), -1, np.int64)
        rows[t.arrivals] = np.arange(len(t.arrivals))
        common = (
            self.start, t.time, t.kind, t.event, t.serial, rows, t.events.hashes, t.events.values, *self._kernel_arrays,
        )  # fmt: skip
        if self._shards == 1:
            profile.run(self._kinds, 0, 1, *common, *_scratch(len(t.time)), out)
        else:

            def run_shard(shard: int) -> None:
                profile.run(self._kinds, shard, self._shards, *common, *_scratch(len(t.time)), out)

            with ThreadPoolExecutor(self._threads) as pool:
                list(pool.map(run_shard, range(self._shards)))
            profile.finish(0, len(t.time), t.kind, t.event, t.events.values, rows, self._ratios, out)
        self.arrivals += len(t.arrivals)
        return out

    # --- one transition ------------------------------------------------------------------------------------------------

    def arrive(self, event: Events) -> tuple[int, npt.NDArray[np.float32]]:
        """Record one arrival (`Preparer.arrival`); return its serial number and its row, float32[features]."""
        serial, rows = self.arrive_all(event)
        return serial, rows[0]

    def arrive_all(self, events: Events) -> tuple[int, Rows]:
        """Record arrivals that come together, at least one, as if they came one by one.

        It is one call of the kernel unless something expires between two of them. Return the serial number of the first and
        their rows, float32[n, features].
        """
        moments, first = events.time.tolist(), self.arrivals
        n, newest = len(moments), float(max(self.clock, *moments))
        too_many = len(self._flight) + n > self._pending_limit
        if n > 1 and (too_many or min(min(moments) + EXPIRY_US, self._due[0][0] if self._due else np.inf) <= newest):
            return first, np.concatenate([self.arrive_all(events.take(slice(i, i + 1)))[1] for i in range(n)])
        self.clock, self.arrivals = newest, first + n
        self._expire(newest)
        if self.start is None:
            self.start = float(moments[0])
        out, index, serials = _rows(n, self._kinds), np.arange(n), np.arange(first, first + n)
        kinds = np.full(n, at.ARRIVAL, np.uint8)
        profile.run(
            self._kinds, 0, 1, self.start, np.array(moments, np.float64), kinds, index, serials, index,
            events.hashes, events.values, *self._kernel_arrays, *self._scratch, out,
        )  # fmt: skip
        self._flight.add(events, serials)
        for serial, moment in enumerate(moments, first):
            heapq.heappush(self._due, (float(moment + EXPIRY_US), serial))
            if self.record is not None:
                self.record(float(moment), at.ARRIVAL, serial)
        self._drop_ended()
        if too_many:
            self._overflow(float(moments[0]))
        return first, out

    def complete(self, serial: int, time: float, values: npt.NDArray[np.float32]) -> bool:
        """Record the completion of arrival `serial` at `time` (µs) with its values; False if it is not in flight.

        A completion at the very moment of its expiry still counts. `values` float32[VALUES] are those of
        the arrival with `Preparer.completion` added.
        """
        # What falls due at this very moment may still complete: completions of one moment have no order among them.
        self.clock = max(self.clock, float(time))
        self._expire(np.nextafter(self.clock, -np.inf))
        row = self._flight.remove(serial)
        if row is None:
            return False
        self._flight.values[row] = values
        self._end(float(time), at.COMPLETION, row)
        return True

    def values_of(self, serial: int) -> npt.NDArray[np.float32] | None:
        """Return a copy of the values of an arrival in flight, float32[VALUES]."""
        row = self._flight.row(serial)
        return None if row is None else self._flight.values[row].copy()

    @property
    def in_flight(self) -> int:
        """Requests that have arrived online and neither completed nor expired."""
        return len(self._flight)

    def pending(self) -> tuple[npt.NDArray[np.int64], Events]:
        """Return the serial numbers of the arrivals in flight, ascending int64[n], and their events."""
        return self._flight.all()

    def pending_parts(self, most: int) -> Iterator[tuple[npt.NDArray[np.int64], Events]]:
        """Yield the same in parts of at most `most`; the engine may move between two of them, and who has ended is left out."""
        return self._flight.parts(most)

    def resume(self, start: float, clock: float, arrivals: int, serials: npt.NDArray[np.int64], events: Events) -> None:
        """Go on from tables that were filled from a copy of `arrays`, with these arrivals in flight (`pending`).

        `start` and `clock` (µs) and the number of `arrivals` are those of the engine that was copied.
        """
        self.start, self.clock, self.arrivals = start, clock, arrivals
        self._flight = Flight(max(self._pending_limit, len(serials)) + 1)
        self._flight.add(events, serials)
        self._due = [(float(events.time[i]) + EXPIRY_US, int(serial)) for i, serial in enumerate(serials)]
        heapq.heapify(self._due)
        profile.count_in_flight(events.hashes, serials, self._places, *self.arrays)

    def forget(self, entity: str, key: int) -> bool:
        """Remove a profile by the keyed hash; False if it is unknown. Its requests in flight expire at once."""
        kind = ENTITIES.index(entity)
        for serial in self._flight.of_key(kind, key):
            self._end_early(self.clock, serial)
        slot = self._slot(kind, key)
        if slot < 0:
            return False
        table, tags = (self.own, self.own_tags) if kind == 0 else (self.group, self.group_tags)
        table[slot], tags[slot] = 0.0, 0
        return True

    def expire(self, until: float, most: int) -> None:
        """Let up to `most` requests expire that are due before `until` (µs), as the next arrival would.

        After a quiet time that one need not wait for all of them. No transition may follow whose time is before `until`.
        """
        for _ in range(most):
            if not self._due or self._due[0][0] >= until:
                return
            due, serial = heapq.heappop(self._due)
            self.clock = max(self.clock, due)
            self._end_early(due, serial)

    def _expire(self, until: float) -> None:
        """Let what is due at `until` or before expire, each at its own moment."""
        while self._due and self._due[0][0] <= until:
            due, serial = heapq.heappop(self._due)
            self._end_early(due, serial)

    def _drop_ended(self) -> None:
        """Forget when requests would have expired that have ended, once these are the most of them."""
        if len(self._due) > 2 * len(self._flight) + _DUE_KEPT:
            self._due = [entry for entry in self._due if entry[1] in self._flight]
            heapq.heapify(self._due)

    def _overflow(self, now: float) -> None:
        while len(self._flight) > self._pending_limit:
            _, serial = heapq.heappop(self._due)
            self.overflowed += serial in self._flight
            self._end_early(now, serial)

    def _end_early(self, time: float, serial: int) -> None:
        row = self._flight.remove(serial)
        if row is not None:
            self._end(time, at.EXPIRY, row)

    def _end(self, time: float, kind: int, row: int) -> None:
        flight = self._flight
        profile.run(
            self._kinds, 0, 1, self.start, np.array([time]), _KINDS[kind : kind + 1], np.array([row]), flight.serials,
            _FIRST_ROW, flight.hashes, flight.values, *self._kernel_arrays, *self._scratch, _NOWHERE,
        )  # fmt: skip
        if self.record is not None:
            self.record(time, kind, int(flight.serials[row]))


_KINDS = np.arange(3, dtype=np.uint8)
_FIRST_ROW = np.zeros(1, np.int64)
_DUE_KEPT = 16_384
_NOWHERE = np.empty((1, len(NAMES)), np.float32)


def zeros_of(shape: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Return zeros float64[shape] that begin on a cache line, in memory that is taken up only as it is used."""
    numbers = np.zeros(shape[0] * shape[1] + at.LINE)
    skip = -(numbers.ctypes.data // 8) % at.LINE
    return numbers[skip : skip + shape[0] * shape[1]].reshape(shape)


def _scratch(transitions: int) -> tuple[npt.NDArray[Any], ...]:
    """Return the room that `profile.run` works in."""
    n = min(profile.BLOCK, transitions)
    return np.empty((n + 1, profile.MOMENT)), np.empty(n, np.int64), np.empty((6, 2))


def _rows(n: int, kinds: npt.NDArray[np.int64]) -> Rows:
    """Return room for n rows: the kernel writes every column of the entity kinds that it runs."""
    if len(kinds) == len(ENTITIES):
        return np.empty((n, len(NAMES)), np.float32)
    if not kinds.any():
        return np.empty((n, _OWN_COLUMNS), np.float32)
    return np.full((n, len(NAMES)), np.nan, np.float32)
