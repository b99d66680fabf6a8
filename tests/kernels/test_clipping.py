"""Gradients of batches are clipped as torch clips them, where rows meet all weights and where they touch a few."""

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from test_sparse import DENSE, SIZE, SPARSE, N, Rows, batches, paid_up, start

import streamsgd
from streamsgd.errors import SettingsError
from streamsgd.features.layout import most_entries
from streamsgd.kernels.learn.clipping import distinct
from streamsgd.kernels.learn.fit import fit
from streamsgd.kernels.parts.losses import Quantile, Softmax, Squared
from streamsgd.kernels.parts.optimizers import SGD, Adagrad, Adam
from streamsgd.kernels.parts.penalties import Free, Ridge
from streamsgd.kernels.parts.schedules import Constant
from streamsgd.kernels.structs.block import Parts, new_scratch
from streamsgd.kernels.structs.step import StepContext

torch = pytest.importorskip("torch")

ROWS = Rows()
CLASSES = Rows(classes=4)
FREE = float("inf")
LIMITS = [(0.5, FREE), (FREE, 0.05), (0.5, 0.05), (1e6, 1e6), (1e-3, FREE)]
"""Of the length, of every coordinate."""


def learned(parts: Parts, rows: Rows, b: int, limits: tuple[float, float], *, few: bool) -> np.ndarray:
    block, layout = (rows.sparse, SPARSE) if few else (rows.dense, DENSE)
    outputs = int(getattr(parts.loss, "classes", 1))
    state = start(parts, few=few, outputs=outputs)
    scratch = new_scratch(outputs, "float64", most_entries(block, layout))
    for epoch in range(3):
        pace = StepContext(b, (SIZE - 1) * outputs, float(epoch), 1 / N, 3.0, *limits)
        fit(parts, block, np.zeros(N, np.int32), np.zeros(1, np.int64), state, pace, scratch)
    assert not state.grad.any()
    return paid_up(parts, state, outputs)


def of_torch(loss: Any, rows: Rows, optimizer: Any, b: int, limits: tuple[float, float], outputs: int = 1) -> np.ndarray:
    """The same with torch's clipping and optimizers, gradients by autograd."""
    x, y, h = torch.tensor(rows.design), torch.tensor(rows.y), torch.tensor(rows.weight)
    w = torch.zeros(SIZE, outputs, dtype=torch.float64, requires_grad=True)
    stepper = optimizer([w])
    for batch in batches(b):
        stepper.zero_grad()
        (h[batch] * loss(x[batch] @ w, y[batch])).mean().backward()
        if limits[0] < FREE:
            torch.nn.utils.clip_grad_norm_([w], limits[0])
        if limits[1] < FREE:
            torch.nn.utils.clip_grad_value_([w], limits[1])
        stepper.step()
    return w.detach().numpy().ravel()


# --- law: it is torch's


@pytest.mark.parametrize("few", [False, True], ids=["all weights", "a few"])
@pytest.mark.parametrize("b", [1, 8, N])
@pytest.mark.parametrize("limits", LIMITS, ids=str)
def test_clipping_is_that_of_torch(limits: tuple[float, float], b: int, few: bool) -> None:
    parts = Parts(Squared(), Free(), SGD(0.05), Constant())
    expected = of_torch(lambda s, y: 0.5 * (s[:, 0] - y) ** 2, ROWS, lambda w: torch.optim.SGD(w, 0.05), b, limits)
    np.testing.assert_allclose(learned(parts, ROWS, b, limits, few=few), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("few", [False, True], ids=["all weights", "a few"])
def test_before_an_optimizer_that_remembers(few: bool) -> None:
    parts = Parts(Squared(), Free(), Adagrad(0.3), Constant())
    expected = of_torch(lambda s, y: 0.5 * (s[:, 0] - y) ** 2, ROWS, lambda w: torch.optim.Adagrad(w, 0.3), 8, (0.5, 0.05))
    np.testing.assert_allclose(learned(parts, ROWS, 8, (0.5, 0.05), few=few), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("few", [False, True], ids=["all weights", "a few"])
def test_the_gradient_of_all_outputs_has_one_length(few: bool) -> None:
    def loss(s: Any, y: Any) -> Any:
        return torch.nn.functional.cross_entropy(s, y.long(), reduction="none")

    parts = Parts(Softmax(4), Free(), SGD(0.3), Constant())
    expected = of_torch(loss, CLASSES, lambda w: torch.optim.SGD(w, 0.3), 8, (0.1, 0.02), 4)
    np.testing.assert_allclose(learned(parts, CLASSES, 8, (0.1, 0.02), few=few), expected, rtol=1e-10, atol=1e-12)


def test_what_a_penalty_adds_is_not_clipped_as_weight_decay_is_not() -> None:
    parts, limits = Parts(Squared(), Ridge(3.0), Adam(0.05), Constant()), (0.5, 0.05)
    x, y, h = torch.tensor(ROWS.design), torch.tensor(ROWS.y), torch.tensor(ROWS.weight)
    w, c = (torch.zeros(n, dtype=torch.float64, requires_grad=True) for n in (SIZE - 1, 1))
    stepper = torch.optim.Adam([{"params": [w], "weight_decay": 3.0}, {"params": [c]}], 0.05)
    for batch in batches(8):
        stepper.zero_grad()
        (h[batch] * 0.5 * (x[batch, :-1] @ w + c - y[batch]) ** 2).mean().backward()
        torch.nn.utils.clip_grad_norm_([w, c], limits[0])
        torch.nn.utils.clip_grad_value_([w, c], limits[1])
        stepper.step()
    expected = np.append(w.detach().numpy(), c.detach().numpy())
    np.testing.assert_allclose(learned(parts, ROWS, 8, limits, few=False), expected, rtol=1e-10, atol=1e-12)


def test_a_weight_whose_gradient_was_zero_on_the_way_counts_once() -> None:
    """Slopes of a pinball loss are of two sizes and cancel out: at 1/2, in every other batch."""
    rows = Rows()
    for block in (rows.sparse, rows.dense):
        block.weight[:] = 1.0
    parts = Parts(Quantile(0.5), Free(), SGD(0.05), Constant())
    for limits in LIMITS:
        few, whole = (learned(parts, rows, 16, limits, few=few) for few in (True, False))
        np.testing.assert_allclose(few, whole, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_a_list_is_made_distinct_in_its_own_room(kind: Any) -> None:
    rng = np.random.default_rng(1)
    for size in (1, 2, 17, 64, 1000):
        for n in range(0, size, max(1, size // 7)):
            touched = rng.integers(0, size, size).astype(kind)
            listed = touched[:n].copy()
            kept = distinct(touched, n)
            if kept < 0:
                assert n > size - size // 16 - 1
            else:
                assert touched[:kept].tolist() == list(dict.fromkeys(listed.tolist()))


# --- law: by name, and only where there are batches


TABLE = pa.table({"x": np.random.default_rng(0).normal(size=200) * 100, "y": np.arange(200) % 7.0})
USUAL: dict[str, Any] = {"optimizer": "sgd:learning_rate=0.01", "memory": "2GB", "executor": "inline", "scale": "none"}


def test_a_run_that_would_leave_the_finite_numbers_stays() -> None:
    with pytest.raises(streamsgd.errors.DivergedError):
        streamsgd.train(TABLE, "y", **USUAL)
    model = streamsgd.train(TABLE, "y", clip_norm=1.0, **USUAL)
    assert np.isfinite(model.weights).all()
    assert model.settings["clip_norm"] == 1.0


@pytest.mark.parametrize("optimizer", ["normalized", "coin"])
def test_row_by_row_it_is_refused(optimizer: str) -> None:
    settings = {**USUAL, "optimizer": optimizer}
    with pytest.raises(SettingsError, match=f"--optimizer {optimizer} learns row by row.* leave --clip-norm out"):
        streamsgd.train(TABLE, "y", clip_norm=1.0, **settings)
    with pytest.raises(SettingsError, match="leave --clip-norm and --clip-value out"):
        streamsgd.train(TABLE, "y", clip_norm=1.0, clip_value=1.0, **settings)


RUN = """
import json
import numpy as np, pyarrow as pa
import streamsgd
from streamsgd.kernels.compile.jit import CompileClock
table = pa.table({"x": np.arange(100.0), "y": np.arange(100) % 7.0})
seconds = []
for limits in ({}, {"clip_norm": 1.0}, {"clip_value": 2}, {"clip_norm": 0.3, "clip_value": 0.1}):
    with CompileClock() as clock:
        streamsgd.train(table, "y", memory="2GB", executor="inline", epochs=1, optimizer="adam", **limits)
    seconds.append(clock.seconds)
print(json.dumps(seconds))
"""


def test_another_limit_compiles_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", RUN], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)[1:] == [0.0, 0.0, 0.0]
