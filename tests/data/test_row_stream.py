"""How a piece is cut for reading changes no row, and no batch is much larger than it should be, whatever the footer says."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamsgd.data.open import open_data
from streamsgd.data.parquet import pieces
from streamsgd.data.sizes import BATCH_BYTES, RUN_BYTES, WILD_ROWS
from streamsgd.data.timings import Timings
from streamsgd.planning.chunks import Piece

KINDS = ("x", "word", "long", "list")
DELTA = {"use_dictionary": False, "column_encoding": {"word": "DELTA_BYTE_ARRAY", "long": "DELTA_BYTE_ARRAY"}}


def table_of(n: int, length: int) -> pa.Table:
    rng = np.random.default_rng([n, length])
    return pa.table(
        {
            "x": rng.random(n),
            "word": [f"word {k}" for k in rng.integers(0, 20, n)],
            "long": ["p" * length + str(k) for k in range(n)],
            "list": [list(range(k)) for k in rng.integers(0, 4, n).tolist()],
        }
    )


def read(path: Path, piece: Piece, texts: frozenset[str]) -> list[list[Any]]:
    dataset = open_data(str(path))[0]
    return list(dataset.source.reader().read(piece, KINDS, Timings(), texts))


def plain(column: Any) -> list[Any]:
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    return [value for chunk in chunks for value in chunk.to_pylist()]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 700),
    st.integers(1, 300),
    st.sampled_from([{}, DELTA, {"use_dictionary": False}, {"data_page_version": "2.0", "data_page_size": 200}]),
    st.sampled_from([frozenset(), frozenset(["word"]), frozenset(["word", "long"])]),
    st.integers(1, 40_000),
    st.booleans(),
    st.data(),
)
def test_rows_come_as_they_are_however_they_are_read(
    n: int, group: int, options: dict[str, Any], texts: frozenset[str], small: int, slices: bool, data: st.DataObject
) -> None:
    table = table_of(n, 30)
    n_groups = -(-n // group)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder) / "part.parquet"
        pq.write_table(table, path, row_group_size=group, **options)
        patch.setattr(pieces, "RUN_BYTES", small)
        patch.setattr(pieces, "WILD_ROWS", 50)
        first = data.draw(st.integers(0, n_groups - 1))
        last = first + 1 if slices else data.draw(st.integers(first + 1, n_groups))
        rows = min(n, last * group) - first * group
        start = data.draw(st.integers(0, rows - 1)) if slices else 0
        stop = data.draw(st.integers(start + 1, rows)) if slices else rows
        parts = read(path, Piece(0, first, last, start, stop, 0), texts)
        expected = table.slice(first * group + start, stop - start)
        for k, name in enumerate(KINDS):
            assert [value for part in parts for value in plain(part[k])] == expected[name].to_pylist()
        assert all(len({len(column) for column in part}) == 1 for part in parts)


@pytest.mark.parametrize("options", [DELTA, {"use_dictionary": False}, {}], ids=["delta", "plain", "dictionary"])
@pytest.mark.parametrize("group", [500, 20_000])
def test_long_values_come_in_small_parts(tmp_path: Path, options: dict[str, Any], group: int) -> None:
    """60 MB of strings, which take 0.3 MB in the file where each is stored by what it shares with the one before."""
    path, n = tmp_path / "part.parquet", 20_000
    pq.write_table(table_of(n, 3_000), path, row_group_size=group, compression="zstd", **options)
    parts = read(path, Piece(0, 0, -(-n // group), 0, n, 0), frozenset(["word", "long"]))
    sizes = [sum(column.nbytes for column in part) for part in parts]
    assert sum(len(part[0]) for part in parts) == n
    assert max(sizes) <= max(2 * BATCH_BYTES, 2 * RUN_BYTES)
    assert max(len(part[0]) for part in parts) <= WILD_ROWS


@pytest.mark.parametrize("told", [True, False], ids=["footer tells", "nobody tells"])
@pytest.mark.parametrize("texts", [frozenset(), frozenset(["long"])], ids=["plain", "as dictionaries"])
@pytest.mark.parametrize("options", [DELTA, {"use_dictionary": False}, {}], ids=["delta", "plain", "dictionary"])
def test_few_rows_of_very_long_values_come_in_small_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], texts: frozenset[str], told: bool
) -> None:
    """Row groups of fewer rows than are read at once, 60 MB each, the second after the reader knows the file."""
    path, n = tmp_path / "part.parquet", 400
    table = pa.table({"long": [(str(k % 7) if not options else "p") * 300_000 + str(k % 7) for k in range(n)]})
    pq.write_table(table, path, row_group_size=200, compression="zstd", **options)
    if not told:
        monkeypatch.setattr(pieces.Footers, "decoded", lambda *_: None)
    reader = open_data(str(path))[0].source.reader()
    for piece in (Piece(0, 0, 1, 0, 200, 0), Piece(0, 0, 2, 0, n, 0), Piece(0, 1, 2, 50, 150, 0)):
        parts = [part[0] for part in reader.read(piece, ("long",), Timings(), texts)]
        assert sum(map(len, parts)) == piece.rows
        assert max(part.nbytes for part in parts) <= max(64 * 300_100, 2 * RUN_BYTES)
        ends = [value for part in parts for value in plain(part)][-3:]
        assert [int(value[-1]) for value in ends] == [(200 * piece.first + piece.stop - k) % 7 for k in (3, 2, 1)]


@pytest.mark.parametrize(
    ("column", "options", "known"),
    [
        (pa.array(["abc"] * 100), {}, 300),
        (pa.array(["abc"] * 100), {"use_dictionary": False}, 300),
        (pa.array([[1, 2, 3]] * 100, pa.list_(pa.int32())), {}, 1200),
        (pa.array([1.0] * 100), {}, 800),
    ],
    ids=["dictionary", "plain", "lists", "numbers"],
)
def test_footers_tell_what_columns_take_in_memory(tmp_path: Path, column: Any, options: dict[str, Any], known: int) -> None:
    path = tmp_path / "part.parquet"
    pq.write_table(pa.table({"c": column}), path, **options)
    dataset = open_data(str(path))[0].source.inventory  # type: ignore[attr-defined]
    found = pieces.Footers().decoded(dataset, 0, ["c"])
    assert found is not None
    assert known <= found <= known + 16 * 300


@pytest.mark.parametrize("overtaken", [False, True])
def test_a_row_group_is_kept_open_for_its_next_slice_unless_that_was_begun_before(tmp_path: Path, overtaken: bool) -> None:
    """Threads that read the chunks in which slices lie would else hold open every row group that they came by."""
    path = tmp_path / "part.parquet"
    table = table_of(4000, 3000)
    pq.write_table(table, path, row_group_size=2000, **DELTA)
    reader = open_data(str(path))[0].source.reader()
    kept, rows = [], []
    for group in (0, 1):
        first, second = (Piece(0, group, group + 1, *bounds, 0) for bounds in ((0, 1500), (1500, 2000)))
        reading = reader.read(first, ("long",), Timings())
        rows += [part[0] for part in [next(reading)]]
        after = [part[0] for part in reader.read(second, ("long",), Timings())] if overtaken else []
        rows += [part[0] for part in reading]
        kept.append(len(reader._open))
        rows += after or [part[0] for part in reader.read(second, ("long",), Timings())]
        assert not reader._open
        assert not reader._reading
    assert kept == ([0, 0] if overtaken else [1, 1])
    assert [value for part in rows for value in plain(part)] == table["long"].to_pylist()
