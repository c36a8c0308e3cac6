"""What a GPU has to show: every node on it, LightGBM's scores bit for bit, its speed, and the service over it.

Each line ends in PASSED, FAILED or UNMEASURED. Without a GPU the CPU plays its part where that says something (cutting, padding,
the endpoint, a fault), under the name CPUStandIn; speed is then unmeasured. Exit code 1 if a line failed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from classifier.errors import BotsieveError
from classifier.model import cuda
from classifier.model.adversarial import adversarial_rows
from classifier.model.boosters import Boosters
from classifier.model.bundle import CUDA_FILE, Bundle, write_bundle
from classifier.model.compiled import CompiledEngine
from classifier.model.cuda import CudaDevice, DeviceEngine
from classifier.model.dispatch import measured
from classifier.model.export import export_model
from classifier.model.scorer import Scorer
from tests.benchmarks.__main__ import machine
from tests.benchmarks.bench_forest import DEPTH, LEAVES, TREES, WIDTH, traffic
from tests.gpu import endpoint
from tests.gpu.stand_in import StandIn
from tests.unit.test_bundle import manifest

BATCHES = (1, 16, 64, 256, 1_024, 4_096, 16_384, 65_536)
TARGET = 10e6
"""Rows a second at 65,536."""
BANDWIDTH = {"H200": 4_800, "H100": 3_350, "A100": 2_039, "L40S": 864, "L4": 300, "T4": 320, "A10": 600}
"""GB/s of a GPU's memory, by its data sheet."""

Report = Callable[[str, bool | None, str], None]


def main() -> int:
    """Run all lines."""
    parser = argparse.ArgumentParser(prog="tests/gpu/acceptance", description=__doc__)
    parser.add_argument("--events", type=int, default=200_000, help="events that both services decide")
    parser.add_argument("--bundle", type=Path, help="serve this bundle instead of training one")
    parser.add_argument("--bandwidth", type=float, help="GB/s of the GPU's memory, if its name is not known here")
    parser.add_argument("--trees", type=int, default=TREES)
    given = parser.parse_args()
    missing = cuda.why_not()
    print(f"{machine()}; {_gpu() or f'no GPU: CUDA needs {missing}'}")
    results: list[tuple[str, bool | None]] = []

    def report(line: str, passed: bool | None, found: str) -> None:
        verdict = {True: "PASSED", False: "FAILED", None: "UNMEASURED"}[passed]
        print(f"{verdict:10} {line}: {found}", flush=True)
        results.append((line, passed))

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle, boosters = forest_bundle(folder / "forest", given.trees)
        start_up(bundle, missing, report)
        device: Any = StandIn(bundle.read(CUDA_FILE)) if missing else CudaDevice(bundle.read(CUDA_FILE))
        on_device(device, missing, report)
        exactness(device, boosters, bundle, report)
        if missing:
            for line in ("throughput", "latency", "crossover", "share of memory bandwidth"):
                report(line, None, "no GPU")
        else:
            speed(device, bundle, given.bandwidth, report)
        choice(bundle, report)
        endpoint.check(folder, given.bundle, given.events, missing is not None, report)
    failed = [line for line, passed in results if passed is False]
    unmeasured = [line for line, passed in results if passed is None]
    print(
        f"{len(results)} lines: {len(failed)} failed, {len(unmeasured)} unmeasured ({', '.join(unmeasured) or 'none'})"
    )
    return 1 if failed else 0


def _gpu() -> str:
    try:
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        return subprocess.run(query, capture_output=True, text=True, check=True, timeout=30).stdout.splitlines()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return ""


def forest_bundle(folder: Path, trees: int) -> tuple[Bundle, Boosters]:
    """Train the forest of `make bench-forest`, in two parts, and write it as a bundle."""
    import lightgbm

    rows, labels = traffic(40_000, seed=1)
    parameters = {
        "objective": "binary", "num_leaves": LEAVES, "max_depth": DEPTH, "learning_rate": 0.05, "min_data_in_leaf": 20,
        "verbose": -1, "seed": 1, "deterministic": True,
    }  # fmt: skip
    own_columns = list(range(0, WIDTH, 2))
    own_rows = np.ascontiguousarray(rows[:, own_columns])
    own = lightgbm.train(parameters, lightgbm.Dataset(own_rows, labels), trees * 2 // 3)
    start = own.predict(own_rows, raw_score=True)
    group = lightgbm.train(parameters, lightgbm.Dataset(rows, labels, init_score=start), trees - trees * 2 // 3)
    boosters = Boosters(own, own_columns, group)
    boosters.round_leaves()
    exported = export_model(boosters, (1.0, -0.5), np.inf, rows[:200], WIDTH)
    described = manifest(features=tuple(f"f{column}" for column in range(WIDTH)))
    return write_bundle(folder, described, exported.files()), boosters


def start_up(bundle: Bundle, missing: str | None, report: Report) -> None:
    """`--device cuda` starts where there is a GPU, and ends with one line where none can be seen."""
    try:
        providers = Scorer(bundle, device="cuda").providers
        report("strict start-up", None if missing else providers == (cuda.PROVIDER,), f"runs on {providers[0]}")
    except BotsieveError as error:
        report("strict start-up", None if missing else False, str(error))
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    command = [sys.executable, "-m", "classifier", "bench", "--bundle", str(bundle.path), "--device", "cuda"]
    ran = subprocess.run(command, env=hidden, capture_output=True, text=True, check=False)
    lines = ran.stderr.strip().splitlines()
    report("start-up without a GPU is refused", ran.returncode == 2 and len(lines) == 1, " ".join(lines)[:200])


def on_device(device: Any, missing: str | None, report: Report) -> None:
    """Every node of the graph is on the GPU."""
    if missing:
        report("every node on the CUDA provider", None, "no GPU")
        return
    counts = Counter(where for _, where in device.placement)
    report("every node on the CUDA provider", set(counts) == {cuda.PROVIDER}, f"{dict(counts)}")


def exactness(device: Any, boosters: Boosters, bundle: Bundle, report: Report) -> None:
    """Raw scores are LightGBM's bit for bit, and probabilities within 1e-6, on rows nobody has seen."""
    seed = time.time_ns() % 2**32
    natural, _ = traffic(2_000, seed=seed)
    rows = np.concatenate([natural, adversarial_rows(boosters.forest(WIDTH), natural)])
    raw, probability = DeviceEngine(device).score(rows)
    exact = boosters.raw(rows)
    wrong = int((raw.view(np.int32) != exact.astype(np.float32).view(np.int32)).sum())
    error = float(np.abs(probability - 1 / (1 + np.exp(-(exact - 0.5)))).max())
    found = f"{len(rows):,} adversarial rows (seed {seed}) on {device.provider}: {wrong} raw scores differ, |Δp| ≤ {error:.1e}"
    report("equal to LightGBM", wrong == 0 and error <= 1e-6, found)


def speed(device: Any, bundle: Bundle, bandwidth: float | None, report: Report) -> None:
    """Throughput and latency, against the compiled forest of this machine's CPU."""
    forest = Scorer(bundle).forest
    cores = os.cpu_count() or 1
    engines = [CompiledEngine(forest, (1.0, -0.5), np.inf, threads) for threads in (1, cores)]
    times = measured([*engines, DeviceEngine(device)], BATCHES)
    print(
        f"{'rows':>8} {'one core':>14} {f'{cores} cores':>14} {'GPU':>14} {'GPU ms':>9} {'without copies':>16}   rows/s"
    )
    bare: dict[int, float] = {}
    for size in BATCHES:
        one, all_cores, gpu = times[size]
        bare[size] = device.seconds_without_copies(min(size, max(cuda.SIZES))) / min(size, max(cuda.SIZES)) * size
        rates = "".join(f"{size / seconds:15,.0f}" for seconds in (one, all_cores, gpu))
        print(f"{size:8,}{rates} {gpu * 1e3:9.3f} {size / bare[size]:16,.0f}")
    rate = BATCHES[-1] / times[BATCHES[-1]][2]
    report(
        "throughput",
        rate >= TARGET,
        f"{rate / 1e6:.1f} M rows/s at 65,536, host copies included; target {TARGET / 1e6:.0f}",
    )
    report("latency", True, ", ".join(f"{size:,}: {times[size][2] * 1e3:.3f} ms" for size in BATCHES[:6]))
    ahead = [next((size for size in BATCHES if times[size][2] < times[size][cpu]), None) for cpu in (0, 1)]
    report(
        "crossover",
        ahead[0] is not None,
        f"ahead of one core from {ahead[0]} rows on, of {cores} cores from {ahead[1]}",
    )
    per_row = forest.n_trees * (14 + 50 * (DEPTH - 1) + 20)  # bytes that the operators read and write, see tensors.py
    moved = per_row * BATCHES[-1] / bare[BATCHES[-1]] / 1e9
    peak = bandwidth or next((rate for name, rate in BANDWIDTH.items() if name in _gpu()), None)
    share = f"{moved / peak:.0%} of {peak:,.0f} GB/s" if peak else "peak unknown: give --bandwidth"
    report("share of memory bandwidth", True if peak else None, f"{moved:,.0f} GB/s between operators, {share}")


def choice(bundle: Bundle, report: Report) -> None:
    """`--device auto` takes the fastest engine that this machine has, for every number of rows."""
    auto = Scorer(bundle, device="auto")
    times = measured(auto._engines, BATCHES[:7])
    names = [engine.providers[0] for engine in auto._engines]
    chosen = {size: [name for rows, name in auto.plan if rows <= size][-1] for size in times}
    worst = max(taken[names.index(chosen[size])] / min(taken) for size, taken in times.items())
    report(
        "auto within 10 % of the fastest",
        worst <= 1.1,
        f"plan {auto.plan} of {', '.join(names)}; at worst {worst:.2f} times",
    )


if __name__ == "__main__":
    sys.exit(main())
