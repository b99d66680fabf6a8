"""Crosses, parts of moments, ranges: made from columns by rules that anyone can follow by hand."""

import datetime as dt
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from wide import encoding_of, hash32, random_model, rows_of

from streamsgd.errors import SettingsError
from streamsgd.features.encoding import Encoding

RNG = np.random.default_rng(8)
N = 300
A = np.where(RNG.random(N) < 0.1, None, np.array(["u", "v", "w"])[RNG.integers(0, 3, N)]).tolist()
B = np.array(["x", "y", "é"])[RNG.integers(0, 3, N)].tolist()
MANY = [f"m{k}" for k in RNG.integers(0, 1400, N).tolist()]
X = np.where(RNG.random(N) < 0.2, np.nan, RNG.normal(size=N))
COLUMNS = {"a": A, "b": B, "many": pa.array(MANY), "x": pa.array(X, from_pandas=True), "i": RNG.integers(0, 5, N)}
SETTINGS = {"transform": "none", "categorical": ["i"], "bits": 22}


def crossed(cross: list[str], **settings: Any) -> Encoding:
    return encoding_of(COLUMNS, cross=cross, **{**SETTINGS, **settings})


def combined(encoding: Encoding, name: str, coordinates: np.ndarray) -> list[int]:
    """The hash of the members' coordinates, four bytes each in their order, with the hash of the cross's name as seed."""
    seed, space = hash32(name.encode(), 0), encoding.hashed
    rows = np.ascontiguousarray(coordinates, "<i4")
    return [space.first + (hash32(row.tobytes(), seed) & space.mask) for row in rows]


# --- law: a cross is a category of its own, of every combination


@pytest.mark.parametrize("members", [["a", "b"], ["b", "a"], ["a", "b", "i"], ["many", "a"], ["a", "a"]], ids="*".join)
def test_a_cross_is_the_hash_of_its_members_coordinates(members: list[str]) -> None:
    name = "*".join(members)
    encoding = crossed([name])
    _, ids = rows_of(encoding, COLUMNS)
    place = {category.name: k for k, category in enumerate(encoding.categories)}
    expected = combined(encoding, name, ids[:, [place[member] for member in members]])
    assert ids[:, -1].tolist() == expected


def test_it_tells_all_combinations_apart_as_a_column_of_them_would() -> None:
    """One-to-one with the values of an explicit column, nulls too; and a number cannot pass for a neighbour's."""
    encoding = crossed(["a*b", "b*i"])
    _, ids = rows_of(encoding, COLUMNS)
    for k, pair in ((-2, (A, B)), (-1, (B, COLUMNS["i"].tolist()))):
        told = list(zip(*pair, strict=True))
        assert len({*zip(told, ids[:, k].tolist(), strict=True)}) == len({*told}) == len({*ids[:, k].tolist()})


def test_spaces_around_the_star_do_not_matter() -> None:
    assert crossed([" a * b "]) == crossed(["a*b"])
    assert crossed(["a * b"]).crosses[0].name == "a*b"


def test_a_cross_with_a_number_is_the_number_where_the_category_is() -> None:
    """As with columns x if a is u else 0, ... : of a missing number the value it is imputed with."""
    encoding = crossed(["a*x", "a*b", "x*a*b"])
    assert [cross.name for cross in encoding.crosses] == ["a*b", "a*x", "x*a*b"], "those with a number come last"
    assert [cross.number for cross in encoding.crosses] == ["", "x", "x"]
    numbers, ids = rows_of(encoding, COLUMNS)
    model, n = random_model(encoding), len(encoding.categories)
    w = model.weights[:, 0]
    assert ids[:, n + 1].tolist() == combined(encoding, "a*x", ids[:, :1])
    assert ids[:, n + 2].tolist() == combined(encoding, "x*a*b", ids[:, :2])
    mean = float(np.nanmean(X))
    z = (np.where(np.isnan(X), mean, X) - encoding.columns[0].shift) * encoding.columns[0].scale
    np.testing.assert_allclose(numbers[:, 0], z, atol=1e-12)
    expected = w[-1] + z * w[0] + w[ids[:, : n + 1]].sum(axis=1) + z * (w[ids[:, n + 1]] + w[ids[:, n + 2]])
    np.testing.assert_allclose(model.decision_function(pa.table(COLUMNS)), expected, rtol=1e-10)


def test_parts_of_moments_and_ranges_can_be_crossed() -> None:
    moments = pa.array([dt.datetime(2024, 1, 1 + k % 20, k % 24, tzinfo=dt.UTC) for k in range(N)])
    columns = {"t": moments, "x": COLUMNS["x"], "a": A}
    encoding = encoding_of(columns, time_parts=["t"], transform=["none", "x=bins"], cross=["t.hour*t.weekday", "x*a"], bits=20)
    assert [cross.number for cross in encoding.crosses] == ["", ""]
    _, ids = rows_of(encoding, columns)
    place = {category.name: k for k, category in enumerate(encoding.categories)}
    for k, name in ((-2, "t.hour*t.weekday"), (-1, "x*a")):
        assert ids[:, k].tolist() == combined(encoding, name, ids[:, [place[m] for m in name.split("*")]])


REFUSED = {
    "a*nothing": r"--cross a\*nothing: 'nothing' is no feature",
    "a*y": "'y' is no feature",
    "a": "a cross is of two or more categories, or of categories and one number",
    "x": "a cross is of two or more categories",
    "x*x": "a cross is of two or more categories",
    "a*": "'' is no feature",
    "": "'' is no feature",
    "a*x*x": "a cross is of two or more categories",
    "words*a": "'words' has many values per cell, which cannot be crossed",
    "listed*x": "'listed' has many values per cell, which cannot be crossed",
}


@pytest.mark.parametrize("entry", REFUSED)
def test_a_cross_that_cannot_be_says_why(entry: str) -> None:
    columns = {**COLUMNS, "words": ["some words"] * N, "listed": [["a"]] * N}
    with pytest.raises(SettingsError, match=REFUSED[entry]):
        encoding_of(columns, text=["words"], cross=[entry], **SETTINGS)


def test_a_near_name_is_suggested_and_a_cross_given_twice_refused() -> None:
    with pytest.raises(SettingsError, match=r"'mani' is no feature, did you mean 'many'\?"):
        crossed(["a*mani"])
    with pytest.raises(SettingsError, match=r"--cross a\*b is given twice"):
        crossed(["a*b", "a * b"])


# --- law: parts of a moment are what a calendar on the wall of its time zone says


MOMENTS = [
    dt.datetime(2024, 2, 29, 23, 59, 59, tzinfo=dt.UTC),
    dt.datetime(1969, 12, 31, 23, 0, 1, tzinfo=dt.UTC),
    dt.datetime(1900, 1, 1, tzinfo=dt.UTC),
    dt.datetime(2024, 3, 31, 0, 59, 59, tzinfo=dt.UTC),
    dt.datetime(2024, 3, 31, 1, tzinfo=dt.UTC),
    dt.datetime(2024, 10, 27, 0, 30, tzinfo=dt.UTC),
    dt.datetime(2024, 10, 27, 1, 30, tzinfo=dt.UTC),
    dt.datetime(2038, 1, 19, 3, 14, 8, tzinfo=dt.UTC),
    dt.datetime(2024, 7, 4, 12, tzinfo=dt.UTC),
]
"""Around midnights, epochs and changes to summer time and back, in UTC."""


def parts_of(moment: dt.date | None) -> list[int]:
    """Hour, weekday from Monday, month from January; of null the number of values."""
    if moment is None:
        return [24, 7, 12]
    hour = moment.hour if isinstance(moment, dt.datetime) else 0
    return [hour, moment.weekday(), moment.month - 1]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Paris", "America/St_Johns", "Asia/Kolkata", "+05:30"])
def test_parts_are_those_of_the_time_zone(unit: str, zone: str | None) -> None:
    tz = dt.timezone(dt.timedelta(hours=5.5)) if zone == "+05:30" else ZoneInfo(zone or "UTC")
    column = pa.array([*MOMENTS, None], pa.timestamp(unit)).cast(pa.timestamp(unit, zone))
    encoding = encoding_of({"t": column}, time_parts=["t"], transform="none")
    assert [(c.name, c.column, c.part) for c in encoding.categories] == [
        ("t.hour", "t", "hour"),
        ("t.weekday", "t", "weekday"),
        ("t.month", "t", "month"),
    ]
    numbers, ids = rows_of(encoding, {"t": column})
    assert numbers.shape[1] == 1, "the moment itself stays a number"
    local = [moment.replace(tzinfo=dt.UTC).astimezone(tz) for moment in MOMENTS]
    expected = np.array([parts_of(moment) for moment in [*local, None]])
    assert (ids - [c.first for c in encoding.categories]).tolist() == expected.tolist()


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64()], ids=str)
def test_dates_have_parts_too(kind: Any) -> None:
    days = [*(moment.date() for moment in MOMENTS), None]
    encoding = encoding_of({"d": pa.array(days, kind)}, time_parts=["d"], transform="none")
    _, ids = rows_of(encoding, {"d": pa.chunked_array([pa.array(days[:4], kind), pa.array(days[4:], kind)])})
    assert (ids - [c.first for c in encoding.categories]).tolist() == [parts_of(day) for day in days]


def test_a_single_part_and_a_glob() -> None:
    columns = {name: pa.array(MOMENTS) for name in ("t1", "t2", "t.x")}
    several = encoding_of(columns, time_parts=["t1.weekday", "t2", "t.x.month"], transform="none")
    assert [c.name for c in several.categories] == ["t1.weekday", "t2.hour", "t2.weekday", "t2.month", "t.x.month"]
    globbed = encoding_of(columns, time_parts=["t?.hour"], transform="none")
    assert [c.name for c in globbed.categories] == ["t1.hour", "t2.hour"]


def test_parts_have_names_for_people() -> None:
    encoding = encoding_of({"t": pa.array(MOMENTS)}, time_parts=["t"], transform="none")
    hour, weekday, month = (c.own_names for c in encoding.categories)
    assert hour == (*map(str, range(24)), "is missing")
    assert (weekday[0], weekday[-1], len(weekday)) == ("0", "is missing", 8)
    assert month == (*map(str, range(1, 13)), "is missing")


@pytest.mark.parametrize("entry", ["s", "x", "d", "s.hour"])
def test_what_is_no_moment_has_no_parts(entry: str) -> None:
    columns = {"s": ["2024-01-01"] * 3, "x": [1.0, 2.0, 3.0], "d": pa.array([1, 2, 3], pa.duration("s"))}
    with pytest.raises(SettingsError, match=rf"--time-parts {entry}: column '.' is of type .*, not a date or timestamp"):
        encoding_of(columns, time_parts=[entry])
    with pytest.raises(SettingsError, match="there is no column 'nothing'"):
        encoding_of(columns, time_parts=["nothing"])


# --- law: ranges are those of searchsorted


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64(), pa.int16(), pa.date32()], ids=str)
def test_ranges_are_those_of_searchsorted(kind: Any) -> None:
    n = 5000
    numbers = RNG.integers(-300, 300, n) ** 3 // 1000
    column = pa.array(numbers.astype(np.int32), mask=RNG.random(n) < 0.1).cast(kind)
    encoding = encoding_of({"x": column}, transform="bins")
    (ranges,) = encoding.categories
    assert (encoding.columns, ranges.name, ranges.first) == ((), "x", 0)
    floats = np.array([np.nan if v is None else v for v in column.cast(pa.int32()).to_pylist()])
    assert all(low < high for low, high in pairwise(ranges.edges))
    expected = np.where(np.isnan(floats), len(ranges.edges) + 1, np.searchsorted(ranges.edges, floats, side="right"))
    _, ids = rows_of(encoding, {"x": column})
    assert ids[:, 0].tolist() == expected.tolist()
    shares = np.bincount(ids[:, 0], minlength=ranges.own)[:-1] / np.sum(~np.isnan(floats))
    assert shares.max() < 0.15, "sixteen ranges, about the same number of rows in each"
    assert len(ranges.own_names) == ranges.own == len(ranges.edges) + 2


def test_edges_belong_to_the_range_above_and_the_ends_are_open() -> None:
    encoding = encoding_of({"x": np.repeat(np.arange(4.0), 25)}, transform="bins")
    (ranges,) = encoding.categories
    probe = [-1e300, -1.0, 0.0, 0.5, 1.0, 2.0, 3.0, 1e300]
    _, ids = rows_of(encoding, {"x": probe})
    assert ids[:, 0].tolist() == np.searchsorted(ranges.edges, probe, side="right").tolist()


def test_a_constant_column_has_one_range_more_than_none() -> None:
    encoding = encoding_of({"x": np.full(50, 7.0), "c": ["a", "b"] * 25}, transform="bins")
    (ranges, _) = encoding.categories
    _, ids = rows_of(encoding, {"x": [7.0, 6.9, 7.1], "c": ["a"] * 3})
    assert ranges.edges == (7.0,)
    assert ids[:, 0].tolist() == [1, 0, 1]
