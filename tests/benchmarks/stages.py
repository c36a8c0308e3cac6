"""Where each microsecond of a decision goes: the stages of one request in process, and what remains for HTTP."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from uvicorn.server import ServerState

from classifier.model.judge import Judge
from serving.app import Service, create_app
from serving.direct import direct
from serving.problems import JSON
from serving.settings import Settings

REQUESTS = 20_000


def stages(app: Service, events: Sequence[dict[str, object]], together: int) -> dict[str, float]:
    """Return µs a request of each stage, for requests of which `together` come at once."""
    gate, hot = app.gate, app.hot
    bodies = [json.dumps(event).encode() for event in events]
    spent: dict[str, float] = {}

    def run(stage: str, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        began = time.perf_counter()
        out = [function(item) for item in items]
        spent[stage] = (time.perf_counter() - began) * 1e6 / len(bodies)
        return out

    decoded = run("decode JSON", hot._event.decode, bodies)
    pending = run("check, hash", lambda one: gate.prepare([one])[0], decoded)
    groups = [pending[begin : begin + together] for begin in range(0, len(pending), together)]
    arrivals = run("prompt, profiles, features", gate.arrive_all, groups)
    judged = run("score, reasons", gate.judge, arrivals)
    pairs = list(zip(arrivals, judged, strict=True))
    answers = run("policy, answer", lambda pair: gate.answer(*pair), pairs)
    run("encode JSON", hot._encode, [one for group in answers for one in group])
    return spent


class Discarding(asyncio.Transport):
    """A transport that sends nothing."""

    def write(self, data: Any) -> None:
        """Drop the data."""

    def is_closing(self) -> bool:
        """It is open."""
        return False

    def close(self) -> None:
        """Nothing is held."""


def protocol(app: Service, events: Sequence[dict[str, object]]) -> float:
    """Return µs a request of HTTP alone: parsing it and putting an answer together, without a socket and with nothing decided."""
    bodies = [json.dumps(event).encode() for event in events]
    head = b"POST /v1/decide HTTP/1.1\r\nHost: 127.0.0.1:8460\r\nContent-Length: %d\r\ncontent-type: application/json\r\n\r\n"
    requests = [head % len(body) + body for body in bodies]
    content = b" " * 200
    app.hot.serve = lambda route, method, headers, body, asker: asker.tell(200, content, (JSON,))  # type: ignore[method-assign]

    async def feed() -> float:
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", ws="none")
        config.load()
        connection = direct(app.gate.settings, app.hot)(config, ServerState(), {})
        connection.connection_made(Discarding())
        began = time.perf_counter()
        for data in requests:
            connection.data_received(data)
        spent = time.perf_counter() - began
        connection.connection_lost(None)
        return spent * 1e6 / len(requests)

    return asyncio.run(feed())


def table(bundle: Path, event: Callable[[np.random.Generator], dict[str, object]], rate: float, rows: float) -> None:
    """Print the stages for one request alone and for `rows` together; `rate` is what one core served with these."""
    rng = np.random.default_rng(1)
    events = [event(rng) for _ in range(REQUESTS)]
    together = max(round(rows), 1)
    judge = Judge.load(str(bundle), device="cpu")
    judge.warm()
    app = create_app(Settings(bundle=bundle), judge, secret=b"of the benchmark")
    stages(app, events, 1)  # whoever comes for the first time takes up memory, and is hashed instead of looked up
    alone, many = stages(app, events, 1), stages(app, events, together)
    http = protocol(app, events)
    for spent in (alone, many):
        spent["HTTP: parse, put together"] = http
    print(f"\n{'µs a request, in process':34} {'alone':>10} {f'{together} at once':>12}")
    for stage, spent in alone.items():
        print(f"{stage:34} {spent:10.1f} {many[stage]:12.1f}")
    print(f"{'sum':34} {sum(alone.values()):10.1f} {sum(many.values()):12.1f}")
    whole = 1e6 / rate
    print(f"{'event loop, sockets, waiting (rest)':34} {'':10} {whole - sum(many.values()):12.1f}")
    print(f"{'whole, at the highest rate':34} {'':10} {whole:12.1f}")
