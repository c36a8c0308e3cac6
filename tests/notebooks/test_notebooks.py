"""Every notebook runs from top to bottom, on the small size, with nothing but the public interface; outputs are not kept."""

from __future__ import annotations

import ast
import json
import os
import random
import re
from datetime import UTC, datetime, timedelta
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
    assert "".join(tagged[0]["source"]).startswith("# Parameters: change these for a log of your own\n")
    assert "LOG = None" in "".join(tagged[0]["source"])


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the notebooks keep bundles and, all in one database, their runs."""
    return tmp_path_factory.mktemp("notebooks")


def executed(
    notebook: Path,
    work: Path,
    monkeypatch: pytest.MonkeyPatch,
    parameters: str = "",
) -> list[Any]:
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
    said = "".join(output.text for output in outputs if output.output_type == "stream")
    assert not re.search(r"No incident found|\binf raw", said), said


@pytest.fixture(scope="module")
def web(work: Path) -> str:
    """Return a log in combined format, half a day of a web site with 150 clients, so without accounts, tokens or durations."""
    rng = random.Random(5)
    begin, lines = datetime(2026, 1, 5, tzinfo=UTC), []
    agents = [
        f"Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:{n}.0) Gecko/20100101 Firefox/{n}.0" for n in range(120, 128)
    ]
    pages = ["/", "/about", "/style.css", "/logo.png", *(f"/posts/{number}" for number in range(40))]
    for client in range(150):
        time = rng.uniform(0, 36_000)
        agent = rng.choice(agents)
        for _ in range(rng.randint(4, 30)):
            time += rng.expovariate(1 / 120)
            page, status, size = rng.choice(pages), rng.choice([200, 200, 200, 304, 404]), rng.randint(200, 20_000)
            at = f"{begin + timedelta(seconds=time):%d/%b/%Y:%H:%M:%S +0000}"
            line = f'198.18.{client % 8}.{client} - - [{at}] "GET {page} HTTP/1.1" {status} {size} "-" "{agent}"'
            lines.append((time, line))
    log = work / "web.log"
    log.write_text("\n".join(line for _, line in sorted(lines)) + "\n", encoding="utf-8")
    return str(log)


SHOWN = {  # plots, and what is said of a log without labels and tokens
    "03_incident": (2, ["BUNDLE is not set: learned from", "blocks nothing"]),
    "04_drift_and_feedback": (3, ["LATER is not set: the log is cut in two", "attackers are woven in"]),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("notebook", NOTEBOOKS[2:], ids=lambda path: path.stem)
def test_a_log_of_ones_own_is_all_it_takes(
    notebook: Path, web: str, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = executed(notebook, work, monkeypatch, f"LOG = {web!r}")
    plots, said = SHOWN[notebook.stem]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= plots
    text = "".join(output.text for output in outputs if output.output_type == "stream")
    assert [words for words in said if words not in text] == []
    assert not re.search(r"Warning|\bnan\b|\binf raw|from the new library", text), text


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("number", "name"), [(2, "BUNDLE"), (3, "LATER")])
def test_a_log_of_ones_own_is_not_mixed_with_a_simulated_one(
    number: int, name: str, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nbclient.exceptions import CellExecutionError

    with pytest.raises(CellExecutionError, match=f"{name} is set and LOG is not: set LOG"):
        executed(NOTEBOOKS[number], work, monkeypatch, f"{name} = 'mine'")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_handful_of_lines_is_explored(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = ROOT / "tests" / "data" / "logs" / "combined.log"
    outputs = executed(NOTEBOOKS[0], work, monkeypatch, f"LOG = {str(log)!r}")
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
    text = "".join(output.text for output in outputs if output.output_type == "stream")
    assert "No client of this log sends ten requests" in text
