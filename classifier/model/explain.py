"""Why the model thinks so of one client: its requests, and what credited its most suspicious one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from classifier.errors import InputError
from classifier.events import MICROSECONDS, clients_of
from classifier.features.spec import FEATURES
from classifier.features.stream import feature_chunks
from classifier.model.apply import Model
from classifier.model.histograms import read_reference
from classifier.model.wording import counted
from classifier.policy import decide_batch

SHOWN = ("method", "path", "status", "duration", "model", "input_tokens", "output_tokens")


@dataclass(frozen=True)
class Explanation:
    """What is known of one client.

    requests       its requests in the order of time: row, time (UTC), what was asked, raw, probability, score, decision, reasons
    worst          the row of the request with the highest raw score
    contributions  of that request, the strongest first: feature, value, unit, log_odds, below, reason, part, meaning. `below` is
                   about the share of legitimate training requests with a smaller value, from deciles; NaN where undefined
    reasons        log odds by reason group, the strongest first: a Series
    bias           log odds that every request starts from; with all contributions it adds up to the raw score
    """

    client: str
    requests: pd.DataFrame
    worst: int
    contributions: pd.DataFrame
    reasons: pd.Series
    bias: float

    def __str__(self) -> str:
        """Say it in some lines."""
        top = self.requests.loc[self.requests["row"] == self.worst].iloc[0]
        lines = [
            f"{self.client}: {len(self.requests):,} requests, {counted(Counter(self.requests['decision']))}",
            f"most suspicious: row {self.worst}, raw {top['raw']:.2f}, probability {top['probability']:.3f}, because of",
        ]
        for line in self.contributions.head(5).itertuples():
            lines.append(f"  {line.log_odds:+.2f}  {line.meaning} = {line.value:.4g} {line.unit}")
        return "\n".join(lines)


def explain_client(model: Model, tables: Iterable[pa.Table], client: str, *, threads: int) -> Explanation:
    """Score a log and explain one of its clients (an account, or an address where there is none).

    The whole log goes through the engine, since a client is also judged by the company it keeps. Raises InputError if
    the log does not have the client.
    """
    parts: list[pd.DataFrame] = []
    rows = []
    for chunk in feature_chunks(tables, sizes=model.sizes, threads=threads, prompts=model.prompts):
        at = np.flatnonzero(pc.equal(clients_of(chunk.events), client).to_numpy(zero_copy_only=False))
        if not len(at):
            continue
        mine = chunk.rows[at]
        raw, probability = model.score(mine)
        decided = decide_batch(raw, probability, model.thresholds)
        events = chunk.events.take(pa.array(at))
        parts.append(
            pd.DataFrame(
                {
                    "row": chunk.row[at],
                    "time": pd.to_datetime(events.column("time").to_numpy(), unit="us", utc=True),
                    **{name: events.column(name).to_pandas() for name in SHOWN},
                    "raw": raw,
                    "probability": probability,
                    "score": decided.scores.astype(np.int64),
                    "decision": decided.verdicts(),
                    "reasons": model.reasons(mine, raw),
                }
            )
        )
        rows.append(mine)
    if not parts:
        raise InputError(f"the log has no client {client}; name an account of it, or an address that has none")
    requests = pd.concat(parts, ignore_index=True)
    place = int(requests["raw"].to_numpy().argmax())
    worst = np.concatenate(rows)[place : place + 1][:, model.columns]
    explainer = model.explainer()
    log_odds = explainer.contributions(worst)[0]
    sums = pd.Series(explainer.reason_sums(worst)[0], index=pd.Index(explainer.names, name="reason"), name="log_odds")
    features = [FEATURES[column] for column in model.columns]
    histograms = read_reference(model.bundle)
    contributions = pd.DataFrame(
        {
            "feature": [feature.name for feature in features],
            "value": worst[0],
            "unit": [feature.unit for feature in features],
            "log_odds": log_odds,
            "below": [
                histograms[feature.name].below(value) if feature.name in histograms else np.nan
                for feature, value in zip(features, worst[0], strict=True)
            ],
            "reason": [feature.reason for feature in features],
            "part": [feature.part for feature in features],
            "meaning": [feature.meaning for feature in features],
        }
    ).sort_values("log_odds", ascending=False, kind="stable", ignore_index=True)
    return Explanation(
        client, requests, int(requests["row"].iloc[place]), contributions,
        sums.sort_values(ascending=False, kind="stable"), explainer.bias,
    )  # fmt: skip


def times_of(seconds: pd.Series) -> pd.Series:
    """Return Unix seconds as moments in UTC, to the microsecond."""
    micros = np.rint(seconds.to_numpy(np.float64) * MICROSECONDS).astype(np.int64)
    return pd.Series(pd.to_datetime(micros, unit="us", utc=True), index=seconds.index)
