"""A loaded bundle as a judge of feature rows: raw score, probability and reasons, the same for a file and for a request."""

from __future__ import annotations

from typing import Self

import numpy as np
import numpy.typing as npt

from classifier.errors import BundleError
from classifier.features.engine import Tables
from classifier.features.promptscore import PROMPT_FILE, PromptScorer, shipped
from classifier.features.spec import COLUMN, FEATURES, spec_hash
from classifier.model.attribution import Explainer
from classifier.model.bundle import Bundle, load_bundle
from classifier.model.families import FAMILY_FILE, Families
from classifier.model.scorer import Device, Scorer

EXPLAINED_SHARE = 0.01
"""Reasons are given to requests whose raw score lies above that of all but this share of legitimate ones."""
REASONS = 3


class Judge:
    """A loaded bundle, ready to score and explain full feature rows, float32[n, features] in the order of `spec.NAMES`."""

    def __init__(self, bundle: Bundle, *, device: Device = "auto", threads: int = 1) -> None:
        """Prepare the scorer and the explainer. Raises BundleError if the bundle's features are not of this version."""
        self.bundle, manifest = bundle, bundle.manifest
        unknown = [name for name in manifest.features if name not in COLUMN]
        if unknown:
            raise BundleError(f"the bundle {bundle.path} takes features this version has not: {', '.join(unknown[:3])}")
        self.columns = [COLUMN[name] for name in manifest.features]
        self.thresholds = manifest.policy_thresholds()
        self.sizes = Tables.from_slots(manifest.tables)
        self._scorer = Scorer(bundle, device=device, threads=threads)
        self._all = self.columns == list(range(len(FEATURES)))
        # Whatever is acted on has reasons, even where the budget is wider than that share.
        unusual = manifest.policy_curve().threshold(EXPLAINED_SHARE)
        self._explain_from = np.float32(min(unusual, self.thresholds.challenge, self.thresholds.block))
        self._explainer: Explainer | None = None
        stated = PROMPT_FILE in manifest.files
        self.prompts = PromptScorer.from_bytes(bundle.read(PROMPT_FILE)) if stated else shipped()
        self._families = Families(bundle.read(FAMILY_FILE)) if FAMILY_FILE in manifest.files else None

    @classmethod
    def load(cls, path: str, *, device: Device = "auto", threads: int = 1) -> Self:
        """Load a bundle from its folder and check that it was made for this version's features."""
        return cls(load_bundle(path, expect_spec_hash=spec_hash()), device=device, threads=threads)

    @property
    def providers(self) -> tuple[str, ...]:
        """What the graph really runs on."""
        return self._scorer.providers

    @property
    def dispatch(self) -> list[tuple[int, str]]:
        """From how many rows on what runs them: (1, provider), …"""
        return self._scorer.plan

    def on_device(self, rows: int) -> bool:
        """Whether a call of so many rows goes to a GPU, which may hang."""
        return self._scorer.on_device(rows)

    @property
    def device_faults(self) -> int:
        """How often the GPU failed; the first time, the CPU took over."""
        return self._scorer.device_faults

    def explainer(self) -> Explainer:
        """Return what credits a score to features; it takes the columns `columns` of full rows."""
        if self._explainer is None:
            names = [FEATURES[column].reason for column in self.columns]
            self._explainer = Explainer(self._scorer.forest, names, self.bundle.manifest.clip_limit())
        return self._explainer

    def warm(self) -> None:
        """Run everything once, so that the first request waits for no compiler."""
        rows = np.zeros((1, len(FEATURES)), np.float32)
        self.score(rows)
        self.reasons(rows, np.full(1, np.inf, np.float32))
        self.families(rows, np.full(1, np.inf, np.float32))

    def score(self, rows: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return (raw float32[n], probability float32[n]) of full feature rows, float32[n, features]."""
        return self._scorer.score(rows if self._all else np.ascontiguousarray(rows[:, self.columns]))

    def explained(
        self, rows: npt.NDArray[np.float32], raw: npt.NDArray[np.float32]
    ) -> tuple[list[str | None], list[str | None]]:
        """Return `reasons` and `families`, at the cost of one look where no row has any."""
        least = float(self._explain_from)
        if all(value < least for value in raw.tolist()):  # of a few rows in a fraction of the time that numpy takes
            return [None] * len(rows), [None] * len(rows)
        return self.reasons(rows, raw), self.families(rows, raw)

    def reasons(self, rows: npt.NDArray[np.float32], raw: npt.NDArray[np.float32]) -> list[str | None]:
        """Return the reasons of each row, most telling first; None for rows that lie among the legitimate ones."""
        out: list[str | None] = [None] * len(rows)
        high = (raw >= self._explain_from).nonzero()[0]
        if not len(high):
            return out
        for place, found in zip(high, self.explainer().reasons(rows[high][:, self.columns], REASONS), strict=True):
            out[place] = " ".join(found) or None
        return out

    def families(self, rows: npt.NDArray[np.float32], raw: npt.NDArray[np.float32]) -> list[str | None]:
        """Return the most likely attack family of each row, "unknown" where none fits; None where there are no reasons."""
        out: list[str | None] = [None] * len(rows)
        high = (raw >= self._explain_from).nonzero()[0]
        if self._families is not None and len(high):
            named = self._families.of(np.ascontiguousarray(rows[high][:, self.columns]))
            for place, name in zip(high.tolist(), named, strict=True):
                out[place] = name
        return out
