"""A service as a program that holds to be under attack, whatever it counts, and in which nobody is known."""

from __future__ import annotations

import sys
from typing import Any

from classifier.situation import Situation, Verdict
from serving import challenging
from serving.__main__ import main


def _told(_: Situation) -> Verdict:
    return Verdict("attack", 0, 2, ("told by a test",), {}, 0)


def _unheard(_: Situation, verdict: Any) -> None:
    pass


if __name__ == "__main__":
    Situation.verdict = property(_told, _unheard)  # type: ignore[misc, assignment]
    challenging.WAIT_S = (1, 1)
    sys.exit(main())
