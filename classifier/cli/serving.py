"""`botsieve serve`: resolves names of models to folders, then becomes the service, a program of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from classifier.errors import BotsieveError, InputError

_RESOLVE = (
    "import sys; from classifier.model.registry import resolve; from classifier.errors import BotsieveError\n"
    "try: print(resolve(sys.argv[1], sys.argv[2]))\n"
    "except BotsieveError as error: print(error, file=sys.stderr); sys.exit(error.exit_code)"
)


def run(bundle: str | None, challenger: str | None, registry: Path, options: Mapping[str, Any]) -> None:
    """Replace this process by the service. The server sees folders only and never loads MLflow."""
    arguments = [sys.executable, "-m", "serving"]
    for name, source in (("bundle", bundle), ("challenger", challenger)):
        if source is not None:
            arguments += [f"--{name}", folder_of(source, registry)]
    for name, value in options.items():
        if value is not None:
            arguments += [f"--{name}", str(value)]
    sys.stdout.flush()
    os.execv(sys.executable, arguments)


def folder_of(source: str, registry: Path) -> str:
    """Return the folder of a bundle that is named by `models:/…` or is a folder; MLflow runs in a process of its own."""
    if not source.startswith("models:/"):
        return source
    found = subprocess.run(
        [sys.executable, "-c", _RESOLVE, source, str(registry)], capture_output=True, text=True, check=False
    )
    if found.returncode == 0:
        return found.stdout.strip()
    lines = found.stderr.strip().splitlines() or [f"cannot resolve {source}"]
    raise (InputError if found.returncode == 2 else BotsieveError)(lines[-1])
