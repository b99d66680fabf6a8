"""Small Parquet files with what writers can write, and ways to change a file: what `fuzz_parquet.py` is made of."""

from __future__ import annotations

import datetime as dt
import io
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROWS, GROUP_ROWS = 120, 40
"""Of our own files, and of their row groups."""

HEADER_BYTES = 24
"""Of a page: about as long as its header."""

EDGES = (0, 1, 2, 3, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 129, 191, 254, 255)
"""Bytes that are the ends of some range."""

Spots = dict[str, list[tuple[int, int]]]
"""Where the parts of a file are: (first byte, bytes)."""


def plain_table() -> pa.Table:
    """Return columns of numbers, times, decimals and strings, with and without nulls."""
    rng = np.random.default_rng(0)
    x, k = rng.standard_normal((3, ROWS)), rng.integers(0, 7, ROWS)
    words = np.array(["red", "green", "blue", "a long and winding colour", "", "é", "red"])
    gaps = [None if a < -1 else float(a) for a in x[1]]
    times = [dt.datetime(2024, 1, 1, tzinfo=dt.UTC) + dt.timedelta(hours=int(a)) for a in k * 31]
    return pa.table(
        {
            "y": x[0] + k,
            "a": pa.array(gaps, pa.float32()),
            "i": pa.array(k, pa.int64()),
            "small": pa.array(k, pa.int8()),
            "flag": pa.array(k > 3),
            "colour": words[k].tolist(),
            "maybe": pa.array([None if j == 2 else words[j] for j in k.tolist()]),
            "unique": [f"row {j} {words[j % 7]}" for j in range(ROWS)],
            "when": pa.array(times, pa.timestamp("us", "UTC")),
            "day": pa.array([time.date() for time in times]),
            "price": pa.array([Decimal(int(j)) / 100 for j in k], pa.decimal128(9, 2)),
            "code": pa.array([bytes([65 + j] * 4) for j in k.tolist()], pa.binary(4)),
            "half": pa.array(x[2].astype(np.float16)),
        }
    )


def nested_table() -> pa.Table:
    """Return lists, maps, vectors and a struct beside numbers."""
    table, rng = plain_table(), np.random.default_rng(1)
    k = rng.integers(0, 5, ROWS).tolist()
    names = ["p", "q", "rr", "sss", ""]
    lists = [None if j == 4 else names[:j] for j in k]
    maps = [None if j == 4 else [(name, float(n)) for n, name in enumerate(names[:j])] for j in k]
    columns = {
        "y": table["y"],
        "tags": pa.array(lists, pa.list_(pa.string())),
        "ints": pa.array([None if row is None else list(range(len(row))) for row in lists], pa.list_(pa.int32())),
        "bag": pa.array(maps, pa.map_(pa.string(), pa.float32())),
        "vector": pa.array([[float(j), 1.0, -1.0] for j in k], pa.list_(pa.float32(), 3)),
        "pair": pa.array([{"u": j, "v": str(j)} for j in k]),
        "colour": table["colour"],
    }
    return pa.table(columns)


def coded_table() -> pa.Table:
    """Return columns that Arrow stored as dictionaries, and one of no value at all."""
    table = plain_table()
    columns = {"y": table["y"], "a": table["a"], "nothing": pa.nulls(ROWS)}
    columns |= {name: table[name].dictionary_encode() for name in ("colour", "maybe", "unique", "code")}
    return pa.table(columns)


def _delta(table: pa.Table) -> dict[str, Any]:
    kinds = {pa.string(): "DELTA_BYTE_ARRAY", pa.int64(): "DELTA_BINARY_PACKED", pa.float32(): "BYTE_STREAM_SPLIT"}
    encodings = {field.name: kinds[field.type] for field in table.schema if field.type in kinds}
    return {"use_dictionary": False, "column_encoding": encodings | {"unique": "DELTA_LENGTH_BYTE_ARRAY"}}


def files() -> dict[str, tuple[pa.Table, dict[str, Any]]]:
    """Return a table and options of the writer for each of our files."""
    plain, nested, coded = plain_table(), nested_table(), coded_table()
    raw = {"compression": "none"}
    return {
        "plain": (plain, {**raw, "use_dictionary": False}),
        "dictionary": (plain, raw),
        "pages2": (
            plain,
            {**raw, "data_page_version": "2.0", "write_page_index": True, "data_page_size": 64, "write_batch_size": 16},
        ),
        "delta": (plain, {**raw, **_delta(plain)}),
        "delta2": (plain, {**raw, **_delta(plain), "data_page_version": "2.0"}),
        "falls_back": (plain, {**raw, "dictionary_pagesize_limit": 32, "data_page_size": 64, "write_batch_size": 8}),
        "snappy": (plain, {"compression": "snappy", "write_page_checksum": True}),
        "zstd": (plain, {"compression": "zstd", "data_page_version": "2.0"}),
        "gzip": (nested, {"compression": "gzip"}),
        "brotli": (coded, {"compression": "brotli"}),
        "lz4": (plain, {"compression": "lz4"}),
        "nested": (nested, raw),
        "nested2": (nested, {**raw, "data_page_version": "2.0", "use_compliant_nested_type": False}),
        "coded": (coded, raw),
        "coded_plain": (coded, {**raw, "use_dictionary": False}),
        "bare": (coded, {**raw, "store_schema": False, "write_statistics": False}),
        "old": (plain.drop_columns(["half"]), {**raw, "version": "1.0", "use_deprecated_int96_timestamps": True}),
    }


def write_all(folder: Path) -> None:
    """Write every file of ours."""
    for name, (table, options) in files().items():
        pq.write_table(table, folder / f"{name}.parquet", row_group_size=GROUP_ROWS, **options)


def spots_of(data: bytes) -> Spots:
    """Return where footer, page headers, dictionaries and column chunks of a sound file are."""
    length = int.from_bytes(data[-8:-4], "little")
    spots: Spots = {"footer": [(len(data) - 8 - length, length)], "header": [], "dictionary": [], "chunk": []}
    metadata = pq.read_metadata(io.BytesIO(data))
    for g in range(metadata.num_row_groups):
        for j in range(metadata.num_columns):
            chunk = metadata.row_group(g).column(j)
            first, pages = chunk.dictionary_page_offset, chunk.data_page_offset
            start = pages if first is None else first
            spots["chunk"].append((start, chunk.total_compressed_size))
            spots["header"].append((pages, HEADER_BYTES))
            if first is not None:
                spots["header"].append((first, HEADER_BYTES))
                spots["dictionary"].append((first, max(1, pages - first)))
    return {
        name: [(a, n) for a, n in places if n > 0 and a + n <= len(data)] or [(0, len(data))] for name, places in spots.items()
    }


def mutate(data: bytes, spots: Spots, other: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """Return how a file was changed, and the changed one."""
    name = WAYS[int(rng.integers(len(WAYS)))]
    where = ("footer", "footer", "footer", "header", "header", "dictionary", "chunk")[int(rng.integers(7))]
    first, n = spots[where][int(rng.integers(len(spots[where])))]
    return f"{name.__name__[1:]} of {where}", name(data, first, n, where, other, rng)


def _flip(data: bytes, first: int, n: int, _where: str, _other: bytes, rng: np.random.Generator) -> bytes:
    """One bit, or some."""
    changed = bytearray(data)
    for _ in range(int(rng.choice([1, 1, 1, 2, 8]))):
        changed[first + int(rng.integers(n))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _edge(data: bytes, first: int, n: int, _where: str, _other: bytes, rng: np.random.Generator) -> bytes:
    """Bytes that are ends of ranges."""
    changed = bytearray(data)
    for _ in range(int(rng.choice([1, 1, 2, 4]))):
        changed[first + int(rng.integers(n))] = int(rng.choice(EDGES))
    return bytes(changed)


def _number(data: bytes, first: int, n: int, where: str, _other: bytes, rng: np.random.Generator) -> bytes:
    """A number of another length: bytes are put in, or left out, and the footer's length mended."""
    at = first + int(rng.integers(n))
    size = int(rng.choice([0, 1, 1, 2, 5]))
    many = bytes([int(b) | 128 for b in rng.integers(0, 256, size)][:-1] + [int(rng.integers(0, 128))] * min(1, size))
    changed = data[:at] + many + data[at + int(rng.choice([1, 1, 2])) :]
    if where != "footer":
        return changed
    length = int.from_bytes(data[-8:-4], "little") + len(changed) - len(data)
    return changed[:-8] + max(0, length).to_bytes(4, "little") + changed[-4:]


def _zero(data: bytes, first: int, n: int, _where: str, _other: bytes, rng: np.random.Generator) -> bytes:
    """A block of zeros, or of noise."""
    at, size = first + int(rng.integers(n)), int(rng.integers(1, 64))
    block = bytes(size) if rng.random() < 0.5 else rng.bytes(size)
    return (data[:at] + block + data[at + size :])[: len(data)]


def _copy(data: bytes, first: int, n: int, _where: str, other: bytes, rng: np.random.Generator) -> bytes:
    """Bytes from elsewhere in this file, or in another."""
    source = data if rng.random() < 0.7 else other
    size = int(rng.integers(1, 200))
    begin, at = int(rng.integers(max(1, len(source) - size))), first + int(rng.integers(n))
    return (data[:at] + source[begin : begin + size] + data[at + size :])[: len(data)]


def _cut(data: bytes, first: int, n: int, _where: str, _other: bytes, rng: np.random.Generator) -> bytes:
    """An end is missing, or a part of the middle."""
    at = first + int(rng.integers(n))
    return data[:at] if rng.random() < 0.3 else data[:at] + data[at + int(rng.integers(1, 1 + n)) :]


def _length(data: bytes, _first: int, _n: int, _where: str, other: bytes, rng: np.random.Generator) -> bytes:
    """Another length of the footer, or another file's footer."""
    if rng.random() < 0.5:
        length = int.from_bytes(data[-8:-4], "little")
        wrong = int(rng.choice([0, 1, length - 1, length + 1, length + 8, length // 2, len(data), 2**31 - 1, 2**32 - 1]))
        return data[:-8] + (wrong & 0xFFFFFFFF).to_bytes(4, "little") + data[-4:]
    begin = len(other) - 8 - int.from_bytes(other[-8:-4], "little")
    return data[: len(data) - 8 - int.from_bytes(data[-8:-4], "little")] + other[begin:]


def _rename(data: bytes, _first: int, _n: int, _where: str, _other: bytes, rng: np.random.Generator) -> bytes:
    """A column has the name of another one, in the footer."""
    begin = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    names = [name.encode() for name in pq.read_schema(io.BytesIO(data)).names]
    pairs = [(a, b) for a in names for b in names if a != b and len(a) == len(b)]
    if not pairs:
        return _flip(data, begin, len(data) - 8 - begin, "", b"", rng)
    old, new = pairs[int(rng.integers(len(pairs)))]
    mark = bytes([len(old)])
    return data[:begin] + data[begin:].replace(mark + old, mark + new, int(rng.choice([1, 2, 99])))


WAYS: list[Callable[..., bytes]] = [_flip, _flip, _flip, _edge, _edge, _number, _number, _zero, _copy, _cut, _length, _rename]
