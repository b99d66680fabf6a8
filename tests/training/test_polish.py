"""Polishing: the minimum that others find, to all digits, in few passes, the same bytes whatever interrupts it."""

import importlib.util
import os
import re
import signal
import sys
from collections.abc import Callable
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import finish_chunk_by_chunk, status_of_child
from sklearn.linear_model import LogisticRegression, PoissonRegressor

import streamsgd
from streamsgd.errors import DivergedError, SettingsError
from streamsgd.features.target import encode_target
from streamsgd.kernels.structs.rows import OWN
from streamsgd.kernels.sums.objective import add_chunk
from streamsgd.model.model import Model
from streamsgd.settings.make import make_settings
from streamsgd.show.model import model_summary, model_text
from streamsgd.training.events import Report
from streamsgd.training.phases.lbfgs import LBFGS, Hessian
from streamsgd.training.run import train_model

N = 3000
L2 = 1e-3
RNG = np.random.default_rng(8)
X = RNG.normal(size=(N, 6)) @ RNG.normal(size=(6, 6)) + RNG.normal(size=6)
LOGIT = X @ [0.5, -0.4, 0.3, 0.0, 0.2, -0.1] - 0.3
COLOURS = np.array(["red", "green", "blue", "grey", "white"])[RNG.integers(0, 5, N)]
TAGS = [[f"t{k}" for k in np.flatnonzero(RNG.random(30) < 0.1)] for _ in range(N)]
WEIGHTS = RNG.integers(0, 4, N) / 2.0
COLUMNS = {f"x{j}": X[:, j] for j in range(6)}
CLASSES = (np.c_[LOGIT, X[:, 0] / 2, np.zeros(N)] + RNG.gumbel(size=(N, 3))).argmax(axis=1)
TARGETS: dict[str, Any] = {
    "logistic": LOGIT + RNG.logistic(size=N) > 0.0,
    "squared": 100.0 + 20.0 * (LOGIT + RNG.normal(size=N)),
    "huber:delta=10": 100.0 + 20.0 * (LOGIT + RNG.standard_t(2, size=N)),
    "poisson": RNG.poisson(np.exp(0.4 * LOGIT)),
    "softmax": np.array(["a", "b", "c"])[CLASSES],
    "squared-hinge": LOGIT + RNG.logistic(size=N) > 0.0,
}
BASE: dict[str, Any] = {
    "precision": "float64",
    "executor": "inline",
    "memory": "2GB",
    "epochs": 1,
    "polish": 100,
    "penalty": f"l2:l2={L2}",
    "transform": "none",
    "bits": 8,
    "optimizer": "adam",
}
"""Polishing ends at the minimum from wherever it begins: Adam's loop is the only one that is compiled to come there."""


def table_of(loss: str, *, wide: bool = False) -> pa.Table:
    further = {"colour": COLOURS, "tags": TAGS} if wide else {}
    return pa.table({**COLUMNS, **further, "y": TARGETS[loss], "h": WEIGHTS})


def train(table: pa.Table, loss: str, **settings: Any) -> Model:
    return streamsgd.train(table, "y", **{**BASE, "loss": loss, "exclude": ["h"], **settings})


def design(model: Model, table: pa.Table) -> np.ndarray:
    """The rows as the model meets them, one column per weight, (n_rows, n_coordinates)."""
    block, pools = model.encode(table)
    rows, width = block.rows, model.encoding.width
    x = np.zeros((table.num_rows, model.encoding.n_coordinates))
    x[:, :width], x[:, -1] = rows.values[:, :width], 1.0
    if hasattr(rows, "ids"):
        for f, by in enumerate(rows.by):
            x[np.arange(len(x)), rows.ids[:, width + OWN + f]] += 1.0 if by < 0 else rows.values[:, by]
        for i, k in np.ndindex(rows.tails.shape[:2]):
            at, n = rows.tails[i, k]
            pool = next(p for p in pools if p.ctypes.data <= at < p.ctypes.data + p.nbytes)
            cells = pool.view(np.uint8).ravel()[at - pool.ctypes.data :][: 8 * n].view([("j", np.int32), ("x", np.float32)])
            np.add.at(x[i], cells["j"], cells["x"])
    return x


def learned(model: Model, table: pa.Table) -> np.ndarray:
    y, usable = encode_target(model.target, table["y"])
    assert usable.all()
    return y


def slopes_of(model: Model, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Derivatives of the losses by the scores, (n_rows, n_outputs), in plain Python."""
    scores, loss = x @ model.weights, model.loss
    if not hasattr(loss, "slopes"):
        return np.array([[loss.slope(t, s)] for t, s in zip(y.tolist(), scores[:, 0].tolist(), strict=True)])
    out = np.empty_like(scores)
    for t, s, row in zip(y.tolist(), scores, out, strict=True):
        loss.slopes(t, s, row)
    return out


def gradient_of(model: Model, table: pa.Table, weight: Any = 1.0) -> np.ndarray:
    """The gradient of mean weighted loss, without penalty."""
    x = design(model, table)
    return x.T @ (slopes_of(model, x, learned(model, table)) * np.reshape(weight, (-1, 1))) / len(x)


def penalised(model: Model, l2: float = L2) -> np.ndarray:
    pull = l2 * model.weights
    pull[-1] = 0.0
    return pull


# --- law: at the end there is no slope left, whatever the loss and the rows


@pytest.mark.parametrize(("loss", "wide"), [(loss, k % 2 > 0) for k, loss in enumerate(TARGETS)])
def test_the_gradient_vanishes(loss: str, wide: bool) -> None:
    table = table_of(loss, wide=wide)
    model = train(table, loss)
    found = model.metrics["polish"]
    assert found["stopped"] == "gradient"
    assert found["passes"] <= 40
    assert found["gradient"] <= 1e-8
    assert np.abs(gradient_of(model, table) + penalised(model)).max() <= 1.1e-8


@pytest.mark.parametrize("loss", ["logistic", "softmax"])
def test_row_weights_and_held_out_rows_are_those_of_training(loss: str) -> None:
    """The mean is over rows, each loss times its weight, as in the gradient of every batch."""
    table = table_of(loss, wide=True)
    model = train(table, loss, weight="h", exclude=[])
    assert np.abs(gradient_of(model, table, WEIGHTS) + penalised(model)).max() <= 1.1e-8
    several = train(table, loss, weight="h", exclude=[], validation=0.25)
    whole = gradient_of(several, table, WEIGHTS) + penalised(several)
    assert np.abs(whole).max() > 1e-4, "a quarter of the rows was not learned from"
    assert several.metrics["polish"]["gradient"] <= 1e-8
    # What was judged last is what was saved.
    again = streamsgd.train(table, "y", **{**BASE, "loss": loss, "weight": "h", "validation": 0.25, "polish": 101})
    assert again.metrics["held_out"] == several.metrics["held_out"]


# --- law: the minimum is the one that others find


@pytest.mark.parametrize("wide", [False, True], ids=["numbers", "wide"])
def test_logistic_is_sklearns(wide: bool) -> None:
    table = table_of("logistic", wide=wide)
    model = train(table, "logistic")
    x, y = design(model, table), learned(model, table)
    theirs = LogisticRegression(C=1.0 / (N * L2), tol=1e-12, max_iter=10_000).fit(x[:, :-1], y)
    np.testing.assert_allclose(model.weights[:-1, 0], theirs.coef_[0], atol=1e-6)
    assert model.weights[-1, 0] == pytest.approx(theirs.intercept_[0], abs=1e-6)


def test_softmax_is_sklearns() -> None:
    table = table_of("softmax", wide=True)
    model = train(table, "softmax")
    x = design(model, table)
    # Its lbfgs stops at 6e-6 from here, whatever the tolerance.
    theirs = LogisticRegression(C=1.0 / (N * L2), solver="newton-cholesky", tol=1e-12).fit(x[:, :-1], learned(model, table))
    np.testing.assert_allclose(model.weights[:-1], theirs.coef_.T, atol=1e-6)
    np.testing.assert_allclose(model.predict_proba(table), theirs.predict_proba(x[:, :-1]), atol=1e-7)


def test_poisson_is_sklearns() -> None:
    table = table_of("poisson")
    model = train(table, "poisson")
    theirs = PoissonRegressor(alpha=L2, solver="newton-cholesky", tol=1e-12).fit(
        design(model, table)[:, :-1], TARGETS["poisson"]
    )
    np.testing.assert_allclose(model.weights[:, 0], np.append(theirs.coef_, theirs.intercept_), atol=1e-6)


def test_squares_are_solved() -> None:
    table = table_of("squared", wide=True)
    model = train(table, "squared")
    x, y = design(model, table), learned(model, table)
    ridge = np.full(x.shape[1], L2)
    ridge[-1] = 0.0
    solved = np.linalg.solve(x.T @ x / N + np.diag(ridge), x.T @ y / N)
    np.testing.assert_allclose(model.weights[:, 0], solved, atol=1e-6)


def test_single_precision_ends_within_its_rounding() -> None:
    table = table_of("logistic", wide=True)
    exact, rounded = (train(table, "logistic", precision=kind) for kind in ("float64", "float32"))
    assert rounded.weights.dtype == np.float32
    assert rounded.metrics["polish"]["gradient"] <= 1e-6
    np.testing.assert_allclose(rounded.weights, exact.weights, atol=1e-6 / L2)


# --- law: with l1 the right weights are 0, exactly

PENALTIES = {"l1:l1=0.002": (0.002, 0.0), "elastic-net:l1=0.001,l2=0.01": (0.001, 0.01)}


@pytest.mark.parametrize(("loss", "penalty"), [*zip(TARGETS, cycle(PENALTIES), strict=False)])
def test_the_conditions_of_optimality_hold(loss: str, penalty: str) -> None:
    """|g| <= l1 where w = 0, g = -l1 sign(w) elsewhere (Karush, Kuhn and Tucker)."""
    l1, l2 = PENALTIES[penalty]
    table = table_of(loss, wide=True)
    model = train(table, loss, penalty=penalty, polish=300)
    g, w = gradient_of(model, table) + penalised(model, l2), model.weights
    inner_g, inner_w = g[:-1], w[:-1]
    at_zero = inner_w == 0.0
    assert 0 < at_zero.sum() < at_zero.size
    assert np.abs(inner_g[at_zero]).max() <= l1 * (1.0 + 1e-6)
    np.testing.assert_allclose(inner_g[~at_zero], -l1 * np.sign(inner_w[~at_zero]), atol=1.1e-8)
    assert np.abs(g[-1]).max() <= 1.1e-8


@pytest.mark.parametrize("wide", [False, True], ids=["numbers", "wide"])
def test_the_support_is_sagas(wide: bool) -> None:
    table = table_of("logistic", wide=wide)
    model = train(table, "logistic", penalty="l1:l1=0.01")
    x, y = design(model, table), learned(model, table)
    theirs = LogisticRegression(
        C=1.0 / (N * 0.01), l1_ratio=1.0, solver="saga", tol=1e-10, max_iter=100_000, random_state=0
    ).fit(x[:, :-1], y)
    ours = model.weights[:-1, 0]
    assert np.array_equal(ours != 0.0, theirs.coef_[0] != 0.0)
    assert 0 < np.count_nonzero(ours) < len(ours)
    np.testing.assert_allclose(ours, theirs.coef_[0], atol=1e-6)


# --- law: a start from where training ended is worth most of the passes


@pytest.mark.shared
@pytest.mark.parametrize("name", ["adult", "bank", "a9a"])
def test_a_cold_start_takes_twice_the_passes(name: str, shared_data: Path, tmp_path: Path) -> None:
    """To the same gradient, from after one epoch and from the best constant."""
    problem = next(p for p in load_bench().PROBLEMS if p.name == name)
    table = problem.make(shared_data, tmp_path)
    settings = {**BASE, "penalty": "l2:l2=1e-4", "transform": (), "bits": "auto"}
    warm = streamsgd.train(table, problem.target, **settings)
    cold = streamsgd.train(table, problem.target, **{**settings, "optimizer": "sgd", "learning_rate": 1e-12})
    ours, theirs = warm.metrics["polish"], cold.metrics["polish"]
    assert ours["stopped"] == theirs["stopped"] == "gradient"
    assert ours["objective"] == pytest.approx(theirs["objective"], rel=1e-9)
    assert ours["passes"] <= 20
    assert 2 * ours["passes"] <= theirs["passes"]


def load_bench() -> Any:
    path = Path(__file__).resolve().parents[2] / "scripts" / "bench_real.py"
    spec = importlib.util.spec_from_file_location("bench_real", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_real"] = module
    spec.loader.exec_module(module)
    return module


# --- law: same data and settings, same bytes

RUN: dict[str, Any] = {
    **BASE,
    "target": "y",
    "loss": "logistic",
    "exclude": ["h"],
    "chunk_rows": 1000,
    "epochs": 2,
    "polish": 6,
    "validation": 0.2,
    "patience": 50,
}
CASES: dict[str, dict[str, Any]] = {
    "a block": {},
    "a part of the weights in a block": {"bits": 12},
    "l1": {"penalty": "l1:l1=0.002", "polish": 15},
    "classes": {"loss": "softmax"},
    "numbers, single precision": {"precision": "float32", "exclude": ["h", "colour", "tags"]},
    "a validation that stops it": {"patience": 1, "min_improvement": 0.9, "epochs": 5},
}
PLACES = (
    {"executor": "dask", "threads": 2, "memory": "3GB"},
    {"executor": "inline", "memory": "1GB"},
    {"executor": "dask", "threads": 1, "memory": "20GB"},
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of the same rows with each target, in row groups that are merged, read whole and streamed in slices."""
    folder = tmp_path_factory.mktemp("polish")
    for loss in ("logistic", "softmax"):
        (folder / loss).mkdir()
        table = table_of(loss, wide=True)
        for k, size in enumerate((70, 600, 1000)):
            pq.write_table(table.slice(k * N // 3, N // 3), folder / loss / f"{k}.parquet", row_group_size=size)
    return folder


def run(folder: Path, **settings: Any) -> tuple[bytes, Report]:
    given = {**RUN, **settings}
    model, report = train_model(str(folder / given["loss"]), make_settings(given))
    return model.to_bytes(), report


@pytest.mark.parametrize("case", CASES)
def test_stopped_at_every_chunk_it_ends_with_the_same_bytes(folder: Path, tmp_path: Path, case: str) -> None:
    """Also where each start has another executor, other threads and another memory budget."""
    settings = CASES[case]
    alone, report = run(folder, **settings)
    (result, _), stops = finish_chunk_by_chunk(partial(run, folder), tmp_path / "saved", cycle(PLACES), **settings)
    assert result == alone
    found = report.phases["polish"]
    assert stops >= 3 * report.epochs + found["passes"] - 2  # in the first passes more: a chunk, then the others
    assert (found["stopped"] == "patience") == ("validation" in case)


def test_the_number_of_threads_leaves_no_trace(folder: Path) -> None:
    one, two = (run(folder, executor="dask", threads=threads)[0] for threads in (1, 2))
    assert one == two


def test_how_it_is_cut_into_chunks_is_rounding(folder: Path) -> None:
    """And a single chunk is read once."""
    settings = {"validation": 0.0, "polish": 100, "optimizer": "sgd", "batch_size": "full", "patience": None}
    weights = []
    for chunk_rows in (700, 100_000):
        data = str(folder / "logistic")
        model, report = train_model(data, make_settings({**RUN, **settings, "chunk_rows": chunk_rows}))
        assert report.phases["polish"]["stopped"] == "gradient"
        weights.append(model.weights)
    np.testing.assert_allclose(weights[0], weights[1], atol=1e-6)


def test_killed_while_polishing_it_goes_on_to_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    """In the middle of the first pass, between two, and in a later one."""
    settings = make_settings({**RUN, "checkpoint_chunks": 1, "executor": "inline"})

    def start(after: int, name: str) -> int:
        steps = iter(range(1, 10_000))

        def emit(event: Any) -> None:
            if event.epoch > 2.0 and next(steps) == after:
                os.kill(os.getpid(), signal.SIGKILL)

        return status_of_child(lambda: train_model(str(folder / "logistic"), settings, out=tmp_path / name, emit=emit))

    assert start(-1, "alone.sgd") == 0
    for after in (1, 2, 2):
        assert start(after, "killed.sgd") == -signal.SIGKILL
        assert list((tmp_path / "killed.sgd.ckpt").glob("*.ckpt"))
    assert start(-1, "killed.sgd") == 0
    assert (tmp_path / "killed.sgd").read_bytes() == (tmp_path / "alone.sgd").read_bytes()


# --- law: bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "hinge"}, "--polish 100 needs a loss without kinks, and Hinge has some; take --loss squared-hinge"),
        ({"loss": "quantile"}, "needs a loss without kinks, and Quantile has some; take --loss huber"),
        ({"optimizer": "ftrl:l1=1", "penalty": "none"}, "ftrl has l1 of its own: set it to 0, and pass --penalty"),
        ({"optimizer": "adamw", "penalty": "none"}, "adamw has weight_decay of its own"),
        ({"polish": -1}, "--polish: -1 is not a whole number of at least 0"),
        (
            {"memory": "500MB", "bits": 22, "exclude": ["h"], "optimizer": "normalized"},
            "model .* GB.*The smallest budget that can is",
        ),
    ],
)
def test_what_cannot_be_polished_is_refused_before_it_starts(settings: dict[str, Any], message: str) -> None:
    loss = "squared" if settings.get("loss") == "quantile" else "logistic"
    with pytest.raises(SettingsError, match=message):
        streamsgd.plan(table_of(loss, wide=True), "y", **{**BASE, **settings})


def test_tables_that_come_one_by_one_cannot_be_polished() -> None:
    with pytest.raises(SettingsError, match="--polish needs all the data at once"):
        streamsgd.Trainer("y", polish=3)


def test_training_that_went_astray_is_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    table = table_of("logistic")
    model = train(table, "logistic", optimizer="sgd", learning_rate=30.0, batch_size=1, schedule="constant")
    assert "polishing starts anew from the best constant" in caplog.text
    assert model.metrics["polish"]["stopped"] == "gradient"
    assert np.abs(gradient_of(model, table) + penalised(model)).max() <= 1.1e-8


def test_training_that_diverged_says_so() -> None:
    with pytest.raises(DivergedError, match="lower --learning-rate"):
        train(table_of("squared"), "squared", optimizer="sgd", learning_rate=1e3, batch_size=1, schedule="constant")


# --- what is told


def test_every_pass_is_an_event_and_the_model_knows_how_it_ended(capsys: pytest.CaptureFixture[str]) -> None:
    events: list[Any] = []
    model = train(table_of("logistic"), "logistic", on_progress=events.append)
    passes = [event for event in events if event.kind == "polish"]
    found = model.metrics["polish"]
    assert [event.metrics["passes"] for event in passes] == list(range(1, found["passes"] + 1))
    assert passes[-1].metrics["objective"] == found["objective"] <= passes[0].metrics["objective"]
    assert re.match(r"polish 1: objective 0\.\d+, gradient 0?\.?\S+", passes[0].note)
    assert model.settings["polish"] == 100
    lines = model_text(model_summary(model))
    assert any("passes" in line and str(found["passes"]) in line for line in lines)


def test_no_more_passes_are_made_than_asked_for() -> None:
    two = train(table_of("logistic", wide=True), "logistic", polish=2)
    assert (two.metrics["polish"]["passes"], two.metrics["polish"]["stopped"]) == (2, "passes")


def test_no_setting_compiles_another_kernel() -> None:
    table = table_of("logistic", wide=True)
    for change in ({}, {"penalty": "l1:l1=0.01"}, {"polish": 3, "validation": 0.3}, {"bits": 12}, {"precision": "float64"}):
        before = len(add_chunk.signatures)
        train(table, "logistic", **change)
        assert len(add_chunk.signatures) - before <= (change == {})


# --- law: the descent alone


def descend(
    value: Callable[[np.ndarray], float], slope: Callable[[np.ndarray], np.ndarray], start: np.ndarray, **penalty: float
) -> tuple[LBFGS, int]:
    descent = LBFGS(start, len(start), penalty.get("l1", 0.0), penalty.get("l2", 0.0), 1e-9)
    for passes in range(1, 2000):
        none = Hessian(np.ones(len(start)), np.zeros((0, 0)), np.zeros(0, np.int64))
        w = descent.trial.copy()
        descent.tell(value(w), abs(value(w)), slope(w), none if passes == 1 else None)
        if descent.stopped:
            return descent, passes
    raise AssertionError("does not end")


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_a_parabola_of_any_scale_is_solved(scale: float) -> None:
    root = np.random.default_rng(0).normal(size=(8, 8))
    a, b = scale * root @ root.T, scale * np.arange(8.0)
    descent, _ = descend(lambda w: 0.5 * w @ a @ w - b @ w, lambda w: a @ w - b, np.ones(8))
    assert np.abs(a @ descent.weights - b).max() <= max(1e-9, 1e-12 * np.abs(a).max() * np.abs(descent.weights).max())


def test_the_lasso_of_an_orthogonal_design_is_soft_thresholding() -> None:
    b = np.array([3.0, -2.0, 0.5, -0.5, 0.0, 1.0])
    descent, _ = descend(lambda w: 0.5 * (w - b) @ (w - b), lambda w: w - b, np.full(6, -7.0), l1=1.0)
    np.testing.assert_allclose(descent.weights, np.sign(b) * np.maximum(np.abs(b) - 1.0, 0.0), atol=1e-9)
    assert np.array_equal(descent.weights != 0.0, np.abs(b) > 1.0)


def test_where_there_is_no_more_than_rounding_it_ends() -> None:
    """A constant with a slope that lies."""
    descent, passes = descend(lambda _w: 1.0, lambda w: np.full_like(w, 1e-3), np.zeros(3))
    assert (descent.stopped, passes < 100) == ("rounding", True)
