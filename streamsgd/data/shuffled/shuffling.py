"""An external shuffle: all rows in one random order, as Parquet, within a bound of memory.

Every row has an address, its file, row group and number there, and a key of 64 bits, a hash of the seed and the address. Rows
are written in the order of their keys: who made them, in how much memory, and after how many kills changes no byte.

1. *Runs*: rows are read in their order, as many as memory holds; those of one bucket, a range of keys, are put together, and
   the run is written to the work folder, bucket after bucket.
2. *Buckets*: each is read from all runs, sorted by key, and becomes one file.

The number of buckets follows from the data alone. Files are whole or absent, so that a killed shuffle goes on where it was; the
output is a folder that gets its name when all is done. What goes in is added up column by column, and what comes out must be
the same.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from streamsgd.compute.local_files import only_writer, whole_file
from streamsgd.compute.memory import parse_limit
from streamsgd.data.dataset import Dataset, read_dataset, require
from streamsgd.data.exact_types import as_exactly, no_one_type, row_type
from streamsgd.data.open import open_data
from streamsgd.data.shuffled.shuffle_files import BucketWriter, Runs, RunWriter, Tally, add_tallies, tally_of
from streamsgd.data.shuffled.shuffle_layout import VERSION, ShuffleLayout, buckets_at_once, check_memory, layout_of, run_bytes
from streamsgd.data.shuffled.stamps import stamps_of, written_since
from streamsgd.data.sizes import WILD_ROWS, group_widths, is_wild
from streamsgd.data.source import WHOLE_BYTES
from streamsgd.data.sources.parquet_files import ParquetFiles
from streamsgd.data.stores.filesystems import LOCAL, locate
from streamsgd.data.timings import Timings
from streamsgd.errors import DataError, SettingsError, UnreadableError
from streamsgd.messages import format_bytes
from streamsgd.planning.chunks import Piece, merge_neighbours

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

log = logging.getLogger("streamsgd")

MANIFEST = "_shuffle.json"
"""What a folder of shuffled rows was made from; names that begin so are no data."""

_GOLDEN, _MIX = np.uint64(0x9E3779B97F4A7C15), (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def check_room(layout: ShuffleLayout, folder: Path, work: Path) -> None:
    """Refuse a place without room for the rows, beside what is in the work folder already.

    Raises
    ------
    SettingsError
        It has none, or is no place for files.

    """
    parent = folder.absolute().parent
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    try:
        free = shutil.disk_usage(parent).free
    except OSError as error:
        raise SettingsError(f"{folder}: cannot be written: {error.strerror}; choose another place") from error
    there = sum(path.stat().st_size for path in work.glob("*")) if work.is_dir() else 0
    if free + there < layout.disk_bytes:
        raise SettingsError(
            f"{folder}: a shuffle needs about {format_bytes(layout.disk_bytes)} of disk and {format_bytes(free)} are free; "
            "choose another place"
        )


def shuffle_rows(
    dataset: Dataset,
    layout: ShuffleLayout,
    folder: Path,
    *,
    memory: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    what: str = "OUT",
) -> bool:
    """Write the rows of a data set in random order to a folder; return False if they are there already.

    Where files were written since they were shuffled, though of the same size and footer, it is done again.

    Raises
    ------
    SettingsError
        The folder holds something else, another process writes it, or there is no room.
    BudgetError
        The memory limit cannot hold it.
    DataError
        Rows cannot be read, or are others than promised.

    """
    limit = parse_limit(memory)
    check_memory(layout, limit)
    with only_writer(folder, what):
        if is_whole(folder, layout, what, dataset):
            return False
        work = folder.with_name(f".{folder.name}.shuffling")
        check_room(layout, folder, work)
        try:
            _shuffle(dataset, layout, work, limit, progress or (lambda _done, _all: None))
            if folder.exists():
                for path in _own_files(folder):
                    path.unlink()
                folder.rmdir()  # empty, as was made sure of
            work.rename(folder)
        except OSError as error:
            raise SettingsError(
                f"{what} {folder}: cannot be written: {error.strerror or error}; make room, or choose another place"
            ) from error
    return True


class Shuffled(NamedTuple):
    """What a shuffle came to."""

    rows: int
    files: int
    bytes: int
    """Of the files."""
    already_there: bool


def shuffle_data(
    data: Any, out: str | os.PathLike[str], *, seed: int, memory: str | None, progress: Callable[[int, int], None] | None = None
) -> Shuffled:
    """Write all columns of data in random order to a new folder, in the types of its files where these are alike.

    Raises
    ------
    StreamSGDError
        As `shuffle_rows`, or the data cannot be opened.

    """
    place = locate(os.fspath(out))
    if place.uri != LOCAL:
        raise SettingsError(f"{out}: a shuffle needs a folder of this machine; copy it from there")
    dataset = open_data(data)[0]
    names = tuple(dict.fromkeys(dataset.schema.names))
    require(dataset, names)
    folder = Path(place.path)
    layout = layout_of(dataset, names, seed, as_data=True)
    try:
        made = shuffle_rows(dataset, layout, folder, memory=memory, progress=progress)
    except UnreadableError as error:
        raise UnreadableError(
            error.problem, ": write it again, or leave the file out: all rows of the others are copied"
        ) from error
    sizes = [path.stat().st_size for path in folder.glob("part-*.parquet")]
    return Shuffled(layout.rows, len(sizes), sum(sizes), not made)


def is_whole(folder: Path, layout: ShuffleLayout, what: str, dataset: Dataset) -> bool:
    """Whether a folder holds these rows in this order already; False where there is none, an empty one, or one of older rows.

    Raises
    ------
    SettingsError
        It holds something else, which is not replaced.

    """
    if not folder.exists() and not folder.is_symlink():
        return False
    found = _read_json(folder / MANIFEST)
    if found.get("digest") == layout.digest:
        if not (name := _written_since(found, dataset)):
            return True
        if {*folder.iterdir()} - {*_own_files(folder)}:
            raise SettingsError(
                f"{what} {folder}: was made before {name} was written, and holds other files too, so that it is not replaced: "
                "name another folder, or delete it"
            )
        log.warning(
            "%s was written since %s was made of it, though its size and footer are the same: its rows are shuffled again",
            *(name, folder),
        )
        return False
    if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
        return False
    raise SettingsError(
        f"{what} {folder}: is there already, and was not made from these rows with this seed; it is not replaced: name another "
        "folder, or delete it"
    )


def _written_since(manifest: dict[str, Any], dataset: Dataset) -> str:
    """Name a file that was written since a manifest was; nothing where it does not say."""
    stamps = manifest.get("stamps")
    return written_since(dataset.source.files, stamps) if isinstance(stamps, list) else ""


def _own_files(folder: Path) -> list[Path]:
    """Return the files in a folder of shuffled rows that the shuffle wrote."""
    return [*folder.glob("part-*.parquet"), *folder.glob(MANIFEST)]


def open_shuffled(folder: Path, dataset: Dataset) -> Dataset:
    """Return the rows of a folder as those of the data set that they are of: known by its fingerprint."""
    return Dataset(ParquetFiles(replace(read_dataset(str(folder)), fingerprint=dataset.fingerprint)))


def delete_rows(folder: Path) -> None:
    """Delete a folder of shuffled rows, finished or not; nothing that is something else."""
    for each in (folder, folder.with_name(f".{folder.name}.shuffling")):
        if (each / MANIFEST).is_file():
            shutil.rmtree(each, ignore_errors=True)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write_json(path: Path, value: dict[str, Any]) -> None:
    with whole_file(path) as sink:
        sink.write(json.dumps(value).encode())


def _shuffle(dataset: Dataset, layout: ShuffleLayout, work: Path, limit: int, progress: Callable[[int, int], None]) -> None:
    """Fill the work folder, going on from what is there."""
    begun = _read_json(work / MANIFEST)
    if begun.get("digest") != layout.digest or _written_since(begun, dataset):
        if work.exists() and not (work / MANIFEST).is_file() and any(work.iterdir()):
            raise SettingsError(f"{work}: is there and is no unfinished shuffle; it is not replaced: delete it")
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        said = {"digest": layout.digest, "rows": layout.rows, "seed": layout.seed, "version": VERSION}
        _write_json(work / MANIFEST, {**said, "stamps": stamps_of(dataset.source.files)})
    sums = work / "_sums.json"
    found = _read_json(sums)
    if not found:
        tally = _write_runs(dataset, layout, work, run_bytes(limit), progress)
        found = {"tally": tally}
        _write_json(sums, found)
        progress(layout.rows // 2, layout.rows)
    written = _write_buckets(layout, work, buckets_at_once(layout, limit), progress)
    if written != found["tally"]:
        raise AssertionError(f"{work}: what was written is not what was read: {written} and {found['tally']}")
    for path in [*work.glob("_run-*"), *work.glob("_done-*"), sums]:
        path.unlink()


# --- runs


def _write_runs(
    dataset: Dataset, layout: ShuffleLayout, work: Path, most_bytes: int, progress: Callable[[int, int], None]
) -> Tally:
    """Read all rows and write runs, from after those that are there."""
    runs = Runs(work, layout.schema)
    begun = runs.finished()
    done = begun.rows
    total = begun.tally
    writer = RunWriter(layout.schema, layout.n_buckets)
    for table, keys in _rows(dataset, layout, skip=done):
        writer.add(table, keys)
        if writer.nbytes >= most_bytes:
            done, total = writer.write(runs, done, total)
            progress(done // 2, layout.rows)
    if writer.rows or not done:
        done, total = writer.write(runs, done, total)
    if done != layout.rows:
        raise DataError(f"the data promised {layout.rows:,} rows and gave {done:,}; it changed: start again")
    return total


def _rows(dataset: Dataset, layout: ShuffleLayout, skip: int) -> Iterator[tuple[Any, np.ndarray]]:
    """Yield rows in the order of the data as tables, each with the keys of its rows, after leaving out the first `skip`."""
    names, before = tuple(layout.schema.names), 0
    reader = dataset.reader(keeps_open=False)
    for piece in _pieces(dataset, names):
        if before + piece.rows <= skip:
            before += piece.rows
            continue
        at = 0
        with reader.together(piece, names):
            parts = reader.read_stored(piece, names) if layout.stored else reader.read(piece, names, Timings())
            for part in parts:
                n = len(part[0])
                drop = min(n, max(0, skip - before - at))
                if drop < n:
                    yield (
                        _table(dataset, piece, part, layout).slice(drop),
                        _keys(dataset, piece, layout.seed, at + drop, at + n),
                    )
                at += n
        before += piece.rows


def _table(dataset: Dataset, piece: Piece, part: list[Any], layout: ShuffleLayout) -> Any:
    """Return columns as a table of the schema of runs, which hold no dictionaries.

    Raises
    ------
    NoOneTypeError
        A value would be another one.

    """
    arrays = []
    for column, wanted in zip(part, layout.schema, strict=True):
        try:
            arrays.append(as_exactly(column, row_type(wanted.type)))
        except (pa.ArrowException, ValueError) as error:
            raise no_one_type(dataset, piece, wanted.name, column.type) from error
    return pa.table(arrays, names=layout.schema.names)


def _pieces(dataset: Dataset, names: tuple[str, ...]) -> Iterator[Piece]:
    """Yield runs of small row groups, which are read at once, and large ones alone."""
    widest = float(group_widths(dataset, names).max(initial=1.0))
    target = max(1, int(WHOLE_BYTES / max(1.0, widest)))
    if is_wild(dataset.schema, names, ()):
        target = min(target, WILD_ROWS)
    for first, last in zip(*merge_neighbours(dataset.rows, dataset.file, target), strict=True):
        rows = int(dataset.rows[first:last].sum())
        if rows:
            yield Piece(0, int(first), int(last), 0, rows, 0)


def _keys(dataset: Dataset, piece: Piece, seed: int, start: int, stop: int) -> np.ndarray:
    """Return the keys of some rows of a piece, uint64 (stop - start,): SplitMix64 of seed, file, row group and row."""
    parts, before = [np.zeros(0, np.uint64)], 0
    for group in range(piece.first, piece.last):
        n = int(dataset.rows[group])
        rows = np.arange(max(0, start - before), min(n, stop - before), dtype=np.uint64)
        before += n
        if not len(rows):
            continue
        name = dataset.source.files[int(dataset.file[group])].name
        address = hashlib.sha256(f"{seed}\0{name}\0{int(dataset.index[group])}".encode()).digest()
        first = np.uint64(int.from_bytes(address[:8], "little"))
        parts.append(_mixed(first + (rows + np.uint64(1)) * _GOLDEN))
    return np.concatenate(parts)


def _mixed(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * _MIX[0]
    x = (x ^ (x >> np.uint64(27))) * _MIX[1]
    mixed: np.ndarray = x ^ (x >> np.uint64(31))
    return mixed


# --- buckets


def _write_buckets(layout: ShuffleLayout, work: Path, threads: int, progress: Callable[[int, int], None]) -> Tally:
    """Sort every bucket and write it as a file, so many at a time; return what all of them hold."""
    total, rows = tally_of(layout.schema.empty_table()), 0
    with Runs(work, layout.schema) as runs, ThreadPoolExecutor(threads, thread_name_prefix="shuffle") as pool:
        try:
            for tally, made in pool.map(partial(_finish_bucket, layout, runs, Lock()), range(layout.n_buckets)):
                total = add_tallies(total, tally)
                rows += tally["rows"]
                if made:  # who stops at a time limit must have come further than the last time
                    progress((layout.rows + rows) // 2, layout.rows)
        finally:
            pool.shutdown(cancel_futures=True)
    return total


def _finish_bucket(layout: ShuffleLayout, runs: Runs, reading: Lock, number: int) -> tuple[Tally, bool]:
    """Write a bucket unless it is there; return what it holds, and whether it was written now."""
    digits = max(5, len(str(layout.n_buckets)))
    done = runs.work / f"_done-{number:0{digits}}.json"
    tally: Tally | None = _read_json(done).get("tally")
    if tally is not None:
        return tally, False
    tally = _write_bucket(layout, runs, reading, runs.work / f"part-{number:0{digits}}.parquet", number)
    _write_json(done, {"tally": tally})
    return tally, True


def _write_bucket(layout: ShuffleLayout, runs: Runs, reading: Lock, path: Path, number: int) -> Tally:
    with reading:
        table, keys = runs.bucket(number)
    order = np.argsort(keys, kind="stable")  # equal keys in the order of the data
    table = table.take(pa.array(order))
    if table.num_rows:
        with whole_file(path) as sink:
            BucketWriter(layout.schema, layout.group_rows).write(table, sink)
    elif path.exists():
        path.unlink()
    return tally_of(table)
