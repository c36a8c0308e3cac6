"""What the features promise: exact functions, honest formulas, bounded tables, and a documented spec."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from classifier.events import MICROSECONDS, Event, microseconds, table_of
from classifier.features import engine as engines
from classifier.features import layout as at
from classifier.features import profile, spec
from classifier.features.agents import BROWSER, CLIENT_LIBRARY, DECLARED_BOT, MISSING, agent_class, normal_agent
from classifier.features.engine import Engine, Tables
from classifier.features.hashing import Hasher, distinct_texts, text_spans
from classifier.features.numerics import count_bits, exp2, exp2_of_part, log2_positive, power_of_2
from classifier.features.order import Orderer
from classifier.features.paths import path_traits
from classifier.features.prepare import Events, Preparer, network_text
from classifier.features.prompts import fold_all
from classifier.features.stream import feature_chunks

ROOT = Path(__file__).resolve().parents[2]
START = 1_700_000_000
SECRET = b"a secret of the tests"
PREPARER = Preparer(SECRET)


def rows_of(log: list[Event], tables: Tables | None = None) -> np.ndarray:
    out = np.empty((len(log), len(spec.NAMES)), np.float32)
    for chunk in feature_chunks([table_of(log)], sizes=tables or Tables.for_clients(64), secret=SECRET):
        out[chunk.row] = chunk.rows
    return out


def feature(rows: np.ndarray, name: str) -> np.ndarray:
    return rows[:, spec.COLUMN[name]]


def event(seconds: float, **fields: object) -> Event:
    return Event(**({"time": START + seconds, "ip": "192.0.2.1", "method": "GET", "path": "/"} | fields))


# --- the spec ----------------------------------------------------------------------------------------------------------


def test_the_spec_is_one_ordered_table_of_at_least_eighty_features() -> None:
    assert len(spec.NAMES) == len(set(spec.NAMES)) >= 80
    assert {f.part for f in spec.FEATURES} == {"own", "group"}
    assert {f.entity for f in spec.FEATURES} >= set(spec.ENTITIES)


def test_the_page_of_features_is_the_spec() -> None:
    lines = (ROOT / "docs" / "features.md").read_text().splitlines()
    documented = [line for line in lines if line.startswith("| `")]
    assert documented == [f"| `{f.name}` | {f.part} | {f.unit} | {f.reason} | {f.meaning} |" for f in spec.FEATURES]


def test_groups_can_be_left_out_by_reason_entity_or_part() -> None:
    for group in ("user_agent", "address", "group"):
        left = {spec.FEATURES[c] for c in spec.columns_without([group])}
        assert left
        assert all(group not in (f.reason, f.entity, f.part) for f in left)
    with pytest.raises(KeyError):
        spec.columns_without(["no such group"])


# --- exact functions ---------------------------------------------------------------------------------------------------


@given(st.floats(0, 1))
def test_powers_of_2_are_exact_to_the_last_digits(x: float) -> None:
    assert exp2_of_part(x) == pytest.approx(2.0**x, rel=1e-15)


@given(st.floats(-1100, 512))
def test_exp2_is_exact_to_the_last_digits(x: float) -> None:
    expected = 2.0**x if x >= -1022 else 0.0
    assert exp2(x) == pytest.approx(expected, rel=1e-15)


@given(st.integers(-1022, 1023))
def test_whole_powers_of_2_are_exact(n: int) -> None:
    assert power_of_2(n) == 2.0**n


@given(st.floats(1e-6, 1e18))
def test_log2_is_exact_to_the_last_digits(x: float) -> None:
    assert log2_positive(x) == pytest.approx(math.log2(x), rel=1e-15, abs=1e-15)


@given(st.integers(0, 2**64 - 1))
def test_bits_are_counted(x: int) -> None:
    assert _count(np.uint64(x)) == x.bit_count()


@njit
def _count(x: int) -> int:
    return count_bits(x)


# --- texts -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("user_agent", "expected"),
    [
        (None, MISSING),
        ("-", MISSING),
        ("OpenAI/Python 1.40.0", CLIENT_LIBRARY),
        ("python-requests/2.32", CLIENT_LIBRARY),
        ("curl/8.5.0", CLIENT_LIBRARY),
        ("Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)", DECLARED_BOT),
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0 Safari/537.36",
            BROWSER,
        ),
    ],
)
def test_user_agents_are_classed(user_agent: str | None, expected: int) -> None:
    assert agent_class(user_agent) == expected


def test_versions_of_a_program_are_one_program() -> None:
    assert normal_agent("OpenAI/Python 1.40.0") == normal_agent("openai/python 2.3") == "openai/python 0"


def fold(prompt: str) -> bytes:
    data, start, stop = fold_all(*text_spans(pa.array([prompt], pa.string())))
    return data[start[0] : stop[0]].tobytes()


def test_prompts_that_differ_in_numbers_and_names_are_one_template() -> None:
    one = fold("How many people live in Paris? Answer in 20 words.")
    assert one == fold("How many people live in New York?  Answer in 3000 words.")
    assert one != fold("How few people live in Paris? Answer in 20 words.")


@given(st.text(max_size=700))
def test_folding_is_bounded_and_keeps_nothing_but_words(prompt: str) -> None:
    folded = fold(prompt)
    assert len(folded) <= 2 * 512 + 1
    assert not any(49 <= byte <= 57 for byte in folded)


def test_paths_fold_identifiers_and_know_assets_and_probes() -> None:
    assert path_traits("/v1/threads/1234/runs?after=5").template == "/v1/threads/0/runs"
    assert path_traits("/static/app.9f8e.js").asset
    assert path_traits("/.env").probe
    assert path_traits("/wp-login.php").probe
    assert not path_traits("/v1/chat/completions").probe


def test_networks_are_a_24_or_a_48() -> None:
    assert network_text("192.0.2.77") == network_text("192.0.2.1") == "192.0.2"
    assert network_text("2001:db8:1:2::3") == network_text("2001:db8:1:ffff::1") == "2001:db8:1::/48"
    assert network_text("crawler.example") == "crawler.example"


def test_hashes_need_the_secret_and_keep_domains_apart() -> None:
    assert Hasher(b"one", "path").of("x") != Hasher(b"two", "path").of("x")
    assert Hasher(b"one", "path").of("x") != Hasher(b"one", "model").of("x")
    assert Hasher(b"one", "path").of(None) == 0


@pytest.mark.parametrize("length", [*range(34), 512, 1025])
def test_spans_hash_as_single_runs_of_bytes_do(length: int) -> None:
    hasher, text = Hasher(b"secret", "prompt"), np.random.default_rng(length).integers(0, 256, length + 6, np.uint8)
    spans = hasher.of_spans(text, np.array([3]), np.array([3 + length]))
    assert spans.tolist() == [hasher.of_bytes(text[3 : 3 + length].tobytes())]


# --- formulas ----------------------------------------------------------------------------------------------------------


@given(
    st.lists(
        st.none() | st.text("aé/", max_size=20) | st.sampled_from(["/v1/a/generate", "/v1/b/generate"]), min_size=1
    )
)
def test_texts_that_repeat_are_numbered_and_hashed_as_each_alone(texts: list[str | None]) -> None:
    column = pa.array([None, *texts], pa.string())[1:]
    codes, rows = distinct_texts(*text_spans(column))
    assert [texts[rows[code]] for code in codes] == texts
    hasher = Hasher(b"one", "path")
    expected = [hasher.of(text) for text in texts]
    assert hasher.of_column(column).tolist() == hasher.of_repeated(column).tolist() == expected


def test_texts_are_numbered_once() -> None:
    texts = [f"/v1/models/{i}/generate" for i in range(300)]
    assert len(distinct_texts(*text_spans(pa.array(texts * 20)))[1]) == 300


def test_a_steady_client_reads_its_rate_at_every_half_life_that_it_has_filled() -> None:
    rows = rows_of([event(0.5 * i) for i in range(4_000)])
    for half_life in (8, 64, 512, 4096, 65536):
        assert feature(rows, f"client_rate_{half_life}s")[-1] == pytest.approx(2.0, rel=0.05)
    assert feature(rows, "client_gap_mean_64s")[-1] == pytest.approx(-1.0)
    assert feature(rows, "client_gap_std_64s")[-1] == pytest.approx(0.0, abs=1e-4)
    assert feature(rows, "share_of_everyone_4096s")[-1] == 1.0


_GAPS = st.one_of(
    st.floats(0, 3), st.floats(0, 5_000), st.sampled_from([512.0, 4096.0, 32_768.0, 40_000.0, 3e5, 4e6, 4e7])
)


@given(st.lists(_GAPS, min_size=1, max_size=40))
def test_decayed_sums_are_those_of_the_formula_over_seconds_and_over_years(gaps: list[float]) -> None:
    times = np.cumsum([0.0, *gaps]).round(6)
    rows = rows_of([event(t, duration=0.0, status=401 if i % 3 else 200) for i, t in enumerate(times.tolist())])
    now = times[-1]
    for h in spec.HALF_LIVES_S:
        count = np.sum(0.5 ** ((now - times) / h))
        lived = 1 - 0.5 ** (max(now, 1.0) / h)
        assert feature(rows, f"client_rate_{h}s")[-1] == pytest.approx(count * math.log(2) / h / lived, rel=1e-6)
    for h in (64, 4096):
        weights = 0.5 ** ((now - times[:-1]) / h)
        if weights[-1] > 1e-120:  # what is older than two epochs of 512 half-lives is forgotten
            share = np.sum(weights * (np.arange(len(weights)) % 3 > 0)) / weights.sum()
            assert feature(rows, f"client_auth_error_share_{h}s")[-1] == pytest.approx(share, rel=1e-6)


def test_shares_and_tokens_are_of_what_has_ended() -> None:
    log = [
        event(float(i), duration=0.5, status=401 if i % 2 else 200, output_tokens=30, max_tokens=60) for i in range(20)
    ]
    log.append(event(30.0, duration=5.0, status=401, output_tokens=9_000))
    rows = rows_of(log)
    assert math.isnan(feature(rows, "client_auth_error_share_4096s")[0])
    assert feature(rows, "client_auth_error_share_4096s")[-1] == pytest.approx(0.5, abs=0.01)
    assert feature(rows, "client_output_tokens_per_request")[-1] == pytest.approx(30.0)
    assert feature(rows, "client_used_over_asked")[-1] == pytest.approx(0.5)


def test_what_botsieve_refused_adds_nothing_but_the_end_of_the_request() -> None:
    refused = [event(float(i), duration=0.1, status=403, output_tokens=5, verdict="block") for i in range(9)]
    rows = rows_of([*refused, event(20.0)])
    assert math.isnan(feature(rows, "client_auth_error_share_4096s")[-1])
    assert math.isnan(feature(rows, "client_output_tokens_per_request")[-1])
    assert feature(rows, "client_in_flight")[-1] == 1.0


def test_requests_in_flight_are_counted_until_they_end_or_expire() -> None:
    rows = rows_of([event(0, duration=5), event(1, duration=10_000), event(2), event(6), event(602)])
    assert feature(rows, "client_in_flight").tolist() == [1, 2, 3, 2, 1]


def test_distinct_things_are_counted_within_a_few_percent() -> None:
    log = [event(i * 0.01, ip=f"192.0.2.{i % 200}", account=f"a{i % 100}", path=f"/{i % 50}") for i in range(2_000)]
    rows = rows_of(log, Tables.for_clients(4096))
    assert feature(rows, "everyone_distinct_clients")[-1] == pytest.approx(100, rel=0.15)
    assert feature(rows, "network_addresses_per_client")[-1] == pytest.approx(2, rel=0.25)
    assert feature(rows, "address_distinct_clients")[-1] == pytest.approx(1, abs=1.1)


@given(st.lists(st.tuples(st.floats(0, 9_000), st.integers(0, 1)), min_size=2, max_size=60))
def test_profiles_merge_to_that_of_the_united_stream(requests: list[tuple[float, int]]) -> None:
    def client(log: list[Event]) -> np.ndarray | None:
        engine = Engine(Tables.for_clients(16))
        engine.run(Orderer().push(PREPARER.table(table_of(log)), last=True))
        return engine.profile("client", int(PREPARER.arrival(log[0]).hashes[0, at.H_CLIENT])) if log else None

    requests = sorted(requests)
    log = [event(t, account="a", path=f"/{t:.0f}", duration=0.25, status=200, output_tokens=9) for t, _ in requests]
    parts = [[e for e, (_, side) in zip(log, requests, strict=True) if side == wanted] for wanted in (0, 1)]
    if not all(parts):
        return
    whole, one, other = client(log), client(parts[0]), client(parts[1])
    assert whole is not None and one is not None and other is not None  # noqa: PT018
    profile.merge(one, other, True)
    additive = [at.N_1, at.N_8, at.N_64, at.N_512, at.N, at.N_65536, at.TOTAL, at.OUT_S, at.OUT_65536, at.DONE]
    assert one[0, additive] == pytest.approx(whole[0, additive], rel=1e-9)
    exact = [at.BORN, at.LAST, at.IN_FLIGHT, at.EPOCH, at.GENERATION, at.PREVIOUS]
    assert one[0, exact].tolist() == whole[0, exact].tolist()
    assert one[0, at.OWN_SKETCH :].tobytes() == whole[0, at.OWN_SKETCH :].tobytes()


# --- bounds ------------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 2**44), st.sampled_from([0, 1, 2, 3, 4_000, 2**21, 2**33])), max_size=60))
def test_ends_come_in_the_order_of_time_and_then_of_the_input(log: list[tuple[int, int]]) -> None:
    events = Events.empty(len(log))
    events.time[:] = sorted(time for time, _ in log)
    events.end[:] = events.time + [spent for _, spent in log]
    transitions = Orderer().push(events, last=True)
    expires = events.time + engines.EXPIRY_US
    moments = [
        (min(end, expiry), at.EXPIRY if end > expiry else at.COMPLETION, row)
        for row, (end, expiry) in enumerate(zip(events.end.tolist(), expires.tolist(), strict=True))
        if end > events.time[row]
    ]
    later = (transitions.kind != at.ARRIVAL) & (transitions.time > events.time[transitions.event])
    found = (transitions.time, transitions.kind, transitions.event)
    assert [*zip(*(part[later].tolist() for part in found), strict=True)] == sorted(moments, key=lambda m: (m[0], m[2]))


def test_events_can_be_prepared_behind_those_that_are_carried() -> None:
    first, second = (table_of([event(i + j * 0.5, account=f"a{j}") for j in range(5)]) for i in (0.0, 9.0))
    carried = PREPARER.table(first)
    joined, apart = PREPARER.table(second, 5, after=carried), Events.join([carried, PREPARER.table(second, 5)])
    for name in ("time", "end", "hashes", "values", "row"):
        assert getattr(joined, name).tobytes() == getattr(apart, name).tobytes()


def test_a_flood_of_new_keys_pushes_out_no_client_that_keeps_coming_back() -> None:
    regulars = [event(i + r * 0.01, account=f"regular {r}") for i in range(20) for r in range(40)]
    flood = [event(30 + i * 0.001, account=f"flood {i}", ip=f"198.51.{i % 100}.{i % 250}") for i in range(5_000)]
    again = [event(60 + r * 0.01, account=f"regular {r}") for r in range(40)]
    sizes = Tables.for_clients(128)
    engine = Engine(sizes)
    rows = engine.run(Orderer().push(PREPARER.table(table_of([*regulars, *flood, *again])), last=True))
    assert (feature(rows[-40:], "client_requests_seen") == 21).mean() >= 0.97
    assert sizes.bytes == sum(a.nbytes for a in engine.arrays)


def test_requests_in_flight_that_a_service_remembers_are_bounded() -> None:
    engine = Engine(Tables.for_clients(16), pending_limit=10)
    for i in range(25):
        engine.arrive(PREPARER.arrival(event(float(i))))
    assert engine.in_flight == 10
    assert engine.overflowed == 15


def test_requests_that_have_ended_are_not_remembered_until_they_would_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[list[tuple[float, int, int]]] = []
    for kept in (0, 1 << 40):
        monkeypatch.setattr(engines, "_DUE_KEPT", kept)
        told.append([])
        engine = Engine(Tables.for_clients(64), record=lambda *one, to=told[-1]: to.append(one))
        for i in range(900):
            serial, _ = engine.arrive(PREPARER.arrival(event(float(i), account=f"a{i % 7}")))
            if i % 11:
                engine.complete(serial, (START + i + 0.5) * MICROSECONDS, engine.values_of(serial))
            assert kept or len(engine._due) <= 2 * (engine.in_flight + 1)
    assert told[0] == told[1]


def test_a_crowd_that_comes_at_once_is_as_if_each_came_by_itself() -> None:
    crowd = [event(i / 1000, account=f"a{i % 97}", prompt=None if i % 3 else f"Tell me {i}") for i in range(1_100)]
    described = [PREPARER.described(one) for one in crowd]
    together, alone = Engine(Tables.for_clients(64)), Engine(Tables.for_clients(64))
    events = PREPARER.gathered(described, [microseconds(one.time) for one in crowd])
    _, rows = together.arrive_all(events)
    assert rows.tobytes() == b"".join(alone.arrive(PREPARER.arrival(one))[1].tobytes() for one in crowd)
    with pytest.raises(ValueError, match="2 times for 1 events"):
        PREPARER.gathered(described[:1], [1, 2])


def test_the_memory_of_the_tables_is_stated() -> None:
    engine = Engine(Tables.for_clients(1000))
    assert engine.tables.bytes == sum(array.nbytes for array in engine.arrays)
    assert Tables.from_slots(engine.tables.as_slots()) == engine.tables


def test_time_of_the_last_transition_is_the_clock() -> None:
    engine = Engine(Tables.for_clients(16))
    engine.arrive(PREPARER.arrival(event(5.0)))
    engine.arrive(PREPARER.arrival(event(2.0)))
    assert engine.clock == (START + 5) * MICROSECONDS
