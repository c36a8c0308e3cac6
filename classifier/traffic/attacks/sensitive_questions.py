"""The same sensitive questions put to several models, to compare what each of them says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from classifier.traffic import asking, hostile_prompts
from classifier.traffic.family import AttackFamily, Change, Effort, Parameters
from classifier.traffic.flow import Flow, Scene


class SensitiveQuestions(AttackFamily):
    """A short list of contested questions that several accounts put to every model."""

    name = "sensitive_questions"
    source = "the same sensitive questions put to several models (as commonly described)"
    hides = "aged accounts, home lines, pauses of people, ordinary questions in between, one or two models each"
    needs = "prompts and models"
    parameters: ClassVar[Parameters] = {
        "pace_s": (1.0, 20.0),
        "pace_s_evasive": (12.0, 50.0),
        "covered": (0.3, 0.7),
        "replaced": (0.3, 0.8),
        "questions": (8, 40),
    }
    share_of_clients = 0.05
    share_of_requests = 0.03
    lasts = (0.3, 1.0)
    seen_by = ("prompt", "model")

    def flows(self, scene: Scene, effort: Effort, rng: np.random.Generator) -> Iterator[Flow]:
        """Each account takes questions of the list: to one model after the other, or its part of the models when hiding."""
        return asking.asked(self, scene, effort, rng, self._words(rng), asking.models_of(self, scene, rng))

    def purpose(self, scene: Scene, effort: Effort, rng: np.random.Generator) -> Change:
        """Put the list's questions to every model in the place of some prompts."""
        return asking.asked_instead(self, rng, self._words(rng), asking.models_of(self, scene, rng))

    def _words(self, rng: np.random.Generator) -> asking.Words:
        several = int(self.draw(rng, "questions"))
        questions = hostile_prompts.worded(rng, hostile_prompts.families("sensitive"), several)
        models = 4

        def words(n: int) -> list[str]:
            first = int(rng.integers(several))
            return [questions[(first + i // models) % several] for i in range(n)]

        return words
