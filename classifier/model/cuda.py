"""The forest on an NVIDIA GPU: `model.cuda.onnx` in ONNX Runtime's CUDA provider, all of it or nothing.

ONNX Runtime runs on the CPU, without a word, whatever its CUDA provider lacks, and the whole graph where there is no GPU. Here
the CPU is no way out: a session that would need it is refused, and which provider each node was given is read back.

Rows are cut into a few fixed sizes, the last piece padded. Each size has buffers of its own, on the device and in pinned
memory of the host, and its run is captured once as a CUDA graph and replayed from then on. The largest size has two: while the
device runs one, a second thread fills the other.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import io
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from classifier.errors import BundleError, InputError
from classifier.model.ahead import one_ahead

FloatRows = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float32]

PROVIDER = "CUDAExecutionProvider"
SIZES = (16, 64, 256, 1_024, 4_096, 8_192)
"""Rows of a run. What operators hand to one another, 13 MB at a time with 400 trees, stays in the cache of a large GPU."""
_WARM = 3
"""Runs before a size is used: the first ones choose kernels and capture the graph."""
_ERRORS_ONLY, _FATAL_ONLY = 3, 4
_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_FOR_EVERY_CONTEXT = 1  # CU_MEMHOSTREGISTER_PORTABLE

_one_at_a_time = threading.Lock()
"""While a graph is captured no other thread of the process may use the device."""


class Run(Protocol):
    """A run over a fixed number of rows, with buffers of its own."""

    def load(self, rows: FloatRows) -> None:
        """Copy rows float32[n, F] to the device, n being at most the size. Another run may be under way."""
        ...

    def scores(self, n: int) -> tuple[Scores, Scores]:
        """Run, and return the raw scores and the probabilities, float32[n] each, of the first n of the rows that were loaded."""
        ...


class Device(Protocol):
    """What runs the graph over a fixed number of rows."""

    n_features: int
    provider: str

    def prepared(self, size: int) -> Run:
        """Return a run over `size` rows."""
        ...


class DeviceEngine:
    """Scores any number of rows in runs of fixed sizes. Raises whatever the device raises."""

    def __init__(self, device: Device, sizes: Sequence[int] = SIZES) -> None:
        self.n_features, self.providers = device.n_features, (device.provider,)
        self._sizes = sorted(sizes)
        self._here = threading.local()
        with _one_at_a_time:
            self._runs = {size: [device.prepared(size)] for size in self._sizes}
            self._runs[self._sizes[-1]].append(device.prepared(self._sizes[-1]))
            self._warm_up()

    def score(self, rows: FloatRows) -> tuple[Scores, Scores]:
        """Return raw scores and probabilities, float32[n] each, of C-ordered rows float32[n, F]."""
        raw, probability = np.empty(len(rows), np.float32), np.empty(len(rows), np.float32)
        largest = self._sizes[-1]
        parts = [slice(begin, min(begin + largest, len(rows))) for begin in range(0, len(rows), largest)]

        def loaded(number: int) -> tuple[slice, Run]:
            part = parts[number]
            runs = self._runs[next(size for size in self._sizes if size >= part.stop - part.start)]
            run = runs[number % len(runs)]  # neighbours do not share one
            run.load(rows[part])
            return part, run

        numbers = range(len(parts))
        with _one_at_a_time:
            self._warm_up()
            for part, run in one_ahead(loaded, numbers) if len(parts) > 1 else map(loaded, numbers):
                raw[part], probability[part] = run.scores(part.stop - part.start)
        return raw, probability

    def _warm_up(self) -> None:
        """Run every size until its graph is captured: ONNX Runtime does so for each thread, and no copy may be under way.

        On an H100 it takes 28 ms of a thread's first call.
        """
        if getattr(self._here, "warm", False):
            return
        for size in self._sizes:
            for run in self._runs[size]:
                run.load(np.zeros((size, self.n_features), np.float32))
                for _ in range(_WARM):
                    run.scores(size)
        self._here.warm = True


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

    def prepared(self, size: int) -> _CudaRun:
        """Return a run over `size` rows."""
        self._captured += 1
        return _CudaRun(self._session, size, self.n_features, self._captured)

    def seconds_without_copies(self, size: int, repeats: int = 20) -> float:
        """Return the mean seconds of a run over `size` rows that are on the device already: what a benchmark asks for."""
        begun = 0.0
        with _one_at_a_time:
            run = self.prepared(size)
            run.load(np.zeros((size, self.n_features), np.float32))
            for number in range(_WARM + repeats):
                if number == _WARM:
                    begun = time.perf_counter()
                run.on_device()
        return (time.perf_counter() - begun) / repeats


class _CudaRun:
    """A run whose buffers and captured graph, known by its number, stay where they are."""

    def __init__(self, session: Any, size: int, n_features: int, number: int) -> None:
        import onnxruntime

        self._session = session
        self._binding, self._options = session.io_binding(), onnxruntime.RunOptions()
        self._options.add_run_config_entry("gpu_graph_id", str(number))
        self._host, self._rows = _buffers((size, n_features))
        self._staged = self._host.numpy()
        self._binding.bind_ortvalue_input("features", self._rows)
        self._outputs = []
        for name in ("raw", "probability"):
            host, output = _buffers((size,))
            self._binding.bind_ortvalue_output(name, output)
            self._outputs.append((host, output))

    def load(self, rows: FloatRows) -> None:
        self._staged[: len(rows)] = rows  # what lies behind is of an earlier run, and nobody reads its scores
        self._rows.update_inplace(self._host)

    def on_device(self) -> None:
        """Run over what is on the device, and wait for it."""
        self._session.run_with_iobinding(self._binding, self._options)

    def scores(self, n: int) -> tuple[Scores, Scores]:
        self.on_device()
        for host, output in self._outputs:
            host.update_inplace(output)
        raw, probability = (host.numpy()[:n].copy() for host, _ in self._outputs)
        return raw, probability


def _buffers(shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Return memory of the host, pinned where that can be had, and of the device."""
    from onnxruntime import OrtValue

    host = OrtValue.ortvalue_from_shape_and_type(shape, np.float32)
    _pin(host)
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
    try:
        found = _driver().cuInit(0) == 0
    except OSError:
        return f"an NVIDIA GPU and its driver (there is no {_DRIVER} here)"
    return None if found else "an NVIDIA GPU (the driver is here and finds none)"


def _strict_session(graph: bytes) -> Any:
    import onnxruntime

    if missing := why_not():
        raise InputError(f"device cuda needs {missing}; use --device cpu or auto")
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find, and goes on
        onnxruntime.preload_dlls()
    onnxruntime.set_default_logger_severity(_ERRORS_ONLY)  # it warns that CUDA is no plug-in, which nobody asked for
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


def _pin(host: Any) -> None:
    """Have the driver lock the memory of a tensor where it is, so that the GPU copies by itself; else copies take longer.

    ONNX Runtime's own pinned allocator cannot be reached from Python.
    """
    driver, address = _driver(), ctypes.c_void_p(host.data_ptr())
    with contextlib.suppress(OSError), _primary_context(driver):
        if driver.cuMemHostRegister_v2(address, ctypes.c_size_t(host.numpy().nbytes), _FOR_EVERY_CONTEXT) == 0:
            weakref.finalize(host, _unpin, driver, address).atexit = False


def _unpin(driver: Any, address: ctypes.c_void_p) -> None:
    with contextlib.suppress(OSError), _primary_context(driver):
        driver.cuMemHostUnregister(address)


@contextlib.contextmanager
def _primary_context(driver: Any) -> Iterator[None]:
    """Make the context that ONNX Runtime uses this thread's. Raises OSError if the driver does not."""
    device, context = ctypes.c_int(), ctypes.c_void_p()
    with contextlib.ExitStack() as undo:
        _done(driver.cuDeviceGet(ctypes.byref(device), 0))
        _done(driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device))
        undo.callback(driver.cuDevicePrimaryCtxRelease_v2, device)
        _done(driver.cuCtxPushCurrent_v2(context))
        undo.callback(driver.cuCtxPopCurrent_v2, ctypes.byref(context))
        yield


def _done(code: int) -> None:
    if code:
        raise OSError(f"the NVIDIA driver answered {code}")


def _driver() -> Any:
    """Load NVIDIA's driver library. Raises OSError."""
    return ctypes.CDLL(_DRIVER)
