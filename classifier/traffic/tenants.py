"""API tenants whose rates, burstiness and token lengths follow the production tenants of ServeGen.

The figures are those of `servegen_figures.csv` (see `classifier.traffic.derive`). `COLUMNS` says what each column is.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from classifier.traffic import pacing
from classifier.traffic.pacing import F64

WINDOW_S = 600.0
"""Length of the windows in which the figures were measured, s."""
COLUMNS = {
    "workload, client": "which ServeGen client it is (m-large and m-mid are two model sizes)",
    "rate_mean": "requests/s over seven days, idle windows included",
    "active_share": "share of windows with a request",
    "stays_active": "probability that the window after an active one is active",
    "rate_qNN": "quantiles of the rate over active windows, requests/s",
    "weibull_share": "share of active windows whose gaps fit a Weibull better than a gamma distribution",
    "cv_qNN": "quantiles of the coefficient of variation of the gaps, over windows of 20 requests or more",
    "input_qNN, output_qNN": "quantiles of tokens for each request",
}
_RATE_RANKS = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
_TOKEN_RANKS = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
_CV_RANKS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Tenant:
    """The figures of one production tenant."""

    name: str
    rate_mean: float
    active_share: float
    stays_active: float
    weibull_share: float
    rates: tuple[float, ...]
    cvs: tuple[float, ...]
    inputs: tuple[float, ...]
    outputs: tuple[float, ...]

    def activity(self, rng: np.random.Generator, windows: int) -> np.ndarray:
        """Return which windows are active, bool[windows]: a two-state chain of the tenant's share and persistence."""
        share, stay = self.active_share, max(self.stays_active, self.active_share)
        wake = min((1.0 - stay) * share / max(1.0 - share, 1e-9), 1.0)
        draws = rng.random(windows)
        active = np.empty(windows, np.bool_)
        state = bool(draws[0] < share) if windows else False
        for i, draw in enumerate(draws):
            active[i] = state
            state = bool(draw < (stay if state else wake))
        return active

    def window_rates(self, rng: np.random.Generator, windows: int) -> F64:
        """Draw the rate of each of `windows` active windows in requests/s; their mean is the tenant's."""
        ranks = np.clip((np.argsort(np.argsort(rng.random(windows))) + rng.random(windows)) / max(windows, 1), 0, 1)
        grid = _spread(self.rates, _RATE_RANKS, np.linspace(0.0005, 0.9995, 1000))
        scale = self.rate_mean / self.active_share / float(grid.mean())
        return _spread(self.rates, _RATE_RANKS, ranks) * float(np.clip(scale, 1 / 3, 3.0))

    def arrivals(self, rng: np.random.Generator, duration: float, cap: int = 1_000_000) -> F64:
        """Draw the tenant's arrival times over `duration` s, sorted; at most `cap` of them, thinned evenly."""
        windows = int(np.ceil(duration / WINDOW_S))
        active = np.flatnonzero(self.activity(rng, windows))
        counts = rng.poisson(self.window_rates(rng, len(active)) * WINDOW_S)
        counts = np.minimum(np.maximum(counts, 1), np.maximum(cap * counts // max(int(counts.sum()), 1), 1))
        cvs = _spread(self.cvs, _CV_RANKS, rng.random(len(active)))
        weibull = rng.random(len(active)) < self.weibull_share
        parts = [
            pacing.renewal(rng, int(n), w * WINDOW_S, WINDOW_S, float(cv), "weibull" if wb else "gamma")
            for w, n, cv, wb in zip(active, counts, cvs, weibull, strict=True)
        ]
        times = np.concatenate(parts) if parts else np.empty(0)
        return times[times < duration]

    def input_tokens(self, rng: np.random.Generator, n: int) -> F64:
        """Draw the input tokens of n requests."""
        return np.rint(_spread(self.inputs, _TOKEN_RANKS, rng.random(n)))

    def output_tokens(self, rng: np.random.Generator, n: int) -> F64:
        """Draw the output tokens of n requests."""
        return np.rint(_spread(self.outputs, _TOKEN_RANKS, rng.random(n)))


def _spread(values: tuple[float, ...], ranks: tuple[float, ...], at: F64) -> F64:
    """Interpolate a quantile function given at `ranks`, on a log scale."""
    return np.asarray(np.exp(np.interp(at, ranks, np.log(np.maximum(values, 1e-6)))))


def _quantiles(row: dict[str, str], prefix: str, ranks: tuple[int, ...], stretch: float) -> tuple[float, ...]:
    """Read quantiles and close them at both ends: what lies beyond the outermost is at most `stretch` away."""
    inner = [float(row[f"{prefix}_q{rank:02d}"]) for rank in ranks]
    return (inner[0] / stretch, *inner, inner[-1] * stretch)


def _rows(name: str) -> list[dict[str, str]]:
    text = files("classifier.traffic").joinpath(name).read_text("utf-8")
    return list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))


@cache
def tenants() -> tuple[Tenant, ...]:
    """Return all tenants of the table, in its order."""
    return tuple(
        Tenant(
            name=f"{row['workload']}-{row['client']}",
            rate_mean=float(row["rate_mean"]),
            active_share=float(row["active_share"]),
            stays_active=float(row["stays_active"]),
            weibull_share=float(row["weibull_share"]),
            rates=_quantiles(row, "rate", (5, 25, 50, 75, 95), 1.5),
            cvs=_quantiles(row, "cv", (25, 50, 75), 1.2),
            inputs=_quantiles(row, "input", (5, 25, 50, 75, 95, 99), 1.3),
            outputs=_quantiles(row, "output", (5, 25, 50, 75, 95, 99), 1.3),
        )
        for row in _rows("servegen_figures.csv")
    )


@cache
def hours() -> tuple[float, ...]:
    """Return the daily shape: for each hour, the median tenant's rate relative to its mean."""
    return tuple(float(row["factor"]) for row in _rows("servegen_hours.csv"))
