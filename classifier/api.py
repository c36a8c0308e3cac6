"""The public interface, for notebooks and scripts: everything here is also a name of `classifier`.

    import classifier

    events = classifier.read_log("access.log.gz")                 # a DataFrame, one row a request
    detector = classifier.train(events, "model", inject="all")    # or classifier.load("model")
    scores = detector.score("today.log")                          # raw, probability, score, decision, reasons
    print(detector.explain("192.0.2.7", "today.log"))

It adds nothing to what the command line does; it takes and gives pandas DataFrames. Wherever a *log* is asked for, it may be
a path, several paths, or a DataFrame of events that `read_log`, `simulate` or `inject` gave, or a part of one. DataFrames that
are made of a log have its rows in its order and its index, so they can be joined to it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa

from classifier.errors import InputError
from classifier.events import EVENT_SCHEMA, JOURNAL_SCHEMA, MICROSECONDS, clients_of
from classifier.features.engine import DEFAULT_TABLES
from classifier.features.spec import FEATURES, NAMES
from classifier.features.stream import feature_chunks
from classifier.model.apply import SCORES, Model, PerClient, labelled_frame
from classifier.model.drift import Drift, measure_drift
from classifier.model.evaluate import evaluate
from classifier.model.explain import Explanation, explain_client, times_of
from classifier.model.metrics import Metrics
from classifier.model.promotion import Promotion
from classifier.policy import decide_batch

Log: TypeAlias = pd.DataFrame | Path | str | Sequence[Path | str]
"""A path, several paths, or events as `read_log` gives them."""

__all__ = [
    "Detector", "Drift", "Evaluation", "Explanation", "Log", "Promotion", "feature_table", "features_of", "inject", "load",
    "promote", "read_log", "registered", "rollback", "simulate", "train",
]  # fmt: skip


def read_log(
    logs: Path | str | Sequence[Path | str],
    *,
    format: str = "auto",
    columns: Mapping[str, str] | None = None,
    stamp: str = "auto",
    solved_legitimate: bool = False,
) -> pd.DataFrame:
    """Read one log or several, of any known format, as a DataFrame with a row a request.

    Columns are the event's fields (docs/formats.md): `time` is datetime64[us, UTC], whole numbers and labels may be
    missing; and `client`, who is judged: the account, else the address. Lines that cannot be read are left out;
    `botsieve features` notes them. The arguments are those of the command line's options of the same names.

    >>> events = read_log(log)
    >>> events[["time", "client", "status"]].dtypes.astype(str).to_list()
    ['datetime64[us, UTC]', 'str', 'Int64']

    Raises LogError for a file that is missing or of no known format.
    """
    from classifier.logs import read_log as read

    paths = [logs] if isinstance(logs, str | Path) else list(logs)
    table = read(paths, format=format, columns=columns, stamp=stamp, solved_legitimate=solved_legitimate)
    return _frame_of(table)


def simulate(
    *,
    duration_s: float = 6 * 3600,
    clients: int = 400,
    attacks: str | Sequence[str] = "all",
    hard: bool = True,
    seed: int = 0,
) -> pd.DataFrame:
    """Simulate the labelled log of an inference service, as `botsieve simulate` does.

    `attacks` are names of families, "all" or "none"; `family:grade` asks for one grade alone. Without `hard`, the legitimate
    clients that look bad are left out: with them it takes thousands of clients to learn from. The same seed gives the same log.

    >>> events = simulate(duration_s=600, clients=20, attacks=["slow_botnet"], seed=1)
    >>> sorted(events.loc[events["malicious"], "family"].unique())
    ['slow_botnet']
    """
    from classifier.traffic import simulate as generate
    from classifier.traffic.legitimate import KINDS, ORDINARY

    kinds = tuple(KINDS) if hard else ORDINARY
    return _frame_of(generate(duration_s=duration_s, clients=clients, attacks=attacks, seed=seed, kinds=kinds))


def inject(log: Log, attacks: str | Sequence[str] = "all", *, seed: int = 0) -> pd.DataFrame:
    """Weave simulated attackers into a log, which is taken as legitimate where it has no labels.

    >>> own = simulate(duration_s=600, clients=20, attacks="none", seed=1)
    >>> bool(inject(own, ["request_flood"])["malicious"].any())
    True
    """
    from classifier.traffic import inject as weave

    return _frame_of(weave(_whole(log).select(EVENT_SCHEMA.names), attacks=attacks, seed=seed))


def features_of(log: Log, *, detector: Detector | None = None, threads: int = 0) -> pd.DataFrame:
    """Compute the features of every request: columns `row`, `time`, `client`, then those of `feature_table()`, float32.

    What is undefined is NaN. `row` is the place of the request in the log. `detector`: keep profiles in tables of its size,
    so that its scores of these rows are its scores of the log. `threads` 0 is one a core; the result is the same for any.

    >>> table = features_of(log)
    >>> len(table) == len(read_log(log)), list(table.columns[:4])
    (True, ['row', 'time', 'client', 'request_is_post'])
    """
    parts = []
    sizes = DEFAULT_TABLES if detector is None else detector._model.sizes
    for chunk in feature_chunks(_tables(log), sizes=sizes, threads=_threads(threads)):
        labels = pd.DataFrame({"row": chunk.row, "time": _moments(chunk.events), "client": clients_of(chunk.events)})
        parts.append(pd.concat([labels, pd.DataFrame(chunk.rows.copy(), columns=list(NAMES))], axis=1))
    return _in_order(pd.concat(parts), log)


def feature_table() -> pd.DataFrame:
    """Return what each feature is: name, entity, unit, meaning, reason, and part (own or group).

    >>> feature_table().set_index("name").loc["client_rate_64s", "meaning"]
    'client: requests per second, half-life 64 s'
    """
    return pd.DataFrame([feature._asdict() for feature in FEATURES])


def train(
    log: Log,
    bundle: Path | str,
    *,
    inject: str | None = None,
    without: Sequence[str] = (),
    prior: float = 0.01,
    challenge_budget: float | None = None,
    block_budget: float | None = None,
    capacity: int = 524_288,
    registry: Path | str | None = None,
    name: str = "botsieve",
    seed: int = 0,
    threads: int = 0,
) -> Detector:
    """Train a detector on a labelled log, or with attackers woven in (`inject`), and write it to the folder `bundle`.

    inject: names of attack families with commas, or "all". without: feature groups to leave out. prior: expected share of
    malicious requests. The budgets are shares of legitimate requests; None is the default, widened where the log is too
    short for it. capacity: clients that the tables are made for. registry: MLflow folder to log the bundle to as `name`;
    the first there becomes champion, a later one challenger.

    >>> detector = train(log, folder / "trained", challenge_budget=0.05, block_budget=0.02, capacity=256)
    >>> sorted(file.name for file in detector.path.iterdir())
    ['family.onnx', 'manifest.json', 'model.cuda.onnx', 'model.onnx', 'prompt.npy', 'reference.json', 'report.html']

    Raises InputError for a log that cannot be learnt from or an option that makes no sense.
    """
    from classifier.model.pipeline import TrainOptions, train_bundle, weaving_into

    options = TrainOptions(
        Path(bundle), inject, tuple(without), prior, challenge_budget, block_budget, capacity,
        None if registry is None else Path(registry), seed, _threads(threads), name,
    )  # fmt: skip
    if inject is None:
        train_bundle(options, lambda: iter(_tables(log)))
    else:
        again = weaving_into(_whole(log), inject, seed)
        train_bundle(options, again(0), again)
    return load(bundle, threads=threads)


def load(bundle: Path | str, *, registry: Path | str = "mlruns", threads: int = 0) -> Detector:
    """Load a detector from its folder, or from `models:/NAME@ALIAS` or `models:/NAME/VERSION` of an MLflow folder.

    >>> load(bundle).budgets["challenge"]
    0.05

    Raises BundleError for a bundle that is damaged or of another version, InputError for a name that is not registered.
    """
    if isinstance(bundle, str) and bundle.startswith("models:/"):
        from classifier.model.registry import resolve

        bundle = resolve(bundle, registry)
    return Detector(Model.load(str(bundle), threads=_threads(threads)), _threads(threads))


class Detector:
    """A trained detector; `load` and `train` give it.

    >>> detector = load(bundle)
    >>> detector
    Detector(bundle, ... features, challenge from ... raw, block from ... raw)
    """

    def __init__(self, model: Model, threads: int = 1) -> None:
        self._model, self._threads = model, threads

    def __repr__(self) -> str:
        actions = (
            f"{name} from {value:.1f} raw" if np.isfinite(value) else f"{name}s nothing"
            for name, value in self.thresholds.items()
        )
        return f"Detector({self.path.name}, {len(self.features)} features, {', '.join(actions)})"

    @property
    def path(self) -> Path:
        """The folder of the bundle."""
        return self._model.bundle.path

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features the model takes."""
        return self._model.bundle.manifest.features

    @property
    def thresholds(self) -> dict[str, float]:
        """Raw scores from which requests are challenged and blocked; infinite for never."""
        return {"challenge": self._model.thresholds.challenge, "block": self._model.thresholds.block}

    @property
    def budgets(self) -> dict[str, float]:
        """Shares of legitimate requests that may be challenged or blocked, and blocked."""
        return dict(self._model.bundle.manifest.budgets)

    @property
    def prior(self) -> float:
        """The share of malicious requests that probabilities are calibrated to."""
        return float(self._model.bundle.manifest.calibration["prior"])

    @property
    def notes(self) -> tuple[str, ...]:
        """What the training data could not resolve."""
        return self._model.thresholds.notes

    def threshold(self, budget: float) -> float:
        """Return the raw score that keeps to another budget, from the curve of legitimate training scores.

        >>> load(bundle).threshold(0.2) < load(bundle).threshold(0.05)
        True
        """
        return self._model.bundle.manifest.policy_curve().threshold(budget)

    def score(self, log: Log, *, per: Literal["request", "client"] = "request") -> pd.DataFrame:
        """Score a log, or feature rows that `features_of` gave.

        Per request: row, time, client, raw, probability, score (1 bot to 99), decision, reasons. Per client, the most
        suspicious first: client, requests, probability (of the newest request), max_probability, first_action_row,
        decision, reasons.

        >>> detector = load(bundle)
        >>> scores = detector.score(log)
        >>> set(scores["decision"]) <= {"allow", "challenge", "block"}, scores["raw"].dtype
        (True, dtype('float32'))
        >>> detector.score(features_of(log, detector=detector))["raw"].equals(scores["raw"])
        True
        """
        if per not in ("request", "client"):
            raise InputError(f"scores are per request or per client, not per {per}")
        results = _by_features(self._model, log) if _has_features(log) else self._results(log)
        if per == "client":
            clients = PerClient()
            for table in results:
                clients.add(table)
            return clients.table()
        scores = pd.concat([table.to_pandas() for table in results])
        scores["time"] = times_of(scores["time"])
        return _in_order(scores.drop(columns="family"), log)

    def evaluate(self, log: Log, *, resamples: int = 200, seed: int = 0) -> Evaluation:
        """Measure the detector on a labelled log that it has not seen; rows without a label are left out.

        >>> evaluation = load(bundle).evaluate(log, resamples=20)
        >>> evaluation.groups.loc[("attack", "all"), "requests"] > 0
        np.True_

        Raises InputError where no row has a label.
        """
        frame = labelled_frame(self._model.scored(_tables(log), threads=self._threads))
        return Evaluation(evaluate(frame, prior=self.prior, resamples=resamples, seed=seed))

    def explain(self, client: str, log: Log) -> Explanation:
        """Explain a client of a log: its requests, and what credited the most suspicious one.

        >>> worst = load(bundle).score(log, per="client")["client"].iloc[0]
        >>> explanation = load(bundle).explain(worst, log)
        >>> raw = explanation.contributions["log_odds"].sum() + explanation.bias
        >>> abs(raw - explanation.requests["raw"].max()) < 1e-6
        np.True_

        Raises InputError if the log does not have the client.
        """
        return explain_client(self._model, _tables(log), client, threads=self._threads)

    def drift(self, log: Log) -> Drift:
        """Compare a log with the traffic the detector was trained on.

        >>> load(bundle).drift(log).whole.requests > 0
        True
        """
        return measure_drift(self._model, _tables(log), threads=self._threads)

    def _results(self, log: Log) -> Iterator[pa.Table]:
        return (part.results for part in self._model.scored(_tables(log), threads=self._threads))


@dataclass(frozen=True)
class Evaluation:
    """What `Detector.evaluate` measured. `metrics` holds every figure; the properties are tables made of them."""

    metrics: Metrics

    @property
    def groups(self) -> pd.DataFrame:
        """Decisions by attack family and kind of legitimate client, "all" for all: shares of requests, with 95 % intervals.

        Indexed by kind and family: clients, requests, then for allowed, challenged, blocked, acted_on, tokens_acted_on and
        clients_acted_on the share, and its bounds as `…_low` and `…_high`; before_action is the median number of
        requests that an attacker got through first.
        """
        return pd.DataFrame([_group(dict(line)) for line in self.metrics["groups"]]).set_index(["kind", "family"])

    @property
    def ranking(self) -> pd.DataFrame:
        """How attacks rank above legitimate traffic, per request and per client: ROC-AUC, PR-AUC, recall at two rates."""
        lines = []
        for line in self.metrics["ranking"]:
            recalls = {f"recall_at_{at['rate']:g}": at["recall"]["value"] for at in line["recall_at"]}
            family = "all" if line["overall"] else line["family"]
            areas = {name: line[name]["value"] for name in ("roc_auc", "pr_auc")}
            lines.append({"unit": line["unit"], "family": family, "positives": line["positives"], **areas, **recalls})
        return pd.DataFrame(lines).set_index(["unit", "family"])

    @property
    def calibration(self) -> pd.DataFrame:
        """Points of the reliability plot: predicted, observed with bounds low and high, requests."""
        return pd.DataFrame(
            self.metrics["calibration"]["points"], columns=["predicted", "observed", "low", "high", "requests"]
        )

    @property
    def notes(self) -> list[str]:
        """What the log could not resolve."""
        return self.metrics["notes"]


def registered(registry: Path | str = "mlruns", *, name: str = "botsieve") -> pd.DataFrame:
    """Return the registered versions of a model, by version: aliases, created, and the metrics and parameters of the run.

    >>> registered(folder / "nothing").empty
    True
    """
    from classifier.model.registry import versions

    lines = [
        {
            "version": each.version, "aliases": ", ".join(each.aliases),
            "created": pd.Timestamp(each.created_ms, unit="ms", tz="UTC"), **each.metrics, **each.params,
        }
        for each in versions(name, registry)
    ]  # fmt: skip
    return pd.DataFrame(lines, columns=None if lines else ["version", "aliases", "created"]).set_index("version")


def promote(
    uri: str, *, registry: Path | str = "mlruns", log: Log | None = None, margin: float = 0.02, threads: int = 0
) -> Promotion:
    """Make a registered version champion if it passes the gate: parity, budgets on the log, and no family caught less.

    log: recent traffic; events without a label count as legitimate. margin: by how much a family's share acted on may
    lie below the champion's.

    >>> promote("models:/botsieve/7", registry=folder / "nothing")
    Traceback (most recent call last):
    classifier.errors.InputError: no registry at ...

    Raises PromotionError, naming every check that failed.
    """
    from classifier.model.promotion import promote as gate

    return gate(uri, registry, log=None if log is None else _tables(log), margin=margin, threads=_threads(threads))


def rollback(*, registry: Path | str = "mlruns", name: str = "botsieve") -> tuple[int, int]:
    """Make the champion before this one champion again; return (version now, version before).

    >>> rollback(registry=folder / "nothing")
    Traceback (most recent call last):
    classifier.errors.InputError: no registry at ...

    Raises InputError where there is nothing to go back to.
    """
    from classifier.model.registry import rollback as back

    return back(name, registry)


def _group(line: dict[str, Any]) -> dict[str, Any]:
    shares = ("allowed", "challenged", "blocked", "acted_on", "tokens_acted_on", "clients_acted_on")
    waits = line["requests_before_action"]
    return {
        "kind": line["kind"],
        "family": "all" if line["overall"] else line["family"],
        "clients": line["clients"],
        "requests": line["requests"],
        **{
            name + ending: line[name][bound]
            for name in shares
            for ending, bound in (("", "value"), ("_low", "low"), ("_high", "high"))
        },
        "before_action": None if waits is None else waits["median"]["value"],
    }


def _has_features(log: Log) -> bool:
    return isinstance(log, pd.DataFrame) and set(NAMES) <= set(log.columns)


def _by_features(model: Model, table: Any) -> Iterator[pa.Table]:
    """Score feature rows instead of a log; yields one table of SCORES in the order of the rows."""
    rows = np.ascontiguousarray(table[list(NAMES)].to_numpy(np.float32))
    raw, probability = model.score(rows)
    decided = decide_batch(raw, probability, model.thresholds)
    micros = table["time"].to_numpy("datetime64[us]").astype(np.int64)
    columns = (
        pa.array(np.arange(len(rows))), micros / MICROSECONDS, pa.array(table["client"], pa.string()), raw, probability,
        decided.scores.astype(np.int64), pa.array(decided.verdicts(), pa.string()),
        pa.array(model.reasons(rows, raw), pa.string()), pa.nulls(len(rows), pa.string()),
    )  # fmt: skip
    yield pa.table(dict(zip(SCORES.names, columns, strict=True)), schema=SCORES)


def _threads(asked: int) -> int:
    return asked or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def _tables(log: Log) -> Iterator[pa.Table]:
    """Yield the events of a log as event tables: files in chunks, a DataFrame at once."""
    if isinstance(log, pd.DataFrame):
        return iter((_table_of(log),))
    from classifier.logs import read_events

    return read_events([log] if isinstance(log, str | Path) else list(log))


def _whole(log: Log) -> pa.Table:
    return pa.concat_tables(_tables(log), promote_options="default")


def _moments(table: pa.Table) -> Any:
    return pd.to_datetime(table.column("time").to_numpy(), unit="us", utc=True)


def _frame_of(table: pa.Table) -> pd.DataFrame:
    """Turn an event table into a DataFrame: whole numbers and labels in pandas' types that can be missing."""
    nullable = {pa.int64(): pd.Int64Dtype(), pa.uint64(): pd.UInt64Dtype(), pa.bool_(): pd.BooleanDtype()}
    frame: pd.DataFrame = table.drop_columns(["time"]).to_pandas(types_mapper=nullable.get)
    frame.insert(0, "time", _moments(table))
    frame.insert(1, "client", clients_of(table).to_pandas())
    return frame


def _table_of(frame: pd.DataFrame) -> pa.Table:
    """Turn a DataFrame of events back into an event table. Raises InputError for one that is none."""
    journal = [name for name in JOURNAL_SCHEMA.names if name in frame.columns]
    schema = pa.schema([*EVENT_SCHEMA, *(JOURNAL_SCHEMA.field(name) for name in journal)])
    for name in ("time", "ip", "method", "path"):
        if name not in frame.columns or frame[name].isna().any():
            raise InputError(f"the DataFrame lacks {name} for some request; give events as read_log returns them")
    try:
        columns = {
            field.name: pa.array(frame[field.name], field.type, from_pandas=True)
            if field.name in frame.columns
            else pa.nulls(len(frame), field.type)
            for field in schema
            if field.name != "time"
        }
        time = pd.to_datetime(frame["time"], utc=True).dt.as_unit("us").to_numpy("datetime64[us]").astype(np.int64)
        return pa.table({"time": time, **columns}).select(schema.names).cast(schema)
    except (pa.ArrowException, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0][:120]
        raise InputError(f"the DataFrame holds no events ({reason}); give them as read_log returns them") from error


def _in_order(table: pd.DataFrame, log: Log) -> pd.DataFrame:
    """Bring rows made of a log into its order, under its index."""
    table = table.sort_values("row", kind="stable", ignore_index=True)
    return table.set_index(log.index) if isinstance(log, pd.DataFrame) else table
