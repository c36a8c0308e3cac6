"""Run the benchmarks: `python -m tests.benchmarks [NAME…]`, where bench_parsing.py has the name `parsing`.

A benchmark is a module `bench_*.py` with a function `main()` that prints its own table. Each runs in an interpreter of
its own, so that none profits from another's warm caches or carries another's memory.
"""

import argparse
import importlib
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent


def names() -> list[str]:
    """Return the names of all benchmarks, sorted."""
    return sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))


def machine() -> str:
    """Describe in one line what the figures were taken on."""
    cpu_info = Path("/proc/cpuinfo")
    models = [line for line in cpu_info.read_text().splitlines() if "model name" in line] if cpu_info.exists() else []
    cpu = models[0].partition(":")[2].strip() if models else platform.processor() or platform.machine()
    return f"{cpu}, {os.cpu_count()} cores, Python {platform.python_version()}, {platform.system()}"


def run(name: str) -> bool:
    """Run one benchmark in its own interpreter; return whether it ended well."""
    print(f"\n## {name}\n", flush=True)
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "tests.benchmarks", "--inside", name], check=False)
    seconds = time.perf_counter() - started
    failed = f", FAILED with exit code {done.returncode}" if done.returncode else ""
    print(f"\n({seconds:.0f} s{failed})", flush=True)
    return done.returncode == 0


def main() -> int:
    """Run the benchmarks named on the command line, or all; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="Run benchmarks, print tables.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names()) or '(none yet)'}")
    parser.add_argument("--inside", metavar="NAME", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        importlib.import_module(f"tests.benchmarks.bench_{options.inside}").main()
        return 0
    unknown = sorted(set(options.names) - set(names()))
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are: {', '.join(names()) or 'none yet'}")
    print(machine())
    results = [run(name) for name in options.names or names()]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
