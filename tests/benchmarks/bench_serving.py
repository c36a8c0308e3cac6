"""The service under load: one core for the server, one for the client (wrk), beside a plain FastAPI route over the same gate.

Every request is a full decision: hashing, profiles of six entities, the forest, the policy. The clients are 20,000 accounts
at 5,000 addresses. Half of the maximum rate is offered by `open_loop`: Poisson arrivals, latency from the moment at which each
was due. wrk does not offer a rate: each of its connections waits for its answer and then for whole milliseconds, so requests
come in clumps, and fewer of them while the server is slow.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from tests.benchmarks import stages
from tests.benchmarks.plain import Asked

CONNECTIONS = 32
BATCH = 64

SCRIPT = """
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
if "TOKEN" ~= "" then wrk.headers["authorization"] = "Bearer TOKEN" end
local bodies, n, wait = {}, 0, WAIT
for line in io.lines("BODIES") do bodies[#bodies + 1] = line end
request = function()
  n = n + 1
  return wrk.format(nil, "PATH", nil, bodies[n % #bodies + 1])
end
if wait > 0 then
  delay = function() return math.random() * 2 * wait end
end
done = function(summary, latency, requests)
  local bad = summary.errors.status + summary.errors.timeout + summary.errors.read + summary.errors.connect
  io.write(string.format("RESULT %f %f %f %d\\n", summary.requests / summary.duration * 1e6,
    latency:percentile(50), latency:percentile(99), bad))
end
"""


def event(rng: np.random.Generator) -> dict[str, object]:
    """Return an event as a gateway sends it."""
    client = int(rng.integers(20_000))
    asked = Asked(
        ip=f"10.{client % 5_000 // 250}.{client % 250}.7", method="POST", path="/v1/chat/completions",
        account=f"acct_{client:05d}", user_agent="OpenAI/Python 1.40.0", request_bytes=int(rng.integers(200, 9_000)),
        model="m-large", max_tokens=int(rng.integers(16, 4_096)), fingerprint=f"t13d1516h2_8daaf6152771_{client % 97:012x}",
        prompt=f"Summarise the following report of {rng.integers(1e6)} words for the board of Example Ltd., in plain words.",
    )  # fmt: skip
    return asked.model_dump(exclude_none=True)


@contextmanager
def serving(command: list[str], port: int, core: int) -> Iterator[int]:
    """Run a server on one core until the end of the block; give its process id."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(["taskset", "-c", str(core), sys.executable, *command], env=environment)
    try:
        for _ in range(1200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if process.poll() is not None:
                raise RuntimeError(f"the server ended with {process.returncode}")
            time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


def wrk(
    port: int,
    path: str,
    bodies: Path,
    seconds: float,
    core: int,
    *,
    connections: int,
    wait_ms: float = 0.0,
    token: str = "",
) -> list[float]:
    """Return requests/s, median and 99th percentile of the latency in ms, and failed requests."""
    text = (
        SCRIPT.replace("WAIT", str(wait_ms))
        .replace("BODIES", str(bodies))
        .replace("PATH", path)
        .replace("TOKEN", token)
    )
    script = bodies.with_suffix(".lua")
    script.write_text(text)
    command = ["taskset", "-c", str(core), "wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "-s", str(script)]
    out = subprocess.run([*command, f"http://127.0.0.1:{port}"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"RESULT (\S+) (\S+) (\S+) (\d+)", out)
    if found is None:
        raise RuntimeError(f"wrk gave no result: {out}")
    rate, median, high, failed = map(float, found.groups())
    return [rate, median / 1e3, high / 1e3, failed]


def offered(port: int, path: str, bodies: Path, rate: float, seconds: float, core: int) -> list[float]:
    """Offer requests at a rate; return what `open_loop.offer` does."""
    command = ["taskset", "-c", str(core), sys.executable, "-m", "tests.benchmarks.open_loop"]
    given = [str(port), path, str(bodies), str(rate), str(seconds), str(CONNECTIONS)]
    found: list[float] = json.loads(subprocess.run([*command, *given], capture_output=True, check=True).stdout)
    return found


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def bodies_in(folder: Path) -> tuple[Path, Path]:
    """Write what is sent, a body a line: 20,000 single requests, and 500 lists of `BATCH`."""
    rng = np.random.default_rng(0)
    single, lists = folder / "single.jsonl", folder / "batch.jsonl"
    single.write_text("".join(json.dumps(event(rng)) + "\n" for _ in range(20_000)))
    lists.write_text("".join(json.dumps([event(rng) for _ in range(BATCH)]) + "\n" for _ in range(500)))
    return single, lists


def options(description: str | None, seconds: float, rounds: int) -> argparse.Namespace:
    """Read what a benchmark under load takes; these are the defaults. Ends the program where wrk is missing."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--seconds", type=float, default=seconds)
    parser.add_argument("--rounds", type=int, default=rounds)
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is missing: install it (Debian: apt-get install wrk)")
    return parser.parse_known_args()[0]


def small_bundle(folder: Path, *options: str) -> Path:
    """Train the bundle that is served, on simulated traffic; `options` are those of `train`."""
    log, bundle = folder / "log.jsonl", folder / "bundle"
    for arguments in (
        ["simulate", "--out", str(log), "--duration", "3600", "--clients", "300", "--attacks", "all", "--quiet"],
        ["train", str(log), "--bundle", str(bundle), "--quiet", *options],
    ):
        subprocess.run([sys.executable, "-m", "classifier", *arguments], check=True, stdout=subprocess.DEVNULL)
    return bundle


def main() -> None:
    """Print the table."""
    arguments = options(__doc__, 8.0, 3)
    cores = sorted(os.sched_getaffinity(0))
    server_core, client_core = cores[0], cores[-1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = arguments.bundle or small_bundle(folder)
        single, lists = bodies_in(folder)
        ports = {"plain FastAPI": free_port(), "botsieve": free_port()}
        plain = ["-m", "tests.benchmarks.plain", str(bundle), str(ports["plain FastAPI"])]
        ours = ["-m", "serving", "--bundle", str(bundle), "--port", str(ports["botsieve"]), "--device", "cpu"]
        with serving(plain, ports["plain FastAPI"], server_core), serving(ours, ports["botsieve"], server_core):
            rate, rows = table(ports, single, lists, arguments.seconds, arguments.rounds, client_core)
        stages.table(bundle, event, rate, rows)


def table(
    ports: dict[str, int], single: Path, lists: Path, seconds: float, rounds: int, core: int
) -> tuple[float, float]:
    """Measure both servers in turn, the other one idle, and print medians.

    Return the requests/s of single decisions and the rows that then shared a call of the scorer.
    """
    print(f"one core for the server, one for wrk; {CONNECTIONS} connections, {rounds} rounds of {seconds:g} s, medians")
    print(f"{'':34} {'':>14} {'requests/s':>10} {'events/s':>10} {'p50 ms':>8} {'p99 ms':>8} {'of plain':>8}")
    alone = (0.0, 0.0)
    for what, path, bodies, size in (
        ("single", "/v1/decide", single, 1),
        (f"batch of {BATCH}", "/v1/decide/batch", lists, BATCH),
    ):
        connections = CONNECTIONS if size == 1 else 4
        for port in ports.values():
            wrk(port, path, bodies, 2.0, core, connections=connections)
        found: dict[str, list[list[float]]] = {who: [] for who in ports}
        for _ in range(rounds):
            for who, port in ports.items():
                found[who].append(wrk(port, path, bodies, seconds, core, connections=connections))
        middle = {who: np.median(runs, axis=0) for who, runs in found.items()}
        for who, (rate, median, high, failed) in middle.items():
            ratio = rate / middle["plain FastAPI"][0]
            note = f"  {failed:.0f} failed" if failed else ""
            print(
                f"{what:34} {who:>14} {rate:10,.0f} {rate * size:10,.0f} {median:8.2f} {high:8.2f} {ratio:8.2f}{note}",
                flush=True,
            )
        if size == 1:
            alone = float(middle["botsieve"][0]), scored_together(ports["botsieve"])
            half = alone[0] / 2
            runs = [offered(ports["botsieve"], path, bodies, half, seconds, core) for _ in range(rounds)]
            rate, median, high, highest, late, failed = np.median(runs, axis=0)
            note = f"  p99.9 {highest:.2f}, sent late by {late:.2f} at p99" + (
                f", {failed:.0f} failed" if failed else ""
            )
            share = f"single, at {rate / (2 * half):.0%} of the most"
            print(
                f"{share:34} {'botsieve':>14} {rate:10,.0f} {rate:10,.0f} {median:8.2f} {high:8.2f}{note}", flush=True
            )
    return alone


def scored_together(port: int) -> float:
    """Return how many rows a call of the scorer had so far, in the mean."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    rows = {
        line.split()[0]: float(line.split()[1])
        for line in text.splitlines()
        if line.startswith("botsieve_scored_rows_")
    }
    return rows["botsieve_scored_rows_sum"] / rows["botsieve_scored_rows_count"]


if __name__ == "__main__":
    main()
