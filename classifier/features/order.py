"""The order of transitions: the stage before the kernel.

Offline, a log's events become arrivals and completions in the order (time, completions of at least 1 µs, arrivals, input
row); a completion whose duration is missing or shorter follows its own arrival. A completion later than `EXPIRY_S` after its
arrival becomes an expiry at that moment. Events come in chunks that are sorted by (time, row); what has not ended
when a chunk ends is carried into the next, so that the chunking changes nothing.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from classifier.events import EXPIRY_S, MICROSECONDS
from classifier.features import layout as at
from classifier.features.prepare import Events

EXPIRY_US = EXPIRY_S * MICROSECONDS
_DIGIT_BITS = 11  # whose places fit a core's first cache


@dataclass(slots=True)
class Transitions:
    """Transitions in their order, and the events they belong to.

    time float64[m] in µs; kind uint8[m]; event int64[m], row of `events`; serial int64[n], the serial number of each event's
    arrival; arrivals int64[a], the rows of `events` that arrive here, in their order.
    """

    time: npt.NDArray[np.float64]
    kind: npt.NDArray[np.uint8]
    event: npt.NDArray[np.int64]
    events: Events
    serial: npt.NDArray[np.int64]
    arrivals: npt.NDArray[np.int64]


@njit(cache=True, nogil=True, _nrt=False)
def _ends_of(time, end, out_time, out_event):  # type: ignore[no-untyped-def]
    """List the ends that do not follow their arrival at once, an expiry in place of a late one; return how many."""
    m = 0
    for i in range(len(time)):
        if end[i] > time[i]:
            out_time[m], out_event[m] = min(end[i], time[i] + EXPIRY_US), i
            m += 1
    return m


@njit(cache=True, nogil=True, _nrt=False)
def _merge(time, end, held, ends, owners, until, out_time, out_kind, out_event):  # type: ignore[no-untyped-def]
    """Merge arrivals (the events from `held` on) and ends, both in order, up to the last arrival and `until`.

    Return (transitions, ends taken).
    """
    m = 0
    e = 0
    for i in range(held, len(time)):
        while e < len(ends) and ends[e] <= time[i]:
            kind = at.EXPIRY if end[owners[e]] > ends[e] else at.COMPLETION
            out_time[m], out_kind[m], out_event[m] = ends[e], kind, owners[e]
            m += 1
            e += 1
        out_time[m], out_kind[m], out_event[m] = time[i], at.ARRIVAL, i
        m += 1
        if end[i] <= time[i]:
            out_time[m], out_kind[m], out_event[m] = time[i], at.COMPLETION, i
            m += 1
    while e < len(ends) and ends[e] <= until:
        kind = at.EXPIRY if end[owners[e]] > ends[e] else at.COMPLETION
        out_time[m], out_kind[m], out_event[m] = ends[e], kind, owners[e]
        m += 1
        e += 1
    return m, e


@njit(cache=True, nogil=True, _nrt=False)
def _sort_by_digit(numbers, shift, places, out):  # type: ignore[no-untyped-def]
    """Put numbers, at least 0, into `out` in the order of the digit from bit `shift` on; equal ones stay in their order.

    `places` int64[a power of two] is room to work in, a place for each digit.
    """
    mask = len(places) - 1
    places[:] = 0
    for number in numbers:
        places[(number >> shift) & mask] += 1
    before = 0
    for digit in range(len(places)):
        before, places[digit] = before + places[digit], before
    for number in numbers:
        digit = (number >> shift) & mask
        out[places[digit]] = number
        places[digit] += 1


class Orderer:
    """Turns sorted chunks of events into transitions, carrying what is still in flight."""

    def __init__(self) -> None:
        self._carried = Events.empty()
        self._serials = np.zeros(0, np.int64)
        self._next_serial = 0

    @property
    def carried(self) -> Events:
        """The events whose end is still to come. `push_joined` takes them back at the head of the next chunk."""
        return self._carried

    def push(self, chunk: Events, *, last: bool = False) -> Transitions:
        """Return the transitions up to the last arrival of `chunk`, or, for the last chunk, all that remain."""
        held = len(self._carried)
        return self.push_joined(Events.join([self._carried, chunk]) if held else chunk, last=last)

    def push_joined(self, events: Events, *, last: bool = False) -> Transitions:
        """Do as `push` with a chunk that already begins with what was `carried`: it spares copying the chunk."""
        held = len(self._carried)
        fresh = len(events) - held
        serials = np.concatenate([self._serials, np.arange(self._next_serial, self._next_serial + fresh)])
        self._next_serial += fresh
        ends, owners = _ends_in_order(events)
        room = 2 * len(events)
        time, kind, event = np.empty(room), np.empty(room, np.uint8), np.empty(room, np.int64)
        until = np.inf if last else -np.inf
        m, taken = _merge(events.time, events.end, held, ends, owners, until, time, kind, event)
        rest = np.sort(owners[taken:])
        self._carried, self._serials = events.take(rest), serials[rest]
        return Transitions(time[:m], kind[:m], event[:m], events, serials, np.arange(held, len(events)))


def _ends_in_order(events: Events) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return (times, event rows) of the ends that do not follow their arrival at once, by (time, input row)."""
    ends, owners = np.empty(len(events), np.int64), np.empty(len(events), np.int64)
    count = _ends_of(events.time, events.end, ends, owners)
    ends, owners = ends[:count], owners[:count]
    bits = len(events).bit_length()
    first = int(ends.min(initial=np.iinfo(np.int64).max))
    if count == 0 or int(ends.max()) - first >= 1 << (63 - bits) or np.any(events.row[1:] < events.row[:-1]):
        order = np.lexsort((events.row[owners], ends))
        return ends[order], owners[order]
    # Times and owners fit one number, and the owners are in the order of the input: sort plain integers, by the times alone.
    packed, room = ((ends - first) << bits) | owners, np.empty(count, np.int64)
    places = np.empty(1 << _DIGIT_BITS, np.int64)
    for shift in range(bits, int(packed.max()).bit_length(), _DIGIT_BITS):
        _sort_by_digit(packed, shift, places, room)
        packed, room = room, packed
    return (packed >> bits) + first, packed & ((1 << bits) - 1)


def sorted_tables(
    tables: Iterable[pa.Table], *, key: str = "time", rows: int = 65_536
) -> Iterator[tuple[pa.Table, npt.NDArray[np.int64]]]:
    """Sort tables of any size by (`key`, input row), yielding tables and the input rows of their events.

    An external merge: every incoming table is sorted and laid down on disk in pieces of at most `rows` rows; the pieces are
    then read in the order of their first times, and an event goes out once no later piece can begin before it. Memory
    is bounded by the pieces that overlap in time, a few for a log that is nearly in order. A log that fits one
    table never touches the disk.
    """
    incoming = iter(tables)
    first = next(incoming, None)
    if first is None:
        return
    second = next(incoming, None)
    if second is None:
        yield _sorted_piece(_numbered(first, 0), key)
        return
    with TemporaryDirectory(prefix="botsieve-sort-") as folder:
        yield from _external(first, second, incoming, Path(folder), key, rows)


def _numbered(table: pa.Table, first_row: int) -> pa.Table:
    numbers = pa.array(np.arange(first_row, first_row + table.num_rows))
    return table.append_column("__row", numbers)


def _sorted_piece(table: pa.Table, key: str) -> tuple[pa.Table, npt.NDArray[np.int64]]:
    table = _sorted_table(table, key)
    return table.drop_columns(["__row"]), table.column("__row").to_numpy()


def _sorted_table(table: pa.Table, key: str) -> pa.Table:
    time, row = table.column(key).to_numpy(), table.column("__row").to_numpy()
    ordered = not (np.any(time[1:] < time[:-1]) or np.any(row[1:] < row[:-1]))
    return table if ordered else table.take(pa.array(np.lexsort((row, time))))


def _external(
    first: pa.Table, second: pa.Table, incoming: Iterator[pa.Table], folder: Path, key: str, rows: int
) -> Iterator[tuple[pa.Table, npt.NDArray[np.int64]]]:
    pieces: list[tuple[int, int, Path, int]] = []  # first time, number, file, piece of that file
    count = 0
    for index, table in enumerate(chain((first, second), incoming)):
        path = folder / f"{index}.arrow"
        ordered = _sorted_table(_numbered(table, count), key).combine_chunks()
        count += table.num_rows
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, ordered.schema, options=options) as writer:
            for number, batch in enumerate(ordered.to_batches(max_chunksize=rows)):
                writer.write_batch(batch)
                heapq.heappush(pieces, (batch.column(key)[0].as_py(), len(pieces), path, number))
    held: pa.Table | None = None
    while pieces:
        _, _, path, number = heapq.heappop(pieces)
        with pa.OSFile(str(path), "rb") as source:
            piece = pa.Table.from_batches([pa.ipc.open_file(source).get_batch(number)])
        held = piece if held is None else pa.concat_tables([held, piece], promote_options="default")
        if not pieces:
            break
        held = _sorted_table(held, key).combine_chunks()
        ready = int(np.searchsorted(held.column(key).to_numpy(), pieces[0][0], side="left"))
        if ready:
            yield _sorted_piece(held.slice(0, ready), key)
            held = held.slice(ready)
    if held is not None and held.num_rows:
        yield _sorted_piece(held, key)
