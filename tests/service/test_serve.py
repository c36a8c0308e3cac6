"""`botsieve serve`: names are resolved to folders before the service starts, and the service is a program of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from classifier.cli import serving
from classifier.errors import InputError
from serving.__main__ import _check_free, _options, main


def started(monkeypatch: pytest.MonkeyPatch, **options: Any) -> list[str]:
    """Return the command line that a `serve` becomes."""
    became: list[list[str]] = []
    monkeypatch.setattr(serving.os, "execv", lambda program, arguments: became.append(arguments))
    serving.run("folder", None, Path("mlruns"), options)
    return became[0]


def test_serve_becomes_the_service_with_the_options_that_were_given(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"port": 1, "clock": "event", "mode": None, "journal": Path("j"), "state": None, "host": "::1"}
    arguments = started(monkeypatch, **options)
    assert arguments[:3] == [sys.executable, "-m", "serving"]
    parsed = vars(_options().parse_args(arguments[3:]))
    assert {name: value for name, value in parsed.items() if value is not None} == {
        "bundle": "folder", "port": 1, "clock": "event", "journal": "j", "host": "::1",
    }  # fmt: skip


def test_numpy_is_not_imported_before_the_service_can_tell_it_how_to_take_memory() -> None:
    seen = "import sys, serving.__main__; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", seen], check=False).returncode == 0


def test_a_folder_stays_and_a_name_that_is_none_is_one_line(tmp_path: Path) -> None:
    assert serving.folder_of("some/folder", tmp_path) == "some/folder"
    with pytest.raises(InputError, match="no registry at"):
        serving.folder_of("models:/botsieve@champion", tmp_path)


def test_what_the_service_cannot_start_with_is_one_line_that_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BOTSIEVE_CONFIG", raising=False)
    monkeypatch.delenv("BOTSIEVE_BUNDLE", raising=False)
    file = str(tmp_path / "none.toml")
    for arguments, says in (
        (["--mode", "enforced"], "argument --mode: invalid choice: 'enforced'"),
        (["--port", "x"], "argument --port: invalid int value: 'x'; see botsieve serve --help"),
        ([], "no bundle was named; give --bundle DIR, or see docs/configuration.md"),
        (["--config", file], f"--config {file} is no file; check the path"),
    ):
        assert main(arguments) == 2
        told = capsys.readouterr().err
        assert told.startswith(f"botsieve: {says}")
        assert told.count("\n") == 1
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"^port {port} of 127.0.0.1 cannot be listened on .*; choose another"):
            _check_free("127.0.0.1", port)
