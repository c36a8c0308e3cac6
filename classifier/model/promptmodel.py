"""Trains the prompt score: logistic regression over the numbers that `features.promptscore` makes of a prompt.

    python -m classifier.model.promptmodel --data ../shared/data/prompts --out classifier/features/prompt.npy

makes the file that comes with botsieve. `--sources all` uses every prompt of the folder; the figures of the public
sets are then no longer those of unseen sources, and whether the result may be passed on is for their licences to say.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from classifier.features.promptscore import BUCKETS, PromptScorer, blocks_of
from classifier.model.prompt_corpus import SHIPPABLE, Prompt, own_prompts, read_prompts, thinned
from classifier.model.ranking import highest

SEED: Final = 20261125
INVERSE_REGULARISATION: Final = 4.0
"""C of the logistic regression; chosen on the half of the prompts that is not reported."""
NEAR_HIGHEST: Final = 1.0
"""Log odds below a malicious prompt's highest window at which another still counts as one that made it malicious."""
MOST_PER_SOURCE: Final = 4000
FOLDS: Final = 5
_GREATEST: Final = 32767


@dataclass(frozen=True)
class Windows:
    """Every window of every prompt: rows csr float32[windows, BUCKETS], divided as the score divides; prompt int64[windows]."""

    rows: Any
    prompt: npt.NDArray[np.int64]

    def of(self, chosen: npt.NDArray[np.bool_]) -> tuple[Any, npt.NDArray[np.int64]]:
        """Return (rows, prompt) of the windows of the chosen prompts."""
        mask = chosen[self.prompt]
        return self.rows[mask], self.prompt[mask]


def windows_of(texts: Sequence[str]) -> Windows:
    """Return the windows that the score of each text is the greatest of."""
    from scipy import sparse

    blocks = blocks_of(pa.array(texts, pa.string()))
    count = len(blocks.ends)
    begin = np.concatenate([[0], blocks.ends])
    by_block = sparse.csr_matrix(
        (np.ones(len(blocks.numbers), np.float32), blocks.numbers.astype(np.int32), begin), shape=(count, BUCKETS)
    )
    first = np.arange(count)
    follows = np.append(blocks.part[1:] == blocks.part[:-1], False)
    alone = (first == blocks.part) & ~follows
    starts = np.flatnonzero(follows | alone)
    pairs = np.flatnonzero(follows[starts])
    rows = np.concatenate([np.arange(len(starts)), pairs])
    columns = np.concatenate([starts, starts[pairs] + 1])
    joined = sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=(len(starts), count)) @ by_block
    sizes = np.maximum(np.asarray(joined.sum(axis=1)).ravel(), 1.0)
    return Windows((sparse.diags(1.0 / np.sqrt(sizes)) @ joined).tocsr().astype(np.float32), blocks.prompt[starts])


def fitted(
    windows: Windows, malicious: npt.NDArray[np.bool_], chosen: npt.NDArray[np.bool_], c: float = INVERSE_REGULARISATION
) -> PromptScorer:
    """Fit the chosen prompts, twice: of a malicious prompt not every window need be.

    The second time, a malicious prompt keeps the windows that the first fit gave nearly its highest score.
    """
    rows, prompt = windows.of(chosen)
    model = _fit(rows, prompt, malicious[prompt], c)
    score = model.decision_function(rows)
    best = highest(score, prompt, len(malicious))
    kept = ~malicious[prompt] | (score >= best[prompt] - NEAR_HIGHEST)
    model = _fit(rows[kept], prompt[kept], malicious[prompt[kept]], c)
    return quantised(model.coef_[0], float(model.intercept_[0]))


def _fit(rows: Any, prompt: npt.NDArray[np.int64], label: npt.NDArray[np.bool_], c: float) -> Any:
    """Fit windows: each prompt with the same weight however many windows it has, each class with half of all weight."""
    from sklearn.linear_model import LogisticRegression

    weight = 1.0 / np.bincount(prompt)[prompt]
    weight *= np.where(label, 0.5 / weight[label].sum(), 0.5 / weight[~label].sum()) * len(weight)
    return LogisticRegression(C=c, solver="liblinear", dual=True, tol=1e-3, random_state=SEED).fit(rows, label, weight)


def quantised(weights: npt.NDArray[np.float64], bias: float) -> PromptScorer:
    """Return the scorer with weights rounded to the finest steps that 16 bits hold."""
    step = max(float(np.abs(weights).max()), 1e-9) / _GREATEST
    return PromptScorer(np.rint(weights / step).astype(np.int16), step, bias)


def calibrated(scorer: PromptScorer, scores: npt.NDArray[np.float64], malicious: npt.NDArray[np.bool_]) -> PromptScorer:
    """Return the scorer whose score is the log odds that `scores` (of prompts it did not see) have, classes being even."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1e6, class_weight="balanced").fit(scores[:, None], malicious)
    slope, shift = float(model.coef_[0, 0]), float(model.intercept_[0])
    return PromptScorer(scorer.weights, scorer.step * slope, scorer.bias * slope + shift)


def train(prompts: Sequence[Prompt], c: float = INVERSE_REGULARISATION) -> PromptScorer:
    """Train on all prompts. Calibrated on scores of prompts whose whole source or family was left out."""
    from sklearn.model_selection import GroupKFold

    texts = [prompt.text for prompt in prompts]
    column = pa.array(texts, pa.string())
    malicious = np.array([prompt.malicious for prompt in prompts])
    windows = windows_of(texts)
    scores = np.zeros(len(prompts))
    for _, held in GroupKFold(FOLDS).split(texts, malicious, [prompt.source for prompt in prompts]):
        left = np.ones(len(prompts), bool)
        left[held] = False
        scores[held] = fitted(windows, malicious, left, c).of_column(column.take(pa.array(held)))
    return calibrated(fitted(windows, malicious, np.ones(len(prompts), bool), c), scores, malicious)


def corpus(folder: Path, sources: str) -> list[Prompt]:
    """Return what to train on: our own prompts, and those of the public sets (`shippable` or `all`)."""
    public = read_prompts(folder)
    if sources == "shippable":
        public = [prompt for prompt in public if prompt.source in SHIPPABLE]
    return thinned(public, MOST_PER_SOURCE) + own_prompts(SEED)


def main() -> None:
    """Train and write a `prompt.npy`."""
    parser = argparse.ArgumentParser(description="train the prompt score and write its weights")
    parser.add_argument("--data", type=Path, required=True, help="folder with malicious.jsonl.gz and benign.jsonl.gz")
    parser.add_argument("--out", type=Path, required=True, help="the prompt.npy to write")
    parser.add_argument("--sources", choices=("shippable", "all"), default="shippable")
    options = parser.parse_args()
    prompts = corpus(options.data, options.sources)
    content = train(prompts).to_bytes()
    options.out.write_bytes(content)
    malicious = sum(prompt.malicious for prompt in prompts)
    print(
        f"{options.out}: {len(content):,} bytes, from {malicious:,} malicious and {len(prompts) - malicious:,} benign prompts"
    )


if __name__ == "__main__":
    main()
