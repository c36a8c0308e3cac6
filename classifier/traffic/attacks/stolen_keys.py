"""Stolen keys that are sold on: one account, used by several buyers from many networks, at hours that are not its owner's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from classifier.traffic import hiding, pacing, prompts
from classifier.traffic.campaigns import shares
from classifier.traffic.family import AttackFamily, Change, Effort, Parameters
from classifier.traffic.flow import Account, Act, Flow, Scene, mixed_acts
from classifier.traffic.software import Software

OWNED_DAYS = 70.0
"""About how old the accounts of stolen keys are, days."""


class StolenKeys(AttackFamily):
    """LLMjacking: keys of others, resold through reverse proxies."""

    name = "stolen_keys"
    source = "stolen API keys resold through proxies, reported by Sysdig as LLMjacking (read as quoted)"
    hides = "few buyers for each key, behind one proxy with one library and few home lines, the hours of others"
    needs = "accounts"
    parameters: ClassVar[Parameters] = {
        "buyers": (4, 16),
        "buyers_evasive": (2, 4),
        "buyers_mimic": (2, 3),
        "pace_s": (1.0, 20.0),
        "pace_s_evasive": (10.0, 45.0),
    }
    share_of_clients = 0.04
    share_of_requests = 0.04
    lasts = (0.4, 1.0)
    replays_each = 2
    seen_by = ("account",)

    def flows(self, scene: Scene, effort: Effort, rng: np.random.Generator) -> Iterator[Flow]:
        """Each account is one key; its buyers work at the same time and know nothing of one another."""
        for n in shares(rng, effort.clients, effort.requests, 6.0, least=6):
            account = hiding.bought_account(scene, rng, OWNED_DAYS)
            buyers = min(round(self.draw(rng, "buyers_evasive" if self.evasive else "buyers")), n)
            model = scene.models(rng, 1)[0]
            proxy = hiding.borrowed_software(scene, rng, 0.2)
            exits = scene.addresses(rng, 1 + int(rng.random() < 0.5), "home")
            if not self.evasive:
                yield self._tried(scene, effort, account, rng)
            for part in shares(rng, buyers, n):
                address = exits[int(rng.integers(len(exits)))]
                yield self._buyer(scene, effort, account, address, proxy, model, part, rng)

    def _tried(self, scene: Scene, effort: Effort, account: Account, rng: np.random.Generator) -> Flow:
        """See whether a key works and what it may do, before it is sold."""
        return Flow(
            family=self.name,
            malicious=True,
            times=pacing.renewal(rng, 2, effort.start, effort.span),
            acts=mixed_acts(rng, 2, {Act.MODELS: 1.0}),
            address=scene.addresses(rng, 1, "vpn")[0],
            software=scene.software(rng, "tool"),
            account=account,
        )

    def _buyer(
        self,
        scene: Scene,
        effort: Effort,
        account: Account,
        address: str,
        proxy: Software,
        model: str,
        n: int,
        rng: np.random.Generator,
    ) -> Flow:
        if self.evasive:
            times = hiding.human_hours(scene, effort, n, rng, self.draw(rng, "pace_s_evasive"))
        else:
            begins = hiding.odd_hours(scene, effort, max(1, n // 20), rng)
            times = pacing.sessions(rng, n, begins, self.draw(rng, "pace_s"), 0.9)
        return Flow(
            family=self.name,
            malicious=True,
            times=times,
            acts=mixed_acts(rng, n, {Act.CHAT: 0.96, Act.MODELS: 0.04}),
            address=address if self.evasive else hiding.rotating(scene, rng, n, 2, 6.0, vpn=0.9),
            software=proxy if self.evasive else hiding.borrowed_software(scene, rng, 0.2),
            account=account,
            prompts=prompts.wordings(rng, "ask", n),
            model=model if self.evasive else "large-70b",
            limit=600,
            retries=1,
        )

    def purpose(self, scene: Scene, effort: Effort, rng: np.random.Generator) -> Change:
        """Let several replayed clients use one account, most of them through the software and address of the first."""
        buyers = max(round(self.draw(rng, "buyers_mimic")), 2)
        keys = [
            hiding.bought_account(scene, rng, OWNED_DAYS)
            for _ in range(max(1, effort.clients * self.replays_each // buyers))
        ]
        sold: dict[str, int] = {}
        behind: dict[int, Flow] = {}

        def share(flow: Flow) -> Flow:
            if flow.account is None:
                return flow
            key = sold.setdefault(flow.account.id, len(sold) % len(keys))
            proxy = behind.setdefault(key, flow)
            model = proxy.model if isinstance(proxy.model, str) else None
            address = flow.address if rng.random() < 0.1 else _first(proxy.address)
            return replace(
                flow, account=keys[key], software=_first(proxy.software), address=address, model=model or flow.model
            )

        return share


def _first(given: Any) -> Any:
    """Return the value itself, or the first where there is one for each request."""
    return given if isinstance(given, str | Software) else given[0]
