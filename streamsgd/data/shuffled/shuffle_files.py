"""The files of an external shuffle: runs of rows, bucket after bucket, and buckets in their order as Parquet."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from streamsgd.compute.local_files import whole_file
from streamsgd.data.exact_types import row_type

if TYPE_CHECKING:
    from pathlib import Path


MOST_OPEN = 128
"""Runs that are kept open."""

PAGE_ROWS = 1 << 20
"""Bytes of a page."""

PLAIN = ("FLOAT", "DOUBLE", "BOOLEAN", "INT96")
"""Physical types of which no dictionaries are made: their values seldom repeat, and plain ones are read twice as fast."""

Tally = dict[str, Any]
"""Rows, and of every column its nulls and the sum of its values' bytes as words, modulo 2^64: alike in any order."""


def tally_of(table: Any) -> Tally:
    """Return what a table holds, whatever its order."""
    columns = [[column.null_count, _sum(column)] for column in table.columns]
    return {"rows": table.num_rows, "columns": columns}


def add_tallies(one: Tally, other: Tally) -> Tally:
    """Return what two tables hold together."""
    columns = [[a[0] + b[0], (a[1] + b[1]) % (1 << 64)] for a, b in zip(one["columns"], other["columns"], strict=True)]
    return {"rows": one["rows"] + other["rows"], "columns": columns}


def _sum(column: Any) -> int:
    """Return the sum of the bytes of the valid values of a column, of lists and structs of those inside, modulo 2^64."""
    return sum(_sum_of(chunk) for chunk in column.chunks) % (1 << 64)


def _sum_of(array: Any) -> int:
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return _sum_of(array.storage)
    if array.null_count:
        array = array.drop_null()
    if not len(array) or pa.types.is_null(kind):
        return len(array)
    if pa.types.is_struct(kind):
        return sum((k + 1) * _sum_of(part) for k, part in enumerate(array.flatten())) + len(array)
    if _is_listed(kind):
        return _sum_of(array.flatten()) + len(array)
    if pa.types.is_map(kind):
        entries = array.cast(pa.list_(pa.struct([("k", kind.key_type), ("v", kind.item_type)])))
        return _sum_of(entries.flatten()) + len(array)
    return _sum_of_bytes(array)


def _is_listed(kind: Any) -> bool:
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in tests)


def _sum_of_bytes(array: Any) -> int:
    kind = array.type
    if pa.types.is_boolean(kind):
        return int(array.true_count)
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        array = array.cast(pa.large_binary())
        kind = array.type
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        array = array.cast(pa.large_binary())
    if pa.types.is_large_string(array.type) or pa.types.is_large_binary(array.type):
        offsets = np.frombuffer(array.buffers()[1], np.int64)[array.offset : array.offset + len(array) + 1]
        data = array.buffers()[2]
        if data is None:
            return len(array)
        return int(np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]].sum(dtype=np.uint64)) + len(array)
    try:
        width = kind.bit_width // 8
    except ValueError:
        return len(array)
    words = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}.get(width, np.uint8)
    data = np.frombuffer(array.buffers()[1], np.uint8)[array.offset * width : (array.offset + len(array)) * width]
    return int(data.view(words).sum(dtype=np.uint64))


# --- runs


class Begun(NamedTuple):
    """What the runs hold that are there."""

    rows: int
    tally: Tally


class Runs:
    """The runs of a shuffle in its work folder: Arrow files of a batch per bucket, whose last column holds the keys."""

    def __init__(self, work: Path, schema: Any) -> None:
        self.work = work
        self.schema = pa.schema([*schema_of_runs(schema), pa.field("", pa.uint64())])
        self._empty = tally_of(schema.empty_table())
        self._stack = ExitStack()
        self._open: dict[Path, Any] = {}
        self.paths: list[Path] = []
        self._next = 0

    def __enter__(self) -> Self:
        self.paths = self._whole()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()
        self._open.clear()

    def path(self, number: int) -> Path:
        """Return the place of a run."""
        return self.work / f"_run-{number:06}.arrow"

    def _whole(self) -> list[Path]:
        paths: list[Path] = []
        while (path := self.path(len(paths))).exists():
            paths.append(path)
        return paths

    def finished(self) -> Begun:
        """Return what is there: the first rows of the data, as far as runs were finished."""
        rows, tally = 0, self._empty
        for path in self._whole():
            with pa.OSFile(str(path)) as file:
                found = json.loads(pa.ipc.open_file(file).schema.metadata[b"shuffle"])
            rows, tally = found["rows"], found["tally"]
        self._next = len(self._whole())
        return Begun(rows, tally)

    def write(self, batches: list[Any], rows: int, tally: Tally) -> None:
        """Write one more run, with what all runs hold then."""
        schema = self.schema.with_metadata({"shuffle": json.dumps({"rows": rows, "tally": tally})})
        with whole_file(self.path(self._next)) as sink, pa.ipc.new_file(sink, schema) as writer:
            for batch in batches:
                writer.write_batch(batch.replace_schema_metadata(schema.metadata))
        self._next += 1

    def bucket(self, number: int) -> tuple[Any, np.ndarray]:
        """Return the rows of a bucket, in the order of the data, and their keys."""
        batches = [self._batch(path, number) for path in self.paths]
        table = pa.Table.from_batches(batches, batches[0].schema).combine_chunks()
        keys = np.asarray(table.column(table.num_columns - 1))
        return table.select(range(table.num_columns - 1)), keys

    def _batch(self, path: Path, number: int) -> Any:
        if path in self._open:
            return self._bare(self._open[path].get_batch(number))
        if len(self._open) < MOST_OPEN:
            file = self._stack.enter_context(pa.OSFile(str(path)))
            self._open[path] = pa.ipc.open_file(file)
            return self._bare(self._open[path].get_batch(number))
        with pa.OSFile(str(path)) as file:
            return self._bare(pa.ipc.open_file(file).get_batch(number))

    def _bare(self, batch: Any) -> Any:
        return batch.replace_schema_metadata(None)


def schema_of_runs(schema: Any) -> Any:
    """Return a schema without dictionaries: those of several batches would differ."""
    return pa.schema([each.with_type(row_type(each.type)) for each in schema.remove_metadata()])


class RunWriter:
    """Rows that wait to be a run."""

    def __init__(self, schema: Any, n_buckets: int) -> None:
        self.schema, self.n_buckets = schema_of_runs(schema), n_buckets
        self._clear()

    def _clear(self) -> None:
        self.tables: list[Any] = []
        self.keys: list[np.ndarray] = []
        self.nbytes = self.rows = 0

    def add(self, table: Any, keys: np.ndarray) -> None:
        """Take rows."""
        self.tables.append(table.cast(self.schema))
        self.keys.append(keys)
        self.nbytes += table.nbytes + keys.nbytes
        self.rows += len(keys)

    def write(self, runs: Runs, before: int, tally: Tally) -> tuple[int, Tally]:
        """Write the rows as a run, bucket after bucket; return rows and tally of all runs."""
        table = pa.concat_tables([self.schema.empty_table(), *self.tables])
        keys = np.concatenate([np.zeros(0, np.uint64), *self.keys])
        self._clear()
        tally = add_tallies(tally, tally_of(table))
        bucket = bucket_of(keys, self.n_buckets)
        order = np.argsort(bucket, kind="stable")
        ends = np.concatenate([[0], np.cumsum(np.bincount(bucket, minlength=self.n_buckets))])
        table = table.append_column(runs.schema.field(len(self.schema)), pa.array(keys)).take(pa.array(order)).combine_chunks()
        rows = before + len(keys)
        batches = [_one_batch(table.slice(a, b - a)) for a, b in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)]
        runs.write(batches, rows, tally)
        return rows, tally


def _one_batch(table: Any) -> Any:
    batches = table.combine_chunks().to_batches() if table.num_rows else []
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


def bucket_of(keys: np.ndarray, n_buckets: int) -> np.ndarray:
    """Return the bucket of keys, uint16 (n,): ranges of equal width of the upper 32 bits."""
    found: np.ndarray = ((keys >> np.uint64(32)) * np.uint64(n_buckets) >> np.uint64(32)).astype(np.uint16)
    return found


# --- buckets


class BucketWriter:
    """Writes Parquet that is read fast: snappy, checksums of pages, dictionaries of what repeats, bounded row groups."""

    def __init__(self, schema: Any, group_rows: int) -> None:
        self.schema, self.group_rows = schema, group_rows

    def write(self, table: Any, sink: IO[bytes]) -> None:
        """Write a bucket as a file."""
        table = pa.table([_typed(column, f) for column, f in zip(table.columns, self.schema, strict=True)], schema=self.schema)
        pq.write_table(
            table,
            sink,
            row_group_size=self.group_rows,
            compression="snappy",
            use_dictionary=repeating(self.schema),
            data_page_size=PAGE_ROWS,
            write_page_checksum=True,
        )


def repeating(schema: Any) -> list[str]:
    """Return the paths of columns that dictionaries are made of."""
    sink = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), sink)
    stored = pq.read_metadata(pa.BufferReader(sink.getvalue())).schema
    columns = [stored.column(k) for k in range(len(stored))]
    return [column.path for column in columns if column.physical_type not in PLAIN]


def _typed(column: Any, field: Any) -> Any:
    if column.type == field.type:
        return column
    return column.dictionary_encode().unify_dictionaries().cast(field.type)
