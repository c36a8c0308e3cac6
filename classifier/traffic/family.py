"""The interface of attack families, and how they are found and chosen by name."""

from __future__ import annotations

import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import ClassVar

import numpy as np

from classifier.errors import InputError
from classifier.traffic.flow import INFERENCE, Act, Flow, Scene

GRADES = ("plain", "evasive", "mimic")
"""How well an attacker hides: plain makes no effort; evasive jitters, rotates addresses and user agents and keeps human
pauses and sizes; mimic replays a real legitimate client in everything that its purpose does not need."""
NEEDS = {
    "volume": "how many requests the campaign sends in all",
    "waves": "how many requests the campaign sends in all, and that its members begin together",
    "tokens": "how many input tokens the campaign costs in all",
    "connections": "some connections that are kept long after the answer is made",
    "log-ins": "its trials of passwords, most of which fail",
    "sign-ups": "accounts that are made, and used",
    "accounts": "one account for several users",
    "prompts": "its prompts",
    "prompts and models": "its prompts, and the models that they go to",
    "pages": "how many pages the campaign takes in all",
}
"""What an attack cannot do without, and therefore still shows when it mimics a legitimate client."""
Parameters = dict[str, float | tuple[float, float]]
Change = Callable[[Flow], Flow]
"""Puts what an attack needs into a replayed flow."""


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

    `source` says where the way was reported, `hides` how its evasive form tries not to be seen, and `needs` (a key of
    `NEEDS`) what its mimic form keeps. `parameters` are what differs between campaigns: a figure, or a range that
    `draw` draws from. The shares are of all attackers and of all their requests when every family takes part; `lasts`
    is how long a campaign goes on, as a range of shares of the whole traffic. A mimic replays clients that do one of
    `replays`, `replays_each` of them for each attacker. Without the event fields in `seen_by` nothing of the attack
    would be seen in a log, without those in `mimic_seen_by` nothing of its mimic form; only with `in_web` does it act in
    a log without inference calls.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    hides: ClassVar[str]
    needs: ClassVar[str]
    parameters: ClassVar[Parameters]
    share_of_clients: ClassVar[float]
    share_of_requests: ClassVar[float]
    lasts: ClassVar[tuple[float, float]] = (0.1, 0.6)
    replays: ClassVar[tuple[Act, ...]] = INFERENCE
    replays_each: ClassVar[int] = 1
    in_web: ClassVar[bool] = False
    seen_by: ClassVar[tuple[str, ...]] = ()
    mimic_seen_by: ClassVar[tuple[str, ...]] = ()

    def __init__(self, grade: str = "plain"):
        if grade not in GRADES:
            raise InputError(f"unknown grade {grade!r} of attack {self.name}; known are {', '.join(GRADES)}")
        self.grade = grade

    @property
    def evasive(self) -> bool:
        """True when the attackers hide."""
        return self.grade != "plain"

    def draw(self, rng: np.random.Generator, parameter: str) -> float:
        """Draw a parameter: evenly on a log scale, or evenly where its range begins at 0."""
        given = self.parameters[parameter]
        if not isinstance(given, tuple):
            return given
        low, high = given
        return float(np.exp(rng.uniform(np.log(low), np.log(high)))) if low > 0 else float(rng.uniform(low, high))

    def campaign(self, scene: Scene, effort: Effort, rng: np.random.Generator) -> Iterator[Flow]:
        """Write the flows of one campaign in the family's grade."""
        if self.grade == "mimic":
            from classifier.traffic.mimicry import replayed

            return replayed(self, scene, effort, rng)
        return self.flows(scene, effort, rng)

    @abstractmethod
    def flows(self, scene: Scene, effort: Effort, rng: np.random.Generator) -> Iterator[Flow]:
        """Write the flows of one plain or evasive campaign: about `effort.clients` clients, `effort.requests` requests."""

    def purpose(self, scene: Scene, effort: Effort, rng: np.random.Generator) -> Change:
        """Return what puts into a replayed flow what the attack needs: nothing, where only the volume counts."""
        return lambda flow: flow

    @classmethod
    def grades_in(cls, scene: Scene) -> tuple[str, ...]:
        """Return the grades in which something of the attack can be seen in a scene's log.

        There are no mimics where no legitimate client does what they need, such as log-ins on a site that has none.
        """
        if (scene.web and not cls.in_web) or not all(scene.shows(field) for field in cls.seen_by):
            return ()
        somebody = (scene.web and cls.replays == INFERENCE) or bool(scene.originals().doing(cls.replays).any())
        return GRADES if somebody and all(scene.shows(field) for field in cls.mimic_seen_by) else GRADES[:-1]


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


def visible(families: Sequence[Chosen], scene: Scene, named: Container[str]) -> list[Chosen]:
    """Return the families in those grades of which something can be seen in a scene's log.

    Raises InputError if one that was `named` cannot be seen at all.
    """
    kept = []
    for what in families:
        grades = tuple(grade for grade in what.grades if grade in what.family.grades_in(scene))
        if grades:
            kept.append(Chosen(what.family, grades))
        elif what.family.name in named:
            lacks = "inference calls" if scene.web and not what.family.in_web else "fields"
            raise InputError(
                f"attack {what.family.name} ({', '.join(what.grades)}) would not be seen in this log, for it lacks "
                f"{lacks} that show it; leave the attack out, or say all"
            )
    return kept
