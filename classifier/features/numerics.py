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
_ROOTS = np.array([float(_DIGITS.power(Decimal(2), Decimal(j) / _STEPS)) for j in range(_STEPS + 1)])
"""2^(j/64)."""
_CENTRES = 128
_INVERSES = np.array([1.0 / (1.0 + (j + 0.5) / _CENTRES) for j in range(_CENTRES)])
_LOGS = np.array([float(-_DIGITS.divide(Decimal(c).ln(_DIGITS), Decimal(2).ln(_DIGITS))) for c in _INVERSES.tolist()])
"""log2 of the centre of each of 128 equal parts of [1, 2), through the rounded inverse that the kernel multiplies by."""
_MANTISSA = np.int64((1 << 52) - 1)
_ONE = np.int64(1023 << 52)


@njit(cache=True, nogil=True, forceinline=True)
def power_of_2(n: int) -> float:
    """2^n for -1022 <= n <= 1023, float64, exact."""
    return np.int64((n + 1023) << 52).view(np.float64)


@njit(cache=True, nogil=True, forceinline=True)
def exp2_of_part(x: float) -> float:
    """2^x for 0 <= x <= 1, float64. Relative error under 4e-16.

    Argument reduction to a multiple of 1/64 and the Taylor series of e^(x ln 2) to degree 5 (remainder 4e-17).
    """
    step = np.int64(x * _STEPS + 0.5)
    t = (x - step * (1.0 / _STEPS)) * _LN2
    square = t * t
    series = (1.0 + t) + square * ((0.5 + t * (1.0 / 6.0)) + square * (1.0 / 24.0 + t * (1.0 / 120.0)))
    return series * _ROOTS[np.uint64(step)]


@njit(cache=True, nogil=True, forceinline=True)
def exp2(x: float) -> float:
    """2^x for x < 1023, float64; 0 below -1022. Relative error under 4e-16."""
    if x < -1022.0:
        return 0.0
    whole = math.floor(x)
    return exp2_of_part(x - whole) * power_of_2(np.int64(whole))


@njit(cache=True, nogil=True, forceinline=True)
def log2_positive(x: float) -> float:
    """log2(x) for finite, normal x > 0, float64. Absolute error under 1e-15.

    log2(2^e m) = e + log2(c) + log2(m/c) for the nearest of 128 centres c; ln(1 + r) by its series to degree 6.
    """
    bits = np.float64(x).view(np.int64)
    exponent = np.float64(np.int32(bits >> 52) - np.int32(1023))  # of 32 bits, which fit a vector
    mantissa = np.int64((bits & _MANTISSA) | _ONE).view(np.float64)
    part = np.uint64(bits >> 45) & np.uint64(127)
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


@intrinsic
def word_at(typing_context: Any, array: Any, index: Any) -> Any:
    """Return the 8 bytes of a uint8 array from `index` on as a uint64, little-endian on such machines."""
    from llvmlite import ir

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        word = builder.bitcast(builder.gep(data, [args[1]]), ir.IntType(64).as_pointer())
        return builder.load(word, align=1)

    return types.uint64(array, index), generate


@intrinsic
def call_hash(typing_context: Any, function: Any, out: Any, data: Any, length: Any, key: Any) -> Any:
    """Call the C function at the address `function` of libsodium's hashes: f(out, data, length, key); all are addresses."""
    from llvmlite import ir

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        number = ir.IntType(64)
        called = ir.FunctionType(ir.IntType(32), [number] * 4).as_pointer()
        builder.call(builder.inttoptr(args[0], called), args[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), generate


def adder(record_first: int, value_first: int, n: int, *, squared: bool = False) -> Any:
    """Return f(record float64[:], values float32[:], weight float64), which adds n weighted values to n sums at once.

    record[record_first + i] += weight * values[value_first + i], or its square, for i < n. It is written in vectors,
    because no compiler may assume that `record` and `values` do not overlap; each lane rounds as a number alone would.
    """

    @intrinsic
    def add(typing_context: Any, record: Any, values: Any, weight: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            sums = _vector_at(context, builder, signature.args[0], args[0], record_first, n)
            terms = _vector_at(context, builder, signature.args[1], args[1], value_first, n)
            x = builder.fpext(builder.load(terms, align=4), sums.type.pointee)
            term = builder.fmul(_splat(builder, args[2], n), builder.fmul(x, x) if squared else x)
            builder.store(builder.fadd(builder.load(sums, align=8), term), sums, align=8)
            return context.get_dummy_value()

        _check_rows(record, types.float64, values, types.float32)
        return types.void(record, values, types.float64), generate

    return add


def scaler(record_first: int, column_first: int, n: int) -> Any:
    """Return f(record float64[:], scale float64, out float32[:]), which writes n sums times `scale` at once.

    out[column_first + i] = record[record_first + i] * scale for i < n.
    """

    @intrinsic
    def write(typing_context: Any, record: Any, scale: Any, out: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            sums = _vector_at(context, builder, signature.args[0], args[0], record_first, n)
            target = _vector_at(context, builder, signature.args[2], args[2], column_first, n)
            product = builder.fmul(builder.load(sums, align=8), _splat(builder, args[1], n))
            builder.store(builder.fptrunc(product, target.type.pointee), target, align=4)
            return context.get_dummy_value()

        _check_rows(record, types.float64, out, types.float32)
        return types.void(record, types.float64, out), generate

    return write


def _check_rows(one: Any, of_one: Any, other: Any, of_other: Any) -> None:
    if one.dtype != of_one or other.dtype != of_other or one.layout != "C" or other.layout != "C":
        raise TypeError(f"a row of {of_one} and one of {of_other} are wanted, not {one} and {other}")


def _vector_at(context: Any, builder: Any, array_type: Any, array: Any, first: int, n: int) -> Any:
    """Return a pointer to n numbers of a one-dimensional array as one vector."""
    from llvmlite import ir

    data = context.make_array(array_type)(context, builder, array).data
    place = builder.gep(data, [ir.Constant(ir.IntType(64), first)])
    return builder.bitcast(place, ir.VectorType(data.type.pointee, n).as_pointer())


def _splat(builder: Any, number: Any, n: int) -> Any:
    from llvmlite import ir

    lanes = ir.VectorType(number.type, n)
    one = builder.insert_element(ir.Constant(lanes, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(
        one, ir.Constant(lanes, ir.Undefined), ir.Constant(ir.VectorType(ir.IntType(32), n), [0] * n)
    )
