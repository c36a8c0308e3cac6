"""How well a client's own features tell the labelled sessions of the CERTH web bot set apart: human against bot.

    python -m classifier.evaluation.certh [--requests FILE]

The recording gives labels away in ways that no log to be judged would; the protocol takes them out:

* telemetry of the mouse (four rows in five) is dropped; user agent and referer are hidden, status is 200 throughout;
* classes were recorded on different days and no two sessions overlap, so each session is shifted to begin at a random
  moment of one common hour, has its id as account and an address of its own, and group features are left out;
* response sizes count the bytes of the TLS handshake: one script of the first page is 1,512 bytes (the certificate) larger
  at 59 of 65 requests of bots and at 1 of 42 of humans. That tells two browsers apart, as the hidden user agent would, so
  sizes are hidden too.

Five folds by session, three seeds (shifts, addresses, folds, trees); a session's figure is the probability of its newest
request by a model that never saw it. There is one model a fold, human against both kinds of bots with the weights of
training; each kind is then ranked against the humans. `SETTINGS` were fixed before any fold was scored, and nothing is
tuned. The other rows of the table change one thing each and show what the figure rests on.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from sklearn.model_selection import StratifiedKFold

from classifier.events import EVENT_SCHEMA, MICROSECONDS, clients_of
from classifier.features.engine import Tables
from classifier.features.paths import path_traits
from classifier.features.spec import columns_without
from classifier.features.stream import feature_chunks
from classifier.model.bootstrap import ClientResampler, share
from classifier.model.dataset import Dataset, training_weights
from classifier.model.train import Settings, fit

REQUESTS = Path(__file__).resolve().parents[3] / "shared" / "data" / "web" / "certh_requests.csv.gz"
HUMAN, MODERATE, ADVANCED = "human", "moderate_bot", "advanced_bot"
TELEMETRY = r"/storage/store_.*mousemv"
HOUR_US = 1_767_225_600 * MICROSECONDS
"""Where the common hour begins: a midnight that has nothing to do with the recording."""
NETWORKS = ("192.0.2", "198.51.100", "203.0.113")
"""Networks for documentation (RFC 5737)."""
SEEDS, FOLDS = (0, 1, 2), 5
SHUFFLES = 5
"""How often the labels are shuffled for each seed."""
RESAMPLES = 2000
SETTINGS = Settings(own_trees=300, leaves=8, depth=4, learning_rate=0.05, fewest_rows=20, threads=1)
"""Small trees for a hundred sessions: chosen beforehand, not on these folds."""

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]
Texts = npt.NDArray[np.object_]
Change = Callable[[pd.DataFrame, np.random.Generator], pd.DataFrame]


@dataclass(frozen=True)
class Area:
    """An area under the ROC curve, the mean over seeds, with its 95 % interval over resampled sessions.

    Where every pair is ranked rightly, the lower bound is a stand-in (`bootstrap.share`); bounds are NaN where one side
    has fewer than five sessions.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Areas:
    """Human against each kind of bot."""

    moderate: Area
    advanced: Area


@dataclass(frozen=True)
class Variant:
    """A way to show the sessions: a change of the requests, or the request that is judged (0 first, 1 newest)."""

    name: str
    change: Change = lambda requests, _: requests
    judged: float = 1.0


def without_sizes(requests: pd.DataFrame, _: np.random.Generator) -> pd.DataFrame:
    """Hide the response sizes."""
    return requests.drop(columns="bytes")


def blurred(requests: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Put each request at a random moment of its second: stamps are whole seconds, and order within one is the
    log's.
    """
    moment = rng.integers(0, MICROSECONDS, len(requests))
    return without_sizes(requests.assign(time=requests["time"] + moment), rng)


def pages_only(requests: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Leave out images, styles and scripts: what remains is what a visitor chose, not what his browser fetched."""
    return without_sizes(requests[~requests["path"].map(lambda path: path_traits(path).asset)], rng)


PROTOCOL = Variant("the protocol", without_sizes)
VARIANTS = (
    PROTOCOL,
    Variant("with response sizes"),
    Variant("moments within a second at random", blurred),
    Variant("judged halfway through the session", without_sizes, judged=0.5),
    Variant("pages only", pages_only),
    Variant("pages only, halfway", pages_only, judged=0.5),
)


def read(path: Path = REQUESTS) -> pd.DataFrame:
    """Read the recorded requests that a visitor's pages made, in recorded order: telemetry is dropped."""
    requests = pd.read_csv(path, usecols=["session_id", "label", "timestamp", "method", "path", "bytes"])
    requests = requests[~requests["path"].str.match(TELEMETRY)].reset_index(drop=True)
    requests["time"] = pd.to_datetime(requests["timestamp"]).astype("datetime64[us, UTC]").astype("int64")
    return requests.drop(columns="timestamp")


def labels_of(requests: pd.DataFrame) -> pd.Series:
    """Return the label of each session, by session in rising order."""
    return requests.groupby("session_id")["label"].first().astype(object)


def events(requests: pd.DataFrame, rng: np.random.Generator) -> pa.Table:
    """Return the requests as events: sessions begin at random in one hour, each from an address of its own."""
    sessions, number = np.unique(requests["session_id"].to_numpy(object), return_inverse=True)
    begin = requests.groupby("session_id")["time"].min()[sessions].to_numpy()
    shift = HOUR_US + rng.integers(0, 3600 * MICROSECONDS, len(sessions)) - begin
    host = rng.permutation(len(NETWORKS) * 254)[: len(sessions)]
    address = np.array([f"{NETWORKS[h // 254]}.{h % 254 + 1}" for h in host], object)
    known = {
        "time": requests["time"].to_numpy() + shift[number],
        "ip": address[number],
        "method": requests["method"].to_numpy(object),
        "path": requests["path"].to_numpy(object),
        "status": np.full(len(requests), 200),
        "account": sessions[number],
        "malicious": requests["label"].to_numpy(object) != HUMAN,
        "family": requests["label"].to_numpy(object),
    }
    if "bytes" in requests:
        known["response_bytes"] = requests["bytes"].to_numpy()
    columns = [
        pa.array(known[field.name], field.type) if field.name in known else pa.nulls(len(requests), field.type)
        for field in EVENT_SCHEMA
    ]
    return pa.table(columns, schema=EVENT_SCHEMA)


def dataset(table: pa.Table) -> Dataset:
    """Return the own features of all events in the order of time; no warm-up is cut off, as it would cut sessions."""
    columns, parts = columns_without(["group"]), []
    for chunk in feature_chunks([table], sizes=Tables.for_clients(1 << 10), secret=b"certh"):
        of = chunk.events
        parts.append(
            Dataset(
                rows=np.ascontiguousarray(chunk.rows[:, columns]),
                row=chunk.row,
                time=of["time"].to_numpy(),
                key=chunk.client,
                malicious=of["malicious"].to_numpy().astype(bool),
                weight=np.ones(of.num_rows),
                client=np.array(clients_of(of).to_pylist(), object),
                family=np.array(of["family"].to_pylist(), object),
                input_tokens=np.full(of.num_rows, np.nan),
                output_tokens=np.full(of.num_rows, np.nan),
            )
        )
    return Dataset.join(parts)


def judged_rows(data: Dataset, judged: float) -> Places:
    """Return the place of each session's judged request, in the order of session ids."""
    places = pd.Series(np.arange(len(data))).groupby(data.client, sort=True)
    return places.agg(lambda own: own.iloc[round(judged * (len(own) - 1))]).to_numpy()


def relabelled(data: Dataset, labels: pd.Series) -> Dataset:
    """Return the rows with other labels of their sessions."""
    family = labels.reindex(data.client).to_numpy(object)
    return replace(data, family=family, malicious=family != HUMAN)


def held_out(data: Dataset, judged: Places, labels: pd.Series, seed: int) -> Floats:
    """Return the probability of each session's judged request by the model of the other folds, float64[sessions]."""
    data = relabelled(data, labels)
    sessions = labels.index.to_numpy(object)
    settings, own = replace(SETTINGS, seed=seed), range(data.rows.shape[1])
    probability = np.full(len(sessions), np.nan)
    for learnt, out in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(sessions, labels.to_list()):
        known = data.take(np.isin(data.client, sessions[learnt]))
        model, _ = fit(known.rows, known.malicious, training_weights(known), own, settings)
        probability[out] = 1 / (1 + np.exp(-model.raw(data.rows[judged[out]])))
    return probability


@lru_cache(maxsize=4)
def _shown(path: Path, variant: Variant) -> tuple[tuple[Dataset, ...], pd.Series]:
    """Return the feature rows of each seed and the labels."""
    requests = read(path)
    shown = []
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        shown.append(dataset(events(variant.change(requests, rng), rng)))
    return tuple(shown), labels_of(requests)


def measure(variant: Variant = PROTOCOL, path: Path = REQUESTS) -> Areas:
    """Return the areas of a variant over all seeds."""
    shown, labels = _shown(path, variant)
    scores = [
        held_out(data, judged_rows(data, variant.judged), labels, s) for s, data in zip(SEEDS, shown, strict=True)
    ]
    return areas(np.array(scores), labels.to_numpy(object))


def shuffled(path: Path = REQUESTS) -> Areas:
    """Return the areas under the protocol with the labels shuffled among the sessions, the mean over shuffles and seeds.

    In place of an interval stand the least and the greatest of the shuffles.
    """
    shown, labels = _shown(path, PROTOCOL)
    found = [areas(*drawn, resamples=0) for drawn in _shuffles(shown, labels)]

    def over(values: list[float]) -> Area:
        return Area(float(np.mean(values)), min(values), max(values))

    return Areas(over([f.moderate.value for f in found]), over([f.advanced.value for f in found]))


def _shuffles(shown: tuple[Dataset, ...], labels: pd.Series) -> Iterator[tuple[Floats, Texts]]:
    """Yield the scores, float64[1, sessions], and the labels of each shuffle."""
    for seed, data in zip(SEEDS, shown, strict=True):
        rng = np.random.default_rng([seed, 1])
        for _ in range(SHUFFLES):
            false = pd.Series(rng.permutation(labels.to_numpy(object)), index=labels.index)
            yield held_out(data, judged_rows(data, 1.0), false, seed)[None], false.to_numpy(object)


def areas(scores: Floats, labels: Texts, resamples: int = RESAMPLES) -> Areas:
    """Return the areas of both kinds of bots, means over seeds: scores float64[seeds, sessions], labels [sessions]."""
    return Areas(
        *(_area(scores[:, labels == HUMAN], scores[:, labels == bot], resamples) for bot in (MODERATE, ADVANCED))
    )


def _area(people: Floats, bots: Floats, resamples: int) -> Area:
    # An area is the mean of this table [people, bots] of who is ranked above whom, ties half: a resample weighs it.
    above = (bots[:, None, :] > people[:, :, None]) + 0.5 * (bots[:, None, :] == people[:, :, None])
    won = above.mean(axis=0)
    resampler = ClientResampler(np.repeat([0, 1], won.shape), seed=0)
    drawn = [won.mean()]
    for _ in range(resamples):
        person, machine = np.split(resampler.draw(), [len(won)])
        drawn.append(person @ won @ machine / won.size)
    found = share(float(won.mean()), np.array(drawn), min(won.shape))
    low, high = (np.nan if bound is None else bound for bound in (found["low"], found["high"]))
    return Area(float(won.mean()), low, high)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="AUC of human against bot sessions, with 95 % intervals over sessions")
    parser.add_argument("--requests", type=Path, default=REQUESTS, help="certh_requests.csv.gz")
    path = parser.parse_args().requests
    print(f"{'':38}{'human : moderate':24}{'human : advanced':24}")
    for variant in VARIANTS:
        found = measure(variant, path)
        print(f"{variant.name:38}{found.moderate!s:24}{found.advanced!s:24}", flush=True)
    found = shuffled(path)
    print(f"{'labels shuffled [least, greatest]':38}{found.moderate!s:24}{found.advanced!s:24}")


if __name__ == "__main__":
    main()
