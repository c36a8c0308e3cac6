"""Bad logs, bundles and options at the command line: one clear line or a counted reject, and the right exit code.

2 is for bad usage or input (a damaged bundle included), 1 for a failed run, 0 with rejects unless --max-rejected.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from classifier.cli.terminal import threads_of
from tests.unit.command_line import BAD, Made, botsieve, done, jsonl, refused, small_forests, totals

REJECTS = {
    "mixed.log": (25, 5, "combined"),
    "times.jsonl": (28, 8, "jsonl"),
    "types.jsonl": (36, 16, "jsonl"),
}
"""Lines, rejected lines and the format of a log that is partly good."""
UNUSABLE = {
    "junk.log": "is of no known format; name it with --format",
    "empty.log": "holds no lines; name a log with requests in it",
    "blank.log": "holds no lines; name a log with requests in it",
    "truncated.parquet": "is no whole Parquet file",
    "absent.log": "does not exist; check the path",
    ".": "is a folder; name the log files in it",
}
COMMANDS = ("features", "score", "evaluate", "train")


def command(name: str, log: Path, folder: Path, made: Made) -> tuple[list[Any], list[Path]]:
    """Return a command line that reads `log` and writes into `folder`, and the files it would write."""
    if name == "features":
        return [name, log, "--out", folder / "out.parquet"], [folder / "out.parquet"]
    if name == "score":
        return [name, log, "--bundle", made.bundle, "--out", folder / "out.csv"], [folder / "out.csv"]
    if name == "evaluate":
        out = [folder / "out.json", folder / "out.html"]
        return [name, log, "--bundle", made.bundle, "--json", out[0], "--report", out[1]], out
    return [name, log, "--bundle", folder / "bundle", "--capacity", 64, "--threads", 1], [folder / "bundle"]


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("log", UNUSABLE)
def test_a_log_that_is_none_is_named_and_nothing_is_left_behind(
    name: str, log: str, tmp_path: Path, made: Made
) -> None:
    line, _ = command(name, BAD / log, tmp_path, made)
    assert str(BAD / log) in refused(*line, "--quiet", says=UNUSABLE[log])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["features", "score"])
@pytest.mark.parametrize("log", REJECTS)
def test_bad_lines_are_counted_and_noted_and_the_run_goes_on(name: str, log: str, tmp_path: Path, made: Made) -> None:
    lines, bad, kind = REJECTS[log]
    line, out = command(name, BAD / log, tmp_path, made)
    ran = done(*line)
    assert totals(ran.err) == (lines, lines - bad, bad)
    assert f"{lines} lines, {kind}, " in ran.err
    assert all(path.exists() for path in out)
    notes = jsonl(Path(f"{out[0]}.rejects.jsonl"))
    assert len(notes) == bad
    whole = (BAD / log).read_bytes()
    for note in notes:
        assert note["file"] == str(BAD / log)
        assert whole[: note["offset"]].count(b"\n") == note["line"] - 1
        assert set(note) == {"file", "line", "offset", "reason"}


@pytest.mark.parametrize("name", ["features", "score", "evaluate"])
def test_max_rejected_is_a_failed_run_that_writes_nothing(name: str, tmp_path: Path, made: Made) -> None:
    line, out = command(name, BAD / "times.jsonl", tmp_path, made)
    refused(*line, "--max-rejected", 7, "--quiet", code=1, says="8 lines were rejected, more than --max-rejected 7")
    assert not any(path.exists() for path in out)
    assert len(jsonl(Path(f"{out[0]}.rejects.jsonl"))) == 8
    done(*line, "--max-rejected", 8)
    assert all(path.exists() for path in out)


def test_train_counts_rejects_too(tmp_path: Path, made: Made) -> None:
    log = tmp_path / "log.jsonl"
    noise = b"".join((BAD / name).read_bytes() for name in ("types.jsonl", "times.jsonl", "junk.log"))
    log.write_bytes(made.log.read_bytes() + noise)
    line, out = command("train", log, tmp_path, made)
    with small_forests():
        refused(*line, "--max-rejected", 5, "--quiet", code=1, says="more than --max-rejected 5")
        assert not out[0].exists()
        said = done(*line).err
    read, _, rejected = totals(said)
    assert any(line.startswith("Nothing is blocked: the block budget of 0.01 %") for line in said.splitlines()[-3:])
    assert read == len([part for part in log.read_bytes().split(b"\n") if part.strip()])
    assert rejected >= 16 + 8
    assert len(jsonl(tmp_path / "bundle.rejects.jsonl")) == rejected
    done("score", made.log, "--bundle", out[0], "--out", tmp_path / "out.parquet", "--quiet")


@pytest.mark.parametrize("name", ["features", "score"])
def test_a_cut_gzip_keeps_its_whole_lines(name: str, tmp_path: Path, made: Made) -> None:
    line, out = command(name, BAD / "truncated.log.gz", tmp_path, made)
    read, accepted, rejected = totals(done(*line).err)
    assert rejected == 1
    assert 100 < accepted < 300
    assert read == accepted + 1
    assert "breaks off" in jsonl(Path(f"{out[0]}.rejects.jsonl"))[0]["reason"]
    told = f"after {accepted} lines: gzip stream breaks off (the file is cut); the rest was not read"
    assert done(*line, "--quiet").err == f"{BAD / 'truncated.log.gz'}, {told}\n"


def test_a_combined_log_without_request_times_says_what_its_stamps_are_taken_for(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    text = '203.0.113.7 - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 10 "-" "agent"{}\n'
    line = ["features", log, "--out", tmp_path / "out.parquet"]
    unknown = "no request time found: stamps are taken as the start; nginx users: see docs/formats.md"
    for further, options, told in (
        ("", [], unknown),
        (' "0.123"', [], unknown),
        ("", ["--stamp", "start"], "stamps mark the start of requests"),
        ("", ["--stamp", "end"], "stamps mark the end of requests"),
        (" 0.123", [], "stamps mark the end of requests"),
    ):
        log.write_text(text.format(further))
        assert f"{log}: 1 lines, combined, {told}\n" in done(*line, *options).err


def test_the_commonest_reasons_are_told_with_their_counts(tmp_path: Path, made: Made) -> None:
    log = tmp_path / "log.jsonl"
    bad = b"x\n" * 3 + b'{"ip": "1.2.3.4", "method": "GET", "path": "/"}\n' * 2 + b'{"time": 1}\n' + b"\xff\n"
    log.write_bytes((BAD / "one_client.jsonl").read_bytes() + bad)
    line, out = command("features", log, tmp_path, made)
    assert (
        f"rejected lines are noted in {out[0]}.rejects.jsonl; most often: line is no JSON object (4); "
        "Object missing required field `time` (2); Object missing required field `ip` (1)\n"
    ) in done(*line).err


@pytest.mark.parametrize("name", ["features", "score"])
def test_a_line_of_10_mb_is_one_reject(name: str, tmp_path: Path, made: Made) -> None:
    log = tmp_path / "log.jsonl"
    good = (BAD / "unlabelled.jsonl").read_bytes()
    log.write_bytes(good + b'{"prompt": "' + b"x" * 10_000_000 + b'"}\n' + good)
    line, out = command(name, log, tmp_path, made)
    assert totals(done(*line).err) == (81, 80, 1)
    notes = Path(f"{out[0]}.rejects.jsonl")
    assert jsonl(notes)[0]["line"] == 41
    done(*line, "--keep-rejected", "--quiet")
    assert notes.stat().st_size < 2_000


@pytest.mark.parametrize(
    "log", ["one_client.jsonl", "legitimate_only.jsonl", "malicious_only.jsonl", "unlabelled.jsonl"]
)
def test_little_logs_can_be_scored(log: str, tmp_path: Path, made: Made) -> None:
    assert done("features", BAD / log, "--out", tmp_path / "out.parquet", "--quiet") == (0, "", "")
    for per, rows in (("request", 40), ("client", 1 if log == "one_client.jsonl" else 5)):
        out = tmp_path / f"{per}.jsonl"
        done("score", BAD / log, "--bundle", made.bundle, "--out", out, "--per", per, "--quiet")
        assert len(jsonl(out)) == rows


@pytest.mark.parametrize(
    ("log", "says"),
    [
        ("one_client.jsonl", "too few malicious clients (1) to learn from"),
        ("legitimate_only.jsonl", "too few malicious clients (0) to learn from"),
        ("malicious_only.jsonl", "too few legitimate clients (0) to learn from"),
        ("unlabelled.jsonl", "no event of the log has a label"),
    ],
)
def test_training_on_too_little_says_what_is_missing(log: str, says: str, tmp_path: Path) -> None:
    line = refused("train", BAD / log, "--bundle", tmp_path / "bundle", "--capacity", 64, "--quiet", says=says)
    assert "--inject all" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("log", "note"),
    [
        ("legitimate_only.jsonl", "no attacks in the data"),
        ("malicious_only.jsonl", "no legitimate traffic in the data"),
    ],
)
def test_evaluating_one_class_says_which_figures_there_are_not(log: str, note: str, tmp_path: Path, made: Made) -> None:
    line, out = command("evaluate", BAD / log, tmp_path, made)
    done(*line)
    metrics = json.loads(out[0].read_text())
    assert metrics["requests"] == 40
    assert any(note in text for text in metrics["notes"])
    assert all(ranking["roc_auc"]["value"] is None for ranking in metrics["ranking"])
    assert "<html" in out[1].read_text()


def test_evaluating_one_client_and_no_labels(tmp_path: Path, made: Made) -> None:
    line, out = command("evaluate", BAD / "one_client.jsonl", tmp_path, made)
    done(*line)
    assert json.loads(out[0].read_text())["requests"] == 40
    line, out = command("evaluate", BAD / "unlabelled.jsonl", tmp_path / ".." / tmp_path.name, made)
    refused(*line, "--quiet", says="no event has a label: give labelled events, or weave attacks in with --inject all")


FILES = [
    "family.onnx", "manifest.json", "model.cuda.onnx", "model.onnx", "prompt.npy", "reference.json", "report.html",
]  # fmt: skip


@pytest.mark.parametrize("name", ["score", "evaluate"])
@pytest.mark.parametrize("file", FILES)
def test_a_bundle_with_one_byte_changed_is_refused(name: str, file: str, tmp_path: Path, made: Made) -> None:
    bundle = Path(shutil.copytree(made.bundle, tmp_path / "bundle"))
    content = (bundle / file).read_bytes()
    (tmp_path / "out").mkdir()
    line, _ = command(name, BAD / "unlabelled.jsonl", tmp_path / "out", Made(made.log, bundle))
    for place in (0, len(content) // 3, len(content) - 1):
        changed = bytearray(content)
        changed[place] ^= 1
        (bundle / file).write_bytes(changed)
        said = refused(*line, "--quiet", says=str(bundle))
        assert file in said
        assert "again" in said
    (bundle / file).write_bytes(content[:-1])
    assert file in refused(*line, "--quiet", says=str(bundle))
    (bundle / file).unlink()
    refused(*line, "--quiet", says=f"has no {file}")
    assert list((tmp_path / "out").iterdir()) == []


def test_every_file_of_a_bundle_was_damaged_above(made: Made) -> None:
    assert sorted(path.name for path in made.bundle.iterdir()) == FILES


def test_what_is_no_bundle(tmp_path: Path, made: Made) -> None:
    out = ["--out", tmp_path / "out.csv", "--quiet"]
    refused("score", made.log, "--bundle", tmp_path / "none", *out, says="no bundle at")
    refused("score", made.log, "--bundle", tmp_path, *out, says="has no manifest.json")
    refused("score", made.log, "--bundle", made.log, *out, says="no bundle at")
    manifest = json.loads((made.bundle / "manifest.json").read_text())
    shutil.copytree(made.bundle, tmp_path / "later")
    (tmp_path / "later" / "manifest.json").write_text(json.dumps(manifest | {"format_version": 2}))
    refused("score", made.log, "--bundle", tmp_path / "later", *out, says="has format 2, this version")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["score"], "Missing argument 'LOG'; see botsieve score --help"),
        (["score", "LOG", "--bundle", "BUNDLE"], "Missing option '--out'; see botsieve score --help"),
        (["score", "LOG", "--bundle", "BUNDLE", "--out", "o.xlsx"], "must end in .parquet or .csv or .jsonl"),
        (
            ["score", "LOG", "--bundle", "BUNDLE", "--out", "none/o.csv"],
            "the folder none does not exist; make it first",
        ),
        (["score", "LOG", "--bundle", "BUNDLE", "--out", "o.csv", "--per", "day"], "--per takes request or client"),
        (["score", "LOG", "--bundle", "BUNDLE", "--out", "o.csv", "--device", "tpu"], "use auto, cpu or cuda"),
        (["score", "LOG", "--bundle", "BUNDLE", "--out", "o.csv", "--format", "xml"], "there is no format xml"),
        (["score", "LOG", "--bundle", "BUNDLE", "--out", "o.csv", "--stamp", "mid"], "use one of auto, start, end"),
        (["score", "LOG", "--bundle", "BUNDLE", "--out", "o.csv", "--columns", "time"], "takes FIELD=COLUMN"),
        (["score", "LOG", "--bundle", "BUNDLE", "--out", "o.csv", "--columns", "when=t"], "no event field when"),
        (["score", "LOG", "--bundle", "BUNDLE", "--out", "o.csv", "--threads", "-1"], "see botsieve score --help"),
        (["score", "LOG", "--bundle", "BUNDLE", "--out", "o.csv", "--max-rejected", "-1"], "--max-rejected"),
        (["score", "LOG", "--bundle", "BUNDLE", "--out", "o.csv", "--wrong"], "No such option: --wrong; see botsieve"),
        (["score", "LOG", "--bundle", "BUNDLE", "--out", "o.csv", "--per-client"], "did you mean --per client?; see"),
        (["score", "-", "--bundle", "BUNDLE", "--out", "o.csv"], "- is no file; name /dev/stdin to read"),
        (["features", "LOG", "--out", "o.csv"], "must end in .parquet"),
        (["evaluate", "LOG", "--bundle", "BUNDLE", "--json", "none/o.json"], "the folder none does not exist"),
        (["evaluate", "LOG", "--bundle", "BUNDLE", "--inject", "magic"], "unknown attack 'magic'; known are"),
        (["evaluate"], "Missing argument 'LOG'; see botsieve evaluate --help"),
        (["evaluate", "LOG"], "Missing option '--bundle'; see botsieve evaluate --help"),
        (["evaluate", "LOG", "--bundle", "BUNDLE", "--out", "d"], "--out is for --protocol"),
        (["evaluate", "--protocol"], "Missing option '--out'; see botsieve evaluate --help"),
        (["evaluate", "LOG", "--protocol", "--out", "d"], "give no LOG and no --bundle"),
        (
            ["evaluate", "--protocol", "--out", "d", "--seed", "3"],
            "--seed is for a log; --protocol takes --out, --plan",
        ),
        (["evaluate", "--protocol", "--out", "d", "--plan", "magic"], "unknown plan 'magic'; known are full, small"),
        (["train", "LOG", "--bundle", "b", "--prior", "0"], "--prior is a share between 0 and 1, not 0"),
        (["train", "LOG", "--bundle", "b", "--prior", "nan"], "--prior is a share between 0 and 1, not nan"),
        (["train", "LOG", "--bundle", "b", "--without", "magic"], "there is no feature group magic; the groups are"),
        (["train", "LOG", "--bundle", "b", "--challenge-budget", "2"], "budgets must satisfy"),
        (["train", "LOG", "--bundle", "b", "--block-budget", "0.1"], "budgets must satisfy"),
        (["train", "LOG", "--bundle", "b", "--seed", "x"], "Invalid value for '--seed'"),
        (["train", "LOG", "--bundle", "b", "--inject", "magic"], "unknown attack 'magic'; known are"),
        (["simulate", "--out", "o.txt"], "must end in .jsonl or .parquet"),
        (["simulate", "--out", "o.jsonl", "--duration", "-1"], "duration -1 s is not between"),
        (["simulate", "--out", "o.jsonl", "--duration", "nan"], "duration nan s is not between"),
        (["simulate", "--out", "o.jsonl", "--attacks", "magic"], "unknown attack 'magic'; known are"),
        (["magic"], "No such command 'magic'; see botsieve --help"),
    ],
)
def test_bad_usage_is_one_line_that_says_what_to_do(
    arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Made
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"LOG": str(made.log), "BUNDLE": str(made.bundle)}
    refused(*(places.get(word, word) for word in arguments), says=says)
    assert [path for path in tmp_path.iterdir() if not path.name.startswith(".")] == []


@pytest.mark.parametrize("name", ["features", "score", "evaluate", "train", "drift", "whatif", "promote", "replay"])
@pytest.mark.parametrize(
    ("option", "says"),
    [
        (["--format", "nginx"], "there is no format nginx; use one of auto, combined"),
        (["--stamp", "begin"], "there is no stamp begin; use one of auto, start, end"),
        (["--columns", "foo"], "--columns takes FIELD=COLUMN, not 'foo'"),
        (["--columns", "when=ts"], "there is no event field when to map"),
    ],
)
def test_options_of_reading_are_checked_before_anything_is_read_or_loaded(
    name: str, option: list[str], says: str, tmp_path: Path
) -> None:
    line: list[Any] = [name, tmp_path / "none.log", "--out", tmp_path / "o.csv", "--bundle", tmp_path / "none"]
    if name == "features":
        line = line[:4]
    if name in ("evaluate", "train", "drift"):
        del line[2:4]
    if name == "replay":
        line = [*line[:4], "--url", "http://127.0.0.1:1"]
    if name == "promote":
        line = [name, "models:/botsieve/1", "--log", tmp_path / "none.log", "--registry", tmp_path]
    assert botsieve(*line, *option) == (2, "", f"botsieve: {refused(*line, *option, says=says)[10:]}\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["evaluate", "train", "whatif"])
def test_attacks_to_weave_in_are_checked_before_the_log_is_read(name: str, tmp_path: Path, made: Made) -> None:
    line: list[Any] = [name, tmp_path / "none.log", "--bundle", tmp_path / "new" if name == "train" else made.bundle]
    out = ["--out", tmp_path / "forecast"] if name == "whatif" else []
    refused(*line, *out, "--inject", "everything", "--quiet", says="unknown attack 'everything'; known are all, none, ")


def test_a_folder_that_cannot_be_written_to_is_named_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Made
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path and (mode != 0))
    bundle = ["--bundle", made.bundle, "--quiet"]
    line: list[Any]
    for line in (
        ["score", made.log, "--out", tmp_path / "o.csv", *bundle],
        ["features", made.log, "--out", tmp_path / "o.parquet", "--quiet"],
        ["evaluate", made.log, "--json", tmp_path / "o.json", *bundle],
        ["evaluate", made.log, "--rejects", tmp_path / "r.jsonl", *bundle],
        ["simulate", "--out", tmp_path / "o.jsonl", "--quiet"],
    ):
        refused(*line, says=f"the folder {tmp_path} cannot be written to; name a file in another")
    refused("score", made.log, "--out", made.log / "o.csv", *bundle, says=f"{made.log} is no folder, so ")
    assert list(tmp_path.iterdir()) == []


def test_no_more_threads_than_cores_are_started() -> None:
    assert threads_of(100_000) == threads_of(0) == len(os.sched_getaffinity(0))
    assert threads_of(1) == 1


def test_no_command_shows_the_help(made: Made) -> None:
    ran = botsieve()
    assert ran.code == 2
    assert "Usage: botsieve" in ran.out


def test_a_log_is_never_overwritten(tmp_path: Path, made: Made) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes((BAD / "one_client.jsonl").read_bytes())
    (tmp_path / "link.jsonl").symlink_to(log)
    bundle = ["--bundle", made.bundle, "--quiet"]
    for line in (
        ["score", log, "--out", log, *bundle],
        ["score", log, "--out", tmp_path / "link.jsonl", *bundle],
        ["score", log, "--out", tmp_path / "out.csv", "--rejects", log, *bundle],
        ["evaluate", log, "--json", log, *bundle],
        ["evaluate", log, "--report", log, *bundle],
        ["evaluate", log, "--rejects", log, *bundle],
        ["train", log, "--bundle", tmp_path / "new", "--rejects", log, "--quiet"],
    ):
        refused(*line, says="is one of the logs and would be overwritten")
        assert log.read_bytes() == (BAD / "one_client.jsonl").read_bytes()


def test_a_folder_of_other_things_is_never_taken_for_a_bundle(tmp_path: Path, made: Made) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with small_forests():
        line = ["train", made.log, "--bundle", tmp_path / "mine", "--capacity", 64, "--threads", 1, "--quiet"]
        refused(*line, says="is no bundle, so it is left alone")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_not_enough_memory_and_a_full_disk_are_failed_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Made
) -> None:
    from classifier.cli import featuring

    for error, says in (
        (MemoryError(), "not enough memory"),
        (OSError(28, "No space left on device"), "No space left"),
    ):

        def fail(*_: Any, error: BaseException = error, **__: Any) -> None:
            raise error

        monkeypatch.setattr(featuring, "feature_chunks", fail)
        refused("features", made.log, "--out", tmp_path / "o.parquet", "--quiet", code=1, says=says)
    monkeypatch.setattr(featuring, "feature_chunks", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    refused("features", made.log, "--out", tmp_path / "o.parquet", "--quiet", code=130, says="interrupted")
    assert list(tmp_path.iterdir()) == []
