"""Settings come from one table, are documented, and are refused in one line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from classifier.circumstances import TYPICAL_TOKENS, Known
from classifier.errors import InputError
from classifier.features.engine import Tables
from classifier.policy import Pressure
from serving.__main__ import main, uvicorn_options
from serving.settings import PRESETS, Route, Rules, Settings, load_settings, plain_path

DOCUMENT = Path(__file__).parents[2] / "docs" / "configuration.md"


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*Settings.model_fields, "config"]:
        monkeypatch.delenv(f"BOTSIEVE_{name.upper()}", raising=False)


def test_every_setting_is_documented_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE))
    for name, described in {**Settings.model_fields, **Route.model_fields}.items():
        assert name in rows, f"docs/configuration.md lacks {name}"
        if not described.is_required() and isinstance(described.default, int | float) and name != "registration":
            assert float(rows[name].strip("`").replace("true", "1").replace("false", "0")) == described.default
    assert set(rows) <= {*Settings.model_fields, *Route.model_fields, *PRESETS}


def test_options_win_over_the_environment_and_that_over_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "botsieve.toml"
    file.write_text(
        'bundle = "a"\nport = 1\nhost = "file"\nmode = "enforce"\n[[routes]]\npath = "/x*"\nmode = "shadow"\n'
    )
    monkeypatch.setenv("BOTSIEVE_CONFIG", str(file))
    monkeypatch.setenv("BOTSIEVE_PORT", "2")
    monkeypatch.setenv("BOTSIEVE_HOST", "environment")
    settings = load_settings(port=3, host=None)
    assert (settings.port, settings.host, settings.mode) == (3, "environment", "enforce")
    rules = Rules(settings)
    assert [rules.of(path).mode for path in ("/xy?z", "/y")] == ["shadow", "enforce"]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions", "/v1/%63hat/completions", "//v1/chat/completions", "/v1/chat%2fcompletions", "/v1/./chat/x",
        "/v1/x/../chat/completions", "/%2e/v1/chat/x", "/../v1/chat/x", "/v1/x/%2E%2e/chat//x?y=%2e", "/v1/x//../chat/x",
        "/v1/chat/x#y", "/v1/chat/.", "/v1/chat/x/..", "/v1/chat/...", "/v1/x%2f..%2fchat/", "%2fv1/chat/x", "/v1/chat/%3f",
        "/x/.." * 80 + "/v1/chat/x",
    ],
)  # fmt: skip
def test_a_path_is_matched_as_servers_read_it(path: str) -> None:
    rules = Rules(load_settings(bundle="b", routes=[{"path": "/v1/chat/*", "mode": "enforce"}]))
    assert [rules.of(text).mode for text in (path, path + "?x=/../..")] == ["enforce", "enforce"]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/%2563hat/x", "/v1/chat/../x", "/v1/chat", "/V1/chat/x", "/v1/x?/../chat/x", "/v1/chat/%2e%2e", "x", "*", "/", "",
        "/..",
    ],
)  # fmt: skip
def test_another_path_is_another_path(path: str) -> None:
    rules = Rules(load_settings(bundle="b", routes=[{"path": "/v1/chat/*", "mode": "enforce"}]))
    assert rules.of(path).mode == "shadow"


@pytest.mark.parametrize(
    ("path", "plain"),
    [
        ("/a%C3%A9b", "/aéb"), ("/%", "/%"), ("/a/%zz", "/a/%zz"), ("/a//", "/a/"), ("//", "/"), ("/a/..", "/"),
        ("/a/b/..", "/a/"), ("/a/./", "/a/"), ("/.hidden/x.", "/.hidden/x."), ("a/../b", "b"), ("/a%3fb#c?d", "/a?b"),
    ],
)  # fmt: skip
def test_a_plain_path_stays_as_it_is(path: str, plain: str) -> None:
    assert plain_path(path) == plain
    assert plain_path(plain.replace("?", "x")) == plain.replace("?", "x")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "bundle"), ({"mode": "maybe"}, "mode"), ({"port": 70_000}, "port"), ({"token": "short"}, "token"),
        ({"trusted_proxies": ["x"]}, "trusted_proxies"), ({"nonsense": 1}, "nonsense is no setting"),
        ({"routes": [{"path": "/", "mood": "bad"}]}, "mood"),
        ({"routes": [{"path": "/v1/%63hat/*"}]}, "percent-decoded"), ({"routes": [{"path": "/v1//*"}]}, "no path fits"),
        ({"challenge_budget": 0.1, "block_budget": 0.2}, "budget"),
        ({"challenge_budget": 1.5}, "challenge_budget"), ({"address_header": "a b"}, "address_header"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line_without_the_value(given: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        load_settings(**({"bundle": "b", **given} if given else {}))
    assert "\n" not in str(caught.value)
    assert "short" not in str(caught.value)


def test_files_that_do_not_parse_are_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "botsieve.toml"
    monkeypatch.setenv("BOTSIEVE_CONFIG", str(file))
    with pytest.raises(InputError, match="is no file"):
        load_settings(bundle="b")
    file.write_text("mode = ")
    with pytest.raises(InputError, match="cannot be read"):
        load_settings(bundle="b")
    file.write_text('tokens = "x"')
    with pytest.raises(InputError, match="tokens is no setting"):
        load_settings(bundle="b")
    monkeypatch.delenv("BOTSIEVE_CONFIG")
    monkeypatch.setenv("BOTSIEVE_TRUSTED_PROXIES", "10.0.0.0/8")
    with pytest.raises(InputError, match="trusted_proxies"):
        load_settings(bundle="b")


def test_a_token_is_in_no_repr_and_uvicorn_believes_no_header() -> None:
    settings = Settings(bundle=Path("b"), token="a token that is long enough")  # type: ignore[arg-type]
    assert "long enough" not in repr(settings) + str(settings.model_dump())
    assert uvicorn_options(settings, Mock(routes={}))["proxy_headers"] is False


def test_a_start_that_cannot_be_exits_with_2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--bundle", str(tmp_path / "none")]) == 2
    line = capsys.readouterr().err
    assert line.startswith("botsieve: no bundle at")
    assert line.count("\n") == 1


@pytest.mark.parametrize(
    ("host", "token", "warns"),
    [
        ("0.0.0.0", None, True), ("::", None, True), ("gateway.internal", None, True), ("10.0.0.1", "some token or other", False),
        ("127.0.0.1", None, False), ("127.1.2.3", None, False), ("::1", None, False), ("localhost", None, False),
    ],
)  # fmt: skip
def test_a_service_that_is_open_to_others_says_so(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    host: str,
    token: str | None,
    warns: bool,
) -> None:
    if token is not None:
        monkeypatch.setenv("BOTSIEVE_TOKEN", token)
    assert main(["--bundle", str(tmp_path / "none"), "--host", host]) == 2
    assert ("BOTSIEVE_TOKEN" in capsys.readouterr().err) is warns


def test_the_memory_that_the_documentation_states_is_that_of_the_tables() -> None:
    rows = re.findall(
        r"^\| ([\d,]+)(?: \(default\))? \| ([\d,]+) \| ([\d.]+) GiB \|$",
        DOCUMENT.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert len(rows) == 3
    for clients, slots, gib in rows:
        tables = Tables.for_clients(int(clients.replace(",", "")))
        assert (f"{tables.slots[0]:,}", f"{tables.bytes / 2**30:.2f}") == (slots, gib)


def test_a_what_if_takes_the_defaults_of_a_service() -> None:
    """They are written down twice: the settings are read before numpy may be imported."""
    settings = load_settings(bundle="b")
    assert Known(settings.known_account_s, settings.known_client_s, settings.known_requests) == Known()
    assert Pressure(settings.load_start, settings.load_budget) == Pressure()
    assert settings.typical_tokens == TYPICAL_TOKENS
