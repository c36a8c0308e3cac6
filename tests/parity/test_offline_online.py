"""Offline equals online: the same transitions give bitwise the same rows and profiles, however they are cut.

Tables are so small that most examples evict. Every comparison is of bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from classifier.events import EVENT_SCHEMA, FIELDS, MICROSECONDS, Event, table_of
from classifier.features import layout as at
from classifier.features.engine import Engine, Tables
from classifier.features.order import EXPIRY_US, Orderer, Transitions, sorted_tables
from classifier.features.prepare import Events, Preparer
from classifier.features.spec import COLUMN

PREPARER = Preparer(b"a secret of the tests")
START = 1_700_000_000

tables = st.builds(
    lambda sets, ways: Tables((*(1 << s for s in sets), 1), (*ways, 1)),
    st.tuples(*[st.integers(0, 1)] * 5),
    st.tuples(*[st.integers(1, 2)] * 5),
)


def maybe(strategy: st.SearchStrategy) -> st.SearchStrategy:
    return st.one_of(st.none(), strategy)


seconds = st.one_of(
    st.integers(0, 4).map(float),
    st.floats(0, 5, allow_subnormal=False),
    st.integers(0, 40).map(lambda n: n * 60.0),
    st.integers(0, 3).map(lambda n: n * 90_000.0),
)
durations = maybe(
    st.one_of(
        st.sampled_from([0.0, 1e-7, 4e-7, 1e-6, 1.0, 599.999999, 600.0, 600.000001, 700.0]),
        st.floats(0, 3, allow_subnormal=False),
    )
)
SIZES = [None, 0, 1, 7, 1_000, 123_456_789]
CHOICES: dict[str, list[Any]] = {
    "ip": ["1.2.3.4", "1.2.3.9", "1.2.4.1", "2001:db8::1", "2001:db8:0:1::2", "host.example"],
    "account": [None, "a", "b", "c", "1.2.3.4"],
    "status": [None, 200, 401, 404, 429, 418, 503],
    "verdict": [None, "allow", "challenge", "block"],
    "method": ["GET", "POST", "HEAD"],
    "path": ["/", "/v1/chat/completions", "/a/1.css", "/a/2.png?x=1", "/wp-login.php"],
    "prompt": [None, "Tell me about 12 of the Danes", "Tell me about 7 of the Swedes", "x", "", "é"],
    "user_agent": [None, "curl/8.1.2", "Mozilla/5.0 (X11) Firefox/1", "Googlebot/2.1", "", "-"],
    "fingerprint": [None, "t13d1516h2_8daaf6152771_b0da82dd1658", "t12i"],
    "credential": [None, "k", "l"],
    "model": [None, "m", "n"],
    "account_created": [None, START - 1e6, START - 3.5, START + 1e9],
    "referer": [None, "https://x.example/"],
    "request_bytes": SIZES,
    "response_bytes": SIZES,
    "input_tokens": SIZES,
    "output_tokens": SIZES,
    "max_tokens": SIZES,
}


def chosen(number: int) -> dict[str, Any]:
    """Read a number as one choice of each field: drawing the fields one by one takes longer than all the rest."""
    fields = {}
    for name, choices in CHOICES.items():
        number, place = divmod(number, len(choices))
        fields[name] = choices[place]
    return fields


numbers = st.integers(0, math.prod(len(choices) for choices in CHOICES.values()) - 1)


def events() -> st.SearchStrategy[Event]:
    return st.builds(
        lambda second, duration, number: Event(time=START + second, duration=duration, **chosen(number)),
        seconds, durations, numbers,
    )  # fmt: skip


SCRIPTS = st.lists(
    st.tuples(st.sampled_from(["arrive", "arrive", "complete"]), events(), st.integers(0, 800)), min_size=4, max_size=40
)


def same(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and one.tobytes() == other.tobytes()


def assert_same_state(one: Engine, other: Engine) -> None:
    assert all(same(mine, theirs) for mine, theirs in zip(one.arrays, other.arrays, strict=True))


@dataclass
class Journal:
    """What an online engine did, transition by transition."""

    transitions: list[tuple[float, int, int]]
    events: list[Events]
    rows: list[np.ndarray]


def play_online(engine_tables: Tables, script: list[tuple[str, Event, int]]) -> tuple[Engine, Journal]:
    """Let an engine live through a script of arrivals and completions at any times, late ones included."""
    journal = Journal([], [], [])
    engine = Engine(engine_tables, record=lambda *transition: journal.transitions.append(transition), pending_limit=5)
    for action, event, choice in script:
        engine.expire(START * MICROSECONDS + choice * 1_700_000.0, choice % 3)  # in quiet times, before who comes next
        if action == "arrive":
            prepared = PREPARER.arrival(event)
            journal.events.append(prepared)
            _, row = engine.arrive(prepared)
            journal.rows.append(row)
        else:
            serial = choice % (len(journal.events) + 1)
            values = engine.values_of(serial)
            if values is None:
                values = np.zeros(at.VALUES, np.float32)
            PREPARER.completion(values, event)
            if engine.complete(serial, START * MICROSECONDS + choice * 1_700_000.0, values):
                journal.events[serial].values[0] = values
    return engine, journal


def chunk_of(journal: Journal, transitions: list[tuple[float, int, int]]) -> Transitions:
    """The transitions as a chunk of the batch form, holding just the events that it touches."""
    serials = sorted({serial for _, _, serial in transitions})
    place = {serial: index for index, serial in enumerate(serials)}
    arriving = [place[serial] for _, kind, serial in transitions if kind == at.ARRIVAL]
    return Transitions(
        np.array([t for t, _, _ in transitions], np.float64),
        np.array([k for _, k, _ in transitions], np.uint8),
        np.array([place[s] for _, _, s in transitions], np.int64),
        Events.join([journal.events[s] for s in serials]) if serials else Events.empty(),
        np.array(serials, np.int64),
        np.array(arriving, np.int64),
    )


def cuts_of(length: int, cuts: list[float]) -> list[int]:
    return [0, *sorted(int(c * length) for c in cuts), length]


@settings(max_examples=1000)
@given(
    tables,
    SCRIPTS,
    st.lists(st.floats(0, 1), max_size=4),
    st.integers(1, 3),
)
def test_any_cut_and_any_sharding_of_what_a_service_lived_through_is_the_same(engine_tables, script, cuts, shards):
    online, journal = play_online(engine_tables, script)
    batch = Engine(engine_tables, shards=shards, threads=min(shards, 2))
    edges = cuts_of(len(journal.transitions), cuts)
    rows = [batch.run(chunk_of(journal, journal.transitions[a:b])) for a, b in pairwise(edges)]
    assert same(np.concatenate(rows), np.array(journal.rows, np.float32).reshape(-1, len(COLUMN)))
    assert_same_state(batch, online)


@settings(max_examples=300)
@given(tables, SCRIPTS, st.integers(1, 6))
def test_arrivals_that_come_together_are_those_that_come_one_by_one(engine_tables, script, most):
    one_by_one, together = Engine(engine_tables, pending_limit=9), Engine(engine_tables, pending_limit=9)
    seen: list[list[tuple[float, int, int]]] = [[], []]
    one_by_one.record = lambda *transition: seen[0].append(transition)
    together.record = lambda *transition: seen[1].append(transition)
    waiting: list[Events] = []

    def arrive() -> None:
        if waiting:
            first, rows = together.arrive_all(Events.join(waiting))
            for place, one in enumerate(waiting):
                serial, row = one_by_one.arrive(one)
                assert serial == first + place
                assert same(row, rows[place])
            waiting.clear()

    for action, event, choice in script:
        if action == "arrive":
            waiting.append(PREPARER.arrival(event))
            if len(waiting) == most:
                arrive()
            continue
        arrive()
        for engine in (one_by_one, together):
            serial = choice % (engine.arrivals + 1)
            values = engine.values_of(serial)
            if values is not None:
                PREPARER.completion(values, event)
                engine.complete(serial, START * MICROSECONDS + choice * 1_700_000.0, values)
    arrive()
    assert_same_state(one_by_one, together)
    assert sorted(seen[0]) == sorted(seen[1])


def evicts(engine_tables: Tables, hashes: np.ndarray) -> bool:
    """Whether some set of some table is asked to hold more keys than it has ways."""
    for kind, (sets, ways) in enumerate(zip(engine_tables.sets[:-1], engine_tables.ways[:-1], strict=True)):
        keys = np.unique(hashes[:, kind][hashes[:, kind] != 0])
        _, asked = np.unique((keys >> np.uint64(8)) & np.uint64(sets - 1), return_counts=True)
        if (asked > ways).any():
            return True
    return False


def test_at_least_half_of_the_examples_evict() -> None:
    evicted = []

    @settings(max_examples=300, database=None)
    @given(tables, SCRIPTS)
    def look(engine_tables: Tables, script: list[tuple[str, Event, int]]) -> None:
        prepared = [PREPARER.arrival(event).hashes for action, event, _ in script if action == "arrive"]
        evicted.append(bool(prepared) and evicts(engine_tables, np.concatenate(prepared)))

    look()
    assert np.mean(evicted) >= 0.5


def in_order(log: list[Event]) -> list[tuple[float, int, int, str]]:
    """The order of a log's transitions, written down naively: (time, completions first, arrivals, input row)."""
    out = []
    for row, event in enumerate(log):
        arrival = round(event.time * MICROSECONDS)
        length = 0 if event.duration is None else round(event.duration * MICROSECONDS)
        out.append((arrival, 1, row, 0, "arrive"))
        if length < 1:
            out.append((arrival, 1, row, 1, "complete"))
        elif length <= EXPIRY_US:
            out.append((arrival + length, 0, row, 0, "complete"))
    return [(time, row, action) for time, _, row, _, action in sorted(out)]


def prepared_in_order(log: list[Event]) -> Events:
    ((table, row),) = sorted_tables([table_of(log)])
    prepared = PREPARER.table(table)
    prepared.row[:] = row
    return prepared


@settings(max_examples=500)
@given(tables, st.lists(events(), min_size=1, max_size=25), st.lists(st.floats(0, 1), max_size=4), st.integers(1, 3))
def test_a_log_scored_in_chunks_equals_the_log_replayed_request_by_request(engine_tables, log, cuts, shards):
    offline = Engine(engine_tables, shards=shards, threads=min(shards, 2))
    prepared = prepared_in_order(log)
    orderer, parts = Orderer(), []
    edges = cuts_of(len(prepared), cuts)
    for number, (a, b) in enumerate(pairwise(edges)):
        chunk = prepared.take(slice(a, b))
        transitions = orderer.push_joined(Events.join([orderer.carried, chunk])) if number % 2 else orderer.push(chunk)
        parts.append(offline.run(transitions))
    offline.run(orderer.push(Events.empty(), last=True))
    rows = np.empty((len(log), len(COLUMN)), np.float32)
    rows[prepared.row] = np.concatenate(parts)

    online, serials = Engine(engine_tables), {}
    for time, row, action in in_order(log):
        online.expire(time, row % 3)
        if action == "arrive":
            serials[row], features = online.arrive(PREPARER.arrival(log[row]))
            assert same(features, rows[row])
        else:
            values = online.values_of(serials[row])
            PREPARER.completion(values, log[row])
            online.complete(serials[row], time, values)
    online._expire(offline.clock + 2 * EXPIRY_US)
    assert_same_state(offline, online)


@settings(max_examples=300)
@given(st.lists(events(), min_size=1, max_size=20), st.integers(0, 10**9))
def test_a_row_does_not_move_when_its_own_completion_changes(log, seed):
    rng = np.random.default_rng(seed)
    chosen = int(rng.integers(len(log)))

    def row_of(changed: Event) -> np.ndarray:
        prepared = prepared_in_order([*log[:chosen], changed, *log[chosen + 1 :]])
        rows = Engine(Tables.for_clients(16)).run(Orderer().push(prepared, last=True))
        return rows[int(np.flatnonzero(prepared.row == chosen)[0])]

    before = row_of(log[chosen])
    completion = [f.name for f in FIELDS if f.known == "completion"]
    changed = Event(**{name: getattr(log[chosen], name) for name in EVENT_SCHEMA.names if name not in completion})
    changed.status, changed.duration = 503, 0.5
    changed.output_tokens, changed.response_bytes = 77, 99
    assert same(before, row_of(changed))


@settings(max_examples=200)
@given(st.lists(events(), min_size=1, max_size=30), st.lists(st.floats(0, 1), max_size=4), st.integers(1, 7))
def test_the_external_sort_gives_the_one_order(log, cuts, piece):
    table = table_of(log)
    edges = cuts_of(len(log), cuts)
    chunks = [table.slice(a, b - a) for a, b in pairwise(edges) if b > a]
    sorted_parts = list(sorted_tables(chunks, rows=piece))
    rows = np.concatenate([row for _, row in sorted_parts])
    times = table.column("time").to_numpy()
    assert rows.tolist() == sorted(range(len(log)), key=lambda r: (times[r], r))
    assert pa.concat_tables([part for part, _ in sorted_parts]).equals(table.take(pa.array(rows)))
