"""Two vector instructions for compiled kernels, in LLVM's own terms, so that they are quick on any machine it knows.

Numba finds vectors only in loops that it can prove free of overlap, which a kernel that reads and writes one buffer is not.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_INDEX = ir.IntType(32)


def selector(lanes: int) -> Any:
    """Return choose(columns, work, column, left, right, out, rank) for so many lanes (bytes side by side).

    It writes work[out + i] = work[right + i] if columns[column + i] > rank else work[left + i] for every lane i.
    `columns` and `rank` are int8, `work` is uint8; nothing is checked.
    """

    @intrinsic
    def choose(typing, columns, work, column, left, right, out, rank):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
            vector = ir.VectorType(ir.IntType(8), lanes)
            read, written = (_data(context, builder, signature, args, place) for place in (0, 1))
            ranks = _load(builder, read, args[2], vector)
            one, other = (_load(builder, written, args[place], vector) for place in (3, 4))
            beyond = builder.icmp_signed(">", ranks, _spread(builder, args[6], vector))
            builder.store(builder.select(beyond, other, one), _at(builder, written, args[5], vector)).align = 1
            return context.get_dummy_value()

        return types.void(columns, work, column, left, right, out, rank), generate

    return choose


@intrinsic
def count_below(typing, table, begin, value):  # type: ignore[no-untyped-def]
    """count_below(table, begin, value): how many of the sixteen float32 from table[begin] on are less than `value`.

    NaN is more than none. Nothing is checked.
    """

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        vector = ir.VectorType(ir.FloatType(), 16)
        sixteen = _load(builder, _data(context, builder, signature, args, 0), args[1], vector, align=4)
        less = builder.fcmp_ordered("<", sixteen, _spread(builder, args[2], vector))
        return builder.zext(builder.ctpop(builder.bitcast(less, ir.IntType(16))), ir.IntType(64))

    return types.int64(table, begin, value), generate


def _data(context: Any, builder: Any, signature: Any, args: Any, place: int) -> Any:
    return context.make_array(signature.args[place])(context, builder, args[place]).data


def _at(builder: Any, data: Any, offset: Any, vector: Any) -> Any:
    return builder.bitcast(builder.gep(data, [offset]), vector.as_pointer())


def _load(builder: Any, data: Any, offset: Any, vector: Any, align: int = 1) -> Any:
    loaded = builder.load(_at(builder, data, offset, vector))
    loaded.align = align
    return loaded


def _spread(builder: Any, scalar: Any, vector: Any) -> Any:
    """Fill all lanes with one scalar."""
    nothing = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(nothing, scalar, ir.Constant(_INDEX, 0))
    everywhere = ir.Constant(ir.VectorType(_INDEX, vector.count), [0] * vector.count)
    return builder.shuffle_vector(first, nothing, everywhere)
