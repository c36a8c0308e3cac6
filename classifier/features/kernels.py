"""Compiling the kernels ahead of the first log, which takes about half a minute once on a machine.

    python -m classifier.features.kernels

numba keeps what it has compiled in files (`NUMBA_CACHE_DIR`); whoever comes later finds it there.
"""

from __future__ import annotations

from msgspec.structs import replace

from classifier.events import Event, table_of
from classifier.features.engine import Engine, Tables
from classifier.features.prepare import Preparer
from classifier.features.stream import feature_chunks


def compile_kernels() -> None:
    """Run every kernel of the features once, on two requests of a log and on one that comes alone."""
    event = Event(
        time=1.0, ip="192.0.2.1", method="POST", path="/v1/chat/completions", duration=0.5, status=200, account="a",
        user_agent="a", prompt="Hello", model="m", input_tokens=1, output_tokens=1,
    )  # fmt: skip
    sizes, secret = Tables.for_clients(64), bytes(16)
    for _ in feature_chunks([table_of([event, replace(event, duration=1.5)])], sizes=sizes, threads=2, secret=secret):
        pass
    engine, preparer = Engine(sizes), Preparer(secret)
    serial, _ = engine.arrive(preparer.arrival(event))
    values = engine.values_of(serial)
    assert values is not None
    preparer.completion(values, event)
    engine.complete(serial, 2e6, values)


if __name__ == "__main__":
    compile_kernels()
