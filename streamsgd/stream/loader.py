"""One piece of the plan into its part of a block: read, check, hold out, shuffle, scatter."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa

from streamsgd.data.dataset import require
from streamsgd.data.schemas import require_filled
from streamsgd.data.sizes import group_widths
from streamsgd.data.source import WHOLE_BYTES
from streamsgd.data.timings import Timings
from streamsgd.data.types import WHAT, fits
from streamsgd.errors import DataError, UnreadableError
from streamsgd.features.column import Destination
from streamsgd.features.conform import conform
from streamsgd.features.encoder import Encoder
from streamsgd.features.frequent import COUNTED_BYTES, COUNTED_ROWS, ValueCounter
from streamsgd.features.target import (
    Target,
    check_weight,
    describe_bad_target,
    reweighed,
    target_sums,
)
from streamsgd.kernels.encode.shuffle import place
from streamsgd.messages import counted
from streamsgd.planning.sums import dot
from streamsgd.stream.cache import digest_of
from streamsgd.stream.chunk import LoadedPiece, join_pieces
from streamsgd.stream.controls import RowFacts, facts_of, flat, join_facts
from streamsgd.stream.encoded import Encoded
from streamsgd.stream.held import NOTHING_HELD, HeldOut

if TYPE_CHECKING:
    from streamsgd.data.dataset import Dataset
    from streamsgd.data.reading import TypedReader
    from streamsgd.features.encoding import Encoding
    from streamsgd.features.layout import Layout
    from streamsgd.kernels.structs.block import Block
    from streamsgd.planning.chunks import Piece
    from streamsgd.stream.cache import RowCache


def check_loader(recipe: Loader, what: str = "the data") -> Loader:
    """Return the recipe if the data, which messages call `what`, has every column it needs, of a type it can use.

    Raises
    ------
    DataError
        It has not.

    """
    names = list(recipe.encoding.sources)
    extra = [recipe.target.name] if recipe.target else []
    extra += [recipe.weight] if recipe.weight else []
    for name in extra:
        if name not in recipe.dataset.schema.names:
            role = "to be predicted: write it there"
            if name == recipe.weight:
                role = "the weight of each row: write it there, as 1 where all count alike, or leave --weight out"
            raise DataError(f"{what} has no column {name!r}, {role}")
        kind = recipe.dataset.schema.field(name).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if name == recipe.weight:
            check_weight(name, kind)
        of_text = recipe.target is not None and name == recipe.target.name and recipe.target.of_text
        if not fits("text" if of_text else "number", kind):
            needed = WHAT["text" if of_text else "number"]
            place = f"{what}{recipe.dataset.whose(name)}"
            raise DataError(f"column {name!r} of {place} is of type {kind}; the model needs {needed}")
    dataset = conform(recipe.encoding, recipe.dataset, nulls=recipe.nulls_for_missing, others=extra, what=what)
    require_filled(dataset, extra)
    require(dataset, [*names, *extra], nulls=names if recipe.nulls_for_missing else ())
    return replace(recipe, dataset=dataset)


@dataclass
class Loader:
    """Everything that turns a piece into rows of a block; the same in every process."""

    dataset: Dataset
    encoding: Encoding
    target: Target | None
    weight: str | None = None
    filter: Any = None
    filter_columns: tuple[str, ...] = ()
    held: HeldOut = NOTHING_HELD
    tile_rows: int = 1024
    skip_bad_rows: bool = False
    skip_unreadable: bool = False
    infinite_is_missing: bool = False
    missing: tuple[str, ...] = ()
    """The setting of that name: where it says `error`, a missing number is one, in whatever row."""
    counts_unseen: bool = False
    """Whether rows whose class is none of the target's are left out and counted, not refused."""
    precision: str = "float32"
    names_values: bool = False
    """Whether the most frequent values of hashed columns are wanted."""
    at_once: int = WHOLE_BYTES
    """Decoded bytes up to which a piece is read at once."""
    by_entries: bool = False
    """Whether rows are wanted as lists of entries even if they hold numbers only."""
    poisoned: frozenset[int] = frozenset()
    """Row groups that killed whoever read them; never opened again. See `training.backends.poison`."""
    nulls_for_missing: bool = False
    """Whether a feature that a file lacks is null there."""
    cache: RowCache | None = None
    """Of encoded rows, for later passes."""
    class_weights: tuple[float, ...] = ()
    """Of rows to learn from, by class, beside their own; nothing where all count alike."""
    held_class_weights: tuple[float, ...] = ()
    """The same of rows held out."""
    by: str | None = None
    """Column by whose values rows are told apart."""

    def __getstate__(self) -> dict[str, Any]:
        """Leave behind what every process makes for itself."""
        return {key: value for key, value in self.__dict__.items() if key not in ("layout", "reader", "encoder", "digest")}

    @cached_property
    def layout(self) -> Layout:
        """How its rows lie in memory."""
        return self.encoding.layout(mixed=self.by_entries)

    @cached_property
    def reader(self) -> TypedReader:
        """The reader of this process."""
        reader = self.dataset.reader(at_once=self.at_once)
        reader.tells = True
        return reader

    @cached_property
    def encoder(self) -> Encoder:
        """The encoding made ready."""
        return Encoder(self.encoding)

    @cached_property
    def digest(self) -> str:
        """What changes if a piece may come to other rows, for the cache."""
        data, own = self.dataset, uuid.uuid4().hex if self.encoding.custom else ""  # code of one's own leaves no trace
        choices = [self.weight, self.filter, self.held, self.skip_bad_rows, self.skip_unreadable, self.missing]
        choices += [self.infinite_is_missing, self.counts_unseen, self.precision, self.names_values, self.by_entries]
        choices += [self.class_weights, self.held_class_weights]
        words = [own, data.fingerprint, str(data.schema), *map(str, [*choices, self.nulls_for_missing, self.target])]
        words += [f"{ref.name} {ref.size} {ref.stamp}" for ref in data.source.files]
        words.append("" if own else msgspec.json.encode(self.encoding).decode())
        return digest_of(words, [data.file, data.index, data.rows])

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that is read."""
        return tuple(dict.fromkeys([*self.encoding.sources, *self.controls]))

    @property
    def controls(self) -> tuple[str, ...]:
        """Columns that say which rows are learned, as what."""
        others = [self.target.name] if self.target else []
        others += [self.weight] if self.weight else []
        others += [self.by] if self.by else []
        return (*others, *self.filter_columns, *self.held.columns)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row in a block: features, target, weight."""
        return self.layout.row_bytes(self.precision)

    @property
    def tail_bytes(self) -> int:
        """Bytes of texts and lists that a row is expected to have beside its block."""
        return self.layout.tail_bytes

    @property
    def sources(self) -> tuple[str, ...]:
        """The columns that are encoded."""
        return self.encoder.sources

    @property
    def dictionaries(self) -> frozenset[str]:
        """Those of them to read as dictionaries, where that can be."""
        return self.encoder.dictionaries

    def allocate(self, n_rows: int) -> Any:
        """Return an empty block of that many rows, at least two: columns of one row are of another type to kernels."""
        return self.layout.allocate(max(2, n_rows), self.precision)

    def load(self, piece: Piece, block: Block, key: np.uint64, *, shuffled: bool) -> LoadedPiece:
        """Read one piece into its rows of the block.

        Raises
        ------
        DataError
            The piece cannot be read, or holds values that the settings do not allow.

        """
        spent = Timings()
        try:
            self._check_poison(piece)
            if (known := self._known(piece, block, key, spent, shuffled=shuffled)) is not None:
                return known
            with self.reader.together(piece, self.columns):
                return self._load(piece, block, key, shuffled, spent)
        except UnreadableError as error:
            if piece.last - piece.first > 1:
                return self._one_by_one(piece, block, key, shuffled)
            if not self.skip_unreadable:
                raise
            empty = np.zeros(0, np.int64)
            return LoadedPiece(empty, empty, empty, skipped=piece.rows, problem=error.problem, spent=spent)

    def _load(self, piece: Piece, block: Block, key: np.uint64, shuffled: bool, spent: Timings) -> LoadedPiece:
        facts, labels = self._facts(piece, spent)
        began = time.perf_counter()
        wanted, unseen, y, weight = facts.wanted, facts.unseen, facts.y, facts.weight
        keep = wanted & self._targets(piece, facts, wanted & ~unseen)
        held = self.held.rows(self.dataset, piece, {}) if facts.held is None else facts.held
        loaded, dest = self._placed(piece, keep, held, key, shuffled=shuffled)
        loaded.spent = spent
        loaded.filtered = piece.rows - int(wanted.sum())
        loaded.unseen = int(unseen.sum())
        loaded.skipped = int(wanted.sum()) - int(keep.sum()) - loaded.unseen
        self.note(loaded, piece, key, facts, keep)
        weight = reweighed(y, weight, held, self.class_weights, self.held_class_weights)
        loaded.targets = self.sums_of(y, weight, keep & ~held)
        if facts.codes is not None:
            loaded.labels, loaded.codes = labels, np.empty(int((dest >= 0).sum()), np.int32)
            loaded.codes[dest[dest >= 0] - piece.rows_before] = facts.codes[dest >= 0]
        spent.encode += time.perf_counter() - began
        loaded.missing = self._rows(piece, block, dest, y, weight, loaded=loaded)
        if self.cache is not None:
            began = time.perf_counter()
            self.cache.offer(self.digest, piece, Encoded(loaded, block, dest, keep, held))
            spent.cache += time.perf_counter() - began
        return loaded

    def note(self, loaded: LoadedPiece, piece: Piece, key: np.uint64, facts: RowFacts, keep: np.ndarray) -> None:
        """Note more of a piece that is being loaded, and which of its rows are kept."""

    def sums_of(self, y: np.ndarray | None, weight: np.ndarray | None, mine: np.ndarray) -> np.ndarray | None:
        """Return sums of the targets of some rows, if there are targets."""
        if not self.target or y is None:
            return None
        some = slice(None) if mine.all() else mine
        return target_sums(len(self.target.classes), y[some], None if weight is None else weight[some])

    def _placed(
        self, piece: Piece, keep: np.ndarray, held: np.ndarray, key: np.uint64, *, shuffled: bool
    ) -> tuple[LoadedPiece, np.ndarray]:
        """Return the tiles of a piece, and the place in the block of each of its rows, int32, -1 for those not kept."""
        starts, counts, helds = np.zeros((3, -(-piece.rows // self.tile_rows)), np.int64)
        dest, members = np.empty(piece.rows, np.int32), np.empty(self.tile_rows, np.int32)
        place(keep, held, self.tile_rows, piece.rows_before, key, shuffled, dest, starts, counts, helds, members)
        return LoadedPiece(starts, counts, helds), dest

    def _known(self, piece: Piece, block: Block, key: np.uint64, spent: Timings, *, shuffled: bool) -> LoadedPiece | None:
        """Return a piece from the cache, as reading it would; None if it is not there, or damaged."""
        began = time.perf_counter()
        if self.cache is None or self.by is not None or (rows := self.cache.find(self.digest, piece, block)) is None:
            return None
        keep = np.ones(piece.rows, np.bool_) if rows.keep is None else rows.keep
        held = np.zeros(piece.rows, np.bool_) if rows.held is None else rows.held
        loaded, dest = self._placed(piece, keep, held, key, shuffled=shuffled)
        pools = self.cache.place(rows, dest, piece.rows_before, block)
        spent.cache += time.perf_counter() - began
        if pools is None:
            return None
        spent.cached_rows += piece.rows
        return replace(loaded, pools=pools, spent=spent, **rows.facts._asdict())

    def _check_poison(self, piece: Piece) -> None:
        if not self.poisoned.isdisjoint(range(piece.first, piece.last)):
            raise UnreadableError(self.poison_message(piece))

    def poison_message(self, piece: Piece) -> str:
        """Return why a piece is never read."""
        return (
            f"{self.dataset.source.where(piece)}: killed one worker after another, alone and again; look at their logs (out of "
            "memory, or a crash of a codec), or pass --unreadable skip to leave it out and count it"
        )

    def _one_by_one(self, piece: Piece, block: Block, key: np.uint64, shuffled: bool) -> LoadedPiece:
        """Load the row groups of a merged piece apart, so that only the damaged ones are named, or left out."""
        parts, at = [], piece.rows_before
        for group in range(piece.first, piece.last):
            rows = int(self.dataset.rows[group])
            alone = replace(piece, first=group, last=group + 1, start=0, stop=rows, rows_before=at)
            if rows:
                parts.append(self.load(alone, block, key ^ np.uint64(group - piece.first), shuffled=shuffled))
                at += int(parts[-1].counts.sum() + parts[-1].helds.sum())
        return join_pieces(parts, len(self.target.classes) if self.target else 0)

    def _facts(self, piece: Piece, spent: Timings) -> tuple[RowFacts, list[str]]:
        """Return what decides of each row, and the labels by which rows are told apart."""
        ordered, labels, parts, at = tuple(sorted(set(self.controls))), dict[str, int](), list[RowFacts](), 0
        if not ordered:
            return facts_of(self, piece, {}, labels), []
        for part in self.reader.read(piece, ordered, spent):
            columns = dict(zip(ordered, map(flat, part), strict=True))
            some = replace(piece, start=at, stop=at + len(part[0]))
            parts.append(facts_of(self, some, columns, labels))
            at = some.stop
        return join_facts(parts), list(labels)

    def folds(self, piece: Piece, columns: dict[str, Any]) -> np.ndarray | None:
        """Return the fold of each row, where runs leave out one and columns decide which."""

    def _targets(self, piece: Piece, facts: RowFacts, wanted: np.ndarray) -> np.ndarray:
        """Return which rows have a target and a weight."""
        usable = np.ones(piece.rows, np.bool_)
        if self.target and facts.y_good is not None:
            self._check(piece, self.target.name, wanted & ~facts.y_good, describe_bad_target(self.target))
            usable &= facts.y_good
        if self.weight and facts.weight_good is not None:
            rule = "weights must be finite numbers of at least 0, and at most 1e12"
            self._check(piece, self.weight, wanted & ~facts.weight_good, rule)
            usable &= facts.weight_good
        return usable

    def _check(self, piece: Piece, name: str, bad: np.ndarray, rule: str) -> None:
        if bad.any() and not self.skip_bad_rows:
            first = self.dataset.source.where_row(piece, int(np.flatnonzero(bad)[0]))
            raise DataError(
                f"{self.dataset.source.where(piece)}: column {name!r} is null, NaN or out of range in "
                f"{counted(int(bad.sum()), 'row')}, first in {first}; {rule}. Clean it, or pass --bad-rows skip to leave such "
                "rows out and count them"
            )

    def _rows(
        self,
        piece: Piece,
        block: Block,
        dest: np.ndarray,
        y: np.ndarray | None,
        weight: np.ndarray | None,
        *,
        loaded: LoadedPiece,
    ) -> int:
        at, n_missing, spent = 0, 0, loaded.spent
        first = ValueCounter(self.encoder, self._first_rows(piece)) if self.names_values else None
        for columns in self.reader.read(piece, self.sources, spent, self.dictionaries):
            began = time.perf_counter()
            if first:
                first.add(columns)
            some = slice(at, at + len(columns[0]))
            rows = Destination(dest[some], block, None if y is None else y[some], None if weight is None else weight[some])
            n_missing += self.scatter(piece, columns, rows, loaded)
            at = some.stop
            spent.encode += time.perf_counter() - began
        if first:
            loaded.common = first.counts()
        return n_missing

    def scatter(self, piece: Piece, columns: list[Any], rows: Destination, loaded: LoadedPiece) -> int:
        """Encode some rows of a piece into their places; return how many values were missing.

        Raises
        ------
        DataError
            There are values that the settings do not allow.

        """
        found = self.encoder.scatter(columns, *rows)
        if not self.infinite_is_missing:
            self.encoder.check_infinite(found.infinite, self.dataset.source.where(piece), columns)
        if self.missing:
            self.encoder.check_missing(found.missing, self.missing, self.dataset.source.where(piece))
        loaded.pools += found.pools
        return int(found.missing.sum()) + int(found.infinite.sum())

    def _first_rows(self, piece: Piece) -> int:
        """Return how many rows of a piece have their values counted: however it is read, the same."""
        some = slice(piece.first, piece.last)
        rows = self.dataset.rows[some]
        width = dot(rows, group_widths(self.dataset, self.encoder.sources, some)) / max(1, int(rows.sum()))
        return min(COUNTED_ROWS, piece.rows, max(1, int(COUNTED_BYTES / max(1.0, width))))
