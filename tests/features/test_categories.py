"""Categories: every value has its weight, its own or one it shares by the documented hash, whatever Arrow holds it in."""

import datetime as dt
import decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.preprocessing import OneHotEncoder
from wide import encoding_of, job_of, random_model, rows_of, slot, with_y

from streamsgd.errors import SettingsError
from streamsgd.features import sample as look
from streamsgd.features.categories import MOST_EXACT
from streamsgd.features.choose import LEAST_BITS, MOST_BITS
from streamsgd.features.hashing import NULL

RNG = np.random.default_rng(4)
N = 400
COLOURS = np.array(["red", "Red", "", "blau", "été", "日本", "a b"])


def names(prefix: str, n: int) -> list[str]:
    return [f"{prefix}{k}" for k in range(n)]


# --- law: a column of few values gets the weights of a one-hot encoding


def test_exact_weights_are_those_of_a_one_hot_encoding() -> None:
    columns = {
        "s": pa.array(np.where(RNG.random(N) < 0.1, None, COLOURS[RNG.integers(0, 7, N)])),
        "i": pa.array(RNG.integers(-3, 4, N).astype(np.int8), mask=RNG.random(N) < 0.1),
        "b": pa.array(RNG.random(N) < 0.3),
    }
    encoding = encoding_of(columns, categorical=["i", "b"])
    assert encoding.hashed is None
    assert [c.name for c in encoding.categories] == ["s", "i", "b"]
    model = random_model(encoding)
    texts = {
        "s": columns["s"].to_pylist(),
        "i": [None if v is None else str(v) for v in columns["i"].to_pylist()],
        "b": [str(v).lower() for v in columns["b"].to_pylist()],
    }
    expected = np.full(N, model.weights[-1, 0])
    for category in encoding.categories:
        column = np.array(texts[category.name], object)[:, None]
        theirs = OneHotEncoder(categories=[[*category.values, None]], sparse_output=False).fit_transform(column)
        assert category.values == tuple(sorted({v for v in texts[category.name] if v is not None}, key=str.encode))
        expected += theirs @ model.weights[category.first : category.first + theirs.shape[1], 0]
    np.testing.assert_allclose(model.decision_function(pa.table(columns)), expected, rtol=1e-12)


def test_coordinates_are_numbers_then_values_then_null_then_any_other() -> None:
    encoding = encoding_of({"x": np.arange(6.0), "c": ["b", "a", None, "b", "a", "c"]}, transform="none")
    (category,) = encoding.categories
    assert (category.first, category.own, category.values) == (1, 5, ("a", "b", "c"))
    assert category.own_names == ("a", "b", "c", "is missing", "any other")
    assert encoding.n_coordinates == 1 + 5 + 1
    _, ids = rows_of(encoding, {"x": np.zeros(6), "c": ["c", None, "a", "b", "never seen", ""]})
    assert ids[:, 0].tolist() == [3, 4, 1, 2, 5, 5]


def test_null_has_a_weight_even_if_the_first_look_saw_none() -> None:
    encoding = encoding_of({"c": ["b", "a"] * 3})
    _, ids = rows_of(encoding, {"c": pa.array([None, "a", None, "x"])})
    assert ids[:, 0].tolist() == [2, 0, 2, 3]
    assert rows_of(encoding, {"c": pa.nulls(3)})[1][:, 0].tolist() == [2] * 3


def test_two_columns_have_weights_apart() -> None:
    encoding = encoding_of({"a": ["u", "v"] * 3, "b": ["u", "v"] * 3})
    _, ids = rows_of(encoding, {"a": ["u", "v"], "b": ["u", "v"]})
    assert ids.tolist() == [[0, 4], [1, 5]]


# --- law: a column of many values shares a hashed space


def test_hashed_values_are_where_the_documented_hash_says() -> None:
    seen = names("é", 3000)
    encoding = encoding_of({"c": [None, *seen]}, bits=20)
    (category,) = encoding.categories
    assert (category.own, encoding.hashed.bits, encoding.n_coordinates) == (0, 20, 2**20 + 1)
    others = ["new", "", "\0", None]
    _, ids = rows_of(encoding, {"c": [*seen, *others]})
    expected = [slot(NULL if v is None else v.encode(), "c", encoding.hashed) for v in [*seen, *others]]
    assert ids[:, 0].tolist() == expected


def test_exact_and_hashed_stand_side_by_side() -> None:
    columns = {"few": ["a", "b"] * 1000, "many": names("v", 2000), "x": RNG.normal(size=2000)}
    encoding = encoding_of(columns, bits=16, categorical=["many"])
    few, many, ranges = encoding.categories
    assert ((few.values, many.values), ranges.edges != ()) == ((("a", "b"), ()), True)
    assert encoding.hashed.first == encoding.width + few.own + ranges.own
    assert encoding.n_coordinates == encoding.hashed.first + 2**16 + 1
    model, numbers = random_model(encoding), columns["x"]
    w, (number,) = model.weights[:, 0], encoding.columns
    expected = w[-1] + (numbers - number.shift) * number.scale * w[0]
    expected += w[few.first + (np.arange(2000) % 2)]
    expected += w[[slot(v.encode(), "many", encoding.hashed) for v in columns["many"]]]
    expected += w[ranges.first + np.searchsorted(ranges.edges, numbers, side="right")]
    np.testing.assert_allclose(model.decision_function(pa.table(columns)), expected, rtol=1e-12)


@pytest.mark.parametrize(("n_values", "exact"), [(1, True), (MOST_EXACT, True), (MOST_EXACT + 1, False)])
def test_of_data_that_is_seen_as_a_whole_the_count_decides(n_values: int, exact: bool) -> None:
    encoding = encoding_of({"c": (names("v", n_values) * 2)[: max(n_values, 2)]})
    assert bool(encoding.categories[0].values) is exact
    assert (encoding.hashed is None) is exact


@pytest.mark.parametrize(("rare", "exact"), [(0, True), (5, True), (60, False)])
def test_of_a_sample_it_matters_too_whether_new_values_will_come(rare: int, exact: bool, monkeypatch: Any, write: Any) -> None:
    """Good's estimate: the share of new values is that of values seen once, at most a thousandth."""
    monkeypatch.setattr(look, "SAMPLE_ROWS", 16_000)
    column = np.array(["a", "b", "c", "d"])[RNG.integers(0, 4, 40_000)].astype(object)
    some = RNG.permutation(40_000)[: rare * 5 // 2]
    column[some] = names("rare", len(some))
    data = write({"c": column.tolist(), "y": np.arange(40_000.0)}, row_group_size=1000)
    job = job_of(data)
    assert bool(job.encoding.categories[0].values) is exact
    if not exact:
        assert job.encoding.categories[0].distinct > 60


def test_of_data_that_is_seen_as_a_whole_the_distinct_values_are_counted_not_guessed() -> None:
    """Even if each came once."""
    (category,) = encoding_of({"c": names("v", 2000)}).categories
    assert category.distinct == 2000


def test_the_space_has_room_for_the_distinct_values_within_limits() -> None:
    """Four slots for each."""
    columns = {n: {"c": names("v", n) * 2} for n in (2000, 100_000, 200_000, 1_100_000)}
    sizes = {n: encoding_of(columns[n]).hashed.bits for n in columns}
    assert sizes == {2000: LEAST_BITS, 100_000: 19, 200_000: 20, 1_100_000: MOST_BITS}


@pytest.mark.parametrize("bits", [8, 22])
def test_bits_can_be_said(bits: int) -> None:
    encoding = encoding_of({"c": names("v", 1100)}, bits=bits)
    assert (encoding.hashed.bits, encoding.hashed.mask) == (bits, 2**bits - 1)


# --- law: the value of any other type is the text that Arrow makes of it


DAY = dt.date(2024, 2, 29)
NOON = dt.datetime(2024, 2, 29, 12, 30, 15, tzinfo=dt.UTC)
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
TYPES: dict[str, tuple[Any, list[Any], list[bytes]]] = {
    "string": (pa.string(), ["a", ""], [b"a", b""]),
    "large_string": (pa.large_string(), ["a", ""], [b"a", b""]),
    "string_view": (pa.string_view(), ["a", "longer than twelve"], [b"a", b"longer than twelve"]),
    "binary": (pa.binary(), [b"a", b"\xff\0"], [b"a", b"\xff\0"]),
    "large_binary": (pa.large_binary(), [b"a", b"\xff"], [b"a", b"\xff"]),
    "binary_view": (pa.binary_view(), [b"a", b"longer than twelve"], [b"a", b"longer than twelve"]),
    "fixed binary": (pa.binary(2), [b"ab", b"\0\xff"], [b"ab", b"\0\xff"]),
    "int8": (pa.int8(), [-128, 7], [b"-128", b"7"]),
    "uint64": (pa.uint64(), [0, 2**64 - 1], [b"0", b"18446744073709551615"]),
    "int64": (pa.int64(), [-(2**63), 2**53 + 1], [b"-9223372036854775808", b"9007199254740993"]),
    "bool": (pa.bool_(), [True, False], [b"true", b"false"]),
    "float64": (pa.float64(), [0.5, -2.0], [b"0.5", b"-2"]),
    "float32": (pa.float32(), [0.25, 3.0], [b"0.25", b"3"]),
    "float16": (pa.float16(), [np.float16(0.5), np.float16(-2)], [b"0.5", b"-2"]),
    "decimal128": (pa.decimal128(9, 2), [decimal.Decimal("1.50"), decimal.Decimal("-0.01")], [b"1.5", b"-0.01"]),
    "decimal256": (pa.decimal256(60, 2), [decimal.Decimal("1.50"), decimal.Decimal("-0.01")], [b"1.5", b"-0.01"]),
    "date32": (pa.date32(), [DAY, dt.date(1, 1, 1)], [b"2024-02-29", b"0001-01-01"]),
    "date64": (pa.date64(), [DAY, dt.date(1969, 12, 31)], [b"2024-02-29", b"1969-12-31"]),
    "time32": (pa.time32("s"), [dt.time(1, 2, 3), dt.time(0)], [b"01:02:03", b"00:00:00"]),
    "time64": (pa.time64("us"), [dt.time(1, 2, 3, 4), dt.time(0)], [b"01:02:03.000004", b"00:00:00"]),
    "timestamp[s]": (pa.timestamp("s"), [NOON, EPOCH], [b"2024-02-29 12:30:15", b"1970-01-01"]),
    "timestamp[s, UTC]": (
        pa.timestamp("s", "UTC"),
        [NOON, EPOCH],
        [b"2024-02-29 12:30:15Z", b"1970-01-01 00:00:00Z"],
    ),
    "duration[s]": (pa.duration("s"), [dt.timedelta(seconds=5), dt.timedelta(-1)], [b"5", b"-86400"]),
}


@pytest.mark.parametrize("name", TYPES)
def test_every_type_is_its_text(name: str) -> None:
    """Hashed: of 1,100 other values of the same column the weights are not looked at."""
    kind, values, texts = TYPES[name]
    encoding = encoding_of({"c": names("v", 1100)})
    column = pa.array([*values, None], kind)
    expected = [slot(text, "c", encoding.hashed) for text in [*texts, NULL]]
    for shape in (column, pa.chunked_array([column[:1], column[1:]]), pa.array([values[0], *values, None], kind)[1:]):
        _, ids = rows_of(encoding, {"c": shape})
        assert ids[:, 0].tolist() == expected


@pytest.mark.parametrize("name", TYPES)
def test_every_type_can_be_exact_if_it_is_text(name: str) -> None:
    kind, values, texts = TYPES[name]
    encoding = encoding_of({"c": pa.array([*values, None, values[0]], kind)}, categorical=["c"])
    (category,) = encoding.categories
    if any(b"\xff" in text for text in texts):  # no name for people
        assert category.values == ()
        return
    assert [value.encode() for value in category.values] == sorted(texts)
    _, ids = rows_of(encoding, {"c": pa.array([*values, None], kind)})
    assert ids[:, 0].tolist() == [*(sorted(texts).index(text) for text in texts), 2]


def test_integers_are_the_same_category_in_any_width() -> None:
    encoding = encoding_of({"c": pa.array([3, 1, 2, None], pa.int16())}, categorical=["c"])
    for kind in (pa.int8(), pa.uint32(), pa.int64(), pa.decimal128(19, 0)):
        _, ids = rows_of(encoding, {"c": pa.array([1, 2, 3, None, 4]).cast(kind)})
        assert ids[:, 0].tolist() == [0, 1, 2, 3, 4]


def test_numbers_stay_numbers_unless_they_are_named() -> None:
    columns = {"i": [1, 2, 3], "b": [True, False, True], "f": [0.5, 1.5, 2.5]}
    assert encoding_of(columns).categories == ()
    assert [c.name for c in encoding_of(columns, categorical=["i"], transform="none").categories] == ["i"]
    assert {c.name for c in encoding_of(columns, categorical=["*"]).categories} == {"i", "b", "f"}


def test_sentences_are_text_unless_they_are_named_categories() -> None:
    sentences = [f"the quick brown fox number {k} jumps" for k in range(50)]
    encoding = encoding_of({"t": sentences})
    assert ([t.kind for t in encoding.tails], encoding.categories) == (["text"], ())
    encoding = encoding_of({"t": sentences}, categorical=["t"])
    assert (encoding.tails, len(encoding.categories[0].values)) == ((), 50)
    short = encoding_of({"t": ["one", "two"] * 5}, text=["t"])
    assert ([t.name for t in short.tails], short.categories) == (["t"], ())
    repeated = encoding_of({"t": sentences[:2] * 50})
    assert repeated.tails == ()


def test_a_list_of_floats_is_a_list_of_categories_if_asked_for() -> None:
    assert [tail.kind for tail in job_of(with_y({"l": [[1.0], [2.0]]}), categorical=["l"]).encoding.tails] == ["list"]
    with pytest.raises(SettingsError, match=r"column 's' is of type struct<.*cannot be a category"):
        job_of(with_y({"s": [{"a": 1.0}, {"a": 2.0}]}), categorical=["s"])
