"""The shape of an evaluation's result: JSON-able, the same in the manifest, in `--json` and under the report."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

from classifier.model.bootstrap import Figure

Kind = Literal["attack", "legitimate"]
Unit = Literal["request", "client"]


class GroupMetrics(TypedDict):
    """What was decided about one attack family or one kind of legitimate client; shares are of its requests.

    `tokens_acted_on` is the share of tokens in requests acted on: stopped for attacks, touched for legitimate clients.
    `requests_before_action` and `tokens_before_action` are what passed before the first action, over all clients of an
    attack (never acted on counts as without limit); None for legitimate kinds.
    """

    kind: Kind
    family: str
    overall: bool
    clients: int
    requests: int
    tokens: int | None
    allowed: Figure
    challenged: Figure
    blocked: Figure
    acted_on: Figure
    tokens_acted_on: Figure
    clients_acted_on: Figure
    never_acted_on: Figure
    requests_before_action: dict[str, Figure] | None
    tokens_before_action: dict[str, Figure] | None


class RecallAt(TypedDict):
    """Recall at a false-positive rate, and the raw score it takes."""

    rate: float
    recall: Figure
    raw: float | None


class RankingMetrics(TypedDict):
    """How one attack family (or all) ranks against all legitimate traffic, per request or per client."""

    unit: Unit
    family: str
    overall: bool
    positives: int
    negatives: int
    roc_auc: Figure
    pr_auc: Figure
    recall_at: list[RecallAt]


class ReliabilityPoint(TypedDict):
    """One point of the calibration plot: a bin of requests, weighted to the prior."""

    predicted: float
    observed: float
    low: float
    high: float
    requests: int


class CalibrationMetrics(TypedDict):
    """Expected calibration error over bins of equal mass, and the plot's points over bins of equal log-odds."""

    prior: float
    ece: Figure
    points: list[ReliabilityPoint]


class Metrics(TypedDict):
    """The whole evaluation. Times are Unix seconds; `unlabelled` requests were left out."""

    format: int
    requests: int
    clients: int
    unlabelled: int
    start: float
    end: float
    bootstrap: dict[str, Any]
    groups: list[GroupMetrics]
    ranking: list[RankingMetrics]
    calibration: CalibrationMetrics
    notes: list[str]
