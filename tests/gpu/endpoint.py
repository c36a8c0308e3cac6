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
    bodies = list(_bodies(count))
    alike = ["--stand-in"] if stand_in else []
    with running(served, "cpu") as port:
        cpu = [decided(port, body) for body in bodies]
    with running(served, "cuda", *alike) as port:
        ready = told(port)
        said = set(ready["providers"])
        report("/readyz names the device", None if stand_in else said == {"CUDAExecutionProvider"}, ", ".join(said))
        device = [decided(port, body) for body in bodies]
        differ = sum(one != other for a, b in zip(cpu, device, strict=True) for one, other in zip(a, b, strict=True))
        whole = sum(map(len, device))
        report("decisions equal the CPU service", differ == 0, f"{differ} of {whole:,} differ ({', '.join(said)})")
    with running(served, "cuda", *alike) as port:
        rate, p99 = load(port, bodies)
        found = (
            f"{rate:,.0f} events/s in lists of {BATCH}, p99 {p99 * 1e3:.1f} ms, {CONNECTIONS} connections from Python"
        )
        report(
            "endpoint under load",
            None if stand_in else True,
            found + (" (stand-in: says nothing of a GPU)" if stand_in else ""),
        )
    fails_at = max(min(20, len(bodies) // 2), 1)
    with running(served, "cuda", *alike, "--fail-at", str(fails_at)) as port:
        after = [decided(port, body) for body in bodies[:100]]
        ready = told(port)
        metrics = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
        equal = after == cpu[:100]
        held = equal and ready["device_faults"] == 1 and ready["providers"] == ["CPUCompiledForest"]
        counted = "botsieve_device_faults_total 1.0" in metrics
        found = f"after {fails_at} runs: decisions {'equal' if equal else 'DIFFER'}, then on {ready['providers'][0]}"
        report(
            "a device fault in mid-load falls back to the CPU",
            held and counted,
            f"{found}, counter {ready['device_faults']}",
        )


def _bodies(count: int) -> Iterator[bytes]:
    rng = np.random.default_rng(11)
    for begin in range(0, count, BATCH):
        events = [{**event(rng), "time": START + 0.01 * (begin + i)} for i in range(min(BATCH, count - begin))]
        yield json.dumps(events).encode()


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


def load(port: int, bodies: list[bytes]) -> tuple[float, float]:
    """Send all lists over several connections; return events a second and the 99th percentile of the latency, s."""
    taken: list[float] = []

    def send(some: list[bytes]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        for body in some:
            begun = time.perf_counter()
            post(connection, body)
            taken.append(time.perf_counter() - begun)

    threads = [threading.Thread(target=send, args=(bodies[i::CONNECTIONS],)) for i in range(CONNECTIONS)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return BATCH * len(bodies) / (time.perf_counter() - begun), float(np.quantile(taken, 0.99))
