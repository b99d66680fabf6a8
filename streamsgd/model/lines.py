"""Tables of a few lines, as Parquet or CSV: whole or absent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from streamsgd.compute.local_files import whole_file
from streamsgd.data.stores.filesystems import first_line, local_or_remote_output
from streamsgd.errors import ModelError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

WRITERS: dict[str, Callable[[Any, Any], None]] = {".parquet": pq.write_table, ".csv": pa_csv.write_csv}
"""By the ending of the file's name."""


def check_table(path: str) -> None:
    """Refuse a file whose name does not say what it is to be.

    Raises
    ------
    SettingsError
        It ends neither with .parquet nor with .csv.

    """
    if not path.endswith(tuple(WRITERS)):
        raise SettingsError(f"--table {path}: a name ends with .parquet or .csv, which says what is written")


def write_lines(lines: Sequence[Mapping[str, Any]], path: str) -> None:
    """Write lines as the rows of a table; a column whose values are of several types holds texts.

    Raises
    ------
    ModelError
        The storage refused.

    """
    names = list(dict.fromkeys(name for line in lines for name in line))
    table = pa.table({name: _column([line.get(name) for line in lines]) for name in names})
    write = next(writer for ending, writer in WRITERS.items() if path.endswith(ending))
    filesystem, place = local_or_remote_output(path)
    try:
        if filesystem.type_name == "local":
            Path(place).parent.mkdir(parents=True, exist_ok=True)
            with whole_file(Path(place)) as sink:
                write(table, sink)
        else:
            with filesystem.open_output_stream(place) as sink:
                write(table, sink)
    except OSError as error:
        raise ModelError(f"{path}: cannot be written: {first_line(error)}") from error


def _column(values: Sequence[Any]) -> Any:
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} and len(kinds) == 2:
        return pa.array([None if value is None else float(value) for value in values])
    if len(kinds) > 1:
        return pa.array([None if value is None else str(value) for value in values])
    return pa.array(values) if kinds else pa.nulls(len(values), pa.float64())
