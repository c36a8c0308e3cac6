"""The newest feature row of each client, in a table of fixed size: what a client's page compares with the crowd."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from classifier.features.spec import FEATURES
from serving.recent import Batch

SEATS = 8_192


class Row(NamedTuple):
    """A feature row float32[features], when its request arrived (µs), and its raw score."""

    values: npt.NDArray[np.float32]
    time: int
    raw: float


class NewestRows:
    """One seat a client, by its keyed hash; who comes later to the same seat takes it. About 5 MB."""

    def __init__(self) -> None:
        self._rows = np.zeros((SEATS, len(FEATURES)), np.float32)
        self._client, self._time = np.zeros(SEATS, np.uint64), np.zeros(SEATS, np.int64)
        self._raw = np.zeros(SEATS, np.float32)
        self._taken = np.zeros(SEATS, bool)

    def follow(self, batch: Batch) -> None:
        """Keep the newest row of each client; in a flood, of some clients."""
        some = batch.some
        client = some.client
        seat = (client % np.uint64(SEATS)).astype(np.intp)
        # The newest of each seat: the first one from behind.
        seats, behind = np.unique(seat[::-1], return_index=True)
        places = len(some) - 1 - behind
        self._rows[seats] = some.rows(places.tolist())
        self._client[seats], self._taken[seats] = client[places], True
        self._raw[seats] = some.raw[places]
        self._time[seats] = np.array([arrival.time for arrival in some.arrivals])[places]

    def of(self, client: str) -> Row | None:
        """Return the row of a client (16 hex digits); None if its seat is another's."""
        number = int(client, 16)
        seat = number % SEATS
        if not self._taken[seat] or int(self._client[seat]) != number:
            return None
        return Row(self._rows[seat].copy(), int(self._time[seat]), float(self._raw[seat]))

    def clear(self) -> None:
        """Forget everybody."""
        self._taken[:] = False

    def forget(self, clients: Collection[str]) -> None:
        """Clear the seats of clients."""
        for client in clients:
            seat = int(client, 16) % SEATS
            if int(self._client[seat]) == int(client, 16):
                self._rows[seat], self._client[seat], self._taken[seat] = 0.0, 0, False
