"""What is given to be scored: rows are dicts; what is none is refused by what it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from streamsgd.errors import DataError, StreamSGDError


def score_each(function: Callable[[Any], Any], rows: Any) -> Any:
    """Return what a function makes of a row, or the list of what it makes of rows.

    What is given is looked at where something failed, so that good rows pay nothing.

    Raises
    ------
    DataError
        It is neither a row nor rows; of rows the message has the number of the one that is none.

    """
    if isinstance(rows, Mapping):
        return function(rows)
    if isinstance(rows, str | bytes) or not hasattr(rows, "__iter__"):  # an empty text would be no rows
        raise _no_row(rows)
    found: list[Any] = []
    for row in rows:
        try:
            found.append(function(row))
        except Exception as error:
            if isinstance(row, Mapping) or (isinstance(error, StreamSGDError) and _is_alike(row)):
                raise
            raise (_no_row(row, len(found)) if _holds_rows(rows) else _no_row(rows)) from None
    return found


def _is_alike(row: Any) -> bool:
    """Whether values of a row can be asked for by name though it is no dict, as of a Series of pandas."""
    return hasattr(row, "keys") and getattr(row, "ndim", 1) == 1


def _holds_rows(rows: Any) -> bool:
    """Whether something is a list of things, rather than a table, or a row of another kind."""
    return not any(hasattr(rows, name) for name in ("ndim", "columns", "schema")) or isinstance(rows, list | tuple)


def _no_row(value: Any, number: int | None = None) -> DataError:
    where = "" if number is None else f" as row {number} of the list, counted from 0"
    tables = "; streamsgd.load(...) scores tables" if number is None and hasattr(value, "columns") else ""
    shows = isinstance(value, str | bytes | int | float | list | tuple)
    said = "None" if value is None else f"{value!r:.40} of type {_type(value)}" if shows else f"one {_type(value)}"
    return DataError(f"give a dict of a row, or a list of dicts; got {said}{where}{tables}")


def _type(value: Any) -> str:
    return type(value).__name__
