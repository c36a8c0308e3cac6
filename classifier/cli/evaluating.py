"""`botsieve evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from classifier.cli.files import check_place, check_spared, complete_or_nothing
from classifier.cli.logs import LogOptions
from classifier.cli.terminal import OUTPUT, bar, say, threads_of
from classifier.cli.weaving import woven
from classifier.errors import InputError
from classifier.model.apply import LogWatch, Model, labelled_frame
from classifier.model.bundle import Manifest
from classifier.model.evaluate import evaluate
from classifier.model.pipeline import WOVEN, report_meta
from classifier.model.report import write_report
from classifier.model.summary import print_summary
from classifier.model.wording import situation_lines


def needed(logs: list[Path] | None, bundle: Path | None, out: Path | None) -> tuple[list[Path], Path]:
    """Return the logs and the bundle. Raises InputError where one is missing, or with a folder that nothing is written to."""
    if not logs:
        raise InputError("Missing argument 'LOG'; see botsieve evaluate --help")
    if bundle is None:
        raise InputError("Missing option '--bundle'; see botsieve evaluate --help")
    if out is not None:
        raise InputError("--out is for --protocol; of a log, use --json FILE and --report FILE")
    return logs, bundle


def run(
    log: LogOptions,
    bundle: Path,
    json_file: Path | None,
    report: Path | None,
    inject: str | None,
    seed: int,
    threads: int,
) -> None:
    """Score labelled logs, measure, and print, write or draw the result."""
    for path in (json_file, report):
        if path is not None:
            check_place(path)
    check_spared((json_file, report), log.logs)
    count = threads_of(threads)
    model = Model.load(str(bundle), threads=count)
    beside = json_file or report or Path("evaluation")
    events = log.tables(beside, "scoring" if inject is None else "reading")
    watch = LogWatch(model)
    frame = labelled_frame(model.scored(woven(events, inject, seed), threads=count, watch=watch))
    log.conclude()
    if not frame["malicious"].notna().any():
        raise InputError("no event has a label: give labelled events, or weave attacks in with --inject all")
    measure(
        model.bundle.manifest, frame, str(bundle), json_file, report, seed, log.quiet, watch.stretches(),
        about="" if inject is None else WOVEN, invented=inject is not None,
    )  # fmt: skip


def measure(
    manifest: Manifest,
    frame: Any,
    bundle: str,
    json_file: Path | None,
    report: Path | None,
    seed: int,
    quiet: bool,
    situation: list[dict[str, Any]] | None = None,
    *,
    about: str = "",
    invented: bool = False,
) -> Any:
    """Evaluate scored requests with labels, and print, write or draw the result.

    `situation` are verdicts about the whole service (`LogWatch.stretches`); `about` and `invented` go into the report: see
    `ReportMeta`.
    """
    with bar("bootstrap intervals", quiet) as progress:
        done = [0]

        def resampled() -> None:
            done[0] += 1
            progress(done[0], 200)

        metrics = evaluate(frame, prior=manifest.calibration["prior"], seed=seed, on_resample=resampled)
    if json_file is not None:
        with complete_or_nothing(json_file) as partial:
            partial.write_text(json.dumps({**metrics, "situation": situation or []}, indent=1) + "\n", encoding="utf-8")
        say(f"figures: {json_file}", quiet)
    if report is not None:
        with complete_or_nothing(report) as partial:
            write_report(partial, metrics, frame, report_meta(manifest, bundle, about, invented=invented))
        say(f"report: {report}", quiet)
    thresholds: Any = manifest.thresholds
    print_summary(metrics, OUTPUT, thresholds, manifest.budgets["challenge"])
    for line in situation_lines(situation or []):
        OUTPUT.print(line, markup=False)
    return metrics
