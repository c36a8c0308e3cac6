"""What botsieve would touch of a log, before anything is enforced: how much, whom, and why."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt

from classifier.model.wording import printable
from classifier.policy import BLOCK, CHALLENGE
from classifier.whatif.causal import Enforced
from classifier.whatif.traffic import Traffic

MOST_CLIENTS, MOST_KINDS, MOST_REASONS = 20, 12, 12
Flags = npt.NDArray[np.bool_]


def forecast(traffic: Traffic, enforced: Enforced, begins: float) -> dict[str, Any]:
    """Return what would be touched of the requests from `begins` (s) on, JSON-ready.

    `all` is the whole traffic; of a labelled log also `legitimate` and `attack`. `kinds` are by software and path, `families`
    by label, `clients` the most touched, `reasons` by requests.
    """
    measured = traffic.time >= begins
    parts = {"all": measured}
    if traffic.labelled:
        parts |= {"legitimate": measured & traffic.legitimate, "attack": measured & traffic.attack}
    touched = measured & (enforced.decided.code > 0)
    kinds = np.char.add(np.char.add(traffic.software.astype(str), "  "), traffic.path.astype(str))
    return {
        "shares": {name: _shares(traffic, enforced, rows) for name, rows in parts.items()},
        "families": _by(traffic, enforced, traffic.family, measured) if traffic.labelled else [],
        "kinds": [line for line in _by(traffic, enforced, kinds, measured) if line["touched"]][:MOST_KINDS],
        "clients": _clients(traffic, enforced, touched, measured),
        "reasons": [
            {"reason": reason, "requests": count}
            for reason, count in _reasons(enforced, touched).most_common(MOST_REASONS)
        ],
    }


def _shares(traffic: Traffic, enforced: Enforced, rows: Flags) -> dict[str, Any]:
    code = enforced.decided.code[rows]
    touched = code > 0
    clients, tokens = np.unique(traffic.client[rows]), traffic.tokens[rows]
    requests = max(int(rows.sum()), 1)
    return {
        "requests": int(rows.sum()),
        "clients": len(clients),
        "tokens": float(tokens.sum()),
        "touched": float(touched.sum() / requests),
        "challenged": float((code == CHALLENGE).sum() / requests),
        "solved": float(enforced.solved[rows].sum() / requests),
        "blocked": float((code == BLOCK).sum() / requests),
        "lost": float(enforced.refused[rows].sum() / requests),
        "clients_touched": len(np.unique(traffic.client[rows][touched])),
        "tokens_lost": float(tokens[enforced.refused[rows]].sum() / max(tokens.sum(), 1.0)),
    }


def _by(traffic: Traffic, enforced: Enforced, names: npt.NDArray[Any], measured: Flags) -> list[dict[str, Any]]:
    """Return a line for each name, those with most requests touched first."""
    kinds, code = np.unique(names[measured].astype(str), return_inverse=True)
    acted = enforced.decided.code[measured]
    counts = [
        np.bincount(code, weight, len(kinds)).astype(int)
        for weight in (None, acted > 0, acted == BLOCK, enforced.refused[measured], traffic.attack[measured])
    ]
    lines = [
        {
            "name": printable(str(kind), 60),
            "attack": bool(counts[4][i] * 2 > counts[0][i]),
            "requests": int(counts[0][i]),
            "touched": int(counts[1][i]),
            "blocked": int(counts[2][i]),
            "lost": int(counts[3][i]),
        }
        for i, kind in enumerate(kinds)
    ]
    return sorted(lines, key=lambda line: (-line["touched"], -line["requests"], line["name"]))


def _clients(traffic: Traffic, enforced: Enforced, touched: Flags, measured: Flags) -> list[dict[str, Any]]:
    counts = np.bincount(traffic.client[touched], minlength=len(traffic.names))
    most = [int(c) for c in np.lexsort((np.arange(len(counts)), -counts))[:MOST_CLIENTS] if counts[c]]
    lines = []
    for client in most:
        rows = measured & (traffic.client == client)
        acted = rows & touched
        lines.append(
            {
                "client": printable(str(traffic.names[client])),
                "family": printable(str(traffic.family[rows][0]), 24) if traffic.labelled else None,
                "attack": bool(traffic.attack[rows].any()),
                "software": str(traffic.software[acted][0]),
                "requests": int(rows.sum()),
                "touched": int(counts[client]),
                "blocked": int((enforced.decided.code[acted] == BLOCK).sum()),
                "lost": int(enforced.refused[rows].sum()),
                "reasons": [reason for reason, _ in _reasons(enforced, acted).most_common(3)],
            }
        )
    return lines


def _reasons(enforced: Enforced, rows: Flags) -> Counter[str]:
    counted: Counter[str] = Counter()
    texts, times = np.unique(np.array([r or "" for r in enforced.decided.reasons[rows]], dtype=str), return_counts=True)
    for text, count in zip(texts.tolist(), times.tolist(), strict=True):
        for reason in text.split():
            counted[reason] += count
    return counted
