"""The console's parts together: what they show, once a second, to everybody who looks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any

import msgspec

from serving.circumstances import Observer
from serving.console.client import Clients
from serving.console.figures import Figures
from serving.console.rows import NewestRows
from serving.console.scores import Scores
from serving.console.sessions import Sessions
from serving.console.suspects import Suspects
from serving.drifting import Drift
from serving.gate import Gate
from serving.recent import Batch, Recent

STREAMS = 16
"""Browsers that may follow at the same time."""
SLOW = 5
"""Messages that may wait for a browser that does not read; then it is let go, and connects anew."""
SUSPECTS_S = 3.0
"""Between two looks at who is acted on: in a flood, a look takes some ms."""


class Desk:
    """What one service shows to its operator."""

    def __init__(self, gate: Gate, observer: Observer, drift: Drift, recent: Recent, now: Callable[[], float]) -> None:
        """Follow a gate. `now` gives Unix s."""
        self._gate, self._observer, self._drift, self._recent, self._now = gate, observer, drift, recent, now
        self.figures = Figures(gate, observer.load.now, now)
        self.scores = Scores(gate)
        self.suspects = Suspects(addresses=not gate.settings.pseudonyms)
        self.rows = NewestRows()
        self.clients = Clients(gate, self.suspects, self.rows)
        self.sessions = Sessions(time.monotonic)
        self.stopping: Callable[[], bool] = lambda: False
        """Whether the server is about to stop: streams end then, or it would wait for them."""
        self._streams: set[asyncio.Queue[bytes | None]] = set()
        self._looked: tuple[float, dict[str, Any]] | None = None
        self._model = gate.model
        recent.followers += [self._renew, self.scores.follow, self.suspects.follow, self.rows.follow]
        recent.beats.append(self.beat)
        gate.hooks.forgotten = self._forget

    def _forget(self, clients: Collection[str]) -> None:
        """Remove clients from everything that the console remembers."""
        self._recent.pass_on()  # what waits to be followed may be theirs
        self._looked = None
        self.suspects.forget(clients)
        self.rows.forget(clients)

    def _renew(self, _: Batch) -> None:
        """Begin anew with another model: its raw scores mean something else."""
        if self._gate.model is not self._model:
            self._model, self._looked = self._gate.model, None
            self.suspects.clear()
            self.rows.clear()

    def beat(self) -> None:
        """Do what is done each second."""
        if self._gate.settings.clock == "server":  # time passes where nobody comes, too
            minute = round(self._now()) // 60
            self.suspects.fade(minute)
            self.scores.advance(minute)
        self.tick()
        if self.stopping():
            self.close()

    def tick(self) -> None:
        """End a second, and tell it to whoever follows."""
        self.figures.tick()
        if not self._streams:
            return
        message = _event("now", self.shown())
        for stream in list(self._streams):
            if stream.qsize() >= SLOW:
                self._end(stream)
            else:
                stream.put_nowait(message)

    def close(self) -> None:
        """End every stream."""
        for stream in list(self._streams):
            self._end(stream)

    def _end(self, stream: asyncio.Queue[bytes | None]) -> None:
        self._streams.discard(stream)
        stream.put_nowait(None)

    @property
    def full(self) -> bool:
        """Whether as many follow as may."""
        return len(self._streams) >= STREAMS

    async def follow(self, holds: Callable[[], bool]) -> AsyncIterator[bytes]:
        """Yield server-sent events: the seconds so far, then what holds now, each second, as long as `holds` does."""
        stream: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._streams.add(stream)
        try:
            yield b"retry: 2000\n\n" + _event("history", [list(second) for second in self.figures.seconds])
            yield _event("now", self.shown())
            while (message := await stream.get()) is not None and holds():
                yield message
        finally:
            self._streams.discard(stream)

    def shown(self) -> dict[str, Any]:
        """Return everything the page shows, as of the second that has ended."""
        gate, figures = self._gate, self.figures
        return {
            "time": round(self._now(), 2),
            "second": list(figures.seconds[-1]) if figures.seconds else None,
            "acted_share": figures.acted_share(),
            "situation": _situation(self._observer.watch.shown()),
            "mode": self._mode(),
            "warming_up": gate.warming_up,
            "bundle": gate.bundle[:16],
            "provider": gate.model.providers[0],
            "load": round(self._observer.load.now(), 4),
            "totals": figures.totals(),
            "challenges": figures.challenges(),
            "challenger": figures.challenger(),
            "scores": self.scores.histogram(),
            "drift": self._drift.shown(),
            **self._suspects(),
        }

    def _mode(self) -> str:
        """Return the mode, or "mixed" where routes differ."""
        settings = self._gate.settings
        modes = {settings.mode, *(route.mode or settings.mode for route in settings.routes)}
        return self._gate.mode_override or (str(settings.mode) if len(modes) == 1 else "mixed")

    def _suspects(self) -> dict[str, Any]:
        now = time.monotonic()
        if self._looked is None or now - self._looked[0] >= SUSPECTS_S:
            self._looked = (
                now,
                {
                    "clients": self.suspects.top(),
                    "campaigns": self.suspects.campaigns(),
                    "suspects": len(self.suspects),
                },
            )
        return self._looked[1]


def _situation(shown: dict[str, Any]) -> dict[str, Any]:
    """Return the verdict with the newest changes alone: a page has no room for all."""
    changes = [{name: change[name] for name in ("state", "since", "evidence")} for change in shown["changes"][:5]]
    return {name: shown[name] for name in ("state", "since", "rule", "evidence", "figures")} | {"changes": changes}


def _event(name: str, content: Any) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(content))
