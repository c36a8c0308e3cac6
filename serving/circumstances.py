"""What is known of a live request beside its score: lists, load, predicted cost, and whether its client is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from classifier.circumstances import Known, predicted_tokens
from classifier.events import MICROSECONDS
from classifier.model.judge import Judge
from classifier.policy import Budgets, Circumstances, Decision, Policy, Pressure, Thresholds, thresholds_from_curve
from serving.gate import Arrival, Gate
from serving.lists import Lists
from serving.settings import Route, Settings
from serving.situation import Watch, levels_of


class Load:
    """How loaded the gateway is, 0 to 1: the greatest of what it states and of the tokens in flight over the capacity."""

    def __init__(self, settings: Settings, now: Callable[[], float]) -> None:
        self._capacity, self._holds, self._now = settings.capacity, settings.load_s, now
        self.counts = self._capacity is not None
        """Whether tokens in flight count at all."""
        self._stated, self._until = 0.0, -math.inf
        self._flight: dict[int, float] = {}
        self.tokens = 0.0

    def state(self, load: float) -> None:
        """Take the gateway's word, for `load_s`."""
        self._stated, self._until = load, self._now() + self._holds

    def began(self, serial: int, tokens: float) -> None:
        """Count the tokens of a request that is let through, until it has ended."""
        if self.counts:
            self.tokens += tokens - self._flight.get(serial, 0.0)  # it may have begun in a batch that then failed
            self._flight[serial] = tokens

    def ended(self, serial: int) -> None:
        """Count them no longer."""
        self.tokens -= self._flight.pop(serial, 0.0)
        if not self._flight:
            self.tokens = 0.0  # and no rounding stays behind

    def now(self, told: float | None = None) -> float:
        """Return the load; `told` is what came with the request at hand."""
        load = told or 0.0
        if self._stated > load and self._until > self._now():
            load = self._stated
        return load if self._capacity is None else max(load, min(self.tokens / self._capacity, 1.0))


class Observer:
    """Decides the requests of one gate with their circumstances."""

    def __init__(self, gate: Gate, lists: Lists, load: Load) -> None:
        self.lists, self.load, self.watch, self._gate = lists, load, Watch(gate), gate
        self._settings = settings = gate.settings
        self._known = Known(settings.known_account_s, settings.known_client_s, settings.known_requests)
        self._policies = self._policies_of(gate.model, gate.thresholds)

    def decide(self, arrival: Arrival, raw: float, probability: float) -> tuple[Decision, Sequence[str]]:
        """Decide a request: the hook of the gate."""
        self.watch.observe(arrival, raw)
        route = self._gate.rules.of(arrival.event.path)
        decision, why = self._policies[route.path].decide(raw, probability, self.circumstances(arrival, route))
        if decision.decision == "allow" and self.load.counts:
            self.load.began(arrival.serial, self._tokens(arrival))
        return decision, why

    def prepare_model(self, model: Judge, thresholds: Thresholds) -> Callable[[], None]:
        """Make the policies of another model, and return what puts them in force: a hook of the gate. Raises InputError."""
        policies, levels = self._policies_of(model, thresholds), levels_of(model, thresholds)

        def take() -> None:
            self._policies, self.watch.levels = policies, levels

        return take

    def let_through(self, arrival: Arrival) -> None:
        """Count a request that goes on to the models although it was decided otherwise, or not at all: a hook of the gate."""
        self.load.began(arrival.serial, self._tokens(arrival))

    def circumstances(self, arrival: Arrival, route: Route) -> Circumstances:
        """Return what is known. In a log that is replayed, all is calm: it was decided long ago."""
        listed, registration = self.lists.of(arrival.event), route.registration
        if self._settings.clock == "event":
            return Circumstances(listed, registration)
        # A surge fills the gateway, too: only an attack tightens anything.
        pressed = self._settings.load_when == "always" or self.watch.state == "attack"
        load = self.load.now(arrival.live.load) if pressed else 0.0
        if load <= 0.0:  # then nobody asks what a request costs, or who is known
            return Circumstances(listed, registration)
        cost = self._tokens(arrival) / self._settings.typical_tokens
        return Circumstances(listed, registration, self._is_known(arrival), load, cost)

    def full(self, arrival: Arrival) -> bool:
        """Tell whether a client has to wait with its pass: a hook of the gate.

        A pass is cheap for whoever attacks a service where each request is dear. So when the gateway is full during an attack,
        what room there comes to be is for those who were there before it.
        """
        settings = self._settings
        return (
            settings.newcomers_wait
            and settings.clock != "event"
            and self.watch.state == "attack"
            and self.load.now(arrival.live.load) >= 1.0
            and not self._is_known(arrival)
        )

    def _tokens(self, arrival: Arrival) -> float:
        event = arrival.event
        return predicted_tokens(event.request_bytes, event.max_tokens, arrival.row, self._settings.typical_tokens)

    def _is_known(self, arrival: Arrival) -> bool:
        attacked = (arrival.time - self.watch.onset) / MICROSECONDS if self.watch.state == "attack" else 0.0
        return bool(self._known.history(arrival.row) - attacked >= self._known.client_s)

    def _policies_of(self, model: Judge, thresholds: Thresholds) -> dict[str, Policy]:
        """Return the policy of each route, by its pattern. Raises InputError for a budget that the model cannot hold."""
        settings, manifest = self._settings, model.bundle.manifest
        curve, pressure = manifest.policy_curve(), Pressure(settings.load_start, settings.load_budget)
        usual = manifest.budgets["challenge"] if settings.challenge_budget is None else settings.challenge_budget

        def chosen(challenge: float | None, block: float | None) -> tuple[Thresholds | None, float]:
            """Return the thresholds of budgets that are stated, and the challenge budget they hold for."""
            stated = {name: value for name, value in (("challenge", challenge), ("block", block)) if value is not None}
            if not stated:
                return None, float(usual)
            both = {"challenge": float(usual), "block": float(manifest.budgets["block"]), **stated}
            if challenge is None:  # what is stated holds, and the other gives way: who is blocked counts as challenged
                both["challenge"] = max(both.values())
            both["block"] = min(both.values())
            return thresholds_from_curve(curve, Budgets(**both), tuple(stated)), both["challenge"]

        registration, _ = chosen(settings.registration_challenge_budget, settings.registration_block_budget)
        policies = {}
        for route in reversed(self._gate.rules.routes):  # of two with one pattern the first counts
            own, budget = chosen(route.challenge_budget, route.block_budget)
            policies[route.path] = Policy(
                own or thresholds, budget=budget, curve=curve, registration=own or registration, pressure=pressure
            )
        return policies


def attach(gate: Gate, now: Callable[[], float], wall: Callable[[], float]) -> Observer:
    """Let the gate decide with circumstances. `now` gives the service's time, `wall` the machine's, both in Unix s."""
    # Whoever states when an entry expires goes by the machine's clock; where that leaps ahead, nothing expires by it.
    observer = Observer(gate, Lists(gate.settings.state, lambda: min(now(), wall())), Load(gate.settings, now))

    gate.hooks.decide, gate.hooks.listed = observer.decide, observer.lists.of
    gate.hooks.prepare_model = observer.prepare_model
    gate.hooks.let_through, gate.hooks.ended = observer.let_through, observer.load.ended
    gate.hooks.full = observer.full
    return observer
