"""Make the flights of datasets/demo from a table of US flights of January to June 2001.

    python datasets/demo_flights.py flights-3m.parquet datasets/demo

The source is flights-3m.parquet of the npm package vega-datasets 3.2.1: 3 million rows in the order of their
departure with date, delay (minutes), distance (miles), origin and destination, from the on-time performance
data of the US Bureau of Transportation Statistics. Every sixth flight is kept, in three files of two months
each. datasets/demo-LICENSE.md describes the columns.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

NEEDED = ["date", "delay", "distance", "origin", "destination"]
LATE = 15  # minutes
KEEP = 6  # every sixth flight
PARTS = {"2001-01_02": (1, 2), "2001-03_04": (3, 4), "2001-05_06": (5, 6)}
ROW_GROUP_ROWS = 20_000


class Window(NamedTuple):
    """How many flights left the same origin 3 to 6 clock hours before each, and how many of those late."""

    flights: NDArray[np.int64]
    late: NDArray[np.int64]


def read(source: Path) -> pa.Table:
    """Return the flights of January to June 2001 in the order of their departure."""
    if not source.is_file():
        raise SystemExit(f"{source}: no such file")
    try:
        table = pq.read_table(source, columns=NEEDED)
    except (pa.ArrowException, OSError) as error:
        raise SystemExit(f"{source}: not readable as Parquet: {error}") from None
    if table.column_names != NEEDED:
        raise SystemExit(f"{source}: needs the columns {', '.join(NEEDED)}; has {', '.join(table.column_names)}")
    return table.filter(pc.less_equal(pc.month(table["date"]), 6)).sort_by("date")


def before(origin: NDArray[np.int32], hour: NDArray[np.int64], late: NDArray[np.bool_]) -> Window:
    """Look back from each flight: `origin` as a code, `hour` from the first, `late` or not, all (n_rows,)."""
    n_hours, n_origins = hour.max() + 1, origin.max() + 1
    cell = origin * n_hours + hour

    def looked_back(weights: NDArray[np.float64] | None) -> NDArray[np.int64]:
        counts = np.bincount(cell, weights, n_hours * n_origins).reshape(n_origins, n_hours)
        until = np.pad(counts.cumsum(axis=1), ((0, 0), (1, 0)))  # before hour h
        return (until[origin, np.maximum(hour - 2, 0)] - until[origin, np.maximum(hour - 6, 0)]).astype(np.int64)

    return Window(looked_back(None), looked_back(late.astype(np.float64)))


def features(flights: pa.Table) -> pa.Table:
    """Return the columns of the demo, a row for each flight."""
    date = flights["date"].combine_chunks()
    late = flights["delay"].to_numpy() > LATE
    hour = date.to_numpy().astype("datetime64[h]").astype(np.int64)
    codes = flights["origin"].combine_chunks().dictionary_encode().indices.to_numpy()
    window = before(codes, hour - hour.min(), late)
    with np.errstate(invalid="ignore"):
        share = (window.late / window.flights).astype(np.float32)
    return pa.table(
        {
            "date": date.cast(pa.timestamp("ms")),
            "origin": flights["origin"].cast(pa.string()),
            "destination": flights["destination"].cast(pa.string()),
            "distance": flights["distance"].cast(pa.int16()),
            "month": pc.month(date).cast(pa.int8()),
            "day_of_week": pc.day_of_week(date, count_from_zero=False).cast(pa.int8()),
            "hour": pc.hour(date).cast(pa.int8()),
            "origin_flights": pa.array(window.flights, pa.int16()),
            "origin_late_share": pa.array(share, mask=window.flights == 0),
            "late": pa.array(late),
        }
    )


def write(table: pa.Table, target: Path) -> None:
    """Write one file, by way of a temporary name."""
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        pq.write_table(table, temporary, ROW_GROUP_ROWS, compression="zstd", compression_level=15)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def make(source: Path, folder: Path) -> list[Path]:
    """Make the demo's files in `folder` and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    table = features(read(source))
    table = table.take(np.arange(0, len(table), KEEP))
    paths = []
    for name, (first, last) in PARTS.items():
        paths.append(folder / f"flights-{name}.parquet")
        write(table.filter(pc.is_in(table["month"], pa.array([first, last], pa.int8()))), paths[-1])
    return paths


def main() -> None:
    """Make the files where the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("source", type=Path, metavar="flights-3m.parquet")
    parser.add_argument("folder", type=Path, metavar="OUT_DIR")
    given = parser.parse_args()
    for path in make(given.source, given.folder):
        print(f"{path}: {pq.read_metadata(path).num_rows} rows, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
