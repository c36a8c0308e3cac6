"""Combined logs: what each line gives, and that the vectorised and the exact parser read alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifier.errors import LogError
from classifier.events import EVENT_SCHEMA, microseconds
from classifier.logs import Reading, exact, read_log, stamps
from classifier.logs.combined import CombinedReader, _lines
from classifier.logs.lines import Block

SAMPLES = Path(__file__).parents[1] / "data" / "logs"


def block_of(*lines: str) -> Block:
    data = b"".join(line.encode() + b"\n" for line in lines)
    bounds = np.concatenate(([0], np.flatnonzero(np.frombuffer(data, np.uint8) == 10) + 1)).astype(np.int64)
    return Block(data, bounds, 1, 0)


def rows_of(path: Path, **options: Any) -> list[dict[str, Any]]:
    table = read_log([path], **options)
    assert table.schema == EVENT_SCHEMA
    return [{k: v for k, v in row.items() if v is not None} for row in table.to_pylist()]


def written(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "access.log"
    path.write_bytes("".join(line + "\n" for line in lines).encode())
    return path


def line(
    request: str = "GET / HTTP/1.1", ip: str = "203.0.113.7", stamp: str = "17/May/2015:10:05:03 +0000", tail: str = ""
) -> str:
    return f'{ip} - - [{stamp}] "{request}" 200 10 "-" "agent"{tail}'


def test_a_whole_combined_line() -> None:
    first = rows_of(SAMPLES / "combined.log")[0]
    assert first == {
        "time": microseconds("2015-05-17T10:05:03+00:00"),
        "ip": "203.0.113.7",
        "method": "GET",
        "path": "/docs/index.html?q=1",
        "status": 200,
        "response_bytes": 2033,
        "referer": "https://example.org/",
        "user_agent": "Mozilla/5.0 (X11; Linux x86_64)",
    }


def test_every_sample_line_is_accepted_and_stamps_mark_the_start() -> None:
    reading = Reading()
    rows = rows_of(SAMPLES / "combined.log", reading=reading)
    assert (reading.read, reading.accepted, reading.rejected) == (10, 10, 0)
    assert reading.files[0].format == "combined"
    assert reading.files[0].stamp == "start"
    start = microseconds("2015-05-17T10:05:03+00:00")
    assert [(row["time"] - start) // 1_000_000 for row in rows] == [0, 1, 2, 3, 4, 5, 6, 6, 7, 8]


def test_a_dash_is_absent_and_an_unverified_user_is_no_account() -> None:
    row = rows_of(SAMPLES / "combined.log")[1]
    assert row.keys() == {"time", "ip", "method", "path", "status"}


def test_the_remote_user_is_an_account_where_the_operator_says_so() -> None:
    rows = rows_of(SAMPLES / "combined.log", columns={"account": "remote_user"})
    assert [row.get("account") for row in rows[:3]] == [None, "alice", None]
    rows = rows_of(SAMPLES / "combined.log", columns={"credential": "remote_user"})
    assert rows[1]["credential"] == "alice"


def test_other_columns_of_a_combined_log_are_refused() -> None:
    with pytest.raises(LogError, match="remote_user"):
        read_log([SAMPLES / "combined.log"], columns={"ip": "remote_user"})


def test_addresses_have_one_spelling() -> None:
    addresses = [row["ip"] for row in rows_of(SAMPLES / "combined.log")]
    assert addresses[2:5] == ["2001:db8::1", "203.0.113.9", "crawler.example.org"]


@pytest.mark.parametrize("ip", ["[2001:db8::1]", "[2001:db8::1]:443"])
def test_a_combined_log_may_begin_with_a_bracket(tmp_path: Path, ip: str) -> None:
    reading = Reading()
    assert len(rows_of(written(tmp_path, line(ip=ip), line()), reading=reading)) == 2
    assert reading.files[0].format == "combined"


def test_a_scanners_junk_request_is_evidence_and_no_bad_line() -> None:
    rows = rows_of(SAMPLES / "combined.log")[5:8]
    assert [(row["method"], row["path"]) for row in rows] == [("-", "\\x16\\x03\\x01\\x02"), ("-", "-"), ("-", "-")]


def test_escaped_stray_and_unclosed_quotes() -> None:
    rows = rows_of(SAMPLES / "combined.log")
    assert rows[3]["user_agent"] == 'say "hi"'
    assert rows[8]["user_agent"] == "Mozilla/5.0 (compatible; Examplebot/2.1"
    assert (rows[9]["path"], rows[9]["user_agent"]) == ('/a"b c', "stray")


def test_an_unclosed_quote_does_not_swallow_the_next_line(tmp_path: Path) -> None:
    path = written(tmp_path, line(), line()[:-1], line(), line("GET /cut")[:-25], line())
    reading = Reading()
    rows = rows_of(path, reading=reading)
    assert len(rows) == 4
    assert reading.reasons == {exact.NO_COMBINED: 1}


def test_nginx_lines_arrive_before_their_stamp() -> None:
    reading = Reading()
    rows = rows_of(SAMPLES / "nginx_timed.log", reading=reading)
    assert reading.files[0].stamp == "end"
    assert [row["duration"] for row in rows] == [1.25, 0.0, 0.5, 0.001]
    assert rows[0]["time"] == microseconds("2026-05-17T10:05:01.750+00:00")
    assert rows[2]["user_agent"] == 'a "quoted" agent'


def test_stamp_overrides_what_was_told_from_the_log() -> None:
    row = rows_of(SAMPLES / "nginx_timed.log", stamp="start")[0]
    assert row["time"] == microseconds("2026-05-17T10:05:03+00:00")
    assert row["duration"] == 1.25


@pytest.mark.parametrize(
    ("further", "seconds"),
    [
        (" 0.123", "0.123"),
        (" 0.123 0.100 .", "0.123"),
        (' "10.0.0.1, 198.51.100.1" 0.123', "0.123"),
        (' "1.234 in quotes" 0.123', "0.123"),
        (' "esc \\" 1.234" 0.123', "0.123"),
        (" host.example 0.123", "0.123"),
        (" rt=0.123", "0.123"),
        (" request_time=0.123 x", "0.123"),
        (" 1234", None),
        (" 0.12345", None),
        (' "0.123"', None),
        ("", None),
        (" ", None),
    ],
)
def test_request_time_among_further_fields(further: str, seconds: str | None) -> None:
    expected = [seconds]
    assert _lines(block_of(line(tail=further)))[0]["request_time"].to_list() == expected
    assert [exact.parse(line(tail=further)).request_time] == expected
    assert exact.request_time(further) == seconds


@pytest.mark.parametrize("stamp", ["auto", "start", "end"])
@pytest.mark.parametrize("seconds", ["99999999999999999999.000", "9" * 400 + ".000", "31622401.000"])
def test_a_request_time_of_more_than_a_year_is_a_reject(tmp_path: Path, stamp: str, seconds: str) -> None:
    path, reading = written(tmp_path, line(tail=" 0.123"), line(tail=f" {seconds}"), line(tail=" 0.123")), Reading()
    assert len(rows_of(path, stamp=stamp, reading=reading)) == 2
    assert reading.reasons == {"duration is not between 0 s and a year": 1}


@pytest.mark.parametrize(
    ("request_", "path"),
    [
        ("GET http://example.org/a?b=c HTTP/1.1", "/a?b=c"),
        ("GET HTTPS://example.org HTTP/1.1", "/"),
        ("GET http://example.org?x=/y HTTP/1.1", "/?x=/y"),
        ("CONNECT example.org:443 HTTP/1.1", "example.org:443"),
        ("OPTIONS * HTTP/1.1", "*"),
        ("GET /old", "/old"),
        ("GET /two words HTTP/1.1", "/two words"),
        ("GET /u\\xc3\\xa9 HTTP/1.1", "/ué"),
        ("GET /\\x1b[31m HTTP/1.1", "/\\x1b[31m"),
        ("GET /\\x00\\xff HTTP/1.1", "/\\x00\\xff"),
        ("GET /" + "a" * 5000 + " HTTP/1.1", "/" + "a" * 4095),
        ("GET /" + "é" * 5000 + " HTTP/1.1", "/" + "é" * 4095),
    ],
)
def test_paths(tmp_path: Path, request_: str, path: str) -> None:
    assert [row["path"] for row in rows_of(written(tmp_path, line(request_), line()))] == [path, "/"]


@pytest.mark.parametrize("junk", ["", "-", "\\x16\\x03\\x01", "GET", "GET  HTTP/1.1", "http://x/", "{}"])
def test_junk_requests_keep_their_text(tmp_path: Path, junk: str) -> None:
    row = rows_of(written(tmp_path, line(junk)))[0]
    assert (row["method"], row["path"]) == ("-", junk or "-")


def test_raw_control_characters_never_reach_a_value(tmp_path: Path) -> None:
    rows = rows_of(written(tmp_path, line("GET /\x1b[31m HTTP/1.1"), line("\x07 \x1b]0;x")))
    assert [row["path"] for row in rows] == ["/\\x1b[31m", "\\x07 \\x1b]0;x"]


def test_bytes_that_are_no_utf8_are_written_as_nginx_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.write_bytes(line("GET /caf\xe9 HTTP/1.1").encode("latin-1") + b"\n" + line("GET /é HTTP/1.1").encode() + b"\n")
    assert [row["path"] for row in rows_of(path)] == ["/caf\\xe9", "/é"]


def test_a_blank_in_the_user_name_and_lines_ended_the_windows_way(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    odd = line().replace("- - [", "- Jane Doe [x] [")
    path.write_bytes("\r\n".join([line(), "", odd, "  ", line()]).encode())
    reading = Reading()
    rows = rows_of(path, columns={"account": "remote_user"}, reading=reading)
    assert [row.get("account") for row in rows] == [None, "Jane Doe [x]", None]
    assert reading.read == 3


@pytest.mark.parametrize(
    ("front", "ip", "user"),
    [
        ("example.com:443 192.0.2.1 - -", "192.0.2.1", None),
        ("192.0.2.9:80 2001:DB8::0:1 - alice", "2001:db8::1", "alice"),
        ("[2001:db8::9]:443 192.0.2.1 - -", "192.0.2.1", None),
        ("example.com:443 crawler.example.org - Jane Doe [x]", "crawler.example.org", "Jane Doe [x]"),
        ("2001:db8::1 - - x", "2001:db8::1", "- x"),
        ("2001:db8::1 192.0.2.1 - x", "2001:db8::1", "- x"),
        ("host.example:5000 - Jane Doe", "host.example:5000", "Jane Doe"),
        ("host.example:5000 ident alice", "host.example:5000", "alice"),
    ],
)
@pytest.mark.parametrize("request_", ["GET / HTTP/1.1", 'GET /" HTTP/1.1'])
def test_the_client_behind_a_virtual_host(tmp_path: Path, front: str, ip: str, user: str | None, request_: str) -> None:
    path = written(tmp_path, line(request_).replace("203.0.113.7 - -", front))
    row = rows_of(path, columns={"account": "remote_user"})[0]
    assert (row["ip"], row.get("account"), row["user_agent"]) == (ip, user, "agent")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("17/May/2015:10:05:03 +0000", "2015-05-17T10:05:03+00:00"),
        ("29/Feb/2024:23:59:59 -0730", "2024-02-29T23:59:59-07:30"),
        ("01/jan/1970:00:00:01 +0000", "1970-01-01T00:00:01+00:00"),
        ("31/DEC/2099:00:00:00 +1400", "2099-12-31T00:00:00+14:00"),
        ("31/Dec/2016:23:59:60 +0000", "2017-01-01T00:00:00+00:00"),
        ("29/Feb/2023:00:00:00 +0000", None),
        ("31/Apr/2023:00:00:00 +0000", None),
        ("00/Apr/2023:00:00:00 +0000", None),
        ("01/Foo/2023:00:00:00 +0000", None),
        ("01/Apr/2023:24:00:00 +0000", None),
        ("01/Apr/2023:00:60:00 +0000", None),
        ("01/Apr/2023:00:00:61 +0000", None),
        ("01/Apr/2023:00:00:00 +9900", None),
        ("01/Apr/2023:00:00:00 *0000", None),
        ("0x/Apr/2023:00:00:00 +0000", None),
        ("01-Apr-2023 00:00:00 +0000", None),
    ],
)
def test_stamps(text: str, expected: str | None) -> None:
    array = pl.Series(["17/May/2015:10:05:03 +0000", text]).to_arrow(compat_level=pl.CompatLevel.oldest())
    times, good = stamps.microseconds_of(array.slice(1))
    assert good.tolist() == [expected is not None]
    if expected:
        assert times.tolist() == [microseconds(expected)]


def test_no_stamps_at_all() -> None:
    empty = pl.Series([], dtype=pl.String).to_arrow(compat_level=pl.CompatLevel.oldest())
    assert [len(a) for a in stamps.microseconds_of(empty)] == [0, 0]


def test_a_day_that_does_not_exist_is_a_reject(tmp_path: Path) -> None:
    reading = Reading()
    path = written(tmp_path, line(stamp="31/Feb/2015:10:05:03 +0000"), line(), line(stamp="01/Jan/1969:00:00:00 +0000"))
    assert len(rows_of(path, reading=reading)) == 1
    assert sorted(reading.reasons) == [
        "time is no such day or hour",
        "time is not in the years 1970 to 2261 (is it in Unix seconds?)",
    ]


WORD = st.text("abcXYZ019._~%é-", min_size=1, max_size=8)
FREE = st.text("abc 019;()/+é-:,", max_size=20)
TAILS = st.sampled_from(["", " ", " 0.123", " 0.123 0.1", ' "-" 1.000', ' "10.0.0.1, x" rt=2.500 .', " 77", " a 3.125"])


@st.composite
def good_lines(draw: st.DrawFn) -> str:
    method = draw(st.sampled_from(["GET", "POST", "get", "M-SEARCH"]))
    request = f"{method} /{draw(WORD)} HTTP/{draw(st.sampled_from(['1.1', '2.0']))}"
    front = draw(st.sampled_from(["", "", "example.org:443 ", "[2001:db8::1]:80 "]))
    front += f'{draw(WORD)} - {draw(WORD)} [17/May/2015:10:05:0{draw(st.integers(0, 9))} +0000] "{request}" '
    front += f"{draw(st.integers(100, 599))} {draw(st.sampled_from(['-', '0', '123', '99999999999999999999']))}"
    return front if draw(st.booleans()) else f'{front} "{draw(FREE)}" "{draw(FREE)}"{draw(TAILS)}'


@settings(max_examples=200, deadline=None)
@given(st.lists(good_lines(), min_size=1, max_size=5))
def test_both_parsers_read_a_line_alike(lines: list[str]) -> None:
    vectorised, refused = _lines(block_of(*lines))
    assert not refused
    assert [exact.Fields(*row[:-1]) for row in vectorised.iter_rows()] == [exact.parse(text) for text in lines]


def test_good_lines_take_the_vectorised_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(_: str) -> None:
        raise AssertionError("a plain line was parsed one by one")

    monkeypatch.setattr(exact, "parse", never)
    block = block_of(
        line(), line(tail=" 0.123"), line(tail=' "x" 0.123 0.1'), line()[: -len(' "-" "agent"')], "host:1 " + line()
    )
    assert len(CombinedReader(None, False, False).parse(block)) == 5


@pytest.mark.parametrize(
    "hostile",
    [
        '1 - - [17/May/2015:10:05:03 +0000] "' * 20_000,
        "1 - - [17/May/2015:10:05:03 +0000] " + '"' * 500_000,
        "1 - - " + " [17/May/2015:10:05:03 +0000" * 20_000,
        line() + ' "' * 250_000,
        line() + " 0.12" * 100_000,
        line("GET " + "/ " * 250_000)[:-3],
        line("\\" * 300_001),
    ],
)
def test_hostile_lines_take_linear_time(hostile: str) -> None:
    """Each takes milliseconds; a pattern that backtracks would take hours, so no clock is needed to tell."""
    CombinedReader(None, False, False).parse(block_of(hostile[: 1 << 20]))
