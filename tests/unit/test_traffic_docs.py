"""docs/traffic.md names every family, need and kind, as the code has them."""

from __future__ import annotations

from pathlib import Path

from classifier.traffic import families
from classifier.traffic.family import NEEDS
from classifier.traffic.legitimate import KINDS

PAGE = (Path(__file__).parents[2] / "docs" / "traffic.md").read_text("utf-8")


def test_every_family_is_described() -> None:
    for name, family in families().items():
        first = (family.__doc__ or "").strip().splitlines()[0]
        assert f"| `{name}` | {first} | {family.source} | {family.hides} | {family.needs} |" in PAGE


def test_every_need_is_described() -> None:
    for need, meaning in NEEDS.items():
        assert f"| {need} | {meaning} |" in PAGE
    assert {family.needs for family in families().values()} == set(NEEDS)


def test_every_kind_of_legitimate_client_is_described() -> None:
    for name, kind in KINDS.items():
        assert f"| `{name}` | {100 * kind.share:g} % | {kind.looks_bad} |" in PAGE
