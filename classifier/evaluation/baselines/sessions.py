"""Gradient-boosted trees on statistics of whole sessions, in the manner of Baskerville (eQualitie).

Baskerville sums up each client's requests since its session began, batch by batch, and judges the sums: rates, gaps between
requests, shares of errors, how many paths and user agents, sizes and depths of paths. A session ends after half an hour of
silence. Batches are of two minutes here; a batch is judged at its end, and whoever it accuses counts as found at once, which
favours it. The trees are those of our own first part, on rows with the same weights. Written anew from its public description.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from classifier.model.dataset import Dataset, training_weights
from classifier.model.train import Settings

BATCH_S, SILENCE_S = 120, 1800
_UNIQUE = ("path", "user_agent", "ip", "model", "referer")


def statistics(
    events: pa.Table, client: npt.NDArray[np.int32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return the statistics of each session at the end of each of its batches, and the client of each, in rows.

    float32[batches, statistics] and int64[batches]. events [n], sorted by time; client int32[n].
    """
    frame = _requests(events, client)
    of_session = ["client", "session"]
    sums = {
        "requests": pl.len(),
        "gap_sum": pl.col("gap").sum(),
        "gap_squares": (pl.col("gap") ** 2).sum(),
        "gap_longest": pl.col("gap").max(),
        **{name: pl.col(name).sum() for name in _SUMMED},
        **{f"new_{name}": (pl.col(f"first_{name}")).sum() for name in _UNIQUE},
        "begin": pl.col("time").min(),
        "end": pl.col("time").max(),
    }
    batches = frame.group_by([*of_session, "batch"]).agg(**sums).sort([*of_session, "batch"])
    summed = ["requests", "gap_sum", "gap_squares", *_SUMMED, *(f"new_{name}" for name in _UNIQUE)]
    running = batches.with_columns(
        *(pl.col(name).cum_sum().over(of_session) for name in summed),
        pl.col("gap_longest").cum_max().over(of_session),
        pl.col("requests").alias("in_batch"),
        begin=pl.col("begin").min().over(of_session),
    )
    n, length = pl.col("requests"), (pl.col("end") - pl.col("begin")) / 1e6
    mean = pl.col("gap_sum") / n
    found = running.select(
        n.log1p().alias("requests"),
        "in_batch",
        length.alias("length"),
        (n / (length + 1.0)).alias("rate"),
        mean.alias("gap_mean"),
        (pl.col("gap_squares") / n - mean**2).clip(0.0).sqrt().alias("gap_std"),
        "gap_longest",
        *((pl.col(name) / n).alias(name) for name in _SUMMED),
        *(pl.col(f"new_{name}").alias(f"distinct_{name}") for name in _UNIQUE),
        (pl.col("new_path") / n).alias("paths_per_request"),
        (pl.col("length_squares") / n - (pl.col("path_length") / n) ** 2).clip(0.0).sqrt().alias("path_length_std"),
        (pl.col("depth_squares") / n - (pl.col("depth") / n) ** 2).clip(0.0).sqrt().alias("depth_std"),
    )
    return found.to_numpy().astype(np.float32), running["client"].to_numpy().astype(np.int64)


_SUMMED = (
    "path_length", "length_squares", "depth", "depth_squares", "query", "post", "asset", "s2xx", "s3xx",
    "s401", "s404", "s4xx", "s5xx", "no_referer", "request_size", "response_size", "seconds",
)  # fmt: skip


def _requests(events: pa.Table, client: npt.NDArray[np.int32]) -> pl.DataFrame:
    names = ["time", "ip", "method", "path", "duration", "status", "user_agent", "referer", "request_bytes",
             "response_bytes", "model"]  # fmt: skip
    raw: Any = pl.from_arrow(events.select(names))
    path, status = pl.col("path"), pl.col("status")
    frame = raw.with_columns(client=pl.Series(client)).sort(["client", "time"], maintain_order=True)
    frame = frame.with_columns(gap=(pl.col("time").diff().over("client") / 1e6).fill_null(0.0))
    frame = frame.with_columns(session=(pl.col("gap") > SILENCE_S).cast(pl.Int32).cum_sum().over("client"))
    frame = frame.with_columns(gap=pl.when(pl.col("gap") > SILENCE_S).then(0.0).otherwise(pl.col("gap")))
    whole: pl.DataFrame = frame.with_columns(
        batch=pl.col("time") // (BATCH_S * 1_000_000),
        path_length=path.str.len_chars().cast(pl.Float64),
        depth=path.str.count_matches("/").cast(pl.Float64),
        query=path.str.contains("?", literal=True),
        post=pl.col("method") == "POST",
        asset=path.str.contains(r"\.(?:css|js|png|jpg|svg|woff2?|ico)$"),
        s2xx=(status // 100 == 2).fill_null(False),
        s3xx=(status // 100 == 3).fill_null(False),
        s401=status.is_in([401, 403]).fill_null(False),
        s404=(status == 404).fill_null(False),
        s4xx=(status // 100 == 4).fill_null(False),
        s5xx=(status // 100 == 5).fill_null(False),
        no_referer=pl.col("referer").is_null(),
        request_size=pl.col("request_bytes").fill_null(0).cast(pl.Float64).log1p(),
        response_size=pl.col("response_bytes").fill_null(0).cast(pl.Float64).log1p(),
        seconds=pl.col("duration").fill_null(0.0),
    ).with_columns(
        length_squares=pl.col("path_length") ** 2,
        depth_squares=pl.col("depth") ** 2,
        **{f"first_{name}": pl.col(name).is_first_distinct().over(["client", "session"]) for name in _UNIQUE},
    )
    return whole


def booster(rows: npt.NDArray[np.float32], data: Dataset, settings: Settings) -> Any:
    """Train on session statistics float32[n, statistics]; `data` says whose they are, row by row."""
    import lightgbm as lgb

    given = lgb.Dataset(rows, data.malicious, weight=training_weights(data), free_raw_data=True)
    return lgb.train(settings.lightgbm(), given, num_boost_round=settings.own_trees + settings.group_trees)
