"""Types that change between files, tables and runs: the same values, or an error that names the column."""

import datetime as dt
import decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streamsgd
from streamsgd.errors import DataError
from streamsgd.features.arrow import as_bytes
from streamsgd.model.model import Model

N = 120
DAY = dt.date(2024, 2, 29)
Y = np.sin(np.arange(N))
PLAIN = {"executor": "inline", "memory": "2GB", "precision": "float64", "bits": 16, "epochs": 2}
COLUMNS: dict[str, Any] = {
    "s": [f"v{k % 3}" for k in range(N)],
    "w": ["some words"] * N,
    "l": [["a"]] * N,
    "m": [[{"key": "a", "value": 1.0}]] * N,
    "e": pa.FixedSizeListArray.from_arrays(pa.array(np.arange(2.0 * N)), 2),
}


def vectors(size: int) -> Any:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.arange(float(size * N))), size)


OTHERS: dict[str, tuple[str, Any]] = {
    "a list where strings were": ("s", COLUMNS["l"]),
    "a list where text was": ("w", COLUMNS["l"]),
    "numbers where text was": ("w", Y),
    "strings where lists were": ("l", COLUMNS["s"]),
    "lists where maps were": ("m", COLUMNS["l"]),
    "numbers where vectors were": ("e", Y),
    "shorter vectors": ("e", vectors(1)),
    "longer vectors": ("e", vectors(3)),
}


@pytest.fixture(scope="module")
def model() -> Model:
    return streamsgd.train(pa.table({**COLUMNS, "y": Y}), "y", text=["w"], **PLAIN)


# --- law: tables and files to be scored


@pytest.mark.parametrize("case", OTHERS)
def test_data_to_score_of_another_type_is_refused_by_name(case: str, model: Model, tmp_path: Path) -> None:
    name, column = OTHERS[case]
    table = pa.table({**COLUMNS, name: column})
    pq.write_table(table, tmp_path / "a.parquet")
    for source in (table, tmp_path / "a.parquet"):
        with pytest.raises(DataError, match=f"'{name}'"):
            model.predict(source)


@pytest.mark.parametrize("case", OTHERS)
def test_a_later_table_of_another_type_is_refused_by_name(case: str) -> None:
    """And nothing of it was learned."""
    name, column = OTHERS[case]
    trainer = streamsgd.Trainer("y", text=["w"], **{k: v for k, v in PLAIN.items() if k not in ("epochs", "executor")})
    trainer.partial_fit(pa.table({**COLUMNS, "y": Y}))
    before = trainer.model.weights.copy()
    with pytest.raises(DataError, match=f"'{name}'"):
        trainer.partial_fit(pa.table({**COLUMNS, name: column, "y": Y}))
    assert np.array_equal(trainer.model.weights, before)


# --- law: files of one data set


def write_two(folder: Path, first: Any, second: Any) -> Path:
    for k, column in enumerate((first, second)):
        half = np.arange(N // 2) + k * N // 2
        pq.write_table(pa.table({"c": column, "y": Y[half]}), folder / f"{k}.parquet")
    return folder


MOMENTS = [dt.datetime(2024, 1, 1, k % 24, tzinfo=dt.UTC) for k in range(N // 2)]
AMOUNTS = [decimal.Decimal(k % 5) for k in range(N // 2)]
WIDENED: dict[str, tuple[Any, Any, int]] = {
    "integers": (pa.array(range(N // 2), pa.int8()), pa.array(range(N // 2), pa.int64()), N // 2),
    "units of time": (pa.array(MOMENTS, pa.timestamp("ms")), pa.array(MOMENTS, pa.timestamp("us")), 24),
    "scales of decimals": (pa.array(AMOUNTS, pa.decimal128(5, 1)), pa.array(AMOUNTS, pa.decimal128(5, 2)), 5),
    "floats": (pa.array([0.1, 0.5] * 30, pa.float32()), pa.array([float(np.float32(0.1)), 0.5] * 30), 2),
    "strings": (pa.array(["a", "b"] * 30), pa.array(["a", "b"] * 30, pa.large_string()), 2),
}


@pytest.mark.parametrize("case", WIDENED)
def test_the_same_value_in_files_of_different_types_is_one_category(case: str, tmp_path: Path) -> None:
    """As it is one number: files are read in the type that holds both."""
    first, second, n_values = WIDENED[case]
    model = streamsgd.train(write_two(tmp_path, first, second), "y", categorical=["c"], **PLAIN)
    (category,) = [c for c in model.encoding.categories if not c.edges]
    assert len(category.values) == n_values


@pytest.mark.parametrize("settings", [{}, {"categorical": ["c"]}], ids=["", "even as a category"])
def test_strings_in_one_file_and_integers_in_another_are_refused_and_both_named(tmp_path: Path, settings: Any) -> None:
    pq.write_table(pa.table({"c": ["a", "b"], "y": [0.0, 1.0]}), tmp_path / "first.parquet")
    pq.write_table(pa.table({"c": [1, 2], "y": [0.5, 1.5]}), tmp_path / "second.parquet")
    with pytest.raises(DataError) as error:
        streamsgd.train(tmp_path, "y", **PLAIN, **settings)
    message = str(error.value)
    assert all(word in message for word in ("'c'", "string", "int64", "first.parquet", "second.parquet"))


def test_lists_of_strings_and_lists_of_integers_too(tmp_path: Path) -> None:
    pq.write_table(pa.table({"c": [["a"], ["b"]], "y": [0.0, 1.0]}), tmp_path / "first.parquet")
    pq.write_table(pa.table({"c": [[1], [2]], "y": [0.5, 1.5]}), tmp_path / "second.parquet")
    with pytest.raises(DataError, match=r"'c'.*first\.parquet|'c'.*second\.parquet"):
        streamsgd.train(tmp_path, "y", **PLAIN)


def test_a_null_column_in_one_file_is_missing_there(tmp_path: Path) -> None:
    pq.write_table(pa.table({"c": ["a", "b"] * 20, "y": Y[:40]}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"c": pa.nulls(40), "y": Y[40:80]}), tmp_path / "1.parquet")
    model = streamsgd.train(tmp_path, "y", **PLAIN)
    weights = {value.value: value.weights[0] for value in model.values()}
    assert weights["is missing"] != 0.0
    assert weights["a"] != 0.0


SAID: dict[str, tuple[Any, ...]] = {
    "decimals": (
        pa.array(["0", "-1.50", "0.0000000012", "100"]).cast(pa.decimal128(20, 10)),
        pa.array(["0", "-1.50", "0.0000000012", "100"]).cast(pa.decimal256(40, 18)),
    ),
    "small decimals": (pa.array(["0", "-12.5", "100"]).cast(pa.decimal128(9, 2)), pa.array([0.0, -12.5, 100.0])),
    "times": tuple(pa.array([dt.time(1, 2, 0), dt.time(0)]).cast(kind) for kind in (pa.time32("s"), pa.time64("ns"))),
    "moments": tuple(
        pa.array(["2024-02-29 12:30:00", "2024-02-29 00:00:00"]).cast(pa.timestamp(unit)) for unit in ("s", "ms", "ns")
    ),
    "moments of a zone": (
        pa.array([dt.datetime(2024, 2, 29, 23, 30, tzinfo=dt.UTC)], pa.timestamp("us", "UTC")),
        pa.array([dt.datetime(2024, 2, 29, 23, 30, tzinfo=dt.UTC)], pa.timestamp("s", "Asia/Tokyo")),
    ),
    "days": (pa.array([DAY], pa.date32()), pa.array([DAY], pa.date64()), pa.array([DAY]).cast(pa.timestamp("us"))),
    "durations": (pa.array([5, -86400], pa.duration("s")), pa.array([5 * 10**9, -86400 * 10**9], pa.duration("ns"))),
    "numbers": (pa.array([0, 3], pa.int8()), pa.array([-0.0, 3.0], pa.float32()), pa.array([0, 3], pa.uint64())),
}


@pytest.mark.parametrize("case", SAID)
def test_a_category_is_its_value_not_its_type(case: str) -> None:
    texts = [as_bytes(values).to_pylist() for values in SAID[case]]
    assert all(text == texts[0] for text in texts)
    assert len(set(texts[0])) == len(texts[0])


def test_parts_of_a_moment_are_of_the_zone_of_training() -> None:
    paris = pa.array(MOMENTS, pa.timestamp("s", "Europe/Paris"))
    y = np.array([moment.hour for moment in MOMENTS], float)
    model = streamsgd.train(pa.table({"t": paris, "y": y}), "y", time_parts=["t.hour"], **PLAIN)
    expected = model.predict(pa.table({"t": paris}))
    assert np.array_equal(model.predict(pa.table({"t": pa.array(MOMENTS, pa.timestamp("us", "UTC"))})), expected)
    with pytest.raises(DataError, match=r"'t' .*no time zone.*Europe/Paris"):
        model.predict(pa.table({"t": paris.cast(pa.timestamp("s"))}))


@pytest.mark.parametrize("other", [["a", "b"] * 60, [[1.0]] * N], ids=["strings", "lists"])
def test_a_target_of_another_type_is_refused_by_name(other: Any, model: Model) -> None:
    table = pa.table({**COLUMNS, "y": other})
    trainer = streamsgd.Trainer("y", text=["w"], memory="2GB").partial_fit(pa.table({**COLUMNS, "y": Y}))
    for learn in (trainer.partial_fit, model.evaluate):
        with pytest.raises(DataError, match=r"'y' .*type"):
            learn(table)


# --- law: names that come from two places


def test_an_item_of_a_vector_and_a_column_of_its_name_are_both_there_or_refused() -> None:
    table = pa.table({"e": vectors(2), "e[0]": -Y, "y": Y})
    try:
        columns = streamsgd.train(table, "y", **PLAIN).encoding.columns
    except DataError:
        return
    assert {(column.column, column.item) for column in columns} == {("e", 0), ("e", 1), ("e[0]", -1)}


# --- law: one rule for files of a data set, --valid, partial_fit and scoring

ONES = [k % 2 for k in range(N // 2)]
CODES = ["ab" if k % 3 else "cd" for k in range(N // 2)]
CLOCK = [dt.time(k % 24, 1, 2) for k in range(N // 2)]
HELD_AS: dict[str, tuple[Any, ...]] = {
    "flags": (
        pa.array([one == 1 for one in ONES]),
        *(pa.array(ONES, kind) for kind in (pa.int8(), pa.int64(), pa.uint64(), pa.float32(), pa.float64())),
        pa.array([decimal.Decimal(one) for one in ONES]).cast(pa.decimal128(5, 2)),
    ),
    "texts": (
        *(pa.array(CODES, kind) for kind in (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())),
        pa.array([code.encode() for code in CODES], pa.binary(2)),
        pa.array(CODES).dictionary_encode(),
    ),
    "times": tuple(pa.array(CLOCK, kind) for kind in (pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns"))),
}
PAIRS_OF_TYPES = [(what, a, b) for what, held in HELD_AS.items() for a in range(len(held)) for b in range(len(held)) if a != b]


@pytest.mark.parametrize(("what", "a", "b"), PAIRS_OF_TYPES, ids=str)
def test_the_same_values_in_two_types_are_the_same_values_everywhere(what: str, a: int, b: int, tmp_path: Path) -> None:
    first, second = HELD_AS[what][a], HELD_AS[what][b]
    (tmp_path / "mixed").mkdir()
    (tmp_path / "alike").mkdir()
    mixed, alike = write_two(tmp_path / "mixed", first, second), write_two(tmp_path / "alike", first, first)
    settings = {**PLAIN, "epochs": 1, "validation": 0.0}
    valid = streamsgd.train(alike, "y", valid=str(mixed / "1.parquet"), **settings)
    model = streamsgd.train(mixed, "y", filter="c is not None", **settings)
    table = pa.table({"c": second})
    assert np.array_equal(model.predict(table), streamsgd.train(alike, "y", **settings).predict(table))
    assert np.array_equal(valid.predict(table), valid.predict(pa.table({"c": first})))
    trainers = [streamsgd.Trainer("y", memory="1GB") for _ in range(2)]
    for trainer, column in zip(trainers, (first, second), strict=True):
        trainer.partial_fit(pa.table({"c": first, "y": Y[: N // 2]})).partial_fit(pa.table({"c": column, "y": Y[: N // 2]}))
    assert np.array_equal(*(trainer.model.weights for trainer in trainers))


def test_a_number_that_is_no_flag_is_a_number_beside_flags_and_refused_where_only_flags_were(tmp_path: Path) -> None:
    flags, numbers = HELD_AS["flags"][0], pa.array([0, 1, 2] * 20, pa.int8())
    model = streamsgd.train(write_two(tmp_path, flags, numbers), "y", **PLAIN)
    assert model.predict(pa.table({"c": numbers}))[:2] == pytest.approx(model.predict(pa.table({"c": [False, True]})))
    with pytest.raises(DataError, match=r"'c' .*int8.*bool.*the number 2 is no boolean"):
        streamsgd.train(tmp_path / "0.parquet", "y", **PLAIN).predict(pa.table({"c": numbers}))
