"""Small tables of lists of entries end nearer to a minimum under a ridge, as far as rows held out are the better for it."""

import logging
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import finish_chunk_by_chunk
from small_tables import PLAIN, train, values

import streamsgd
from streamsgd.model.model import Model
from streamsgd.training.phases.shrinking import MOST_PASSES, RIDGES, Shrinking


def prefers(monkeypatch: pytest.MonkeyPatch, choice: str) -> None:
    """Let rows held out be sure of what is to be kept."""

    def gain(self: Shrinking, _first: float, second: float, _judges: float) -> float:
        if self.stage == "path":
            return 0.0 if self.place else 9.0
        return 9.0 if second == (self.before if choice == "before" else self.shrunk) and choice != "means" else 0.0

    monkeypatch.setattr(Shrinking, "_gain", gain)


@pytest.mark.parametrize(("target", "loss", "share"), [("y", "log_loss", 0.997), ("z", "rmse", 0.98)])
def test_new_rows_are_the_better_for_it(target: str, loss: str, share: float, caplog: pytest.LogCaptureFixture) -> None:
    data, new = values(2_000), values(20_000, seed=1)
    with caplog.at_level(logging.INFO, "streamsgd"):
        model = train(data, target)
    (said,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith("shrunk")]
    assert said.endswith("--polish none leaves it out")
    assert "--penalty l2:l2=" in said
    found, plain = model.metrics["shrink"], train(data, target, polish="none")
    assert model.evaluate(new)[loss] < share * plain.evaluate(new)[loss]
    assert found["choice"] in {"means", "ridge"}
    assert found["ridge"] in RIDGES
    assert found["held_out"] == model.metrics["held_out"]["loss"]
    assert found["held_out_before"] == plain.metrics["held_out"]["loss"]
    assert found["passes"] <= MOST_PASSES


def test_several_classes_are_shrunk_too() -> None:
    def kinds(table: pa.Table) -> pa.Table:
        third = np.digitize(np.asarray(table["z"]), [-1.5, 1.5])
        return table.drop_columns(["y", "z"]).append_column("y", pa.array([f"k{k}" for k in third]))

    data, new = kinds(values()), kinds(values(20_000, seed=1))
    model, plain = (streamsgd.train(data, "y", polish=polish, **PLAIN) for polish in ("auto", "none"))
    assert model.metrics["shrink"]["choice"] != "before"
    assert model.evaluate(new)["log_loss"] < 0.985 * plain.evaluate(new)["log_loss"]


def test_the_weights_of_the_ridge_are_those_of_its_penalty(monkeypatch: pytest.MonkeyPatch) -> None:
    prefers(monkeypatch, "ridge")
    monkeypatch.setattr("streamsgd.training.phases.shrinking.RIDGES", (3.0,))
    data = values(10_000)
    model = train(data, chunk_rows=10_000)
    exact = train(data, chunk_rows=10_000, penalty="l2:l2=0.0003", polish=200, validation="none")
    assert model.metrics["shrink"]["choice"] == "ridge"
    plain = train(data, chunk_rows=10_000, polish=0)
    off, before = (np.linalg.norm(each.weights - exact.weights) / np.linalg.norm(exact.weights) for each in (model, plain))
    assert off < 0.1 < before / 2


def test_where_rows_held_out_cannot_tell_the_weights_are_half_way(monkeypatch: pytest.MonkeyPatch) -> None:
    data, kept = values(2_000), {}
    for choice in ("before", "means", "ridge"):
        prefers(monkeypatch, choice)
        kept[choice] = train(data)
        assert kept[choice].metrics["shrink"]["choice"] == choice
        assert kept[choice].metrics["held_out"]["loss"] == kept[choice].metrics["shrink"]["held_out"]
    before, means, ridge = (kept[choice].weights for choice in ("before", "means", "ridge"))
    np.testing.assert_array_equal(before, train(data, polish=0).weights)
    np.testing.assert_allclose(means, (before + ridge) / 2, atol=1e-6)


def test_many_numbers_and_weights_without_a_number_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    module = "streamsgd.training.phases.shrinking"
    plain = train(values(1_200), polish=0)
    for name, least in (("MOST_NUMBERS", 1_000), ("MOST_WEIGHTS", 10), ("MOST_MOVED", 10)):
        with monkeypatch.context() as patch:
            patch.setattr(f"{module}.{name}", least)
            model = train(values(1_200))
        assert not model.metrics.get("shrink", {}).get("passes")
        np.testing.assert_array_equal(model.weights, plain.weights)


def test_hashed_weights_that_no_row_has_moved_stay_at_0() -> None:
    rng = np.random.default_rng(0)
    words = rng.integers(0, 300, (1_500, 8))
    data = pa.table({"t": [" ".join(f"w{word}" for word in row) for row in words], "y": (words < 60).sum(axis=1) > 1})
    model, plain = (streamsgd.train(data, "y", polish=polish, text="t", **PLAIN) for polish in ("auto", "none"))
    assert model.metrics["shrink"]["choice"] != "before"
    np.testing.assert_array_equal(model.weights[:-1] != 0.0, plain.weights[:-1] != 0.0)


@pytest.mark.parametrize("choice", ["ridge", "before"])
def test_stopped_at_every_chunk_it_ends_with_the_same_bytes(
    choice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefers(monkeypatch, choice)
    data, settings = values(1_500, each=20), {"chunk_rows": 800, "epochs": 2}
    whole = train(data, **settings)
    assert whole.metrics["shrink"]["choice"] == choice

    def run(**more: Any) -> Model:
        return train(data, **settings, **more)

    again, stops = finish_chunk_by_chunk(run, tmp_path / "c", repeat({}))
    assert stops > 8
    assert again.to_bytes() == whole.to_bytes()
