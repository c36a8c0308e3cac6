"""The service over a GPU, beside the same service over the CPU: equal decisions, its rate, and a fault in the middle."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.bench_serving import event, free_port, small_bundle

BATCH, CONNECTIONS = 256, 8
START = 1_700_000_000.0

Report = Callable[[str, bool | None, str], None]


def check(folder: Path, bundle: Path | None, count: int, stand_in: bool, report: Report) -> None:
    """Decide about the same events on both, then under load, then with a device that fails."""
    served = bundle or small_bundle(folder)
    bodies, later, last = (list(_bodies(begin, some)) for begin, some in _parts(count))
    alike = ["--stand-in"] if stand_in else []
    with running(served, "cpu") as port:
        cpu = [decided(port, body) for body in bodies]
        cpu_rate, _ = load(port, later)
    with running(served, "cuda", *alike) as port:
        ready = told(port)
        said = set(ready["providers"])
        report("/readyz names the device", None if stand_in else said == {"CUDAExecutionProvider"}, ", ".join(said))
        device = [decided(port, body) for body in bodies]
        differ = sum(one != other for a, b in zip(cpu, device, strict=True) for one, other in zip(a, b, strict=True))
        whole = sum(map(len, device))
        report("decisions equal the CPU service", differ == 0, f"{differ} of {whole:,} differ ({', '.join(said)})")
        rate, full = load(port, later)
        _, half = load(port, last, rate / 2)
        found = (
            f"{rate:,.0f} events/s in lists of {BATCH} over {CONNECTIONS} connections from Python (the CPU's {cpu_rate:,.0f}),"
            f" p99 {full[1] * 1e3:.1f} ms; half as many in Poisson arrivals: {half[0] * 1e3:.1f}, p99 {half[1] * 1e3:.1f} ms"
        )
        report(
            "endpoint under load",
            None if stand_in else True,
            found + (" (stand-in: says nothing of a GPU)" if stand_in else ""),
        )
    fails_at = max(min(20, len(bodies) // 2), 1)
    with running(served, "cuda", *alike, "--fail-at", str(fails_at)) as port:
        after = [decided(port, body) for body in bodies[: fails_at // 2]]
        before = told(port)
        after += [decided(port, body) for body in bodies[len(after) : 100]]
        ready = told(port)
        metrics = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
        equal = after == cpu[:100]
        held = equal and before["device_faults"] == 0 and set(before["providers"]) == said
        held = held and ready["device_faults"] == 1 and ready["providers"] == ["CPUCompiledForest"]
        counted = "botsieve_device_faults_total 1.0" in metrics
        alike_or_not = "equal" if equal else "DIFFER"
        found = f"{before['providers'][0]}, then {ready['providers'][0]}: decisions {alike_or_not}"
        report(
            "a device fault in mid-load falls back to the CPU",
            held and counted,
            f"{found}, counter {ready['device_faults']}",
        )


def _parts(count: int) -> list[tuple[int, int]]:
    """Return where the events to compare, those at full rate and those at half of it begin, and how many they are."""
    quarter = max(count // 4, BATCH)
    return [(0, count), (count, quarter), (count + quarter, quarter)]


def _bodies(begin: int, count: int) -> Iterator[bytes]:
    rng = np.random.default_rng(11 + begin)
    for first in range(begin, begin + count, BATCH):
        some = range(first, min(first + BATCH, begin + count))
        yield json.dumps([{**event(rng), "time": START + 0.01 * number} for number in some]).encode()


@contextmanager
def running(bundle: Path, device: str, *options: str) -> Iterator[int]:
    """Run the service until the end of the block; yield its port."""
    port = free_port()
    command = [
        sys.executable, "-m", "tests.gpu.service", *options, "--bundle", str(bundle), "--device", device,
        "--port", str(port), "--clock", "event",
    ]  # fmt: skip
    # Decisions are compared, so no answer may be the fail mode's because a slow machine was late.
    environment = {**os.environ, "BOTSIEVE_DEADLINE_S": "60"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    said: list[str] = []
    listening = threading.Thread(target=lambda: said.extend(process.stderr or []), daemon=True)
    listening.start()
    try:
        for _ in range(2400):
            if process.poll() is not None:
                listening.join(5)
                raise SystemExit(f"the service ended with {process.returncode}: {''.join(said)[-400:]}")
            try:
                told(port)
                break
            except OSError:
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(30)


def told(port: int) -> dict[str, Any]:
    """Return what /readyz says."""
    answer: dict[str, Any] = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz"))
    return answer


def post(connection: http.client.HTTPConnection, body: bytes) -> bytes:
    """Send a list of events and return the answer."""
    connection.request("POST", "/v1/decide/batch", body, {"content-type": "application/json"})
    answer = connection.getresponse()
    content = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"the service answered {answer.status}: {content[:200]!r}")
    return content


def decided(port: int, body: bytes) -> list[tuple[Any, ...]]:
    """Return raw score, score and decision of each event of a list."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    answers = json.loads(post(connection, body))
    connection.close()
    return [(answer["raw"], answer["score"], answer["decision"]) for answer in answers]


def load(port: int, bodies: list[bytes], rate: float | None = None) -> tuple[float, tuple[float, float]]:
    """Send all lists over several connections, as fast as they are answered or at a rate of events a second.

    Return events a second, and median and 99th percentile of the latency, s; at a rate it counts from when a list was due.
    """
    rng = np.random.default_rng(5)
    due = np.cumsum(rng.exponential(BATCH / rate, len(bodies))) if rate else np.zeros(len(bodies))
    waiting = iter(zip(due.tolist(), bodies, strict=True))
    taken: list[float] = []
    next_one = threading.Lock()
    begun = time.perf_counter() + 0.05

    def send() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        while True:
            with next_one:
                moment, body = next(waiting, (0.0, b""))
            if not body:
                return
            time.sleep(max(begun + moment - time.perf_counter(), 0.0))
            since = begun + moment if rate else time.perf_counter()
            post(connection, body)
            taken.append(time.perf_counter() - since)

    threads = [threading.Thread(target=send) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    median, late = np.quantile(taken, (0.5, 0.99)).tolist()
    return BATCH * len(bodies) / (time.perf_counter() - begun), (median, late)
