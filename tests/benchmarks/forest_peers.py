"""A peer of the forest benchmark in a process of its own, since each needs an environment without ours.

python forest_peers.py NAME MODEL.txt ROWS.npy WIDTH

It answers each line "BEGIN COUNT" with the seconds that those rows took, and "raw BEGIN COUNT FILE" by writing their raw scores.
"""

import ctypes
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Predict = Callable[[Any], Any]


def treelite(model: str) -> Predict:
    """Treelite's general-purpose interpreter."""
    from treelite import frontend, gtil

    loaded = frontend.load_lightgbm_model(Path(model))
    return lambda rows: gtil.predict(loaded, rows, nthread=1, pred_margin=True)


def tl2cgen(model: str) -> Predict:
    """Treelite's compiler to C."""
    import tl2cgen as compiler
    from treelite import frontend

    library = Path(tempfile.mkdtemp()) / "forest.so"
    compiler.export_lib(
        frontend.load_lightgbm_model(Path(model)), toolchain="gcc", libpath=str(library), params={"parallel_comp": 16}
    )
    predictor = compiler.Predictor(str(library), nthread=1)
    return lambda rows: predictor.predict(compiler.DMatrix(rows), pred_margin=True)


def lleaves(model: str) -> Predict:
    """A compiler of LightGBM's models to machine code."""
    import lleaves as compiler

    compiled = compiler.Model(model_file=model)
    compiled.compile(raw_score=True)
    return lambda rows: compiled.predict(rows, n_jobs=1)


def nvforest(model: str) -> Predict:
    """NVIDIA's forest inference on the GPU in single precision, in the layout that it finds to be its fastest."""
    import cupy
    from nvforest import load_from_treelite_model
    from treelite import frontend

    forest = frontend.load_lightgbm_model(Path(model))
    forest.get_header_accessor().set_field("postprocessor", "identity")
    loaded = load_from_treelite_model(forest, device="gpu", precision="single").optimize(batch_size=16_384)
    return lambda rows: cupy.asnumpy(loaded.predict_proba(rows))


PEERS = {"treelite": treelite, "tl2cgen": tl2cgen, "lleaves": lleaves, "nvforest": nvforest}


def main() -> None:
    """Serve."""
    name, model, rows_file, width = sys.argv[1:]
    ctypes.CDLL(None).setenv(b"OMP_NUM_THREADS", b"1", 1)
    predict = PEERS[name](model)
    rows = np.load(rows_file, mmap_mode="r").reshape(-1, int(width))
    predict(np.array(rows[:2]))
    print("ready", flush=True)
    for line in sys.stdin:
        words = line.split()
        begin, count = map(int, words[-3:-1] if words[0] == "raw" else words)
        fresh = np.array(rows[begin : begin + count])
        started = time.perf_counter()
        found = predict(fresh)
        seconds = time.perf_counter() - started
        if words[0] == "raw":
            np.save(words[-1], np.asarray(found).reshape(-1))
        print(seconds, flush=True)


if __name__ == "__main__":
    main()
