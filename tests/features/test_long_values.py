"""Long values in the first look and among the names: told apart without copies, no more of them than memory holds."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streamsgd
from streamsgd.data.open import open_data
from streamsgd.errors import BudgetError
from streamsgd.features import values
from streamsgd.features.frequent import LONGEST_NAME, LONGEST_TEXT, _shortened, frequent_values, frequent_words
from streamsgd.features.sample import SAMPLE_BYTES, TEXT_BYTES, Sample, row_sizes
from streamsgd.features.values import ValueProfile
from streamsgd.planning.chunks import Piece
from streamsgd.settings.make import make_settings


def profile(tables: list[list[tuple[bytes, int]]]) -> ValueProfile:
    seen = ValueProfile()
    for table in tables:
        seen.add(pa.array([value for value, _ in table], pa.binary()), np.array([count for _, count in table], np.int64))
    return seen


@settings(deadline=None)
@given(st.lists(st.lists(st.tuples(st.sampled_from([b"", b"a", b"b" * 9, b"c" * 700, b"d" * 800]), st.integers(1, 9)))))
def test_values_are_counted_alike_by_digest(tables: list[list[tuple[bytes, int]]]) -> None:
    plain = profile(tables)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(values, "LONG_BYTES", -1)
        by_digest, times = profile(tables).counted
    assert by_digest.to_pylist() == plain.counted[0].to_pylist()
    assert times.tolist() == plain.counted[1].tolist()


def test_what_is_no_name_is_not_named() -> None:
    long = "x" * (LONGEST_NAME + 1)
    assert frequent_values([pa.chunked_array([["a", long, "a", None, long, long]])]) == [("a", 2)]


@settings(deadline=None)
@given(st.lists(st.none() | st.text(max_size=9), min_size=1), st.lists(st.none() | st.lists(st.integers(0, 9)), min_size=1))
def test_sizes_of_rows_are_those_of_their_values(texts: list[str | None], lists: list[list[int] | None]) -> None:
    sizes = row_sizes([pa.chunked_array([pa.array(texts, pa.string())])])
    assert sizes.tolist() == [len((text or "").encode()) for text in texts]
    assert row_sizes([pa.array(lists, pa.list_(pa.int64()))]).tolist() == [8 * len(row or ()) for row in lists]
    assert row_sizes([pa.array(texts, pa.string()).dictionary_encode(), pa.nulls(len(texts))]).tolist() == [0] * len(texts)


@pytest.mark.parametrize("at_once", [1, 70, 5_000])
def test_the_look_takes_the_same_rows_however_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    path, n = tmp_path / "part.parquet", 2_000
    column = ["p" * 1_000 + str(k) for k in range(n)]
    options: dict[str, Any] = {"use_dictionary": False, "column_encoding": {"s": "DELTA_BYTE_ARRAY"}}
    pq.write_table(pa.table({"s": column, "y": np.arange(n) * 1.0}), path, **options)
    for module in ("pieces", "row_stream"):
        monkeypatch.setattr(f"streamsgd.data.parquet.{module}.WILD_ROWS", at_once)
    look = Sample(open_data(str(path))[0], make_settings({"target": "y"}))
    taken = look.columns(Piece(0, 0, 1, 0, n, 0), ("s", "y"), frozenset("s"), 500_500)["s"]
    expected = int(np.searchsorted(np.cumsum([len(value) for value in column]), 500_500, side="right"))
    assert taken.to_pylist() == column[:expected]
    assert look.cut
    assert not look.sees_all(("s", "y"))
    assert look.piece_bytes == sum(map(len, column[:expected]))


@pytest.mark.parametrize("kind", ["numbers", "wide", "words", "long", "lists"])
def test_the_smallest_budget_that_is_named_is_accepted(tmp_path: Path, kind: str) -> None:
    rng, n = np.random.default_rng(0), 4_000
    columns: dict[str, Any] = {
        "numbers": {f"x{j}": rng.random(n) for j in range(5)},
        "wide": {f"x{j}": rng.random(n, np.float32) for j in range(400)},
        "words": {"w": [f"word {k}" for k in rng.integers(0, 3_000, n)]},
        "long": {"s": [f"{k} " + "word " * 600 for k in range(n)]},
        "lists": {"l": [[f"tag {j}" for j in range(k)] for k in rng.integers(0, 60, n).tolist()]},
    }[kind]
    path = tmp_path / "part.parquet"
    pq.write_table(pa.table({"y": rng.random(n), **columns}), path, row_group_size=1_000)
    for more in ({}, {"optimizer": "nag", "average": "0"} if kind == "numbers" else {"bits": 24}):
        with pytest.raises(BudgetError, match="The smallest budget that can is --memory") as refused:
            streamsgd.plan(str(path), "y", memory="10MB", **more)
        least = refused.value.least
        assert f"--memory {least // 10**6}MB" in str(refused.value)
        assert streamsgd.plan(str(path), "y", memory=str(least), **more).budget.projected <= least
        with pytest.raises(BudgetError):
            streamsgd.plan(str(path), "y", memory=str(least - 10**6), **more)


def test_a_larger_budget_reads_more_at_once_and_the_named_one_reckons_with_it(tmp_path: Path) -> None:
    path = tmp_path / "part.parquet"
    pq.write_table(pa.table({"y": np.random.default_rng(0).random(40_000), "w": [f"w{k}" for k in range(40_000)]}), path)
    with pytest.raises(BudgetError) as refused:
        streamsgd.plan(str(path), "y", memory="1GB", bits=27)
    assert refused.value.least > 4e9
    assert streamsgd.plan(str(path), "y", memory=str(refused.value.least), bits=27).budget.limit == refused.value.least


@settings(deadline=None, max_examples=30)
@given(st.lists(st.none() | st.sampled_from(["a", "b c", "d " * 200, "e" * 300, "f g " * 5_000]), min_size=1), st.booleans())
def test_what_is_kept_of_long_values_until_they_are_counted_changes_no_count(texts: list[str | None], coded: bool) -> None:
    column = pa.array([*texts, "h" * 40_000, "h" * 40_000], pa.string())
    column = column.dictionary_encode() if coded else column
    kept = _shortened(column, LONGEST_TEXT)
    assert frequent_values([kept]) == frequent_values([column])
    assert frequent_words([kept], fold=True) == frequent_words([column], fold=True)
    assert kept.nbytes <= max(column.nbytes, LONGEST_TEXT * 6 + 8 * len(column))


def test_pieces_have_shares_by_their_rows() -> None:
    """One long piece among short ones is read as a whole where all of them together are short."""
    pieces = [Piece(0, 0, 1, 0, 200_000, 0), *(Piece(0, k, k + 1, 0, 1_000, 0) for k in range(1, 16))]
    each = [Sample.most_bytes(piece, pieces) for piece in pieces]
    assert each[0] == SAMPLE_BYTES
    assert sum(each) <= TEXT_BYTES
    equal = [Sample.most_bytes(piece, pieces[1:]) for piece in pieces[1:]]
    assert equal == [TEXT_BYTES // 15] * 15
