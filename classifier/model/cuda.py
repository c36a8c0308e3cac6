"""The forest on an NVIDIA GPU: `model.cuda.onnx` in ONNX Runtime's CUDA provider, all of it or nothing.

ONNX Runtime runs on the CPU, without a word, whatever its CUDA provider lacks, and the whole graph where there is no GPU. Here
the CPU is no way out: a session that would need it is refused, and which provider each node was given is read back.

Rows are cut into a few fixed sizes, the last piece padded. Each size has buffers of its own, on the device and in pinned
memory of the host, and its run is captured once as a CUDA graph and replayed from then on.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import io
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from classifier.errors import BundleError, InputError

FloatRows = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float32]
Run = Callable[[FloatRows, int], tuple[Scores, Scores]]

PROVIDER = "CUDAExecutionProvider"
SIZES = (16, 64, 256, 1_024, 4_096, 16_384)
"""Rows of a run. With the largest, a forest of 400 trees holds some 130 MB on the device."""
_WARM = 3
"""Runs before a size is used: the first ones choose kernels and capture the graph."""
_FATAL_ONLY = 4

_one_at_a_time = threading.Lock()
"""While a graph is captured no other thread of the process may use the device."""


class Device(Protocol):
    """What runs the graph over a fixed number of rows."""

    n_features: int
    provider: str

    def prepared(self, size: int) -> Run:
        """Return run(rows, n), which scores the first n of at most `size` rows: raw and probability, float32[n]."""
        ...


class DeviceEngine:
    """Scores any number of rows in runs of fixed sizes. Raises whatever the device raises."""

    def __init__(self, device: Device, sizes: Sequence[int] = SIZES) -> None:
        self.n_features, self.providers = device.n_features, (device.provider,)
        with _one_at_a_time:
            self._runs = [(size, device.prepared(size)) for size in sorted(sizes)]
            for size, run in self._runs:
                for _ in range(_WARM):
                    run(np.zeros((size, self.n_features), np.float32), size)

    def score(self, rows: FloatRows) -> tuple[Scores, Scores]:
        """Return raw scores and probabilities, float32[n] each, of C-ordered rows float32[n, F]."""
        raw, probability = np.empty(len(rows), np.float32), np.empty(len(rows), np.float32)
        begin = 0
        with _one_at_a_time:
            while begin < len(rows):
                left = len(rows) - begin
                size, run = next((one for one in self._runs if one[0] >= left), self._runs[-1])
                part = slice(begin, begin + min(size, left))
                raw[part], probability[part] = run(rows[part], part.stop - begin)
                begin = part.stop
        return raw, probability


class CudaDevice:
    """The first NVIDIA GPU. Raises InputError, one line that says what is missing, unless it runs every node."""

    provider = PROVIDER

    def __init__(self, graph: bytes) -> None:
        self._session = _strict_session(graph)
        self._captured = 0
        self.n_features = int(self._session.get_inputs()[0].shape[1])
        self.placement = placement(self._session)
        elsewhere = sorted({f"{operator} on {where}" for operator, where in self.placement if where != PROVIDER})
        if elsewhere or self._session.get_providers()[0] != PROVIDER:
            raise InputError(f"device cuda would run {', '.join(elsewhere) or 'the graph'} elsewhere; use --device cpu")

    def prepared(self, size: int) -> Run:
        """Return a run over `size` rows, with buffers of its own."""
        import onnxruntime

        held, rows = self._buffers((size, self.n_features))
        outputs = {name: self._buffers((size,)) for name in ("raw", "probability")}
        binding = self._session.io_binding()
        binding.bind_ortvalue_input("features", rows)
        for name, (_, output) in outputs.items():
            binding.bind_ortvalue_output(name, output)
        options = onnxruntime.RunOptions()
        self._captured += 1
        options.add_run_config_entry("gpu_graph_id", str(self._captured))
        staged = held.numpy()

        def run(some: FloatRows, n: int) -> tuple[Scores, Scores]:
            staged[:n] = some[:n]  # what lies behind n is of an earlier run, and nobody reads its scores
            rows.update_inplace(held)
            self._session.run_with_iobinding(binding, options)
            for host, output in outputs.values():
                host.update_inplace(output)
            raw, probability = (host.numpy()[:n].copy() for host, _ in outputs.values())
            return raw, probability

        return run

    def seconds_without_copies(self, size: int, repeats: int = 20) -> float:
        """Return the mean seconds of a run over `size` rows that are on the device already: what a benchmark asks for."""
        import onnxruntime

        binding, options = self._session.io_binding(), onnxruntime.RunOptions()
        _, rows = self._buffers((size, self.n_features))
        rows.update_inplace(np.zeros((size, self.n_features), np.float32))
        outputs = {name: self._buffers((size,))[1] for name in ("raw", "probability")}
        binding.bind_ortvalue_input("features", rows)
        for name, output in outputs.items():
            binding.bind_ortvalue_output(name, output)
        self._captured += 1
        options.add_run_config_entry("gpu_graph_id", str(self._captured))
        begun = 0.0
        with _one_at_a_time:
            for number in range(_WARM + repeats):
                if number == _WARM:
                    begun = time.perf_counter()
                self._session.run_with_iobinding(binding, options)  # waits for the device
        return (time.perf_counter() - begun) / repeats

    def _buffers(self, shape: tuple[int, ...]) -> tuple[Any, Any]:
        """Return memory of the host, pinned where that can be had, and of the device."""
        from onnxruntime import OrtValue

        pinned = _pinned_memory()
        host = OrtValue.ortvalue_from_shape_and_type(shape, np.float32, **({"memory_info": pinned} if pinned else {}))
        return host, OrtValue.ortvalue_from_shape_and_type(shape, np.float32, "cuda", 0)


def placement(session: Any) -> list[tuple[str, str]]:
    """Return (operator, provider) of every node of a session that was opened to record it."""
    parts = session.get_provider_graph_assignment_info()
    return [(node.op_type, part.ep_name) for part in parts for node in part.get_nodes()]


def why_not() -> str | None:
    """Say what this machine lacks for the CUDA provider, as far as can be seen without loading it; None for nothing."""
    import onnxruntime

    if PROVIDER not in onnxruntime.get_available_providers():
        return "an onnxruntime with the CUDA provider (onnxruntime-gpu; it exists for Linux and for Windows on AMD64)"
    if sys.platform != "win32":
        try:
            driver = ctypes.CDLL("libcuda.so.1")
        except OSError:
            return "an NVIDIA GPU and its driver (there is no libcuda.so.1 here)"
        if driver.cuInit(0) != 0:
            return "an NVIDIA GPU (the driver is here and finds none)"
    return None


def _strict_session(graph: bytes) -> Any:
    import onnxruntime

    if missing := why_not():
        raise InputError(f"device cuda needs {missing}; use --device cpu or auto")
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find, and goes on
        onnxruntime.preload_dlls()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY  # the same is raised, in one line
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    provider = (PROVIDER, {"device_id": "0", "enable_cuda_graph": "1", "use_tf32": "0"})
    try:
        return onnxruntime.InferenceSession(graph, options, providers=[provider])
    except Exception as error:  # ONNX Runtime's exceptions share no base of their own
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        if "INVALID_PROTOBUF" in reason:
            raise BundleError(f"the CUDA graph cannot be read ({reason}); train or copy the bundle again") from error
        raise InputError(
            f"device cuda cannot run the graph ({reason}); install CUDA and cuDNN (pip install 'botsieve[cuda]'),"
            " or use --device cpu"
        ) from error


def _pinned_memory() -> Any:
    """Return ONNX Runtime's description of the GPU's pinned host memory, or None where it offers none."""
    import onnxruntime

    for device in onnxruntime.get_ep_devices():
        if device.ep_name == PROVIDER:
            with contextlib.suppress(Exception):
                return device.memory_info(onnxruntime.OrtDeviceMemoryType.HOST_ACCESSIBLE)
    return None
