"""The flood of `bench_flood`, sent to a running service: `python -m tests.benchmarks.bench_flood --http`.

Smaller by default, since every key is a request over HTTP: 20,000 clients make six requests each, then 200,000 keys come once
to three times; the tables are made for twice the clients, as in process. Profiles are compared between two snapshots. Then
single decisions are timed on a connection of their own while wrk sends requests on others, of known clients, of fresh keys, and
of known clients while snapshots are written: first single ones, so many a second; then lists of 64 on one connection without a
pause, where whoever asks meanwhile waits for a whole list.
"""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from classifier.features.engine import Tables
from classifier.model.bundle import load_bundle
from serving.snapshot import Snapshots
from tests.benchmarks.bench_serving import free_port, serving, wrk

KEY, TOKEN = "a secret of the benchmark", "a token of the benchmark"
START, LIST, LONG = 1_700_000_000, 64, 1_000
SECONDS = 8.0
CONNECTIONS, WAIT_MS = 16, 12.0
"""Of the single requests: each connection waits so long between two, in the mean."""


def event(number: int, fresh: bool, moment: float) -> dict[str, object]:
    """Return a request of a client or key, as `bench_flood.table` makes it."""
    same = {"time": moment, "method": "POST"}
    if not fresh:
        address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        agent = "OpenAI/Python 1.40.0"
        return {**same, "ip": address, "path": "/v1/chat/completions", "user_agent": agent, "account": f"acct_{number}"}
    return {
        **same, "ip": f"2001:db8:{number >> 16:x}:{number & 0xFFFF:x}::1", "path": f"/v1/{number}",
        "user_agent": f"agent/{number}", "prompt": f"tell me of {number}", "credential": f"k{number}",
    }  # fmt: skip


class Caller:
    """One connection to the service, and the event's time, which goes on by 1 ms a request."""

    def __init__(self, port: int) -> None:
        self._connection, self.now = http.client.HTTPConnection("127.0.0.1", port, timeout=600), float(START)

    def post(self, path: str, body: Any) -> Any:
        """Post JSON and return the answer's. Raises RuntimeError unless it is 200."""
        headers = {"content-type": "application/json", "authorization": f"Bearer {TOKEN}"}
        self._connection.request("POST", path, json.dumps(body), headers)
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {content[:200]!r}")
        return json.loads(content)

    def play(self, names: np.ndarray, fresh: bool) -> None:
        """Send one request of each, in long lists."""
        for begin in range(0, len(names), LONG):
            part = names[begin : begin + LONG].tolist()
            self.post("/v1/decide/batch", [event(n, fresh, self.now + i / 1e3) for i, n in enumerate(part)])
            self.now += len(part) / 1e3

    def snapshot(self) -> None:
        """Let the service write a snapshot: it does where a client is forgotten."""
        self.post("/v1/decide", {**event(0, False, self.now), "account": "nobody"})
        self.post("/v1/forget", {"client": "nobody"})


def profiles(folder: Path, tables: Tables) -> dict[int, bytes]:
    """Return the client profiles of the newest snapshot by their keys."""
    found = Snapshots(folder, KEY.encode()).restore(tables)
    assert found is not None
    engine = found[0]
    return {int(engine.own_tags[slot]): engine.own[slot].tobytes() for slot in np.flatnonzero(engine.own_tags)}


def run(bundle: Path, folder: Path, clients: int, keys: int) -> None:
    """Establish clients, flood, and compare."""
    tables = Tables.from_slots(load_bundle(bundle).manifest.tables)
    state, port, cores = folder / "state", free_port(), sorted(os.sched_getaffinity(0))
    os.environ |= {
        "BOTSIEVE_HASH_KEY": KEY, "BOTSIEVE_TOKEN": TOKEN, "BOTSIEVE_AHEAD_S": "1e9", "BOTSIEVE_WARM_UP_S": "0",
        "BOTSIEVE_SNAPSHOT_S": "1e9", "BOTSIEVE_LOG_LEVEL": "warning",
    }  # fmt: skip
    command = ["-m", "serving", "--bundle", str(bundle), "--port", str(port), "--clock", "event", "--state", str(state)]
    with serving(command, port, cores[0]) as pid:
        os.sched_setaffinity(0, {cores[-1]})
        caller, rng, process = Caller(port), np.random.default_rng(0), psutil.Process(pid)

        def memory() -> str:
            return f"resident {process.memory_info().rss / 2**30:.2f} GiB"

        print(f"over HTTP; tables for {tables.slots[0]:,} clients: at most {tables.bytes / 2**30:.2f} GiB", flush=True)
        begin = time.monotonic()
        for _ in range(6):
            caller.play(rng.permutation(clients), False)
        caller.now += 700
        caller.snapshot()  # what was in flight has expired
        before = profiles(state, tables)
        print(f"{clients:,} clients, six requests each, {time.monotonic() - begin:.0f} s; {memory()}", flush=True)

        begin, names = time.monotonic(), np.repeat(np.arange(keys), rng.integers(1, 4, keys))
        rng.shuffle(names)
        caller.play(names, True)
        caller.snapshot()
        after = profiles(state, tables)
        same = sum(after.get(key) == profile for key, profile in before.items())
        print(
            f"{keys:,} keys, {len(names):,} requests, {time.monotonic() - begin:.0f} s: {same / len(before):.4%} of the"
            f" {len(before):,} clients' profiles are unchanged, bit for bit; {memory()}", flush=True,
        )  # fmt: skip

        known, flood = folder / "known.jsonl", folder / "flood.jsonl"
        writer = Caller(port)
        writer.now = caller.now
        for together, what in ((1, "single requests"), (LIST, f"lists of {LIST}")):
            n = 256_000 // together
            write_lists(known, rng.integers(clients, size=(n // 10, together)), False, caller.now)
            write_lists(flood, keys + np.arange(n * together).reshape(n, together), True, caller.now)
            keys += n * together

            def timed(bodies: Path, meanwhile: Callable[[], None] | None = None) -> tuple[np.ndarray, float]:
                return alongside(port, bodies, caller, clients, cores[-1], together, meanwhile)  # noqa: B023

            timed(known)
            runs = {"known clients": timed(known), "fresh keys": timed(flood)}
            runs["known clients, snapshots"] = timed(known, writer.snapshot)
            calm = np.quantile(runs["known clients"][0], 0.99)
            for who, (found, rate) in runs.items():
                median, high = np.median(found), np.quantile(found, 0.99)
                print(
                    f"{len(found):,} decisions beside {rate:,.0f} {what} a second of {who}: median {1e3 * median:.2f} ms,"
                    f" 99th percentile {1e3 * high:.2f} ms, {high / calm:.2f} times", flush=True,
                )  # fmt: skip
        print(memory())


def write_lists(file: Path, lists: np.ndarray, fresh: bool, moment: float) -> None:
    """Write lists of requests, int64[n, together], one a line, as wrk sends them; single ones where one is together."""
    with file.open("w") as out:
        for part in lists.tolist():
            events = [event(n, fresh, moment) for n in part]
            out.write(json.dumps(events if len(events) > 1 else events[0]) + "\n")


def alongside(
    port: int,
    bodies: Path,
    caller: Caller,
    clients: int,
    core: int,
    together: int,
    meanwhile: Callable[[], None] | None,
) -> tuple[np.ndarray, float]:
    """Return the seconds that single decisions took, float64[n], while wrk sent `bodies` and `meanwhile` was done all the
    time; and how many of them wrk sent a second."""
    over, rng, found, sent = threading.Event(), np.random.default_rng(1), [], []
    alone = together == 1

    def load() -> None:
        path, connections, wait_ms = ("/v1/decide", CONNECTIONS, WAIT_MS) if alone else ("/v1/decide/batch", 1, 0.0)
        sent.append(wrk(port, path, bodies, SECONDS, core, connections=connections, wait_ms=wait_ms, token=TOKEN)[0])
        over.set()

    def keep_on() -> None:
        while meanwhile is not None and not over.is_set():
            meanwhile()

    threads = [threading.Thread(target=target) for target in (load, keep_on)]
    for thread in threads:
        thread.start()
    while not over.is_set():
        number = int(rng.integers(clients))
        asked = {**event(number, False, caller.now), "account": f"visitor{number % 50}", "max_tokens": 256}
        begin = time.perf_counter()
        caller.post("/v1/decide", asked)
        found.append(time.perf_counter() - begin)
        time.sleep(0.002 if alone else 0.0)
    for thread in threads:
        thread.join()
    return np.array(found), sent[0]
