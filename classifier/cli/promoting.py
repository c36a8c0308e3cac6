"""`botsieve promote` and `botsieve rollback`."""

from __future__ import annotations

from pathlib import Path

from classifier.cli.logs import LogOptions
from classifier.cli.terminal import say, threads_of
from classifier.cli.weaving import woven
from classifier.errors import InputError
from classifier.model.promotion import promote
from classifier.model.registry import MODEL_NAME, rollback


def run(uri: str, log: LogOptions, inject: str | None, margin: float, registry: Path, seed: int, threads: int) -> None:
    """Put a registered version through the gate, and move `champion` to it."""
    if inject is not None and not log.logs:
        raise InputError("--inject weaves attacks into recent traffic; name it with --log")
    recent = woven(log.tables(Path("promote"), "reading"), inject, seed) if log.logs else None
    done = promote(uri, registry, log=recent, margin=margin, threads=threads_of(threads))
    if log.logs:
        log.conclude()
    for check in done.checks:
        say(f"{check.name}: {check.found}", log.quiet)
    if done.before == done.version:
        say(f"{done.name} version {done.version} is champion already in {registry}; nothing was changed", log.quiet)
        return
    before = "there was none before" if done.before is None else f"version {done.before} is previous"
    say(f"{done.name} version {done.version} is champion in {registry}; {before}", log.quiet)


def run_rollback(registry: Path, quiet: bool, name: str = MODEL_NAME) -> None:
    """Go back to the champion before."""
    now, before = rollback(name, registry)
    say(f"{name} version {now} is champion again in {registry}; version {before} is previous", quiet)
