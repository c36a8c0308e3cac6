"""The bundle: a folder that can be served. It holds data only; nothing in it executes on load.

Every file stands in `manifest.json` with its SHA-256, and the manifest carries its own (computed with that field
empty). This finds damage and mix-ups, not forgery: who can rewrite the folder can rewrite its digests too.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from classifier.errors import BundleError
from classifier.policy import LegitimateCurve, Thresholds

FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"
MODEL_FILE = "model.onnx"
CUDA_FILE = "model.cuda.onnx"

LARGEST_MANIFEST = 16 << 20
LARGEST_FILE = 1 << 30
MOST_FILES = 64
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `manifest.json` says. `files` and `manifest_sha256` are filled in by `write_bundle`.

    features          ordered names of the columns the model takes
    spec_hash         of the feature table they come from
    without           feature groups left out by name
    fields_seen       event fields that training saw
    tables            slots of the table of each entity kind
    half_lives        of the decayed sums, s
    thresholds        policy.Thresholds.as_json()
    budgets           share of legitimate requests, by action
    calibration       a, b and prior of probability = sigmoid(a * raw + b)
    clip              limit c on the group part; null for none
    trees_own         K, trees of the own part
    trees_total       T, trees of both parts
    leaf_bits         k; leaves are multiples of 2^-k
    legitimate_curve  policy.LegitimateCurve.as_json()
    training_data     digest, events, clients, span
    versions          of the libraries that trained the model
    files             SHA-256 (hex) of every other file, by name
    """

    format_version: int = FORMAT_VERSION
    created: str
    features: tuple[str, ...]
    spec_hash: str
    without: tuple[str, ...] = ()
    fields_seen: tuple[str, ...] = ()
    tables: dict[str, int] = {}
    half_lives: tuple[float, ...] = ()
    thresholds: dict[str, Any]
    budgets: dict[str, float]
    calibration: dict[str, Any]
    clip: float | None = None
    trees_own: int
    trees_total: int
    leaf_bits: int
    legitimate_curve: dict[str, Any]
    metrics: dict[str, Any] = {}
    training_data: dict[str, Any] = {}
    versions: dict[str, str] = {}
    files: dict[str, str] = {}
    manifest_sha256: str = ""

    def policy_thresholds(self) -> Thresholds:
        """Return the raw thresholds of challenge and block."""
        return Thresholds.from_json(self.thresholds)

    def policy_curve(self) -> LegitimateCurve:
        """Return the curve of legitimate raw scores."""
        return LegitimateCurve.from_json(self.legitimate_curve)

    def clip_limit(self) -> float:
        """Return c as a number: infinity where none was fitted."""
        return float("inf") if self.clip is None else self.clip


class _Versioned(msgspec.Struct):
    format_version: int


@dataclass(frozen=True)
class Bundle:
    """A bundle whose every file matched its digest when it was loaded.

    `model` is the very `model.onnx` that was verified: engines get these bytes, so nothing can change in between.
    """

    path: Path
    manifest: Manifest
    model: bytes

    def read(self, name: str) -> bytes:
        """Return the content of one file of the bundle, verified again. Raises BundleError."""
        if name == MODEL_FILE:
            return self.model
        if name not in self.manifest.files:
            raise BundleError(f"the bundle {self.path} has no {name}; train it again to get one")
        return _verified(self.path, name, self.manifest.files[name])


def write_bundle(directory: Path | str, manifest: Manifest, files: Mapping[str, bytes | Path]) -> Bundle:
    """Write a bundle in one step: readers see the whole folder or none of it, and a crash leaves no half of one.

    `files` maps names to contents, or to files to copy; `model.onnx` must be among them. An older bundle at `directory`
    is replaced (for a moment between two renames no folder is there); any other folder that is not empty is left alone.
    Raises BundleError.
    """
    target = Path(directory).absolute()
    _check_names(target, files)
    check_replaceable(target)
    contents = {name: _content(files[name]) for name in sorted(files)}
    sealed = _seal(manifest, {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()})
    rendered = _render(sealed)
    _parse(rendered, target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _write_and_swap(target, {**contents, MANIFEST_FILE: rendered})
    except OSError as error:
        raise BundleError(f"cannot write the bundle {target}: {error.strerror}; choose another --bundle") from error
    return Bundle(target, sealed, contents[MODEL_FILE])


def load_bundle(directory: Path | str, *, expect_spec_hash: str | None = None) -> Bundle:
    """Load a bundle and verify every file it lists; files it does not list are never read.

    `expect_spec_hash` is that of the features which the caller will feed it. Raises BundleError, one line: a missing or
    changed file, a format this version does not know, or a mismatch, naming both sides.
    """
    path = Path(directory)
    if not path.is_dir():
        raise BundleError(f"no bundle at {path}: give the folder that botsieve train --bundle wrote")
    manifest = _parse(_read_bounded(path, MANIFEST_FILE, LARGEST_MANIFEST), path)
    if expect_spec_hash is not None and manifest.spec_hash != expect_spec_hash:
        raise BundleError(
            f"the bundle {path} was made for feature table {manifest.spec_hash[:16]}, this version has"
            f" {expect_spec_hash[:16]}; train it again, or use the version of botsieve that made it"
        )
    model = b""
    for name, digest in manifest.files.items():
        content = _verified(path, name, digest)
        if name == MODEL_FILE:
            model = content
    return Bundle(path, manifest, model)


def _parse(content: bytes, path: Path) -> Manifest:
    """Decode a manifest and check all that can be checked without the other files."""
    where = f"{MANIFEST_FILE} of the bundle {path}"
    try:
        version = msgspec.json.decode(content, type=_Versioned).format_version
        if version != FORMAT_VERSION:
            raise BundleError(
                f"the bundle {path} has format {version}, this version of botsieve reads format {FORMAT_VERSION};"
                " use the version that wrote it, or train again"
            )
        manifest = msgspec.json.decode(content, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{where} cannot be read ({error}); copy or train the bundle again") from error
    # Comparing the text, not only the values, finds a changed byte anywhere, white space included.
    if _render(_seal(manifest, manifest.files)) != content:
        raise BundleError(f"{where} was changed after it was written; copy or train the bundle again")
    _check_names(path, manifest.files)
    _check_values(where, manifest)
    return manifest


def _check_values(where: str, manifest: Manifest) -> None:
    try:
        manifest.policy_thresholds()
        manifest.policy_curve()
        calibration = [float(manifest.calibration[name]) for name in ("a", "b", "prior")]
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{where} lacks a usable {error}; train the bundle again") from error
    counts = 0 <= manifest.trees_own <= manifest.trees_total
    if not calibration[0] > 0 or not counts or not manifest.clip_limit() >= 0:
        raise BundleError(f"{where} has a slope, limit or number of trees out of range; train the bundle again")


def _check_names(path: Path, names: Mapping[str, Any] | Sequence[str]) -> None:
    if len(names) > MOST_FILES:
        raise BundleError(f"the bundle {path} lists {len(names)} files, more than {MOST_FILES}; train it again")
    for name in names:
        if not _FILE_NAME.fullmatch(name) or name == MANIFEST_FILE:
            raise BundleError(f"the bundle {path} lists a file {name[:100]!r}, which is no plain name; train it again")
    if MODEL_FILE not in names:
        raise BundleError(f"the bundle {path} has no {MODEL_FILE}; train it again")


def _seal(manifest: Manifest, files: Mapping[str, str]) -> Manifest:
    unsealed = msgspec.structs.replace(manifest, files=dict(files), manifest_sha256="")
    return msgspec.structs.replace(unsealed, manifest_sha256=hashlib.sha256(_render(unsealed)).hexdigest())


def _render(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest, enc_hook=_plain), indent=2) + b"\n"


def _plain(value: Any) -> Any:
    """Take NumPy's scalars and arrays for the numbers they are."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise NotImplementedError(f"a manifest cannot hold {type(value).__name__}")


def _verified(path: Path, name: str, digest: str) -> bytes:
    content = _read_bounded(path, name, LARGEST_FILE)
    if hashlib.sha256(content).hexdigest() != digest:
        raise BundleError(f"{name} of the bundle {path} was changed after it was written; copy or train it again")
    return content


def _read_bounded(path: Path, name: str, limit: int) -> bytes:
    file = path / name
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(f"{name} of the bundle {path} is not a plain file; copy or train the bundle again")
        if status.st_size > limit:
            raise BundleError(f"{name} of the bundle {path} is larger than {limit >> 20} MiB; train the bundle again")
        with file.open("rb") as stream:
            return stream.read(limit)
    except FileNotFoundError as error:
        raise BundleError(f"the bundle {path} has no {name}; copy or train it again") from error
    except OSError as error:
        raise BundleError(f"cannot read {name} of the bundle {path}: {error.strerror}") from error


def _content(source: bytes | Path) -> bytes:
    return source if isinstance(source, bytes) else _read_bounded(source.parent, source.name, LARGEST_FILE)


def check_replaceable(target: Path) -> None:
    """Refuse to replace what is not a bundle, or one that somebody keeps other things in."""
    if not target.exists() and not target.is_symlink():
        return
    if target.is_symlink() or not target.is_dir():
        raise BundleError(f"{target} is there and is no folder; choose another --bundle")
    present = {entry.name for entry in target.iterdir()}
    if not present:
        return
    if MANIFEST_FILE not in present:
        raise BundleError(f"{target} holds files and is no bundle, so it is left alone; choose another --bundle")
    try:
        listed = msgspec.json.decode(_read_bounded(target, MANIFEST_FILE, LARGEST_MANIFEST), type=_Listing).files
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{target} is no readable bundle, so it is left alone; choose another --bundle") from error
    strange = sorted(present - {MANIFEST_FILE} - listed.keys())
    if strange:
        raise BundleError(
            f"{target} also holds {strange[0]}, not part of the bundle; move it or choose another --bundle"
        )


class _Listing(msgspec.Struct):
    format_version: int
    files: dict[str, str]


def _write_and_swap(target: Path, contents: Mapping[str, bytes]) -> None:
    token = secrets.token_hex(6)
    fresh, old = (target.parent / f".{target.name}.{kind}-{token}" for kind in ("new", "old"))
    try:
        fresh.mkdir()
        for name, content in contents.items():
            _write_through(fresh / name, content)
        _sync_folder(fresh)
        if target.exists():
            target.rename(old)
        try:
            fresh.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
        _sync_folder(target.parent)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _write_through(path: Path, content: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _sync_folder(path: Path) -> None:
    """Make renames inside a folder last; systems that cannot open folders need no such call."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
