"""Factors of a machine as vectors. With compilation off, the same in Python.

Numba leaves neighbours in straight-line code alone (its SLP vectoriser is off), and loops over eight numbers are too short for
the other one: written as Python, the factors of an entry cost 14 ns, as vectors 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llvmlite import ir
from numba import config, types
from numba.extending import intrinsic

from streamsgd.kernels.compile.emit import BYTE, INDEX, LANES, everywhere, fused, loop, place, summed, vector_of

if TYPE_CHECKING:
    from collections.abc import Sequence


def _joiner() -> Any:
    if config.DISABLE_JIT:

        def join_in_python(slots, k, index, x, n, own, first, pitch, joint):
            joint[first : first + LANES], squares = 0.0, 0.0
            for e in range(n):
                z = slots[k + first : k + first + LANES, index[e]] * x[e]
                own[e * pitch + first : e * pitch + first + LANES] = z
                joint[first : first + LANES] += z
                squares += (z * z).sum()
            return own.dtype.type(squares)

        return join_in_python

    @intrinsic
    def join_eight(_typing, slots, _k, index, x, _n, own, _first, _pitch, joint):
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            _, k, _, _, n, _, first, pitch, _ = args
            cells, entries, factors, mine, total = (
                context.make_array(signature.args[a])(context, builder, args[a]) for a in (0, 2, 3, 5, 8)
            )
            kind = vector_of(context.get_value_type(own.dtype))
            size = context.get_abi_sizeof(kind.element)
            down, across = (builder.extract_value(cells.strides, axis) for axis in (0, 1))
            begin = builder.gep(builder.bitcast(cells.data, BYTE.as_pointer()), [builder.mul(builder.add(k, first), down)])

            def body(e: Any, carried: list[Any]) -> Sequence[Any]:
                j = builder.zext(builder.load(builder.gep(entries.data, [e])), INDEX)
                v = builder.bitcast(builder.gep(begin, [builder.mul(j, across)]), kind.as_pointer())
                by = everywhere(builder, builder.load(builder.gep(factors.data, [e])), kind)
                z = builder.fmul(builder.load(v, align=size), by)
                builder.store(z, place(builder, mine.data, builder.add(builder.mul(e, pitch), first), kind), align=size)
                return builder.fadd(carried[0], z), fused(builder, z, z, carried[1])

            none = ir.Constant(kind, [0.0] * LANES)
            sums, squares = loop(builder, n, [none, none], body)
            builder.store(sums, place(builder, total.data, first, kind), align=size)
            return summed(builder, squares)

        size = types.int64
        return own.dtype(slots, size, index, x, size, own, size, size, joint), codegen

    return join_eight


join_eight = _joiner()
"""join_eight(slots, k, index, x, n, own, first, pitch, joint): of factors f from `first` to `first` + 8 and entries e < n, with
slots[k + f, j] those of coordinate j, in a run: own[e * pitch + f] = slots[k + f, index[e]] * x[e], and joint[f] is their sum
over entries. Returns the sum of their squares. Indices are uint32, and all numbers of one type."""


def _deriver() -> Any:
    if config.DISABLE_JIT:

        def derive_in_python(x, n, own, first, pitch, joint, lengths):
            for e in range(n):
                u = x[e] * (joint[first : first + LANES] - own[e * pitch + first : e * pitch + first + LANES])
                own[e * pitch + first : e * pitch + first + LANES] = u
                lengths[e] += (u * u).sum()

        return derive_in_python

    @intrinsic
    def derive_eight(_typing, x, _n, own, _first, _pitch, joint, lengths):
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            _, n, _, first, pitch, _, _ = args
            factors, mine, total, squares = (
                context.make_array(signature.args[a])(context, builder, args[a]) for a in (0, 2, 5, 6)
            )
            kind = vector_of(context.get_value_type(own.dtype))
            size = context.get_abi_sizeof(kind.element)
            sums = builder.load(place(builder, total.data, first, kind), align=size)

            def body(e: Any, _carried: list[Any]) -> Sequence[Any]:
                where = place(builder, mine.data, builder.add(builder.mul(e, pitch), first), kind)
                by = everywhere(builder, builder.load(builder.gep(factors.data, [e])), kind)
                u = builder.fmul(by, builder.fsub(sums, builder.load(where, align=size)))
                builder.store(u, where, align=size)
                length = builder.gep(squares.data, [e])
                builder.store(builder.fadd(builder.load(length), summed(builder, builder.fmul(u, u))), length)
                return ()

            loop(builder, n, [], body)
            return context.get_dummy_value()

        size = types.int64
        return types.void(x, size, own, size, size, joint, lengths), codegen

    return derive_eight


derive_eight = _deriver()
"""derive_eight(x, n, own, first, pitch, joint, lengths): after `join_eight`, own becomes u = x[e] * (joint[f] - own), and
lengths[e] grows by the squares of its eight."""


def _mover() -> Any:
    if config.DISABLE_JIT:

        def move_in_python(slots, k, index, n, own, first, pitch, strides):
            for e in range(n):
                u = own[e * pitch + first : e * pitch + first + LANES]
                slots[k + first : k + first + LANES, index[e]] += strides[e] * u

        return move_in_python

    @intrinsic
    def move_eight(_typing, slots, _k, index, _n, own, _first, _pitch, strides):
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            _, k, _, n, _, first, pitch, _ = args
            cells, entries, mine, by = (context.make_array(signature.args[a])(context, builder, args[a]) for a in (0, 2, 4, 7))
            kind = vector_of(context.get_value_type(own.dtype))
            size = context.get_abi_sizeof(kind.element)
            down, across = (builder.extract_value(cells.strides, axis) for axis in (0, 1))
            begin = builder.gep(builder.bitcast(cells.data, BYTE.as_pointer()), [builder.mul(builder.add(k, first), down)])

            def body(e: Any, _carried: list[Any]) -> Sequence[Any]:
                j = builder.zext(builder.load(builder.gep(entries.data, [e])), INDEX)
                v = builder.bitcast(builder.gep(begin, [builder.mul(j, across)]), kind.as_pointer())
                u = builder.load(place(builder, mine.data, builder.add(builder.mul(e, pitch), first), kind), align=size)
                stride = everywhere(builder, builder.load(builder.gep(by.data, [e])), kind)
                builder.store(fused(builder, stride, u, builder.load(v, align=size)), v, align=size)
                return ()

            loop(builder, n, [], body)
            return context.get_dummy_value()

        size = types.int64
        return types.void(slots, size, index, size, own, size, size, strides), codegen

    return move_eight


move_eight = _mover()
"""move_eight(slots, k, index, n, own, first, pitch, strides): slots[k + f, index[e]] += strides[e] * own[e * pitch + f], one
entry after another, since two may be of one coordinate."""


def _puller() -> Any:
    if config.DISABLE_JIT:

        def pull_in_python(own, pulls, weights, b, first, pitch):
            here = slice(b * pitch + first, b * pitch + first + LANES)
            for a in range(b):
                there = slice(a * pitch + first, a * pitch + first + LANES)
                pulls[here] += weights[a] * own[there]
                pulls[there] += weights[a] * own[here]

        return pull_in_python

    @intrinsic
    def pull_eight(_typing, own, pulls, weights, _b, _first, _pitch):
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            mine, out, by = (context.make_array(signature.args[a])(context, builder, args[a]).data for a in range(3))
            _, _, _, b, first, pitch = args
            kind = vector_of(context.get_value_type(own.dtype))
            size = context.get_abi_sizeof(kind.element)
            here = builder.add(builder.mul(b, pitch), first)
            z = builder.load(place(builder, mine, here, kind), align=size)
            target = place(builder, out, here, kind)

            def body(a: Any, carried: list[Any]) -> Sequence[Any]:
                there = builder.add(builder.mul(a, pitch), first)
                r = everywhere(builder, builder.load(builder.gep(by, [a])), kind)
                of = place(builder, out, there, kind)
                builder.store(fused(builder, r, z, builder.load(of, align=size)), of, align=size)
                return (fused(builder, r, builder.load(place(builder, mine, there, kind), align=size), carried[0]),)

            builder.store(loop(builder, b, [builder.load(target, align=size)], body)[0], target, align=size)
            return context.get_dummy_value()

        size = types.int64
        return types.void(own, pulls, weights, size, size, size), codegen

    return pull_eight


pull_eight = _puller()
"""pull_eight(own, pulls, weights, b, first, pitch): for entries a < b and f from `first` to `first` + 8,
pulls[b * pitch + f] += weights[a] * own[a * pitch + f], and the same with a and b exchanged."""


def _multiplier() -> Any:
    if config.DISABLE_JIT:

        def products_in_python(own, b, first, pitch, out):
            for a in range(b):
                there, here = a * pitch + first, b * pitch + first
                out[a] += own[there : there + LANES] @ own[here : here + LANES]

        return products_in_python

    @intrinsic
    def products_of_eight(_typing, own, _b, _first, _pitch, out):
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            mine, found = (context.make_array(signature.args[a])(context, builder, args[a]).data for a in (0, 4))
            _, b, first, pitch, _ = args
            kind = vector_of(context.get_value_type(own.dtype))
            size = context.get_abi_sizeof(kind.element)
            z = builder.load(place(builder, mine, builder.add(builder.mul(b, pitch), first), kind), align=size)

            def body(a: Any, _carried: list[Any]) -> Sequence[Any]:
                y = builder.load(place(builder, mine, builder.add(builder.mul(a, pitch), first), kind), align=size)
                where = builder.gep(found, [a])
                builder.store(builder.fadd(builder.load(where), summed(builder, builder.fmul(y, z))), where)
                return ()

            loop(builder, b, [], body)
            return context.get_dummy_value()

        size = types.int64
        return types.void(own, size, size, size, out), codegen

    return products_of_eight


products_of_eight = _multiplier()
"""products_of_eight(own, b, first, pitch, out): for a < b, out[a] grows by the products of eight factors of a and b."""
