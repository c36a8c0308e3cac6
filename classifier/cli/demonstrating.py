"""`botsieve demo`: the whole way on simulated traffic."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

import pyarrow.parquet as pq

from classifier.cli.evaluating import measure
from classifier.cli.logs import LogOptions
from classifier.cli.replaying import Service
from classifier.cli.replaying import run as replay_log
from classifier.cli.scoring import run as score_log
from classifier.cli.simulating import run as simulate_log
from classifier.cli.terminal import OUTPUT, say, threads_of
from classifier.cli.training import run as train_bundle
from classifier.errors import BotsieveError
from classifier.model.apply import Model, labelled_frame
from classifier.model.pipeline import TrainOptions
from classifier.traffic.legitimate import ORDINARY

DURATION_S = 4 * 3600.0
CLIENTS = 600
ATTACKS = "all:plain,all:evasive"
LIVE_ROWS = 20_000
"""Requests of the second log that go through the service."""
START_S = 120.0


def run(out: Path, seed: int, quiet: bool) -> None:
    """Simulate a day to learn from and another to judge by, train, score, and print what came of it."""
    out.mkdir(parents=True, exist_ok=True)
    learn, judge, bundle = out / "train.jsonl", out / "holdout.jsonl", out / "bundle"
    say("1. Simulating an inference service under attack, twice: one log to learn from, one to judge by.", quiet)
    with compiling():
        write_log_to_learn_from(learn, seed, quiet)
        simulate_log(judge, DURATION_S / 2, CLIENTS // 2, ATTACKS, seed + 1, quiet, ORDINARY)
    say("2. Training on the first log.", quiet)
    # The table of decisions is that of the second log.
    options = TrainOptions(bundle, seed=seed, threads=0)
    train_bundle(_log(learn, quiet), options, table=False)
    say("3. Scoring the second log, with clients and campaigns that the model has never seen.", quiet)
    model = Model.load(str(bundle), threads=threads_of(0))
    frame = labelled_frame(model.scored(_log(judge, quiet).tables(out / "holdout", "scoring"), threads=threads_of(0)))
    report = out / "report.html"
    measure(
        model.bundle.manifest, frame, str(bundle), out / "evaluation.json", report, seed, quiet,
        about="All of it is simulated: attackers, and legitimate clients that the model has never seen.", invented=True,
    )  # fmt: skip
    say("4. The same requests, one by one, through the service that a gateway asks.", quiet)
    live, scored, replayed = out / "live.jsonl", out / "scored.parquet", out / "replayed.parquet"
    with judge.open("rb") as lines, live.open("wb") as part:
        part.writelines(islice(lines, LIVE_ROWS))
    score_log(_log(live, quiet), bundle, scored, "request", "cpu", 0)
    with served(bundle, out / "service.log") as url:
        replay_log(_log(live, quiet), url, replayed, None)
    OUTPUT.print(compared(scored, replayed))
    OUTPUT.print(
        f"\nThe page with plots: {report}\nNow your own log: botsieve train access.log --bundle model --inject all"
    )


def write_log_to_learn_from(out: Path, seed: int, quiet: bool) -> None:
    """Simulate the log that the demo's model is trained on.

    Without mimics, and with the kinds of clients that every service has: the hard traffic needs a longer log than a demo's.
    """
    simulate_log(out, DURATION_S, CLIENTS, ATTACKS, seed, quiet, ORDINARY)


@contextmanager
def compiling() -> Iterator[None]:
    """Compile the kernels in a process of its own until the end of the block: on a first run, training would wait for it."""
    process = subprocess.Popen([sys.executable, "-m", "classifier.features.kernels"], stderr=subprocess.DEVNULL)
    try:
        yield
        process.wait()  # whatever goes wrong there goes wrong again in training, which tells of it
    finally:
        process.kill()


@contextmanager
def served(bundle: Path, log: Path) -> Iterator[str]:
    """Run a service on a bundle, with the events' time, until the end of the block; yield its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "serving", "--bundle", str(bundle), "--port", str(port), "--clock", "event"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BOTSIEVE_")}
    environment |= {name: os.environ[name] for name in ("BOTSIEVE_HASH_KEY",) if name in os.environ}
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
        try:
            _await(f"http://127.0.0.1:{port}", process, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)


def _await(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < until:
        with suppress(BotsieveError):
            Service(url).call("GET", "/healthz")
            return
        time.sleep(0.1)
    raise BotsieveError(f"the service did not start; {log} says why")


def compared(scored: Path, replayed: Path) -> str:
    """Say whether a service answered what `score` wrote."""
    columns = ["raw", "probability", "score", "decision"]
    offline, online = (pq.read_table(path, columns=columns) for path in (scored, replayed))
    apart = sum(a != b for a, b in zip(offline.to_pylist(), online.to_pylist(), strict=True))
    if apart:
        raise BotsieveError(f"the service answered {apart:,} of {len(online):,} requests otherwise than `score`")
    return f"The service answered {len(online):,} requests as `score` did: equal to the last bit."


def _log(path: Path, quiet: bool) -> LogOptions:
    return LogOptions([path], "auto", None, "auto", None, False, None, quiet)
