"""The gate before `champion`: a registered version becomes it only if all of these hold.

    bundle    every file has the hash that the manifest says, and the features are those of this version
    parity    the graph in ONNX Runtime gives the raw score of the compiled forest, bit for bit, on natural rows and on rows
              made to lie on and beside every split
    budgets   on recent legitimate traffic the share of requests acted on (and blocked) is not above the budget: the 95 %
              interval, resampled by client, reaches down to it
    families  no attack family is caught clearly less often than by the champion: neither of its requests nor of its
              clients is a smaller share acted on, by more than a stated margin

Budgets and families are measured on a log that the user names, with both models. Without one, the figures that training
measured on its held-out part stand in; they are as old as the models, and the check says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from classifier.errors import BotsieveError, PromotionError
from classifier.events import EVENT_SCHEMA
from classifier.features.spec import spec_hash
from classifier.features.stream import feature_chunks
from classifier.model import registry
from classifier.model.adversarial import node_rows, special_rows
from classifier.model.apply import Model, labelled_frame
from classifier.model.bootstrap import FEWEST_CLIENTS
from classifier.model.bundle import Bundle, load_bundle
from classifier.model.evaluate import evaluate
from classifier.model.metrics import GroupMetrics
from classifier.model.rounding import sums_exactly
from classifier.model.scorer import FloatRows, Scorer
from classifier.model.wording import percent, percent_interval
from classifier.policy import unresolved

MARGIN = 0.02
"""By how much a family's share acted on may fall below the champion's."""
NATURAL_ROWS = 2_000
_ROWS_AT_A_TIME = 8_192
_RESAMPLES = 100


class Check(NamedTuple):
    """One thing the gate looked at: its name, whether it passed, and what was found."""

    name: str
    passed: bool
    found: str


@dataclass(frozen=True)
class Promotion:
    """A version that became champion: what was checked, and which version was champion before (None: there was none)."""

    name: str
    version: int
    before: int | None
    checks: tuple[Check, ...]


def promote(
    uri: str,
    root: Path | str = registry.DEFAULT_ROOT,
    *,
    log: Iterable[pa.Table] | None = None,
    margin: float = MARGIN,
    threads: int = 1,
) -> Promotion:
    """Make a registered version (`models:/NAME/VERSION` or `models:/NAME@ALIAS`) champion if it passes the gate.

    log: recent events, for budgets and families; those without a label count as legitimate. Raises PromotionError,
    naming every check that failed; InputError if nothing is registered so.
    """
    name, alias, version = registry.parsed(uri)
    folder = registry.resolve(uri, root)
    known = registry.versions(name, root)
    if version is None:
        version = next(each.version for each in known if alias in each.aliases)
    champion = next((each.version for each in known if registry.CHAMPION in each.aliases), None)
    against = None
    if champion is not None and champion != version:
        against = registry.resolve(f"models:/{name}/{champion}", root)
    checks = examine(folder, against, log=log, margin=margin, threads=threads)
    failed = [f"{check.name}: {check.found}" for check in checks if not check.passed]
    if failed:
        raise PromotionError(f"{uri} does not become champion; {'; '.join(failed)}")
    return Promotion(name, version, registry.promote(name, version, root), tuple(checks))


def examine(
    candidate: Path,
    champion: Path | None,
    *,
    log: Iterable[pa.Table] | None = None,
    margin: float = MARGIN,
    threads: int = 1,
) -> list[Check]:
    """Put a bundle through the gate beside the champion's, if there is one; see the module for the checks."""
    try:
        bundle = load_bundle(candidate, expect_spec_hash=spec_hash())
        model = Model(bundle, device="cpu", threads=threads)
    except BotsieveError as error:
        return [Check("bundle", False, str(error))]  # the others need one that loads
    checks = [Check("bundle", True, f"{len(bundle.manifest.files)} files have the hashes of the manifest")]
    events = None if log is None else _labelled(pa.concat_tables(log, promote_options="default"))
    checks.append(_parity(bundle, model, _natural(model, events, threads)))
    ours = _figures(model, events, threads)
    checks += _budgets(model, ours, measured=events is not None)
    if champion is None:
        return [*checks, Check("families", True, "there is no other champion to compare with")]
    try:
        theirs = _figures(Model(load_bundle(champion, expect_spec_hash=spec_hash()), threads=threads), events, threads)
    except BotsieveError as error:
        return [*checks, Check("families", True, f"not compared, since the champion cannot be loaded ({error})")]
    return [*checks, *_families(ours, theirs, margin, measured=events is not None)]


def _labelled(events: pa.Table) -> pa.Table:
    """Take events without a label as legitimate."""
    import pyarrow.compute as pc

    place = EVENT_SCHEMA.names.index("malicious")
    return events.set_column(place, "malicious", pc.fill_null(events.column("malicious"), False))


def _natural(model: Model, events: pa.Table | None, threads: int) -> FloatRows:
    """Return feature rows of the log, or without one a row of nothing but missing values: the splits bring the others."""
    if events is None:
        return np.full((1, len(model.columns)), np.nan, np.float32)
    chunks = feature_chunks([events], sizes=model.sizes, threads=threads, prompts=model.prompts)
    rows = np.concatenate([chunk.rows[:, model.columns] for chunk in chunks])
    kept = np.sort(np.random.default_rng(0).permutation(len(rows))[:NATURAL_ROWS])
    return np.ascontiguousarray(rows[kept])


def _parity(bundle: Bundle, model: Model, natural: FloatRows) -> Check:
    graph, compiled = Scorer(bundle, engine="onnxruntime"), Scorer(bundle, engine="compiled")
    if not sums_exactly(compiled.forest.leaf_values()):
        return Check("parity", False, "the leaves are not rounded, so sums would depend on their order")
    compared = 0
    for rows in (natural, special_rows(natural), *node_rows(compiled.forest, natural)):
        for start in range(0, len(rows), _ROWS_AT_A_TIME):
            block = np.ascontiguousarray(rows[start : start + _ROWS_AT_A_TIME])
            raw, other = graph.score(block)[0], compiled.score(block)[0]
            apart = int((raw.view(np.int32) != other.view(np.int32)).sum())
            if apart:
                return Check("parity", False, f"ONNX Runtime and the forest differ in {apart:,} of {len(block):,} rows")
            compared += len(block)
    return Check("parity", True, f"ONNX Runtime and the forest give the same bits on {compared:,} rows")


def _figures(model: Model, events: pa.Table | None, threads: int) -> list[GroupMetrics]:
    """Return decisions by family and kind: measured on the log, or as the manifest states them."""
    if events is None:
        stated: list[Any] = model.bundle.manifest.metrics.get("groups", [])
        return stated
    frame = labelled_frame(model.scored([events], threads=threads))
    return evaluate(frame, prior=model.bundle.manifest.calibration["prior"], resamples=_RESAMPLES)["groups"]


def _budgets(model: Model, groups: list[GroupMetrics], measured: bool) -> list[Check]:
    legitimate = next((group for group in groups if group["overall"] and group["kind"] == "legitimate"), None)
    if legitimate is None:
        return [Check("budgets", False, f"there is no legitimate traffic to hold them on{_remedy(measured)}")]
    checks = []
    budgets = model.bundle.manifest.budgets
    source = "recent" if measured else "held-out training"
    for what, figure in (("challenge", legitimate["acted_on"]), ("block", legitimate["blocked"])):
        budget = budgets[what]
        touched, low = figure["value"] or 0.0, figure["low"]
        done = "acted on" if what == "challenge" else "blocked"
        of = f"{percent(touched)} of {legitimate['requests']:,} {source} legitimate requests {done}"
        if (low is not None and low > budget) or (low is None and touched > budget):
            interval = f", interval {percent_interval(figure)}" if low is not None else ""
            found = f"{of}{interval}, above the {what} budget of {percent(budget)}"
            checks.append(Check("budgets", False, found))
            continue
        short = unresolved(legitimate["requests"], budget) if budget else None
        if what == "challenge" and measured and short is not None:
            checks.append(
                Check("budgets", False, f"the log is too short: a {what} budget of {percent(budget)} {short}")
            )
            continue
        note = "" if measured else "; name recent traffic with --log to measure it there"
        checks.append(Check("budgets", True, f"{of}{note}"))
    return checks


def _families(ours: list[GroupMetrics], theirs: list[GroupMetrics], margin: float, measured: bool) -> list[Check]:
    champion = {group["family"]: group for group in theirs if group["kind"] == "attack" and not group["overall"]}
    checks: list[Check] = []
    few: list[str] = []
    for group in ours:
        other = champion.get(group["family"])
        if group["kind"] != "attack" or group["overall"] or other is None:
            continue
        if min(group["clients"], other["clients"]) < FEWEST_CLIENTS:
            few.append(group["family"])
            continue
        pairs = (
            (group["acted_on"], other["acted_on"], "requests"),
            (group["clients_acted_on"], other["clients_acted_on"], "clients"),
        )
        for now, then, of in pairs:
            share, before = now["value"] or 0.0, then["value"] or 0.0
            if share < before - margin:
                found = (
                    f"{group['family']}: {percent(share)} of {of} acted on, where the champion has {percent(before)}"
                )
                checks.append(Check("families", False, f"{found} (margin {100 * margin:g} points)"))
                break
        else:
            share, before = group["acted_on"]["value"] or 0.0, other["acted_on"]["value"] or 0.0
            checks.append(
                Check("families", True, f"{group['family']}: {percent(share)} of requests, champion {percent(before)}")
            )
    shown = {group["family"] for group in ours if group["kind"] == "attack"}
    for family in sorted(champion.keys() - shown):
        if champion[family]["clients"] >= FEWEST_CLIENTS:
            checks.append(Check("families", False, f"{family}: the champion was measured by it, this version was not"))
    if few:
        checks.append(Check("families", True, f"fewer than {FEWEST_CLIENTS} clients, not compared: {', '.join(few)}"))
    if not checks:
        checks.append(Check("families", False, f"there is no attack to compare by{_remedy(measured)}"))
    return checks


def _remedy(measured: bool) -> str:
    if measured:
        return " in the log; name one with labels, or weave attacks in with --inject all"
    return " among the stated figures; name a labelled log with --log"
