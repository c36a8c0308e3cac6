"""Platt scaling: probability = sigmoid(a · raw + b) with a > 0, calibrated to a stated prior of attack.

Logs hold attackers in any proportion (woven-in ones in the proportion somebody chose), so the classes are weighted to
the prior. The formula and the smoothed targets are Platt's (1999), the safeguarded Newton iteration follows Lin, Lin
and Weng, "A note on Platt's probabilistic outputs for support vector machines" (2007).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from classifier.errors import InputError

Floats = npt.NDArray[np.float64]
LEAST_SLOPE = 1e-3
"""Slope a per standard deviation of raw scores that is given when the data ask for none or a negative one."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """The fitted map from raw score to probability. `a` and `b` are float32 values, so every engine has the same.

    `note` says what a reader of the probabilities should know; None when all is well.
    """

    a: float
    b: float
    prior: float
    note: str | None = None

    def probability(self, raw: npt.NDArray[np.float32]) -> Floats:
        """Return the probability of attack of each raw score, float64 of the same shape."""
        z = self.a * raw.astype(np.float64) + self.b
        return np.asarray(np.exp(-np.logaddexp(0.0, -z)))


def fit_platt(
    raw: npt.NDArray[np.float32],
    malicious: npt.NDArray[np.bool_],
    prior: float = 0.01,
    weights: npt.NDArray[np.floating[Any]] | None = None,
) -> Calibration:
    """Fit a and b on labelled requests that training has not seen (a later slice of time).

    `raw` is float32[n], `malicious` bool[n], `weights` positive [n] or None for equal ones; within each class they are
    rescaled, so that attacks make up `prior` of the whole. Deterministic. Raises InputError when one class is missing,
    the prior is not inside (0, 1) or a score is not finite.

    Raw scores that do not rise with attack on this slice (no better than chance) get the least slope: the order of
    scores is kept, the probability is nearly the prior everywhere, and `note` says so.
    """
    _check(raw, malicious, prior)
    given = np.ones(len(raw)) if weights is None else weights.astype(np.float64)
    attack, legitimate = _label_weights(malicious, given, prior)
    centre, spread = float(raw.mean(dtype=np.float64)), float(raw.std(dtype=np.float64)) or 1.0
    slope, shift = _newton((raw.astype(np.float64) - centre) / spread, attack, legitimate)
    note = None
    if slope < LEAST_SLOPE:
        slope, shift = LEAST_SLOPE, math.log(prior / (1 - prior))
        note = "Raw scores do not rise with attack on the calibration data: probabilities hardly differ from the prior."
    a, b = slope / spread, shift - slope * centre / spread
    return Calibration(float(np.float32(a)), float(np.float32(b)), prior, note)


def _check(raw: npt.NDArray[np.float32], malicious: npt.NDArray[np.bool_], prior: float) -> None:
    if not 0 < prior < 1:
        raise InputError(f"the prior of attack must lie between 0 and 1, not {prior:g}")
    attacks = int(malicious.sum())
    if attacks in (0, len(malicious)):
        missing = "malicious" if attacks == 0 else "legitimate"
        raise InputError(
            f"the calibration slice of {len(malicious):,} requests holds no {missing} one: "
            "give a longer log, one with both labels, or weave attacks in with --inject"
        )
    if not np.isfinite(raw).all():
        raise InputError("a raw score of the calibration slice is not finite: the forest is damaged, train it again")


def _label_weights(malicious: npt.NDArray[np.bool_], given: Floats, prior: float) -> tuple[Floats, Floats]:
    """Return how much each row counts as an attack and as legitimate.

    Platt's targets give each class one doubtful row of the other label, which keeps a finite when a raw score separates
    the classes wholly. They are taken on balanced classes, where they are symmetric; then each label is weighted to the
    prior. (On classes weighted already, one doubtful row among few legitimate ones could outweigh all attacks.)
    """
    attack, legitimate = np.empty_like(given), np.empty_like(given)
    for is_attack in (True, False):
        rows = malicious == is_attack
        weight = given[rows]
        effective = weight.sum() ** 2 / (weight**2).sum()
        doubt = 1.0 / (effective + 2.0)
        share = weight / weight.sum()
        attack[rows] = prior * share * (1.0 - doubt if is_attack else doubt)
        legitimate[rows] = (1.0 - prior) * share * (doubt if is_attack else 1.0 - doubt)
    return attack, legitimate


def _newton(x: Floats, attack: Floats, legitimate: Floats) -> tuple[float, float]:
    """Minimise the weighted log-loss of sigmoid(slope · x + shift), a convex problem in two unknowns."""
    weight = attack + legitimate
    point = np.array([0.0, math.log(attack.sum() / legitimate.sum())])
    loss = _loss(point, x, attack, legitimate)
    for _ in range(100):
        p = np.exp(-np.logaddexp(0.0, -(point[0] * x + point[1])))
        residual, curvature = weight * p - attack, weight * p * (1.0 - p)
        gradient = np.array([residual @ x, residual.sum()])
        cross = curvature @ x
        # The ridge keeps the step finite where every score is the same; it does not move the minimum.
        hessian = np.array([[curvature @ (x * x), cross], [cross, curvature.sum()]]) + 1e-12 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        if gradient @ step < 1e-16:
            break
        scale = 1.0
        while (trial := _loss(point - scale * step, x, attack, legitimate)) > loss and scale > 1e-10:
            scale /= 2.0
        point, loss = point - scale * step, trial
    return float(point[0]), float(point[1])


def _loss(point: Floats, x: Floats, attack: Floats, legitimate: Floats) -> float:
    z = point[0] * x + point[1]
    return float(attack @ np.logaddexp(0.0, -z) + legitimate @ np.logaddexp(0.0, z))
