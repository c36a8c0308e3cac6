"""What is known of a request before it is answered: one at a time as for many, and who is known."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from classifier.circumstances import Known, predicted_tokens, predicted_tokens_of
from classifier.features.spec import COLUMN, NAMES

numbers = st.one_of(st.none(), st.integers(0, 10**9))


def row(**given: float) -> np.ndarray:
    values = np.full(len(NAMES), np.nan, np.float32)
    for name, value in given.items():
        values[COLUMN[name]] = value
    return values


@given(st.lists(st.tuples(numbers, numbers, st.one_of(st.just(math.nan), st.floats(0, 4, width=32))), min_size=1))
def test_a_request_costs_the_same_alone_and_among_others(asked: list[tuple[int | None, int | None, float]]) -> None:
    rows = np.stack([row(client_used_over_asked=used) for *_, used in asked])
    size, most = (
        np.array([math.nan if v is None else float(v) for v in column]) for column in list(zip(*asked, strict=True))[:2]
    )
    alone = [predicted_tokens(b, m, one, 800.0) for (b, m, _), one in zip(asked, rows, strict=True)]
    assert predicted_tokens_of(size, most, rows, 800.0).tolist() == alone


def test_known_is_who_has_come_long_and_often_and_with_good_keys() -> None:
    known = Known(account_s=86_400.0, client_s=3_600.0, requests=10)
    good = {"client_age": 7_200.0, "client_requests_seen": 10.0, "client_auth_error_share_4096s": 0.1}
    assert known.history(row(**good)) == 7_200.0, "an account of unknown age is not held against anybody"
    against = [
        {"client_requests_seen": 9.0},
        {"client_auth_error_share_4096s": 0.3},
        {"request_account_age": math.log2(86_000.0)},
    ]
    rows = np.stack([row(**good), *(row(**{**good, **one}) for one in against)])
    assert known.history(rows).tolist() == [7_200.0, -math.inf, -math.inf, -math.inf]
    assert known.history(row(**{**good, "request_account_age": math.log2(87_000.0)})) == 7_200.0
