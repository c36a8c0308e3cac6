"""`botsieve replay`: drives a service with a log, transition by transition, and writes what `score` would write."""

from __future__ import annotations

import http.client
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import numpy as np
import pyarrow as pa

from classifier.cli.files import check_ending, write_tables
from classifier.cli.logs import LogOptions
from classifier.cli.terminal import bar, say
from classifier.errors import BotsieveError, InputError
from classifier.events import FIELDS, MICROSECONDS, clients_of
from classifier.features import layout as at
from classifier.features.order import Orderer, sorted_tables
from classifier.features.prepare import Events, Preparer
from classifier.model.apply import SCORES, in_input_order
from classifier.model.wording import counted

TOKEN_VARIABLE = "BOTSIEVE_TOKEN"
CHUNK_ROWS = 16_384
GROUP = 512
"""Most transitions of one kind in a request."""
QUIET_S = 240.0
"""A longer gap is announced to the service, which takes what is far ahead of its clock for a bad stamp."""

_ARRIVAL = [f.name for f in FIELDS if f.known == "arrival"]
_COMPLETION = [f.name for f in FIELDS if f.known == "completion"]
Send = Callable[[str, Any], Any]


def run(log: LogOptions, url: str, out: Path, speed: float | None) -> None:
    """Replay a log and write a row for each request."""
    check_ending(out)
    if speed is not None and not speed > 0:
        raise InputError(f"--speed takes a factor above 0, not {speed:g}")
    service = Service(url)
    if service.call("GET", "/readyz")["clock"] != "event":
        raise InputError(f"the service at {url} goes by its own clock; start it with --clock event to replay a log")
    decisions: Counter[str] = Counter()

    def results() -> Iterator[pa.Table]:
        tables = sorted_tables(log.tables(out, "reading"))
        with bar("replaying", log.quiet) as progress:
            for table in replayed(tables, service.post, pace=None if speed is None else Pace(speed)):
                decisions.update(table.column("decision").to_pylist())
                progress(sum(decisions.values()), log.reading.accepted)
                yield table
        log.conclude()  # before the file takes its name: too many rejects leave none behind

    began = time.monotonic()
    write_tables(out, SCORES, in_input_order(results()))
    rate = sum(decisions.values()) / max(time.monotonic() - began, 1e-9)
    say(f"{out}: {counted(decisions)} (requests); {rate:,.0f} requests/s", log.quiet)


def replayed(
    tables: Iterable[tuple[pa.Table, Any]], send: Send, *, pace: Callable[[int], None] | None = None
) -> Iterator[pa.Table]:
    """Replay sorted event tables (with the input rows of their events) through `send(path, body)`; yield `SCORES`.

    Transitions go out in the order of `classifier.features.order`. Arrivals that follow one another make one request, and so do
    completions; the next goes out when the reply is there. `pace(µs)` waits until a moment of the log may be replayed.
    """
    orderer, preparer = Orderer(), Preparer(b"times alone are read of it")
    sender = _Sender(send, pace)
    for table, row in tables:
        for begin in range(0, table.num_rows, CHUNK_ROWS):
            events = table.slice(begin, CHUNK_ROWS)
            rows = np.asarray(row[begin : begin + CHUNK_ROWS])
            prepared = preparer.table(events)
            prepared.row = rows
            sender.add(events, rows)
            sender.play(orderer.push(prepared))
            yield sender.taken()
    sender.play(orderer.push(Events.empty(), last=True))
    if sender.answers:
        yield sender.taken()


@dataclass
class _Sender:
    """Sends transitions in groups, and keeps what is needed of the events until they have ended."""

    send: Send
    pace: Callable[[int], None] | None
    arrivals: dict[int, dict[str, Any]] = field(default_factory=dict)
    ends: dict[int, dict[str, Any]] = field(default_factory=dict)
    clients: dict[int, str] = field(default_factory=dict)
    answers: list[tuple[int, float, str, dict[str, Any]]] = field(default_factory=list)
    group: list[int] = field(default_factory=list)
    kind: int = at.ARRIVAL
    newest: int = 0

    def add(self, events: pa.Table, rows: Any) -> None:
        """Take in events by the number of their row."""
        whole = events.to_pylist()
        for row, event, client in zip(rows.tolist(), whole, clients_of(events).to_pylist(), strict=True):
            self.arrivals[row] = {name: event[name] for name in _ARRIVAL if event[name] is not None}
            end = {name: event[name] for name in _COMPLETION if event[name] is not None}
            # The log says what was refused; without a word the service would go by what it enforced itself.
            self.ends[row] = {"verdict": "allow", **end}
            self.clients[row] = client

    def play(self, transitions: Any) -> None:
        """Send transitions in their order."""
        rows = transitions.events.row[transitions.event]
        for moment, kind, row in zip(
            transitions.time.tolist(), transitions.kind.tolist(), rows.tolist(), strict=True
        ):  # fmt: skip
            if kind == at.EXPIRY:
                if row in self.arrivals:
                    self.flush()
                self.ends.pop(row)  # it never came: the service lets it expire by itself
                continue
            if self.pace is not None or kind != self.kind or len(self.group) == GROUP:
                self.flush()
            self._follow(int(moment))
            self.kind = kind
            self.group.append(row)
        self.flush()

    def _follow(self, moment: int) -> None:
        if self.newest and moment - self.newest > QUIET_S * MICROSECONDS:
            self.flush()
            self.send("/v1/clock", {"time": moment / MICROSECONDS})
        self.newest = max(self.newest, moment)
        if self.pace is not None:
            self.pace(moment)

    def flush(self) -> None:
        """Send the group that has gathered, and take in the reply."""
        group, self.group = self.group, []
        if not group:
            return
        if self.kind == at.ARRIVAL:
            self._arrive(group)
        else:
            ends = [self.ends.pop(row) for row in group]
            for reply in self.send("/v1/complete", ends):
                if reply["result"] not in ("recorded", "refused"):
                    raise BotsieveError(
                        f"the service calls a completion {reply['result']}; replay into a service that was just started"
                    )

    def _arrive(self, group: list[int]) -> None:
        events = [self.arrivals.pop(row) for row in group]
        times = [event["time"] / MICROSECONDS for event in events]
        for event, moment in zip(events, times, strict=True):
            event["time"] = moment
        for row, moment, answer in zip(group, times, self.send("/v1/decide/batch", events), strict=True):
            self.ends[row]["id"] = answer["id"]
            self.answers.append((row, moment, self.clients.pop(row), answer))

    def taken(self) -> pa.Table:
        """Return the answers so far as `SCORES`, and let go of them."""
        answers, self.answers = self.answers, []
        replies = [answer for *_, answer in answers]
        if any(reply["raw"] is None for reply in replies):
            raise BotsieveError("the service answered by its fail mode, so there is no score; see its log")
        return pa.table(
            {
                "row": [row for row, *_ in answers],
                "time": [moment for _, moment, _, _ in answers],
                "client": [client for _, _, client, _ in answers],
                **{name: [reply[name] for reply in replies] for name in ("raw", "probability", "score", "decision")},
                "reasons": [" ".join(reply["reasons"]) or None for reply in replies],
                "family": [reply["family"] for reply in replies],
            },
            schema=SCORES,
        )


class Pace:
    """Lets a log pass at a multiple of its own speed."""

    def __init__(
        self, speed: float, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._speed, self._clock, self._sleep = speed, clock, sleep
        self._begin: tuple[int, float] | None = None

    def __call__(self, moment: int) -> None:
        """Wait until `moment` (µs of the log) is due."""
        self._begin = self._begin or (moment, self._clock())
        due = self._begin[1] + (moment - self._begin[0]) / MICROSECONDS / self._speed
        if (wait := due - self._clock()) > 0:
            self._sleep(wait)


_ABOUT_CONTENT = (400, 404, 409, 410, 413, 422)


class Unreachable(BotsieveError):  # noqa: N818 - what it is
    """No answer came, or one that says nothing about what was sent (the token, the load, a failure): later it may be taken."""


class Service:
    """A thin HTTP client of a botsieve service: one connection that is kept, JSON both ways."""

    def __init__(self, url: str, timeout_s: float = 60.0) -> None:
        """Take `http://HOST:PORT` or https. The token comes from `BOTSIEVE_TOKEN`. Raises InputError for another URL."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
            raise InputError(f"--url takes http://HOST:PORT, not {url!r}")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname, parts.port, timeout=timeout_s)
        self._url = url
        self._headers = {"Content-Type": "application/json"}
        token = os.environ.get(TOKEN_VARIABLE)
        if token:
            self._headers["Authorization"] = f"Bearer {token}"

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()

    def post(self, path: str, body: Any) -> Any:
        """Send JSON; return the reply's."""
        return self.call("POST", path, msgspec.json.encode(body))

    def call(self, method: str, path: str, body: bytes | None = None) -> Any:
        """Send a request; return the reply's JSON. Raises BotsieveError with what the service says is wrong."""
        try:
            self._connection.request(method, path, body, self._headers)
            reply = self._connection.getresponse()
            content = reply.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()  # the next call opens it again
            raise Unreachable(
                f"no answer from {self._url} ({type(error).__name__}); is botsieve serve running there?"
            ) from error
        if reply.status >= 300:
            kind = BotsieveError if reply.status in _ABOUT_CONTENT else Unreachable
            raise kind(f"{self._url}{path} answered {reply.status}: {_detail(content)}")
        try:
            return msgspec.json.decode(content)
        except msgspec.DecodeError as error:
            raise Unreachable(f"{self._url}{path} answered no JSON: no botsieve, or a proxy in front of it") from error


def _detail(content: bytes) -> str:
    try:
        document = msgspec.json.decode(content)
        return str(document["detail"])[:300]
    except (msgspec.DecodeError, KeyError, TypeError):
        return "no botsieve, or a proxy in front of it"
