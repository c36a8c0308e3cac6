"""Elementary functions for the kernel, without libm: the same bytes on any machine.

Only IEEE 754 additions and multiplications are used, never contracted or reordered (no fastmath). The tables are rounded
once from 40 decimal digits.
"""

from __future__ import annotations

import math
from decimal import Context, Decimal
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

_LN2 = 0.6931471805599453
_INV_LN2 = 1.4426950408889634
_DIGITS = Context(prec=40)
_STEPS = 64
_ROOTS = np.array([float(_DIGITS.power(Decimal(2), Decimal(j) / _STEPS)) for j in range(_STEPS)])
"""2^(j/64)."""
_CENTRES = 128
_INVERSES = np.array([1.0 / (1.0 + (j + 0.5) / _CENTRES) for j in range(_CENTRES)])
_LOGS = np.array([float(-_DIGITS.divide(Decimal(c).ln(_DIGITS), Decimal(2).ln(_DIGITS))) for c in _INVERSES.tolist()])
"""log2 of the centre of each of 128 equal parts of [1, 2), through the rounded inverse that the kernel multiplies by."""
_MANTISSA = np.int64((1 << 52) - 1)
_ONE = np.int64(1023 << 52)


@njit(cache=True, nogil=True, forceinline=True)
def exp2(x: float) -> float:
    """2^x for x < 1023, float64; 0 below -1022. Relative error under 4e-16.

    Argument reduction to a multiple of 1/64 and the Taylor series of e^(x ln 2) to degree 5 (remainder 4e-17).
    """
    if x < -1022.0:
        return 0.0
    step = np.int64(math.floor(x * _STEPS + 0.5))
    t = (x - step * (1.0 / _STEPS)) * _LN2
    square = t * t
    series = (1.0 + t) + square * ((0.5 + t * (1.0 / 6.0)) + square * (1.0 / 24.0 + t * (1.0 / 120.0)))
    return series * _ROOTS[step & 63] * np.int64(((step >> 6) + 1023) << 52).view(np.float64)


@njit(cache=True, nogil=True, forceinline=True)
def log2_positive(x: float) -> float:
    """log2(x) for finite, normal x > 0, float64. Absolute error under 1e-15.

    log2(2^e m) = e + log2(c) + log2(m/c) for the nearest of 128 centres c; ln(1 + r) by its series to degree 6.
    """
    bits = np.float64(x).view(np.int64)
    exponent = (bits >> 52) - 1023
    mantissa = np.int64((bits & _MANTISSA) | _ONE).view(np.float64)
    part = (bits >> 45) & 127
    r = mantissa * _INVERSES[part] - 1.0
    square = r * r
    series = (r - square * 0.5) + square * r * ((1.0 / 3.0 - r * 0.25) + square * (0.2 - r * (1.0 / 6.0)))
    return exponent + (_LOGS[part] + series * _INV_LN2)


@intrinsic
def count_bits(typing_context: Any, x: Any) -> Any:
    """Return the number of ones in a uint64, as int64."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.int64(types.uint64), generate


@intrinsic
def prefetch(typing_context: Any, array: Any, index: Any) -> Any:
    """Ask for the cache line of element `index` of a contiguous array, counted flat, without waiting for it."""
    from llvmlite import ir

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        byte, number = ir.IntType(8), ir.IntType(32)
        address = builder.bitcast(builder.gep(data, [args[1]]), byte.as_pointer())
        arguments = [byte.as_pointer(), number, number, number]
        function = builder.module.declare_intrinsic(
            "llvm.prefetch", [byte.as_pointer()], ir.FunctionType(ir.VoidType(), arguments)
        )
        builder.call(function, [address, number(1), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(array, index), generate
