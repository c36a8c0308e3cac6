"""Applying a bundle to a log: raw scores, decisions and reasons, request by request or client by client."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from classifier.events import MICROSECONDS, VERDICTS, clients_of
from classifier.features.order import sorted_tables
from classifier.features.stream import FeatureChunk, feature_chunks
from classifier.model.ahead import one_ahead
from classifier.model.judge import Judge
from classifier.policy import decide_batch
from classifier.situation import Levels, Situation

SCORES = pa.schema([
    ("row", pa.int64()), ("time", pa.float64()), ("client", pa.string()), ("raw", pa.float32()),
    ("probability", pa.float32()), ("score", pa.int64()), ("decision", pa.string()), ("reasons", pa.string()),
    ("family", pa.string()),
])  # fmt: skip
"""What `botsieve score` writes for a request. `time` is in Unix s; reasons are joined by a blank; no `family` where allowed."""


class Model(Judge):
    """A loaded bundle, ready to score logs."""

    def scored(
        self,
        tables: Iterable[pa.Table],
        *,
        threads: int = 1,
        secret: bytes | None = None,
        explain: bool = True,
        watch: LogWatch | None = None,
    ) -> Iterator[Scored]:
        """Score event tables in input order; the results come in the order of time.

        A thread scores one block of rows, on whatever device, while the features of the next are computed. Without
        `explain` no row has reasons; `watch` counts every request towards a verdict about the whole service.
        """
        chunks = feature_chunks(tables, sizes=self.sizes, threads=threads, secret=secret, prompts=self.prompts)
        yield from one_ahead(partial(self._score_chunk, explain, watch), chunks)

    def _score_chunk(self, explain: bool, watch: LogWatch | None, chunk: FeatureChunk) -> Scored:
        raw, probability = self.score(chunk.rows)
        decided = decide_batch(raw, probability, self.thresholds)
        verdicts, families = decided.verdicts(), self.families(chunk.rows, raw)
        if watch is not None:
            watch.count(chunk, raw)
        results = pa.table(
            {
                "row": chunk.row,
                "time": chunk.events.column("time").to_numpy() / MICROSECONDS,
                "client": clients_of(chunk.events),
                "raw": raw,
                "probability": probability,
                "score": decided.scores.astype(np.int64),
                "decision": pa.array(verdicts, pa.string()),
                "reasons": pa.array(self.reasons(chunk.rows, raw) if explain else [None] * len(raw), pa.string()),
                "family": pa.array(
                    [None if v == "allow" else f for v, f in zip(verdicts, families, strict=True)], pa.string()
                ),
            },
            schema=SCORES,
        )
        return Scored(results, chunk.events, chunk.rows)


class LogWatch:
    """The verdict about the whole service, minute by minute of a log that a model scores."""

    def __init__(self, model: Judge) -> None:
        self.situation = Situation(changes_kept=None)
        self._levels = Levels.of(model.thresholds, model.bundle.manifest.policy_curve())
        self._newest = 0

    def count(self, chunk: FeatureChunk, raw: npt.NDArray[np.float32]) -> None:
        """Count requests and their raw scores, float32[n]; chunks come in the order of time."""
        time = chunk.events.column("time").to_numpy()
        if len(time):
            self.situation.observe_all(time, chunk.client, self._levels.marks(chunk.rows, raw))
            self._newest = int(time[-1])

    def stretches(self) -> list[dict[str, Any]]:
        """Return the verdicts as stretches of time, JSON-ready: state, since and until in Unix s, and what spoke for it."""
        newest = self._newest / MICROSECONDS
        # Of a short log nothing was said that could change.
        verdicts = list(self.situation.changes) or [self.situation.verdict]
        found = [verdict.as_json() for verdict in verdicts]
        ends = [*(verdict["since"] for verdict in found[1:]), newest]
        return [
            {**verdict, "since": verdict["since"] or newest, "until": max(end, verdict["since"])}
            for verdict, end in zip(found, ends, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores of some requests (`SCORES`), the events they belong to and their features float32[n, F], row by row."""

    results: pa.Table
    events: pa.Table
    rows: npt.NDArray[np.float32]


def in_input_order(results: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Bring scores back into the order of the input, through the disk where they are many."""
    for table, _ in sorted_tables(results, key="row"):
        yield table


def labelled_frame(scored: Iterable[Scored]) -> pd.DataFrame:
    """Return what an evaluation needs of scored requests, with their labels."""
    parts: list[pd.DataFrame] = []
    for part in scored:
        labels = part.events.select(["time", "malicious", "family", "input_tokens", "output_tokens"])
        results = part.results.select(["row", "client", "raw", "probability", "decision", "reasons"]).to_pandas()
        parts.append(pd.concat([results, labels.to_pandas()], axis=1))
    return pd.concat(parts, ignore_index=True)


class PerClient:
    """Sums scores up by client: what `botsieve score --per client` writes."""

    def __init__(self) -> None:
        self._parts: list[pd.DataFrame] = []

    def add(self, results: pa.Table) -> None:
        """Take in scores that follow those already taken in, in the order of time."""
        frame = results.to_pandas()
        frame["step"] = frame["decision"].map(VERDICTS.index).astype(np.int64)
        frame["acted"] = frame["row"].where(frame["step"] > 0)
        self._parts.append(
            _by_client(frame.assign(requests=1, max_probability=frame["probability"], max_raw=frame["raw"]))
        )
        if len(self._parts) == 32:
            self._parts = [_by_client(pd.concat(self._parts, ignore_index=True))]

    def table(self) -> pd.DataFrame:
        """Return a row a client, the most suspicious first: `first_action_row` is empty where nothing was done."""
        if not self._parts:
            return pd.DataFrame(columns=CLIENT_COLUMNS)
        whole = _by_client(pd.concat(self._parts, ignore_index=True))
        whole = whole.sort_values(["max_raw", "client"], ascending=[False, True], kind="stable", ignore_index=True)
        whole["decision"] = np.array(VERDICTS, dtype=object)[whole["step"].to_numpy()]
        whole["first_action_row"] = whole["acted"].astype("Int64")
        return whole[CLIENT_COLUMNS]


CLIENT_COLUMNS = ["client", "requests", "probability", "max_probability", "first_action_row", "decision", "reasons"]


def _by_client(frame: pd.DataFrame) -> pd.DataFrame:
    """Merge rows of one client, earlier ones first: counts add, the newest probability stays, the worst request speaks."""
    highest = frame.groupby("client", sort=False)["max_raw"].idxmax()
    worst = frame.loc[highest, ["client", "reasons"]].set_index("client")
    merged: pd.DataFrame = frame.groupby("client", sort=False).agg(
        requests=("requests", "sum"),
        probability=("probability", "last"),
        max_probability=("max_probability", "max"),
        max_raw=("max_raw", "max"),
        acted=("acted", "first"),
        step=("step", "max"),
    )
    return merged.join(worst).reset_index()
