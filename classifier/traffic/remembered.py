"""Legitimate clients that were written, in figures, and how to write each of them again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from classifier.traffic.flow import I64, KEYED, Act, Flow, Originals


class Remembered:
    """The legitimate clients of a traffic of `span` s that a mimic may replay. Their flows are not kept in memory."""

    def __init__(self, span: float):
        self._span = span
        self._counts: list[I64] = []
        self._tokens: list[float] = []
        self._begins: list[float] = []
        self._again: list[Callable[[], list[Flow]]] = []

    def add(self, flows: Sequence[Flow], again: Callable[[], list[Flow]]) -> None:
        """Note a client: what it does, and what writes it again. One whose requests are all refused is left out."""
        counts = np.zeros(len(Act), np.int64)
        for flow in flows:
            acts = flow.within(self._span).acts
            if flow.account is None:  # refused: worth nothing to anybody
                acts = acts[~np.isin(acts, KEYED)]
            counts += np.bincount(acts, minlength=len(Act))
        if not counts.sum():
            return
        self._counts.append(counts)
        self._tokens.append(sum(float(flow.input_tokens.sum()) for flow in flows if flow.input_tokens is not None))
        self._begins.append(min(float(flow.times.min()) for flow in flows if len(flow)))
        self._again.append(again)

    def figures(self) -> Originals:
        """Return what each of them does."""
        counts = np.array(self._counts, np.int64).reshape(-1, len(Act))
        return Originals(counts, np.array(self._tokens), np.array(self._begins))

    def flows(self, number: int) -> list[Flow]:
        """Write one of them again."""
        return [flow.within(self._span) for flow in self._again[number]()]
