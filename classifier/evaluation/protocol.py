"""The protocol: every table of the evaluation from fixed seeds, as one JSON-able result.

1. Simulate the logs of the plan; no two share a client or a campaign.
2. Train a bundle on the first as `botsieve train` does.
3. Judge the test log: recall by family and grade, beside every baseline at the same false-positive rates.
4. What default budgets touch of legitimate clients, on the test log and in a surge.
5. Leave families, then grades, out.
6. The limit on the group part, on the validation log.
7. How much traffic default budgets take.
8. Floods on a gateway, behind every defence.
9. Real labelled data, where they are at hand.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from classifier.evaluation.baselines import damped, isolation, limits, sessions
from classifier.evaluation.bystanders import planted
from classifier.evaluation.comparison import OURS, compared, table_of
from classifier.evaluation.floods import floods
from classifier.evaluation.judging import evenly, parts_of, shipped_forest
from classifier.evaluation.learning import learning_curve
from classifier.evaluation.left_out import left_out
from classifier.evaluation.legitimate import acted_on, touched
from classifier.evaluation.limit import over_limits
from classifier.evaluation.plan import Plan
from classifier.evaluation.real import prompt_sources, web_sessions
from classifier.evaluation.recall import RATES, Recalls
from classifier.evaluation.requests import Requests, requests_of
from classifier.evaluation.traffic import read, simulate_all
from classifier.events import EVENT_SCHEMA
from classifier.model.apply import Model
from classifier.model.bundle import Bundle
from classifier.model.dataset import WARM_UP_SHARE
from classifier.model.pipeline import TrainOptions, train_bundle
from classifier.model.ranking import highest
from classifier.model.train import Settings

Step = Callable[[str], None]
FORMAT = 1
SEED = 0
BASELINE_ROWS = 96
"""Legitimate requests of a client, at most, that isolation forest and autoencoder learn from."""


@dataclass
class Run:
    """One run of the protocol: where it works, whom it tells, and what each step took: s, and s of processors.

    Processor time is this process's, all threads together; simulating works in processes of its own.
    """

    plan: Plan
    folder: Path
    threads: int
    tell: Step
    seconds: dict[str, float] = field(default_factory=dict)
    processor: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Tell that a step begins, and note how long it took."""
        self.tell(name)
        begin, worked = time.perf_counter(), time.process_time()
        yield
        self.seconds[name] = round(time.perf_counter() - begin, 1)
        self.processor[name] = round(time.process_time() - worked, 1)


def run_protocol(plan: Plan, folder: Path, threads: int = 2, tell: Step = lambda _: None) -> dict[str, Any]:
    """Run everything; `folder` keeps the logs and the bundle, and logs that are already there are not
    simulated again.
    """
    run = Run(plan, folder, threads, tell)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    with run.timed("simulating"):
        logs = simulate_all([plan.test, plan.train, plan.validation, plan.surge], folder / "logs")
    with run.timed("training"):
        bundle = _trained(run, logs["train"])
    forest, limit = shipped_forest(bundle)
    thresholds = bundle.manifest.policy_thresholds()
    with run.timed("features of the training log"):
        known = requests_of(read(logs["train"]), threads=threads, young=WARM_UP_SHARE)  # all that botsieve learns from
    with run.timed("features of the test log"):
        test = requests_of(read(logs["test"]), threads=threads)
    with run.timed("judging the test log"):
        raw = parts_of(forest, test.rows, threads).raw(limit)
        found = {OURS: _recalls(raw, test, plan)}
    found |= _baselines(run, known, test, bundle.manifest.trees_total)
    with run.timed("tables of recall"):
        result: dict[str, Any] = {
            "recall": {name: table_of(recalls) for name, recalls in found.items()},
            "comparison": compared(found, test.clients.grades()),
            "budgets": {
                "challenge": bundle.manifest.budgets["challenge"],
                "block": bundle.manifest.budgets["block"],
                "attackers": acted_on(test, raw, thresholds),
                "legitimate": touched(test, raw, thresholds, plan.resamples),
            },
        }
    with run.timed("leaving out"):
        result["left_out"] = left_out(known, test, limit, plan.resamples, plan.left_out, tell)
    with run.timed("less traffic"):
        result["learning"] = learning_curve(known, test)
    del known, raw, found
    counts = {"test": _counts(test)}
    del test
    with run.timed("surge"):
        surge = requests_of(read(logs["surge"]), threads=threads)
        surged = parts_of(forest, surge.rows, threads).raw(limit)
        result["budgets"]["surge"] = touched(surge, surged, thresholds, plan.resamples)
        counts["surge"] = _counts(surge)
        del surge, surged
    with run.timed("limit on the group part"):
        result["limit"] = _limits(run, logs["validation"], forest)
        result["limit"]["chosen"] = None if np.isinf(limit) else limit
    if plan.flood_clients:
        with run.timed("floods"):
            result["floods"] = floods(plan, Model.load(str(bundle.path), threads=threads), tell)
    if plan.real_data:
        with run.timed("real web sessions"):
            result["web"] = web_sessions(forest)
        with run.timed("prompt sources"):
            result["prompts"] = prompt_sources()
    return {"format": FORMAT, "plan": asdict(plan), "counts": counts, **result, "run": _about(run)}


def _trained(run: Run, log: Path) -> Bundle:
    table = pq.read_table(log).select(EVENT_SCHEMA.names).cast(EVENT_SCHEMA)
    options = TrainOptions(run.folder / "bundle", seed=SEED, threads=run.threads, routes=False)
    return train_bundle(options, lambda: iter([table]))


def _recalls(score: Any, requests: Requests, plan: Plan) -> Recalls:
    clients = requests.clients
    return Recalls(highest(score, requests.client, len(clients)), clients, RATES, plan.resamples)


def _baselines(run: Run, known: Requests, test: Requests, trees: int) -> dict[str, Recalls]:
    """Return the recall of every baseline; boosted trees are as many as botsieve has."""
    plan, found = run.plan, {}
    with run.timed("baseline: limits"):
        for name, score in limits.scores(test.events).items():
            found[f"limit: {name}"] = _recalls(score, test, plan)
    learnt = evenly(known, BASELINE_ROWS) & ~known.malicious
    with run.timed("baseline: isolation forest"):
        forest = isolation.Isolation(known.rows[learnt], SEED, run.threads)
        found["isolation forest"] = _recalls(forest.score(test.rows), test, plan)
    with run.timed("baseline: damped statistics, autoencoder"):
        net = damped.Autoencoder(damped.statistics(known.events)[learnt], SEED)
        found["damped statistics"] = _recalls(net.score(damped.statistics(test.events)), test, plan)
    with run.timed("baseline: sessions, boosted trees"):
        rows, client = sessions.statistics(known.events, known.client)
        usual = Settings()
        settings = usual if trees <= usual.own_trees + usual.group_trees else usual.for_long()
        booster = sessions.booster(rows, _of_sessions(known, client), settings)
        rows, client = sessions.statistics(test.events, test.client)
        score = highest(booster.predict(rows, raw_score=True), client, len(test.clients))
        found["session statistics"] = Recalls(score, test.clients, RATES, plan.resamples)
    return found


def _of_sessions(requests: Requests, client: Any) -> Any:
    """Return what training needs to know of session rows, whose clients are int64[rows]."""
    from classifier.model.dataset import Dataset

    n, blank = len(client), np.zeros(len(client))
    return Dataset(
        rows=np.zeros((n, 0), np.float32),
        row=np.arange(n),
        time=np.zeros(n, np.int64),
        key=client.astype(np.uint64),
        malicious=requests.clients.malicious[client],
        weight=np.ones(n),
        client=client.astype(object),
        family=requests.clients.group[client],
        input_tokens=blank,
        output_tokens=blank,
    )


def _limits(run: Run, log: Path, forest: Any) -> dict[str, Any]:
    traffic = read(log)
    changed = planted(traffic)
    validation = requests_of(traffic, threads=run.threads)
    parts = parts_of(forest, validation.rows, run.threads)
    after = requests_of(changed.traffic, threads=run.threads)
    rows = over_limits(validation, parts, changed, parts_of(forest, after.rows, run.threads))
    return {"places": changed.places, "tenants": changed.tenants, "rows": rows}


def _counts(requests: Requests) -> dict[str, int]:
    clients = requests.clients
    return {
        "requests": len(requests),
        "legitimate_requests": int((~requests.malicious).sum()),
        "legitimate_clients": int((~clients.malicious).sum()),
        "attackers": int(clients.malicious.sum()),
    }


def _about(run: Run) -> dict[str, Any]:
    return {
        "seconds": run.seconds,
        "processor_seconds": run.processor,
        "minutes": round(sum(run.seconds.values()) / 60, 1),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
