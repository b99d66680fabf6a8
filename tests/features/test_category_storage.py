"""Storage: the same values give the same block bit for bit, whatever holds them, read whole or in slices."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from wide import encoding_of, job_of, rows_of, slot, streamed, with_y

from streamsgd.features.encoding import Encoding
from streamsgd.features.hashing import NULL
from streamsgd.training.job import Job

RNG = np.random.default_rng(6)
N = 3000
FEW = np.where(RNG.random(N) < 0.1, None, np.array(["red", "", "été", "blue"])[RNG.integers(0, 4, N)])
MANY = np.where(RNG.random(N) < 0.1, None, np.array([f"value {k} of many" for k in range(1500)])[RNG.integers(0, 1500, N)])
VALUES = {"few": FEW.tolist(), "many": MANY.tolist()}


@pytest.fixture(scope="module")
def encoding() -> Encoding:
    """One exact column, one hashed one."""
    found = encoding_of({name: pa.array(values) for name, values in VALUES.items()}, bits=16, categorical=["many"])
    assert [category.own > 0 for category in found.categories] == [True, False]
    return found


@pytest.fixture(scope="module")
def expected(encoding: Encoding) -> np.ndarray:
    """Coordinates worked out one value at a time."""
    few, _ = encoding.categories
    own = {value: few.first + k for k, value in enumerate(few.values)} | {None: few.first + len(few.values)}
    shared = [slot(NULL if value is None else value.encode(), "many", encoding.hashed) for value in VALUES["many"]]
    return np.column_stack([[own[value] for value in VALUES["few"]], shared])


# --- law: in Arrow


def dictionaries(index: Any, value: Any = None, pieces: int = 1) -> Callable[[list[Any]], Any]:
    """Encode each piece apart: the dictionaries differ."""

    def encode(values: list[Any]) -> Any:
        parts = []
        for part in np.array_split(np.array(values, object), pieces):
            own = sorted({v for v in part if v is not None}, key=lambda v: (len(v), v))
            codes = pa.array([None if v is None else own.index(v) for v in part], index)
            parts.append(pa.DictionaryArray.from_arrays(codes, pa.array(own, value or pa.string())))
        return pa.chunked_array(parts)

    return encode


def with_null_inside(values: list[Any]) -> Any:
    """A null that is an entry of the dictionary, and one that is not used."""
    own = [None, *sorted({v for v in values if v is not None}), "not used"]
    return pa.DictionaryArray.from_arrays(pa.array([own.index(v) for v in values], pa.int32()), pa.array(own))


def with_doubles_inside(values: list[Any]) -> Any:
    """A dictionary that holds every value twice, which Arrow does not forbid."""
    own = sorted({v for v in values if v is not None})
    codes = [None if v is None else own.index(v) + len(own) * (k % 2) for k, v in enumerate(values)]
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(own + own))


def sliced(values: list[Any]) -> Any:
    return pa.array(["before", None, *values, None, "after"])[2:-2]


def sliced_dictionary(values: list[Any]) -> Any:
    return pa.array(["before", None, *values, None, "after"]).dictionary_encode()[2:-2]


ARROW: dict[str, Callable[[list[Any]], Any]] = {
    "string": lambda values: pa.array(values, pa.string()),
    "large_string": lambda values: pa.array(values, pa.large_string()),
    "string_view": lambda values: pa.array(values, pa.string_view()),
    "binary": lambda values: pa.array(values).cast(pa.binary()),
    "chunks": lambda values: pa.chunked_array([values[:7], values[7:2000], values[2000:]], pa.string()),
    "sliced": sliced,
    "sliced dictionary": sliced_dictionary,
    "dictionary": lambda values: pa.array(values).dictionary_encode(),
    "dictionary of large_string": dictionaries(pa.int32(), pa.large_string()),
    "dictionary of binary": lambda values: pa.array(values).cast(pa.binary()).dictionary_encode(),
    "dictionary, int16": dictionaries(pa.int16()),
    "dictionary, uint16": dictionaries(pa.uint16()),
    "dictionary, uint32": dictionaries(pa.uint32()),
    "dictionary, int64": dictionaries(pa.int64()),
    "dictionary, uint64": dictionaries(pa.uint64()),
    "dictionaries": dictionaries(pa.int32(), pieces=3),
    "dictionaries, int8": dictionaries(pa.int8(), pieces=60),
    "dictionaries, uint8": dictionaries(pa.uint8(), pieces=60),
    "null inside": with_null_inside,
    "doubles inside": with_doubles_inside,
}


@pytest.mark.parametrize("form", ARROW)
def test_in_memory_it_does_not_matter_what_holds_them(form: str, encoding: Encoding, expected: np.ndarray) -> None:
    columns = {name: ARROW[form](values) for name, values in VALUES.items()}
    _, ids = rows_of(encoding, columns)
    assert np.array_equal(ids, expected)


@pytest.mark.parametrize("form", [form for form in ARROW if form != "binary" and "of binary" not in form])
def test_nor_to_the_first_look(form: str, encoding: Encoding) -> None:
    found = encoding_of({name: ARROW[form](values) for name, values in VALUES.items()}, bits=16, categorical=["many"])
    assert [(c.values, c.distinct) for c in found.categories] == [(c.values, c.distinct) for c in encoding.categories]


def test_an_empty_chunk_of_one_column_does_not_hurt_another() -> None:
    column = pa.chunked_array([["a"] * 7, [], ["b"] * 3], pa.string())
    job = job_of(with_y({"c": column, "x": np.arange(10.0)}), transform="none")
    numbers, ids = streamed(job)
    assert ids[:, 0].tolist() == [1] * 7 + [2] * 3
    assert len(numbers) == 10


# --- law: in Parquet, read whole and in slices


def written_as(encoding: str) -> Callable[[pa.Table, Path], None]:
    own = dict.fromkeys(VALUES, encoding)
    return lambda table, path: pq.write_table(table, path, use_dictionary=False, column_encoding=own)


PARQUET: dict[str, Callable[[pa.Table, Path], None]] = {
    "plain": lambda table, path: pq.write_table(table, path, use_dictionary=False),
    "dictionary": pq.write_table,
    "large_string": lambda table, path: pq.write_table(
        table.cast(pa.schema([(n, pa.float64() if n == "y" else pa.large_string()) for n in table.column_names])), path
    ),
    "stored as a dictionary": lambda table, path: pq.write_table(
        pa.table({n: table[n] if n == "y" else table[n].dictionary_encode() for n in table.column_names}), path
    ),
    "row groups": lambda table, path: pq.write_table(table, path, row_group_size=100),
    "pages": lambda table, path: pq.write_table(table, path, data_page_size=500, write_batch_size=50),
    "plain after the dictionary is full": lambda table, path: pq.write_table(
        table, path, dictionary_pagesize_limit=400, data_page_size=500, write_batch_size=50
    ),
    "delta lengths": written_as("DELTA_LENGTH_BYTE_ARRAY"),
    "delta strings": written_as("DELTA_BYTE_ARRAY"),
    "version 2 pages": lambda table, path: pq.write_table(table, path, data_page_version="2.0", compression="zstd"),
}
READ = {"whole": {}, "in slices": {"chunk_rows": 333}, "in batches": {}}


def reading(job: Job, encoding: Encoding, how: str) -> Job:
    """Give a job an encoding, and pieces that are read in batches if it says so."""
    recipe = replace(job.recipe, encoding=encoding, at_once=1 if how == "in batches" else job.recipe.at_once)
    return replace(job, encoding=encoding, recipe=recipe)


@pytest.mark.parametrize("how", READ)
@pytest.mark.parametrize("form", PARQUET)
def test_in_files_it_does_not_matter_either(
    form: str, how: str, encoding: Encoding, expected: np.ndarray, tmp_path: Path
) -> None:
    PARQUET[form](with_y({name: pa.array(values) for name, values in VALUES.items()}), tmp_path / "data.parquet")
    job = reading(job_of(tmp_path / "data.parquet", **READ[how]), encoding, how)
    _, ids = streamed(job)
    assert np.array_equal(ids, expected)


@pytest.mark.parametrize("form", PARQUET)
def test_the_first_look_sees_the_same_in_every_file(form: str, encoding: Encoding, tmp_path: Path) -> None:
    PARQUET[form](with_y({name: pa.array(values) for name, values in VALUES.items()}), tmp_path / "data.parquet")
    found = job_of(tmp_path / "data.parquet", bits=16, categorical=["many"]).encoding
    assert [(c.values, c.distinct) for c in found.categories] == [(c.values, c.distinct) for c in encoding.categories]


def test_row_groups_with_dictionaries_of_their_own(encoding: Encoding, expected: np.ndarray, tmp_path: Path) -> None:
    table = with_y({name: pa.array(values) for name, values in VALUES.items()})
    order = np.argsort([value or "" for value in VALUES["many"]], kind="stable")
    pq.write_table(table.take(pa.array(order)), tmp_path / "data.parquet", row_group_size=N // 7)
    for how, settings in READ.items():
        _, ids = streamed(reading(job_of(tmp_path / "data.parquet", **settings), encoding, how))
        assert np.array_equal(ids, expected[order])


def test_files_of_different_types_of_strings(encoding: Encoding, expected: np.ndarray, tmp_path: Path) -> None:
    """string, large_string and a stored dictionary are one column."""
    table = with_y({name: pa.array(values) for name, values in VALUES.items()})
    PARQUET["plain"](table[:1000], tmp_path / "0.parquet")
    PARQUET["large_string"](table[1000:2000], tmp_path / "1.parquet")
    PARQUET["stored as a dictionary"](table[2000:], tmp_path / "2.parquet")
    _, ids = streamed(reading(job_of(tmp_path, categorical=["many"]), encoding, "whole"))
    assert np.array_equal(ids, expected)


def test_folders_give_categories(tmp_path: Path) -> None:
    """Hive: site=a/ is a column of strings."""
    for site, y in (("a", 0.0), ("b", 1.0), ("__HIVE_DEFAULT_PARTITION__", 2.0)):
        (tmp_path / f"site={site}").mkdir()
        pq.write_table(pa.table({"y": [y, y + 0.5]}), tmp_path / f"site={site}" / "0.parquet")
    job = job_of(tmp_path)
    assert job.encoding.categories[0].values == ("a", "b")
    _, ids = streamed(job)
    assert sorted(ids[:, 0].tolist()) == [0, 0, 1, 1, 2, 2]


def test_a_filter_drops_rows_and_shifts_no_value(encoding: Encoding, expected: np.ndarray, tmp_path: Path) -> None:
    PARQUET["row groups"](with_y({name: pa.array(values) for name, values in VALUES.items()}), tmp_path / "data.parquet")
    job = reading(job_of(tmp_path / "data.parquet", filter="few == 'red' or few == 'blue'"), encoding, "whole")
    _, ids = streamed(job)
    kept = np.isin(FEW.astype(str), ["red", "blue"])
    assert np.array_equal(ids, expected[kept])
