"""What botsieve would have decided had it been enforced: its refusals change what it sees next.

A refused request reaches no model: it adds no tokens, no error and no time to its client's profile, exactly as in the service
(the completion of a refused request carries its verdict and nothing else). So the log is scored, its refused requests are
rewritten, and it is scored again, until nothing changes any more. A decision depends on nothing that comes after it; so decisions
that stay the same when the log is scored once more are those of the one run that hears of each refusal at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from classifier.events import VERDICTS
from classifier.model.apply import Scored
from classifier.whatif.traffic import Decided, Traffic, traffic_of

ROUNDS = 8
"""Times that a log is scored at most."""
_ENDED = ("duration", "status", "input_tokens", "output_tokens", "response_bytes")
Score = Callable[[Iterable[pa.Table], bool], Iterable[Scored]]
"""Scores event tables in input order, in the order of time; with reasons where the flag says so (they take the longest)."""
Flags = npt.NDArray[np.bool_]
Solved = Callable[[Traffic], Flags]
UnderLoad = Callable[[Traffic, Decided, Flags, Flags], Decided]
"""Adds what load brings about: takes the requests, the decisions, who solves challenges, and where decisions are enforced."""


@dataclass(frozen=True, slots=True)
class Enforced:
    """Decisions under enforcement: `refused` bool[n] in the order of time; `rounds` of scoring, and how many requests the
    last of them still decided otherwise than the one before (0: this is the causal run)."""  # fmt: skip

    traffic: Traffic
    shadow: Decided
    decided: Decided
    solved: npt.NDArray[np.bool_]
    refused: npt.NDArray[np.bool_]
    rounds: int
    unsettled: int


def enforced(
    tables: list[pa.Table],
    score: Score,
    solved: Solved,
    begins: float,
    *,
    under_load: UnderLoad = lambda traffic, decided, can, acts: decided,
    rounds: int = ROUNDS,
    explain: bool = True,
) -> Enforced:
    """Score event tables as if what is decided from `begins` on (s since the first arrival) had been enforced.

    `solved` marks the requests whose challenge would be solved. With `explain` a last scoring gives the reasons.
    """
    traffic, shadow = traffic_of(score(tables, False))
    can = solved(traffic)
    acts = traffic.time >= begins
    decided = under_load(traffic, shadow, can, acts)
    refused, unsettled, done = decided.refused(can, acts), 0, 1

    def again(reasons: bool) -> Decided:
        played = _rewritten(tables, traffic, decided, refused) if refused.any() else iter(tables)
        scored = Decided.joined([Decided.of(part) for part in score(played, reasons)])
        return under_load(traffic, scored, can, acts)

    while done < max(rounds, 2) and refused.any():
        played = again(False)
        other = (played.code != decided.code) | (played.waits != decided.waits)
        unsettled = int(np.sum(other & acts))
        done += 1
        if not unsettled:
            break
        decided, refused = played, played.refused(can, acts)
    if explain:
        decided = replace(decided, reasons=again(True).reasons)
    return Enforced(traffic, shadow, decided, decided.solved(can, acts), refused, done, unsettled)


def _rewritten(
    tables: list[pa.Table], traffic: Traffic, decided: Decided, refused: npt.NDArray[np.bool_]
) -> Iterator[pa.Table]:
    """Yield the event tables with the refused requests ended by their verdict."""
    code = np.full(len(traffic), -1, np.int8)  # in the order of the input
    code[traffic.row[refused]] = decided.code[refused]
    place = 0
    for table in tables:
        of_table = code[place : place + table.num_rows]
        place += table.num_rows
        yield _ended(table, of_table)


def _ended(table: pa.Table, code: npt.NDArray[np.int8]) -> pa.Table:
    hit = code >= 0
    if not hit.any():
        return table
    ended = [name for name in (*_ENDED, "verdict", "end") if name in table.column_names]  # "end": of a journal
    verdicts = pa.array(np.array([*VERDICTS, None], dtype=object)[code], pa.string())
    for name in ended:
        index = table.schema.get_field_index(name)
        column = table.column(name).combine_chunks()
        kept = pc.if_else(pa.array(hit), verdicts if name == "verdict" else pa.scalar(None, column.type), column)
        table = table.set_column(index, table.schema.field(index), kept)
    return table
