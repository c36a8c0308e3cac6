"""Training: from labelled rows to a two-part forest with thresholds, calibration and an honest evaluation.

rows ─┬─ test: held-out clients, and the last stretch of time      ── evaluated once, never tuned on
      └─ train ─┬─ folds by client ── raw scores of rows by models that never saw their client
                │                     ── thresholds from budgets, calibration on the later part
                └─ all ── the model: own part, then group part from its score
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from classifier.errors import InputError
from classifier.events import UNLABELLED
from classifier.features.spec import FEATURES, columns_without
from classifier.model.boosters import Boosters
from classifier.model.calibrate import Calibration, fit_platt
from classifier.model.dataset import Dataset, thinned, training_weights
from classifier.model.group_limit import fit_limit, least_block
from classifier.model.ranking import highest
from classifier.model.rounding import round_clip
from classifier.policy import Budgets, LegitimateCurve, Thresholds, legitimate_curve, thresholds_from_curve, unresolved

Step = Callable[[str], None]
TEST_CLIENTS = 0.15
TEST_TIME = 0.15
SHORT_ROWS = 60_000
"""Rows below which a log is short: it is cut into more folds, and with woven attackers the trees are small."""
MOST_FOLDS = 8
LONG_ROWS = 500_000
"""Rows to grow on from which a log is long: it has enough to say for twice as many trees."""
SUSPICIOUS_CLIENTS = 0.005
"""Share of the clients taken as legitimate that are left out as the most suspicious: a real log has attackers of its own."""
CALIBRATION_TIME = 0.5
"""Calibration uses the rows after this share of the training time."""


@dataclass(frozen=True)
class Settings:
    """How the forest is grown. `own_trees` and `group_trees` are K and T - K of the manifest."""

    own_trees: int = 120
    group_trees: int = 60
    leaves: int = 31
    depth: int = 8
    learning_rate: float = 0.1
    fewest_rows: int = 20
    folds: int = 3
    threads: int = 2
    seed: int = 0

    def for_rows(self, rows: int) -> Settings:
        """Return the settings for so many rows: a short log is cut into more folds.

        Thresholds come from models that saw all folds but one. Of a short log, two thirds teach noticeably less than the
        whole: the log's own clients score higher than with the final model, and thresholds would be too careful.
        """
        return replace(self, folds=max(self.folds, min(SHORT_ROWS // max(rows, 1), MOST_FOLDS)))

    def for_woven(self, rows: int) -> Settings:
        """Return the settings for a log of so many rows with attackers woven in: of a short one, the trees stay small.

        Woven attackers take after clients of the log, and large trees would learn after whom.
        """
        return replace(self, leaves=8, fewest_rows=100) if rows < SHORT_ROWS else self

    def for_long(self) -> Settings:
        """Return the settings for a long log: twice as many trees, each with three fifths of the weight."""
        return replace(
            self,
            own_trees=2 * self.own_trees,
            group_trees=2 * self.group_trees,
            learning_rate=0.6 * self.learning_rate,
        )

    def lightgbm(self) -> dict[str, Any]:
        """Return the parameters of `lightgbm.train`."""
        return {
            "objective": "binary",
            "num_leaves": self.leaves,
            "max_depth": self.depth,
            "learning_rate": self.learning_rate,
            "min_data_in_leaf": self.fewest_rows,
            "min_sum_hessian_in_leaf": 1.0,
            "feature_fraction": 0.5,
            "bagging_fraction": 0.8,
            "bagging_freq": 1,
            "lambda_l2": 5.0,
            "max_bin": 63,
            "seed": self.seed,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": self.threads,
            "verbosity": -1,
        }


def fit(
    rows: npt.NDArray[np.float32],
    malicious: npt.NDArray[np.bool_],
    weight: npt.NDArray[np.float64],
    own_columns: Sequence[int],
    settings: Settings,
) -> tuple[Boosters, int]:
    """Grow the two parts and round their leaves; return them and k, the leaves being multiples of 2^-k.

    rows float32[n, F]; `own_columns` are those of the client's own features. The first part sees only these; the second
    sees all, starting from the first part's score. Where every column is own there is no second part.
    """
    import lightgbm as lgb

    if malicious.all() or not malicious.any():
        kind = "legitimate" if malicious.all() else "malicious"
        raise InputError(f"the training part holds no {kind} request: give labels of both kinds, or use --inject all")
    parameters = settings.lightgbm()
    own = np.ascontiguousarray(rows[:, list(own_columns)])
    first = lgb.train(
        parameters, lgb.Dataset(own, malicious, weight=weight, free_raw_data=True), num_boost_round=settings.own_trees
    )
    second = None
    if len(own_columns) < rows.shape[1] and settings.group_trees:
        start = first.predict(own, raw_score=True)
        data = lgb.Dataset(rows, malicious, weight=weight, init_score=start, free_raw_data=True)
        second = lgb.train(parameters, data, num_boost_round=settings.group_trees)
    boosters = Boosters(first, list(own_columns), second)
    return boosters, boosters.round_leaves()


@dataclass(frozen=True)
class Split:
    """Rows of the training and of the test part, bool[n] each."""

    train: npt.NDArray[np.bool_]
    test: npt.NDArray[np.bool_]


def split(data: Dataset) -> Split:
    """Split by client and by time: held-out clients at any time, and everyone in the last stretch, are the test part."""
    held_out = _lot(data.key, 1) < TEST_CLIENTS
    late = data.time >= data.time.min() + (1 - TEST_TIME) * (data.time.max() - data.time.min())
    test = held_out | late
    return Split(~test, test)


def _lot(key: npt.NDArray[np.uint64], draw: int) -> npt.NDArray[np.float64]:
    """Draw a number in [0, 1) for each client from its keyed hash: float64[n]; each `draw` is another one."""
    mixed = (key ^ np.uint64(0x9E3779B97F4A7C15 * draw % 2**64)) * np.uint64(0xBF58476D1CE4E5B9)
    return np.asarray((mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53)


@dataclass
class Trained:
    """A trained model with what a manifest says of it. `columns` are the features it takes, of `spec.NAMES`.

    `unseen` float32[rows of the training part] are their raw scores by models that never saw their client; `suspicious`
    uint64[k] are the clients that were left out, see `suspicious_clients`. `clip` is the limit c on the group part, infinity
    for none.
    """

    boosters: Boosters
    columns: list[int]
    thresholds: Thresholds
    budgets: Budgets
    calibration: Calibration
    curve: LegitimateCurve
    split: Split
    leaf_bits: int
    unseen: npt.NDArray[np.float32]
    suspicious: npt.NDArray[np.uint64]
    clip: float = np.inf


def train(
    data: Dataset,
    views: Sequence[Dataset] = (),
    *,
    without: Sequence[str] = (),
    prior: float = 0.01,
    budgets: Budgets | None = None,
    strict_budgets: Sequence[str] = (),
    settings: Settings | None = None,
    step: Step = lambda _: None,
) -> Trained:
    """Train on a dataset and on `views`, the same requests as other routes show them.

    `without` names feature groups to leave out. Budgets in `strict_budgets` must be resolved by the data (InputError);
    a default challenge budget that is not is widened to what the data resolve, with a note, and a default block budget
    that is not blocks nothing. Unless the block budget is among them, nobody is blocked for the company they keep, wherever
    the limit on it is finite. `step` is told what begins.
    """
    settings, budgets = settings or Settings(), budgets or Budgets()
    columns = columns_without(tuple(without))
    own = [place for place, column in enumerate(columns) if FEATURES[column].part == "own"]
    if not own:
        raise InputError("no feature of the client itself is left: leave fewer groups out")
    parts = split(data)
    known = data.take(parts.train)
    known_fold = _fold(known.key, settings)
    _check_clients(known, known_fold)
    positions, stands_for = thinned(known, settings.seed)
    if len(positions) >= LONG_ROWS:
        settings = settings.for_long()
    grown = known.take(positions)
    grown.weight = stands_for
    train_rows = _with_views(grown, known, views)
    weight = training_weights(train_rows)
    rows = np.ascontiguousarray(train_rows.rows[:, columns])
    fold = _fold(_keys_of(train_rows, known), settings)
    known_rows = np.ascontiguousarray(known.rows[:, columns])

    parts_of = np.full((2, len(known)), np.nan, np.float32)
    for number in range(settings.folds):
        step(f"cross-fitting {number + 1} of {settings.folds}")
        inside, out = fold != number, known_fold == number
        if out.any():
            model, _ = fit(rows[inside], train_rows.malicious[inside], weight[inside], own, settings)
            parts_of[:, out] = model.parts(known_rows[out])
    suspicious = suspicious_clients(known, parts_of.sum(axis=0))
    step("fitting the model")
    kept = ~np.isin(_keys_of(train_rows, known), suspicious)
    boosters, leaf_bits = fit(rows[kept], train_rows.malicious[kept], weight[kept], own, settings)
    trusted = ~np.isin(known.key, suspicious)
    limit = fit_limit(*parts_of[:, trusted], *(of[trusted] for of in (known.malicious, known.key, known.family)))
    clip = round_clip(limit, leaf_bits)
    raw = parts_of[0] + np.clip(parts_of[1], -clip, clip)

    legitimate = ~known.malicious & trusted
    budgets, notes = _resolvable(budgets, int(legitimate.sum()), strict_budgets)
    measured = known.key[legitimate], budgets, known.weight[legitimate]
    curve = legitimate_curve(raw[legitimate], *measured)
    if math.isfinite(clip) and "block" not in strict_budgets:
        alone = legitimate_curve(parts_of[0][legitimate], *measured)
        share = budgets.challenge or Budgets().challenge
        curve = replace(curve, least_block=least_block(alone, share, clip))
    thresholds = thresholds_from_curve(curve, budgets, strict_budgets)
    later = trusted & (known.time >= known.time.min() + CALIBRATION_TIME * (known.time.max() - known.time.min()))
    if known.malicious[later].all() or not known.malicious[later].any():
        later = trusted
    calibration = fit_platt(raw[later], known.malicious[later], prior, training_weights(known)[later])
    said = [*notes, *thresholds.notes, *([calibration.note] if calibration.note else [])]
    thresholds = replace(thresholds, notes=tuple(said))
    return Trained(boosters, columns, thresholds, budgets, calibration, curve, parts, leaf_bits, raw, suspicious, clip)


def suspicious_clients(known: Dataset, raw: npt.NDArray[np.float32]) -> npt.NDArray[np.uint64]:
    """Return the most suspicious of the clients that nobody labelled, as keys, the most suspicious first.

    `raw` float32[n] is the score of each row by models that never saw its client. A client is as suspicious as its highest
    score. Of clients with a label none is left out.
    """
    taken = ~known.malicious & (known.family.astype(str) == UNLABELLED)
    clients, inverse = np.unique(known.key[taken], return_inverse=True)
    order = np.argsort(-highest(raw[taken], inverse, len(clients)), kind="stable")
    return np.asarray(clients[order][: round(SUSPICIOUS_CLIENTS * len(clients))])


def _check_clients(known: Dataset, fold: npt.NDArray[np.int64]) -> None:
    """Raise InputError unless both kinds of client occur in two folds, so that each fold can be scored by the others."""
    for kind, rows in (("malicious", known.malicious), ("legitimate", ~known.malicious)):
        if len(np.unique(fold[rows])) < 2:
            raise InputError(
                f"the training part has too few {kind} clients ({len(np.unique(known.key[rows]))}) to learn from: "
                "give labelled events of more clients of both kinds, or weave attacks in with --inject all"
            )


def _resolvable(budgets: Budgets, rows: int, strict: Sequence[str]) -> tuple[Budgets, list[str]]:
    """Widen a default challenge budget that the data cannot resolve to the smallest that they can, up to 1 %."""
    smallest = 10.0 / max(rows, 1)
    if "challenge" in strict or unresolved(rows, budgets.challenge) is None or smallest > 0.01:
        return budgets, []
    note = (
        f"The challenge budget is {100 * smallest:.2g} %, not {100 * budgets.challenge:g} %: "
        f"{rows:,} legitimate requests resolve no smaller one."
    )
    return Budgets(smallest, budgets.block), [note]


def _with_views(grown: Dataset, known: Dataset, views: Sequence[Dataset]) -> Dataset:
    """Return the training rows, then requests of the training part as other routes show them."""
    return Dataset.join([grown, *(view.take(np.isin(view.row, known.row)) for view in views)])


def _fold(key: npt.NDArray[np.uint64], settings: Settings) -> npt.NDArray[np.int64]:
    return (_lot(key, 2) * settings.folds).astype(np.int64)


def _keys_of(rows: Dataset, known: Dataset) -> npt.NDArray[np.uint64]:
    """Return the client of each row as the full events know it: a route that hides accounts must not split a client."""
    order = np.argsort(known.row)
    return known.key[order[np.searchsorted(known.row[order], rows.row)]]
