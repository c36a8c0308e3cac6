"""Bundles in MLflow: the only module that knows it.

Runs stand in `ROOT/mlflow.db` (sqlite), artifacts under `ROOT/artifacts`. A run holds the ONNX model, registered by
name, and beside it the whole bundle folder: that is what `resolve` gives back, and what a server loads.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from classifier.errors import BotsieveError, InputError
from classifier.model.bundle import Bundle, load_bundle

MODEL_NAME = "botsieve"
CHAMPION = "champion"
DEFAULT_ROOT = Path("mlruns")

_BUNDLE_FOLDER = "bundle"
_MODEL_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>[0-9]+))")
_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_AGENT_HINT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


def log_bundle(
    bundle_dir: Path | str,
    root: Path | str = DEFAULT_ROOT,
    *,
    params: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
    name: str = MODEL_NAME,
    alias: str | None = CHAMPION,
) -> tuple[str, int]:
    """Log a bundle as a run, register its model as `name`, point `alias` at it; return (run id, version).

    The bundle is verified first. Raises BundleError for a damaged one, BotsieveError if MLflow fails.
    """
    bundle = load_bundle(bundle_dir)
    with _mlflow(Path(root)) as mlflow:
        experiment = _experiment(mlflow, name, Path(root).absolute())
        with mlflow.start_run(experiment_id=experiment) as run:
            mlflow.log_params(dict(params or {}))
            mlflow.log_metrics({key: float(value) for key, value in (metrics or {}).items()})
            mlflow.log_artifacts(str(bundle.path), _BUNDLE_FOLDER)
            version = _register(mlflow, bundle, name)
        if alias is not None:
            mlflow.MlflowClient().set_registered_model_alias(name, alias, str(version))
        return str(run.info.run_id), version


def resolve(uri: str, root: Path | str = DEFAULT_ROOT) -> Path:
    """Return the local folder of the bundle behind `models:/NAME@ALIAS` or `models:/NAME/VERSION`.

    Raises InputError for another form of address, or one that nothing is registered under.
    """
    match = _MODEL_URI.fullmatch(uri)
    if match is None:
        raise InputError(f"{uri!r} is no registered model; write models:/NAME@ALIAS or models:/NAME/VERSION")
    if not (Path(root) / "mlflow.db").is_file():
        raise InputError(f"no registry at {root}: train a bundle first, or run where its mlruns folder is")
    with _mlflow(Path(root)) as mlflow:
        run_id = _run_of(mlflow, uri, match)
        return _folder(mlflow, run_id)


def _folder(mlflow: Any, run_id: str) -> Path:
    """Return the bundle folder of a run: where it lies if that is on this machine, else a copy of it."""
    address = urlsplit(mlflow.get_run(run_id).info.artifact_uri)
    if address.scheme in ("", "file"):
        return Path(url2pathname(address.path)) / _BUNDLE_FOLDER
    return Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=_BUNDLE_FOLDER))


def _run_of(mlflow: Any, uri: str, match: re.Match[str]) -> str:
    client = mlflow.MlflowClient()
    try:
        if match["alias"] is not None:
            version = client.get_model_version_by_alias(match["name"], match["alias"])
        else:
            version = client.get_model_version(match["name"], match["version"])
    except mlflow.MlflowException as error:
        raise InputError(f"nothing is registered as {uri}; botsieve train registers a bundle") from error
    return str(version.run_id)


def _register(mlflow: Any, bundle: Bundle, name: str) -> int:
    import numpy as np
    import onnx
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    rows = TensorSpec(np.dtype(np.float32), (-1, len(bundle.manifest.features)), "features")
    scores = [TensorSpec(np.dtype(np.float32), (-1,), output) for output in ("raw", "probability")]
    logged = mlflow.onnx.log_model(
        onnx.load_model_from_string(bundle.model),
        name="model",
        signature=ModelSignature(inputs=Schema([rows]), outputs=Schema(scores)),
        registered_model_name=name,
        pip_requirements=["onnxruntime"],
        save_as_external_data=False,
    )
    return int(logged.registered_model_version)


def _experiment(mlflow: Any, name: str, root: Path) -> str:
    found = mlflow.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    return str(mlflow.create_experiment(name, artifact_location=(root / "artifacts").as_uri()))


@contextlib.contextmanager
def _mlflow(root: Path) -> Iterator[Any]:
    """Import MLflow and point it at `root`, quietly: no telemetry, no log of its own, no warnings about itself."""
    for setting, value in _SETTINGS.items():
        os.environ.setdefault(setting, value)
    _create(root)
    with warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore")
        import mlflow
        import mlflow.onnx

        before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
        uri = f"sqlite:///{root.absolute()}/mlflow.db"
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        try:
            yield mlflow
        except mlflow.MlflowException as error:
            raise BotsieveError(
                f"MLflow failed at {root} ({str(error).splitlines()[0]}); see mlruns/README.md"
            ) from error
        finally:
            mlflow.set_tracking_uri(before[0])
            mlflow.set_registry_uri(before[1])


def _create(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the registry folder {root}: {error.strerror}; choose another") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep MLflow's and Alembic's chatter off the terminal; what goes wrong comes back as an exception."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    sink = io.StringIO()
    try:
        with contextlib.redirect_stderr(sink), contextlib.redirect_stdout(sink):
            yield
    finally:
        logging.disable(level)
