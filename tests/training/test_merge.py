"""What lanes learned apart becomes one model: by rows, or by what each weight met."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import EXACT, as_columns

from streamsgd.kernels.structs.state import SEEN, SPREAD, STEPS, State, cells_of, copy_state
from streamsgd.planning import lanes
from streamsgd.planning.lanes import Lanes, width
from streamsgd.planning.tree import FAN, Adder, joined, levels
from streamsgd.settings.make import make_settings
from streamsgd.settings.registry import PARTS, make
from streamsgd.stream.chunk import LoadedChunk
from streamsgd.stream.stream import read_chunk
from streamsgd.training.defaults import choose_lanes
from streamsgd.training.job import Job
from streamsgd.training.learner import Learner
from streamsgd.training.prepare import prepare
from streamsgd.training.run import train_model
from streamsgd.training.tasks.learn import learn_apart, learn_chunk
from streamsgd.training.tasks.merge import Delta, delta_of, kinds, move_by

N = 4000
BASE: dict[str, Any] = {**EXACT, "loss": "logistic", "chunk_rows": 500, "lanes": 4, "batch_size": "auto", "schedule": "auto"}
ONES = [name for name in PARTS["optimizer"] if name not in ("race", "svrg", "trust-region", "armijo")]
"""Those that several lanes can have."""


@pytest.fixture
def dense(write: Callable[..., Path]) -> Path:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 4)) * [0.1, 1.0, 3.0, 10.0]
    return write(as_columns(x, y=(x.sum(axis=1) + rng.normal(size=N) > 0).astype(np.int64)), row_group_size=100)


@pytest.fixture
def wide(write: Callable[..., Path]) -> Path:
    """Rows of which every hundred share one site that no others have, and all a channel."""
    rng = np.random.default_rng(0)
    site = np.repeat([f"s{k}" for k in range(N // 100)], 100)
    return write({"site": site, "channel": rng.choice(["a", "b"], N), "y": rng.integers(0, 2, N)}, row_group_size=100)


def chunks_of(job: Job, n: int) -> list[LoadedChunk]:
    found = []
    for number in range(n):
        chunk = job.plan.chunk(0, number)
        found.append(read_chunk(job.recipe, job.plan, chunk, job.recipe.allocate(chunk.rows), np.empty(chunk.rows, np.int32)))
    return found


def apart(path: Path, n: int = 3, **settings: Any) -> tuple[Learner, list[State], list[Delta], list[LoadedChunk]]:
    """Let one lane lead with chunk 0, then n lanes learn the next ones apart from it."""
    job = prepare(path, make_settings({**BASE, **settings}))
    first, *others = chunks_of(job, n + 1)
    learner = Learner(job)
    learn_chunk(learner, first)
    learner.clear_tally()
    before, after, gains = learner.state, [], []
    for filled in others:
        lane = Learner(job, copy_state(before))
        learn_chunk(lane, filled)
        after.append(lane.state)
        gains.append(learn_apart(job, before, filled)[0])
    return learner, after, gains, others


# --- law: merged as documented


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_optimizers_without_sums_are_averaged_by_rows(optimizer: str, dense: Path) -> None:
    learner, after, gains, chunks = apart(dense, optimizer=optimizer)
    rows = np.array([len(chunk.order) for chunk in chunks], float)
    weights = np.average([state.weights for state in after], axis=0, weights=rows)
    slots = np.average([state.slots for state in after], axis=0, weights=rows)
    move_by(learner.job.parts.optimizer, learner.state, joined(gains, Delta.merge))
    np.testing.assert_allclose(learner.state.weights, weights, rtol=1e-12)
    np.testing.assert_allclose(learner.state.slots, slots, rtol=1e-12, atol=1e-300)
    assert learner.state.clock[STEPS] == max(state.clock[STEPS] for state in after)


@pytest.mark.parametrize("path", ["dense", "wide"])
def test_adaptive_ones_are_weighed_by_their_sums_of_squares(path: str, request: pytest.FixtureRequest) -> None:
    settings = {"optimizer": "normalized", **({"categorical": ["site", "channel"], "bits": 10} if path == "wide" else {})}
    learner, after, gains, _ = apart(request.getfixturevalue(path), **settings)
    before = copy_state(learner.state)
    grown = np.array([state.slots[0] - before.slots[0] for state in after])
    moved = np.array([state.weights - before.weights for state in after])
    total = grown.sum(axis=0)
    some = total > 1e-6  # where no lane came by, nothing moves
    expected = before.weights + np.where(some, (grown * moved).sum(axis=0) / np.where(some, total, 1.0), 0.0)
    move_by(learner.job.parts.optimizer, learner.state, joined(gains, Delta.merge))
    np.testing.assert_allclose(learner.state.weights, expected, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(learner.state.slots[1], np.max([state.slots[1] for state in after], axis=0))
    for place in (SPREAD, SEEN):
        growth = sum(state.sums[place] - before.sums[place] for state in after)
        assert learner.state.sums[place] == pytest.approx(before.sums[place] + growth, rel=1e-12)


def test_a_weight_that_one_lane_met_moves_as_that_lane_moved_it(wide: Path) -> None:
    """Sites do not recur, so of those weights lanes never disagree."""
    learner, after, gains, _ = apart(wide, optimizer="normalized", categorical=["site", "channel"], bits=12)
    before = copy_state(learner.state)
    met = np.array([state.slots[0] != before.slots[0] for state in after])
    alone = met.sum(axis=0) == 1
    assert alone.sum() >= 10
    move_by(learner.job.parts.optimizer, learner.state, joined(gains, Delta.merge))
    for state, mine in zip(after, met, strict=True):
        np.testing.assert_allclose(learner.state.weights[alone & mine], state.weights[alone & mine], rtol=1e-14)
        np.testing.assert_allclose(learner.state.slots[0][alone & mine], state.slots[0][alone & mine], rtol=1e-14)
    np.testing.assert_array_equal(learner.state.weights[~met.any(axis=0)], before.weights[~met.any(axis=0)])


@pytest.mark.parametrize("optimizer", ONES)
def test_lanes_that_do_the_same_are_merged_into_what_each_did(optimizer: str, dense: Path) -> None:
    """For every optimizer there is, each memory included."""
    learner, after, gains, _ = apart(dense, n=1, optimizer=optimizer)
    move_by(learner.job.parts.optimizer, learner.state, joined(gains * 5, Delta.merge))
    np.testing.assert_allclose(learner.state.weights, after[0].weights, rtol=1e-9, atol=1e-12)
    n = int(learner.job.parts.optimizer.n_slots)
    np.testing.assert_allclose(learner.state.slots[:n], after[0].slots[:n], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ONES)
def test_every_memory_has_a_way_to_be_merged(name: str) -> None:
    optimizer = make("optimizer", name)
    assert len(kinds(optimizer)) == optimizer.n_slots
    assert set(kinds(optimizer)) <= {"mean", "max"}
    assert 0 <= getattr(optimizer, "weighs_by", 0) < max(1, optimizer.n_slots)


# --- law: the order is that of the lanes


def test_sparse_gains_are_the_dense_ones() -> None:
    """Whatever few weights each lane changed."""
    rng, n = np.random.default_rng(0), 50
    parts = [np.sort(rng.choice(n, 12, replace=False)) for _ in range(20)]
    sparse = [gain(index, rng.normal(size=(2, 12)), rng.random(12)) for index in parts]
    dense = [gain(None, spread(index, g.moves, n), spread(index, g.shares, n)) for index, g in zip(parts, sparse, strict=True)]
    one, other = joined(sparse, Delta.merge), joined(dense, Delta.merge)
    assert one.index is not None
    np.testing.assert_array_equal(spread(one.index, one.moves, n), other.moves)
    np.testing.assert_array_equal(spread(one.index, one.shares, n), other.shares)
    assert one.rows == other.rows == 20


def gain(index: np.ndarray | None, moves: np.ndarray, shares: np.ndarray) -> Delta:
    return Delta(1, np.zeros(3), index, shares, moves, np.zeros((0, moves.shape[1])), np.zeros(4), np.zeros(2))


def spread(index: np.ndarray, values: np.ndarray, n: int) -> np.ndarray:
    room = np.zeros((*values.shape[:-1], n))
    room[..., index] = values
    return room


@pytest.mark.parametrize("n", [1, 2, FAN, FAN + 1, FAN * FAN + 3])
def test_all_are_joined_in_their_order(n: int) -> None:
    assert joined([[k] for k in range(n)], lambda a, b: a + b) == list(range(n))


def test_nothing_that_changed_is_overlooked(wide: Path) -> None:
    job = prepare(wide, make_settings({**BASE, "optimizer": "adagrad", "categorical": ["site"], "bits": 10}))
    before = Learner(job).state
    assert cells_of(before).shape[1]
    after = copy_state(before)
    after.weights[7], after.slots[0, 9], after.slots[0, 11] = 1.0, -0.0, 1e-300
    index = delta_of(job.parts.optimizer, before, after, 1, np.zeros(3)).index
    assert index is not None
    assert index.tolist() == [7, 9, 11]


# --- law: rounds


def test_every_chunk_is_in_one_round_and_rounds_grow() -> None:
    for v in (1, 2, 3, 8, 64):
        for n_chunks in (1, 2, 7, 100):
            for epoch in (0, 1):
                at, widths = 0, []
                while at < n_chunks:
                    widths.append(width(Lanes(v, "average", ""), epoch, at, n_chunks, alone=False))
                    at += widths[-1]
                assert at == n_chunks
                assert max(widths) <= v
                assert widths[0] == 1 or epoch


def test_threads_and_the_calling_thread_give_the_same_bytes(dense: Path) -> None:
    for settings in ({}, {"optimizer": "adam", "validation": 0.1, "epochs": 2}, {"optimizer": "sgd", "penalty": "l1:l1=0.01"}):
        found = {
            train_model(dense, make_settings({**BASE, "optimizer": "auto", **settings, **run}))[0].to_bytes()
            for run in ({"executor": "inline"}, {"executor": "dask", "threads": 1}, {"executor": "dask", "threads": 3})
        }
        assert len(found) == 1


def test_small_data_has_one_lane_and_large_data_many() -> None:
    settings = make_settings({"target": "y"})
    assert choose_lanes(settings, 10**9).number == 1
    assert choose_lanes(settings, 40 * 10**9).number == 8
    assert choose_lanes(settings, 10**14).number == lanes.MOST_LANES


@pytest.mark.parametrize("n", [1, 2, FAN - 1, FAN, FAN + 1, 3 * FAN, FAN * FAN, FAN * FAN + 3, FAN**3 + FAN + 1])
def test_what_comes_one_after_another_is_added_up_in_the_same_shape(n: int) -> None:
    """Brackets and all, so that sums that are rounded are the same bits."""

    def bracket(a: str, b: str) -> str:
        return f"({a}{b})"

    adder: Adder[str] = Adder(bracket)
    for _ in range(2):
        held = []
        for k in range(n):
            adder.add(f"{k},")
            held.append(len([one for one in adder._sums if one is not None]))
        assert max(held) <= levels(n)
        assert max(held) == levels(n) or n not in (1, FAN, FAN * FAN), "none is counted that is never held"
        assert adder.total() == joined([f"{k}," for k in range(n)], bracket)
