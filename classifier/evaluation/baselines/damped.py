"""Damped statistics with an autoencoder, in the manner of Kitsune (Mirsky, Doitshman, Elovici and Shabtai, NDSS 2018).

Kitsune keeps for each channel damped incremental statistics (weight, mean and deviation of packet sizes and of the jitter) at
several rates of decay, and takes as anomaly how badly autoencoders that saw normal traffic only reconstruct them. Here a channel
is an address, an account, or an account at an address; sizes are the request's body, its prompt and its answer's tokens; and
decays fit requests instead of packets. One small autoencoder takes the place of Kitsune's ensemble. Written anew from the paper.
"""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit

from classifier.events import clients_of

Floats = npt.NDArray[np.float64]
HALF_LIVES_S = (1.0, 10.0, 60.0, 600.0, 3600.0)
HIDDEN = 0.75
"""Hidden units for each input: Kitsune's beta."""
MOST_ROWS = 150_000
EPOCHS = 5


def statistics(events: pa.Table) -> npt.NDArray[np.float32]:
    """Return the damped statistics after each request, float32[n, channels * half-lives * 9]. Events are
    sorted by time.
    """
    time = events["time"].to_numpy() / 1e6
    # Of an answer only what the request asks for is known at its arrival.
    values = np.stack(
        [
            np.log1p(np.nan_to_num(events[name].to_numpy().astype(np.float64)))
            for name in ("request_bytes", "input_tokens", "max_tokens")
        ],
        axis=1,
    )
    client, address = clients_of(events), events["ip"]
    both = pc.binary_join_element_wise(client.cast(pa.string()), address.cast(pa.string()), "|")
    parts = []
    for column in (address, client, both):
        key = pc.dictionary_encode(column).combine_chunks().indices.to_numpy().astype(np.int64)
        parts.append(_damped(time, key, values, np.array(HALF_LIVES_S), int(key.max()) + 1))
    return np.concatenate(parts, axis=1)


class Autoencoder:
    """Fitted on the statistics of legitimate requests, float32[n, statistics]."""

    def __init__(self, legitimate: npt.NDArray[np.float32], seed: int = 0) -> None:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.neural_network import MLPRegressor

        rng = np.random.default_rng(seed)
        chosen = np.sort(rng.permutation(len(legitimate))[:MOST_ROWS])
        known = legitimate[chosen]
        self._low = known.min(axis=0)
        self._span = np.maximum(known.max(axis=0) - self._low, 1e-9)
        hidden = round(HIDDEN * known.shape[1])
        self._net = MLPRegressor(
            hidden_layer_sizes=(hidden,), activation="relu", max_iter=EPOCHS, batch_size=256, random_state=seed
        )
        scaled = self._scaled(known)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # Kitsune stops early, too: after one pass
            self._net.fit(scaled, scaled)

    def score(self, statistics: npt.NDArray[np.float32]) -> Floats:
        """Return the root mean square error of each reconstruction, float64[n]."""
        parts = [self._scaled(statistics[at : at + 200_000]) for at in range(0, len(statistics), 200_000)]
        return np.concatenate([np.sqrt(((self._net.predict(part) - part) ** 2).mean(axis=1)) for part in parts])

    def _scaled(self, statistics: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        # What lies far outside of normal traffic stays far outside, but finite.
        scaled = np.clip((statistics - self._low) / self._span, -10.0, 10.0)
        return np.asarray(scaled, np.float32)


@njit(cache=True, nogil=True)
def _damped(time, key, values, half_lives, keys):  # type: ignore[no-untyped-def]
    """Weight, mean and deviation of each value and of the log gap, after taking the request in."""
    n, width = values.shape
    several = len(half_lives)
    each = 2 * (width + 1) + 1
    state = np.zeros((keys, several, each))
    last = np.full(keys, -1.0)
    out = np.empty((n, several * each), np.float32)
    for i in range(n):
        k = key[i]
        gap = 0.0 if last[k] < 0 else max(time[i] - last[k], 0.0)
        for h in range(several):
            decay = 1.0 if last[k] < 0 else 2.0 ** (-gap / half_lives[h])
            s = state[k, h]
            for j in range(each):
                s[j] *= decay
            s[0] += 1.0
            for j in range(width + 1):
                x = values[i, j] if j < width else np.log1p(gap)
                s[1 + 2 * j] += x
                s[2 + 2 * j] += x * x
            base = h * each
            out[i, base] = np.log1p(s[0])
            for j in range(width + 1):
                mean = s[1 + 2 * j] / s[0]
                out[i, base + 1 + 2 * j] = mean
                out[i, base + 2 + 2 * j] = np.sqrt(max(s[2 + 2 * j] / s[0] - mean * mean, 0.0))
        last[k] = time[i]
    return out
