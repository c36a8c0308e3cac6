"""`score` of a log and its replay through the service are equal, to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from classifier.cli.replaying import Pace, Service, replayed
from classifier.errors import BotsieveError, InputError
from classifier.events import Event, table_of
from classifier.features.order import sorted_tables
from classifier.model.apply import Model, in_input_order
from classifier.model.bundle import Bundle
from classifier.model.judge import Judge
from tests.service.served import SECRET, START, client_of, mixed_events, post, service
from tests.unit.command_line import BAD, refused


class Wire:
    """Sends through the ASGI application, and remembers what was sent."""

    def __init__(self, app: Any) -> None:
        self.client = client_of(app)
        self.sent: list[tuple[str, int]] = []

    def __call__(self, path: str, body: Any) -> Any:
        self.sent.append((path, len(body)))
        answer = post(self.client, path, body)
        assert answer.status_code == 200, answer.text
        return answer.json()


def both(judge: Judge, events: list[Event], cut: int, **settings: Any) -> tuple[pa.Table, pa.Table, Wire]:
    whole = table_of(events)
    tables = [whole.slice(begin, cut) for begin in range(0, whole.num_rows, cut)]
    model = Model(judge.bundle)
    scored = pa.concat_tables(in_input_order(part.results for part in model.scored(tables, secret=SECRET)))
    wire = Wire(service(judge, clock="event", **settings))
    sent = pa.concat_tables(in_input_order(replayed(sorted_tables(tables), wire)))
    return scored, sent, wire


def assert_equal(scored: pa.Table, sent: pa.Table) -> None:
    assert sent.schema.equals(scored.schema)
    for name in scored.column_names:
        one, other = scored.column(name), sent.column(name)
        if pa.types.is_floating(one.type):
            assert one.to_numpy().tobytes() == other.to_numpy().tobytes(), name
        else:
            assert one.to_pylist() == other.to_pylist(), name


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("mode", ["shadow", "enforce"])
def test_score_equals_replay(judge: Judge, seed: int, mode: str) -> None:
    events = mixed_events(500, seed)
    shuffled = [events[place] for place in np.random.default_rng(seed).permutation(len(events))]
    scored, sent, wire = both(judge, shuffled, cut=170, mode=mode)
    assert_equal(scored, sent)
    assert set(scored.column("decision").to_pylist()) == {"allow", "challenge", "block"}
    assert max(length for path, length in wire.sent if path == "/v1/decide/batch") > 1
    assert any(path == "/v1/clock" for path, _ in wire.sent)


def test_bursts_go_out_in_groups(judge: Judge) -> None:
    events = [Event(START + place * 0.001, "1.2.3.4", "GET", "/", duration=50.0) for place in range(1200)]
    scored, sent, wire = both(judge, events, cut=5000)
    assert_equal(scored, sent)
    assert [length for path, length in wire.sent if path == "/v1/decide/batch"] == [512, 512, 176]


def test_after_a_replay_nothing_is_in_flight_but_what_never_ended(judge: Judge) -> None:
    events = mixed_events(200)
    app = service(judge, clock="event")
    list(replayed(sorted_tables([table_of(events)]), Wire(app)))
    newest = max(e.time for e in events)  # type: ignore[type-var]
    endless = [e for e in events if (e.duration or 0) > 600 and e.time + 600 >= newest]  # type: ignore[operator]
    assert app.gate.engine.in_flight == len(endless)


def test_a_service_that_has_failed_writes_no_scores(judge: Judge) -> None:
    app = service(judge, clock="event")

    def broken(arrivals: Any) -> Any:
        raise RuntimeError("no scorer today")

    app.batcher._judge = broken
    with pytest.raises(BotsieveError, match="fail mode"):
        list(replayed(sorted_tables([table_of(mixed_events(3))]), Wire(app)))


def test_a_pace_keeps_to_the_times_of_the_log() -> None:
    now, waits = [100.0], []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        now[0] += seconds

    pace = Pace(2.0, lambda: now[0], sleep)
    for moment in (0, 1_000_000, 1_000_000, 5_000_000):
        pace(moment)
    assert waits == [0.5, 2.0]


@pytest.mark.parametrize("url", ["localhost:80", "ftp://x", "http://x/y", "http://x?y=1", "http://"])
def test_a_url_that_is_none_is_bad_input(url: str) -> None:
    with pytest.raises(InputError, match="--url takes"):
        Service(url)


def test_a_service_that_is_not_there_is_one_line() -> None:
    with pytest.raises(BotsieveError, match="is botsieve serve running"):
        Service("http://127.0.0.1:9").call("GET", "/healthz")


def test_a_service_that_goes_by_its_own_clock_is_refused(
    judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = client_of(service(judge))
    monkeypatch.setattr(Service, "call", lambda self, method, path, body=None: client.request(method, path).json())
    line = ["replay", BAD / "one_client.jsonl", "--url", "http://127.0.0.1:9", "--out", tmp_path / "out.csv"]
    refused(*line, says="start it with --clock event")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_reply_is_one_line(bundle: Bundle) -> None:
    from classifier.cli.replaying import _detail

    assert "proxy" in _detail(b"<html>")
    assert _detail(b'{"detail":"so"}') == "so"
