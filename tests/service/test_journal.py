"""The journal holds what was processed: scoring it gives again what was answered, and nobody in it who was forgotten."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifier.cli.replaying import replayed
from classifier.errors import InputError, LogError
from classifier.events import EVENT_SCHEMA, Event, table_of
from classifier.features.order import sorted_tables
from classifier.logs import Reading, read_log
from classifier.logs.journal import TRANSITIONS, files_of
from classifier.model.apply import Model, in_input_order
from classifier.model.dataset import build, fields_seen
from classifier.model.judge import Judge
from serving import journal as writing
from serving.app import Service
from serving.gate import Completion
from serving.journal import PART, Journal
from tests.service.served import SECRET, START, Moment, client_of, event, mixed_events, post, service
from tests.service.test_replay import Wire

TOKEN = "a token of sixteen characters"
BEARER = {"authorization": f"Bearer {TOKEN}"}


def closed(app: Service) -> Path:
    """Finish the journal of a service and return its folder."""
    assert app.journal is not None
    app.journal.close()
    folder = app.gate.settings.journal
    assert folder is not None
    return folder


def scored(judge: Judge, folder: Path) -> pa.Table:
    """What `botsieve score FOLDER` writes, in the order of arrival."""
    reading = Reading()
    table = read_log([folder], reading=reading)
    assert reading.read == reading.accepted == table.num_rows
    parts = Model(judge.bundle).scored([table], secret=SECRET)
    return pa.concat_tables(in_input_order(part.results for part in parts))


def written(folder: Path) -> pa.Table:
    """The arrivals that a journal holds, in their order."""
    whole = pa.concat_tables(pa.parquet.read_table(path) for path in files_of(folder))
    assert whole.schema.remove_metadata() == TRANSITIONS
    return whole.filter(pa.compute.equal(whole.column("kind"), "arrival")).sort_by("serial")


def assert_as_answered(judge: Judge, folder: Path) -> pa.Table:
    again, told = scored(judge, folder), written(folder)
    assert again.num_rows == told.num_rows > 0
    for name in ("raw", "probability"):
        assert again.column(name).to_numpy().tobytes() == told.column(name).to_numpy().tobytes(), name
    for name in ("decision", "score"):
        assert again.column(name).to_pylist() == told.column(name).to_pylist(), name
    assert [text or "" for text in again.column("reasons").to_pylist()] == told.column("reasons").to_pylist()
    return told


def live(judge: Judge, tmp_path: Path, now: Moment, **settings: Any) -> Service:
    return service(judge, now, journal=tmp_path / "journal", **settings)


KNOWN = ("ip", "method", "path", "account", "user_agent", "model", "max_tokens", "prompt", "request_bytes")


def sent(given: Event) -> dict[str, Any]:
    """An event as a gateway sends it on arrival."""
    return {name: value for name in KNOWN if (value := getattr(given, name)) is not None}


def played(app: Service, now: Moment, count: int, seed: int = 0) -> list[str]:
    """Let a live service see requests, alone and in lists, and completions late, early, twice or never."""
    rng, client, open_ids, all_ids = np.random.default_rng(seed), client_of(app, headers=BEARER), [], []
    pool = iter(mixed_events(count * 3, seed))
    for _ in range(count):
        now.seconds += float(rng.choice([0.0, 0.000001, 0.4, 30.0, 700.0], p=[0.3, 0.1, 0.4, 0.17, 0.03]))
        for beat in app.recent.beats if rng.random() < 0.5 else ():
            beat()
        events = [sent(next(pool)) for _ in range(int(rng.choice([1, 1, 3])))]
        reply = post(client, "/v1/decide", events[0]) if len(events) == 1 else post(client, "/v1/decide/batch", events)
        assert reply.status_code == 200, reply.text
        answers = reply.json() if isinstance(reply.json(), list) else [reply.json()]
        open_ids += [answer["id"] for answer in answers]
        all_ids += [answer["id"] for answer in answers]
        while open_ids and rng.random() < 0.6:
            identity = open_ids.pop(int(rng.integers(len(open_ids))))
            done = {"id": identity, "status": int(rng.choice([200, 404, 429])), "output_tokens": 40}
            if rng.random() < 0.7:
                done["duration"] = float(rng.random())  # as the gateway saw it, which need not be what the clock says
            post(client, "/v1/complete", done)
    return all_ids


@pytest.mark.parametrize("mode", ["shadow", "enforce"])
def test_score_of_the_journal_equals_what_a_replay_was_answered(judge: Judge, tmp_path: Path, mode: str) -> None:
    app = service(judge, clock="event", mode=mode, journal=tmp_path / "journal")
    answers = pa.concat_tables(in_input_order(replayed(sorted_tables([table_of(mixed_events(600))]), Wire(app))))
    told = assert_as_answered(judge, closed(app))
    ordered = answers.sort_by([("time", "ascending"), ("row", "ascending")])
    assert ordered.column("raw").to_pylist() == told.column("raw").to_pylist()
    assert ordered.column("decision").to_pylist() == told.column("decision").to_pylist()
    assert set(told.column("decision").to_pylist()) == {"allow", "challenge", "block"}


@pytest.mark.parametrize("mode", ["shadow", "enforce"])
@pytest.mark.parametrize("seed", range(3))
def test_score_of_the_journal_equals_what_a_live_service_answered(
    judge: Judge, tmp_path: Path, mode: str, seed: int
) -> None:  # fmt: skip
    now = Moment()
    app = live(judge, tmp_path, now, mode=mode)
    ids = played(app, now, 250, seed)
    told = assert_as_answered(judge, closed(app))
    assert told.column("id").to_pylist() == ids
    assert app.gate.tallies.journal["written"] > len(ids)


@settings(max_examples=4, deadline=None)
@given(rows=st.integers(1, 60), seed=st.integers(0, 1000))
def test_files_may_end_anywhere(judge: Judge, tmp_path_factory: Any, rows: int, seed: int) -> None:
    folder = tmp_path_factory.mktemp("cut") / "journal"
    now = Moment()
    app = service(judge, now)
    app.gate.hooks.recorder = made = Journal(
        folder, app.gate.run, app.gate.first, now, Counter(), days=30, rows_per_file=rows
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "BATCH_ROWS", 1 + seed % 7)
        played(app, now, 60, seed)
    made.close()
    assert len(files_of(folder)) > 1
    assert_as_answered(judge, folder)


def test_no_prompt_is_in_it_and_pseudonyms_hide_who_it_was(judge: Judge, tmp_path: Path) -> None:
    now = Moment()
    app = live(judge, tmp_path, now, pseudonyms=True)
    client = client_of(app)
    for place in range(40):
        now.seconds += 1.0
        body = event(
            ip=f"198.51.100.{place % 5}", account="team-seven" if place % 2 else None, prompt="a very private matter"
        )
        answer = post(client, "/v1/decide", body).json()
        post(client, "/v1/complete", {"id": answer["id"], "status": 200})
    told = assert_as_answered(judge, closed(app))
    (file,) = files_of(tmp_path / "journal")
    content = repr(pa.parquet.read_table(file).to_pylist()).encode() + file.read_bytes()
    for secret in (b"198.51.100", b"team-seven", b"private"):
        assert secret not in content
    assert set(told.column("prompt_length").to_pylist()) == {21}
    assert len(set(told.column("ip").to_pylist())) == 5
    assert len(set(told.column("account").to_pylist()) - {None}) == 1


def test_pseudonyms_need_a_secret(judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from serving.app import create_app
    from serving.settings import Settings

    monkeypatch.delenv("BOTSIEVE_HASH_KEY", raising=False)
    chosen = Settings(bundle=judge.bundle.path, journal=tmp_path / "journal", pseudonyms=True)
    with pytest.raises(InputError, match="BOTSIEVE_HASH_KEY"):
        create_app(chosen, judge)


def test_a_folder_that_cannot_be_written_is_bad_input(judge: Judge, tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("a file")
    with pytest.raises(InputError, match="journal"):
        live(judge, tmp_path, Moment())


def test_forgetting_removes_a_client_and_what_ended_its_requests(judge: Judge, tmp_path: Path) -> None:
    now = Moment()
    app = live(judge, tmp_path, now, token=TOKEN)
    client = client_of(app, headers=BEARER)
    open_ids = []
    for place in range(30):
        now.seconds += 1.0
        open_ids.append(post(client, "/v1/decide", event(ip=f"198.51.100.{place % 3}", account=None)).json()["id"])
        if place % 2:
            post(client, "/v1/complete", {"id": open_ids[place - 1], "status": 200})
    assert post(client, "/v1/forget", {"client": "198.51.100.1"}).json() == {"known": True}
    now.seconds += 1.0
    post(client, "/v1/decide", event(ip="198.51.100.2"))
    folder = closed(app)
    whole = pa.concat_tables(pa.parquet.read_table(path) for path in files_of(folder))
    arrivals = whole.filter(pa.compute.equal(whole.column("kind"), "arrival"))
    assert Counter(arrivals.column("ip").to_pylist()) == {"198.51.100.0": 10, "198.51.100.2": 11}
    assert set(whole.column("serial").to_pylist()) == set(arrivals.column("serial").to_pylist())
    assert all(b"198.51.100.1" not in path.read_bytes() for path in folder.iterdir())
    assert read_log([folder]).num_rows == 21


def test_rows_are_written_while_a_client_is_taken_out_of_many_files(tmp_path: Path) -> None:
    tally: Counter[str] = Counter()
    made = Journal(tmp_path, "a", 0, lambda: START, tally, days=30)
    for number in range(5):
        ends(made, range(10 * number, 10 * number + 10))
        made._thread.submit(made._rotate).result()
    seen, leave = [], writing._Forgotten.leave

    def slow(self: Any, path: Path) -> None:
        seen.append(tally["written"])
        made.ended(1000 + len(seen), 0, None)
        made.flush()
        leave(self, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing._Forgotten, "leave", slow)
        assert not asyncio.run(made.forget(["00" * 8]))
    made.close()
    assert seen == [50, 51, 52, 53, 54]


def test_what_a_killed_service_left_is_finished_at_the_next_start(judge: Judge, tmp_path: Path) -> None:
    now = Moment()
    app = live(judge, tmp_path, now)
    ids = played(app, now, 40)
    assert app.journal is not None
    app.journal.flush()
    app.journal._thread.shutdown()  # and no more: as if killed
    assert app.journal._segment is not None
    app.journal._segment._file.close()
    (left,) = (tmp_path / "journal").glob(f"*{PART}")
    assert not files_of(tmp_path / "journal")
    with left.open("ab") as file:
        file.write(b"\xff\xff\xff\xff\x40\x00\x00\x00torn")
    again = live(judge, tmp_path, now)
    assert not left.exists()
    told = assert_as_answered(judge, tmp_path / "journal")
    assert told.column("id").to_pylist() == ids
    now.seconds += 5.0
    played(again, now, 10)
    folder = closed(again)
    assert len(files_of(folder)) == 2
    events = read_log([folder])
    assert events.num_rows == len(ids) + written(folder).num_rows - len(ids)


def test_serial_numbers_that_are_given_out_again_do_not_mix(tmp_path: Path) -> None:
    """After a crash a start goes on from a snapshot: it gives out numbers that the journal knows already."""
    tally: Counter[str] = Counter()

    def start(run: str, first: int, seconds: float) -> Journal:
        return Journal(tmp_path, run, first, lambda: seconds, tally, days=30)

    def arrival(serial: int, moment: int) -> tuple[Any, ...]:
        values = dict.fromkeys(TRANSITIONS.names) | {
            "kind": "arrival", "moment": moment, "serial": serial, "id": f"{serial}-{moment}", "ip": "1.2.3.4",
            "method": "GET", "path": "/", "client_key": 1, "address_key": 1, "network_key": 1,
        }  # fmt: skip
        return tuple(values.values())

    def end(serial: int, moment: int, status: int) -> tuple[Any, ...]:
        values = dict.fromkeys(TRANSITIONS.names) | {
            "kind": "completion", "moment": moment, "serial": serial, "status": status,
        }  # fmt: skip
        return tuple(values.values())

    one = start("a", 0, START)
    for row in (arrival(0, 1_000_000), arrival(1, 2_000_000), arrival(2, 3_000_000)):
        one._add(row)
    one.close()
    two = start("b", 1, START + 10)  # the snapshot knew of number 0 only
    for row in (arrival(1, 4_000_000), end(0, 5_000_000, 200), end(1, 6_000_000, 404)):
        two._add(row)
    two.close()
    events = read_log([tmp_path]).sort_by("time")
    assert events.column("status").to_pylist() == [200, None, None, 404]
    assert (events.column("end").to_numpy() - events.column("time").to_numpy())[[0, 3]].tolist() == [
        4_000_000,
        2_000_000,
    ]


def test_a_full_disk_is_counted_and_stops_nobody(
    judge: Judge,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = Moment()
    app = live(judge, tmp_path, now)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing._Segment, "write", full)
    assert app.journal is not None
    ids = []
    for seed in range(3):
        ids += played(app, now, 7, seed)
        app.journal.flush()
        app.journal._thread.submit(int).result()
    assert app.gate.tallies.journal["failed"] >= len(ids)
    assert b'botsieve_journal_rows_total{result="failed"}' in client_of(app).get("/metrics").content
    monkeypatch.undo()
    later = played(app, now, 5, seed=3)
    folder = closed(app)
    told = [record.message for record in caplog.records if "journal" in record.message]
    assert told == ["journal failed", "journal is written again; what failed meanwhile is lost"], "once, however long"
    assert written(folder).column("id").to_pylist() == later


def test_a_segment_whose_end_failed_is_finished_with_the_next_and_forgets_too(
    judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = Moment()
    app = live(judge, tmp_path, now, token=TOKEN)
    client = client_of(app, headers=BEARER)
    for place in range(10):
        now.seconds += 1.0
        post(client, "/v1/decide", event(ip=f"198.51.100.{place % 2}"))
    (tmp_path / "journal" / "of-a-killed-service.writing").write_bytes(b"198.51.100.1")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pa.parquet.ParquetWriter, "write_table", full)
    answer = post(client, "/v1/forget", {"client": "198.51.100.1"})
    assert answer.status_code == 507
    assert re.search(
        r"not yet removed from the journal \(\S+\.part: No space left on device\)", answer.json()["detail"]
    )
    assert list((tmp_path / "journal").glob(f"*{PART}"))
    monkeypatch.undo()
    assert post(client, "/v1/forget", {"client": "198.51.100.1"}).json() == {"known": True}
    assert not any(b"198.51.100.1" in path.read_bytes() for path in (tmp_path / "journal").iterdir())
    assert written(closed(app)).column("ip").to_pylist() == ["198.51.100.0"] * 5
    assert app.gate.tallies.journal["failed"] == 0, "the rows were written, in the segment"


def test_a_file_that_cannot_be_read_is_told_where_a_client_is_forgotten(judge: Judge, tmp_path: Path) -> None:
    now = Moment()
    app = live(judge, tmp_path, now, token=TOKEN)
    client = client_of(app, headers=BEARER)
    post(client, "/v1/decide", event(ip="198.51.100.1"))
    other = tmp_path / "journal" / "20200101T000000Z-of-another-version.parquet"
    pa.parquet.write_table(pa.table({"x": [1]}).replace_schema_metadata({b"botsieve.journal": b"1"}), other)
    answer = post(client, "/v1/forget", {"client": "198.51.100.1"})
    assert answer.status_code == 507
    assert other.name in answer.json()["detail"]
    other.unlink()
    assert not files_of(closed(app)) or written(tmp_path / "journal").num_rows == 0, "the others were seen to"


def test_rows_that_fit_no_column_are_counted(tmp_path: Path) -> None:
    tally: Counter[str] = Counter()
    made = Journal(tmp_path, "a", 0, lambda: START, tally, days=30)
    made.ended(2**70, START, None)
    made.flush()
    made.ended(1, START, None)
    made.close()
    assert tally == {"written": 1, "failed": 1, "dropped": 0}
    assert pa.parquet.read_table(files_of(tmp_path)[0]).num_rows == 1


def ends(journal: Journal, serials: range) -> None:
    """Let a journal take an end of each of these requests, in one batch, and write it."""
    for serial in serials:
        journal.ended(serial, serial, None)
    journal.flush()
    journal._thread.submit(int).result()


def killed(folder: Path, batches: int, name: str = "a") -> Path:
    """Leave the segment of a killed service, of so many batches of ten rows, and return it."""
    made = Journal(folder, name, 0, lambda: START, Counter(), days=30)
    for number in range(batches):
        ends(made, range(10 * number, 10 * number + 10))
    assert made._segment is not None
    made._segment._file.close()
    made._thread.shutdown()
    return made._segment.path


def test_a_file_is_finished_at_a_number_of_bytes_and_in_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "FILE_BYTES", 40_000)
    monkeypatch.setattr(writing, "GROUP_BYTES", 10_000)
    made = Journal(tmp_path, "a", 0, lambda: START, Counter(), days=30)
    for number in range(100):
        ends(made, range(10 * number, 10 * number + 10))
    made.close()
    files = [pa.parquet.ParquetFile(path) for path in files_of(tmp_path)]
    assert len(files) > 3
    assert all(1 < file.num_row_groups < file.metadata.num_rows / 10 for file in files[:-1]), "of several batches each"
    serials = pa.concat_tables(file.read() for file in files).column("serial").to_pylist()
    assert serials == list(range(1000))


def test_a_full_disk_does_not_read_what_was_written_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tally: Counter[str] = Counter()
    made = Journal(tmp_path, "a", 0, lambda: START, tally, days=30)
    ends(made, range(10))
    write, finished = writing._Segment.write, []

    def full(segment: Any, batch: pa.RecordBatch) -> None:
        segment._file.write(b"half a batch")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(writing._Segment, "write", full)
        patch.setattr(writing, "_finish", finished.append)
        for number in range(1, 20):
            ends(made, range(10 * number, 10 * number + 10))
    assert not finished
    assert len(list(tmp_path.glob(f"*{PART}"))) == 1, "where no row could be written nothing is left"
    assert writing._Segment.write is write
    ends(made, range(200, 210))
    made.close()
    assert tally == {"written": 20, "failed": 190, "dropped": 0}
    serials = pa.concat_tables(pa.parquet.read_table(path) for path in files_of(tmp_path)).column("serial").to_pylist()
    assert serials == [*range(10), *range(200, 210)]


@pytest.mark.parametrize("cut", [1, 7, 8, 300, 1000])
def test_a_segment_may_be_torn_anywhere(tmp_path: Path, cut: int) -> None:
    part = killed(tmp_path, 3)
    part.write_bytes(part.read_bytes()[:-cut])
    os.utime(part, (START, START))
    Journal(tmp_path, "b", 0, lambda: START, Counter(), days=30).close()
    (file,) = files_of(tmp_path)
    assert pa.parquet.read_table(file).num_rows == 20
    assert file.stat().st_mtime == START
    assert not part.exists()


def test_a_segment_that_is_damaged_within_stays_and_stops_nobody(tmp_path: Path) -> None:
    part, whole = killed(tmp_path, 30), killed(tmp_path / "other", 2, "b")
    whole = whole.rename(tmp_path / whole.name)
    content = bytearray(part.read_bytes())
    middle = content.index(b"\xff\xff\xff\xff", len(content) // 2)
    content[middle + 8 : middle + 60] = b"\xfe" * 52
    part.write_bytes(content)
    made = Journal(tmp_path, "c", 0, lambda: START, Counter(), days=30)
    assert part.read_bytes() == content
    assert not whole.exists()
    assert [path.stem for path in files_of(tmp_path)] == [whole.stem]
    with pytest.raises(OSError, match=part.name):
        asyncio.run(made.forget([]))
    made.close()


def test_a_segment_that_the_disk_does_not_give_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = killed(tmp_path, 3)

    def broken(self: Any) -> Any:
        yield next(batches)
        raise OSError(5, "Input/output error")

    with part.open("rb") as file, pa.ipc.open_stream(file) as stream:
        batches = iter(list(stream))
    with monkeypatch.context() as patch:
        patch.setattr(pa.ipc, "open_stream", lambda _: contextlib.closing(broken(None)))
        made = Journal(tmp_path, "b", 0, lambda: START, Counter(), days=30)
    assert [path.suffix for path in tmp_path.iterdir()] == [PART]
    made.close()
    assert pa.parquet.read_table(files_of(tmp_path)[0]).num_rows == 30


def test_rows_that_wait_have_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tally: Counter[str] = Counter()
    made = Journal(tmp_path, "a", 0, lambda: START, tally, days=30)
    monkeypatch.setattr(writing, "WAITING_ROWS", 1000)
    monkeypatch.setattr(made, "_write", lambda *_: None)  # a disk that never answers
    for serial in range(5000):
        made.ended(serial, serial, None)
    assert made._handed - made._settled == 1024
    assert tally["dropped"] == 9 * 512 - 1024
    made.close()


def test_long_texts_that_wait_have_a_bound(judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are few enough to wait, and what is in them is not."""
    decided: list[tuple[Any, ...]] = []
    app = live(judge, tmp_path, Moment(), token=TOKEN)
    monkeypatch.setattr(app.journal, "arrived", lambda *both: decided.append(both))
    long = "/" + 20_000 * "x"
    post(client_of(app, headers=BEARER), "/v1/decide", event(path=long))
    ((arrival, answer),) = decided
    tally: Counter[str] = Counter()
    made = Journal(tmp_path / "other", "a", 0, lambda: START, tally, days=30)
    monkeypatch.setattr(made, "_write", lambda *_: None)
    rows = writing.UNCOUNTED_ROWS + 3 * writing.WAITING_CHARACTERS // len(long)
    for _ in range(rows):
        made.arrived(arrival, answer)
    made.flush()
    waiting = made._handed - made._settled
    assert waiting + tally["dropped"] == rows
    assert waiting <= writing.UNCOUNTED_ROWS + writing.WAITING_CHARACTERS / len(long)
    assert waiting > writing.UNCOUNTED_ROWS
    made.close()


def test_old_files_go_and_what_is_no_journal_stays(tmp_path: Path) -> None:
    made = Journal(tmp_path, "a", 0, lambda: START, Counter(), days=2)
    for number in range(3):
        made.ended(number, START, None)
        made.flush()
        made._thread.submit(made._rotate).result()
    pa.parquet.write_table(pa.table({"x": [1]}), tmp_path / "other.parquet")
    oldest, middle, newest = (path for path in files_of(tmp_path) if path.name != "other.parquet")
    for path in (oldest, tmp_path / "other.parquet"):
        os.utime(path, (START, START))
    made._thread.submit(made._expire).result()
    assert set(files_of(tmp_path)) == {middle, newest, tmp_path / "other.parquet"}
    made.close()


def test_a_clock_that_is_far_ahead_removes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = killed(tmp_path, 1)
    age = part.stat().st_mtime
    monkeypatch.setattr(writing.time, "time", lambda: age + 40 * 86_400.0)
    made = Journal(tmp_path, "b", 0, lambda: START, Counter(), days=30)
    (file,) = files_of(tmp_path)
    made._expire()
    assert file.exists()
    os.utime(file, (age - 30 * 86_400.0, age - 30 * 86_400.0))
    shutil.copyfile(file, tmp_path / "newer.parquet")  # a service that went on for a month
    os.utime(tmp_path / "newer.parquet", (age, age))
    made._expire()
    assert files_of(tmp_path) == [tmp_path / "newer.parquet"]
    made.close()


def test_quiet_times_are_written_too(tmp_path: Path) -> None:
    tally: Counter[str] = Counter()

    async def run() -> None:
        made = Journal(tmp_path, "a", 0, lambda: START, tally, days=2)
        task = asyncio.create_task(made.keep())
        made.ended(0, START, None)
        for _ in range(200):
            await asyncio.sleep(0.02)
            if tally["written"]:
                break
        task.cancel()
        made.close()

    asyncio.run(run())
    assert tally == {"written": 1, "failed": 0, "dropped": 0}


def test_what_people_found_out_is_a_label_for_training(judge: Judge, tmp_path: Path) -> None:
    now = Moment()
    app = live(judge, tmp_path, now, state=tmp_path / "state", token=TOKEN)
    ids = played(app, now, 60)
    client = client_of(app, headers=BEARER)
    for identity, verdict in (
        (ids[40], "malicious"),
        (ids[50], "legitimate"),
        (ids[50], "malicious"),
        (ids[55], "legitimate"),
    ):
        assert post(client, "/v1/feedback", {"id": identity, "verdict": verdict}).status_code == 201
    app.gate.solved(ids[55])
    app.gate.solved(ids[58])
    app.gate.solved("ff-00000000")
    folder = closed(app)
    with (folder / "labels.jsonl").open("ab") as file:
        file.write(b'{"id":"torn')
    events, told = read_log([folder]), written(folder).column("id").to_pylist()
    labels = dict(zip(told, events.column("malicious").to_pylist(), strict=True))
    assert {name: label for name, label in labels.items() if label is not None} == {
        ids[40]: True,
        ids[50]: True,
        ids[55]: False,
    }
    more = read_log([folder], solved_legitimate=True)
    families = dict(zip(told, more.column("family").to_pylist(), strict=True))
    assert (families[ids[58]], families[ids[55]]) == ("challenge solved", "feedback")
    data = build(lambda: iter([more]), sizes=judge.sizes, secret=SECRET)
    assert len(data)
    assert data.malicious.tolist() == [more.column("malicious")[row].as_py() for row in data.row]
    assert "prompt" in fields_seen(lambda: iter([more]))


def test_hidden_fields_stay_hidden(judge: Judge, tmp_path: Path) -> None:
    """Training sees clients through routes that lack fields: what a journal remembers of them must not show through."""
    from classifier.features.prepare import Preparer
    from classifier.model.dataset import _hide

    now = Moment()
    app = live(judge, tmp_path, now)
    played(app, now, 40)
    events = read_log([closed(app)])
    hidden = _hide(events, ["prompt", "account"])
    bare = Preparer(SECRET).table(hidden.select(EVENT_SCHEMA.names))
    kept = Preparer(SECRET).table(hidden)
    assert np.array_equal(bare.hashes, kept.hashes)
    assert np.array_equal(bare.values, kept.values, equal_nan=True)


def test_a_journal_mixes_with_other_logs(judge: Judge, tmp_path: Path) -> None:
    now = Moment()
    app = live(judge, tmp_path, now)
    played(app, now, 20)
    folder = closed(app)
    other = tmp_path / "other.jsonl"
    other.write_bytes(b"\n".join(map(msgspec.json.encode, mixed_events(30))))
    for logs in ([folder, other], [other, *files_of(folder)]):
        events = read_log(logs, chunk_rows=7)
        assert events.num_rows == written(folder).num_rows + 30
        parts = list(Model(judge.bundle).scored([events.slice(0, 9), events.slice(9)], secret=SECRET))
        assert sum(part.results.num_rows for part in parts) == events.num_rows


def test_a_damaged_or_foreign_journal_is_one_line(judge: Judge, tmp_path: Path) -> None:
    now = Moment()
    app = live(judge, tmp_path, now)
    played(app, now, 5)
    (path,) = files_of(closed(app))
    table = pa.parquet.read_table(path)
    pa.parquet.write_table(table.drop_columns(["raw"]), path)
    with pytest.raises(LogError, match="lacks columns"):
        read_log([path])
    pa.parquet.write_table(table.replace_schema_metadata({b"botsieve.journal": b"9"}), path)
    with pytest.raises(LogError, match="another version"):
        read_log([path])
    with pytest.raises(LogError, match="is a folder"):
        read_log([tmp_path])
    pa.parquet.write_table(table, path)
    with pytest.raises(LogError, match="--columns"):
        read_log([path], columns={"ip": "peer"})


def test_a_log_that_can_be_read_only_once_is_opened_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    lines = b"\n".join(map(msgspec.json.encode, mixed_events(30)))
    with ThreadPoolExecutor(1) as writer:
        writer.submit(pipe.write_bytes, lines)
        assert read_log([pipe]).num_rows == 30


def test_an_end_that_comes_first_is_found(judge: Judge, tmp_path: Path) -> None:
    """A request can end (expire early) before it has been answered; the rows are then in that order."""
    now = Moment()
    app = live(judge, tmp_path, now, mode="shadow")
    gate = app.gate
    (pending,) = gate.prepare([Event(0, "1.2.3.4", "GET", "/")])
    (arrival,) = gate.arrive_all([pending])
    now.seconds += 1
    assert gate.complete(Completion(arrival.id, status=200)) == "recorded"
    gate.answer([arrival], gate.judge([arrival]))
    events = read_log([closed(app)])
    assert events.column("status").to_pylist() == [200]
