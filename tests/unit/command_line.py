"""Runs commands in this process, and what the tests of the command line share: a small log and a small bundle."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from classifier.cli import main
from classifier.cli.simulating import write_log
from classifier.events import EVENT_SCHEMA
from classifier.logs import read_log
from classifier.model import pipeline
from classifier.model.train import Settings

BAD = Path(__file__).parents[1] / "data" / "bad"


class Ran(NamedTuple):
    """What a command left: its exit code and its two streams."""

    code: int
    out: str
    err: str


def botsieve(*arguments: Any) -> Ran:
    """Run a command line as the console script does."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", ["botsieve", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
    code = left.value.code
    assert isinstance(code, int)
    return Ran(code, out.getvalue(), err.getvalue())


def done(*arguments: Any) -> Ran:
    """Run a command that must succeed."""
    ran = botsieve(*arguments)
    assert ran.code == 0, ran.err
    return ran


def refused(*arguments: Any, code: int = 2, says: str) -> str:
    """Run a command that must fail with one line on standard error, which contains `says`; return the line."""
    ran = botsieve(*arguments)
    assert ran.code == code, ran.err
    lines = [line for line in ran.err.splitlines() if line]
    assert len([line for line in lines if line.startswith("botsieve: ")]) == 1
    assert lines[-1].startswith("botsieve: ")
    assert "Traceback" not in ran.err + ran.out
    assert says in lines[-1]
    assert "--quiet" not in arguments or lines == lines[-1:]
    return lines[-1]


def jsonl(path: Path) -> list[dict[str, Any]]:
    """Read JSON Lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def totals(err: str) -> tuple[int, int, int]:
    """Return lines read, accepted and rejected, as a command said at its end."""
    line = next(line for line in err.splitlines() if line.startswith("read "))
    read, accepted, rejected = (int(word.replace(",", "")) for word in line.split() if word[0].isdigit())
    assert read == accepted + rejected
    return read, accepted, rejected


@contextlib.contextmanager
def small_forests() -> Iterator[None]:
    """Let `train` grow few trees: these tests are of the way there, not of the model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "Settings", partial(Settings, own_trees=12, group_trees=6, fewest_rows=5))
        yield


def write_small_log(path: Path) -> Path:
    """Simulate a labelled log of many short-lived clients; every so many requests of the heavy ones are kept."""
    whole = path.with_name("whole.parquet")
    done("simulate", "--out", whole, "--duration", 900, "--clients", 80, "--seed", 3, "--quiet")
    assert pq.read_schema(whole).names == EVENT_SCHEMA.names
    table = read_log([whole])
    frame = table.select(["account", "ip"]).to_pandas()
    nth = frame["account"].fillna(frame["ip"]).groupby(frame["account"].fillna(frame["ip"])).cumcount()
    moment = table.column("time").to_pandas()
    # Requests of one microsecond keep the order of the log, which a test shuffles: leave one of each.
    kept = table.filter(pa.array(((nth < 40) & ~moment.duplicated()).to_numpy()))
    write_log(path, kept.slice(0, 3_000))
    return path


class Made(NamedTuple):
    """A labelled log and the bundle that was trained on it."""

    log: Path
    bundle: Path
