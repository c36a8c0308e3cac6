"""Who can solve a challenge: a stated table, because a challenge to a client that cannot is a loss."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from classifier.errors import InputError
from classifier.features.agents import BROWSER, CLIENT_LIBRARY, DECLARED_BOT, MISSING, OTHER, agent_class

SOFTWARE = {
    BROWSER: "browser",
    CLIENT_LIBRARY: "library",
    DECLARED_BOT: "declared_bot",
    OTHER: "other",
    MISSING: "none",
}
"""Kinds of software by user agent."""
CAN_SOLVE = {"browser": True, "library": False, "declared_bot": False, "other": False, "none": False}
"""What solves a challenge by itself. A program on a library solves it only with `serving.auth.BotsieveAuth`; whose programs
do is the operator's to say (`--solves library`, or the name of a labelled kind of client)."""
Attackers = Literal["as-software", "all", "none"]


@dataclass(frozen=True, slots=True)
class Solving:
    """Names of software (`SOFTWARE`) or of labelled kinds whose challenges are solved; and what attackers are taken to do.

    Attackers solve as their software would (whoever shows a browser's user agent is then taken to run one), all of them, or
    none.
    """

    names: frozenset[str] = frozenset(name for name, can in CAN_SOLVE.items() if can)
    attackers: Attackers = "as-software"

    @classmethod
    def of(cls, names: str, attackers: str, families: Collection[str] = ()) -> Solving:
        """Read `--solves` (names with commas, or none) and `--attackers-solve`. Raises InputError for an unknown name."""
        chosen = frozenset(name.strip() for name in names.split(",") if name.strip() and name.strip() != "none")
        known = {*CAN_SOLVE, *families}
        unknown = sorted(chosen - known)
        if unknown:
            raise InputError(f"--solves: {unknown[0]!r} is none of {', '.join(sorted(known))}")
        if attackers not in get_args(Attackers):
            raise InputError(f"--attackers-solve takes {', '.join(get_args(Attackers))}, not {attackers}")
        return cls(chosen, attackers)  # type: ignore[arg-type]

    def solve(
        self, software: npt.NDArray[np.object_], family: npt.NDArray[np.object_], attack: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.bool_]:
        """Mark the requests whose challenge is solved, bool[n]: by software, family (or None) and label."""
        by_software = np.isin(software.astype(str), list(self.names))
        legitimate = by_software | np.isin(family.astype(str), list(self.names))
        if self.attackers == "as-software":
            return np.where(attack, by_software, legitimate)
        return np.where(attack, self.attackers == "all", legitimate)


def software_of(user_agents: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.object_]:
    """Return the kind of software of each user agent, object[n]."""
    whole = user_agents.combine_chunks() if isinstance(user_agents, pa.ChunkedArray) else user_agents
    coded = whole.dictionary_encode()
    names = [SOFTWARE[agent_class(text)] for text in coded.dictionary.to_pylist()] + [SOFTWARE[MISSING]]
    code = coded.indices.fill_null(len(names) - 1).to_numpy(zero_copy_only=False)
    found: npt.NDArray[np.object_] = np.array(names, dtype=object)[code]
    return found
