"""Bundles in MLflow: logged, registered, found again by alias or version. One database for all tests: it takes seconds."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from classifier.errors import BotsieveError, BundleError, InputError
from classifier.model.bundle import Bundle, load_bundle, write_bundle
from classifier.model.export import to_onnx
from classifier.model.registry import log_bundle, resolve
from classifier.model.scorer import Scorer
from tests.forests import WIDTH, model
from tests.unit.test_bundle import manifest


def bundle_of(folder: Path, seed: int) -> Bundle:
    graph = to_onnx(model("stumps", seed)[0].forest(WIDTH), (1.25, -3.5), np.inf)
    names = tuple(f"feature_{column}" for column in range(WIDTH))
    return write_bundle(
        folder, manifest(features=names), {"model.onnx": graph.SerializeToString(), "report.html": b"x"}
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a registry with two versions; `champion` is the first."""
    folder = tmp_path_factory.mktemp("registry")
    root = folder / "my runs"
    for seed in (1, 2):
        bundle = bundle_of(folder / f"bundle{seed}", seed)
        version = log_bundle(bundle.path, root, params={"seed": seed}, metrics={"auc": 0.9}).version
        assert version == seed
    return root


def test_a_version_is_the_bundle_that_was_logged(root: Path) -> None:
    for uri, seed in (("models:/botsieve@champion", 1), ("models:/botsieve/1", 1), ("models:/botsieve/2", 2)):
        folder = resolve(uri, root)
        rows = model("stumps", seed)[1]
        np.testing.assert_array_equal(Scorer(folder).score(rows)[0], model("stumps", seed)[0].raw(rows))
        assert load_bundle(folder).read("report.html") == b"x"


def test_everything_lies_under_the_root(root: Path) -> None:
    assert resolve("models:/botsieve/1", root).is_relative_to(root / "artifacts")
    assert {entry.name for entry in root.iterdir()} == {"mlflow.db", "artifacts"}


def test_the_registered_model_says_what_it_takes(root: Path) -> None:
    described = next((root / "artifacts" / "models").glob("*/artifacts/MLmodel")).read_text()
    assert "features" in described
    assert "float32" in described


def test_mlflow_stays_quiet_and_the_loggers_of_others_stay_as_they_were(
    root: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    log_bundle(bundle_of(tmp_path / "bundle", 1).path, root, alias="candidate")
    assert capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == logging.NOTSET
    assert resolve("models:/botsieve@champion", root) == resolve("models:/botsieve/1", root)


@pytest.mark.parametrize("uri", ["models:/botsieve@nobody", "models:/botsieve/99", "models:/other@champion"])
def test_what_is_not_registered_is_named(root: Path, uri: str) -> None:
    with pytest.raises(InputError, match=f"nothing is registered as {uri}"):
        resolve(uri, root)


@pytest.mark.parametrize("uri", ["botsieve@champion", "models:/", "models:/a/b", "models:/a@b/c", "runs:/1/model"])
def test_other_addresses_are_refused(uri: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="write models:/NAME@ALIAS"):
        resolve(uri, tmp_path)


def test_no_registry_and_no_bundle_are_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"`botsieve train --registry .*mlruns` makes one"):
        resolve("models:/botsieve@champion", tmp_path / "mlruns")
    assert not (tmp_path / "mlruns").exists()
    with pytest.raises(BundleError):
        log_bundle(tmp_path / "nothing", tmp_path / "mlruns")


def test_a_database_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(bytes(range(256)) * 16)
    with pytest.raises(BotsieveError, match=r"file is not a database.*see mlruns/README\.md") as told:
        resolve("models:/botsieve@champion", tmp_path)
    assert told.value.exit_code == 1
    assert "\n" not in str(told.value)


def test_a_database_in_use_is_not_taken_for_one_without_a_champion(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow
    from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE

    def locked(*_: object) -> None:
        raise mlflow.MlflowException("(sqlite3.OperationalError) database is locked", TEMPORARILY_UNAVAILABLE)

    monkeypatch.setattr(mlflow.MlflowClient, "get_model_version_by_alias", locked)
    with pytest.raises(BotsieveError, match="database is locked") as told:
        resolve("models:/botsieve@champion", root)
    assert told.value.exit_code == 1, "a start may be tried again"
    with pytest.raises(BotsieveError, match="database is locked"):
        log_bundle(bundle_of(tmp_path / "bundle", 1).path, root)
    monkeypatch.undo()
    assert resolve("models:/botsieve@champion", root) == resolve("models:/botsieve/1", root)
