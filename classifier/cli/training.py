"""`botsieve train`."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from classifier.cli.logs import LogOptions
from classifier.cli.terminal import Terminal, threads_of
from classifier.errors import InputError
from classifier.model.bundle import Bundle
from classifier.model.dataset import Source
from classifier.model.pipeline import TrainOptions, Weaving, train_bundle, weaving_into


def run(log: LogOptions, options: TrainOptions, table: bool = True) -> Bundle:
    """Train on a log and write the bundle; print the table of decisions on held-out clients unless told not to.

    What the log could not resolve, and what follows for the thresholds, is said last.
    """
    options = replace(options, threads=threads_of(options.threads))
    options.check()
    streams = [path for path in log.logs if path.exists() and not (path.is_file() or path.is_dir())]
    if options.inject is None and streams:
        raise InputError(f"{streams[0]} can be read only once and training reads a log several times; give a file")
    tell = Terminal(log.quiet, table)
    source, again = _source(log, options, tell)
    bundle = train_bundle(options, source, again, tell=tell, after_reading=log.conclude)
    for note in bundle.manifest.thresholds["notes"]:
        tell.say(note)
    return bundle


def _source(log: LogOptions, options: TrainOptions, tell: Terminal) -> tuple[Source, Weaving | None]:
    """Return what gives the events anew each time: from the files, or from memory when attacks are woven in.

    In the second case there is also what gives the log with other attackers, by the number of the weaving.
    """
    beside = options.bundle.with_name(options.bundle.name.rstrip("/") or "bundle")
    if options.inject is None:
        # A log may be larger than memory, so it is read again for each pass.
        return lambda: log.tables(beside, "reading"), None
    from classifier.traffic import to_weave

    to_weave(options.inject)  # a name that is none is said before the log is read
    own = pa.concat_tables(log.tables(beside, "reading"), promote_options="default")
    again = weaving_into(own, options.inject, options.seed, tell)
    return again(0), again
