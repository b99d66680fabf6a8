"""Laws of stratified batches: fixed shares, gradients that stay what they are, and the variance that the formula says."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.optimize
from conftest import finish_chunk_by_chunk
from scipy.special import expit

import streamsgd
from streamsgd.errors import DataError, SettingsError
from streamsgd.features.layout import Layout
from streamsgd.settings.make import make_settings
from streamsgd.stream.strata import sizes_of, stratify
from streamsgd.training.classes.neyman import neyman_share
from streamsgd.training.prepare import prepare

N = 40_000
QUICK: dict[str, Any] = {"executor": "inline", "memory": "2GB", "epochs": 1, "chunk_rows": 10_000}


def draw(n: int, intercept: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([seed, 3])
    x = rng.normal(size=(n, 3))
    return x, (rng.random(n) < expit(intercept + x @ [1.0, -0.7, 0.4])).astype(float)


def batches(share: float, batch: int, n: int = N) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the gradient of every row at some weights, (n, 4), classes, weights, and rows by batch."""
    x, y = draw(n, -2.5, 1)
    block = Layout(3).allocate(n, "float64")
    block.rows.values[:, :3], block.y[:] = x, y
    starts, counts = np.arange(0, n, 100), np.full(n // 100, 100)
    design = np.column_stack([x, np.ones(n)])
    gradient = design * (expit(design @ [0.5, 0.0, 0.3, -2.0]) - y)[:, None]
    order = stratify(block, starts, counts, np.uint64(5), share=share, batch=batch)
    return gradient, y, np.array(block.weight), order.reshape(-1, batch)


@pytest.mark.parametrize(("share", "batch"), [(0.5, 16), (0.2, 40)])
def test_the_variance_is_that_of_the_formula(share: float, batch: int) -> None:
    """Within 3 %, of the trace, over batches of many chunks; and the mean gradient is that of all rows."""
    gradient, y, weight, order = batches(share, batch, n=400_000)
    found = (gradient * weight[:, None])[order].mean(axis=1)
    pi = np.array([(y == c).mean() for c in (0, 1)])
    spread = np.array([gradient[y == c].var(axis=0).sum() for c in (0, 1)])
    wanted = float((pi**2 * spread / np.array(sizes_of(share, batch))).sum())
    assert found.var(axis=0).sum() == pytest.approx(wanted, rel=0.03)
    errors = np.sqrt(found.var(axis=0) / len(found))
    assert (np.abs(found.mean(axis=0) - gradient.mean(axis=0)) < 4 * errors).all()
    # Of batches of as many rows drawn from all, the variance is larger.
    assert wanted < gradient.var(axis=0).sum() / batch


def test_shares_of_neyman_have_the_least_variance() -> None:
    """Within 3 % of (sum of pi_c S_c)^2 / b, at the minimum by SciPy; any other share has more."""
    n, batch = 400_000, 64
    x, y = draw(n, -2.5, 1)
    table = pa.table({**{f"x{j}": x[:, j] for j in range(3)}, "y": y.astype(np.int8)})
    settings = {"target": "y", **QUICK, "chunk_rows": n, "scale": ["none"], "precision": "float64", "memory": "4GB"}
    job = prepare(table, make_settings({**settings, "optimizer": "adam", "shuffle": "stratified:share=neyman"}))
    share = job.plan.sampler.share
    design = np.column_stack([x, np.ones(n)])

    def objective(weights: np.ndarray) -> tuple[float, np.ndarray]:
        score = design @ weights
        return float((np.logaddexp(0.0, score) - y * score).mean()), design.T @ (expit(score) - y) / n

    weights = scipy.optimize.minimize(objective, np.zeros(4), jac=True, method="BFGS", options={"gtol": 1e-7}).x
    gradient = design * (expit(design @ weights) - y)[:, None]
    pi = np.array([(y == c).mean() for c in (0, 1)])
    scatter = np.sqrt([gradient[y == c].var(axis=0).sum() for c in (0, 1)])
    assert share == pytest.approx(pi[1] * scatter[1] / (pi * scatter).sum(), rel=0.01)

    def variance(share: float) -> float:
        block = Layout(3).allocate(n, "float64")
        block.y[:] = y
        order = stratify(block, np.array([0]), np.array([n]), np.uint64(5), share=share, batch=batch).reshape(-1, batch)
        return float((gradient * np.array(block.weight)[:, None])[order].mean(axis=1).var(axis=0).sum())

    found = variance(share)
    assert found == pytest.approx((pi * scatter).sum() ** 2 / batch, rel=0.03)
    assert found < min(variance(0.7 * share), variance(min(0.95, 1.4 * share)))


def test_every_batch_has_its_share_and_every_row_its_turn() -> None:
    _, y, weight, order = batches(0.25, 64)
    assert (y[order].sum(axis=1) == 16).all()
    assert len(order) == round(N / 64)
    np.testing.assert_allclose(weight[order].mean(axis=1), 1.0)
    times = np.bincount(order.ravel(), minlength=N)
    for c in (0, 1):
        assert np.ptp(times[y == c]) <= 1


def test_chunks_of_one_class_are_learned_as_they_are() -> None:
    block = Layout(1).allocate(100, "float32")
    order = stratify(block, np.array([0, 60]), np.array([50, 40]), np.uint64(1), share=0.5, batch=8)
    assert sorted(order.tolist()) == [*range(50), *range(60, 100)]
    assert (np.array(block.weight) == 1.0).all()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    x, y = draw(N, -4.0, 0)
    path = tmp_path_factory.mktemp("strata") / "data.parquet"
    pq.write_table(pa.table({**{f"x{j}": x[:, j] for j in range(3)}, "y": y.astype(np.int8)}), path, row_group_size=2000)
    return str(path)


def test_probabilities_are_those_of_the_data(data: str) -> None:
    """Although half of every batch is positive, of 3 % of the rows."""
    x, y = draw(N, -4.0, 0)
    table = pa.table({**{f"x{j}": x[:, j] for j in range(3)}, "y": y.astype(np.int8)})
    settings = {**QUICK, "epochs": 3, "validation": "none", "optimizer": "adam"}
    plain = streamsgd.train(data, "y", **settings).evaluate(table)
    model = streamsgd.train(data, "y", **settings, shuffle="stratified:share=0.5")
    found = model.evaluate(table)
    assert found["log_loss"] < 1.01 * plain["log_loss"]
    assert found["mean_prediction"] == pytest.approx(y.mean(), rel=0.1)
    assert model.provenance["shuffle"] == "stratified:share=0.5,batch=64"


@pytest.mark.parametrize("share", ["0.3", "neyman"])
def test_kills_and_places_leave_no_trace(data: str, tmp_path: Path, share: str) -> None:
    settings = {**QUICK, "epochs": 2, "shuffle": f"stratified:share={share}", "validation": 0.1, "optimizer": "adam"}

    def run(**settings: Any) -> streamsgd.Model:
        return streamsgd.train(data, "y", **settings)

    alone = run(**settings)
    places = itertools.cycle([{}, {"executor": "threads", "threads": 2}])
    model, stops = finish_chunk_by_chunk(run, tmp_path / "saved", places, **settings)
    assert stops >= 6
    assert model.to_bytes() == alone.to_bytes()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"shuffle": "stratified:share=1"}, "between 0 and 1"),
        ({"shuffle": "stratified:share=nan"}, "is not a number"),
        ({"shuffle": "stratified:share=neyman", "model": "fm"}, "share=0.5"),
        ({"shuffle": "stratified:part=1"}, "no field 'part'"),
        ({"target": "x0", "task": "regression"}, "two classes, which 'x0' has not"),
        ({"optimizer": "race"}, "take adam"),
        ({"optimizer": "svrg"}, "such as adam"),
        ({"batch_size": "full"}, "pass a number"),
        ({"batch_size": 1}, "--batch-size 2 or more"),
        ({"shuffle": "stratified:batch=32"}, "leave batch out"),
        ({"noise": True}, "leave it out"),
        ({"combine": "sync", "lanes": 2}, "--combine average"),
    ],
)
def test_what_has_no_strata_is_refused_by_name(data: str, settings: dict[str, Any], said: str) -> None:
    given = {"target": "y", "executor": "inline", "shuffle": "stratified", **settings}
    with pytest.raises(SettingsError, match=said):
        streamsgd.plan(data, **given)


@pytest.mark.parametrize(("rows", "scatter"), [([9.0, 1.0], [1.0, 1.0]), ([9.0, 9.0], [1.0, 0.0]), ([9.0, 9.0], [1.0, np.nan])])
def test_chunks_that_do_not_tell_shares_are_refused(rows: list[float], scatter: list[float]) -> None:
    with pytest.raises(DataError, match="share=0"):
        neyman_share(np.array(rows), np.array(scatter))


def test_tables_that_come_one_by_one_have_no_strata() -> None:
    with pytest.raises(SettingsError, match="table by table"):
        streamsgd.Trainer("y", shuffle="stratified")
