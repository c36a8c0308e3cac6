"""`botsieve bench`: how long this machine takes for a batch, engine by engine, and which engine would be chosen."""

from __future__ import annotations

from pathlib import Path
from typing import cast, get_args

import numpy as np

from classifier.cli.terminal import OUTPUT
from classifier.errors import InputError
from classifier.model import cuda
from classifier.model.bundle import load_bundle
from classifier.model.compiled import CompiledEngine, read_graph
from classifier.model.dispatch import measured, planned
from classifier.model.export import to_onnx
from classifier.model.forest import LEAF, Forest
from classifier.model.scorer import Device, alternatives, tensors_of
from classifier.model.tensors import to_tensors

SIZES = (1, 16, 256, 4_096, 16_384)
TREES, DEPTH, FEATURES = 180, 5, 150
"""Of the forest that is measured where no bundle is given: about the size of those that `train` makes."""


def run(bundle: Path | None, device: str) -> None:
    """Print microseconds a row by engine and rows in a call, and which engine `--device` chooses for each."""
    if device not in get_args(Device):
        raise InputError(f"unknown device {device!r}; use auto, cpu or cuda")
    model, tensors = _random_graphs() if bundle is None else _graphs_of(bundle)
    forest, calibration, clip = read_graph(model)
    cpu = CompiledEngine(forest, calibration, clip)
    engines = alternatives(cpu, model, tensors, cast(Device, device), threads=1)
    times = measured(engines, SIZES)
    plan = planned(engines, times) if device == "auto" else [(1, engines[0])]
    _line(f"{forest.n_trees} trees, {forest.n_features} features; one thread; median µs a row")
    _line("rows in a call", "".join(f"{size:>10,}" for size in SIZES))
    for place, engine in enumerate(engines):
        mine = (size for size in SIZES if max(one for one in plan if one[0] <= size)[1] is engine)
        chosen = set(mine)
        cells = (f"{times[size][place] / size * 1e6:9.2f}{'*' if size in chosen else ' '}" for size in SIZES)
        _line(engine.providers[0], "".join(cells))
    _line(f"* chosen by --device {device}")
    if missing := cuda.why_not():
        _line(f"No GPU is measured: CUDA needs {missing}.")


def _line(name: str, rest: str = "") -> None:
    OUTPUT.print(f"{name:26}{rest}" if rest else name, markup=False, soft_wrap=True)


def _graphs_of(folder: Path) -> tuple[bytes, bytes | None]:
    bundle = load_bundle(folder)
    return bundle.model, tensors_of(bundle)


def _random_graphs() -> tuple[bytes, bytes]:
    """Return graphs of perfect trees with random columns and thresholds."""
    rng = np.random.default_rng(0)
    splits, nodes = 2**DEPTH - 1, 2 ** (DEPTH + 1) - 1
    within = np.tile(np.arange(nodes, dtype=np.int32), TREES)
    roots = np.arange(TREES, dtype=np.int32) * nodes
    split, base = within < splits, np.repeat(roots, nodes)
    shape = len(within)
    forest = Forest(
        feature=np.where(split, rng.integers(FEATURES, size=shape), LEAF).astype(np.int32),
        threshold=np.where(split, np.round(rng.standard_normal(shape), 1), 0).astype(np.float32),
        left=np.where(split, base + 2 * within + 1, LEAF).astype(np.int32),
        right=np.where(split, base + 2 * within + 2, LEAF).astype(np.int32),
        nan_left=split & (rng.random(shape) < 0.5),
        value=np.where(split, 0, rng.integers(-500, 500, size=shape) / 2**14).astype(np.float32),
        cover=np.ones(shape, np.float32),
        leaf=np.where(split, LEAF, within - splits).astype(np.int32),
        roots=roots,
        part=(np.arange(TREES) >= TREES * 2 // 3).astype(np.uint8),
        n_features=FEATURES,
    )
    graphs = (make(forest, (1.0, 0.0), np.inf) for make in (to_onnx, to_tensors))
    model, tensors = (bytes(graph.SerializeToString()) for graph in graphs)
    return model, tensors
