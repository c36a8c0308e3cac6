"""System-prompt extraction: the operator's instructions coaxed out of a model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from classifier.traffic import asking, hostile_prompts
from classifier.traffic.family import AttackFamily, Change, Effort, Parameters
from classifier.traffic.flow import Flow, Scene


class PromptExtraction(AttackFamily):
    """Accounts that ask for the system prompt in many ways, of several models."""

    name = "prompt_extraction"
    source = "system-prompt leakage, OWASP top ten for LLM applications 2025, LLM07 (as commonly described)"
    hides = "aged accounts, home lines, pauses of people, ordinary questions in between"
    needs = "prompts"
    parameters: ClassVar[Parameters] = {
        "pace_s": (1.0, 15.0),
        "pace_s_evasive": (12.0, 50.0),
        "covered": (0.55, 0.85),
        "replaced": (0.2, 0.8),
        "kinds": (2, 6),
    }
    share_of_clients = 0.04
    share_of_requests = 0.03
    lasts = (0.2, 0.8)
    seen_by = ("prompt",)

    def flows(self, scene: Scene, effort: Effort, rng: np.random.Generator) -> Iterator[Flow]:
        """Each account tries wordings of the campaign's kinds."""
        return asking.asked(self, scene, effort, rng, self._words(rng), None)

    def purpose(self, scene: Scene, effort: Effort, rng: np.random.Generator) -> Change:
        """Put questions for the system prompt in the place of some prompts."""
        return asking.asked_instead(self, rng, self._words(rng), None)

    def _words(self, rng: np.random.Generator) -> asking.Words:
        known = hostile_prompts.families(hostile_prompts.EXTRACTION)
        return asking.wordings(self, rng, known)
