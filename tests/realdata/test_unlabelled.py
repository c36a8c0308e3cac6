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
    caught, attackers = found.recall("plain")
    assert attackers >= 400
    assert caught / attackers >= 0.9
    # Evasive ones visit as the log's own clients do, in a log that has lost its minutes.
    caught, attackers = found.recall("evasive")
    assert caught / attackers >= 0.58


@pytest.mark.realdata
def test_scanners_and_undeclared_bots_stand_at_the_top(found: unlabelled.Found) -> None:
    sought = {
        log: sum(client.judgement.startswith(("scanner", "undeclared bot")) for client in clients)
        for log, clients in found.top.items()
    }
    # Six were aimed at. Trained with other seeds it is four or five too; one or two more are declared bots.
    assert sought["second_half.log"] >= 4
    assert sum(sought.values()) >= 15


@pytest.mark.realdata
def test_every_line_is_accepted_or_rejected(found: unlabelled.Found) -> None:
    assert all(read == accepted + rejected for read, accepted, rejected in found.totals)
    train, half, *scanned = found.totals[:4]
    assert train[0] + half[0] == 10_000
    assert sum(read for read, _, _ in scanned) == 1_906
    assert all(totals == half for totals in found.totals[4:])


@pytest.mark.realdata
def test_the_challenge_budget_holds_on_the_later_half(found: unlabelled.Found) -> None:
    # 3,393 legitimate requests of the first half resolve a budget of 10 in 3,393. Nobody vouches that all of the second
    # half is legitimate: of the eight clients that are challenged when nothing is woven in, six are scanners and crawlers,
    # one is an address that several people share, and one a person.
    for touched in found.touched.values():
        assert touched["acted_on"]["value"] <= 0.015
