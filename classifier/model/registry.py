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
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import url2pathname

from classifier.errors import BotsieveError, InputError
from classifier.model.bundle import Bundle, load_bundle

MODEL_NAME = "botsieve"
CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
"""Aliases: the version to serve, the newest that was trained since, and the champion before this one."""
DEFAULT_ROOT = Path("mlruns")

_DATABASE = "mlflow.db"
_BUNDLE_FOLDER = "bundle"
_NOT_THERE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""What MLflow says of a name, version or alias that is not there; it tells of a database in use by another code."""
_MODEL_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>[0-9]+))")
_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_AGENT_HINT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


class Logged(NamedTuple):
    """What a bundle was logged as."""

    run: str
    version: int
    alias: str


class Registered(NamedTuple):
    """One registered version, with the parameters and metrics of its run."""

    version: int
    aliases: tuple[str, ...]
    run: str
    created_ms: int
    params: dict[str, str]
    metrics: dict[str, float]


def log_bundle(
    bundle_dir: Path | str,
    root: Path | str = DEFAULT_ROOT,
    *,
    params: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
    name: str = MODEL_NAME,
    alias: str | None = None,
) -> Logged:
    """Log a bundle as a run, register its model as `name` and point `alias` at it.

    Without an alias given, the first version is `champion` and a later one `challenger`: it becomes champion by promotion
    only. The bundle is verified first. Raises BundleError for a damaged one, BotsieveError if MLflow fails.
    """
    bundle = load_bundle(bundle_dir)
    with _mlflow(Path(root)) as mlflow:
        experiment = _experiment(mlflow, name, Path(root).absolute())
        with mlflow.start_run(experiment_id=experiment) as run:
            mlflow.log_params(dict(params or {}))
            mlflow.log_metrics({key: float(value) for key, value in (metrics or {}).items()})
            mlflow.log_artifacts(str(bundle.path), _BUNDLE_FOLDER)
            version = _register(mlflow, bundle, name)
        client = mlflow.MlflowClient()
        if alias is None:
            alias = CHALLENGER if _version(mlflow, name, CHAMPION) is not None else CHAMPION
        client.set_registered_model_alias(name, alias, str(version))
        return Logged(str(run.info.run_id), version, alias)


def promote(name: str, version: int, root: Path | str = DEFAULT_ROOT) -> int | None:
    """Make a version the champion, and the champion so far `previous`; return the latter's version, None if none.

    This moves the aliases and asks nothing: `classifier.model.promotion` is the gate before it.
    """
    with _mlflow(Path(root)) as mlflow:
        client = mlflow.MlflowClient()
        before = _version(mlflow, name, CHAMPION)
        if before == version:
            return before
        if before is not None:
            client.set_registered_model_alias(name, PREVIOUS, str(before))
        client.set_registered_model_alias(name, CHAMPION, str(version))
        if _version(mlflow, name, CHALLENGER) == version:
            client.delete_registered_model_alias(name, CHALLENGER)
        return before


def rollback(name: str = MODEL_NAME, root: Path | str = DEFAULT_ROOT) -> tuple[int, int]:
    """Make the champion before this one champion again; return (version now, version before).

    The two change places, so a second rollback undoes the first. Raises InputError where there is nothing to go back to.
    """
    _check_there(Path(root))
    with _mlflow(Path(root)) as mlflow:
        now, before = _version(mlflow, name, CHAMPION), _version(mlflow, name, PREVIOUS)
        if now is None or before is None:
            raise InputError(f"{name} has no champion before the present one; there is nothing to roll back to")
        client = mlflow.MlflowClient()
        client.set_registered_model_alias(name, CHAMPION, str(before))
        client.set_registered_model_alias(name, PREVIOUS, str(now))
        return before, now


def _check_there(root: Path) -> None:
    if not (root / _DATABASE).is_file():
        raise InputError(
            f"no registry at {root}: `botsieve train --registry {root}` makes one; or name another with --registry"
        )


def versions(name: str = MODEL_NAME, root: Path | str = DEFAULT_ROOT) -> list[Registered]:
    """Return what is registered as `name`, by version: its aliases, parameters and metrics. Nothing where nothing is."""
    if not (Path(root) / _DATABASE).is_file():
        return []
    with _mlflow(Path(root)) as mlflow:
        client = mlflow.MlflowClient()
        found = sorted(client.search_model_versions(f"name = '{name}'"), key=lambda each: int(each.version))
        aliases = client.get_registered_model(name).aliases if found else {}
        runs = {each.run_id: mlflow.get_run(each.run_id) for each in found}
        return [
            Registered(
                version=int(each.version),
                aliases=tuple(sorted(alias for alias, number in aliases.items() if int(number) == int(each.version))),
                run=str(each.run_id),
                created_ms=int(each.creation_timestamp),
                params=dict(runs[each.run_id].data.params),
                metrics=dict(runs[each.run_id].data.metrics),
            )
            for each in found
        ]


def parsed(uri: str) -> tuple[str, str | None, int | None]:
    """Return name, alias and version of `models:/NAME@ALIAS` or `models:/NAME/VERSION`. Raises InputError."""
    match = _MODEL_URI.fullmatch(uri)
    if match is None:
        raise InputError(f"{uri!r} is no registered model; write models:/NAME@ALIAS or models:/NAME/VERSION")
    return match["name"], match["alias"], None if match["version"] is None else int(match["version"])


def _version(mlflow: Any, name: str, alias: str) -> int | None:
    """Return the version behind an alias; None where there is none."""
    try:
        return int(mlflow.MlflowClient().get_model_version_by_alias(name, alias).version)
    except mlflow.MlflowException as error:
        if error.error_code not in _NOT_THERE:
            raise
        return None


def resolve(uri: str, root: Path | str = DEFAULT_ROOT) -> Path:
    """Return the local folder of the bundle behind `models:/NAME@ALIAS` or `models:/NAME/VERSION`.

    Raises InputError for another form of address, or one that nothing is registered under.
    """
    name, alias, version = parsed(uri)
    _check_there(Path(root))
    with _mlflow(Path(root)) as mlflow:
        run_id = _run_of(mlflow, uri, name, alias, version)
        return _folder(mlflow, run_id)


def _folder(mlflow: Any, run_id: str) -> Path:
    """Return the bundle folder of a run: where it lies if that is on this machine, else a copy of it."""
    address = urlsplit(mlflow.get_run(run_id).info.artifact_uri)
    if address.scheme in ("", "file"):
        return Path(url2pathname(address.path)) / _BUNDLE_FOLDER
    return Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=_BUNDLE_FOLDER))


def _run_of(mlflow: Any, uri: str, name: str, alias: str | None, version: int | None) -> str:
    client = mlflow.MlflowClient()
    try:
        if alias is not None:
            found = client.get_model_version_by_alias(name, alias)
        else:
            found = client.get_model_version(name, str(version))
    except mlflow.MlflowException as error:
        if error.error_code not in _NOT_THERE:
            raise
        raise InputError(f"nothing is registered as {uri}; botsieve train registers a bundle") from error
    return str(found.run_id)


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
        from sqlalchemy.exc import SQLAlchemyError

        before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
        uri = f"sqlite:///{root.absolute()}/{_DATABASE}"
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        try:
            yield mlflow
        except (mlflow.MlflowException, SQLAlchemyError) as error:
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
