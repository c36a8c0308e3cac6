"""The same forest and rows through LightGBM, ONNX Runtime, our engines and three compilers; one thread. On a GPU, where there
is one: the graph of tensors, and NVIDIA's nvForest where it installs; with the copies to the GPU and back.

400 trees of 63 leaves over 64 features with missing values. Engines take turns, every call sees rows that none has seen
before it in that turn, and medians are compared. Peers that a user could pick instead run in an environment of their own
(`make bench-forest` makes it); one that does not install, or does not take the model, is left out with its reason.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from classifier.model.cuda import CudaDevice, DeviceEngine, why_not

TREES, LEAVES, DEPTH, WIDTH = 400, 63, 8, 64
BATCHES = (1, 16, 256, 4_096, 65_536)
REPEATS = {1: 301, 16: 101, 256: 25, 4_096: 7, 65_536: 3}
PEERS = ("treelite", "tl2cgen", "lleaves")
ON_GPU = "botsieve, GPU"
OURS, GPU = ("botsieve", ON_GPU), (ON_GPU, "nvforest")
TENSORS = "model.cuda.onnx"
ROWS = 2 * 65_536
PATIENCE_S = 300
"""What a peer may take to load or compile the forest."""
_PEERS = Path(__file__).with_name("forest_peers.py")

FloatRows = npt.NDArray[np.float32]


def main() -> None:
    """Print the table; write the plot where `--plot` says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", type=Path, help="the Python of the environment that holds the peers")
    parser.add_argument("--keep", type=Path, help="keep the forest in this folder, or take it from there")
    parser.add_argument("--plot", type=Path, help="write a plot there (.png)")
    arguments, _ = parser.parse_known_args(os.environ.get("BENCH_FOREST", "").split())
    rows, _ = traffic(ROWS, seed=2)
    with tempfile.TemporaryDirectory() as name:
        folder = arguments.keep or Path(name)
        booster = grown(folder)
        np.save(folder / "rows.npy", rows)
        print(f"{booster.num_trees()} trees of up to {LEAVES} leaves, {WIDTH} features, depth {DEPTH}; one thread")
        engines = ours(folder, booster)
        peers = started(arguments.peers, folder)
        agree(engines, peers, rows, folder)
        times = measured(engines, peers, rows)
        for peer in peers.values():
            peer.stdin.close()  # type: ignore[union-attr]
            peer.wait(60)
    table(times)
    if arguments.plot:
        plot(times, arguments.plot)


def traffic(n: int, seed: int) -> tuple[FloatRows, npt.NDArray[np.int32]]:
    """Return rows of 64 columns, some skewed, some counts, up to 30 % missing, and labels that need many splits."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, WIDTH)).astype(np.float32)
    rows[:, ::4] = np.exp(rows[:, ::4])
    rows[:, 1::8] = np.floor(4 * rows[:, 1::8])
    rows[rng.random(rows.shape, dtype=np.float32) < np.linspace(0, 0.3, WIDTH, dtype=np.float32)] = np.nan
    z = np.nan_to_num(rows)
    odds = 0.3 * z @ np.sin(np.arange(WIDTH)) + z[:, 3] * z[:, 7] + np.sin(3 * z[:, 10]) * z[:, 11]
    odds += (z[:, 20] > 0.5) * z[:, 21] + rng.standard_normal(n)
    return rows, (odds > np.quantile(odds, 0.8)).astype(np.int32)


def grown(folder: Path) -> Any:
    """Train the forest, round its leaves, write model.onnx and model.txt unless they are there; return the booster."""
    import lightgbm

    from classifier.model.boosters import Boosters
    from classifier.model.export import to_onnx
    from classifier.model.tensors import to_tensors

    written = folder / "model.txt"
    if written.exists() and (folder / TENSORS).exists():
        return lightgbm.Booster(model_file=written)
    rows, labels = traffic(40_000, seed=1)
    parameters = {
        "objective": "binary", "num_leaves": LEAVES, "max_depth": DEPTH, "learning_rate": 0.05, "min_data_in_leaf": 20,
        "verbose": -1, "num_threads": os.cpu_count() or 1, "seed": 1, "deterministic": True,
    }  # fmt: skip
    booster = lightgbm.train(parameters, lightgbm.Dataset(rows, labels), TREES)
    boosters = Boosters(booster, list(range(WIDTH)), None)
    boosters.round_leaves()
    folder.mkdir(parents=True, exist_ok=True)
    forest = boosters.forest(WIDTH)
    for name, made in (("model.onnx", to_onnx), (TENSORS, to_tensors)):
        (folder / name).write_bytes(made(forest, (1.0, 0.0), np.inf).SerializeToString())
    booster.save_model(written)
    return booster


def ours(folder: Path, booster: Any) -> dict[str, Callable[[FloatRows], Any]]:
    """Return what runs in this process: raw scores of rows, by name."""
    from classifier.model.scorer import Scorer

    compiled, graph = (Scorer(folder / "model.onnx", engine=kind) for kind in ("compiled", "onnxruntime"))  # type: ignore[arg-type]
    engines: dict[str, Callable[[FloatRows], Any]] = {
        "lightgbm": lambda rows: booster.predict(rows, raw_score=True, num_threads=1),
        "onnxruntime": lambda rows: graph.score(rows)[0],
        "botsieve": lambda rows: compiled.score(rows)[0],
    }
    if why_not() is None:
        device = DeviceEngine(CudaDevice((folder / TENSORS).read_bytes()))
        engines[ON_GPU] = lambda rows: device.score(rows)[0]
    return engines


def started(python: Path | None, folder: Path) -> dict[str, subprocess.Popen[str]]:
    """Start every peer that can be had."""
    peers: dict[str, subprocess.Popen[str]] = {}
    if python is None or not python.exists():
        print("no environment with treelite, tl2cgen and lleaves here; `make bench-forest` makes one")
        return peers
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for name in (*PEERS, "nvforest") if why_not() is None else PEERS:
        command = [str(python), str(_PEERS), name, str(folder / "model.txt"), str(folder / "rows.npy"), str(WIDTH)]
        peer = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        limit = threading.Timer(PATIENCE_S, peer.kill)
        limit.start()
        while (said := _line(peer)) and said != "ready":
            pass
        limit.cancel()
        if said == "ready":
            peers[name] = peer
        else:
            peer.wait()
            late = f"not ready within {PATIENCE_S} s"
            reason = (peer.stderr.read().strip().splitlines() or [late])[-1]  # type: ignore[union-attr]
            print(f"{name} is left out: {reason}")
    return peers


def _line(peer: subprocess.Popen[str]) -> str:
    return peer.stdout.readline().strip()  # type: ignore[union-attr]


def ask(peer: subprocess.Popen[str], words: str) -> float:
    """Return the seconds that a peer says it took."""
    peer.stdin.write(words + "\n")  # type: ignore[union-attr]
    peer.stdin.flush()  # type: ignore[union-attr]
    while True:
        said = _line(peer)
        try:
            return float(said)
        except ValueError:
            if not said:
                raise RuntimeError(f"a peer ended: {peer.stderr.read()[-300:]}") from None  # type: ignore[union-attr]


def agree(
    engines: dict[str, Callable[[FloatRows], Any]],
    peers: dict[str, subprocess.Popen[str]],
    rows: FloatRows,
    folder: Path,
) -> None:
    """Say how far each engine's raw scores are from LightGBM's, over rows taken whole."""
    expected = engines["lightgbm"](rows[:65_536])
    for name, score in engines.items():
        found = np.asarray(score(rows[:65_536]))
        same = np.array_equal(found.astype(np.float64), expected)
        print(f"{name:12} raw scores of 65,536 rows {'equal bit for bit' if same else 'DIFFER'}")
    for name, peer in peers.items():
        ask(peer, f"raw 0 4096 {folder / 'raw.npy'}")
        found = np.load(folder / "raw.npy").astype(np.float64)
        print(f"{name:12} raw scores of 4,096 rows differ in {int((found != expected[:4096]).sum()):,}")


def measured(
    engines: dict[str, Callable[[FloatRows], Any]], peers: dict[str, subprocess.Popen[str]], rows: FloatRows
) -> dict[str, dict[int, float]]:
    """Return the median microseconds a row, by engine and batch."""
    times: dict[str, dict[int, float]] = {name: {} for name in (*engines, *peers)}
    rng = np.random.default_rng(3)
    for batch in BATCHES:
        taken: dict[str, list[float]] = {name: [] for name in times}
        for _ in range(REPEATS[batch]):
            begin = int(rng.integers(len(rows) - batch + 1))
            for name, score in engines.items():
                fresh = rows[begin : begin + batch].copy()
                begun = time.perf_counter()
                score(fresh)
                taken[name].append(time.perf_counter() - begun)
            for name, peer in peers.items():
                taken[name].append(ask(peer, f"{begin} {batch}"))
        for name, seconds in taken.items():
            times[name][batch] = float(np.median(seconds)) / batch * 1e6
    return times


def table(times: dict[str, dict[int, float]]) -> None:
    """Print µs a row, and how many times as long as ours."""
    print("\nµs a row, and how many times as long as botsieve's compiled forest\n")
    print(f"{'engine':14}" + "".join(f"{batch:>18,}" for batch in BATCHES))
    for name, taken in times.items():
        cells = (f"{taken[batch]:10.3g} {taken[batch] / times['botsieve'][batch]:6.1f}×" for batch in BATCHES)
        print(f"{name:14}" + "".join(cells))


def plot(times: dict[str, dict[int, float]], path: Path) -> None:
    """Draw µs a row over the batch, both in powers of ten."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    height = 0.0
    for name, taken in sorted(times.items(), key=lambda one: one[1][BATCHES[-1]]):
        height = max(taken[BATCHES[-1]], 1.25 * height)  # names of lines that end close together stand above each other
        style: dict[str, Any] = {"linestyle": "--" if name in GPU else "-"}
        style |= {"linewidth": 2.5, "color": "black"} if name in OURS else {"linewidth": 1.2}
        line = axes.plot(BATCHES, [taken[batch] for batch in BATCHES], marker="o", markersize=3, **style)[0]
        axes.annotate(
            name, (BATCHES[-1], height), xytext=(5, 0), textcoords="offset points", va="center",
            color=line.get_color(), fontsize=8,
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="rows in a call", ylabel="µs a row")
    axes.set_title(f"{TREES} trees × {LEAVES} leaves × {WIDTH} features; on the CPU one thread", fontsize=10)
    axes.set_xticks(BATCHES, [f"{batch:,}" for batch in BATCHES])
    axes.margins(x=0.14)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
