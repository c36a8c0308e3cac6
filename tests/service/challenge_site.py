"""What the tests of challenges share: a secret, clients, a clock, quick puzzles and their solutions."""

from dataclasses import dataclass
from typing import Any

import altcha

from serving.challenge import ChallengeOptions

SECRET = bytes(range(32))
CLIENT = "00112233aabbccdd"
OTHER = "ffeeddccbbaa9988"
QUICK = ChallengeOptions(work_least=256, work_most=4096)


@dataclass
class Clock:
    """A clock that stands still until it is set."""

    at: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.at


def payload(issued: dict[str, Any]) -> str:
    """The solution of a challenge, as the widget sends it."""
    challenge = altcha.Challenge.from_dict(issued)
    solution = altcha.solve_challenge(challenge)
    assert solution is not None
    return altcha.Payload(challenge, solution).to_base64()
