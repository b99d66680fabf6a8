"""The race: each learner is what it would be alone, the mixture owes no more than it says, the best one goes on."""

import math
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streamsgd
from streamsgd.errors import DivergedError, SettingsError, Stopped
from streamsgd.features.layout import Layout, most_entries
from streamsgd.kernels.learn.fit import fit
from streamsgd.kernels.learn.race import GAP, LOSSES, MIXED
from streamsgd.kernels.parts.optimizers import Race
from streamsgd.kernels.structs.block import MOST_LEARNERS, Parts, new_scratch
from streamsgd.kernels.structs.rows import OWN
from streamsgd.kernels.structs.state import RACE, State, make_state
from streamsgd.kernels.structs.step import StepContext
from streamsgd.model.model import Model
from streamsgd.settings.registry import make
from streamsgd.show.model import model_summary, model_text
from streamsgd.training import learner
from streamsgd.training import race as racing

N, WIDTH, VALUES = 2000, 4, 30
SPECS = ("logistic", "poisson", "squared", "huber:delta=0.5", "quantile:level=0.3", "hinge")
PLAIN: dict[str, Any] = {"executor": "inline", "memory": "2GB", "precision": "float64", "epochs": 1, "resume": "never"}
DENSE = Layout(WIDTH, n_coordinates=WIDTH + 1)
WIDE = Layout(WIDTH, by=(-1, -1), n_coordinates=WIDTH + VALUES + 1, mixed=True, doubles=True)


def rows(layout: Layout, loss: str, seed: int = 0, *, weighted: bool = False) -> Any:
    """Return a block of rows of columns of very different units, and of two values each, often the same."""
    rng = np.random.default_rng(seed)
    block = layout.allocate(N, "float64")
    x = rng.standard_t(3, size=(N, WIDTH)) * [1.0, 100.0, 0.01, 1.0]
    block.rows.values[:, :WIDTH] = x
    score = x @ [1.0, -0.01, 50.0, 0.3] / 2 - 0.3
    if layout.by:
        ids = rng.integers(0, VALUES, (N, 2))
        block.rows.ids[:, WIDTH + OWN :] = WIDTH + ids
        score = score + np.sin(ids).sum(axis=1)
    if loss.startswith(("logistic", "hinge", "squared-hinge")):
        block.y[:] = rng.random(N) < 1 / (1 + np.exp(-score))
    elif loss == "poisson":
        block.y[:] = rng.poisson(np.exp(np.clip(score / 4, -3, 2)))
    else:
        block.y[:] = score + rng.normal(size=N)
    block.weight[:] = rng.gamma(1.0, 2.0, N) if weighted else 1.0
    return block


def learn(block: Any, layout: Layout, parts: Parts, state: State, n: int = N) -> State:
    scratch = new_scratch(1, "float64", most_entries(block, layout))
    pace = StepContext(1 << 60, layout.n_coordinates - 1, 0.0, 1 / N, 1.0)
    fit(parts, block, np.zeros(n, np.int32), np.zeros(1, np.int64), state, pace, scratch)
    return state


def race(block: Any, layout: Layout, loss: str, schedule: str = "constant") -> tuple[Parts, State]:
    parts = Parts(make("loss", loss), make("penalty", "none"), Race(0.5), make("schedule", schedule))
    return parts, learn(block, layout, parts, racing.start_race(np.zeros(layout.n_coordinates)))


def alone(block: Any, layout: Layout, parts: Parts, rate: float) -> State:
    start = make_state(np.zeros(layout.n_coordinates), 2, np.float64, few=layout.mixed, batches=False)
    return learn(block, layout, parts._replace(optimizer=make("optimizer", "normalized", learning_rate=rate)), start)


# --- law: a learner in a race learns what it would learn alone


@pytest.mark.parametrize(("loss", "layout"), [("logistic", WIDE), ("huber:delta=0.5", DENSE)])
def test_every_learner_is_the_one_that_it_would_be_alone(loss: str, layout: Layout) -> None:
    block = rows(layout, loss, weighted=True)
    parts, state = race(block, layout, loss, "inverse-scaling:power=0.1")
    for k, rate in enumerate(racing.rates(0.5)):
        expected = alone(block, layout, parts, rate)
        np.testing.assert_allclose(racing.weights_of(state, k), expected.weights, rtol=1e-7, atol=1e-9)
        assert racing.losses(state)[k] == pytest.approx(expected.tally[0], rel=1e-9)


def test_dense_rows_learn_alone_what_lists_of_entries_do() -> None:
    """Two kernels for one rule."""
    for loss in ("logistic", "quantile"):
        dense, mixed = rows(DENSE, loss), Layout(WIDTH, n_coordinates=WIDTH + 1, mixed=True)
        wide = rows(mixed, loss)
        parts = Parts(make("loss", loss), make("penalty", "none"), Race(), make("schedule", "constant"))
        one, other = alone(dense, DENSE, parts, 0.5), alone(wide, mixed, parts, 0.5)
        np.testing.assert_allclose(one.weights, other.weights, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(one.slots, other.slots, rtol=1e-10)
        np.testing.assert_allclose(one.tally, other.tally, rtol=1e-10)


# --- law: the mixture is at most so much behind the best learner


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("loss", SPECS)
def test_the_mixture_owes_no_more_than_it_says(loss: str, weighted: bool) -> None:
    layout = WIDE if loss in ("logistic", "huber:delta=0.5") else DENSE
    for seed in range(3):
        parts, state = race(rows(layout, loss, seed, weighted=weighted), layout, loss)
        mixing = getattr(parts.loss, "mixing", "")
        racing.check_mixture(state, mixing)
        mixed, best = state.sums[RACE + MIXED], racing.losses(state).min()
        assert mixed <= best + racing.owed(state, mixing) + 1e-9
        assert mixed == pytest.approx(state.tally[0], rel=1e-12)
        assert mixing == "squares" or racing.owed(state, mixing) < 0.5 * best


def test_the_mixture_of_likelihoods_is_that_of_bayes() -> None:
    """The total is -log of the mean over learners of the likelihood of all rows."""
    _, state = race(rows(DENSE, "logistic"), DENSE, "logistic")
    losses = racing.losses(state)
    expected = losses.min() - math.log(np.exp(losses.min() - losses).mean())
    assert state.sums[RACE + MIXED] == pytest.approx(expected, rel=1e-12)


def test_what_was_never_seen_does_not_break_it() -> None:
    """The best learner changes after the others were far behind: no share is lost for good."""
    block = rows(DENSE, "logistic")
    parts, state = race(block, DENSE, "logistic")
    state.sums[RACE + LOSSES : RACE + LOSSES + MOST_LEARNERS] = [0.0, 5000.0, 5000.0, 5000.0, 5000.0, 4000.0]
    state.sums[RACE + MIXED] = state.sums[RACE + LOSSES] + math.log(MOST_LEARNERS)
    block.y[:] = 1.0 - block.y
    for _ in range(20):
        learn(block, DENSE, parts, state)
    racing.check_mixture(state, "likelihood")


def test_a_broken_promise_is_noticed() -> None:
    _, state = race(rows(DENSE, "logistic"), DENSE, "logistic")
    state.sums[RACE + MIXED] += 2.0
    with pytest.raises(AssertionError, match="the mixture lost"):
        racing.check_mixture(state, "likelihood")
    state.sums[RACE + GAP] = 0.0
    with pytest.raises(AssertionError, match="the mixture lost"):
        racing.check_mixture(state, "")


# --- law: runs


def test_values_that_overflow_while_it_lasts_are_told_of_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the race ends in the same chunk, so that its promise is looked at first."""
    monkeypatch.setattr(learner, "RACE_ROWS", 1500)
    x, names = np.random.default_rng(0).normal(size=(2, N)), np.resize(["a", "b", "c"], N)
    data = pa.table({"x": 1e19 * x[0], "c": names, "y": x[1]})
    with pytest.raises(DivergedError, match="the loss left the finite numbers in epoch 0, chunk 0"):
        streamsgd.train(data, "y", executor="inline", memory="1GB", epochs=1, chunk_rows=N, scale="none")


def table(n: int = 3000, seed: int = 0, *, wide: bool = False) -> pa.Table:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    columns = {f"x{j}": x[:, j] for j in range(3)}
    score = x @ [1.0, -2.0, 0.5]
    if wide:
        site = rng.integers(0, 40, n)
        columns["site"] = [f"s{k}" for k in site]
        score = score + np.cos(site)
    return pa.table({**columns, "y": (rng.random(n) < 1 / (1 + np.exp(-score))).astype(int)})


def train(data: Any, **settings: Any) -> Model:
    return streamsgd.train(data, "y", **{**PLAIN, **settings})


@pytest.mark.parametrize("wide", [False, True], ids=["dense", "wide"])
def test_the_model_is_that_of_the_best_rate(wide: bool) -> None:
    data = table(wide=wide)
    model = train(data, shuffle="none")
    told = model.provenance["race"]
    best = int(np.argmin(told["losses"]))
    assert told["rate"] == told["rates"][best]
    assert told["rows"] == 3000
    single = train(data, shuffle="none", optimizer=f"normalized:learning_rate={told['rate']}")
    np.testing.assert_allclose(model.weights, single.weights, rtol=1e-6, atol=1e-8)
    assert model.metrics["progressive_loss"] == pytest.approx(told["losses"][best], rel=1e-12), "of what is saved"
    assert model.metrics["progressive_loss"] == pytest.approx(single.metrics["progressive_loss"], rel=1e-6)
    assert told["mixture"] <= single.metrics["progressive_loss"] + math.log(6) / 3000 + 1e-12


def test_lists_of_entries_go_on_row_by_row_as_if_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    data = table(wide=True)
    monkeypatch.setattr(learner, "RACE_ROWS", 1000)
    model = train(data, shuffle="none")
    single = train(data, shuffle="none", optimizer=f"normalized:learning_rate={model.provenance['race']['rate']}")
    assert model.provenance["race"]["rows"] == 1000
    assert "normalized" in model.provenance["parts"]["optimizer"]
    np.testing.assert_allclose(model.weights, single.weights, rtol=1e-6, atol=1e-8)


def test_dense_rows_go_on_in_batches_that_lose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    data = table(40_000)
    single = train(data, optimizer="normalized")
    monkeypatch.setattr(learner, "RACE_ROWS", 10_000)
    model = train(data)
    assert "NormalizedBatches" in model.provenance["parts"]["optimizer"]
    assert model.metrics["progressive_loss"] < single.metrics["progressive_loss"] * 1.002
    assert model.evaluate(table(40_000, 1))["log_loss"] < single.evaluate(table(40_000, 1))["log_loss"] * 1.002


def test_batches_after_a_race_move_by_the_rule() -> None:
    """G <- G + g^2, w <- w - rate r g / sqrt(G), from where the race left them."""
    block = rows(DENSE, "squared")
    parts, state = race(block, DENSE, "squared")
    k, batch = 3, 8
    rate = racing.rates(0.5)[k]
    after = racing.end_race(state, make_state(racing.weights_of(state, k), 2, np.float64), k, batch)
    w, total, r = after.weights.copy(), after.slots[0].copy(), after.slots[1].copy()
    design = np.c_[block.rows.values[:, :WIDTH], np.ones(N)]
    for first in range(0, 64, batch):
        some = slice(first, first + batch)
        g = design[some].T @ (design[some] @ w - block.y[some]) / batch
        total += g * g
        w -= rate * r * g / np.sqrt(total)
    parts = parts._replace(optimizer=racing.successor(rate, in_batches=True))
    pace, scratch = StepContext(batch, WIDTH, 0.0, 0.0, 1.0), new_scratch(1, "float64", WIDTH + 1)
    fit(parts, block, np.zeros(64, np.int32), np.zeros(1, np.int64), after, pace, scratch)
    np.testing.assert_allclose(after.weights, w, rtol=1e-10)


PLACES = ({"executor": "dask", "threads": 2, "memory": "3GB"}, {"memory": "700MB"}, {"executor": "dask", "threads": 1})


@pytest.mark.parametrize("wide", [False, True], ids=["dense", "wide"])
def test_stopped_at_every_chunk_it_ends_with_the_same_bytes(
    wide: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, in and after the race, each start with another memory budget."""
    monkeypatch.setattr(learner, "RACE_ROWS", 1250)
    pq.write_table(table(wide=wide), tmp_path / "a.parquet", row_group_size=100)
    settings = {**PLAIN, "resume": "auto", "chunk_rows": 300, "epochs": 1 if not wide else 2}
    whole = streamsgd.train(tmp_path / "a.parquet", "y", **settings)
    assert whole.provenance["race"]["rows"] == 1250
    stops = 0
    for place in cycle(PLACES):
        try:
            again = streamsgd.train(
                tmp_path / "a.parquet", "y", checkpoint=str(tmp_path / "saved"), time_limit=1e-9, **{**settings, **place}
            )
        except Stopped:
            stops += 1
            continue
        break
    assert stops >= 8
    assert again.to_bytes() == whole.to_bytes()


def test_tables_that_come_one_by_one_race_on() -> None:
    """Each brings new rows, so that the end of one is no reason to stop."""
    trainer = streamsgd.Trainer("y", memory="2GB", precision="float64")
    for seed in range(3):
        trainer.partial_fit(table(seed=seed))
    model = trainer.model
    assert model.provenance["race"] is None
    assert model.evaluate(table(seed=9))["log_loss"] < 0.44
    assert np.isfinite(model.weights).all()


def test_show_says_what_each_rate_came_to() -> None:
    model = train(table())
    (line,) = [line for line in model_text(model_summary(model)) if line.startswith("  race")]
    assert "3,000 rows" in line
    assert all(f"{rate:g}: " in line for rate in racing.rates(0.5))


def test_validation_sees_the_learner_that_leads() -> None:
    model = train(table(), validation=0.2, validate_every=500)
    assert model.metrics["held_out"]["log_loss"] < 0.5


# --- law: who races


def chosen(data: pa.Table, **settings: Any) -> str:
    job = streamsgd.plan(data, "y", **{"executor": "inline", "memory": "2GB", **settings})
    return type(job.parts.optimizer).__name__


def test_one_pass_races_and_several_passes_over_dense_rows_do_not() -> None:
    dense, wide = table(200), table(200, wide=True)
    assert chosen(dense, epochs=1) == chosen(wide, epochs=1) == chosen(wide) == "Race"
    assert chosen(dense) == chosen(dense, epochs=5) == "Adam"


def test_who_says_something_else_is_heard() -> None:
    dense, wide = table(200), table(200, wide=True)
    for settings in ({"learning_rate": 0.1}, {"batch_size": 256}, {"schedule": "cosine"}):
        assert chosen(dense, epochs=1, **settings) == "Adam"
    assert chosen(wide, batch_size=256) == "Adam"
    for settings in ({"learning_rate": 0.1}, {"schedule": "cosine"}):
        assert chosen(wide, **settings) == "Normalized"
    assert chosen(dense, optimizer="sgd", epochs=1) == "SGD"


def test_where_memory_is_short_there_is_no_race() -> None:
    assert chosen(table(200, wide=True), cross=["site*x0"], bits=20, memory="3GB") == "Race"
    assert chosen(table(200, wide=True), cross=["site*x0"], bits=20, memory="580MB") == "Normalized"


def test_several_classes_do_not_race_yet() -> None:
    data = table(200, wide=True)
    classes = pa.array([f"c{k % 3}" for k in range(200)])
    assert chosen(data.set_column(data.column_names.index("y"), "y", classes)) == "Normalized"
    with pytest.raises(SettingsError, match="race"):
        chosen(data.set_column(data.column_names.index("y"), "y", classes), optimizer="race")
