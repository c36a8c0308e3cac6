"""The use case without HTTP: events come in, decisions go out, completions are matched by id.

A request is decided in two steps, so that requests that arrive together share one call of the scorer:

    pending = gate.prepare([event])            # checks only; Rejected leaves no trace
    arrivals = gate.arrive_all(pending)        # moves the profiles, in this order
    judged = gate.judge(arrivals)              # one call of the scorer; may raise
    answers = gate.answer(arrivals, judged)    # policy, reasons, mode; `fail` answers instead when judging failed

Time is int64 µs on one running clock that never goes back: an arrival's is at least that of the transition before it, a
completion's lies after every arrival that was processed before it (but for one of no length, which may follow
its own arrival directly). That is the order of section "order" in classifier.features.order, so a log of what was processed
gives the same rows again.
"""

from __future__ import annotations

import secrets
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from classifier.errors import InputError
from classifier.events import MICROSECONDS, Event, check, microseconds
from classifier.features import layout as at
from classifier.features.engine import Engine, Tables
from classifier.features.order import EXPIRY_US
from classifier.features.prepare import Described, Preparer
from classifier.logs.address import client_address
from classifier.model.judge import Judge
from classifier.policy import ALLOW_LIST, DENY_LIST, PASS, WAIT, Decision, Thresholds, Verdict, decide
from serving.settings import FailMode, Rules, Settings
from serving.shadow import Shadow
from serving.snapshot import Clock

Result = Literal["recorded", "refused", "duplicate", "expired", "unknown"]
_REFUSED = ("challenge", "block")
RUNS_KEPT = 8
LONGEST_PATH = 512
"""Characters of a path that are kept with a decision."""
FAILING_S = 10.0


class Rejected(ValueError):  # noqa: N818 - what it is, not a failure
    """An event or completion that cannot be taken. `reason` is a word for the counter; nothing has changed."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class LiveEvent(Event, kw_only=True):
    """An event as a gateway sends it: where the service's clock counts, `time` may be absent and is not read."""

    time: int | float | str = 0


class Completion(msgspec.Struct, forbid_unknown_fields=False):
    """What is known when the response has ended. `verdict` is for logs; a live service knows what it enforced."""

    id: str
    status: int | None = None
    duration: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    response_bytes: int | None = None
    verdict: str | None = None


class Answer(msgspec.Struct, omit_defaults=True):
    """What `/v1/decide` answers. Numbers are null when scoring failed; `failed` then says how the fail mode answered."""

    id: str
    decision: Verdict
    enforced: Verdict
    raw: float | None
    probability: float | None
    score: int | None
    reasons: tuple[str, ...]
    family: str | None
    challenge: dict[str, Any] | None = None
    warming_up: bool = False
    failed: FailMode | None = None


@dataclass(slots=True)
class Pending:
    """A checked event that has not arrived yet."""

    event: Event
    time: int
    """When it arrives, µs, unless the clock has gone on by then."""
    described: Described


@dataclass(slots=True)
class Live:
    """What a route knows of a request beside its event: what a policy for live traffic may ask for."""

    token: str | None = None
    """The pass that the client carries."""
    load: float | None = None
    """How loaded the gateway says it is, 0 to 1."""


@dataclass(slots=True)
class Arrival:
    """An arrival that has moved the profiles: its serial number, time in µs, client (16 hex digits) and feature row."""

    serial: int
    id: str
    time: int
    client: str
    row: npt.NDArray[np.float32]
    event: Event
    hashes: npt.NDArray[np.uint64]
    live: Live
    prompt_length: int | None = None
    prompt_score: float | None = None


@dataclass(slots=True)
class Judged:
    """Scores of n arrivals: raw and probability float32[n], reasons joined by blanks or None, attack families or None.

    `by` is the model that gave them.
    """

    raw: npt.NDArray[np.float32]
    probability: npt.NDArray[np.float32]
    reasons: list[str | None]
    families: list[str | None]
    by: Judge | None = None


class Decided(msgspec.Struct, gc=False):
    """What is kept of a decision, to explain it later: no prompt, no address, no account.

    The collector of garbage does not look at it: there are a hundred thousand of them, and a look takes 0.1 s.
    """

    id: str
    time: int
    client: str
    decision: Verdict
    enforced: Verdict
    raw: float | None
    probability: float | None
    score: int | None
    reasons: tuple[str, ...]
    bundle: str
    path: str
    family: str | None = None
    completed: bool = False
    refused: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return what `GET /v1/decisions/{id}` tells."""
        values = {name: getattr(self, name) for name in self.__struct_fields__}
        return {**values, "time": self.time / MICROSECONDS}


class Recorder(Protocol):
    """Sees every transition as it is processed: the journal."""

    def arrived(self, arrival: Arrival, decided: Decided) -> None:
        """Take an arrival that has been answered."""
        ...

    def ended(self, serial: int, time: int, completion: Event | None) -> None:
        """Take the end of an arrival at `time` µs; `completion` is None where it expired."""
        ...

    def solved(self, serial: int) -> None:
        """Take note that the challenge of an arrival was solved."""
        ...

    async def forget(self, clients: Collection[str]) -> bool:
        """Remove clients (16 hex digits each); return whether one was known. Raises OSError."""
        ...


@dataclass
class Hooks:
    """Where the parts of a live service take hold. Each may be absent; together they change nothing in a calm replay."""

    decide: Callable[[Arrival, float, float], tuple[Decision, Sequence[str]]] | None = None
    """Decides with circumstances; returns the decision and reasons to put before the model's."""
    prepare_model: Callable[[Judge, Thresholds], Callable[[], None]] | None = None
    """Makes what `decide` needs of another model, and returns what puts it in force. Raises InputError, with nothing changed."""
    challenge: Callable[[Decided], dict[str, Any]] | None = None
    """Tells where the challenge is, for a decision that is enforced as one."""
    admit: Callable[[str, str, bool], str | None] | None = None
    """Tells of a pass and a client None if it holds, else why not, and uses it up once where the flag says so. It lifts a
    challenge, never a block."""
    full: Callable[[Arrival], bool] | None = None
    """Tells whether there is no room for a client with a pass: then the challenge stays, and the pass is not used."""
    page: Callable[[Answer, str, str], tuple[list[tuple[bytes, bytes]], bytes] | None] | None = None
    """Makes the page of a refused request from the answer, the Accept header and the URI asked for: its headers and
    body. None for programs."""
    recorder: Recorder | None = None
    listed: Callable[[Event], Literal["allow", "deny"] | None] | None = None
    """Tells whether the operator has listed who asks; it holds when scoring fails, too."""
    let_through: Callable[[Arrival], None] | None = None
    """Sees an arrival that goes on although it was decided otherwise (pass, shadow, warm-up), or by the fail mode."""
    ended: Callable[[int], None] | None = None
    """Sees the serial number of an arrival that has ended or expired."""
    answered: Callable[[Sequence[Arrival], Sequence[Answer], Judged], None] | None = None
    """Sees arrivals that were scored and answered in one call. It must not raise, and should only take note."""
    forgotten: Callable[[Collection[str]], None] | None = None
    """Hears which clients (16 hex digits each) are to be forgotten."""


@dataclass
class Tallies:
    """What happened, for the metrics: each a counter by its labels."""

    decisions: Counter[tuple[str, str]] = field(default_factory=Counter)  # decision, enforced
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)  # reason, decision
    rejected: Counter[str] = field(default_factory=Counter)
    completions: Counter[str] = field(default_factory=Counter)
    failed: Counter[tuple[str, str]] = field(default_factory=Counter)  # cause, fail mode
    passes: Counter[str] = field(default_factory=Counter)  # "admitted", "waits", or why not
    challenges: Counter[str] = field(default_factory=Counter)  # "solved", or why not
    tokens: Counter[tuple[str, str]] = field(default_factory=Counter)  # asked for, by decision and what was enforced
    snapshots: Counter[str] = field(default_factory=Counter)  # "written" or "failed"
    unbelieved: int = 0  # forwarded addresses from senders that are no trusted proxies
    behind: int = 0  # arrivals while the machine's clock was more than 1 s behind the running one
    journal: Counter[str] = field(default_factory=Counter)  # rows "written", "failed" or "dropped"


class Gate:
    """Decides about requests with one engine and one model. Not thread-safe: one event loop owns it."""

    def __init__(
        self,
        settings: Settings,
        model: Judge,
        secret: bytes,
        now: Callable[[], float],
        *,
        challenger: Judge | None = None,
        restored: tuple[Engine, Clock] | None = None,
    ) -> None:
        """Make a gate that knows nobody, or goes on from a snapshot.

        `now` gives Unix seconds and counts with `--clock server` alone.
        """
        self.settings, self.hooks, self.tallies = settings, Hooks(), Tallies()
        self.rules = Rules(settings)
        if restored is None:
            self.engine = Engine(model.sizes, pending_limit=settings.pending_limit, record=self._record)
        else:
            self.engine = restored[0]
            self.engine.record = self._record
        self.shadow = None if challenger is None else Shadow(challenger)
        self.model, self.thresholds = model, _thresholds(model, settings)
        self.mode_override: str | None = None
        self.run, self.first = secrets.token_hex(4), self.engine.arrivals
        self._runs: dict[str, int] = {} if restored is None else restored[1].runs
        self._preparer, self._now = Preparer(secret, model.prompts), now
        self._events_time = settings.clock == "event"
        self._ahead = round(settings.ahead_s * MICROSECONDS)
        self._clock = -1 if self.engine.clock < 0 else int(self.engine.clock)
        self._last_arrival = (self._clock, -1)  # time, serial
        self._kept: OrderedDict[int, Decided] = OrderedDict()
        serials, events = self.engine.pending()
        # When those in flight arrived, µs.
        self._open: dict[int, int] = dict(zip(serials.tolist(), events.time.tolist(), strict=True))
        self._completing: Event | None = None
        # First and newest answer of the fail mode since one of the model.
        self._failing: tuple[float, float] | None = None

    # --- what is loaded --------------------------------------------------------------------------------------------------

    def load(self, model: Judge) -> None:
        """Let another model decide from the next request on.

        Raises InputError if its tables are of another size or it cannot hold the budgets; then the model in use stays.
        """
        if model.sizes != self.model.sizes:
            raise InputError(
                f"the bundle {model.bundle.path} has tables of another size, and what is remembered does not fit them:"
                " train with the same --capacity, or restart the service, which then knows nobody"
            )
        thresholds = _thresholds(model, self.settings)
        take = self.hooks.prepare_model and self.hooks.prepare_model(model, thresholds)
        self.model, self.thresholds = model, thresholds  # from here on nothing can fail
        self._preparer.prompts = model.prompts
        if take is not None:
            take()

    def warm(self) -> None:
        """Run the whole way once on a gate that is thrown away, so that the first request waits for no compiler.

        On a machine where nothing is compiled yet that takes about half a minute, and every gateway would have given up.
        """
        settings = self.settings.model_copy(update={"clock": "server", "mode": "enforce"})
        nobody = Engine(Tables.for_clients(64)), Clock(0.0, 0.0, 0, 0.0, {})
        scratch = Gate(settings, self.model, bytes(16), lambda: 1.0, restored=nobody)
        event = LiveEvent(
            "192.0.2.1", "POST", "/v1/chat/completions", account="a", user_agent="a", prompt="Hello", model="m"
        )
        for together in (1, 2):
            arrivals = scratch.arrive_all(scratch.prepare([msgspec.structs.replace(event) for _ in range(together)]))
            scratch.answer(arrivals, self.judge(arrivals))
            scratch.complete(Completion(arrivals[0].id, status=200, duration=0.5, input_tokens=1, output_tokens=1))
        self.model.warm()

    @property
    def bundle(self) -> str:
        """Hash that names the bundle which decides."""
        return self.model.bundle.manifest.manifest_sha256

    @property
    def failing(self) -> bool:
        """Whether the fail mode has given every answer for 10 s or more, and the newest less than 10 s ago.

        Who is not asked any more because of that is asked again, and may find that it works.
        """
        if self._failing is None:
            return False
        first, newest = self._failing
        now = self._now()
        return now - first >= FAILING_S > now - newest

    # --- time ------------------------------------------------------------------------------------------------------------

    @property
    def clock(self) -> int:
        """The running clock, µs; -1 before anything has happened."""
        return self._clock

    @property
    def warming_up(self) -> bool:
        """Whether too little has been seen since an empty start for anything to be enforced."""
        start = self.engine.start
        return start is None or self._clock - start < self.settings.warm_up_s * MICROSECONDS

    def advance(self, time: float | str) -> None:
        """Move the running clock over a quiet stretch of a log that is replayed, so that what follows is not too far ahead.

        Raises Rejected with the service's own clock, or for a time that is none.
        """
        if not self._events_time:
            raise Rejected("clock", "time is the service's own: start it with --clock event to set it")
        self._clock = max(self._clock, _microseconds(time))

    def _arrival_time(self, event: Event, clock: int, now: int) -> int:
        if not self._events_time:
            if isinstance(event.time, str):
                _microseconds(event.time)  # not needed, and still no time if it is none
            self.tallies.behind += now < clock - MICROSECONDS
            return max(now, clock)
        time = _microseconds(event.time)
        if clock >= 0 and time > clock + self._ahead:
            late = (time - clock) / MICROSECONDS
            raise Rejected(
                "ahead", f"time lies {late:.0f} s ahead of the running clock, more than {self.settings.ahead_s:g} s"
            )
        return max(time, clock)

    # --- arrivals --------------------------------------------------------------------------------------------------------

    def prepare(self, events: Sequence[Event]) -> list[Pending]:
        """Check events that will arrive in this order. Raises Rejected for the first that cannot be taken; all or none."""
        clock, now, pending = self._clock, 0 if self._events_time else round(self._now() * MICROSECONDS), []
        for place, event in enumerate(events):
            try:
                check(event)
                event.ip = client_address(event.ip)
                clock = self._arrival_time(event, clock, now)
                event.time = clock / MICROSECONDS  # exact: microseconds(time) gives the same integer again
                pending.append(Pending(event, clock, self._preparer.described(event)))
            except (ValueError, OverflowError) as error:
                reason = error.reason if isinstance(error, Rejected) else "invalid"
                where = f"event {place}: " if len(events) > 1 else ""
                raise Rejected(reason, where + _printable(error)) from error
        return pending

    def arrive_all(self, pending: Sequence[Pending], lives: Sequence[Live] | None = None) -> list[Arrival]:
        """Record arrivals that come together, in this order; `lives` has what is known of each beside its event."""
        if not pending:
            return []
        times, clock = [], self._clock
        for one in pending:  # the clock may have gone on since they were prepared
            clock = max(one.time, clock)
            times.append(clock)
        events = self._preparer.gathered([one.described for one in pending], times)
        first, rows = self.engine.arrive_all(events)
        self._clock, self._last_arrival = clock, (clock, first + len(pending) - 1)
        lives = lives or [Live()] * len(pending)
        arrivals = []
        for place, (one, live, time) in enumerate(zip(pending, lives, times, strict=True)):
            serial, event, length, score = first + place, one.event, None, None
            if event.prompt is not None:  # all that is kept of it are a hash, its length and its score
                length, score, event.prompt = len(event.prompt), events.values.item(place, at.V_PROMPT_SCORE), None
            self._open[serial] = time
            arrivals.append(
                Arrival(
                    serial, f"{serial:x}-{self.run}", time, f"{one.described[0]:016x}", rows[place], event,
                    events.hashes[place], live, length, score,
                )
            )  # fmt: skip
        return arrivals

    def judge(self, arrivals: Sequence[Arrival]) -> Judged:
        """Score and explain arrivals in one call. Changes nothing, so it may run in another thread."""
        model, rows = self.model, _rows(arrivals)
        raw, probability = model.score(rows)
        return Judged(raw, probability, *model.explained(rows, raw), model)

    def answer(self, arrivals: Sequence[Arrival], judged: Judged) -> list[Answer]:
        """Decide about scored arrivals and keep what was decided. Raises ValueError when a score is no number."""
        by = judged.by
        if by is not None and by is not self.model:  # another model was loaded meanwhile, with its thresholds
            judged = self.judge(arrivals)
        raws, probabilities = judged.raw.tolist(), judged.probability.tolist()
        policy, thresholds, bundle = self.hooks.decide, self.thresholds, self.bundle
        decided: list[tuple[Decision, Sequence[str]]] = []
        for arrival, raw, probability in zip(arrivals, raws, probabilities, strict=True):
            if policy is None:
                decided.append((decide(raw, probability, thresholds), ()))
            else:
                decided.append(policy(arrival, raw, probability))
        answers = []
        for arrival, (decision, why), raw, probability, own, family in zip(
            arrivals, decided, raws, probabilities, judged.reasons, judged.families, strict=True
        ):
            enforced, warming = self._enforced(arrival, decision.decision, why)
            if enforced == "challenge" and (shown := self._shown(arrival)) is not None:
                enforced, why = "allow" if shown == PASS else enforced, (*why, shown)
            if enforced == "allow" and decision.decision != "allow" and self.hooks.let_through is not None:
                self.hooks.let_through(arrival)
            kept = Decided(
                arrival.id, arrival.time, arrival.client, decision.decision, enforced, raw, probability, decision.score,
                (*why, *own.split()) if own else tuple(why), bundle, arrival.event.path[:LONGEST_PATH],
                None if decision.decision == "allow" else family,
            )  # fmt: skip
            answers.append(self._conclude(arrival, kept, warming))
        self._failing = None
        if self.shadow is not None:
            self.shadow.compare(_rows(arrivals), [d.decision for d, _ in decided])
        if self.hooks.answered is not None:
            self.hooks.answered(arrivals, answers, judged)
        return answers

    def fail(self, arrivals: Sequence[Arrival], cause: str) -> list[Answer]:
        """Answer by the fail mode, because scoring failed or was late (`cause`)."""
        now = self._now()
        self._failing = (now if self._failing is None else self._failing[0], now)
        answers = []
        for arrival in arrivals:
            mode = self.rules.of(arrival.event.path).fail_mode
            verdict: Verdict = "block" if mode == "closed" else "allow"
            listed = self.hooks.listed and self.hooks.listed(arrival.event)
            why: tuple[str, ...] = ()
            if listed is not None:
                verdict, why = ("allow", (ALLOW_LIST,)) if listed == "allow" else ("block", (DENY_LIST,))
            enforced, warming = self._enforced(arrival, verdict, why)
            self.tallies.failed[cause, str(mode)] += 1
            if enforced == "allow" and self.hooks.let_through is not None:
                self.hooks.let_through(arrival)
            kept = Decided(
                arrival.id, arrival.time, arrival.client, verdict, enforced, None, None, None, (*why, f"scoring_{cause}"),
                self.bundle, arrival.event.path[:LONGEST_PATH],
            )  # fmt: skip
            answers.append(self._conclude(arrival, kept, warming, mode))
        return answers

    def _conclude(self, arrival: Arrival, kept: Decided, warming: bool, failed: FailMode | None = None) -> Answer:
        """Keep, count and journal a decision; a request that is refused has ended with it."""
        self._kept[arrival.serial] = kept
        if len(self._kept) > self.settings.decisions_kept:
            self._kept.popitem(last=False)
        self.tallies.decisions[kept.decision, kept.enforced] += 1
        self.tallies.tokens[kept.decision, kept.enforced] += arrival.event.max_tokens or 0
        if kept.decision != "allow":
            self.tallies.reasons.update((reason, kept.decision) for reason in kept.reasons)
        if self.hooks.recorder is not None:
            self.hooks.recorder.arrived(arrival, kept)
        challenge = None
        if kept.enforced == "challenge" and self.hooks.challenge is not None:
            challenge = self.hooks.challenge(kept)
        # With the event's time the log says what became of a request; live, a refused one never reaches the model server,
        # and waiting for a completion that may not come would count it as in flight.
        if kept.enforced in _REFUSED and not self._events_time:
            self._end(arrival.serial, Completion(arrival.id, verdict=kept.enforced))
            kept.completed = kept.refused = True
        return Answer(
            kept.id, kept.decision, kept.enforced, kept.raw, kept.probability, kept.score, kept.reasons, kept.family,
            challenge, warming, failed,
        )  # fmt: skip

    def _enforced(self, arrival: Arrival, decision: Verdict, why: Sequence[str]) -> tuple[Verdict, bool]:
        """Return what the gateway is told, and whether that is because of the warm-up, which lists do not need."""
        if decision == "allow":
            return decision, False
        mode = self.mode_override or self.rules.of(arrival.event.path).mode
        if mode == "shadow":
            return "allow", False
        warming = self.warming_up and DENY_LIST not in why
        return ("allow" if warming else decision), warming

    def _shown(self, arrival: Arrival) -> str | None:
        """Return what the client's pass does: it lets through, and is used up by one, or it has to wait. None without one."""
        if self.hooks.admit is None or arrival.live.token is None:
            return None
        full = self.hooks.full is not None and self.hooks.full(arrival)
        refusal = self.hooks.admit(arrival.live.token, arrival.client, not full)
        self.tallies.passes[refusal or ("waits" if full else "admitted")] += 1
        if refusal is not None:
            return None
        return WAIT if full else PASS

    # --- completions -----------------------------------------------------------------------------------------------------

    def check_completion(self, completion: Completion) -> None:
        """Raise Rejected when a value of a completion is impossible."""
        try:
            check(_ending(completion))
        except ValueError as error:
            raise Rejected("invalid", _printable(error)) from error

    def complete(self, completion: Completion) -> Result:
        """Record a checked completion; what became of it. Only `recorded` moves a profile."""
        result = self._complete(completion)
        self.tallies.completions[result] += 1
        return result

    def _complete(self, completion: Completion) -> Result:
        serial = self._serial(completion.id)
        if serial is None:
            return "unknown"
        kept = self._kept.get(serial)
        if kept is not None and kept.refused:
            return "refused"
        if kept is not None and kept.completed:
            return "duplicate"
        if not self._end(serial, completion):
            return "expired"
        if kept is not None:
            kept.completed = True
        return "recorded"

    def _end(self, serial: int, completion: Completion) -> bool:
        """Let an arrival end; False if it is no longer in flight."""
        values = self.engine.values_of(serial)
        if values is None or serial not in self._open:
            return False
        ending = _ending(completion)
        kept = self._kept.get(serial)
        if ending.verdict is None and kept is not None and not self._events_time:
            ending.verdict = kept.enforced
        time = self._completion_time(serial, ending.duration)
        if time > self._open[serial] + EXPIRY_US:
            return False  # it expires at its own moment, whoever asks
        self._preparer.completion(values, ending)
        self._completing = ending
        try:
            done = self.engine.complete(serial, float(time), values)
        finally:
            self._completing = None
        self._clock = max(self._clock, time)
        return done

    def _completion_time(self, serial: int, duration: float | None) -> int:
        """Return the moment of a completion, µs: arrival and duration where both are known, and never in the past."""
        last, newest = self._last_arrival
        if self._events_time:
            time = self._open[serial] + (0 if duration is None else round(duration * MICROSECONDS))
            if time == last == self._clock and serial == newest:
                return time
        else:
            time = round(self._now() * MICROSECONDS)
        return max(time, self._clock, last + 1)

    def _serial(self, text: str) -> int | None:
        """Return the serial number in an id of this start, or of one that the snapshot knew; None for any other."""
        number, _, run = text.partition("-")
        first, end = (self.first, self.engine.arrivals) if run == self.run else (0, self._runs.get(run, 0))
        if not end or not number or len(number) > 15 or not set(number) <= _HEX:
            return None
        serial = int(number, 16)
        return serial if first <= serial < end and f"{serial:x}" == number else None

    @property
    def runs(self) -> dict[str, int]:
        """The random parts of the ids of this start and the newest before it, each with the serial number where it ended.

        What was decided between a snapshot and a crash is in no profile: its ids are unknown, though its serial numbers
        are given out again.
        """
        return {**dict(list(self._runs.items())[-RUNS_KEPT:]), self.run: self.engine.arrivals}

    def _record(self, time: float, kind: int, serial: int) -> None:
        """Forget what has ended, and tell the journal, in the order in which the engine processes it."""
        if kind != at.ARRIVAL:
            self._open.pop(serial, None)
            if self.hooks.ended is not None:
                self.hooks.ended(serial)
        if self.hooks.recorder is not None and kind != at.ARRIVAL:
            self.hooks.recorder.ended(serial, int(time), self._completing if kind == at.COMPLETION else None)

    def forget(self, client: str) -> bool:
        """Remove a client, by account or address, from profiles and kept decisions; return whether it was known."""
        account, address = self._keys_of(client)
        named = set(self.client_ids(client))
        known = [self.engine.forget("client", key) for key in (account, address)]
        known.append(self.engine.forget("address", address))
        gone = [serial for serial, kept in self._kept.items() if kept.client in named]
        for serial in gone:
            del self._kept[serial]
        if self.hooks.forgotten is not None:
            self.hooks.forgotten(named)
        return any(known) or bool(gone)

    def client_ids(self, client: str) -> tuple[str, ...]:
        """Return the names (16 hex digits) under which a client may be known, as an account and as an address."""
        return tuple(f"{key:016x}" for key in self._keys_of(client))

    def _keys_of(self, client: str) -> tuple[int, int]:
        address = client
        with suppress(ValueError):
            address = client_address(client)
        return self._preparer.client_keys(client)[0], self._preparer.client_keys(address)[1]

    # --- looking back ----------------------------------------------------------------------------------------------------

    def decision(self, text: str) -> Decided | None:
        """Return what was decided under an id, if it is among the newest."""
        serial = self._serial(text)
        return None if serial is None else self._kept.get(serial)

    def decisions_of(self, client: str, first: int, end: int) -> list[Decided]:
        """Return the decisions that are kept about a client (16 hex digits), of serial numbers from `first` to before `end`."""
        found = map(self._kept.get, range(first, end))
        return [kept for kept in found if kept is not None and kept.client == client]

    def solved(self, text: str) -> None:
        """Let the journal know that the challenge of a decision was solved."""
        serial = self._serial(text)
        if serial is not None and self.hooks.recorder is not None:
            self.hooks.recorder.solved(serial)


_HEX = frozenset("0123456789abcdef")


def _rows(arrivals: Sequence[Arrival]) -> npt.NDArray[np.float32]:
    if len(arrivals) == 1:
        return arrivals[0].row[None, :]
    return np.array([arrival.row for arrival in arrivals])  # as np.stack, in less time


def _thresholds(model: Judge, settings: Settings) -> Thresholds:
    """Return the bundle's thresholds, or those of the budgets that the settings state."""
    from classifier.policy import Budgets, thresholds_from_curve

    manifest = model.bundle.manifest
    asked = {"challenge": settings.challenge_budget, "block": settings.block_budget}
    stated = {name: value for name, value in asked.items() if value is not None}
    if not stated:
        return model.thresholds
    budgets = Budgets(**{**manifest.budgets, **stated})
    return thresholds_from_curve(manifest.policy_curve(), budgets, tuple(stated))


def _ending(completion: Completion) -> Event:
    """Return a completion as an event, which is what checks and prepares it."""
    return Event(
        0, "-", "-", "-", duration=completion.duration, status=completion.status, input_tokens=completion.input_tokens,
        output_tokens=completion.output_tokens, response_bytes=completion.response_bytes, verdict=completion.verdict,
    )  # fmt: skip


def _microseconds(time: float | str) -> int:
    try:
        return microseconds(time)
    except (ValueError, OverflowError) as error:
        reason = "is no RFC 3339 text with an offset" if isinstance(time, str) else "is not in the years 1970 to 2261"
        raise Rejected("invalid", f"time {reason}") from error


def _printable(error: Exception) -> str:
    """Return an error's text, safe to send back: short, and without what a terminal or a log would act on."""
    return str(error).encode("ascii", "backslashreplace").decode()[:300]
