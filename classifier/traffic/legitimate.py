"""Legitimate clients of an inference service, by kind. Most of them are programs, and the heaviest are honest.

`KINDS` is the one table of kinds: how many of the clients are of a kind, and the function that writes their flows.
A kind's name becomes the `family` of its events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from classifier.traffic import pacing, prompts, software, tenants
from classifier.traffic.flow import Account, Act, Flow, acts, mixed_acts, usual_cap
from classifier.traffic.pacing import F64
from classifier.traffic.service import MODELS, Service
from classifier.traffic.software import Software

HEAVIEST = 2.0
"""Mean rate in requests/s above which a ServeGen tenant is too large for the service simulated here."""
HEAVY = 0.25
"""Mean rate in requests/s from which a tenant is called heavy."""
DAY = 86_400.0


@dataclass(frozen=True)
class Place:
    """Where legitimate clients are: the service, and the addresses that several of them share."""

    service: Service
    offices: tuple[str, ...]
    exits: tuple[str, ...]
    surge: float
    """A moment at which the service is talked about, s: newcomers and visitors come in a wave."""

    @property
    def span(self) -> float:
        """Length of the traffic, s."""
        return self.service.span


def settle(service: Service, rng: np.random.Generator, clients: int) -> Place:
    """Draw the shared addresses (offices, universities, VPN exits) and the moment of the surge."""
    offices = service.space.draw(rng, max(2, clients // 60), "home")
    exits = service.space.draw(rng, max(2, clients // 120), "vpn")
    return Place(service, tuple(offices), tuple(exits), float(service.moments(rng, 1, 0, service.span)[0]))


def _old_account(place: Place, rng: np.random.Generator) -> Account:
    """Make an account of any age: a few hours to some years."""
    return place.service.account(rng, -float(min(rng.lognormal(4.2, 1.7), 1400.0)) * DAY)


def _seat(place: Place, rng: np.random.Generator) -> list[str]:
    """Draw the addresses of a person: an office's, a VPN exit, a line at home, or a phone that changes cells."""
    luck = rng.random()
    if luck < 0.28:
        return [place.offices[int(rng.integers(len(place.offices)))]]
    if luck < 0.36:
        return [place.exits[int(rng.integers(len(place.exits)))]]
    if luck < 0.50:
        return place.service.space.draw(rng, int(rng.integers(2, 6)), "mobile")
    return place.service.space.draw(rng, 1, "home")


def _each_of(rng: np.random.Generator, values: list[str], n: int, run: float = 12.0) -> list[str]:
    """Assign n requests to addresses in stretches of about `run` requests."""
    stretch = np.cumsum(rng.random(n) < 1.0 / run)
    return [values[int(i) % len(values)] for i in stretch]


def _cap(rng: np.random.Generator, n: int, given: F64) -> F64 | None:
    """Draw how `max_tokens` is set: as usual, or near what is needed."""
    if rng.random() < 0.85:
        return usual_cap(rng, n)
    return np.where(rng.random(n) < 0.5, np.nan, np.rint(given * rng.uniform(1.1, 3.0, n)) + 16)


def _model(rng: np.random.Generator) -> str:
    return str(rng.choice(list(MODELS), p=(0.3, 0.35, 0.25, 0.1)))


def _words(rng: np.random.Generator, n: int, center: float, sigma: float = 0.8) -> F64:
    return np.rint(rng.lognormal(np.log(center), sigma, n)) + 1


def _conversations(rng: np.random.Generator, starts: F64, turns: float, think: float) -> tuple[F64, F64]:
    """Return times and input tokens of chats: think times are log-normal, and the context grows turn by turn."""
    times, asked = [], []
    for start in starts:
        n = 1 + int(rng.geometric(1.0 / turns))
        times.append(pacing.walk(rng, n, float(start), think))
        asked.append(np.cumsum(_words(rng, n, 160.0)))
    return (np.concatenate(times), np.concatenate(asked)) if times else (np.empty(0), np.empty(0))


def person(place: Place, rng: np.random.Generator) -> Iterator[Flow]:
    """A person in the web chat: sessions, think times, now and then a mistyped password."""
    seat, browser = _seat(place, rng), software.pick(rng, software.BROWSERS)
    account, one = _old_account(place, rng), _model(rng)
    starts = place.service.moments(rng, 1 + int(rng.poisson(place.span / 9_000)), 0, place.span)
    times, asked = _conversations(rng, starts, 9.0, float(rng.uniform(18, 70)))
    n = len(times)
    yield Flow(
        family="person", malicious=False, times=times, acts=mixed_acts(rng, n, {Act.CHAT: 0.96, Act.MODELS: 0.04}),
        address=_each_of(rng, seat, n), software=browser, account=account, input_tokens=asked,
        output_tokens=_words(rng, n, 260.0), prompts=prompts.wordings(rng, "ask", n), model=one, stream=True,
        referers="site", limit=60,
    )  # fmt: skip
    yield from _arrivals_at_site(rng, "person", starts, seat, browser)


def _arrivals_at_site(
    rng: np.random.Generator, kind: str, starts: F64, seat: list[str], browser: Software
) -> Iterator[Flow]:
    """Pages and logins before a session: the start page, its assets, a login if the last one has expired."""
    times: list[float] = []
    done: list[Act] = []
    for start in starts[rng.random(len(starts)) < 0.7]:
        steps = [Act.HOME, *[Act.ASSET] * int(rng.integers(0, 4)), Act.LOGIN_PAGE]
        steps += [Act.LOGIN] * int(rng.geometric(0.85))
        quick = rng.uniform(0.02, 0.4, len(steps))
        waits = np.where(np.array(steps) == Act.ASSET, quick, rng.lognormal(1.6, 0.7, len(steps)))
        times.extend(start - np.cumsum(waits)[::-1] - 1.0)
        done.extend(steps)
    n = len(times)
    if n:
        yield Flow(
            family=kind, malicious=False, times=np.array(times), acts=np.array(done, np.int8), software=browser,
            address=[seat[0]] * n, referers="site", success=0.88,
        )  # fmt: skip


def ide_assistant(place: Place, rng: np.random.Generator) -> Iterator[Flow]:
    """A code assistant: completions at the pace of typing, some chat, many small answers."""
    starts = place.service.moments(rng, 1 + int(rng.poisson(place.span / 10_000)), 0, place.span)
    parts = [pacing.walk(rng, int(rng.lognormal(5.0, 0.7)) + 5, float(s), rng.uniform(3, 9), 1.2) for s in starts]
    times = np.concatenate(parts)
    n = len(times)
    given = _words(rng, n, 40.0)
    yield Flow(
        family="ide_assistant", malicious=False, times=times, address=_each_of(rng, _seat(place, rng), n, 80.0),
        acts=mixed_acts(rng, n, {Act.COMPLETION: 0.8, Act.CHAT: 0.2}), software=software.pick(rng, software.IDES),
        account=_old_account(place, rng), input_tokens=_words(rng, n, 900.0), output_tokens=given, stream=True,
        max_tokens=np.full(n, 256.0), prompts=prompts.wordings(rng, "code", n), model="coder-14b", retries=1,
    )  # fmt: skip


def sdk_batch(place: Place, rng: np.random.Generator) -> Iterator[Flow]:
    """A batch job on an SDK: one template over many records, heavy and regular. Hard, and honest."""
    n = int(min(rng.lognormal(6.9, 0.9), 8_000) * min(place.span / 21_600, 4.0) ** 0.5) + 20
    rate = float(rng.lognormal(0.0, 0.8))
    length = min(n / rate, 0.9 * place.span)
    start = float(place.service.moments(rng, 1, 0, max(place.span - length, 1.0))[0])
    like = _tenant(rng)
    asked, given = like.input_tokens(rng, n), like.output_tokens(rng, n)
    kind = Act.EMBEDDING if rng.random() < 0.3 else Act.CHAT if rng.random() < 0.8 else Act.COMPLETION
    yield Flow(
        family="sdk_batch", malicious=False, times=pacing.renewal(rng, n, start, length, float(rng.uniform(0.04, 0.6))),
        acts=acts(kind, n), address=place.service.space.draw(rng, 1, "datacenter" if rng.random() < 0.7 else "home")[0],
        software=software.pick(rng, software.SDKS), account=_old_account(place, rng), input_tokens=asked,
        output_tokens=given, max_tokens=_cap(rng, n, given), model=_model(rng), retries=int(rng.integers(0, 4)),
        prompts=prompts.fill(rng, prompts.fixed_template(rng, "job"), n), limit=float(rng.choice((60, 300, 600))),
    )  # fmt: skip


def _tenant(rng: np.random.Generator) -> tenants.Tenant:
    pool = [t for t in tenants.tenants() if t.rate_mean <= HEAVIEST]
    return pool[int(rng.integers(len(pool)))]


def tenant(place: Place, rng: np.random.Generator) -> Iterator[Flow]:
    """An application on the API, with arrivals and token lengths of one production tenant of ServeGen."""
    like = _tenant(rng)
    times = like.arrivals(rng, place.span, cap=25_000)
    n = len(times)
    asked, given = like.input_tokens(rng, n), like.output_tokens(rng, n)
    regions = place.service.space.draw(rng, 1 + int(rng.geometric(0.45)), "datacenter")
    templated = rng.random() < 0.75
    text = prompts.fill(rng, prompts.fixed_template(rng, "job"), n) if templated else prompts.wordings(rng, "ask", n)
    yield Flow(
        family="tenant_heavy" if like.rate_mean >= HEAVY else "tenant", malicious=False, times=times,
        acts=acts(Act.CHAT, n), address=_each_of(rng, regions, n, 2.0), software=software.pick(rng, software.SDKS),
        account=_old_account(place, rng), input_tokens=asked, output_tokens=given, max_tokens=_cap(rng, n, given),
        prompts=text, model=_model(rng), stream=bool(rng.random() < 0.4), retries=2, limit=6_000,
    )  # fmt: skip


def agent(place: Place, rng: np.random.Generator) -> Iterator[Flow]:
    """An agent: bursts of calls, each as soon as the last tool has answered, with a context that grows."""
    starts = place.service.moments(rng, 2 + int(rng.poisson(place.span / 2_400)), 0, place.span)
    times, asked = [], []
    for start in starts:
        n = 2 + int(rng.geometric(1 / 14))
        times.append(pacing.walk(rng, n, float(start), rng.uniform(0.8, 6.0), 0.7))
        asked.append(800 + np.cumsum(_words(rng, n, 220.0)))
    at = np.concatenate(times)
    n = len(at)
    yield Flow(
        family="agent", malicious=False, times=at, acts=acts(Act.CHAT, n), software=software.pick(rng, software.AGENTS),
        address=place.service.space.draw(rng, 1, "datacenter" if rng.random() < 0.5 else "home")[0],
        account=_old_account(place, rng), input_tokens=np.concatenate(asked), output_tokens=_words(rng, n, 120.0),
        prompts=prompts.wordings(rng, "step", n), model=_model(rng), retries=2,
    )  # fmt: skip


def ci_job(place: Place, rng: np.random.Generator) -> Iterator[Flow]:
    """Tests of a build server: a short burst after each push or on the hour, from changing addresses."""
    period = float(rng.choice((900, 1800, 3600, 7200)))
    ticks = pacing.timer(rng, float(rng.uniform(0, period)), place.span, period, float(rng.choice((0.002, 0.5))))
    runs = [pacing.renewal(rng, int(rng.integers(5, 60)), float(t), float(rng.uniform(20, 240)), 0.7) for t in ticks]
    times = np.concatenate(runs) if runs else np.empty(0)
    n = len(times)
    hosts = place.service.space.draw(rng, int(rng.integers(1, 9)), "datacenter")
    yield Flow(
        family="ci_job", malicious=False, times=times, acts=mixed_acts(rng, n, {Act.CHAT: 0.9, Act.MODELS: 0.1}),
        address=_each_of(rng, hosts, n, 30.0), software=software.pick(rng, software.SDKS),
        account=_old_account(place, rng), appetite="tiny", max_tokens=np.full(n, 16.0), model="small-8b", retries=1,
        prompts=prompts.fill(rng, prompts.fixed_template(rng, "probe"), n),
    )  # fmt: skip


def team(place: Place, rng: np.random.Generator) -> Iterator[Flow]:
    """Developers who share one account: several addresses and libraries, each at its own pace."""
    account = _old_account(place, rng)
    for _ in range(int(rng.integers(3, 12))):
        starts = place.service.moments(rng, 1 + int(rng.poisson(place.span / 12_000)), 0, place.span)
        times = np.concatenate([pacing.walk(rng, 2 + int(rng.geometric(1 / 12)), float(s), 25.0, 1.3) for s in starts])
        n = len(times)
        yield Flow(
            family="team", malicious=False, times=times, acts=mixed_acts(rng, n, {Act.CHAT: 0.93, Act.MODELS: 0.07}),
            address=_seat(place, rng)[0], software=software.pick(rng, software.SDKS), account=account,
            input_tokens=_words(rng, n, 300.0), output_tokens=_words(rng, n, 180.0), model=_model(rng), retries=2,
            prompts=prompts.wordings(rng, "ask", n),
        )  # fmt: skip


def _first_visit(place: Place, rng: np.random.Generator, in_wave: float) -> float:
    """Draw when somebody new arrives, s: with probability `in_wave` in the surge, else as the day goes."""
    if rng.random() < in_wave:
        return place.surge + float(rng.exponential(1_500))
    return float(place.service.moments(rng, 1, 0, place.span)[0])


def newcomer(place: Place, rng: np.random.Generator) -> Iterator[Flow]:
    """Somebody new: reads, signs up, tries the API with trivial prompts and gets things wrong at first."""
    seat, browser = _seat(place, rng), software.pick(rng, software.BROWSERS)
    start = _first_visit(place, rng, 0.5)
    steps = [Act.HOME, Act.ASSET, *[Act.DOCS] * int(rng.integers(0, 5)), Act.SIGNUP_PAGE]
    steps += [Act.SIGNUP] * (1 + int(rng.random() < 0.15))
    before = pacing.walk(rng, len(steps), start, 14.0)
    yield Flow(
        family="newcomer", malicious=False, times=before, acts=np.array(steps, np.int8), software=browser,
        address=seat[0], success=0.85, referers="site",
    )  # fmt: skip
    made = float(before[-1])
    n = 3 + int(rng.geometric(1 / 20))
    times = pacing.walk(rng, n, made + float(rng.lognormal(3.6, 0.9)), 30.0, 1.2)
    runs = browser if rng.random() < 0.5 else software.pick(rng, software.SDKS)
    trivial = prompts.wordings(rng, "probe", n)
    words = prompts.wordings(rng, "ask", n)
    text = [t if rng_value < 0.35 else w for t, w, rng_value in zip(trivial, words, rng.random(n), strict=True)]
    yield Flow(
        family="newcomer", malicious=False, times=times, acts=mixed_acts(rng, n, {Act.CHAT: 0.85, Act.MODELS: 0.15}),
        address=seat[0], software=runs, account=place.service.account(rng, made), input_tokens=_words(rng, n, 60.0),
        output_tokens=_words(rng, n, 150.0), prompts=text, model=_model(rng), limit=20,
        referers="site" if runs is browser else "none",
    )  # fmt: skip


def visitor(place: Place, rng: np.random.Generator) -> Iterator[Flow]:
    """Somebody who reads the documentation in a browser, without an account."""
    start = _first_visit(place, rng, 0.3)
    pages = 1 + int(rng.geometric(0.18))
    opened = pacing.walk(rng, pages, start, 35.0, 1.1)
    assets = np.concatenate([t + rng.uniform(0.05, 0.9, int(rng.integers(0, 5))) for t in opened])
    kinds = np.concatenate((mixed_acts(rng, pages, {Act.DOCS: 0.75, Act.HOME: 0.25}), acts(Act.ASSET, len(assets))))
    yield Flow(
        family="visitor", malicious=False, times=np.concatenate((opened, assets)), acts=kinds,
        address=_seat(place, rng)[0], software=software.pick(rng, software.BROWSERS), referers="site",
    )  # fmt: skip


def monitor(place: Place, rng: np.random.Generator) -> Iterator[Flow]:
    """A health check: the same request on a timer."""
    times = pacing.timer(rng, float(rng.uniform(0, 60)), place.span, float(rng.choice((15, 30, 60, 120))), 0.004)
    yield Flow(
        family="monitor", malicious=False, times=times, acts=acts(Act.HEALTH, len(times)),
        address=place.service.space.draw(rng, 1, "datacenter")[0], software=software.pick(rng, software.MONITORS),
    )  # fmt: skip


def crawler(place: Place, rng: np.random.Generator) -> Iterator[Flow]:
    """A crawler that says so, on the public pages."""
    n = int(rng.integers(30, 250))
    times = pacing.renewal(rng, n, 0, place.span, float(rng.uniform(0.3, 2.5)))
    hosts = place.service.space.draw(rng, int(rng.integers(1, 5)), "datacenter")
    yield Flow(
        family="crawler", malicious=False, times=times, acts=mixed_acts(rng, n, {Act.DOCS: 0.8, Act.HOME: 0.2}),
        address=_each_of(rng, hosts, n, 5.0), software=software.pick(rng, software.CRAWLERS),
    )  # fmt: skip


def expired_key(place: Place, rng: np.random.Generator) -> Iterator[Flow]:
    """A forgotten job whose key has expired: the same 401 for hours. Hard, and honest."""
    period = float(rng.choice((10, 30, 60, 300)))
    start = float(rng.uniform(0, 0.7 * place.span))
    times = pacing.timer(rng, start, place.span, period, float(rng.uniform(0.01, 0.6)))[:1500]
    n = len(times)
    like = _tenant(rng)
    yield Flow(
        family="expired_key", malicious=False, times=times, acts=acts(Act.CHAT, n), success=0.0,
        address=place.service.space.draw(rng, 1, "datacenter" if rng.random() < 0.6 else "home")[0],
        software=software.pick(rng, software.SDKS), credential=[rng.bytes(8).hex()] * n, model=_model(rng),
        input_tokens=like.input_tokens(rng, n), output_tokens=np.zeros(n),
        prompts=prompts.fill(rng, prompts.fixed_template(rng, "job"), n),
    )  # fmt: skip


class Kind(NamedTuple):
    """A kind of legitimate client: its share of the clients, and what writes the flows of one of them."""

    share: float
    write: Callable[[Place, np.random.Generator], Iterator[Flow]]


KINDS = {
    "person": Kind(0.42, person),
    "ide_assistant": Kind(0.08, ide_assistant),
    "sdk_batch": Kind(0.045, sdk_batch),
    "tenant": Kind(0.06, tenant),
    "agent": Kind(0.06, agent),
    "ci_job": Kind(0.04, ci_job),
    "team": Kind(0.02, team),
    "newcomer": Kind(0.10, newcomer),
    "visitor": Kind(0.11, visitor),
    "monitor": Kind(0.015, monitor),
    "crawler": Kind(0.015, crawler),
    "expired_key": Kind(0.035, expired_key),
}
FAMILIES = ("tenant_heavy", *KINDS)
"""Every `family` of legitimate events."""


def census(clients: int) -> list[str]:
    """Return the kind of each of `clients` clients: by share, with the largest remainders rounded up."""
    exact = {name: kind.share * clients for name, kind in KINDS.items()}
    counts = {name: int(x) for name, x in exact.items()}
    left = clients - sum(counts.values())
    for name in sorted(exact, key=lambda name: counts[name] - exact[name])[:left]:
        counts[name] += 1
    return [name for name, n in counts.items() for _ in range(n)]
