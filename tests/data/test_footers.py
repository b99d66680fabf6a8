"""Footers in parts: the same bytes when put together again, the same rows when read, no crash on damaged ones."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import as_columns

from streamsgd.data import dataset, sizes
from streamsgd.data.open import open_data
from streamsgd.data.parquet import footer_facts, open_footers, pieces
from streamsgd.data.parquet.footers import index_footer, split_footer
from streamsgd.data.timings import Timings
from streamsgd.errors import DataError, StreamSGDError
from streamsgd.planning.chunks import Piece


def footer_of(path: Path) -> bytes:
    data = path.read_bytes()
    return data[-int.from_bytes(data[-8:-4], "little") - 8 :]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 50 row groups whose columns have statistics, nulls, nesting and a dictionary."""
    path = tmp_path_factory.mktemp("footer") / "a.parquet"
    n = 500
    rng = np.random.default_rng(0)
    table = pa.table(
        {
            "x": rng.normal(size=n),
            "null": pa.array(np.arange(n), mask=rng.random(n) < 0.5),
            "text": pa.array([f"t{k % 7}" for k in range(n)]),
            "list": pa.array([[k, k + 1] for k in range(n)]),
        },
        metadata={"key": "value" * 100},
    )
    pq.write_table(table, path, row_group_size=10)
    return path


@pytest.mark.parametrize("groups", [[0], [49], [3, 4, 5], list(range(14)), list(range(15)), list(range(50)), [1, 7, 30]])
def test_a_part_reads_the_same_rows(path: Path, groups: list[int]) -> None:
    footer = footer_of(path)
    index = index_footer(footer)
    assert index is not None
    start, stop = index.span(groups)
    part = index.footer(groups, start, footer[start:stop])
    metadata = pq.read_metadata(pa.BufferReader(part))
    assert metadata.num_row_groups == len(groups)
    found = pq.ParquetFile(path, metadata=metadata).read_row_groups(list(range(len(groups))))
    assert found.equals(pq.ParquetFile(path).read_row_groups(groups))


def test_parts_hold_every_row_group_once(path: Path) -> None:
    parts = [pq.read_metadata(pa.BufferReader(part)) for part in split_footer(footer_of(path), 16)]
    assert [part.num_row_groups for part in parts] == [16, 16, 16, 2]
    sizes = [part.row_group(g).total_byte_size for part in parts for g in range(part.num_row_groups)]
    whole = pq.read_metadata(path)
    assert sizes == [whole.row_group(g).total_byte_size for g in range(50)]


@pytest.mark.shared
def test_footers_from_the_wild_are_put_together_again_bit_for_bit(shared_data: Path) -> None:
    """Written by a dozen writers, in as many dialects."""
    n_found = 0
    for path in sorted((shared_data / "parquet").rglob("*.parquet")):
        try:
            n = pq.read_metadata(path).num_row_groups
        except (OSError, pa.ArrowException):
            continue
        footer = footer_of(path)
        index = index_footer(footer)
        assert index is not None, path
        assert len(index.bounds) == n + 1, path
        if n:
            assert index.footer(range(n), 0, footer) == footer, path
            n_found += 1
    assert n_found > 100


def test_damaged_footers_are_refused_or_indexed_but_never_followed_out_of_bounds(path: Path) -> None:
    footer, rng = footer_of(path), np.random.default_rng(1)
    n_refused = 0
    for _ in range(2000):
        damaged = bytearray(footer)
        for at in rng.integers(0, len(footer) - 8, rng.integers(1, 4)):
            damaged[at] = rng.integers(0, 256)
        index = index_footer(bytes(damaged[: rng.integers(9, len(footer) + 1)]))
        n_refused += index is None
        if index is not None:
            assert 0 <= index.bounds[0] <= index.bounds[-1] <= len(footer)
            assert (np.diff(index.bounds) >= 0).all()
    assert n_refused > 100


def test_a_run_over_parts_of_footers_ends_with_the_same_bytes(
    write: Callable[..., Path], train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(3000, 3))
    data = write(as_columns(x, y=x.sum(axis=1)), row_group_size=20, files=2)
    plain = train(data, executor="dask", epochs=2, shuffle="corgi", chunk_rows=500, batch_size=10, learning_rate=0.01)
    monkeypatch.setattr(open_footers, "WHOLE_FOOTER_BYTES", 0)
    monkeypatch.setattr(sizes, "WHOLE_FOOTER_BYTES", 0)
    monkeypatch.setattr(dataset, "LARGE_FOOTER", 0)
    monkeypatch.setattr(footer_facts, "LARGE_FOOTER", 0)
    monkeypatch.setattr(footer_facts, "GROUPS_AT_ONCE", 7)
    opened = []
    of_part = pieces.Footers._open_part
    monkeypatch.setattr(pieces.Footers, "_open_part", lambda *given, **how: opened.append(given[-1]) or of_part(*given, **how))
    parts = train(data, executor="dask", epochs=2, shuffle="corgi", chunk_rows=500, batch_size=10, learning_rate=0.01)
    assert opened
    assert parts[1].to_bytes() == plain[1].to_bytes()


@pytest.mark.parametrize("half", [0, 1])
def test_a_flipped_bit_of_a_footer_gives_rows_or_an_error_that_names_the_file(half: int, tmp_path: Path) -> None:
    """Of strings that are stored by what they share: of them a footer is asked how long they are."""
    path = tmp_path / "a.parquet"
    table = pa.table({"x": np.arange(40.0), "s": [f"prefix {k}" for k in range(40)]})
    options: dict[str, Any] = {"use_dictionary": False, "column_encoding": {"s": "DELTA_BYTE_ARRAY"}, "store_schema": False}
    pq.write_table(table, path, row_group_size=20, **options)
    data = path.read_bytes()
    n = len(footer_of(path))
    ends = {"read": 0, "refused": 0}
    for bit in range(half * 3, 8 * n, 7):
        flipped = bytearray(data)
        flipped[len(data) - n + bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            found = open_data(str(path))[0]
            pieces = [Piece(0, group, group + 1, 0, int(found.rows[group]), 0) for group in range(found.n_row_groups)]
            names = tuple(dict.fromkeys(found.schema.names))
            for piece in pieces:
                list(found.source.reader().read(piece, names, Timings()))
            ends["read"] += 1
        except StreamSGDError as error:
            ends["refused"] += "a.parquet" in str(error)
    assert min(ends.values()) > 20
    assert sum(ends.values()) == len(range(half * 3, 8 * n, 7))


@pytest.mark.parametrize("kind", [pa.timestamp("us", "UTC-QQQ"), pa.list_(pa.timestamp("us", "UTC-QQQ"))], ids=str)
def test_a_zone_that_is_no_text_is_a_damaged_footer(kind: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"t": pa.nulls(3, kind), "y": [1.0, 2.0, 3.0]}), path)
    data = path.read_bytes()
    metadata = pq.read_metadata(path).metadata[b"ARROW:schema"]
    written = base64.b64decode(metadata)
    assert b"UTC-QQQ" in written
    bad = base64.b64encode(written.replace(b"UTC-QQQ", b"UTC-\xab\xabQ"))
    path.write_bytes(data.replace(metadata, bad))
    with pytest.raises(DataError, match=r"a\.parquet: its footer cannot be read, the file is damaged"):
        open_data(str(path))
