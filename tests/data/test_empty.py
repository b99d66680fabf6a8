"""A column without a value is a column of nulls, whatever type its writer gave it; a value of that type is refused."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streamsgd
from streamsgd.data.schemas import column_problem, unify
from streamsgd.data.source import BaseSource, Groups
from streamsgd.data.stores.files import FileRef
from streamsgd.errors import StreamSGDError

N = 60
X = np.sin(np.arange(N))
PLAIN: dict[str, Any] = {"executor": "inline", "memory": "1GB", "epochs": 1}

HELD: dict[str, Any] = {
    "numbers": pa.array(np.cos(np.arange(N))),
    "flags": pa.array([k % 2 == 0 for k in range(N)]),
    "words": pa.array([f"v{k % 3}" for k in range(N)]),
    "dates": pa.array(range(N), pa.int32()).cast(pa.date32()),
    "moments": pa.array(np.arange(N) * 10**9).cast(pa.timestamp("ns", "UTC")),
    "lists": pa.array([["a"], ["b", "a"]] * (N // 2)),
    "maps": pa.array([[("a", 1.0)], []] * (N // 2), pa.map_(pa.string(), pa.float64())),
    "vectors": pa.FixedSizeListArray.from_arrays(pa.array(np.arange(2.0 * N)), 2),
}
EMPTY: dict[str, Any] = {
    "NaN": pa.array(np.full(N, np.nan)),
    "NaN of 32 bits, and nulls": pa.array([np.nan, None] * (N // 2), pa.float32()),
    **{
        str(kind): pa.nulls(N, kind)
        for kind in (
            *(pa.null(), pa.int32(), pa.bool_(), pa.string(), pa.dictionary(pa.int8(), pa.string()), pa.date32(), pa.binary(4)),
            *(pa.timestamp("us"), pa.time64("us"), pa.decimal128(9, 2), pa.list_(pa.int8()), pa.list_(pa.float32(), 3)),
            *(pa.map_(pa.string(), pa.string()), pa.struct([("a", pa.int8())]), pa.list_(pa.list_(pa.int8()))),
        )
    },
}


def table(column: Any) -> pa.Table:
    return pa.table({"x": X, "y": 2 * X, "c": column})


def put(folder: Path, *columns: Any) -> Path:
    folder.mkdir()
    for k, column in enumerate(columns):
        pq.write_table(table(column), folder / f"{k}.parquet", row_group_size=N // 2)
    return folder


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {name: streamsgd.train(table(column), "y", **PLAIN) for name, column in HELD.items()}


# --- law: data to be scored


@pytest.mark.parametrize("held", HELD)
def test_columns_without_a_value_are_scored_as_nulls(held: str, models: dict[str, Any], tmp_path: Path) -> None:
    expected = models[held].predict(table(pa.nulls(N)))
    for k, column in enumerate(EMPTY.values()):
        assert np.array_equal(models[held].predict(table(column)), expected)
        assert models[held].evaluate(put(tmp_path / str(k), column))["rows"] == N


def test_it_is_said_once_with_both_types(models: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    pd = pytest.importorskip("pandas")
    with caplog.at_level(logging.WARNING, "streamsgd"):
        models["words"].predict(pd.DataFrame({"x": X, "c": [np.nan] * N}))
    (record,) = caplog.records
    assert record.getMessage() == (
        "the table: no value in column 'c' (of type double, in training string): taken as null in every row"
    )


def test_one_value_and_the_column_is_refused(models: dict[str, Any], tmp_path: Path) -> None:
    """Wherever it is: in the last row, of the last row group, of the last file."""
    column = pa.array([np.nan] * (N - 1) + [1.0])
    folder = put(tmp_path / "data", HELD["words"], EMPTY["NaN"], column)
    for data in (table(column), folder / "2.parquet"):
        with pytest.raises(StreamSGDError, match=r"'c' .*double.*string"):
            models["words"].predict(data)
    with pytest.raises(StreamSGDError, match=r"'c' is string in 0\.parquet but double in 1\.parquet"):
        models["words"].predict(folder)


def test_later_tables_and_validation_sets_too(tmp_path: Path) -> None:
    trainer = streamsgd.Trainer("y", memory="1GB").partial_fit(table(HELD["words"]))
    trainer.partial_fit(table(EMPTY["NaN"]))
    valid = str(put(tmp_path / "valid", EMPTY["NaN"]))
    assert streamsgd.train(table(HELD["words"]), "y", valid=valid, **PLAIN).metrics


# --- law: files of one data set


@pytest.mark.parametrize("held", HELD)
def test_a_file_without_a_value_is_null_there(held: str, tmp_path: Path) -> None:
    """In whatever order files come: the same model as of a file whose column has no type."""
    for first in (False, True):
        pair = [pa.nulls(N), HELD[held]][:: 1 if first else -1]
        expected = streamsgd.train(put(tmp_path / f"null{first}", *pair), "y", **PLAIN)
        for k, column in enumerate([*EMPTY.values()][:: 1 if held == "words" and first else 5]):
            pair = [column, HELD[held]][:: 1 if first else -1]
            model = streamsgd.train(put(tmp_path / f"{first}{k}", *pair), "y", **PLAIN)
            assert model.encoding.sources == ("x", "c")
            assert np.array_equal(model.weights, expected.weights)


def test_files_that_hold_no_value_at_all_agree(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = streamsgd.train(put(tmp_path / "data", *EMPTY.values()), "y", **PLAIN)
    assert model.encoding.sources == ("x",)
    assert [r.getMessage() for r in caplog.records if "'c'" in r.getMessage()] == [
        "1 column holds no value in any row and is left out: 'c'"
    ]


# --- law: a column that holds no value anywhere is left out, of whatever type


@pytest.mark.parametrize("kind", EMPTY)
def test_a_feature_without_a_value_is_left_out_and_said(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for data in (table(EMPTY[kind]), put(tmp_path / "data", EMPTY[kind])):
        caplog.clear()
        model = streamsgd.train(data, "y", **PLAIN)
        assert model.encoding.sources == ("x",)
        assert "1 column holds no value in any row and is left out: 'c'" in caplog.text


class InParts(BaseSource):
    """Tables as the parts of a source of one's own, which says what they agree about."""

    def __init__(self, *tables: pa.Table) -> None:
        self.tables, names = tables, [f"part {k}" for k in range(len(tables))]
        self.unified = unify([part.schema for part in tables], names)
        self.schema, self.fingerprint = self.unified.schema, "parts"
        count = np.arange(len(tables), dtype=np.int32)
        self.groups = Groups(count, count, np.full(len(tables), N), np.full(len(tables), 24 * N))
        self._files = tuple(FileRef("", name, 24 * N) for name in names)

    @property
    def files(self) -> tuple[FileRef, ...]:
        return self._files

    def stored_types(self, column: str) -> list[Any]:
        return [part.schema.field(column).type for part in self.tables]

    def arrays(self, piece: Any, columns: tuple[str, ...]) -> list[Any]:
        return [self.tables[int(self.groups.file[piece.first])].slice(piece.start, piece.rows)[name] for name in columns]

    def problem(self, column: str, *, nulls: bool = False) -> str:
        return column_problem(self.unified, column, nulls=nulls)


def test_parts_of_other_sources_are_asked_too() -> None:
    expected = streamsgd.train(InParts(table(HELD["words"]), table(pa.nulls(N))), "y", **PLAIN)
    for column in EMPTY.values():
        model = streamsgd.train(InParts(table(HELD["words"]), table(column)), "y", **PLAIN)
        assert np.array_equal(model.weights, expected.weights)
    with pytest.raises(StreamSGDError, match=r"'c' is string in part 0 but double in part 1"):
        streamsgd.train(InParts(table(HELD["words"]), table(X)), "y", **PLAIN)
