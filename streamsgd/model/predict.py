"""Scoring: Parquet in, Parquet out, one output per input file, in bounded memory, safe to kill and start again."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from streamsgd.compute.executors import Inline, reading
from streamsgd.compute.local_files import clear_unfinished, only_writer, whole_file
from streamsgd.compute.memory import MemorySlots, parse_limit
from streamsgd.data.filesystems import first_line, local_or_remote_output, locate
from streamsgd.data.ids import id_fields, read_ids
from streamsgd.data.open import is_by_file, open_data
from streamsgd.errors import DataError, ModelError, SettingsError
from streamsgd.features.names import expand
from streamsgd.model.intervals import Intervals
from streamsgd.model.options import NO_OPTIONS, ScoringOptions
from streamsgd.model.outputs import RESERVED, prediction_columns, prediction_fields
from streamsgd.stream.loader import Loader, check_loader
from streamsgd.stream.stats import Account
from streamsgd.stream.stream import sequential_stream

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    from streamsgd.compute.executors import Executor
    from streamsgd.data.dataset import Dataset
    from streamsgd.model.predictor import Predictor
    from streamsgd.planning.chunks import Piece
    from streamsgd.stream.chunk import LoadedChunk


SCORING_BLOCK_SHARE = 1 / 16
"""Share of the memory limit that each of the two blocks of a scoring run takes, up to `SCORING_BLOCK_BYTES`."""

SCORING_BLOCK_BYTES = 64 << 20


def scoring_block_bytes(memory: str | None) -> int:
    """Return the bytes of a block of rows that are scored, within a memory limit."""
    return int(min(SCORING_BLOCK_BYTES, parse_limit(memory) * SCORING_BLOCK_SHARE))


MARK = b"streamsgd"
"""Key in an output's Parquet metadata that says from which model and input it was made."""


@dataclass
class Scored:
    """What a scoring run wrote."""

    files: int = 0
    already_there: int = 0
    rows: int = 0


@dataclass
class ParquetPredictor:
    """Writes the predictions of one model for one data set."""

    model: Predictor
    dataset: Dataset
    out: str
    ids: tuple[str, ...]
    recipe: Loader
    executor: Executor
    block_bytes: int
    account: Account
    client: Any = None
    """Of distributed, whose workers score; None for this process."""
    turns: MemorySlots | None = None
    """Of a worker."""
    model_bytes: bytes = b""
    """The model as it is stored: outputs say which model made them."""
    intervals: float | None = None
    """Level of intervals, if there are to be any."""
    on_worker: bool = False
    """Whether this is a worker, which shares the files with others."""

    def run(self) -> Scored:
        """Score every file that has no finished output yet.

        Raises
        ------
        DataError, ModelError
            The input cannot be read, the output cannot be written; finished files stay.

        """
        n_files = self.dataset.n_files
        self._check_paths()
        self._clear(range(n_files))
        done = np.array([self._is_done(file) for file in range(n_files)], np.bool_)
        result = Scored(already_there=int(done.sum()))
        has_rows = np.bincount(self.dataset.file, self.dataset.rows, n_files) > 0
        for file in np.flatnonzero(~done & ~has_rows).tolist():
            self._write(file, iter(()))
            result.files += 1
        if (~done & has_rows).any():
            self.dataset = self.dataset.select(~done[self.dataset.file])
            self.recipe = replace(self.recipe, dataset=self.dataset)
            self.account.start(self.dataset.n_rows)
            left_out = self.account.skipped + self.account.filtered
            written = self._here() if self.client is None else self._there(np.flatnonzero(~done & has_rows).tolist())
            for rows in written:
                result.rows += rows
                result.files += 1
            self.account.settle()
            left_out = self.account.skipped + self.account.filtered - left_out
            if result.rows + left_out != self.dataset.n_rows:
                raise AssertionError(f"{self.dataset.n_rows:,} rows: {result.rows:,} written and {left_out:,} left out")
        return result

    def __getstate__(self) -> dict[str, Any]:
        """Leave behind what belongs to this process."""
        state = {
            key: value for key, value in self.__dict__.items() if key not in ("_place", "_intervals", "filesystem", "paths")
        }
        return state | {"account": Account(), "client": None, "executor": Inline()}

    @cached_property
    def _intervals(self) -> Intervals | None:
        return None if self.intervals is None else Intervals(self.model, self.intervals)

    @cached_property
    def _place(self) -> tuple[Any, str]:
        return local_or_remote_output(self.out)

    @cached_property
    def filesystem(self) -> Any:
        """Where outputs go."""
        return self._place[0]

    @cached_property
    def paths(self) -> list[str]:
        """The output of each file."""
        root, names = self._place[1], [ref.name for ref in self.dataset.source.files]
        if len(names) == 1 and root.endswith(".parquet"):
            return [root]
        return [f"{root}/{_as_parquet(name)}" for name in names]

    def _here(self) -> Iterator[int]:
        """Write file after file; yield the rows of each."""
        with contextlib.closing(self._tables()) as tables:
            for file, some in _by_file(tables):
                yield self._write(file, some)

    def _there(self, files: list[int]) -> Iterator[int]:
        """Let workers write a file each; yield the rows of each."""
        from streamsgd.compute.task_map import TaskMap, TaskSpec  # noqa: PLC0415

        names = [ref.name for ref in self.dataset.source.files]
        kind = TaskSpec("predict", score_on_worker, lambda file: f"file{file}", lambda file: names[file])
        answers = TaskMap(self.client, kind, (self,)).each(files)
        try:
            with contextlib.closing(answers):
                for rows, account in answers:
                    self.account.take(account)
                    yield rows
        finally:
            self._clear(files)

    def _clear(self, files: Iterable[int]) -> None:
        """Remove what a run or a worker that was killed left of these files."""
        if self.filesystem.type_name != "local":
            return
        names: dict[str, list[str]] = {}
        for file in files:
            folder, _, name = self.paths[file].rpartition("/")
            names.setdefault(folder or ".", []).append(name)
        for folder, some in names.items():
            clear_unfinished(Path(folder), some)

    def alone(self, file: int) -> ParquetPredictor:
        """Return what scores one file only, in this process."""
        dataset = self.dataset.select(self.dataset.file == file)
        recipe = replace(self.recipe, dataset=dataset)
        model = self.model.with_own_weights()
        return replace(self, model=model, dataset=dataset, recipe=recipe, account=Account(), on_worker=True)

    def _check_paths(self) -> None:
        source = self.dataset.source
        inputs = {ref.path for ref in source.files} if locate(self.out).uri == source.uri else set()
        for path in self.paths:
            if path in inputs:
                raise SettingsError(f"{path}: the output would replace its own input; choose another folder with --out")
        if len({*self.paths}) < len(self.paths):
            twice = next(path for path in self.paths if self.paths.count(path) > 1)
            raise DataError(f"{twice}: would be the output of two files; rename one, or score them into two folders")

    def _tables(self) -> Generator[tuple[int, Any]]:
        with contextlib.closing(sequential_stream(self.recipe, self.executor, self.block_bytes).chunks()) as chunks:
            for filled in chunks:
                for piece, loaded in zip(filled.chunk.pieces, filled.pieces, strict=True):
                    n = int(loaded.counts.sum())
                    file = int(self.dataset.file[piece.first])
                    yield file, self._predictions(filled, piece, n)
                self.account.add(filled)

    def _predictions(self, filled: LoadedChunk, piece: Piece, n: int) -> Any:
        model, start = self.model, piece.rows_before
        scores, means, _ = model.score_block(filled.block, start, start + n)
        known = {} if self._intervals is None else self._intervals.of_block(filled.block, start, start + n, scores, means)
        means, scores = model.in_target_units(means), model.in_target_units(scores)
        columns = self._id_columns(piece) if n else {}
        if not n:
            fields = id_fields(self.dataset, int(self.dataset.file[piece.first]), self.ids)
            columns = {field.name: pa.nulls(0, field.type) for field in fields}
        columns |= prediction_columns(model, scores, means)
        columns |= known
        return pa.table(columns)

    def _id_columns(self, piece: Piece) -> dict[str, Any]:
        if not self.ids:
            return {}
        return read_ids(self.recipe.dataset, self.recipe.reader, piece, self.ids, self.recipe.filter)

    def _schema(self, file: int) -> Any:
        fields = id_fields(self.dataset, file, self.ids)
        fields += prediction_fields(self.model)
        fields += self._intervals.fields if self._intervals else []
        return pa.schema(fields)

    def _write(self, file: int, tables: Iterator[Any]) -> int:
        path, rows = self.paths[file], 0
        schema = self._schema(file).with_metadata({MARK: self._mark(file)})
        try:
            with self._sink(path) as sink, pq.ParquetWriter(sink, schema) as writer:
                for table in tables:
                    writer.write_table(table.cast(schema))
                    rows += table.num_rows
        except OSError as error:
            raise ModelError(
                f"{path}: cannot be written: {first_line(error)}; finished files stay, start again to go on"
            ) from error
        return rows

    @contextlib.contextmanager
    def _sink(self, path: str) -> Iterator[Any]:
        """Give what to write a file to, which is there only when it is complete."""
        if self.filesystem.type_name != "local":
            with self.filesystem.open_output_stream(path) as sink:  # an object shows when it is complete
                yield sink
            return
        place = Path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        # Two workers may be at one file, if one of them is taken for dead; two runs may not.
        alone = contextlib.nullcontext() if self.on_worker else only_writer(place, f"--out {path}")
        with alone, whole_file(place) as sink:
            yield sink

    def _mark(self, file: int) -> bytes:
        ref = self.dataset.source.files[file]
        recipe = self.recipe
        digest = hashlib.sha256(self.model_bytes)
        digest.update(self.dataset.source.mark(file))
        digest.update(f"{ref.name}\0{ref.size}\0{self.ids}\0{recipe.filter}\0{recipe.infinite_is_missing}".encode())
        digest.update(b"\0skip" * recipe.skip_unreadable)
        digest.update(b"" if self.intervals is None else f"\0intervals {self.intervals!r}".encode())
        return digest.hexdigest().encode()

    def _is_done(self, file: int) -> bool:
        try:
            with self.filesystem.open_input_file(self.paths[file]) as source:
                found = pq.read_schema(source).metadata or {}
        except (OSError, pa.ArrowInvalid):
            return False
        return found.get(MARK) == self._mark(file)


def score_data(
    model: Predictor,
    data: Any,
    out: str,
    *,
    executor: Executor,
    block_bytes: int,
    ids: tuple[str, ...] | None = None,
    filter_text: str | None = None,
    account: Account | None = None,
    client: Any = None,
    memory: str | None = None,
    options: ScoringOptions = NO_OPTIONS,
) -> Scored:
    """Write predictions for a data set; see `ParquetPredictor.run`. `ids` defaults to those of training that the data has.

    With a client its workers write, a file each, each within the memory given.

    Infinite features are what they were in training: an error, or missing.
    """
    if not is_by_file(data):
        raise SettingsError(
            "predict writes one file for each file; for a table use model.predict(table), for a Dask DataFrame "
            "frame.map_partitions(model.predict)"
        )
    dataset, expression, columns = _opened(model, data, filter_text)
    trained = [name for name in model.settings.get("id", ()) if name in dataset.schema.names]
    chosen = expand(tuple(trained) if ids is None else ids, list(dataset.schema.names))
    intervals = [] if options.intervals is None else [each.name for each in Intervals(model, options.intervals).fields]
    clash = {*RESERVED, *intervals, *(f"probability_{c}" for c in model.classes)} & set(chosen)
    if clash:
        raise DataError(f"id column {min(clash)!r} has the name of an output column; rename it or leave it out of --id")
    recipe = _recipe(model, dataset, expression, columns, options)
    dataset = recipe.dataset
    each = 2 * block_bytes + dataset.source.cost(recipe.encoding.sources, recipe.at_once).per_thread
    return ParquetPredictor(
        model,
        dataset,
        out,
        chosen,
        recipe,
        executor,
        block_bytes,
        account or Account(),
        client,
        MemorySlots(memory, each),
        model.to_bytes(),
        options.intervals,
    ).run()


def score_on_worker(scorer: ParquetPredictor, file: int) -> tuple[int, Account]:
    """Score one file; return its rows and the account of it."""
    alone = scorer.alone(file)
    with scorer.turns or contextlib.nullcontext():
        (rows,) = alone._here()  # noqa: SLF001  its own class
    return rows, alone.account


def score_rows(
    model: Predictor, data: Any, *, executor: Executor, block_bytes: int, filter_text: str | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield scores and means, (n, n_outputs) in block units, of some rows after others in the order of the data.

    Raises
    ------
    DataError
        The data cannot be read, or lacks a column.

    """
    recipe = _recipe(model, *_opened(model, data, filter_text))
    with contextlib.closing(sequential_stream(recipe, executor, block_bytes).chunks()) as chunks:
        for filled in chunks:
            for start, stop in filled.learned_runs():
                yield model.score_block(filled.block, start, stop)[:2]


def score_source(model: Predictor, source: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield scores and means, in block units, of the rows of Parquet, in its order, read by threads."""
    with reading("auto", None) as reader:
        yield from score_rows(model, source, executor=reader, block_bytes=scoring_block_bytes(None))


def _recipe(
    model: Predictor,
    dataset: Dataset,
    expression: Any,
    columns: tuple[str, ...],
    options: ScoringOptions = NO_OPTIONS,
) -> Loader:
    return check_loader(
        Loader(
            dataset,
            model.encoding,
            None,
            None,
            expression,
            columns,
            skip_unreadable=options.unreadable == "skip",
            infinite_is_missing=options.of(model, "infinite") == "missing",
            missing=tuple(model.settings.get("missing", ())),
            precision=str(model.weights.dtype),
            nulls_for_missing=model.settings.get("missing_columns") == "null",
        )
    )


def _opened(model: Predictor, data: Any, filter_text: str | None) -> tuple[Dataset, Any, tuple[str, ...]]:
    nulls = model.settings.get("missing_columns") == "null"
    return open_data(data, filter_text, trained=model.encoding.types, nulls=nulls)


def _by_file(tables: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, Iterator[Any]]]:
    """Group consecutive tables by file; each group must be used up before the next is asked for."""
    from itertools import groupby  # noqa: PLC0415

    for file, group in groupby(tables, key=lambda pair: pair[0]):
        yield file, (table for _, table in group)


def _as_parquet(name: str) -> str:
    return name if name.endswith(".parquet") else f"{name}.parquet"
