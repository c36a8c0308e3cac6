"""Microseconds per prompt of the prompt score, by length, on one core; beside scikit-learn's own way to do the same.

The peer is a HashingVectorizer (five characters and words, as many buckets, present or not) with a fitted logistic
regression. Prompts are made of varied sentences of our own. Processor time, best of several rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union

from classifier.features.promptscore import BUCKETS, shipped
from classifier.traffic.prompt_samples import EVERY, samples

LENGTHS = (20, 200, 2_000, 16_000, 1_000_000)
PEER_LONGEST = 16_000
TARGET_US = 20.0
"""For 2,000 characters."""
ROUNDS = 30
PEER_ROUNDS = 3


def prompts(length: int, count: int) -> list[str]:
    """Return prompts of exactly so many characters, each other words."""
    rng = np.random.default_rng(length)
    text = " ".join(sample.text for sample in samples(rng, "benign", EVERY, 3_000))
    text *= 2 + (length + 997 * count) // len(text)
    return [text[start * 997 : start * 997 + length] for start in range(count)]


def peer() -> object:
    """Return scikit-learn's pipeline, fitted on a few prompts."""
    counted = {"n_features": BUCKETS, "binary": True, "norm": "l2", "alternate_sign": False}
    vectorizer = make_union(
        HashingVectorizer(analyzer="char", ngram_range=(5, 5), **counted),
        HashingVectorizer(analyzer="word", **counted),
    )
    rng = np.random.default_rng(0)
    drawn = samples(rng, "benign", EVERY, 100) + samples(rng, "jailbreak", EVERY, 100)
    return make_pipeline(vectorizer, LogisticRegression()).fit(
        [s.text for s in drawn], [s.kind != "benign" for s in drawn]
    )


def best(work: Callable[[], object], count: int, rounds: int = ROUNDS) -> float:
    """Return the least µs of processor time per prompt."""
    times = []
    for _ in range(rounds):
        begin = time.process_time()
        work()
        times.append(time.process_time() - begin)
    return min(times) / count * 1e6


def main() -> None:
    """Print the table."""
    scorer, model = shipped(), peer()
    print(f"µs per prompt; target {TARGET_US:.0f} for 2,000 characters\n")
    print(
        f"| {'characters':>10} | {'one by one':>10} | {'as a column':>11} | {'scikit-learn, column':>20} | {'one by one':>10} |"
    )
    print(f"|{'-' * 11}:|{'-' * 11}:|{'-' * 12}:|{'-' * 21}:|{'-' * 11}:|")
    for length in LENGTHS:
        texts = prompts(length, min(200, max(4, 400_000 // length)))
        column, few = pa.array(texts), texts[: max(2, 40_000 // length)]
        ours = (
            best(lambda texts=texts: [scorer.of(text) for text in texts], len(texts)),
            best(lambda column=column: scorer.of_column(column), len(texts)),
        )
        row = f"| {length:>10,} | {ours[0]:>10.1f} | {ours[1]:>11.1f} |"
        if length > PEER_LONGEST:
            print(f"{row} {'–':>20} | {'–':>10} |", flush=True)
            continue
        peers = (
            best(lambda few=few: model.decision_function(few), len(few), PEER_ROUNDS),
            best(lambda few=few: [model.decision_function([text]) for text in few[:5]], min(5, len(few)), PEER_ROUNDS),
        )
        print(f"{row} {peers[0]:>20,.0f} | {peers[1]:>10,.0f} |", flush=True)


if __name__ == "__main__":
    main()
