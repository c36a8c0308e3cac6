"""Which operators and types ONNX Runtime's CUDA provider has kernels for, as far as our graph asks for them.

From the tables that ONNX Runtime generates from its registered kernels (microsoft/onnxruntime, docs/OperatorKernels.md, section
CUDAExecutionProvider, read at commit 001d12d). Whatever is not here would be run by the CPU between two copies.
"""

from __future__ import annotations

FLOATS = frozenset({"float", "double", "float16"})
INDICES = frozenset({"int32", "int64"})
COMPARED = FLOATS | INDICES | {"uint32", "uint64"}
CALCULATED = COMPARED | {"bfloat16", "int8", "int16", "uint8", "uint16"}
MOVED = CALCULATED | {"bool"}

KERNELS: dict[str, tuple[int, tuple[frozenset[str], ...]]] = {
    "Add": (14, (CALCULATED, CALCULATED)),
    "Clip": (13, (FLOATS, FLOATS, FLOATS)),
    "Concat": (13, (MOVED, MOVED)),
    "Gather": (13, (MOVED, INDICES)),
    "GatherElements": (13, (MOVED, INDICES)),
    "IsNaN": (13, (FLOATS,)),
    "LessOrEqual": (16, (COMPARED, COMPARED)),
    "Mul": (14, (CALCULATED, CALCULATED)),
    "ReduceSum": (13, (FLOATS | INDICES, frozenset({"int64"}))),
    "Sigmoid": (13, (FLOATS,)),
    "Split": (18, (MOVED, frozenset({"int64"}))),
    "Where": (16, (frozenset({"bool"}), FLOATS | INDICES | {"uint8"}, FLOATS | INDICES | {"uint8"})),
}
"""By operator: the version of its definition that the kernel is registered for, and the types of its inputs in order."""
