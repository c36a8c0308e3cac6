"""Damaged, hostile and empty logs: every line is accepted or rejected, and nothing stops the reading."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from classifier.cli.logs import LogOptions
from classifier.errors import LogError
from classifier.logs import FORMATS, Reading, exact, read_events, read_log, source
from classifier.logs.clock import AHEAD
from classifier.logs.jsonlines import TOO_DEEP
from classifier.logs.lines import TOO_LONG

COMBINED = b'203.0.113.7 - - [17/May/2015:10:05:%02d +0000] "GET /%d HTTP/1.1" 200 10 "-" "agent"\n'
EVENT = b'{"time": 17780000%02d, "ip": "203.0.113.7", "method": "GET", "path": "/%d"}\n'


def combined(lines: int = 20) -> bytes:
    return b"".join(COMBINED % (i % 60, i) for i in range(lines))


def events(lines: int = 20) -> bytes:
    return b"".join(EVENT % (i % 60, i) for i in range(lines))


def read(tmp_path: Path, data: bytes, **options: Any) -> tuple[list[dict[str, Any]], Reading]:
    path = tmp_path / "log"
    path.write_bytes(data)
    reading = Reading()
    table = read_log([path], reading=reading, **options)
    assert reading.read == reading.accepted + reading.rejected == reading.files[0].lines
    assert table.num_rows == reading.accepted
    assert sum(reading.reasons.values()) == reading.rejected
    return table.to_pylist(), reading


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd])
@pytest.mark.parametrize("data", [combined(), events()])
def test_compression_is_told_by_content(tmp_path: Path, pack: Callable[[bytes], bytes], data: bytes) -> None:
    rows, reading = read(tmp_path, pack(data))
    assert len(rows) == reading.accepted == 20


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_members_one_after_the_other(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    data = combined()
    rows, _ = read(tmp_path, pack(data[:500]) + pack(b"") + pack(data[500:]))
    assert [row["path"] for row in rows] == [f"/{i}" for i in range(20)]


def test_gzip_padded_with_zeros(tmp_path: Path) -> None:
    assert len(read(tmp_path, gzip.compress(combined()) + b"\0" * 512)[0]) == 20


READ = source.READ_BYTES


def members(second_at: int, begun: int | None = None) -> bytes:
    """Two gzip members of 10 lines each, zeros between them, and of the second the first `begun` bytes."""
    member = gzip.compress(combined(10))
    return member.ljust(second_at, b"\0") + member[:begun]


@pytest.mark.parametrize("at", [0, 1_000, READ - 1, READ, READ + 1, 2 * READ, 3 * READ - 1])
def test_gzip_members_behind_zeros_are_read(tmp_path: Path, at: int) -> None:
    rows, reading = read(tmp_path, members(at))
    assert (len(rows), reading.rejected) == (20, 0)


@pytest.mark.parametrize("at", [1_000, READ - 1, READ, 2 * READ])
@pytest.mark.parametrize("begun", [1, 2, 30])
def test_a_gzip_member_behind_zeros_that_is_cut_is_one_reject(tmp_path: Path, at: int, begun: int) -> None:
    rows, reading = read(tmp_path, members(at, begun))
    assert (len(rows), reading.rejected) == (10, 1)


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
@pytest.mark.parametrize("lost", [1, 9, 60])
def test_a_cut_stream_keeps_its_whole_lines(tmp_path: Path, pack: Callable[[bytes], bytes], lost: int) -> None:
    whole = pack(combined(6_000))  # zstd unpacks whole blocks of 128 KiB: there must be some before the last
    rows, reading = read(tmp_path, whole[:-lost])
    assert [row["path"] for row in rows] == [f"/{i}" for i in range(len(rows))]
    assert len(rows) > 3_000
    assert reading.rejected == 1
    assert "breaks off" in next(iter(reading.reasons))
    if pack is gzip.compress and lost < 9:  # only the checksum is lost
        assert len(rows) == 6_000


def test_a_damaged_gzip_keeps_what_comes_before(tmp_path: Path) -> None:
    noise = b"".join(COMBINED % (i % 60, (i * 2654435761) % 2**32) for i in range(20_000))
    whole = bytearray(gzip.compress(noise, 6))
    at = len(whole) // 2
    whole[at : at + 64] = bytes(64)
    rows, reading = read(tmp_path, bytes(whole))
    assert 5_000 < len(rows) < 20_000
    assert reading.reasons["gzip stream is damaged from here"] == 1


def test_gzip_with_junk_behind_it(tmp_path: Path) -> None:
    rows, reading = read(tmp_path, gzip.compress(combined()) + b"junk")
    assert len(rows) == 20
    assert reading.reasons == {"bytes after the end of the gzip stream are no gzip": 1}


def test_gzip_of_which_nothing_comes_out(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="breaks off"):
        read(tmp_path, gzip.compress(combined())[:12])


def test_other_packers_are_named(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="packed with xz; unpack it"):
        read(tmp_path, lzma.compress(combined()))


def test_a_line_of_10_mb_is_rejected_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "log.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(combined(2))
        for _ in range(64):
            file.write(b"x" * (1 << 20))
        file.write(b"\n" + combined(3))
    reading, notes = Reading(), tmp_path / "rejects"
    tracemalloc.start()
    table = read_log([path], reading=reading, rejects=notes, keep_rejected=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert table.num_rows == 5
    assert reading.reasons == {TOO_LONG: 1}
    assert peak < 32 << 20
    note = json.loads(notes.read_text())
    assert (note["line"], note["offset"]) == (3, len(combined(2)))
    assert note["content"] == "x" * 1024


@pytest.mark.parametrize("where", ["first", "middle", "last", "last, unended"])
@pytest.mark.parametrize("length", [(1 << 20) + 1, 3 << 20, 9 << 20])
def test_long_lines_anywhere(tmp_path: Path, where: str, length: int) -> None:
    long = b"y" * length
    data = {
        "first": long + b"\n" + combined(),
        "middle": combined(10) + long + b"\n" + combined(10),
        "last": combined() + long + b"\n",
        "last, unended": combined() + long,
    }[where]
    rows, reading = read(tmp_path, data, format="combined")
    assert len(rows) == 20
    assert reading.reasons == {TOO_LONG: 1}


DEPTH = 20_000
"""Deeper than C code may recurse: 10,000 calls in Python 3.13, fewer in 3.11."""
DEEP = "[" * DEPTH + "]" * DEPTH
LITELLM = '{"startTime": 1778000001, "requester_ip_address": "203.0.113.7", %s: %s}\n'
ENVOY = (
    '{"start_time": "2026-05-05T16:53:20Z", "method": "GET", "path": "/", "downstream_remote_address": "203.0.113.7:1"'
    ', "duration": 1, %s: %s}\n'
)


@pytest.mark.parametrize("format", ["auto", "named"])
@pytest.mark.parametrize(
    ("kind", "line", "key", "deep"),
    [
        ("jsonl", EVENT.decode()[:-2] % (1, 1) + ", %s: %s}\n", "x", DEEP),
        ("litellm", LITELLM, "messages", DEEP),
        ("litellm", LITELLM, "request_tags", f'"{DEEP}"'),
        ("envoy", ENVOY, "x", DEEP),
        ("envoy", ENVOY, "metadata", '{"metadata":' * DEPTH + "{}" + "}" * DEPTH),
    ],
)
def test_json_nested_too_deeply_is_a_reject(
    tmp_path: Path, format: str, kind: str, line: str, key: str, deep: str
) -> None:
    good, bad = line % ('"other"', "1"), line % (f'"{key}"', deep)
    rows, reading = read(tmp_path, (bad + good + bad + good).encode(), format=kind if format == "named" else format)
    assert len(rows) == 2
    assert reading.reasons == {TOO_DEEP: 2}
    assert reading.files[0].format == kind


@pytest.mark.parametrize("format", ["auto", "jsonl"])
def test_a_json_array_nested_too_deeply_is_an_error(tmp_path: Path, format: str) -> None:
    with pytest.raises(LogError):
        read(tmp_path, b"[" + events(1)[:-2] + b', "x": ' + DEEP.encode() + b"}]", format=format)


LONG = 700_000


@pytest.mark.parametrize("before", [b"", b"\n" * 300_000, b"x" * 1_200_000 + b"\n"])
@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("jsonl", EVENT.decode()[:-2] % (1, 1) + ', "prompt": "%s"}\n'),
        ("jsonl", '[{"prompt": "%s", ' + EVENT.decode()[1:-1] % (1, 1) + "]\n"),
        ("litellm", LITELLM % ('"messages"', '"%s"')),
        ("envoy", '{"x": "%s", ' + ENVOY[1:] % ('"y"', "1")),
        ("combined", COMBINED.decode()[:-2] % (1, 1) + '%s" 0.123\n'),
    ],
)
def test_the_format_of_a_log_that_begins_with_long_lines_is_told(
    tmp_path: Path, before: bytes, kind: str, line: str
) -> None:
    if line.startswith("["):
        before = b""
    rows, reading = read(tmp_path, before + (line % ("z" * LONG)).encode())
    assert (len(rows), reading.files[0].format) == (1, kind)
    assert reading.files[0].stamp == ("end" if kind == "combined" else "start")


def test_a_csv_whose_header_is_long_is_told(tmp_path: Path) -> None:
    more = b",x" * (LONG // 2)
    rows, reading = read(tmp_path, b"time,ip,method,path" + more + b"\n1778000000,203.0.113.7,GET,/" + more + b"\n")
    assert (len(rows), reading.files[0].format) == (1, "csv")


def test_a_line_of_1_mib_is_not_too_long(tmp_path: Path) -> None:
    prompt = b"z" * ((1 << 20) - 90)
    data = b'{"time": 1778000001, "ip": "203.0.113.7", "method": "GET", "path": "/", "prompt": "' + prompt + b'"}'
    assert len(data) <= 1 << 20
    rows, _ = read(tmp_path, events(2) + data)
    assert len(rows[2]["prompt"]) == len(prompt)


def test_binary_junk_nul_bytes_and_mixed_formats(tmp_path: Path) -> None:
    junk = bytes(range(256)) * 4
    data = combined(5) + junk + b"\n" + events(2) + b"\0" * 100 + b"\n" + combined(5) + b"\xff\xfe\n" + combined(5)
    rows, reading = read(tmp_path, data, format="auto")
    assert len(rows) == 15
    assert reading.read == data.count(b"\n")  # the junk has a line feed of its own, too
    assert set(reading.reasons) == {exact.NUL, exact.NO_COMBINED}
    rows, reading = read(tmp_path, data, format="jsonl")
    assert len(rows) == 2


def test_blank_lines_are_not_counted_but_numbered(tmp_path: Path) -> None:
    notes = tmp_path / "rejects"
    data = b"\r\n\n  \t\n" + combined(1) + b"\n\r\nbad line\r\n" + combined(1).replace(b"\n", b"\r\n") + b"\n \n"
    rows, reading = read(tmp_path, data, rejects=notes)
    assert len(rows) == 2
    assert reading.read == 3
    note = json.loads(notes.read_text())
    assert (note["line"], note["offset"]) == (7, data.index(b"bad"))


def test_the_last_line_needs_no_line_feed_and_the_first_may_have_a_byte_order_mark(tmp_path: Path) -> None:
    notes = tmp_path / "rejects"
    data = b"\xef\xbb\xbf" + events(2) + b"x\n" + events(1).rstrip()
    rows, _ = read(tmp_path, data, rejects=notes)
    assert len(rows) == 3
    assert json.loads(notes.read_text())["offset"] == data.index(b"x\n")


def test_rejects_hold_no_content_unless_asked(tmp_path: Path) -> None:
    notes = tmp_path / "rejects"
    data = events(1) + b'{"prompt": "a secret", "time": 1}\nanother secret\n{"time": "a third secret", "ip": "1", '
    data += (
        b'"method": "GET", "path": "/"}\n{"time": 1778000000, "ip": "a fourth secret", "method": "G", "path": "/"}\n'
    )
    _, reading = read(tmp_path, data, rejects=notes)
    assert reading.rejected == 4
    assert "secret" not in notes.read_text() + str(reading)
    entries = [json.loads(line) for line in notes.read_text().splitlines()]
    assert [set(entry) for entry in entries] == [{"file", "line", "offset", "reason"}] * 4
    read(tmp_path, data, rejects=notes, keep_rejected=True)
    kept = [json.loads(line)["content"].encode() for line in notes.read_text().splitlines()]
    assert kept == data.splitlines()[1:]


@pytest.mark.parametrize("named", [True, False])
def test_notes_of_an_earlier_run_stay_until_another_one_begins(tmp_path: Path, named: bool) -> None:
    out, log, notes = tmp_path / "out", tmp_path / "log", tmp_path / "out.rejects.jsonl"
    notes.write_text("earlier\n")
    log.write_bytes(events())
    options = LogOptions([tmp_path / "lgo"], "auto", None, "auto", notes if named else None, False, None, True)
    with pytest.raises(LogError, match="does not exist"):
        list(options.tables(out, "reading"))
    assert notes.read_text() == "earlier\n"
    options.logs = [log]
    list(options.tables(out, "reading"))
    assert (notes.read_text() == "") if named else not notes.exists()
    log.write_bytes(events() + b"x\n")
    list(options.tables(out, "reading"))
    assert notes.read_text().count("\n") == 1
    log.write_bytes(b"hello\n")
    with pytest.raises(LogError, match="no known format"):
        list(options.tables(out, "reading"))
    assert notes.exists() == named


def test_the_file_of_rejects_is_made_with_the_first_of_them(tmp_path: Path) -> None:
    log, notes = tmp_path / "log", tmp_path / "none" / "rejects"
    log.write_bytes(events())
    assert read_log([log], rejects=notes).num_rows == 20  # so that a folder that cannot be written to is no harm
    log.write_bytes(events() + b"x\n")
    with pytest.raises(LogError, match=r"noted in .*rejects \(No such file or directory\); name a file .* --rejects"):
        read_log([log], rejects=notes)


def test_wrong_types_name_their_field(tmp_path: Path) -> None:
    wrong = {"time": None, "ip": 7, "status": "200", "duration": "1", "malicious": 1, "input_tokens": 1.5, "prompt": []}
    good = {"time": 1_778_000_000, "ip": "203.0.113.7", "method": "GET", "path": "/"}
    lines = [json.dumps(good | {name: value}) for name, value in wrong.items()]
    _, reading = read(tmp_path, "\n".join([*lines, json.dumps(good), "[]", "3", '"x"', "null"]).encode())
    assert reading.accepted == 1
    for name in wrong:
        assert any(f"`$.{name}`" in reason for reason in reading.reasons), name


@pytest.mark.parametrize(
    "time", ["-1", "0", "1e300", "1" + "0" * 400, "9214646400", '"1969-12-31T23:59:59Z"', '"soon"']
)
def test_impossible_times_are_rejected(tmp_path: Path, time: str) -> None:
    bad = b'{"time": %s, "ip": "203.0.113.7", "method": "GET", "path": "/"}\n' % time.encode()
    rows, reading = read(tmp_path, events(3) + bad + events(3))
    assert len(rows) == 6
    assert next(iter(reading.reasons)).startswith(("time ", "line is no JSON", "Number out of range"))


def test_a_far_future_time_is_rejected_wherever_it_stands(tmp_path: Path) -> None:
    bad = b'{"time": 4102444800, "ip": "203.0.113.7", "method": "GET", "path": "/"}\n'
    for data in (bad + events(), events(10) + bad + events(10), events() + bad):
        rows, reading = read(tmp_path, data)
        assert len(rows) == 20
        assert reading.reasons == {AHEAD: 1}


@pytest.mark.parametrize("data", [b"", b"\n\n", b" \r\n", gzip.compress(b"", mtime=0), b"\xef\xbb\xbf"])
def test_an_empty_log(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(LogError, match="holds no lines"):
        read(tmp_path, data)


def test_one_of_several_logs_may_be_empty(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    (tmp_path / "b").write_bytes(combined())
    assert read_log([tmp_path / "a", tmp_path / "b"]).num_rows == 20


def test_nothing_accepted_names_the_commonest_reason(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"none of 3 lines .* as jsonl; most often \(2\): line is no JSON object"):
        read(tmp_path, b'a\nb\n{"time": 1}\n', format="jsonl")


def test_unknown_formats_list_the_known_ones(tmp_path: Path) -> None:
    for data in (b"hello\nworld\n", b"[1, 2]", bytes(range(1, 256)) * 9, "a".encode("utf-16") * 99):
        with pytest.raises(LogError, match=", ".join(FORMATS)):
            read(tmp_path, data)


def test_bad_arguments(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(events())
    with pytest.raises(LogError, match=r"no format weblog; use one of auto, combined"):
        read_events([path], format="weblog")
    with pytest.raises(LogError, match="use one of auto, start, end"):
        read_events([path], stamp="middle")
    with pytest.raises(LogError, match="does not exist"):
        read_events([tmp_path / "none"])
    with pytest.raises(LogError, match="is a folder"):
        read_log([tmp_path])
    with pytest.raises(LogError, match="no log was named"):
        read_events([])
    with pytest.raises(LogError, match="no event field when"):
        read_events([path], columns={"when": "time"})
    with pytest.raises(LogError, match=r"has no key when \(for time\); it has time, ip, method, path"):
        read_log([path], columns={"time": "when"})
    path.write_bytes(b'{"startTime": 1778000000}\n')
    with pytest.raises(LogError, match="does not apply to litellm"):
        read_log([path], columns={"time": "startTime"})


def test_progress_ends_at_all_of_all_bytes(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(gzip.compress(combined()))
    told: list[tuple[int, int]] = []
    read_log([tmp_path / "a", tmp_path / "b"], progress=lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1] == sum((tmp_path / name).stat().st_size for name in "ab")


def test_chunks_have_the_rows_that_were_asked_for(tmp_path: Path) -> None:
    for name, data in (("a", combined(25)), ("b", events(12))):
        (tmp_path / name).write_bytes(data)
    paths = [tmp_path / "a", tmp_path / "b"]
    assert [chunk.num_rows for chunk in read_events(paths, chunk_rows=10)] == [10, 10, 10, 7]
    whole = read_log(paths)
    for rows in (1, 7, 37, 100):
        assert pa.concat_tables(read_events(paths, chunk_rows=rows)).equals(whole)


def test_large_events_make_smaller_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("classifier.logs.reader.MAX_CHUNK_BYTES", 10_000)
    monkeypatch.setattr(source, "PIECE_BYTES", 2_000)
    (tmp_path / "a").write_bytes(events(500))
    chunks = list(read_events([tmp_path / "a"]))
    assert len(chunks) > 2
    assert all(chunk.nbytes < 20_000 for chunk in chunks)
    assert sum(chunk.num_rows for chunk in chunks) == 500


BASE = [COMBINED % (i, i) for i in range(6)] + [EVENT % (i, i) for i in range(6)]


@st.composite
def corrupted(draw: st.DrawFn) -> bytes:
    """Good lines of two formats, with bytes changed, dropped, doubled or put in anywhere."""
    data = bytearray(b"".join(draw(st.lists(st.sampled_from(BASE), min_size=1, max_size=12))))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(data)))
        length = draw(st.sampled_from([0, 0, 1, 5, 40]))
        junk = draw(st.sampled_from([b"", b"\n", b'"', b"\\", b"\0", b"\r", b" ", b"\xff", b"\xc3", b"[", b"9" * 30]))
        data[at : at + length] = junk if draw(st.booleans()) else draw(st.binary(max_size=8))
    return bytes(data)


@settings(max_examples=150, deadline=None)
@given(corrupted(), st.sampled_from(["combined", "jsonl", "envoy", "litellm"]), st.sampled_from([1, 3, 1000]))
def test_read_is_accepted_and_rejected_whatever_the_bytes(data: bytes, kind: str, chunk_rows: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, notes, reading = Path(folder, "log"), Path(folder, "rejects"), Reading()
        path.write_bytes(data)
        filled = [line for line in data.split(b"\n") if line.strip(b" \t\r\n\v\f")]
        rows = 0
        try:
            for chunk in read_events(
                [path], format=kind, chunk_rows=chunk_rows, rejects=notes, keep_rejected=True, reading=reading
            ):
                rows += chunk.num_rows
        except LogError as error:
            assert not reading.accepted
            if "JSON array" in str(error):
                return
        assert reading.read == reading.accepted + reading.rejected == len(filled)
        assert reading.accepted == rows
        entries = [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []
        assert len(entries) == reading.rejected
        for entry in entries:
            assert data[: entry["offset"]].count(b"\n") == entry["line"] - 1
            assert data[entry["offset"] - 1 : entry["offset"]] in (b"", b"\n")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_packed_streams_cut_or_changed_anywhere_never_stop_the_reading(data: st.DataObject) -> None:
    packed = bytearray(data.draw(st.sampled_from([gzip.compress(combined()), zstd(combined())])))
    if data.draw(st.booleans()):
        packed = packed[: data.draw(st.integers(5, len(packed)))]
    else:
        packed[data.draw(st.integers(4, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    with tempfile.TemporaryDirectory() as folder:
        path, reading = Path(folder, "log"), Reading()
        path.write_bytes(packed)
        try:
            read_log([path], format="combined", reading=reading)
        except LogError:
            assert not reading.accepted
        assert reading.read == reading.accepted + reading.rejected


def test_zstd_frames_of_any_make(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zstandard.ZstdCompressor(write_checksum=True).stream_writer(buffer, closefd=False) as writer:
        writer.write(combined(10))
    skippable = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"seek"
    rows, _ = read(tmp_path, buffer.getvalue() + skippable + zstd(combined(5)))
    assert len(rows) == 15


@pytest.mark.parametrize("first", [0x50, 0x5F])
@pytest.mark.parametrize("length", [0, 4, 10_000])
def test_zstd_may_begin_with_frames_to_be_skipped(tmp_path: Path, first: int, length: int) -> None:
    skippable = bytes([first]) + b"\x2a\x4d\x18" + length.to_bytes(4, "little") + bytes(length)
    rows, _ = read(tmp_path, skippable + skippable + zstd(combined(10)) + skippable + zstd(combined(5)))
    assert len(rows) == 15
    with pytest.raises(LogError, match="breaks off"):
        read(tmp_path, skippable + zstd(combined())[:-1])
    with pytest.raises(LogError, match="holds no lines"):
        read(tmp_path, skippable)
