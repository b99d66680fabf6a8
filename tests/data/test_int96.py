"""Moments of 96 bits: each is what its bytes say, or the column is refused by name."""

import datetime as dt
import pickle
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import streamsgd
from streamsgd.data.open import open_whole
from streamsgd.data.parquet.int96 import in_step
from streamsgd.errors import DataError
from streamsgd.model.model import Model

EPOCH = 2_440_588
"""The Julian day of 1970-01-01."""

DAY = 86_400 * 10**9
Moment = tuple[int, int]
"""A day since 1970, and nanoseconds of it."""


def write_int96(path: Path, moments: Sequence[Moment | None], *, nested: bool = False, **how: Any) -> None:
    """Write any moments: as Arrow writes some of its own, and then their bytes put in their places."""
    n = len(moments)
    marks = [None if moment is None else 10**18 + DAY * k + k for k, moment in enumerate(moments)]
    column = pa.array(marks, pa.timestamp("ns"))
    column = pa.ListArray.from_arrays(pa.array(range(n + 1), pa.int32()), column) if nested else column
    table = pa.table({"x": np.linspace(-1.0, 1.0, n), "t": column, "y": np.linspace(-2.0, 2.0, n)})
    plain: dict[str, Any] = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    pq.write_table(table, path, use_deprecated_int96_timestamps=True, **plain, **how)
    data = path.read_bytes()
    for mark, moment in zip(marks, moments, strict=True):
        if moment is not None and mark is not None:
            assert data.count(bytes_of(divmod(mark, DAY))) == 1
            data = data.replace(bytes_of(divmod(mark, DAY)), bytes_of(moment))
    path.write_bytes(data)


def bytes_of(moment: Moment) -> bytes:
    return moment[1].to_bytes(8, "little") + (moment[0] + EPOCH).to_bytes(4, "little")


@pytest.fixture(scope="module")
def model() -> Model:
    x = np.linspace(-1.0, 1.0, 60)
    return streamsgd.train(pa.table({"x": x, "y": 2 * x}), "y", executor="inline", memory="1GB")


def ids(model: Model, path: Path, **how: Any) -> Any:
    out = path.with_suffix(".out")
    streamsgd.predict(model, path, out, id=["t"], executor="inline", memory="1GB", **how)
    return pq.read_table(out)["t"]


near = st.integers(-(2**63) // DAY + 1, 2**63 // DAY - 1)  # days that nanoseconds hold
far = st.integers(1 - EPOCH, 10**6)  # to Arrow the Julian day 0 is no day
whole, fine = st.integers(0, DAY // 1000 - 1).map(lambda us: us * 1000), st.integers(0, DAY - 1)
kinds = st.sampled_from([(near, whole), (near, fine), (far, whole), (far, fine)])
columns = kinds.flatmap(lambda kind: st.lists(st.none() | st.tuples(*kind), min_size=1, max_size=12))


@given(columns, st.booleans(), st.booleans())
@example([(0, 1), None, (2_932_896, 0)], False, True)
@example([(2_932_896, 1)], True, False)
@example([(10**6, DAY - 1000)], False, False)
@settings(max_examples=40, deadline=None)
def test_ids_are_the_moments_of_the_file_or_it_is_refused(
    model: Model, tmp_path_factory: pytest.TempPathFactory, moments: list[Moment | None], nested: bool, filtered: bool
) -> None:
    path = tmp_path_factory.mktemp("int96") / "a.parquet"
    write_int96(path, moments, nested=nested, row_group_size=5)
    exact = [None if moment is None else moment[0] * DAY + moment[1] for moment in moments]
    given = [value for value in exact if value is not None]
    us, ns = all(value % 1000 == 0 for value in given), all(-(2**63) <= value < 2**63 for value in given)
    try:
        found = ids(model, path, **({"filter": "x >= -2"} if filtered else {}))
    except DataError as error:
        assert "a.parquet: column 't' holds moments of 96 bits" in str(error)  # noqa: PT017  most are not refused
        assert not us
        assert not ns
        return
    found = pa.chunked_array([pa.concat_arrays(found.chunks).flatten()]) if nested else found
    assert found.type == pa.timestamp("us" if us else "ns")
    scale = 1000 if us else 1
    assert found.cast(pa.int64()).to_pylist() == [None if value is None else value // scale for value in exact]


def test_features_and_filters_are_of_the_exact_moment(tmp_path: Path) -> None:
    moments: list[Any] = [(0, k) for k in range(60)]
    write_int96(tmp_path / "a.parquet", moments, row_group_size=25)
    model = streamsgd.train(tmp_path / "a.parquet", "y", categorical=["t"], executor="inline", memory="1GB", epochs=1)
    assert {len(column.values) for column in model.encoding.categories if column.column == "t"} == {60}
    assert ids(model, tmp_path / "a.parquet", filter="t > '1970-01-01'").cast(pa.int64()).to_pylist() == [*range(1, 60)]
    table = pq.read_table(tmp_path / "a.parquet")
    np.testing.assert_allclose(model.predict(table), model.predict(tmp_path / "a.parquet"))


def test_columns_of_several_units_and_others_come_side_by_side(model: Model, tmp_path: Path) -> None:
    n = 5000
    table = pa.table(
        {
            "s": [f"{k} some words" for k in range(n)],
            "t": pa.array(np.arange(n), pa.timestamp("ns")),
            "x": np.linspace(-1, 1, n),
            "u": pa.array([dt.datetime(9999, 12, 31), None] * (n // 2), pa.timestamp("us")),  # noqa: DTZ001
        }
    )
    pq.write_table(table, tmp_path / "a.parquet", use_deprecated_int96_timestamps=True, row_group_size=n // 2)
    assert pq.ParquetFile(tmp_path / "a.parquet").schema.column(3).physical_type == "INT96"
    out = tmp_path / "out.parquet"
    streamsgd.predict(model, tmp_path / "a.parquet", out, id=["s", "t", "u"], executor="inline", memory="1GB")
    assert pq.read_table(out).select(["s", "t", "u"]).equals(table.select(["s", "t", "u"]))


@pytest.mark.parametrize(("moments", "unit"), [([(0, 1000 * k) for k in range(30)], "us"), ([(0, k) for k in range(30)], "ns")])
def test_a_table_of_delta_has_them_too(moments: list[Moment], unit: str, model: Model, tmp_path: Path) -> None:
    """As Spark writes them."""
    deltalake = pytest.importorskip("deltalake")
    told = pa.table({"x": np.zeros(30), "t": pa.array([0] * 30, pa.timestamp("us", "UTC")), "y": np.zeros(30)})
    deltalake.write_deltalake(str(tmp_path / "lake"), told)
    (file,) = (tmp_path / "lake").glob("*.parquet")
    write_int96(file, moments)
    streamsgd.predict(model, tmp_path / "lake", tmp_path / "out", id=["t"], executor="inline", memory="1GB")
    (found,) = [pq.read_table(path)["t"] for path in (tmp_path / "out").rglob("*.parquet")]
    assert found.type == pa.timestamp(unit, "UTC")
    assert found.cast(pa.int64()).to_pylist() == list(range(30))
    trained = streamsgd.train(tmp_path / "lake", "y", categorical=["t"], executor="inline", memory="1GB", epochs=1)
    assert {len(column.values) for column in trained.encoding.categories if column.column == "t"} == {30}


def test_shuffled_rows_are_the_same_moments(model: Model, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_int96(tmp_path / "in" / "a.parquet", [(2_932_896, 0), None, (0, 1000)])
    write_int96(tmp_path / "in" / "b.parquet", [(0, k) for k in range(5)])
    streamsgd.shuffle(tmp_path / "in" / "b.parquet", tmp_path / "b", memory="1GB")
    assert sorted(pq.read_table(tmp_path / "b")["t"].cast(pa.int64()).to_pylist()) == [0, 1, 2, 3, 4]
    with pytest.raises(DataError, match=r"b\.parquet.*'t' is of type .*ns.* there and .*us.* in a\.parquet"):
        streamsgd.shuffle(tmp_path / "in", tmp_path / "both", memory="1GB")
    streamsgd.shuffle(tmp_path / "in" / "a.parquet", tmp_path / "a", memory="1GB")
    assert pq.read_table(tmp_path / "a")["t"].type == pa.timestamp("us")


def test_what_was_found_travels_to_workers_and_not_to_other_groups(tmp_path: Path) -> None:
    write_int96(tmp_path / "a.parquet", [(0, 0)] * 5 + [(0, 1)] * 5, row_group_size=5)
    source: Any = open_whole(tmp_path / "a.parquet").source
    first = source.select(np.array([True, False]))
    assert first.exact_type(0, "t") == pa.timestamp("us")
    assert source.exact_type(0, "t") == pa.timestamp("ns")
    copy = pickle.loads(pickle.dumps(source))
    (tmp_path / "a.parquet").unlink()
    assert copy.exact_type(0, "t") == pa.timestamp("ns")
    assert copy.exact_type(0, "x") is None


def test_batches_of_several_lengths_come_in_step() -> None:
    rows = pa.RecordBatch.from_pydict({"a": list(range(100))})

    def cut(*sizes: int) -> Any:
        ends = np.cumsum([0, *sizes]).tolist()
        return (rows.slice(a, b - a) for a, b in pairwise(ends))

    found = list(in_step({"one": cut(10, 90), "other": cut(3, 0, 50, 47)}))
    assert all(pair["one"].equals(pair["other"]) for pair in found)
    assert pa.Table.from_batches([pair["one"] for pair in found]).to_batches()[0].num_rows == 3
    assert sum(pair["one"].num_rows for pair in found) == 100
