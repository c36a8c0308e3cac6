"""Limits per address and per key, on requests and on tokens: the score of a request is what its address or key has taken.

A limit of L within a window refuses a request exactly if the sum over the window that ends with it exceeds L, so a threshold on
that sum is the limit, and taking the threshold at a false-positive rate tunes it. Tokens are counted as the request comes, as if
the gateway knew how long the answer will be, which favours the limit.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from classifier.events import clients_of

Floats = npt.NDArray[np.float64]
WINDOWS_S = (60, 3600)


def scores(events: pa.Table) -> dict[str, Floats]:
    """Return the sums of each limit for every request, float64[n], by the limit's name. Events are sorted by time."""
    time = events["time"].to_numpy()
    amounts = {"requests": np.ones(len(time)), "tokens": tokens_of(events)}
    keys = {"address": events["ip"], "key": clients_of(events)}
    found = {}
    for who, column in keys.items():
        key = pc.dictionary_encode(column).combine_chunks().indices.to_numpy()
        for what, amount in amounts.items():
            for window in WINDOWS_S:
                found[f"{who} {what}, {window} s"] = windowed(time, key, amount, window)
    return found


def tokens_of(events: pa.Table) -> Floats:
    """Return the tokens of each request, in and out, float64[n]; 0 where none are known."""
    parts = [np.nan_to_num(events[name].to_numpy().astype(np.float64)) for name in ("input_tokens", "output_tokens")]
    return np.asarray(parts[0] + parts[1])


def windowed(time: npt.NDArray[np.int64], key: npt.NDArray[np.integer], amount: Floats, window_s: float) -> Floats:
    """Return for each request the sum of its key's amounts in the window that ends with it, float64[n].

    time int64[n] µs, rising; key int[n]; amount float64[n].
    """
    order = np.lexsort((time, key))
    # One rising number for (key, time), in which a window never reaches back into the key before.
    span = int(time[-1] - time[0]) + int(window_s * 2_000_000) + 2
    at = key[order].astype(np.int64) * span + (time[order] - time[0])
    total = np.append(0.0, np.cumsum(amount[order]))
    since = np.searchsorted(at, at - int(window_s * 1_000_000), side="right")
    found = np.empty(len(time))
    found[order] = total[1:] - total[since]
    return found
