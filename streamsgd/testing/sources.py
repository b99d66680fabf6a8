"""What every source of rows must hold."""

from __future__ import annotations

import pickle
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from streamsgd.data.source import Source
from streamsgd.data.timings import Timings
from streamsgd.errors import SettingsError
from streamsgd.planning.chunks import Piece
from streamsgd.testing.laws import true

if TYPE_CHECKING:
    from collections.abc import Iterable

    from streamsgd.data.source import Groups


MOST_GROUPS = 16
"""Groups of which all ways to be read are tried."""


def check_source(source: Source) -> None:
    """Check a source: the same rows whole, in slices, in runs, of some groups, from a copy, and as many as it says.

    Parameters
    ----------
    source
        With at least one row. Its first 16 groups with rows are read some six times over.

    Raises
    ------
    AssertionError
        What was expected, what came, and of which piece.

    """
    lacking = [name for name in dir(Source) if not name.startswith("_") and not hasattr(source, name)]
    true(not lacking, f"{type(source).__name__} lacks {', '.join(lacking)}; a BaseSource has them")
    _check_groups(source)
    columns = tuple(name for name in source.schema.names if not source.problem(name))
    true(columns, "no column can be used")
    groups = np.flatnonzero(source.groups.rows > 0)[:MOST_GROUPS].tolist()
    wholes = [_whole(source.groups, group) for group in groups]
    source.prefetch(groups)
    reader = source.reader()
    tables = [_table(source, reader, piece, columns) for piece in wholes]
    _check_slices(source, wholes, tables, columns)
    _check_runs(source, wholes, tables, columns)
    _check_columns(source, wholes[0], tables[0], columns)
    _check_selection(source, groups, tables, columns)
    copy = pickle.loads(pickle.dumps(source))  # noqa: S301  what was just pickled
    true(copy.fingerprint == source.fingerprint, "a copy by pickle has another fingerprint")
    true(copy.schema.equals(source.schema), "a copy by pickle has another schema")
    if _reads_anywhere(source, columns):
        again = copy.reader(keeps_open=False)
        _expect_same(_table(copy, again, wholes[-1], columns), tables[-1], f"{source.where(wholes[-1])} of a copy by pickle")
    _check_words(source, wholes)
    cost = source.cost(columns)
    true(cost.per_thread > 0 <= min(cost.kept, cost.held_per_row), f"it costs {cost}, which is less than nothing")


def _reads_anywhere(source: Source, columns: tuple[str, ...]) -> bool:
    """Whether a task needs nothing but the source."""
    try:
        return not source.feed(columns, None).gives
    except SettingsError:  # its tables are some client's
        return False


def _check_groups(source: Source) -> None:
    groups = source.groups
    n = len(groups.rows)
    for name in ("file", "index", "rows", "bytes"):
        values = getattr(groups, name)
        true(values.shape == (n,), f"groups.{name} has shape {values.shape}; groups.rows has {(n,)}")
        true(np.issubdtype(values.dtype, np.integer), f"groups.{name} is of {values.dtype}, not of integers")
        true(values.min(initial=0) >= 0, f"groups.{name} has a negative value")
    true(groups.rows.sum() > 0, "there is no row")
    true((np.diff(groups.file) >= 0).all(), "groups.file falls: the groups of a file must follow one another")
    true(groups.file.max(initial=0) < len(source.files), f"groups.file points beyond the {len(source.files)} files")
    both = np.stack([groups.file, groups.index])
    true(np.unique(both, axis=1).shape[1] == n, "two groups of one file have one index")
    true(isinstance(source.fingerprint, str) and source.fingerprint, "fingerprint is no text")


def _whole(groups: Groups, group: int) -> Piece:
    return Piece(0, group, group + 1, 0, int(groups.rows[group]), 0)


def _table(source: Source, reader: Any, piece: Piece, columns: tuple[str, ...]) -> Any:
    """Read a piece as one table of the types of the schema, batches checked."""
    where, schema = source.where(piece), pa.schema([source.schema.field(name) for name in columns])
    batches = []
    for arrays in reader.read(piece, columns, Timings()):
        true(len(arrays) == len(columns), f"{where}: {len(arrays)} arrays came for {len(columns)} columns")
        lengths = {len(array) for array in arrays}
        true(len(lengths) == 1, f"{where}: columns of one batch have lengths {sorted(lengths)}")
        batches.append(pa.table([_plain(a, f.type) for a, f in zip(arrays, schema, strict=True)], names=list(columns)))
    true(batches, f"{where}: nothing came")
    table = pa.concat_tables(batches)
    true(table.num_rows == piece.rows, f"{where}: {table.num_rows:,} rows came and {piece.rows:,} were asked for")
    return table


def _plain(array: Any, kind: Any) -> Any:
    chunks = array.chunks if isinstance(array, pa.ChunkedArray) else [array]
    return pa.chunked_array([chunk.cast(kind) for chunk in chunks], type=kind)


def _check_slices(source: Source, wholes: list[Piece], tables: list[Any], columns: tuple[str, ...]) -> None:
    """In order, which a reader may stream, and backwards, which it may not."""
    for piece, table in zip(wholes, tables, strict=True):
        cuts = sorted({0, piece.rows // 3, piece.rows - 1, piece.rows})
        slices = [Piece(0, piece.first, piece.last, a, b, 0) for a, b in pairwise(cuts)]
        for order in (slices, slices[::-1]):
            reader = source.reader()
            for part in order:
                wanted = table.slice(part.start, part.rows)
                what = f"rows {part.start} to {part.stop} of {source.where(piece)}"
                _expect_same(_table(source, reader, part, columns), wanted, what)
            reader.close()


def _check_runs(source: Source, wholes: list[Piece], tables: list[Any], columns: tuple[str, ...]) -> None:
    """Neighbours of one file that are read together are what they are apart."""
    reader, file = source.reader(), source.groups.file
    for first in range(len(wholes)):
        last = first
        while last + 1 < len(wholes) and file[wholes[last + 1].first] == file[wholes[first].first]:
            last += 1
        a, b = wholes[first].first, wholes[last].last
        run = Piece(0, a, b, 0, int(source.groups.rows[a:b].sum()), 0)
        if last > first:
            _expect_same(_table(source, reader, run, columns), pa.concat_tables(tables[first : last + 1]), source.where(run))


def _check_columns(source: Source, piece: Piece, table: Any, columns: tuple[str, ...]) -> None:
    reader = source.reader()
    for some in (columns[:1], columns[::-1]):
        found = _table(source, reader, piece, some)
        _expect_same(found, table.select(list(some)), f"columns {', '.join(some)} of {source.where(piece)}")


def _check_selection(source: Source, groups: list[int], tables: list[Any], columns: tuple[str, ...]) -> None:
    """Read every other group from a source of these alone."""
    keep = np.zeros(len(source.groups.rows), np.bool_)
    keep[groups[::2]] = True
    some = source.select(keep)
    true(len(some.groups.rows) == keep.sum(), f"select kept {len(some.groups.rows)} groups of {keep.sum()}")
    reader = some.reader(keeps_open=False)
    for at, k in enumerate(range(0, len(groups), 2)):
        piece = _whole(some.groups, at)
        true(some.where(piece) == source.where(_whole(source.groups, groups[k])), "select renames a group")
        _expect_same(_table(some, reader, piece, columns), tables[k], f"{some.where(piece)}, selected")
    true(len(source.groups.rows) == len(keep), "select changed the source itself")


def _check_words(source: Source, wholes: Iterable[Piece]) -> None:
    names = [source.where(piece) for piece in wholes]
    true(len({*names}) == len(names), f"two groups are called {next((n for n in names if names.count(n) > 1), '')!r}")
    for piece in wholes:
        ends = {source.where_row(piece, 0), source.where_row(piece, piece.rows - 1)}
        true(len(ends) == min(2, piece.rows), f"{source.where(piece)}: its first and its last row are called {min(ends)!r}")


def _expect_same(found: Any, wanted: Any, what: str) -> None:
    if found.combine_chunks().equals(wanted.combine_chunks()):
        return
    for name in wanted.column_names:  # NaN equals nothing
        a, b = found.column(name).to_pylist(), wanted.column(name).to_pylist()
        row = next((k for k, (x, y) in enumerate(zip(a, b, strict=True)) if x != y and not (x != x and y != y)), None)  # noqa: PLR0124
        true(row is None, f"{what}: column {name!r} has {a[row or 0]!r} in row {row} and had {b[row or 0]!r} when read whole")
