"""Forgetting, averaging beside a race, and clipped scores: what was silent is done, or said."""

import logging
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streamsgd
from streamsgd.errors import SettingsError, Stopped
from streamsgd.kernels.learn.race import CELL, SQUARES
from streamsgd.kernels.parts.optimizers import Normalized, Race
from streamsgd.kernels.structs.block import MOST_LEARNERS
from streamsgd.kernels.structs.state import make_state
from streamsgd.training.forgetting import fade, rows_until_fading
from streamsgd.training.race import start_race

COMMON: dict[str, Any] = {"target": "y", "memory": "1GB", "executor": "inline", "epochs": 1}


def turned(n: int = 20_000, seed: int = 0, share: float = 0.97) -> pa.Table:
    """What two columns say turns round after most of the rows, in noise of deviation 3."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    side = np.where(np.arange(n) < share * n, 1.0, -1.0)
    letters = [f"g{k % 3}" for k in range(n)]
    return pa.table({"a": x[:, 0], "b": x[:, 1], "g": letters, "y": side * (x[:, 0] - x[:, 1]) + 3.0 * rng.normal(size=n)})


def test_sums_of_squares_are_half_after_a_half_life() -> None:
    state, half_life = make_state(np.zeros(3, np.float32), 2, np.float32), 1600
    state.slots[:] = 1.0
    race = start_race(np.zeros(3, np.float32))
    cells = race.weights.reshape(-1, CELL)
    cells[:] = 1.0
    rows = 0
    while rows < half_life:
        rows += rows_until_fading(half_life, rows)
        fade(state, Normalized(), half_life, rows)
        fade(race, Race(), half_life, rows)
    assert rows == half_life
    np.testing.assert_allclose(state.slots[0], 0.5, rtol=1e-5)
    np.testing.assert_array_equal(state.slots[1], 1.0)
    np.testing.assert_allclose(cells[:, SQUARES : SQUARES + MOST_LEARNERS], 0.5, rtol=1e-5)
    assert (cells[:, :MOST_LEARNERS] == 1.0).all()
    assert rows_until_fading(None, 5) > 1 << 40


def test_a_run_that_forgets_follows_what_turns_and_resumes_to_the_bit(tmp_path: Any) -> None:
    pq.write_table(turned(), tmp_path / "d.parquet", row_group_size=2000)
    data, common = str(tmp_path / "d.parquet"), {**COMMON, "shuffle": "none", "chunk_rows": 2500}
    plain, forgets = (streamsgd.train(data, **common, **more) for more in ({}, {"forget": 300}))
    after = turned(4000, 1, 0.0)
    excess = [model.evaluate(after)["rmse"] - 3.0 for model in (plain, forgets)]
    assert excess[1] < 0.6 * excess[0]
    stopped = {**common, "forget": 300, "checkpoint": str(tmp_path / "c"), "checkpoint_chunks": 1}
    for _ in range(2):
        with pytest.raises(Stopped):
            streamsgd.train(data, **stopped, time_limit=1e-9)
    np.testing.assert_array_equal(streamsgd.train(data, **stopped).weights, forgets.weights)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"optimizer": "coin"}, "optimizer coin has not"),
        ({"optimizer": "adagrad", "penalty": "l2:l2=0.1"}, "leave one of them out"),
        ({"lanes": 2}, "one lane"),
    ],
)
def test_what_remembers_nothing_cannot_forget(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError, match=told.replace("optimizer coin", "optimizer.*coin")):
        streamsgd.train(turned(100), **COMMON, forget=500, **settings)


def test_an_average_is_not_passed_over_where_a_race_lasts_as_long_as_the_run() -> None:
    model = streamsgd.train(turned(2000), **COMMON, average="auto")
    assert model.provenance["parts"]["optimizer"].startswith("normalized")
    assert not np.array_equal(model.weights, streamsgd.train(turned(2000), **COMMON, optimizer="normalized").weights)
    with pytest.raises(SettingsError, match="begins once a race is over, after 131,072 rows or the first pass"):
        streamsgd.train(turned(2000), **COMMON, average="auto", optimizer="race")


def test_scores_that_are_clipped_are_counted_and_said(caplog: Any) -> None:
    """A target that is mostly 0 and a rate far too large: scores are confined to the range of the targets."""
    rng = np.random.default_rng(0)
    table = pa.table({"a": rng.normal(size=3000), "g": ["x", "y", "z"] * 1000, "y": (rng.random(3000) < 0.2) * 1.0 + 5.0})
    with caplog.at_level(logging.INFO, "streamsgd"):
        streamsgd.train(table, **COMMON, task="regression", optimizer="normalized", learning_rate=8.0, scale=["none"])
    told = [
        record.message for record in caplog.records if "had a score beyond the least and the greatest target" in record.message
    ]
    assert len(told) == 1
    caplog.clear()
    with caplog.at_level(logging.INFO, "streamsgd"):
        streamsgd.train(turned(2000), **COMMON)
    assert "had a score beyond" not in caplog.text
