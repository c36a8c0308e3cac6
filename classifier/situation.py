"""Surge or attack: one verdict about the whole service, with what speaks for it.

Each request is counted once, in whole minutes. When a minute is over, the last five are compared with the usual minute of this
service: median and median deviation over the last 1440 minutes that had requests, in robust units (chance does not bring
about a deviation of 6). What a rise of requests, clients or newcomers means, the scores tell: when those who come score like
everybody, it is a surge; when a good part scores like attackers do, it is an attack. Only *attack* may tighten budgets.

The verdict, by rules in this order:

1. `unsure` while fewer than 30 minutes have been seen: there is no usual minute yet.
2. `attack` when requests that score like attackers' (at or above the challenge threshold) make up 10 % of all and are more than
   six deviations above the usual, and without the busiest client among them still 5 %, from three clients or more. The same
   where requests rise and 20 % of them are unusual (above all but 5 % of legitimate ones), 10 % without the busiest client:
   each by itself may be anybody's, so many at once are not. What is usual of either comes on top of these shares. A flood is
   told before its first minute is over: as soon as these requests make up as much of the minute at hand, and of a usual
   minute too, so that a few at the begin of a minute do not. It is taken back if that minute as a whole does not show it;
   where requests have risen since, half of the shares suffice.
3. `unsure` when one or two clients make nearly all of them: one client is no attack on the service; to deal with it is enough.
4. `unsure` when requests, clients, newcomers or new accounts rise, and with them unusual requests (10 %), or requests whose
   prompt template spreads among many clients: look at it.
5. `surge` when clients, newcomers or new accounts rise and nothing of the above holds.
6. `calm` otherwise.

A worse verdict (but a flood) has to hold for two minutes, a better one for five, so that it does not flap. An attack is not over
while requests have not come down to what they were before it, for an hour after its last sign: careful attackers come to score
like everybody when they have been there for some minutes, and who cannot be told from others has not gone. Minutes of attack
never become the usual, and what scores like attackers counts as usual up to 2 % of the requests at most, what is unusual up to
10 %. State is about 160 kilobytes, whatever comes; counting is O(1), and a log read in the order of time gives bit for bit what
the service gives. After a day without a request the usual minute is forgotten.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from classifier.events import MICROSECONDS
from classifier.features.spec import COLUMN
from classifier.policy import LegitimateCurve, Thresholds

State = Literal["calm", "surge", "attack", "unsure"]
STATES: tuple[State, ...] = get_args(State)
MINUTE_US = 60 * MICROSECONDS
WINDOW, DAY, FEWEST = 5, 1440, 30
"""Minutes that are compared, minutes that are remembered, and minutes before anything is said."""
DEVIATIONS = 6.0
RISE, RISE_NEWCOMERS = 1.6, 2.5
"""Times the usual from which a rise of requests or clients, or of newcomers, counts."""
ODD_SHARE, SPREADING_SHARE = 0.10, 0.25
"""Shares of unusual requests, and of those with a spreading template, that make a rise odd."""
LEAST, LEAST_ACCOUNTS = 20, 8
"""Requests or clients, or new accounts, in the window below which nothing follows from them."""
RAREST = 0.2
"""Of a minute: what is rarer is judged as if it came so often."""
CLIENTS = 3
"""Clients from which it may be an attack."""
WORSE, BETTER = 2, 5
"""Minutes in a row after which a worse, or a better, verdict is believed."""
LINGERS = 60
"""Minutes without a sign of it that an attack is held to go on, while there are `RISE` times the requests of before it."""
UNUSUAL = 0.05
"""Share of legitimate requests that score at or above the level of unusual ones."""
CHANGES_KEPT = 256
RETURNS_US = 6 * 3600 * MICROSECONDS
"""An attack that comes again within so long is the same one, µs: who came with it has not been here before it."""
NEW, UNUSUAL_MARK, ACTED, SPREADING, NEW_ACCOUNT = 1, 2, 4, 8, 16
_SEVERITY = {"calm": 0, "surge": 1, "unsure": 2, "attack": 3}
_SEATS = 16_384
_SUSPECT_SEATS = 1_024
_SEEN = COLUMN["client_requests_seen"]
_TEMPLATE_SURGE, _TEMPLATE_CLIENTS = COLUMN["template_surge"], COLUMN["template_distinct_clients"]
_PROMPT, _ACCOUNT_AGE = COLUMN["request_prompt_length"], COLUMN["request_account_age"]
_YOUNG = 12.0  # log2 s: younger than an hour or so
_SURGE_OF_TEMPLATE, _CLIENTS_OF_TEMPLATE = 3.0, 8.0
Marks = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]


class Minute(NamedTuple):
    """What is counted in a minute. Clients are distinct ones, about; of newcomers it is the first request, and of `accounts`
    that of an account which was made within the hour. `acted` score like attackers', `unusual` above all but a few legitimate
    ones: of both there are the clients, and the `others`, without those of the client that has most of them."""

    requests: float
    clients: float
    newcomers: float
    accounts: float
    acted: float
    acted_clients: float
    acted_others: float
    unusual: float
    unusual_clients: float
    unusual_others: float
    spreading: float


_FIELDS = Minute._fields


class Suspects:
    """Requests of a minute at or above a level: how many, of about how many clients, and how many the busiest made."""

    __slots__ = ("_seats", "_taken", "count", "most")

    def __init__(self) -> None:
        self.count, self.most = 0, 0
        self._seats, self._taken = [0] * _SUSPECT_SEATS, 0

    def add(self, client: int) -> None:
        """Count a request of a client (keyed hash)."""
        self.count += 1
        seat = client % _SUSPECT_SEATS
        theirs = self._seats[seat] = self._seats[seat] + 1
        self._taken += theirs == 1
        if theirs > self.most:
            self.most = theirs

    @property
    def clients(self) -> float:
        """Clients, about."""
        return _distinct(self._taken, _SUSPECT_SEATS)

    @property
    def others(self) -> int:
        """Requests without those of the busiest client."""
        return self.count - self.most


@dataclass(frozen=True, slots=True)
class Alarm:
    """When requests at or above a level (`name` in `Minute`) make an attack: from which share of all requests on, half as many
    without the busiest client; whether requests must rise, too. And up to which share they may be usual."""

    name: str
    words: str
    share: float
    rise: bool
    usual_most: float

    @property
    def others(self) -> float:
        """The share without the busiest client."""
        return self.share / 2

    def bar(self, usual: Floats) -> Bar:
        """Return what tells a flood within its first minute, from the usual minutes, float64[m, counts]."""
        median, spreads, means = _usual(usual)
        place, normal = _FIELDS.index(self.name), float(median[0])
        middle, spread, mean = float(median[place]), float(spreads[place]), float(means[place])
        share = self.share + middle / max(normal, 1e-9)
        chance = middle + DEVIATIONS * max(spread, math.sqrt(max(mean, RAREST)))
        return Bar(max(LEAST, chance, share * normal), share)


_ACTED = Alarm("acted", "score like attackers’", 0.10, rise=False, usual_most=0.02)  # ten times the default budget
_UNUSUAL = Alarm(
    "unusual", f"score above all but {100 * UNUSUAL:g} % of legitimate ones", 0.20, rise=True, usual_most=2 * UNUSUAL
)
ALARMS = (_ACTED, _UNUSUAL)
_NEVER = (math.inf,) * len(ALARMS)


@dataclass(frozen=True, slots=True)
class Levels:
    """Raw scores, float32 values, from which a request is unusual, and from which it scores like an attacker's."""

    unusual: float
    acted: float

    @classmethod
    def of(cls, thresholds: Thresholds, curve: LegitimateCurve) -> Levels:
        """Take them from a bundle; where nothing is challenged, from the curve at twice in a thousand."""
        acted = curve.threshold(0.002) if math.isinf(thresholds.challenge) else thresholds.challenge
        return cls(min(curve.threshold(UNUSUAL), acted), acted)

    def marks(self, rows: npt.NDArray[np.float32], raw: npt.NDArray[np.float32]) -> Marks:
        """Return what is noted of requests, uint8[n], from their feature rows float32[n, features] and raw scores."""
        marks = (rows[:, _SEEN] <= 1).astype(np.uint8) * np.uint8(NEW)
        marks |= (raw >= np.float32(self.unusual)).astype(np.uint8) * np.uint8(UNUSUAL_MARK)
        marks |= (raw >= np.float32(self.acted)).astype(np.uint8) * np.uint8(ACTED)
        spreading = (rows[:, _TEMPLATE_SURGE] >= _SURGE_OF_TEMPLATE) & (
            rows[:, _TEMPLATE_CLIENTS] >= _CLIENTS_OF_TEMPLATE
        )
        marks |= (spreading & ~np.isnan(rows[:, _PROMPT])).astype(np.uint8) * np.uint8(SPREADING)
        joined = (rows[:, _SEEN] <= 1) & (rows[:, _ACCOUNT_AGE] < _YOUNG)
        return marks | joined.astype(np.uint8) * np.uint8(NEW_ACCOUNT)

    def mark(self, row: npt.NDArray[np.float32], raw: float) -> int:
        """Return what is noted of one request: as `marks`."""
        marks, item = 0, row.item  # Python floats: quick, and exact
        if item(_SEEN) <= 1.0:
            marks = NEW | NEW_ACCOUNT if item(_ACCOUNT_AGE) < _YOUNG else NEW
        if raw >= self.unusual:
            marks |= UNUSUAL_MARK | ACTED if raw >= self.acted else UNUSUAL_MARK
        if item(_TEMPLATE_SURGE) >= _SURGE_OF_TEMPLATE and item(_TEMPLATE_CLIENTS) >= _CLIENTS_OF_TEMPLATE:
            marks |= SPREADING if item(_PROMPT) == item(_PROMPT) else 0  # NaN is no prompt
        return marks


@dataclass(frozen=True, slots=True)
class Verdict:
    """A verdict, since when (µs), the rule that gave it, and what speaks for it."""

    state: State
    since: int
    rule: int
    evidence: tuple[str, ...]
    figures: dict[str, dict[str, float]]
    """Of each count: a minute of the window in the mean, the usual minute, and how many deviations lie between."""
    onset: int = 0
    """Of an attack: when it began, µs, be it that it has lapsed since (`RETURNS_US`)."""

    def as_json(self) -> dict[str, Any]:
        """Return the form of `/v1/situation` and of reports."""
        return {
            "state": self.state,
            "since": self.since / MICROSECONDS,
            "onset": self.onset / MICROSECONDS,
            "rule": self.rule,
            "evidence": list(self.evidence),
            "figures": self.figures,
        }


class Bar(NamedTuple):
    """From how many requests at or above a level it is no chance in one minute, and which share of it they make in an attack."""

    least: float
    share: float


class Situation:
    """Counts requests and keeps the verdict."""

    def __init__(self, changes_kept: int | None = CHANGES_KEPT) -> None:
        """`changes_kept` is how many of the newest changes are remembered; None for all."""
        self._minute: int | None = None
        self._counts = [0] * 4  # requests, newcomers, accounts, spreading
        self._seats, self._taken = bytearray(_SEATS), 0
        self._suspects = tuple(Suspects() for _ in ALARMS)
        self._bars: tuple[Bar, ...] | None = None
        """What the minute at hand is compared with to tell a flood, once there is a usual minute, `_usual_requests` of it."""
        self._usual_requests = 0.0
        self._look_at: tuple[float, ...] = _NEVER
        """Requests at or above a level, in one minute, at which to look whether it is a flood."""
        self._early: tuple[Verdict, int] | None = None
        """The verdict before one that was given within the minute at hand, and when the attack before it was over."""
        self._onset, self._attack_over = 0, -RETURNS_US
        self._window: deque[Minute] = deque(maxlen=WINDOW)
        self._usual = np.zeros((DAY, len(_FIELDS)))
        self._kept = self._silent = 0  # minutes that were kept, and those in a row without a request
        self._candidate: State = "unsure"
        self._held = 0
        self._signless = 0  # minutes in a row in which nothing told an attack
        self._before = 0.0  # requests of a minute before the attack
        self.verdict = Verdict("unsure", 0, 1, ("no whole minute has been seen yet",), {})
        self.changes: deque[Verdict] = deque(maxlen=changes_kept)
        """The newest verdicts, each as it was when its state began."""

    @property
    def begun(self) -> bool:
        """Whether a request has been counted."""
        return self._minute is not None

    @property
    def state(self) -> State:
        """The verdict in a word."""
        return self.verdict.state

    def observe(self, time: int, client: int, marks: int) -> None:
        """Count a request that arrives at `time` (µs, never falling) from a client (keyed hash); marks of `Levels`."""
        minute = time // MINUTE_US
        if minute != self._minute:
            self.advance(time)
        counts = self._counts
        counts[0] += 1
        seat = client % _SEATS
        if not self._seats[seat]:
            self._seats[seat] = 1
            self._taken += 1
        if marks:
            counts[1] += marks & NEW
            counts[2] += (marks & NEW_ACCOUNT) != 0
            counts[3] += (marks & SPREADING) != 0
            if marks & UNUSUAL_MARK:
                acted, unusual = self._suspects
                unusual.add(client)
                if marks & ACTED:
                    acted.add(client)
                if acted.count >= self._look_at[0] or unusual.count >= self._look_at[1]:
                    self._look(time)

    def observe_all(self, time: npt.NDArray[np.int64], client: npt.NDArray[np.uint64], marks: Marks) -> None:
        """Count requests in the order of time, one by one."""
        for one in zip(time.tolist(), client.tolist(), marks.tolist(), strict=True):
            self.observe(*one)

    def advance(self, time: int) -> None:
        """Close the minutes that are over at `time` (µs)."""
        minute = time // MINUTE_US
        if self._minute is None:
            self._minute = minute
        while self._minute < minute:
            self._close()
            self._minute += 1
            if self._silent == DAY:  # nothing of what was usual counts any more
                self._window.clear()
                self._kept, self._bars, self._look_at = 0, None, _NEVER
            elif self._silent > DAY + WINDOW + BETTER:  # more silence changes nothing
                self._minute = minute

    def _close(self) -> None:
        requests, newcomers, accounts, spreading = self._counts
        stays = self._early is not None and self._still_more(requests, 1)
        flood = self._flood(self._now(), 0.5 if stays else 1.0)
        acted, unusual = self._suspects
        closed = Minute(
            requests, _distinct(self._taken, _SEATS), newcomers, accounts, acted.count, acted.clients, acted.others,
            unusual.count, unusual.clients, unusual.others, spreading,
        )  # fmt: skip
        self._silent = 0 if requests else self._silent + 1
        if requests:
            self._counts = [0] * 4
            self._seats, self._taken = bytearray(_SEATS), 0
            self._suspects = tuple(Suspects() if suspects.count else suspects for suspects in self._suspects)
        self._window.append(closed)
        if self._early is not None and flood is None:
            before, over = self._early
            self._candidate, self._held = before.state, 1
            self._turn(Verdict(before.state, self._now(), 2, ("what looked like a flood was over at once",), {}))
            self._attack_over = over  # it was none
        self._early = None
        self._judge()
        # A minute that looks like an attack is never usual, not even before the verdict has settled; nor is one of silence.
        if requests and self.state != "attack" and self._candidate != "attack":
            self._usual[self._kept % DAY] = closed
            self._kept += 1
            usual = self._usual[: min(self._kept, DAY)]
            if len(usual) >= FEWEST:
                self._usual_requests = float(np.median(usual[:, 0]))
                self._bars = tuple(alarm.bar(usual) for alarm in ALARMS)
        looked_for = self._bars is not None and self.state != "attack"
        self._look_at = tuple(bar.least for bar in self._bars or ()) if looked_for else _NEVER

    def _flood(self, time: int, part: float = 1.0) -> tuple[str, ...] | None:
        """Return what tells that the minute at hand, so far as `time` (µs), is that of a flood; None if it is not.

        `part` of the shares suffices.
        """
        if self._bars is None or self._minute is None:
            return None
        requests, elapsed = self._counts[0], (time - self._minute * MINUTE_US) / MINUTE_US
        rising = requests >= RISE * self._usual_requests * elapsed
        least = max(requests, self._usual_requests)
        for alarm, bar, suspects in zip(ALARMS, self._bars, self._suspects, strict=True):
            if (
                suspects.count >= max(bar.least, part * bar.share * least)
                and suspects.others >= part * alarm.others * least
                and suspects.clients >= CLIENTS
                and (rising or not alarm.rise)
            ):
                share = f"{100 * suspects.count / requests:.1f} %"
                return (
                    f"{share} of the {requests:,} requests of this minute so far {alarm.words}",
                    f"they come from {_about(suspects.clients)}",
                )
        return None

    def _look(self, time: int) -> None:
        """Look whether the minute at hand is that of a flood; if not, again when there is a quarter more to look at."""
        evidence = self._flood(time)
        if evidence is None:
            self._look_at = tuple(
                max(at, 1.25 * one.count) for at, one in zip(self._look_at, self._suspects, strict=True)
            )
            return
        self._candidate, self._held, self._signless, self._look_at = "attack", WORSE, 0, _NEVER
        self._early = self.verdict, self._attack_over
        self._turn(Verdict("attack", time, 2, evidence, {}))

    def _turn(self, verdict: Verdict) -> None:
        """Give another verdict than before."""
        if verdict.state == "attack":
            # Of the minutes before it, of which the newest may be the first of the attack.
            self._before = float(np.median([minute.requests for minute in self._window])) if self._window else 0.0
            if verdict.since - self._attack_over >= RETURNS_US:
                self._onset = verdict.since
            verdict = replace(verdict, onset=self._onset)
        elif self.verdict.state == "attack":
            self._attack_over = verdict.since
        self.verdict = verdict
        self.changes.append(verdict)

    def _still_more(self, now: float, minutes: int) -> bool:
        """Whether so many requests a minute, in the mean of some, are more than before the attack, and not by chance."""
        chance = DEVIATIONS * math.sqrt(max(self._before, RAREST) / minutes)
        return now >= max(RISE * self._before, self._before + chance, LEAST / minutes)

    def _now(self) -> int:
        assert self._minute is not None
        return (self._minute + 1) * MINUTE_US

    def _judge(self) -> None:
        now = self._now()
        state, rule, evidence, figures = judged(self._window, self._usual[: min(self._kept, DAY)])
        self._signless = 0 if state == "attack" else self._signless + 1
        before = self.verdict
        requests = sum(minute.requests for minute in self._window) / len(self._window)
        if before.state == "attack" and 0 < self._signless <= LINGERS and self._still_more(requests, WINDOW):
            state, rule = "attack", 2
            then = f"{_count(requests)} a minute, {_count(self._before)} before it"
            evidence = (f"requests have not come down since the attack: {then}",)
        self._held = self._held + 1 if state == self._candidate else 1
        self._candidate = state
        enough = WORSE if _SEVERITY[state] > _SEVERITY[before.state] else BETTER
        if state == before.state:
            self.verdict = Verdict(state, before.since or now, rule, evidence, figures, before.onset)
        elif self._held >= enough or (before.rule == 1 and rule != 1):
            self._turn(Verdict(state, now, rule, evidence, figures))


def judged(
    window: deque[Minute], usual: npt.NDArray[np.float64]
) -> tuple[State, int, tuple[str, ...], dict[str, dict[str, float]]]:
    """Judge the last minutes against the usual ones, float64[m, counts], by the rules of this module; nothing is kept."""
    # 1
    if len(usual) < FEWEST:
        return "unsure", 1, (f"{len(usual)} of {FEWEST} minutes have been seen that tell what is usual",), {}
    if not any(minute.requests for minute in window):
        return "calm", 6, (f"no request in the last {WINDOW} minutes",), {}
    figures, now, normal = _figures(window, usual)

    def rises(name: str, times: float, least: float = LEAST) -> bool:
        one = figures[name]
        return one["deviations"] >= DEVIATIONS and one["now"] >= times * one["usual"] and one["now"] * WINDOW >= least

    n = max(now["requests"], 1e-9)
    shares = {name: now[name] / n for name in _FIELDS}
    before = {name: normal[name] / max(normal["requests"], 1e-9) for name in _FIELDS}
    more, crowd = rises("requests", RISE), rises("clients", RISE)
    rising = [("requests", more, "requests"), ("clients", crowd, "clients")]
    rising.append(("newcomers", rises("newcomers", RISE_NEWCOMERS), "new clients"))
    rising.append(("accounts", rises("accounts", RISE_NEWCOMERS, LEAST_ACCOUNTS), "new accounts"))
    fresh = rising[2][1] or rising[3][1]
    risen = _rises(figures, rising)
    # 2 and 3
    loud: list[str] = []
    for alarm in ALARMS:
        name = alarm.name
        if (
            shares[name] >= alarm.share + before[name]
            and figures[name]["deviations"] >= DEVIATIONS
            and now[name] * WINDOW >= LEAST
            and (more or not alarm.rise)
        ):
            clients = max(getattr(minute, f"{name}_clients") for minute in window)
            told = [
                _share(alarm.words, shares[name], before[name]),
                f"they come from {_about(clients)} a minute",
            ]
            told += risen
            if clients >= CLIENTS and shares[f"{name}_others"] >= alarm.others:
                return "attack", 2, tuple(told), figures
            loud = loud or told  # and one who is loud hides no flood of others
    if loud:
        return "unsure", 3, (*loud, "one or two clients make nearly all of them: look at these"), figures
    # 4
    if more or crowd or fresh:
        odd = []
        if shares["unusual"] >= ODD_SHARE + before["unusual"] and figures["unusual"]["deviations"] >= DEVIATIONS:
            odd.append(_share(_UNUSUAL.words, shares["unusual"], before["unusual"]))
        if (
            shares["spreading"] >= SPREADING_SHARE + before["spreading"]
            and figures["spreading"]["deviations"] >= DEVIATIONS
        ):
            odd.append(
                _share(
                    "have a prompt template that spreads among many clients", shares["spreading"], before["spreading"]
                )
            )
        if odd:
            return "unsure", 4, (*odd, *risen), figures
    # 5
    if crowd or fresh:
        return "surge", 5, (*risen, _share("score like attackers’", shares["acted"], before["acted"])), figures
    # 6
    return "calm", 6, (f"{now['requests']:,.0f} requests a minute, usually {normal['requests']:,.0f}",), figures


def _usual(usual: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the median, the robust deviation and the mean of each count in the usual minutes, float64[counts] each."""
    median = np.median(usual, axis=0)
    spread = 1.4826 * np.median(np.abs(usual - median), axis=0)
    means = np.mean(usual, axis=0)  # of what comes less than once a minute the median is 0
    for alarm in ALARMS:  # what an attack that was there from the beginning leaves is not usual
        for name in (alarm.name, f"{alarm.name}_others"):
            place = _FIELDS.index(name)
            for values in (median, spread, means):
                values[place] = min(values[place], alarm.usual_most * median[0])
    return median, spread, means


def _figures(
    window: deque[Minute], usual: npt.NDArray[np.float64]
) -> tuple[dict[str, dict[str, float]], dict[str, float], dict[str, float]]:
    """Return figures of each count, the mean minute of the window, and the median one of the usual."""
    median, spread, means = _usual(usual)
    figures, now, normal = {}, {}, {}
    for place, name in enumerate(_FIELDS):
        mean = sum(minute[place] for minute in window) / len(window)
        middle = float(median[place])
        # Chance alone spreads counts by their root; and no service repeats itself to the twentieth part.
        scale = max(float(spread[place]), math.sqrt(max(float(means[place]), RAREST) / WINDOW), 0.05 * middle)
        now[name], normal[name] = mean, middle
        figures[name] = {"now": mean, "usual": middle, "deviations": (mean - middle) / scale}
    return figures, now, normal


def _rises(figures: dict[str, dict[str, float]], rising: list[tuple[str, bool, str]]) -> list[str]:
    return [
        f"{_count(figures[name]['now'])} {words} a minute, usually {_count(figures[name]['usual'])}"
        for name, holds, words in rising
        if holds
    ]


def _count(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}".removesuffix(".0")


def _about(clients: float) -> str:
    return "one client" if round(clients) == 1 else f"about {clients:.0f} clients"


def _share(what: str, share: float, usual: float) -> str:
    return f"{100 * share:.1f} % of the requests of the last {WINDOW} minutes {what}, usually {100 * usual:.1f} %"


def _distinct(taken: int, seats: int) -> float:
    """Estimate how many clients took so many of the seats (linear counting: Whang, Vander-Zanden and Taylor, 1990)."""
    return -seats * math.log(max(seats - taken, 1) / seats)
