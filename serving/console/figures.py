"""Figures of each second: decisions by verdict, taken from the very counters that `/metrics` shows."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Any, NamedTuple

from classifier.events import VERDICTS
from serving.gate import Gate

SECONDS = 900
"""Seconds that are remembered."""
RECENT_S = 10


class Second(NamedTuple):
    """What one second brought: when it ended (Unix s), decisions by verdict, answers of the fail mode, the load 0 to 1."""

    time: float
    allow: int
    challenge: int
    block: int
    failed: int
    load: float


class Figures:
    """The last `SECONDS` seconds, and the totals since the start."""

    def __init__(self, gate: Gate, load: Callable[[], float], now: Callable[[], float]) -> None:
        self._gate, self._load, self._now = gate, load, now
        self._before = self._counted()
        self.seconds: deque[Second] = deque(maxlen=SECONDS)

    def _counted(self) -> tuple[int, ...]:
        tallies = self._gate.tallies
        decided: Counter[str] = Counter()
        for (decision, _), count in tallies.decisions.items():
            decided[decision] += count
        return (*(decided[verdict] for verdict in VERDICTS), sum(tallies.failed.values()))

    def tick(self) -> Second:
        """End a second, and return it."""
        counted = self._counted()
        allow, challenge, block, failed = (now - then for now, then in zip(counted, self._before, strict=True))
        self._before = counted
        second = Second(round(self._now(), 2), allow, challenge, block, failed, round(self._load(), 4))
        self.seconds.append(second)
        return second

    def acted_share(self) -> float | None:
        """Return the share of the last `RECENT_S` seconds' requests that were challenged or blocked; None of none."""
        recent = list(self.seconds)[-RECENT_S:]
        acted = sum(second.challenge + second.block for second in recent)
        total = acted + sum(second.allow for second in recent)
        return acted / total if total else None

    def totals(self) -> dict[str, Any]:
        """Return what has been counted since the start, by the names of the metrics."""
        gate, tallies = self._gate, self._gate.tallies
        decided: Counter[str] = Counter()
        enforced: Counter[str] = Counter()
        for (decision, told), count in tallies.decisions.items():
            decided[decision] += count
            enforced[told] += count
        return {
            "decided": {verdict: decided[verdict] for verdict in VERDICTS},
            "enforced": {verdict: enforced[verdict] for verdict in VERDICTS},
            "arrivals": gate.engine.arrivals,
            "in_flight": gate.engine.in_flight,
            "failed": sum(tallies.failed.values()),
            "rejected": sum(tallies.rejected.values()),
        }

    def challenges(self) -> dict[str, Any]:
        """Return how many challenges were enforced and solved since the start, and how many solutions were refused.

        Those that tell to wait for room have nothing to solve: `rate` is of the others.
        """
        tallies = self._gate.tallies
        told = sum(count for (_, enforced), count in tallies.decisions.items() if enforced == "challenge")
        waits = tallies.passes["waits"]
        solved, puzzles = tallies.challenges["solved"], told - waits
        refused = sum(count for result, count in tallies.challenges.items() if result != "solved")
        return {
            "issued": told,
            "waits": waits,
            "puzzles": puzzles,
            "solved": solved,
            "refused": refused,
            "rate": solved / puzzles if puzzles else None,
            "passes": tallies.passes["admitted"],
        }

    def challenger(self) -> dict[str, Any] | None:
        """Return how often both models were compared and decided otherwise; None without a challenger."""
        if self._gate.shadow is None:
            return None
        counts = self._gate.shadow.counts()
        compared = {pair: count for pair, count in counts.items() if pair[0] in VERDICTS}
        apart = {pair: count for pair, count in compared.items() if pair[0] != pair[1]}
        total, different = sum(compared.values()), sum(apart.values())
        return {
            "compared": total,
            "apart": different,
            "rate": different / total if total else None,
            "pairs": [
                {"champion": champion, "challenger": challenger, "count": count}
                for (champion, challenger), count in sorted(apart.items(), key=lambda item: -item[1])
            ],
            "not_compared": sum(counts.values()) - total,
        }
