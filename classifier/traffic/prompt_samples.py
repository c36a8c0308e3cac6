"""Prompts of our own to train the prompt score with: attacks by family, and harmless prompts that look like them.

The families of a kind fall into three thirds, by the order of their names. The last third of the attacks is *unseen*: no
training draws from it, and the evaluation reports it apart. Wording, case, typing errors and what stands around an attack vary
from one draw to the next.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import numpy as np

from classifier.traffic.prompt_wordings import BENIGN, EXTRACTION, HARMFUL, INJECTION, JAILBREAK, SLOTS

KINDS: Final = {
    "system_prompt_extraction": EXTRACTION,
    "prompt_injection": INJECTION,
    "jailbreak": JAILBREAK,
    "harmful_request": HARMFUL,
    "benign": BENIGN,
}
"""Families of patterns by kind of prompt; every kind but `benign` is malicious."""
MALICIOUS: Final = tuple(kind for kind in KINDS if kind != "benign")
EVERY: Final = (0, 1, 2)
SEEN: Final = (0, 1)
UNSEEN: Final = (2,)
_SLOT: Final = re.compile(r"\$([a-z_]+)")
_POLITE: Final = ("please ", "hi, ", "hello! ", "hey ", "quick one: ", "thanks in advance. ", "question: ", "ok so ")
_CLOSING: Final = (" thanks", " please", " Thank you!", " It is urgent.", " I would appreciate it.", " ok?", " cheers")


@dataclass(frozen=True)
class Sample:
    """One prompt and the family it was drawn from."""

    text: str
    kind: str
    family: str


def families(kind: str, thirds: Collection[int] = EVERY) -> list[str]:
    """Return the names of the families of a kind that are in these thirds of them."""
    return [name for i, name in enumerate(sorted(KINDS[kind])) if i % 3 in thirds]


def fill(rng: np.random.Generator, pattern: str) -> str:
    """Fill a pattern's slots, and the slots in what they are filled with."""

    def entry(match: re.Match[str]) -> str:
        entries = SLOTS[match[1]]
        return fill(rng, entries[int(rng.integers(len(entries)))])

    return _SLOT.sub(entry, pattern)


def samples(rng: np.random.Generator, kind: str, thirds: Collection[int], n: int) -> list[Sample]:
    """Draw n prompts of a kind, each from any of its families in these thirds."""
    names = families(kind, thirds)
    drawn = []
    for _ in range(n):
        family = names[int(rng.integers(len(names)))]
        patterns = KINDS[kind][family]
        text = fill(rng, patterns[int(rng.integers(len(patterns)))])
        text = _typed(rng, text)
        where = rng.random() if kind in ("system_prompt_extraction", "prompt_injection") else 1.0
        if where < 0.2:
            text = _surrounded(rng, text)
        elif where < 0.4:
            before, after = rng.integers(0, 1000, 2)
            text = padded(rng, text, int(before), int(after))
        drawn.append(Sample(text, kind, family))
    return drawn


def padded(rng: np.random.Generator, text: str, before: int, after: int) -> str:
    """Put at least so many characters of a harmless document before and after a text."""

    def document(length: int) -> str:
        parts: list[str] = []
        while sum(map(len, parts)) < length:
            parts.append(fill(rng, "$paragraph"))
        return "".join(parts)

    return document(before) + text + " " + document(after)


def _surrounded(rng: np.random.Generator, text: str) -> str:
    """Put a text after, before or between harmless sentences."""
    head = fill(rng, "$quote") + "\n\n" if rng.random() < 0.7 else ""
    tail = "\n" + fill(rng, "$quote") if not head or rng.random() < 0.3 else ""
    return head + text + tail


def _typed(rng: np.random.Generator, text: str) -> str:
    """Write a text as people type: at times in lower case, politely, with a letter missing or without the last stop."""
    if len(text) > 400:
        return text
    if rng.random() < 0.15:
        text = _POLITE[int(rng.integers(len(_POLITE)))] + text
    if rng.random() < 0.1:
        text += _CLOSING[int(rng.integers(len(_CLOSING)))]
    if rng.random() < 0.2:
        text = text.lower()
    elif rng.random() < 0.5:
        text = text[:1].upper() + text[1:]
    if rng.random() < 0.15:
        text = text.rstrip(".!?")
    if rng.random() < 0.1 and len(text) > 20:
        at = int(rng.integers(len(text)))
        text = text[:at] + text[at + 1 :]
    return text
