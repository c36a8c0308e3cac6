"""`botsieve train`."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from classifier import __version__
from classifier.cli.evaluating import report_meta
from classifier.cli.logs import LogOptions
from classifier.cli.simulating import names_of
from classifier.cli.terminal import OUTPUT, bar, say, threads_of
from classifier.errors import InputError
from classifier.events import EVENT_SCHEMA, MICROSECONDS
from classifier.features.engine import Tables
from classifier.features.promptscore import PROMPT_FILE, shipped_bytes
from classifier.features.spec import FEATURES, GROUPS, HALF_LIVES_S, spec_hash
from classifier.model.attribution import Explainer
from classifier.model.bundle import Bundle, Manifest, write_bundle
from classifier.model.dataset import Dataset, Source, build, fields_seen, route_views
from classifier.model.evaluate import evaluate
from classifier.model.export import export_model
from classifier.model.families import FAMILY_FILE, Families
from classifier.model.family_training import agreement, families_of
from classifier.model.metrics import Metrics
from classifier.model.reference import reference_histograms
from classifier.model.report import report_page
from classifier.model.summary import print_summary
from classifier.model.train import Settings, Trained, train
from classifier.policy import Budgets, decide_batch

PROOF_ROWS = 2_000
WEAVINGS, WOVEN_ROWS = 5, 60_000
"""Times that attackers are woven into a short log, at most, and the rows that all together are worth."""
LIBRARIES = ("lightgbm", "numpy", "numba", "pandas", "pyarrow", "onnx", "scikit-learn")


@dataclass(frozen=True)
class TrainOptions:
    """The options of `botsieve train` that are not of reading."""

    bundle: Path
    inject: str | None
    without: tuple[str, ...]
    prior: float
    challenge_budget: float | None
    block_budget: float | None
    capacity: int
    registry: Path | None
    seed: int
    threads: int

    def budgets(self) -> tuple[Budgets, tuple[str, ...]]:
        """Return the budgets and the names of those that the user asked for."""
        asked = {"challenge": self.challenge_budget, "block": self.block_budget}
        given = {name: share for name, share in asked.items() if share is not None}
        if self.challenge_budget is not None and self.block_budget is None:
            # the default must not contradict what was asked for
            given["block"] = min(Budgets().block, self.challenge_budget)
        return Budgets(**given), tuple(name for name, share in asked.items() if share is not None)


def run(log: LogOptions, options: TrainOptions) -> Bundle:
    """Train on a log and write the bundle."""
    _check(log, options)
    threads = threads_of(options.threads)
    source, again = _source(log, options)
    sizes = Tables.for_clients(options.capacity)
    seen = fields_seen(source)
    with_settings = {"sizes": sizes, "threads": threads, "secret": None, "seed": options.seed}
    data = build(source, **with_settings)  # type: ignore[arg-type]
    views = route_views(source, seen, **with_settings)  # type: ignore[arg-type]
    if again is not None:
        data = _more_attackers(data, again, lambda more: build(more, **with_settings))  # type: ignore[arg-type]
    log.conclude()
    say(
        f"training on {len(data):,} requests of {len(np.unique(data.key)):,} clients, "
        f"{int(data.malicious.sum()):,} requests malicious; {sum(map(len, views)):,} seen through other routes, too",
        log.quiet,
    )
    budgets, strict = options.budgets()
    settings = Settings(seed=options.seed, threads=threads).for_rows(len(data))
    with bar("training", log.quiet) as progress:
        done = [0]

        def step(what: str) -> None:
            progress(done[0], settings.folds + 1)
            done[0] += 1

        trained = train(
            data, views, without=options.without, prior=options.prior, budgets=budgets, strict_budgets=strict,
            settings=settings, step=step,
        )  # fmt: skip
    bundle = _finish(log, options, data, trained, sizes, seen)
    if options.registry is not None:
        from classifier.model.registry import log_bundle

        manifest = bundle.manifest
        params = {"seed": options.seed, "prior": options.prior, "trees": manifest.trees_total, **manifest.budgets}
        _, number = log_bundle(options.bundle, options.registry, params=params, metrics=run_metrics(manifest))
        say(f"registered as botsieve version {number}, champion, in {options.registry}", log.quiet)
    return bundle


def _check(log: LogOptions, options: TrainOptions) -> None:
    options.budgets()
    if not 0 < options.prior < 1:
        raise InputError(f"--prior is a share between 0 and 1, not {options.prior:g}")
    for group in options.without:
        if group not in GROUPS:
            raise InputError(f"there is no feature group {group}; the groups are {', '.join(GROUPS)}")
    streams = [path for path in log.logs if path.exists() and not (path.is_file() or path.is_dir())]
    if options.inject is None and streams:
        raise InputError(f"{streams[0]} can be read only once and training reads a log several times; give a file")


def _source(log: LogOptions, options: TrainOptions) -> tuple[Source, Callable[[int], Source] | None]:
    """Return what gives the events anew each time: from the files, or from memory when attacks are woven in.

    In the second case there is also what gives the log with other attackers, by the number of the weaving.
    """
    beside = options.bundle.with_name(options.bundle.name.rstrip("/") or "bundle")
    if options.inject is None:
        # A log may be larger than memory, so it is read again for each pass.
        return lambda: log.tables(beside, "reading"), None
    from classifier.traffic import inject

    own = pa.concat_tables(log.tables(beside, "reading"), promote_options="default").select(EVENT_SCHEMA.names)
    attacks = names_of(options.inject)

    def weaving(number: int) -> Source:
        with bar("weaving attacks in", log.quiet or number > 0):
            # Far from the seeds that a user will evaluate with.
            woven = inject(own, attacks=attacks, seed=options.seed + number * 1_000_003)
        return lambda: iter((woven,))

    return weaving(0), weaving


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
    log: LogOptions, options: TrainOptions, data: Dataset, trained: Trained, sizes: Tables, seen: tuple[str, ...]
) -> Bundle:
    rows = np.ascontiguousarray(data.rows[:, trained.columns])
    rng = np.random.default_rng(options.seed)
    natural = rows[np.sort(rng.permutation(len(rows))[:PROOF_ROWS])]
    calibration = trained.calibration
    with bar("proving that ONNX equals LightGBM", log.quiet):
        graphs = export_model(trained.boosters, (calibration.a, calibration.b), np.inf, natural, rows.shape[1])
    forest = graphs.forest
    with bar("learning to tell the families apart", log.quiet):
        families = families_of(data, trained, threads=threads_of(options.threads), seed=options.seed)
    test = data.take(trained.split.test)
    names = [FEATURES[column].reason for column in trained.columns]
    called: dict[str, int] = {}
    metrics, page = None, "<!doctype html><title>botsieve</title><p>No held-out requests to evaluate on.</p>"
    manifest = _manifest(options, data, trained, sizes, seen, forest.n_trees)
    if test.malicious.any() and not test.malicious.all():
        frame = test.frame()
        frame["raw"] = trained.boosters.raw(np.ascontiguousarray(rows[trained.split.test])).astype(np.float32)
        frame["probability"] = calibration.probability(frame["raw"].to_numpy()).astype(np.float32)
        raw = frame["raw"].to_numpy()
        frame["decision"] = decide_batch(raw, frame["probability"].to_numpy(), trained.thresholds).verdicts()
        explain = Explainer(forest, names, np.inf)
        acted = np.flatnonzero(frame["decision"].to_numpy() != "allow")[:20_000]
        reasons = np.full(len(frame), "", dtype=object)
        for place, found in zip(acted, explain.reasons(rows[trained.split.test][acted]), strict=True):
            reasons[place] = "; ".join(found)
        frame["reasons"] = reasons
        if families is not None:
            named = Families(families.SerializeToString())
            called = agreement(named, test, frame["decision"].to_numpy() != "allow", trained.columns)
        with bar("evaluating on held-out clients and the last stretch of time", log.quiet):
            metrics = evaluate(frame, prior=options.prior, seed=options.seed)
        page = report_page(metrics, frame, report_meta(manifest, str(options.bundle)))
    from msgspec.structs import replace

    manifest = replace(manifest, metrics={**_short(metrics), "families": called} if metrics else {})
    files: dict[str, bytes | Path] = {
        **graphs.files(),
        PROMPT_FILE: shipped_bytes(),
        "reference.json": reference_histograms(data, trained),
        "report.html": page.encode("utf-8", errors="backslashreplace"),
    }
    if families is not None:
        files[FAMILY_FILE] = families.SerializeToString()
    bundle = write_bundle(options.bundle, manifest, files)
    say(f"bundle: {options.bundle} ({forest.n_trees} trees); report: {options.bundle / 'report.html'}", log.quiet)
    if metrics and not log.quiet:
        thresholds: Any = manifest.thresholds
        if sum(called.values()):
            say(
                f"families of the attackers' requests acted on: {called['right']:,} named rightly, "
                f"{called['other']:,} otherwise, {called['unknown']:,} unknown"
            )
        print_summary(metrics, OUTPUT, thresholds, manifest.budgets["challenge"])
    return bundle


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
        clip=None,
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
    """Return the figures of the held-out part that a manifest carries: all attacks together; the page has them all."""
    ranking = [entry for entry in metrics["ranking"] if entry["overall"]]
    groups = [entry for entry in metrics["groups"] if entry["overall"]]
    return {"ranking": ranking, "groups": groups, "calibration": metrics["calibration"], "notes": metrics["notes"]}


def run_metrics(manifest: Manifest) -> dict[str, float]:
    """Return the single figures that MLflow compares runs by; those that the data could not resolve are left out."""
    figures = {
        f"{name}_per_{entry['unit']}": entry[name]["value"]
        for entry in manifest.metrics.get("ranking", [])
        for name in ("roc_auc", "pr_auc")
    }
    return {name: value for name, value in figures.items() if value is not None}
