"""Convert LIBSVM / svmlight text to one dense Parquet file.

    python datasets/libsvm.py heart_scale heart_scale.parquet
    python datasets/libsvm.py a9a_123d_train.dummy.gz a9a.parquet --format indices --features 123

A line is `label index:value index:value ...`, or with `--format indices` `label index index ...` where each
named feature is 1; what follows a # is a comment. Indices begin at 1, with `--format indices` at 0, or at
`--first-index`. Without `--features` the text is read twice, first for the largest index. The file has the
target `y` (float64) and a float32 column for each index, named by it: x001 .. x123. Memory is that of a few
row groups, which have at most 128 MiB.
"""

import argparse
import bz2
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

OPENERS = {".gz": gzip.open, ".bz2": bz2.open}
ROW_GROUP_BYTES = 128 << 20
MOST_FEATURES = 65_536


class Source(NamedTuple):
    """A text and how to read it: `form` is svmlight or indices, `first` the index of the first feature."""

    path: Path
    form: str
    first: int


class Row(NamedTuple):
    """One line: the label, and the indices and values of its features."""

    label: float
    indices: list[int]
    values: list[float]


def parse(line: str, form: str) -> Row:
    """Read one line without its comment; a ValueError tells what is wrong with it."""
    label, *items = line.split()
    if form == "indices":
        return Row(float(label), [int(item) for item in items], [1.0] * len(items))
    pairs = [item.partition(":") for item in items]
    return Row(float(label), [int(index) for index, _, _ in pairs], [float(value) for _, _, value in pairs])


def rows(source: Source) -> Iterator[tuple[int, Row]]:
    """Yield the number of each line, counted from 1, and its row; lines without a label are skipped."""
    number = 0
    opener = OPENERS.get(source.path.suffix, open)
    try:
        with opener(source.path, "rt", encoding="utf-8", errors="replace") as stream:
            for number, line in enumerate(without_comments(stream), start=1):
                if line:
                    yield number, checked(parse(line, source.form), source.first)
    except ValueError as error:
        raise SystemExit(f"{source.path}: line {number}: {error} (reading --format {source.form})") from None
    except (OSError, EOFError, zlib.error) as error:
        raise SystemExit(f"{source.path}: after line {number}: {error}") from None


def without_comments(stream: IO[str]) -> Iterator[str]:
    """Yield the lines without what follows a # and without blanks around."""
    return (line.partition("#")[0].strip() for line in stream)


def checked(row: Row, first: int) -> Row:
    """Refuse an index below the first one, or named twice."""
    if row.indices and min(row.indices) < first:
        raise ValueError(f"index {min(row.indices)} is below the first one, give --first-index {first - 1}")
    if len(set(row.indices)) != len(row.indices):
        raise ValueError("an index stands twice")
    return row


def discover(source: Source) -> int:
    """Return the number of features up to the largest index of the whole text."""
    largest = max((max(row.indices, default=source.first) for _, row in rows(source)), default=source.first)
    return largest - source.first + 1


def column_names(first: int, n_features: int) -> list[str]:
    """Return the names of the features: x and the index, as wide as the largest."""
    last = first + n_features - 1
    return [f"x{index:0{len(str(last))}d}" for index in range(first, last + 1)]


def tables(source: Source, n_features: int, row_group_rows: int) -> Iterator[pa.Table]:
    """Yield the text as dense tables of at most `row_group_rows` rows and 128 MiB."""
    n_rows = max(1, min(row_group_rows, ROW_GROUP_BYTES // (4 * n_features)))
    names = column_names(source.first, n_features)
    y = np.zeros(n_rows)
    dense = np.zeros((n_features, n_rows), np.float32)
    filled = 0
    for number, row in rows(source):
        largest = max(row.indices, default=source.first)
        if largest >= source.first + n_features:
            needed = largest - source.first + 1
            raise SystemExit(f"{source.path}: line {number}: index {largest} needs --features {needed}")
        y[filled] = row.label
        dense[np.array(row.indices, np.intp) - source.first, filled] = row.values
        filled += 1
        if filled == n_rows:
            yield pa.table([y, *dense], ["y", *names])
            y, dense, filled = np.zeros(n_rows), np.zeros_like(dense), 0
    if filled:
        yield pa.table([y[:filled], *dense[:, :filled]], ["y", *names])


def write(stream: Iterator[pa.Table], schema: pa.Schema, target: Path) -> int:
    """Write each table as a row group of `target`, by way of a temporary name; return the number of rows."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp")
    count = 0
    try:
        with pq.ParquetWriter(temporary, schema) as writer:
            for table in stream:
                writer.write_table(table, row_group_size=len(table))
                count += len(table)
        if count == 0:
            raise ValueError("the text holds no rows")
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return count


def convert(source: Source, target: Path, n_features: int | None = None, row_group_rows: int = 250_000) -> int:
    """Convert `source` to the Parquet file `target` and return its number of rows."""
    if not source.path.is_file():
        raise SystemExit(f"{source.path}: no such file")
    if row_group_rows < 1:
        raise SystemExit(f"--row-group-rows must be at least 1; got {row_group_rows}")
    if n_features is None:
        n_features = discover(source)
    if not 1 <= n_features <= MOST_FEATURES:
        raise SystemExit(f"{source.path}: {n_features} features: a dense file holds 1 .. {MOST_FEATURES}")
    names = column_names(source.first, n_features)
    schema = pa.schema([("y", pa.float64()), *((name, pa.float32()) for name in names)])
    try:
        return write(tables(source, n_features, row_group_rows), schema, target)
    except ValueError as error:
        raise SystemExit(f"{source.path}: {error}") from None
    except OSError as error:
        raise SystemExit(f"{target}: cannot write: {error}") from None


def main() -> None:
    """Convert the file that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("source", type=Path, metavar="SOURCE", help="text, or .gz or .bz2 of it")
    parser.add_argument("target", type=Path, metavar="OUT.parquet")
    parser.add_argument("--format", choices=("svmlight", "indices"), default="svmlight")
    parser.add_argument("--features", type=int, metavar="N", help="(default: as many as there are)")
    parser.add_argument("--first-index", type=int, choices=(0, 1), help="(default: 1, with indices 0)")
    parser.add_argument("--row-group-rows", type=int, default=250_000)
    given = parser.parse_args()
    first = int(given.format == "svmlight") if given.first_index is None else given.first_index
    source = Source(given.source, given.format, first)
    count = convert(source, given.target, given.features, given.row_group_rows)
    print(f"{given.target}: {count} rows")


if __name__ == "__main__":
    main()
