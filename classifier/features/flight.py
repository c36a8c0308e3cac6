"""The arrivals in flight, as the online engine remembers them: rows of a few arrays, in memory that grows to a bound."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from classifier.features import layout as at
from classifier.features.prepare import Events

_FIRST_ROWS = 1024


class Flight:
    """Arrivals by their serial number. `hashes`, `values` and `serials` have one row for each, and rows that are free."""

    def __init__(self) -> None:
        self._row_of: dict[int, int] = {}
        self._free: list[int] = []
        self.time = np.zeros(0, np.int64)
        self.hashes = np.zeros((0, at.HASHES), np.uint64)
        self.values = np.zeros((0, at.VALUES))
        self.serials = np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self._row_of)

    def __contains__(self, serial: int) -> bool:
        return serial in self._row_of

    def add(self, events: Events, serials: npt.NDArray[np.int64]) -> None:
        """Remember arrivals under their serial numbers, int64[n]."""
        while len(self._free) < len(serials):
            self._grow()
        rows = [self._free.pop() for _ in range(len(serials))]
        self.time[rows], self.serials[rows] = events.time, serials
        self.hashes[rows], self.values[rows] = events.hashes, events.values
        self._row_of.update(zip(serials.tolist(), rows, strict=True))

    def row(self, serial: int) -> int | None:
        """Return the row of an arrival, None if it is not in flight."""
        return self._row_of.get(serial)

    def remove(self, serial: int) -> int | None:
        """Let an arrival go; return the row it had, which holds it until the next `add`."""
        row = self._row_of.pop(serial, None)
        if row is not None:
            self._free.append(row)
        return row

    def all(self) -> tuple[npt.NDArray[np.int64], Events]:
        """Return the serial numbers of all, ascending int64[n], and their events."""
        serials = sorted(self._row_of)
        rows = [self._row_of[serial] for serial in serials]
        time = self.time[rows]
        events = Events(time, time.copy(), self.hashes[rows], self.values[rows], np.arange(len(rows)))
        return np.array(serials, np.int64), events

    def _grow(self) -> None:
        old = len(self.time)
        new = max(2 * old, _FIRST_ROWS)
        for name in ("time", "hashes", "values", "serials"):
            before = getattr(self, name)
            after = np.zeros((new, *before.shape[1:]), before.dtype)
            after[:old] = before
            setattr(self, name, after)
        self._free.extend(range(new - 1, old - 1, -1))
