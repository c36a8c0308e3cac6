"""A program that a test needs and that is not there: the test is skipped, but not in CI."""

from __future__ import annotations

import pytest

from tests.gateways.shared import installed


def test_a_missing_program_skips_a_test_and_fails_it_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    assert installed("python")
    with pytest.raises(pytest.fail.Exception, match="no-such-program is not installed"):
        installed("no-such-program")
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="no-such-program is not installed"):
        installed("no-such-program")
