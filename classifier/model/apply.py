"""Applying a bundle to a log: raw scores, decisions and reasons, request by request or client by client."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from classifier.errors import BundleError
from classifier.events import MICROSECONDS
from classifier.features.engine import Tables
from classifier.features.order import sorted_tables
from classifier.features.spec import COLUMN, FEATURES, spec_hash
from classifier.features.stream import clients_of, feature_chunks
from classifier.model.attribution import Explainer
from classifier.model.bundle import Bundle, load_bundle
from classifier.model.forest import Forest
from classifier.model.scorer import Device, Scorer
from classifier.policy import decide_batch

EXPLAINED_SHARE = 0.01
"""Reasons are given to requests whose raw score lies above that of all but this share of legitimate ones."""
REASONS = 3

SCORES = pa.schema([
    ("row", pa.int64()), ("time", pa.float64()), ("client", pa.string()), ("raw", pa.float32()),
    ("probability", pa.float32()), ("score", pa.int64()), ("decision", pa.string()), ("reasons", pa.string()),
    ("family", pa.string()),
])  # fmt: skip
"""What `botsieve score` writes for a request. `time` is in Unix seconds; reasons are joined by a blank."""


class Model:
    """A loaded bundle, ready to score feature rows."""

    def __init__(self, bundle: Bundle, *, device: Device = "auto", threads: int = 1) -> None:
        """Prepare the scorer and the explainer. Raises BundleError if the bundle's features are not of this version."""
        self.bundle, manifest = bundle, bundle.manifest
        unknown = [name for name in manifest.features if name not in COLUMN]
        if unknown:
            raise BundleError(f"the bundle {bundle.path} takes features this version has not: {', '.join(unknown[:3])}")
        self.columns = [COLUMN[name] for name in manifest.features]
        self.thresholds = manifest.policy_thresholds()
        self.sizes = Tables.from_slots(manifest.tables)
        self._scorer = Scorer(bundle, device=device, threads=threads)
        # Whatever is acted on has reasons, even where the budget is wider than that share.
        unusual = manifest.policy_curve().threshold(EXPLAINED_SHARE)
        self._explain_from = np.float32(min(unusual, self.thresholds.challenge, self.thresholds.block))
        self._explainer: Explainer | None = None

    @classmethod
    def load(cls, path: str, *, device: Device = "auto", threads: int = 1) -> Model:
        """Load a bundle from its folder and check that it was made for this version's features."""
        return cls(load_bundle(path, expect_spec_hash=spec_hash()), device=device, threads=threads)

    def score(self, rows: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return (raw float32[n], probability float32[n]) of full feature rows, float32[n, features]."""
        return self._scorer.score(np.ascontiguousarray(rows[:, self.columns]))

    def reasons(self, rows: npt.NDArray[np.float32], raw: npt.NDArray[np.float32]) -> list[str | None]:
        """Return the reasons of each row, most telling first; None for rows that lie among the legitimate ones."""
        if self._explainer is None:
            import onnx

            forest = Forest.from_onnx(onnx.load_from_string(self.bundle.model))
            names = [FEATURES[column].reason for column in self.columns]
            self._explainer = Explainer(forest, names, self.bundle.manifest.clip_limit())
        out: list[str | None] = [None] * len(rows)
        high = np.flatnonzero(raw >= self._explain_from)
        for place, found in zip(high, self._explainer.reasons(rows[high][:, self.columns], REASONS), strict=True):
            out[place] = " ".join(found)
        return out

    def scored(self, tables: Iterable[pa.Table], *, threads: int = 1, secret: bytes | None = None) -> Iterator[Scored]:
        """Score event tables in input order; the results come in the order of time."""
        for chunk in feature_chunks(tables, sizes=self.sizes, threads=threads, secret=secret):
            raw, probability = self.score(chunk.rows)
            decided = decide_batch(raw, probability, self.thresholds)
            results = pa.table(
                {
                    "row": chunk.row,
                    "time": chunk.events.column("time").to_numpy() / MICROSECONDS,
                    "client": clients_of(chunk.events),
                    "raw": raw,
                    "probability": probability,
                    "score": decided.scores.astype(np.int64),
                    "decision": pa.array(decided.verdicts(), pa.string()),
                    "reasons": pa.array(self.reasons(chunk.rows, raw), pa.string()),
                    "family": pa.nulls(len(raw), pa.string()),
                },
                schema=SCORES,
            )
            yield Scored(results, chunk.events)


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores of some requests (`SCORES`) and the events they belong to, row by row."""

    results: pa.Table
    events: pa.Table


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
        order = {"allow": 0, "challenge": 1, "block": 2}
        frame["step"] = frame["decision"].map(order).astype(np.int64)
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
        whole["decision"] = np.array(["allow", "challenge", "block"], dtype=object)[whole["step"].to_numpy()]
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
