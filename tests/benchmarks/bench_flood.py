"""A flood of keys against a million clients: memory, who is still remembered, and how long a decision takes meanwhile.

A million clients make six requests each. Then ten million keys, seen once to three times, come with a fresh address, user
agent, path, prompt and credential each. They move the engine's profiles as requests do. Decisions are timed one by one through
the gate (hashing, profiles, forest, policy): between lists of 64 requests of known clients, then of the flood, then between
the pieces of a snapshot.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa

from classifier.events import EVENT_SCHEMA, FIELDS, Event
from classifier.features.engine import Engine, Tables
from classifier.features.order import Orderer
from classifier.features.prepare import Preparer
from classifier.model.judge import Judge
from serving.circumstances import attach
from serving.gate import Gate
from serving.settings import Settings
from serving.snapshot import Clock, Snapshots
from tests.benchmarks import flood_http
from tests.benchmarks.bench_serving import small_bundle

SECRET = b"a secret of the benchmark"
START_US = 1_700_000_000_000_000
CHUNK = 16_384


def table(time_us: int, step_us: float, names: np.ndarray, fresh: bool) -> pa.Table:
    """Return arrivals of the clients or keys with these numbers, `step_us` apart; `fresh` gives each its own of everything."""
    n = len(names)
    numbers = pa.array(names)
    text = numbers.cast(pa.string())

    def named(prefix: str) -> pa.Array:
        return pa.compute.binary_join_element_wise(pa.scalar(prefix), text, "")

    columns = {
        "time": pa.array(time_us + (np.arange(n) * step_us).astype(np.int64)),
        "ip": pa.array([_address(k, fresh) for k in names.tolist()]),
        "method": pa.array(["POST"] * n),
        "path": named("/v1/") if fresh else pa.array(["/v1/chat/completions"] * n),
        "user_agent": named("agent/") if fresh else pa.array(["OpenAI/Python 1.40.0"] * n),
    }
    if fresh:
        columns |= {"prompt": named("tell me of "), "credential": named("k")}
    else:
        columns["account"] = named("acct_")
    columns = {name: values.cast(EVENT_SCHEMA.field(name).type) for name, values in columns.items()}
    return pa.table({f.name: columns.get(f.name, pa.nulls(n, f.type)) for f in FIELDS}, schema=EVENT_SCHEMA)


def _address(number: int, fresh: bool) -> str:
    if fresh:
        return f"2001:db8:{number >> 16:x}:{number & 0xFFFF:x}::1"
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


class Timer:
    """Times single decisions of random clients through a gate."""

    def __init__(self, gate: Gate, clients: int) -> None:
        self._gate, self._rng, self._clients = gate, np.random.default_rng(1), clients

    def decide(self, moment_us: int) -> float:
        """Decide one request; return seconds."""
        k = int(self._rng.integers(self._clients))
        event = Event(moment_us / 1e6, _address(k, False), "POST", "/v1/chat/completions", account=f"visitor{k % 50}",
                      user_agent="OpenAI/Python 1.40.0", prompt="Summarise this report", max_tokens=256)  # fmt: skip
        begin = time.perf_counter()
        arrivals = self._gate.arrive_all(self._gate.prepare([event]))
        self._gate.answer(arrivals, self._gate.judge(arrivals))
        return time.perf_counter() - begin


def high(seconds: list[float]) -> str:
    """Return median and 99th percentile in ms."""
    return f"{1e3 * np.median(seconds):.3f} ms, 99th percentile {1e3 * np.quantile(seconds, 0.99):.3f} ms"


def main() -> None:
    """Print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--clients", type=int)
    parser.add_argument("--keys", type=int)
    parser.add_argument(
        "--http", action="store_true", help="send it to a running service; 20,000 clients, 200,000 keys"
    )
    arguments, _ = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.http:
            clients, keys = arguments.clients or 20_000, arguments.keys or 200_000
            bundle = arguments.bundle or small_bundle(Path(folder), "--capacity", str(2 * clients))
            flood_http.run(bundle, Path(folder), clients, keys)
            return
        clients, keys = arguments.clients or 1_000_000, arguments.keys or 10_000_000
        run(arguments.bundle or small_bundle(Path(folder)), Path(folder), clients, keys)


def run(bundle: Path, folder: Path, clients: int, keys: int) -> None:
    """Establish clients, flood, and compare."""
    tables = Tables.for_clients(2 * clients)
    engine, preparer, rng, orderer = Engine(tables), Preparer(SECRET), np.random.default_rng(0), Orderer()
    print(f"tables for {2 * clients:,} clients: at most {tables.bytes / 2**30:.2f} GiB", flush=True)
    now = START_US

    def play(names: np.ndarray, fresh: bool) -> None:
        """Move the profiles through requests that never end, as a log's: they expire 600 s later."""
        nonlocal now
        for begin in range(0, len(names), CHUNK):
            part = names[begin : begin + CHUNK]
            engine.run(orderer.push(preparer.table(table(now, 1000.0, part, fresh))))
            now += 1000 * len(part)

    def ask(names: np.ndarray, fresh: bool) -> float:
        """Let a list of requests arrive, and time a decision right after it."""
        nonlocal now
        engine.arrive_all(preparer.table(table(now, 0.0, names, fresh)))
        now += 1000 * len(names)
        gate._clock = int(engine.clock)
        return timer.decide(now)

    begin_s = time.monotonic()
    for _ in range(6):
        play(rng.permutation(clients), False)
    now += 700_000_000
    play(np.zeros(1, np.int64), False)  # what was in flight has expired
    gained = psutil.Process().memory_info().rss
    judge = Judge.load(str(bundle))
    judge.warm()
    runs: dict[str, int] = {}
    gate = Gate(
        Settings(bundle=bundle, clock="event", ahead_s=1e9, warm_up_s=0.0), judge, SECRET, time.time,
        restored=(engine, Clock(float(START_US), engine.clock, engine.arrivals, 0.0, runs)),
    )  # fmt: skip
    attach(gate, time.time, time.time)
    timer = Timer(gate, clients)
    for _ in range(500):
        timer.decide(now)
    tags = engine.own_tags[engine.own_tags != 0].copy()
    own_keys = preparer.table(table(now, 0.0, np.arange(clients), False)).hashes[:, 0]
    held = np.isin(own_keys, tags)
    order = {int(tag): slot for slot, tag in enumerate(engine.own_tags.tolist()) if tag}
    before = {key: hash(engine.own[order[key]].tobytes()) for key in own_keys[held].tolist()}
    del order
    took = time.monotonic() - begin_s
    print(f"{clients:,} clients, six requests each, {took:.0f} s; {held.mean():.4%} hold a profile", flush=True)
    print(f"process {gained / 2**30:.2f} GiB", flush=True)

    begin_s = time.monotonic()
    names = np.repeat(np.arange(keys), rng.integers(1, 4, keys))
    requests, began_with = len(names), psutil.Process().memory_info().rss
    blocks = np.array_split(names, max(requests // 2_000_000, 1))
    for number, block in enumerate(blocks):
        rng.shuffle(block)
        play(block, True)
        gained_by = (psutil.Process().memory_info().rss - began_with) / 2**30
        took = time.monotonic() - begin_s
        print(f"flood {number + 1}/{len(blocks)}: {took:.0f} s, {gained_by:+.2f} GiB", flush=True)
    order = {int(tag): slot for slot, tag in enumerate(engine.own_tags.tolist()) if tag}
    same = sum(key in order and hash(engine.own[order[key]].tobytes()) == row for key, row in before.items())
    share = same / len(before)
    print(f"{keys:,} keys, {requests:,} requests: {share:.4%} of the clients' profiles are unchanged, bit for bit")

    for part in np.split(rng.permutation(clients)[:6_400], 100):
        ask(part, False)
    calm = [ask(part, False) for part in np.split(rng.permutation(clients)[:64_000], 1000)]
    print(f"a decision between lists of known clients: median {high(calm)}", flush=True)
    flooded = [ask(keys + part, True) for part in np.split(np.arange(64_000), 1000)]
    print(f"a decision between lists of the flood: median {high(flooded)}", flush=True)

    snapshots, pieced = Snapshots(folder / "state", SECRET), []
    begin_s, size = time.monotonic(), 0
    pieces = snapshots.pieces(engine, 0.0, lambda: gate.runs)
    while True:
        begin = time.perf_counter()
        piece = next(pieces, None)
        waited = time.perf_counter() - begin
        if piece is None:
            break
        size += len(piece)
        pieced.append(waited + timer.decide(now))  # a request that came just as the piece began
        pieced += [timer.decide(now) for _ in range(7)]  # and those until the next piece, a pause later
    print(f"a decision during a snapshot of {size / 2**30:.2f} GiB: median {high(pieced)}")
    ratio = [np.quantile(part, 0.99) / np.quantile(calm, 0.99) for part in (flooded, pieced)]
    print(f"99th percentiles against before: {ratio[0]:.2f} times in the flood, {ratio[1]:.2f} times in the snapshot")


if __name__ == "__main__":
    main()
