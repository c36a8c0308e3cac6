"""Real logs without labels: attackers woven into a later half are found, and no line is lost on the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.realdata import unlabelled


@pytest.fixture(scope="module")
def found(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> unlabelled.Found:
    return unlabelled.measure(shared_data / "web", tmp_path_factory.mktemp("unlabelled"))


@pytest.mark.realdata
def test_woven_attackers_are_challenged(found: unlabelled.Found) -> None:
    caught, attackers = found.recall()
    assert attackers >= 500
    assert (
        caught / attackers >= 0.7
    )  # the aim is 0.9, which attackers that did not take after the log's clients reached


@pytest.mark.realdata
def test_every_line_is_accepted_or_rejected(found: unlabelled.Found) -> None:
    assert all(read == accepted + rejected for read, accepted, rejected in found.totals)
    train, half, *scanned = found.totals[:4]
    assert train[0] + half[0] == 10_000
    assert sum(read for read, _, _ in scanned) == 1_906
    assert all(totals == half for totals in found.totals[4:])


@pytest.mark.realdata
def test_the_challenge_budget_holds_on_the_later_half(found: unlabelled.Found) -> None:
    # 3,393 legitimate requests of the first half resolve a budget of 10 in 3,393; nobody vouches that all of the second
    # half is legitimate, and a single scanner in it has a hundred requests.
    for touched in found.touched.values():
        assert touched["acted_on"]["value"] <= 0.025
