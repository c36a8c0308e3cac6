"""Scoring feature rows with a bundle's model: one interface, engines behind it.

Every engine gives the same raw score, bit for bit, for any batch size and number of threads; probabilities may differ
between engines by at most 1e-6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from classifier.errors import BundleError, InputError
from classifier.model import cuda
from classifier.model.bundle import CUDA_FILE, MODEL_FILE, Bundle, load_bundle
from classifier.model.compiled import CompiledEngine, read_graph
from classifier.model.cuda import CudaDevice, DeviceEngine
from classifier.model.dispatch import CPU_SIZES, DEVICE_SIZES, Dispatch, Engine, Guarded, log, measured, planned
from classifier.model.forest import Forest

Device = Literal["auto", "cpu", "cuda"]
Kind = Literal["compiled", "onnxruntime"]
FloatRows = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float32]

_ERRORS_ONLY = 3


class Session(Protocol):
    """What is used of an ONNX Runtime session."""

    def run(self, names: Sequence[str] | None, inputs: Mapping[str, Any]) -> list[npt.NDArray[Any]]:
        """Run the graph."""
        ...

    def get_inputs(self) -> list[Any]:
        """Return the graph's inputs, with name and shape."""
        ...

    def get_providers(self) -> list[str]:
        """Return what the graph really runs on."""
        ...


class OnnxCpuEngine:
    """ONNX Runtime on the CPU, over `model.onnx`."""

    def __init__(self, model: bytes, threads: int) -> None:
        self._session = cpu_session(model, threads)
        self.n_features = int(self._session.get_inputs()[0].shape[1])
        self.providers = tuple(self._session.get_providers())

    def score(self, rows: FloatRows) -> tuple[Scores, Scores]:
        """Return raw scores and probabilities, float32[n] each."""
        raw, probability = self._session.run(("raw", "probability"), {"features": rows})
        return raw, probability


class Scorer:
    """Scores rows with the model of a bundle (a folder, or one already loaded) or of a single `.onnx` file.

    `device` is cpu, cuda (every node on the GPU, or InputError), or auto: the engines that can be had are measured, and each
    number of rows goes to the fastest; the probabilities are those of the compiled forest, whichever that is. `threads` are
    those of one call. `engine` onnxruntime runs the graph of the CPU itself, for comparison. Raises BundleError for a model
    that cannot be loaded, InputError for a device that cannot run it.
    """

    def __init__(
        self, source: Bundle | Path | str, device: Device = "cpu", threads: int = 1, engine: Kind = "compiled"
    ) -> None:
        bundle, model = _open(source)
        if device not in ("auto", "cpu", "cuda"):
            raise InputError(f"unknown device {device!r}; use auto, cpu or cuda")
        if threads < 1:
            raise InputError(f"threads is {threads}; give 1 or more")
        forest, calibration, clip = read_graph(model)
        self.forest: Forest = forest
        if bundle is not None and forest.n_features != len(bundle.manifest.features):
            raise BundleError(
                f"{MODEL_FILE} takes {forest.n_features} features but the manifest of {bundle.path} names"
                f" {len(bundle.manifest.features)}; train the bundle again"
            )
        first: Engine = (
            OnnxCpuEngine(model, threads)
            if engine == "onnxruntime"
            else CompiledEngine(forest, calibration, clip, threads)
        )
        self._engines = [first] if device == "cpu" else alternatives(first, model, tensors_of(bundle), device, threads)
        self._engine = fastest(self._engines)
        # Engines agree in every bit of the raw score, but not of the sigmoid: nothing that is told may hang on which was faster.
        self._calibrate = first.probability if isinstance(first, CompiledEngine) and self._engine is not first else None

    @property
    def plan(self) -> list[tuple[int, str]]:
        """From how many rows on what runs them: (1, provider), …"""
        if isinstance(self._engine, Dispatch):
            return [(rows, engine.providers[0]) for rows, engine in self._engine.plan]
        return [(1, self._engine.providers[0])]

    def on_device(self, rows: int) -> bool:
        """Whether a call of so many rows goes to a GPU, which may hang."""
        engine = self._engine.engine(rows) if isinstance(self._engine, Dispatch) else self._engine
        return isinstance(engine, Guarded) and not engine.faults

    @property
    def device_faults(self) -> int:
        """How often a device failed; the first time, the CPU took over."""
        return sum(engine.faults for engine in self._engines if isinstance(engine, Guarded))

    @property
    def n_features(self) -> int:
        """Length of a feature row."""
        return self._engine.n_features

    @property
    def providers(self) -> tuple[str, ...]:
        """What the graph really runs on, as the session itself reports it."""
        return self._engine.providers

    def score(self, rows: FloatRows) -> tuple[Scores, Scores]:
        """Return (raw, probability), float32[n] each, of feature rows float32[n, F]; n may be 0.

        Raises InputError for another dtype or shape: a silent cast could move a value across a threshold.
        """
        if rows.dtype != np.float32 or rows.ndim != 2 or rows.shape[1] != self.n_features:
            raise InputError(
                f"rows are {rows.dtype} of shape {rows.shape}; this model takes float32 of shape (n, {self.n_features})"
            )
        if not len(rows):
            return np.empty(0, np.float32), np.empty(0, np.float32)
        raw, probability = self._engine.score(np.ascontiguousarray(rows))
        return raw, probability if self._calibrate is None else self._calibrate(raw)


def cpu_session(model: bytes, threads: int) -> Session:
    """Open a graph in ONNX Runtime on the CPU alone. Raises BundleError if it is no graph that can run."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    # Threads that spin between calls would take a core from the rest of a server.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session: Session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no base of their own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BundleError(f"ONNX Runtime cannot load the model ({reason}); train or copy the bundle again") from error
    return session


def _open(source: Bundle | Path | str) -> tuple[Bundle | None, bytes]:
    if isinstance(source, Bundle):
        return source, source.model
    path = Path(source)
    if path.suffix != ".onnx":
        bundle = load_bundle(path)
        return bundle, bundle.model
    try:
        return None, path.read_bytes()
    except OSError as error:
        raise BundleError(f"cannot read the model {path}: {error.strerror}; name a bundle or a .onnx file") from error


def tensors_of(bundle: Bundle | None) -> bytes | None:
    """Return the graph for CUDA, if the bundle has one."""
    return bundle.read(CUDA_FILE) if bundle is not None and CUDA_FILE in bundle.manifest.files else None


def alternatives(cpu: Engine, model: bytes, tensors: bytes | None, device: Device, threads: int) -> list[Engine]:
    """Return the engines that `device` lets run, the compiled forest `cpu` being one of the CPU's.

    auto has all that this machine can run, cuda the GPU alone, with the CPU behind it for when it fails; it raises InputError,
    one line, if the GPU cannot run every node.
    """
    if device == "cpu":
        return [cpu, OnnxCpuEngine(model, threads)]
    if device == "cuda":
        if tensors is None:
            raise InputError(f"device cuda needs a bundle with {CUDA_FILE}, and this one has none; use --device cpu")
        return [Guarded(DeviceEngine(CudaDevice(tensors)), cpu)]
    engines = [cpu, OnnxCpuEngine(model, threads)]
    if tensors is not None and cuda.why_not() is None:
        try:
            engines.append(Guarded(DeviceEngine(CudaDevice(tensors)), cpu))
        except Exception as error:  # with auto, a GPU that cannot be had is none
            log.warning("the GPU is not used: %s", " ".join(str(error).split())[:300])
    return engines


def fastest(engines: Sequence[Engine]) -> Engine:
    """Measure engines and return one that sends every number of rows to the fastest."""
    if len(engines) == 1:
        return engines[0]
    has_device = any(isinstance(engine, Guarded) for engine in engines)
    plan = planned(engines, measured(engines, DEVICE_SIZES if has_device else CPU_SIZES))
    return plan[0][1] if len(plan) == 1 else Dispatch(plan)
