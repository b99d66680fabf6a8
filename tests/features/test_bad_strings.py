"""Bad strings, lists, maps, and settings about them: an error that says what, where and how to fix, or documented behaviour."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from wide import slot

import streamsgd
from streamsgd.errors import DataError, SettingsError, StreamSGDError
from streamsgd.features.hashing import NULL
from streamsgd.model.model import Model
from streamsgd.settings.make import make_settings

N = 120
Y = np.sin(np.arange(N))
PLAIN = {"executor": "inline", "memory": "2GB", "precision": "float64", "bits": 16, "epochs": 2}


def train(columns: dict[str, Any], **settings: Any) -> Model:
    """Train on the columns as a table, which must not end in anything but a model or an error for people."""
    return streamsgd.train(pa.table({**columns, "y": Y[: len(next(iter(columns.values())))]}), "y", **{**PLAIN, **settings})


def train_file(columns: dict[str, Any], path: Path, **settings: Any) -> Model:
    pq.write_table(pa.table({**columns, "y": Y}), path)
    return streamsgd.train(path, "y", **{**PLAIN, **settings})


def is_sound(model: Model) -> bool:
    return bool(np.isfinite(model.weights).all() and model.weights.any())


def raw_strings(values: list[bytes | None]) -> Any:
    """A column of type string that holds any bytes, as a writer that does not check makes it."""
    array = pa.array(values, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(array), array.buffers())


def cycle(values: list[Any], n: int = N) -> list[Any]:
    return [values[k % len(values)] for k in range(n)]


# --- strings that are no text

BROKEN = [b"ok", b"\xff\xfe", b"caf\xe9 au lait", b"\xc3(", None, b"", b"\xed\xa0\x80", b"nul\0"]
"""Bytes that begin no character, Latin-1, a sequence cut short, a lone surrogate."""


@pytest.mark.parametrize("settings", [{}, {"text": ["s"]}], ids=["category", "text"])
def test_bytes_that_are_no_utf8_are_values_like_any_other(settings: dict[str, Any], tmp_path: Path) -> None:
    columns = {"s": raw_strings(cycle(BROKEN))}
    model = train(columns, **settings)
    assert is_sound(model)
    in_file = train_file(columns, tmp_path / "a.parquet", **settings)
    assert np.array_equal(in_file.weights, model.weights)
    as_bytes = train({"s": pa.array(cycle(BROKEN), pa.binary())}, **settings)
    assert np.array_equal(as_bytes.weights, model.weights)
    if not settings:
        (category,) = model.encoding.categories
        assert category.values == ()
        places = [slot(NULL if v is None else v, "s", model.encoding.hashed) for v in BROKEN]
        assert (model.weights[places] != 0.0).all()
    assert np.isfinite(model.predict(pa.table(columns))).all()


def test_such_a_model_can_be_shown_and_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from streamsgd.cli.main import main  # noqa: PLC0415

    train({"s": raw_strings(cycle(BROKEN))}).save(tmp_path / "m.sgd")
    assert main(["show", str(tmp_path / "m.sgd")]) == 0
    assert main(["show", str(tmp_path / "m.sgd"), "--json"]) == 0
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("wrap", ["list", "map"])
def test_such_bytes_in_lists_and_maps(wrap: str) -> None:
    keys = [v for v in BROKEN if v is not None]
    rows = [[keys[k % 7], keys[(k + 3) % 7]] for k in range(N)]
    flat = raw_strings([v for row in rows for v in row])
    offsets = pa.array(range(0, 2 * N + 1, 2), pa.int32())
    numbers = pa.array(np.ones(2 * N))
    column = pa.ListArray.from_arrays(offsets, flat) if wrap == "list" else pa.MapArray.from_arrays(offsets, flat, numbers)
    model = train({"c": column})
    assert is_sound(model)
    assert (model.weights[[slot(v, "c", model.encoding.hashed) for v in keys]] != 0.0).all()


def test_a_target_that_is_no_utf8_is_an_error_for_people() -> None:
    table = pa.table({"x": Y, "y": raw_strings(cycle([b"yes", b"\xff"]))})
    with pytest.raises(StreamSGDError, match="'y'"):
        streamsgd.train(table, "y", **PLAIN)


# --- columns that say little


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string()), pa.null()], ids=str)
def test_a_column_of_nulls_is_one_value_or_a_clear_error(kind: Any, tmp_path: Path) -> None:
    columns = {"s": pa.nulls(N, kind), "x": Y[::-1].copy()}
    assert is_sound(train(columns))
    assert is_sound(train_file(columns, tmp_path / "a.parquet"))


def test_a_column_of_empty_strings_is_one_value() -> None:
    model = train({"s": [""] * N, "x": Y[::-1].copy()})
    category = next(c for c in model.encoding.categories if c.name == "s")
    assert category.values == ("",)
    assert is_sound(model)
    assert is_sound(train({"s": [""] * N, "x": Y[::-1].copy()}, text=["s"]))


EMPTY_LISTS = {
    "null lists": [None, ["a"], ["b", "a"]],
    "null elements": [[None], ["a", None, None], []],
    "nothing else": [None, [], None],
    "null and empty": [None, []],
}


@pytest.mark.parametrize("case", EMPTY_LISTS)
def test_lists_that_hold_little(case: str, tmp_path: Path) -> None:
    columns = {"l": pa.array(cycle(EMPTY_LISTS[case]), pa.list_(pa.string()))}
    model = train(columns)
    assert is_sound(model)
    assert np.array_equal(train_file(columns, tmp_path / "a.parquet").weights, model.weights)


def test_texts_without_a_word() -> None:
    assert is_sound(train({"t": cycle(["", "  ", "!?", None, "..."])}, text=["t"], ngrams=3))


# --- numbers in maps


MAP = pa.map_(pa.string(), pa.float64())


def test_null_and_nan_in_a_map_count_as_zero(tmp_path: Path) -> None:
    some = cycle([[("a", 1.0), ("b", None)], [("b", math.nan), ("c", 2.0)], [("c", 1.0), ("a", None)], None, []])
    without = [None if row is None else [(k, v) for k, v in row if v is not None and v == v] for row in some]
    model = train({"m": pa.array(some, MAP)})
    assert is_sound(model)
    assert np.array_equal(model.weights, train({"m": pa.array(without, MAP)}).weights)
    assert np.array_equal(train_file({"m": pa.array(some, MAP)}, tmp_path / "a.parquet").weights, model.weights)


@pytest.mark.parametrize("value", [math.inf, -math.inf, 1e300])
def test_infinite_numbers_of_a_map_are_refused_by_name_as_those_of_columns_are(value: float, tmp_path: Path) -> None:
    """1e300 is infinite in the float32 that entries have."""
    columns = {"m": pa.array(cycle([[("a", 1.0)], [("a", value)]]), MAP)}
    for start in (lambda: train(columns), lambda: train_file(columns, tmp_path / "a.parquet")):
        with pytest.raises(DataError, match=r"'m' .*infinite"):
            start()
    healthy = train({"m": pa.array(cycle([[("a", 1.0)], [("b", 2.0)]]), MAP)})
    with pytest.raises(DataError, match=r"'m' .*infinite"):
        healthy.predict(pa.table(columns))


def test_unless_they_are_to_be_missing() -> None:
    columns = {"m": pa.array(cycle([[("a", 1.0)], [("a", math.inf), ("b", 1.0)]]), MAP)}
    same = {"m": pa.array(cycle([[("a", 1.0)], [("b", 1.0)]]), MAP)}
    model = train(columns, infinite="missing")
    assert np.array_equal(model.weights, train(same).weights)


# --- very long, very many


def test_strings_of_a_hundred_thousand_characters(tmp_path: Path) -> None:
    long = ["x" * 100_000, "y " * 50_000, "é" * 100_000, "short"]
    for settings in ({"categorical": ["s"]}, {"text": ["s"], "ngrams": 2}, {}):
        model = train_file({"s": cycle(long)}, tmp_path / "a.parquet", **settings)
        assert is_sound(model)
        assert np.isfinite(model.predict(pa.table({"s": long}))).all()


def test_every_row_has_its_own_value() -> None:
    few = train({"id": [f"row {k}" for k in range(N)], "x": Y})
    assert is_sound(few)
    table = pa.table({"id": [f"row {k}" for k in range(3000)], "y": np.arange(3000.0)})
    many = streamsgd.train(table, "y", **PLAIN)
    assert many.encoding.categories[0].own == 0
    assert is_sound(many)


def test_row_groups_whose_dictionaries_differ(tmp_path: Path) -> None:
    values = [f"{'ab'[k // 60]}{k % 5}" for k in range(N)]
    pq.write_table(pa.table({"s": values, "y": Y}), tmp_path / "a.parquet", row_group_size=60)
    assert np.array_equal(
        streamsgd.train(tmp_path, "y", **PLAIN, shuffle="none").weights, train({"s": values}, shuffle="none").weights
    )


def test_floats_as_categories_have_nan_and_null() -> None:
    column = pa.array(cycle([0.5, math.nan, None, 1.0, -0.0, math.inf]))
    model = train({"f": column}, categorical=["f"])
    (category,) = model.encoding.categories
    assert sorted(category.values) == sorted(["0.5", "nan", "1", "0", "inf"])
    assert is_sound(model)


# --- strange names


NAMES = ["a=b", "a*b", "a.hour", "größe", "x y", "[0]", "日本", "-", "a,b", "*"]


@pytest.mark.parametrize("name", NAMES)
def test_columns_may_have_any_name(name: str, tmp_path: Path) -> None:
    columns = {name: cycle(["u", "v", None]), "z": cycle(["p", "q"])}
    model = train(columns)
    assert is_sound(model)
    model.save(tmp_path / "m.sgd")
    assert np.array_equal(streamsgd.load(tmp_path / "m.sgd").predict(pa.table(columns)), model.predict(pa.table(columns)))
    many = train({name: [f"v{k}" for k in range(N)]}, bits=12, text=[name] if name not in ("[0]", "*") else [])
    assert is_sound(many)


def test_a_star_in_a_name_cannot_be_told_from_a_cross() -> None:
    """It is no feature's name there, and said so."""
    columns = {"a*b": cycle(["u", "v"]), "c": cycle(["p", "q", "r"])}
    with pytest.raises(SettingsError, match=r"--cross a\*b\*c: 'a' is no feature"):
        train(columns, cross=["a*b*c"])


def test_dots_in_names_of_moments() -> None:
    moments = pa.array(np.arange(N) * 7200, pa.timestamp("s"))
    model = train({"event.time": moments}, time_parts=["event.time"])
    assert [c.name for c in model.encoding.categories if c.part] == [
        "event.time.hour",
        "event.time.weekday",
        "event.time.month",
    ]
    model = train({"t.hour": moments}, time_parts=["t.hour.month"])
    assert [c.name for c in model.encoding.categories if c.part] == ["t.hour.month"]


# --- types that cannot be features


STRUCT = pa.struct([("a", pa.int64())])
UNUSABLE = {
    "struct": pa.array(cycle([{"a": 1}]), STRUCT),
    "list of lists": pa.array(cycle([[["a"]]]), pa.list_(pa.list_(pa.string()))),
    "list of structs": pa.array(cycle([[{"a": 1}]]), pa.list_(STRUCT)),
    "map to strings": pa.array(cycle([[("a", "b")]]), pa.map_(pa.string(), pa.string())),
    "fixed list of strings": pa.array(cycle([["a", "b"]]), pa.list_(pa.string(), 2)),
    "interval": pa.array(cycle([pa.MonthDayNano([1, 2, 3])])),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_what_cannot_be_a_feature_is_refused_with_the_flag_that_leaves_it_out(case: str) -> None:
    columns = {"bad": UNUSABLE[case], "x": Y}
    with pytest.raises(DataError, match=r"'bad' is of type .*--exclude 'bad'"):
        train(columns)
    assert is_sound(train(columns, exclude=["bad"], optimizer="normalized"))


def test_views_of_strings_and_bytes_are_strings_and_bytes() -> None:
    strings = cycle(["a", "a string longer than twelve", None])
    expected = train({"s": strings}).weights
    assert np.array_equal(train({"s": pa.array(strings, pa.string_view())}).weights, expected)
    raw = [None if v is None else v.encode() for v in strings]
    assert np.array_equal(train({"s": pa.array(raw, pa.binary_view())}).weights, expected)


# --- settings


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "both": ({"categorical": ["s"], "text": ["s"]}, "column 's' is both --categorical and --text"),
    "text of numbers": ({"text": ["x"]}, "column 'x' is of type double, which cannot be a string"),
    "text of lists": (
        {"text": ["l"]},
        "column 'l' is of type list<.*> ?, which cannot be a string|'l' is of type list.*which cannot be",
    ),
    "categorical unknown": ({"categorical": ["z"]}, "there is no column 'z'"),
    "text unknown": ({"text": ["ss"]}, "there is no column 'ss', did you mean 's'"),
    "categorical target": ({"categorical": ["y"]}, "there is no column 'y'|'y' is"),
    "time parts of a string": ({"time_parts": ["s"]}, "--time-parts s: column 's' is of type string, not a date or timestamp"),
    "time parts unknown": ({"time_parts": ["s.minute"]}, "there is no column 's.minute'"),
    "cross of a text": ({"text": ["s"], "cross": ["s*c"]}, r"--cross s\*c: 's' has many values per cell"),
    "cross of a list": ({"cross": ["l*c"]}, r"--cross l\*c: 'l' has many values per cell"),
    "cross of numbers": ({"cross": ["x*z2"]}, r"--cross x\*z2: a cross is of two or more categories"),
    "cross unknown": ({"cross": ["s*nothing"]}, r"--cross s\*nothing: 'nothing' is no feature"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_settings_that_fit_no_column_say_so(case: str) -> None:
    settings, message = REFUSED[case]
    columns = {"s": cycle(["u", "v"]), "c": cycle(["p", "q", "r"]), "x": Y, "z2": Y, "l": cycle([["a"]])}
    with pytest.raises(SettingsError, match=message):
        train(columns, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bits": 7}, "--bits: 7 is not a whole number of at least 8 and of at most 30 or auto"),
        ({"bits": 31}, "--bits: 31 is not"),
        ({"bits": "many"}, "--bits: 'many' is not"),
        ({"bits": -1}, "--bits: -1 is not"),
        ({"ngrams": 0}, "--ngrams: 0 is not a whole number of at least 1 and of at most 8"),
        ({"ngrams": 9}, "--ngrams: 9 is not"),
        ({"ngrams": 1.5}, "--ngrams: 1.5 is not"),
        ({"infinite": "skip"}, "--infinite: 'skip' is not error or missing"),
        ({"optimizer": "normalized", "batch_size": 32}, "--optimizer normalized learns row by row: leave --batch-size 32 out"),
        ({"optimizer": "ftrl:l1=1", "penalty": "l1"}, "--optimizer ftrl has penalties of its own"),
    ],
    ids=str,
)
def test_settings_out_of_range_say_what_is_allowed(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        train({"s": cycle(["u", "v"])}, **settings)


def test_a_hashed_space_that_no_budget_holds_is_refused_with_the_budget_that_does() -> None:
    with pytest.raises(
        SettingsError, match=r"--memory 1\.00 GB cannot hold this job: .*model .*The smallest budget that can is"
    ):
        train({"s": [f"v{k}" for k in range(N)]}, text=["s"], bits=30, memory="1GB")


def test_defaults_say_nothing_about_strings() -> None:
    settings = make_settings({"target": "y"})
    assert (settings.categorical, settings.text, settings.ngrams, settings.bits) == ((), (), 1, "auto")
