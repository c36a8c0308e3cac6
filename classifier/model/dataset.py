"""Training rows from labelled events: which rows, of whom, with what weight."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from pandas.util import hash_array

from classifier.errors import InputError
from classifier.events import EVENT_SCHEMA, MICROSECONDS, clients_of
from classifier.features.engine import DEFAULT_TABLES, Tables
from classifier.features.spec import COLUMN
from classifier.features.stream import feature_chunks
from classifier.model.stability import WARM_UP_S

Source = Callable[[], Iterator[pa.Table]]
"""Gives the event tables of a log, anew at each call."""

REMEMBERED_BYTES = 1 << 30
"""Events of up to this size in memory are read once for all passes of a training."""
WARM_UP_SHARE = 0.1
"""Rows of the first stretch of a log train nothing: 10 % of its time, at most `WARM_UP_S`."""
KEPT_PER_CLIENT = 4096
"""Requests of a client that are all kept; of later ones, every n-th in the mean (n = requests so far / 4096)."""
GROWN_PER_CLIENT = 128
"""Requests of a client that grow the forest, by the same rule; the others only measure it."""

ROUTES = {
    "combined log": ("account", "account_created", "credential", "fingerprint", "request_bytes", "model", "input_tokens",
                     "output_tokens", "max_tokens", "prompt"),
    "ext_authz": ("account", "account_created", "credential", "model", "input_tokens", "output_tokens", "max_tokens", "prompt"),
    "litellm": ("fingerprint", "referer", "account_created", "credential", "request_bytes", "response_bytes"),
}  # fmt: skip
"""What a model meets in production: fields that a route does not supply. Training drops them for some clients."""
_ROUTE_CLIENTS = 4
"""One client in so many is seen once more through each route."""
_SEATS = 1 << 20
"""Places by hash in which clients are counted."""


@dataclass(slots=True)
class Dataset:
    """Rows of labelled requests.

    rows float32[n, features]; row int64[n], number in the input; time int64[n] µs; key uint64[n] of the client; malicious
    bool[n]; weight float64[n], how many requests a row stands for; and client, family, input_tokens, output_tokens [n] as
    objects and float64, for reports.
    """

    rows: npt.NDArray[np.float32]
    row: npt.NDArray[np.int64]
    time: npt.NDArray[np.int64]
    key: npt.NDArray[np.uint64]
    malicious: npt.NDArray[np.bool_]
    weight: npt.NDArray[np.float64]
    client: npt.NDArray[np.object_]
    family: npt.NDArray[np.object_]
    input_tokens: npt.NDArray[np.float64]
    output_tokens: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.row)

    def take(self, index: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> Dataset:
        """Return the rows at `index` (a mask or positions)."""
        return Dataset(*(getattr(self, field.name)[index] for field in fields(self)))

    @staticmethod
    def join(parts: Sequence[Dataset]) -> Dataset:
        """Return the rows of all parts."""
        return Dataset(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Dataset)))

    def frame(self) -> pd.DataFrame:
        """Return what an evaluation needs of each row, without its features and scores."""
        columns = ("row", "time", "client", "malicious", "family", "input_tokens", "output_tokens", "weight")
        return pd.DataFrame({name: getattr(self, name) for name in columns})


def remembered(source: Source) -> Source:
    """Return a source that reads the log of `source` once if its events fit into `REMEMBERED_BYTES`, else anew each time."""
    kept: list[pa.Table] = []

    def tables() -> Iterator[pa.Table]:
        if kept:
            yield from kept
            return
        read, size = [], 0
        for table in source():
            size += table.nbytes
            if size <= REMEMBERED_BYTES:
                read.append(table)
            else:
                read.clear()
            yield table
        kept.extend(read)

    return tables


def build(
    source: Source,
    *,
    sizes: Tables = DEFAULT_TABLES,
    threads: int = 1,
    secret: bytes | None = None,
    seed: int = 0,
    without_fields: Sequence[str] = (),
    clients: Callable[[npt.NDArray[np.uint64]], npt.NDArray[np.bool_]] | None = None,
    per_client: int = KEPT_PER_CLIENT,
) -> Dataset:
    """Run the engine over a log and keep its labelled rows, thinned per client. Unlabelled events move profiles only.

    `without_fields` are hidden from the engine; `clients` chooses whose rows are kept. The log's first stretch (see
    `WARM_UP_S`) is left out. Raises InputError if no event has a label.
    """
    rng = np.random.default_rng(seed)
    tables = source() if not without_fields else (_hide(table, without_fields) for table in source())
    parts: list[Dataset] = []
    begin, end = None, 0
    for chunk in feature_chunks(tables, sizes=sizes, threads=threads, secret=secret):
        events = chunk.events
        times = events.column("time")
        begin, end = times[0].as_py() if begin is None else begin, times[-1].as_py()
        seen = np.maximum(chunk.rows[:, COLUMN["client_requests_seen"]] / per_client, 1.0).astype(np.float64)
        keep = rng.random(len(seen)) * seen < 1.0
        keep &= events.column("malicious").is_valid().to_numpy()
        if clients is not None:
            keep &= clients(chunk.client)
        at = np.flatnonzero(keep)
        kept = events.take(pa.array(at))
        parts.append(
            Dataset(
                rows=chunk.rows[at],
                row=chunk.row[at],
                time=kept.column("time").to_numpy(),
                key=chunk.client[at],
                malicious=kept.column("malicious").to_numpy().astype(bool),
                weight=seen[at],
                client=clients_of(kept).to_numpy().astype(object),
                family=kept.column("family")
                .to_pandas()
                .astype(object)
                .where(lambda s: s.notna(), None)
                .to_numpy(object),
                input_tokens=kept.column("input_tokens").to_numpy().astype(np.float64),
                output_tokens=kept.column("output_tokens").to_numpy().astype(np.float64),
            )
        )
    data = Dataset.join(parts)
    if not len(data):
        if clients is not None:
            return data  # of a small log, the choice may be none
        raise InputError("no event of the log has a label: give labelled events, or weave attacks in with --inject all")
    assert begin is not None  # there are rows, and so events
    warm = begin + min(WARM_UP_SHARE * (end - begin), WARM_UP_S * MICROSECONDS)
    return data.take(data.time >= warm)


def _hide(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """Blank fields of an event table."""
    if "prompt" in names and "template_key" in table.column_names:
        names = [*names, "template_key", "prompt_length", "prompt_score"]  # what a journal keeps of a prompt
    for name in names:
        index = table.schema.get_field_index(name)
        table = table.set_column(index, name, pa.nulls(table.num_rows, table.schema.field(name).type))
    return table


def fields_seen(source: Source) -> dict[str, float]:
    """Return the event fields that have a value anywhere in the log, and the share of its clients that ever have each.

    Clients labelled malicious do not count towards the share; they are told apart by a hash, which is exact enough.
    """
    names = EVENT_SCHEMA.names
    anywhere, has, came = np.zeros(len(names), bool), np.zeros((len(names), _SEATS), bool), np.zeros(_SEATS, bool)
    for table in source():
        coded = clients_of(table).combine_chunks().dictionary_encode()
        seat = (hash_array(coded.dictionary.to_numpy(zero_copy_only=False)) % _SEATS)[coded.indices.to_numpy()]
        legitimate = ~table.column("malicious").fill_null(False).to_numpy().astype(bool)
        came[seat[legitimate]] = True
        for place, name in enumerate(names):
            filled = field_filled(table, name)
            anywhere[place] |= bool(filled.any())
            has[place, seat[filled & legitimate]] = True
    shares = has.sum(axis=1) / max(int(came.sum()), 1)
    return {name: float(share) for name, share, any_ in zip(names, shares, anywhere, strict=True) if any_}


def field_filled(events: pa.Table, name: str) -> npt.NDArray[np.bool_]:
    """Return which events have a field, bool[n]; a journal keeps the length of a prompt in its place."""
    filled = np.zeros(events.num_rows, bool)
    for each in (name, "prompt_length") if name == "prompt" else (name,):
        if each in events.column_names:
            filled |= events.column(each).is_valid().to_numpy()
    return filled


def route_views(
    source: Source, seen: Sequence[str], *, sizes: Tables, threads: int, secret: bytes | None, seed: int
) -> list[Dataset]:
    """See some clients once more as each route of `ROUTES` would show them, where that hides a field that was seen."""
    views = []
    for number, hidden in enumerate(ROUTES.values()):
        names = [name for name in hidden if name in seen]
        if not names:
            continue
        views.append(
            build(
                source,
                sizes=sizes,
                threads=threads,
                secret=secret,
                seed=seed + 1 + number,
                without_fields=names,
                per_client=GROWN_PER_CLIENT,
                clients=partial(_drawn, number),
            )
        )
    return views


def _drawn(number: int, key: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    return np.asarray((key >> np.uint64(48)) % np.uint64(_ROUTE_CLIENTS) == number)


def thinned(
    data: Dataset, seed: int, per_client: int = GROWN_PER_CLIENT
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Choose the rows that grow the forest: return their positions and how many requests each stands for."""
    seen = data.rows[:, COLUMN["client_requests_seen"]].astype(np.float64)
    chance = np.minimum(per_client / np.maximum(seen, 1.0) * data.weight, 1.0)
    keep = np.flatnonzero(np.random.default_rng(seed).random(len(data)) < chance)
    return keep, data.weight[keep] / chance[keep]


def training_weights(data: Dataset) -> npt.NDArray[np.float64]:
    """Return the weight of each row in training, float64[n], of mean 1.

    A client with n requests weighs sqrt(n), shared among its rows. Legitimate clients make up one half, attack
    families share the other equally: neither a heavy tenant nor a noisy flood outvotes the rest.
    """
    _, client = np.unique(data.key, return_inverse=True)
    requests = np.bincount(client, weights=data.weight)
    weight = data.weight / np.sqrt(requests[client])
    kinds = np.where(data.malicious, data.family.astype(str), "")
    names, kind = np.unique(kinds, return_inverse=True)
    total = np.bincount(kind, weights=weight)
    attacks = max(len(names) - 1, 1)
    share = np.where(names == "", 0.5, 0.5 / attacks)
    weight = weight * (share / total)[kind]
    return np.asarray(weight * (len(weight) / weight.sum()))
