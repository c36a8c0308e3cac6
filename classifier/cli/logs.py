"""What all commands that read logs share: options, progress, totals, and the rejects file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from classifier.cli.files import check_place, check_spared
from classifier.cli.terminal import bar, say
from classifier.errors import BotsieveError, InputError
from classifier.logs import FileReading, Reading, read_events
from classifier.logs.reader import check_options

REASONS = 3
"""Reasons of rejects that are told, the commonest first; all of them stand in the rejects file."""


@dataclass
class LogOptions:
    """The options of reading, checked before anything is read, and the totals of the newest reading."""

    logs: list[Path]
    format: str
    columns: list[str] | None
    stamp: str
    rejects: Path | None
    keep_rejected: bool
    max_rejected: int | None
    quiet: bool
    solved_legitimate: bool = False
    reading: Reading = field(default_factory=Reading)

    def __post_init__(self) -> None:
        """Raise InputError for an option that cannot be meant."""
        check_options(self.format, self.mapping(), self.stamp)

    def mapping(self) -> dict[str, str] | None:
        """Return `--columns` as a mapping from event field to column."""
        pairs: dict[str, str] = {}
        for text in (part for option in self.columns or () for part in option.split(",")):
            name, equals, column = text.partition("=")
            if not equals or not name or not column:
                raise InputError(f"--columns takes FIELD=COLUMN, not {text!r}")
            pairs[name] = column
        return pairs or None

    def tables(self, beside: Path, what: str) -> Iterator[pa.Table]:
        """Read the logs anew with a progress bar; rejects go to `--rejects`, or to a file beside `beside`."""
        rejects = self.rejects or Path(f"{beside}.rejects.jsonl")
        if not rejects.parent.is_dir():
            raise InputError(f"the folder {rejects.parent} does not exist; make it first")
        if self.rejects and not rejects.exists():
            check_place(rejects)
        if rejects == beside:
            raise InputError(f"--rejects {rejects} is the output itself; name another file")
        check_spared([beside, rejects], self.logs)
        self.reading, self._rejects = Reading(), rejects
        try:
            with bar(what, self.quiet) as progress:
                yield from read_events(
                    self.logs,
                    format=self.format,
                    columns=self.mapping(),
                    stamp=self.stamp,
                    rejects=rejects,
                    keep_rejected=self.keep_rejected,
                    reading=self.reading,
                    progress=progress,
                    solved_legitimate=self.solved_legitimate,
                )
        finally:
            # a file with something in it is of an earlier run, which this one did not come to replace
            if not self.reading.rejected and not self.rejects and rejects.is_file() and not rejects.stat().st_size:
                rejects.unlink()

    def conclude(self) -> None:
        """Print the totals, and which files are damaged; fail if more lines were rejected than `--max-rejected` allows."""
        reading = self.reading
        for file in reading.files:
            say(f"{file.path}: {file.lines:,} lines, {file.format}, {self._stamps(file)}", self.quiet)
            if file.note:
                say(f"{file.path} {file.note}", self.quiet)
            if file.broken:  # never hidden: most of the log may be missing
                say(f"{file.path}, after {file.lines - 1:,} lines: {file.broken}; the rest was not read")
        if reading.files:
            say(f"read {reading.read:,} = accepted {reading.accepted:,} + rejected {reading.rejected:,}", self.quiet)
        if reading.rejected:
            often = "; ".join(f"{reason} ({count:,})" for reason, count in reading.reasons.most_common(REASONS))
            say(f"rejected lines are noted in {self._rejects}; most often: {often}", self.quiet)
        if self.max_rejected is not None and reading.rejected > self.max_rejected:
            raise BotsieveError(
                f"{reading.rejected:,} lines were rejected, more than --max-rejected {self.max_rejected:,}; "
                f"see {self._rejects}"
            )

    def _stamps(self, file: FileReading) -> str:
        if (file.format, file.stamp, self.stamp) == ("combined", "start", "auto"):
            return "no request time found: stamps are taken as the start; nginx users: see docs/formats.md"
        return f"stamps mark the {file.stamp} of requests"
