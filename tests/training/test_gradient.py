"""Steps that lanes make together are steps of one large batch: the same update, the same noise."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import EXACT, as_columns

from streamsgd.errors import SettingsError
from streamsgd.planning.tree import joined
from streamsgd.settings.make import make_settings
from streamsgd.stream.chunk import LoadedChunk
from streamsgd.stream.stream import read_chunk
from streamsgd.training.job import Job
from streamsgd.training.learner import Learner
from streamsgd.training.prepare import prepare
from streamsgd.training.run import train_model
from streamsgd.training.tasks.gradient import Gradient, add_gradient, gradient_of, n_steps

N, D = 3000, 6
SYNC: dict[str, Any] = {**EXACT, "loss": "logistic", "combine": "sync", "epochs": 2, "learning_rate": 0.3}


@pytest.fixture
def path(write: Callable[..., Path]) -> Path:
    return write(columns(N), row_group_size=37)


def columns(n: int, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, D)) * np.geomspace(0.3, 3.0, D)
    y = rng.random(n) < 1.0 / (1.0 + np.exp(-x @ rng.normal(size=D)))
    return as_columns(x, y=y.astype(np.int64), w=rng.uniform(0.5, 2.0, n))


def job_of(path: Path, **settings: Any) -> Job:
    return prepare(path, make_settings({**SYNC, **settings}))


def filled(job: Job, epoch: int, number: int) -> LoadedChunk:
    """Read one chunk into a block of its own."""
    chunk = job.plan.chunk(epoch, number)
    return read_chunk(job.recipe, job.plan, chunk, job.recipe.allocate(chunk.rows), np.empty(chunk.rows, np.int32))


def rows_in_order(chunk: LoadedChunk) -> Iterator[tuple[np.ndarray, float, float]]:
    """Yield (features and 1, target, weight) of every row as it is to be learned."""
    heads = chunk.starts.copy()
    for tile in chunk.order:
        i = heads[tile]
        heads[tile] += 1
        yield np.append(chunk.block.rows.values[i, :D], 1.0), float(chunk.block.y[i]), float(chunk.block.weight[i])


# --- law: the update is that of the batch of all lanes' rows


@pytest.mark.parametrize("weight", [None, "w"])
@pytest.mark.parametrize("lanes", [2, 4, 8])
def test_a_step_is_that_of_one_batch_of_all_lanes_rows(lanes: int, weight: str | None, path: Path) -> None:
    """NumPy takes the rows of every lane's chunk; the last chunks are shorter, the last rounds narrower."""
    b, settings = (
        10,
        {"lanes": lanes, "batch_size": 10, "chunk_rows": 220, "weight": weight, "exclude": [] if weight else ["w"]},
    )
    job = job_of(path, **settings)
    model, _ = train_model(path, make_settings({**SYNC, **settings}))
    theta = np.zeros(D + 1)
    for epoch in range(2):
        n_chunks = job.plan.n_chunks(epoch)
        for first in range(0, n_chunks, lanes):
            chunks = [list(rows_in_order(filled(job, epoch, k))) for k in range(first, min(first + lanes, n_chunks))]
            for k in range(n_steps([len(rows) for rows in chunks], b)):
                batch = [row for rows in chunks for row in rows[k * b : (k + 1) * b]]
                x, y, w = (np.array(part) for part in zip(*batch, strict=True))
                slope = w * (1.0 / (1.0 + np.exp(-x @ theta)) - y)
                theta -= 0.3 * len(batch) / (b * lanes) * (x.T @ slope) / len(batch)
    np.testing.assert_allclose(model.weights.ravel(), theta, rtol=1e-12, atol=1e-14)


def test_a_full_batch_is_the_same_for_any_number_of_lanes(path: Path) -> None:
    settings = {**SYNC, "batch_size": "full", "chunk_rows": 220, "epochs": 5, "exclude": ["w"]}
    one, *others = (train_model(path, make_settings({**settings, "lanes": lanes}))[0] for lanes in (1, 2, 5, 16))
    for other in others:
        np.testing.assert_allclose(other.weights, one.weights, rtol=1e-12)
        assert other.metrics["progressive_loss"] == pytest.approx(one.metrics["progressive_loss"], rel=1e-12)


def test_lanes_count_by_their_rows(path: Path) -> None:
    """However the rows of a batch are shared out, the gradient is the same."""
    job = job_of(path, lanes=2, batch_size=10, chunk_rows=220, exclude=["w"])
    learner, chunk = Learner(job), filled(job, 0, 0)
    learner.state.weights[:] = np.linspace(-0.5, 0.5, D + 1)
    n = len(chunk.order)
    whole = gradient_of(learner, chunk, 0, n)
    for cuts in ([0, n // 2, n], [0, 1, n], [0, 3, 90, 91, n], [0, 0, n, n]):
        parts = [gradient_of(learner, chunk, a, b) for a, b in pairwise(cuts)]
        total = joined(parts, Gradient.merge)
        assert total.rows == whole.rows == n
        np.testing.assert_allclose(total.values, whole.values, rtol=1e-12)
        np.testing.assert_allclose(total.tally, whole.tally, rtol=1e-12)


def test_wide_rows_touch_what_their_gradient_is_not_zero_for(write: Callable[..., Path]) -> None:
    """Sparse sums are the dense ones, and a full batch on hashed rows moves as one lane moves."""
    rng = np.random.default_rng(0)
    site = np.array([f"s{k}" for k in rng.zipf(1.3, 2000) % 500])
    data = write({"site": site, "x": rng.normal(size=2000), "y": rng.integers(0, 2, 2000)}, row_group_size=50)
    settings = {**SYNC, "batch_size": "full", "chunk_rows": 200, "bits": 10, "optimizer": "adagrad", "categorical": ["site"]}
    one, many = (train_model(data, make_settings({**settings, "lanes": lanes}))[0] for lanes in (1, 4))
    np.testing.assert_allclose(many.weights, one.weights, rtol=1e-10, atol=1e-14)
    job = prepare(data, make_settings({**settings, "lanes": 4}))
    learner, chunks = Learner(job), [filled(job, 0, k) for k in range(2)]
    parts = [gradient_of(learner, chunk, 0, 150) for chunk in chunks]
    assert all(part.index is not None and len(part.index) < job.n_weights for part in parts)
    total = joined(parts, Gradient.merge)
    dense = sum(spread(part, job.n_weights) for part in parts)
    np.testing.assert_array_equal(spread(total, job.n_weights), dense)
    add_gradient(learner, parts[0])
    add_gradient(learner, parts[1])
    np.testing.assert_array_equal(learner.state.grad, dense)


def spread(gradient: Gradient, n: int) -> np.ndarray:
    values = np.zeros(n)
    values[slice(None) if gradient.index is None else gradient.index] = gradient.values
    return values


# --- law: the noise is that of one batch


@pytest.mark.parametrize("lanes", [2, 4, 8])
def test_the_variance_of_the_mean_is_that_of_one_large_batch(lanes: int, write: Callable[..., Path]) -> None:
    """Trace of the covariance over all steps of an epoch, at fixed weights; the standard error of the ratio is 0.6 %."""
    n, b, width = 160_000, 4, 20
    rng = np.random.default_rng(0)
    data = write(as_columns(rng.normal(size=(n, width)), y=rng.integers(0, 2, n)), row_group_size=200)
    shape = {"memory": "2GB"}
    theta = np.linspace(-0.2, 0.3, width + 1)
    many = job_of(data, lanes=lanes, batch_size=b, chunk_rows=n // lanes, **shape)
    one = job_of(data, lanes=1, batch_size=b * lanes, chunk_rows=n, **shape)
    assert trace(many, lanes, b, theta) / trace(one, 1, b * lanes, theta) == pytest.approx(1.0, abs=0.02)


def trace(job: Job, lanes: int, b: int, theta: np.ndarray) -> float:
    """Return the trace of the covariance of the mean gradient of a step."""
    learner = Learner(job)
    learner.state.weights[:] = theta
    chunks = [filled(job, 0, k) for k in range(lanes)]
    steps = min(len(chunk.order) for chunk in chunks) // b
    means = []
    for k in range(steps):
        total = joined([gradient_of(learner, chunk, k * b, (k + 1) * b) for chunk in chunks], Gradient.merge)
        means.append(total.values / total.rows)
    return float(np.var(means, axis=0, ddof=1).sum())


# --- law: what cannot be is refused


def test_what_lanes_cannot_do_together_is_refused(path: Path, write: Callable[..., Path]) -> None:
    with pytest.raises(SettingsError, match="normalized learns row by row"):
        job_of(path, lanes=2, optimizer="normalized", batch_size="auto")
    with pytest.raises(SettingsError, match="--combine sync"):
        job_of(path, lanes=2, combine="average", batch_size="full")
    text = write({"s": np.array(["a", "b", "c"] * 100), "y": np.arange(300) % 2})
    with pytest.raises(SettingsError, match="meet a few of many"):
        job_of(text, lanes=2, penalty="l2:l2=0.1", categorical=["s"], bits=10)


def test_auto_is_sync_for_large_batches_and_says_why(path: Path) -> None:
    assert job_of(path, lanes=4, combine="auto", batch_size=64).lanes.combine == "average"
    large = job_of(path, lanes=4, combine="auto", batch_size=4096).lanes
    assert large.combine == "sync"
    assert "4096" in large.why
