"""A service that stops, is killed or runs out of disk goes on from its newest snapshot."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from classifier.errors import InputError
from classifier.features.hashing import SECRET_VARIABLE
from classifier.model.judge import Judge
from serving import disk
from serving.app import Service, create_app
from serving.keeping import Keeper
from serving.settings import Settings
from serving.snapshot import NEWEST, PREVIOUS, Snapshots, Writer
from tests.service.served import SECRET, START, Moment, client_of, event, post

INTERVAL_S, SLACK_S = 1.0, 0.3
"""Seconds between snapshots of a service that is killed, and by how much one may take longer than the one before it."""


def started(judge: Judge, state: Path, now: Moment | None = None) -> Service:
    given: dict[str, Any] = {"mode": "enforce", "warm_up_s": 0.0, "clock": "event", "state": state}
    settings = Settings(bundle=judge.bundle.path, **given)
    restored = Snapshots(state, SECRET).restore(judge.sizes)
    return create_app(settings, judge, now=now or Moment(), secret=SECRET, restored=restored)


def decide(app: Service, seconds: float, client: int) -> dict[str, Any]:
    answer = post(client_of(app), "/v1/decide", event(time=START + seconds, ip=f"192.0.2.{client}"))
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def completed(app: Service, id: str) -> str:
    answer = post(client_of(app), "/v1/complete", {"id": id, "status": 200, "duration": 1.0, "output_tokens": 9})
    return str(answer.json().get("result", answer.json().get("reason")))


def seen(judge: Judge, state: Path) -> tuple[Service, Keeper]:
    """Return a service that has seen a request, and its keeper."""
    app = started(judge, state)
    decide(app, 0.0, 1)
    assert app.keeper is not None
    return app, app.keeper


def test_a_restart_changes_no_score(judge: Judge, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "botsieve.serving")
    whole, halves = started(judge, tmp_path / "a"), started(judge, tmp_path / "b")
    for i in range(120):
        if i == 60:
            assert halves.keeper is not None
            halves.keeper.save()
            halves = started(judge, tmp_path / "b")
        one, other = decide(whole, i * 0.5, i % 7), decide(halves, i * 0.5, i % 7)
        assert [one[k] for k in ("raw", "probability", "decision")] == [
            other[k] for k in ("raw", "probability", "decision")
        ]
        if i % 3 == 0:
            assert completed(whole, one["id"]) == completed(halves, other["id"]) == "recorded"
    assert not halves.gate.warming_up
    assert [vars(record)["file"] for record in caplog.records if "goes on from a snapshot" in record.message] == [
        NEWEST
    ]


def test_ids_of_before_are_known_as_far_as_the_snapshot_goes(judge: Judge, tmp_path: Path) -> None:
    app = started(judge, tmp_path)
    early = decide(app, 0.0, 1)["id"]
    assert app.keeper is not None
    app.keeper.save()
    lost = decide(app, 1.0, 2)["id"]
    for _ in range(3):
        app = started(judge, tmp_path)
        again = decide(app, 2.0, 3)["id"]
        assert lost.split("-")[0] == again.split("-")[0]
        assert completed(app, lost) == "unknown"
        assert app.gate.tallies.completions == {"unknown": 1}
    assert completed(app, early) == "recorded"
    assert completed(app, again) == "recorded"
    assert app.gate.tallies.completions == {"unknown": 1, "recorded": 2}


def test_a_snapshot_between_requests_is_counted_and_a_full_disk_too(
    judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, keeper = seen(judge, tmp_path)
    asyncio.run(keeper.write())
    before = (tmp_path / NEWEST).read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("serving.snapshot.os.fsync", full)
    asyncio.run(keeper.write())
    keeper.save()
    assert app.gate.tallies.snapshots == {"written": 1, "failed": 2}
    assert (tmp_path / NEWEST).read_bytes() == before
    assert keeper.age() == 0.0
    assert decide(app, 1.0, 1)["score"]
    metrics = client_of(app).get("/metrics").text
    assert 'botsieve_snapshots_total{result="failed"} 2.0' in metrics


def test_any_failure_is_counted_and_snapshots_go_on(
    judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, keeper = seen(judge, tmp_path)
    begin, times = Writer.__init__, 0

    def once(self: Writer, folder: Path) -> None:
        nonlocal times
        times += 1
        if times == 1:
            raise RuntimeError("can't start new thread")
        begin(self, folder)

    monkeypatch.setattr(Writer, "__init__", once)

    async def run() -> None:
        task = asyncio.create_task(keeper.keep(0.01))
        while not app.gate.tallies.snapshots["written"]:
            await asyncio.sleep(0.01)
            assert not task.done()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await keeper.close()

    asyncio.run(asyncio.wait_for(run(), 20))
    assert app.gate.tallies.snapshots["failed"] == 1


def test_a_service_stops_in_order_whatever_has_failed(
    judge: Judge, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app, _ = seen(judge, tmp_path)
    closed: list[str] = []

    async def broken(*_: object) -> None:
        raise RuntimeError("broken")

    def failing() -> None:
        raise RuntimeError("broken")

    app.recent.keep = broken  # type: ignore[method-assign]
    app.closers = [failing, lambda: closed.append("last")]

    async def run() -> None:
        async with app.router.lifespan_context(app):
            await asyncio.sleep(0)

    asyncio.run(run())
    assert closed == ["last"]
    assert app.gate.tallies.snapshots["written"] == 1
    assert sum("stopped in order" in record.message for record in caplog.records) == 2


def test_stopping_waits_for_the_snapshot_that_is_being_written(
    judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, keeper = seen(judge, tmp_path)
    reached, go_on = threading.Event(), threading.Event()
    finish = Writer.finish

    def held(self: Writer) -> int:
        if not reached.is_set():
            reached.set()
            go_on.wait(20)
        return finish(self)

    monkeypatch.setattr(Writer, "finish", held)

    async def run() -> None:
        task = asyncio.create_task(keeper.keep(0.01))
        await asyncio.to_thread(reached.wait, 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        closing = asyncio.create_task(keeper.close())
        await asyncio.sleep(0)
        assert not closing.done()
        go_on.set()
        await closing

    asyncio.run(run())
    assert app.gate.tallies.snapshots == {"written": 2}
    assert sorted(file.name for file in tmp_path.glob("state.*")) == [PREVIOUS, NEWEST]


@pytest.mark.parametrize(("interval", "told"), [(2.0, False), (0.5, True)])
def test_from_the_beginning_of_a_snapshot_to_the_end_of_the_next_the_interval_passes(
    judge: Judge,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    interval: float,
    told: bool,
) -> None:
    _, keeper = seen(judge, tmp_path)
    pieces = 3
    monkeypatch.setattr("serving.keeping.PAUSE_S", 0.1)  # a snapshot takes 0.3 s and more
    began, ended = [time.monotonic()], []
    begin, finish = Writer.__init__, Writer.finish

    def beginning(self: Writer, folder: Path) -> None:
        began.append(time.monotonic())
        begin(self, folder)

    async def run() -> None:
        enough = asyncio.Event()

        def ending(self: Writer) -> int:
            size = finish(self)
            ended.append(time.monotonic())
            if len(ended) == 3:
                loop.call_soon_threadsafe(enough.set)
            return size

        monkeypatch.setattr(Writer, "__init__", beginning)
        monkeypatch.setattr(Writer, "finish", ending)
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(keeper.keep(interval))
        await enough.wait()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(run())
    takes = [end - start for start, end in zip(began[1:], ended, strict=False)]
    assert min(takes) >= 0.1 * (pieces - 1)
    ages = [end - start for start, end in zip(began, ended, strict=False)]
    slack = 0.2  # one may take that much longer than the one before
    assert max(ages) <= max(interval, 2 * max(takes) + 0.1) + slack
    assert sum("half of snapshot_s" in record.message for record in caplog.records) == told


def test_the_age_of_the_newest_snapshot_is_told(judge: Judge, tmp_path: Path) -> None:
    now = Moment()

    def age() -> float:
        text = client_of(app).get("/metrics").text
        return float(re.search(r"^botsieve_snapshot_age_seconds (.*)$", text, re.MULTILINE)[1])  # type: ignore[index]

    app = started(judge, tmp_path, now)
    now.seconds += 5.0
    assert age() == 0.0  # nothing has happened that could be lost
    decide(app, 0.0, 1)
    assert age() == 5.0
    assert app.keeper is not None
    asyncio.run(app.keeper.write())
    assert age() == 0.0
    now.seconds += 7.0
    assert age() == 7.0
    (tmp_path / (NEWEST + ".partial")).mkdir()  # nothing can be written
    asyncio.run(app.keeper.write())
    assert age() == 7.0
    app = started(judge, tmp_path, now)
    assert age() == 7.0


@contextmanager
def program(judge: Judge, state: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "serving", "--bundle", str(judge.bundle.path), "--port", str(port)]
    command += ["--clock", "event", "--state", str(state)]
    environment = {**os.environ, "BOTSIEVE_SNAPSHOT_S": str(INTERVAL_S), SECRET_VARIABLE: SECRET.decode()}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as process:
        url = f"http://127.0.0.1:{port}"
        try:
            for _ in range(600):
                try:
                    urllib.request.urlopen(url + "/readyz", timeout=1).read()
                    break
                except OSError:
                    assert process.poll() is None, process.stderr and process.stderr.read().decode()
                    time.sleep(0.05)
            yield process, url
        finally:
            process.kill()


def send(url: str, seconds: float, client: int) -> None:
    body = json.dumps(event(time=START + seconds, ip=f"192.0.2.{client}")).encode()
    request = urllib.request.Request(url + "/v1/decide", body, {"content-type": "application/json"})
    urllib.request.urlopen(request, timeout=10).read()


@pytest.mark.parametrize("name", ["state", "journal"])
def test_a_folder_that_another_service_has_is_one_line(tmp_path: Path, name: str) -> None:
    held = disk.lock(tmp_path)
    command = [sys.executable, "-m", "serving", "--bundle", "none", f"--{name}", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"botsieve: {tmp_path} is in use by another service")
    os.close(held)
    os.close(disk.lock(tmp_path))


def test_a_file_that_cannot_be_put_leaves_the_one_before_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    disk.put(file, b"before")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("serving.disk.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        disk.put(file, b"after")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert file.read_bytes() == b"before"


@pytest.mark.parametrize("name", ["state", "journal"])
def test_what_is_written_is_for_the_services_account_alone(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "above" / "folder"
    command = [sys.executable, "-m", "serving", "--bundle", "none", f"--{name}", str(folder)]
    assert subprocess.run(command, capture_output=True, timeout=120, umask=0o022).returncode == 2  # there is no bundle
    assert {path.stat().st_mode & 0o077 for path in (folder.parent, folder)} == {0}


@pytest.mark.slow
def test_a_service_that_is_killed_goes_on_from_a_state_no_older_than_the_interval(judge: Judge, tmp_path: Path) -> None:
    sent: list[tuple[float, float]] = []
    with program(judge, tmp_path) as (process, url):
        begin = time.monotonic()
        while time.monotonic() - begin < 3.9 * INTERVAL_S:
            seconds = len(sent) * 0.01
            send(url, seconds, len(sent) % 50)
            sent.append((time.monotonic(), seconds))
        with pytest.raises(InputError, match="in use"):
            disk.lock(tmp_path)
        process.send_signal(signal.SIGKILL)
        killed = time.monotonic()
    found = Snapshots(tmp_path, SECRET).restore(judge.sizes)
    assert found is not None
    clock = found[1]
    newest = next(moment for moment, seconds in reversed(sent) if (START + seconds) * 1e6 <= clock.clock)
    assert killed - newest < INTERVAL_S + SLACK_S
    assert 0 < clock.arrivals <= len(sent)
    with program(judge, tmp_path) as (process, url):
        send(url, len(sent) * 0.01, 1)
        metrics = urllib.request.urlopen(url + "/metrics", timeout=10).read().decode()
        assert f"botsieve_arrivals_total {float(clock.arrivals + 1)}" in metrics
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    stopped = Snapshots(tmp_path, SECRET).restore(judge.sizes)
    assert stopped is not None
    assert stopped[1].arrivals == clock.arrivals + 1
