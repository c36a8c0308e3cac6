"""The interface of attack families, and how they are found and chosen by name."""

from __future__ import annotations

import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import ClassVar

import numpy as np

from classifier.errors import InputError
from classifier.traffic.flow import Flow, Scene

GRADES = ("plain", "evasive")
"""How well an attacker hides: plain makes no effort; evasive rotates what it can and keeps human pauses and sizes."""


@dataclass(frozen=True)
class Effort:
    """What one campaign has at its disposal: attackers, requests, and the stretch of time it acts in (s)."""

    clients: int
    requests: int
    start: float
    end: float

    @property
    def span(self) -> float:
        """Length of the stretch, s."""
        return self.end - self.start


class AttackFamily(ABC):
    """A way of attacking. A new one is a module in `classifier/traffic/attacks` with a subclass; nothing else.

    `source` says where the way was reported. The shares are of all attackers and of all their requests when every
    family takes part; `lasts` is how long a campaign goes on, as a range of shares of the whole traffic.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    share_of_clients: ClassVar[float]
    share_of_requests: ClassVar[float]
    lasts: ClassVar[tuple[float, float]] = (0.1, 0.6)

    def __init__(self, grade: str = "plain"):
        if grade not in GRADES:
            raise InputError(f"unknown grade {grade!r} of attack {self.name}; known are {', '.join(GRADES)}")
        self.grade = grade

    @property
    def evasive(self) -> bool:
        """True when the attackers hide."""
        return self.grade != "plain"

    @abstractmethod
    def flows(self, scene: Scene, effort: Effort, rng: np.random.Generator) -> Iterator[Flow]:
        """Write the flows of one campaign: about `effort.clients` clients and `effort.requests` requests."""


@dataclass(frozen=True)
class Chosen:
    """A family that takes part, and the grades of its campaigns."""

    family: type[AttackFamily]
    grades: tuple[str, ...]


@cache
def families() -> dict[str, type[AttackFamily]]:
    """Return every attack family by name, found in the modules of `classifier.traffic.attacks`."""
    from classifier.traffic import attacks

    for module in pkgutil.iter_modules(attacks.__path__):
        import_module(f"{attacks.__name__}.{module.name}")
    found = {family.name: family for family in AttackFamily.__subclasses__()}
    return dict(sorted(found.items()))


def chosen(attacks: str | Sequence[str]) -> list[Chosen]:
    """Return the families named in `attacks`: "all", "none", names (a list, or a text with commas), `name:grade`.

    Raises InputError, listing what is known, for an unknown name or grade.
    """
    names = [name.strip() for name in attacks.split(",")] if isinstance(attacks, str) else list(attacks)
    grades: dict[str, tuple[str, ...]] = {}
    for entry in names:
        name, _, grade = entry.partition(":")
        if grade and grade not in GRADES:
            raise InputError(f"unknown grade {grade!r} in {entry!r}; known are {', '.join(GRADES)}")
        if name == "none":
            continue
        if name != "all" and name not in families():
            raise InputError(f"unknown attack {name!r}; known are all, none, {', '.join(families())}")
        for one in families() if name == "all" else (name,):
            grades[one] = (*grades.get(one, ()), *((grade,) if grade else GRADES))
    return [Chosen(families()[name], tuple(dict.fromkeys(grades[name]))) for name in sorted(grades)]
