"""The journal of a scoring service, read back as events.

A journal is a folder of Parquet files whose rows are transitions as the service processed them (`TRANSITIONS`): arrivals
with what was answered, completions, expiries, and challenges that were solved. Reading joins them to one event an arrival.
Completions are also looked for in the files that follow in the folder: a response may end after a file did. Prompts are not
in it; their template's keyed hash, length and score are, so that scoring the events gives again what was answered.

Labels lie beside it in `labels.jsonl`: what people found out about a decision (`POST /v1/feedback`), by its id.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from classifier.errors import LogError
from classifier.events import EVENT_SCHEMA, EXPIRY_S, FIELDS, JOURNAL_SCHEMA, MAX_DURATION_S, MICROSECONDS
from classifier.logs.batch import NO_OFFSET, Batch
from classifier.logs.reading import Reject
from classifier.logs.screen import screen

LABELS = "labels.jsonl"
ARRIVAL, COMPLETION, EXPIRY, SOLVED = "arrival", "completion", "expiry", "solved"
ARRIVAL_FIELDS = tuple(f.name for f in FIELDS if f.known == "arrival" and f.name not in ("time", "prompt"))
COMPLETION_FIELDS = tuple(f.name for f in FIELDS if f.known == "completion")
KEYS = tuple(name for name in JOURNAL_SCHEMA.names if name != "end")
TRANSITIONS = pa.schema([
    ("kind", pa.string()), ("moment", pa.int64()), ("serial", pa.int64()), ("id", pa.string()),
    *((name, EVENT_SCHEMA.field(name).type) for name in (*ARRIVAL_FIELDS, *COMPLETION_FIELDS)),
    *((name, JOURNAL_SCHEMA.field(name).type) for name in KEYS),
    ("raw", pa.float32()), ("probability", pa.float32()), ("score", pa.int64()), ("decision", pa.string()),
    ("enforced", pa.string()), ("reasons", pa.string()), ("bundle", pa.string()),
])  # fmt: skip
"""Rows of a journal: kind and serial of every transition, its moment in µs, then what is known with its kind, else null.

`id` to `bundle` belong to arrivals, the fields of a completion to completions. `bundle` is the hash of the manifest that
decided; reasons are joined by a blank.
"""
MARK, RUN, FIRST = b"botsieve.journal", b"botsieve.run", b"botsieve.first"
VERSION = b"2"
_NEVER = round(MAX_DURATION_S * MICROSECONDS)


def metadata(run: str, first: int) -> dict[bytes, bytes]:
    """Return what a file says of itself: the start of the service that wrote it, and that start's first serial number."""
    return {MARK: VERSION, RUN: run.encode(), FIRST: str(first).encode()}


def is_journal(path: Path) -> bool:
    """Say whether a Parquet file is of a journal. Raises LogError for one of a version that this one cannot read."""
    try:
        mark = (pq.read_schema(path).metadata or {}).get(MARK)
    except (pa.ArrowException, OSError):
        return False  # whoever reads it as Parquet says what is wrong
    if mark not in (None, VERSION):
        raise LogError(f"{path} is a journal of another version of botsieve; read it with that one, or move it away")
    return mark is not None


def files_of(folder: Path) -> list[Path]:
    """Return the finished files of a journal in the order in which they were written."""
    return sorted(folder.glob("*.parquet"))


class JournalReader:
    """Reads one file of a journal as events; they are numbered from 1 in the order of their arrival."""

    def __init__(self, path: Path, solved_legitimate: bool) -> None:
        """With `solved_legitimate`, requests whose challenge was solved count as labelled legitimate."""
        self._path, self._solved_legitimate = path, solved_legitimate

    def batches(self) -> Iterator[tuple[Batch, float]]:
        """Yield the file's events. Raises LogError where it cannot be read."""
        whole = _read(self._path, None)
        if whole.schema.names != TRANSITIONS.names:
            raise LogError(f"{self._path} lacks columns of a journal; take the file as the service wrote it")
        kind = whole.column("kind")
        arrivals = whole.filter(pc.equal(kind, ARRIVAL)).sort_by("serial").combine_chunks()
        if not arrivals.num_rows:
            return
        later = self._later(whole, int(pc.max(arrivals.column("moment")).as_py()))
        ends = later.filter(pc.equal(later.column("kind"), COMPLETION))
        ends = ends.take(_places(arrivals, ends))  # one an arrival, null where it has none
        table, kept, reasons = screen(self._events(arrivals, ends, later))
        never = pa.array(arrivals.column("moment").to_numpy() + _NEVER)
        table = table.append_column("end", pc.coalesce(ends.column("moment"), never))
        for name in KEYS:
            table = table.append_column(name, arrivals.column(name))
        rows = np.flatnonzero(kept)
        rejects = [Reject(1 + i, None, reason, None) for i, reason in sorted(reasons.items())]
        offset = np.full(len(rows), NO_OFFSET, np.int64)
        yield Batch(table.filter(pa.array(kept)), 1 + rows, offset, None, rejects), 1.0

    def _later(self, whole: pa.Table, newest: int) -> pa.Table:
        """Return everything of this file and those that follow that may end one of its arrivals."""
        names = ["kind", "moment", "serial", *COMPLETION_FIELDS]
        ours = (whole.schema.metadata or {}).get(RUN)
        parts = [whole.select(names).filter(pc.not_equal(whole.column("kind"), ARRIVAL))]
        for path in files_of(self._path.parent):
            if path.name <= self._path.name or not is_journal(path):
                continue
            part = _read(path, names)
            if not part.num_rows:
                continue
            oldest = int(pc.min(part.column("moment")).as_py())
            told = part.schema.metadata or {}
            part = part.filter(pc.not_equal(part.column("kind"), ARRIVAL))
            if told.get(RUN) != ours:  # a later start may give the same numbers again, from its first on
                part = part.filter(pc.less(part.column("serial"), int(told.get(FIRST, b"0"))))
            parts.append(part)
            if oldest > newest + EXPIRY_S * MICROSECONDS:
                break
        return pa.concat_tables([part.replace_schema_metadata(None) for part in parts]).combine_chunks()

    def _events(self, arrivals: pa.Table, ends: pa.Table, later: pa.Table) -> pa.Table:
        columns: dict[str, Any] = {name: arrivals.column(name) for name in ARRIVAL_FIELDS}
        columns["time"] = arrivals.column("moment")
        columns.update({name: ends.column(name) for name in COMPLETION_FIELDS})
        malicious, family = self._labels(arrivals, later)
        columns |= {"prompt": pa.nulls(arrivals.num_rows, pa.string()), "malicious": malicious, "family": family}
        return pa.table({name: columns[name] for name in EVENT_SCHEMA.names}, schema=EVENT_SCHEMA)

    def _labels(self, arrivals: pa.Table, later: pa.Table) -> tuple[pa.Array, pa.Array]:
        """Return the labels, and where each is from as its family; a person's counts before a solved challenge."""
        told = labels_of(self._path.parent / LABELS)
        found = [told.get(identity) for identity in arrivals.column("id").to_pylist()] if told else []
        malicious: list[bool | None] = list(found) or [None] * arrivals.num_rows
        family: list[str | None] = [None if label is None else "feedback" for label in malicious]
        if self._solved_legitimate:
            solved = _places(arrivals, later.filter(pc.equal(later.column("kind"), SOLVED)))
            for i in np.flatnonzero(solved.is_valid()).tolist():
                if malicious[i] is None:
                    malicious[i], family[i] = False, "challenge solved"
        return pa.array(malicious, pa.bool_()), pa.array(family, pa.string())


def labels_of(path: Path) -> dict[str, bool]:
    """Return people's newest verdict on each decision; a line that was torn by a crash is left out."""
    found: dict[str, bool] = {}
    if not path.exists():
        return found
    with path.open("rb") as lines:
        for line in lines:
            try:
                label = msgspec.json.decode(line, type=_Label)
            except msgspec.MsgspecError:
                continue
            found[label.id] = bool(label.label)
    return found


class _Label(msgspec.Struct):
    id: str
    label: int


def _places(arrivals: pa.Table, ends: pa.Table) -> pa.Array:
    """Return the place of each arrival's end among `ends`, null where it has none."""
    wanted, serials = arrivals.column("serial").to_numpy(), ends.column("serial").to_numpy()
    if not len(serials):
        return pa.nulls(len(wanted), pa.int64())
    order = np.argsort(serials, kind="stable")
    place = order[np.minimum(np.searchsorted(serials[order], wanted), len(serials) - 1)]
    return pa.array(place, mask=serials[place] != wanted)


def _read(path: Path, names: list[str] | None) -> pa.Table:
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return file.read(names)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise LogError(f"{path} is no whole Parquet file ({reason}); leave it out") from error
