"""Pieces of code of vectors, which intrinsics emit: loops that carry values, and what is done with vectors in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llvmlite import ir

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LANES = 8
"""Numbers of a vector, unless told otherwise."""

INDEX, BYTE = ir.IntType(64), ir.IntType(8)


def loop(builder: Any, n: Any, begin: Sequence[Any], body: Callable[[Any, list[Any]], Sequence[Any]]) -> list[Any]:
    """Emit a loop over e < n that carries values; `body` returns what they are after e. Return what they are in the end."""
    before, head = builder.block, builder.append_basic_block("head")
    inside, done = builder.append_basic_block("inside"), builder.append_basic_block("done")
    builder.branch(head)
    builder.position_at_end(head)
    e = builder.phi(INDEX)
    carried = [builder.phi(value.type) for value in begin]
    builder.cbranch(builder.icmp_signed("<", e, n), inside, done)
    builder.position_at_end(inside)
    after = body(e, carried)
    for phi, first, following in zip((e, *carried), (INDEX(0), *begin), (builder.add(e, INDEX(1)), *after), strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(following, builder.block)
    builder.branch(head)
    builder.position_at_end(done)
    return carried


def vector_of(number: Any, lanes: int = LANES) -> Any:
    """Return the type of so many numbers, which may be one."""
    return ir.VectorType(number, lanes) if lanes > 1 else number


def place(builder: Any, data: Any, at: Any, kind: Any) -> Any:
    """Return where a vector of this type begins, at a number of an array."""
    return builder.bitcast(builder.gep(data, [at]), kind.as_pointer())


def everywhere(builder: Any, value: Any, kind: Any) -> Any:
    """Return a vector of one number."""
    if kind == value.type:
        return value
    alone = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.IntType(32)(0))
    return builder.shuffle_vector(alone, alone, ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count))


def fused(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a b + c, rounded once where the processor can."""
    kind, number = a.type, getattr(a.type, "element", a.type)
    letter = "f64" if isinstance(number, ir.DoubleType) else "f32"
    name = f"llvm.fmuladd.v{kind.count}{letter}" if kind != number else f"llvm.fmuladd.{letter}"
    known = builder.module.globals.get(name) or ir.Function(builder.module, ir.FunctionType(kind, [kind] * 3), name)
    return builder.call(known, [a, b, c])


def summed(builder: Any, vector: Any) -> Any:
    """Return the sum of a vector's numbers, its halves first."""
    width, mask = vector.type.count, ir.VectorType(ir.IntType(32), vector.type.count)
    while width > 1:
        width //= 2
        turned = ir.Constant(mask, [(q + width) % mask.count for q in range(mask.count)])
        vector = builder.fadd(vector, builder.shuffle_vector(vector, vector, turned))
    return builder.extract_element(vector, ir.IntType(32)(0))
