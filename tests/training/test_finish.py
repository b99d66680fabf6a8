"""Small dense tables end at the minimum without being told, as far as rows held out are the better for it."""

import logging

import numpy as np
import pyarrow as pa
import pytest
from small_tables import alike, train

from streamsgd.model.model import Model
from streamsgd.training.phases.finish import PATIENCE


def separable(n: int = 1_500, seed: int = 0) -> pa.Table:
    """Classes that a plane divides: the minimum is at infinity."""
    x = np.random.default_rng(seed).normal(size=(n, 30))
    return pa.table({**{f"x{j}": x[:, j] for j in range(30)}, "y": x[:, :4].sum(axis=1) > 0.0})


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


def test_lists_of_entries_are_left_as_they_are() -> None:
    listed = alike(1_200).append_column("c", pa.array([f"c{k % 7}" for k in range(1_200)]))
    assert "finish" not in train(listed).metrics


def test_who_says_none_keeps_the_bins() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3_000, 2))
    waves = pa.table({"x0": x[:, 0], "x1": x[:, 1], "y": np.sin(3.0 * x[:, 0]) + rng.normal(size=3_000) / 2})
    assert train(waves, polish="none").encoding == train(waves).encoding
    assert train(waves, polish="none").encoding.categories
