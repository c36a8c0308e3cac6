"""JSON logs: the event schema, LiteLLM's payloads and spend logs, Envoy's access logs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier.errors import LogError
from classifier.events import EVENT_SCHEMA, FIELDS, Event, check, microseconds, records, table_of
from classifier.logs import Reading, client_address, envoy, jsonlines, litellm, read_log

SAMPLES = Path(__file__).parents[1] / "data" / "logs"
GOOD = {"time": 1_778_000_000, "ip": "203.0.113.7", "method": "GET", "path": "/"}


def rows_of(path: Path, **options: Any) -> tuple[list[dict[str, Any]], Reading]:
    reading = Reading()
    table = read_log([path], reading=reading, **options)
    assert table.schema == EVENT_SCHEMA
    return [{k: v for k, v in row.items() if v is not None} for row in table.to_pylist()], reading


def test_events() -> None:
    rows, reading = rows_of(SAMPLES / "events.jsonl")
    assert (reading.files[0].format, reading.files[0].stamp) == ("jsonl", "start")
    assert (reading.read, reading.accepted) == (9, 3)
    assert rows[0] == {
        "time": 1_778_000_000_250_000,
        "ip": "203.0.113.7",
        "method": "POST",
        "path": "/v1/chat/completions",
        "duration": 1.5,
        "status": 200,
        "account": "a1",
        "input_tokens": 12,
        "output_tokens": 34,
    }
    assert rows[1]["time"] == 1_778_000_001_000_001
    assert (rows[1]["ip"], rows[1]["malicious"], rows[1]["family"]) == ("2001:db8::1", False, "person")
    assert sorted(reading.reasons) == [
        "Expected `int | null`, got `str` - at `$.status`",
        "Object missing required field `path`",
        "duration is not between 0 s and a year",
        "line is no JSON object",
        "time is no RFC 3339 text",
        "verdict is none of allow, challenge, block",
    ]


def test_end_stamps_of_events() -> None:
    rows, _ = rows_of(SAMPLES / "events.jsonl", stamp="end")
    assert [row["time"] % 10_000_000 for row in rows] == [8_750_000, 1_000_001, 5_000_000]


def event_values() -> st.SearchStrategy[dict[str, Any]]:
    """Events whose values are of the right type and often impossible."""
    number = st.one_of(st.integers(-3, 3000), st.sampled_from([2**53 - 1, 2**53, 2**63, 2**64 - 1, -(2**63)]))
    real = st.one_of(st.floats(-2, 4e7), st.sampled_from([1e11, -1e11, 1e300, 0.0, 31_622_400.0, 31_622_400.1]))
    text = st.sampled_from(["", "allow", "block", "challenge", "x", "é"])
    by_type = {"int64": number, "double": real, "string": text, "bool": st.booleans()}
    time = st.one_of(
        st.floats(0, 1e10), st.integers(-2, 10**10), st.sampled_from([10**18, "2026-05-05T16:53:21Z", "2026-05-05", ""])
    )
    optional = {f.name: st.none() | by_type[str(f.type)] for f in FIELDS[4:]}
    address = st.sampled_from(
        ["203.0.113.7", "2001:DB8:0:0::1", "::ffff:1.2.3.4", "[::1]:80", "1.2.3.4:5", "Host", "", "a b", "x" * 256]
    )
    required = {"time": time, "ip": address, "method": text, "path": text}
    return st.fixed_dictionaries(required, optional=optional)


@given(st.lists(event_values(), max_size=6))
def test_columns_are_checked_as_events_are_one_by_one(values: list[dict[str, Any]]) -> None:
    expected, good = [], []
    for value in values:
        event = Event(**value)
        try:
            check(event)
            microseconds(event.time)
            expected.append(Event(**{**value, "ip": client_address(event.ip)}))
            good.append(True)
        except ValueError:
            good.append(False)
    table, kept, reasons = jsonlines.table_of([Event(**value) for value in values], False)
    assert kept.tolist() == good
    assert sorted(reasons) == np.flatnonzero(~np.array(good, bool)).tolist()
    assert table.equals(table_of(expected))


@given(st.lists(event_values(), min_size=1, max_size=4))
def test_reasons_are_few_and_hold_no_values(values: list[dict[str, Any]]) -> None:
    marked = [Event(**{**value, "verdict": "s3cret is no verdict", "family": "s3cret"}) for value in values]
    for reason in jsonlines.table_of(marked, False)[2].values():
        assert "s3cret" not in reason
        assert not any(char.isdigit() for char in reason.replace("2^53", "").replace("1970 to 2261", "")) or (
            "3339" in reason or "255" in reason or "0 s" in reason
        )


def test_what_is_written_as_events_is_read_back(tmp_path: Path) -> None:
    table = read_log([SAMPLES / "events.jsonl"])
    path = tmp_path / "again"
    path.write_text("\n".join(json.dumps(record) for record in records(table)))
    assert read_log([path]).equals(table)


@pytest.mark.parametrize("end", ["\n", "\r\n", " \t\n", "\n\n \n"])
@pytest.mark.parametrize("cut", ['"y": {', '"y": {"z": 1}', '"x":', "{", '"y": [{}'])
def test_a_line_ends_at_a_line_feed_however_many_objects_there_are(tmp_path: Path, end: str, cut: str) -> None:
    path, notes = tmp_path / "log", tmp_path / "rejects"
    good = json.dumps({"y": {"z": 1}, "x": {"y": [{}]}, **GOOD})
    split = good[: good.index(cut) + len(cut)] + end + good[good.index(cut) + len(cut) :]
    path.write_text(end.join([good, split, good + good, " " + good, good]))
    rows, reading = rows_of(path, format="jsonl", rejects=notes)
    assert (len(rows), reading.rejected) == (3, 3)
    step = end.count("\n")
    lines = [1 + step, 1 + 2 * step, 1 + 3 * step]
    assert [json.loads(note)["line"] for note in notes.read_text().splitlines()] == lines


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n \n"])
def test_good_events_are_decoded_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    def never(_: object, line: bytes) -> Event:
        raise AssertionError("a good line was decoded alone")

    monkeypatch.setattr(jsonlines.JsonReader, "_one", never)
    path = tmp_path / "log"
    path.write_text(end.join([json.dumps(GOOD)] * 3))
    assert len(rows_of(path)[0]) == 3


def test_a_json_array(tmp_path: Path) -> None:
    notes, path = tmp_path / "rejects", tmp_path / "array"
    path.write_text(json.dumps([GOOD, 3, {**GOOD, "status": "x"}, {**GOOD, "status": -1}, GOOD], indent=1))
    rows, reading = rows_of(path, rejects=notes, keep_rejected=True)
    assert (len(rows), reading.rejected) == (2, 3)
    entries = [json.loads(line) for line in notes.read_text().splitlines()]
    assert [(entry["line"], entry["offset"]) for entry in entries] == [(2, None), (3, None), (4, None)]


def test_a_cut_json_array_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "array"
    path.write_text(json.dumps([GOOD] * 3)[:-4])
    with pytest.raises(LogError, match="no whole JSON array"):
        read_log([path])


NGINX = {
    "time_iso8601": "2026-05-05T16:53:22+00:00", "remote_addr": "203.0.113.7", "request_method": "POST", "uri": "/v1/models",
    "status": "200", "request_time": "2.000", "http_referer": "", "http_user_agent": "-", "bytes": "0",
}  # fmt: skip
KEYS = {
    "time": "time_iso8601",
    "ip": "remote_addr",
    "method": "request_method",
    "path": "uri",
    "duration": "request_time",
}


@pytest.mark.parametrize("form", ["lines", "array"])
@pytest.mark.parametrize("kind", ["auto", "jsonl"])
def test_json_with_keys_of_other_names(tmp_path: Path, form: str, kind: str) -> None:
    path = tmp_path / "log"
    records = [NGINX, {**NGINX, "time_iso8601": "1778000003.500", "request_time": "-"}, {**NGINX, "uri": ""}]
    path.write_text(json.dumps(records) if form == "array" else "\n".join(map(json.dumps, records)))
    columns = {**KEYS, "response_bytes": "bytes", "referer": "http_referer", "user_agent": "http_user_agent"}
    rows, reading = rows_of(path, columns=columns, stamp="end", format=kind)
    event = {"ip": "203.0.113.7", "method": "POST", "path": "/v1/models", "status": 200, "response_bytes": 0}
    assert rows == [
        {"time": 1_778_000_000_000_000, **event, "duration": 2.0},
        {"time": 1_778_000_003_500_000, **event},
    ]
    assert reading.reasons == {"path is missing": 1}
    assert (reading.files[0].format, reading.files[0].stamp, reading.files[0].note) == ("jsonl", "end", "")


def test_keys_that_are_missing_are_named_beside_those_that_are_there(tmp_path: Path) -> None:
    path, keys = tmp_path / "log", ", ".join(NGINX)
    path.write_text(json.dumps(NGINX) + "\n")
    wanted = "time=KEY,ip=KEY,method=KEY,path=KEY"
    lacks = f"has no time, no ip, no method, no path; name the keys that hold them with --columns {wanted}, of {keys}"
    with pytest.raises(LogError) as raised:
        read_log([path])
    assert str(raised.value) == f"{path} {lacks}"
    with pytest.raises(LogError, match=r"none of 1 lines .* as jsonl; .* has no time, no ip, no method, no path"):
        read_log([path], format="jsonl")
    with pytest.raises(LogError, match=r"has no method, no path; .* --columns method=KEY,path=KEY, of"):
        read_log([path], columns={"time": "time_iso8601", "ip": "remote_addr"})
    with pytest.raises(LogError) as raised:
        read_log([path], columns={**KEYS, "ip": "remote_adr"})
    assert str(raised.value) == f"{path} has no key remote_adr (for ip); it has {keys}"
    _, reading = rows_of(path, columns={**KEYS, "duration": "request_tiem"})
    assert reading.files[0].note == f"has no key request_tiem (for duration) in its first lines; it has {keys}"


def test_no_key_of_a_log_moves_the_cursor_of_a_terminal(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(json.dumps({"\x1b[2J" + "x" * 99: 1}))
    with pytest.raises(LogError) as raised:
        read_log([path])
    assert str(raised.value).endswith(", of ?[2J" + "x" * 36)


def test_litellm_payloads() -> None:
    rows, reading = rows_of(SAMPLES / "litellm_payload.jsonl")
    assert (reading.files[0].format, reading.read, reading.accepted) == ("litellm", 4, 3)
    assert rows[0] == {
        "time": 1_778_000_000_500_000,
        "ip": "203.0.113.7",
        "method": "POST",
        "path": "/v1/chat/completions",
        "duration": 2.25,
        "status": 200,
        "account": "88dc28d0f030c55ed4ab77ed8faf098196cb1c05df778539800c9f1243fe6b4b",
        "user_agent": "OpenAI/Python 1.40.0",
        "model": "gpt-4o-mini",
        "input_tokens": 20,
        "output_tokens": 30,
        "max_tokens": 256,
        "prompt": "How many states\nare there?",
    }
    assert (rows[1]["status"], rows[1]["path"], rows[1]["account"]) == (429, "/v1/embeddings", "1111")


def test_a_key_that_litellm_turned_down_is_a_credential() -> None:
    refused = rows_of(SAMPLES / "litellm_payload.jsonl")[0][2]
    assert refused["credential"] == "2222"
    assert "account" not in refused


def test_litellm_spend_logs() -> None:
    rows, _ = rows_of(SAMPLES / "litellm_spend.jsonl")
    assert [row["time"] for row in rows] == [1_778_000_000_500_000, 1_778_000_004_000_000]
    assert [row["duration"] for row in rows] == [2.25, 1.0]
    assert [row["status"] for row in rows] == [200, 500]
    assert [row["path"] for row in rows] == ["/v1/chat/completions", "/v1/completions"]
    assert rows[0]["user_agent"] == "curl/8.1"


def test_an_address_with_port_or_brackets_is_no_other_client(tmp_path: Path) -> None:
    path = tmp_path / "log"
    told = ["[2001:db8::1]", "2001:db8::1", "[2001:DB8:0::1]:443", "192.0.2.7:5000", "192.0.2.7:5001", "192.0.2.7"]
    events = [{**GOOD, "ip": ip} for ip in told]
    calls = [{"startTime": 1_778_000_000, "requester_ip_address": f"10.0.0.1, {ip}"} for ip in told]
    lines = [f'{ip} - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 10 "-" "agent"' for ip in told]
    envoys = [
        {"start_time": "2026-05-05T16:53:20Z", "method": "GET", "path": "/", "duration": 1, "x-forwarded-for": ip}
        for ip in told
    ]
    for log in (
        [json.dumps(e) for e in events],
        [json.dumps(e) for e in calls],
        lines,
        [json.dumps(e) for e in envoys],
    ):
        path.write_text("\n".join(log))
        assert [row["ip"] for row in rows_of(path)[0]] == ["2001:db8::1"] * 3 + ["192.0.2.7"] * 3


def test_a_key_in_clear_is_hashed() -> None:
    record = {"startTime": 1_778_000_000, "requester_ip_address": "1.2.3.4", "api_key": "sk-abc", "status": "success"}
    event = litellm.decode(json.dumps(record).encode())
    assert event.account == hashlib.sha256(b"sk-abc").hexdigest()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"startTime": "soon"}, "startTime is no time"),
        ({"startTime": 1e15}, "startTime is no time"),
        ({"endTime": "soon"}, "endTime is no time"),
        ({"prompt_tokens": "7"}, "prompt_tokens"),
        ({"metadata": 3}, "metadata"),
        ({"metadata": "{"}, "truncated"),
        ({"startTime": None}, "startTime"),
    ],
)
def test_bad_litellm_records(change: dict[str, Any], reason: str) -> None:
    record = {"startTime": 1_778_000_000, "requester_ip_address": "1.2.3.4", **change}
    with pytest.raises((ValueError, msgspec.MsgspecError), match=reason):
        litellm.decode(json.dumps(record).encode())


def test_odd_optional_parts_of_litellm_records_are_absent() -> None:
    odd = {"messages": {"redacted": True}, "request_tags": "no json", "model_parameters": [], "endTime": ""}
    record = {"startTime": 1_778_000_000, "requester_ip_address": "1.2.3.4", **odd}
    event = litellm.decode(json.dumps(record).encode())
    assert (event.prompt, event.user_agent, event.max_tokens, event.duration) == (None, None, None, None)


@pytest.mark.parametrize(
    ("parameters", "cap"),
    [
        ({"max_tokens": -1}, None),
        ({"max_tokens": 10**30}, None),
        ({"max_tokens": 2**53}, None),
        ({"max_tokens": 2**53 - 1}, 2**53 - 1),
        ({"max_tokens": 0}, 0),
        ({"max_tokens": True}, None),
        ({"max_completion_tokens": -1, "max_tokens": 7}, 7),
    ],
)
def test_an_impossible_cap_in_a_litellm_record_is_none(tmp_path: Path, parameters: Any, cap: int | None) -> None:
    path = tmp_path / "log"
    record = {"startTime": 1_778_000_000, "requester_ip_address": "1.2.3.4", "model_parameters": parameters}
    path.write_text(json.dumps(record) + "\n")
    assert rows_of(path)[0][0].get("max_tokens") == cap


@pytest.mark.parametrize(
    ("told", "address"),
    [
        ("203.0.113.9, 10.0.0.1", "10.0.0.1"),
        ("203.0.113.9,10.0.0.1", "10.0.0.1"),
        ("203.0.113.9 , 2001:DB8::0:1 ", "2001:db8::1"),
        ("10.0.0.1", "10.0.0.1"),
        ("Pseudonym-7", "pseudonym-7"),
        ("203.0.113.9,", "unknown"),
    ],
)
@pytest.mark.parametrize("place", ["record", "metadata"])
def test_of_forwarded_hops_in_a_litellm_record_the_last_counts(
    tmp_path: Path, told: str, address: str, place: str
) -> None:
    path, ip = tmp_path / "log", {"requester_ip_address": told}
    record = {"startTime": 1_778_000_000, **(ip if place == "record" else {"metadata": ip})}
    path.write_text(json.dumps(record) + "\n")
    assert rows_of(path)[0][0]["ip"] == address


def test_envoy_access_logs() -> None:
    rows, reading = rows_of(SAMPLES / "envoy.jsonl", columns={"account": "x-user"})
    assert (reading.files[0].format, reading.files[0].stamp) == ("envoy", "start")
    assert (reading.read, reading.accepted) == (5, 3)
    assert rows[0] == {
        "time": 1_778_000_000_500_000,
        "ip": "203.0.113.7",
        "method": "POST",
        "path": "/v1/chat/completions",
        "duration": 1.59,
        "status": 200,
        "user_agent": "OpenAI/Python 1.40",
        "request_bytes": 336,
        "response_bytes": 1675,
        "model": "gpt-4o-mini",
        "input_tokens": 20,
        "output_tokens": 30,
    }
    assert (rows[1]["account"], rows[1]["ip"], rows[1]["input_tokens"]) == ("tenant-1", "203.0.113.8", 7)
    assert "output_tokens" not in rows[1]
    assert (rows[2]["ip"], rows[2]["output_tokens"], rows[2]["verdict"]) == ("2001:db8::5", 6, "block")
    assert sorted(reading.reasons) == [
        "Expected a number - at `$.response_code`",
        "downstream_remote_address is missing, and no other address is logged",
    ]


@pytest.mark.parametrize(
    "tokens",
    [
        {"llm_input_token": 7},
        {"io.envoy.ai_gateway:llm_input_token": "7"},
        {"io.envoy.ai_gateway.llm_input_token": 7.0},
        {"gen_ai.usage.input_tokens": 7},
        {"gen_ai.usage.prompt_tokens": 7},
        {"metadata": {"filter_metadata": {"io.envoy.ai_gateway": {"llm_input_token": 7}}}},
    ],
)
def test_envoy_token_metadata_in_all_shapes(tokens: dict[str, Any]) -> None:
    record = {
        "start_time": "2026-05-05T16:53:20Z",
        "method": "GET",
        "path": "/",
        "x-forwarded-for": "1.2.3.4",
        **tokens,
    }
    assert envoy.decoder(None)(json.dumps(record).encode()).input_tokens == 7


@pytest.mark.parametrize(
    ("logged", "address"),
    [
        ("abcd", "198.51.100.1"),
        ("bcd", "198.51.100.2"),
        ("cd", "198.51.100.3"),
        ("d", "198.51.100.4"),
    ],
)
def test_the_order_of_addresses_of_an_envoy_log(logged: str, address: str) -> None:
    keys = {
        "a": {"downstream_remote_address": "198.51.100.1:1"},
        "b": {"x-envoy-external-address": "198.51.100.2"},
        "c": {"x-forwarded-for": "192.0.2.1, 198.51.100.3"},
        "d": {"downstream_direct_remote_address": "198.51.100.4:4"},
    }
    record = {"start_time": "2026-05-05T16:53:20Z", "method": "GET", "path": "/"}
    for key, told in keys.items():
        record |= told if key in logged else dict.fromkeys(told, "-")
    assert envoy.decoder(None)(json.dumps(record).encode()).ip == address


def test_mapped_keys_of_an_envoy_log(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(
        '{"start_time": "2026-05-05T16:53:20Z", "method": "GET", "uri": "/u", "duration": 1, "peer": "H:1"}\n'
    )
    rows, _ = rows_of(path, columns={"path": "uri", "ip": "peer"})
    assert (rows[0]["path"], rows[0]["ip"]) == ("/u", "h")
    with pytest.raises(LogError, match="duration of an Envoy log cannot be mapped"):
        read_log([path], columns={"duration": "d"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:DB8:0:0:0::1", "2001:db8::1"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("Host.Example", "host.example"),
        ("not:an:address", "not:an:address"),
        ("192.0.2.7:5000", "192.0.2.7"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:DB8:0::1]:443", "2001:db8::1"),
        ("[::ffff:203.0.113.7]:1", "203.0.113.7"),
        ("[fe80::1%eth0]:443", "fe80::1%eth0"),
        ("192.0.2.999:80", "192.0.2.999:80"),
        ("Host.Example:80", "host.example:80"),
        ("192.0.2.7:http", "192.0.2.7:http"),
        ("192.0.2.7:", "192.0.2.7:"),
        ("[2001:db8::1]x", "[2001:db8::1]x"),
        ("[2001:db8::1", "[2001:db8::1"),
        ("[name]:80", "[name]:80"),
        ("7:8", "7:8"),
    ],
)
def test_one_spelling_of_an_address(text: str, expected: str) -> None:
    assert client_address(text) == expected
    assert client_address(expected) == expected
