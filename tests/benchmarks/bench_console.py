"""What console, status, drift and metrics cost: the same service twice on one core, once with nobody following what it answers.

The one that is watched has a browser's stream open, its page of budgets read every ten seconds and `/metrics` scraped every five.
Both are asked in turns, the other one idle. The ratio of processor time a request is what counts: it does not move when
another program takes the core away for a while. But it does move by some per cent from one start of the same service to the next,
as its memory comes to lie; so both are started several times, and the median over the starts is shown with the range.
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
STARTS = 8
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


def processor_s(process: int) -> float:
    """Return the processor time that a process has taken, s."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def main() -> None:
    """Print the table."""
    arguments = options(__doc__, 6.0, 2)
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = arguments.bundle or small_bundle(folder)
        single, lists = bodies_in(folder)
        print(
            f"one core for both services, one for wrk; {STARTS} starts, {arguments.rounds} rounds of {arguments.seconds:g} s"
            f" in turns\n{'':12} {'µs a request':>13} {'watched':>10} {'of alone, processor':>27} {'of alone, rate':>15}"
        )
        for what, path, bodies, connections in (
            ("single", "/v1/decide", single, CONNECTIONS),
            (f"lists of {BATCH}", "/v1/decide/batch", lists, 4),
        ):
            found = []
            for number in range(STARTS):
                with both(bundle, cores[0], "alone" if number % 2 else "watched") as running:
                    found.append(
                        compared(running, path, bodies, connections, arguments.seconds, arguments.rounds, cores[-1])
                    )
            alone, watched, cost, rate = np.median(found, axis=0)
            costs = [one[2] for one in found]
            print(
                f"{what:12} {alone:13.1f} {watched:10.1f} {cost:11.3f} ({min(costs):.3f} to {max(costs):.3f}) {rate:14.3f}",
                flush=True,
            )


@contextmanager
def both(bundle: Path, core: int, first: str) -> Iterator[dict[str, tuple[int, int]]]:
    """Run both services; yield port and process of each. Which is started first may count: say it."""
    order = sorted(("alone", "watched"), key=lambda who: who != first)
    ports = {who: free_port() for who in order}
    with contextlib.ExitStack() as stack:
        running = {}
        for who in order:
            watched = "yes" if who == "watched" else "no"
            command = ["-m", "tests.benchmarks.bench_console", str(bundle), str(ports[who]), watched]
            running[who] = (ports[who], stack.enter_context(serving(command, ports[who], core)))
        yield running


def compared(
    running: dict[str, tuple[int, int]],
    path: str,
    bodies: Path,
    connections: int,
    seconds: float,
    rounds: int,
    core: int,
) -> tuple[float, float, float, float]:
    """Ask both in turns; return µs a request of each, and the ratios of processor time and of rate.

    Each is a median of the rounds, the ratios those of neighbouring rounds.
    """
    for port, _ in running.values():
        wrk(port, path, bodies, 3.0, core, connections=connections, token=TOKEN)
    found: dict[str, list[tuple[float, float]]] = {who: [] for who in running}
    for number in range(rounds):
        for who in ("alone", "watched") if number % 2 == 0 else ("watched", "alone"):
            port, process = running[who]
            with looking(port) if who == "watched" else contextlib.nullcontext():
                before = processor_s(process)
                rate, _, _, failed = wrk(port, path, bodies, seconds, core, connections=connections, token=TOKEN)
                spent = processor_s(process) - before
            if failed:
                raise RuntimeError(f"{failed:.0f} requests failed")
            found[who].append((rate, spent / (rate * seconds) * 1e6))
    alone, watched = np.array(found["alone"]), np.array(found["watched"])
    rates, costs = np.median(watched / alone, axis=0)
    return float(np.median(alone[:, 1])), float(np.median(watched[:, 1])), float(costs), float(rates)


if __name__ == "__main__":
    serve(*sys.argv[1:4])
