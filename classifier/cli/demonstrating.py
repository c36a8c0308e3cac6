"""`botsieve demo`: the whole way on simulated traffic."""

from __future__ import annotations

from pathlib import Path

from classifier.cli.evaluating import measure
from classifier.cli.logs import LogOptions
from classifier.cli.simulating import run as simulate_log
from classifier.cli.terminal import OUTPUT, say, threads_of
from classifier.cli.training import TrainOptions
from classifier.cli.training import run as train_bundle
from classifier.model.apply import Model, labelled_frame

DURATION_S = 4 * 3600.0
CLIENTS = 600


def run(out: Path, seed: int, quiet: bool) -> None:
    """Simulate a day to learn from and another to judge by, train, score, and print what came of it."""
    out.mkdir(parents=True, exist_ok=True)
    learn, judge, bundle = out / "train.jsonl", out / "holdout.jsonl", out / "bundle"
    say("1. Simulating an inference service under attack, twice: one log to learn from, one to judge by.", quiet)
    simulate_log(learn, DURATION_S, CLIENTS, "all", seed, quiet)
    simulate_log(judge, DURATION_S / 2, CLIENTS // 2, "all", seed + 1, quiet)
    say("2. Training on the first log.", quiet)
    train_bundle(_log(learn, True), TrainOptions(bundle, None, (), 0.01, None, None, 524_288, None, seed, 0))
    say("3. Scoring the second log, with clients and campaigns that the model has never seen.", quiet)
    model = Model.load(str(bundle), threads=threads_of(0))
    frame = labelled_frame(model.scored(_log(judge, quiet).tables(out / "holdout", "scoring"), threads=threads_of(0)))
    report = out / "report.html"
    measure(model.bundle.manifest, frame, str(bundle), out / "evaluation.json", report, seed, quiet)
    OUTPUT.print(
        f"\nThe page with plots: {report}\nNow your own log: botsieve train access.log --bundle model --inject all"
    )


def _log(path: Path, quiet: bool) -> LogOptions:
    return LogOptions([path], "auto", None, "auto", None, False, None, quiet)
