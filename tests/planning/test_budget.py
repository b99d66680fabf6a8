"""Laws of the budget: what it promises adds up, a refusal names what would do, and threads leave no trace."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsgd.errors import BudgetError
from streamsgd.messages import parse_bytes
from streamsgd.planning.budget import make_budget, tile_rows
from streamsgd.settings.make import make_settings
from streamsgd.training.prepare import prepare

NEEDS = st.fixed_dictionaries(
    {
        "decode_per_thread": st.integers(1, 10**9),
        "footers": st.integers(0, 10**9),
        "model": st.integers(0, 10**9),
        "row_bytes": st.integers(8, 10**5),
        "data_rows": st.integers(1, 10**12),
        "chunk_rows": st.none() | st.integers(1, 10**7),
    }
)
THREADS = st.integers(1, 64)


def smallest(text: str) -> int:
    found = re.search(r"The smallest budget that can is --memory (\d+MB)", text)
    assert found, text
    return parse_bytes(found[1])


@given(NEEDS, THREADS)
def test_a_refusal_names_the_smallest_budget_that_works(needs: dict[str, Any], threads: int) -> None:
    with pytest.raises(BudgetError, match="cannot hold this job") as refused:
        make_budget(limit=1, threads=threads, **needs)
    enough = smallest(str(refused.value))
    assert make_budget(limit=enough, threads=threads, **needs).projected <= enough
    with pytest.raises(BudgetError):
        make_budget(limit=enough - 10**6, threads=threads, **needs)


@given(NEEDS, THREADS, st.integers(4 * 10**8, 10**12))
def test_the_projection_keeps_the_limit(needs: dict[str, Any], threads: int, limit: int) -> None:
    budget, least = None, limit
    try:
        budget = make_budget(limit=limit, threads=threads, **needs)
    except BudgetError as refused:
        least = smallest(str(refused))
    if budget is None:
        assert least > limit
        return
    assert budget.projected <= limit
    assert 1 <= budget.threads <= threads
    assert budget.chunk_rows >= 1
    if needs["chunk_rows"] is not None:
        assert budget.chunk_rows == needs["chunk_rows"]


@given(NEEDS, THREADS, THREADS, st.integers(4 * 10**8, 10**12))
def test_chunks_never_depend_on_threads(needs: dict[str, Any], few: int, many: int, limit: int) -> None:
    sizes = set()
    for threads in (few, many):
        try:
            sizes.add(make_budget(limit=limit, threads=threads, **needs).chunk_rows)
        except BudgetError:
            sizes.add(None)
    assert len(sizes) == 1


@given(NEEDS, st.integers(4 * 10**8, 10**11), st.integers(0, 10**11))
def test_more_memory_never_means_smaller_chunks(needs: dict[str, Any], limit: int, more: int) -> None:
    try:
        small = make_budget(limit=limit, threads=2, **needs)
    except BudgetError:
        return
    assert make_budget(limit=limit + more, threads=2, **needs).chunk_rows >= small.chunk_rows


@given(st.integers(8, 10**7))
def test_tiles_are_powers_of_two(row_bytes: int) -> None:
    rows = tile_rows(row_bytes)
    assert rows & (rows - 1) == 0
    assert 16 <= rows <= 4096


# --- of a whole job


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(6)
    table = pa.table({f"x{j}": rng.normal(size=20_000) for j in range(30)} | {"y": rng.normal(size=20_000)})
    pq.write_table(table, tmp_path / "d.parquet", row_group_size=1000)
    return tmp_path / "d.parquet"


def job(data: Path, **settings: Any) -> Any:
    return prepare(str(data), make_settings({"target": "y", **settings}))


@pytest.mark.parametrize("settings", [{}, {"chunk_rows": 20_000}, {"precision": "float64", "optimizer": "adam"}])
def test_a_job_is_refused_below_and_accepted_at_the_named_budget(data: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(BudgetError, match="--memory 100 MB cannot hold this job: interpreter") as refused:
        job(data, memory="100MB", **settings)
    enough = smallest(str(refused.value))
    accepted = job(data, memory=str(enough), **settings)
    assert accepted.budget.projected <= enough
    with pytest.raises(BudgetError):
        job(data, memory=str(enough - 10**6), **settings)


def test_a_job_has_the_same_plan_on_any_number_of_threads(data: Path) -> None:
    plans = {job(data, memory="500MB", threads=n).plan.chunk_rows for n in (1, 2, 8, 64)}
    assert len(plans) == 1
