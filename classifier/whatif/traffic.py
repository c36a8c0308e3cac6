"""The requests of a log as a what-if needs them: columns, in the order of time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from classifier.circumstances import TYPICAL_TOKENS, Known, predicted_tokens_of
from classifier.errors import InputError
from classifier.events import MICROSECONDS, clients_of
from classifier.model.apply import Scored
from classifier.policy import ALLOW, CHALLENGE
from classifier.whatif.solving import software_of

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
UNNAMED = "(no name)"


@dataclass(frozen=True, slots=True)
class Traffic:
    """n requests in the order of time.

    row int64[n], number in the input; time float64[n], s since `start` (Unix s); client, address int64[n], codes, and the
    clients' names object[clients]; software, family, path object[n]; attack, legitimate bool[n], both False where a log
    that has labels has none; labelled: whether there are any (without, all count as legitimate); input_tokens,
    output_tokens float64[n], NaN where unknown.
    """

    row: npt.NDArray[np.int64]
    time: Floats
    start: float
    client: npt.NDArray[np.int64]
    names: npt.NDArray[np.object_]
    address: npt.NDArray[np.int64]
    software: npt.NDArray[np.object_]
    family: npt.NDArray[np.object_]
    path: npt.NDArray[np.object_]
    attack: Flags
    legitimate: Flags
    labelled: bool
    input_tokens: Floats
    output_tokens: Floats
    refused_before: int
    """Requests that the log itself says were challenged or blocked: their tokens are not known."""

    def __len__(self) -> int:
        return len(self.row)

    @property
    def tokens(self) -> Floats:
        """Input and output tokens, float64[n], 0 where unknown."""
        return np.asarray(np.nan_to_num(self.input_tokens) + np.nan_to_num(self.output_tokens))

    @property
    def span(self) -> float:
        """From the first arrival to the last, s."""
        return float(self.time[-1]) if len(self) else 0.0


def traffic_of(scored: Iterable[Scored]) -> tuple[Traffic, Decided]:
    """Return the requests of a scored log, and what was decided of them. Raises InputError for a log without events."""
    events: list[pa.Table] = []
    decided: list[Decided] = []
    for part in scored:
        kept = part.events.select([*_KEPT, "user_agent", "path"])
        path = pa.chunked_array([pc.utf8_slice_codeunits(c, 0, 200) for c in kept.column("path").chunks], pa.string())
        events.append(
            kept.drop_columns(["user_agent", "path"])
            .append_column(
                "software", pa.array(software_of(kept.column("user_agent")), pa.string()).dictionary_encode()
            )
            .append_column("path", pc.list_element(pc.split_pattern(path, "?", max_splits=1), 0))
            .append_column("client", clients_of(part.events))
            .append_column("row", part.results.column("row"))
        )
        decided.append(Decided.of(part))
    whole = pa.concat_tables(events).unify_dictionaries() if events else None
    if whole is None or not whole.num_rows:
        raise InputError("the log holds no request that could be read: there is nothing to forecast")
    client, names = pd.factorize(whole.column("client").to_pandas())
    address, _ = pd.factorize(whole.column("ip").to_pandas())
    label = whole.column("malicious").to_pandas()
    known, labelled = label.notna().to_numpy(), bool(label.notna().any())
    attack = np.zeros(len(label), np.bool_)
    attack[known] = label[known].astype(bool)
    micro = whole.column("time").to_numpy()
    verdict = whole.column("verdict")
    traffic = Traffic(
        row=whole.column("row").to_numpy(),
        time=(micro - micro[0]) / MICROSECONDS,
        start=float(micro[0]) / MICROSECONDS,
        client=client.astype(np.int64),
        names=np.asarray(names, dtype=object),
        address=address.astype(np.int64),
        software=whole.column("software").cast(pa.string()).to_numpy(zero_copy_only=False),
        family=whole.column("family").fill_null(UNNAMED).to_numpy(zero_copy_only=False),
        path=whole.column("path").fill_null("").to_numpy(zero_copy_only=False),
        attack=attack,
        legitimate=known & ~attack if labelled else np.ones(len(label), np.bool_),
        labelled=labelled,
        input_tokens=_floats(whole.column("input_tokens")),
        output_tokens=_floats(whole.column("output_tokens")),
        refused_before=int(pc.sum(pc.is_in(verdict, value_set=pa.array(["challenge", "block"]))).as_py() or 0),
    )
    return traffic, Decided.joined(decided)


_KEPT = ("time", "ip", "verdict", "malicious", "family", "input_tokens", "output_tokens")


@dataclass(frozen=True, slots=True)
class Decided:
    """What was decided of n requests: code uint8[n] (`policy.ALLOW` …), raw float32[n], reasons object[n].

    And what load asks: the client's `history` in s (`Known.history`), float32[n], and the `cost`, predicted tokens over
    typical ones, float64[n]. `waits`, bool[n], marks challenges that no pass lifts, because the gateway is full.
    """

    code: npt.NDArray[np.uint8]
    raw: npt.NDArray[np.float32]
    reasons: npt.NDArray[np.object_]
    history: npt.NDArray[np.float32]
    cost: Floats
    waits: Flags

    @classmethod
    def of(cls, part: Scored) -> Decided:
        """Return the decisions of some scored requests."""
        results, events = part.results, part.events
        asked, most = _floats(events.column("request_bytes")), _floats(events.column("max_tokens"))
        tokens = predicted_tokens_of(asked, most, part.rows, TYPICAL_TOKENS)
        verdict = results.column("decision").to_numpy(zero_copy_only=False).astype(str)
        code = (verdict == "challenge") + 2 * (verdict == "block").astype(np.uint8)
        return cls(
            code.astype(np.uint8),
            results.column("raw").to_numpy(),
            results.column("reasons").to_numpy(zero_copy_only=False),
            Known().history(part.rows),
            tokens / TYPICAL_TOKENS,
            np.zeros(len(tokens), np.bool_),
        )

    def solved(self, can: Flags, acts: Flags) -> Flags:
        """Mark what goes on after a challenge, bool[n]: `can` solve one, `acts` is where decisions are enforced."""
        return np.asarray(acts & (self.code == CHALLENGE) & can & ~self.waits)

    def refused(self, can: Flags, acts: Flags) -> Flags:
        """Mark what does not reach the model, bool[n]: `can` solve a challenge, `acts` is where decisions are enforced."""
        return np.asarray(acts & (self.code != ALLOW) & ~self.solved(can, acts))

    @classmethod
    def joined(cls, parts: list[Decided]) -> Decided:
        """Return the decisions of all parts."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__slots__))


def _floats(column: pa.ChunkedArray) -> Floats:
    return np.array(pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False), np.float64)
