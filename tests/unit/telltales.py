"""Tell-tales: single columns that give an attack away, which would make every figure on it worthless.

Simulated attackers are made by whoever judges the detector. One column that they set otherwise than everybody else (a
size, a user agent, a field that is always there) is then found at once, and says nothing of real attackers. So each
column alone, and a tree of depth 3 on all raw columns, is asked how well it separates a group of attackers from all
legitimate clients:

- per request, where the requests of a client share one weight, so that no heavy tenant stands for everybody;
- per client, by the mean and by the largest of its values.

Areas under the ROC curve are two-sided, and a missing value counts as smaller or as larger than all others, whichever
separates better. Values of a category are replaced by how often other clients' requests with the same value are
hostile, so that nothing is judged by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from zlib import crc32

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from classifier.events import MICROSECONDS, clients_of

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
LIMIT: Final = 0.95
"""A single column that separates better than this is a tell-tale."""
TREE_LIMIT: Final = 0.98
"""So is a tree of depth 3 on all raw columns that separates better than this."""
PER_CLIENT: Final = 40
"""Requests of a client that the tree sees at most."""
FOLDS: Final = 4
NUMBERS: Final = ("duration", "request_bytes", "response_bytes", "input_tokens", "output_tokens", "max_tokens")
CATEGORIES: Final = ("method", "path", "status", "user_agent", "fingerprint", "referer", "model")
PRESENCE: Final = ("account", "credential", "referer", "prompt", "user_agent", "fingerprint", "max_tokens")


@dataclass(frozen=True, order=True)
class Separation:
    """How well one column (or the tree) separates a group of attackers from legitimate clients."""

    auc: float
    group: str
    unit: str
    column: str

    def __str__(self) -> str:
        return f"{self.group}: {self.column} per {self.unit} {self.auc:.3f}"


def raw_columns(events: pa.Table, hostile: npt.NDArray[np.bool_]) -> dict[str, F64]:
    """Return what anybody could read off one log line, float64[n] each, NaN where missing.

    hostile bool[n]: which requests are attackers', for the encoding of categories.
    """
    time = events["time"].to_numpy()
    columns = {name: _floats(events[name]) for name in NUMBERS}
    columns["account_age"] = time / MICROSECONDS - _floats(events["account_created"])
    columns["hour"] = (time // (3600 * MICROSECONDS) % 24).astype(np.float64)
    columns["path_length"] = _floats(pc.utf8_length(events["path"]))
    columns["prompt_length"] = _floats(pc.utf8_length(events["prompt"]))
    columns["ipv6"] = _floats(pc.match_substring(events["ip"], ":"))
    fold = _folds(clients_of(events))
    for name in CATEGORIES:
        columns[f"{name}_value"] = _encoded(events[name], hostile, fold)
    for name in PRESENCE:
        columns[f"{name}_given"] = _floats(events[name].is_valid())
    return columns


def separations(
    columns: Mapping[str, F64] | tuple[Sequence[str], npt.NDArray[np.float32]],
    clients: pa.Array,
    group: Sequence[str | None],
) -> list[Separation]:
    """Return how well each column alone separates each group from the legitimate requests, the best first.

    columns: by name, or names and a matrix [n, columns]. clients: the client of each request [n]. group: the group of
    attackers of each request [n], None where it is legitimate.
    """
    view = _View(clients, group)
    found: list[Separation] = []
    named = columns.items() if isinstance(columns, Mapping) else zip(columns[0], columns[1].T, strict=True)
    for name, values in named:
        value = np.asarray(values, np.float64)
        found += view.requests(name, value)
        found += view.clients(name, value)
    return sorted(found, reverse=True)


def tree_separations(columns: Mapping[str, F64], clients: pa.Array, group: Sequence[str | None]) -> list[Separation]:
    """Return how well a tree of depth 3 on all columns separates each group, per request, tried on other clients."""
    from sklearn.tree import DecisionTreeClassifier

    view = _View(clients, group)
    names, matrix = list(columns), np.column_stack(list(columns.values())).astype(np.float32)
    matrix = np.nan_to_num(matrix, nan=-1.0)
    kept = view.thinned(PER_CLIENT)
    found = []
    for number, name in enumerate(view.names):
        rows = kept[(view.group[kept] == number) | (view.group[kept] < 0)]
        positive = view.group[rows] == number
        weight = view.weight[rows] * np.where(positive, 1.0 / view.weight[rows][positive].sum(), 1.0)
        weight[~positive] /= weight[~positive].sum()
        score = np.zeros(len(rows))
        for held_out in range(2):
            part = view.fold[rows] % 2 == held_out
            if not positive[~part].any() or not positive[part].any():
                continue
            tree = DecisionTreeClassifier(max_depth=3, random_state=0, min_weight_fraction_leaf=0.005)
            tree.fit(matrix[rows[~part]], positive[~part], sample_weight=weight[~part])
            score[part] = tree.predict_proba(matrix[rows[part]])[:, 1]
        area = _area(score[~positive], weight[~positive], score[positive], weight[positive])
        found.append(Separation(area, name, "request", f"tree on {len(names)} raw columns"))
    return sorted(found, reverse=True)


class _View:
    """Requests by group and client."""

    def __init__(self, clients: pa.Array, group: Sequence[str | None]):
        codes = clients.combine_chunks() if isinstance(clients, pa.ChunkedArray) else clients
        self.client = codes.dictionary_encode().indices.to_numpy().astype(np.int64)
        self.fold = _folds(codes)
        self.names = sorted({name for name in group if name is not None})
        numbers = {name: number for number, name in enumerate(self.names)}
        self.group = np.array([-1 if name is None else numbers[name] for name in group], np.int64)
        # A client of two groups (an address that two campaigns happen to draw) is one client in each of them.
        self._unit = np.unique(np.column_stack((self.client, self.group)), axis=0, return_inverse=True)[1].ravel()
        self._sizes = np.bincount(self._unit)
        self.weight = 1.0 / self._sizes[self._unit]
        self._order = np.argsort(self._unit, kind="stable")
        self._first = np.concatenate(([0], np.cumsum(self._sizes)[:-1]))
        self._unit_group = self.group[self._order[self._first]]

    def requests(self, name: str, value: F64) -> list[Separation]:
        """Return how well the value of one request separates each group."""
        return self._judged(name, "request", value, self.weight, self.group)

    def clients(self, name: str, value: F64) -> list[Separation]:
        """Return how well the mean or the largest value of a client separates each group."""
        ordered = value[self._order]
        given = ~np.isnan(ordered)
        several = np.add.reduceat(given, self._first)
        total = np.add.reduceat(np.where(given, ordered, 0.0), self._first)
        largest = np.maximum.reduceat(np.where(given, ordered, -np.inf), self._first)
        mean = np.where(several > 0, total / np.maximum(several, 1), np.nan)
        largest = np.where(several > 0, largest, np.nan)
        ones = np.ones(len(mean))
        return [
            *self._judged(f"mean of {name}", "client", mean, ones, self._unit_group),
            *self._judged(f"largest {name}", "client", largest, ones, self._unit_group),
        ]

    def thinned(self, most: int) -> I64:
        """Return the rows of at most so many requests of each client, spread evenly."""
        place = np.empty(len(self.client), np.int64)
        place[self._order] = np.arange(len(self._order)) - np.repeat(self._first, self._sizes)
        step = np.ceil(self._sizes / most).astype(np.int64)[self._unit]
        return np.asarray(np.flatnonzero(place % step == 0), np.int64)

    def _judged(self, name: str, unit: str, value: F64, weight: F64, group: I64) -> list[Separation]:
        best = np.full(len(self.names), 0.5)
        missing = np.isnan(value)
        for fill in (-np.inf, np.inf) if missing.any() else (0.0,):
            filled = np.where(missing, fill, value)
            honest = group < 0
            order = np.argsort(filled[honest], kind="stable")
            ranked, below = filled[honest][order], np.concatenate(([0.0], np.cumsum(weight[honest][order])))
            for number in range(len(self.names)):
                rows = group == number
                best[number] = max(best[number], _ranked_area(ranked, below, filled[rows], weight[rows]))
        return [Separation(float(best[i]), group_name, unit, name) for i, group_name in enumerate(self.names)]


def _area(negative: F64, negative_weight: F64, positive: F64, positive_weight: F64) -> float:
    order = np.argsort(negative, kind="stable")
    below = np.concatenate(([0.0], np.cumsum(negative_weight[order])))
    return _ranked_area(negative[order], below, positive, positive_weight)


def _ranked_area(ranked: F64, below: F64, positive: F64, weight: F64) -> float:
    """Return the two-sided area: ranked negatives, the weight below each of them, positives with weights."""
    low, high = np.searchsorted(ranked, positive, "left"), np.searchsorted(ranked, positive, "right")
    total = below[-1] * weight.sum()
    if not total:
        return 0.5
    area = float((weight * (below[low] + below[high])).sum() / (2 * total))
    return max(area, 1.0 - area)


def _floats(values: Any) -> F64:
    return np.asarray(pc.cast(values, pa.float64()).to_numpy(), np.float64)


def _folds(clients: Any) -> I64:
    """Return the fold of each client: by a checksum of its name, so that it does not depend on who else is there."""
    encoded = (clients.combine_chunks() if isinstance(clients, pa.ChunkedArray) else clients).dictionary_encode()
    folds = np.array([crc32(str(name).encode()) % FOLDS for name in encoded.dictionary.to_pylist()], np.int64)
    return np.asarray(folds[encoded.indices.to_numpy()], np.int64)


def _encoded(values: Any, hostile: npt.NDArray[np.bool_], fold: I64) -> F64:
    """Return for each value how often other clients' requests with the same value are hostile."""
    text = pc.fill_null(pc.cast(values, pa.string()), "-").combine_chunks().dictionary_encode()
    codes, several = text.indices.to_numpy(), len(text.dictionary)
    encoded = np.empty(len(codes))
    for held_out in range(FOLDS):
        others = fold != held_out
        total = np.bincount(codes[others], minlength=several)
        bad = np.bincount(codes[others], weights=hostile[others], minlength=several)
        share = (bad + hostile.mean()) / (total + 1.0)
        encoded[~others] = share[codes[~others]]
    return encoded
