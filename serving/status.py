"""What the public may know: normal, degraded, under attack or registrations limited, now and over seven days.

Nothing here tells of a client, a score or a threshold. Several states may hold at once:

- `under_attack`: the verdict about the whole service is attack (classifier.situation);
- `degraded`: within the last minute the fail mode has answered 1 % of the requests or more;
- `registrations_limited`: within the last five minutes a tenth of the requests that make accounts, and five at least, have been
  challenged or blocked. Where nothing is enforced, nothing is limited.

The history is a byte a minute, 10 080 of them, written to the state folder once a minute.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from serving import disk
from serving.gate import Answer, Arrival, Gate
from serving.situation import Watch

log = logging.getLogger("botsieve.serving")

MINUTES = 7 * 1440
UNKNOWN = 255
"""Of a minute in which the service did not run."""
BITS = {"registrations_limited": 1, "degraded": 2, "under_attack": 4}
"""States by the bit that holds them; a minute without any is normal. The worst stands last."""
NORMAL = "normal"
FILE = "status.json"
AHEAD_MINUTES = 1440
"""Minutes by which a history that is read may lie ahead of now."""
FAILED_SHARE = 0.01
LIMITED_SHARE, LIMITED_LEAST, LIMITED_MINUTES = 0.1, 5, 5
INCIDENTS_SHOWN = 50
TICK_S = 5.0


class _Stored(msgspec.Struct):
    newest: int
    minutes: str


class History:
    """The states of the last `MINUTES` minutes, kept in a folder if there is one."""

    def __init__(self, folder: Path | None, now: float) -> None:
        """Read what a folder has. A file that cannot be read is put aside and logged: it is not worth a start that fails.

        So is one from the future, which a clock that was wrong has left: nothing could be added to it.
        """
        self._file = None if folder is None else folder / FILE
        self.minutes = bytearray([UNKNOWN]) * MINUTES
        self.newest = 0
        if self._file is None or not self._file.exists():
            return
        try:
            stored = msgspec.json.decode(self._file.read_bytes(), type=_Stored)
            minutes = base64.b64decode(stored.minutes, validate=True)
            if len(minutes) != MINUTES or stored.newest < 0 or not set(minutes) <= set(_WORST):
                raise ValueError("it has another length")
            if stored.newest > now // 60 + AHEAD_MINUTES:
                raise ValueError("it lies in the future")
        except (OSError, ValueError) as error:
            aside = disk.put_aside(self._file)
            log.error(
                "the history of the status cannot be read and begins anew",
                extra={"why": str(error)[:200], "aside": str(aside)},
            )
            return
        self.minutes, self.newest = bytearray(minutes), stored.newest

    def note(self, minute: int, bits: int) -> bool:
        """Add states to a minute (Unix time / 60); return whether a new minute has begun."""
        begun = minute > self.newest
        if minute - self.newest >= MINUTES:
            self.minutes[:] = bytearray([UNKNOWN]) * MINUTES
            self.newest = minute
        while self.newest < minute:
            self.newest += 1
            self.minutes[self.newest % MINUTES] = UNKNOWN
        if minute <= self.newest - MINUTES:
            return False
        place = minute % MINUTES
        self.minutes[place] = bits if self.minutes[place] == UNKNOWN else self.minutes[place] | bits
        return begun

    def content(self) -> bytes:
        """Return what the file holds."""
        return msgspec.json.encode(_Stored(self.newest, base64.b64encode(self.minutes).decode()))

    def write(self, content: bytes) -> None:
        """Put a content in the file, whole or not at all. Raises OSError."""
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            disk.put(self._file, content)

    def in_order(self) -> list[tuple[int, int]]:
        """Return (minute, bits) of every minute, oldest first."""
        first = self.newest - MINUTES + 1
        return [(minute, self.minutes[minute % MINUTES]) for minute in range(max(first, 0), self.newest + 1)]


class Status:
    """The public status of one service."""

    def __init__(self, gate: Gate, watch: Watch, now: Callable[[], float]) -> None:
        """`now` gives Unix s."""
        self._gate, self._watch, self._now = gate, watch, now
        self.history = History(gate.settings.state, now())
        self.registers = any(route.registration for route in gate.settings.routes)
        self._registrations: deque[tuple[int, int, int]] = deque(maxlen=LIMITED_MINUTES)  # minute, all, refused
        self._answers: deque[tuple[float, int, int]] = deque(maxlen=2 + round(60 / TICK_S))  # when, decisions, failed

    def answered(self, arrivals: Sequence[Arrival], answers: Sequence[Answer]) -> None:
        """Count the requests that make accounts, and those of them that were refused."""
        rules = self._gate.rules
        enforced = [
            answer.enforced
            for arrival, answer in zip(arrivals, answers, strict=True)
            if rules.of(arrival.event.path).registration
        ]
        if enforced:
            minute = int(self._now() // 60)
            if not self._registrations or self._registrations[-1][0] != minute:
                self._registrations.append((minute, 0, 0))
            _, asked, refused = self._registrations[-1]
            told = len(enforced) - enforced.count("allow")
            self._registrations[-1] = (minute, asked + len(enforced), refused + told)

    def states(self) -> list[str]:
        """Return the states that hold now, the worst first; none when all is normal."""
        holds = {
            "under_attack": self._watch.state == "attack",
            "degraded": self._degraded(),
            "registrations_limited": self._limited(),
        }
        return [name for name in reversed(BITS) if holds[name]]

    def _degraded(self) -> bool:
        now = self._now()
        before = next((seen for seen in self._answers if seen[0] >= now - 60.0), None)
        if before is None:
            return False
        decided, failed = self._answered()
        return failed - before[2] > 0 and failed - before[2] >= FAILED_SHARE * (decided - before[1])

    def _answered(self) -> tuple[int, int]:
        tallies = self._gate.tallies
        return sum(tallies.decisions.values()), sum(tallies.failed.values())

    def _limited(self) -> bool:
        oldest = int(self._now() // 60) - LIMITED_MINUTES
        recent = [(asked, refused) for minute, asked, refused in self._registrations if minute > oldest]
        asked, refused = (sum(each) for each in zip(*recent, strict=True)) if recent else (0, 0)
        return refused >= LIMITED_LEAST and refused >= LIMITED_SHARE * asked

    def tick(self) -> bool:
        """Take note of now; return whether a new minute has begun, so that the last one should be written."""
        bits = sum(BITS[name] for name in self.states())
        self._answers.append((self._now(), *self._answered()))
        return self.history.note(int(self._now() // 60), bits)

    async def keep(self) -> None:
        """Take note every few seconds and write every minute, until cancelled."""
        while True:
            if self.tick():
                await asyncio.to_thread(self._write, self.history.content())
            await asyncio.sleep(TICK_S)

    def close(self) -> None:
        """Write what is known when the service stops."""
        if self.history.newest:
            self._write(self.history.content())

    def _write(self, content: bytes) -> None:
        try:
            self.history.write(content)
        except OSError as error:
            log.error("the status could not be kept", extra={"why": error.strerror or str(error)})

    def shown(self) -> dict[str, Any]:
        """Return what the page and its JSON tell."""
        states = self.states()
        return {
            "state": states[0] if states else NORMAL,
            "states": states,
            "time": round(self._now()),
            "scope": "one replica of the service",
            "days": self._days(),
            "incidents": self._incidents(),
        }

    def _days(self) -> list[dict[str, Any]]:
        """Return, for each day (UTC) of the history, minutes by worst state, and the worst state of each hour."""
        days: dict[int, dict[str, Any]] = {}
        for minute, bits in self.history.in_order():
            if bits == UNKNOWN and not days:
                continue  # before anything is known
            hour, name = minute // 60 % 24, _WORST[bits]
            day = days.setdefault(minute // 1440, {"minutes": Counter(), "hours": [None] * 24})
            day["minutes"][name] += 1
            if day["hours"][hour] is None or _RANK[name] > _RANK[day["hours"][hour]]:
                day["hours"][hour] = name
        return [
            {"day": _text(day * 1440, "%Y-%m-%d"), "minutes": dict(content["minutes"]), "hours": content["hours"]}
            for day, content in sorted(days.items(), reverse=True)
        ]

    def _incidents(self) -> list[dict[str, str | None]]:
        """Return the newest stretches in which a state held, newest first; `until` is None while it does."""
        found: list[dict[str, Any]] = []
        open_: dict[str, dict[str, Any]] = {}
        before = 0
        for minute, bits in self.history.in_order():
            if bits == before:
                continue
            before = bits
            for name, bit in BITS.items():
                holds = bits != UNKNOWN and bool(bits & bit)
                if holds and name not in open_:
                    open_[name] = {"state": name, "since": _text(minute), "until": None}
                    found.append(open_[name])
                elif not holds and name in open_:
                    open_.pop(name)["until"] = _text(minute)
        return found[::-1][:INCIDENTS_SHOWN]


_RANK = {"unknown": 0, NORMAL: 1, "registrations_limited": 2, "degraded": 3, "under_attack": 4}


_WORST = {
    bits: max((name for name, bit in BITS.items() if bits & bit), key=_RANK.__getitem__, default=NORMAL)
    for bits in range(2 * max(BITS.values()))
} | {UNKNOWN: "unknown"}


def _text(minute: int, form: str = "%Y-%m-%dT%H:%MZ") -> str:
    return datetime.fromtimestamp(minute * 60, UTC).strftime(form)
