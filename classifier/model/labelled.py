"""Scored and labelled requests as arrays, in the order of time, with their clients numbered group by group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from classifier.errors import InputError
from classifier.events import VERDICTS
from classifier.model.metrics import Kind

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]
COLUMNS = ("row", "time", "client", "raw", "probability", "decision", "malicious", "family")
UNNAMED = "unnamed"


@dataclass(frozen=True)
class LabelledRequests:
    """n requests by (time, row). A group is an attack family or a kind of legitimate client, legitimate ones first.

    A client is a client id together with its label and family: an account whose key was stolen counts once as its owner
    and once as the thief. Clients are numbered so that those of one group follow each other.

    time int64[n] µs; raw float32[n]; probability float64[n]; code intp[n], places in `VERDICTS`; tokens float64[n],
    missing as 0; malicious bool[n]; weight float64[n], how many requests of its client each stands for; client intp[n];
    group_of_client intp[clients]; groups by number.
    """

    time: npt.NDArray[np.int64]
    raw: npt.NDArray[np.float32]
    probability: Floats
    code: Places
    tokens: Floats
    malicious: npt.NDArray[np.bool_]
    weight: Floats
    client: Places
    group_of_client: Places
    groups: list[tuple[Kind, str]]
    has_tokens: bool
    unlabelled: int

    @property
    def attack_clients(self) -> npt.NDArray[np.bool_]:
        """Which clients are attackers, bool[clients]."""
        return np.array([kind == "attack" for kind, _ in self.groups])[self.group_of_client]


def labelled_requests(scored: pd.DataFrame) -> LabelledRequests:
    """Read the table that `evaluate` takes; errors are described there."""
    rows = _checked(scored)
    malicious = rows["malicious"].to_numpy(bool)
    groups, group = _groups(malicious, rows["family"])
    client, group_of_client = _clients(rows["client"], group)
    tokens = [rows[name] for name in ("input_tokens", "output_tokens") if name in rows.columns]
    return LabelledRequests(
        time=rows["time"].to_numpy(np.int64),
        raw=rows["raw"].to_numpy(np.float32),
        probability=rows["probability"].to_numpy(np.float64),
        code=pd.Index(VERDICTS).get_indexer(pd.Index(rows["decision"].astype(object))),
        tokens=sum((_filled(column) for column in tokens), np.zeros(len(rows))),
        malicious=malicious,
        weight=rows["weight"].to_numpy(np.float64) if "weight" in rows.columns else np.ones(len(rows)),
        client=client,
        group_of_client=group_of_client,
        groups=groups,
        has_tokens=any(bool(column.notna().any()) for column in tokens),
        unlabelled=len(scored) - len(rows),
    )


def first_actions(requests: LabelledRequests) -> tuple[Floats, Floats]:
    """Return what each client got through before its first challenge or block: requests and tokens, float64[clients].

    0 means that its very first request was acted on, infinity that none was.
    """
    order = np.argsort(requests.client, kind="stable")
    client, weight = requests.client[order], requests.weight[order]
    tokens = requests.tokens[order] * weight
    start = np.searchsorted(client, np.arange(len(requests.group_of_client)))
    came, spent = np.cumsum(weight) - weight, np.cumsum(tokens) - tokens
    acted = np.flatnonzero(requests.code[order] > 0)
    who, place = np.unique(client[acted], return_index=True)
    first = acted[place]
    before, cost = np.full((2, len(start)), np.inf)
    before[who] = came[first] - came[start[who]]
    cost[who] = spent[first] - spent[start[who]]
    return before, cost


def _checked(scored: pd.DataFrame) -> pd.DataFrame:
    absent = [name for name in COLUMNS if name not in scored.columns]
    if absent:
        raise InputError(f"the scored requests lack the column{'s' * (len(absent) > 1)} {', '.join(absent)}")
    rows = scored[scored["malicious"].notna()]
    if rows.empty:
        raise InputError("no request has a label (malicious true or false), so there is nothing to evaluate against")
    unknown = rows.loc[~rows["decision"].isin(VERDICTS), "decision"]
    if not unknown.empty:
        raise InputError(f"a decision is none of {', '.join(VERDICTS)}: {unknown.iloc[0]!r}")
    if rows["raw"].isna().any() or not rows["probability"].between(0, 1).all():
        raise InputError("a raw score is NaN or a probability is not in [0, 1]: score the log again")
    return rows.iloc[np.lexsort((rows["row"].to_numpy(), rows["time"].to_numpy()))]


def _groups(malicious: npt.NDArray[np.bool_], family: pd.Series[Any]) -> tuple[list[tuple[Kind, str]], Places]:
    """Number the pairs of label and family: legitimate kinds first, each by name."""
    code, names = pd.factorize(family.astype(object).where(family.notna(), UNNAMED), sort=True)
    seen, group = np.unique(malicious * len(names) + code, return_inverse=True)
    groups: list[tuple[Kind, str]] = [
        ("attack" if place >= len(names) else "legitimate", str(names[place % len(names)])) for place in seen
    ]
    return groups, group


def _clients(ids: pd.Series[Any], group: Places) -> tuple[Places, Places]:
    code, names = pd.factorize(ids, use_na_sentinel=False)
    pair, client = np.unique(group * len(names) + code, return_inverse=True)
    return client, pair // len(names)


def _filled(column: pd.Series[Any]) -> Floats:
    return np.asarray(np.nan_to_num(column.to_numpy(np.float64, na_value=np.nan)))
