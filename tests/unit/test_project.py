"""Promises about the project as a whole: its pins, its pages, and what a build of it contains."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from classifier import __version__
from classifier.events import FIELDS, REQUIRED

ROOT = Path(__file__).resolve().parents[2]
PINS = sorted((ROOT / "requirements").glob("*.txt"))
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*/README.md")]


@pytest.mark.parametrize("pins", PINS, ids=lambda path: path.name)
def test_every_requirement_is_pinned_and_hashed_and_no_host_is_named(pins: Path) -> None:
    text = re.sub(r"^ *#.*\n", "", pins.read_text(), flags=re.MULTILINE)
    requirements = text.replace("\\\n", " ").splitlines()
    assert requirements
    for requirement in requirements:
        assert re.match(r"[a-z0-9._-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", requirement), requirement[:80]
    assert "://" not in text


def test_what_runs_the_product_is_pinned_alike_for_users_and_developers() -> None:
    def pinned(name: str) -> set[str]:
        return set(re.findall(r"^([a-z0-9._-]+==[^ ]+)", (ROOT / "requirements" / name).read_text(), re.MULTILINE))

    assert pinned("base.txt") < pinned("dev.txt")


def test_the_version_stands_in_one_place_and_the_changelog_knows_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == __version__
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_every_event_field_is_documented_as_the_code_has_it() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (\w+) \|", (ROOT / "docs" / "formats.md").read_text(), re.MULTILINE)
    types = {"int64": "integer", "double": "number", "string": "text", "bool": "boolean"}
    expected = [(f.name, "time" if f.name == "time" else types[str(f.type)], f.known) for f in FIELDS]
    assert rows == expected
    assert set(REQUIRED) <= {name for name, _, known in rows if known == "arrival"}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target and not target.startswith("mailto:"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.slow
def test_a_built_wheel_holds_every_module_and_data_file(tmp_path: Path) -> None:
    build = "import sys, setuptools.build_meta as backend; backend.build_wheel(sys.argv[1])"
    # From a copy: the build writes beside the sources.
    source = tmp_path / "source"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout, so what belongs to the project is unknown")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    out = tmp_path / "out"
    out.mkdir()
    done = subprocess.run([sys.executable, "-c", build, str(out)], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = out.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    shipped = {
        str(path.relative_to(source))
        for package in ("classifier", "serving")
        for path in (source / package).rglob("*")
        if path.is_file() and path.suffix != ".md"
    }
    assert shipped <= packed


def test_every_command_is_documented() -> None:
    from classifier.cli.app import app

    pages = "\n".join(page.read_text() for page in PAGES)
    for command in app.registered_commands:
        callback = command.callback
        assert callback is not None
        assert f"botsieve {callback.__name__}" in pages, callback.__name__
        assert "Example: `botsieve" in (callback.__doc__ or "") or callback.__name__ == "demo"
