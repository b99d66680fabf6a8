"""A rate follows the size of a batch by the rule of its optimizer, and what was learned is the same."""

from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import finish_chunk_by_chunk

import streamsgd
from streamsgd.errors import SettingsError
from streamsgd.features.layout import Layout
from streamsgd.kernels.learn.fit import fit
from streamsgd.kernels.parts.by_rows import USUAL_BATCH
from streamsgd.kernels.parts.losses import Squared
from streamsgd.kernels.parts.optimizers import SGD
from streamsgd.kernels.parts.penalties import Free
from streamsgd.kernels.parts.schedules import Constant
from streamsgd.kernels.parts.traits import is_sequential
from streamsgd.kernels.structs.block import Parts, new_scratch
from streamsgd.kernels.structs.state import make_state
from streamsgd.kernels.structs.step import StepContext
from streamsgd.settings.make import make_settings
from streamsgd.settings.registry import PARTS, make
from streamsgd.training.rates import scale_rate


def rate(optimizer: str, **settings: Any) -> float:
    return float(scale_rate(make("optimizer", optimizer), make_settings({"target": "y", **settings})).learning_rate)


# --- law: what each rule does


@pytest.mark.parametrize("name", PARTS["optimizer"])
def test_every_optimizer_has_a_rule(name: str) -> None:
    usual, rule = make("optimizer", name).learning_rate, PARTS["optimizer"][name].rate_scaling
    factor = {"linear": 4.0, "sqrt": 2.0, "none": 1.0}[rule]
    if not is_sequential(PARTS["optimizer"][name]):
        assert rate(name, rate_scaling="auto", batch_size=4 * USUAL_BATCH) == pytest.approx(factor * usual, rel=1e-15)
        assert rate(name, rate_scaling="linear", batch_size=USUAL_BATCH // 2) == pytest.approx(usual / 2, rel=1e-15)
        assert rate(name, rate_scaling="sqrt", batch_size=USUAL_BATCH // 4) == pytest.approx(usual / 2, rel=1e-15)
    assert rate(name, batch_size=4 * USUAL_BATCH) == usual
    assert rate(name, rate_scaling="auto") == usual
    assert rate(name, rate_scaling="auto", batch_size=USUAL_BATCH) == usual


def test_rules_are_those_of_the_field() -> None:
    rules: dict[str, set[str]] = {}
    for name, part in PARTS["optimizer"].items():
        rules.setdefault(part.rate_scaling, set()).add(name)
    assert rules["linear"] == {"sgd", "momentum", "nesterov", "perturbed"}
    assert rules["sqrt"] == {"rmsprop", "adam", "adamw", "amsgrad"}
    assert rules["none"] == {"adagrad", "ftrl", "normalized", "coin", "race", "svrg", "trust-region", "armijo", "langevin"}


def test_a_run_says_the_rate_that_it_takes() -> None:
    table = pa.table({"x": np.arange(300.0), "y": np.arange(300) % 5.0})
    settings: dict[str, Any] = {"memory": "2GB", "executor": "inline", "epochs": 1, "optimizer": "sgd", "learning_rate": 0.002}
    model = streamsgd.train(table, "y", batch_size=128, rate_scaling="auto", **settings)
    assert model.provenance["parts"]["optimizer"] == "sgd:learning_rate=0.004"


def test_where_there_is_no_size_to_go_by_it_is_refused() -> None:
    with pytest.raises(SettingsError, match="--rate-scaling auto has no number to go by with --batch-size full"):
        rate("sgd", rate_scaling="auto", batch_size="full")
    assert rate("adagrad", rate_scaling="auto", batch_size="full") == rate("adagrad")
    with pytest.raises(SettingsError, match="--optimizer normalized learns row by row"):
        rate("normalized", rate_scaling="linear")
    assert rate("coin", rate_scaling="auto") == rate("coin")


# --- law: twice the rate in batches of twice the rows learns the same


DEVIATIONS = np.array([1.0, 0.9, 0.8, 0.7])
"""Of independent normal columns; there is no intercept in what makes the targets."""
NOISE, BEST = 2.0, np.array([1.0, -1.0, 0.5, 2.0])


def expected_excess(eta: float, b: int, steps: int) -> float:
    """E[(x w - x best)^2] / 2 after some steps of SGD from 0, by the exact recursion of the error's second moments M.

    M <- M - eta (H M + M H) + eta^2 ((1 - 1/b) H M H + (2 H M H + tr(H M) H + noise^2 H) / b), for normal x, and 1 for the
    intercept, whose fourth moment is 1.
    """
    h = np.diag(np.append(DEVIATIONS**2, 1.0))
    m = np.outer(np.append(BEST, 0.0), np.append(BEST, 0.0))
    for _ in range(steps):
        inner = np.trace(h @ m) * h + 2.0 * h @ m @ h
        inner[-1, -1] -= 2.0 * m[-1, -1]  # the kurtosis of a constant
        m = m - eta * (h @ m + m @ h) + eta**2 * ((1 - 1 / b) * h @ m @ h + (inner + NOISE**2 * h) / b)
    return 0.5 * float(np.trace(h @ m))


def measured_excess(optimizer: SGD, b: int, rows: int, replicates: int) -> np.ndarray:
    """The same of the kernel, for so many data sets."""
    d, rng, found = len(BEST), np.random.default_rng(1), np.empty(replicates)
    layout = Layout(d, n_coordinates=d + 1)
    block, parts = layout.allocate(rows, "float64"), Parts(Squared(), Free(), optimizer, Constant())
    for k in range(replicates):
        x = rng.normal(size=(rows, d)) * DEVIATIONS
        block.rows.values[:, :d], block.y[:] = x, x @ BEST + NOISE * rng.normal(size=rows)
        state = make_state(np.zeros(d + 1), 0, np.float64)
        fit(
            parts,
            block,
            np.zeros(rows, np.int32),
            np.zeros(1, np.int64),
            state,
            StepContext(b, d, 0, 0, 1),
            new_scratch(1, float),
        )
        error = state.weights - np.append(BEST, 0.0)
        found[k] = 0.5 * error @ (np.append(DEVIATIONS**2, 1.0) * error)
    return found


@pytest.mark.parametrize(("rows", "grows"), [(4096, 1.5), (65536, 0.6)], ids=["on the way", "where noise is all"])
def test_linear_scaling_leaves_the_excess_of_least_squares_where_it_was(rows: int, grows: float) -> None:
    """Within 5 %, where the rate times the largest curvature is at most 0.05: exactly, and as the kernel does it."""
    exact, measured, eta = [], [], 0.025
    for b in (USUAL_BATCH, 2 * USUAL_BATCH):
        settings = make_settings({"target": "y", "batch_size": b, "rate_scaling": "auto"})
        optimizer = scale_rate(SGD(eta), settings)
        exact.append(expected_excess(optimizer.learning_rate, b, rows // b))
        found = measured_excess(optimizer, b, rows, 100)
        measured.append(found.mean())
        assert abs(measured[-1] - exact[-1]) < 4.0 * found.std() / np.sqrt(len(found))
    assert exact[1] == pytest.approx(exact[0], rel=0.05)
    assert measured[1] == pytest.approx(measured[0], rel=0.05)
    unscaled = expected_excess(eta, 2 * USUAL_BATCH, rows // (2 * USUAL_BATCH))
    assert unscaled > grows * exact[0] if grows > 1.0 else unscaled < grows * exact[0]


def test_a_rate_is_scaled_once_however_often_a_run_goes_on(tmp_path: Path) -> None:
    """After stops, and from the model of an earlier run."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 2))
    table = pa.table({"a": x[:, 0], "b": x[:, 1], "y": x.sum(axis=1)})
    settings: dict[str, Any] = {"memory": "2GB", "executor": "inline", "epochs": 1, "optimizer": "adam", "chunk_rows": 200}
    settings |= {"batch_size": 256, "rate_scaling": "auto", "keep_memory": True, "validation": 0.0}
    alone = streamsgd.train(table, "y", **settings, out=tmp_path / "first.sgd")
    run = partial(streamsgd.train, table, "y", **settings)
    resumed, stops = finish_chunk_by_chunk(run, tmp_path / "saved", cycle([{}]))
    assert stops
    assert resumed.to_bytes() == alone.to_bytes()
    later = streamsgd.train(table, "y", **settings, start=str(tmp_path / "first.sgd"))
    assert later.provenance["parts"]["optimizer"] == alone.provenance["parts"]["optimizer"]
