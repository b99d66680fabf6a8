"""The filter: it means what Python means by it, evaluates nothing, and prunes no match."""

import math
from contextlib import suppress
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamsgd.data.dataset import read_dataset
from streamsgd.data.filters import filter_columns, parse_filter, row_filter
from streamsgd.data.parquet.pruning import prune
from streamsgd.errors import SettingsError, StreamSGDError

DAYS = [datetime(2024, 1, i, tzinfo=UTC) for i in range(1, 6)]
TABLE = pa.table(
    {
        "x": pa.array([1, 2, 3, None, -7], pa.int8()),
        "y": [0.1, math.nan, 3.0, 4.0, None],
        "my col": [1, 2, 3, 4, 5],
        "s": ["a", "b", None, "c", "d"],
        "d": [date(2024, 1, i) for i in range(1, 6)],
        "t": pa.array(DAYS, pa.timestamp("ms")),
        "z": pa.array(DAYS, pa.timestamp("ms", "Europe/Paris")),
        "b": [True, False, None, True, True],
        "p": pa.array([Decimal("1.10")] * 5),
        "c": pa.array(["a", "b", "a", "b", None]).dictionary_encode(),
        "u": pa.array([2**63 + 5] * 5, pa.uint64()),
        "class": [1] * 5,
    }
)


def rows(text: str) -> list[int]:
    table = TABLE.append_column("row", pa.array(range(5)))
    return table.filter(parse_filter(text, TABLE.schema)).column("row").to_pylist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x > 1", [1, 2]),
        ("1 < x <= 3", [1, 2]),
        ("not x > 1", [0, 4]),
        ("x + 100 > 102", [2]),
        ("-x > 6", [4]),
        ("x * 100 == 300", [2]),
        ("x / 2 == .5", [0]),
        ("x == 300", []),
        ("-1 < x", [0, 1, 2]),
        ("x is None", [3]),
        ("x is not None and y is None", [4]),
        ("x in [1, -7]", [0, 4]),
        ("x not in [1, -7]", [1, 2]),
        ("x in []", []),
        ("y != 3", [0, 1, 3]),
        ("`my col` in (1, 2) or `my col` == 5", [0, 1, 4]),
        ("`class` == 1 and x == 1", [0]),
        ("s < 'c'", [0, 1]),
        ('s == "`"', []),
        ("c == 'a'", [0, 2]),
        ("c in ['b']", [1, 3]),
        ("d > '2024-01-03'", [3, 4]),
        ("d in ['2024-01-01', '2024-01-05']", [0, 4]),
        ("'2024-01-02' <= t < '2024-01-03 12:00'", [1, 2]),
        ("z >= '2024-01-03 01:00'", [2, 3, 4]),
        ("z < '2024-01-03T01:00:00+01:00'", [0, 1]),
        ("b", [0, 3, 4]),
        ("not b", [1]),
        ("b == 1", [0, 3, 4]),
        ("b == False", [1]),
        ("p == 1.1", [0, 1, 2, 3, 4]),
        ("p > 1", [0, 1, 2, 3, 4]),
        ("u > 9223372036854775807", [0, 1, 2, 3, 4]),
        (" x == 1\t", [0]),
        ("(x == 1) or (s == 'd')", [0, 4]),
    ],
)
def test_condition(text: str, expected: list[int]) -> None:
    assert rows(text) == expected


@given(st.integers(-20, 20), st.integers(-5, 5).filter(bool), st.booleans())
def test_modulo_and_division_are_pythons(value: int, by: int, whole: bool) -> None:
    table = pa.table({"v": [value if whole else value / 2]})
    number = table.column("v")[0].as_py()
    for text, expected in ((f"v % {by}", number % by), (f"v / {by}", number / by)):
        condition = parse_filter(f"{text} == {expected!r}", table.schema)
        assert table.filter(condition).num_rows == 1, text


def test_a_thousand_alternatives() -> None:
    assert rows(" or ".join(f"x == {i}" for i in range(-2000, 0))) == [4]


def test_columns_in_order_of_appearance() -> None:
    text = "s == 'x' and (`my col` > 1 or b) and `my col` < x and 'd' == s"
    assert filter_columns(text, TABLE.schema) == ("s", "my col", "b", "x")
    assert filter_columns("True", TABLE.schema) == ()


# --- law: anything else is refused, with where and what instead


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("x > 'a'", "\"'a'\" at character 5 cannot be compared with int8"),
        ("s > 1", "'1' at character 5 cannot be compared with string"),
        ("s == 'x' and d > 'soon'", "at character 18 is compared with date32.* like 2024-01-31"),
        ("d > '2024-01-01 12:00'", "has a time but the column is a date"),
        ("t > '2024-01-01 12:00Z'", "has a time zone but the column has none"),
        ("`my clo` > 1", r"'`my clo`' at character 1 is not a column \(did you mean 'my col'\?\)"),
        ("xx > 1", "did you mean 'x'"),
        ("true", "did you mean 'True'"),
        ("nope > 1", r"'nope' at character 1 is not a column; allowed"),
        ("fals", r"'fals' at character 1 is not a column; allowed"),
        ("x == NULL", r"'NULL' at character 6 is not a column \(write `is None` for missing values\)"),
        ("t >= 2024-01-04", "'2024-01-04' at character 6 is no number: put dates in quotes, '2024-01-04'"),
        ("t >= 2024-10-14", r"'2024-10-14' at character 6 is int64, .* with timestamp.*\(put dates in quotes: '2024-10-14'\)"),
        ("d == 2024-10-14", r"cannot be compared with date32\[day\] \(put dates in quotes: '2024-10-14'\)"),
        ("s == x", r"'x' at character 6 is int8, which cannot be compared with string"),
        ("`my col` > 1 and t < 2024-01-04 12:30", "'2024-01-04 12:30' at character 22 is no number: put dates in quotes"),
        ("t in ['a', 2024-01-04]", "'2024-01-04' at character 12 is no number"),
        ("20%", "it ends with '%' at character 3, after which a value is missing; a share is a number, 0.2;"),
        ("x >", "it ends with '>' at character 3, after which a value is missing;"),
        ("x > 1 and", "it ends with 'and' at character 7, after which a value is missing;"),
        ("x > and b", "'and' at character 5 is not expected there;"),
        ("x = 1", "'=' at character 3 is written == here;"),
        ("x => 1", "'=>' at character 3 is written >= here;"),
        ("`my col` > 1 AND b", "'AND' at character 14 is written and here;"),
        ("x > 007", "the number at character 5 begins with 0"),
        ("s == 'a", "the text that begins at character 6 does not end: a quote is missing"),
        ("`my col > 1", "the name that begins at character 1 does not end: a backtick is missing"),
        ("x ** 2 > 1", r"'x \*\* 2' at character 1 is not allowed; allowed are"),
        ("`my col` > 1 and x & 2", "'x & 2' at character 18 .*write and"),
        ("__import__('os').system('true')", "is not allowed"),
        ("s.upper == 1", "is not allowed"),
        ("x[0] > 1", "is not allowed"),
        ("lambda: 1", "is not allowed"),
        ("f'{x}' == s", "is not allowed"),
        ("x == 1j", "is not allowed"),
        ("x == b'1'", "is not allowed"),
        ("x == ...", "is not allowed"),
        ("x > (y := 3)", "is not allowed"),
        ("[x for x in y]", "is not allowed"),
        ("x = 1", "at character 3"),
        ("(x > 1", "never closed"),
        ("x == None", "write `is None`"),
        ("x is 5", "write == for values"),
        ("x in 5", "must be a list of values"),
        ("x in [y]", "must be a list of values"),
        ("x % 0 == 1", "other than 0"),
        ("s + 1 > 2", "'s' at character 1 is string"),
        ("x", "'x' at character 1 is int8 and not a condition"),
        ("not x", "'x' at character 5 is int8 and not a condition"),
        ("b and s", "'s' at character 7 is string and not a condition"),
        ("x + 1 or b", "'x \\+ 1' at character 1 is int64 and not a condition"),
        ("not -3", "'-3' at character 5 is int64 and not a condition"),
        ("not not 'a'", "\"'a'\" at character 9 is string and not a condition"),
        ("X > 1", "'X' at character 1 is not a column .did you mean 'x'"),
        ("`MY COL` > 1", "is not a column .did you mean 'my col'"),
        ("x > 99999999999999999999", "too large"),
        ("x > \0", "null bytes"),
        ("not " * 3000 + "b", "filter"),
        ("+".join(["x"] * 5000) + " > 1", "filter"),
        ("(" * 300 + "x" + ")" * 300, "nested parentheses"),
        ("x > 1 or " * 20_000 + "b", "characters"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse_filter(text, TABLE.schema)


@given(st.text(alphabet="xysdb ()[]<>=!+-*/%'`.,1290andortisNoe\n", max_size=30))
@settings(max_examples=300)
def test_any_text_is_a_condition_or_a_settings_error(text: str) -> None:
    with suppress(SettingsError):
        assert 0 <= TABLE.filter(parse_filter(text, TABLE.schema)).num_rows <= 5


# --- law: pruning keeps every row group that holds a match


values = {
    "i": st.one_of(st.none(), st.integers(-4, 4)),
    "f": st.one_of(st.none(), st.sampled_from([-1.5, 0.0, -0.0, 0.1, 2.0, math.nan, math.inf])),
    "g": st.one_of(st.none(), st.sampled_from([-1.5, 0.1, 2.0, math.nan])),
    "s": st.one_of(st.none(), st.sampled_from(["", "a", "b", "long text " * 20])),
    "b": st.one_of(st.none(), st.booleans()),
}
TYPES = {"i": pa.int32(), "f": pa.float64(), "g": pa.float32(), "s": pa.string(), "b": pa.bool_()}
atoms = st.one_of(
    st.builds("{} {} {}".format, st.sampled_from("ifgk"), st.sampled_from(["==", "!=", "<", "<=", ">", ">="]),
              st.sampled_from(["-1.5", "0", "0.1", "2", "3000000000"])),
    st.builds("s {} '{}'".format, st.sampled_from(["==", "!=", "<", ">="]), st.sampled_from(["", "a", "b"])),
    st.builds("{} {} None".format, st.sampled_from("ifgsbk"), st.sampled_from(["is", "is not"])),
    st.builds("{} {} [0, 2]".format, st.sampled_from("ifgk"), st.sampled_from(["in", "not in"])),
    st.sampled_from(["b", "not b", "b == False", "i + 1 > 2", "i % 2 == 1", "f / 2 > 0.01"]),
)  # fmt: skip
conditions = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.builds("({} and {})".format, inner, inner),
        st.builds("({} or {})".format, inner, inner),
        st.builds("not ({})".format, inner),
    ),
    max_leaves=4,
)


@given(st.data(), conditions)
@settings(max_examples=150, deadline=None)
def test_pruning_keeps_every_match(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, text: str) -> None:
    folder = tmp_path_factory.mktemp("prune")
    tables = []
    for k in (0, 2):  # the second file stores wider types
        n = data.draw(st.integers(1, 6))
        columns = {name: data.draw(st.lists(values[name], min_size=n, max_size=n)) for name in values}
        wider = {"i": pa.int64(), "g": pa.float64()} if k else {}
        table = pa.table({name: pa.array(columns[name], wider.get(name, TYPES[name])) for name in values})
        (folder / f"k={k}").mkdir()
        pq.write_table(table, folder / f"k={k}/a.parquet", row_group_size=2, write_statistics=data.draw(st.booleans()))
        tables.append(table.append_column("k", pa.array([k] * n)))
    dataset = read_dataset(folder)
    condition = row_filter(text, dataset.schema)
    keep = prune(dataset, condition)
    for group in range(dataset.n_row_groups):
        start = 2 * dataset.index[group]
        piece = tables[dataset.file[group]].slice(start, dataset.rows[group])
        columns = dict(zip(piece.column_names, piece.columns, strict=True))
        assert keep[group] or not condition.keep(columns, "").any(), (text, piece.to_pylist())


def ten_groups(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    x = np.arange(100)
    pq.write_table(pa.table({"x": x, "f": x.astype(float), "s": [f"{i:03}" for i in x]}), path, row_group_size=10)
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x >= 95", [9]),
        ("x < 0", []),
        ("x in [5, 55]", [0, 5]),
        ("s >= '080' and f < 85", [8]),
        ("15 <= f < 25", [1, 2]),
        ("not x >= 5", [0]),
        ("not f >= 5", list(range(10))),  # a NaN would fulfil it, and statistics leave NaN out
        ("x + 1 > 1000", list(range(10))),
    ],
)
def test_statistics_prune(tmp_path: Path, text: str, expected: list[int]) -> None:
    dataset = read_dataset(ten_groups(tmp_path / "a.parquet"))
    assert np.flatnonzero(prune(dataset, row_filter(text, dataset.schema))).tolist() == expected


def test_folders_prune_without_reading_footers(tmp_path: Path) -> None:
    for k in range(3):
        ten_groups(tmp_path / f"k={k}/a.parquet")
    dataset = read_dataset(tmp_path)
    for k in range(3):
        (tmp_path / f"k={k}/a.parquet").unlink()
    assert prune(dataset, row_filter("k == 1", dataset.schema)).tolist() == [False] * 10 + [True] * 10 + [False] * 10


def test_folders_and_statistics_prune_together(tmp_path: Path) -> None:
    for k in range(3):
        ten_groups(tmp_path / f"k={k}/a.parquet")
    dataset = read_dataset(tmp_path)
    keep = prune(dataset, row_filter("k > 0 and x < 10", dataset.schema))
    assert np.flatnonzero(keep).tolist() == [10, 20]
    assert prune(dataset.select(keep), row_filter("k == 2 and x < 99", dataset.schema)).tolist() == [
        False,
        True,
    ]


def test_statistics_of_a_column_that_the_folder_overrides_do_not_prune(tmp_path: Path) -> None:
    ten_groups(tmp_path / "x=1000/a.parquet")
    dataset = read_dataset(tmp_path)
    assert prune(dataset, row_filter("x == 1000 and f >= 0", dataset.schema)).all()


def test_file_that_vanished_is_named(tmp_path: Path) -> None:
    path = ten_groups(tmp_path / "a.parquet")
    dataset = read_dataset(path)
    path.unlink()
    with pytest.raises(StreamSGDError, match=r"a\.parquet: no such file"):
        prune(dataset, row_filter("x > 1", dataset.schema))


# --- law: a type that cannot hold a value, or not every result, is no obstacle


def kept(text: str, table: pa.Table) -> list[bool]:
    return list(row_filter(text, table.schema).keep({name: table[name] for name in table.column_names}, "here"))


@pytest.mark.parametrize(
    "text",
    ["z > 0", "0 < z < 3", "z == 'a'", "not z > 0", "z is None", "z is not None", "z in [1, 2]", "z not in [1]",
     "not (z in [1])", "z == s", "z == z", "z + 1 > 0", "-z > 1", "z % 2 == 1", "z or s == 'ab'", "not z", "z"],
)  # fmt: skip
def test_a_column_without_a_type_is_null_in_every_row(text: str) -> None:
    """As one of another type is that holds no value: which, depends on what it is compared with."""
    of_type = pa.string() if text in ("z == 'a'", "z == s") else pa.float64()
    of_type = pa.bool_() if text in ("z", "not z", "z or s == 'ab'") else of_type
    s = pa.array(["ab", "b", None])
    assert kept(text, pa.table({"z": pa.nulls(3), "s": s})) == kept(text, pa.table({"z": pa.nulls(3, of_type), "s": s}))


@pytest.mark.parametrize(
    "kind", [pa.decimal128(10, 2), pa.decimal128(37, 2), pa.decimal256(37, 10), pa.decimal64(10, 2)], ids=str
)
@pytest.mark.parametrize(
    "text", ["v * 2 > 1", "v + 1 > 1.5", "2 * v + 1 >= 2", "-v > 0.5", "v * v > 0.25", "v - v * 3 < 0", "v % 1 == 0"]
)
def test_decimals_are_calculated_with_exactly(text: str, kind: pa.DataType) -> None:
    values = [Decimal("0.50"), Decimal("0.51"), Decimal(-1), Decimal(7), None]
    table = pa.table({"v": pa.array(values).cast(kind)})
    expected = [value is not None and eval(text, {"v": value}) for value in values]
    assert kept(text, table) == [bool(one) for one in expected]


def test_decimals_that_have_no_room_are_refused_with_a_way_out_that_works() -> None:
    table = pa.table({"v": pa.array([Decimal(2), Decimal(-2)]).cast(pa.decimal256(50, 2))})
    with pytest.raises(SettingsError, match=r"'v \* v'.* 76 digits .*divide a column by 1"):
        kept("v * v * v > 0", table)
    assert kept("v / 1 * v / 1 * v > 0", table) == [True, False]


@pytest.mark.parametrize("text", ["c == 'ab'", "c > 'a'", "c in ['ab', 'q']", "c != 'ab'", "'b' <= c"])
@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary(2)], ids=str)
def test_bytes_are_compared_with_text_as_text_is(text: str, kind: pa.DataType) -> None:
    words = ["ab", "cd", None, "é"]
    held = pa.array([word and word.encode() for word in words], kind)
    assert kept(text, pa.table({"c": held})) == kept(text, pa.table({"c": words}))


@pytest.mark.parametrize("operator", ["<", "<=", "==", "!=", ">=", ">"])
@pytest.mark.parametrize(
    "kind", [pa.timestamp("ns"), pa.timestamp("us"), pa.timestamp("s"), pa.timestamp("ns", "UTC")], ids=str
)
def test_moments_are_compared_to_the_last_digit_that_is_written(operator: str, kind: pa.DataType) -> None:
    """A `datetime` drops what is below a microsecond, and so did conditions."""
    step = {"ns": 1, "us": 1_000, "s": 1_000_000_000}[kind.unit]
    at = 1_700_000_000 * 10**9
    values = [at + step * k for k in (-1, 0, 1, 50, 51)]
    table = pa.table({"t": pa.array([value // step for value in values]).cast(kind)})
    text = f"t {operator} '2023-11-14 22:13:20.000000050{'Z' if kind.tz else ''}'"
    assert kept(text, table) == [eval(f"{value} {operator} {at + 50}") for value in values]


def test_a_date_has_no_time_however_fine() -> None:
    with pytest.raises(SettingsError, match="has a time but the column is a date"):
        kept("d == '2024-01-31 00:00:00.000000001'", pa.table({"d": pa.array([date(2024, 1, 31)])}))
