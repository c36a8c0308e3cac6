"""From a log to a bundle: the steps that `botsieve train` and the notebooks share.

events ──> rows (and the same clients as other routes show them) ──> forest ──> ONNX, proven ──> evaluation ──> bundle
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from msgspec.structs import replace as with_changes

from classifier import __version__
from classifier.errors import InputError
from classifier.events import EVENT_SCHEMA, MICROSECONDS
from classifier.features.engine import Tables
from classifier.features.promptscore import PROMPT_FILE, shipped_bytes
from classifier.features.spec import FEATURES, GROUPS, HALF_LIVES_S, spec_hash
from classifier.model.attribution import Explainer
from classifier.model.bundle import Bundle, Manifest, check_replaceable, write_bundle
from classifier.model.dataset import Dataset, Source, build, fields_seen, remembered, route_views
from classifier.model.evaluate import evaluate
from classifier.model.export import export_model
from classifier.model.families import FAMILY_FILE, Families
from classifier.model.family_training import agreement, families_of
from classifier.model.forest import Forest
from classifier.model.metrics import Metrics
from classifier.model.reference import reference_histograms
from classifier.model.report import ReportMeta, report_page
from classifier.model.train import Settings, Trained, train
from classifier.model.wording import printable
from classifier.policy import Budgets, decide_batch

PROOF_ROWS = 2_000
WEAVINGS, WOVEN_ROWS = 32, 250_000
"""Times that attackers are woven into a short log, at most, and the rows that all together are worth."""
MOVED_BY_WEAVING = "everyone"
"""What a model of woven traffic leaves out: how busy the whole service is tells there when the campaigns were planned."""
MOST_NAMED = 50
"""Suspicious clients that the report names."""
MOST_EXPLAINED = 20_000
"""Held-out requests acted on whose reasons the report counts."""
LIBRARIES = ("lightgbm", "numpy", "numba", "pandas", "pyarrow", "onnx", "scikit-learn")


class Teller(Protocol):
    """Who is told how the work goes on."""

    def say(self, text: str) -> None:
        """Take a line of text."""

    def bar(self, what: str) -> AbstractContextManager[Callable[[int, int], None]]:
        """Begin a long step; the callable takes (done, total)."""

    def result(self, metrics: Metrics, manifest: Manifest) -> None:
        """Take the evaluation on the held-out part."""


class Silent:
    """Tells nobody."""

    def say(self, text: str) -> None:
        """Take a line of text."""

    @contextmanager
    def bar(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """Begin a long step."""
        yield lambda done, total: None

    def result(self, metrics: Metrics, manifest: Manifest) -> None:
        """Take the evaluation on the held-out part."""


SILENT = Silent()


@dataclass(frozen=True)
class TrainOptions:
    """What a training is asked for. `inject` names the attacks woven in; `registry` is the MLflow folder to log to, and
    `name` what the model is registered as there. Without `routes` no client is seen once more as other routes show it.
    """

    bundle: Path
    inject: str | None = None
    without: tuple[str, ...] = ()
    prior: float = 0.01
    challenge_budget: float | None = None
    block_budget: float | None = None
    capacity: int = 524_288
    registry: Path | None = None
    seed: int = 0
    threads: int = 1
    name: str = "botsieve"
    routes: bool = True

    def budgets(self) -> tuple[Budgets, tuple[str, ...]]:
        """Return the budgets and the names of those that the user asked for."""
        asked = {"challenge": self.challenge_budget, "block": self.block_budget}
        given = {name: share for name, share in asked.items() if share is not None}
        if self.challenge_budget is not None and self.block_budget is None:
            # the default must not contradict what was asked for
            given["block"] = min(Budgets().block, self.challenge_budget)
        return Budgets(**given), tuple(name for name, share in asked.items() if share is not None)

    def check(self) -> None:
        """Raise InputError for an option that cannot be meant, BundleError for a folder that would not be replaced."""
        self.budgets()
        check_replaceable(self.bundle)
        if not 0 < self.prior < 1:
            raise InputError(f"--prior is a share between 0 and 1, not {self.prior:g}")
        for group in self.without:
            if group not in GROUPS:
                raise InputError(f"there is no feature group {group}; the groups are {', '.join(GROUPS)}")


Weaving = Callable[[int], Source]
"""Gives the log with other attackers woven in, by the number of the weaving."""


def weaving_into(own: pa.Table, attacks: str, seed: int, tell: Teller = SILENT) -> Weaving:
    """Return what weaves attackers, as `--inject` names them, into events taken as legitimate where they have no label."""
    from classifier.traffic import inject, to_weave

    own, names = own.select(EVENT_SCHEMA.names), to_weave(attacks)

    def weaving(number: int) -> Source:
        with (tell if number == 0 else SILENT).bar("weaving attacks in"):
            # Far from the seeds that a user will evaluate with.
            woven = inject(own, attacks=names, seed=seed + number * 1_000_003)
        return lambda: iter((woven,))

    return weaving


def train_bundle(
    options: TrainOptions,
    source: Source,
    again: Weaving | None = None,
    *,
    tell: Teller = SILENT,
    after_reading: Callable[[], None] = lambda: None,
) -> Bundle:
    """Train on the events of `source`, write the bundle, and log it where there is a registry.

    `again` gives the log with other attackers, where attackers were woven in: of a short log, theirs are added.
    `after_reading` is called once the events have been read for the last time. Raises InputError for data that cannot be
    learnt from, ExportError where ONNX would differ from LightGBM.
    """
    options.check()
    if options.inject is not None:
        options = replace(options, without=tuple(dict.fromkeys((*options.without, MOVED_BY_WEAVING))))
    sizes, source = Tables.for_clients(options.capacity), remembered(source)
    seen = fields_seen(source)
    with_settings = {"sizes": sizes, "threads": options.threads, "secret": None, "seed": options.seed}
    data = build(source, **with_settings)  # type: ignore[arg-type]
    views = route_views(source, tuple(seen), **with_settings) if options.routes else []  # type: ignore[arg-type]
    if again is not None:
        data = _more_attackers(data, again, lambda more: build(more, **with_settings))  # type: ignore[arg-type]
    after_reading()
    tell.say(
        f"training on {len(data):,} requests of {len(np.unique(data.key)):,} clients, "
        f"{int(data.malicious.sum()):,} requests malicious (the log's first stretch is left out: profiles are young in it)"
        + (f"; {sum(map(len, views)):,} of them once more as other gateways would show them" if views else "")
    )
    budgets, strict = options.budgets()
    settings = Settings(seed=options.seed, threads=options.threads).for_rows(len(data))
    if options.inject is not None:
        settings = settings.for_woven(int((~data.malicious).sum()))
    with tell.bar("training") as progress:
        done = [0]

        def step(what: str) -> None:
            progress(done[0], settings.folds + 1)
            done[0] += 1

        trained = train(
            data, views, without=options.without, prior=options.prior, budgets=budgets, strict_budgets=strict,
            settings=settings, step=step,
        )  # fmt: skip
    bundle = _finish(options, data, trained, sizes, seen, tell)
    if options.registry is not None:
        _register(options, bundle, options.registry, tell)
    return bundle


def _register(options: TrainOptions, bundle: Bundle, registry: Path, tell: Teller) -> None:
    from classifier.model.registry import log_bundle

    manifest = bundle.manifest
    params = {"seed": options.seed, "prior": options.prior, "trees": manifest.trees_total, **manifest.budgets}
    logged = log_bundle(options.bundle, registry, params=params, metrics=run_metrics(manifest), name=options.name)
    tell.say(f"registered as {options.name} version {logged.version}, {logged.alias}, in {registry}")


def _more_attackers(data: Dataset, weaving: Callable[[int], Source], built: Callable[[Source], Dataset]) -> Dataset:
    """Add the attackers of further weavings to a short log's rows: a hundred attackers teach little of others.

    Each weaving is a log of its own, so that the log's clients never meet more attackers than one weaving has; only
    its attackers are added, under row numbers of their own. The log's clients are those of the first.
    """
    parts = [data]
    for number in range(1, min(WEAVINGS, WOVEN_ROWS // len(data))):
        more = built(weaving(number))
        more = more.take(more.malicious & ~np.isin(more.key, data.key))
        more.row += number << 40
        parts.append(more)
    return Dataset.join(parts)


def _finish(
    options: TrainOptions, data: Dataset, trained: Trained, sizes: Tables, seen: dict[str, float], tell: Teller
) -> Bundle:
    rows = np.ascontiguousarray(data.rows[:, trained.columns])
    rng = np.random.default_rng(options.seed)
    natural = rows[np.sort(rng.permutation(len(rows))[:PROOF_ROWS])]
    calibration = trained.calibration
    with tell.bar("proving that ONNX equals LightGBM"):
        graphs = export_model(trained.boosters, (calibration.a, calibration.b), trained.clip, natural, rows.shape[1])
    forest = graphs.forest
    with tell.bar("learning to tell the families apart"):
        families = families_of(data, trained, threads=options.threads or 1, seed=options.seed)
    manifest = _manifest(options, data, trained, sizes, tuple(seen), forest.n_trees)
    test = data.take(trained.split.test)
    called: dict[str, int] = {}
    metrics, page = None, "<!doctype html><title>botsieve</title><p>No held-out requests to evaluate on.</p>"
    if test.malicious.any() and not test.malicious.all():
        frame = _judged(test, rows[trained.split.test], trained, forest)
        if families is not None:
            named = Families(families.SerializeToString())
            called = agreement(named, test, frame["decision"].to_numpy() != "allow", trained.columns)
        with tell.bar("evaluating on held-out clients and the last stretch of time"):
            metrics = evaluate(frame, prior=options.prior, seed=options.seed)
        woven = options.inject is not None
        meta = report_meta(manifest, str(options.bundle), HELD_OUT + WOVEN * woven, invented=woven)
        page = report_page(metrics, frame, {**meta, "notes": [*meta["notes"], *_left_out(data, trained)]})
    manifest = with_changes(manifest, metrics={**_short(metrics), "families": called} if metrics else {})
    files: dict[str, bytes | Path] = {
        **graphs.files(),
        PROMPT_FILE: shipped_bytes(),
        "reference.json": reference_histograms(data, trained, seen),
        "report.html": page.encode("utf-8", errors="backslashreplace"),
    }
    if families is not None:
        files[FAMILY_FILE] = families.SerializeToString()
    bundle = write_bundle(options.bundle, manifest, files)
    for note in _left_out(data, trained):
        tell.say(note)
    tell.say(f"bundle: {options.bundle} ({forest.n_trees} trees); report: {options.bundle / 'report.html'}")
    if sum(called.values()):
        tell.say(
            f"families of the attackers' requests acted on: {called['right']:,} named rightly, "
            f"{called['other']:,} otherwise, {called['unknown']:,} unknown"
        )
    if metrics:
        tell.result(metrics, manifest)
    return bundle


def _judged(test: Dataset, rows: npt.NDArray[np.float32], trained: Trained, forest: Forest) -> pd.DataFrame:
    """Return what an evaluation needs of held-out requests: scores and decisions, and reasons of those acted on.

    rows float32[n, columns], the features that the model takes.
    """
    frame = test.frame()
    raw = trained.boosters.raw(np.ascontiguousarray(rows), trained.clip).astype(np.float32)
    probability = trained.calibration.probability(raw).astype(np.float32)
    decisions = decide_batch(raw, probability, trained.thresholds).verdicts()
    explain = Explainer(forest, [FEATURES[column].reason for column in trained.columns], trained.clip)
    acted = np.flatnonzero(decisions != "allow")[:MOST_EXPLAINED]
    reasons = np.full(len(frame), "", dtype=object)
    for place, found in zip(acted, explain.reasons(rows[acted]), strict=True):
        reasons[place] = " ".join(found)
    return frame.assign(raw=raw, probability=probability, decision=decisions, reasons=reasons)


def _left_out(data: Dataset, trained: Trained) -> list[str]:
    """Say which clients of the log were too suspicious to be taken as legitimate."""
    if not len(trained.suspicious):
        return []
    keys, first = np.unique(data.key, return_index=True)
    names = data.client[first[np.searchsorted(keys, trained.suspicious)]]
    return [
        f"The most suspicious {len(names):,} of the log's own clients were not taken as legitimate in training. Look at them, "
        f"the most suspicious first: {', '.join(printable(str(name)) for name in names[:MOST_NAMED])}"
        + (f" and {len(names) - MOST_NAMED:,} more." if len(names) > MOST_NAMED else ".")
    ]


def _manifest(
    options: TrainOptions, data: Dataset, trained: Trained, sizes: Tables, seen: tuple[str, ...], trees: int
) -> Manifest:
    own = trained.boosters.own
    span = [float(data.time.min()) / MICROSECONDS, float(data.time.max()) / MICROSECONDS]
    digest = hashlib.sha256(data.rows[:, trained.columns].tobytes() + data.malicious.tobytes()).hexdigest()
    return Manifest(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        features=tuple(FEATURES[column].name for column in trained.columns),
        spec_hash=spec_hash(),
        without=options.without,
        fields_seen=seen,
        tables=sizes.as_slots(),
        half_lives=tuple(map(float, HALF_LIVES_S)),
        thresholds=trained.thresholds.as_json(),
        budgets={"challenge": trained.budgets.challenge, "block": trained.budgets.block},
        calibration={"a": trained.calibration.a, "b": trained.calibration.b, "prior": trained.calibration.prior},
        clip=trained.clip if np.isfinite(trained.clip) else None,
        trees_own=own.num_trees() if own is not None else 0,  # type: ignore[attr-defined]
        trees_total=trees,
        leaf_bits=trained.leaf_bits,
        legitimate_curve=trained.curve.as_json(),
        training_data={
            "digest": digest,
            "events": len(data),
            "clients": len(np.unique(data.key)),
            "malicious": int(data.malicious.sum()),
            "span": span,
            "injected": options.inject or "",
        },
        versions={"botsieve": __version__, "python": platform.python_version(), **{n: version(n) for n in LIBRARIES}},
    )


def _short(metrics: Metrics) -> dict[str, Any]:
    """Return the figures of the held-out part that a manifest carries; the page has them all.

    Decisions by attack family are among them: a later version is compared by these before it becomes champion.
    """
    ranking = [entry for entry in metrics["ranking"] if entry["overall"]]
    groups = [entry for entry in metrics["groups"] if entry["overall"] or entry["kind"] == "attack"]
    return {"ranking": ranking, "groups": groups, "calibration": metrics["calibration"], "notes": metrics["notes"]}


def run_metrics(manifest: Manifest) -> dict[str, float]:
    """Return the single figures that MLflow compares runs by; those that the data could not resolve are left out."""
    figures = {
        f"{name}_per_{entry['unit']}": entry[name]["value"]
        for entry in manifest.metrics.get("ranking", [])
        for name in ("roc_auc", "pr_auc")
    }
    return {name: value for name, value in figures.items() if value is not None}


HELD_OUT = (
    "Measured on clients that were held out of training, and on everybody in the last stretch of the log, where it looks "
    "busier for that reason. "
)
WOVEN = "The attackers are simulated and were woven into the log."


def report_meta(manifest: Manifest, bundle: str, about: str = "", *, invented: bool = False) -> ReportMeta:
    """Return what the report page says of the bundle; `about` and `invented` are of the requests, as `ReportMeta` has them."""
    learnt = manifest.training_data
    first, last, made = (
        f"{moment.astimezone(UTC):%d %b %Y %H:%M}"
        for moment in (
            *(datetime.fromtimestamp(t, UTC) for t in learnt["span"]),
            datetime.fromisoformat(manifest.created),
        )
    )
    return ReportMeta(
        title="botsieve evaluation",
        about=about,
        invented=invented,
        bundle=f"{bundle} ({manifest.manifest_sha256[:12]})" if manifest.manifest_sha256 else bundle,
        created=f"{made} UTC",
        thresholds=manifest.thresholds,
        budgets=manifest.budgets,
        prior=manifest.calibration["prior"],
        training={
            "requests": learnt["events"],
            "of them malicious": learnt["malicious"],
            "clients": learnt["clients"],
            "from, to": f"{first} to {last} UTC",
            "woven in": learnt["injected"] or "nothing",
            "digest of the data": learnt["digest"],
        },
        versions=manifest.versions,
        notes=list(manifest.thresholds.get("notes", [])),
    )
