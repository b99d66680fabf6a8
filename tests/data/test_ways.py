"""Two tables whose columns differ in type come to the same values, or to the same refusal, however they are given together."""

import datetime as dt
import tempfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.feather as feather
import pyarrow.parquet as pq
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streamsgd.data.dataset import Dataset, require
from streamsgd.data.open import open_whole
from streamsgd.data.timings import Timings
from streamsgd.errors import DataError
from streamsgd.planning.chunks import Piece

N = 6
DAY, FAR = dt.date(2024, 1, 2), "9999-12-31 00:00:00"


def of(values: list[Any], kind: Any) -> pa.Array:
    return pa.array(values, kind)


COLUMNS: dict[str, pa.Array | None] = {
    "absent": None,
    "null": pa.nulls(N),
    "int8": of([1, -2, None, 4, 5, 6], pa.int8()),
    "int64": of([2**53 + 1, 2, None, 4, 5, 6], pa.int64()),
    "small int64": of([1, 2, 3, 4, 5, 6], pa.int64()),
    "uint64": of([2**63 + 1, 2, 3, 4, 5, 6], pa.uint64()),
    "half": of(np.arange(N, dtype=np.float16), pa.float16()),
    "float": of([16777216.0, 0.1, None, 3.0, 4.0, 5.0], pa.float32()),
    "double": of([16777217.0, 0.1, None, 1e300, 4.0, 5.0], pa.float64()),
    "decimal": of([Decimal("1.10")] * N, pa.decimal128(5, 2)),
    "fine decimal": of([Decimal("1.1234")] * N, pa.decimal128(9, 4)),
    "wide decimal": of([Decimal(10**37 + 1)] * N, pa.decimal128(38, 0)),
    "flag": of([True, False, None, True, False, True], pa.bool_()),
    "date": of([DAY] * N, pa.date32()),
    "date64": of([DAY] * N, pa.date64()),
    "s": of([FAR] * N, pa.string()).cast(pa.timestamp("s")),
    "us": of([np.datetime64(f"2024-01-01T0{hour}", "us") for hour in range(N)], pa.timestamp("us")),
    "far us": of([FAR] * N, pa.string()).cast(pa.timestamp("us")),
    "ns": of(range(N), pa.timestamp("ns")),
    "zoned": of(range(N), pa.timestamp("us", "Europe/Berlin")),
    "UTC": of(range(N), pa.timestamp("us", "UTC")),
    "time": of([dt.time(1, 2)] * N, pa.time64("us")),
    "duration": of(range(N), pa.duration("ms")),
    "string": of(["007", "b", None, "2024-01-01", "e", "f"], pa.string()),
    "large": of(["x", "y"] * 3, pa.large_string()),
    "view": of(["x", "y"] * 3, pa.string_view()),
    "bytes": of([b"x", b"y"] * 3, pa.binary()),
    "category": of(["a", "b"] * 3, pa.string()).dictionary_encode(),
    "other category": of(["a", None] * 3, pa.large_string()).dictionary_encode(),
    "category of a view": pa.DictionaryArray.from_arrays(of([0, 1] * 3, pa.uint32()), of(["a", "b"], pa.string_view())),
    "category with a null": pa.DictionaryArray.from_arrays(of([0, 1] * 3, pa.int8()), of(["a", None], pa.string())),
    "category of integers": of([7, 8] * 3, pa.int64()).dictionary_encode(),
    "list": of([[1.0, 2.0], []] * 3, pa.list_(pa.float32())),
    "words": of([["a"], ["b", "c"]] * 3, pa.list_(pa.string())),
    "list of categories": pa.ListArray.from_arrays(
        of(range(N + 1), pa.int32()), of(["a", "b"] * 3, pa.string()).dictionary_encode()
    ),
    "vector": of([[1.0, 2.0]] * N, pa.list_(pa.float64(), 2)),
    "map": of([[("a", 1.0)]] * N, pa.map_(pa.string(), pa.float64())),
    "runs": pc.run_end_encode(of([1, 1, 1, 2, 2, 2], pa.int64())),
}

NO_FILE = ("view", "category of a view", "category with a null", "runs")
"""Parquet has no such thing: a writer makes these plain first."""


def table(name: str) -> pa.Table:
    columns = {"y": pa.array(np.arange(N) % 2)}
    return pa.table(columns if (column := COLUMNS[name]) is None else {**columns, "c": column})


def plain(name: str) -> pa.Table:
    """Return a table as a writer of files would have it."""
    column = COLUMNS[name]
    if name not in NO_FILE or column is None:
        return table(name)
    values = column if pa.types.is_string_view(column.type) else pa.array(column.to_pylist())
    return pa.table({"y": table(name)["y"], "c": values.cast(pa.large_string()) if name != "runs" else values})


def as_folder(a: str, b: str, folder: Path) -> Path:
    for number, name in enumerate((a, b)):
        pq.write_table(plain(name), folder / f"{number}.parquet")
    return folder


def as_feather(a: str, b: str, folder: Path) -> Any:
    for number, name in enumerate((a, b)):
        feather.write_feather(plain(name), folder / f"{number}.feather")
    return pads.dataset(folder, format="feather")


WAYS: dict[str, Callable[[str, str, Path], Any]] = {
    "list": lambda a, b, _: [table(a), table(b)],
    "generator": lambda a, b, _: iter([table(a), table(b)]),
    "data set of Parquet": lambda a, b, folder: pads.dataset(as_folder(a, b, folder)),
    "data set of Feather": as_feather,
}


def come_to(data: Any, *, nulls: bool = False) -> Any:
    """Return the values of column c as training reads them, or how it is refused."""
    dataset = open_whole(data)
    try:
        require(dataset, ["c"], nulls=["c"] if nulls else ())
        return [value for group in range(dataset.n_row_groups) for value in values(dataset, group)]
    except DataError as error:
        return type(error).__name__, "'c'" in str(error)


def values(dataset: Dataset, group: int) -> list[Any]:
    n = int(dataset.rows[group])
    parts = dataset.reader().read(Piece(0, group, group + 1, 0, n, 0), ("c",), Timings())
    return [_comparable(value) for (column,) in parts for value in _listed(column)]


def _listed(column: Any) -> list[Any]:
    """Values as Python has them; moments as nanoseconds, which Python has only with pandas, and their zone."""
    kind = column.type
    if not pa.types.is_timestamp(kind):
        return list(column.to_pylist())
    factor = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[kind.unit]
    return [value if value is None else ("moment", value * factor, kind.tz) for value in column.cast("int64").to_pylist()]


def _comparable(value: Any) -> Any:
    if isinstance(value, bool):
        return f"flag {value}"
    if isinstance(value, bytes):  # text and bytes are compared byte by byte
        return value.decode()
    if isinstance(value, np.floating):
        return float(value)
    return value


PAIRS = st.tuples(st.sampled_from([*COLUMNS]), st.sampled_from([*COLUMNS])).filter(lambda pair: pair != ("absent", "absent"))


@given(PAIRS, st.sampled_from([*WAYS]), st.booleans())
@example(("date", "us"), "generator", False)
@example(("float", "double"), "generator", False)
@example(("null", "double"), "generator", False)
@example(("int64", "double"), "list", False)
@example(("ns", "far us"), "list", False)
@example(("category of a view", "string"), "list", False)
@example(("zoned", "us"), "data set of Parquet", False)
@example(("small int64", "string"), "data set of Parquet", False)
@example(("absent", "int8"), "data set of Parquet", True)
@example(("int8", "absent"), "data set of Feather", False)
@settings(max_examples=80, deadline=None)
def test_types_are_compared_alike_however_tables_come(pair: tuple[str, str], way: str, nulls: bool) -> None:
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as other:
        expected = come_to(as_folder(*pair, Path(folder)), nulls=nulls)
        assert come_to(WAYS[way](*pair, Path(other)), nulls=nulls) == expected
