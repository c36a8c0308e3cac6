"""The simulated inference service: renders flows into request events as its gateway would log them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from zlib import crc32

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from classifier.events import EVENT_SCHEMA, MICROSECONDS
from classifier.traffic import prompts, software, tenants
from classifier.traffic.addresses import AddressSpace, Origin, beside
from classifier.traffic.flow import I64, INFERENCE, KEYED, Account, Act, Appetite, Disguise, Flow, Originals
from classifier.traffic.pacing import F64, Clock
from classifier.traffic.remembered import Remembered
from classifier.traffic.software import Software

MODELS: Final = {"large-70b": 38.0, "mid-32b": 62.0, "small-8b": 118.0, "coder-14b": 85.0}
"""Models served, with output tokens/s."""
EMBEDDER: Final = "embed-m"
DOCS: Final = tuple(
    f"/docs/{page}"
    for page in (
        "quickstart authentication models chat completions embeddings limits errors pricing streaming tools batch "
        "fine-tuning safety changelog"
    ).split()
)
_HOMES: Final = ("/", "/", "/", "/pricing", "/about", "/status", "/playground")
_ASSETS: Final = ("/assets/app.7f3c.js", "/assets/app.91ab.css", "/favicon.ico", "/assets/logo.svg", "/assets/in.woff2")
_PROBES: Final = ("/.env", "/admin", "/v1/internal/models", "/api/tags", "/wp-login.php", "/v2/models", "/metrics")
_ENDPOINTS: Final = {
    Act.LOGIN_PAGE: ("GET", "/login"),
    Act.LOGIN: ("POST", "/login"),
    Act.SIGNUP_PAGE: ("GET", "/register"),
    Act.SIGNUP: ("POST", "/v1/register"),
    Act.CHAT: ("POST", "/v1/chat/completions"),
    Act.COMPLETION: ("POST", "/v1/completions"),
    Act.EMBEDDING: ("POST", "/v1/embeddings"),
    Act.MODELS: ("GET", "/v1/models"),
    Act.HEALTH: ("GET", "/healthz"),
}
_PAGES: Final = {Act.HOME: _HOMES, Act.DOCS: DOCS, Act.ASSET: _ASSETS, Act.PROBE: _PROBES}
_SITE: Final = "https://inference.example"
_SEARCH: Final = ("https://www.google.com/", "https://www.bing.com/", "https://news.ycombinator.com/", "https://t.co/x")


@dataclass(frozen=True)
class Incident:
    """A stretch in which the service fails a share of inference calls (503) and answers slowly."""

    start: float
    end: float
    share: float


class Service:
    """One simulated deployment: who its networks are, when it is busy, and when it is in trouble.

    It is a `Scene` for attackers, whose addresses are kept apart from those in `taken`.
    """

    web = False

    def __init__(self, rng: np.random.Generator, start: float, span: float, clock: Clock):
        self.start, self.span, self.clock = start, span, clock
        self.space = AddressSpace(rng)
        self.taken: set[str] = set()
        self.clients = Remembered(span)
        n = int(rng.poisson(0.8 * max(span / 21_600, 0.5)))
        begins = rng.uniform(0, span, n)
        self.incidents = [Incident(b, b + rng.uniform(60, 420), rng.uniform(0.15, 0.7)) for b in begins]

    def addresses(self, rng: np.random.Generator, n: int, origin: Origin) -> list[str]:
        """Draw n different addresses that no legitimate client has."""
        return self.space.draw(rng, n, origin, self.taken)

    def beside(self, rng: np.random.Generator, address: str, used: Collection[str]) -> str:
        """Draw an address that no legitimate client has and is not in `used`, in the network of one that somebody has."""
        return beside(rng, address, self.taken, used)

    def software(self, rng: np.random.Generator, disguise: Disguise) -> Software:
        """Draw client software of a kind; a browser's name on another library's TLS one time in three."""
        if disguise == "browser":
            chosen = software.pick(rng, software.BROWSERS)
            if rng.random() < 1 / 3:
                return Software("browser", chosen.user_agent, software.pick(rng, software.SDKS).fingerprint)
            return chosen
        if disguise == "crawler":
            return software.pick(rng, software.CRAWLERS)
        return software.pick(rng, software.TOOLS if disguise == "tool" else software.SDKS)

    def account(self, rng: np.random.Generator, created: float) -> Account:
        """Make an account of this service."""
        return Account(rng.bytes(10).hex(), round(self.start + created, 3))

    def moments(self, rng: np.random.Generator, n: int, low: float, high: float) -> F64:
        """Draw n moments in [low, high), as dense as the day's activity; sorted."""
        return self.clock.draw(rng, n, low, high)

    def shows(self, field: str) -> bool:
        """Say whether the service logs a field: it does all but verdicts."""
        return field != "verdict"

    def models(self, rng: np.random.Generator, n: int) -> list[str]:
        """Draw n of the models, in turn from any of them on."""
        names, first = list(MODELS), int(rng.integers(len(MODELS)))
        return [names[(first + i) % len(names)] for i in range(n)]

    def originals(self) -> Originals:
        """Return the legitimate clients that were remembered."""
        return self.clients.figures()

    def original(self, number: int) -> list[Flow]:
        """Return what a legitimate client does: it is written anew, from the same seed."""
        return self.clients.flows(number)

    def render(self, flow: Flow, rng: np.random.Generator) -> pa.Table:
        """Return the events of a flow, unsorted; retries are added after failures."""
        flow = flow.within(self.span)
        flow = replace(flow, model=_models(flow, rng))
        n = len(flow)
        source = np.arange(n)
        times = flow.times
        status = self._status(flow, times, rng)
        asked, given = self._tokens(flow, rng)
        duration = self._duration(flow, times, status, asked, given, rng)
        fresh = np.arange(n)
        for attempt in range(flow.retries):
            again = fresh[np.isin(status[fresh], (429, 500, 503))]
            backoff = flow.backoff * 2 ** min(attempt, 6) * rng.uniform(0.8, 1.6, len(again))
            fresh = np.arange(len(times), len(times) + len(again))
            failed = rng.random(len(again)) < flow.fails_again
            source = np.concatenate((source, source[again]))
            times = np.concatenate((times, times[again] + duration[again] + backoff))
            status = np.concatenate((status, np.where(failed, status[again], 200)))
            later = self._duration(flow, times[fresh], status[fresh], asked, given, rng, source[fresh])
            duration = np.concatenate((duration, later))
        return self._table(flow, source, times, status, duration, asked, given, rng)

    def _status(self, flow: Flow, times: F64, rng: np.random.Generator) -> I64:
        n, acts = len(times), flow.acts
        luck = rng.random(n)
        status = np.full(n, 200, np.int64)
        inference = np.isin(acts, INFERENCE)
        keyed = np.isin(acts, KEYED)
        status[inference & (luck < 0.004)] = 400
        status[inference & (luck > 0.9985)] = 500
        status[keyed & (luck > 0.4) & (luck < 0.4008)] = 404
        for incident in self.incidents:
            hit = inference & (times >= incident.start) & (times < incident.end)
            status[hit & (rng.random(n) < incident.share)] = 503
        status[_over_limit(times, flow.limit)] = 429
        refused = rng.random(n) >= flow.success
        if flow.account is None:
            status[keyed & refused] = 401
            if flow.credential is None:
                status[keyed] = 401
        status[(acts == Act.LOGIN) & refused] = 401
        status[(acts == Act.SIGNUP) & (status == 200)] = 201
        turned_away = rng.choice((400, 409, 422), n)
        status[(acts == Act.SIGNUP) & refused] = turned_away[(acts == Act.SIGNUP) & refused]
        status[acts == Act.PROBE] = 404
        return status

    def _tokens(self, flow: Flow, rng: np.random.Generator) -> tuple[F64, F64]:
        asked, given = flow.input_tokens, flow.output_tokens
        if asked is None or given is None:
            asked, given = sizes(rng, flow.appetite, len(flow))
        given = given * (flow.acts != Act.EMBEDDING)
        if flow.max_tokens is not None:
            given = np.fmin(given, flow.max_tokens)  # NaN is no cap
        return np.maximum(np.rint(asked), 1.0), np.rint(given)

    def _duration(
        self,
        flow: Flow,
        times: F64,
        status: I64,
        asked: F64,
        given: F64,
        rng: np.random.Generator,
        source: I64 | None = None,
    ) -> F64:
        pick: Any = slice(None) if source is None else source
        acts, n = flow.acts[pick], len(times)
        speed = _speeds(flow, pick, n) * rng.lognormal(0, 0.18, n)
        queue = rng.lognormal(-1.6, 0.6, n)
        for incident in self.incidents:
            queue *= np.where((times >= incident.start) & (times < incident.end), 4.0, 1.0)
        work = queue + asked[pick] / 9000 + given[pick] / speed
        quick = rng.lognormal(-4.6, 0.7, n)
        served = np.isin(acts, INFERENCE) & (status == 200)
        down = np.isin(status, (500, 503))
        seconds: F64 = np.where(served, work, np.where(down, rng.lognormal(0.2, 1.2, n), quick))
        held = 0.0 if flow.hold is None else flow.hold[pick]
        return (seconds + held).round(6)

    def _table(
        self,
        flow: Flow,
        source: I64,
        times: F64,
        status: I64,
        duration: F64,
        asked: F64,
        given: F64,
        rng: np.random.Generator,
    ) -> pa.Table:
        n, acts = len(source), flow.acts[source]
        inference, keyed = np.isin(acts, INFERENCE), np.isin(acts, KEYED)
        served = inference & (status == 200)
        method, path = _endpoints(acts, rng)
        runs = [flow.software] if isinstance(flow.software, Software) else flow.software
        which = np.zeros(n, np.int64) if len(runs) == 1 else source
        asked, given = asked[source], given[source]
        asked_for = flow.model if isinstance(flow.model, str) else np.array(flow.model, object)[source]
        models = np.where(acts == Act.EMBEDDING, EMBEDDER, asked_for).astype(object)
        cap = np.full(n, np.nan) if flow.max_tokens is None else flow.max_tokens[source]
        columns = {
            "time": np.rint((self.start + times) * MICROSECONDS).astype(np.int64),
            "ip": _each(flow.address, source),
            "method": method,
            "path": path,
            "duration": duration,
            "status": status,
            "account": _masked(flow.account.id if flow.account else None, keyed),
            "account_created": _numbers(np.full(n, flow.account.created), keyed) if flow.account else None,
            "credential": _credentials(flow, source, acts),
            "user_agent": _dictionary([s.user_agent for s in runs], which),
            "fingerprint": _dictionary([s.fingerprint for s in runs], which),
            "referer": _referers(flow, acts, runs[0].kind, rng),
            "request_bytes": _request_bytes(acts, asked, rng),
            "response_bytes": _response_bytes(flow, path, acts, status, served, given, rng),
            "model": pa.array(models, mask=~inference),
            "input_tokens": _numbers(asked, served),
            "output_tokens": _numbers(given, served),
            "max_tokens": _numbers(cap, inference & ~np.isnan(cap) & (acts != Act.EMBEDDING)),
            "prompt": _prompts(flow, source, inference, rng),
            "malicious": np.full(n, flow.malicious),
            "family": np.full(n, flow.family),
        }
        return pa.table({field.name: _column(columns.get(field.name), field, n) for field in EVENT_SCHEMA})


def _models(flow: Flow, rng: np.random.Generator) -> str | list[str]:
    """Return the model of the flow or of each request; where none is named, one that is drawn."""
    drawn = str(rng.choice(list(MODELS)))
    if flow.model is None or isinstance(flow.model, str):
        return flow.model or drawn
    return [name or drawn for name in flow.model]


def _speeds(flow: Flow, pick: Any, n: int) -> F64:
    """Return the output tokens/s of the models that n requests go to."""
    if flow.model is None or isinstance(flow.model, str):
        return np.full(n, MODELS.get(flow.model or "mid-32b", 62.0))
    return np.asarray(np.array([MODELS.get(name or "", 62.0) for name in flow.model])[pick], np.float64)


def sizes(rng: np.random.Generator, appetite: Appetite, n: int) -> tuple[F64, F64]:
    """Draw input and output tokens of n requests: as some production tenant, long answers, or next to nothing."""
    if appetite == "long":
        return rng.lognormal(5.6, 0.7, n), rng.lognormal(6.9, 0.45, n)
    if appetite == "huge":
        return rng.lognormal(9.5, 0.8, n), rng.lognormal(7.0, 0.8, n)
    if appetite == "tiny":
        return rng.integers(7, 26, n).astype(np.float64), rng.integers(1, 60, n).astype(np.float64)
    pool = tenants.tenants()
    like = pool[int(rng.integers(len(pool)))]
    return like.input_tokens(rng, n), like.output_tokens(rng, n)


def _over_limit(times: F64, limit: float) -> npt.NDArray[np.bool_]:
    """Mark the requests beyond `limit` in each minute of the clock."""
    order = np.argsort(times, kind="stable")
    minute = np.floor(times[order] / 60)
    first = np.searchsorted(minute, minute, side="left")
    over = np.empty(len(times), np.bool_)
    over[order] = np.arange(len(times)) - first >= limit
    return over


def _endpoints(acts: npt.NDArray[np.int8], rng: np.random.Generator) -> tuple[Any, Any]:
    method = np.full(len(acts), "GET", object)
    path = np.full(len(acts), "/", object)
    for act in np.unique(acts):
        rows = np.flatnonzero(acts == act)
        if act in _PAGES:
            pages = np.array(_PAGES[Act(act)], object)
            path[rows] = pages[rng.integers(0, len(pages), len(rows))]
        else:
            method[rows], path[rows] = _ENDPOINTS[Act(act)]
    return method, path


def _each(values: str | Sequence[str], source: I64) -> Any:
    if isinstance(values, str):
        return np.full(len(source), values, object)
    return _dictionary(list(values), source)


def _dictionary(values: Sequence[str | None], index: I64) -> Any:
    return pa.array(values, pa.string()).take(pa.array(index))


def _masked(value: str | None, keep: npt.NDArray[np.bool_]) -> Any:
    return None if value is None else pa.array(np.full(len(keep), value, object), pa.string(), mask=~keep)


def _numbers(values: F64, keep: npt.NDArray[np.bool_]) -> Any:
    return pa.array(np.where(keep, values, 0.0), mask=~keep)


def _credentials(flow: Flow, source: I64, acts: npt.NDArray[np.int8]) -> Any:
    if flow.credential is None:
        return None
    shown = (np.isin(acts, KEYED) & (flow.account is None)) | (acts == Act.LOGIN)
    return pa.array(np.array(flow.credential, object)[source], pa.string(), mask=~shown)


def _referers(flow: Flow, acts: npt.NDArray[np.int8], kind: str, rng: np.random.Generator) -> Any:
    if flow.referers == "none":
        return None
    n = len(acts)
    pages = np.array([f"{_SITE}{p}" for p in (*_HOMES[3:], *DOCS)], object)
    referer = np.where(np.isin(acts, KEYED), f"{_SITE}/chat", pages[rng.integers(0, len(pages), n)])
    referer[np.isin(acts, (Act.LOGIN, Act.LOGIN_PAGE))] = f"{_SITE}/login"
    referer[np.isin(acts, (Act.SIGNUP, Act.SIGNUP_PAGE))] = f"{_SITE}/register"
    outside = np.array(_SEARCH, object)[rng.integers(0, len(_SEARCH), n)]
    entry = (acts == Act.HOME) & (rng.random(n) < 0.6)
    referer = np.where(entry, outside, referer)
    absent = rng.random(n) < (0.06 if flow.referers == "site" else 0.3)
    return pa.array(referer, pa.string(), mask=absent)


def _request_bytes(acts: npt.NDArray[np.int8], asked: F64, rng: np.random.Generator) -> I64:
    n = len(acts)
    body = np.rint(asked * rng.normal(4.3, 0.25, n) + rng.integers(140, 420, n))
    size = np.where(np.isin(acts, INFERENCE), body, 0)
    size = np.where(acts == Act.LOGIN, rng.integers(70, 130, n), size)
    size = np.where(acts == Act.SIGNUP, rng.integers(110, 210, n), size)
    return np.maximum(size, 0).astype(np.int64)


def _response_bytes(
    flow: Flow,
    path: Any,
    acts: npt.NDArray[np.int8],
    status: I64,
    served: npt.NDArray[np.bool_],
    given: F64,
    rng: np.random.Generator,
) -> I64:
    n = len(acts)
    pages = {p: 900 + crc32(p.encode()) % 42_000 for p in set(path.tolist())}
    page = np.array([pages[p] for p in path], np.float64)
    answer = np.rint(given * (rng.normal(190, 6, n) if flow.stream else rng.normal(4.6, 0.3, n)) + 460)
    answer = np.where(acts == Act.EMBEDDING, rng.integers(9_000, 34_000, n), answer)
    size = np.where(served, answer, np.where(status < 300, page, rng.integers(90, 330, n)))
    size = np.where(np.isin(acts, (Act.LOGIN, Act.SIGNUP)) & (status < 300), rng.integers(300, 700, n), size)
    size = np.where((acts == Act.HEALTH) & (status == 200), 15, size)
    return np.maximum(size, 0).astype(np.int64)


def _prompts(flow: Flow, source: I64, inference: npt.NDArray[np.bool_], rng: np.random.Generator) -> Any:
    if not inference.any():
        return None
    texts: Sequence[str | None] = [None] * len(flow) if flow.prompts is None else flow.prompts
    if any(text is None for text in texts):
        others = prompts.wordings(rng, "ask", len(flow))
        texts = [other if text is None else text for text, other in zip(texts, others, strict=True)]
    return pa.array(np.array(texts, object)[source], pa.string(), mask=~inference)


def _column(values: Any, field: pa.Field, n: int) -> Any:
    if values is None:
        return pa.nulls(n, field.type)
    array = values if isinstance(values, pa.Array) else pa.array(values)
    return array.cast(field.type)
