"""Scraping of the site's pages, by crawlers that say so and by crawlers that do not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from classifier.traffic import hiding, prompts
from classifier.traffic.campaigns import shares
from classifier.traffic.family import AttackFamily, Effort, Parameters
from classifier.traffic.flow import PAGES, Act, Flow, Scene, mixed_acts

READING = {Act.DOCS: 0.5, Act.HOME: 0.2, Act.ASSET: 0.19, Act.LOGIN_PAGE: 0.05, Act.LOGIN: 0.06}
STRAIGHT = {Act.DOCS: 0.85, Act.HOME: 0.13, Act.PROBE: 0.02}


class WebScraping(AttackFamily):
    """Crawlers that take every page: under a known name and without manners, or under a browser's name."""

    name = "web_scraping"
    source = (
        "AI crawlers that ignore robots.txt or hide what they are, complaints of site operators (as commonly described)"
    )
    hides = "a browser's headers, assets with the pages, log-ins, a chat now and then, home lines, visits like readers'"
    needs = "pages"
    parameters: ClassVar[Parameters] = {
        "gap_s": (0.2, 4.0),
        "declared": 0.5,
        "pace_s_evasive": (8.0, 45.0),
        "visit": (6, 30),
    }
    share_of_clients = 0.05
    share_of_requests = 0.04
    lasts = (0.3, 1.0)
    replays = PAGES
    in_web = True

    def flows(self, scene: Scene, effort: Effort, rng: np.random.Generator) -> Iterator[Flow]:
        """Each crawler takes its part of the pages in order."""
        declared = rng.random() < self.draw(rng, "declared")
        crawler = scene.software(rng, "crawler" if declared else "tool")
        for n in shares(rng, effort.clients, effort.requests, 6.0, least=6):
            chatty = self.evasive and rng.random() < 0.4
            mix = {**READING, Act.CHAT: 0.06 if chatty else 0.0} if self.evasive else STRAIGHT
            if self.evasive:
                pace, visit = self.draw(rng, "pace_s_evasive"), round(self.draw(rng, "visit"))
                times = np.sort(hiding.human_hours(scene, effort, n, rng, pace, visit))
            else:
                rate = 1.0 / self.draw(rng, "gap_s")
                times = hiding.in_one_go(effort, n, rate, float(rng.uniform(0.1, 1.0)), rng)
            yield Flow(
                family=self.name,
                malicious=True,
                times=times,
                acts=mixed_acts(rng, n, mix),
                address=hiding.rotating(scene, rng, n, 1 + n // 20, 20.0) if self.evasive
                else scene.addresses(rng, 1, "datacenter")[0],
                software=scene.software(rng, "browser") if self.evasive else crawler,
                limit=600,
                credential=[rng.bytes(8).hex()] * n,
                success=0.9,
                account=hiding.bought_account(scene, rng) if chatty else None,
                prompts=prompts.wordings(rng, "ask", n),
                referers="site" if self.evasive else "none",
                systematic=not self.evasive or rng.random() < 0.5,
            )  # fmt: skip
