"""Lists and maps: a row is the sum of its entries, as DictVectorizer lays them out, at coordinates of the documented hash."""

import datetime as dt
import decimal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.feature_extraction import DictVectorizer
from wide import encoding_of, job_of, random_model, slot, with_y

from streamsgd.compute.executors import Inline
from streamsgd.features.hashing import NULL
from streamsgd.features.ragged import _how_often
from streamsgd.model.model import Model
from streamsgd.stream.stream import Stream

RNG = np.random.default_rng(12)
N = 250
TAGS = ["red", "été", "", "日本", *(f"tag {k}" for k in range(50))]


def bags(values: list[Any], seed: int) -> list[Any]:
    """Rows of none to six values, with repetitions; some rows are null."""
    rng = np.random.default_rng(seed)
    rows = [[values[k] for k in rng.integers(0, len(values), rng.integers(0, 7))] for _ in range(N)]
    return [None if rng.random() < 0.1 else row for row in rows]


def by_hand(model: Model, column: str, rows: list[dict[bytes, float]]) -> np.ndarray:
    """Scores of rows that are sums of keys, worked out with scikit-learn."""
    if not any(rows):
        return np.full(len(rows), model.weights[-1, 0])
    vectorizer = DictVectorizer(sparse=False)
    keys = [{key.hex(): value for key, value in row.items()} for row in rows]
    factors = vectorizer.fit_transform(keys)
    places = [slot(bytes.fromhex(name), column, model.encoding.hashed) for name in vectorizer.feature_names_]
    return factors @ model.weights[places, 0] + model.weights[-1, 0]


def counted(row: list[Any] | None, text: Callable[[Any], bytes]) -> dict[bytes, float]:
    return dict(Counter(NULL if v is None else text(v) for v in row or ()))


def utf8(value: Any) -> bytes:
    return str(value).encode()


DAYS = [dt.date(2024, 1, 1), dt.date(1969, 12, 31), None]
LISTS: dict[str, tuple[Any, list[Any], Callable[[Any], bytes]]] = {
    "string": (pa.string(), [*TAGS, None], utf8),
    "large_string": (pa.large_string(), [*TAGS, None], utf8),
    "string_view": (pa.string_view(), [*TAGS, None], utf8),
    "dictionary": (pa.dictionary(pa.int32(), pa.string()), [*TAGS, None], utf8),
    "dictionary, int8": (pa.dictionary(pa.int8(), pa.string()), [*TAGS, None], utf8),
    "binary": (pa.binary(), [b"a", b"\xff\0", None], bytes),
    "int64": (pa.int64(), [1, -5, 2**62, None], utf8),
    "uint8": (pa.uint8(), [0, 255, None], utf8),
    "bool": (pa.bool_(), [True, False, None], lambda v: str(v).lower().encode()),
    "float64": (pa.float64(), [0.5, -1.25, None], utf8),
    "decimal": (pa.decimal128(5, 2), [decimal.Decimal("1.25"), None], utf8),
    "date": (pa.date32(), DAYS, utf8),
    "null": (pa.null(), [None], utf8),
}


@pytest.mark.parametrize("large", [False, True], ids=["list", "large_list"])
@pytest.mark.parametrize("name", LISTS)
def test_a_list_is_the_sum_of_its_values_each_as_often_as_it_is_there(name: str, large: bool) -> None:
    item, values, text = LISTS[name]
    rows = bags(values, 1)
    array = pa.array(rows, pa.large_list(item) if large else pa.list_(item))
    model = random_model(encoding_of({"l": array}, bits=20, categorical=["l"]))
    assert [tail.kind for tail in model.encoding.tails] == ["list"]
    expected = by_hand(model, "l", [counted(row, text) for row in rows])
    np.testing.assert_allclose(model.decision_function(pa.table({"l": array})), expected, rtol=1e-9, atol=1e-9)


def number_rows(seed: int) -> list[Any]:
    """Keys to numbers, some of which are null, NaN or zero."""
    rng = np.random.default_rng(seed)
    some = [None, float("nan"), 0.0]
    rows: list[Any] = []
    for _ in range(N):
        keys = rng.permutation(len(TAGS))[: rng.integers(0, 6)]
        pairs = [(TAGS[k], float(np.float32(rng.normal()))) for k in keys]
        pairs = [(k, some[rng.integers(0, 3)] if rng.random() < 0.2 else v) for k, v in pairs]
        rows.append(None if rng.random() < 0.1 else pairs)
    return rows


def as_structs(rows: list[Any], key: str = "key", value: str = "value") -> list[Any]:
    return [None if row is None else [{key: k, value: v} for k, v in row] for row in rows]


MAPS: dict[str, Callable[[list[Any]], Any]] = {
    "map": lambda rows: pa.array(rows, pa.map_(pa.string(), pa.float64())),
    "map of float32": lambda rows: pa.array(rows, pa.map_(pa.string(), pa.float32())),
    "map from large_string": lambda rows: pa.array(rows, pa.map_(pa.large_string(), pa.float64())),
    "list of structs": lambda rows: pa.array(
        as_structs(rows), pa.list_(pa.struct([("key", pa.string()), ("value", pa.float64())]))
    ),
    "large list of structs": lambda rows: pa.array(
        as_structs(rows, "k", "v"), pa.large_list(pa.struct([("k", pa.string()), ("v", pa.float64())]))
    ),
    "map from dictionary": lambda rows: pa.MapArray.from_arrays(
        *_map_parts(pa.array(rows, pa.map_(pa.string(), pa.float64())))
    ),
}


def _map_parts(array: Any) -> tuple[Any, Any, Any]:
    """Offsets (null where a row is), encoded keys, numbers."""
    offsets = array.offsets.to_pylist()
    known = [None if not ok else at for ok, at in zip(array.is_valid().to_pylist(), offsets, strict=False)]
    return pa.array([*known, offsets[-1]], pa.int32()), array.keys.dictionary_encode(), array.items


@pytest.mark.parametrize("form", MAPS)
def test_a_map_is_the_sum_of_its_keys_times_their_numbers(form: str) -> None:
    rows = number_rows(2)
    array = MAPS[form](rows)
    model = random_model(encoding_of({"m": array}, bits=20))
    assert [tail.kind for tail in model.encoding.tails] == ["map"]
    told = [{k.encode(): v if v is not None and v == v else 0.0 for k, v in row or ()} for row in rows]
    expected = by_hand(model, "m", told)
    np.testing.assert_allclose(model.decision_function(pa.table({"m": array})), expected, rtol=1e-6, atol=1e-9)


def test_a_map_of_integers_to_integers() -> None:
    rows = [[(k, int(v)) for k, v in enumerate(RNG.integers(-9, 9, RNG.integers(0, 5)))] for _ in range(N)]
    array = pa.array(rows, pa.map_(pa.int32(), pa.int64()))
    model = random_model(encoding_of({"m": array}, bits=20))
    expected = by_hand(model, "m", [{str(k).encode(): v for k, v in row} for row in rows])
    np.testing.assert_allclose(model.decision_function(pa.table({"m": array})), expected, rtol=1e-9)


def test_a_key_twice_in_a_row_counts_as_the_sum() -> None:
    array = pa.array([[("a", 1.5), ("b", 1.0), ("a", 2.0)], [("a", 3.5), ("b", 1.0)]], pa.map_(pa.string(), pa.float64()))
    model = random_model(encoding_of({"m": array}))
    np.testing.assert_allclose(*model.decision_function(pa.table({"m": array})), rtol=1e-12)


def test_a_struct_that_is_null_says_nothing() -> None:
    kind = pa.list_(pa.struct([("k", pa.string()), ("v", pa.float64())]))
    array = pa.array([[None, {"k": "a", "v": 2.0}], [{"k": "a", "v": 2.0}], [None]], kind)
    model = random_model(encoding_of({"m": array}))
    first, second, third = model.decision_function(pa.table({"m": array}))
    assert (first, third) == (second, model.weights[-1, 0])


# --- law: it does not matter how they lie in memory or in files


def sliced(array: Any) -> Any:
    return pa.concat_arrays([array[5:9], array, array[:3]])[4 : 4 + len(array)]


SHAPES: dict[str, Callable[[Any], Any]] = {
    "whole": lambda array: array,
    "sliced": sliced,
    "chunks": lambda array: pa.chunked_array([array[:1], array[1:100], array[100:]]),
    "sliced chunks": lambda array: pa.chunked_array([sliced(array)[:50], sliced(array)[50:]]),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_shape_in_memory_does_not_matter(shape: str) -> None:
    columns = {
        "l": pa.array(bags([*TAGS, None], 3)),
        "m": MAPS["map"](number_rows(4)),
        "s": MAPS["list of structs"](number_rows(5)),
        "t": pa.array([" ".join(row or ["none"]) for row in bags(TAGS, 6)]),
    }
    model = random_model(encoding_of(columns, text=["t"], bits=18))
    assert {tail.kind for tail in model.encoding.tails} == {"list", "map", "text"}
    expected = model.decision_function(pa.table(columns))
    shaped = pa.table({name: SHAPES[shape](column) for name, column in columns.items()})
    assert np.array_equal(model.decision_function(shaped), expected)
    parts = [model.decision_function(shaped.slice(at, 60)) for at in range(0, N, 60)]
    assert np.array_equal(np.concatenate(parts), expected)


def hidden(values: list[Any]) -> Any:
    """A list array whose null rows span values that are not there to be seen."""
    flat = pa.array([v for row in values for v in (row or ["HIDDEN", "HIDDEN"])])
    sizes = [len(row or ["HIDDEN"] * 2) for row in values]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    valid = np.packbits([row is not None for row in values], bitorder="little")
    buffers = [pa.py_buffer(valid.tobytes()), pa.py_buffer(offsets.tobytes())]
    return pa.Array.from_buffers(pa.list_(pa.string()), len(values), buffers, children=[flat])


def test_what_a_null_hides_is_not_there() -> None:
    rows = [row if row is None or row else ["x"] for row in bags(TAGS, 7)]
    array = hidden(rows)
    array.validate(full=True)
    assert array.to_pylist() == rows
    model = random_model(encoding_of({"l": array}))
    assert model.encoding.tails[0].distinct == len({v for row in rows for v in row or ()})
    expected = model.decision_function(pa.table({"l": pa.array(rows)}))
    assert np.array_equal(model.decision_function(pa.table({"l": array})), expected)


def scores_of(job: Any, model: Model) -> np.ndarray:
    """Scores of a job's rows as they stream by; made of blocks of float64."""
    found = [
        model.score_block(filled.block, start, stop)[0][:, 0]
        for filled in Stream(job.recipe, job.plan, Inline()).chunks()
        for start, stop in filled.learned_runs()
    ]
    return np.concatenate(found)


@pytest.mark.parametrize("settings", [{}, {"chunk_rows": 37}], ids=["whole", "in slices"])
@pytest.mark.parametrize("written", [{}, {"row_group_size": 60}, {"use_dictionary": False, "data_page_size": 300}], ids=str)
def test_in_files_they_are_what_they_are_in_memory(settings: Any, written: Any, tmp_path: Path) -> None:
    columns = {
        "l": pa.array(bags([*TAGS, None], 3)),
        "m": MAPS["map"](number_rows(4)),
        "s": MAPS["list of structs"](number_rows(5)),
        "e": pa.array([None if k % 9 == 0 else [k, k / 2] for k in range(N)], pa.list_(pa.float32(), 2)),
        "t": pa.array([" ".join(row or ["none"]) for row in bags(TAGS, 6)]),
    }
    table = with_y(columns)
    pq.write_table(table, tmp_path / "data.parquet", **written)
    job = job_of(tmp_path / "data.parquet", text=["t"], bits=18, precision="float64", transform="none", **settings)
    in_memory = job_of(table, text=["t"], bits=18, precision="float64", transform="none").encoding
    assert [tail.distinct for tail in job.encoding.tails] == [tail.distinct for tail in in_memory.tails]
    model = random_model(job.encoding)
    assert np.array_equal(scores_of(job, model), model.decision_function(table))


@pytest.mark.parametrize("n", [0, 1, 2, 5, 3000])
def test_words_are_counted_as_numpy_counts_them_and_let_go(n: int) -> None:
    rng = np.random.default_rng(n)
    words = [rng.integers(-n, n + 1, n).astype(np.int32) for _ in range(3)]
    expected = np.unique(np.concatenate([np.zeros(0, np.int32), *words]), return_counts=True)[1]
    np.testing.assert_array_equal(_how_often(words), expected)
    assert not words
