"""Sources: every one answers alike, and one of your own trains, scores and evaluates without a change to anything."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import dask
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streamsgd
from streamsgd.compute.local_cluster import LocalWorkers
from streamsgd.data.open import OPENERS, open_data, open_whole
from streamsgd.data.source import BaseSource, Groups, Source
from streamsgd.data.sources.dask_tables import lazily
from streamsgd.errors import DataError, SettingsError
from streamsgd.testing import check_source

SCHEMA = pa.schema({"x": pa.float64(), "city": pa.string(), "late": pa.bool_()})


def rows(number: int, n: int) -> pa.Table:
    rng = np.random.default_rng(number)
    x = rng.normal(size=n)
    city = rng.integers(0, 3, n)
    late = x + 0.5 * city + 0.3 * rng.normal(size=n) > 0.5
    return pa.table({"x": x, "city": pa.array(["rome", "oslo", None]).take(pa.array(city)), "late": late}, SCHEMA)


class Made(BaseSource):
    """Rows that a function makes."""

    schema = SCHEMA
    groups = Groups.of([300, 1, 500, 0, 200], 30)
    fingerprint = "made, 1"

    def read_part(self, number: int, columns: list[str]) -> Any:
        return rows(number, [300, 1, 500, 0, 200][number]).select(columns)


WHOLE = pa.concat_tables([rows(k, n) for k, n in enumerate([300, 1, 500, 0, 200])])
SETTINGS: dict[str, Any] = {"epochs": 2, "seed": 3, "chunk_rows": 400, "threads": 1}


def files(folder: Path) -> Path:
    """The same rows in the same groups, in one file of the name that the source has."""
    with pq.ParquetWriter(folder / "Made.parquet", SCHEMA) as writer:
        for k, n in enumerate([300, 1, 500, 0, 200]):
            writer.write_table(rows(k, n))
    return folder / "Made.parquet"


def hive(folder: Path) -> Path:
    """Folders, files of two schemas, empty ones, and a column that only some have."""
    for k, n in enumerate([40, 0, 70, 1]):
        place = folder / f"day={k % 2}"
        place.mkdir(exist_ok=True)
        table = rows(k, n)
        pq.write_table(table if k else table.append_column("extra", table["x"]), place / f"{k}.parquet", row_group_size=16)
    return folder


@pytest.fixture(scope="module")
def workers() -> Iterator[LocalWorkers]:
    with LocalWorkers(1) as found:
        yield found


# --- law: every source of ours is a source


def ways(folder: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    yield "made", Made
    yield "table", lambda: pa.concat_tables([WHOLE] * 140)
    yield "no column named", lambda: WHOLE.select(["x"])
    yield "file", lambda: files(folder)
    yield "folders", lambda: hive(folder)
    yield "delayed", lambda: [dask.delayed(rows)(k, n) for k, n in enumerate([300, 1, 500, 0, 200])]
    yield "delayed of two schemas", lambda: [dask.delayed(rows)(0, 9).select(["x"]), dask.delayed(rows)(1, 9)]


@pytest.mark.parametrize("way", [name for name, _ in ways(Path())])
def test_every_source_of_ours_is_one(way: str, tmp_path: Path) -> None:
    source = open_whole(dict(ways(tmp_path))[way]()).source
    assert isinstance(source, Source)
    check_source(source)


def test_every_way_in_is_tried_above(tmp_path: Path) -> None:
    used = {next((o.name for o in OPENERS if o.accepts(make())), "") for _, make in ways(tmp_path)}
    elsewhere = {"the stream", "the pyarrow.dataset", "the rows", "the tables"}  # in test_streams.py ...
    elsewhere |= {"the Delta table", "the Iceberg table"}  # ... test_delta.py and test_iceberg.py
    assert used | elsewhere == {*(opener.name for opener in OPENERS), ""}


def test_partitions_of_a_client_are_a_source(workers: LocalWorkers) -> None:
    parts = [dask.delayed(rows)(k, n) for k, n in enumerate([30, 1, 0, 20])]
    check_source(open_whole(lazily(parts, workers.client)).source)


# --- a source of one's own


def test_rows_that_a_function_makes_are_learned_as_from_a_file(tmp_path: Path) -> None:
    mine = streamsgd.train(Made(), target="late", **SETTINGS)
    assert mine.weights.tobytes() == streamsgd.train(files(tmp_path), target="late", **SETTINGS).weights.tobytes()
    assert mine.metrics["progressive_loss"] < 0.9 * mine.metrics["best_constant_loss"]


def test_workers_make_the_rows_themselves(workers: LocalWorkers) -> None:
    settings = {**SETTINGS, "lanes": 2}
    alone = streamsgd.train(Made(), target="late", **settings)
    assert streamsgd.train(Made(), "late", client=workers.client, **settings).to_bytes() == alone.to_bytes()
    assert streamsgd.evaluate(alone, Made(), client=workers.client) == streamsgd.evaluate(alone, Made())


def test_it_is_filtered_inspected_evaluated_and_scored(tmp_path: Path) -> None:
    path = files(tmp_path)
    model = streamsgd.train(Made(), target="late", filter="x > 0", **SETTINGS)
    filtered = streamsgd.train(path, target="late", filter="x > 0", **SETTINGS)
    assert model.weights.tobytes() == filtered.weights.tobytes()
    assert streamsgd.evaluate(model, Made()) == streamsgd.evaluate(model, path)
    scored = streamsgd.predict(model, Made(), tmp_path / "mine", id=["x"])
    assert (scored.files, scored.rows) == (1, len(WHOLE))
    streamsgd.predict(model, path, tmp_path / "files", id=["x"])
    assert pq.read_table(tmp_path / "mine/Made.parquet").equals(pq.read_table(tmp_path / "files/Made.parquet"))
    assert streamsgd.predict(model, Made(), tmp_path / "mine", id=["x"]).already_there == 1
    found, expected = streamsgd.inspect(Made(), "late"), streamsgd.inspect(path, "late")
    assert [c.mean for c in found.columns] == [c.mean for c in expected.columns]
    assert found.rows == expected.rows == len(WHOLE)


def test_a_run_goes_on_only_with_the_same_rows(tmp_path: Path) -> None:
    class Other(Made):
        fingerprint = "made, 2"

    assert open_data(Made())[0].fingerprint != open_data(Other())[0].fingerprint


# --- the check sees what is wrong


class Forgetful(Made):
    """Other rows each time."""

    calls: ClassVar[list[int]] = []

    def read_part(self, number: int, columns: list[str]) -> Any:
        self.calls.append(number)
        return rows(len(self.calls), [300, 1, 500, 0, 200][number]).select(columns)


class Short(Made):
    """A row too few."""

    def read_part(self, number: int, columns: list[str]) -> Any:
        return super().read_part(number, columns).slice(1)


class Swapped(Made):
    """Columns in an order of its own."""

    def read_part(self, number: int, columns: list[str]) -> Any:
        return super().read_part(number, sorted(columns))


class Shifted(Made):
    """Slices are taken from the beginning."""

    def read(self, piece: Any, columns: Any, timings: Any, dictionaries: Any = frozenset()) -> Any:
        for arrays in super().read(piece, columns, timings, dictionaries):
            yield [array if piece.start == 0 else array.slice(1) for array in arrays]


class Stuck(Made):
    """It cannot go to a worker."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


class Unselected(Made):
    """It ignores what was selected."""

    def select(self, keep: np.ndarray) -> Any:
        return self


@pytest.mark.parametrize(
    ("source", "what"),
    [
        (Forgetful, "had"),
        (Short, "499 rows and promised 500|299 rows and promised 300"),
        (Swapped, "was to give"),
        (Shifted, "were asked for"),
        (Stuck, "pickle"),
        (Unselected, "select"),
    ],
)
def test_the_check_finds_what_is_wrong(source: type[Made], what: str) -> None:
    with pytest.raises((AssertionError, DataError, TypeError), match=what):
        check_source(source())


def test_what_is_nearly_a_source_is_told_what_it_lacks() -> None:
    class Nearly:
        schema, groups, fingerprint = SCHEMA, Groups.of([1]), "x"

    with pytest.raises(SettingsError, match=r"Nearly.*lacks.*BaseSource"):
        open_whole(Nearly())
