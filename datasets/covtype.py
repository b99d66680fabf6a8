"""Convert covtype.data.gz of the UCI repository, or a part of it, to one Parquet file.

    python datasets/covtype.py covtype.data.gz covtype.parquet

The source has no header: ten integers, the indicators of 4 wilderness areas and 40 soil types, and the cover
type (1 .. 7) last. The names are those of the UCI description; the integers become int16, the indicators bool
and the target `Cover_Type` int8. Source: https://archive.ics.uci.edu/dataset/31/covertype (CC BY 4.0)
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

MEASURES = (
    "Elevation",
    "Aspect",
    "Slope",
    "Horizontal_Distance_To_Hydrology",
    "Vertical_Distance_To_Hydrology",
    "Horizontal_Distance_To_Roadways",
    "Hillshade_9am",
    "Hillshade_Noon",
    "Hillshade_3pm",
    "Horizontal_Distance_To_Fire_Points",
)
INDICATORS = [f"Wilderness_Area{i}" for i in range(1, 5)] + [f"Soil_Type{i}" for i in range(1, 41)]
SCHEMA = pa.schema(
    [(name, pa.int16()) for name in MEASURES] + [(name, pa.bool_()) for name in INDICATORS] + [("Cover_Type", pa.int8())]
)


def batches(source: Path) -> Iterator[pa.RecordBatch]:
    """Read the text as record batches, in bounded memory."""
    yield from pyarrow.csv.open_csv(
        source,
        # Only the single-threaded reader knows the line of an error.
        pyarrow.csv.ReadOptions(column_names=SCHEMA.names, use_threads=False, block_size=1 << 22),
        pyarrow.csv.ParseOptions(quote_char=False),
        pyarrow.csv.ConvertOptions(column_types=SCHEMA, null_values=[], true_values=["1"], false_values=["0"]),
    )


def regroup(stream: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    """Cut a stream of record batches into tables of `rows` rows; the last one may be shorter."""
    held: list[pa.RecordBatch] = []
    for batch in stream:
        held.append(batch)
        while sum(map(len, held)) >= rows:
            table = pa.Table.from_batches(held)
            yield table.slice(0, rows)
            held = table.slice(rows).to_batches()
    if any(map(len, held)):
        yield pa.Table.from_batches(held)


def write(tables: Iterator[pa.Table], schema: pa.Schema, target: Path) -> int:
    """Write each table as a row group of `target`, by way of a temporary name; return the number of rows."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp")
    rows = 0
    try:
        with pq.ParquetWriter(temporary, schema) as writer:
            for table in tables:
                writer.write_table(table, row_group_size=len(table))
                rows += len(table)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return rows


def convert(source: Path, target: Path, row_group_rows: int = 250_000) -> int:
    """Convert `source` to the Parquet file `target` and return its number of rows."""
    if not source.is_file():
        raise SystemExit(f"{source}: no such file")
    if row_group_rows < 1:
        raise SystemExit(f"--row-group-rows must be at least 1; got {row_group_rows}")
    try:
        return write(regroup(batches(source), row_group_rows), SCHEMA, target)
    except (pa.ArrowException, OSError) as error:
        hint = "expected lines of 55 integers with commas, without a header, to the end of the file"
        raise SystemExit(f"{source}: {str(error)[:300]}; {hint}") from None


def main() -> None:
    """Convert the file that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("source", type=Path, metavar="SOURCE", help="text, or .gz, .bz2, .zst of it")
    parser.add_argument("target", type=Path, metavar="OUT.parquet")
    parser.add_argument("--row-group-rows", type=int, default=250_000)
    arguments = parser.parse_args()
    rows = convert(arguments.source, arguments.target, arguments.row_group_rows)
    print(f"{arguments.target}: {rows} rows")


if __name__ == "__main__":
    main()
