"""Programs: jobs and applications on the API, with the arrivals and token lengths of production tenants."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from classifier.traffic import pacing, prompts, software, tenants
from classifier.traffic.flow import Act, Flow, acts, mixed_acts
from classifier.traffic.legitimate.place import (
    DAY,
    HEAVIEST,
    HOUR,
    Place,
    cap_near,
    counts,
    each_of,
    model_of,
    old_account,
    tenant_like,
)  # fmt: skip

HEAVY = 0.25
"""Mean rate in requests/s from which a tenant is called heavy."""


def sdk_batch(place: Place, rng: np.random.Generator) -> Iterator[Flow]:
    """A batch job on an SDK: one template over many records, heavy and regular. Hard, and honest."""
    n = int(min(rng.lognormal(6.9, 0.9), 8_000) * min(place.span / 21_600, 4.0) ** 0.5) + 20
    rate = float(rng.lognormal(0.0, 0.8))
    length = min(n / rate, 0.9 * place.span)
    start = float(place.service.moments(rng, 1, 0, max(place.span - length, 1.0))[0])
    like = tenant_like(rng)
    asked, given = like.input_tokens(rng, n), like.output_tokens(rng, n)
    kind = Act.EMBEDDING if rng.random() < 0.3 else Act.CHAT if rng.random() < 0.8 else Act.COMPLETION
    yield Flow(
        family="sdk_batch", malicious=False, times=pacing.renewal(rng, n, start, length, float(rng.uniform(0.04, 0.6))),
        acts=acts(kind, n), address=place.service.space.draw(rng, 1, "datacenter" if rng.random() < 0.7 else "home")[0],
        software=software.pick(rng, software.SDKS), account=old_account(place, rng), input_tokens=asked,
        output_tokens=given, max_tokens=cap_near(rng, n, given), model=model_of(rng), retries=int(rng.integers(0, 4)),
        prompts=prompts.fill(rng, prompts.fixed_template(rng, "job"), n), limit=float(rng.choice((60, 300, 600))),
    )  # fmt: skip


def tenant(place: Place, rng: np.random.Generator) -> Iterator[Flow]:
    """An application on the API, with arrivals and token lengths of one production tenant of ServeGen."""
    like = tenant_like(rng)
    yield _application("tenant_heavy" if like.rate_mean >= HEAVY else "tenant", place, rng, like)


def _application(kind: str, place: Place, rng: np.random.Generator, like: tenants.Tenant) -> Flow:
    times = like.arrivals(rng, place.span, cap=25_000)
    n = len(times)
    asked, given = like.input_tokens(rng, n), like.output_tokens(rng, n)
    regions = place.service.space.draw(rng, 1 + int(rng.geometric(0.45)), "datacenter")
    templated = rng.random() < 0.75
    text = prompts.fill(rng, prompts.fixed_template(rng, "job"), n) if templated else prompts.wordings(rng, "ask", n)
    return Flow(
        family=kind, malicious=False, times=times,
        acts=acts(Act.CHAT, n), address=each_of(rng, regions, n, 2.0), software=software.pick(rng, software.SDKS),
        account=old_account(place, rng), input_tokens=asked, output_tokens=given, max_tokens=cap_near(rng, n, given),
        prompts=text, model=model_of(rng), stream=bool(rng.random() < 0.4), retries=2, limit=6_000,
    )  # fmt: skip


def agent(place: Place, rng: np.random.Generator) -> Iterator[Flow]:
    """An agent: bursts of calls, each as soon as the last tool has answered, with a context that grows."""
    starts = place.service.moments(rng, 2 + int(rng.poisson(place.span / 2_400)), 0, place.span)
    times, asked = [], []
    for start in starts:
        n = 2 + int(rng.geometric(1 / 14))
        times.append(pacing.walk(rng, n, float(start), rng.uniform(0.8, 6.0), 0.7))
        asked.append(800 + np.cumsum(counts(rng, n, 220.0)))
    at = np.concatenate(times)
    n = len(at)
    yield Flow(
        family="agent", malicious=False, times=at, acts=acts(Act.CHAT, n), software=software.pick(rng, software.AGENTS),
        address=place.service.space.draw(rng, 1, "datacenter" if rng.random() < 0.5 else "home")[0],
        account=old_account(place, rng), input_tokens=np.concatenate(asked), output_tokens=counts(rng, n, 120.0),
        prompts=prompts.wordings(rng, "step", n), model=model_of(rng), retries=2,
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
        address=each_of(rng, hosts, n, 30.0), software=software.pick(rng, software.SDKS),
        account=old_account(place, rng), appetite="tiny", max_tokens=np.full(n, 16.0), model="small-8b", retries=1,
        prompts=prompts.fill(rng, prompts.fixed_template(rng, "probe"), n),
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
        address=each_of(rng, hosts, n, 5.0), software=software.pick(rng, software.CRAWLERS),
    )  # fmt: skip


def expired_key(place: Place, rng: np.random.Generator) -> Iterator[Flow]:
    """A forgotten job whose key has expired: the same 401 for hours. Hard, and honest."""
    period = float(rng.choice((10, 30, 60, 300)))
    start = float(rng.uniform(0, 0.7 * place.span))
    times = pacing.timer(rng, start, place.span, period, float(rng.uniform(0.01, 0.6)))[:1500]
    n = len(times)
    like = tenant_like(rng)
    yield Flow(
        family="expired_key", malicious=False, times=times, acts=acts(Act.CHAT, n), success=0.0,
        address=place.service.space.draw(rng, 1, "datacenter" if rng.random() < 0.6 else "home")[0],
        software=software.pick(rng, software.SDKS), credential=[rng.bytes(8).hex()] * n, model=model_of(rng),
        input_tokens=like.input_tokens(rng, n), output_tokens=np.zeros(n),
        prompts=prompts.fill(rng, prompts.fixed_template(rng, "job"), n),
    )  # fmt: skip


def tenant_bursty(place: Place, rng: np.random.Generator) -> Iterator[Flow]:
    """An application whose arrivals are as bursty as those of the burstiest tenth of ServeGen's tenants."""
    awake = (t for t in tenants.tenants() if t.rate_mean <= HEAVIEST and t.active_share > 0.3)
    pool = sorted(awake, key=lambda t: t.cvs[2])
    like = pool[-1 - int(rng.integers(max(len(pool) // 10, 1)))]
    yield _application("tenant_bursty", place, rng, like)


def nightly_batch(place: Place, rng: np.random.Generator) -> Iterator[Flow]:
    """A job that begins at the full hour, night somewhere, every day: at once, as fast as its limit allows."""
    hours = np.arange(HOUR, max(place.span, HOUR + 1.0), HOUR)
    first = float(hours[int(rng.integers(min(len(hours), 24)))])
    days = np.arange(first, place.span, DAY)
    rate, each = float(rng.uniform(0.8, 5.0)), int(min(rng.lognormal(6.4, 0.7), 4_000))
    cv = float(rng.uniform(0.05, 0.5))
    parts = [pacing.renewal(rng, each, float(day) + float(rng.exponential(3.0)), each / rate, cv) for day in days]
    times = np.concatenate(parts) if parts else np.empty(0)
    n = len(times)
    like = tenant_like(rng)
    asked, given = like.input_tokens(rng, n), like.output_tokens(rng, n)
    yield Flow(
        family="nightly_batch", malicious=False, times=times, acts=acts(Act.CHAT, n),
        address=place.service.space.draw(rng, 1, "datacenter")[0], software=software.pick(rng, software.SDKS),
        account=old_account(place, rng), input_tokens=asked, output_tokens=given, max_tokens=cap_near(rng, n, given),
        prompts=prompts.settled(rng, "job", n, int(rng.integers(1, 4))), model=model_of(rng), retries=3, limit=300,
    )  # fmt: skip


def evaluation_run(place: Place, rng: np.random.Generator) -> Iterator[Flow]:
    """A benchmark: the same questions to one model after the other, short answers, a fixed cap."""
    models = place.service.models(rng, int(rng.integers(1, 4)))
    each = int(rng.integers(80, 700))
    n = each * len(models)
    length = min(n / float(rng.uniform(0.5, 6.0)), 0.9 * place.span)
    start = float(place.service.moments(rng, 1, 0, max(place.span - length, 1.0))[0])
    questions = prompts.settled(rng, "exam", each, int(rng.integers(1, 4)))
    yield Flow(
        family="evaluation_run", malicious=False, times=pacing.renewal(rng, n, start, length, float(rng.uniform(0.3, 1.5))),
        acts=acts(Act.CHAT, n), address=place.service.space.draw(rng, 1, "datacenter" if rng.random() < 0.6 else "home")[0],
        software=software.pick(rng, software.SDKS), account=old_account(place, rng), input_tokens=counts(rng, n, 350.0),
        output_tokens=counts(rng, n, 30.0, 1.2), max_tokens=np.full(n, float(rng.choice((8, 32, 256, 1024)))),
        prompts=questions * len(models), model=[name for name in models for _ in range(each)], retries=3, limit=600,
    )  # fmt: skip


def backfill(place: Place, rng: np.random.Generator) -> Iterator[Flow]:
    """A retrieval index that is filled: every document embedded, one after the other, at a limit's pace."""
    n = int(min(rng.lognormal(6.8, 0.8), 6_000)) + 50
    length = min(n / float(rng.uniform(1.0, 8.0)), 0.9 * place.span)
    start = float(place.service.moments(rng, 1, 0, max(place.span - length, 1.0))[0])
    yield Flow(
        family="backfill", malicious=False, times=pacing.renewal(rng, n, start, length, float(rng.uniform(0.05, 0.4))),
        acts=mixed_acts(rng, n, {Act.EMBEDDING: 0.97, Act.CHAT: 0.03}), software=software.pick(rng, software.SDKS),
        address=place.service.space.draw(rng, 1, "datacenter")[0], account=old_account(place, rng),
        input_tokens=counts(rng, n, 420.0, 0.4), output_tokens=counts(rng, n, 100.0), model=model_of(rng), retries=3,
        prompts=prompts.settled(rng, "passage", n, 1), limit=float(rng.choice((120, 300, 600))),
    )  # fmt: skip


def retry_storm(place: Place, rng: np.random.Generator) -> Iterator[Flow]:
    """A client above its limit that does not wait: each 429 and 5xx is tried again at once, and again."""
    begins = place.service.moments(rng, 2 + int(rng.poisson(place.span / 4_000)), 0, place.span)
    parts = [
        pacing.renewal(rng, int(rng.integers(40, 200)), float(b), float(rng.uniform(40, 200)), 0.8) for b in begins
    ]
    times = np.concatenate(parts)
    n = len(times)
    yield Flow(
        family="retry_storm", malicious=False, times=times, acts=acts(Act.CHAT, n), account=old_account(place, rng),
        address=place.service.space.draw(rng, 1, "datacenter" if rng.random() < 0.5 else "home")[0],
        software=software.pick(rng, software.SDKS), input_tokens=counts(rng, n, 300.0), output_tokens=counts(rng, n, 200.0),
        prompts=prompts.settled(rng, "job", n, 2), model=model_of(rng), retries=8, backoff=0.1, fails_again=0.8,
        limit=float(rng.choice((20, 30, 60))),
    )  # fmt: skip
