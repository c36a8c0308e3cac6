"""Reading logs: the one way in, for every format.

    file ──> Source (unpacked bytes) ──> blocks of lines ──> a format's reader ──> Clock ──> chunks of events

Which moment a time stamp marks (`stamp`): LiteLLM's startTime, Envoy's start_time and the event schema's time are the
arrival. Combined logs do not say: nginx stamps a line when the response ends and Apache when the request arrives, so a
file whose first lines mostly carry nginx's request time is taken for nginx ("end": arrival = stamp - request time), any
other for "start". `Reading.files` says which was taken, and `stamp="start"` or `"end"` overrides it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from classifier.errors import LogError
from classifier.events import EVENT_SCHEMA
from classifier.logs import detect, envoy, journal, jsonlines, litellm
from classifier.logs.batch import Batch, join
from classifier.logs.clock import AHEAD, Clock
from classifier.logs.combined import CombinedReader
from classifier.logs.jsonlines import JsonReader
from classifier.logs.lines import Block, blocks
from classifier.logs.reading import FileReading, Reading, Reject, RejectFile
from classifier.logs.source import Source
from classifier.logs.tables import CsvReader, ParquetReader

FORMATS = ("auto", "combined", "jsonl", "csv", "parquet", "litellm", "envoy")
STAMPS = ("auto", "start", "end")
MAX_CHUNK_BYTES = 64 << 20

Progress = Callable[[int, int], None]


def read_events(
    paths: Sequence[Path | str],
    *,
    format: str = "auto",
    columns: Mapping[str, str] | None = None,
    stamp: str = "auto",
    chunk_rows: int = 131_072,
    rejects: Path | None = None,
    keep_rejected: bool = False,
    reading: Reading | None = None,
    progress: Progress | None = None,
    solved_legitimate: bool = False,
) -> Iterator[pa.Table]:
    """Read logs file by file, in chunks of the event table, rows in input order.

    paths: the files, read in this order; plain, gzip or zstd, told by content.
    format: one of FORMATS; `auto` tells each file's by its first lines.
    columns: event field -> column, for CSV and Parquet, key, for JSON Lines and Envoy, or a combined log's `remote_user`.
    stamp: whether time stamps mark the `start` or the `end` of a request (see this module).
    chunk_rows: rows of a chunk; the last has fewer, and so has one whose events take more than 64 MiB.
    rejects: where to note rejected lines, as JSON Lines; their content only with `keep_rejected`, cut at 1 KiB.
    reading: totals to fill while the chunks are taken.
    progress: called with bytes read and bytes in all, both of the files as they lie on disk.
    solved_legitimate: whether a solved challenge labels a request of a journal as legitimate.

    A folder that holds a service's journal stands for its files. A chunk has EVENT_SCHEMA, and of a journal JOURNAL_SCHEMA,
    too. Blank lines are not counted; every other line is accepted or rejected, and a bad line never stops the reading.
    Raises LogError, before the first chunk where possible, for a file that is missing or of no known format, where no
    file holds a line, and where no line could be accepted.
    """
    files = [file for path in paths for file in _unfolded(Path(path))]
    check_options(format, columns, stamp)
    _check_arguments(files, chunk_rows)
    run = _Run(format, columns, stamp, keep_rejected, reading or Reading(), progress, solved_legitimate)
    return _events(run, files, chunk_rows, rejects)


def read_log(
    paths: Sequence[Path | str],
    *,
    format: str = "auto",
    columns: Mapping[str, str] | None = None,
    stamp: str = "auto",
    chunk_rows: int = 131_072,
    rejects: Path | None = None,
    keep_rejected: bool = False,
    reading: Reading | None = None,
    progress: Progress | None = None,
    solved_legitimate: bool = False,
) -> pa.Table:
    """Read logs as one event table; see `read_events` for the arguments."""
    chunks = read_events(
        paths,
        format=format,
        columns=columns,
        stamp=stamp,
        chunk_rows=chunk_rows,
        rejects=rejects,
        keep_rejected=keep_rejected,
        reading=reading,
        progress=progress,
        solved_legitimate=solved_legitimate,
    )
    return pa.concat_tables(chunks, promote_options="default")


def _unfolded(path: Path) -> list[Path]:
    """Return the files that a path stands for: itself, or those of the journal in a folder."""
    files = journal.files_of(path) if path.is_dir() else []
    return files if files and journal.is_journal(files[0]) else [path]


def check_options(format: str, columns: Mapping[str, str] | None, stamp: str) -> None:
    """Raise LogError for a format, an event field to map or a stamp that there is none of."""
    if format not in FORMATS:
        raise LogError(f"there is no format {format}; use one of {', '.join(FORMATS)}")
    if stamp not in STAMPS:
        raise LogError(f"there is no stamp {stamp}; use one of {', '.join(STAMPS)}")
    for field in columns or {}:
        if field not in EVENT_SCHEMA.names:
            raise LogError(f"there is no event field {field} to map; the fields are {', '.join(EVENT_SCHEMA.names)}")


def _check_arguments(files: Sequence[Path], chunk_rows: int) -> None:
    if not files:
        raise LogError("no log was named; give at least one file")
    if chunk_rows < 1:
        raise LogError(f"chunk_rows is {chunk_rows}; a chunk has at least one row")
    for file in files:
        if str(file) == "-" and not file.exists():
            raise LogError("- is no file; name /dev/stdin to read standard input")
        if not file.exists():
            raise LogError(f"{file} does not exist; check the path")


def _events(run: _Run, files: Sequence[Path], chunk_rows: int, rejects: Path | None) -> Iterator[pa.Table]:
    run.open(rejects, sum(file.stat().st_size for file in files))
    try:
        yield from _chunks((table for file in files for table in run.tables(file)), chunk_rows)
    finally:
        run.notes.close()
    reading = run.reading
    if not reading.read:
        raise LogError(f"{_named(files)} holds no lines; name a log with requests in it")
    if not reading.accepted:
        reason, count = reading.reasons.most_common(1)[0]
        note = reading.files[0].note
        raise LogError(
            f"{_named(files)}: none of {reading.read} lines could be read as {reading.files[0].format}; "
            f"most often ({count}): {reason}" + (f"; the first lines: it {note}" if note else "")
        )


def _named(files: Sequence[Path]) -> str:
    return str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"


def _chunks(tables: Iterator[pa.Table], chunk_rows: int) -> Iterator[pa.Table]:
    """Put tables together or cut them into chunks of `chunk_rows`, or of fewer where they reach 64 MiB."""
    held: list[pa.Table] = []
    rows = size = 0
    for table in tables:
        held.append(table)
        rows += table.num_rows
        size += table.nbytes
        if rows < chunk_rows and size < MAX_CHUNK_BYTES:
            continue
        whole = pa.concat_tables(held, promote_options="default").combine_chunks()
        for begin in range(0, rows - rows % chunk_rows, chunk_rows):
            yield whole.slice(begin, chunk_rows)
        rest = whole.slice(rows - rows % chunk_rows)
        if rest.num_rows and size >= MAX_CHUNK_BYTES:
            yield rest
            rest = rest.slice(0, 0)
        held, rows, size = ([rest] if rest.num_rows else []), rest.num_rows, rest.nbytes if rest.num_rows else 0
    if rows:
        yield pa.concat_tables(held, promote_options="default").combine_chunks()


class _BlockParser(Protocol):
    def parse(self, block: Block) -> Batch: ...


class _Run:
    """One call: what was asked for, and where its totals and rejects go."""

    def __init__(
        self,
        format: str,
        columns: Mapping[str, str] | None,
        stamp: str,
        keep: bool,
        reading: Reading,
        progress: Progress | None,
        solved_legitimate: bool,
    ) -> None:
        self._solved_legitimate = solved_legitimate
        self._format = format
        self._columns = columns
        self._stamp = stamp
        self._keep = keep
        self.reading = reading
        self._progress = progress
        self._done = self._total = 0

    def open(self, rejects: Path | None, total: int) -> None:
        """Begin: open the rejects file; `total` is the size of all files, bytes."""
        self.notes = RejectFile(rejects, self._keep)
        self._total = total

    def tables(self, path: Path) -> Iterator[pa.Table]:
        """Yield the accepted events of one file."""
        source = Source(path)
        try:
            clock = Clock()
            waiting: list[Batch] = []
            for batch in self._batches(source):
                for reject in batch.rejects:
                    self._reject(path, reject)
                waiting = [join([*waiting, batch])]
                yield from self._judged(path, clock, waiting, False)
                self._tell(source)
            self.reading.files[-1].broken = source.broken
            yield from self._judged(path, clock, waiting, True)
            source.position = source.size
            self._tell(source)
            self._done += source.size
        finally:
            source.close()

    def _judged(self, path: Path, clock: Clock, waiting: list[Batch], final: bool) -> Iterator[pa.Table]:
        """Pass what the clock can decide; what it cannot stays in `waiting`."""
        if not waiting:
            return
        batch = waiting.pop()
        accepted = clock.judge(batch.table["time"].to_numpy(), final)
        decided = len(accepted)
        if decided < len(batch):
            waiting.append(batch.slice(decided, len(batch)))
            batch = batch.slice(0, decided)
        if not accepted.all():
            for i in range(decided):
                if not accepted[i]:
                    self._reject(path, batch.reject(i, AHEAD))
            batch = batch.where(accepted)
        if len(batch):
            self.reading.accept(len(batch))
            yield batch.table

    def _reject(self, path: Path, reject: Reject) -> None:
        self.reading.reject(reject.reason)
        self.notes.note(path, reject)

    def _tell(self, source: Source) -> None:
        if self._progress:
            self._progress(min(self._done + source.position, self._total), self._total)

    def _batches(self, source: Source) -> Iterator[Batch]:
        if detect.is_blank(source):
            self.reading.files.append(FileReading(source.path, self._format, self._stamp))
            return (self._refused(block, block.refused) for block in blocks(source) if block.refused)
        kind = self._format
        if kind == "auto":
            kind = detect.format_of(source, self._columns, FORMATS)
        if kind == "parquet" and journal.is_journal(source.path):
            if self._columns:
                raise LogError("--columns does not apply to a journal; leave it out")
            self.reading.files.append(FileReading(source.path, "journal", "start"))
            return self._tabled(source, journal.JournalReader(source.path, self._solved_legitimate).batches())
        stamp = self._stamp
        if stamp == "auto":
            stamp = "end" if kind == "combined" and detect.stamps_mark_end(detect.sample(source)) else "start"
        note = self._note_on_keys(source) if kind == "jsonl" else ""
        self.reading.files.append(FileReading(source.path, kind, stamp, note=note))
        if kind == "parquet":
            return self._parquet(source, stamp == "end")
        return self._parsed(source, kind, stamp == "end")

    def _note_on_keys(self, source: Source) -> str:
        """Say what is wrong with a JSON log's keys. Raises LogError where no line can be read with what the user named."""
        keys = detect.keys_of(source)
        lacking = jsonlines.lacking(keys, self._columns) if keys else ""
        if lacking and (self._format == "auto" or self._columns):
            raise LogError(f"{source.path} {lacking}")
        return lacking or (jsonlines.in_vain(keys, self._columns) if keys else "")

    def _parquet(self, source: Source, end_stamps: bool) -> Iterator[Batch]:
        reader = ParquetReader(source.path, self._columns, end_stamps)
        try:
            yield from self._tabled(source, reader.batches())
        finally:
            reader.close()

    def _tabled(self, source: Source, batches: Iterator[tuple[Batch, float]]) -> Iterator[Batch]:
        for batch, share in batches:
            source.position = int(source.size * share)
            yield batch

    def _parsed(self, source: Source, kind: str, end_stamps: bool) -> Iterator[Batch]:
        reader = self._reader(source, kind, end_stamps)
        if isinstance(reader, JsonReader) and jsonlines.is_array(source):
            yield from reader.parse_array(source)
            return
        for block in blocks(source):
            if block.refused is None:
                yield reader.parse(block)
            else:
                yield self._refused(block, block.refused)

    def _refused(self, block: Block, reason: str) -> Batch:
        none = block.bounds[:0]
        content = pa.array([], pa.large_binary()) if self._keep else None
        reject = Reject(block.first_line, block.first_offset, reason, block.data if self._keep else None)
        return Batch(EVENT_SCHEMA.empty_table(), none, none, content, [reject])

    def _reader(self, source: Source, kind: str, end_stamps: bool) -> _BlockParser:
        if kind == "combined":
            return CombinedReader(self._columns, end_stamps, self._keep)
        if kind == "csv":
            return CsvReader(source.path, self._columns, end_stamps, self._keep)
        if kind == "envoy":
            return JsonReader(_envoy(self._columns), end_stamps, self._keep)
        if kind == "jsonl":
            return JsonReader(jsonlines.decoder(self._columns), end_stamps, self._keep)
        if self._columns:
            raise LogError(f"--columns does not apply to {kind} logs; leave it out")
        return JsonReader(litellm.decode, end_stamps, self._keep)


def _envoy(columns: Mapping[str, str] | None) -> jsonlines.Decode:
    for field in columns or {}:
        if field not in envoy.MAPPABLE:
            raise LogError(f"{field} of an Envoy log cannot be mapped; only {', '.join(sorted(envoy.MAPPABLE))}")
    return envoy.decoder(columns)
