"""Scoring: Parquet in, Parquet out, one output per input file, in bounded memory, safe to kill and start again."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from streamsgd.compute.executors import Inline
from streamsgd.compute.local_files import clear_unfinished, only_writer, whole_file
from streamsgd.compute.memory import MemorySlots
from streamsgd.data.ids import id_fields, read_ids
from streamsgd.data.open import is_by_file
from streamsgd.data.shuffled.shuffle_files import repeating
from streamsgd.data.shuffled.stamps import stamp_of
from streamsgd.data.stores.files import NoFilesError
from streamsgd.data.stores.filesystems import first_line, local_or_remote_output, locate
from streamsgd.data.stores.output import first_read
from streamsgd.errors import DataError, ModelError, SettingsError
from streamsgd.features.names import expand
from streamsgd.model.explaining.contributions import Contributions
from streamsgd.model.manifest import Outputs, enlist
from streamsgd.model.manifest import prune as prune_outputs
from streamsgd.model.marks import MARK, STAMP, mark_of, marks_of
from streamsgd.model.options import NO_OPTIONS, ScoringOptions
from streamsgd.model.outputs import beside, own_names, score_columns
from streamsgd.model.posterior.intervals import IntervalColumns
from streamsgd.model.score_stream import open_for, say_none_left, scoring_loader
from streamsgd.stream.joint import joint_loader
from streamsgd.stream.stats import Account
from streamsgd.stream.stream import sequential_stream

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence

    from streamsgd.compute.executors import Executor
    from streamsgd.data.dataset import Dataset
    from streamsgd.model.predictor import Predictor
    from streamsgd.planning.chunks import Piece
    from streamsgd.stream.chunk import LoadedChunk
    from streamsgd.stream.loader import Loader


log = logging.getLogger("streamsgd")


@dataclass
class Scored:
    """What a scoring run wrote."""

    files: int = 0
    already_there: int = 0
    rows: int = 0
    pruned: int = 0
    """Outputs deleted because their input is gone."""


@dataclass
class ParquetPredictor:
    """Writes the predictions of one model, or of several, for one data set."""

    columns: tuple[Any, ...]
    """`ScoreColumns` or `Contributions`: what it writes of each model; the first one's encoding is that of the recipe."""
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
    """The models as they are stored: outputs say which made them."""
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
        state = {key: value for key, value in self.__dict__.items() if key not in ("_place", "filesystem", "paths")}
        return state | {"account": Account(), "client": None, "executor": Inline()}

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
        columns = tuple(some.with_own_weights() for some in self.columns)
        return replace(self, columns=columns, dataset=dataset, recipe=recipe, account=Account(), on_worker=True)

    def _check_paths(self) -> None:
        source = self.dataset.source
        same = locate(self.out).uri == source.uri
        if same and _lies_among(self._place[1], source.files):
            log.warning(
                "%s lies in the folder of the data: whoever reads that folder again reads scores as data; choose one beside "
                "it, or a name that begins with _, which is passed over",
                self.out,
            )
        if same and (path := first_read(self.paths, source)):
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
                    for table in self._predictions(filled, piece, n):
                        yield file, table
                self.account.add(filled)

    def _predictions(self, filled: LoadedChunk, piece: Piece, n: int) -> Iterator[Any]:
        start, file = piece.rows_before, int(self.dataset.file[piece.first])
        blocks = filled.block if len(self.columns) > 1 else (filled.block,)
        scored = [some.score(block, start, start + n) for some, block in zip(self.columns, blocks, strict=True)]
        if not n or not self.ids:
            none = {f.name: pa.nulls(0, f.type) for f in id_fields(self.dataset, file, self.ids)}
            yield beside([*([pa.table(none)] if none else []), *scored])
            return
        at, recipe = 0, self.recipe
        for ids in read_ids(recipe.dataset, recipe.reader, piece, self.ids, recipe.filter):
            some = pa.table(ids)
            yield beside([some, *(table.slice(at, some.num_rows) for table in scored)])
            at += some.num_rows
        if at != n:
            raise AssertionError(f"{self.dataset.source.where(piece)}: {at:,} ids of {n:,} rows")

    def _schema(self, file: int) -> Any:
        fields = id_fields(self.dataset, file, self.ids)
        return pa.schema([*fields, *(field for some in self.columns for field in some.fields())])

    def _write(self, file: int, tables: Iterator[Any]) -> int:
        path, rows = self.paths[file], 0
        schema = self._schema(file).with_metadata({MARK: self._mark(file), STAMP: self._stamp(file)})
        try:
            with self._sink(path) as sink, pq.ParquetWriter(sink, schema, use_dictionary=repeating(schema)) as writer:
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
        return digest.hexdigest().encode()

    def _is_done(self, file: int) -> bool:
        said = marks_of(self.filesystem, self.paths[file])
        if said.get(MARK) != self._mark(file):
            return False
        if said.get(STAMP, self._stamp(file)) == self._stamp(file):
            return True
        log.warning(
            "%s was written since it was scored, though its size and footer are the same: it is scored again",
            self.dataset.source.files[file].name,
        )
        return False

    def _stamp(self, file: int) -> bytes:
        return stamp_of(self.dataset.source.files[file : file + 1]).encode()

    def enlist(self, *, prune: bool) -> int:
        """Add the outputs to the list of their folder; delete those whose input is gone if asked to; return how many."""
        folder, source = Outputs(*self._place), self.dataset.source
        if self.paths == [folder.root]:
            return 0
        outputs = {path[len(folder.root) + 1 :]: ref.path for path, ref in zip(self.paths, source.files, strict=True)}
        enlist(folder, outputs, source.uri)
        return len(_pruned(folder, outputs, source.uri)) if prune else 0


def _lies_among(out: str, files: Sequence[Any]) -> bool:
    """Whether a folder lies below that of the data, of which listing it again would find what is written."""
    first = files[0] if len(files) > 1 else None  # of one file nobody knows whether its folder was meant
    root = first.path.removesuffix(f"/{first.name}") if first is not None else ""
    inside = out.removeprefix(f"{root}/") if root and out.startswith(f"{root}/") else ""
    return bool(inside) and not any(part.startswith(("_", ".")) for part in inside.split("/"))


def _pruned(folder: Outputs, outputs: Mapping[str, str], uri: str) -> list[str]:
    return prune_outputs(
        folder, outputs, uri, is_ours=lambda name: mark_of(folder.filesystem, f"{folder.root}/{name}") is not None
    )


def _nothing(out: str, error: NoFilesError, *, prune: bool) -> Scored:
    """Score a folder without a file: its outputs are none."""
    if out.endswith(".parquet"):
        raise error
    log.warning("%s: there is nothing to score", error)
    folder = Outputs(*local_or_remote_output(out))
    return Scored(pruned=len(_pruned(folder, {}, locate(error.place).uri)) if prune else 0)


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
    intervals: float | None = None,
    also: Mapping[str, Predictor] | None = None,
    prune: bool = False,
    explained: bool = False,
) -> Scored:
    """Write predictions for a data set; see `ParquetPredictor.run`. `ids` defaults to those of training that the data has.

    With a client its workers write, a file each, each within the memory given.

    Infinite features are what they were in training: an error, or missing. The models of `also` score the same rows as they are
    decoded, into columns with their names before them. With `prune`, outputs whose input is gone are deleted. What is
    `explained` says of every row what each column adds to its score; `intervals` is the level of those of the first model.
    """
    if not is_by_file(data):
        raise SettingsError(
            "explain writes one file for each file: write the table as Parquet first"
            if explained
            else "predict writes one file for each file; for a table use model.predict(table), for a Dask DataFrame "
            "frame.map_partitions(model.predict)"
        )
    try:
        dataset, expression, columns = open_for(model, data, filter_text, empty=True)
    except NoFilesError as error:
        return _nothing(out, error, prune=prune)
    scores: tuple[Any, ...] = (Contributions(model),) if explained else score_columns(model, also or {})
    if intervals is not None:
        scores = (IntervalColumns(model, intervals), *scores[1:])
    trained = [name for name in model.settings.get("id", ()) if name in dataset.schema.names]
    chosen = expand(tuple(trained) if ids is None else ids, list(dataset.schema.names))
    if clash := own_names(scores) & set(chosen):
        raise DataError(f"id column {min(clash)!r} has the name of an output column; rename it or leave it out of --id")
    recipe = scoring_loader(model, dataset, expression, columns, options)
    if also:
        recipe = joint_loader(recipe, [scoring_loader(other, recipe.dataset, None, (), options) for other in also.values()])
    dataset = recipe.dataset
    each = 2 * block_bytes + dataset.source.cost(recipe.encoding.sources, recipe.at_once).per_thread
    predictor = ParquetPredictor(
        scores,
        dataset,
        out,
        chosen,
        recipe,
        executor,
        block_bytes,
        account or Account(),
        client,
        MemorySlots(memory, each),
        b"".join(f"{some.prefix}{some.mark}".encode() + some.model.to_bytes() for some in scores),
    )
    scored = predictor.run()
    if filter_text and not scored.rows and not scored.already_there:
        say_none_left(filter_text, dataset.n_rows, predictor.account.filtered)
    scored.pruned = predictor.enlist(prune=prune)
    return scored


def score_on_worker(scorer: ParquetPredictor, file: int) -> tuple[int, Account]:
    """Score one file; return its rows and the account of it."""
    alone = scorer.alone(file)
    with scorer.turns or contextlib.nullcontext():
        (rows,) = alone._here()  # noqa: SLF001  its own class
    return rows, alone.account


def _by_file(tables: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, Iterator[Any]]]:
    """Group consecutive tables by file; each group must be used up before the next is asked for."""
    from itertools import groupby  # noqa: PLC0415

    for file, group in groupby(tables, key=lambda pair: pair[0]):
        yield file, (table for _, table in group)


def _as_parquet(name: str) -> str:
    return name if name.endswith(".parquet") else f"{name}.parquet"
