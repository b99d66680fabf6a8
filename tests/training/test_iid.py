"""`--shuffle iid`: draws with replacement, whose noise is tr S / b and whose mean loss is that of the exact recursion."""

from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import finish_chunk_by_chunk
from scipy import stats
from test_noise import gradients, model_of
from test_polish import table_of

import streamsgd
from streamsgd.errors import SettingsError
from streamsgd.settings.make import make_settings
from streamsgd.stream.stream import read_chunk
from streamsgd.training.job import Job
from streamsgd.training.prepare import prepare

EXACT: dict[str, Any] = {"memory": "2GB", "executor": "inline", "precision": "float64", "scale": ["none"], "transform": "none"}


def draws_of(job: Job, epoch: int) -> np.ndarray:
    """Rows of the block in the order in which they are learned."""
    n = job.plan.n_rows
    block, room = job.recipe.allocate(n), np.empty(n, np.int32)
    filled = read_chunk(job.recipe, job.plan, job.plan.chunk(epoch, 0), block, room)
    order, heads = filled.turn(0, len(filled.order), filled.heads())
    return heads[order]


def job_of(table: Any, **settings: Any) -> Job:
    return prepare(table, make_settings({"target": "y", "shuffle": "iid", "memory": "2GB", "executor": "inline", **settings}))


# --- law: all rows, every time, with replacement, by address


def test_every_draw_is_of_all_rows_to_learn() -> None:
    """A chi-square of counts, of pairs of neighbours, and between epochs; held-out rows never come."""
    n = 60
    table = pa.table({"x": np.arange(n), "y": np.linspace(0.0, 1.0, n)})
    job = job_of(table)
    draws = np.array([draws_of(job, epoch) for epoch in range(2000)])
    assert draws.shape == (2000, n)
    assert np.array_equal(draws[7], draws_of(job_of(table), 7))
    counts = np.bincount(draws.ravel(), minlength=n)
    assert stats.chisquare(counts).pvalue > 1e-3
    for first, second in ((draws[:, :-1], draws[:, 1:]), (draws[:-1], draws[1:])):
        pairs = np.bincount((first // 10 * 6 + second // 10).ravel(), minlength=36)
        assert stats.chisquare(pairs).pvalue > 1e-3
    held = job_of(table, validation=0.3)
    block, room = held.recipe.allocate(n), np.empty(n, np.int32)
    filled = read_chunk(held.recipe, held.plan, held.plan.chunk(0, 0), block, room)
    rows = {row for s, c in zip(filled.starts, filled.counts, strict=True) for row in range(s, s + c)}
    drawn = np.concatenate([draws_of(held, epoch) for epoch in range(40)])
    assert set(drawn.tolist()) == rows
    assert 20 < len(rows) < 60


def test_it_is_the_same_bytes_on_threads_resumed_and_in_step(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    pq.write_table(table_of("logistic"), path, row_group_size=100)
    settings: dict[str, Any] = {"exclude": ["h"], "shuffle": "iid", "memory": "1GB", "optimizer": "adam", "epochs": 3}
    alone = streamsgd.train(path, "y", executor="inline", **settings).to_bytes()
    assert streamsgd.train(path, "y", executor="threads", threads=2, **settings).to_bytes() == alone
    assert streamsgd.train(path, "y", executor="inline", **{**settings, "shuffle": "corgi"}).to_bytes() != alone
    run, places = partial(streamsgd.train, path, "y", **settings), cycle([{"executor": "inline"}, {"threads": 2}])
    resumed, stops = finish_chunk_by_chunk(run, tmp_path / "saved", places)
    assert stops == 2
    assert resumed.to_bytes() == alone
    full = {**settings, "batch_size": "full", "precision": "float64"}
    one, two = (streamsgd.train(path, "y", lanes=lanes, combine="sync", **full) for lanes in (1, 2))
    np.testing.assert_allclose(one.weights, two.weights, rtol=1e-9)


def test_data_of_several_chunks_is_refused() -> None:
    with pytest.raises(SettingsError, match="--shuffle iid draws every row from all 3,000, and a chunk here holds 500: pass"):
        job_of(table_of("logistic"), chunk_rows=500, exclude=["h"])


# --- law: noise is tr S / b, and without replacement less


def variances(g: np.ndarray, orders: list[np.ndarray], b: int) -> float:
    means = [g[rows[: len(rows) // b * b]].reshape(-1, b, g.shape[1]).mean(axis=1) for rows in orders]
    return float(np.square(np.concatenate(means) - g.mean(axis=0)).sum(axis=1).mean())


def test_the_variance_of_batches_falls_as_one_over_b() -> None:
    """A slope of -1.00 within 0.01 over b = 1 to 512, and its level is the trace that `noise` tells; design effect 1."""
    table, model = table_of("logistic"), model_of("logistic")
    g = gradients(model, table)
    job = job_of(table, exclude=["h"])
    orders = [draws_of(job, epoch) for epoch in range(400)]
    sizes = 2 ** np.arange(10)
    found = np.array([variances(g, orders, int(b)) for b in sizes])
    assert abs(stats.linregress(np.log(sizes), np.log(found)).slope + 1.0) < 0.01
    told = streamsgd.noise(table, at=model, shuffle="iid", memory="2GB", executor="inline")
    np.testing.assert_allclose(found * sizes, told["trace_covariance"], rtol=0.08)
    assert told["design_effect"] == 1.0


@pytest.mark.parametrize("share", [0.01, 0.5, 0.9])
def test_without_replacement_it_is_less_by_the_finite_population(share: float) -> None:
    """One chunk of all rows, of whose permutation a batch is the beginning: within 2 % of what `noise` says."""
    table, model, n = table_of("logistic"), model_of("logistic"), 3000
    g, b = gradients(model, table), int(share * n)
    told = streamsgd.noise(table, at=model, batch_size=b, optimizer="sgd", memory="2GB", executor="inline")
    truth = g.var(axis=0, ddof=1).sum() * (1 / b - 1 / n)
    np.testing.assert_allclose(told["design_effect"] * told["trace_covariance"] / b, truth, rtol=1e-3)
    rng = np.random.default_rng(1)
    found = np.mean([np.square(g[rng.permutation(n)[:b]].mean(axis=0) - g.mean(axis=0)).sum() for _ in range(8000)])
    np.testing.assert_allclose(found, truth, rtol=0.03)


# --- law: least squares follow the exact recursion


def recursion(x: np.ndarray, y: np.ndarray, eta: float, b: int, steps: int) -> float:
    """The mean loss after steps of independent batches from zero: moments of the distance from the minimum, exactly."""
    best = np.linalg.lstsq(x, y, rcond=None)[0]
    rest, h = y - x @ best, x.T @ x / len(x)
    m, s = -best, np.outer(best, best)
    c = (x * np.square(rest)[:, None]).T @ x / len(x)
    for _ in range(steps):
        of_distance = np.einsum("ni,ij,nj->n", x, s, x)
        scatter = (x * (of_distance - 2.0 * rest * (x @ m))[:, None]).T @ x / len(x) + c
        s = s - eta * (h @ s + s @ h) + eta**2 * (h @ s @ h + (scatter - h @ s @ h) / b)
        m = m - eta * h @ m
    return float(0.5 * np.square(rest).mean() + 0.5 * np.trace(h @ s))


@pytest.mark.parametrize("b", [1, 8, 64])
def test_after_an_epoch_the_mean_loss_is_that_of_the_recursion(b: int) -> None:
    """Over 60 seeds, within 3 standard errors."""
    rng = np.random.default_rng(9)
    x = rng.normal(size=(256, 2)) @ [[1.0, 0.3], [0.0, 0.5]]
    y = x @ [1.0, -2.0] + rng.normal(size=256)
    table, design = pa.table({"a": x[:, 0], "b": x[:, 1], "y": y}), np.column_stack([x, np.ones(256)])
    eta = 0.05
    settings: dict[str, Any] = {**EXACT, "optimizer": "sgd", "schedule": "constant", "learning_rate": eta, "batch_size": b}
    losses = []
    for seed in range(60):
        model = streamsgd.train(table, "y", shuffle="iid", epochs=1, seed=seed, **settings)
        losses.append(0.5 * np.square(y - design @ model.weights[:, 0]).mean())
    error = np.std(losses, ddof=1) / np.sqrt(len(losses))
    assert abs(np.mean(losses) - recursion(design, y, eta, b, 256 // b)) < 3 * error
