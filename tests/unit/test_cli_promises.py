"""What the commands promise: the columns and order of the contract, the same bits for any chunking, whole files."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from typer.main import get_command

import classifier.cli.evaluating as evaluating
import classifier.cli.featuring as featuring
import classifier.cli.logs as reading
import classifier.cli.scoring as scoring
import classifier.cli.simulating as simulating
import classifier.cli.terminal as terminal
from classifier.cli.app import app
from classifier.events import MICROSECONDS
from classifier.features import stream
from classifier.features.spec import NAMES
from classifier.logs import read_events, read_log
from classifier.model.bundle import load_bundle
from classifier.model.pipeline import run_metrics
from tests.unit.command_line import BAD, Made, done, jsonl, refused

PER_REQUEST = ["row", "time", "client", "raw", "probability", "score", "decision", "reasons", "family"]
PER_CLIENT = ["client", "requests", "probability", "max_probability", "first_action_row", "decision", "reasons"]


@pytest.fixture(scope="module")
def scores(made: Made) -> pa.Table:
    """Score the log the model was trained on, which is sorted by time."""
    out = made.log.with_name("scores.parquet")
    done("score", made.log, "--bundle", made.bundle, "--out", out, "--quiet")
    return pq.read_table(out)


def test_the_round_trip_finds_the_attackers(made: Made, scores: pa.Table, tmp_path: Path) -> None:
    labels = [event["malicious"] for event in jsonl(made.log)]
    raw = scores.column("raw").to_pylist()
    bad = sorted(value for value, label in zip(raw, labels, strict=True) if label)
    good = sorted(value for value, label in zip(raw, labels, strict=True) if not label)
    assert bad[len(bad) // 2] > good[len(good) * 9 // 10]
    ran = done(
        "evaluate", made.log, "--bundle", made.bundle, "--json", tmp_path / "e.json", "--report", tmp_path / "e.html"
    )
    metrics = json.loads((tmp_path / "e.json").read_text())
    assert metrics["requests"] == len(labels) == scores.num_rows
    assert "all attacks" in ran.out
    assert (tmp_path / "e.html").read_text().lower().startswith("<!doctype html>")
    assert metrics["bootstrap"]["seed"] == 0


def test_the_manifest_carries_the_figures_of_the_held_out_part(made: Made) -> None:
    manifest = load_bundle(made.bundle).manifest
    assert {entry["unit"] for entry in manifest.metrics["ranking"]} == {"request", "client"}
    assert {entry["kind"] for entry in manifest.metrics["groups"]} == {"attack", "legitimate"}
    assert set(run_metrics(manifest)) == {f"{m}_per_{u}" for m in ("roc_auc", "pr_auc") for u in ("request", "client")}


def test_score_writes_the_columns_of_the_contract(made: Made, scores: pa.Table, tmp_path: Path) -> None:
    assert scores.column_names == PER_REQUEST
    rows = scores.to_pylist()
    for ending in ("csv", "jsonl"):
        out = tmp_path / f"scores.{ending}"
        done("score", made.log, "--bundle", made.bundle, "--out", out, "--quiet")
        with out.open(encoding="utf-8", newline="") as file:
            written = list(csv.DictReader(file)) if ending == "csv" else jsonl(out)
        assert [list(row) for row in written[:1]] == [PER_REQUEST]
        assert [row["client"] for row in written] == [row["client"] for row in rows]
        assert [int(row["score"]) for row in written] == [row["score"] for row in rows]
    for row, event in zip(rows, jsonl(made.log), strict=True):
        assert row["client"] == event.get("account", event["ip"])
        assert row["time"] == pytest.approx(event["time"], abs=1e-6)
        assert row["decision"] in ("allow", "challenge", "block")
        assert row["score"] == min(max(int(100 * (1 - row["probability"])), 1), 99)
        assert row["decision"] == "allow" or row["reasons"]


def test_an_unsorted_log_is_scored_in_its_own_order(made: Made, scores: pa.Table, tmp_path: Path) -> None:
    lines = made.log.read_bytes().splitlines(keepends=True)
    order = list(range(len(lines)))
    random.Random(7).shuffle(order)
    log, out = tmp_path / "log.jsonl", tmp_path / "scores.parquet"
    log.write_bytes(b"".join(lines[place] for place in order))
    done("score", log, "--bundle", made.bundle, "--out", out, "--quiet")
    shuffled = pq.read_table(out)
    assert shuffled.column("row").to_pylist() == list(range(len(lines)))
    for name in ("time", "client"):
        assert shuffled.column(name).to_pylist() == scores.column(name).take(order).to_pylist()
    for name in ("raw", "probability", "decision", "reasons"):
        assert shuffled.column(name).equals(scores.column(name).take(order)), name


@pytest.mark.parametrize(("chunk", "threads"), [(97, 1), (500, 2), (1_000_000, 3)])
def test_chunks_and_threads_change_no_bit(
    chunk: int, threads: int, made: Made, scores: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "read_events", partial(read_events, chunk_rows=chunk))
    monkeypatch.setattr(stream, "CHUNK_ROWS", max(chunk // 3, 1))
    out = tmp_path / "scores.parquet"
    done("score", made.log, "--bundle", made.bundle, "--out", out, "--threads", threads, "--quiet")
    again = pq.read_table(out)
    assert again.drop_columns(["probability"]).equals(scores.drop_columns(["probability"]))
    for ours, theirs in zip(again.column("probability"), scores.column("probability"), strict=True):
        assert ours.as_py() == pytest.approx(theirs.as_py(), abs=1e-6)
    assert again.column("probability").equals(scores.column("probability"))


def test_per_client_sums_up_per_request(made: Made, scores: pa.Table, tmp_path: Path) -> None:
    out = tmp_path / "clients.parquet"
    done("score", made.log, "--bundle", made.bundle, "--out", out, "--per", "client", "--quiet")
    table = pq.read_table(out)
    assert table.column_names == PER_CLIENT
    requests: dict[str, list[dict[str, Any]]] = {}
    for row in scores.to_pylist():
        requests.setdefault(row["client"], []).append(row)
    clients = table.to_pylist()
    assert {row["client"] for row in clients} == requests.keys()
    highest = []
    for row in clients:
        own = requests[row["client"]]
        worst = max(own, key=lambda request: request["raw"])
        acted = [request["row"] for request in own if request["decision"] != "allow"]
        assert row["requests"] == len(own)
        assert row["probability"] == own[-1]["probability"]
        assert row["max_probability"] == max(request["probability"] for request in own)
        assert row["first_action_row"] == (acted[0] if acted else None)
        steps = {request["decision"] for request in own}
        assert row["decision"] == next(step for step in ("block", "challenge", "allow") if step in steps)
        assert row["reasons"] == worst["reasons"]
        highest.append(worst["raw"])
    assert highest == sorted(highest, reverse=True)
    assert any(row["first_action_row"] is not None for row in clients)


def test_per_client_in_every_kind_of_file(made: Made, tmp_path: Path) -> None:
    for ending in ("csv", "jsonl", "parquet"):
        done(
            "score", made.log, "--bundle", made.bundle, "--out", tmp_path / f"c.{ending}", "--per", "client", "--quiet"
        )
    with (tmp_path / "c.csv").open(encoding="utf-8", newline="") as file:
        cells = list(csv.DictReader(file))
    rows = pq.read_table(tmp_path / "c.parquet").to_pylist()
    assert list(cells[0]) == list(jsonl(tmp_path / "c.jsonl")[0]) == PER_CLIENT
    actions = [None if row["first_action_row"] == "" else int(row["first_action_row"]) for row in cells]
    assert actions == [row["first_action_row"] for row in rows]
    assert actions == [row["first_action_row"] for row in jsonl(tmp_path / "c.jsonl")]


def test_per_client_is_the_same_for_any_chunking(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outs = [tmp_path / "one.parquet", tmp_path / "many.parquet"]
    for out, chunk in zip(outs, (1_000_000, 31), strict=True):
        monkeypatch.setattr(stream, "CHUNK_ROWS", chunk)
        done("score", made.log, "--bundle", made.bundle, "--out", out, "--per", "client", "--quiet")
    assert pq.read_table(outs[0]).equals(pq.read_table(outs[1]))


def test_features_of_a_log_in_the_order_of_time(made: Made, tmp_path: Path) -> None:
    done("features", made.log, "--out", tmp_path / "f.parquet", "--quiet")
    table = pq.read_table(tmp_path / "f.parquet")
    assert table.column_names == ["row", "time", "client", "malicious", "family", *NAMES]
    assert table.column("time").to_pylist() == sorted(table.column("time").to_pylist())
    assert sorted(table.column("row").to_pylist()) == list(range(len(jsonl(made.log))))
    assert all(table.schema.field(name).type == pa.float32() for name in NAMES)


def test_several_packed_logs_are_one(made: Made, scores: pa.Table, tmp_path: Path) -> None:
    import gzip

    import zstandard

    lines = made.log.read_bytes().splitlines(keepends=True)
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"".join(lines[:700])))
    (tmp_path / "b.zst").write_bytes(zstandard.compress(b"".join(lines[700:])))
    out = tmp_path / "s.parquet"
    done("score", tmp_path / "a.gz", tmp_path / "b.zst", "--bundle", made.bundle, "--out", out, "--quiet")
    assert pq.read_table(out).equals(scores)


def test_columns_of_csv_are_mapped(made: Made, tmp_path: Path) -> None:
    names = {"time": "when", "ip": "from", "account": "key"}
    # A record of CSV is one line here, so prompts with line feeds are for the other formats.
    events = [{name: value for name, value in event.items() if name != "prompt"} for event in jsonl(made.log)]
    plain, mapped = tmp_path / "log.jsonl", tmp_path / "log.csv"
    plain.write_text("".join(json.dumps(event) + "\n" for event in events))
    fields = sorted({name for event in events for name in event})
    with mapped.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow([names.get(name, name) for name in fields])
        rows.writerows([event.get(name, "") for name in fields] for event in events)
    line = ["score", mapped, "--bundle", made.bundle, "--out", tmp_path / "mapped.parquet", "--quiet"]
    refused(*line, "--format", "csv", says="has no column time; name it with --columns time=COLUMN")
    refused(*line, "--columns", "time=when,ip=from,account=who", says="has no column who (for account); it has")
    done(*line, "--columns", "time=when,ip=from", "--columns", "account=key")
    done("score", plain, "--bundle", made.bundle, "--out", tmp_path / "plain.parquet", "--quiet")
    assert pq.read_table(tmp_path / "mapped.parquet").equals(pq.read_table(tmp_path / "plain.parquet"))


def test_columns_of_parquet_are_mapped(made: Made, scores: pa.Table, tmp_path: Path) -> None:
    events = read_log([made.log])
    seconds = pa.array(events.column("time").to_numpy() / MICROSECONDS)
    names = {"time": "when", "account": "key"}
    pq.write_table(
        events.set_column(0, "time", seconds).rename_columns([names.get(name, name) for name in events.column_names]),
        tmp_path / "log.parquet",
    )
    line = ["score", tmp_path / "log.parquet", "--bundle", made.bundle, "--out", tmp_path / "s.parquet", "--quiet"]
    done(*line, "--columns", "time=when,account=key")
    assert pq.read_table(tmp_path / "s.parquet").equals(scores)


def test_rejects_go_where_they_are_told_and_hold_content_only_on_request(made: Made, tmp_path: Path) -> None:
    out, notes = tmp_path / "s.csv", tmp_path / "notes.jsonl"
    line = ["score", BAD / "types.jsonl", "--bundle", made.bundle, "--out", out, "--quiet"]
    done(*line, "--rejects", notes)
    assert len(jsonl(notes)) == 16
    assert not any("content" in note for note in jsonl(notes))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.jsonl", "s.csv"]
    done(*line, "--rejects", notes, "--keep-rejected")
    lines = (BAD / "types.jsonl").read_text().splitlines()
    assert [note["content"] for note in jsonl(notes)] == [lines[note["line"] - 1] for note in jsonl(notes)]
    notes.unlink()
    done("score", made.log, "--bundle", made.bundle, "--out", out, "--quiet")
    assert [path.name for path in tmp_path.iterdir()] == ["s.csv"]  # a clean log leaves no empty file


def test_quiet_says_nothing_and_otherwise_the_totals_are_said(made: Made, tmp_path: Path) -> None:
    lines = [
        ["simulate", "--out", tmp_path / "log.jsonl", "--duration", 60, "--clients", 3, "--attacks", "none"],
        ["features", BAD / "times.jsonl", "--out", tmp_path / "f.parquet"],
        ["score", BAD / "times.jsonl", "--bundle", made.bundle, "--out", tmp_path / "s.csv"],
        ["evaluate", BAD / "times.jsonl", "--bundle", made.bundle, "--json", tmp_path / "e.json"],
    ]
    for line in lines:
        assert done(*line, "--quiet").err == ""
        said = done(*line).err
        assert line[0] == "simulate" or "read 28 = accepted 20 + rejected 8" in said


def _stop_after_one(what: Any) -> Any:
    def stopped(*arguments: Any, **named: Any) -> Iterator[Any]:
        yield next(iter(what(*arguments, **named)))
        raise OSError(28, "No space left on device")

    return stopped


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_a_run_that_fails_half_way_leaves_the_older_output_as_it_was(
    ending: str, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = ["--bundle", made.bundle]
    scored, table = tmp_path / f"s.{ending}", tmp_path / "f.parquet"
    log, figures, page = tmp_path / "l.jsonl", tmp_path / "e.json", tmp_path / "e.html"
    monkeypatch.setattr(stream, "CHUNK_ROWS", 100)
    monkeypatch.setattr(scoring, "in_input_order", _stop_after_one(scoring.in_input_order))
    monkeypatch.setattr(featuring, "feature_chunks", _stop_after_one(featuring.feature_chunks))
    monkeypatch.setattr(simulating, "records", _stop_after_one(simulating.records))

    def half(path: Path, *_: Any) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(evaluating, "write_report", half)
    for path, line in (
        (scored, ["score", made.log, *bundle, "--out", scored]),
        (table, ["features", made.log, "--out", table]),
        (log, ["simulate", "--out", log, "--duration", 60, "--clients", 3, "--attacks", "none"]),
        (page, ["evaluate", BAD / "one_client.jsonl", *bundle, "--json", figures, "--report", page]),
    ):
        path.write_text("older")
        refused(*line, "--quiet", code=1, says="No space left on device; check the path and the space left")
        assert path.read_text() == "older"
    assert {path.name for path in tmp_path.iterdir()} <= {scored.name, "f.parquet", "l.jsonl", "e.json", "e.html"}


def test_the_same_seed_simulates_the_same_log(tmp_path: Path) -> None:
    line = ["simulate", "--duration", 120, "--clients", 5, "--attacks", "request_flood", "--quiet", "--out"]
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        done(*line, tmp_path / f"{name}.jsonl", "--seed", seed)
    a, b, c = ((tmp_path / f"{name}.jsonl").read_bytes() for name in "abc")
    assert a == b != c


def _shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "COLUMNS": "100"}
    return subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def test_help_from_the_shell(tmp_path: Path, record_property: pytest.RecordProperty) -> None:
    began = time.perf_counter()
    ran = _shell(f"{sys.executable} -m classifier --help", tmp_path)
    record_property("help_seconds", round(time.perf_counter() - began, 3))  # measured, not judged: machines differ
    print(f"python -m classifier --help: {time.perf_counter() - began:.2f} s")
    assert ran.returncode == 0
    assert ran.stderr == ""
    for name in ("simulate", "train", "evaluate", "score", "features", "demo"):
        assert name in ran.stdout


def test_help_names_what_an_option_takes_and_nothing_for_one_that_takes_nothing() -> None:
    commands: Any = get_command(app)
    for name, command in commands.commands.items():
        for option in command.params:
            if option.param_type_name == "option":
                assert option.metavar is not None, (name, option.opts)
                assert bool(option.metavar) is not option.is_flag, (name, option.opts)


def test_a_bar_claims_no_share_of_what_has_no_known_end(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(terminal, "ERRORS", Console(file=shown, force_terminal=True, width=100))
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: True))
    with terminal.bar("learning", quiet=False):
        pass
    assert "done" in shown.getvalue()
    assert "%" not in shown.getvalue()
    with terminal.bar("reading", quiet=False) as progress:
        progress(2, 4)
        progress(4, 4)
    assert "100 %" in shown.getvalue()


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    heavy = "numpy pandas pyarrow numba lightgbm sklearn onnx onnxruntime mlflow matplotlib"
    code = (
        "import sys; sys.argv = ['botsieve', '--help']\n"
        "from classifier.cli import main\n"
        "try: main()\n"
        f"except SystemExit: print([name for name in '{heavy}'.split() if name in sys.modules], file=sys.stderr)"
    )
    (tmp_path / "help.py").write_text(code)
    assert _shell(f"{sys.executable} help.py", tmp_path).stderr == "[]\n"


def test_exit_codes_from_the_shell(made: Made, tmp_path: Path) -> None:
    botsieve = f"{sys.executable} -m classifier"
    log = BAD / "times.jsonl"
    script = (
        f"{botsieve} features none.log --out f.parquet; echo $?;"
        f"{botsieve} features {log} --out f.parquet --quiet --max-rejected 3; echo $?;"
        f"{botsieve} features {log} --out f.parquet --quiet; echo $?"
    )
    ran = _shell(script, tmp_path)
    assert ran.stdout.split() == ["2", "1", "0"]
    assert len([line for line in ran.stderr.splitlines() if line.startswith("botsieve: ")]) == 2
    assert "Traceback" not in ran.stderr
    assert (tmp_path / "f.parquet").exists()


def test_a_locale_without_utf8_changes_no_result_and_breaks_no_message(
    made: Made, scores: pa.Table, tmp_path: Path
) -> None:
    bare = "LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 PYTHONIOENCODING=ascii"
    score = f"{sys.executable} -m classifier score {made.log} --bundle {made.bundle}"
    ran = _shell(f"{bare} {score} --out s.parquet && {bare} {score} --out none/\u00e9.parquet --per \u00e9", tmp_path)
    assert pq.read_table(tmp_path / "s.parquet").equals(scores)
    assert "scoring \\u2026\n" in ran.stderr
    assert ran.stderr.splitlines()[-1].startswith("botsieve: --per takes request or client, not \\")
    assert (ran.returncode, "Traceback" in ran.stderr) == (2, False)
