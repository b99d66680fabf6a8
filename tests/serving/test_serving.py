# ruff: noqa: DTZ001  moments without a time zone are a type of their own here
"""Serving against `Model.predict`: every kind of column, every loss, rows of values seen and never seen."""

import datetime as dt
import json
import pickle
import random
import re
import struct
import subprocess
import sys
import time
from dataclasses import replace
from decimal import Decimal
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import streamsgd
from streamsgd import serving
from streamsgd.errors import DataError, ModelError, SettingsError
from streamsgd.features.arrow import as_bytes
from streamsgd.features.calendar import TIME_PARTS
from streamsgd.features.hashing import NULL, Hashed, hash_values, name_seed
from streamsgd.kernels.models.machines import FM, compiled
from streamsgd.kernels.models.machines import rows_of as rows_of_model
from streamsgd.kernels.models.networks import MLP
from streamsgd.kernels.models.pairs import FwFM
from streamsgd.kernels.parts.losses import Squared
from streamsgd.serving import columns, hashing, values

N = 3000
UTC = dt.UTC


def rows_of(n: int, seed: int) -> list[dict[str, Any]]:
    """Return rows of every kind of column; each value is at times None, or one that no training saw."""
    rnd = random.Random(seed)

    def maybe(value: Any) -> Any:
        return None if rnd.random() < 0.08 else value

    def word() -> str:
        return "".join(rnd.choice("abcdeÀÉßΣİж_9") for _ in range(rnd.choice([1, 2, 3, 3, 9, 14, 40])))

    def moment() -> dt.datetime:
        return dt.datetime(2020, 1, 1) + dt.timedelta(
            seconds=rnd.randrange(10**8), microseconds=rnd.choice([0, 0, 123456, 5000])
        )

    return [
        {
            "int": maybe(rnd.randrange(-50, 50)),
            "heavy": maybe(float(int(rnd.lognormvariate(2, 1.5)))),
            "float": maybe(rnd.choice([rnd.gauss(0, 1), 1e-7, 0.0, float("nan")])),
            "gap": maybe(rnd.gauss(5, 1)),
            "flag": maybe(rnd.random() < 0.3),
            "money": maybe(Decimal(rnd.randrange(10**6)) / 100),
            "day": maybe(moment().date()),
            "when": maybe(moment()),
            "zoned": maybe(moment().replace(tzinfo=UTC)),
            "clock": maybe(moment().time()),
            "span": maybe(dt.timedelta(microseconds=rnd.randrange(10**10))),
            "city": maybe(rnd.choice(["ams", "ber", "cph", word()])),
            "id": maybe(word()),
            "key": maybe(f"{rnd.getrandbits(32):08x}"),
            "blob": maybe(bytes(rnd.randrange(256) for _ in range(rnd.randrange(5)))),
            "code": maybe(rnd.choice([rnd.randrange(5), rnd.getrandbits(40)])),
            "level": maybe(rnd.choice([0.5, 1.0, 2e10, 1e-7, rnd.gauss(0, 1e12), rnd.random()])),
            "since": maybe(moment()),
            "text": maybe(" ".join(word() + rnd.choice(["", ",", "!"]) for _ in range(rnd.randrange(6)))),
            "tags": maybe([maybe(rnd.choice(["x", "y", word()])) for _ in range(rnd.randrange(4))]),
            "numbers": maybe([rnd.randrange(9) for _ in range(rnd.randrange(4))]),
            "bag": maybe([(word(), maybe(rnd.gauss(0, 1))) for _ in range(rnd.randrange(4))]),
            "vector": maybe([rnd.gauss(0, 1), rnd.gauss(3, 1), rnd.random()]),
        }
        for _ in range(n)
    ]


SCHEMA = pa.schema(
    [
        ("int", pa.int64()),
        ("heavy", pa.float64()),
        ("float", pa.float64()),
        ("gap", pa.float64()),
        ("flag", pa.bool_()),
        ("money", pa.decimal128(12, 2)),
        ("day", pa.date32()),
        ("when", pa.timestamp("us")),
        ("zoned", pa.timestamp("us", "Europe/Berlin")),
        ("clock", pa.time64("us")),
        ("span", pa.duration("us")),
        ("city", pa.string()),
        ("id", pa.string()),
        ("key", pa.string()),
        ("blob", pa.binary()),
        ("code", pa.int64()),
        ("level", pa.float64()),
        ("since", pa.timestamp("us")),
        ("text", pa.string()),
        ("tags", pa.list_(pa.string())),
        ("numbers", pa.list_(pa.int64())),
        ("bag", pa.map_(pa.string(), pa.float64())),
        ("vector", pa.list_(pa.float64(), 3)),
    ]
)
"""The columns of `rows_of`."""

SETTINGS = {
    "categorical": ["code", "level", "since", "numbers", "clock"],
    "text": ["text"],
    "ngrams": 3,
    "time_parts": ["when", "zoned", "day"],
    "cross": ["city*key", "id*city*float"],
    "missing": ["gap=indicator", "int=median"],
    "infinite": "missing",
    "bits": 12,
    "optimizer": "sgd",
    "schedule": "constant",
    "learning_rate": 0.01,
    "polish": 0,
    "executor": "inline",
    "epochs": 1,
}
"""Any weights will do: these compile little, and fill few slots."""


def table_of(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, SCHEMA)


@cache
def trained(task: str, precision: str) -> streamsgd.Model:
    """Return a model of every kind of column; one of float32 has the weights of float64, rounded."""
    if precision == "float32":
        whole = trained(task, "float64")
        return replace(whole, weights=whole.weights.astype(np.float32))
    rng = np.random.default_rng(0)
    table = table_of(rows_of(N, 0))
    score = np.array([len(key or "") % 3 - 1.0 for key in table["id"].to_pylist()]) + rng.normal(size=N)
    y = {
        "binary": np.array(["no", "yes"])[(score > 0).astype(int)],
        "regression": 100.0 + 50.0 * score,
        "multiclass": np.digitize(score, [-0.5, 0.5]),
        "poisson": rng.poisson(np.exp(np.clip(score, -2, 1))),
    }[task]
    return streamsgd.train(table.append_column("y", pa.array(y)), "y", precision=precision, task=task, **SETTINGS)


@pytest.fixture
def saved(tmp_path: Path) -> Any:
    def save(model: streamsgd.Model) -> serving.Served:
        model.save(tmp_path / "model.sgd")
        return serving.load(tmp_path / "model.sgd")

    return save


# --- law: the same as predict


@pytest.mark.parametrize("task", ["binary", "regression", "multiclass", "poisson"])
def test_scores_are_those_of_predict_for_every_kind_of_column(task: str, saved: Any) -> None:
    for precision, tolerance in (("float64", 1e-9), ("float32", 1e-6)):
        model = trained(task, precision)
        served, rows = saved(model), rows_of(2500 if precision == "float64" else 1000, 1)
        table = table_of(rows)
        scale = max(1.0, float(np.abs(model.decision_function(table)).max()))
        np.testing.assert_allclose(
            served.decision_function(rows), model.decision_function(table), rtol=0, atol=tolerance * scale
        )
        if model.has_probabilities:
            np.testing.assert_allclose(served.predict_proba(rows), model.predict_proba(table), rtol=0, atol=tolerance)
        if model.classes:
            assert np.mean(np.array(served.predict(rows)) == model.predict(table)) > 0.999  # ties aside
        else:
            np.testing.assert_allclose(served.predict(rows), model.predict(table), rtol=tolerance, atol=tolerance * scale)
        assert served.predict(rows[0]) == served.predict(rows)[0]


STRUCTURES = {"fm": FM(3), "fwfm": FwFM(3), "fwfm of products": FwFM(2, "none"), "mlp": MLP("6-5-4", "tanh"), "relu": MLP("5")}


def of_structure(name: str) -> streamsgd.Model:
    """Return a model of every kind of column with parameters that nobody trained, so that each of them shows in a score."""
    model, structure = trained("binary", "float64"), STRUCTURES[name]
    form, n = compiled(structure, columns=model.encoding.n_places), model.encoding.n_coordinates
    weights = 0.3 * np.random.default_rng(5).normal(size=(rows_of_model(form, n), form.width()))
    return replace(model, structure=structure, weights=weights)


@pytest.mark.parametrize("name", STRUCTURES)
def test_machines_and_networks_are_served_as_they_predict(name: str, tmp_path: Path, saved: Any) -> None:
    """Also from exports; every kind of column takes part, with columns that are missing and values never seen."""
    model, rows = of_structure(name), rows_of(300, 1)
    served, expected = saved(model), model.decision_function(table_of(rows))
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(served.decision_function(rows), expected, rtol=0, atol=1e-9 * scale)
    np.testing.assert_allclose(served.predict_proba(rows), model.predict_proba(table_of(rows)), rtol=0, atol=1e-9)
    for to in ("json", "numpy"):
        streamsgd.export(model, tmp_path / "out", to=to)
        assert serving.load(tmp_path / "out").decision_function(rows) == served.decision_function(rows)
    with pytest.raises(DataError, match="no column 'int'"):
        served.predict({key: value for key, value in rows[0].items() if key != "int"})


def test_machines_that_do_not_fit_their_weights_are_refused(tmp_path: Path) -> None:
    streamsgd.export(of_structure("fwfm"), tmp_path / "m.json", to="json")
    found = json.loads((tmp_path / "m.json").read_text())
    for said in (
        {"name": "fwfm", "fields": {"k": 4, "linear": "with"}},
        {"name": "fwfm", "fields": {}},
        {"name": "mlp", "fields": {}},
    ):
        (tmp_path / "n.json").write_text(json.dumps({**found, "model": said}))
        with pytest.raises(ModelError, match=r"n\.json: not a model of streamsgd's, or a damaged one"):
            serving.load(tmp_path / "n.json")
    (tmp_path / "n.json").write_text(json.dumps({**found, "model": {"name": "os:system", "fields": {}}}))
    with pytest.raises(ModelError, match="the model os:system is not streamsgd's"):
        serving.load(tmp_path / "n.json")


@cache
def clicks() -> streamsgd.Model:
    """Return a model of a click log: 13 numbers with heavy tails and 26 strings."""
    rng = np.random.default_rng(0)
    n = 20_000
    made: dict[str, Any] = {f"I{k}": pa.array(np.floor(rng.lognormal(2, 2, n)), mask=rng.random(n) < 0.1) for k in range(13)}
    for k in range(26):
        drawn = rng.integers(0, [50, 10**5, 3 * 10**8][k % 3], n) * 7919
        made[f"C{k}"] = pa.array([f"{value:08x}" for value in drawn], mask=rng.random(n) < 0.1)
    made["y"] = pa.array((rng.random(n) < 0.2).astype(int))
    return streamsgd.train(pa.table(made), "y", executor="inline")


def click_rows(n: int, seed: int) -> list[dict[str, Any]]:
    rnd = random.Random(seed)

    def maybe(value: Any) -> Any:
        return None if rnd.random() < 0.1 else value

    def text() -> str:
        return f"{rnd.getrandbits(rnd.choice([8, 32, 32, 90, 200])):x}"

    return [
        {f"I{k}": maybe(rnd.choice([rnd.randrange(1000), -rnd.random()])) for k in range(13)}
        | {f"C{k}": maybe(text()) for k in range(26)}
        for _ in range(n)
    ]


def test_the_short_way_is_the_same_as_the_general_one_and_as_predict(saved: Any) -> None:
    model, rows = clicks(), click_rows(3000, 2)
    served = saved(model)
    assert served._fast is not None
    short = [served._fast(row) for row in rows]
    assert None not in short
    served._fast = None
    np.testing.assert_allclose(short, served.decision_function(rows), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(short, model.decision_function(rows), rtol=0, atol=1e-5)
    np.testing.assert_allclose(served.predict_proba(rows), model.predict_proba(rows), rtol=0, atol=1e-6)


def test_a_row_of_values_never_seen_takes_tens_of_microseconds(saved: Any) -> None:
    """In processor time: 25 to 40 us are measured; the bound leaves room for a slow machine. No result is kept."""
    served = saved(clicks())
    best = float("inf")
    for seed in range(5):
        rows = [
            {f"I{k}": k + seed for k in range(13)} | {f"C{k}": f"{hash((seed, r, k)) & 0xFFFFFFFF:08x}" for k in range(26)}
            for r in range(500)
        ]
        began = time.process_time()
        for row in rows:
            served.predict(row)
        best = min(best, (time.process_time() - began) / len(rows))
    assert best < 150e-6


# --- law: a model in memory serves rows that are dicts


@pytest.mark.parametrize("task", ["binary", "regression", "multiclass", "poisson"])
def test_a_dict_is_scored_as_a_table_of_one_row(task: str) -> None:
    model = trained(task, "float32")
    scale = max(1.0, float(np.abs(model.decision_function(table_of(rows_of(50, 8)))).max()))
    for row in rows_of(50, 8):
        table = table_of([row])
        for method in ("decision_function", "predict", *(["predict_proba"] if model.has_probabilities else [])):
            one, whole = getattr(model, method)(row), getattr(model, method)(table)
            assert (one.shape, one.dtype) == (whole.shape, whole.dtype)
            if method == "predict" and model.classes:
                assert one.tolist() == whole.tolist()
            else:
                np.testing.assert_allclose(one, whole, rtol=0, atol=1e-6 * scale)


def test_dicts_of_columns_lists_of_dicts_and_refused_rows_are_tables_as_before() -> None:
    model = streamsgd.train({"a": [1.0, 2.0, 3.0, 4.0], "v": [[1.0, 0.0], [0.0, 1.0]] * 2, "y": [1.0, 2.0, 3.0, 5.0]}, "y")
    table = pa.table({"a": [1.0, 2.5], "v": [[1.0, 0.0], [0.5, 2.0]]})
    exact = model.predict(table).tolist()
    assert model.predict({"a": [1.0, 2.5], "v": [[1.0, 0.0], [0.5, 2.0]]}).tolist() == exact
    assert model.predict(table.to_pylist()).tolist() == exact
    assert [model.predict(row).shape for row in table.to_pylist()] == [(1,), (1,)]
    assert model.predict({"a": 1.0, "v": [1.0, 0.0], "not the model's": [1, 2, 3]}).shape == (1,)
    for row, match in (({"a": "x", "v": [1.0, 2.0]}, "'a' of the table"), ({"a": 1.0}, "no column 'v'")):
        with pytest.raises(DataError, match=match):
            model.predict(row)


def test_what_serves_a_model_follows_its_weights_and_is_in_no_copy_of_it() -> None:
    model = streamsgd.train({"a": [1.0, 2.0, 3.0, 4.0], "y": [1.0, 2.0, 3.0, 5.0]}, "y", executor="inline")
    row, table = {"a": 4.5}, pa.table({"a": [4.5]})
    before = model.predict(row)
    copied = pickle.loads(pickle.dumps(model))
    assert copied.predict(row) == before
    for change in (lambda: model.weights.__setitem__(0, 3.0), lambda: setattr(model, "weights", model.weights * 2.0)):
        change()
        np.testing.assert_allclose(model.predict(row), model.predict(table), rtol=1e-6)
        assert model.predict(row) != before
    assert copied.predict(row) == before
    assert replace(copied, loss=Own()).predict(row) == pytest.approx(before, rel=1e-6)  # by the table: nobody serves its loss


class Own(Squared):
    """A loss that is not streamsgd's."""


def test_a_dict_costs_a_model_little_more_than_serving() -> None:
    """In processor time: 30 to 60 us are measured, and 5,000 of a table of one row."""
    model, best = clicks(), float("inf")
    for seed in range(3):
        rows = click_rows(200, seed)
        began = time.process_time()
        for row in rows:
            model.predict_proba(row)
        best = min(best, (time.process_time() - began) / len(rows))
    assert best < 300e-6


def test_importing_loads_no_library_and_costs_little() -> None:
    code = "import sys, time; t = time.process_time(); import streamsgd.serving; print(time.process_time() - t, *sys.modules)"
    spent, *modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "numba", "pyarrow", "dask", "msgspec", "safetensors", "click"} & set(modules)
    assert float(spent) < 0.3


# --- law: the parts of which it is made


def test_murmur_is_murmur_in_lanes_and_alone() -> None:
    rnd = random.Random(0)
    names = [f"c{k}" for k in range(7)]
    seeds = [hashing.murmur(name.encode(), 0) for name in names]
    assert seeds == [name_seed(name) for name in names]
    lanes = hashing.Lanes(seeds, 0xFFFFF)
    for most in (0, 3, 4, 8, 9, 16, 32, 33, 70):
        for _ in range(200):
            strings = [rnd.randbytes(rnd.randint(0, most)) for _ in names]
            found = list(lanes.hash(strings))
            space = Hashed(0, 20)
            assert found == [
                int(hash_values(pa.array([s], pa.binary()), seed, space)[0]) for s, seed in zip(strings, seeds, strict=True)
            ]
            assert found == [hashing.murmur(s, seed) & 0xFFFFF for s, seed in zip(strings, seeds, strict=True)]


def test_floats_are_said_as_arrow_says_them() -> None:
    rnd = random.Random(0)
    numbers = [struct.unpack("d", rnd.randbytes(8))[0] for _ in range(5000)]
    numbers += [rnd.gauss(0, 10.0 ** rnd.randint(-12, 18)) for _ in range(5000)]
    numbers += [float(10**k) for k in range(22)] + [10.0**-k for k in range(22)] + [0.0, -0.0, 1e9, -1e9, 123456789.5]
    assert [values.said_float(x).encode() for x in numbers] == as_bytes(pa.array(numbers)).to_pylist()
    assert [values.plainly(x) for x in numbers] == pa.array(numbers).cast(pa.string()).to_pylist()


def test_constants_are_those_of_training() -> None:
    assert (hashing.NULL, columns.SIZES) == (NULL, TIME_PARTS)


# --- law: exports


@pytest.mark.parametrize("to", ["json", "numpy"])
def test_exports_score_as_the_model_does(to: str, tmp_path: Path, saved: Any) -> None:
    rows = rows_of(50, 3)
    for task in ("binary", "multiclass"):
        model = trained(task, "float32")
        streamsgd.export(model, tmp_path / "out", to=to)
        assert serving.load(tmp_path / "out").decision_function(rows) == saved(model).decision_function(rows)


def test_an_export_can_be_read_without_us(tmp_path: Path) -> None:
    model = streamsgd.train(pa.table({"a": [1.0, 2.0, 3.0, 4.0], "y": [1.0, 2.0, 3.0, 4.0]}), "y", executor="inline")
    streamsgd.export(model, tmp_path / "m.json", to="json")
    found = json.loads((tmp_path / "m.json").read_text())
    weights = dict(zip(found["weights"]["used"], found["weights"]["values"], strict=True))
    (column,), target = found["encoding"]["columns"], found["target"]
    score = weights.get(0, 0.0) * (2.5 - column["shift"]) * column["scale"] + weights.get(1, 0.0)
    assert score / target["scale"] + target["shift"] == pytest.approx(model.predict({"a": 2.5})[0], rel=1e-6)
    streamsgd.export(model, tmp_path / "m.npz", to="numpy")
    with np.load(tmp_path / "m.npz") as arrays:
        np.testing.assert_array_equal(arrays["weights"], model.weights)


def test_the_command_line_exports(tmp_path: Path) -> None:
    trained("binary", "float32").save(tmp_path / "m.sgd")
    command = [
        sys.executable,
        "-m",
        "streamsgd",
        "export",
        str(tmp_path / "m.sgd"),
        "--to",
        "json",
        "-o",
        str(tmp_path / "m.json"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["out"] == str(tmp_path / "m.json")
    assert serving.load(tmp_path / "m.json").classes == ("no", "yes")


def test_forms_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="json or numpy"):
        streamsgd.export(trained("binary", "float32"), tmp_path / "m", to="jsn")


# --- law: what cannot be served is refused by name


@pytest.mark.parametrize(
    ("column", "value", "match"),
    [
        ("int", "3", "needs a number"),
        ("flag", 7, "needs a boolean"),
        ("day", dt.datetime(2020, 1, 1, 5), "more than a date"),
        ("when", dt.datetime(2020, 1, 1, tzinfo=UTC), "a time zone"),
        ("zoned", dt.datetime(2020, 1, 1), "without a time zone"),
        ("when", 12.0, "needs a datetime"),
        ("city", 5, "needs a string"),
        ("key", ["x"], "needs a string"),
        ("code", "5", "needs a number"),
        ("tags", "x", "needs a list"),
        ("tags", [1], "needs a list"),
        ("bag", 5, "needs a dict"),
        ("bag", {"a": "b"}, "needs a dict"),
        ("vector", [1.0, 2.0], "list of 2 numbers"),
        ("vector", "abc", "needs a list of numbers"),
    ],
)
def test_values_of_another_type_are_refused_by_name(column: str, value: Any, match: str, saved: Any) -> None:
    row = rows_of(1, 5)[0] | {column: value}
    with pytest.raises(DataError, match=match) as error:
        saved(trained("binary", "float32")).predict(row)
    assert repr(column) in str(error.value)


class Frame:
    """Something that is asked by name, and iterated by name, as tables are."""

    columns = ("a",)

    def __iter__(self) -> Any:
        return iter(self.columns)


GIVE = "give a dict of a row, or a list of dicts; got "


@pytest.mark.parametrize("method", ["predict", "predict_proba", "decision_function"])
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("abc", "'abc' of type str"),
        ("", "'' of type str"),
        (b"", "b'' of type bytes"),
        (7, "7 of type int"),
        (None, "None"),
        (Frame(), "one Frame; streamsgd.load(...) scores tables"),
        (np.array([1.0, 2.0]), "one ndarray"),
        (pa.table({"a": [1.0]}), "one Table; streamsgd.load(...) scores tables"),
        ([1, 2], "1 of type int as row 0 of the list, counted from 0"),
        ([{"a": 1.0, "b": "x"}, None], "None as row 1 of the list, counted from 0"),
        (({"a": 1.0, "b": "x"}, [{"a": 1.0}]), "[{'a': 1.0}] of type list as row 1 of the list, counted from 0"),
        ([Frame()], "one Frame as row 0 of the list, counted from 0"),
        ([pa.table({"a": [1.0], "b": ["x"]})], "one Table as row 0 of the list, counted from 0"),
    ],
)
@pytest.mark.parametrize("short", [True, False])
def test_what_is_no_row_is_refused_by_what_it_is(given: Any, said: str, method: str, *, short: bool, saved: Any) -> None:
    served = saved(two_columns())
    served._fast = served._fast if short else None
    with pytest.raises(DataError, match=f"^{re.escape(GIVE + said)}$"):
        getattr(served, method)(given)


@cache
def two_columns() -> streamsgd.Model:
    """Return a model of a number and a text."""
    table = pa.table({"a": [1.0, 2.0, 3.0, 4.0] * 50, "b": ["x", "y", "z", "x"] * 50, "y": [0, 1] * 100})
    return streamsgd.train(table, "y", executor="inline")


def test_rows_of_any_iterable_and_any_mapping_are_scored_and_their_own_faults_are_said(saved: Any) -> None:
    served, row = saved(two_columns()), {"a": 1.0, "b": "x"}
    one = served.predict(row)
    assert served.predict(MappingProxyType(row)) == one
    for rows in ([row, row], (row, row), (each for each in (row, row)), [MappingProxyType(row), row], np.array([row, row])):
        assert served.predict(rows) == [one, one]
    with pytest.raises(DataError, match="no column 'b'"):
        served.predict([{"a": 1.0}])
    with pytest.raises(DataError, match="'a' is 'one'"):
        served.predict([{"a": "one", "b": "x"}])


def test_values_of_numpy_are_those_of_python(saved: Any) -> None:
    served, row = saved(trained("binary", "float32")), rows_of(1, 6)[0]
    row |= {"int": 5, "heavy": 2.0, "city": "ams", "flag": True, "vector": [1.0, 2.0, 3.0]}
    same = row | {"int": np.int32(5), "heavy": np.float64(2.0), "city": np.str_("ams"), "flag": np.bool_(True)}
    same |= {"vector": np.array([1.0, 2.0, 3.0])}
    assert served.decision_function(same) == served.decision_function(row)


def test_missing_columns_missing_values_and_infinite_ones_are_as_in_training(saved: Any) -> None:
    table = pa.table({"a": [1.0, 2.0, 3.0, 4.0], "b": ["x", "y", "x", "y"], "y": [1.0, 2.0, 3.0, 4.0]})
    strict = saved(streamsgd.train(table, "y", executor="inline", missing=["error"]))
    for row, match in (
        ({"a": 1.0}, "no column 'b'"),
        ({"a": None, "b": "x"}, "missing"),
        ({"a": float("inf"), "b": "x"}, "infinite"),
    ):
        with pytest.raises(DataError, match=match):
            strict.predict(row)
    model = streamsgd.train(table, "y", executor="inline", missing_columns="null", infinite="missing")
    loose = saved(model)
    for row in ({"a": 1.0}, {"b": "x"}, {"a": float("inf"), "b": "z"}, {"a": float("nan"), "b": None}):
        whole = pa.table({name: pa.array([row.get(name)], table[name].type) for name in ("a", "b")})
        assert loose.predict(row) == pytest.approx(model.predict(whole)[0], rel=1e-6)
    with pytest.raises(ModelError, match="no probabilities"):
        loose.predict_proba({"a": 1.0})


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        serving.load(tmp_path / "nothing")
    good = trained("binary", "float32").to_bytes()
    for name, data in (("empty", b""), ("text", b"hello, this is no model"), ("json", b"{}"), ("cut", good[:-5])):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ModelError, match="not a model"):
            serving.load(tmp_path / name)
    flipped = bytearray(good)
    flipped[-3] ^= 1
    (tmp_path / "flipped").write_bytes(flipped)
    with pytest.raises(ModelError, match="checksum"):
        serving.load(tmp_path / "flipped")


ONNX = b"\x08\x08\x12\tstreamsgd:" + bytes(50)
"""How such a file begins."""


@pytest.mark.parametrize(
    ("form", "what"),
    [
        ("json", "is the export of a model as JSON, which streamsgd.serving.load scores"),
        ("numpy", "is the export of a model for NumPy, which streamsgd.serving.load scores"),
        ("onnx", "is a graph of ONNX, which ONNX Runtime scores"),
        ("Parquet", "is Parquet, which holds rows"),
    ],
)
def test_files_of_other_forms_are_called_what_they_are(form: str, what: str, tmp_path: Path) -> None:
    path = tmp_path / "m"
    if form in ("json", "numpy"):
        streamsgd.export(two_columns(), path, to=form)
    else:
        path.write_bytes(ONNX if form == "onnx" else b"PAR1" * 9)
        with pytest.raises(ModelError, match=f"m: {what}; give a model, or its export as JSON or for NumPy"):
            serving.load(path)
    with pytest.raises(ModelError, match=f"m: {what}; give "):
        streamsgd.load(path)


def test_a_graph_of_onnx_is_called_so(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    table = pa.table({"a": [1.0, 2.0, 3.0, 4.0] * 50, "y": [0, 1] * 100})
    streamsgd.export(streamsgd.train(table, "y", executor="inline"), tmp_path / "m.onnx", to="onnx")
    with pytest.raises(ModelError, match="ONNX Runtime scores"):
        serving.load(tmp_path / "m.onnx")


def test_parts_of_ones_own_are_refused(tmp_path: Path) -> None:
    table = pa.table({"a": [1.0, 2.0, 3.0, 4.0], "y": [1.0, 2.0, 3.0, 4.0]})
    own = streamsgd.train(table, "y", executor="inline", loss="streamsgd.sklearn.parts:EpsilonInsensitive,epsilon=0.1")
    own.save(tmp_path / "own.sgd")
    with pytest.raises(ModelError, match="not streamsgd's"):
        serving.load(tmp_path / "own.sgd")
    with pytest.raises(ModelError, match="not streamsgd's"):
        streamsgd.export(own, tmp_path / "own.json", to="json")
