"""Averaging: the mean of the weights after every step from some point on, for every optimizer and layout, and nothing else."""

from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import finish_chunk_by_chunk

import streamsgd
from streamsgd.errors import SettingsError
from streamsgd.features.layout import Layout, most_entries
from streamsgd.kernels.learn.averaging import average
from streamsgd.kernels.learn.fit import fit, update
from streamsgd.kernels.parts.traits import is_sequential
from streamsgd.kernels.structs.block import Parts, new_scratch
from streamsgd.kernels.structs.state import SINCE, STEPS, State, make_state
from streamsgd.kernels.structs.step import StepContext
from streamsgd.model.model import Model
from streamsgd.settings.make import make_settings
from streamsgd.settings.registry import make
from streamsgd.training.events import Report
from streamsgd.training.run import train_model

N, D = 3000, 5
RNG = np.random.default_rng(11)
X = RNG.normal(size=(N, D)) + RNG.normal(size=D)
SCORE = X @ RNG.normal(size=D) * 0.5
COLOURS = np.array(["red", "green", "blue", "grey", "white"])[RNG.integers(0, 5, N)]
TAGS = [[f"t{k}" for k in np.flatnonzero(RNG.random(30) < 0.1)] for _ in range(N)]
TABLE = pa.table(
    {
        **{f"x{j}": X[:, j] for j in range(D)},
        "colour": COLOURS,
        "tags": TAGS,
        "late": SCORE + RNG.logistic(size=N) > 0.0,
        "delay": 30.0 + 10.0 * (SCORE + RNG.normal(size=N)),
        "kind": np.array(["a", "b", "c"])[(np.c_[SCORE, X[:, 0], np.zeros(N)] + RNG.gumbel(size=(N, 3))).argmax(axis=1)],
    }
)
TARGETS = ("late", "delay", "kind")
NUMBERS = ["colour", "tags"]
BASE: dict[str, Any] = {
    "precision": "float64",
    "executor": "inline",
    "memory": "2GB",
    "epochs": 1,
    "shuffle": "none",
    "transform": "none",
    "bits": 8,
}
SEEN = [
    *(
        (optimizer, "logistic", rows)
        for optimizer in ("sgd", "adam", "ftrl", "normalized")
        for rows in (("dense", "float64"), ("doubled", "float32"))
    ),
    *((optimizer, "softmax:classes=3", ("doubled", "float32")) for optimizer in ("adam", "normalized")),
    ("normalized", "logistic", ("dense", "float32")),
]
"""Every way in which a kernel moves weights; all optimizers of batches move them by the same lines."""


def train(target: str = "late", *, wide: bool = False, **settings: Any) -> Model:
    exclude = [name for name in TARGETS if name != target] + ([] if wide else NUMBERS)
    return streamsgd.train(TABLE, target, **{**BASE, "exclude": exclude, **settings})


# --- law: the mean is that of the iterates


def plain_sgd(model: Model, batch: int, rate: float, power: float) -> np.ndarray:
    """Every iterate of one pass of logistic regression in the order of the rows, in NumPy, (n_steps, D + 1)."""
    z, y = np.c_[encoded(model), np.ones(N)], np.asarray(TABLE["late"]).astype(float)
    w, iterates = np.zeros(D + 1), []
    w[-1] = START
    for step, first in enumerate(range(0, N, batch), 1):
        rows = slice(first, min(N, first + batch))
        means = 1.0 / (1.0 + np.exp(-z[rows] @ w))
        w = w - rate * step**-power / batch * z[rows].T @ (means - y[rows])
        iterates.append(w)
    return np.array(iterates)


def encoded(model: Model) -> np.ndarray:
    block, _ = model.encode(TABLE)
    values: np.ndarray = block.rows.values[:, :D]
    return values


START = float(train(optimizer="sgd", learning_rate=1e-300, schedule="constant", batch_size=1).weights[-1, 0])
"""The intercept of the best constant, with which training begins."""


@pytest.mark.parametrize(("batch", "rate"), [(1, 0.3), (8, 1.0), (64, 2.0)])
@pytest.mark.parametrize("share", [0.0, 0.25])
def test_it_is_the_mean_of_the_iterates_of_sgd(batch: int, rate: float, share: float) -> None:
    """From the step on whose batch is not full yet where averaging begins."""
    model = train(optimizer="sgd", learning_rate=rate, schedule="inverse-scaling:power=0.6", batch_size=batch, average=share)
    iterates = plain_sgd(model, batch, rate, 0.6)
    mean = iterates[int(share * N) // batch :].mean(axis=0)
    np.testing.assert_allclose(model.weights[:, 0], mean, rtol=1e-10, atol=1e-12)
    assert np.abs(iterates[-1] - mean).max() > 1e-3


@pytest.mark.parametrize(("optimizer", "loss", "layout"), SEEN)
def test_it_is_the_mean_of_the_weights_seen(optimizer: str, loss: str, layout: tuple[str, str]) -> None:
    """Weights are looked at after every call that makes one step; averaging begins after 20 of 120."""
    rows, kind = layout
    parts = Parts(make("loss", loss), make("penalty", "none"), make("optimizer", optimizer), make("schedule", "constant"))
    batch = 1 if is_sequential(parts.optimizer) else 3
    state, pace, block, scratch = set_up(parts, rows, kind, batch, lag=True)
    heads, seen = np.zeros(1, np.int64), []
    for step in range(120):
        if step == 20:
            state.clock[SINCE] = state.clock[STEPS]
        fit(parts, block, np.zeros(batch, np.int32), heads, state, pace, scratch)
        seen.append(state.weights.astype(np.float64))
    found = state.weights.astype(np.float64)
    average(state, found)
    expected = np.mean(seen[20:], axis=0)
    assert np.abs(expected - seen[-1]).max() > 1e-3 * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, atol=1e-12 * np.abs(seen).max())


def set_up(parts: Parts, rows: str, kind: str, batch: int, **state: Any) -> Any:
    """360 rows of four numbers, dense, as entries, or with a category, a cross and two entries of one coordinate."""
    n, n_outputs = 360, int(getattr(parts.loss, "classes", 1))
    if rows == "doubled":
        layout = Layout(4, by=(-1, -1, 0), n_coordinates=14, mixed=True, doubles=True)
    else:
        layout = Layout(4, n_coordinates=5, mixed=rows == "entries")
    rng, block = np.random.default_rng(3), layout.allocate(n, kind)
    # Larger and larger, so that sequential optimizers rescale weights on the way.
    block.rows.values[:, :4] = rng.normal(size=(n, 4)) * np.geomspace(0.1, 3.0, n)[:, None]
    block.y[:], block.weight[:] = rng.integers(0, max(2, n_outputs), n), rng.uniform(0.5, 2.0, n)
    if rows == "doubled":
        block.rows.ids[:, 6:] = 4 + rng.integers(0, 9, (n, 3))
    size = layout.n_coordinates * n_outputs
    made = make_state(
        rng.normal(size=size).astype(kind) * np.dtype(kind).type(0.1),
        parts.optimizer.n_slots,
        np.dtype(kind),
        few=rows != "dense",
        **{"batches": not is_sequential(parts.optimizer), **state},
    )
    pace = StepContext(batch, size - n_outputs, 0.0, 1e-3, 1.0)
    return made, pace, block, new_scratch(n_outputs, kind, most_entries(block, layout))


@pytest.mark.parametrize(
    ("optimizer", "penalty"), [("sgd", "l1:l1=0.02"), ("adagrad", "elastic-net:l1=0.01,l2=0.05"), ("adam", "l2:l2=0.1")]
)
def test_penalties_are_paid_at_once_where_rows_meet_a_few_weights(optimizer: str, penalty: str) -> None:
    """As dense rows pay them: what weights that rest owe would be missing from the mean."""
    parts = Parts(
        make("loss", "logistic"), make("penalty", penalty), make("optimizer", optimizer), make("schedule", "constant")
    )
    means = []
    for rows, kind in (("dense", {}), ("entries", {"batches": False})):
        state, pace, block, scratch = set_up(parts, rows, "float64", 3, lag=True, **kind)
        block.rows.values[::2, 1] = 0.0
        state.clock[SINCE] = 0
        fit(parts, block, np.zeros(300, np.int32), np.zeros(1, np.int64), state, pace, scratch)
        means.append(state.weights.copy())
        average(state, means[-1])
    np.testing.assert_allclose(means[0], means[1], rtol=1e-12)


def test_it_is_that_of_the_weights_after_every_epoch_of_full_batches() -> None:
    settings = {"optimizer": "adagrad", "learning_rate": 0.3, "schedule": "constant", "batch_size": "full"}
    each = [train("delay", wide=True, epochs=k, **settings).weights for k in range(1, 7)]
    found = train("delay", wide=True, epochs=6, average=2, **settings)
    np.testing.assert_allclose(found.weights, np.mean(each[2:], axis=0), rtol=1e-11, atol=1e-13)


def test_a_penalty_of_wide_rows_is_averaged_as_paid() -> None:
    """Epoch by epoch, as above; without averaging the same weights are reached late."""
    settings = {
        "optimizer": "sgd",
        "learning_rate": 0.5,
        "schedule": "constant",
        "batch_size": "full",
        "penalty": "l2:l2=0.1",
    }
    each = [train("delay", wide=True, epochs=k, average=k - 1, **settings).weights for k in range(1, 5)]
    found = train("delay", wide=True, epochs=4, average=1, **settings)
    np.testing.assert_allclose(found.weights, np.mean(each[1:], axis=0), rtol=1e-11, atol=1e-13)


def test_the_winner_of_a_race_is_averaged() -> None:
    """From the end of the race on, if that is later; its losses are those of the same run without averaging."""
    for wide in (False, True):
        plain = train("late", wide=wide, optimizer="race", epochs=3)
        found = train("late", wide=wide, optimizer="race", epochs=3, average=0.5)
        assert found.metrics["progressive_loss"] == plain.metrics["progressive_loss"]
        assert found.provenance["race"] == plain.provenance["race"]
        assert 1e-4 < np.abs(found.weights - plain.weights).max() < 1.0


def test_before_it_begins_it_is_the_last_weights() -> None:
    parts = Parts(make("loss", "logistic"), make("penalty", "none"), make("optimizer", "sgd"), make("schedule", "constant"))
    state, pace, block, scratch = set_up(parts, "dense", "float64", 3, lag=True)
    fit(parts, block, np.zeros(31, np.int32), np.zeros(1, np.int64), state, pace, scratch)
    found = state.weights.copy()
    average(state, found)
    assert np.array_equal(found, state.weights)
    state.clock[SINCE] = state.clock[STEPS]
    update(parts, state, pace, 1, 0.0)
    average(state, found := state.weights.copy())
    assert np.array_equal(found, state.weights), "of a single step it is the weights too"


def test_averaging_leaves_the_steps_as_they_are() -> None:
    """Weights, memory and losses."""
    parts = Parts(make("loss", "logistic"), make("penalty", "none"), make("optimizer", "adam"), make("schedule", "constant"))
    states: list[State] = []
    for lag in (False, True):
        state, pace, block, scratch = set_up(parts, "dense", "float32", 3, lag=lag)
        state.clock[SINCE] = 5
        fit(parts, block, np.zeros(360, np.int32), np.zeros(1, np.int64), state, pace, scratch)
        states.append(state)
    for name in ("weights", "slots", "grad", "clock", "tally"):
        assert np.array_equal(*(getattr(state, name) for state in states))


# --- law: everything that takes a model takes the averaged one


def test_validation_judges_the_average(tmp_path: Path) -> None:
    pq.write_table(TABLE.slice(0, 1000), tmp_path / "valid.parquet")
    settings = {"optimizer": "sgd", "learning_rate": 2.0, "schedule": "constant", "batch_size": 8, "average": 0.3, "epochs": 3}
    model = train(**settings, valid=str(tmp_path / "valid.parquet"))
    assert model.metrics["valid"]["loss"] == pytest.approx(model.evaluate(str(tmp_path / "valid.parquet"))["loss"], rel=1e-12)
    rough = train(**{**settings, "average": "none"}, valid=str(tmp_path / "valid.parquet"))
    assert model.metrics["valid"]["loss"] < rough.metrics["valid"]["loss"] - 1e-3
    best = train(**settings, validation=0.2, patience=1, min_improvement=0.5)
    one = train(**{**settings, "epochs": 1}, validation=0.2)
    assert np.array_equal(best.weights, one.weights), "kept are the averaged weights of the first epoch"


def test_polishing_starts_from_the_average() -> None:
    """At a rate so high that the last weights are far off."""
    settings = {"optimizer": "sgd", "learning_rate": 4.0, "schedule": "constant", "batch_size": 4, "penalty": "l2:l2=1e-3"}
    events: list[Any] = []
    for average_ in (0.2, "none"):
        train(**settings, average=average_, polish=1, on_progress=events.append)
    averaged, last = [event.metrics["objective"] for event in events if event.kind == "polish"]
    assert averaged < last - 1e-2


def test_tables_that_come_one_by_one_are_averaged() -> None:
    """From the second on; one alone is a run of an epoch."""
    kept = TABLE.drop_columns([*NUMBERS, "delay", "kind"])
    settings = {**BASE, "optimizer": "sgd", "learning_rate": 0.5, "schedule": "inverse-scaling:power=0.6", "batch_size": 8}
    trainer = streamsgd.Trainer("late", **settings, average=0.25)
    alone = streamsgd.train(kept, "late", **settings, average=0.25)
    assert np.array_equal(trainer.partial_fit(kept).model.weights, alone.weights)
    later = streamsgd.Trainer("late", **settings, average=1)
    first = later.partial_fit(kept).model.weights
    assert np.array_equal(first, streamsgd.train(kept, "late", **settings).weights)
    second = later.partial_fit(kept).model.weights
    both = streamsgd.train(kept, "late", **{**settings, "epochs": 2, "validation": "none"}, average=1).weights
    np.testing.assert_allclose(second, both, rtol=1e-12)


# --- law: same data and settings, same bytes

CASES: dict[str, dict[str, Any]] = {
    "numbers": {"exclude": ["delay", "kind", *NUMBERS], "optimizer": "sgd", "schedule": "inverse-scaling:power=0.6"},
    "single precision": {"exclude": ["delay", "kind", *NUMBERS], "precision": "float32", "average": 0.7},
    "row by row": {"optimizer": "normalized", "batch_size": "auto"},
    "a race": {"optimizer": "race", "average": 1.3, "batch_size": "auto"},
    "a penalty": {"optimizer": "adagrad", "penalty": "l1:l1=0.001"},
    "classes": {"target": "kind", "exclude": ["delay", "late"], "optimizer": "adam"},
    "standard errors": {"optimizer": "adagrad", "penalty": "l2:l2=0.001", "standard_errors": True},
    "of classes": {
        "target": "kind",
        "exclude": ["delay", "late", *NUMBERS],
        "standard_errors": True,
        "polish": 3,
        "average": "none",
    },
    "validated, polished": {
        "optimizer": "adagrad",
        "standard_errors": True,
        "polish": 4,
        "validation": 0.2,
        "patience": 1,
        "min_improvement": 0.9,
    },
}
RUN: dict[str, Any] = {
    **BASE,
    "shuffle": "corgi",
    "target": "late",
    "exclude": ["delay", "kind"],
    "chunk_rows": 1000,
    "epochs": 2,
    "average": 0.45,
    "batch_size": 64,
}
PLACES = (
    {"executor": "dask", "threads": 2, "memory": "3GB"},
    {"executor": "inline", "memory": "2GB"},
    {"executor": "dask", "threads": 1, "memory": "20GB"},
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same rows in row groups that are merged, read whole and streamed in slices."""
    folder = tmp_path_factory.mktemp("averaging")
    for k, size in enumerate((70, 600, 1000)):
        pq.write_table(TABLE.slice(k * N // 3, N // 3), folder / f"{k}.parquet", row_group_size=size)
    return folder


def run(folder: Path, **settings: Any) -> tuple[bytes, Report]:
    given = {**RUN, **settings}
    model, report = train_model(str(folder), make_settings(given))
    return model.to_bytes(), report


@pytest.mark.parametrize("case", CASES)
def test_stopped_at_every_chunk_it_ends_with_the_same_bytes(folder: Path, tmp_path: Path, case: str) -> None:
    """Also where each start has another executor, other threads and another memory budget."""
    alone, _ = run(folder, **CASES[case])
    (result, report), stops = finish_chunk_by_chunk(partial(run, folder), tmp_path / "saved", cycle(PLACES), **CASES[case])
    assert report.epochs == 2
    assert result == alone
    passes = 2 + CASES[case].get("standard_errors", False)
    # Of a pass of polishing the chunks are added up apart, so that only its end is sure to be a place to stop at.
    assert stops >= 3 * passes + CASES[case].get("polish", 0) - 3 or case == "validated, polished"


def test_where_it_begins_does_not_depend_on_chunks() -> None:
    found = [train(optimizer="sgd", batch_size=8, average=0.37, chunk_rows=rows).weights for rows in (700, 100_000)]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-12, atol=1e-14)


def test_it_compiles_nothing_more_than_a_run_without() -> None:
    train(optimizer="adagrad")
    before = len(fit.signatures)
    for average_ in (0.0, 0.5, "auto"):
        train(optimizer="adagrad", average=average_)
    assert len(fit.signatures) == before


# --- law: bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"average": "soon"}, "--average: 'soon' is not a number of at least 0 or auto or none"),
        ({"average": -0.1}, "--average: -0.1 is not a number of at least 0"),
        ({"average": "nan"}, "--average: 'nan' is not a number"),
        ({"average": 1}, "--average 1 is from an epoch on that does not come: there are 1"),
        ({"average": "inf"}, "--average: 'inf' is not a number"),
        ({"average": 0.5, "optimizer": "coin"}, "which coin does not: take normalized"),
        (
            {"average": 0.5, "optimizer": "normalized", "penalty": "l2"},
            "needs an optimizer of batches, such as adagrad: .* normalized lets",
        ),
        (
            {"average": 0.5, "optimizer": "sgd", "penalty": "l2", "bits": 18, "exclude": []},
            "of which there may be 65,536; here",
        ),
    ],
)
def test_what_cannot_be_averaged_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        train(**settings)


def test_what_it_takes_is_part_of_the_plan() -> None:
    plain, averaged = (
        streamsgd.plan(TABLE, "late", **{**BASE, "average": a, "bits": 20, "optimizer": "normalized"}) for a in ("none", "auto")
    )
    assert averaged.budget.model - plain.budget.model == 16 * plain.encoding.n_coordinates
    assert (averaged.average_from, plain.average_from) == (0.1, np.inf)
