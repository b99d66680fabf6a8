"""Laws of validation: held-out rows are scored and never learned from; patience keeps the best weights."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamsgd.compute.executors import Inline
from streamsgd.model.evaluate import Evaluator
from streamsgd.model.model import Model
from streamsgd.settings.make import make_settings
from streamsgd.stream.stream import Stream
from streamsgd.training.job import Job
from streamsgd.training.prepare import prepare
from streamsgd.training.run import train_model
from streamsgd.training.validation import Validator

BASE = {"target": "y", "executor": "inline", "epochs": 3}


def rows(n: int = 4000, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng([seed, 7])
    x = rng.normal(size=(n, 3))
    y = x @ [1.0, -2.0, 0.5] + rng.normal(size=n)
    return pa.table({**{f"x{j}": x[:, j] for j in range(3)}, "y": y})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    pq.write_table(rows(), tmp_path / "d.parquet", row_group_size=500)
    return tmp_path / "d.parquet"


@pytest.fixture
def valid(tmp_path: Path) -> Path:
    pq.write_table(rows(1000, seed=1), tmp_path / "v.parquet", row_group_size=300)
    return tmp_path / "v.parquet"


def train(data: Path, **settings: Any) -> Model:
    return train_model(str(data), make_settings({**BASE, **settings}))[0]


def held_out(data: Path, share: float) -> np.ndarray:
    """Return which rows of the file are held out, by asking for them."""
    settings = make_settings({**BASE, "validation": share, "scale": "none", "precision": "float64"})
    job = prepare(str(data), settings)
    seen: list[np.ndarray] = []
    for filled in Stream(job.recipe, job.plan, Inline()).chunks():
        seen += [block.y.copy() for block in filled.held_blocks()]
    return np.isin(pq.read_table(data)["y"].to_numpy(), np.concatenate(seen))


def test_held_out_metrics_are_of_the_final_weights_on_those_rows(data: Path) -> None:
    """Of one chunk per epoch: its other rows are learned, then the held-out ones are scored."""
    model = train(data, validation=0.25, batch_size=1, learning_rate=1e-3)
    table = pq.read_table(data)
    mine = table.filter(pa.array(held_out(data, 0.25)))
    assert model.provenance["counts"]["held"] == mine.num_rows
    assert model.provenance["rows_learned"] == 3 * (4000 - mine.num_rows)
    error = model.predict(mine) - mine["y"].to_numpy()
    found = model.metrics["held_out"]
    assert found["rows"] == mine.num_rows
    assert found["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-6)
    assert len(model.metrics["held_out_losses"]) == 3


def test_held_out_rows_leave_no_trace_in_the_weights(data: Path, tmp_path: Path) -> None:
    """Targets of held-out rows may be anything: the weights stay the same bits."""
    held = held_out(data, 0.25)
    table = pq.read_table(data)
    settings = {"validation": 0.25, "scale": "none", "chunk_rows": 900}
    before = train(data, **settings)
    y = np.where(held, 1e6, table["y"].to_numpy())
    pq.write_table(table.set_column(3, "y", pa.array(y)), data, row_group_size=500)
    np.testing.assert_array_equal(train(data, **settings).weights, before.weights)


def test_the_share_is_kept(data: Path) -> None:
    for share in (0.01, 0.2, 0.9):
        spread = 5 * np.sqrt(4000 * share * (1 - share))
        assert abs(held_out(data, share).sum() - 4000 * share) < spread


def test_a_data_set_of_its_own_is_scored_after_every_epoch(data: Path, valid: Path) -> None:
    model = train(data, valid=str(valid))
    again = Evaluator.for_model(model, str(valid), Inline(), block_bytes=10_000).evaluate(model)
    found = model.metrics["valid"]
    assert found["rows"] == 1000
    assert found["rmse"] == pytest.approx(again["rmse"], rel=1e-9)
    assert len(model.metrics["valid_losses"]) == 3


def test_out_of_patience_it_stops_with_the_best_weights(data: Path, valid: Path) -> None:
    settings = {"learning_rate": 0.3, "schedule": "constant", "epochs": 40, "valid": str(valid)}
    model = train(data, **settings, patience=3, min_improvement=0.0)
    losses = model.metrics["valid_losses"]
    best = int(np.argmin(losses))
    assert len(losses) < 40
    assert best == len(losses) - 1 - 3, "three misses after the best, no more"
    found = Evaluator.for_model(model, str(valid), Inline(), block_bytes=1 << 20).evaluate(model)
    assert found["loss"] == pytest.approx(losses[best], rel=1e-6)


def test_within_epochs_it_judges_between_chunks_and_once_at_the_end(data: Path, valid: Path) -> None:
    model = train(data, valid=str(valid), chunk_rows=500, validate_every=1000, epochs=2)
    assert len(model.metrics["valid_losses"]) == 2 * (3 + 1)


# --- the judge alone


class Says:
    """Stands for an evaluator: gives one loss after another."""

    def __init__(self, losses: list[float | None]) -> None:
        self.losses = iter(losses)

    def evaluate(self, _model: Any) -> dict[str, float]:
        loss = next(self.losses)
        return {"rows": 0} if loss is None else {"rows": 5, "loss": loss}


def weighing(job: Job, weight: float) -> Model:
    """Return a model of one weight."""
    return Model(job.parts.loss, job.encoding, job.target, np.full((1, 1), weight))


def judged(data: Path, losses: list[float | None], **settings: Any) -> Validator:
    """Return a judge that was told these losses, of weights 0, 1, 2 ..."""
    job = prepare(str(data), make_settings({**BASE, "valid": str(data), **settings}))
    judge = Validator(job, Says(losses))  # type: ignore[arg-type]
    for k in range(len(losses)):
        judge.judge(partial(weighing, job, float(k)), end_of_epoch=True)
        if judge.exhausted:
            break
    return judge


@pytest.mark.parametrize(
    ("losses", "best", "exhausted"),
    [
        ([3.0, 2.0, 1.0, 0.5], 3, False),
        ([3.0, 2.0, 2.5, 2.4, 1.0], 1, True),
        ([3.0, 2.0, 2.5, 1.0, 1.5], 3, False),
        ([-3.0, -2.9999, -2.9998], 0, True),
        ([-1.0, -2.0, -3.0], 2, False),
        ([0.0, 0.0, 0.0], 0, True),
        ([2.0, None, None, None, 1.0], 4, False),
        ([None, None, 1.0], 2, False),
        ([float("inf"), 5.0, 6.0], 1, False),
    ],
)
def test_patience_counts_misses_in_a_row(data: Path, losses: list[float | None], best: int, exhausted: bool) -> None:
    """Also below zero, where a Poisson loss may be, and past judgements of no row at all."""
    judge = judged(data, losses, patience=2, min_improvement=1e-3)
    assert judge.best_weights is not None
    assert judge.best_weights.tolist() == [float(best)]
    assert judge.exhausted == exhausted


def test_improvements_too_small_to_count_are_misses(data: Path) -> None:
    assert judged(data, [1.0, 0.999, 0.998], patience=2, min_improvement=0.01).exhausted
    assert not judged(data, [1.0, 0.98, 0.96], patience=2, min_improvement=0.01).exhausted


def test_a_judge_comes_back_as_it_was(data: Path) -> None:
    judge = judged(data, [3.0, 2.0, 2.5], patience=2)
    again = Validator(judge.job, judge.evaluator)
    again.restore(judge.header(), judge.arrays())
    assert again.header() == judge.header()
    assert {k: v.tobytes() for k, v in again.arrays().items()} == {k: v.tobytes() for k, v in judge.arrays().items()}
