"""Readers of any source behind the one door of types: what they yield is of the types of the data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from streamsgd.data.normalise import deliver, refusal, tell_untold
from streamsgd.data.timings import Timings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from streamsgd.data.source import Reader, Source
    from streamsgd.planning.chunks import Piece


@dataclass
class TypedReader:
    """A `Reader` whose columns are of plain types, and mean in every file what they mean in the whole."""

    inner: Reader
    source: Source
    schema: Any
    """Of the data set."""
    tells: bool = False
    """Whether values that cannot be read are counted, and said at the end of a run."""

    def read(
        self, piece: Piece, columns: tuple[str, ...], timings: Timings, dictionaries: frozenset[str] = frozenset()
    ) -> Iterator[list[Any]]:
        """Yield the columns of a piece as lists of equally long Arrow columns: one list, or several after each other.

        Strings of `dictionaries` may come as dictionaries. A column that a file lacks is a column of nulls.

        Raises
        ------
        UnreadableError
            The bytes are damaged.
        DataError
            The rows cannot be read; or a value is not the same in the type that the data set, or training, has the column in.

        """
        for found in self._read(piece, columns, timings, dictionaries):
            yield [self._delivered(piece, name, column) for name, column in zip(columns, found, strict=True)]

    def read_stored(self, piece: Piece, columns: tuple[str, ...]) -> Iterator[list[Any]]:
        """Yield columns as `read` does, in the types of their file: what is copied and not understood."""
        yield from self._read(piece, columns, Timings(), frozenset())

    def _read(
        self, piece: Piece, columns: tuple[str, ...], timings: Timings, dictionaries: frozenset[str]
    ) -> Iterator[list[Any]]:
        there = frozenset(self.source.schema.names)
        stored = tuple(name for name in columns if name in there)
        if len(stored) == len(columns):
            yield from self.inner.read(piece, columns, timings, dictionaries)
            return
        parts = self.inner.read(piece, stored, timings, dictionaries) if stored else iter([[pa.nulls(piece.rows)]])
        for part in parts:
            by_name = dict(zip(stored, part, strict=False))
            yield [by_name[name] if name in by_name else pa.nulls(len(part[0])) for name in columns]

    def _delivered(self, piece: Piece, name: str, column: Any) -> Any:
        wanted = self.schema.field(name).type
        try:
            made = deliver(column, wanted)
        except ValueError as error:
            raise refusal(name, self.source.where(piece), column.type, wanted, error) from error
        if self.tells:
            tell_untold(name, column, made, self.source)
        return made

    def together(self, piece: Piece, columns: Sequence[str]) -> AbstractContextManager[None]:
        """Say that all reads of a piece within this are of some of these columns."""
        there = frozenset(self.source.schema.names)
        return self.inner.together(piece, [name for name in columns if name in there])

    def close(self) -> None:
        """Let go of open files."""
        self.inner.close()
