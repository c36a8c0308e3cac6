"""Scored requests as an evaluation gets them, composed of kinds of legitimate clients and attack families."""

from __future__ import annotations

import numpy as np
import pandas as pd

from classifier.policy import Budgets, decide_batch, thresholds_from_budgets

KINDS = {
    "chat_user": (0.55, 40, -5.0, 300, 400),
    "batch_job": (0.1, 900, -4.0, 900, 250),
    "agent": (0.2, 150, -4.5, 1500, 300),
    "crawler": (0.15, 30, -3.2, 60, 10),
}
FAMILIES = {
    "flood": (0.25, 600, 4.5, 40, 16),
    "slow_botnet": (0.35, 40, 0.5, 200, 150),
    "credential_stuffing": (0.2, 90, 3.0, 0, 0),
    "distillation": (0.2, 250, -1.0, 500, 1200),
}
"""Share of clients, mean requests of a client, mean raw score, mean input and output tokens."""


def scored_traffic(legitimate: int = 300, attackers: int = 60, seed: int = 0, scale: float = 1.0) -> pd.DataFrame:
    """Return scored, decided and labelled requests of an hour; `scale` multiplies the requests of each client."""
    rng = np.random.default_rng(seed)
    groups = [(False, name, legitimate, of) for name, of in KINDS.items()]
    groups += [(True, name, attackers, of) for name, of in FAMILIES.items()]
    parts = [_group(rng, *group, scale) for group in groups]
    frame = pd.concat([part for part in parts if len(part)], ignore_index=True)
    frame = frame.sort_values("time", kind="stable", ignore_index=True)
    frame.insert(0, "row", np.arange(len(frame)))
    raw = frame["raw"].to_numpy()
    frame["probability"] = 1 / (1 + np.exp(-(1.5 * raw.astype(np.float64) - 4.6)))
    kept = ~frame["malicious"].to_numpy(bool)
    ids = frame["client"].to_numpy(object)
    thresholds = thresholds_from_budgets(raw[kept] + np.float32(0.05), ids[kept], Budgets(0.02, 0.002))
    batch = decide_batch(raw, frame["probability"].to_numpy(), thresholds)
    frame["decision"], frame["score"] = batch.verdicts(), batch.scores
    frame["reasons"] = np.where(batch.codes > 0, "rate regularity", "")
    frame.loc[(batch.codes > 0) & (frame["row"] % 3 == 0), "reasons"] = "many_accounts rate"
    return frame


def _group(
    rng: np.random.Generator,
    malicious: bool,
    family: str,
    of_class: int,
    figures: tuple[float, float, float, float, float],
    scale: float,
) -> pd.DataFrame:
    part, mean, centre, tokens_in, tokens_out = figures
    clients = round(part * of_class)
    requests = 1 + rng.poisson(mean * scale * rng.lognormal(-0.5, 1.0, clients))
    client = np.repeat(np.arange(clients), requests)
    n = len(client)
    begin = rng.uniform(0, 2400, clients) if malicious else np.zeros(clients)
    end = begin + rng.uniform(60, 1200, clients) if malicious else np.full(clients, 3600.0)
    time = rng.uniform(begin[client], end[client])
    order = np.lexsort((time, client))
    place = np.arange(n) - (np.cumsum(requests) - requests)[client]
    learned = 1 - np.exp(-place / 8) if malicious else np.ones(n)
    raw = -5 + (centre + 5 + rng.normal(0, 0.7, clients)[client]) * learned + rng.normal(0, 0.6, n)
    return pd.DataFrame(
        {
            "time": (1.7e15 + time[order] * 1e6).astype(np.int64),
            "client": [f"{family}-{c}" for c in client[order]],
            "raw": raw.astype(np.float32),
            "malicious": malicious,
            "family": family,
            "input_tokens": pd.array(rng.poisson(tokens_in, n), "Int64"),
            "output_tokens": pd.array(rng.poisson(tokens_out, n), "Int64"),
        }
    )
