"""Permutation importance: what a model loses when a column is shuffled among the rows (Breiman 2001, Machine Learning 45).

On a bounded sample, whatever the size of the data and whatever the model. A column is shuffled as it is in the data, so that
all that is made of it goes with it: its bins, the parts of a moment, crosses that it is a member of.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from streamsgd.data.dataset import require
from streamsgd.data.open import open_data
from streamsgd.data.schemas import require_filled
from streamsgd.data.stores.filesystems import IO_TIMEOUT, set_io_timeout
from streamsgd.errors import DataError, SettingsError
from streamsgd.features.conform import conform
from streamsgd.features.sample import Sample
from streamsgd.features.target import encode_target
from streamsgd.model.compare import loaded
from streamsgd.model.evaluation import scored_rows
from streamsgd.model.paired import LOSSES, OF_TASK, PairedDifference
from streamsgd.settings.make import make_settings
from streamsgd.settings.words import speaks_python

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from streamsgd.model.model import Model
    from streamsgd.settings.fields import Settings

ROWS, REPEATS = 4096, 5
"""Rows that are scored, and shuffles of each column, if nobody says."""

MOST_ROWS = 1 << 16
"""Rows that may be asked for: they are in memory at once."""

DRAWN, SHUFFLED = 0x1396, 0x1397
"""Streams of random numbers: which rows, and how they are shuffled."""


class Importance(NamedTuple):
    """What a model came to on a sample, and without each column."""

    rows: int
    repeats: int
    loss: str
    """Which loss it is."""
    value: float
    """Its mean with all columns as they are."""
    columns: list[dict[str, Any]]
    """By the largest `increase` of the loss: `column`, `increase`, its `standard_error`, and an `interval` of 95 %."""


@speaks_python
def importance(
    model: Model | str | os.PathLike[str],
    source: Any,
    *,
    rows: int = ROWS,
    repeats: int = REPEATS,
    seed: int = 0,
    loss: str | None = None,
    column_kind: Sequence[str] = (),
    filter: str | None = None,  # noqa: A002  the name of the setting
    io_timeout: float = IO_TIMEOUT,
    unreadable: str = "error",
    infinite: str | None = None,
) -> Importance:
    """Measure by how much a model's loss grows when each column is shuffled among some rows of labelled data.

    Parameters
    ----------
    model
        A model or the path of one, of any structure.
    source
        As in training; of large data a sample is read, up to 64 MB of it.
    rows
        Rows to score, drawn from the sample by `seed`.
    repeats
        Shuffles of each column, whose mean counts.
    seed
        Of the draws and the shuffles.
    loss, column_kind, io_timeout
        As of `streamsgd.evaluate`.
    filter
        Rows to use.
    unreadable, infinite
        As of `streamsgd.evaluate`: whether to leave damaged row groups out, and what infinite values are.

    Returns
    -------
    Importance
        The loss is log loss of classes, squared error in units of the target, deviance of counts, zero-one loss of margins.
        Standard errors are over rows, which count as independent. Columns that say the same share what they know: each alone
        may seem to matter little.

    Raises
    ------
    SettingsError
        `rows` or `repeats` is out of range.
    DataError
        The data lacks a column, or no row is left.

    """
    set_io_timeout(io_timeout)
    if not 2 <= rows <= MOST_ROWS:
        raise SettingsError(f"--rows {rows}: from 2 to {MOST_ROWS:,} rows are scored")
    if repeats < 1:
        raise SettingsError(f"--repeats {repeats}: each column is shuffled at least once")
    found = loaded(model, loss, column_kind)
    found = found if infinite is None else replace(found, settings={**found.settings, "infinite": infinite})
    reading = make_settings({"target": found.target.name, "seed": seed, "unreadable": unreadable})
    table, y = _sample(found, source, filter, rows, reading)
    name = "zero_one_loss" if found.loss.task == "margin" else OF_TASK[found.target.task][0]
    before = _losses(found, table, y, name)
    columns = []
    for k, column in enumerate(_sources(found)):
        grown = np.zeros(len(y))
        for repeat in range(repeats):
            order = np.random.default_rng(np.random.SeedSequence([seed, SHUFFLED, k, repeat])).permutation(len(y))
            grown += _losses(found, _shuffled(table, column, order), y, name) - before
        pair = PairedDifference()
        pair.add(grown / repeats, np.ones(len(y)))
        result = pair.result()
        columns.append({"column": column, "increase": result.pop("difference"), **result})
    columns.sort(key=lambda entry: -entry["increase"])
    return Importance(len(y), repeats, name, float(before.mean()), columns)


def _sources(model: Model) -> tuple[str, ...]:
    return tuple(dict.fromkeys(model.encoding.sources))


def _sample(model: Model, source: Any, filter_text: str | None, rows: int, reading: Settings) -> tuple[Any, np.ndarray]:
    """Return a table of the columns of some rows whose target is usable, and their targets, encoded."""
    nulls = model.settings.get("missing_columns") == "null"
    dataset, expression, columns = open_data(source, filter_text, trained=model.encoding.types, nulls=nulls)
    names = (*_sources(model), model.target.name)
    require_filled(dataset, names[-1:])
    there = tuple(name for name in names if name in dataset.schema.names or name == model.target.name)
    if len(there) < len(names) and not nulls:
        conform(model.encoding, dataset)  # which refuses it by name
    require(dataset, there, nulls=names[:-1] if nulls else ())
    look = Sample(dataset, reading, expression, columns)
    pieces = look.sample(there)
    parts = [pa.table(look.columns(piece, there, most=look.most_bytes(piece, pieces))) for piece in pieces]
    whole = pa.concat_tables(parts, promote_options="permissive")
    y, usable = encode_target(model.target, whole[model.target.name])
    places = np.flatnonzero(usable)
    if not len(places):
        raise DataError(f"no row is left to measure on: {model.target.name!r} is usable in none of {whole.num_rows:,} rows")
    if len(places) > rows:
        drawn = np.random.default_rng(np.random.SeedSequence([reading.seed, DRAWN])).choice(len(places), rows, replace=False)
        places = places[np.sort(drawn)]
    return whole.take(pa.array(places)).combine_chunks(), y[places]


def _losses(model: Model, table: Any, y: np.ndarray, name: str) -> np.ndarray:
    """Return the loss of every row, float64 (n,)."""
    block, _pools = model.encode(table)
    block.y[:] = y
    scored = scored_rows(model, block, 0, len(y))
    found: np.ndarray = LOSSES[name](scored.y.astype(np.float64), scored.mean.astype(np.float64))
    return found


def _shuffled(table: Any, column: str, order: np.ndarray) -> Any:
    """Return the table with a column in another order; one that is not there, which is null in every row, is so in any."""
    if column not in table.column_names:
        return table
    place = table.column_names.index(column)
    return table.set_column(place, table.schema.field(place), table[column].take(pa.array(order)))
