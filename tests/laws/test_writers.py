"""The same table by every writer: what a model makes of its file is what it makes of the table."""

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from wide import encoding_of, random_model

pd = pytest.importorskip("pandas")

duckdb = pytest.importorskip("duckdb")
pl = pytest.importorskip("polars")
fastparquet = pytest.importorskip("fastparquet")

N = 60
DAYS = [dt.date(2024, 2, 28) + dt.timedelta(days=k % 7) for k in range(N)]
TABLE = pa.table(
    {
        "whole": pa.array([None if k % 9 == 4 else k - 30 for k in range(N)], pa.int64()),
        "id": pa.array([10**10 + k % 5 for k in range(N)]),
        "real": np.sin(np.arange(N)),
        "word": [f"w{k % 3}" for k in range(N)],
        "flag": [k % 2 == 0 for k in range(N)],
        "day": pa.array(DAYS),
        "moment": pa.array([dt.datetime(2024, 2, 28, k % 24) for k in range(N)], pa.timestamp("us")),  # noqa: DTZ001
        "vector": pa.array(np.arange(2.0 * N).reshape(N, 2).astype(np.float32).tolist(), pa.list_(pa.float32())),
    }
)
ASKED: dict[str, Any] = {"categorical": ["id"]}


def by_pandas(table: Any, path: Path) -> None:
    """Shuffled and back, as `train_test_split` leaves an index, and with a category of integers."""
    frame = table.to_pandas()
    frame["id"] = pd.Categorical(frame["id"])
    frame.iloc[::-1].iloc[::-1].rename(index=lambda k: k * 3).to_parquet(path)


def by_polars(table: Any, path: Path) -> None:
    """With a category of text."""
    pl.from_arrow(table).with_columns(pl.col("word").cast(pl.Categorical)).write_parquet(path)


def by_duckdb(table: Any, path: Path) -> None:
    """With an enumeration."""
    engine = duckdb.connect()
    engine.register("given", table)
    engine.execute("CREATE TYPE words AS ENUM ('w2', 'w1', 'w0')")
    engine.execute(f"COPY (SELECT * REPLACE (word::words AS word) FROM given) TO '{path}' (FORMAT parquet)")


def by_fastparquet(table: Any, path: Path) -> None:
    """Nulls among integers as NaN, days as moments; it writes no lists of floats."""
    frame = table.to_pandas()
    for name in ("day", "moment"):  # of other units it writes other moments
        frame[name] = pd.to_datetime(frame[name]).astype("datetime64[ns]")
    fastparquet.write(str(path), frame, times="int96")


def by_spark(table: Any, path: Path) -> None:
    """Moments of 96 bits."""
    pq.write_table(table, path, use_deprecated_int96_timestamps=True)


WRITERS: dict[str, Callable[[Any, Path], None]] = {
    "pandas": by_pandas,
    "Polars": by_polars,
    "DuckDB": by_duckdb,
    "fastparquet": by_fastparquet,
    "INT96": by_spark,
    "pyarrow": pq.write_table,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_of_any_writer_is_the_table_that_it_was_given(name: str, tmp_path: Path) -> None:
    table = TABLE.drop_columns(["vector"]) if name == "fastparquet" else TABLE
    model = random_model(encoding_of({column: table[column] for column in table.column_names}, **ASKED))
    WRITERS[name](table, tmp_path / "a.parquet")
    expected = model.decision_function(table)
    np.testing.assert_allclose(model.decision_function(tmp_path / "a.parquet"), expected, rtol=1e-6)
    pq.write_table(table, tmp_path / "b.parquet")
    both = model.decision_function([tmp_path / "a.parquet", tmp_path / "b.parquet"])
    np.testing.assert_allclose(both, np.concatenate([expected, expected]), rtol=1e-6)


def test_frames_in_memory_are_the_table_too() -> None:
    model = random_model(encoding_of({column: TABLE[column] for column in TABLE.column_names}, **ASKED))
    frames = [
        pl.from_arrow(TABLE).with_columns(pl.col("word").cast(pl.Enum(["w2", "w1", "w0"]))),
        pl.from_arrow(TABLE).with_columns(pl.col("word").cast(pl.Categorical)),
        TABLE.to_pandas().assign(word=lambda frame: frame["word"].astype("category")),
    ]
    for frame in frames:
        np.testing.assert_allclose(model.decision_function(frame), model.decision_function(TABLE), rtol=1e-6)
