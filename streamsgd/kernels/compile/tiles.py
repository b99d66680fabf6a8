"""Products of matrices that lie in flat arrays, in tiles that stay in registers. With compilation off, the same in Python.

A tile adds `depth` products of a column of A and a row of B, one after another, to a few rows and columns of C, which it reads
and writes once. So no bit depends on how many rows or columns are worked out side by side, nor on where the sum is cut in two:
BLAS promises neither, and is faster by a third at best.
"""

from typing import Any

import numpy as np
from numba import config, types
from numba.extending import intrinsic

from streamsgd.kernels.compile.emit import INDEX, LANES, everywhere, fused, loop, place, vector_of
from streamsgd.kernels.compile.jit import dispatch

ROWS = 4
"""Rows of a tile; a wide one has two vectors in each: eight sums that wait for nobody."""


def _tile(name: str, rows: int, vectors: int, lanes: int) -> Any:
    """Return what adds to `rows` by `vectors * lanes` numbers of C; arguments as of `tile`."""
    if config.DISABLE_JIT:
        return _in_python(rows, vectors * lanes)

    @intrinsic
    def tile(_typing, a, _at_a, _row_a, _step_a, b, _at_b, _step_b, c, _at_c, _row_c, _depth):
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            _emit(context, builder, signature, args, (rows, vectors, lanes))
            return context.get_dummy_value()

        size = types.int64
        return types.void(a, size, size, size, b, size, size, c, size, size, size), codegen

    tile.__name__ = name
    return tile


def _emit(context: Any, builder: Any, signature: Any, args: Any, shape: tuple[int, int, int]) -> None:
    """Read C, add up, write C."""
    (rows, vectors, lanes), (_, at_a, row_a, step_a, _, at_b, step_b, _, at_c, row_c, depth) = shape, args
    a, b, c = (context.make_array(signature.args[k])(context, builder, args[k]).data for k in (0, 4, 7))
    number = context.get_value_type(signature.args[7].dtype)
    size, kind = context.get_abi_sizeof(number), vector_of(number, lanes)

    def past(at: Any, pitch: Any, times: Any, more: int = 0) -> Any:
        return builder.add(builder.add(at, INDEX(more)), builder.mul(pitch, times))

    targets = [place(builder, c, past(at_c, row_c, INDEX(r), v * lanes), kind) for r in range(rows) for v in range(vectors)]

    def body(k: Any, sums: list[Any]) -> list[Any]:
        along = [builder.load(place(builder, b, past(at_b, step_b, k, v * lanes), kind), align=size) for v in range(vectors)]
        down = (builder.load(builder.gep(a, [past(past(at_a, row_a, INDEX(r)), step_a, k)])) for r in range(rows))
        pairs = [(factor, one) for factor in (everywhere(builder, x, kind) for x in down) for one in along]
        return [fused(builder, *pair, total) for pair, total in zip(pairs, sums, strict=True)]

    sums = loop(builder, depth, [builder.load(target, align=size) for target in targets], body)
    for target, total in zip(targets, sums, strict=True):
        builder.store(total, target, align=size)


def _in_python(rows: int, columns: int) -> Any:
    def tile(a, at_a, row_a, step_a, b, at_b, step_b, c, at_c, row_c, depth):
        a, b, c = a.reshape(-1), b.reshape(-1), c.reshape(-1)
        for k in range(depth):
            factors = a[at_a + k * step_a + row_a * np.arange(rows)]
            for r in range(rows):
                first = at_c + r * row_c
                c[first : first + columns] += factors[r] * b[at_b + k * step_b : at_b + k * step_b + columns]

    return tile


tile_wide = _tile("tile_wide", ROWS, 2, LANES)
"""tile(a, at_a, row_a, step_a, b, at_b, step_b, c, at_c, row_c, depth): for rows r and columns q of the tile,
c[at_c + r * row_c + q] += sum over k < depth of a[at_a + r * row_a + k * step_a] * b[at_b + k * step_b + q].

All three arrays are C-contiguous and of one type, as if they were flat, and C overlaps with none of the others."""

tile_narrow = _tile("tile_narrow", ROWS, 1, LANES)

tile_thin = _tile("tile_thin", ROWS, 1, 1)

row_wide = _tile("row_wide", 1, 2, LANES)
"""The same of one row."""

row_thin = _tile("row_thin", 1, 1, 1)


def add_product(a, at_a, row_a, step_a, b, at_b, step_b, c, at_c, row_c, rows, columns, depth):
    """Add A B to C, (rows, columns): what a `tile` does, of any size; compiled once, however often a kernel calls it."""
    i = 0
    while i < rows:
        four, j = i + ROWS <= rows, 0
        while j < columns:
            left, from_a, to = columns - j, at_a + i * row_a, at_c + i * row_c + j
            if four and left >= 2 * LANES:
                tile_wide(a, from_a, row_a, step_a, b, at_b + j, step_b, c, to, row_c, depth)
                j += 2 * LANES
            elif four and left >= LANES:
                tile_narrow(a, from_a, row_a, step_a, b, at_b + j, step_b, c, to, row_c, depth)
                j += LANES
            elif four:
                tile_thin(a, from_a, row_a, step_a, b, at_b + j, step_b, c, to, row_c, depth)
                j += 1
            elif left >= 2 * LANES:
                row_wide(a, from_a, row_a, step_a, b, at_b + j, step_b, c, to, row_c, depth)
                j += 2 * LANES
            else:
                row_thin(a, from_a, row_a, step_a, b, at_b + j, step_b, c, to, row_c, depth)
                j += 1
        i += ROWS if four else 1


@dispatch(add_product, exact=True, within=True)
def _(a, at_a, row_a, step_a, b, at_b, step_b, c, at_c, row_c, rows, columns, depth):
    return add_product


def add_triangle(a, b, c, depth):
    """Add A^T B to the lower triangle of C, (n, n), of the first `depth` lines of both; numbers above it change too."""
    n, i, one, zero = c.shape[0], np.int64(0), np.int64(1), np.int64(0)
    while i < n:
        rows = min(ROWS, n - i)
        columns = min(n, (i + rows + LANES - 1) // LANES * LANES)
        add_product(a, i, one, a.shape[1], b, zero, b.shape[1], c, i * n, n, rows, columns, depth)
        i += ROWS


@dispatch(add_triangle, exact=True, within=True)
def _(a, b, c, depth):
    return add_triangle
