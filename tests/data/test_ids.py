"""Ids come out equal to what went in, of every type that a file holds."""

import datetime as dt
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streamsgd
from streamsgd.model.model import Model

FAR = dt.datetime(9999, 12, 31)  # noqa: DTZ001
IDS: list[tuple[Any, list[Any]]] = [
    (pa.int8(), [-128, 127]),
    (pa.int64(), [2**60 + 1, -(2**63)]),
    (pa.uint64(), [2**64 - 1, 0]),
    (pa.float16(), [0.5, -2.0]),
    (pa.float32(), [0.1, 16777217.0]),
    (pa.float64(), [0.1, 2.0**53 + 2]),
    (pa.bool_(), [True, False]),
    (pa.decimal128(38, 0), [Decimal(10) ** 37 + 1, Decimal(-1)]),
    (pa.decimal256(60, 5), [Decimal("1.00001"), Decimal(10) ** 50]),
    (pa.string(), ["a\0", "é"]),
    (pa.string_view(), ["a\0", "a string longer than twelve"]),
    (pa.large_binary(), [b"\xff\0", b""]),
    (pa.binary(2), [b"\xff\0", b"ab"]),
    (pa.dictionary(pa.int32(), pa.string()), ["x", "y"]),
    (pa.date32(), [dt.date(1, 1, 1), dt.date(9999, 12, 31)]),
    (pa.timestamp("us"), [FAR, dt.datetime(1, 1, 1)]),  # noqa: DTZ001
    (pa.timestamp("ns"), [dt.datetime(2024, 2, 29, 1), dt.datetime(1970, 1, 1)]),  # noqa: DTZ001
    (pa.timestamp("ms", "Europe/Paris"), [dt.datetime(2024, 7, 1, tzinfo=dt.UTC), dt.datetime(1, 1, 1, tzinfo=dt.UTC)]),
    (pa.time64("us"), [dt.time(23, 59, 59, 999_999), dt.time(0)]),
    (pa.duration("us"), [dt.timedelta(days=10**5), dt.timedelta(microseconds=-1)]),
    (pa.uuid(), [uuid.UUID(int=5), uuid.UUID(int=2**127)]),
    (pa.list_(pa.int64()), [[2**60 + 1], []]),
    (pa.list_(pa.float32(), 2), [[0.5, 1.5], [2.5, 3.5]]),
    (pa.struct([("a", pa.int64()), ("b", pa.string())]), [{"a": 2**60 + 1, "b": "x"}, {"a": None, "b": ""}]),
    (pa.map_(pa.string(), pa.int64()), [[("k", 2**60 + 1)], []]),
]


def column(kind: Any, values: list[Any], n: int) -> Any:
    """Ids with a null after every two."""
    if isinstance(kind, pa.BaseExtensionType):
        storage = [None if value is None else value.bytes for value in [*values, None]]
        return kind.wrap_array(pa.array(storage * n, kind.storage_type))
    if pa.types.is_dictionary(kind):
        return pa.array([*values, None] * n).dictionary_encode()
    return pa.array([*values, None] * n, kind)


@pytest.fixture(scope="module")
def model() -> Model:
    x = np.linspace(-1.0, 1.0, 60)
    return streamsgd.train(pa.table({"x": x, "y": 2 * x}), "y", executor="inline", memory="1GB")


@pytest.mark.parametrize(("kind", "values"), IDS, ids=lambda value: str(value) if isinstance(value, pa.DataType) else "")
def test_ids_of_every_type_are_what_went_in(kind: Any, values: list[Any], model: Model, tmp_path: Path) -> None:
    ids = column(kind, values, 10)
    pq.write_table(pa.table({"x": np.arange(30.0), "id": ids}), tmp_path / "a.parquet", row_group_size=7)
    stored = pq.read_table(tmp_path / "a.parquet")["id"].to_pylist()
    for condition, kept in ((None, slice(None)), ("x >= 20", slice(20, None))):
        out = tmp_path / f"out{condition is None}.parquet"
        streamsgd.predict(model, tmp_path / "a.parquet", out, id=["id"], filter=condition, executor="inline")
        assert pq.read_table(out)["id"].to_pylist() == stored[kept]


PAIRS = [
    (pa.int64(), [2**60 + 1], pa.float64(), [1.5]),
    (pa.timestamp("us"), [FAR], pa.timestamp("ns"), [dt.datetime(2024, 1, 1)]),  # noqa: DTZ001
    (pa.decimal128(38, 0), [Decimal(10) ** 37 + 1], pa.int64(), [2**60 + 1]),
    (pa.int32(), [7], pa.int64(), [2**60 + 1]),
    (pa.string(), ["a"], pa.string_view(), ["b"]),
    (pa.date32(), [dt.date(2024, 1, 1)], pa.timestamp("us"), [FAR]),
]


@pytest.mark.parametrize(
    ("first", "a", "second", "b"), PAIRS, ids=lambda value: str(value) if isinstance(value, pa.DataType) else ""
)
def test_ids_of_two_types_are_what_went_in(
    first: Any, a: list[Any], second: Any, b: list[Any], model: Model, tmp_path: Path
) -> None:
    for name, kind, values in (("a", first, a), ("b", second, b)):
        (tmp_path / "in").mkdir(exist_ok=True)
        pq.write_table(pa.table({"x": np.arange(20.0), "id": column(kind, values, 10)}), tmp_path / "in" / f"{name}.parquet")
    streamsgd.predict(model, tmp_path / "in", tmp_path / "out", id=["id"], filter="x >= 10", executor="inline")
    for name, values in (("a", a), ("b", b)):
        assert pq.read_table(tmp_path / "out" / f"{name}.parquet")["id"].to_pylist() == [*values, None] * 5


def test_the_name_of_a_folder_is_the_id_that_it_says(model: Model, tmp_path: Path) -> None:
    for name in ("01", "12"):
        (tmp_path / "in" / f"month={name}").mkdir(parents=True)
        pq.write_table(pa.table({"x": np.arange(3.0)}), tmp_path / "in" / f"month={name}" / "a.parquet")
    streamsgd.predict(model, tmp_path / "in", tmp_path / "out", id=["month"], filter="month >= 1", executor="inline")
    found = [
        pq.read_table(path, partitioning=None)["month"].to_pylist() for path in sorted((tmp_path / "out").rglob("*.parquet"))
    ]
    assert found == [["01"] * 3, ["12"] * 3]


@pytest.mark.parametrize("condition", [None, "x > 0", "id != 'id 7'", "1 < 2"])
def test_ids_that_are_copied_some_at_a_time_are_those_of_their_rows(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, condition: str | None
) -> None:
    n = 400
    table = pa.table({"x": np.linspace(-1.0, 1.0, n), "id": [f"id {k}" for k in range(n)]})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=150)
    whole = model.predict(table)
    monkeypatch.setattr("streamsgd.data.ids.ID_BYTES", 700)
    monkeypatch.setattr("streamsgd.data.parquet.pieces.RUN_BYTES", 600)
    monkeypatch.setattr("streamsgd.data.parquet.row_stream.BATCH_BYTES", 500)
    streamsgd.predict(model, str(tmp_path / "in.parquet"), out=str(tmp_path / "out.parquet"), id="id", filter=condition)
    found = pq.read_table(tmp_path / "out.parquet").to_pydict()
    kept = {None: range(n), "x > 0": range(n // 2, n), "1 < 2": range(n)}.get(condition, [k for k in range(n) if k != 7])
    assert found["id"] == [f"id {k}" for k in kept]
    np.testing.assert_allclose(found["prediction"], np.asarray(whole)[list(kept)], rtol=1e-6)
