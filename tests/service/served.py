"""What the tests of the service share: a small bundle over the real features, a service on it, and mixed events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightgbm
import msgspec
import numpy as np
from fastapi.testclient import TestClient

from classifier.events import Event, table_of
from classifier.features.engine import Tables
from classifier.features.spec import NAMES, spec_hash
from classifier.features.stream import feature_chunks
from classifier.model.boosters import Boosters
from classifier.model.bundle import Bundle, write_bundle
from classifier.model.export import to_onnx
from classifier.model.judge import Judge
from classifier.policy import LegitimateCurve, Thresholds
from serving.app import Service, create_app
from serving.settings import Settings
from tests.forests import BASE
from tests.unit.test_bundle import manifest

START = 1_700_000_000
SECRET = b"a secret of the tests"
SIZES = Tables((8, 8, 4, 4, 4, 1), (2, 2, 2, 2, 2, 1))


def mixed_events(count: int, seed: int = 0) -> list[Event]:
    """Events of all sorts, in order of time: shared microseconds, missing and endless durations, refused verdicts."""
    rng = np.random.default_rng(seed)
    time = START + np.cumsum(
        rng.choice([0.0, 0.000001, 0.3, 2.0, 100.0, 1000.0], count, p=[0.2, 0.1, 0.4, 0.25, 0.03, 0.02])
    )

    def some(values: list[Any], missing: float = 0.3) -> Any:
        return None if rng.random() < missing else values[int(rng.integers(len(values)))]

    return [
        Event(
            time=float(moment),
            ip=some(["1.2.3.4", "1.2.3.9", "9.8.7.6", "2001:db8::1"], 0) if rng.random() < 0.8 else f"10.0.0.{place % 250}",
            method=some(["GET", "POST", "HEAD"], 0),
            path=some(["/", "/v1/chat/completions", "/a/1.css", "/wp-login.php", "/v1/models?x=1"], 0),
            duration=some([0.0, 1e-7, 1e-6, 0.3, 1.0, 2.3, 599.999999, 600.0, 600.000001, 700.0]),
            status=some([200, 200, 401, 404, 429, 503]),
            account=some(["a", "b", "c"], 0.6),
            credential=some(["k", "l"], 0.6),
            account_created=some([START - 1e6, START - 3.5], 0.6),
            user_agent=some(["curl/8.1.2", "Mozilla/5.0 (X11) Firefox/1", "", "OpenAI/Python 1.40"]),
            referer=some(["https://x.example/"], 0.7),
            fingerprint=some(["t13d1516h2_8daaf6152771_b0da82dd1658"], 0.7),
            request_bytes=some([0, 7, 1_000, 123_456]),
            response_bytes=some([0, 7, 1_000, 123_456]),
            model=some(["m", "n"]),
            input_tokens=some([1, 70, 5000]),
            output_tokens=some([0, 16, 900]),
            max_tokens=some([1, 256, 4096]),
            prompt=some(["Tell me about 12 of the Danes", "x", "", "é"]),
            verdict=some(["allow", "challenge", "block"], 0.7),
        )
        for place, moment in enumerate(time)
    ]  # fmt: skip


def make_bundle(folder: Path, seed: int = 0, legitimate: int = 10_000) -> Bundle:
    """A bundle whose forest splits on every kind of feature and which challenges and blocks a good part of `mixed_events`.

    Its curve is one of so many legitimate requests.
    """
    table = table_of(mixed_events(1500, seed))
    rows = np.concatenate([c.rows for c in feature_chunks([table], sizes=SIZES, secret=SECRET)])
    rng = np.random.default_rng(seed)
    labels = (rng.random(len(rows)) < 0.2 + 0.5 * (np.nan_to_num(rows[:, 3]) > np.nanmedian(rows[:, 3]))).astype(int)
    params = BASE | {"seed": seed}
    own_columns = tuple(range(0, len(NAMES), 2))
    own_rows = np.ascontiguousarray(rows[:, own_columns])
    own = lightgbm.train(params, lightgbm.Dataset(own_rows, labels), 12)
    group = lightgbm.train(params, lightgbm.Dataset(rows, labels, init_score=own.predict(own_rows, raw_score=True)), 8)
    boosters = Boosters(own, own_columns, group)
    boosters.round_leaves()
    forest = boosters.forest(len(NAMES))
    raw = boosters.raw(rows).astype(np.float32)
    most, challenge, block = (float(np.float32(np.quantile(raw, q))) for q in (0.3, 0.7, 0.9))
    curve = LegitimateCurve(
        legitimate, 100, (-9.0, most, challenge, block, 9.0), tuple(legitimate * k // 10 for k in (10, 7, 3, 1, 0)),
        (1.0, 0.7, 0.3, 0.1, 0.0),
        least_block=float(np.float32((challenge + block) / 2)),
    )  # fmt: skip
    described = manifest(
        features=NAMES, spec_hash=spec_hash(), tables=SIZES.as_slots(), clip=None, without=(),
        thresholds=Thresholds(challenge, block).as_json(), legitimate_curve=curve.as_json(),
    )  # fmt: skip
    graph = to_onnx(forest, (1.25, -3.5), np.inf)
    return write_bundle(folder, described, {"model.onnx": graph.SerializeToString()})


class Moment:
    """A clock that moves when it is told to."""

    def __init__(self, seconds: float = START) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        return self.seconds


def service(judge: Judge, now: Any = None, **settings: Any) -> Service:
    """Make a service that enforces at once, unless the settings say otherwise."""
    given = {"mode": "enforce", "warm_up_s": 0.0, **settings}
    chosen = Settings(bundle=judge.bundle.path, **given)
    return create_app(chosen, judge, now=now or Moment(), secret=SECRET)


def client_of(app: Any, **options: Any) -> TestClient:
    """Speak to a service without a network. The lifespan is not run: nothing needs to start."""
    return TestClient(app, raise_server_exceptions=False, **options)


def post(client: TestClient, path: str, body: Any, **headers: str) -> Any:
    """Post JSON (or bytes as they are) and return the response."""
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(path, content=content, headers={"content-type": "application/json", **named})


def event(**changes: Any) -> dict[str, Any]:
    """A small event as a gateway sends it."""
    return {"ip": "192.0.2.7", "method": "POST", "path": "/v1/chat/completions", **changes}
