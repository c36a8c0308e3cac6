"""People: in the web chat, at the desk, on the phone, new or well known, curious or at work on security."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from classifier.traffic import hostile_prompts, pacing, prompts, software
from classifier.traffic.flow import Account, Act, Flow, acts, mixed_acts
from classifier.traffic.legitimate.place import (
    DAY,
    HOUR,
    Place,
    counts,
    each_of,
    model_of,
    old_account,
    seat_of,
)  # fmt: skip
from classifier.traffic.pacing import F64
from classifier.traffic.software import Software

Words = Callable[[np.random.Generator, int], list[str]]


def _ordinary(rng: np.random.Generator, n: int) -> list[str]:
    return prompts.wordings(rng, "ask", n)


def conversations(rng: np.random.Generator, starts: F64, turns: float, think: float) -> tuple[F64, F64]:
    """Return times and input tokens of chats: think times are log-normal, and the context grows turn by turn."""
    times, asked = [], []
    for start in starts:
        n = 1 + int(rng.geometric(1.0 / turns))
        times.append(pacing.walk(rng, n, float(start), think))
        asked.append(np.cumsum(counts(rng, n, 160.0)))
    return (np.concatenate(times), np.concatenate(asked)) if times else (np.empty(0), np.empty(0))


def person(place: Place, rng: np.random.Generator) -> Iterator[Flow]:
    """A person in the web chat: sessions, think times, now and then a mistyped password."""
    seat, browser = seat_of(place, rng), software.pick(rng, software.BROWSERS)
    account, one = old_account(place, rng), model_of(rng)
    starts = place.service.moments(rng, 1 + int(rng.poisson(place.span / 9_000)), 0, place.span)
    times, asked = conversations(rng, starts, 9.0, float(rng.uniform(18, 70)))
    n = len(times)
    yield Flow(
        family="person", malicious=False, times=times, acts=mixed_acts(rng, n, {Act.CHAT: 0.96, Act.MODELS: 0.04}),
        address=each_of(rng, seat, n), software=browser, account=account, input_tokens=asked,
        output_tokens=counts(rng, n, 260.0), prompts=prompts.wordings(rng, "ask", n), model=one, stream=True,
        referers="site", limit=60,
    )  # fmt: skip
    yield from arrivals_at_site(rng, "person", starts, seat, browser)


def arrivals_at_site(
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
            address=[seat[0]] * n, referers="site", success=0.88, credential=_passwords(rng, n),
        )  # fmt: skip


def _passwords(rng: np.random.Generator, n: int) -> list[str]:
    """Return the hashes of what one person types n times: the same password, now and then mistyped."""
    right = rng.bytes(8).hex()
    return [right if luck < 0.85 else rng.bytes(8).hex() for luck in rng.random(n).tolist()]


def ide_assistant(place: Place, rng: np.random.Generator) -> Iterator[Flow]:
    """A code assistant: completions at the pace of typing, some chat, many small answers."""
    starts = place.service.moments(rng, 1 + int(rng.poisson(place.span / 10_000)), 0, place.span)
    parts = [pacing.walk(rng, int(rng.lognormal(5.0, 0.7)) + 5, float(s), rng.uniform(3, 9), 1.2) for s in starts]
    times = np.concatenate(parts)
    n = len(times)
    given = counts(rng, n, 40.0)
    yield Flow(
        family="ide_assistant", malicious=False, times=times, address=each_of(rng, seat_of(place, rng), n, 80.0),
        acts=mixed_acts(rng, n, {Act.COMPLETION: 0.8, Act.CHAT: 0.2}), software=software.pick(rng, software.IDES),
        account=old_account(place, rng), input_tokens=counts(rng, n, 900.0), output_tokens=given, stream=True,
        max_tokens=np.full(n, 256.0), prompts=prompts.wordings(rng, "code", n), model="coder-14b", retries=1,
    )  # fmt: skip


def team(place: Place, rng: np.random.Generator) -> Iterator[Flow]:
    """Developers who share one account: several addresses and libraries, each at its own pace."""
    account = old_account(place, rng)
    for _ in range(int(rng.integers(3, 12))):
        starts = place.service.moments(rng, 1 + int(rng.poisson(place.span / 12_000)), 0, place.span)
        times = np.concatenate([pacing.walk(rng, 2 + int(rng.geometric(1 / 12)), float(s), 25.0, 1.3) for s in starts])
        n = len(times)
        yield Flow(
            family="team", malicious=False, times=times, acts=mixed_acts(rng, n, {Act.CHAT: 0.93, Act.MODELS: 0.07}),
            address=seat_of(place, rng)[0], software=software.pick(rng, software.SDKS), account=account,
            input_tokens=counts(rng, n, 300.0), output_tokens=counts(rng, n, 180.0), model=model_of(rng), retries=2,
            prompts=prompts.wordings(rng, "ask", n),
        )  # fmt: skip


def first_visit(place: Place, rng: np.random.Generator, in_wave: float) -> float:
    """Draw when somebody new arrives, s: with probability `in_wave` in the surge, else as the day goes."""
    if rng.random() < in_wave:
        return place.surge + float(rng.exponential(1_500))
    return float(place.service.moments(rng, 1, 0, place.span)[0])


def newcomer(place: Place, rng: np.random.Generator) -> Iterator[Flow]:
    """Somebody new: reads, signs up, tries the API with trivial prompts and gets things wrong at first."""
    yield from _newcomer("newcomer", place, rng, None)


def _newcomer(kind: str, place: Place, rng: np.random.Generator, begin: float | None) -> Iterator[Flow]:
    seat, browser = seat_of(place, rng), software.pick(rng, software.BROWSERS)
    start = first_visit(place, rng, 0.5) if begin is None else begin
    steps = [Act.HOME, Act.ASSET, *[Act.DOCS] * int(rng.integers(0, 5)), Act.SIGNUP_PAGE]
    steps += [Act.SIGNUP] * (1 + int(rng.random() < 0.15))
    before = pacing.walk(rng, len(steps), start, 14.0)
    yield Flow(
        family=kind, malicious=False, times=before, acts=np.array(steps, np.int8), software=browser,
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
        family=kind, malicious=False, times=times, acts=mixed_acts(rng, n, {Act.CHAT: 0.85, Act.MODELS: 0.15}),
        address=seat[0], software=runs, account=place.service.account(rng, made), input_tokens=counts(rng, n, 60.0),
        output_tokens=counts(rng, n, 150.0), prompts=text, model=model_of(rng), limit=20,
        referers="site" if runs is browser else "none",
    )  # fmt: skip


def visitor(place: Place, rng: np.random.Generator) -> Iterator[Flow]:
    """Somebody who reads the documentation in a browser, without an account."""
    start = first_visit(place, rng, 0.3)
    pages = 1 + int(rng.geometric(0.18))
    opened = pacing.walk(rng, pages, start, 35.0, 1.1)
    assets = np.concatenate([t + rng.uniform(0.05, 0.9, int(rng.integers(0, 5))) for t in opened])
    kinds = np.concatenate((mixed_acts(rng, pages, {Act.DOCS: 0.75, Act.HOME: 0.25}), acts(Act.ASSET, len(assets))))
    yield Flow(
        family="visitor", malicious=False, times=np.concatenate((opened, assets)), acts=kinds,
        address=seat_of(place, rng)[0], software=software.pick(rng, software.BROWSERS), referers="site",
    )  # fmt: skip


def surge(place: Place, rng: np.random.Generator) -> Iterator[Flow]:
    """Somebody who has just heard of the service, as everybody has: within an hour of the moment it was talked about."""
    begin = min(place.surge, max(place.span - HOUR, 0.0))
    yield from _newcomer("surge", place, rng, begin + HOUR * float(rng.beta(1.2, 2.5)))


def _chatting(
    kind: str, place: Place, rng: np.random.Generator, address: list[str], starts: F64, text: Words = _ordinary
) -> Iterator[Flow]:
    """Somebody in the web chat, from given addresses, in sessions that begin at `starts`."""
    browser, account, one = software.pick(rng, software.BROWSERS), old_account(place, rng), model_of(rng)
    times, asked = conversations(rng, starts, 8.0, float(rng.uniform(15, 60)))
    n = len(times)
    yield Flow(
        family=kind, malicious=False, times=times, acts=mixed_acts(rng, n, {Act.CHAT: 0.96, Act.MODELS: 0.04}),
        address=each_of(rng, address, n), software=browser, account=account, input_tokens=asked,
        output_tokens=counts(rng, n, 260.0), prompts=text(rng, n), model=one, stream=True, referers="site", limit=60,
    )  # fmt: skip
    yield from arrivals_at_site(rng, kind, starts, address, browser)


def university(place: Place, rng: np.random.Generator) -> Iterator[Flow]:
    """A student or teacher behind the one address of a university; half of the sessions begin with a lecture."""
    campus = int(rng.integers(len(place.campuses)))
    lectures = np.arange(900.0 + 60.0 * campus, place.span, 5400.0)
    starts = place.service.moments(rng, 1 + int(rng.poisson(place.span / 9_000)), 0, place.span)
    if len(lectures):
        together = lectures[rng.integers(0, len(lectures), len(starts))] + rng.exponential(240.0, len(starts))
        starts = np.sort(np.where(rng.random(len(starts)) < 0.5, together, starts))
    yield from _chatting("university", place, rng, [place.campuses[campus]], starts)


def mobile_carrier(place: Place, rng: np.random.Generator) -> Iterator[Flow]:
    """Somebody on a phone, behind addresses that the carrier shares among its customers."""
    several = min(len(place.carriers), int(rng.integers(1, 5)))
    addresses = [place.carriers[i] for i in rng.choice(len(place.carriers), several, replace=False)]
    starts = place.service.moments(rng, 1 + int(rng.poisson(place.span / 6_000)), 0, place.span)
    yield from _chatting("mobile_carrier", place, rng, addresses, starts)


def corporate_vpn(place: Place, rng: np.random.Generator) -> Iterator[Flow]:
    """An employee behind a company's VPN: the web chat, or a script on a library, from the exit that all share."""
    company = place.corporate[int(rng.integers(len(place.corporate)))]
    starts = place.service.moments(rng, 1 + int(rng.poisson(place.span / 8_000)), 0, place.span)
    if rng.random() < 0.6:
        yield from _chatting("corporate_vpn", place, rng, [company], starts)
        return
    yield _scripting("corporate_vpn", place, rng, software.pick(rng, software.SDKS), company, old_account(place, rng))


def popular_library(place: Place, rng: np.random.Generator) -> Iterator[Flow]:
    """Somebody who tries the client library that everybody tries this month: one fingerprint, many young accounts."""
    account = place.service.account(rng, -float(rng.uniform(0.05, 40.0)) * DAY)
    yield _scripting("popular_library", place, rng, software.NEW_LIBRARY, seat_of(place, rng)[0], account)


def _scripting(
    kind: str, place: Place, rng: np.random.Generator, runs: Software, address: str, account: Account
) -> Flow:
    """Somebody who writes a program: runs it, changes it, runs it again."""
    begins = place.service.moments(rng, 2 + int(rng.poisson(place.span / 3_000)), 0, place.span)
    n = len(begins) * (2 + int(rng.geometric(1 / 6)))
    template = prompts.fixed_template(rng, "job")
    own, others = prompts.fill(rng, template, n), prompts.wordings(rng, "ask", n)
    text = [a if luck < 0.5 else b for a, b, luck in zip(own, others, rng.random(n), strict=True)]
    return Flow(
        family=kind, malicious=False, times=pacing.sessions(rng, n, begins, float(rng.uniform(3, 25)), 1.2),
        acts=mixed_acts(rng, n, {Act.CHAT: 0.9, Act.EMBEDDING: 0.04, Act.MODELS: 0.06}), address=address, software=runs,
        account=account, input_tokens=counts(rng, n, 220.0), output_tokens=counts(rng, n, 160.0), prompts=text,
        model=model_of(rng), retries=2, limit=60,
    )  # fmt: skip


def security_researcher(place: Place, rng: np.random.Generator) -> Iterator[Flow]:
    """Somebody who tests the models within the terms: a named account, a steady low rate, prompts of every attack."""
    n = int(rng.integers(40, 250))
    rate = float(rng.uniform(0.02, 0.3))
    length = min(n / rate, 0.9 * place.span)
    start = float(place.service.moments(rng, 1, 0, max(place.span - length, 1.0))[0])
    hostile = hostile_prompts.worded(rng, list(hostile_prompts.TEMPLATES), n)
    other = prompts.wordings(rng, "security", n)
    text = [h if luck < 0.6 else o for h, o, luck in zip(hostile, other, rng.random(n), strict=True)]
    runs = software.RESEARCH if rng.random() < 0.5 else software.pick(rng, software.SDKS)
    yield Flow(
        family="security_researcher", malicious=False, software=runs, account=old_account(place, rng), prompts=text,
        times=pacing.renewal(rng, n, start, length, float(rng.uniform(0.2, 1.2))), acts=acts(Act.CHAT, n),
        address=place.service.space.draw(rng, 1, "datacenter" if rng.random() < 0.4 else "home")[0],
        model=place.service.models(rng, n) if rng.random() < 0.5 else model_of(rng), max_tokens=np.full(n, 512.0),
        input_tokens=counts(rng, n, 90.0), output_tokens=counts(rng, n, 140.0), retries=2, limit=60,
    )  # fmt: skip


def asks_security(place: Place, rng: np.random.Generator) -> Iterator[Flow]:
    """Somebody who asks about attacks in order to defend: questions that name what filters look for."""
    starts = place.service.moments(rng, 1 + int(rng.poisson(place.span / 7_000)), 0, place.span)

    def text(rng: np.random.Generator, n: int) -> list[str]:
        asked, other = prompts.wordings(rng, "security", n), prompts.wordings(rng, "ask", n)
        return [a if luck < 0.7 else o for a, o, luck in zip(asked, other, rng.random(n), strict=True)]

    yield from _chatting("asks_security", place, rng, seat_of(place, rng), starts, text)
