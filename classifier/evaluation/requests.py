"""A log of the protocol as arrays: feature rows once for every model, and whom each request belongs to."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from classifier.evaluation.traffic import Traffic
from classifier.events import MICROSECONDS, clients_of
from classifier.features.stream import feature_chunks
from classifier.model.dataset import Dataset
from classifier.model.stability import WARM_UP_S

Codes = npt.NDArray[np.int32]
SECRET = b"botsieve evaluation"
"""Keys the hashes, so that tables of profiles meet the same collisions in every run."""
YOUNG_SHARE = 1 / 3
"""Nothing is judged in the first third of a log, in its first `WARM_UP_S` at most: a service enforces nothing so soon after an
empty start."""


@dataclass(frozen=True)
class Clients:
    """Who is in a log, one entry for each client. An id with another label or family is another client.

    malicious bool[clients]; group: attack family or kind of legitimate client, grade and campaign ("" where there is
    none), object[clients] each.
    """

    malicious: npt.NDArray[np.bool_]
    group: npt.NDArray[np.object_]
    grade: npt.NDArray[np.object_]
    campaign: npt.NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.malicious)

    def families(self) -> list[str]:
        """Return the attack families that occur, sorted."""
        return sorted(set(self.group[self.malicious]))

    def grades(self) -> list[str]:
        """Return the grades that occur, as `GRADES` orders them."""
        from classifier.traffic import GRADES

        there = set(self.grade[self.malicious])
        return [grade for grade in GRADES if grade in there]


@dataclass(frozen=True)
class Requests:
    """n requests by time, without the log's first stretch (in which a service would enforce nothing).

    rows float32[n, features] as `spec.NAMES` orders them; client int32[n], places in `clients`; key uint64[n] of the
    client and row int64[n] in the log, as `Dataset` has them; events table [n].
    """

    rows: npt.NDArray[np.float32]
    client: Codes
    key: npt.NDArray[np.uint64]
    row: npt.NDArray[np.int64]
    events: pa.Table
    clients: Clients

    def __len__(self) -> int:
        return len(self.client)

    @property
    def malicious(self) -> npt.NDArray[np.bool_]:
        """Which requests are an attacker's, bool[n]."""
        return self.clients.malicious[self.client]

    @property
    def time(self) -> npt.NDArray[np.int64]:
        """When each request arrived, int64[n] µs."""
        return np.asarray(self.events["time"].to_numpy())

    def dataset(self) -> Dataset:
        """Return them as training takes them; every row stands for itself."""
        n = len(self)
        return Dataset(
            rows=self.rows,
            row=self.row,
            time=self.time,
            key=self.key,
            malicious=self.malicious,
            weight=np.ones(n),
            client=self.client.astype(object),
            family=self.clients.group[self.client],
            input_tokens=np.zeros(n),
            output_tokens=np.zeros(n),
        )


def requests_of(traffic: Traffic, *, threads: int, young: float = YOUNG_SHARE) -> Requests:
    """Run the feature engine over a log; the requests of its first share of time `young` do not count."""
    time = traffic.events["time"].to_numpy()
    begin, end = int(time.min()), int(time.max())
    counts_from = begin + min(young * (end - begin), WARM_UP_S * MICROSECONDS)
    chunks = []
    for chunk in feature_chunks([traffic.events], threads=threads, secret=SECRET):
        counts = time[chunk.row] >= counts_from
        chunks.append((chunk.row[counts], chunk.rows[counts], chunk.client[counts]))
    row, rows, key = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
    del chunks
    kept = pa.array(row)
    events = traffic.events.take(kept).combine_chunks()
    client, clients = _clients(events, traffic.grade.take(kept), traffic.campaign.take(kept))
    return Requests(rows, client, key, row, events, clients)


def _clients(events: pa.Table, grade: pa.ChunkedArray, campaign: pa.ChunkedArray) -> tuple[Codes, Clients]:
    """Number the clients of events; a client belongs to the campaign of its first request."""
    malicious = events["malicious"].to_numpy(zero_copy_only=False).astype(bool)
    columns = (clients_of(events), events["family"], grade)
    codes = [_codes(column)[0].astype(np.int64) for column in columns]
    pair = (codes[0] * (codes[1].max() + 1) + codes[1]) * (codes[2].max() + 2) + codes[2] + 1
    _, first, client = np.unique(pair * 2 + malicious, return_index=True, return_inverse=True)
    at = pa.array(first)
    return client.astype(np.int32), Clients(
        malicious[first], *(_texts(column.take(at)) for column in (events["family"], grade, campaign))
    )


def _codes(column: Any) -> tuple[npt.NDArray[np.int64], Any]:
    codes, names = pd.factorize(column.to_pandas())
    return codes, names


def _texts(column: Any) -> npt.NDArray[np.object_]:
    return np.array([text or "" for text in column.to_pylist()], object)


def kept(requests: Requests, rows: npt.NDArray[Any]) -> Requests:
    """Return some of the requests (a mask or positions); the clients keep their places."""
    at = np.flatnonzero(rows) if rows.dtype == bool else rows
    parts = {field.name: getattr(requests, field.name) for field in fields(Requests)}
    taken = {name: parts[name][at] for name in ("rows", "client", "key", "row")}
    events = requests.events.take(pa.array(at))
    return Requests(**taken, events=events, clients=requests.clients)
