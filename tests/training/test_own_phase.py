"""The proof of the interfaces: a phase of one's own, in a module, by name from the command line, on workers too."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streamsgd
from streamsgd.errors import SettingsError

MODULE = '''
"""The sum of squared gradients of all rows at the final weights."""

from dataclasses import dataclass, replace

import numpy as np

from streamsgd.planning.tree import FAN
from streamsgd.training.job import IN_ORDER
from streamsgd.training.learner import model_of
from streamsgd.training.phases.base import PhaseEvent, PhaseKind, Saved
from streamsgd.training.tasks.base import Round, report_on


@dataclass
class Squares:
    """A share: float64 (n_weights,), and rows."""

    values: np.ndarray
    rows: int

    @property
    def nbytes(self):
        return self.values.nbytes

    def merge(self, other):
        return Squares(self.values + other.values, self.rows + other.rows)


@dataclass
class AddSquares:
    """A task."""

    weights: np.ndarray

    name = "squares"
    exact = True

    @property
    def nbytes(self):
        return self.weights.nbytes

    def open(self, job):
        return lambda filled: self._add(job, filled)

    def _add(self, job, filled):
        total, rows = np.zeros(len(self.weights)), 0
        for start, stop in filled.learned_runs():
            x = filled.block.rows.values[start:stop, : job.encoding.width].astype(np.float64)
            x = np.column_stack([x, np.ones(stop - start)])
            slopes = x @ self.weights - filled.block.y[start:stop]
            total += np.square(slopes[:, None] * x).sum(axis=0)
            rows += stop - start
        return Squares(total, rows), report_on(job, filled, 0.0, rows, None)


class SumSquares:
    """A phase: one pass in the order of the data."""

    name = "squares"
    counts = False
    validated = False

    def __init__(self, job, _reached=None):
        self.job, self.before, self.chunk, self.total = job, None, 0, None

    @property
    def done(self):
        return self.chunk == self.job.plan_in_order.n_chunks(0)

    @property
    def cursor(self):
        return self.before.passes, self.chunk

    @property
    def tally(self):
        return self.before.tally

    def begin(self, before):
        self.before = before

    def next(self):
        weights = self.before.weights[:, 0].astype(np.float64)
        return Round(AddSquares(weights), IN_ORDER, self.chunk, min(FAN, self.job.plan_in_order.n_chunks(0) - self.chunk))

    def take(self, share, reports):
        self.total = share if self.total is None else self.total.merge(share)
        self.chunk += len(reports)
        yield PhaseEvent("chunk", float(self.before.passes))

    def model(self):
        return model_of(self.job, self.before.weights)

    def stop(self, why):
        pass

    def outcome(self):
        found = {"squares": self.total.values.tolist(), "rows": self.total.rows}
        return replace(self.before, metrics={**self.before.metrics, self.name: found}, passes=self.before.passes + 1)

    def save(self):
        arrays = {} if self.total is None else {"values": self.total.values}
        return Saved({"chunk": self.chunk, "rows": self.total.rows if self.total else 0}, arrays)

    def restore(self, saved, before):
        self.before, self.chunk = before, saved.header["chunk"]
        if "values" in saved.arrays:
            self.total = Squares(saved.arrays["values"].copy(), saved.header["rows"])


SQUARES = PhaseKind(
    "squares",
    wanted=lambda _settings, _parts: True,
    check=lambda _settings, _parts, _encoding: None,
    memory=lambda outline: 5 * 8 * outline.n_parameters,
    passes=lambda _outline: 1,
    make=SumSquares,
    describe=lambda metrics: [f"squares: of {metrics['rows']:,} rows {sum(metrics['squares']):.6g}"],
)
'''
COMMON = ["--target", "y", "--epochs", "1", "--chunk-rows", "300", "--memory", "2GB", "--optimizer", "sgd", "--scale", "none"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own_phase")
    (folder / "mine.py").write_text(MODULE)
    rng = np.random.default_rng(3)
    x = rng.normal(size=(3000, 2))
    table = pa.table({"a": x[:, 0], "b": x[:, 1], "y": x @ [1.0, 2.0] + rng.normal(size=3000)})
    pq.write_table(table, folder / "data.parquet", row_group_size=100)
    return folder


Train = Callable[..., tuple[Any, str]]


@pytest.fixture
def train(place: Path, command_line: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Train:
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(place), *sys.path]))  # of workers

    def run(name: str, *flags: str, status: int = 0) -> tuple[Any, str]:
        done = command_line("train", "data.parquet", *COMMON, "--phases", "mine:SQUARES", "-o", name, *flags)
        assert done.returncode == status, done.stderr
        return json.loads(done.stdout.splitlines()[-1]), done.stderr

    return run


def test_a_phase_of_ones_own_runs_by_name_and_says_what_it_found(place: Path, train: Train) -> None:
    found, said = train("here.sgd")
    model = streamsgd.load(place / "here.sgd")
    table = pq.read_table(place / "data.parquet")
    x = np.column_stack([table["a"], table["b"], np.ones(3000)])
    y = (np.asarray(table["y"]) - model.target.shift) * model.target.scale
    expected = np.square((x @ model.weights[:, 0].astype(np.float64) - y)[:, None] * x).sum(axis=0)
    np.testing.assert_allclose(found["metrics"]["squares"]["squares"], expected, rtol=1e-5)
    assert found["metrics"]["squares"]["rows"] == 3000
    assert "squares: of 3,000 rows" in said


def test_it_gives_the_same_bytes_on_workers_and_after_every_stop(place: Path, train: Train) -> None:
    train("alone.sgd")
    train("workers.sgd", "--workers", "2")
    assert (place / "workers.sgd").read_bytes() == (place / "alone.sgd").read_bytes()
    for _ in range(3):
        train("stopped.sgd", "--time-limit", "1e-9", status=75)
    train("stopped.sgd")
    assert (place / "stopped.sgd").read_bytes() == (place / "alone.sgd").read_bytes()


@pytest.mark.parametrize(
    ("spec", "message"),
    [("nowhere:X", "--phases nowhere:X: No module named 'nowhere'"), ("math:pi", "--phases math:pi is of type float")],
)
def test_what_is_no_phase_is_refused(place: Path, spec: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        streamsgd.plan(place / "data.parquet", "y", phases=(spec,))
