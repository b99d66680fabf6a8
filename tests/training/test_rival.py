"""A machine beside the linear model: each has the bits that it has alone; mixed they cost log 2 at most above the better."""

from itertools import cycle, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import finish_chunk_by_chunk

import streamsgd
from streamsgd.errors import BudgetError, DivergedError, Stopped
from streamsgd.model.model import Model
from streamsgd.settings.make import make_settings
from streamsgd.training import learner
from streamsgd.training.callbacks import OnEvent, Stop
from streamsgd.training.events import Event
from streamsgd.training.memory import model_bytes
from streamsgd.training.rivals.rival import mixture
from streamsgd.training.run import dry_run, train_model

N = 4000
BASE: dict[str, Any] = {"target": "y", "chunk_rows": 800, "memory": "2GB", "executor": "inline", "bits": 12, "epochs": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write two columns of which the target `pairs` needs both together, `sums` each alone."""
    rng = np.random.default_rng(3)
    a, b, shop = rng.integers(0, 6, N), rng.integers(0, 7, N), rng.integers(0, 900, N)
    product, alone = rng.normal(size=(6, 7)), rng.normal(size=6)
    noise = rng.logistic(size=N)
    columns = {"a": [f"a{k}" for k in a], "b": [f"b{k}" for k in b], "shop": [f"s{k}" for k in shop]}
    table = pa.table(
        {
            **columns,
            "pairs": (3.0 * product[a, b] + noise > 0).astype(int),
            "sums": (1.5 * alone[a] + noise > 0).astype(int),
            "price": 3.0 * product[a, b] + noise,
        }
    )
    path = tmp_path_factory.mktemp("rival") / "d.parquet"
    pq.write_table(table, path, row_group_size=250)
    return path


def train(data: Path, target: str, model: str, **more: Any) -> Model:
    others = [name for name in ("pairs", "sums", "price") if name != target]
    return train_model(str(data), make_settings({**BASE, "target": target, "exclude": others, "model": model, **more}))[0]


@pytest.mark.parametrize(
    ("target", "model", "kept"), [("pairs", "fm", "fm"), ("sums", "fm:rate=0.14", "linear"), ("price", "fm", "fm")]
)
def test_each_is_what_it_is_alone_and_the_better_one_is_kept(data: Path, target: str, model: str, kept: str) -> None:
    both, linear = (train(data, target, name) for name in (model, "linear"))
    beside = both.metrics["epochs"]["beside"]
    machine = train(data, target, f"fm:rate={beside['rates']['rate'] if 'rates' in beside else 0.14},against=none")
    assert beside["kept"] == kept
    assert beside["linear"] == linear.metrics["progressive_loss"]
    assert beside["fm"] == machine.metrics["progressive_loss"]
    assert both.metrics["progressive_loss"] == beside[kept]
    assert both.is_linear == (kept == "linear")
    assert np.array_equal(both.weights, linear.weights if kept == "linear" else machine.weights)
    assert beside["mixture"] <= beside["linear"] + beside["at_most_above_linear"]
    if target != "price":
        assert beside["at_most_above_linear"] == pytest.approx(np.log(2.0) / N)
    assert np.isfinite(
        both.predict_proba(pq.read_table(data)) if target != "price" else both.predict(pq.read_table(data))
    ).all()


@pytest.mark.parametrize("race_rows", [1500, 1 << 17])
@pytest.mark.parametrize("model", ["fm", "fwfm"])
def test_the_rate_of_factors_that_leads_goes_on_with_the_bits_that_it_has_alone(
    data: Path, model: str, race_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = {rate: train(data, "pairs", f"{model}:rate={rate},against=none") for rate in (0.035, 0.07, 0.14)}
    monkeypatch.setattr(learner, "RACE_ROWS", race_rows)
    both = train(data, "pairs", model)
    beside = both.metrics["epochs"]["beside"]
    rates, rows = beside["rates"], min(race_rows, N)
    assert rates["rows"] == rows
    assert sorted(rates["rates"]) == sorted(alone)
    assert rates["losses"][rates["rates"].index(rates["rate"])] == min(rates["losses"])
    if rows == N:
        sums = [float(alone[rate].metrics["progressive_loss"]) * N for rate in rates["rates"]]
        assert rates["losses"] == pytest.approx(sums, rel=1e-12)
    best = alone[rates["rate"]]
    assert np.array_equal(both.weights, best.weights)
    assert both.metrics["progressive_loss"] == best.metrics["progressive_loss"]
    assert f"rate={rates['rate']}" in both.provenance["parts"]["model"] or rates["rate"] == 0.07


@pytest.mark.parametrize("target", ["pairs", "sums", "price"])
def test_the_mixture_of_machines_and_the_linear_model_costs_at_most_what_is_told_above_the_linear_one(
    data: Path, target: str
) -> None:
    beside = train(data, target, "fm").metrics["epochs"]["beside"]
    assert beside["mixture"] <= beside["linear"] + beside["at_most_above_linear"]
    assert beside["mixture"] <= beside["fm"] + np.log(6.0) / np.log(2.0) * beside["at_most_above_linear"]


class AfterRows(OnEvent):
    """Stops once so many rows are learned."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def on_event(self, event: Event) -> None:
        if event.rows >= self.rows:
            raise Stop


def test_a_run_that_is_stopped_keeps_the_rate_that_leads(data: Path) -> None:
    given = {**BASE, "target": "pairs", "exclude": ["sums", "price"]}
    both, alone = (
        streamsgd.train(str(data), **given, model=model, callbacks=[AfterRows(1600)])
        for model in ("fm", "fm:rate=0.14,against=none")
    )
    beside = both.metrics["epochs"]["beside"]
    assert beside["rates"]["rate"] == 0.14
    assert 1600 <= beside["rates"]["rows"] < N
    assert beside["kept"] == "fm"
    assert np.array_equal(both.weights, alone.weights)


def test_a_rate_that_is_named_is_the_only_one(data: Path) -> None:
    given = {**BASE, "target": "sums", "exclude": ["pairs", "price"]}
    job = streamsgd.plan(str(data), **given, model="fm:rate=0.07")
    assert job.rival is not None
    assert not job.others
    assert len(streamsgd.plan(str(data), **given, model="fm").others) == 2


@pytest.mark.parametrize(("target", "race_rows"), [("sums", 1 << 17), ("pairs", 1500)])
def test_stops_and_threads_leave_no_trace(
    data: Path, tmp_path: Path, target: str, race_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learner, "RACE_ROWS", race_rows)

    def run(**more: Any) -> bytes:
        return train(data, target, "fm", **more).to_bytes()

    alone = run()
    found, stops = finish_chunk_by_chunk(run, tmp_path / "saved", cycle(({"executor": "dask", "threads": 2}, {})))
    assert found == alone
    assert stops >= 4


def overflow(monkeypatch: pytest.MonkeyPatch, *rates: float) -> None:
    """Let machines of these rates leave the finite numbers, as those of large values do."""
    learn = learner.Learner.learn

    def learned(self: learner.Learner, *given: Any) -> None:
        learn(self, *given)
        if getattr(self.job.parts.model, "rate", 0.0) in rates:
            self.state.weights[0] = np.nan

    monkeypatch.setattr(learner.Learner, "learn", learned)


@pytest.mark.parametrize("race_rows", [1500, 1 << 17])
@pytest.mark.parametrize(("rates", "said"), [((0.14,), "rate 0.14 left"), ((0.07, 0.14), "rate 0.07 and 0.14 left")], ids=str)
def test_a_rate_that_leaves_the_finite_numbers_loses_and_ends_no_run(
    data: Path,
    tmp_path: Path,
    race_rows: int,
    rates: tuple[float, ...],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(learner, "RACE_ROWS", race_rows)
    overflow(monkeypatch, *rates)
    both = train(data, "price", "fm")
    assert len([line for line in caplog.messages if said in line]) == 1
    beside = both.metrics["epochs"]["beside"]
    lost = [rate for rate, loss in zip(beside["rates"]["rates"], beside["rates"]["losses"], strict=True) if loss is None]
    assert lost == list(rates)
    assert beside["mixture"] <= beside["linear"] + beside["at_most_above_linear"]
    alone = train(data, "price", f"fm:rate={beside['rates']['rate']},against=none")
    assert np.array_equal(both.weights, alone.weights)

    def run(**more: Any) -> bytes:
        return train(data, "price", "fm", **more).to_bytes()

    assert finish_chunk_by_chunk(run, tmp_path / "saved", repeat({}))[0] == both.to_bytes()


def test_where_no_rate_stays_finite_the_run_ends(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overflow(monkeypatch, 0.035, 0.07, 0.14)
    with pytest.raises(DivergedError, match="left the finite numbers"):
        train(data, "price", "fm")


def test_a_resumed_run_is_not_asked_for_the_memory_of_rates_that_are_gone(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learner, "RACE_ROWS", 1500)
    plain = {"bits": 20, "values": False}
    whole = train(data, "pairs", "fm", **plain)
    given = {**BASE, **plain, "target": "pairs", "exclude": ["sums", "price"], "model": "fm"}
    saved = make_settings({**given, "checkpoint": str(tmp_path / "saved")})
    needed, at_first = [], dry_run(str(data), saved, None)[0]
    for _ in range(3):
        with pytest.raises(Stopped):
            train(data, "pairs", "fm", **plain, checkpoint=str(tmp_path / "saved"), time_limit=1e-9)
        needed.append(dry_run(str(data), saved, None)[0].budget.needed)
    assert needed[0] >= at_first.budget.needed - 10**6, "1500 rows are not over"
    rates = at_first.others[0]
    gone = 2 * model_bytes(rates.n_weights, rates.parts.optimizer, "float32")
    assert needed[1:] == [needed[0] - gone] * 2
    less = f"{(needed[1] + gone // 2) // 10**6}MB"
    with pytest.raises(Stopped):
        train(data, "pairs", "fm", **plain, checkpoint=str(tmp_path / "saved"), time_limit=1e-9, memory=less)
    again = train(data, "pairs", "fm", **plain, checkpoint=str(tmp_path / "saved"), memory=less)
    assert again.to_bytes() == whole.to_bytes()


def test_a_worker_process_gives_the_same_bytes(data: Path) -> None:
    alone = train(data, "sums", "fm").to_bytes()  # first: what it compiles is there for the worker
    assert train(data, "sums", "fm", workers=1).to_bytes() == alone


@pytest.mark.parametrize(
    ("model", "more"),
    [
        ("fm:against=none", {}),
        ("fm:linear=none", {}),
        ("fm", {"epochs": 2}),
        ("fm", {"optimizer": "adam"}),
        ("fm", {"lanes": 2}),
        ("fm", {"learning_rate": 0.5}),
    ],
)
def test_what_is_no_default_in_one_pass_learns_alone(data: Path, model: str, more: dict[str, Any]) -> None:
    job = streamsgd.plan(str(data), **{**BASE, "target": "sums", "exclude": ["pairs", "price"], "model": model, **more})
    assert job.rival is None


def test_where_memory_does_not_hold_both_the_machine_learns_alone(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    given = {**BASE, "target": "sums", "exclude": ["pairs", "price"], "model": "fm", "bits": 20, "values": False}
    both = streamsgd.plan(str(data), **given)
    beside = both.budget.model - streamsgd.plan(str(data), **{**given, "model": "fm:against=none"}).budget.model
    assert both.rival is not None
    assert beside > 10**7
    with pytest.raises(BudgetError) as refused:
        streamsgd.plan(str(data), **{**given, "model": "fm:against=none", "memory": "250MB"})
    alone = streamsgd.plan(str(data), **{**given, "memory": f"{refused.value.least // 10**6 + 1}MB"})
    assert alone.rival is None
    assert "learns without the linear model beside it" in caplog.text
    caplog.clear()
    linear = streamsgd.plan(str(data), **{**given, "memory": f"{both.budget.needed * 5 // 6 // 10**6}MB"})
    assert linear.rival is not None
    assert not linear.others
    assert "tries no other rates of its factors" in caplog.text
    assert f"rate={both.parts.model.rate:g} in --model makes this model in any memory" in caplog.text


# --- law: the mixture's loss is what mixing row by row comes to


def test_the_mixture_of_likelihoods_is_that_of_rows_one_after_another() -> None:
    rng = np.random.default_rng(0)
    losses = rng.exponential(size=(300, 2)) * [1.0, 1.02]
    total, so_far = 0.0, np.zeros(2)
    for row in losses:
        share = np.exp(-(so_far - so_far.min()))
        total -= np.log(share @ np.exp(-row) / share.sum())
        so_far += row
    assert mixture(so_far.tolist(), 1.0) == pytest.approx(total, rel=1e-12)
    assert total <= so_far.min() + np.log(2.0)


def test_the_mean_of_scores_costs_no_more_than_is_told_of_squared_losses() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        y, scores = rng.uniform(-1, 2, 200), rng.uniform(-1, 2, (200, 2))
        eta, total, so_far = 1.0 / 9.0, 0.0, np.zeros(2)
        for target, pair in zip(y, scores, strict=True):
            share = np.exp(-eta * (so_far - so_far.min()))
            total += 0.5 * (target - share @ pair / share.sum()) ** 2
            so_far += 0.5 * (target - pair) ** 2
        assert total <= mixture(so_far.tolist(), eta) + 1e-12
        assert mixture(so_far.tolist(), eta) <= so_far.min() + np.log(2.0) / eta
