"""Every kind of column of ours, and two of one's own, hold what `check_column_kind` says; and it finds what is wrong."""

import datetime as dt
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from own_kinds import Geo, GeoEncoder, Internet

from streamsgd.features.column import Needs, Number, Scattered
from streamsgd.features.kinds import KINDS
from streamsgd.testing import check_column_kind

N = 24

RNG = np.random.default_rng(3)

COLUMNS: dict[str, Any] = {
    "number": pa.array([None if k % 5 == 0 else 10.0 ** (k % 7) for k in range(N)]),
    "integer": pa.array(range(N), pa.int16()),
    "decimal": pa.array(list(range(N)), pa.decimal128(10, 2)),
    "few": pa.array([None if k % 7 == 0 else "abc"[k % 3] for k in range(N)]),
    "many": pa.array([f"value {k}" for k in range(N)]).dictionary_encode(),
    "text": pa.array([None if k == 4 else f"these are Words of row {k}" for k in range(N)]),
    "vector": pa.FixedSizeListArray.from_arrays(pa.array(RNG.normal(size=3 * N).astype(np.float32)), 3),
    "list": pa.array([None if k == 3 else [f"t{j}" for j in range(k % 4)] for k in range(N)]),
    "map": pa.array([[(f"k{j}", j + 0.5) for j in range(k % 3)] for k in range(N)], pa.map_(pa.string(), pa.float64())),
    "moment": pa.array([dt.datetime(2020, 1 + k % 12, 1, k % 24, tzinfo=dt.UTC) for k in range(N)], pa.timestamp("ms", "UTC")),
    "place": pa.array([None if k == 6 else f"{k - 12}.5, {10 * k}" for k in range(N)]),
    "address": pa.array([None if k == 8 else f"{k % 4}.{k % 3}.1.{k}" for k in range(N)]),
}

TABLE = pa.table(COLUMNS)

SETTINGS: dict[str, dict[str, Any]] = {
    "number": {"missing": ["indicator"]},
    "category": {"bits": 10, "categorical": ["integer"]},
    "moment": {"time_parts": ["moment"]},
    "cross": {"cross": ["few*many", "few*number"]},
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_our_kinds_conform(kind: Any) -> None:
    check_column_kind(kind, TABLE, **SETTINGS.get(kind.name, {}))


@pytest.mark.parametrize("kind", [Geo(), Geo(degrees=1.0), Internet(), Internet("/b")], ids=repr)
def test_kinds_of_ones_own_conform(kind: Any) -> None:
    check_column_kind(kind, TABLE)
    check_column_kind(kind, TABLE.select(["place", "address"]))
    chunked = pa.concat_tables([TABLE.slice(0, 5), TABLE.slice(5)])
    check_column_kind(kind, chunked)


# --- law: it finds what is wrong


class Chatty(GeoEncoder):
    """Writes to the target's column too."""

    def scatter(self, columns: Any, rows: Any) -> Scattered:
        rows.block.rows.values[rows.dest[rows.dest >= 0], self.places.place[-1] + 1] = 1.0
        return super().scatter(columns, rows)


class Infinite(GeoEncoder):
    def scatter(self, columns: Any, rows: Any) -> Scattered:
        found = super().scatter(columns, rows)
        rows.block.rows.values[rows.dest[rows.dest >= 0], self.places.place[0]] = np.nan
        return found


class ByRow(GeoEncoder):
    """Writes what depends on how rows come."""

    def scatter(self, columns: Any, rows: Any) -> Scattered:
        found = super().scatter(columns, rows)
        rows.block.rows.values[rows.dest[rows.dest >= 0], self.places.place[0]] += len(rows.dest)
        return found


class Loud(GeoEncoder):
    """Writes dropped rows as well."""

    def scatter(self, columns: Any, rows: Any) -> Scattered:
        dest = np.where(rows.dest < 0, np.arange(len(rows.dest)), rows.dest).astype(np.int32)
        return super().scatter(columns, rows._replace(dest=dest))


class WithChatty(Geo):
    def encoder(self, configs: Any, places: Any) -> Any:
        return Chatty(self, configs, places)


class WithInfinite(Geo):
    def encoder(self, configs: Any, places: Any) -> Any:
        return Infinite(self, configs, places)


class WithByRow(Geo):
    def encoder(self, configs: Any, places: Any) -> Any:
        return ByRow(self, configs, places)


class WithLoud(Geo):
    def encoder(self, configs: Any, places: Any) -> Any:
        return Loud(self, configs, places)


@dataclass(frozen=True)
class Careless(Geo):
    """Takes any data."""

    def check(self, configs: Any, schema: Any, data: str) -> None:
        return None


@dataclass(frozen=True)
class Picky(Geo):
    """Takes nothing."""

    def choose(self, column: Any, profile: Any) -> list[Any]:
        return []


@dataclass(frozen=True)
class Wide(Geo):
    """Says that it needs one number, and writes two."""

    def needs(self, configs: Any) -> Needs:
        return Needs((Number(configs[0].name, "", 0.0, 1.0, 0.0),))


@dataclass(frozen=True)
class Sloppy(Internet):
    """Says that it has fewer weights than it uses."""

    def needs(self, configs: Any) -> Needs:
        return super().needs(configs)._replace(weights=2)


WRONG: list[tuple[type[Any], str]] = [
    (WithChatty, "writes to columns"),
    (WithInfinite, "not all finite"),
    (WithByRow, "it was"),
    (WithLoud, "rows are written that nobody sent"),
    (Careless, "takes data without 'place'"),
    (Picky, "takes no column"),
    (Wide, "writes to columns|counts of missing values"),
    (Sloppy, "which is of another kind"),
]


@pytest.mark.parametrize(("kind", "message"), WRONG, ids=[message for _, message in WRONG])
def test_what_is_wrong_is_found(kind: type[Any], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_column_kind(kind(), TABLE)


def test_fields_are_part_of_a_kind() -> None:
    assert Geo() != replace(Geo(), degrees=2.0)
