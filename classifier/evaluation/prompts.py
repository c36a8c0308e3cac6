"""How well the prompt score tells attacks from harmless prompts that it was not trained on.

    python -m classifier.evaluation.prompts [--data FOLDER] [--half report|selection] [--worst N]

* A public source is judged by a model that saw nothing of it: for each pair of a malicious and a benign source another model is
  trained, without both. (The two parts of self-instruct leave together.)
* All prompts fall into two halves by a hash of their text. Whatever was chosen (n-grams, buckets, windows, regularisation) was
  chosen on the half `selection`; the figures are of the half `report`, on which nothing was tried.
* Prompts of our own: attacks of families that no training draws from, and harmless ones of a third of the families that was
  left out, in turn.
* The shipped weights, on the sources that they were not trained on at all.

Recall at 1 % means: at the lowest threshold that at most 1 % of that benign source's prompts exceed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from sklearn.metrics import roc_auc_score

from classifier.features.promptscore import PromptScorer, shipped
from classifier.model.prompt_corpus import SHIPPABLE, Prompt, own_prompts, read_prompts, reported, thinned
from classifier.model.promptmodel import MOST_PER_SOURCE, SEED, Windows, fitted, windows_of
from classifier.traffic.prompt_samples import EVERY, MALICIOUS, UNSEEN, families, padded, samples

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "prompts"
SHARE = 0.01
EACH = 500
"""Prompts of our own per kind in a test."""

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Recall:
    """Recall at 1 % false positives, with a 95 % interval over both samples, and how many prompts are behind it."""

    value: float
    low: float
    high: float
    malicious: int
    benign: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True)
class Cell:
    """One malicious source against one benign source, neither of them seen in training."""

    auc: float
    recall: Recall


def group(source: str) -> str:
    """Return what is left out together with a source."""
    return "self-instruct" if source.startswith("self-instruct") else source


def threshold(benign: Scores) -> float:
    """Return the lowest threshold that at most 1 % of the scores exceed."""
    ranked = np.sort(benign)[::-1]
    return float(ranked[int(SHARE * len(ranked))])


def recall(malicious: Scores, benign: Scores, rounds: int = 500) -> Recall:
    """Return the recall at 1 % false positives; the interval draws both samples anew."""
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(rounds):
        limit = threshold(rng.choice(benign, len(benign)))
        drawn.append((rng.choice(malicious, len(malicious)) > limit).mean())
    low, high = np.quantile(drawn, [0.025, 0.975])
    value = float((malicious > threshold(benign)).mean())
    return Recall(value, float(low), float(high), len(malicious), len(benign))


def auc(malicious: Scores, benign: Scores) -> float:
    """Return the share of pairs in which the malicious prompt scores higher."""
    label = np.concatenate([np.ones(len(malicious)), np.zeros(len(benign))])
    return float(roc_auc_score(label, np.concatenate([malicious, benign])))


@dataclass(frozen=True)
class Trial:
    """All prompts with their windows, from which every model of the protocol is trained."""

    prompts: list[Prompt]
    windows: Windows
    judged: npt.NDArray[np.bool_]
    trained: npt.NDArray[np.bool_]

    @staticmethod
    def of(folder: Path, half: str) -> Trial:
        """Read the public sets and draw our own prompts; `half` is judged, all may train."""
        public = read_prompts(folder)
        few = set(thinned(public, MOST_PER_SOURCE))
        prompts = public + own_prompts(SEED)
        own = len(prompts) - len(public)
        judged = np.array([reported(p.text) == (half == "report") for p in public] + [False] * own)
        trained = np.array([p in few for p in public] + [True] * own)
        return Trial(prompts, windows_of([p.text for p in prompts]), judged, trained)

    def where(self, source: str) -> npt.NDArray[np.bool_]:
        """Return which prompts leave with a source."""
        return np.array([group(p.source) == group(source) for p in self.prompts])

    def without(self, *sources: str) -> PromptScorer:
        """Train on everything but these sources."""
        chosen = self.trained.copy()
        for source in sources:
            chosen &= ~self.where(source)
        return fitted(self.windows, np.array([p.malicious for p in self.prompts]), chosen)

    def scores(self, scorer: PromptScorer, source: str) -> Scores:
        """Score the judged prompts of exactly this source."""
        texts = [p.text for p, judged in zip(self.prompts, self.judged, strict=True) if judged and p.source == source]
        return scorer.of_column(pa.array(texts, pa.string()))


def sources(prompts: Sequence[Prompt], malicious: bool) -> list[str]:
    """Return the public sources of malicious or of benign prompts."""
    return sorted({p.source for p in prompts if p.malicious == malicious and not p.source.startswith("own: ")})


def leave_one_out(trial: Trial) -> dict[str, dict[str, Cell]]:
    """Return a cell for every malicious and every benign source."""
    table: dict[str, dict[str, Cell]] = {}
    for bad in sources(trial.prompts, True):
        table[bad] = {}
        scorers: dict[str, PromptScorer] = {}
        for good in sources(trial.prompts, False):
            if group(good) not in scorers:
                scorers[group(good)] = trial.without(bad, good)
            scorer = scorers[group(good)]
            malicious, benign = trial.scores(scorer, bad), trial.scores(scorer, good)
            table[bad][good] = Cell(auc(malicious, benign), recall(malicious, benign))
    return table


def overall(row: dict[str, Cell]) -> float:
    """Return the AUC against all benign prompts: each pair as the model that saw neither source ranks it."""
    counts = np.array([cell.recall.benign for cell in row.values()])
    return float(np.average([cell.auc for cell in row.values()], weights=counts))


def unseen_attacks(scorer: PromptScorer, benign: Scores) -> dict[str, tuple[float, Recall, dict[str, float]]]:
    """Return AUC, recall and recall by family for attacks of families that no training draws from."""
    found: dict[str, tuple[float, Recall, dict[str, float]]] = {}
    for kind in MALICIOUS:
        drawn = samples(np.random.default_rng([SEED, 1]), kind, UNSEEN, EACH)
        scores = scorer.of_column(pa.array([sample.text for sample in drawn]))
        caught = scores > threshold(benign)
        family = np.array([sample.family for sample in drawn])
        by_family = {name: float(caught[family == name].mean()) for name in families(kind, UNSEEN)}
        found[kind] = (auc(scores, benign), recall(scores, benign), by_family)
    return found


def unseen_harmless(trial: Trial, source: str) -> dict[str, float]:
    """Return, for each family of harmless prompts, the share above the threshold of a model that saw neither it
    nor `source`.
    """
    found: dict[str, float] = {}
    for third in EVERY:
        left = families("benign", (third,))
        scorer = trial.without(source, *(f"own: {name}" for name in left))
        limit = threshold(trial.scores(scorer, source))
        drawn = samples(np.random.default_rng([SEED, 2]), "benign", (third,), EACH * 2)
        over = scorer.of_column(pa.array([sample.text for sample in drawn])) > limit
        family = np.array([sample.family for sample in drawn])
        found |= {name: float(over[family == name].mean()) for name in left}
    return found


def diluted(scorer: PromptScorer, benign: Scores, lengths: Sequence[int]) -> dict[int, tuple[float, float]]:
    """Return, for harmless documents of so many characters, the share above the threshold with and without an attack inside.

    The attack is an unseen extraction in the middle. The documents are of the kind that training knows.
    """
    rng = np.random.default_rng([SEED, 3])
    drawn = [sample.text for sample in samples(rng, "system_prompt_extraction", UNSEEN, 300)]
    limit = threshold(benign)

    def over(texts: Sequence[str], length: int) -> float:
        inside = [padded(rng, text, length // 2, length // 2) for text in texts]
        return float((scorer.of_column(pa.array(inside)) > limit).mean())

    return {length: (over(drawn, length), over([""] * len(drawn), length)) for length in lengths}


def shipped_on_unseen(trial: Trial) -> dict[str, Cell]:
    """Return the figures of the shipped weights on malicious sources that they were not trained on, against such
    benign ones.
    """
    scorer = shipped()
    (good,) = (source for source in sources(trial.prompts, False) if source not in SHIPPABLE)
    benign = trial.scores(scorer, good)
    bad = [source for source in sources(trial.prompts, True) if source not in SHIPPABLE]
    return {source: Cell(auc(found := trial.scores(scorer, source), benign), recall(found, benign)) for source in bad}


def main() -> None:
    """Print every table."""
    parser = argparse.ArgumentParser(description="the prompt score on sources and families it was not trained on")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with malicious.jsonl.gz and benign.jsonl.gz")
    parser.add_argument("--half", choices=("report", "selection"), default="report")
    parser.add_argument("--worst", type=int, default=0, help="also print the worst prompts of the half `selection`")
    options = parser.parse_args()
    trial = Trial.of(options.data, options.half)
    table = leave_one_out(trial)
    print(f"leave one source out, half {options.half}: AUC, recall at 1 % false positives [95 %]\n")
    for bad, row in table.items():
        count = next(iter(row.values())).recall.malicious
        print(f"{bad} ({count}): AUC against all {overall(row):.3f}")
        for good, cell in row.items():
            print(f"    {good:34} ({cell.recall.benign:5}) {cell.auc:.3f}  {cell.recall}")
    source = "alpaca_eval"
    scorer = trial.without(source)
    benign = trial.scores(scorer, source)
    print(f"\nattacks of unseen families against {source}: AUC, recall at 1 %, by family")
    for kind, (area, found, by_family) in unseen_attacks(scorer, benign).items():
        print(f"    {kind:26} {area:.3f}  {found}  {', '.join(f'{n} {v:.2f}' for n, v in by_family.items())}")
    print("\nunseen extraction in the middle of a harmless document, and the document alone, by characters")
    for length, (caught, false) in diluted(scorer, benign, (0, 500, 2000, 8000)).items():
        print(f"    {length:5} {caught:.3f}  {false:.3f}")
    print(f"\nharmless families left out, share above the 1 % threshold of {source}")
    for name, share in unseen_harmless(trial, source).items():
        print(f"    {name:20} {share:.3f}")
    print("\nshipped weights on sources they were not trained on")
    for bad, cell in shipped_on_unseen(trial).items():
        print(
            f"    {bad:34} AUC {cell.auc:.3f}, recall at 1 % {cell.recall} "
            f"({cell.recall.malicious}:{cell.recall.benign})"
        )
    if options.worst:
        _print_worst(Trial.of(options.data, "selection"), options.worst)


def _print_worst(trial: Trial, count: int) -> None:
    """Print the harmless prompts with the highest and the malicious with the lowest scores, of models that had not
    seen them.
    """
    for source in sources(trial.prompts, False) + sources(trial.prompts, True):
        scores = trial.scores(trial.without(source), source)
        of = [p for p, judged in zip(trial.prompts, trial.judged, strict=True) if judged and p.source == source]
        order = np.argsort(-scores if not of[0].malicious else scores)[:count]
        print(f"\n## {source}")
        for i in order:
            print(f"{scores[i]:6.2f}  {of[i].text[:160]!r}")


if __name__ == "__main__":
    main()
