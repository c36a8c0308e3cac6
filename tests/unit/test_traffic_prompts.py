"""Prompts of attacks on a model: varied, labelled, and with a part that stays unseen in training."""

from __future__ import annotations

from collections import Counter

import numpy as np

from classifier.traffic import prompts
from classifier.traffic.hostile_prompts import BENIGN, EXTRACTION, TEMPLATES, families, samples, worded


def test_a_third_of_the_extraction_families_is_held_out() -> None:
    extraction = families(EXTRACTION)
    assert 3 * len(families(EXTRACTION, held_out=True)) == len(extraction)
    assert len({template.name for template in TEMPLATES}) == len(TEMPLATES)


def test_samples_are_labelled_and_the_same_each_time() -> None:
    found = list(samples(30, seed=1))
    assert found == list(samples(30, seed=1))
    assert found != list(samples(30, seed=2))
    labels = Counter(sample.label for sample in found)
    assert set(labels) == {template.label for template in TEMPLATES} | {BENIGN}
    assert min(labels[label] for label in ("jailbreak", EXTRACTION, BENIGN)) > 60
    assert {sample.source for sample in found} >= {f"template:{template.name}" for template in TEMPLATES}


def test_held_out_families_are_in_no_other_sample() -> None:
    unseen = {sample.source for sample in samples(20, held_out=True)}
    seen = {sample.source for sample in samples(20, held_out=False)}
    assert unseen
    assert not unseen & seen
    assert unseen | seen == {sample.source for sample in samples(20)}


def test_every_choice_and_slot_is_filled() -> None:
    rng = np.random.default_rng(0)
    for template in TEMPLATES:
        for text in worded(rng, [template], 60):
            assert not set("[]{}") & set(text), text
            assert "  " not in text
            assert len(text) > 1


def test_hardly_two_people_word_a_thing_alike() -> None:
    rng = np.random.default_rng(0)
    for pool in ("ask", "security"):
        assert len(set(prompts.wordings(rng, pool, 2000))) > 1500


def test_a_program_fills_few_templates() -> None:
    texts = prompts.settled(np.random.default_rng(0), "job", 90, 3)
    assert len(texts) == 90
    assert len({text[:5] for text in texts}) <= 3
