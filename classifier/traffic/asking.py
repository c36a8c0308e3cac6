"""What attacks on a model itself have in common: prompts of one purpose, asked by accounts that do little else.

A family gives the prompts and says which models they go to; the flows around them are the same for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from classifier.traffic import hiding, hostile_prompts
from classifier.traffic.campaigns import shares
from classifier.traffic.family import AttackFamily, Change, Effort
from classifier.traffic.flow import Act, Flow, Scene, acts
from classifier.traffic.mimicry import asking, with_models, with_prompts

Words = Callable[[int], list[str]]
"""Gives n prompts of a campaign's purpose."""
Models = Callable[[int], list[str]] | None
"""Gives the models that n requests go to, in turn; None for one model each account."""


def wordings(family: AttackFamily, rng: np.random.Generator, known: list[hostile_prompts.Template]) -> Words:
    """Return what words prompts in some of the kinds that are `known`: as many as the family's parameter `kinds` says."""
    kinds = [known[i] for i in rng.choice(len(known), int(family.draw(rng, "kinds")), replace=False)]
    return lambda n: hostile_prompts.worded(rng, kinds, n)


def asked(
    family: AttackFamily, scene: Scene, effort: Effort, rng: np.random.Generator, words: Words, models: Models
) -> Iterator[Flow]:
    """Write the accounts of a plain or evasive campaign; evasive ones ask ordinary things in between.

    The family's parameters are pace_s (between prompts), pace_s_evasive and covered (share of ordinary prompts).
    """
    tool = scene.software(rng, "tool")
    hosts = scene.addresses(rng, max(1, effort.clients // 3), "datacenter" if rng.random() < 0.5 else "vpn")
    for i, n in enumerate(shares(rng, effort.clients, effort.requests, 6.0, least=5)):
        texts, names = words(n), None if models is None else models(n)
        runs = hiding.borrowed_software(scene, rng, 0.4) if family.evasive else tool
        if family.evasive:
            texts = hiding.covered(rng, texts, family.draw(rng, "covered"))
            times = np.sort(hiding.human_hours(scene, effort, n, rng, family.draw(rng, "pace_s_evasive")))
        else:
            rate, variation = 1.0 / family.draw(rng, "pace_s"), float(rng.uniform(0.1, 0.8))
            times = hiding.in_one_go(effort, n, rate, variation, rng)
        yield Flow(
            family=family.name,
            malicious=True,
            times=times,
            acts=acts(Act.CHAT, n),
            address=hiding.rotating(scene, rng, n, 1 + int(rng.random() < 0.4))
            if family.evasive
            else hosts[i % len(hosts)],
            software=runs,
            account=hiding.bought_account(scene, rng, 33.0 if family.evasive else 5.0),
            appetite="ordinary" if family.evasive else "tiny",
            prompts=texts,
            model=names,
            stream=runs.kind == "browser",
            limit=60,
            retries=1,
            referers="site" if runs.kind == "browser" else "none",
        )


def models_of(family: AttackFamily, scene: Scene, rng: np.random.Generator) -> Callable[[int], list[str]]:
    """Return what gives the models that an account asks: all in turn when plain, else one or two of them."""

    def models(n: int) -> list[str]:
        if not family.evasive:
            return scene.models(rng, n)
        few = scene.models(rng, 1 if rng.random() < 0.6 else 2)
        return [few[i] for i in rng.integers(0, len(few), n).tolist()]

    return models


def asked_instead(family: AttackFamily, rng: np.random.Generator, words: Words, models: Models) -> Change:
    """Return what puts the campaign's prompts in the place of some of a replayed client's (parameter `replaced`)."""

    def change(flow: Flow) -> Flow:
        rows = asking(flow)
        rows = rows[rng.random(len(rows)) < family.draw(rng, "replaced")]
        changed = with_prompts(flow, rows, words(len(rows)))
        return changed if models is None else with_models(changed, rows, models(len(rows)))

    return change
