"""Shapes of data that are small in a file and large in memory, or long in one place, for `bench_memory.py`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True)
class Shape:
    """How many rows of which columns, in which row groups, and what the writer and the trainer are told."""

    rows: int
    group_rows: int
    columns: Callable[[int, int], dict[str, Any]]
    """Of (rows, number of the row group)."""
    writer: dict[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()


def rng_of(group: int) -> np.random.Generator:
    """Return the randomness of a row group."""
    return np.random.default_rng([group, 5])


def numbers(count: int, kind: Any = np.float32) -> Callable[[int, int], dict[str, Any]]:
    """Return columns of numbers."""
    return lambda n, g: {f"x{j}": rng_of(g * 4096 + j).standard_normal(n).astype(kind) for j in range(count)}


def integers(count: int) -> Callable[[int, int], dict[str, Any]]:
    """Return columns of numbers that take a bit or two in the file."""
    return lambda n, g: {f"x{j}": rng_of(g * 4096 + j).integers(0, 3, n) for j in range(count)}


def strings(length: int, distinct: int = 0, prefix: bool = False, count: int = 1) -> Callable[[int, int], dict[str, Any]]:
    """Return strings of about so many letters, all different unless told otherwise; with words in them, or one long prefix."""

    def make(n: int, g: int) -> dict[str, Any]:
        def one(j: int) -> list[str]:
            rng = rng_of(g * 64 + j)
            codes = rng.integers(0, distinct, n) if distinct else np.arange(n) + (g * 64 + j) * n
            body = ("p" * length) if prefix else ("some words of a longer text " * (length // 28 + 1))[:length]
            return [f"{body}{code}" if prefix else f"{code} {body}" for code in codes.tolist()]

        return {f"s{j}": one(j) for j in range(count)}

    return make


def lists(
    lengths: Callable[[int, np.random.Generator], np.ndarray], text: bool = False
) -> Callable[[int, int], dict[str, Any]]:
    """Return a column of lists."""

    def make(n: int, g: int) -> dict[str, Any]:
        sizes = lengths(n, rng_of(g))
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
        values = rng_of(g).integers(0, 1000, offsets[-1]).astype(np.int32)
        inside = pa.array([f"tag number {k}" for k in range(1000)]).take(pa.array(values)) if text else pa.array(values)
        return {"l": pa.ListArray.from_arrays(pa.array(offsets), inside)}

    return make


def maps(mean: int) -> Callable[[int, int], dict[str, Any]]:
    """Return a column of maps from strings to numbers."""

    def make(n: int, g: int) -> dict[str, Any]:
        sizes = rng_of(g).poisson(mean, n)
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
        keys = pa.array([f"key {k}" for k in range(500)]).take(pa.array(rng_of(g).integers(0, 500, offsets[-1])))
        return {"m": pa.MapArray.from_arrays(pa.array(offsets), keys, pa.array(rng_of(g).random(offsets[-1])))}

    return make


def several(*makers: Callable[[int, int], dict[str, Any]]) -> Callable[[int, int], dict[str, Any]]:
    """Return the columns of all of them."""
    return lambda n, g: {name: column for maker in makers for name, column in maker(n, g).items()}


def jump(before: Callable[[int, int], dict[str, Any]], after: Callable[[int, int], dict[str, Any]], at: int) -> Any:
    """Return the columns of the first in the row groups before `at`, then those of the second."""
    return lambda n, g: before(n, g) if g < at else after(n, g)


def one_giant(n: int, rng: np.random.Generator) -> np.ndarray:
    """Lists of up to three elements, and one of two million."""
    sizes = rng.integers(0, 4, n)
    sizes[n // 2] = 2_000_000
    return sizes


PLAIN, DELTA = {"use_dictionary": False}, {"use_dictionary": False, "column_encoding": {"s0": "DELTA_BYTE_ARRAY"}}
CODES = ("--categorical", "l")
SHAPES: dict[str, Shape] = {
    "numbers": Shape(4_000_000, 250_000, numbers(10), PLAIN),
    "numbers_one_group": Shape(4_000_000, 4_000_000, numbers(10), PLAIN),
    "numbers_tiny_groups": Shape(1_000_000, 500, numbers(10), PLAIN),
    "one_column": Shape(60_000_000, 1_000_000, integers(1)),
    "one_column_one_group": Shape(30_000_000, 30_000_000, integers(1)),
    "wide": Shape(20_000, 10_000, numbers(784), PLAIN),
    "very_wide": Shape(20_000, 10_000, numbers(2000), PLAIN),
    "very_wide_tiny_groups": Shape(10_000, 500, numbers(2000), PLAIN),
    "wide_coded": Shape(200_000, 50_000, integers(500)),
    "doubles": Shape(2_000_000, 500_000, numbers(20, np.float64), PLAIN),
    "long": Shape(60_000, 2_000, strings(3_000)),
    "long_text": Shape(60_000, 2_000, strings(3_000), {}, ("--text", "s0")),
    "long_plain": Shape(60_000, 2_000, strings(3_000), PLAIN),
    "long_delta": Shape(60_000, 2_000, strings(3_000, prefix=True), DELTA),
    "long_delta_one_group": Shape(100_000, 100_000, strings(3_000, prefix=True), DELTA),
    "long_one_group": Shape(60_000, 60_000, strings(3_000), PLAIN),
    "long_repeated": Shape(200_000, 20_000, strings(3_000, distinct=50)),
    "long_repeated_text": Shape(200_000, 20_000, strings(3_000, distinct=50), {}, ("--text", "s0")),
    "longer": Shape(3_000, 200, strings(100_000)),
    "longer_delta": Shape(3_000, 1_000, strings(100_000, prefix=True), DELTA),
    "longer_repeated": Shape(20_000, 2_000, strings(100_000, distinct=20)),
    "longest": Shape(100, 10, strings(2_000_000)),
    "prefixes": Shape(1_000, 1_000, strings(300_000, prefix=True), DELTA),
    "one_dictionary": Shape(60_000, 60_000, strings(20_000, distinct=50)),
    "giant_list_of_strings": Shape(5_000, 5_000, lists(one_giant, text=True)),
    "sudden": Shape(60_000, 6_000, jump(strings(8), strings(6_000, prefix=True), 9), DELTA),
    "many_strings": Shape(200_000, 50_000, strings(40, count=12)),
    "many_long_strings": Shape(20_000, 2_000, strings(800, count=12)),
    "ids": Shape(4_000_000, 500_000, strings(12)),
    "ids_one_group": Shape(2_000_000, 2_000_000, strings(12), PLAIN),
    "short_lists": Shape(1_000_000, 100_000, lists(lambda n, rng: rng.integers(0, 4, n)), {}, CODES),
    "giant_list": Shape(400_000, 100_000, lists(one_giant), {}, CODES),
    "long_lists": Shape(20_000, 2_000, lists(lambda n, rng: rng.poisson(800, n)), {}, CODES),
    "long_lists_of_strings": Shape(1_000, 100, lists(lambda n, rng: rng.poisson(10_000, n), text=True)),
    "maps": Shape(200_000, 50_000, maps(20)),
    "mixed": Shape(100_000, 10_000, several(numbers(50), strings(200, count=2), maps(5))),
    "vectors": Shape(
        100_000,
        20_000,
        lambda n, g: {"v": pa.FixedSizeListArray.from_arrays(pa.array(rng_of(g).random(n * 256, np.float32)), 256)},
        PLAIN,
    ),
}
"""Some 200 MB to 6 GB each, decoded."""


def write_shape(path: Path, shape: Shape) -> None:
    """Write the rows of a shape, a row group at a time, with a target y."""
    writer = None
    for g, start in enumerate(range(0, shape.rows, shape.group_rows)):
        n = min(shape.group_rows, shape.rows - start)
        table = pa.table({"y": rng_of(g).random(n, np.float32), **shape.columns(n, g)})
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd", **shape.writer)
        writer.write_table(table, row_group_size=shape.group_rows)
    writer.close()
