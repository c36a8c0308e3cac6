"""Lines a second of the log readers: unpacked bytes in, chunks of typed events out, one core, best of three.

Beside the time on the clock stands the processor time: where other work shares the core, that is the figure to compare.

Each format reads 1 M lines that are generated here. `python -m tests.benchmarks.bench_parse --limit 4` reads 20 M lines
under an address-space limit of 4 GiB instead, and prints the peak memory.
"""

from __future__ import annotations

import os

os.environ.setdefault("POLARS_MAX_THREADS", "1")  # before polars is imported: one core is what is measured

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from classifier.logs import Reading, read_events

LINES = 1_000_000
ROUNDS = 3
TARGET = 400
"""k lines/s that combined logs must reach."""
AGENTS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/107.0.0.0 Safari/537.36",
    "OpenAI/Python 1.40.0",
    "curl/8.1",
    "Mozilla/5.0 (compatible; ExampleBot/7.0; +http://example.org/robot/)",
    "-",
)
START = 1_778_000_000


def requests(seed: int = 1) -> Iterator[tuple[float, str, str, int, int, str, float]]:
    """Yield arrival (Unix s), ip, path, status, bytes, user agent, duration of made-up requests, about 50 a second."""
    rng = random.Random(seed)
    arrival = float(START)
    while True:
        arrival += rng.random() / 25
        ip = f"203.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(256)}"
        path = f"/v1/chat/completions?session={rng.randrange(1 << 30):x}"
        yield (
            arrival,
            ip,
            path,
            rng.choice((200, 200, 200, 401, 429)),
            rng.randrange(90_000),
            rng.choice(AGENTS),
            rng.random(),
        )


def combined(tail: Callable[[float], str]) -> Iterator[str]:
    """Yield combined lines; `tail` writes what follows the user agent, from the duration."""
    for arrival, ip, path, status, size, agent, duration in requests():
        stamp = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(arrival))
        head = f'{ip} - - [{stamp}] "POST {path} HTTP/1.1" {status} {size}'
        yield f'{head} "https://example.org/app" "{agent}"{tail(duration)}'


def escaped() -> Iterator[str]:
    """Yield combined lines, one in ten with escaped quotes, which take the exact parser."""
    for i, line in enumerate(combined(lambda _: "")):
        yield line.replace("POST /v1", 'POST /\\"v1') if i % 10 == 0 else line


def events() -> Iterator[str]:
    """Yield events as JSON."""
    for arrival, ip, path, status, size, agent, duration in requests():
        event = {"time": round(arrival, 6), "ip": ip, "method": "POST", "path": path, "status": status}
        event |= {"response_bytes": size, "user_agent": agent, "duration": round(duration, 3), "account": ip[4:]}
        event |= {"model": "small", "input_tokens": size // 9, "output_tokens": size // 7, "max_tokens": 4096}
        yield json.dumps(event)


def envoy() -> Iterator[str]:
    """Yield Envoy AI Gateway access-log lines."""
    for arrival, ip, path, status, size, agent, duration in requests():
        record = {
            "start_time": stamp_of(arrival),
            "method": "POST",
            "x-envoy-origin-path": path,
            "response_code": status,
        }
        record |= {"bytes_sent": size, "duration": int(duration * 1e3), "user-agent": agent, "response_flags": "-"}
        record |= {"downstream_remote_address": f"{ip}:443", "gen_ai.usage.input_tokens": size // 9}
        yield json.dumps(record)


def litellm() -> Iterator[str]:
    """Yield LiteLLM StandardLoggingPayload lines without messages."""
    for arrival, ip, _, status, size, agent, duration in requests():
        record = {"id": f"c-{size}", "call_type": "acompletion", "startTime": arrival, "endTime": arrival + duration}
        record |= {"status": "success" if status == 200 else "failure", "model": "small", "prompt_tokens": size // 9}
        record |= {"completion_tokens": size // 7, "requester_ip_address": ip, "request_tags": [f"User-Agent: {agent}"]}
        yield json.dumps(record | {"metadata": {"user_api_key_hash": ip[4:], "user_api_key_user_id": None}})


def csv() -> Iterator[str]:
    """Yield a CSV of events."""
    yield "time,ip,method,path,status,response_bytes,user_agent,duration"
    for arrival, ip, path, status, size, agent, duration in requests():
        yield f'{arrival:.6f},{ip},POST,{path},{status},{size},"{agent}",{duration:.3f}'


def stamp_of(arrival: float) -> str:
    """Write a time as Envoy does."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(arrival)) + f".{int(arrival % 1 * 1e3):03d}Z"


CASES: dict[str, Callable[[], Iterator[str]]] = {
    "combined, fixed tail": lambda: combined(lambda _: ""),
    "combined, $request_time": lambda: combined(lambda s: f" {s:.3f}"),
    "combined, forwarded for and times": lambda: combined(lambda s: f' "198.51.100.1, 10.0.0.1" {s:.3f} {s:.3f}'),
    "combined, 10 % escaped quotes": escaped,
    "jsonl events": events,
    "litellm": litellm,
    "envoy": envoy,
    "csv": csv,
}


def write(path: Path, lines: Iterator[str], count: int) -> None:
    """Write the first lines of an endless log."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in islice(lines, count))


class Spent(NamedTuple):
    """Seconds that one reading took: on the clock, and of the processor."""

    clock: float
    processor: float


def read(path: Path, lines: int) -> Spent:
    """Read a log and return what it took; every line must be accepted."""
    reading = Reading()
    begin = Spent(time.perf_counter(), time.process_time())
    for chunk in read_events([path], reading=reading):
        assert chunk.num_rows
    spent = Spent(time.perf_counter() - begin.clock, time.process_time() - begin.processor)
    assert (reading.accepted, reading.rejected) == (lines, 0), reading
    return spent


def main() -> None:
    """Print the table of all formats."""
    print(f"{LINES:,} lines each, one core, best of {ROUNDS}; target for combined: {TARGET} k lines/s\n")
    print(f"| {'format':<33} | {'MB':>4} | {'k lines/s':>9} | {'MB/s':>5} | {'k lines/CPU s':>13} |")
    print(f"|{'-' * 35}|{'-' * 5}:|{'-' * 10}:|{'-' * 6}:|{'-' * 14}:|")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "log")
        for name, lines in CASES.items():
            write(path, lines(), LINES + (name == "csv"))  # a CSV has a header
            runs = [read(path, LINES) for _ in range(ROUNDS)]
            clock, processor = (min(column) for column in zip(*runs, strict=True))
            megabytes = path.stat().st_size / 1e6
            row = f"| {name:<33} | {megabytes:>4.0f} | {LINES / clock / 1e3:>9.0f} | {megabytes / clock:>5.0f} |"
            print(row + f" {LINES / processor / 1e3:>13.0f} |", flush=True)


def under_limit(gibibytes: float, lines: int) -> None:
    """Read a long combined log under an address-space limit, and print the peak of memory."""
    import resource

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "log")
        block = "".join(f"{line}\n" for line in islice(combined(lambda s: f" {s:.3f}"), 100_000))
        with path.open("w", encoding="utf-8") as file:
            for _ in range(lines // 100_000):
                file.write(block)
        resource.setrlimit(resource.RLIMIT_AS, (int(gibibytes * 2**30),) * 2)
        spent = read(path, lines).clock
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{lines:,} lines under {gibibytes:g} GiB of address space: {lines / spent / 1e3:.0f} k lines/s, peak {peak:.0f} MiB"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=float, help="GiB of address space to read a long log under")
    parser.add_argument("--lines", type=int, default=20_000_000, help="lines of that log")
    options = parser.parse_args()
    if options.limit:
        under_limit(options.limit, options.lines)
    else:
        main()
