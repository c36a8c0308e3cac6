"""The log and the bundle that the tests of commands share, made once."""

from __future__ import annotations

import pytest

from tests.unit.command_line import Made, done, small_forests, write_small_log


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Simulate a small log and train on it: the first two steps of the round trip, through the command line."""
    folder = tmp_path_factory.mktemp("made")
    log = write_small_log(folder / "log.jsonl")
    with small_forests():
        budgets = ["--challenge-budget", 0.05, "--block-budget", 0.02]  # what so small a log resolves
        done("train", log, "--bundle", folder / "bundle", *budgets, "--capacity", 256, "--threads", 1, "--quiet")
    return Made(log, folder / "bundle")
