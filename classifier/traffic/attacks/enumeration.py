"""Enumeration: which endpoints answer, which models there are, tried with trivial prompts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import numpy as np

from classifier.traffic import hiding, hostile_prompts
from classifier.traffic.asking import models_of
from classifier.traffic.campaigns import shares
from classifier.traffic.family import AttackFamily, Change, Effort, Parameters
from classifier.traffic.flow import Act, Flow, Scene, mixed_acts
from classifier.traffic.mimicry import asking, with_models, with_prompts


class Enumeration(AttackFamily):
    """Paths and models tried one after the other with questions whose answer does not matter."""

    name = "enumeration"
    source = "endpoint enumeration with trivial prompts, reported by SANS and GreyNoise (read as quoted)"
    hides = "few probes among ordinary questions, accounts, SDK software, one or two models each, pauses of people"
    needs = "prompts and models"
    parameters: ClassVar[Parameters] = {
        "pace_s": (0.3, 6.0),
        "pace_s_evasive": (8.0, 45.0),
        "covered": (0.3, 0.6),
        "replaced": (0.2, 0.7),
        "probes_mimic": 0.02,
    }
    share_of_clients = 0.05
    share_of_requests = 0.03
    lasts = (0.1, 0.7)
    in_web = True

    def flows(self, scene: Scene, effort: Effort, rng: np.random.Generator) -> Iterator[Flow]:
        """Each address tries its part of the list; without an account most of it is refused."""
        tool = scene.software(rng, "tool")
        if self.evasive:
            mix = {
                Act.CHAT: 0.7,
                Act.MODELS: 0.08,
                Act.PROBE: 0.06,
                Act.COMPLETION: 0.08,
                Act.EMBEDDING: 0.03,
                Act.DOCS: 0.05,
            }
        else:
            mix = {Act.CHAT: 0.35, Act.MODELS: 0.15, Act.PROBE: 0.35, Act.COMPLETION: 0.1, Act.EMBEDDING: 0.05}
        trivial, models = hostile_prompts.families("enumeration"), models_of(self, scene, rng)
        for n in shares(rng, effort.clients, effort.requests, 6.0, least=5):
            owned = rng.random() < (0.95 if self.evasive else 0.3)
            text = hostile_prompts.worded(rng, trivial, n)
            if self.evasive:
                text = hiding.covered(rng, text, self.draw(rng, "covered"))
                times = hiding.human_hours(scene, effort, n, rng, self.draw(rng, "pace_s_evasive"))
            else:
                rate = 1.0 / self.draw(rng, "pace_s")
                times = hiding.in_one_go(effort, n, rate, float(rng.uniform(0.1, 0.8)), rng)
            yield Flow(
                family=self.name,
                malicious=True,
                times=times,
                acts=mixed_acts(rng, n, mix),
                address=hiding.rotating(scene, rng, n, 1 + int(rng.random() < 0.5))
                if self.evasive
                else scene.addresses(rng, 1, "datacenter")[0],
                software=hiding.borrowed_software(scene, rng, 0.2) if self.evasive else tool,
                account=hiding.bought_account(scene, rng, 10.0) if owned else None,
                credential=None if owned else [rng.bytes(8).hex() for _ in range(n)],
                success=0.0,
                appetite="ordinary" if self.evasive else "tiny",
                prompts=text,
                model=models(n),
                limit=60,
            )

    def purpose(self, scene: Scene, effort: Effort, rng: np.random.Generator) -> Change:
        """Ask trivial things of every model in the place of some prompts, and try a path now and then."""
        trivial, models = hostile_prompts.families("enumeration"), models_of(self, scene, rng)

        def change(flow: Flow) -> Flow:
            share = self.draw(rng, "replaced")
            rows = asking(flow)
            rows = rows[rng.random(len(rows)) < share]
            changed = with_prompts(flow, rows, hostile_prompts.worded(rng, trivial, len(rows)))
            changed = with_models(changed, rows, models(len(rows)))
            probes = self.draw(rng, "probes_mimic") * (5.0 if scene.web else 1.0)
            tried = rng.random(len(flow)) < probes
            return replace(changed, acts=np.where(tried, Act.PROBE, changed.acts).astype(np.int8))

        return change
