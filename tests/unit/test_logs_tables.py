"""CSV and Parquet of events, with columns of any name."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from classifier.errors import LogError
from classifier.events import EVENT_SCHEMA
from classifier.logs import Reading, read_events, read_log

SAMPLES = Path(__file__).parents[1] / "data" / "logs"
COLUMNS = {"time": "when", "ip": "client", "duration": "seconds"}
GOOD = {
    "time": [1_778_000_000.25, 1_778_000_001.0],
    "ip": ["1.2.3.4", "::1"],
    "method": ["GET", "GET"],
    "path": ["/"] * 2,
}


def parquet(tmp_path: Path, **columns: Any) -> Path:
    path = tmp_path / "events"
    pq.write_table(pa.table({**GOOD, **columns}), path)
    return path


def test_csv() -> None:
    reading = Reading()
    rows = read_log([SAMPLES / "events.csv"], columns=COLUMNS, reading=reading).to_pylist()
    assert (reading.files[0].format, reading.read, reading.accepted) == ("csv", 7, 4)
    assert [row["time"] for row in rows] == [
        1_778_000_000_250_000,
        1_778_000_001_000_000,
        1_778_000_002_000_000,
        1_778_000_004_000_000,
    ]
    assert [row["status"] for row in rows] == [200, None, 200, 404]
    assert [row["duration"] for row in rows] == [1.5, None, None, 0.1]
    assert reading.reasons == {
        "line is no CSV record: unexpected end of data": 1,
        "status is no whole number": 1,
        "line has another number of cells than the header": 1,
    }


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_csv_with_other_delimiters(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "log"
    lines = (SAMPLES / "events.csv").read_text().splitlines()
    path.write_text("\n".join(line.replace(",", delimiter) for line in (lines[0], lines[2], lines[3])))
    assert read_log([path], columns=COLUMNS).num_rows == 2


@pytest.mark.parametrize("quoted", [True, False])
def test_a_csv_cell_may_be_as_long_as_a_line(tmp_path: Path, quoted: bool) -> None:
    path, prompt = tmp_path / "log", "x" * 1_000_000
    cell = f'"{prompt}"' if quoted else prompt
    path.write_text(f"time,ip,method,path,prompt\n1778000000,203.0.113.7,GET,/,{cell}\n")
    assert read_log([path])["prompt"].to_pylist() == [prompt]
    path.write_text(f"time,ip,method,path,{cell}\n1778000000,203.0.113.7,GET,/,1\n")
    assert read_log([path]).num_rows == 1


def test_csv_truth_values(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(
        "time,ip,method,path,malicious\n" + "".join(f"1778000000,1.2.3.4,GET,/,{v}\n" for v in ("true", 0, "", "maybe"))
    )
    reading = Reading()
    assert read_log([path], reading=reading)["malicious"].to_pylist() == [True, False, None]
    assert reading.reasons == {"malicious is no truth value": 1}


def test_a_missing_column_is_named_with_the_option_that_helps(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"no column time; name it with --columns time=COLUMN, of when, client, method"):
        read_log([SAMPLES / "events.csv"], format="csv")
    with pytest.raises(LogError, match=r"no column nowhere \(for ip\)"):
        read_log([SAMPLES / "events.csv"], format="csv", columns={**COLUMNS, "ip": "nowhere"})
    path = tmp_path / "events"
    pq.write_table(pa.table({"time": [1.0]}), path)
    with pytest.raises(LogError, match="no column ip"):
        read_log([path])


def test_a_csv_is_known_by_any_column_so_that_the_missing_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("ts,client_addr,method,path\n1778000000,1.2.3.4,GET,/\n")
    with pytest.raises(LogError, match=r"no column client_adr \(for ip\); it has ts, client_addr, method, path"):
        read_log([path], columns={"time": "ts", "ip": "client_adr"})
    with pytest.raises(LogError, match=r"no column time; name it with --columns time=COLUMN, of ts, client_addr"):
        read_log([path])
    assert read_log([path], columns={"time": "ts", "ip": "client_addr"}).num_rows == 1


def test_a_csv_of_nothing_but_its_header_holds_no_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("time,ip,method,path\n")
    with pytest.raises(LogError, match="holds no lines"):
        read_log([path])


def test_parquet_of_the_event_schema(tmp_path: Path) -> None:
    table = read_log([SAMPLES / "events.jsonl"])
    path = tmp_path / "events"
    seconds = table.set_column(0, "time", pc.divide(table["time"].cast(pa.float64()), 1e6))
    pq.write_table(seconds.append_column("unknown", pa.array([[1]] * 3)), path)
    reading = Reading()
    assert read_log([path], reading=reading).equals(table)
    assert reading.files[0].format == "parquet"


@pytest.mark.parametrize(
    "times",
    [
        pa.array([1_778_000_000, 1_778_000_001]),
        pa.array([1_778_000_000, 1_778_000_001], pa.uint32()),
        pa.array(["2026-05-05T16:53:20Z", "2026-05-05 16:53:21"]),
        pa.array([datetime(2026, 5, 5, 16, 53, 20), datetime(2026, 5, 5, 16, 53, 21)]),
        pa.array([datetime(2026, 5, 5, 16, 53, 20 + i, tzinfo=UTC) for i in range(2)], pa.timestamp("ns", "UTC")),
        pa.array([1_778_000_000.0, 1_778_000_001.0]),
    ],
)
def test_parquet_times(tmp_path: Path, times: Any) -> None:
    table = read_log([parquet(tmp_path, time=times)])
    assert table["time"].to_pylist() == [1_778_000_000_000_000, 1_778_000_001_000_000]


def test_parquet_as_pandas_writes_it(tmp_path: Path) -> None:
    path = parquet(
        tmp_path,
        status=[200.0, float("nan")],
        duration=pa.array([1, None], pa.int32()),
        ip=pa.array(["1.2.3.4", "::1"]).dictionary_encode(),
        user_agent=pa.array(["a", None], pa.large_string()),
        account=pa.nulls(2),
    )
    table = read_log([path])
    assert table.schema == EVENT_SCHEMA
    assert table["status"].to_pylist() == [200, None]
    assert table["duration"].to_pylist() == [1.0, None]
    assert table["user_agent"].to_pylist() == ["a", None]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"time": [float("nan"), 1_778_000_001.0]}, "time is not in the years 1970 to 2261 (is it in Unix seconds?)"),
        ({"time": pa.array([2**62, 1_778_000_001])}, "time is not in the years 1970 to 2261 (is it in Unix seconds?)"),
        ({"time": [None, 1_778_000_001.0]}, "time is missing"),
        ({"time": ["soon", "2026-05-05T16:53:21Z"]}, "time is not in the years 1970 to 2261 (is it in Unix seconds?)"),
        ({"ip": [None, "::1"]}, "ip is missing"),
        ({"path": ["", "/"]}, "ip, method and path must not be empty"),
        ({"status": [1.5, 200.0]}, "status is no whole number"),
        ({"status": [1e300, 200.0]}, "status is no whole number"),
        ({"status": pa.array([2**64 - 1, 200], pa.uint64())}, "status is no HTTP status"),
        ({"duration": [float("inf"), 0.0]}, "duration is not between 0 s and a year"),
        ({"verdict": ["no", None]}, "verdict is none of allow, challenge, block"),
    ],
)
def test_bad_rows_of_parquet_are_rejected(tmp_path: Path, bad: dict[str, Any], reason: str) -> None:
    reading = Reading()
    assert read_log([parquet(tmp_path, **bad)], reading=reading).num_rows == 1
    assert reading.reasons == {reason: 1}


@pytest.mark.parametrize(
    "wrong",
    [
        {"ip": [1, 2]},
        {"status": ["200", "200"]},
        {"malicious": [1, 0]},
        {"time": [[1.0], [2.0]]},
        {"duration": ["1", "2"]},
    ],
)
def test_a_column_of_the_wrong_type_is_an_error(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(LogError, match=f"column {next(iter(wrong))} holds .*; convert it"):
        read_log([parquet(tmp_path, **wrong)])


@pytest.mark.parametrize("keep", [4, 40, -1])
def test_a_cut_parquet_file_is_an_error(tmp_path: Path, keep: int) -> None:
    path = parquet(tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(LogError, match="no whole Parquet file"):
        read_log([path])


@pytest.mark.parametrize("checksums", [True, False])
def test_a_parquet_file_damaged_inside_is_an_error(tmp_path: Path, checksums: bool) -> None:
    path = parquet(tmp_path)
    pq.write_table(pa.table(GOOD), path, compression="zstd", use_dictionary=False, write_page_checksum=checksums)
    data = bytearray(path.read_bytes())
    at = data.index(b"\x28\xb5\x2f\xfd")  # the first page
    data[at : at + 8] = bytes(8)
    path.write_bytes(data)
    with pytest.raises(LogError, match=r"is damaged after row 0 \("):
        read_log([path])


def test_parquet_end_stamps_and_chunks(tmp_path: Path) -> None:
    path = parquet(tmp_path, duration=[0.25, None])
    assert read_log([path], stamp="end")["time"].to_pylist() == [1_778_000_000_000_000, 1_778_000_001_000_000]
    assert [chunk.num_rows for chunk in read_events([path], chunk_rows=1)] == [1, 1]
