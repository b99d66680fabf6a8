"""Data sets of pyarrow are what their files are, whatever schema pyarrow says."""

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from pyarrow import fs as pafs

import streamsgd
from streamsgd.data.open import open_whole
from streamsgd.errors import DataError
from streamsgd.testing import check_source

N = 200
X = np.random.default_rng(0).normal(size=N)
FAST: dict[str, Any] = {"memory": "1GB", "threads": 1, "epochs": 1}


def table(**columns: Any) -> pa.Table:
    return pa.table({"x": X, "y": 2 * X, **columns})


def put(path: Path, data: pa.Table, **how: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(data, path, **how)


def pandas() -> pa.Table:
    import pandas as pd  # noqa: PLC0415  where it is installed

    frame = pd.DataFrame({"x": X, "y": 2 * X, "c": pd.Categorical(np.arange(N) % 3)})
    return pa.Table.from_pandas(frame.iloc[::-1])


FILES: dict[str, dict[str, pa.Table]] = {
    "one": {"a.parquet": table()},
    **({"an index and categories of pandas": {"a.parquet": pandas()}} if find_spec("pandas") else {}),
    "folders of codes": {"p=007/a.parquet": table(), "p=8/a.parquet": table()},
    "folders of numbers": {"p=7/a.parquet": table(), "p=8/a.parquet": table()},
    "folders of dates": {"day=2024-01-01/a.parquet": table(), "day=2024-01-02/a.parquet": table()},
    "folders of text and null": {"p=a%20b/a.parquet": table(), "p=__HIVE_DEFAULT_PARTITION__/a.parquet": table()},
    "folders in folders": {"p=01/q=x/a.parquet": table(), "p=02/q=y/a.parquet": table()},
    "widths": {"a.parquet": table(c=X.astype("f4")), "b.parquet": table(c=X * 1e9)},
    "large integers": {"a.parquet": table(c=np.arange(N) + 2**53), "b.parquet": table(c=X)},
    "far moments": {"a.parquet": table(c=pa.array([np.datetime64("9999-12-31", "us")] * N))},
}


@pytest.mark.parametrize("case", FILES)
def test_files_train_the_same_model_as_their_paths(case: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, data in FILES[case].items():
        put(tmp_path / "in" / name, data, use_deprecated_int96_timestamps=case == "far moments")
    with caplog.at_level(logging.WARNING):
        expected = streamsgd.train(str(tmp_path / "in"), "y", **FAST)
        said, found = list(caplog.messages), pads.dataset(tmp_path / "in", partitioning="hive")
        caplog.clear()
        model = streamsgd.train(found, "y", **FAST)
    assert model.encoding == expected.encoding
    assert np.array_equal(model.weights, expected.weights)
    assert caplog.messages == said
    first = {name.split("/")[0] for name in FILES[case]}.pop()
    one = pads.dataset(tmp_path / "in" / first, partitioning=None) if "=" not in first else found
    assert np.isfinite(model.predict(one)).all()


@pytest.mark.parametrize("kind", ["parquet", "feather", "csv"])
def test_a_folder_of_a_code_is_scored_as_the_code(kind: str, tmp_path: Path) -> None:
    data = table(p=pa.array(["007", "8"] * (N // 2)))
    model = streamsgd.train(data, "y", **FAST)
    pads.write_dataset(data.slice(0, 1), tmp_path, format=kind, partitioning=["p"], partitioning_flavor="hive")
    alone = pads.dataset(tmp_path, format=kind, partitioning="hive")
    assert alone.schema.field("p").type == pa.int32()
    np.testing.assert_allclose(model.predict(alone), model.predict(data.slice(0, 1)))


def test_columns_of_folders_are_those_that_the_data_set_has(tmp_path: Path) -> None:
    for code in ("7", "8"):
        put(tmp_path / "hive" / f"p={code}" / "a.parquet", table())
        put(tmp_path / "plain" / f"00{code}" / "a.parquet", table())

    def kind(data: Any) -> Any:
        schema = open_whole(data).schema
        return schema.field("p").type if "p" in schema.names else None

    def of(kind: Any) -> Any:
        return pads.partitioning(pa.schema([("p", kind)]), flavor="hive")

    assert kind(pads.dataset(tmp_path / "hive")) is None
    assert kind(pads.dataset(tmp_path / "hive", partitioning="hive")) == pa.int64()
    assert kind(pads.dataset(tmp_path / "hive", partitioning=of(pa.string()))) == pa.string()
    assert kind(pads.dataset(tmp_path / "hive", partitioning=of(pa.float64()))) == pa.float64()
    assert kind(pads.dataset(tmp_path / "plain", partitioning=["p"])) == pa.string()
    whole = open_whole(pads.dataset(tmp_path / "plain", partitioning=["p"]))
    assert whole.source.inventory.partition_texts == (("007",), ("008",))


def test_what_a_data_set_chooses_of_its_files_is_what_it_is(tmp_path: Path) -> None:
    put(tmp_path / "a.parquet", table(c=np.arange(N)), row_group_size=50)
    put(tmp_path / "b.parquet", table(c=np.arange(N)), row_group_size=50)
    some = pa.schema([("y", pa.float64()), ("c", pa.float64())])
    assert open_whole(pads.dataset(tmp_path, schema=some)).schema.names == ["y", "c"]
    with pytest.raises(DataError, match=r"'c' is string in the schema of the pyarrow\.dataset but int64 in a\.parquet"):
        streamsgd.train(pads.dataset(tmp_path, schema=some.set(1, pa.field("c", pa.string()))), "y", **FAST)
    first, second = pads.dataset(tmp_path).get_fragments()
    parts = [first.subset(row_group_ids=[1]), second.subset(row_group_ids=[0, 3])]
    found = pads.FileSystemDataset(parts, first.physical_schema, first.format, first.filesystem)
    assert open_whole(found).n_rows == 150


@pytest.mark.parametrize("how", ["below a folder", "of fsspec"])
def test_files_of_any_filesystem_are_read(how: str, tmp_path: Path) -> None:
    put(tmp_path / "in/p=007/a.parquet", table())
    put(tmp_path / "in/p=8/a.parquet", table())
    place, filesystem = "in", pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem())
    if how == "of fsspec":
        memory = pytest.importorskip("fsspec").filesystem("memory")
        place = f"/{tmp_path.name}"
        memory.put(str(tmp_path / "in"), place, recursive=True)
        filesystem = pafs.PyFileSystem(pafs.FSSpecHandler(memory))
    found = pads.dataset(place, filesystem=filesystem, partitioning="hive")
    model = streamsgd.train(found, "y", **FAST)
    assert np.array_equal(model.weights, streamsgd.train(str(tmp_path / "in"), "y", **FAST).weights)
    check_source(open_whole(found).source)


def test_several_data_sets_are_compared(tmp_path: Path) -> None:
    put(tmp_path / "a" / "a.parquet", table(t=pa.array(range(N), pa.timestamp("us"))))
    zoned = table(t=pa.array(range(N), pa.timestamp("us", "Europe/Berlin")))
    pads.write_dataset(zoned.drop_columns(["t"]).append_column("u", zoned["t"]), tmp_path / "b", format="feather")
    both = pads.dataset([pads.dataset(tmp_path / "a"), pads.dataset(tmp_path / "b", format="feather")])
    with pytest.raises(DataError, match=r"has no column '[tu]', which other files have"):
        streamsgd.train(both, "y", **FAST)
    model = streamsgd.train(both, "y", missing_columns="null", **FAST)
    assert {column.name: column.zone for column in model.encoding.types} == {"x": "", "t": "", "u": "Europe/Berlin", "y": ""}


def test_a_data_set_without_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the pyarrow\.dataset has no file"):
        open_whole(pads.dataset(tmp_path))
