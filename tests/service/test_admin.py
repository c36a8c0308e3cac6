"""What changes how a running service decides: lists, load, the shadow switch, forgetting, feedback, and the audit of it."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from fastapi.testclient import TestClient

from classifier.errors import InputError
from classifier.events import Event
from classifier.model.bundle import Bundle
from classifier.model.judge import Judge
from serving.app import Service, create_app
from serving.lists import FILE, Entry, Lists
from serving.logs import JsonLines
from serving.records import Lines
from serving.settings import Route, Settings
from tests.service.served import SECRET, START, Moment, client_of, event, mixed_events, post, service

TOKEN = "a token of the tests"
BEARER = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def admin(judge: Judge, tmp_path: Path) -> tuple[Service, TestClient, Moment]:
    now = Moment()
    app = service(judge, now, token=TOKEN, state=tmp_path / "state")
    return app, client_of(app, headers=BEARER), now


def enlist(client: TestClient, **entry: Any) -> Any:
    return post(client, "/v1/lists", {"list": "deny", "kind": "network", "value": "192.0.2.0/24", **entry})


def decided(client: TestClient, **changes: Any) -> Any:
    return post(client, "/v1/decide", event(**changes)).json()


def test_a_denied_network_is_blocked_until_the_entry_goes(admin: tuple[Service, TestClient, Moment]) -> None:
    app, client, _ = admin
    entry = enlist(client).json()
    answer = decided(client, ip="192.0.2.7")
    assert answer["decision"] == answer["enforced"] == "block"
    assert answer["reasons"][0] == "deny_list"
    assert "deny_list" not in decided(client, ip="192.0.3.7")["reasons"]
    assert client.delete(f"/v1/lists/{entry['id']}").status_code == 204
    assert "deny_list" not in decided(client, ip="192.0.2.7")["reasons"]
    assert [line["action"] for line in client.get("/v1/audit").json()] == ["unlisted", "listed"]
    assert app.gate.tallies.reasons["deny_list", "block"] == 1


def test_lists_hold_while_scoring_fails_and_while_warming_up(judge: Judge) -> None:
    app = service(judge, token=TOKEN, fail_mode="closed", warm_up_s=1e6)
    client = client_of(app, headers=BEARER)
    enlist(client, value="192.0.2.7")
    enlist(client, list="allow", kind="account", value="boss")
    assert decided(client)["enforced"] == "block", "lists need no warm-up"

    def broken(arrivals: Any) -> Any:
        raise RuntimeError

    app.batcher._judge = broken
    assert decided(client)["reasons"] == ["deny_list", "scoring_error"]
    assert decided(client, ip="192.0.9.9", account="boss")["decision"] == "allow"
    assert decided(client, ip="192.0.9.9")["decision"] == "block"


def test_lists_outlive_a_restart_and_entries_expire(tmp_path: Path) -> None:
    now = Moment()
    lists = Lists(tmp_path, now)
    lists.put(lists.made("deny", "network", "2001:db8::/32"))
    lists.put(lists.made("allow", "network", "2001:db8:1::/48", expires=START + 60.0))
    lists.put(lists.made("deny", "fingerprint", "t13d"))
    lists.put(lists.made("allow", "account", "a"))

    def of(**known: Any) -> str | None:
        return Lists(tmp_path, now).of(Event(0, known.pop("ip", "198.51.100.1"), "GET", "/", **known))

    assert of(ip="2001:db8:1::5") == "allow", "the longest network counts"
    assert of(ip="2001:db8:2::5") == "deny"
    assert of(fingerprint="t13d", account="a") == "allow", "an account is known better than a fingerprint"
    assert of(fingerprint="t13d") == "deny"
    assert of(ip="a-host.example") is None
    now.seconds += 61
    assert of(ip="2001:db8:1::5") == "deny"
    assert len(lists.all()) == 3
    lists.put(lists.made("deny", "network", "::ffff:192.0.2.1"))
    assert of(ip="192.0.2.1") == "deny"


def test_no_entry_expires_by_a_leap_of_the_machines_clock(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Moment(time.time())
    monkeypatch.setattr("serving.app.time", SimpleNamespace(time=machine))
    app = create_app(Settings(bundle=judge.bundle.path, token=TOKEN), judge, secret=SECRET)
    client = client_of(app, headers=BEARER)
    entry = enlist(client, expires=machine.seconds + 3600).json()
    machine.seconds += 3e7
    assert client.get("/v1/lists").json() == [entry]
    assert decided(client, ip="192.0.2.7")["decision"] == "block"


def test_lists_are_written_aside_and_one_change_after_the_other(
    admin: tuple[Service, TestClient, Moment], monkeypatch: pytest.MonkeyPatch
) -> None:
    app, _, _ = admin
    lists, told, threads = app.observer.lists, [], set()
    put = lists.put

    def slowly(entry: Entry) -> None:
        threads.add(threading.get_ident())
        time.sleep(0.01)
        put(entry)
        told.append(entry.value)

    monkeypatch.setattr(lists, "put", slowly)
    monkeypatch.setattr("serving.records.os.fsync", lambda _: threads.add(threading.get_ident()))

    async def change() -> list[Any]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://s", headers=BEARER) as client:
            bodies = [{"list": "deny", "kind": "account", "value": f"a{place}"} for place in range(8)]
            made = await asyncio.gather(*[client.post("/v1/lists", json=body) for body in bodies])
            identity = made[3].json()["id"]
            gone = await asyncio.gather(*[client.delete(f"/v1/lists/{identity}") for _ in range(2)])
            return [sorted(answer.status_code for answer in gone), (await client.get("/v1/audit")).json()]

    gone, audit = asyncio.run(change())
    assert threading.get_ident() not in threads
    assert gone == [204, 404]
    assert [line["action"] for line in audit] == ["unlisted", *["listed"] * 8]
    assert [line["value"] for line in audit[:0:-1]] == told
    assert len(lists) == len(Lists(app.gate.settings.state, Moment())) == 7


def test_entries_expire_by_the_time_of_the_machine(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    now = Moment(START + 3e7)  # a start a year ahead ...
    monkeypatch.setattr("serving.app.time", SimpleNamespace(time=now))
    monkeypatch.setattr("serving.app.Steady", lambda *_: lambda: START + 3e7)  # ... which the service's time keeps
    settings = Settings(bundle=judge.bundle.path, mode="enforce", warm_up_s=0.0, token=TOKEN)
    app = create_app(settings, judge, secret=SECRET)
    client = client_of(app, headers=BEARER)
    now.seconds = START  # the clock is put right
    assert enlist(client, expires=START + 3600.0).status_code == 201
    assert decided(client, ip="192.0.2.7")["reasons"][0] == "deny_list"
    now.seconds += 3601
    assert "deny_list" not in decided(client, ip="192.0.2.7")["reasons"]
    assert enlist(client, expires=START + 3600.0).status_code == 422


@pytest.mark.parametrize("value", ["fe80::1%eth0", "fe80::1", "fe80::1%25/128", "fe80::2%eth0/126"])
def test_an_address_is_found_whatever_its_zone(tmp_path: Path, value: str) -> None:
    lists = Lists(tmp_path, Moment())
    lists.put(lists.made("deny", "network", value))
    for found in (lists, Lists(tmp_path, Moment())):
        asked = [found.of(Event(0, ip, "GET", "/")) for ip in ("fe80::1", "fe80::1%eth0", "fe80::1%1", "fe80::9%eth0")]
        assert asked == ["deny"] * 3 + [None]
    with pytest.raises(InputError, match="no network"):
        lists.made("deny", "network", "192.0.2.1%eth0")


def test_what_an_earlier_version_kept_with_a_zone_is_read(tmp_path: Path) -> None:
    entry = Entry("a1", "deny", "network", "fe80::1%eth0/128", 1.0)
    (tmp_path / FILE).write_bytes(msgspec.json.encode([entry]))
    lists = Lists(tmp_path, Moment())
    assert lists.of(Event(0, "fe80::1", "GET", "/")) == "deny"
    lists.put(lists.made("deny", "account", "a"))
    assert len(Lists(tmp_path, Moment())) == 2


def test_what_cannot_be_in_force_is_not_on_disk(tmp_path: Path) -> None:
    lists = Lists(tmp_path, Moment())
    lists.put(lists.made("deny", "network", "192.0.2.0/24"))
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(SystemError):
        lists.put(Entry("a1", "deny", "network", "no:network", 1.0))
    assert (tmp_path / FILE).read_bytes() == before
    assert len(lists) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"", b"[{", b"\xff", b'["\xff"]', b"{}", b'[{"id": "a"}]', None,
        *[msgspec.json.encode([Entry("a", "allow", "network", value, 1.0)]) for value in ("", "x", "a:b", "1.2.3.4/x", "::/129")],
    ],
)  # fmt: skip
def test_lists_that_cannot_be_read_stop_the_start_in_one_line(tmp_path: Path, content: bytes | None) -> None:
    if content is None:
        (tmp_path / FILE).mkdir()
    else:
        (tmp_path / FILE).write_bytes(content)
    with pytest.raises(
        InputError, match=f"{FILE} (holds no lists|cannot be read): .+; mend it or move it away"
    ) as caught:
        Lists(tmp_path, Moment())
    assert "\n" not in str(caught.value)


def test_an_entry_that_expires_leaves_the_others_where_they_are() -> None:
    now = Moment()
    lists = Lists(None, now)
    for place in range(50):
        lists.put(lists.made("deny", "network", f"192.0.{place}.0/24", expires=START + 1.0 + place))
    lists.put(lists.made("allow", "account", "a", expires=START + 20.5))
    lists.put(lists.made("deny", "network", "192.0.9.0/24"))  # in place of one that would expire
    held = lists._held
    for second in range(60):
        now.seconds = START + second
        for place in range(50):
            expected = "deny" if place == 9 or place >= second else None
            assert lists.of(Event(0, f"192.0.{place}.1", "GET", "/")) == expected
        assert (lists.of(Event(0, "1.2.3.4", "GET", "/", account="a")) == "allow") == (second <= 20)
    assert lists._held is held, "nothing is built anew"
    assert [entry.value for entry in lists.all()] == ["192.0.9.0/24"]


@pytest.mark.parametrize(
    "body",
    [
        {"value": "no network"}, {"value": "10.0.0.0/33"}, {"expires": 5.0}, {"kind": "path"}, {"list": "grey"},
        {"value": ""}, {"unknown": 1}, {"expires": "soon"},
    ],
)  # fmt: skip
def test_a_bad_entry_changes_nothing(admin: tuple[Service, TestClient, Moment], body: dict[str, Any]) -> None:
    _, client, _ = admin
    assert enlist(client, **body).status_code == 422
    assert client.get("/v1/lists").json() == client.get("/v1/audit").json() == []


def test_a_full_disk_leaves_the_lists_as_they_were(
    admin: tuple[Service, TestClient, Moment], monkeypatch: pytest.MonkeyPatch
) -> None:
    _app, client, _ = admin
    enlist(client)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    answer = enlist(client, value="10.0.0.0/8")
    assert answer.status_code == 507
    assert len(client.get("/v1/lists").json()) == 1
    assert len(client.get("/v1/audit").json()) == 1, "what is not in force has no line"
    assert "deny_list" not in decided(client, ip="10.1.2.3")["reasons"]


def unwritable(path: Path) -> None:
    """Let a file be one that cannot be written, by root neither."""
    path.unlink(missing_ok=True)
    path.mkdir()


def test_nothing_changes_without_its_line_in_the_audit(
    admin: tuple[Service, TestClient, Moment], bundle: Bundle
) -> None:
    app, client, _ = admin
    entry, folder = enlist(client).json(), app.gate.settings.state
    assert folder is not None
    body = {"bundle": str(bundle.path)}
    assert post(client, "/v1/model/reload", body).status_code == 200
    decided(client, ip="198.51.100.9")
    key, model = int(app.gate.client_ids("198.51.100.9")[1], 16), app.gate.model
    assert [line["action"] for line in client.get("/v1/audit").json()] == ["reload", "listed"]
    unwritable(folder / "audit.jsonl")
    for answer in (
        enlist(client, value="10.0.0.0/8"),
        client.delete(f"/v1/lists/{entry['id']}"),
        post(client, "/v1/mode", {"mode": "shadow"}),
        post(client, "/v1/forget", {"client": "198.51.100.9"}),
        post(client, "/v1/model/reload", body),
        post(client, "/v1/model/rollback", {}),
    ):
        assert answer.status_code == 507
        assert "not in force" in answer.json()["detail"]
    assert client.get("/v1/lists").json() == [entry]
    assert app.gate.mode_override is None
    assert app.gate.engine.profile("client", key) is not None
    assert app.gate.model is model


def test_what_fails_after_its_line_has_another_that_says_so(admin: tuple[Service, TestClient, Moment]) -> None:
    app, client, _ = admin
    assert app.gate.settings.state is not None
    unwritable(app.gate.settings.state / "lists.json.partial")
    assert enlist(client).status_code == 507
    assert client.get("/v1/lists").json() == []
    failed, listed = client.get("/v1/audit").json()
    assert (listed["action"], failed["action"], failed["of"]) == ("listed", "failed", "listed")
    assert failed["id"] == listed["id"]


def test_without_a_state_folder_the_log_has_the_audit_and_no_address(
    judge: Judge, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "botsieve.serving")
    client = client_of(service(judge, token=TOKEN), headers=BEARER)
    made = enlist(client, kind="account", value="who@example.org", note="a person's words").json()
    post(client, "/v1/mode", {"mode": "shadow"})
    lines = [JsonLines().format(record) for record in caplog.records if record.message == "audit"]
    told = [msgspec.json.decode(line) for line in lines]
    assert [(line["action"], line.get("list"), line.get("kind"), line.get("mode")) for line in told] == [
        ("listed", "deny", "account", None),
        ("mode", None, None, "shadow"),
    ]
    assert told[0]["id"] == made["id"]
    assert "example.org" not in "".join(lines)
    assert "words" not in "".join(lines)


def test_without_a_token_nothing_can_be_changed(judge: Judge) -> None:
    client = client_of(service(judge))
    assert (
        enlist(client).status_code == client.get("/v1/lists").status_code == client.get("/v1/audit").status_code == 403
    )
    assert post(client, "/v1/mode", {"mode": "shadow"}).status_code == 403
    assert post(client, "/v1/forget", {"client": "192.0.2.7"}).status_code == 403
    identity = decided(client)["id"]
    assert post(client, "/v1/feedback", {"id": identity, "verdict": "malicious"}).status_code == 403


def test_a_wrong_token_is_refused_everywhere(judge: Judge) -> None:
    client = client_of(service(judge, token=TOKEN), headers={"authorization": "Bearer another token at all"})
    for path in ("/v1/load", "/v1/lists", "/v1/mode", "/v1/forget", "/v1/feedback"):
        assert post(client, path, {}).status_code == 401


def test_the_switch_to_shadow_and_back(admin: tuple[Service, TestClient, Moment]) -> None:
    _app, client, _ = admin
    enlist(client)
    assert post(client, "/v1/mode", {"mode": "shadow"}).json() == {"mode": "shadow", "settings": "enforce"}
    assert decided(client)["enforced"] == "allow"
    assert post(client, "/v1/mode", {"mode": None}).status_code == 200
    assert decided(client)["enforced"] == "block"
    assert [line["action"] for line in client.get("/v1/audit").json()] == ["mode", "mode", "listed"]


@pytest.mark.parametrize("kept", ["shadow", "enforce"])
def test_the_switch_outlives_a_restart(
    judge: Judge, tmp_path: Path, caplog: pytest.LogCaptureFixture, kept: str
) -> None:
    said = "enforce" if kept == "shadow" else "shadow"
    given = {"token": TOKEN, "state": tmp_path, "mode": said}

    def start(**changes: Any) -> tuple[Service, TestClient]:
        caplog.clear()
        app = service(judge, **given | changes)
        return app, client_of(app, headers=BEARER)

    app, client = start()
    enlist(client)
    assert post(client, "/v1/mode", {"mode": kept}).status_code == 200
    app, client = start()
    assert app.gate.mode_override == kept
    assert decided(client)["enforced"] == ("allow" if kept == "shadow" else "block")
    ready = client.get("/readyz").json()
    assert (ready["mode"], ready["switched"]) == (kept, kept)
    (record,) = [record for record in caplog.records if "switched before the start" in record.message]
    assert (vars(record)["mode"], vars(record)["settings"]) == (kept, said)
    assert post(client, "/v1/mode", {"mode": said}).status_code == 200
    assert not (tmp_path / "mode.json").exists(), "the settings say the same"
    app, client = start()
    assert client.get("/readyz").json()["switched"] is None
    for back in (None, kept):
        post(client, "/v1/mode", {"mode": kept})
        post(client, "/v1/mode", {"mode": back})
    route = Route(path="/x", mode="shadow" if kept == "enforce" else "enforce")
    assert start(mode=kept, routes=(route,))[0].gate.mode_override == kept, "one route differs"
    assert start(mode=kept)[0].gate.mode_override is None
    assert not (tmp_path / "mode.json").exists(), "the settings have caught up"


def test_a_damaged_switch_is_put_aside(judge: Judge, tmp_path: Path) -> None:
    (tmp_path / "mode.json").write_bytes(b'{"mode": "off"}')
    assert service(judge, state=tmp_path).gate.mode_override is None
    assert [path.name for path in tmp_path.glob("mode.*")] == ["mode.damaged"]


def test_a_switch_that_cannot_be_kept_is_not_in_force(admin: tuple[Service, TestClient, Moment]) -> None:
    app, client, _ = admin
    assert app.gate.settings.state is not None
    unwritable(app.gate.settings.state / "mode.json.partial")
    assert post(client, "/v1/mode", {"mode": "shadow"}).status_code == 507
    assert app.gate.mode_override is None


def test_load_is_stated_for_a_while_and_counted_from_tokens(judge: Judge) -> None:
    now = Moment()
    app = service(judge, now, capacity=10_000.0, typical_tokens=100.0, load_s=30.0)
    client = client_of(app)
    load = app.metrics.gauges["load"][1]
    assert post(client, "/v1/load", {"load": 0.8}).json() == {"load": 0.8}
    now.seconds += 31
    assert load() == 0.0
    answers = [decided(client, max_tokens=2_000) for _ in range(3)]
    let_through = [answer["id"] for answer in answers if answer["decision"] == "allow"]
    assert load() == pytest.approx(0.2 * len(let_through))
    for identity in let_through:
        post(client, "/v1/complete", {"id": identity, "status": 200})
    assert load() == 0.0
    for wrong in (-0.1, 1.1, "full", None):
        assert post(client, "/v1/load", {"load": wrong}).status_code == 422


@pytest.mark.parametrize(("mode", "counted"), [("shadow", True), ("enforce", False)])
def test_load_counts_what_is_let_through_whatever_was_decided(judge: Judge, mode: str, counted: bool) -> None:
    app = service(judge, Moment(), capacity=10_000.0, typical_tokens=100.0, mode=mode, token=TOKEN)
    client = client_of(app, headers={"authorization": f"Bearer {TOKEN}"})
    assert enlist(client).is_success
    answer = decided(client, ip="192.0.2.7", max_tokens=2_000)
    assert answer["decision"] == "block"
    assert app.metrics.gauges["load"][1]() == pytest.approx(0.2 if counted else 0.0)
    if counted:
        post(client, "/v1/complete", {"id": answer["id"], "status": 200})
        assert app.metrics.gauges["load"][1]() == 0.0


def test_a_batch_that_fails_half_way_counts_nothing_twice(judge: Judge) -> None:
    app = service(judge, Moment(), capacity=10_000.0, typical_tokens=100.0, mode="shadow")
    client, scorer = client_of(app), app.gate.judge

    def last_is_no_number(arrivals: Any) -> Any:
        judged = scorer(arrivals)
        judged.raw[-1] = np.nan
        return judged

    app.batcher._judge = last_is_no_number
    answers = post(client, "/v1/decide/batch", [event(max_tokens=2_000) for _ in range(3)]).json()
    assert [answer["reasons"] for answer in answers] == [["scoring_error"]] * 3
    assert app.observer.load.tokens == pytest.approx(6_000.0)
    post(client, "/v1/complete", {"id": answers[0]["id"], "status": 200})
    assert app.observer.load.tokens == pytest.approx(4_000.0)


def test_under_load_unknown_clients_are_challenged_and_known_ones_are_served(judge: Judge) -> None:
    def decisions(load: str, created: float, client_s: float = 0.0) -> list[str]:
        now = Moment()
        app = service(judge, now, load_budget=0.99, load_when="always", known_client_s=client_s, known_requests=1)
        client = client_of(app)
        found = []
        for place, given in enumerate(mixed_events(120)):
            now.seconds += 5
            body = {"ip": given.ip, "method": given.method, "path": given.path, "user_agent": given.user_agent or ""}
            body |= {"account": f"a{place % 7}", "account_created": created, "max_tokens": 200_000}
            answer = post(client, "/v1/decide", body, x_botsieve_load=load).json()
            found.append(answer["decision"])
            assert load == "1" or "load" not in answer["reasons"]
        return found

    old, new = START - 1e8, START - 10.0
    assert decisions("1", new).count("challenge") > decisions("0", new).count("challenge")
    assert decisions("1", old) == decisions("0", old)
    assert decisions("1", old, 3_600.0).count("challenge") > decisions("0", old).count("challenge"), (
        "old accounts are for sale"
    )


def test_forgetting_removes_profile_decisions_and_snapshots(admin: tuple[Service, TestClient, Moment]) -> None:
    app, client, _now = admin
    kept = decided(client, ip="198.51.100.9")["id"]
    other = decided(client, ip="192.0.2.7")["id"]
    assert app.keeper is not None
    app.keeper.save()
    asyncio.run(app.keeper.write())
    key = int(app.gate.client_ids("198.51.100.9")[1], 16)
    assert app.gate.engine.profile("client", key) is not None
    assert post(client, "/v1/forget", {"client": "198.51.100.9"}).json() == {"known": True}
    assert app.gate.engine.profile("client", key) is None
    assert app.gate.engine.profile("address", key) is None
    assert client.get(f"/v1/decisions/{kept}").status_code == 404
    assert client.get(f"/v1/decisions/{other}").status_code == 200
    folder = app.gate.settings.state
    assert folder is not None
    snapshots = sorted(file.name for file in folder.glob("state.*"))
    assert snapshots == ["state.snapshot"]
    assert key.to_bytes(8, "little") not in (folder / "state.snapshot").read_bytes()
    assert "198.51.100.9" not in (folder / "audit.jsonl").read_text()
    assert post(client, "/v1/forget", {"client": "198.51.100.9"}).json() == {"known": False}


def test_who_has_left_the_profiles_is_removed_from_the_snapshots(admin: tuple[Service, TestClient, Moment]) -> None:
    app, client, _ = admin
    decided(client, ip="198.51.100.9")
    assert app.keeper is not None
    app.keeper.save()
    app.keeper.save()
    key = int(app.gate.client_ids("198.51.100.9")[1], 16)
    app.gate.forget("198.51.100.9")  # as if others had taken its place
    assert post(client, "/v1/forget", {"client": "198.51.100.9"}).json() == {"known": False}
    folder = app.gate.settings.state
    assert folder is not None
    held = [path.name for path in folder.iterdir() if key.to_bytes(8, "little") in path.read_bytes()]
    assert not held


def test_a_full_disk_loses_no_state_when_a_client_is_forgotten_and_the_answer_says_what_is_left(
    admin: tuple[Service, TestClient, Moment],
) -> None:
    app, client, _ = admin
    decided(client, ip="198.51.100.9")
    folder = app.gate.settings.state
    assert folder is not None
    assert app.keeper is not None
    app.keeper.save()
    app.keeper.save()
    before = {path.name: path.read_bytes() for path in folder.glob("state.*")}
    unwritable(folder / "state.snapshot.partial")
    answer = post(client, "/v1/forget", {"client": "198.51.100.9"})
    assert answer.status_code == 507
    assert "not yet removed from the snapshots" in answer.json()["detail"]
    assert app.gate.tallies.snapshots["failed"] == 1
    assert app.gate.tallies.rejected["disk"] == 1
    assert [line["action"] for line in client.get("/v1/audit").json()] == ["failed", "forgot"]
    (folder / "state.snapshot.partial").rmdir()
    assert {path.name: path.read_bytes() for path in folder.glob("state.*")} == before
    assert post(client, "/v1/forget", {"client": "198.51.100.9"}).status_code == 200
    key = int(app.gate.client_ids("198.51.100.9")[1], 16).to_bytes(8, "little")
    assert key in before["state.previous"]
    assert [path.name for path in folder.glob("state.*")] == ["state.snapshot"]
    assert key not in (folder / "state.snapshot").read_bytes()


def test_feedback_that_nothing_would_keep_is_refused(judge: Judge) -> None:
    client = client_of(service(judge, token=TOKEN), headers=BEARER)
    answer = post(client, "/v1/feedback", {"id": decided(client)["id"], "verdict": "malicious"})
    assert (answer.status_code, answer.json()["reason"]) == (409, "unkept")
    assert "journal or state" in answer.json()["detail"]


def test_feedback_is_kept_as_a_label(admin: tuple[Service, TestClient, Moment]) -> None:
    app, client, _ = admin
    identity = decided(client)["id"]
    answer = post(client, "/v1/feedback", {"id": identity, "verdict": "malicious", "note": "seen in the log"})
    assert (answer.status_code, answer.json()["label"]) == (201, 1)
    assert post(client, "/v1/feedback", {"id": "ff-00000000", "verdict": "legitimate"}).status_code == 404
    assert app.gate.settings.state is not None
    lines = (app.gate.settings.state / "labels.jsonl").read_bytes().splitlines()
    assert [msgspec.json.decode(line)["id"] for line in lines] == [identity]


def test_a_line_that_was_torn_takes_no_other_with_it(tmp_path: Path) -> None:
    lines = Lines(tmp_path, "audit", lambda: START)
    lines.add(action="first")
    with (tmp_path / "audit.jsonl").open("ab") as file:
        file.write(b'{"time":17')  # and killed
    lines.add(action="second")
    lines.add(action="third")
    assert [line["action"] for line in lines.newest(9)] == ["third", "second", "first"]
    assert len((tmp_path / "audit.jsonl").read_bytes().splitlines()) == 4
