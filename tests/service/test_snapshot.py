"""Snapshots: what is written while the engine moves is what a restarted service goes on from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from classifier.events import MICROSECONDS, Event
from classifier.features import layout as at
from classifier.features.engine import Engine, Tables
from classifier.features.prepare import Preparer
from serving.snapshot import ASIDE, NEWEST, PARTIAL, PREVIOUS, Snapshots, UnusableError, Writer, _clock

SECRET = b"a secret of the tests"
SIZES = Tables.for_clients(256)
START = 1_700_000_000
PREPARER = Preparer(SECRET)
RUNS = {"abcd": 7}


def event(seconds: float, client: int) -> Event:
    return Event(START + seconds, f"192.0.2.{client}", "POST", "/v1/chat/completions", account=f"a{client}")


def lived(requests: int = 200) -> Engine:
    engine = Engine(SIZES)
    for i in range(requests):
        serial, _ = engine.arrive(PREPARER.arrival(event(float(i), i % 37)))
        if i % 3:
            finish(engine, serial, i + 0.5)
    return engine


def finish(engine: Engine, serial: int, seconds: float) -> None:
    values = engine.values_of(serial)
    assert values is not None
    PREPARER.completion(values, Event(0, "-", "-", "-", status=401, duration=0.5, output_tokens=9))
    engine.complete(serial, (START + seconds) * MICROSECONDS, values)


def assert_same(one: Engine, other: Engine) -> None:
    assert all(a.tobytes() == b.tobytes() for a, b in zip(one.arrays, other.arrays, strict=True))
    assert (one.start, one.clock, one.arrivals, one.in_flight) == (
        other.start,
        other.clock,
        other.arrivals,
        other.in_flight,
    )


def test_an_engine_with_nothing_in_flight_is_restored(tmp_path: Path) -> None:
    engine, snapshots = Engine(SIZES), Snapshots(tmp_path, SECRET)
    serial, _ = engine.arrive(PREPARER.arrival(event(1.0, 1)))
    finish(engine, serial, 2.0)
    snapshots.save(engine, 5.0, lambda: RUNS)
    found = snapshots.restore(SIZES)
    assert found is not None
    assert_same(found[0], engine)


def test_a_restored_engine_goes_on_as_the_one_that_was_saved(tmp_path: Path) -> None:
    engine, snapshots = lived(), Snapshots(tmp_path, SECRET)
    assert snapshots.save(engine, 5.0, lambda: RUNS) == (tmp_path / NEWEST).stat().st_size
    found = snapshots.restore(SIZES)
    assert found is not None
    restored, clock = found
    assert (clock.written, clock.runs) == (5.0, RUNS)
    assert_same(restored, engine)
    for one in (engine, restored):
        finish(one, 198, 201.0)
        one.arrive(PREPARER.arrival(event(1_000.0, 3)))  # what was in flight expires on the way
    assert_same(restored, engine)


def test_there_is_nothing_to_go_on_from_at_first(tmp_path: Path) -> None:
    assert Snapshots(tmp_path / "new", SECRET).restore(SIZES) is None


def test_profiles_that_moved_while_they_were_copied_are_whole_and_their_requests_in_flight_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.snapshot.PENDING", 10)
    engine, snapshots = lived(), Snapshots(tmp_path, SECRET)
    moved = 0
    with Writer(tmp_path) as writer:
        for piece in snapshots.pieces(engine, 0.0, lambda: RUNS):
            writer.write(piece)
            finish(engine, 3 * moved, 300.0 + moved)
            engine.arrive(PREPARER.arrival(event(300.0 + moved, 40 + moved)))
            moved += 1
        writer.finish()
    assert moved > 2
    found = snapshots.restore(SIZES)
    assert found is not None
    restored = found[0]
    serials, events = restored.pending()
    own = restored.own[restored.own_tags != 0]
    known = {int(tag) for tag in restored.own_tags if tag}
    assert own[:, at.IN_FLIGHT].sum() == sum(int(key) in known for key in events.hashes[:, at.H_CLIENT])
    restored.arrive(PREPARER.arrival(event(5_000.0, 99)))
    assert len(serials) > 60
    assert restored.own[:, at.IN_FLIGHT].sum() == restored.group[:, at.IN_FLIGHT].max() == 1
    assert (restored.own[:, at.IN_FLIGHT] >= 0).all()


@pytest.mark.parametrize("damage", ["torn", "byte", "longer", "empty", "no digest"])
def test_a_damaged_snapshot_is_noticed_and_the_one_before_it_used(tmp_path: Path, damage: str) -> None:
    engine, snapshots = lived(), Snapshots(tmp_path, SECRET)
    snapshots.save(engine, 1.0, lambda: RUNS)
    engine.arrive(PREPARER.arrival(event(500.0, 1)))
    snapshots.save(engine, 2.0, lambda: RUNS)
    path = tmp_path / NEWEST
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(data), 40).tolist():
        flipped = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        changed = {"torn": data[:place], "byte": flipped, "longer": data + b"x", "empty": b"", "no digest": data[:-32]}
        path.write_bytes(changed[damage])
        found = snapshots.restore(SIZES)
        assert found is not None
        assert found[1].written == 1.0
    (tmp_path / PREVIOUS).unlink()
    assert snapshots.restore(SIZES) is None


@pytest.mark.parametrize("number", ["Infinity", "-Infinity", "NaN", "1e999", "null"])
def test_a_number_of_a_snapshot_that_is_none_makes_it_unusable(tmp_path: Path, number: str) -> None:
    for fields in (f"[1, 1, {number}, 1, {{}}]", f'[1, 1, 1, 1, {{"a": {number}}}]'):
        with pytest.raises(UnusableError):
            _clock(json.loads(fields))


def test_a_torn_snapshot_never_takes_the_place_of_the_good_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine, snapshots = lived(), Snapshots(tmp_path, SECRET)
    for moment in (1.0, 2.0):
        snapshots.save(engine, moment, lambda: RUNS)
    torn = (tmp_path / NEWEST).read_bytes()[:-100]
    (tmp_path / NEWEST).write_bytes(torn)
    assert snapshots.restore(SIZES) is not None
    assert [vars(record)["aside"] for record in caplog.records] == [NEWEST + ASIDE]
    snapshots.save(engine, 3.0, lambda: RUNS)
    (tmp_path / NEWEST).write_bytes(torn)  # and again, before the next is written
    found = snapshots.restore(SIZES)
    assert found is not None
    assert found[1].written == 1.0
    assert sorted(path.name for path in tmp_path.iterdir()) == [PREVIOUS, NEWEST + ASIDE]


def test_another_secret_or_other_tables_put_snapshots_aside_and_the_right_ones_find_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine, first, other = lived(), Snapshots(tmp_path, SECRET), Snapshots(tmp_path, b"another secret")
    for moment in (1.0, 2.0):
        first.save(engine, moment, lambda: RUNS)
    assert other.restore(SIZES) is None
    assert [(vars(record)["why"], vars(record)["aside"]) for record in caplog.records] == [
        ("it was written under another BOTSIEVE_HASH_KEY", name + ASIDE) for name in (NEWEST, PREVIOUS)
    ]
    for moment in (3.0, 4.0, 5.0):
        other.save(engine, moment, lambda: RUNS)
    for _ in range(2):  # as a start that is killed before it has written anything
        found = first.restore(SIZES)
        assert found is not None
        assert found[1].written == 2.0
    first.save(engine, 6.0, lambda: RUNS)
    larger = Tables.for_clients(1024)
    assert first.restore(larger) is None
    assert "its tables have slots" in vars(caplog.records[-2])["why"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [PREVIOUS + ASIDE, NEWEST + ASIDE]


def test_a_full_disk_leaves_the_snapshots_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, snapshots = lived(), Snapshots(tmp_path, SECRET)
    snapshots.save(engine, 1.0, lambda: RUNS)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("serving.snapshot.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        snapshots.save(engine, 2.0, lambda: RUNS)
    assert sorted(path.name for path in tmp_path.iterdir()) == [NEWEST]
    found = snapshots.restore(SIZES)
    assert found is not None
    assert found[1].written == 1.0


def test_a_forgotten_client_is_in_no_profile_and_in_no_snapshot(tmp_path: Path) -> None:
    engine, snapshots = lived(), Snapshots(tmp_path, SECRET)
    snapshots.save(engine, 1.0, lambda: RUNS)
    key = int(PREPARER.arrival(event(0.0, 5)).hashes[0, at.H_CLIENT])
    assert engine.profile("client", key) is not None
    assert engine.forget("client", key)
    assert engine.profile("client", key) is None
    assert not engine.forget("client", key)
    held = (tmp_path / NEWEST).read_bytes()
    for name in (NEWEST + ASIDE, PREVIOUS + ASIDE, NEWEST + PARTIAL):
        (tmp_path / name).write_bytes(held)
    snapshots.save(engine, 2.0, lambda: RUNS)
    snapshots.forget(newest=False)
    assert [path.name for path in tmp_path.iterdir()] == [NEWEST]
    assert key.to_bytes(8, "little") not in (tmp_path / NEWEST).read_bytes()
    assert key.to_bytes(8, "little") in held
    snapshots.forget(newest=True)
    assert snapshots.restore(SIZES) is None
    _, row = engine.arrive(PREPARER.arrival(event(300.0, 5)))
    assert np.isfinite(row[0])
