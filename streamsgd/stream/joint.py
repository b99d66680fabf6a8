"""One decode for several encodings: rows of the same pieces in the blocks of several loaders."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from streamsgd.errors import DataError
from streamsgd.stream.loader import Loader, check_loader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamsgd.features.column import Destination
    from streamsgd.planning.chunks import Piece
    from streamsgd.stream.chunk import LoadedPiece


@dataclass
class JointLoader(Loader):
    """A loader whose rows are encoded by others too: what it allocates is a tuple of blocks, its own first.

    Target, weight, filter and what is skipped are its own; a row has the same place in every block. Others that have a target
    get the same one, in their own units.
    """

    others: tuple[Loader, ...] = ()

    @cached_property
    def _sources(self) -> tuple[str, ...]:
        names = [name for loader in self.others for name in loader.encoder.sources]
        return tuple(dict.fromkeys([*self.encoder.sources, *names]))

    def __getstate__(self) -> dict[str, Any]:
        """Leave behind what every process makes for itself."""
        return {key: value for key, value in super().__getstate__().items() if key != "_sources"}

    @property
    def sources(self) -> tuple[str, ...]:
        """The columns that are encoded, by whichever loader."""
        return self._sources

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that is read."""
        return tuple(dict.fromkeys([*self.sources, *super().columns]))

    @property
    def dictionaries(self) -> frozenset[str]:
        """Columns that all who encode them take as dictionaries."""
        plain = {name for one in self._every for name in one.sources if name not in one.dictionaries}
        return frozenset(name for one in self._every for name in one.dictionaries) - plain

    @property
    def _every(self) -> list[Any]:
        return [self.encoder, *(loader.encoder for loader in self.others)]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row in all blocks."""
        return super().row_bytes + sum(loader.row_bytes for loader in self.others)

    @property
    def tail_bytes(self) -> int:
        """Bytes of texts and lists that a row is expected to have beside its blocks."""
        return super().tail_bytes + sum(loader.tail_bytes for loader in self.others)

    def allocate(self, n_rows: int) -> tuple[Any, ...]:
        """Return empty blocks of that many rows."""
        return (super().allocate(n_rows), *(loader.allocate(n_rows) for loader in self.others))

    def scatter(self, piece: Piece, columns: list[Any], rows: Destination, loaded: LoadedPiece) -> int:
        """Encode some rows of a piece into their places in every block; return how many values were missing."""
        named, blocks = dict(zip(self.sources, columns, strict=True)), rows.block
        own = rows._replace(block=blocks[0])
        missing = super().scatter(piece, [named[name] for name in self.encoder.sources], own, loaded)
        for loader, block in zip(self.others, blocks[1:], strict=True):
            theirs = rows._replace(block=block, y=self._target_for(loader, rows.y))
            missing += loader.scatter(piece, [named[name] for name in loader.encoder.sources], theirs, loaded)
        return missing

    def _target_for(self, loader: Loader, y: Any) -> Any:
        """Return targets of this encoding as another loader has them, if it wants any."""
        mine, theirs = self.target, loader.target
        if y is None or mine is None or theirs is None or mine.task != "regression":
            return y if theirs is not None else None
        return (y / mine.scale + mine.shift - theirs.shift) * theirs.scale


def joint_loader(first: Loader, others: Sequence[Loader]) -> JointLoader:
    """Return a loader for several encodings of one data set.

    Parameters
    ----------
    first
        Checked; its target, weight and filter hold.
    others
        Their data set is that of the first, and so are targets, if they have any.

    Raises
    ------
    DataError
        The data lacks a column of one, or a column is of another type to one than to another.

    """
    dataset, checked = first.dataset, list[Loader]()
    for other in others:
        one = check_loader(replace(other, dataset=dataset))
        for name in one.encoding.sources:
            was, now = dataset.schema.field(name).type, one.dataset.schema.field(name).type
            known = {name for loader in (first, *checked) for name in loader.columns}
            if name in known and was != now:
                raise DataError(f"column {name!r} is {was} to one of the models and {now} to another: score them one by one")
        dataset = one.dataset
        checked.append(one)
    fields = {name: getattr(first, name) for name in first.__dataclass_fields__}
    others = tuple(replace(one, dataset=dataset) for one in checked)
    return JointLoader(**{**fields, "dataset": dataset, "others": others})
