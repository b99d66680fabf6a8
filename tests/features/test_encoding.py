"""Encoding: a column of any Arrow type means the number that Python says it means."""

import datetime as dt
import decimal
import math
import warnings
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from streamsgd.errors import DataError
from streamsgd.features.arrow import as_float, float_address
from streamsgd.features.encoder import Encoder
from streamsgd.features.encoding import Encoding
from streamsgd.features.numbers import NumberColumn
from streamsgd.features.target import Target, encode_target, encode_weight

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
UTC_NOON = dt.datetime(2024, 2, 29, 12, 30, 15, 250_000, tzinfo=dt.UTC)
DAY = dt.date(2024, 2, 29)


def number(value: Any) -> float:
    """Return what a Python value means: seconds, days, or itself."""
    match value:
        case None:
            return math.nan
        case bool() | int() | float() | np.floating() | decimal.Decimal():
            return float(value)
        case dt.datetime():
            whole = value if value.tzinfo else value.replace(tzinfo=dt.UTC)
            return (whole - EPOCH).total_seconds()
        case dt.date():
            return float((value - EPOCH.date()).days)
        case dt.timedelta():
            return value.total_seconds()
        case dt.time():
            return value.hour * 3600 + value.minute * 60 + value.second + value.microsecond / 1e6
    raise AssertionError(value)


WHOLE = (pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())
INTEGERS = {str(kind): (kind, [0, 1, 7 if pa.types.is_unsigned_integer(kind) else -7, 100, None]) for kind in WHOLE}
EXTREMES = {
    "int8 ends": (pa.int8(), [-128, 127]),
    "uint16 ends": (pa.uint16(), [0, 65535]),
    "int32 ends": (pa.int32(), [-(2**31), 2**31 - 1]),
    "int64 ends": (pa.int64(), [-(2**63), 2**63 - 1, 2**53 + 1]),
    "uint64 ends": (pa.uint64(), [0, 2**64 - 1]),
}
OTHERS = {
    "float16": (pa.float16(), [np.float16(0.5), np.float16(-2), None, np.float16("nan"), np.float16("inf")]),
    "float32": (pa.float32(), [0.5, -2.25, None, math.nan, -math.inf]),
    "float64": (pa.float64(), [0.1, -2e300, None, math.nan, math.inf]),
    "bool": (pa.bool_(), [True, False, None, True, True]),
    "decimal128": (pa.decimal128(12, 3), [decimal.Decimal("1.125"), None, decimal.Decimal("-123456789.001")]),
    "decimal256": (pa.decimal256(60, 5), [decimal.Decimal("1e40"), None, decimal.Decimal("-0.00001")]),
    "date32": (pa.date32(), [DAY, None, dt.date(1969, 12, 31), dt.date(1, 1, 1)]),
    "date64": (pa.date64(), [DAY, None, dt.date(1969, 12, 31)]),
    "time32[s]": (pa.time32("s"), [dt.time(23, 59, 59), None, dt.time(0)]),
    "time32[ms]": (pa.time32("ms"), [dt.time(1, 2, 3, 4000), None]),
    "time64[us]": (pa.time64("us"), [dt.time(1, 2, 3, 4), None]),
    "time64[ns]": (pa.time64("ns"), [dt.time(1, 2, 3, 4), None]),
}
for unit in ("s", "ms", "us", "ns"):
    micro = UTC_NOON.replace(microsecond=0) if unit == "s" else UTC_NOON
    span = dt.timedelta(days=-3, seconds=5, milliseconds=0 if unit == "s" else 250)
    OTHERS[f"duration[{unit}]"] = (pa.duration(unit), [span, None, dt.timedelta(0)])
    for zone in (None, "UTC", "Europe/Paris", "+05:30"):
        when = [
            micro if zone else micro.replace(tzinfo=None),
            None,
            EPOCH if zone else EPOCH.replace(tzinfo=None),
        ]
        OTHERS[f"timestamp[{unit}, {zone}]"] = (pa.timestamp(unit, zone), when)
COLUMNS = {**INTEGERS, **EXTREMES, **OTHERS}


def shapes_of(array: Any, values: list[Any]) -> dict[str, tuple[Any, list[Any]]]:
    """The same values as Arrow may hold them: sliced, chunked, both."""
    n = len(values)
    joined = pa.concat_arrays([array, array, array])
    return {
        "whole": (array, values),
        "sliced": (joined[1 : 2 * n], (values * 3)[1 : 2 * n]),
        "deep in": (joined[n + 1 :], (values * 3)[n + 1 :]),
        "chunked": (
            pa.chunked_array([array, array[1:], array[:0], joined[2:4]]),
            values + values[1:] + (values * 3)[2:4],
        ),
        "one chunk": (pa.chunked_array([joined[1:]]), (values * 3)[1:]),
        "no rows": (array[:0], []),
        "no chunks": (pa.chunked_array([], array.type), []),
    }


# --- law: every type is the number it means, however Arrow holds it


@pytest.mark.parametrize("name", COLUMNS)
def test_every_type_is_the_number_it_means(name: str) -> None:
    kind, values = COLUMNS[name]
    for shape, (column, meant) in shapes_of(pa.array(values, kind), values).items():
        numbers = as_float(column)
        assert numbers.type in (pa.float32(), pa.float64()), shape
        assert numbers.null_count == 0
        expected = np.array([number(value) for value in meant], np.float64)
        np.testing.assert_allclose(np.asarray(numbers), expected, rtol=1e-15, err_msg=shape)
        assert float_address(numbers) or not len(meant)


@pytest.mark.parametrize("name", COLUMNS)
def test_scattered_they_are_the_numbers_too(name: str) -> None:
    """Through the kernel, by address: the offset of a slice is not lost."""
    kind, values = COLUMNS[name]
    encoder = Encoder(Encoding((NumberColumn("x", str(kind), 0.0, 1.0, -5.0, indicator=True),)))
    for shape, (column, meant) in shapes_of(pa.array(values, kind), values).items():
        expected = np.array([number(value) for value in meant], np.float64)
        block = encoder.encoding.layout().allocate(len(expected), "float64")
        found = encoder.scatter([column], np.arange(len(expected), dtype=np.int32), block)
        finite = np.isfinite(expected)
        got = block.rows.values
        np.testing.assert_allclose(got[:, 0], np.where(finite, expected, -5.0), rtol=1e-15, err_msg=shape)
        assert got[:, 1].tolist() == (~finite).astype(float).tolist()
        assert (found.missing[0], found.infinite[0]) == (np.isnan(expected).sum(), np.isinf(expected).sum())
        assert (block.y.tolist(), block.weight.tolist()) == ([0.0] * len(expected), [1.0] * len(expected))


@pytest.mark.parametrize("kind", [pa.int16(), pa.float32(), pa.bool_(), pa.date32(), pa.decimal128(5, 2), pa.null()])
def test_a_column_of_nulls_is_nan(kind: Any) -> None:
    numbers = np.asarray(as_float(pa.nulls(5, kind)))
    assert np.isnan(numbers).all()
    assert len(numbers) == 5


def test_floats_without_nulls_are_not_copied() -> None:
    for kind in (np.float32, np.float64):
        values = np.arange(10, dtype=kind)
        assert float_address(as_float(pa.array(values)[3:])) == values[3:].ctypes.data


def test_random_columns_come_out_as_numpy_says() -> None:
    """Many columns, shifted and scaled, permuted and dropped, with their target and weight."""
    rng = np.random.default_rng(4)
    n, kinds = 500, ("int8", "uint16", "int64", "float32", "float64", "bool")
    raw = [(rng.normal(size=n) * 40).astype(kind) if kind != "bool" else rng.random(n) < 0.5 for kind in kinds]
    raw = [np.abs(a) if a.dtype.kind == "u" else a for a in raw]
    nulls = [rng.random(n) < 0.1 * k for k in range(6)]
    columns = [pa.array(a, mask=mask) for a, mask in zip(raw, nulls, strict=True)]
    parts = [NumberColumn(f"x{k}", "", k - 2.5, 0.5 + k, 0.25 * k, indicator=k % 2 == 1) for k in range(6)]
    encoding = Encoding(tuple(parts))
    y, weight = rng.normal(size=n), rng.random(n)
    dest = np.full(n, -1, np.int32)
    kept = np.flatnonzero(rng.random(n) < 0.7)
    dest[kept] = rng.permutation(len(kept))
    for precision, tolerance in (("float64", 1e-13), ("float32", 1e-5)):
        block = encoding.layout().allocate(len(kept), precision)
        found = Encoder(encoding).scatter(columns, dest, block, y, weight)
        got = block.rows.values[dest[kept]]
        for k, part in enumerate(parts):
            expected = np.where(nulls[k], part.fill, (raw[k].astype(np.float64) - part.shift) * part.scale)[kept]
            np.testing.assert_allclose(got[:, k], expected, rtol=tolerance, atol=tolerance)
        for place, k in enumerate((1, 3, 5)):
            assert np.array_equal(got[:, 6 + place], nulls[k][kept])
        np.testing.assert_allclose(np.c_[block.y, block.weight][dest[kept]], np.c_[y, weight][kept], rtol=1e-6)
        assert found.missing.tolist() == [mask[kept].sum() for mask in nulls]
    assert encoding.names[6:] == ("x1 is missing", "x3 is missing", "x5 is missing")


def test_infinite_features_are_refused_by_name() -> None:
    encoder = Encoder(Encoding((NumberColumn("a", "double"), NumberColumn("b", "double"))))
    with pytest.raises(DataError, match=r"file 3: feature 'b' is infinite in 2 rows.*--infinite missing"):
        encoder.check_infinite(np.array([0, 2]), "file 3")
    encoder.check_infinite(np.zeros(2, np.int64), "file 3")


# --- law: targets are class numbers, counts or scaled numbers, and unusable ones are flagged


def encoded(target: Target, column: Any) -> list[float | None]:
    y, usable = encode_target(target, column)
    assert (y.dtype, usable.dtype, y.shape, usable.shape) == (
        np.float64,
        np.bool_,
        (len(column),),
        (len(column),),
    )
    return [float(value) if good else None for value, good in zip(y, usable, strict=True)]


TEXT = ["b", None, "a", "zebra", "c", ""]


@pytest.mark.parametrize(
    "column",
    [
        pa.array(TEXT),
        pa.array(TEXT, pa.large_string()),
        pa.array(TEXT, pa.string_view()),
        pa.array(TEXT, pa.binary()),
        pa.array(TEXT).dictionary_encode(),
        pa.chunked_array([TEXT[:2], TEXT[2:]]),
        pa.chunked_array([pa.array(TEXT[:3]).dictionary_encode(), pa.array(TEXT[3:]).dictionary_encode()]),
        pa.array(["x", *TEXT])[1:],
    ],
    ids=lambda column: f"{type(column).__name__} of {column.type}",
)
def test_strings_are_the_index_of_their_class(column: Any) -> None:
    target = Target("y", "multiclass", ("a", "b", "c"))
    assert encoded(target, column) == [1.0, None, 0.0, None, 2.0, None]


def test_numbers_and_booleans_are_the_index_of_their_class() -> None:
    target = Target("y", "multiclass", (-3, 0, 7))
    assert encoded(target, pa.array([7, -3, None, 1, 0, 8], pa.int32())) == [2.0, 0.0, None, None, 1.0, None]
    assert encoded(target, pa.array([7.0, math.nan, 0.5, math.inf])) == [2.0, None, None, None]
    assert encoded(Target("y", "binary", (False, True)), pa.array([True, None, False])) == [1.0, None, 0.0]
    assert encoded(Target("y", "binary", (-1.0, 1.0)), pa.array([1, 0, -1], pa.int8())) == [1.0, None, 0.0]
    assert encoded(Target("y", "binary", ("no", "yes")), pa.array(["yes", "no", "maybe"])) == [1.0, 0.0, None]


def test_regression_targets_are_shifted_and_scaled_and_must_be_finite() -> None:
    target = Target("y", "regression", shift=10.0, scale=0.5)
    assert encoded(target, pa.array([12, None, 10])) == [1.0, None, 0.0]
    assert encoded(target, pa.array([math.inf, math.nan, 8.0], pa.float32())) == [None, None, -1.0]
    assert encoded(target, pa.array([decimal.Decimal("11.5")])) == [0.75]


def test_counts_must_be_whole_and_not_negative() -> None:
    target = Target("y", "poisson")
    column = pa.array([0.0, 3.0, 2.5, -1.0, None, math.inf, math.nan])
    assert encoded(target, column) == [0.0, 3.0, None, None, None, None, None]


def test_weights_must_be_finite_and_not_negative() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        weight, usable = encode_weight(pa.array([0.0, 2.5, -1.0, None, math.nan, math.inf]))
    assert usable.tolist() == [True, True, False, False, False, False]
    assert weight[:2].tolist() == [0.0, 2.5]
