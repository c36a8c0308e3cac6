"""Speed of the feature pipeline on one core, beside polars and pandas on windows made comparable.

From decoded columns (an Arrow event table) to the float32 matrix: hashing, ordering, look-up and profiles included.
Peers compute nine rolling sums per client (requests over six windows, output tokens over three); the client entity alone
computes all its features meanwhile. Peers run on fewer events, because they are slow; rates are compared, not times.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa

from classifier.events import EVENT_SCHEMA, FIELDS
from classifier.features.engine import Engine, Tables
from classifier.features.order import Orderer
from classifier.features.prepare import Preparer
from classifier.features.spec import ENTITIES, HALF_LIVES_S, NAMES
from classifier.features.stream import CHUNK_ROWS

START_US = 1_700_000_000_000_000


def make_events(events: int, clients: int, keys: str, seed: int = 0) -> pa.Table:
    """Return a log of `events` requests in order of time, by `clients` clients that are `uniform` or follow `zipf`."""
    rng = np.random.default_rng(seed)
    if keys == "uniform":
        client = rng.integers(0, clients, events)
    else:
        weights = 1.0 / np.arange(1, clients + 1)
        client = np.searchsorted(np.cumsum(weights / weights.sum()), rng.random(events)).clip(0, clients - 1)
    address = client // 2
    addresses = [_address(a) for a in range(clients // 2 + 1)]
    text = {
        "ip": _texts(addresses, address),
        "account": _texts([f"acct_{c * 2_654_435_761 % 2**32:08x}" for c in range(clients)], client),
        "method": _texts(["POST", "GET"], rng.integers(0, 2, events)),
        "path": _texts([f"/v1/models/m{i}/generate" for i in range(60)], rng.integers(0, 60, events)),
        "user_agent": _texts([f"OpenAI/Python 1.{i}.0" for i in range(200)], client % 200),
        "fingerprint": _texts([f"t13d15{i:02d}h2_8daaf6152771_b0da82dd1658" for i in range(80)], client % 80),
        "model": _texts(["m-large", "m-mid", "m-small"], rng.integers(0, 3, events)),
    }
    numbers = {
        "time": np.sort(rng.integers(0, events * 500, events)) + START_US,
        "duration": rng.exponential(1.5, events),
        "status": rng.choice([200, 200, 200, 200, 401, 404, 429, 500], events),
        "account_created": START_US * 1e-6 - rng.exponential(1e6, clients)[client],
        "request_bytes": rng.integers(100, 20_000, events),
        "response_bytes": rng.integers(100, 20_000, events),
        "input_tokens": rng.integers(1, 4_000, events),
        "output_tokens": rng.integers(1, 2_000, events),
        "max_tokens": rng.integers(100, 4_000, events),
    }
    columns = {name: pa.array(values, EVENT_SCHEMA.field(name).type) for name, values in numbers.items()} | text
    return pa.table({f.name: columns.get(f.name, pa.nulls(events, f.type)) for f in FIELDS}, schema=EVENT_SCHEMA)


def _address(number: int) -> str:
    """Return an IPv4 address: eight of them share a /24."""
    network, host = divmod(number, 8)
    return f"{network % 223 + 1}.{network // 223 % 256}.{network // 57_088}.{host * 30 + 7}"


def _texts(texts: list[str], index: np.ndarray) -> pa.Array:
    return pa.array(texts).take(pa.array(index))


def features(events: pa.Table, entities: tuple[str, ...], sizes: Tables) -> float:
    """Run the pipeline over a table, one thread; return the processor seconds that it took.

    The tables' memory is touched before: a machine takes as long to hand out its pages as it wants, once in a service's life.
    """
    preparer, orderer = Preparer(b"benchmark secret"), Orderer()
    engine = Engine(sizes, entities=entities)
    for array in engine.arrays:
        array[...] = 0
    begin_s = time.process_time()
    for begin in range(0, events.num_rows, CHUNK_ROWS):
        prepared = preparer.table(events.slice(begin, CHUNK_ROWS), begin, after=orderer.carried)
        engine.run(orderer.push_joined(prepared))
    return time.process_time() - begin_s


def polars_rolling(events: pa.Table) -> None:
    """Nine rolling sums per client with `rolling_sum_by`."""
    import polars as pl

    frame = pl.DataFrame(
        {
            "client": pl.from_arrow(events.column("account")),
            "time": pl.from_arrow(events.column("time")).cast(pl.Datetime("us")),
            "one": np.ones(events.num_rows),
            "tokens": events.column("output_tokens").to_numpy().astype(np.float64),
        }
    )
    windows = [("one", h) for h in HALF_LIVES_S] + [("tokens", h) for h in HALF_LIVES_S[2::2]] + [("tokens", 65536)]
    frame.with_columns(
        pl.col(column).rolling_sum_by("time", f"{h}s").over("client").alias(f"{column}{h}{i}")
        for i, (column, h) in enumerate(windows)
    )


def pandas_rolling(events: pa.Table) -> None:
    """The same with `groupby.rolling`."""
    import pandas as pd

    frame = pd.DataFrame(
        {
            "client": events.column("account").to_pandas(),
            "one": 1.0,
            "tokens": events.column("output_tokens").to_numpy().astype(np.float64),
        }
    )
    frame.index = pd.to_datetime(events.column("time").to_numpy(), unit="us")
    groups = frame.groupby("client")
    for h in HALF_LIVES_S:
        groups["one"].rolling(f"{h}s").sum()
    for h in (64, 4096, 65536):
        groups["tokens"].rolling(f"{h}s").sum()


def timed(work: Callable[[], None]) -> float:
    """Return the processor seconds of a run: one thread each, and other programs do not count."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def best(work: Callable[[], float], repeats: int) -> float:
    """Return the least of the seconds that `repeats` runs took."""
    return min(work() for _ in range(repeats))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=5_000_000)
    parser.add_argument("--clients", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=2)
    arguments, _ = parser.parse_known_args()
    sizes = Tables.for_clients(2 * arguments.clients)
    features(make_events(2_000, 100, "zipf"), ENTITIES, Tables.for_clients(100))
    print(f"{arguments.events:,} events, {arguments.clients:,} clients, one thread, best of {arguments.repeats}")
    print(f"{'keys':8} {'what':44} {'k events/s':>10} {'of polars':>9} {'of pandas':>9}")
    for keys in ("zipf", "uniform"):
        events = make_events(arguments.events, arguments.clients, keys)
        few = make_events(arguments.events // 5, arguments.clients // 5, keys)
        fewer = make_events(arguments.events // 50, arguments.clients // 50, keys)
        rates = {
            f"six entities, {len(NAMES)} features": len(events)
            / best(lambda e=events: features(e, ENTITIES, sizes), arguments.repeats),
            "client entity alone": len(events)
            / best(lambda e=events: features(e, ("client",), sizes), arguments.repeats),
            "polars rolling_sum_by, 9 windows": len(few)
            / best(lambda e=few: timed(lambda: polars_rolling(e)), arguments.repeats),
            "pandas groupby.rolling, 9 windows": len(fewer)
            / best(lambda e=fewer: timed(lambda: pandas_rolling(e)), arguments.repeats),
        }
        polars, pandas = list(rates.values())[2:]
        for what, rate in rates.items():
            print(f"{keys:8} {what:44} {rate / 1e3:10,.0f} {rate / polars:9.1f} {rate / pandas:9.1f}", flush=True)


if __name__ == "__main__":
    main()
