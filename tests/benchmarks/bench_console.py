"""What console, status, drift and metrics cost: the same service twice on one core, once with nobody following what it answers.

The one that is watched has a browser's stream open, its page of budgets read every ten seconds and `/metrics` scraped every five.
Both are asked in turns, the other one idle. The ratio of processor time a request is what counts: it does not move when
another program takes the core away for a while.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import numpy as np

from tests.benchmarks.bench_serving import BATCH, CONNECTIONS, bodies_in, free_port, options, serving, small_bundle, wrk

TOKEN = "the token of the benchmark"
SCRAPE_S, BUDGETS_S = 5.0, 10.0
TICKS = os.sysconf("SC_CLK_TCK")


def serve(bundle: str, port: str, watched: str) -> None:
    """Serve a bundle, as `botsieve serve` does; unless `watched` is yes, with nobody who follows."""
    os.environ.setdefault("NUMPY_MADVISE_HUGEPAGE", "0")
    import gc

    import uvicorn

    from classifier.model.judge import Judge
    from serving.__main__ import COLLECTOR, uvicorn_options
    from serving.app import create_app
    from serving.logs import configure
    from serving.settings import load_settings

    configure("warning")
    gc.set_threshold(*COLLECTOR)
    settings = load_settings(
        bundle=bundle,
        port=int(port),
        device="cpu",
        token=TOKEN,
        console=watched == "yes",
        console_secure=False,
        deadline_s=60,
    )
    app = create_app(settings, Judge.load(bundle, device="cpu"), secret=b"of the benchmark")
    if watched != "yes":
        app.gate.hooks.answered = None
    uvicorn.Server(uvicorn.Config(app, **uvicorn_options(settings, app.hot))).run()


@contextmanager
def looking(port: int) -> Iterator[dict[str, int]]:
    """Follow a service as a browser and Prometheus do, until the end of the block; give what has been read."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    form = {"content-type": "application/x-www-form-urlencoded"}
    connection.request("POST", "/console/sign-in", urlencode({"token": TOKEN}), form)
    answer = connection.getresponse()
    cookie = (answer.getheader("set-cookie") or "").partition(";")[0]
    answer.read()
    read, over = {"seconds": 0, "scrapes": 0}, threading.Event()
    stream = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    stream.request("GET", "/console/events", headers={"cookie": cookie})
    body = stream.getresponse()

    def follow() -> None:
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException, AttributeError):
            while not over.is_set():
                read["seconds"] += body.readline().startswith(b"event: now")

    def scrape() -> None:
        budgets = 0.0
        while not over.wait(SCRAPE_S):
            metrics(port)
            read["scrapes"] += 1
            if time.monotonic() - budgets >= BUDGETS_S:
                budgets = time.monotonic()
                request = urllib.request.Request(f"http://127.0.0.1:{port}/console/budgets", headers={"cookie": cookie})
                urllib.request.urlopen(request, timeout=60).read()

    threads = [threading.Thread(target=each, daemon=True) for each in (follow, scrape)]
    for thread in threads:
        thread.start()
    try:
        yield read
    finally:
        over.set()
        threads[1].join(30)
        stream.close()


def metrics(port: int) -> str:
    """Return the metrics of a service."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"authorization": f"Bearer {TOKEN}"})
    text: str = urllib.request.urlopen(request, timeout=60).read().decode()
    return text


def acted_share(port: int) -> float:
    """Return the share of requests that a service has challenged or blocked."""
    rows = [line for line in metrics(port).splitlines() if line.startswith("botsieve_decisions_total{")]
    counts = [(('decision="allow"' not in row), float(row.rpartition(" ")[2])) for row in rows]
    return sum(count for acted, count in counts if acted) / max(sum(count for _, count in counts), 1.0)


def processor_s(process: int) -> float:
    """Return the processor time that a process has taken, s."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def main() -> None:
    """Print the table."""
    arguments = options(__doc__, 5.0, 7)
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = arguments.bundle or small_bundle(folder)
        single, lists = bodies_in(folder)
        ports = {"alone": free_port(), "watched": free_port()}
        commands = {
            who: ["-m", "tests.benchmarks.bench_console", str(bundle), str(port), "yes" if who == "watched" else "no"]
            for who, port in ports.items()
        }
        with (
            serving(commands["alone"], ports["alone"], cores[0]) as alone,
            serving(commands["watched"], ports["watched"], cores[0]) as watched,
        ):
            processes = {"alone": alone, "watched": watched}
            print(
                f"one core for both services, one for wrk; {arguments.rounds} rounds of {arguments.seconds:g} s in turns"
            )
            print(
                f"{'':16} {'':>8} {'requests/s':>11} {'µs a request':>13} {'of alone, processor':>20} {'of alone, rate':>15}"
            )
            for what, path, bodies, connections in (
                ("single", "/v1/decide", single, CONNECTIONS),
                (f"batch of {BATCH}", "/v1/decide/batch", lists, 4),
            ):
                measure(
                    what, path, bodies, connections, ports, processes, arguments.seconds, arguments.rounds, cores[-1]
                )
            print(f"acted on: {acted_share(ports['watched']):.1%} of the requests")


def measure(
    what: str,
    path: str,
    bodies: Path,
    connections: int,
    ports: dict[str, int],
    processes: dict[str, int],
    seconds: float,
    rounds: int,
    core: int,
) -> None:
    """Ask both in turns and print their medians; each ratio is the median of those of neighbouring rounds."""
    for port in ports.values():
        wrk(port, path, bodies, 3.0, core, connections=connections, token=TOKEN)
    found: dict[str, list[tuple[float, float]]] = {who: [] for who in ports}
    for number in range(rounds):
        for who in ("alone", "watched") if number % 2 == 0 else ("watched", "alone"):
            with looking(ports[who]) if who == "watched" else contextlib.nullcontext():
                before = processor_s(processes[who])
                rate, _, _, failed = wrk(ports[who], path, bodies, seconds, core, connections=connections, token=TOKEN)
                spent = processor_s(processes[who]) - before
            if failed:
                raise RuntimeError(f"{failed:.0f} requests failed")
            found[who].append((rate, spent / (rate * seconds) * 1e6))
    pairs = [(w[0] / a[0], w[1] / a[1]) for a, w in zip(found["alone"], found["watched"], strict=True)]
    rates, costs = (float(np.median(each)) for each in zip(*pairs, strict=True))
    for who, runs in found.items():
        rate, cost = np.median(runs, axis=0)
        ratio = f"{costs:20.3f} {rates:15.3f}" if who == "watched" else ""
        print(f"{what:16} {who:>8} {rate:11,.0f} {cost:13.1f} {ratio}", flush=True)


if __name__ == "__main__":
    serve(*sys.argv[1:4])
