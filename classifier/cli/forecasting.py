"""`botsieve whatif`."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from classifier.cli.files import complete_or_nothing
from classifier.cli.logs import LogOptions
from classifier.cli.terminal import OUTPUT, bar, say, threads_of
from classifier.cli.weaving import woven
from classifier.errors import InputError
from classifier.model.apply import Model, Scored
from classifier.whatif.causal import ROUNDS
from classifier.whatif.drawing import plot
from classifier.whatif.run import Options, what_if
from classifier.whatif.solving import Solving
from classifier.whatif.telling import as_any, page, print_table
from classifier.whatif.watched import Watched

FILES = ("whatif.json", "whatif.png", "whatif.html")


def run(
    log: LogOptions, bundle: Path, out: Path, options: Options, solves: str, attackers: str, inject: str | None,
    seed: int, threads: int,
) -> None:  # fmt: skip
    """Play a log behind every defence, and write the figures, the plot and the page."""
    Solving.of("none", attackers)  # what can be refused before anything is read
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; name a folder")
    count = threads_of(threads)
    model = Model.load(str(bundle), threads=count)
    with _folder(out):
        _forecast(log, model, out, options, solves, attackers, inject, seed, count)


@contextmanager
def _folder(path: Path) -> Iterator[None]:
    """Make a folder, and take it away again if nothing has been written to it."""
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for folder in made:
            if not any(folder.iterdir()):
                folder.rmdir()


def _forecast(
    log: LogOptions, model: Model, out: Path, options: Options, solves: str, attackers: str, inject: str | None,
    seed: int, count: int,
) -> None:  # fmt: skip
    tables = _tables(log, out, inject, seed)
    log.conclude()
    families = {name for table in tables for name in table.column("family").unique().to_pylist() if name}
    solving = Solving.of(solves, attackers, families)
    with bar("scoring as if enforced", log.quiet) as progress:
        rounds = [0]
        watched = Watched(model, count)

        def score(played: Iterable[pa.Table], explain: bool) -> Iterator[Scored]:
            progress(rounds[0], ROUNDS + 1)
            rounds[0] += 1
            return watched.score(played, explain)

        found = what_if(
            tables,
            score,
            watched.budget,
            solving,
            options,
            situation=watched.situation,
            policy=watched.policy,
            notes=model.thresholds.notes,
        )
    drawn = plot(found)
    command = shlex.join(["botsieve", *sys.argv[1:]])
    figures, picture, told = (out / name for name in FILES)
    with complete_or_nothing(figures) as partial:
        partial.write_text(json.dumps(as_any(found), indent=1) + "\n", encoding="utf-8")
    with complete_or_nothing(picture) as partial:
        partial.write_bytes(drawn)
    with complete_or_nothing(told) as partial:
        partial.write_text(page(found, drawn, command), encoding="utf-8", errors="backslashreplace")
    print_table(found, OUTPUT)
    say(f"figures: {figures}, plot: {picture}, page: {told}", log.quiet)


def _tables(log: LogOptions, out: Path, inject: str | None, seed: int) -> list[pa.Table]:
    """Read the log into memory: it is scored several times, each time with other refusals in it."""
    return list(woven(log.tables(out / "whatif", "reading"), inject, seed))
