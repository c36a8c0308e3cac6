"""Derive the small tables of ServeGen figures that the simulator ships, from the published traces.

    python -m classifier.traffic.derive FOLDER        FOLDER holds servegen_arrivals.parquet and servegen_tokens.parquet

`servegen_figures.csv` has one row for each production API tenant that was ever active and whose token lengths were
published; `servegen_hours.csv` the daily shape. Columns are described in `COLUMNS` of `classifier.traffic.tenants`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import polars as pl

HERE = Path(__file__).parent
SOURCE = "derived from alibaba/ServeGen @ f891d119 (Apache-2.0) by python -m classifier.traffic.derive"
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
KEY = ["workload", "client"]


def _quantile_columns(column: str, prefix: str, quantiles: tuple[float, ...]) -> list[pl.Expr]:
    return [pl.col(column).quantile(q).alias(f"{prefix}_q{round(100 * q):02d}") for q in quantiles]


def arrival_figures(arrivals: pl.DataFrame) -> pl.DataFrame:
    """Return rate, activity, burstiness and pattern of each tenant (rates in requests/s, over 600 s windows)."""
    active = pl.col("rate") > 0
    busy = active & (pl.col("rate") * 600 >= 20)  # a cv of fewer gaps is noise
    after = arrivals.sort([*KEY, "window_s"]).with_columns(before=pl.col("rate").shift(1).over(KEY) > 0)
    runs = after.filter(pl.col("before").fill_null(False)).group_by(KEY).agg(stays_active=active.mean())
    shape = (
        arrivals.filter(active)
        .group_by(KEY)
        .agg(*_quantile_columns("rate", "rate", QUANTILES), weibull_share=(pl.col("pattern") == "Weibull").mean())
    )
    cv = arrivals.filter(busy).group_by(KEY).agg(_quantile_columns("cv", "cv", (0.25, 0.5, 0.75)))
    mean = arrivals.group_by(KEY).agg(rate_mean=pl.col("rate").mean(), active_share=active.mean())
    whole = mean.join(shape, on=KEY).join(cv, on=KEY).join(runs, on=KEY, how="left")
    return whole.with_columns(pl.col("stays_active").fill_null(0.0))


def token_figures(tokens: pl.DataFrame) -> pl.DataFrame:
    """Return quantiles of input and output tokens of each tenant, its 6 h windows weighted equally."""
    quantiles = (*QUANTILES, 0.99)
    sides = []
    for side in ("input", "output"):
        weights = tokens.filter(pl.col("side") == side).group_by([*KEY, "tokens"]).agg(pl.col("probability").sum())
        ranked = weights.sort([*KEY, "tokens"]).with_columns(
            rank=pl.col("probability").cum_sum().over(KEY) / pl.col("probability").sum().over(KEY)
        )
        first = [
            pl.col("tokens").filter(pl.col("rank") >= q - 1e-6).first().alias(f"{side}_q{round(100 * q):02d}")
            for q in quantiles
        ]
        sides.append(ranked.group_by(KEY).agg(first))
    return sides[0].join(sides[1], on=KEY)


def daily_shape(arrivals: pl.DataFrame) -> pl.DataFrame:
    """Return the median over steady tenants of the rate in each hour of the day, relative to the tenant's mean."""
    hourly = arrivals.with_columns(hour=(pl.col("window_s") // 3600) % 24).group_by([*KEY, "hour"])
    relative = hourly.agg(pl.col("rate").mean()).with_columns(
        factor=pl.col("rate") / pl.col("rate").mean().over(KEY), mean=pl.col("rate").mean().over(KEY)
    )
    return relative.filter(pl.col("mean") > 0.1).group_by("hour").agg(pl.col("factor").median()).sort("hour")


def write(table: pl.DataFrame, path: Path) -> None:
    """Write a table as CSV under a comment line that names its source."""
    text = table.with_columns(pl.selectors.float().round_sig_figs(4)).write_csv()
    path.write_text(f"# {SOURCE}\n{text}", encoding="utf-8")


def main() -> None:
    """Write both tables beside this module."""
    parser = argparse.ArgumentParser(prog="python -m classifier.traffic.derive", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="where the published traces are")
    folder: Path = parser.parse_args().folder
    arrivals = pl.read_parquet(folder / "servegen_arrivals.parquet")
    tokens = pl.read_parquet(folder / "servegen_tokens.parquet").with_columns(pl.col("client").cast(pl.Int64))
    figures = arrival_figures(arrivals).join(token_figures(tokens), on=KEY).sort(KEY)
    write(figures, HERE / "servegen_figures.csv")
    write(daily_shape(arrivals), HERE / "servegen_hours.csv")


if __name__ == "__main__":
    main()
