"""The gate before `champion`: what it lets through, and that each refusal names its reason and moves nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest
from msgspec.structs import replace

import classifier
from classifier.model import pipeline
from classifier.model.bundle import load_bundle, write_bundle
from classifier.model.promotion import Check, examine
from classifier.model.registry import log_bundle, resolve, versions
from tests.unit.command_line import Made, done, refused


def changed(bundle: Path, folder: Path, model: bytes | None = None, **manifest: Any) -> Path:
    """Write a bundle like another, with another graph or other entries of the manifest."""
    before = load_bundle(bundle)
    files: dict[str, bytes | Path] = {name: before.read(name) for name in before.manifest.files}
    if model is not None:
        files["model.onnx"] = model
    return write_bundle(folder, replace(before.manifest, **manifest), files).path


def with_thresholds(bundle: Path, folder: Path, challenge: float | None) -> Path:
    return changed(bundle, folder, thresholds={"challenge": challenge, "block": None, "notes": []})


def failed(checks: list[Check]) -> list[str]:
    return [f"{check.name}: {check.found}" for check in checks if not check.passed]


def recent(made: Made) -> Any:
    from classifier.logs import read_events

    return read_events([made.log])


@pytest.fixture(scope="module")
def registry(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a registry: 1 is champion, 2 the same model again, 3 acts on nobody."""
    folder = tmp_path_factory.mktemp("promotion")
    root = folder / "mlruns"
    for path in (made.bundle, made.bundle, with_thresholds(made.bundle, folder / "blind", None)):
        log_bundle(path, root, metrics=pipeline.run_metrics(load_bundle(path).manifest))
    assert [each.aliases for each in versions(root=root)] == [("champion",), (), ("challenger",)]
    return root


def test_an_equal_model_passes_on_a_log_and_on_stated_figures(made: Made) -> None:
    on_log = examine(made.bundle, made.bundle, log=recent(made))
    assert failed(on_log) == []
    assert {check.name for check in on_log} == {"bundle", "parity", "budgets", "families"}
    stated = examine(made.bundle, made.bundle)
    assert failed(stated) == []
    assert any("--log" in check.found for check in stated)


def test_a_model_that_catches_less_is_refused_by_family(made: Made, tmp_path: Path) -> None:
    blind = with_thresholds(made.bundle, tmp_path / "blind", None)
    reasons = failed(examine(blind, made.bundle, log=recent(made)))
    assert reasons
    assert all(reason.startswith("families: ") and "where the champion has" in reason for reason in reasons)


def test_a_model_that_was_not_measured_by_a_family_is_refused_on_stated_figures(made: Made, tmp_path: Path) -> None:
    stated = load_bundle(made.bundle).manifest.metrics
    attacks = sorted(
        {group["family"] for group in stated["groups"] if group["kind"] == "attack" and not group["overall"]}
    )
    fewer = {**stated, "groups": [group for group in stated["groups"] if group["family"] != attacks[0]]}
    reasons = failed(examine(changed(made.bundle, tmp_path / "fewer", metrics=fewer), made.bundle))
    assert reasons == [f"families: {attacks[0]}: the champion was measured by it, this version was not"]


def test_a_model_that_harms_legitimate_clients_is_refused_by_its_budget(made: Made, tmp_path: Path) -> None:
    harsh = with_thresholds(made.bundle, tmp_path / "harsh", -3.0)
    reasons = failed(examine(harsh, made.bundle, log=recent(made)))
    assert len(reasons) == 1
    assert "above the challenge budget of 5.0 %" in reasons[0]


def test_a_log_that_cannot_resolve_the_budget_is_refused(made: Made, tmp_path: Path) -> None:
    never = {"challenge": None, "block": None, "notes": []}
    small = changed(made.bundle, tmp_path / "small", budgets={"challenge": 0.0001, "block": 0.0}, thresholds=never)
    assert any("the log is too short" in reason for reason in failed(examine(small, None, log=recent(made))))


def test_a_damaged_bundle_is_refused_before_anything_else(made: Made, tmp_path: Path) -> None:
    shutil.copytree(made.bundle, tmp_path / "damaged")
    (tmp_path / "damaged" / "reference.json").write_text("{}")
    checks = examine(tmp_path / "damaged", made.bundle, log=recent(made))
    assert [check.name for check in checks] == ["bundle"]
    assert "reference.json" in failed(checks)[0]


def test_a_graph_that_is_not_exact_is_refused(made: Made, tmp_path: Path) -> None:
    model = onnx.load_model_from_string(load_bundle(made.bundle).model)
    node = next(node for node in model.graph.node if node.op_type == "TreeEnsembleRegressor")
    for attribute in node.attribute:
        if attribute.name == "target_weights":  # off the grid on which sums are exact: their order now matters
            attribute.floats[:] = [value * 1.0000137 + 1e-7 for value in attribute.floats]
    inexact = changed(made.bundle, tmp_path / "inexact", model.SerializeToString())
    reasons = failed(examine(inexact, made.bundle, log=recent(made)))
    assert any(reason.startswith(("parity: ", "bundle: ")) for reason in reasons)


def test_promoting_moves_the_alias_and_rolling_back_moves_it_again(registry: Path, made: Made) -> None:
    refused(
        "promote", "models:/botsieve/3", "--log", made.log, "--registry", registry, "--quiet",
        code=1, says="does not become champion; families: ",
    )  # fmt: skip
    assert resolve("models:/botsieve@champion", registry) == resolve("models:/botsieve/1", registry)
    ran = done("promote", "models:/botsieve/2", "--log", made.log, "--registry", registry)
    assert "botsieve version 2 is champion" in ran.err
    assert "version 1 is previous" in ran.err
    again = done("promote", "models:/botsieve/2", "--log", made.log, "--registry", registry).err
    assert "botsieve version 2 is champion already" in again
    assert "previous" not in again
    assert resolve("models:/botsieve@champion", registry) == resolve("models:/botsieve/2", registry)
    done("promote", "rollback", "--registry", registry)
    assert resolve("models:/botsieve@champion", registry) == resolve("models:/botsieve/1", registry)
    assert classifier.rollback(registry=registry) == (2, 1)
    done("rollback", "--registry", registry, "--quiet")
    table = classifier.registered(registry)
    assert table["aliases"].tolist() == ["champion", "previous", "challenger"]
    assert table["pr_auc_per_client"].notna().all()


def test_what_cannot_be_promoted_is_said_plainly(registry: Path, made: Made, tmp_path: Path) -> None:
    for what, says in (("models:/botsieve/99", "nothing is registered"), ("version 2", "write models:/NAME@ALIAS")):
        refused("promote", what, "--registry", registry, says=says)
    refused("promote", "rollback", "--registry", tmp_path / "none", says="no registry at")
    refused("rollback", "--registry", tmp_path / "none", says="no registry at")
    refused("promote", "models:/botsieve/2", "--inject", "all", "--registry", registry, says="name it with --log")
