"""Bring months of NYC taxi trip records to one schema in one folder.

    python datasets/nyc_taxi.py OUT_DIR green_tripdata_2025-10.parquet green_tripdata_2025-11.parquet

The files of the Taxi and Limousine Commission are Parquet already, but their types drift from month to month
(int64 or double, a null column, large_string) and their names in case (airport_fee, Airport_fee). Names get
lower case; integers become int64, or double if any month has double; times become timestamp[us]; a column
that a month lacks is null there. Values are never changed: a cast that would is an error. One file is written
per month, under its own name. Source: https://www.nyc.gov/site/tlc/about/tlc-trip-record-data.page
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pat

PICKUPS = {"lpep_pickup_datetime", "tpep_pickup_datetime", "pickup_datetime"}


def normal(kind: pa.DataType) -> pa.DataType:
    """Return the type that stands for all types a column of this `kind` may drift to."""
    if pat.is_dictionary(kind):
        return normal(kind.value_type)
    widest = {
        pat.is_integer: pa.int64(),
        pat.is_floating: pa.float64(),
        pat.is_timestamp: pa.timestamp("us"),
        pat.is_large_string: pa.string(),
    }
    return next((wide for belongs, wide in widest.items() if belongs(kind)), kind)


def month_schema(path: Path) -> pa.Schema:
    """Return the schema of one month with lower-case names and normal types."""
    if not path.is_file():
        raise SystemExit(f"{path}: no such file")
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise SystemExit(f"{path}: not readable as Parquet: {error}") from None
    names = [name.lower() for name in schema.names]
    if len(set(names)) != len(names):
        raise SystemExit(f"{path}: two columns have one name but for the case: {sorted(names)}")
    if not PICKUPS & set(names):
        raise SystemExit(f"{path}: no trip records: none of the columns {', '.join(sorted(PICKUPS))}")
    return pa.schema([(name, normal(field.type)) for name, field in zip(names, schema, strict=True)])


def unify(paths: list[Path]) -> pa.Schema:
    """Return the one schema of all months; refuse kinds of taxi or types that do not go together."""
    schema = month_schema(paths[0])
    for path in paths[1:]:
        month = month_schema(path)
        if PICKUPS & set(month.names) != PICKUPS & set(schema.names):
            raise SystemExit(f"{path}: not the same kind of trips as {paths[0]}: use one folder for each")
        try:
            schema = pa.unify_schemas([schema, month], promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise SystemExit(f"{path}: does not go with the months before it: {error}") from None
    # A column that is null in every month is one that other years have numbers in (ehail_fee).
    return pa.schema([(f.name, pa.float64() if pat.is_null(f.type) else f.type) for f in schema])


def tables(path: Path, schema: pa.Schema, row_group_rows: int) -> Iterator[pa.Table]:
    """Yield the rows of one month in `schema`, at most `row_group_rows` at a time."""
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for index in range(file.num_row_groups):
            # TLC's row groups hold up to a million rows or a whole month; they need not be held whole.
            for batch in file.iter_batches(row_group_rows, row_groups=[index]):
                arrays = dict(zip([name.lower() for name in batch.schema.names], batch.columns, strict=True))
                columns = [arrays[f.name].cast(f.type) if f.name in arrays else pa.nulls(len(batch), f.type) for f in schema]
                yield pa.table(columns, schema=schema)


def convert(path: Path, schema: pa.Schema, folder: Path, row_group_rows: int = 250_000) -> Path:
    """Write one month in `schema` to `folder`, by way of a temporary name, and return the new path."""
    target, temporary = folder / path.name, folder / f".{path.name}.tmp"
    try:
        with pq.ParquetWriter(temporary, schema) as writer:
            for table in tables(path, schema, row_group_rows):
                writer.write_table(table, row_group_rows)
        temporary.replace(target)
    except (pa.ArrowException, OSError) as error:
        raise SystemExit(f"{path}: {error}") from None
    finally:
        temporary.unlink(missing_ok=True)
    return target


def convert_all(paths: list[Path], folder: Path, row_group_rows: int = 250_000) -> list[Path]:
    """Bring all months to one schema in `folder` and return the new paths."""
    if row_group_rows < 1:
        raise SystemExit(f"--row-group-rows must be at least 1; got {row_group_rows}")
    schema = unify(paths)
    twice = sorted({path.name for path in paths if [other.name for other in paths].count(path.name) > 1})
    if twice or any(path.resolve().parent == folder.resolve() for path in paths):
        raise SystemExit(f"a month would be overwritten: {twice or folder}; give each file once, another folder")
    folder.mkdir(parents=True, exist_ok=True)
    return [convert(path, schema, folder, row_group_rows) for path in paths]


def main() -> None:
    """Convert the files that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="OUT_DIR")
    parser.add_argument("months", type=Path, nargs="+", metavar="MONTH.parquet")
    parser.add_argument("--row-group-rows", type=int, default=250_000)
    given = parser.parse_args()
    for path in convert_all(given.months, given.folder, given.row_group_rows):
        print(f"{path}: {pq.read_metadata(path).num_rows} rows")


if __name__ == "__main__":
    main()
