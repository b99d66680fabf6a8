"""Small dense tables end at the minimum without being told, as far as rows held out are the better for it."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import streamsgd
from streamsgd.errors import Stopped
from streamsgd.model.model import Model
from streamsgd.training.estimate import outlook
from streamsgd.training.phases.finish import PATIENCE

PLAIN: dict[str, Any] = {"executor": "inline", "memory": "1GB", "chunk_rows": 3_000}


def alike(n: int = 6_000, seed: int = 0) -> pa.Table:
    """Twelve columns that are nearly one: a condition number of about 20,000."""
    rng, of_weights = np.random.default_rng(seed), np.random.default_rng(99)
    x = rng.normal(size=(n, 1)) + 0.03 * rng.normal(size=(n, 12))
    y = x @ (8.0 * of_weights.normal(size=12)) + rng.normal(size=n)
    return pa.table({**{f"x{j}": x[:, j] for j in range(12)}, "y": y})


def separable(n: int = 1_500, seed: int = 0) -> pa.Table:
    """Classes that a plane divides: the minimum is at infinity."""
    x = np.random.default_rng(seed).normal(size=(n, 30))
    return pa.table({**{f"x{j}": x[:, j] for j in range(30)}, "y": x[:, :4].sum(axis=1) > 0.0})


def train(data: pa.Table, **settings: Any) -> Model:
    return streamsgd.train(data, "y", **{**PLAIN, **settings})


def squares(model: Model, new: pa.Table) -> float:
    return float(np.square(model.predict(new) - np.asarray(new["y"])).mean())


def test_columns_that_are_nearly_one_end_at_least_squares(caplog: pytest.LogCaptureFixture) -> None:
    data, new = alike(), alike(seed=1)
    with caplog.at_level(logging.INFO, "streamsgd"):
        model = train(data)
    (said,) = [record.getMessage() for record in caplog.records if "polish" in record.getMessage()]
    assert "the loss of rows held out fell from" in said
    assert said.endswith("--polish none leaves them out")
    x, others = (np.column_stack([np.asarray(one[f"x{j}"]) for j in range(12)] + [np.ones(len(one))]) for one in (data, new))
    exact, *_ = np.linalg.lstsq(x, np.asarray(data["y"]), rcond=None)
    expected = float(np.square(others @ exact - np.asarray(new["y"])).mean())
    assert squares(model, new) < 1.01 * expected
    assert squares(train(data, polish="none"), new) > 1.03 * expected, "it is no easy table"
    found = model.metrics["finish"]
    assert found["held_out"] == model.metrics["held_out"]["loss"] < found["held_out_before"]
    assert found["passes"] <= 20


def test_what_is_at_infinity_is_left_where_held_out_rows_want_it() -> None:
    new = separable(seed=1)
    model, plain = (train(separable(), polish=passes) for passes in ("auto", "none"))
    found = model.metrics["finish"]
    assert found["stopped"] == "held out" or found["passes"] == 20
    assert np.abs(model.weights).max() < 100.0
    assert model.evaluate(new)["log_loss"] < 1.005 * plain.evaluate(new)["log_loss"]
    exact = train(separable(), polish=200, validation="none")
    assert np.abs(exact.weights).max() > 2.0 * np.abs(model.weights).max(), "the minimum is far"


def test_where_held_out_rows_gain_nothing_the_weights_are_those_of_before(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data, before = alike(), train(alike(), polish=0)
    monkeypatch.setattr("streamsgd.training.phases.finish.Finishing._loss", property(lambda self: 1.0 + self.passes))
    with caplog.at_level(logging.INFO, "streamsgd"):
        model = train(data)
    np.testing.assert_array_equal(model.weights, before.weights)
    assert 1 < model.metrics["finish"]["passes"] <= 1 + PATIENCE
    assert any("polished for nothing" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    "settings",
    [
        *({"epochs": 1}, {"polish": 0}, {"polish": "none"}, {"optimizer": "adam"}, {"validation": "none"}, {"patience": 2}),
        {"validation": 0.1},
        *({"loss": "quantile"}, {"model": "mlp"}, {"keep_memory": True}),
    ],
    ids=str,
)
def test_who_says_something_else_is_heard(settings: dict[str, Any]) -> None:
    assert not train(alike(1_200), **settings).metrics.get("finish", {}).get("passes")


def test_few_rows_and_lists_of_entries_are_left_as_they_are() -> None:
    few, listed = alike(900), alike(1_200)
    listed = listed.append_column("c", pa.array([f"c{k % 7}" for k in range(1_200)]))
    for data in (few, listed):
        assert "finish" not in train(data).metrics


def test_who_says_none_keeps_the_bins() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3_000, 2))
    waves = pa.table({"x0": x[:, 0], "x1": x[:, 1], "y": np.sin(3.0 * x[:, 0]) + rng.normal(size=3_000) / 2})
    assert train(waves, polish="none").encoding == train(waves).encoding
    assert train(waves, polish="none").encoding.categories


def test_plan_says_it() -> None:
    job = streamsgd.plan(alike(1_200), "y", **PLAIN)
    assert outlook(job)["polish"] == 20
    assert outlook(streamsgd.plan(alike(1_200), "y", **PLAIN, polish=0))["polish"] == 0


def test_stopped_at_every_chunk_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    data, settings = alike(2_000), {"chunk_rows": 500, "epochs": 2}
    whole = train(data, **settings)
    assert whole.metrics["finish"]["passes"] > 1
    stops = 0
    while True:
        try:
            again = train(data, **settings, checkpoint=str(tmp_path / "c"), time_limit=1e-9)
            break
        except Stopped:
            stops += 1
    assert stops > 8
    assert again.to_bytes() == whole.to_bytes()


def test_several_runs_of_one_decode_are_not_polished() -> None:
    data = alike(1_200)
    (model,) = streamsgd.train_many(data, "y", [{"penalty": "l2:l2=0.1"}], **PLAIN)
    assert isinstance(model, Model)
    assert model.to_bytes() == train(data, penalty="l2:l2=0.1", polish=0).to_bytes()
