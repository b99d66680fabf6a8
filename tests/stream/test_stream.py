"""Laws of the stream: the same blocks whoever reads, every row accounted for, errors in order, no task left."""

import io
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamsgd.compute.executors import Dask, Inline
from streamsgd.data.open import open_data
from streamsgd.data.stores.files import Files
from streamsgd.errors import DataError
from streamsgd.features.encoding import Encoding
from streamsgd.features.numbers import NumberColumn
from streamsgd.settings.make import make_settings
from streamsgd.stream.chunk import LoadedChunk
from streamsgd.stream.loader import Loader
from streamsgd.stream.stream import Stream, sequential_plan
from streamsgd.training.job import Job
from streamsgd.training.prepare import prepare
from streamsgd.training.run import train_model

EXACT = {"target": "y", "scale": "none", "precision": "float64", "executor": "inline", "epochs": 1}
"""Blocks hold the values of the columns as they are."""


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    threads = {*threading.enumerate()}
    yield
    left = {thread.name for thread in threading.enumerate() if thread not in threads}
    assert left <= {"Dask-Offload_0"}, "Dask keeps that one for the life of the process"


@pytest.fixture(params=[1, 2, 4], ids=lambda n: f"{n} threads")
def dask(request: pytest.FixtureRequest) -> Iterator[Dask]:
    executor = Dask(request.param)
    yield executor
    executor.close()


def write(folder: Path, sizes: tuple[int, ...] = (13, 300, 4000), n: int = 3000) -> Path:
    """Write one file per size of row group; `id` numbers the rows of all files."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(4)
    for k, row_group_size in enumerate(sizes):
        ids = np.arange(k * n, (k + 1) * n, dtype=np.float64)
        x, y = rng.normal(size=(2, n))
        weight = rng.uniform(0.5, 2.0, n)
        columns = {"id": ids, "x": pa.array(x, mask=rng.random(n) < 0.05), "y": y, "w": weight}
        pq.write_table(pa.table(columns), folder / f"{k}.parquet", row_group_size=row_group_size)
    return folder


def job_of(data: Path, **settings: Any) -> Job:
    return prepare(str(data), make_settings({**EXACT, **settings}))


def learned(filled: LoadedChunk) -> np.ndarray:
    """Return the block's rows in the order in which they are learned."""
    heads, rows = filled.starts.copy(), []
    for tile in filled.order:
        rows.append(heads[tile])
        heads[tile] += 1
    return filled.block.rows.values[np.array(rows, np.int64)].copy()


def held(filled: LoadedChunk) -> np.ndarray:
    return np.concatenate([np.zeros((0, filled.block.rows.values.shape[1]))] + [
        block.rows.values for block in filled.held_blocks()
    ])  # fmt: skip


def blocks(job: Job, executor: Any, epochs: int = 2) -> list[tuple[bytes, bytes, int]]:
    stream = Stream(job.recipe, job.plan, executor)
    return [
        (learned(filled).tobytes(), held(filled).tobytes(), sum(piece.missing for piece in filled.pieces))
        for filled in stream.chunks(0, 0, epochs)
    ]


# --- the same for all


CASES: dict[str, dict[str, Any]] = {
    "merged, whole and sliced": {"chunk_rows": 1000},
    "sliced": {"chunk_rows": 600},
    "one chunk": {"chunk_rows": 100_000},
    "in order": {"chunk_rows": 1000, "shuffle": "none"},
    "held out, filtered, weighted": {"chunk_rows": 1000, "validation": 0.3, "filter": "x > -1", "weight": "w"},
}


@pytest.mark.parametrize("case", CASES)
def test_dask_streams_the_blocks_of_the_specification(tmp_path: Path, dask: Dask, case: str) -> None:
    job = job_of(write(tmp_path / "data"), **CASES[case])
    assert blocks(job, dask) == blocks(job, Inline())


def test_who_reads_when_leaves_no_trace(tmp_path: Path, dask: Dask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces that arrive in any order give the same blocks."""
    job = job_of(write(tmp_path / "data"), chunk_rows=2000, validation=0.1)
    expected = blocks(job, Inline(), 1)
    load, rng, lock = Loader.load, np.random.default_rng(5), threading.Lock()

    def late(self: Loader, *some: Any, **more: Any) -> Any:
        with lock:
            pause = rng.uniform(0.0, 0.01)
        time.sleep(pause)
        return load(self, *some, **more)

    monkeypatch.setattr(Loader, "load", late)
    assert blocks(job, dask, 1) == expected


def test_any_chunk_can_be_streamed_alone(tmp_path: Path) -> None:
    """A resumed stream begins in the middle and goes on as the whole one did."""
    job = job_of(write(tmp_path / "data"), chunk_rows=1000)
    stream = Stream(job.recipe, job.plan, Inline())
    everything = [learned(filled).tobytes() for filled in stream.chunks(0, 0, 2)]
    n = job.plan.n_chunks(0)
    for start in range(0, 2 * n, 3):
        rest = Stream(job.recipe, job.plan, Inline()).chunks(start // n, start % n, 2)
        assert [learned(filled).tobytes() for filled in rest] == everything[start:]


@pytest.mark.parametrize("case", ["merged, whole and sliced", "held out, filtered, weighted"])
def test_the_model_has_the_same_bytes(tmp_path: Path, case: str) -> None:
    data = write(tmp_path / "data")
    given = {"target": "y", "epochs": 2, **CASES[case]}
    places = [{"executor": "inline"}, *({"executor": "dask", "threads": n} for n in (1, 2, 4))]
    models = {train_model(str(data), make_settings({**given, **place}))[0].to_bytes() for place in places}
    assert len(models) == 1


def test_a_block_stays_as_it_is_until_the_next_is_asked_for(tmp_path: Path, dask: Dask) -> None:
    job = job_of(write(tmp_path / "data"), chunk_rows=500)
    for filled in Stream(job.recipe, job.plan, dask).chunks():
        before = learned(filled).tobytes()
        time.sleep(0.01)
        assert learned(filled).tobytes() == before


# --- every row


@pytest.mark.parametrize("chunk_rows", [40, 333, 1000, 50_000])
@pytest.mark.parametrize("shuffle", ["corgi", "none", "block", "full-chunk"])
def test_an_epoch_is_the_rows_of_a_plain_read(tmp_path: Path, chunk_rows: int, shuffle: str) -> None:
    """Every row exactly once with its own values, whether its row group was merged, whole or sliced."""
    data = write(tmp_path / "data", n=1500)
    job = job_of(data, chunk_rows=chunk_rows, shuffle=shuffle, weight="w", missing="zero")
    got = np.concatenate([learned(filled) for filled in Stream(job.recipe, job.plan, Inline()).chunks()])
    plain = pq.read_table(data)
    expected = np.column_stack(
        [plain["id"], plain["x"].fill_null(0.0), plain["y"], plain["w"]],
    )
    if shuffle == "none":
        np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(got[got[:, 0].argsort()], expected)


@pytest.mark.parametrize("chunk_rows", [200, 1000])
def test_rows_learned_filtered_skipped_and_held_are_all_rows(tmp_path: Path, chunk_rows: int) -> None:
    data = write(tmp_path / "data")
    table = pq.read_table(data / "1.parquet")
    y = pa.array(table["y"].to_numpy(), mask=np.arange(3000) % 7 == 0)
    pq.write_table(table.set_column(2, "y", y), data / "1.parquet", row_group_size=300)
    job = job_of(data, chunk_rows=chunk_rows, filter="x > 0", bad_rows="skip", validation=0.25)
    ids: Counter[float] = Counter()
    counted = 0
    for filled in Stream(job.recipe, job.plan, Inline()).chunks():
        ids.update(learned(filled)[:, 0].tolist())
        ids.update(held(filled)[:, 0].tolist())
        counted += sum(piece.filtered + piece.skipped for piece in filled.pieces)
        for piece, loaded in zip(filled.chunk.pieces, filled.pieces, strict=True):
            assert piece.rows == loaded.filtered + loaded.skipped + (loaded.counts + loaded.helds).sum()
    plain = pq.read_table(data)
    wanted = (plain["x"].fill_null(-1.0).to_numpy() > 0) & ~np.isnan(plain["y"].to_numpy())
    assert ids == Counter(plain["id"].to_numpy()[wanted].tolist())
    assert counted + ids.total() == job.dataset.n_rows > 8000, "all but row groups that were pruned"


def test_the_same_rows_are_held_out_whatever_the_chunks(tmp_path: Path) -> None:
    data = write(tmp_path / "data")
    kept = set()
    for chunk_rows in (150, 1000, 10_000):
        job = job_of(data, chunk_rows=chunk_rows, validation=0.2, seed=chunk_rows)
        for epoch in (0, 1):
            stream = Stream(job.recipe, job.plan, Inline()).chunks(epoch, 0, epoch + 1)
            kept.add(tuple(sorted(row for filled in stream for row in held(filled)[:, 0])))
    assert len(kept) == 1
    assert len(next(iter(kept))) == pytest.approx(0.2 * 9000, rel=0.1)


# --- columns


def test_partition_folders_are_features(tmp_path: Path) -> None:
    for year in (2023, 2024):
        folder = tmp_path / "data" / f"year={year}"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"x": np.arange(50.0), "y": np.arange(50.0) + year}), folder / "p.parquet")
    job = job_of(tmp_path / "data", chunk_rows=20)
    assert [column.name for column in job.recipe.encoding.columns] == ["x", "year"]
    got = np.concatenate([learned(filled) for filled in Stream(job.recipe, job.plan, Inline()).chunks()])
    np.testing.assert_array_equal(got[:, 0] + got[:, 1], got[:, 2])
    assert Counter(got[:, 1].tolist()) == {2023.0: 50, 2024.0: 50}


@pytest.mark.parametrize("wider", [pa.int64(), pa.float32(), pa.float64(), pa.decimal128(12, 2)])
def test_types_that_widen_between_files_keep_their_values(tmp_path: Path, wider: pa.DataType) -> None:
    """Features, targets, weights and the filter, each in two types; also columns that one file has more."""
    (tmp_path / "data").mkdir()
    values = pa.array(np.arange(1, 101), pa.int32())
    for name, kind in {"a": pa.int32(), "b": wider}.items():
        column = values.cast(kind)
        columns = {"x": column, "y": column, "w": column, "f": column}
        if name == "b":
            columns["more"] = pa.array(["text"] * 100)
        pq.write_table(pa.table(columns), tmp_path / "data" / f"{name}.parquet", row_group_size=30)
    job = job_of(tmp_path / "data", chunk_rows=45, weight="w", features=["x"], filter="f > 10 and f != 50")
    got = np.concatenate([learned(filled) for filled in Stream(job.recipe, job.plan, Inline()).chunks()])
    assert Counter(got[:, 0].tolist()) == Counter({float(v): 2 for v in range(11, 101) if v != 50})
    assert (got == got[:, :1]).all(), "feature, target and weight of a row are the same number here"


# --- errors and ends


def test_the_first_error_in_the_plan_is_raised(tmp_path: Path, dask: Dask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the first in time: a run fails with the same message whoever reads."""
    job = job_of(write(tmp_path / "data"), chunk_rows=4000)
    load = Loader.load

    def fails(self: Loader, piece: Any, *some: Any, **more: Any) -> Any:
        if piece.number >= 2:
            time.sleep(0.05 if piece.number == 2 else 0.0)
            raise DataError(f"piece {piece.number}")
        return load(self, piece, *some, **more)

    monkeypatch.setattr(Loader, "load", fails)
    for _ in range(3):
        with pytest.raises(DataError, match=r"^piece 2$"):
            blocks(job, dask)


@pytest.mark.parametrize("after", [0, 1, 5])
def test_a_stream_that_is_closed_early_leaves_no_task(
    tmp_path: Path, dask: Dask, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    job = job_of(write(tmp_path / "data"), chunk_rows=400)
    load, running = Loader.load, []

    def counted(self: Loader, *some: Any, **more: Any) -> Any:
        running.append(1)
        time.sleep(0.002)
        result = load(self, *some, **more)
        running.pop()
        return result

    monkeypatch.setattr(Loader, "load", counted)
    stream = Stream(job.recipe, job.plan, dask)
    chunks = stream.chunks(0, 0, 3)
    for _ in range(after):
        next(chunks)
    began = time.monotonic()
    chunks.close()  # type: ignore[attr-defined]
    assert time.monotonic() - began < 5.0
    assert running == []
    monkeypatch.undo()
    again = [learned(filled).tobytes() for filled in stream.chunks(0, 0, 2)]
    assert [block for block, _, _ in blocks(job, Inline())] == again, "and its blocks can be used again"


def test_a_read_that_hangs_is_an_error_that_names_it(tmp_path: Path, dask: Dask, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_of(write(tmp_path / "data", sizes=(100,)), chunk_rows=1600)
    load, free = Loader.load, threading.Event()

    def hangs(self: Loader, piece: Any, *some: Any, **more: Any) -> Any:
        if piece.number == 1:
            free.wait(30.0)
        return load(self, piece, *some, **more)

    monkeypatch.setattr(Loader, "load", hangs)
    stream = Stream(job.recipe, job.plan, dask)
    stream.deadline = 0.3
    late = job.recipe.dataset.source.where(job.plan.chunk(0, 0).pieces[1])
    began = time.monotonic()
    with pytest.raises(DataError, match="^" + re.escape(late) + " did not arrive within 0 s; check the storage"):
        list(stream.chunks())
    assert time.monotonic() - began < 5.0
    free.set()


class Flaky(io.BytesIO):
    """A file whose reads fail now and then, as those of a network do."""

    reads, failures = 0, 0

    def read(self, size: int | None = -1) -> bytes:
        type(self).reads += 1
        if type(self).reads % 11 == 0:
            type(self).failures += 1
            raise ConnectionResetError("connection reset by peer")
        return super().read(size)


@pytest.mark.parametrize("chunk_rows", [1000, 10_000], ids=["sliced", "whole"])
def test_reads_that_fail_transiently_are_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk_rows: int) -> None:
    """Also in the middle of a row group that is streamed: the same blocks, and no talk of damage."""
    job = job_of(write(tmp_path / "data", sizes=(3000, 300)), chunk_rows=chunk_rows)
    expected = blocks(job, Inline())
    opened: Callable[..., Any] = Files.open

    def flaky(self: Files, ref: Any) -> Any:
        opened(self, ref).close()
        return pa.PythonFile(Flaky(Path(ref.path).read_bytes()), mode="r")

    monkeypatch.setattr(Files, "open", flaky)
    monkeypatch.setattr("streamsgd.data.stores.filesystems.PAUSE", 0.0)
    monkeypatch.setattr("streamsgd.data.parquet.row_stream.BUFFER_BYTES", 1024)
    monkeypatch.setattr("streamsgd.data.parquet.row_stream.BATCH_BYTES", 1024)
    Flaky.reads = Flaky.failures = 0
    fresh = job_of(tmp_path / "data", chunk_rows=chunk_rows)
    assert blocks(fresh, Inline()) == expected
    assert Flaky.failures > 3


@pytest.mark.parametrize(("group_rows", "most"), [(100_000, 1 << 18), (700_000, 350_000)])
def test_blocks_in_the_order_of_the_data_have_no_more_rows_than_what_is_beside_them_has_room_for(
    group_rows: int, most: int, tmp_path: Path
) -> None:
    """Of narrow rows 64 MB are millions, and their ids and scores took more than the block."""
    pq.write_table(pa.table({"x": np.zeros(700_000, np.float32)}), tmp_path / "d.parquet", row_group_size=group_rows)
    dataset, _, _ = open_data(tmp_path / "d.parquet", "")
    recipe = Loader(dataset, Encoding((NumberColumn("x", "float"),)), None)
    assert sequential_plan(recipe, 64 << 20).chunk_rows == most
    assert sequential_plan(recipe, 1000 * recipe.row_bytes).chunk_rows == 1000
