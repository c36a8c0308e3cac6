"""A service that has started compiles nothing more: a request that waits for a compiler is let through by the gateway."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from numba.core.dispatcher import Dispatcher

from classifier.model.bundle import Bundle, load_bundle
from classifier.model.judge import Judge
from tests.service.served import Moment, client_of, mixed_events, post, service


def compiled() -> dict[str, int]:
    """Return how many signatures each kernel that is loaded has been compiled for."""
    return {
        f"{name}.{attribute}": len(kernel.signatures)
        for name, module in list(sys.modules.items())
        if name.startswith(("classifier.", "serving."))
        for attribute, kernel in vars(module).items()
        if isinstance(kernel, Dispatcher)
    }


def serve_some(path: Path) -> None:
    """Warm a service up, then let it decide and hear of ends; tell what was compiled meanwhile."""
    moment = Moment()
    app = service(Judge(load_bundle(path)), moment)
    app.gate.warm()
    assert app.gate.engine.arrivals == 0
    before, client = compiled(), client_of(app)
    assert len(before) > 20
    for event in mixed_events(300):
        moment.seconds = max(moment.seconds, float(event.time))
        answer = post(client, "/v1/decide", event).json()
        post(client, "/v1/complete", {"id": answer["id"], "status": event.status or 200, "output_tokens": 3})
    post(client, "/v1/decide/batch", mixed_events(50))
    assert app.gate.engine.arrivals > 300
    print({name: count - before.get(name, 0) for name, count in compiled().items() if count != before.get(name, 0)})


def test_a_service_that_has_started_compiles_nothing_more(bundle: Bundle) -> None:
    run = subprocess.run(
        [sys.executable, "-c", f"from tests.service.test_warm import *; serve_some(Path({str(bundle.path)!r}))"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "{}"


def test_warming_up_moves_nothing(judge: Judge) -> None:
    app = service(judge)
    app.gate.warm()
    assert app.gate.engine.start is None
    assert not app.gate.tallies.decisions
    assert (
        post(client_of(app), "/v1/decide", {"ip": "192.0.2.7", "method": "GET", "path": "/"})
        .json()["id"]
        .startswith("0-")
    )
