"""Two kinds of columns of one's own, as somebody else would write them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from streamsgd.features.column import ColumnKind, KindEncoder, Label, Needs, Number, Scattered
from streamsgd.features.hashing import hash_values, name_seed
from streamsgd.features.write import NumberPlaces, write_numbers, write_slots


def as_strings(column: Any) -> Any:
    """One array of strings."""
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return column.cast(pa.string())


def is_string(kind: Any) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


@dataclass
class Matched:
    """How many values look right."""

    n: int = 0
    good: int = 0

    def join(self, other: "Matched") -> None:
        self.n, self.good = self.n + other.n, self.good + other.good


# --- numbers: "48.1,11.5" is a latitude and a longitude

PLACE = r"^\s*(?P<latitude>-?\d+(?:\.\d+)?)\s*,\s*(?P<longitude>-?\d+(?:\.\d+)?)\s*$"


def coordinates(column: Any) -> list[np.ndarray]:
    """Latitudes and longitudes, float64 (n,), NaN where a value is none."""
    found = pc.extract_regex(as_strings(column), pattern=PLACE)
    parts = [pc.struct_field(found, name) for name in ("latitude", "longitude")]
    return [np.array(pc.fill_null(part.cast(pa.float64()), np.nan), np.float64) for part in parts]


class Place(msgspec.Struct, frozen=True):
    name: str
    column: str
    type: str


@dataclass(frozen=True)
class Geo(ColumnKind):
    """Strings of a latitude and a longitude: two numbers, in units of `degrees`."""

    degrees: float = 90.0
    name = "geo"
    config = Place
    what = "a latitude and a longitude, such as '48.1,11.5'"
    dense = True

    def accepts(self, kind: Any, asked: str | None) -> bool:
        return asked in (None, self.name) and is_string(kind)

    def profile(self, column: Any, limits: Any) -> Matched:
        good = int(np.isfinite(coordinates(column)[0]).sum())
        return Matched(len(column) - column.null_count, good)

    def choose(self, column: Any, profile: Any) -> list[Any]:
        """Not for me, if a value is anything else."""
        fits = 0 < profile.n == profile.good
        return [Place(column.name, column.name, str(column.type))] if fits else []

    def needs(self, configs: Sequence[Any]) -> Needs:
        names = [(c, part) for c in configs for part in ("latitude", "longitude")]
        return Needs(tuple(Number(f"{c.name}.{part}", c.type, 0.0, 1.0 / self.degrees, 0.0) for c, part in names))

    def encoder(self, configs: Sequence[Any], places: Any) -> KindEncoder:
        return GeoEncoder(self, configs, places)

    def explain(self, config: Any) -> str:
        return f"latitude and longitude, divided by {self.degrees:g}"

    def why(self, profile: Any, *, whole: bool) -> str:
        return f"{profile.good:,} of {profile.n:,} values are places"


class GeoEncoder(KindEncoder):
    def __init__(self, kind: Geo, configs: Sequence[Any], places: Any) -> None:
        self.kind = kind
        self.sources = tuple(config.column for config in configs)
        self.finite = tuple(name for name in self.sources for _ in range(2))
        self.places = NumberPlaces.neighbours(places.number, 2 * len(configs))

    def scatter(self, columns: Mapping[str, Any], rows: Any) -> Scattered:
        values = [part / self.kind.degrees for name in self.sources for part in coordinates(columns[name])]
        return Scattered(*write_numbers(values, self.places, rows))


# --- categories: an address of the internet has a weight for its first byte, and one for every prefix, hashed


class Address(msgspec.Struct, frozen=True):
    name: str
    column: str
    type: str
    distinct: int


@dataclass
class Prefixes:
    """How often each prefix of two bytes came, and how many values are addresses."""

    counts: Counter[str]
    matched: Matched

    def join(self, other: "Prefixes") -> None:
        self.counts.update(other.counts)
        self.matched.join(other.matched)


IP = r"^(?P<a>\d{1,3})\.(?P<b>\d{1,3})\.\d{1,3}\.\d{1,3}$"


def prefixes(column: Any) -> tuple[np.ndarray, Any]:
    """The first byte, int32 (n,), 256 where a value is no address, and the first two as strings, '' there."""
    found = pc.extract_regex(as_strings(column), pattern=IP)
    a, b = (pc.struct_field(found, name) for name in "ab")
    first = np.array(pc.fill_null(a.cast(pa.int32()), 256), np.int32)
    return np.minimum(first, 256).astype(np.int32), pc.fill_null(pc.binary_join_element_wise(a, b, "."), "")


@dataclass(frozen=True)
class Internet(ColumnKind):
    """Addresses such as 10.1.2.3: 257 weights for the first byte, and hashed ones for the first two."""

    salt: str = "/16"
    name = "internet"
    config = Address
    what = "an address such as 10.1.2.3"

    def accepts(self, kind: Any, asked: str | None) -> bool:
        return asked in (None, self.name) and is_string(kind)

    def profile(self, column: Any, limits: Any) -> Prefixes:
        first, two = prefixes(column.slice(0, limits.rows))
        counts = Counter(two.to_pylist())
        good = int((first < 256).sum())
        return Prefixes(counts, Matched(len(first) - column.slice(0, limits.rows).null_count, good))

    def choose(self, column: Any, profile: Any) -> list[Any]:
        if column.asked != self.name and not 0 < profile.matched.n == profile.matched.good:
            return []
        return [Address(column.name, column.name, str(column.type), len(profile.counts))]

    def needs(self, configs: Sequence[Any]) -> Needs:
        n = len(configs)
        return Needs(slots=("", "") * n, n_hashed=n, weights=257 * n)

    def distinct(self, configs: Sequence[Any], n_rows: int) -> int:
        return sum(config.distinct for config in configs)

    def encoder(self, configs: Sequence[Any], places: Any) -> KindEncoder:
        return InternetEncoder(self, configs, places)

    def explain(self, config: Any) -> str:
        return f"first byte, and first two of about {config.distinct:,}, hashed"


class InternetEncoder(KindEncoder):
    def __init__(self, kind: Internet, configs: Sequence[Any], places: Any) -> None:
        self.configs, self.places = tuple(configs), places
        self.sources = tuple(config.column for config in configs)
        self.counted = frozenset(self.sources)
        self.seeds = [name_seed(config.name + kind.salt) for config in configs]

    def scatter(self, columns: Mapping[str, Any], rows: Any) -> Scattered:
        codes: list[np.ndarray] = []
        for k, name in enumerate(self.sources):
            first, two = prefixes(columns[name])
            codes += [first + np.int32(self.places.weight + 257 * k), self.hashed(k, two)]
        write_slots(codes, [0] * len(codes), self.places.slot, rows)
        return Scattered()

    def hashed(self, k: int, values: Any) -> np.ndarray:
        return hash_values(values.cast(pa.binary()), self.seeds[k], self.places.hashed)

    def count(self, columns: Mapping[str, list[Any]]) -> dict[str, list[tuple[str, int]]]:
        found = {}
        for config in self.configs:
            counts = Counter(
                value for part in columns.get(config.column, []) for value in prefixes(part)[1].to_pylist() if value
            )
            found[config.name] = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:100]
        return found

    def labels(self, frequent: Mapping[str, Sequence[tuple[str, int]]]) -> list[Label]:
        labels = []
        for k, config in enumerate(self.configs):
            first = self.places.weight + 257 * k
            labels += [Label(config.name, f"{byte}/8" if byte < 256 else "no address", first + byte) for byte in range(257)]
            counts = frequent.get(config.name, ())
            places = self.hashed(k, pa.array([value for value, _ in counts], pa.string())).tolist()
            named = zip(counts, places, strict=True)
            labels += [Label(config.name, f"{value}/16", place, rows) for (value, rows), place in named]
        return labels
