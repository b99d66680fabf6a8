"""Laws of the budget: what it promises adds up, a refusal names what would do, and threads leave no trace."""

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import streamsgd
from streamsgd.cli.main import main
from streamsgd.errors import BudgetError, SettingsError
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


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        ("1e9", 10**9),
        ("1.5E9", 1_500_000_000),
        (".5GB", 5 * 10**8),
        (".5e9", 5 * 10**8),
        ("1.gb", 10**9),
        (" 2 MiB ", 2**21),
        ("1e3kB", 10**6),
    ],
)
def test_sizes_are_taken_as_people_write_them(text: str, n_bytes: int) -> None:
    assert parse_bytes(text) == n_bytes


@pytest.mark.parametrize("text", ["", "GB", "e9", "1e", "1e400", "9" * 400 + "GB", "-1GB", "1,5GB", "1 e9", "inf", "٣GB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="is not a size"):
        parse_bytes(text)


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


@given(st.integers(8, 10**4), st.integers(1, 10**6), st.lists(st.integers(4 * 10**8, 10**10), min_size=2, max_size=5))
def test_memory_that_is_said_to_decide_nothing_plans_the_same_chunks(row_bytes: int, data_rows: int, limits: list[int]) -> None:
    """Even of more rows than there are: units of reading follow from them."""
    needs = {"decode_per_thread": 10**6, "footers": 0, "model": 10**4, "row_bytes": row_bytes, "data_rows": data_rows}
    budgets = []
    for limit in limits:
        with suppress(BudgetError):
            budgets.append(make_budget(limit=limit, threads=2, **needs))
    assert len({budget.chunk_rows for budget in budgets if budget.chunk_rows >= budget.useful_rows}) <= 1


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


# --- what memory decides


ROWS = 100_000


def wide(folder: Path) -> Path:
    """Write strings of so many values that a race of their weights takes 151 MB."""
    rng = np.random.default_rng(7)
    values = rng.integers(0, 10**6, 60_000)
    table = pa.table({"s": [f"value {k}" for k in values], "x": rng.normal(size=60_000), "y": rng.normal(size=60_000)})
    pq.write_table(table, folder / "wide.parquet", row_group_size=5000)
    return folder / "wide.parquet"


@pytest.fixture(scope="module")
def tall(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of 20 MB, which a chunk in 515MB does not hold."""
    rng = np.random.default_rng(6)
    table = pa.table({f"x{j}": rng.normal(size=ROWS).astype(np.float32) for j in range(50)} | {"y": rng.normal(size=ROWS)})
    path = tmp_path_factory.mktemp("tall") / "d.parquet"
    pq.write_table(table, path, row_group_size=1000)
    return path


def test_a_model_is_the_same_in_any_memory_or_the_plan_says_why_not(tall: Path) -> None:
    small = job(tall, memory="515MB")
    assert small.budget.chunk_rows < ROWS
    (line,) = small.decided_by_memory
    assert f"--chunk-rows {small.budget.chunk_rows} makes this model in any memory" in line
    enough = re.search(r"from about (\d+MB)", line)
    assert enough
    jobs = [job(tall, memory=memory) for memory in (enough[1], "600MB", "620MB", "1GB", "4GB", "64GB")]
    assert len({large.plan.chunk_rows for large in jobs}) == 1
    for large in jobs:
        assert large.decided_by_memory == ()
        assert large.budget.chunk_rows >= ROWS
    pinned = job(tall, memory="4GB", chunk_rows=small.budget.chunk_rows)
    assert pinned.plan.chunk_rows == small.plan.chunk_rows
    assert pinned.decided_by_memory == ()


def test_a_learner_that_memory_chose_is_named_with_the_memory_of_the_other(tmp_path: Path) -> None:
    path = wide(tmp_path)
    small = job(path, memory="590MB", bits=20, categorical=["s"])
    assert type(small.parts.optimizer).__name__ == "Normalized"
    line = small.decided_by_memory[-1]
    assert "--optimizer normalized makes this model in any memory" in line
    enough = re.search(r"from (\d+MB) on it would race", line)
    assert enough
    assert type(job(path, memory=enough[1], bits=20, categorical=["s"]).parts.optimizer).__name__ == "Race"
    assert (
        type(job(path, memory=f"{int(enough[1][:-2]) - 1}MB", bits=20, categorical=["s"]).parts.optimizer).__name__
        == "Normalized"
    )
    asked = job(path, memory="590MB", bits=20, categorical=["s"], optimizer="normalized")
    assert not [line for line in asked.decided_by_memory if "race" in line]


def test_the_plan_and_the_run_say_what_memory_decided(tall: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = [str(tall), "--target", "y", "--memory", "515MB", "--executor", "inline", "--epochs", "1"]
    assert main(["plan", *flags]) == 0
    assert "--memory 515 MB decides bits" in capsys.readouterr().out
    assert main(["train", *flags, "-o", str(tmp_path / "m.sgd")]) == 0
    assert "--memory 515 MB decides bits" in capsys.readouterr().err


def test_bits_do_not_depend_on_how_much_is_read_at_once(tmp_path: Path) -> None:
    """A row group of 40 MB is read in batches of rows within 1GB, and whole within 4GB."""
    rng = np.random.default_rng(8)
    table = pa.table({f"x{j}": rng.normal(size=250_000) for j in range(20)} | {"y": rng.random(250_000) < 0.5})
    pq.write_table(table, tmp_path / "d.parquet")
    common = {"chunk_rows": 100_000, "executor": "inline", "epochs": 1, "optimizer": "adam", "validation": 0.1}
    models = [streamsgd.train(str(tmp_path / "d.parquet"), "y", memory=memory, **common) for memory in ("600MB", "1GB", "4GB")]
    assert len({(model.weights.tobytes(), str(model.metrics)) for model in models}) == 1
