"""The bundle: written whole or not at all, and refused when a single byte of it has changed."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier.errors import BundleError
from classifier.model import bundle as bundles
from classifier.model.bundle import FORMAT_VERSION, MANIFEST_FILE, Bundle, Manifest, load_bundle, write_bundle
from classifier.policy import LegitimateCurve, Thresholds

FILES = {"model.onnx": b"\x08\x09graph", "report.html": b"<p>fine</p>", "reference.json": b"{}"}


def manifest(**changes: Any) -> Manifest:
    """Return a small manifest, as training would fill it in."""
    values: dict[str, Any] = {
        "created": "2026-11-23T12:00:00Z",
        "features": ("client_rate_1s", "client_gap", "address_rate_64s"),
        "spec_hash": "5f" * 32,
        "without": ("user_agent",),
        "fields_seen": ("time", "ip", "path"),
        "tables": {"client": 65536, "everyone": 1},
        "half_lives": (1.0, 8.0),
        "thresholds": Thresholds(1.5, np.inf, ("too few rows",)).as_json(),
        "budgets": {"challenge": 0.002, "block": 0.0001},
        "calibration": {"a": 1.25, "b": -3.5, "prior": 0.01},
        "clip": 2.0,
        "trees_own": 2,
        "trees_total": 3,
        "leaf_bits": 19,
        "legitimate_curve": LegitimateCurve(10, 5, (-1.0, 2.0), (10, 0), (1.0, 0.0)).as_json(),
        "metrics": {"recall": np.float64(0.5), "counts": np.array([1, 2])},
        "training_data": {"digest": "ab", "events": 10},
        "versions": {"lightgbm": "4.7.0"},
    }
    return Manifest(**values | changes)


@pytest.fixture
def written(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "bundle", manifest(), FILES)


def test_what_was_written_is_loaded(written: Bundle) -> None:
    loaded = load_bundle(written.path, expect_spec_hash=written.manifest.spec_hash)
    assert loaded.model == FILES["model.onnx"]
    assert {name: loaded.read(name) for name in loaded.manifest.files} == FILES
    assert loaded.manifest.policy_thresholds() == Thresholds(1.5, np.inf, ("too few rows",))
    assert loaded.manifest.policy_curve().raw == (-1.0, 2.0)
    assert loaded.manifest.clip_limit() == 2.0
    assert loaded.manifest.metrics == {"recall": 0.5, "counts": [1, 2]}
    assert loaded.manifest.features == manifest().features
    with pytest.raises(BundleError, match=r"has no prompt\.npy"):
        loaded.read("prompt.npy")


def test_the_same_contents_make_the_same_bytes(written: Bundle, tmp_path: Path) -> None:
    again = write_bundle(tmp_path / "again", manifest(), dict(reversed(FILES.items())))
    assert (again.path / MANIFEST_FILE).read_bytes() == (written.path / MANIFEST_FILE).read_bytes()


def test_no_limit_is_null_and_infinity(tmp_path: Path) -> None:
    loaded = load_bundle(write_bundle(tmp_path / "bundle", manifest(clip=None), FILES).path)
    assert loaded.manifest.clip_limit() == np.inf


@pytest.mark.parametrize("name", [*FILES, MANIFEST_FILE])
def test_a_changed_byte_anywhere_is_found(written: Bundle, name: str) -> None:
    file = written.path / name
    original = file.read_bytes()
    for place in range(len(original)):
        file.write_bytes(original[:place] + bytes([original[place] ^ (1 << place % 8)]) + original[place + 1 :])
        with pytest.raises(BundleError) as caught:
            load_bundle(written.path)
        assert "\n" not in str(caught.value)
    for wrong in (original[:-1], original + b"\n", b" " + original, b""):
        file.write_bytes(wrong)
        with pytest.raises(BundleError):
            load_bundle(written.path)
    file.write_bytes(original)
    load_bundle(written.path)


@pytest.mark.parametrize("name", [*FILES, MANIFEST_FILE])
def test_a_missing_file_is_named(written: Bundle, name: str) -> None:
    (written.path / name).unlink()
    with pytest.raises(BundleError, match=f"has no {name}"):
        load_bundle(written.path)


def test_a_file_that_is_a_folder_or_a_pipe_is_refused(written: Bundle) -> None:
    (written.path / "report.html").unlink()
    (written.path / "report.html").mkdir()
    with pytest.raises(BundleError, match="not a plain file"):
        load_bundle(written.path)
    (written.path / "report.html").rmdir()
    os.mkfifo(written.path / "report.html")
    with pytest.raises(BundleError, match="not a plain file"):
        load_bundle(written.path)


def test_a_file_changed_after_loading_is_found_when_it_is_read(written: Bundle) -> None:
    loaded = load_bundle(written.path)
    for name in FILES:
        (written.path / name).write_bytes(b"something else")
    assert loaded.read("model.onnx") == FILES["model.onnx"], "engines get the bytes that were verified"
    with pytest.raises(BundleError, match="was changed"):
        loaded.read("report.html")


def rewrite(written: Bundle, **changes: Any) -> None:
    """Write a manifest that is wrong but sealed as if it were right."""
    changed = msgspec.structs.replace(written.manifest, **changes)
    (written.path / MANIFEST_FILE).write_bytes(bundles._render(bundles._seal(changed, changed.files)))


@pytest.mark.parametrize("name", ["../model.onnx", "/etc/passwd", "a/b", "..", ".hidden", "a\\b", "", "x" * 101, "é"])
def test_names_that_lead_elsewhere_are_refused(written: Bundle, name: str, tmp_path: Path) -> None:
    rewrite(written, files=written.manifest.files | {name: "00"})
    with pytest.raises(BundleError, match="no plain name"):
        load_bundle(written.path)
    with pytest.raises(BundleError, match="no plain name"):
        write_bundle(tmp_path / "other", manifest(), FILES | {name: b""})
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": FORMAT_VERSION + 1}, f"has format {FORMAT_VERSION + 1}.* reads format {FORMAT_VERSION}"),
        ({"files": {}}, r"has no model\.onnx"),
        ({"calibration": {"a": -1.0, "b": 0.0, "prior": 0.01}}, "out of range"),
        ({"calibration": {"a": 1.0}}, "lacks a usable"),
        ({"thresholds": {}}, "lacks a usable"),
        ({"legitimate_curve": {"rows": "many"}}, "lacks a usable"),
        ({"trees_own": 9}, "out of range"),
        ({"clip": -1.0}, "out of range"),
    ],
)
def test_manifests_that_cannot_be_served_are_refused(written: Bundle, changes: dict[str, Any], message: str) -> None:
    rewrite(written, **changes)
    with pytest.raises(BundleError, match=message):
        load_bundle(written.path)


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"[]", b"null", b"{}", b'{"format_version": "1"}', b"[" * 100_000]
)
def test_a_manifest_that_is_no_manifest_is_refused(written: Bundle, content: bytes) -> None:
    (written.path / MANIFEST_FILE).write_bytes(content)
    with pytest.raises(BundleError, match="cannot be read"):
        load_bundle(written.path)


@given(content=st.binary(max_size=200))
def test_no_junk_gets_past_as_a_manifest(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("junk")
    (folder / MANIFEST_FILE).write_bytes(content)
    with pytest.raises(BundleError):
        load_bundle(folder)


def test_files_beyond_the_limits_are_refused(written: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "LARGEST_MANIFEST", 100)
    with pytest.raises(BundleError, match="larger than"):
        load_bundle(written.path)
    monkeypatch.undo()
    monkeypatch.setattr(bundles, "LARGEST_FILE", 5)
    with pytest.raises(BundleError, match="larger than"):
        load_bundle(written.path)
    with pytest.raises(BundleError, match="files, more than"):
        write_bundle(written.path, manifest(), FILES | {f"f{i}": b"" for i in range(100)})


def test_a_mismatch_names_both_sides(written: Bundle) -> None:
    with pytest.raises(BundleError, match=r"feature table 5f5f.* this version has 0123"):
        load_bundle(written.path, expect_spec_hash="0123" * 16)


@pytest.mark.parametrize("what", ["nothing", "a file"])
def test_no_folder_is_no_bundle(what: str, tmp_path: Path) -> None:
    if what == "a file":
        (tmp_path / "bundle").write_text("x")
    with pytest.raises(BundleError, match="no bundle at"):
        load_bundle(tmp_path / "bundle")


def test_an_older_bundle_is_replaced_and_an_empty_folder_filled(written: Bundle, tmp_path: Path) -> None:
    write_bundle(written.path, manifest(leaf_bits=20), {"model.onnx": b"new"})
    assert load_bundle(written.path).model == b"new"
    assert {file.name for file in written.path.iterdir()} == {"model.onnx", MANIFEST_FILE}
    (tmp_path / "empty").mkdir()
    write_bundle(tmp_path / "empty", manifest(), FILES)
    assert {entry.name for entry in tmp_path.iterdir()} == {"bundle", "empty"}, "nothing is left over"


def test_what_is_not_a_bundle_is_left_alone(written: Bundle, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "thesis")
    for name in ("thesis", "file", "link"):
        with pytest.raises(BundleError, match="choose another --bundle"):
            write_bundle(tmp_path / name, manifest(), FILES)
    (written.path / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match=r"also holds notes\.txt"):
        write_bundle(written.path, manifest(), FILES)
    assert (written.path / "notes.txt").read_text() == "mine"
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"


def test_a_failed_write_leaves_the_old_bundle(written: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BundleError, match="No space left on device"):
        write_bundle(written.path, manifest(), {"model.onnx": b"new"})
    monkeypatch.undo()
    assert load_bundle(written.path).model == FILES["model.onnx"]
    assert [entry.name for entry in written.path.parent.iterdir()] == ["bundle"]


def test_a_failed_swap_puts_the_old_bundle_back(written: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def fail_for_new(self: Path, target: Path) -> Path:
        if ".new-" in self.name:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_new)
    with pytest.raises(BundleError, match="Input/output error"):
        write_bundle(written.path, manifest(), {"model.onnx": b"new"})
    monkeypatch.undo()
    assert load_bundle(written.path).model == FILES["model.onnx"]


def test_files_can_be_given_by_path(tmp_path: Path) -> None:
    (tmp_path / "plot.html").write_text("<p>plot</p>")
    written = write_bundle(tmp_path / "bundle", manifest(), FILES | {"report.html": tmp_path / "plot.html"})
    assert load_bundle(written.path).read("report.html") == b"<p>plot</p>"
    with pytest.raises(BundleError, match=r"has no gone\.html"):
        write_bundle(tmp_path / "bundle", manifest(), FILES | {"report.html": tmp_path / "gone.html"})


def test_a_copied_bundle_is_the_same_bundle(written: Bundle, tmp_path: Path) -> None:
    shutil.copytree(written.path, tmp_path / "copy")
    assert dataclasses.replace(load_bundle(tmp_path / "copy"), path=written.path) == load_bundle(written.path)
