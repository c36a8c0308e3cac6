"""How evasive attackers hide: bought accounts, residential addresses that rotate, borrowed software, ordinary questions."""

from __future__ import annotations

import numpy as np

from classifier.traffic import pacing, prompts
from classifier.traffic.family import Effort
from classifier.traffic.flow import Account, Disguise, Scene
from classifier.traffic.pacing import F64
from classifier.traffic.software import Software

DAY = 86_400.0


def bought_account(scene: Scene, rng: np.random.Generator, days: float = 33.0) -> Account:
    """Make an account as old as bought ones are: about `days`, some of an hour and some of years."""
    return scene.account(rng, -float(min(rng.lognormal(np.log(days), 1.6), 1400.0)) * DAY)


def rotating(
    scene: Scene, rng: np.random.Generator, n: int, exits: int, stretch: float = 15.0, vpn: float = 0.0
) -> str | list[str]:
    """Send n requests from `exits` addresses in turn, about `stretch` of them from each; a share `vpn` of them VPN exits."""
    kinds = rng.choice(("vpn", "mobile", "home"), exits, p=(vpn, 0.2 * (1 - vpn), 0.8 * (1 - vpn)))
    found = [scene.addresses(rng, 1, kind)[0] for kind in kinds]
    if exits == 1:
        return found[0]
    return [found[i % exits] for i in np.cumsum(rng.random(n) < 1.0 / stretch).tolist()]


def borrowed_software(scene: Scene, rng: np.random.Generator, browser: float = 0.3) -> Software:
    """Pose as an API client or, with probability `browser` and always on a site of pages, as a browser."""
    disguise: Disguise = "browser" if scene.web or rng.random() < browser else "sdk"
    return scene.software(rng, disguise)


def covered(rng: np.random.Generator, texts: list[str], share: float) -> list[str]:
    """Put ordinary questions in the place of a share of the prompts."""
    others = prompts.wordings(rng, "ask", len(texts))
    return [
        other if hide else text for text, other, hide in zip(texts, others, rng.random(len(texts)) < share, strict=True)
    ]


def human_hours(scene: Scene, effort: Effort, n: int, rng: np.random.Generator, pace: float, each: int = 8) -> F64:
    """Spread n requests over sessions of about `each`, begun when others begin theirs, with pauses of about `pace` s."""
    begins = scene.moments(rng, max(1, n // each), effort.start, effort.end)
    return pacing.sessions(rng, n, begins, pace, float(rng.uniform(0.8, 1.2)))


def in_one_go(effort: Effort, n: int, rate: float, cv: float, rng: np.random.Generator) -> F64:
    """Send n requests at `rate` requests/s in one stretch within the campaign, their gaps of variation `cv`."""
    length = min(n / rate, effort.span)
    begin = effort.start + float(rng.uniform(0, 1)) * max(effort.span - length, 0.0)
    return pacing.renewal(rng, n, begin, length, cv)


def odd_hours(scene: Scene, effort: Effort, n: int, rng: np.random.Generator) -> F64:
    """Draw n moments of the campaign, the more likely the fewer others are active; sorted."""
    edges = np.linspace(effort.start, max(effort.end, effort.start + 1.0), 25)
    activity, _ = np.histogram(scene.moments(rng, 2_000, effort.start, effort.end), edges)
    rarity = np.asarray(1.0 / (activity + 20.0), np.float64)
    return pacing.Clock(edges, rarity).draw(rng, n, effort.start, effort.end)
