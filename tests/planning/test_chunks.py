"""Plans: every row once, no chunk too large, the same for everyone, and quick for a million row groups."""

import json
import subprocess
import sys
import tracemalloc
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamsgd.planning.chunks import UNITS_PER_CHUNK, Plan, make_plan
from streamsgd.planning.samplers import Corgi, Sequential
from streamsgd.settings.registry import PARTS, make
from streamsgd.testing.plans import check_plan, check_sampler


def plan_of(rows: Any, file: Any = None, **options: Any) -> Plan:
    options = {"row_bytes": 8, "chunk_rows": 100, "tile_rows": 16, "sampler": Corgi(), "seed": 0, **options}
    rows = np.asarray(rows, np.int64)
    return make_plan(rows, np.zeros_like(rows) if file is None else np.asarray(file), **options)


def ids(plan: Plan, rows: Any, epoch: int = 0) -> list[int]:
    """Numbers of the rows in the order of reading."""
    begins = np.concatenate([[0], np.cumsum(rows)])
    pieces = [piece for chunk in plan.chunks(epoch) for piece in chunk.pieces]
    return [i for p in pieces for i in range(begins[p.first] + p.start, begins[p.first] + p.stop)]


# --- law: whatever the row groups, every row exactly once, in chunks of at most chunk_rows

SIZES = st.lists(st.tuples(st.one_of(st.integers(0, 5), st.integers(0, 400)), st.booleans()), min_size=0, max_size=60)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    groups=SIZES,
    chunk_rows=st.one_of(st.integers(1, 20), st.integers(20, 3000)),
    row_bytes=st.sampled_from([4, 1000, 1 << 20, 1 << 30]),
    name=st.sampled_from(sorted(PARTS["shuffle"])),
    seed=st.integers(0, 2**40),
    epoch=st.integers(0, 1000),
)
def test_every_row_is_read_once_in_chunks_that_fit(
    groups: list[tuple[int, bool]], chunk_rows: int, row_bytes: int, name: str, seed: int, epoch: int
) -> None:
    rows = np.array([size for size, _ in groups], np.int64)
    file = np.cumsum([new for _, new in groups]).astype(np.int32)
    options = {
        "row_bytes": row_bytes,
        "chunk_rows": chunk_rows,
        "seed": seed,
        "sampler": make("shuffle", name),
    }
    plan = plan_of(rows, file, **options)
    check_plan(plan, rows, file, epoch)
    assert list(plan.chunks(epoch)) == list(plan_of(rows, file, **options).chunks(epoch))
    if name == "none":
        assert ids(plan, rows, epoch) == list(range(int(rows.sum())))


@pytest.mark.parametrize("name", PARTS["shuffle"])
def test_every_sampler_conforms(name: str) -> None:
    check_sampler(make("shuffle", name))


def test_chunks_can_be_had_from_any_number_on() -> None:
    plan = plan_of(np.full(50, 30))
    chunks = list(plan.chunks(7))
    assert [list(plan.chunks(7, k)) for k in range(len(chunks) + 1)] == [chunks[k:] for k in range(len(chunks) + 1)]


def test_epochs_chunks_and_streams_have_keys_of_their_own() -> None:
    plan = plan_of(np.full(50, 30))
    keys = [plan.key(e, c, s) for e in range(20) for c in range(20) for s in range(20)]
    assert len(set(keys)) == len(keys)
    assert {type(k) for k in keys} == {np.uint64}
    assert len({tuple(plan_of(np.full(50, 30), seed=s).chunk(0, 0).pieces) for s in range(20)}) == 20
    assert plan.chunk(0, 0).pieces != plan.chunk(1, 0).pieces


# --- law: what is merged and what is sliced


def test_tiny_row_groups_are_read_together_and_a_chunk_still_mixes() -> None:
    plan = plan_of(np.full(10_000, 3), chunk_rows=1600)
    pieces = [piece for chunk in plan.chunks(0) for piece in chunk.pieces]
    assert max(piece.rows for piece in pieces) < 2 * 1600 // UNITS_PER_CHUNK
    assert len(pieces) <= 10_000 * 3 // (1600 // UNITS_PER_CHUNK) + 1
    assert all(len(chunk.pieces) >= UNITS_PER_CHUNK - 2 for chunk in plan.chunks(0) if chunk.rows > 1500)


def test_files_are_never_merged() -> None:
    plan = plan_of(np.full(1000, 2), np.arange(1000) // 3, chunk_rows=10_000)
    assert len(plan.rows) == 334
    assert (plan.last - plan.first).max() == 3


def test_oversized_row_groups_are_streamed_side_by_side_after_the_others() -> None:
    plan = plan_of([10, 250, 20, 170, 300], chunk_rows=100)
    assert plan.sliced.tolist() == [False, True, False, True, True]
    sliced = [chunk for chunk in plan.chunks(0) if plan.sliced[chunk.pieces[0].first]]
    assert sliced[0].number == plan.n_chunks(0) - len(sliced)
    assert all(len({p.first for p in chunk.pieces}) == 2 for chunk in sliced[:3])
    assert {piece.rows for chunk in sliced[:3] for piece in chunk.pieces} == {50}


def test_in_the_order_of_the_data_they_are_sliced_in_their_place() -> None:
    rows = [10, 250, 20, 170, 300]
    plan = plan_of(rows, chunk_rows=100, sampler=Sequential())
    assert ids(plan, rows) == list(range(750))
    assert max(chunk.rows for chunk in plan.chunks(0)) == 100


def test_no_rows_are_no_chunks() -> None:
    for rows in ([], [0], [0, 0, 0]):
        plan = plan_of(rows)
        assert (plan.n_rows, plan.n_chunks(0), list(plan.chunks(0))) == (0, 0, [])


# --- law: a million row groups take seconds

MILLION = """
import json, re, sys, time
import numpy as np
from streamsgd.planning.chunks import make_plan
from streamsgd.planning.samplers import Corgi
high, chunk_rows = int(sys.argv[1]), int(sys.argv[2])
rows, file = np.random.default_rng(0).integers(1, high, 1_000_000), np.arange(1_000_000) // 100
began = time.process_time()
plan = make_plan(rows, file, row_bytes=120, chunk_rows=chunk_rows, tile_rows=512, sampler=Corgi(), seed=0)
n = plan.n_chunks(0)
read = sum(plan.chunk(0, k).rows for k in np.linspace(0, n - 1, 200).astype(int))
last = plan.rows_before(0, n - 1) + plan.chunk(0, n - 1).rows
seconds = time.process_time() - began
megabytes = int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1]) / 1024
print(json.dumps([seconds, megabytes, n, last == rows.sum()], default=bool))
"""


@pytest.mark.parametrize(
    ("high", "chunk_rows"),
    [(100, 1_000_000), (200_000, 1_000_000), (200_000, 90_000)],
    ids=["tiny", "usual", "sliced"],
)
def test_a_million_row_groups_are_planned_in_seconds(high: int, chunk_rows: int) -> None:
    command = [sys.executable, "-c", MILLION, str(high), str(chunk_rows)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, megabytes, n_chunks, complete = json.loads(answer.stdout)
    assert complete
    assert n_chunks > 10
    assert seconds < 10
    assert megabytes < 500


def test_looking_at_chunks_keeps_nothing() -> None:
    plan = plan_of(np.full(20_000, 1000), chunk_rows=8000)
    plan.n_chunks(0)
    tracemalloc.start()
    for _ in plan.chunks(0):
        pass
    assert tracemalloc.get_traced_memory()[0] < 1 << 16
    tracemalloc.stop()


# --- law: a broken sampler does not pass


class Reverse(NamedTuple):
    """A sampler of one's own."""

    mixes_rows = True
    side_by_side = True

    def order(self, n_units: int, seeds: Any) -> Any:
        return np.arange(n_units)[::-1]


class Replacement(Reverse):
    def order(self, n_units: int, seeds: Any) -> Any:
        return np.random.Generator(np.random.PCG64(seeds)).integers(0, max(1, n_units), n_units)


class Short(Reverse):
    def order(self, n_units: int, seeds: Any) -> Any:
        return np.arange(n_units // 2 * 2)


class Moody(Reverse):
    def order(self, n_units: int, seeds: Any) -> Any:
        return np.random.default_rng().permutation(n_units)


class Silent(NamedTuple):
    def order(self, n_units: int, seeds: Any) -> Any:
        return np.arange(n_units)


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        (Replacement(), "is not a permutation"),
        (Short(), "is not a permutation of 0 .. 0"),
        (Moody(), "two orders of 7 units from the same seeds differ|two orders of 2 units"),
        (Silent(), "Silent lacks mixes_rows, side_by_side"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_a_broken_sampler_is_found_out(sampler: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_sampler(sampler)


def test_a_sampler_of_ones_own_conforms() -> None:
    check_sampler(Reverse())


class Overfull(NamedTuple):
    """A plan that says its chunks may hold less than they do."""

    plan: Plan
    chunk_rows: int

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plan, name)


def test_a_broken_plan_is_found_out() -> None:
    rows, file = np.full(20, 30), np.zeros(20, np.int64)
    plan = plan_of(rows, file)
    with pytest.raises(AssertionError, match="a chunk has 1 to 50"):
        check_plan(Overfull(plan, 50), rows, file, 0)  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="joins files"):
        check_plan(plan_of(np.full(20, 3), file), np.full(20, 3), np.arange(20), 0)
    with pytest.raises(AssertionError, match="30 rows never read"):
        check_plan(plan_of(rows[:-1], file[:-1]), rows, file, 0)
