"""Every notebook runs from top to bottom, on the small size, with nothing but the public interface; outputs are not kept."""

from __future__ import annotations

import ast
import json
import os
from pathlib import Path
from typing import Any

import pytest

import classifier

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TIMEOUT_S = 600
NAMES = ["01_explore_traffic", "02_train_and_compare", "03_incident", "04_drift_and_feedback"]


def content(notebook: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(notebook.read_text(encoding="utf-8"))
    return found


def code(notebook: Path) -> list[str]:
    return ["".join(cell["source"]) for cell in content(notebook)["cells"] if cell["cell_type"] == "code"]


def test_the_notebooks_are_those_that_the_pages_name() -> None:
    assert [notebook.stem for notebook in NOTEBOOKS] == NAMES
    page = (ROOT / "notebooks" / "README.md").read_text(encoding="utf-8")
    assert all(name in page for name in NAMES)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_output_is_kept(notebook: Path) -> None:
    for cell in content(notebook)["cells"]:
        assert not cell.get("outputs"), cell["id"]
        assert cell.get("execution_count") is None, cell["id"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_only_the_public_interface_is_used(notebook: Path) -> None:
    for text in code(notebook):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                ours = [alias.name for alias in node.names if alias.name.startswith(("classifier", "serving"))]
                assert set(ours) <= {"classifier"}
            elif isinstance(node, ast.ImportFrom):
                assert not (node.module or "").startswith(("classifier", "serving"))
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "classifier":
                assert node.attr in classifier.__all__
            if isinstance(node, ast.Attribute):
                assert not node.attr.startswith("_")


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_one_cell_says_whose_log_it_is(notebook: Path) -> None:
    tagged = [cell for cell in content(notebook)["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    assert len(tagged) == 1
    assert "LOG = None" in "".join(tagged[0]["source"])


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the notebooks keep bundles and, all in one database, their runs."""
    return tmp_path_factory.mktemp("notebooks")


def executed(notebook: Path, work: Path, monkeypatch: pytest.MonkeyPatch, parameters: str = "") -> list[Any]:
    """Run a notebook in a kernel of its own and return its outputs."""
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("BOTSIEVE_NOTEBOOKS", "small")
    monkeypatch.setenv("BOTSIEVE_NOTEBOOKS_DIR", str(work))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
    monkeypatch.setenv("IPYTHONDIR", str(work / "ipython"))
    monkeypatch.setenv("PYTHONWARNINGS", "default")
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")  # on busy cores, threads that spin take ten times as long
    book = nbformat.read(notebook, as_version=4)
    for cell in book.cells:
        if parameters and "parameters" in cell.metadata.get("tags", []):
            cell.source += "\n" + parameters
    client = NotebookClient(
        book, timeout=TIMEOUT_S, kernel_name="python3", resources={"metadata": {"path": str(notebook.parent)}}
    )
    client.execute()
    return [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("notebook", "plots"), list(zip(NOTEBOOKS, (5, 4, 4, 3), strict=True)), ids=[path.stem for path in NOTEBOOKS]
)
def test_a_notebook_runs(notebook: Path, plots: int, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = executed(notebook, work, monkeypatch)
    assert sum("image/png" in output.get("data", {}) for output in outputs) == plots
    text = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stderr")
    assert "Warning" not in text, text


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_log_without_labels_or_tokens_is_explored(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = ROOT / "tests" / "data" / "logs" / "combined.log"
    outputs = executed(NOTEBOOKS[0], work, monkeypatch, f"LOG = {str(log)!r}")
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 5
