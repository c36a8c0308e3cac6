"""A jailbreak campaign: one goal after another, put in ever other words until the model gives in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from classifier.traffic import asking, hostile_prompts
from classifier.traffic.family import AttackFamily, Change, Effort, Parameters
from classifier.traffic.flow import Flow, Scene


class Jailbreak(AttackFamily):
    """Accounts that try jailbreaks and injections of a few kinds."""

    name = "jailbreak"
    source = "jailbreak campaigns against public chat services (as commonly described)"
    hides = "aged accounts, home lines, pauses of people, ordinary questions in between"
    needs = "prompts"
    parameters: ClassVar[Parameters] = {
        "pace_s": (1.0, 12.0),
        "pace_s_evasive": (12.0, 50.0),
        "covered": (0.3, 0.7),
        "replaced": (0.3, 0.9),
        "kinds": (2, 5),
    }
    share_of_clients = 0.05
    share_of_requests = 0.04
    lasts = (0.2, 0.8)
    seen_by = ("prompt",)

    def flows(self, scene: Scene, effort: Effort, rng: np.random.Generator) -> Iterator[Flow]:
        """Each account tries wordings of the campaign's kinds."""
        return asking.asked(self, scene, effort, rng, self._words(rng), None)

    def purpose(self, scene: Scene, effort: Effort, rng: np.random.Generator) -> Change:
        """Put jailbreaks in the place of some prompts."""
        return asking.asked_instead(self, rng, self._words(rng), None)

    def _words(self, rng: np.random.Generator) -> asking.Words:
        known = hostile_prompts.families("jailbreak", "prompt_injection")
        return asking.wordings(self, rng, known)
