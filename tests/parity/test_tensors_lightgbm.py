"""The graph for CUDA is the LightGBM model, too, and holds nothing that the CUDA provider lacks. (It runs on the CPU here.)"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper, shape_inference

from classifier.errors import ExportError
from classifier.model.adversarial import adversarial_rows
from classifier.model.boosters import Boosters
from classifier.model.export import export_model, to_onnx
from classifier.model.forest import GROUP, OWN
from classifier.model.proof import verify
from classifier.model.rounding import round_clip
from classifier.model.scorer import cpu_session
from classifier.model.tensors import DEEPEST, depth_of, tensor_leaf_graph, to_tensors
from tests.forests import CASES, WIDTH, model
from tests.parity.cuda_kernels import KERNELS

CALIBRATION = (1.3, -2.5)
SHALLOW = [case for case in CASES if case[0] not in ("deep", "many thresholds", "large trees")]


def graph(kind: str, seed: int) -> tuple[Boosters, onnx.ModelProto, npt.NDArray[np.float32]]:
    boosters, rows, bits = model(kind, seed)
    return boosters, to_tensors(boosters.forest(WIDTH), CALIBRATION, round_clip(0.4, bits)), rows


@pytest.mark.parametrize(("kind", "seed"), SHALLOW)
def test_every_row_reaches_lightgbms_leaf_in_every_tree(kind: str, seed: int) -> None:
    boosters, built, natural = graph(kind, seed)
    forest = boosters.forest(WIDTH)
    rows = np.vstack([natural, adversarial_rows(forest, natural)])
    session = cpu_session(tensor_leaf_graph(built, forest).SerializeToString(), threads=1)
    leaves = session.run(["leaves"], {"features": rows})[0]
    np.testing.assert_array_equal(leaves.astype(np.int64), boosters.leaves(rows))


@pytest.mark.parametrize(("kind", "seed"), SHALLOW)
def test_raw_scores_are_lightgbms_bit_for_bit_in_any_batch(kind: str, seed: int) -> None:
    boosters, built, natural = graph(kind, seed)
    clip = round_clip(0.4, model(kind, seed)[2])
    rows = np.vstack([natural, adversarial_rows(boosters.forest(WIDTH), natural)[:4000]])
    exact = boosters.raw(rows, clip)
    expected = exact.astype(np.float32)
    session = cpu_session(built.SerializeToString(), threads=1)
    for batch in (1, 16, 257, len(rows)):
        upto = min(len(rows), 40 * batch)
        scored = [session.run(None, {"features": rows[i : i + batch]}) for i in range(0, upto, batch)]
        raw, probability = (np.concatenate([part[output] for part in scored]) for output in (0, 1))
        assert raw.tobytes() == expected[: len(raw)].tobytes(), batch
        log_odds = CALIBRATION[0] * exact[: len(raw)] + CALIBRATION[1]
        np.testing.assert_allclose(probability, 1 / (1 + np.exp(-log_odds)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["nan in training", "own only", "group only", "one leaf"])
def test_every_operator_and_type_has_a_kernel_on_cuda(kind: str) -> None:
    built = shape_inference.infer_shapes(graph(kind, 1)[1], strict_mode=True, data_prop=True)
    assert [(opset.domain, opset.version) for opset in built.opset_import] == [("", 18)]
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in (*built.graph.value_info, *built.graph.input, *built.graph.output)
    }
    types |= {tensor.name: tensor.data_type for tensor in built.graph.initializer}
    for node in built.graph.node:
        assert node.op_type in KERNELS, f"CUDA has no {node.op_type} for us"
        version, accepted = KERNELS[node.op_type]
        assert onnx.defs.get_schema(node.op_type, 18).since_version == version
        for name, kinds in zip(node.input, accepted, strict=True):
            kind_of = onnx.TensorProto.DataType.Name(types[name]).lower()
            assert kind_of in kinds, f"CUDA has no {node.op_type} of {kind_of}"


def test_rows_are_the_only_dimension_that_is_open() -> None:
    built = graph("nan in training", 1)[1]
    assert [dim.dim_param or dim.dim_value for dim in built.graph.input[0].type.tensor_type.shape.dim] == ["N", WIDTH]
    for output in built.graph.output:
        assert [dim.dim_param for dim in output.type.tensor_type.shape.dim] == ["N"]


def change(built: onnx.ModelProto, name: str, place: int) -> onnx.ModelProto:
    """Change one number of a table: a column to the next one, a threshold to its neighbour, a leaf by a step of the grid."""
    changed = onnx.ModelProto()
    changed.CopyFrom(built)
    tensor = next(tensor for tensor in changed.graph.initializer if tensor.name == name)
    table = numpy_helper.to_array(tensor).copy()
    if name.startswith("columns"):
        table[place] = table[place] // WIDTH * WIDTH + (table[place] + 1) % WIDTH
    elif name.startswith("thresholds"):
        table[place] = np.nextafter(table[place], np.float32(np.inf))
    else:
        table[place] += 1.0
    tensor.CopyFrom(numpy_helper.from_array(table, name))
    return changed


@pytest.mark.parametrize("level", [0, 1, 3])
@pytest.mark.parametrize("table", ["columns", "thresholds"])
@pytest.mark.parametrize("kind", ["nan in training", "zeros"])
def test_one_damaged_number_anywhere_is_found(kind: str, table: str, level: int) -> None:
    boosters, built, natural = graph(kind, 1)
    forest = boosters.forest(WIDTH)
    whole = to_onnx(forest, CALIBRATION, round_clip(0.4, model(kind, 1)[2]))
    thresholds = next(tensor for tensor in built.graph.initializer if tensor.name == f"thresholds_{level}")
    splits = np.flatnonzero(np.isfinite(numpy_helper.to_array(thresholds)))
    for place in splits[:: max(1, len(splits) // 3)]:
        with pytest.raises(ExportError, match="no graph is written"):
            verify(boosters, whole, natural[:20], change(built, f"{table}_{level}", int(place)))


def test_a_changed_leaf_is_found() -> None:
    boosters, built, natural = graph("nan in training", 1)
    whole = to_onnx(boosters.forest(WIDTH), CALIBRATION, round_clip(0.4, model("nan in training", 1)[2]))
    reached = int(np.argmax(boosters.leaves(natural[:1])[0] >= 0))
    with pytest.raises(ExportError, match="raw score"):
        verify(boosters, whole, natural, change(built, "leaf_values", reached))


def test_a_forest_too_deep_for_tensors_is_left_to_the_cpu() -> None:
    boosters, natural, _ = model("deep", 1)
    forest = boosters.forest(WIDTH)
    assert depth_of(forest) > DEEPEST
    with pytest.raises(ExportError, match="bound max_depth"):
        to_tensors(forest, CALIBRATION, np.inf)
    assert set(export_model(boosters, CALIBRATION, np.inf, natural[:50], WIDTH).files()) == {"model.onnx"}


def test_parts_in_another_order_are_refused() -> None:
    forest = model("stumps", 1)[0].forest(WIDTH)
    turned = dataclasses.replace(forest, part=np.where(forest.part == OWN, GROUP, OWN).astype(np.uint8))
    with pytest.raises(ExportError, match="own part do not come first"):
        to_tensors(turned, CALIBRATION, np.inf)
