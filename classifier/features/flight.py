"""The arrivals in flight, as the online engine remembers them: rows of a few arrays, in memory that grows to a bound."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from numba import njit

from classifier.features import layout as at
from classifier.features.prepare import Events


@njit(cache=True, nogil=True, _nrt=False)
def _put(rows, serials, time, hashes, values, to_serials, to_time, to_hashes, to_values):  # type: ignore[no-untyped-def]
    """Put event i into row rows[i]; numpy's index arrays would take several times as long."""
    for i in range(len(rows)):
        row = rows[i]
        to_serials[row], to_time[row] = serials[i], time[i]
        for j in range(hashes.shape[1]):
            to_hashes[row, j] = hashes[i, j]
        for j in range(values.shape[1]):
            to_values[row, j] = values[i, j]


class Flight:
    """Arrivals by their serial number. `hashes`, `values` and `serials` have one row for each, and rows that are free."""

    def __init__(self, rows: int) -> None:
        """The first arrival makes room for `rows`, in memory that is taken up as it is used; more are copied to twice as much."""
        self._first_rows = rows
        self._row_of: dict[int, int] = {}
        self._free: list[int] = []
        self._fresh = 0  # rows from here on were never used
        self.time = np.zeros(0, np.int64)
        self.hashes = np.zeros((0, at.HASHES), np.uint64)
        self.values = np.zeros((0, at.VALUES), np.float32)
        self.serials = np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self._row_of)

    def __contains__(self, serial: int) -> bool:
        return serial in self._row_of

    def add(self, events: Events, serials: npt.NDArray[np.int64]) -> None:
        """Remember arrivals under their serial numbers, int64[n]."""
        rows = [self._take() for _ in range(len(serials))]
        _put(
            np.array(rows, np.int64), serials, events.time, events.hashes, events.values,
            self.serials, self.time, self.hashes, self.values,
        )  # fmt: skip
        self._row_of.update(zip(serials.tolist(), rows, strict=True))

    def _take(self) -> int:
        if self._free:
            return self._free.pop()
        if self._fresh == len(self.time):
            self._grow()
        self._fresh += 1
        return self._fresh - 1

    def row(self, serial: int) -> int | None:
        """Return the row of an arrival, None if it is not in flight."""
        return self._row_of.get(serial)

    def remove(self, serial: int) -> int | None:
        """Let an arrival go; return the row it had, which holds it until the next `add`."""
        row = self._row_of.pop(serial, None)
        if row is not None:
            self._free.append(row)
        return row

    def of_key(self, place: int, key: int) -> list[int]:
        """Return the serial numbers, ascending, of the arrivals that have this hash at a place."""
        rows = np.flatnonzero(self.hashes[: self._fresh, place] == np.uint64(key))
        return sorted(serial for row in rows if self._row_of.get(serial := int(self.serials[row])) == row)

    def all(self) -> tuple[npt.NDArray[np.int64], Events]:
        """Return the serial numbers of all, ascending int64[n], and their events."""
        return self._these(sorted(self._row_of))

    def parts(self, most: int) -> Iterator[tuple[npt.NDArray[np.int64], Events]]:
        """Yield the same in parts of at most so many, ascending: those that are in flight now and still are by their turn."""
        serials = sorted(self._row_of)
        for first in range(0, len(serials), most):
            yield self._these([serial for serial in serials[first : first + most] if serial in self._row_of])

    def _these(self, serials: list[int]) -> tuple[npt.NDArray[np.int64], Events]:
        rows = [self._row_of[serial] for serial in serials]
        time = self.time[rows]
        events = Events(time, time.copy(), self.hashes[rows], self.values[rows], np.arange(len(rows)))
        return np.array(serials, np.int64), events

    def _grow(self) -> None:
        old = len(self.time)
        new = max(2 * old, self._first_rows)  # a service makes room for all at once: copying would hold requests up
        for name in ("time", "hashes", "values", "serials"):
            before = getattr(self, name)
            after = np.zeros((new, *before.shape[1:]), before.dtype)
            after[:old] = before
            setattr(self, name, after)
