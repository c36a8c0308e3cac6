"""What is known of a request before it is answered, beside its score: whether its client is known, and what it will cost.

The service asks about one request at a time, a what-if about all of a log; they get the same answers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from classifier.features.spec import COLUMN

Floats = npt.NDArray[np.float64]
TYPICAL_TOKENS = 1000.0
"""Tokens that a typical request takes, in and out, unless stated."""
BYTES_PER_TOKEN = 4.0
"""Of English text, about: for the size of a prompt before anybody has counted its tokens."""
LEAST_USED, MOST_TOKENS = 0.01, 10_000_000.0
ERRORS_OF_KNOWN = 0.2
"""Share of refused keys beyond which a client is not known."""
_USED = COLUMN["client_used_over_asked"]
_SEEN, _AGE = COLUMN["client_requests_seen"], COLUMN["client_age"]
_ERRORS = COLUMN["client_auth_error_share_4096s"]
_ACCOUNT_AGE = COLUMN["request_account_age"]


@dataclass(frozen=True, slots=True)
class Known:
    """Who is known: who had come for `client_s` (s) when the attack began, and has made so many requests by now.

    Not with bad keys, and not under an account younger than `account_s` (s). The age of an account alone says nothing: old
    accounts are for sale.
    """

    account_s: float = 86_400.0
    client_s: float = 3_600.0
    requests: int = 10

    def history(self, rows: npt.NDArray[np.float32]) -> Any:
        """Return for how long the clients of requests have come, s; of who cannot be known, -inf. Features float32[..., F]."""
        row = np.asarray(rows)
        # NaN, which is nothing answered yet or no account, speaks against nobody.
        against = (row[..., _ERRORS] > ERRORS_OF_KNOWN) | (row[..., _ACCOUNT_AGE] < math.log2(self.account_s + 1.0))
        return np.where(against | (row[..., _SEEN] < self.requests), np.float32(-np.inf), row[..., _AGE])


def predicted_tokens(
    request_bytes: int | None, max_tokens: int | None, row: npt.NDArray[np.float32], typical: float
) -> float:
    """Return the tokens that a request will take: those of its text, and of `max_tokens` what its client tends to use."""
    used = row.item(_USED)
    share = 1.0 if math.isnan(used) else min(max(used, LEAST_USED), 1.0)
    asked = typical if max_tokens is None else float(max_tokens) * share
    return min((request_bytes or 0) / BYTES_PER_TOKEN + asked, MOST_TOKENS)


def predicted_tokens_of(
    request_bytes: Floats, max_tokens: Floats, rows: npt.NDArray[np.float32], typical: float
) -> Floats:
    """Return the same of n requests: float64[n], NaN where a request does not say; features float32[n, F]."""
    share = np.clip(np.nan_to_num(rows[:, _USED].astype(np.float64), nan=1.0), LEAST_USED, 1.0)
    asked = np.where(np.isnan(max_tokens), typical, max_tokens * share)
    return np.minimum(np.nan_to_num(request_bytes) / BYTES_PER_TOKEN + asked, MOST_TOKENS)
