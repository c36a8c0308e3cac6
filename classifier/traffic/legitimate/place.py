"""Where legitimate clients are: the service, the addresses that several of them share, and what they have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from classifier.traffic import tenants
from classifier.traffic.flow import Account, Flow, usual_cap
from classifier.traffic.pacing import F64
from classifier.traffic.service import MODELS, Service

DAY = 86_400.0
HOUR = 3600.0
HEAVIEST = 2.0
"""Mean rate in requests/s above which a ServeGen tenant is too large for the service simulated here."""


@dataclass(frozen=True)
class Place:
    """Where legitimate clients are: the service, and the addresses that several of them share."""

    service: Service
    offices: tuple[str, ...]
    exits: tuple[str, ...]
    surge: float
    """A moment at which the service is talked about, s: newcomers and visitors come in a wave."""
    campuses: tuple[str, ...]
    """Universities: each with all its people behind one address."""
    carriers: tuple[str, ...]
    """Addresses that a mobile carrier shares among its customers."""
    corporate: tuple[str, ...]
    """Exits of company VPNs."""

    @property
    def span(self) -> float:
        """Length of the traffic, s."""
        return self.service.span


Writer = Callable[[Place, np.random.Generator], Iterator[Flow]]
"""Writes the flows of one client of a kind."""


def settle(service: Service, rng: np.random.Generator, clients: int) -> Place:
    """Draw the shared addresses and the moment of the surge."""
    offices = service.space.draw(rng, max(2, clients // 60), "home")
    exits = service.space.draw(rng, max(2, clients // 120), "vpn")
    surge = float(service.moments(rng, 1, 0, service.span)[0])
    campuses = service.space.draw(rng, max(1, clients // 2_000), "home")
    carriers = service.space.draw(rng, max(2, clients // 200), "mobile")
    corporate = service.space.draw(rng, max(2, clients // 300), "vpn")
    return Place(service, tuple(offices), tuple(exits), surge, tuple(campuses), tuple(carriers), tuple(corporate))


def old_account(place: Place, rng: np.random.Generator) -> Account:
    """Make an account of any age: a few hours to some years."""
    return place.service.account(rng, -float(min(rng.lognormal(4.2, 1.7), 1400.0)) * DAY)


def seat_of(place: Place, rng: np.random.Generator) -> list[str]:
    """Draw the addresses of a person: an office's, a VPN exit, a line at home, or a phone that changes cells."""
    luck = rng.random()
    if luck < 0.28:
        return [place.offices[int(rng.integers(len(place.offices)))]]
    if luck < 0.36:
        return [place.exits[int(rng.integers(len(place.exits)))]]
    if luck < 0.50:
        return place.service.space.draw(rng, int(rng.integers(2, 6)), "mobile")
    return place.service.space.draw(rng, 1, "home")


def each_of(rng: np.random.Generator, values: list[str], n: int, run: float = 12.0) -> list[str]:
    """Assign n requests to addresses in stretches of about `run` requests."""
    stretch = np.cumsum(rng.random(n) < 1.0 / run)
    return [values[int(i) % len(values)] for i in stretch]


def cap_near(rng: np.random.Generator, n: int, given: F64) -> F64 | None:
    """Draw how `max_tokens` is set: as usual, or near what is needed."""
    if rng.random() < 0.85:
        return usual_cap(rng, n)
    return np.where(rng.random(n) < 0.5, np.nan, np.rint(given * rng.uniform(1.1, 3.0, n)) + 16)


def model_of(rng: np.random.Generator) -> str:
    """Draw the model that a client uses."""
    return str(rng.choice(list(MODELS), p=(0.3, 0.35, 0.25, 0.1)))


def counts(rng: np.random.Generator, n: int, center: float, sigma: float = 0.8) -> F64:
    """Draw n log-normal whole numbers (tokens, mostly) of median `center`."""
    return np.rint(rng.lognormal(np.log(center), sigma, n)) + 1


def tenant_like(rng: np.random.Generator) -> tenants.Tenant:
    """Draw a production tenant that is not too large for the service."""
    pool = [t for t in tenants.tenants() if t.rate_mean <= HEAVIEST]
    return pool[int(rng.integers(len(pool)))]
