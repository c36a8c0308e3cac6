"""Mimics: attackers that replay a legitimate client of the scene, and change in it only what their purpose needs.

One mechanism for every family and both scenes. A campaign chooses clients of the scene and repeats everything that
each of them does, a few minutes apart: its times, acts, software, sizes and prompts, under accounts as old as its
accounts and from addresses beside its addresses. Then the family's `purpose` puts its needs in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from classifier.traffic.family import AttackFamily, Effort
from classifier.traffic.flow import I64, INFERENCE, Account, Act, Flow, Originals, Scene

SHIFT_S = 300.0
"""A replay is at most so much earlier or later than what it replays, s."""
SPREAD = 6.0
"""A replayed client has at most so many times the campaign's requests for each attacker."""
MOST_CLIENTS = 4
"""A campaign of mimics has at most so many times the clients that it would have otherwise."""
BY_VOLUME = ("volume", "waves", "tokens", "pages", "log-ins", "sign-ups")
"""Needs of a whole campaign: it has as many replays as it takes, and heavy clients serve it better than light ones."""


def replayed(family: AttackFamily, scene: Scene, effort: Effort, rng: np.random.Generator) -> Iterator[Flow]:
    """Write the flows of one campaign of mimics."""
    originals = scene.originals()
    if not len(originals):
        return
    change = family.purpose(scene, effort, rng)
    double = Double(scene, rng)
    needs_model = not scene.web and family.replays == INFERENCE
    waves = np.sort(rng.uniform(effort.start, effort.end, max(1, round(effort.clients / 12))))
    for number in stand_ins(family, originals, effort, rng):
        shift = float(rng.uniform(-SHIFT_S, SHIFT_S))
        if family.needs == "waves":
            nearest = waves[int(np.abs(waves - originals.begins[number]).argmin())]
            shift += float(nearest - originals.begins[number])
        for flow in double.of(scene.original(number), shift):
            if needs_model and not len(asking(flow)):
                continue  # pages on the way to the model are nothing that the attack needs
            kept = change(flow)
            yield replace(kept, family=family.name, malicious=True)


def stand_ins(family: AttackFamily, originals: Originals, effort: Effort, rng: np.random.Generator) -> list[int]:
    """Choose whom to replay among those that do what the family needs: one each, or until the volume is reached."""
    useful = originals.doing(family.replays)
    requests = originals.counts.sum(axis=1)
    able = np.flatnonzero(useful > 0)
    if not len(able):
        able, useful = np.arange(len(originals)), requests
    most = SPREAD * max(effort.requests / effort.clients, 10.0)
    light = able[requests[able] <= most]
    pool = light if len(light) else able[np.argsort(requests[able], kind="stable")[:1]]
    if family.needs not in BY_VOLUME:
        return [int(i) for i in rng.choice(pool, effort.clients * family.replays_each)]
    weight = originals.tokens if family.needs == "tokens" and originals.tokens[pool].sum() > 0 else useful
    each = weight[pool].astype(np.float64) ** 0.5 + 1e-9
    picked = rng.choice(pool, MOST_CLIENTS * effort.clients, p=each / each.sum())
    enough = int(np.searchsorted(np.cumsum(useful[picked]), effort.requests)) + 1
    return [int(i) for i in picked[:enough]]


class Double:
    """Gives replays identities of their own: who shares an account or an address in the original shares one here."""

    def __init__(self, scene: Scene, rng: np.random.Generator):
        self._scene, self._rng = scene, rng
        self._addresses: dict[str, str] = {}
        self._used: set[str] = set()

    def of(self, flows: list[Flow], shift: float) -> Iterator[Flow]:
        """Repeat what a client does `shift` s later, as somebody else beside it."""
        accounts: dict[str, Account] = {}
        credentials: dict[str, str] = {}
        for flow in flows:
            yield replace(
                flow,
                times=flow.times + shift,
                address=self._beside(flow),
                account=self._account(flow.account, accounts, shift),
                credential=None
                if flow.credential is None
                else [credentials.setdefault(c, self._rng.bytes(8).hex()) for c in flow.credential],
            )

    def _account(self, account: Account | None, known: dict[str, Account], shift: float) -> Account | None:
        if account is None:
            return None
        if account.id not in known:
            made = self._scene.account(self._rng, 0.0)
            known[account.id] = replace(made, created=round(account.created + min(shift, 0.0), 3))
        return known[account.id]

    def _beside(self, flow: Flow) -> str | list[str]:
        if isinstance(flow.address, str):
            return self._neighbour(flow.address)
        return [self._neighbour(address) for address in flow.address]

    def _neighbour(self, address: str) -> str:
        if address not in self._addresses:
            self._addresses[address] = self._scene.beside(self._rng, address, self._used)
            self._used.add(self._addresses[address])
        return self._addresses[address]


def asking(flow: Flow) -> I64:
    """Return which requests of a flow are inference calls, as positions."""
    return np.flatnonzero(np.isin(flow.acts, INFERENCE))


def with_prompts(flow: Flow, rows: I64, texts: list[str]) -> Flow:
    """Return the flow with other prompts at `rows`; the others keep what they ask."""
    if not len(rows):
        return flow
    kept: list[str | None] = [None] * len(flow) if flow.prompts is None else list(flow.prompts)
    for row, text in zip(rows.tolist(), texts, strict=True):
        kept[row] = text
    return replace(flow, prompts=kept)


def with_models(flow: Flow, rows: I64, names: list[str]) -> Flow:
    """Return the flow with other models at `rows`; the others ask the model that they asked."""
    if not len(rows):
        return flow
    kept = [flow.model] * len(flow) if flow.model is None or isinstance(flow.model, str) else list(flow.model)
    for row, name in zip(rows.tolist(), names, strict=True):
        kept[row] = name
    return replace(flow, model=kept)


def doing(flow: Flow, act: Act) -> I64:
    """Return which requests of a flow do an act, as positions."""
    return np.flatnonzero(flow.acts == act)
