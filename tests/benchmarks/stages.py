"""Where each microsecond of a decision goes: the stages of one request in process, and what remains for HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from classifier.model.judge import Judge
from serving.app import Service, create_app
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
    arrivals = run("profiles, features", gate.arrive_all, groups)
    judged = run("score, reasons", gate.judge, arrivals)
    pairs = list(zip(arrivals, judged, strict=True))
    answers = run("policy, answer", lambda pair: gate.answer(*pair), pairs)
    run("encode JSON", hot._encode, [one for group in answers for one in group])
    return spent


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
    print(f"\n{'µs a request, in process':34} {'alone':>10} {f'{together} at once':>12}")
    for stage, spent in alone.items():
        print(f"{stage:34} {spent:10.1f} {many[stage]:12.1f}")
    print(f"{'sum':34} {sum(alone.values()):10.1f} {sum(many.values()):12.1f}")
    whole = 1e6 / rate
    print(f"{'HTTP, event loop, network (rest)':34} {'':10} {whole - sum(many.values()):12.1f}")
    print(f"{'whole, at the highest rate':34} {'':10} {whole:12.1f}")
