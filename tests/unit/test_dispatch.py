"""Engines behind one interface: runs of fixed sizes, the fastest for each batch, and a device that fails.

No GPU is needed, and none is used: the device is played by the CPU provider over the very graph that CUDA would run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from classifier.errors import BundleError, InputError
from classifier.model import cuda, scorer
from classifier.model.ahead import one_ahead
from classifier.model.bundle import Bundle, write_bundle
from classifier.model.compiled import CompiledEngine
from classifier.model.cuda import CudaDevice, DeviceEngine
from classifier.model.dispatch import Dispatch, Guarded, measured, planned
from classifier.model.export import export_model
from classifier.model.scorer import Scorer
from classifier.model.tensors import to_tensors
from tests.forests import WIDTH, model
from tests.gpu.stand_in import StandIn
from tests.unit.command_line import done, refused
from tests.unit.test_bundle import manifest

CALIBRATION = (1.25, -3.5)
Rows = npt.NDArray[np.float32]


def graph() -> bytes:
    return bytes(to_tensors(model("nan in training", 1)[0].forest(WIDTH), CALIBRATION, np.inf).SerializeToString())


def compiled() -> CompiledEngine:
    return CompiledEngine(model("nan in training", 1)[0].forest(WIDTH), CALIBRATION, np.inf)


def rows(n: int) -> Rows:
    return np.resize(model("nan in training", 1)[1], (n, WIDTH))


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    boosters, natural, _ = model("nan in training", 1)
    files = export_model(boosters, CALIBRATION, np.inf, natural[:50], WIDTH).files()
    features = tuple(f"feature_{column}" for column in range(WIDTH))
    return write_bundle(tmp_path / "bundle", manifest(features=features), files)


@pytest.mark.parametrize("n", [1, 3, 4, 5, 16, 17, 36, 100])
def test_runs_of_fixed_sizes_score_as_the_whole_does(n: int) -> None:
    device = StandIn(graph())
    engine = DeviceEngine(device, sizes=(16, 4))
    warmed = len(device.calls)
    raw, probability = engine.score(rows(n))
    expected, near = compiled().score(rows(n))
    assert raw.tobytes() == expected.tobytes()
    np.testing.assert_allclose(probability, near, rtol=0, atol=1e-6)
    full, rest = divmod(n, 16)
    assert device.calls[warmed:] == [(16, 16)] * full + ([(4 if rest <= 4 else 16, rest)] if rest else [])


def test_every_size_is_warm_before_the_first_request() -> None:
    device = StandIn(graph())
    DeviceEngine(device, sizes=(4, 16))
    assert [size for size, _ in device.calls] == [4] * 3 + [16] * 6  # two of the largest, which take turns


def test_each_thread_warms_up_before_its_first_rows() -> None:
    """ONNX Runtime keeps captured graphs by thread."""
    device = StandIn(graph())
    engine = DeviceEngine(device, sizes=(4, 16))
    warm = device.calls.copy()
    engine.score(rows(3))
    assert device.calls[len(warm) :] == [(4, 3)]
    with ThreadPoolExecutor(1) as other:
        for _ in range(2):
            raw, _ = other.submit(engine.score, rows(40)).result()
            assert raw.tobytes() == compiled().score(rows(40))[0].tobytes()
    assert device.calls[len(warm) + 1 :] == [*warm, *2 * [(16, 16), (16, 16), (16, 8)]]


class Slow(StandIn):
    """A device that is still running when the next rows are there."""

    def run(self, rows: Rows, n: int) -> tuple[Rows, Rows]:
        time.sleep(0.005)
        return super().run(rows, n)


def test_rows_that_are_copied_meanwhile_spoil_no_run() -> None:
    engine = DeviceEngine(Slow(graph()), sizes=(16,))
    assert engine.score(rows(200))[0].tobytes() == compiled().score(rows(200))[0].tobytes()


@pytest.mark.parametrize("fails_at", [6, 7, 11])
def test_a_device_that_fails_in_the_middle_of_a_load_is_replaced_by_the_cpu(fails_at: int) -> None:
    """A fault while the batch is half done, too: the CPU scores that batch again, and all that follow."""
    device = StandIn(graph(), fails_at)
    guarded = Guarded(DeviceEngine(device, sizes=(16,)), compiled())
    assert guarded.providers == ("CPUStandIn",)
    expected = compiled().score(rows(40))[0]
    for _ in range(4):
        assert guarded.score(rows(40))[0].tobytes() == expected.tobytes()
    assert guarded.faults == 1
    assert guarded.providers == ("CPUCompiledForest",)
    assert len(device.calls) == fails_at


class Timed:
    """An engine that is only a name."""

    n_features = 2

    def __init__(self, name: str) -> None:
        self.providers = (name,)

    def score(self, rows: Rows) -> tuple[Rows, Rows]:
        return np.full(len(rows), ord(self.providers[0][0]), np.float32), rows[:, 0]


def test_each_batch_goes_to_the_engine_that_was_fastest_for_its_size() -> None:
    cpu, gpu = Timed("cpu"), Timed("gpu")
    plan = planned([cpu, gpu], {1: [1.0, 9.0], 64: [10.0, 9.5], 256: [40.0, 11.0], 1024: [160.0, 15.0]})
    assert plan == [(1, cpu), (256, gpu)]  # 5 % at 64 rows are no reason
    dispatch = Dispatch(plan)
    assert dispatch.providers == ("cpu", "gpu")
    for n, name in ((1, "c"), (255, "c"), (256, "g"), (5000, "g")):
        assert dispatch.score(np.zeros((n, 2), np.float32))[0][0] == ord(name)
    assert planned([cpu, gpu], {1: [1.0, 0.5]}) == [(1, gpu)]


def test_engines_take_turns_over_the_same_rows() -> None:
    seen: list[tuple[str, bytes]] = []

    class Noting(Timed):
        def score(self, rows: Rows) -> tuple[Rows, Rows]:
            seen.append((self.providers[0], rows.tobytes()))
            return super().score(rows)

    times = measured([Noting("a"), Noting("b")], (1, 3))
    assert [name for name, _ in seen] == ["a", "b"] * 8
    assert all(one[1] == other[1] for one, other in zip(seen[::2], seen[1::2], strict=True))
    assert len({content for _, content in seen}) == 8  # and new ones each time
    assert set(times) == {1, 3}
    assert all(second > 0 for seconds in times.values() for second in seconds)


def test_no_answer_tells_which_engine_was_the_fastest(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raw scores are equal anyway; of the probability, each engine's sigmoid has other last bits."""
    features = rows(300)
    expected = Scorer(bundle).score(features)
    monkeypatch.setattr(scorer, "planned", lambda engines, times: [(1, engines[0]), (16, engines[-1])])
    auto = Scorer(bundle, device="auto")
    assert auto.plan[-1] != (1, "CPUCompiledForest")
    for n in (1, 300):
        for found, one in zip(auto.score(features[:n]), expected, strict=True):
            assert found.tobytes() == one[:n].tobytes()


def test_a_call_is_on_the_device_only_where_that_is_the_plan_and_it_has_not_failed(bundle: Bundle) -> None:
    auto = Scorer(bundle, device="cpu")
    assert not auto.on_device(1000)
    device = Guarded(DeviceEngine(StandIn(graph(), fails_at=100)), compiled())
    auto._engine = Dispatch([(1, compiled()), (256, device)])
    assert [auto.on_device(n) for n in (1, 255, 256, 1000)] == [False, False, True, True]
    device.faults = 1
    assert not auto.on_device(256)
    auto._engine = Guarded(DeviceEngine(StandIn(graph())), compiled())
    assert auto.on_device(1)


def test_auto_says_what_runs_how_many_rows(bundle: Bundle) -> None:
    auto = Scorer(bundle, device="auto")
    assert auto.plan[0] == (1, "CPUCompiledForest") or cuda.why_not() is None
    assert auto.device_faults == 0
    np.testing.assert_array_equal(auto.score(rows(300))[0], compiled().score(rows(300))[0])


def test_the_cpu_never_asks_for_a_gpu(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "why_not", lambda: pytest.fail("CUDA was touched"))
    assert Scorer(bundle, device="cpu").plan == [(1, "CPUCompiledForest")]


@pytest.mark.skipif(cuda.why_not() is None, reason="this machine has a GPU")
def test_cuda_without_a_gpu_ends_with_one_line_that_says_what_is_missing(bundle: Bundle) -> None:
    with pytest.raises(InputError, match=r"^device cuda needs an .*; use --device cpu or auto$") as caught:
        Scorer(bundle, device="cuda")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_bench_tells_what_each_engine_takes_and_which_is_chosen(bundle: Bundle) -> None:
    for options in ((), ("--bundle", bundle.path)):
        table = done("bench", *options).out.splitlines()
        assert table[1].split()[4:] == ["1", "16", "256", "4,096", "16,384"]
        assert [line.split()[0] for line in table[2:4]] == ["CPUCompiledForest", "CPUExecutionProvider"]
        engines = [line for line in table[2:] if line[0] not in "*N"]
        assert sum(line.count("*") for line in engines) == 5  # by one engine or, with a GPU, several
    refused("bench", "--device", "tpu", says="use auto, cpu or cuda")
    if cuda.why_not() is not None:
        refused("bench", "--device", "cuda", says="device cuda needs an NVIDIA GPU")


class Driver:
    """NVIDIA's driver as far as memory is pinned: notes what is called, and fails where it is told to."""

    def __init__(self, fails: str = "") -> None:
        self.fails, self.calls = fails, []

    def __getattr__(self, name: str) -> Callable[..., int]:
        def call(*_: Any) -> int:
            self.calls.append(name.removesuffix("_v2"))
            return int(name.startswith(self.fails)) if self.fails else 0

        return call


WITHIN = ["cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuCtxPushCurrent"]
AFTER = ["cuCtxPopCurrent", "cuDevicePrimaryCtxRelease"]


@pytest.mark.parametrize(
    ("fails", "calls"),
    [
        ("", [*WITHIN, "cuMemHostRegister", *AFTER, *WITHIN, "cuMemHostUnregister", *AFTER]),
        ("cuMemHostRegister", [*WITHIN, "cuMemHostRegister", *AFTER]),
        ("cuCtxPushCurrent", [*WITHIN, "cuDevicePrimaryCtxRelease"]),
        ("cuDevicePrimaryCtxRetain", WITHIN[:2]),
    ],
)
def test_memory_is_pinned_as_long_as_it_is_there(fails: str, calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxruntime import OrtValue

    driver = Driver(fails)
    monkeypatch.setattr(cuda, "_driver", lambda: driver)
    host = OrtValue.ortvalue_from_shape_and_type((4,), np.float32)
    cuda._pin(host)
    del host
    assert driver.calls == calls


class Session:
    """What is asked of an ONNX Runtime session about itself."""

    def __init__(self, providers: list[str], nodes: dict[str, list[str]]) -> None:
        self.get_providers: Callable[[], list[str]] = lambda: providers
        self._nodes = nodes

    def get_inputs(self) -> list[Any]:
        return [type("Input", (), {"shape": ["N", WIDTH]})]

    def get_provider_graph_assignment_info(self) -> list[Any]:
        node = lambda name: type("Node", (), {"op_type": name})  # noqa: E731
        return [
            type(
                "Part", (), {"ep_name": where, "get_nodes": lambda self, names=names: [node(name) for name in names]}
            )()
            for where, names in self._nodes.items()
        ]


def test_a_session_that_leaves_a_node_to_the_cpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(session: Session) -> CudaDevice:
        monkeypatch.setattr(cuda, "_strict_session", lambda _: session)
        return CudaDevice(b"")

    here = [cuda.PROVIDER, "CPUExecutionProvider"]
    assert opened(Session(here, {cuda.PROVIDER: ["Gather", "Where"]})).n_features == WIDTH
    with pytest.raises(InputError, match="Clip on CPUExecutionProvider"):
        opened(Session(here, {cuda.PROVIDER: ["Gather"], "CPUExecutionProvider": ["Clip"]}))
    with pytest.raises(InputError, match="the graph elsewhere"):
        opened(Session(["CPUExecutionProvider"], {}))


def test_a_gpu_that_fails_at_start_up_is_not_used_by_auto(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(graph: bytes) -> Any:
        raise InputError("device cuda cannot run the graph (no kernel image)")

    monkeypatch.setattr(cuda, "why_not", lambda: None)
    monkeypatch.setattr(cuda, "_strict_session", refused)
    assert cuda.PROVIDER not in dict(Scorer(bundle, device="auto").plan).values()
    with pytest.raises(InputError, match="no kernel image"):
        Scorer(bundle, device="cuda")


def test_a_changed_graph_for_cuda_is_refused_like_any_other_file(bundle: Bundle) -> None:
    path = bundle.path / "model.cuda.onnx"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(BundleError, match=r"model\.cuda\.onnx of the bundle .* was changed"):
        Scorer(bundle.path, device="cpu")


def test_work_goes_on_one_ahead_in_order_and_ends_with_the_error_where_it_was_due() -> None:
    assert list(one_ahead(lambda n: n * n, range(20))) == [n * n for n in range(20)]
    assert list(one_ahead(lambda n: n, [])) == []
    results = one_ahead(lambda n: 6 // n, [3, 2, 0, 1])
    assert [next(results), next(results)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(results)
    taken: list[int] = []
    results = one_ahead(lambda n: n, (taken.append(n) or n for n in range(9)))
    next(results)
    assert taken == [0, 1]  # never more than one ahead
    results.close()
