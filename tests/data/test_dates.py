"""Partitions for dates are no features unless they are asked for, whatever writes them how; other partitions are."""

import datetime as dt
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streamsgd
from streamsgd.data.dates import dated
from streamsgd.data.open import open_whole

X = np.sin(np.arange(60.0))
FAST: dict[str, Any] = {"executor": "inline", "memory": "1GB", "epochs": 1}

DATES = {
    "day": ["2024-01-01", "2024-02-29"],
    "compact": ["20240101", "20231231"],
    "dt": ["2024-01-01-05", "2024-01-01-23"],
    "ts": ["2024-01-01 00%3A00%3A00", "2024-01-01 00%3A00%3A00.5"],
    "at": ["2024-01-01T00%3A00%3A00Z", "2024-01-01T00%3A00%3A00+01%3A00"],
    "hours": ["2024010105", "2024010106"],
    "seconds": ["20240101T050607", "20240101T050608Z"],
    "month": ["2024-01", "2024-02"],
    "ym": ["202401", "202402"],
    "hour": ["2024-01-01T05", "2024-01-01T06"],
    "under": ["2024_01_01", "2024_01_02"],
    "quarter": ["2024Q1", "2024-Q2"],
    "week": ["2024-W05", "2024-W53"],
    "some": ["2024-01-01", "__HIVE_DEFAULT_PARTITION__"],
}
OTHERS = {
    "year": ["2023", "2024"],
    "month": ["01", "12"],
    "hour": ["00", "23"],
    "day": ["1", "31"],
    "p": ["12345678", "20240101"],
    "q": ["20240230", "20240101"],
    "zip": ["202401", "202402"],
    "version": ["2024.01", "2024.02"],
    "code": ["007", "B12"],
    "mixed": ["2024-01-01", "other"],
    "no_day": ["2024-13-01", "2024-01-01"],
    "epoch": ["1704067200", "1704067201"],
    "nothing": ["__HIVE_DEFAULT_PARTITION__"],
}


def folders(root: Path, name: str, values: list[str]) -> Path:
    for k, value in enumerate(values):
        (root / f"{name}={value}").mkdir(parents=True)
        pq.write_table(pa.table({"x": X + k, "y": X}), root / f"{name}={value}" / "a.parquet")
    return root


@pytest.mark.parametrize("name", DATES)
def test_folders_for_dates_are_set_aside(name: str, tmp_path: Path) -> None:
    assert dict(open_whole(folders(tmp_path, name, DATES[name])).aside) == {
        name: "a folder for each date, which new data does not repeat"
    }


@pytest.mark.parametrize("name", OTHERS)
def test_other_folders_are_not(name: str, tmp_path: Path) -> None:
    assert not open_whole(folders(tmp_path, name, OTHERS[name])).aside


def test_it_is_said_once_and_whoever_names_it_has_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = folders(tmp_path, "dt", DATES["dt"])
    with caplog.at_level(logging.WARNING):
        assert streamsgd.train(data, "y", **FAST).encoding.sources == ("x",)
    assert sum("'dt': a folder for each date" in message for message in caplog.messages) == 1
    assert set(streamsgd.train(data, "y", categorical=["dt"], **FAST).encoding.sources) == {"x", "dt"}


def test_a_type_of_times_says_it_alone() -> None:
    assert dated("p", pa.date32(), [])
    assert dated("p", pa.timestamp("us", "UTC"), [None])
    assert not dated("p", pa.int64(), [])


PARTITIONS = {
    "dates": ([dt.date(2024, 1, 1), dt.date(2024, 1, 2)], True),
    "moments": ([dt.datetime(2024, 1, 1, tzinfo=dt.UTC), dt.datetime(2024, 1, 1, 5, tzinfo=dt.UTC)], True),
    "texts": (["2024-01-01", "2024-01-02"], True),
    "numbers": ([20240101, 20240102], True),
    "years": ([2023, 2024], False),
    "words": (["a", "b"], False),
}


@pytest.mark.parametrize("case", PARTITIONS)
def test_partitions_of_delta_for_dates_are_set_aside(case: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    deltalake = pytest.importorskip("deltalake")
    values, is_dated = PARTITIONS[case]
    table = pa.table({"x": X, "y": X, "p": pa.array(values * 30)})
    deltalake.write_deltalake(str(tmp_path / "t"), table, partition_by=["p"])
    with caplog.at_level(logging.WARNING):
        model = streamsgd.train(tmp_path / "t", "y", **FAST)
    assert set(model.encoding.sources) == ({"x"} if is_dated else {"x", "p"})
    assert any("'p': a partition for each date" in message for message in caplog.messages) == is_dated


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", PARTITIONS)
def test_partitions_of_iceberg_for_dates_are_set_aside(case: str, tmp_path: Path) -> None:
    pytest.importorskip("pyiceberg")
    from pyiceberg.catalog.sql import SqlCatalog  # noqa: PLC0415

    values, is_dated = PARTITIONS[case]
    table = pa.table({"x": X, "y": X, "p": pa.array(values * 30)})
    catalog = SqlCatalog("test", uri=f"sqlite:///{tmp_path / 'catalog.db'}", warehouse=f"file://{tmp_path}")
    catalog.create_namespace("lake")
    made = catalog.create_table("lake.t", table.schema)
    with made.update_spec() as spec:
        spec.add_identity("p")
    made.append(table)
    assert set(streamsgd.train(made, "y", **FAST).encoding.sources) == ({"x"} if is_dated else {"x", "p"})
