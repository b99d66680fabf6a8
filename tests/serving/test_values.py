# ruff: noqa: DTZ001  moments without a time zone are a type of their own here
"""Values of every type in columns of every type: serving and `Model.predict` say the same of a row, or both refuse it."""

import datetime as dt
import random
from decimal import Decimal
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import streamsgd
from streamsgd.errors import DataError, StreamSGDError
from streamsgd.model.served import served_of

pd = pytest.importorskip("pandas", reason="values of pandas' are among those that rows hold")

N = 600
START, UTC = dt.datetime(2024, 1, 1), dt.UTC


def below(most: int) -> list[int]:
    rng = random.Random(most)
    return [rng.randrange(most) for _ in range(N)]


def moments(kind: Any, most: int, unit: str = "minutes") -> pa.Array:
    return pa.array([START + dt.timedelta(**{unit: k}) for k in below(most)], kind)


COLUMNS = {
    "number": pa.array(np.random.default_rng(0).normal(size=N)),
    "integer": pa.array(below(90)),
    "decimal": pa.array([Decimal(k) / 4 for k in below(90)], pa.decimal128(20, 2)),
    "flag": pa.array([bool(k) for k in below(2)]),
    "few integers": pa.array(below(5)),
    "large ids": pa.array([2**60 + 2 * k for k in below(5)]),
    "many ids": pa.array([k * 7919 for k in below(10**6)]),
    "few floats": pa.array([k / 2 for k in below(5)]),
    "few decimals": pa.array([Decimal(k) / 4 for k in below(5)], pa.decimal128(20, 2)),
    "few flags": pa.array([bool(k) for k in below(2)]),
    "day": moments(pa.timestamp("us"), 300, "days").cast(pa.date32()),
    "moment": moments(pa.timestamp("us"), 10**5),
    "zoned": moments(pa.timestamp("us", "UTC"), 10**5),
    "few days": moments(pa.timestamp("us"), 3, "days").cast(pa.date32()),
    "few moments": moments(pa.timestamp("us"), 3),
    "few zoned": moments(pa.timestamp("us", "UTC"), 3),
    "clock": moments(pa.timestamp("us"), 1000).cast(pa.time64("us")),
    "few clocks": moments(pa.timestamp("us"), 3).cast(pa.time64("us")),
    "span": pa.array([dt.timedelta(seconds=k) for k in below(1000)]),
    "few spans": pa.array([dt.timedelta(seconds=k) for k in below(3)]),
    "word": pa.array(["abcde"[k] for k in below(5)]),
    "key": pa.array([f"k{k}" for k in below(200)]),
    "bytes": pa.array([bytes([k]) for k in below(250)]),
    "text": pa.array([f"w{k} z{k % 7}" for k in below(100)]),
    "said": pa.array([str(START + dt.timedelta(minutes=k, seconds=i)) for i, k in enumerate(below(10**6))]),
    "said zoned": pa.array(
        [f"{(START + dt.timedelta(minutes=k, seconds=i)).isoformat()}Z" for i, k in enumerate(below(10**6))]
    ),
    "tags": pa.array([["a", "b", "c"][:k] for k in below(4)]),
    "numbers": pa.array([[1, 2, 3][:k] for k in below(4)]),
    "map": pa.array([[("a", 1.5), ("b", 2.0)][:k] for k in below(3)], pa.map_(pa.string(), pa.float64())),
    "map of integers": pa.array([[(1, 1), (2, 2)][:k] for k in below(3)], pa.map_(pa.int64(), pa.int64())),
    "vector": pa.array([[float(k), 1.5 * (k % 3)] for k in below(9)], pa.list_(pa.float64(), 2)),
}

NOTHING = [None, float("nan"), pd.NaT, pd.NA, np.datetime64("NaT"), np.timedelta64("NaT"), Decimal("nan"), np.float32("nan")]

VALUES = [
    *NOTHING, *(pa.scalar(None, pa.int64()), float("inf"), Decimal("-inf"), True, False, 1 + 2j, object(), np.array(3.0)),
    *(0, 1, 3, -7, 2**60 + 2, 2**63, -(2**63) - 1, 2**70, 10**80, 10**400, 0.0, 1.0, 1.5, 2.0**60, 1e300, pa.scalar(1)),
    *(Decimal(1), Decimal("0.25"), Decimal("1E+3"), Decimal(10**22)),
    *(np.int8(1), np.uint64(2**63), np.float16(1.5), np.float32(1), np.float32(2**25), np.float64(1.5), np.bool_(True)),
    *("a", "", "é", "a\0", "1", "\ud800", np.str_("a"), np.bytes_(b"\x01"), b"a", b"\xff", bytearray(b"a"), memoryview(b"a")),
    *("2024-01-05", "2024-01-05 06:00:00", "2024-01-05T06:00:00.1234567", "2024-01-05T06:00:00Z", "2024-02-30", "01/02/2024"),
    *(dt.date(2024, 1, 2), dt.datetime(2024, 1, 2), dt.datetime(2024, 1, 2, 6), dt.datetime(2024, 1, 2, 6, 0, 0, 5)),
    *(dt.datetime(2024, 1, 2, tzinfo=UTC), dt.datetime(2024, 1, 2, 6, tzinfo=dt.timezone(dt.timedelta(hours=2)))),
    *(dt.datetime(9999, 12, 31), dt.datetime(1, 1, 1), np.datetime64("2024-01-02"), np.datetime64("2024-01-02T06:00")),
    *(np.datetime64("2024-01-02T06", "h"), np.datetime64("2024-01-02T06:00:00.123456789"), np.datetime64("2024-01")),
    *(pd.Timestamp("2024-01-02 06:00"), pd.Timestamp("2024-01-02", tz="UTC"), pd.Timestamp("2024-01-02", tz="Europe/Berlin")),
    *(dt.time(1, 2), dt.time(0), dt.time(1, 2, tzinfo=UTC), dt.timedelta(seconds=2), np.timedelta64(2, "s")),
    *(np.timedelta64(2, "D"), np.timedelta64(2, "ns"), pd.Timedelta("2s")),
    *([], ["a"], ["a", "z"], ["a", None], [1], [1, 2.5], [1, None], [2.0], [True], [2**60], [1.0, 2.0], [1.0, None], [1, 2]),
    *([1, Decimal(2)], ("a",), (1.0, 2.0), np.array([1.0, 2.0]), np.array([1, 2]), np.array(["a"]), {"a"}, range(2)),
    *(pd.Series([1.0, 2.0]), pa.array([1.0, 2.0]), [b"a"], [pd.NA, "a"], [float("nan"), 1.0], ["2024"], np.array([])),
    *({}, {"a": 1.0}, {"a": 1}, {"a": None}, {"a": Decimal(2)}, {"a": True}, {"a": "x"}, {1: 1}, {1: 2.5}, {None: 1.0}),
    *({"a": float("inf")}, {"a": float("nan")}, [("a", 1.0)], [("a", 1)], [["a", 1.0]], [(1, 1)], [("a", 1.0, 2)], [("a",)]),
]  # fmt: skip


@cache
def trained() -> tuple[Any, Any, dict[str, Any]]:
    """A model of all columns, what serves it, and a row of training."""
    named = {name.replace(" ", "_"): column for name, column in COLUMNS.items()}
    table = pa.table({**named, "y": named["number"]})
    ids = [name for name in named if name.startswith(("few", "large", "many"))]
    model = streamsgd.train(
        table, "y", categorical=[*ids, "numbers"], text=["text"], epochs=1, threads=1, memory="1GB", infinite="missing"
    )
    assert set(model.encoding.sources) == set(named)
    return model, served_of(model), table.slice(3, 1).drop_columns(["y"]).to_pylist()[0]


def said_of(predict: Any, row: Any) -> Any:
    """What is predicted, None where the row is refused; anything else that is raised is a fault."""
    try:
        return float(np.ravel(predict(row))[0])
    except StreamSGDError:
        return None


def pairs() -> list[tuple[str, Any]]:
    """Every column with every value would take a minute: every value in some columns."""
    names, rng = [name.replace(" ", "_") for name in COLUMNS], random.Random(0)
    return [(name, value) for value in VALUES for name in rng.sample(names, 2)]


def test_serving_and_tables_say_the_same_of_every_value_or_both_refuse_it() -> None:
    model, served, row = trained()
    for name, value in pairs():
        odd = {**row, name: value}
        alone, table = said_of(served.predict, odd), said_of(model.predict, [odd])
        assert (alone is None) == (table is None), (name, value, alone, table)
        if alone is not None:
            one = said_of(model.predict, odd)
            np.testing.assert_allclose([alone, one], table, rtol=1e-6, atol=1e-6, err_msg=f"{name} {value!r}")


@pytest.mark.parametrize("name", [name.replace(" ", "_") for name in COLUMNS])
def test_what_is_nothing_in_python_numpy_and_pandas_is_missing(name: str) -> None:
    model, served, row = trained()
    missing = served.predict({**row, name: None})
    lists = name in ("tags", "numbers", "map", "map_of_integers", "vector")
    for value in NOTHING:
        if lists and isinstance(value, float | np.floating | Decimal) and value == value:
            continue  # a number where a list should be
        if name == "few_floats" and isinstance(value, float | np.floating | Decimal):
            continue  # NaN is a float like others among those that are categories
        assert served.predict({**row, name: value}) == missing, value
    assert said_of(model.predict, [{**row, name: pd.NA}]) == pytest.approx(missing, rel=1e-6, abs=1e-6)


# --- dates


@pytest.mark.parametrize(
    "value",
    [
        dt.datetime(2024, 5, 5, tzinfo=UTC),
        np.datetime64("2024-05-05T06:00"),
        dt.datetime(2024, 5, 5, 6),
        pd.Timestamp("2024-05-05 06:00"),
    ],
)
def test_what_is_more_than_a_date_is_refused_where_training_had_dates(value: Any) -> None:
    model, served, row = trained()
    for predict in (served.predict, model.predict, lambda row: model.predict([row])):
        with pytest.raises(DataError, match="'day'"):
            predict({**row, "day": value})


# --- several rows


def test_rows_may_hold_integers_beyond_64_bits() -> None:
    model, served, row = trained()
    rows = [{**row, "number": 2**63}, {**row, "number": -1}, {**row, "number": 2**70}]
    np.testing.assert_allclose(model.predict(rows), served.predict(rows), rtol=1e-6)
    with pytest.raises(DataError, match="'number' of the rows"):
        model.predict([{**row, "number": 10**400}])


def test_maps_are_dicts_or_pairs_in_one_row_and_in_several() -> None:
    model, served, row = trained()
    ways: list[Any] = [{"a": 1.0, "b": 2}, [("a", 1.0), ("b", 2.0)], [["a", 1], ["b", 2]], {}, [], None, {"a": None}]
    rows = [{**row, "map": way} for way in ways]
    expected = served.predict(rows)
    np.testing.assert_allclose(model.predict(rows), expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose([model.predict(row)[0] for row in rows], expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(model.predict(pd.DataFrame(rows[:1]).to_dict("records")), expected[:1], rtol=1e-6, atol=1e-6)


def test_rows_with_maps_are_evaluated() -> None:
    model, served, row = trained()
    rows = [{**row, "map": way, "y": 1.0} for way in ({"a": 1.0, "b": 2}, [("a", 1.0)], None)]
    residuals = np.array(served.predict([{name: row[name] for name in row if name != "y"} for row in rows])) - 1.0
    assert model.evaluate(rows)["rmse"] == pytest.approx(float(np.sqrt((residuals**2).mean())), rel=1e-5)


def test_moments_of_rows_are_of_one_kind() -> None:
    """Arrow would take a moment without a time zone for UTC, and drop the time of day beside a date."""
    model, served, row = trained()
    mixed = [{**row, "moment": dt.date(2024, 1, 2)}, {**row, "moment": dt.datetime(2024, 1, 2, 6)}]
    np.testing.assert_allclose(model.predict(mixed), served.predict(mixed), rtol=1e-6, atol=1e-6)
    zones = [{**row, "zoned": dt.datetime(2024, 1, 2, tzinfo=UTC)}, {**row, "zoned": dt.datetime(2024, 1, 2)}]
    with pytest.raises(DataError, match=r"'zoned' of the rows .* some moments have a time zone"):
        model.predict(zones)
    with pytest.raises(DataError, match="'zoned'"):
        served.predict(zones)


def test_columns_that_the_model_has_not_may_hold_anything() -> None:
    model, served, row = trained()
    assert said_of(model.predict, [{**row, "other": object()}]) == pytest.approx(served.predict(row), rel=1e-6)


# --- ids that a float does not tell


WHOLE = {"int64": pa.int64(), "uint64": pa.uint64(), "decimal": pa.decimal128(38, 0)}
FLOATS = {"float32": (pa.float32(), 2**24), "float64": (pa.float64(), 2**53)}


@pytest.mark.parametrize("way", ["plain", "list", "dictionary"])
@pytest.mark.parametrize("whole", WHOLE)
@pytest.mark.parametrize("floating", FLOATS)
def test_floats_say_which_integer_they_are_or_are_refused(floating: str, whole: str, way: str) -> None:
    kind, least = FLOATS[floating]

    def held(values: list[Any], kind: Any) -> Any:
        plain = pa.array(
            [
                Decimal(v) if pa.types.is_decimal(kind) else float(v) if kind in (pa.float32(), pa.float64()) else v
                for v in values
            ],
            kind,
        )
        return (
            plain.dictionary_encode()
            if way == "dictionary"
            else plain
            if way == "plain"
            else pa.array([[v] for v in plain.to_pylist()], pa.list_(kind))
        )

    def train(column: Any) -> Any:
        return streamsgd.train(
            {"c": column, "y": np.arange(60) % 3.0}, "y", categorical=["c"], epochs=1, threads=1, memory="1GB"
        )

    for first, fits in ((least - 8, True), (least, False)):
        ids = [first + 2 * (k % 3) for k in range(60)]
        for a, b in ((WHOLE[whole], kind), (kind, WHOLE[whole])):
            model = train(held(ids, a))
            if fits:
                assert model.predict({"c": held(ids, b)}).tolist() == model.predict({"c": held(ids, a)}).tolist()
                continue
            with pytest.raises(DataError, match=r"category 'c' is of type .* one float stands for several whole numbers"):
                model.predict({"c": held(ids, b)})


def test_nan_in_the_place_of_an_integer_is_missing() -> None:
    """As pandas has a column of integers of which one is missing."""
    model = streamsgd.train(
        {"c": [1, 2, None, 3] * 20, "y": [1.0, 2.0, 9.0, 3.0] * 20}, "y", categorical=["c"], epochs=3, threads=1
    )
    ids = [1, 2, None, 3]
    assert (
        model.predict(pa.table({"c": np.array([1.0, 2.0, np.nan, 3.0])})).tolist()
        == model.predict(pa.table({"c": ids})).tolist()
    )
    assert [served_of(model).predict({"c": v}) for v in (np.nan, None)] == pytest.approx(
        [model.predict(pa.table({"c": ids}))[2]] * 2
    )
