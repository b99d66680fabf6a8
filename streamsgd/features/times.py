"""Parts of moments as categories: the hour, weekday and month of dates and timestamps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from streamsgd.data.types import WHAT, fits, zone_of
from streamsgd.errors import DataError, SettingsError
from streamsgd.features.calendar import TIME_PARTS
from streamsgd.features.categories import Categories, CategoryColumn
from streamsgd.features.names import expand

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from streamsgd.features.column import Candidate
    from streamsgd.settings.fields import Settings


class Moments(Categories):
    """Parts of moments that `--time-parts` asks for; they are encoded with the categories."""

    name = "moment"
    what = WHAT["moment"]

    def accepts(self, kind: Any, asked: str | None) -> bool:
        """Take dates and timestamps whose parts are asked for; as such they are numbers."""
        return asked == self.name and fits("moment", kind)

    def choose(self, column: Candidate, profile: Any) -> list[Any]:
        """Return the hour, weekday and month of a column that is asked to be a moment."""
        return list(_parts(column.name, column.type, list(TIME_PARTS)))

    def combine(self, chosen: Sequence[Any], roles: Any, schema: Any, settings: Settings) -> list[Any]:
        """Return the parts of moments of the settings.

        Raises
        ------
        SettingsError
            A column is no date or timestamp.

        """
        configs: list[Any] = []
        for entry in settings.time_parts:
            name, _, part = entry.rpartition(".")
            pattern, parts = (name, [part]) if part in TIME_PARTS else (entry, list(TIME_PARTS))
            for column in expand((pattern,), list(roles.features)):
                kind = schema.field(column).type
                if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
                    raise SettingsError(f"--time-parts {entry}: column {column!r} is of type {kind}, not a date or timestamp")
                configs += _parts(column, kind, parts)
        return configs

    def check(self, configs: Sequence[Any], schema: Any, data: str) -> None:
        """Refuse other columns, and moments with a time zone for moments without, or the reverse."""
        super().check(configs, schema, data)
        for config in configs:
            if bool(config.zone) != bool(zone_of(schema.field(config.column).type)):
                raise DataError(
                    f"column {config.column!r} of {data} has {'no' if config.zone else 'a'} time zone; in training it had "
                    f"{config.zone or 'none'}"
                )


def _parts(column: str, kind: Any, parts: list[str]) -> Iterator[CategoryColumn]:
    for part in parts:
        yield CategoryColumn(f"{column}.{part}", column, str(kind), part=part, zone=zone_of(kind))
