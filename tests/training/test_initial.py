"""Where learning starts: rare positives among categories leave values room to move."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import streamsgd
from streamsgd.training import initial

PLAIN: dict[str, Any] = {"executor": "inline", "memory": "1GB", "epochs": 1}


def rare(n: int, seed: int) -> tuple[pa.Table, np.ndarray]:
    """Two columns of many values each, one positive in 500, and the chances that rows were drawn by."""
    rng, of_values = np.random.default_rng(seed), np.random.default_rng(99)
    a, b = (np.floor(np.exp(rng.uniform(0.0, top, n))).astype(int) for top in (9.0, 7.0))
    score = -7.5 + 1.2 * of_values.normal(size=9_000)[a] + 1.2 * of_values.normal(size=1_200)[b]
    chance = 1.0 / (1.0 + np.exp(-score))
    return pa.table({"a": [f"a{k}" for k in a], "b": [f"b{k}" for k in b], "y": rng.random(n) < chance}), chance


def test_rare_positives_among_many_values_start_at_half_the_log_odds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what a constant loses to who knows the chances, more than half is made up for in one pass; by a start at all, less."""
    (old, _), (new, chance) = rare(200_000, 0), rare(50_000, 1)
    y = new["y"].to_numpy(zero_copy_only=False)
    oracle = float(-np.mean(np.where(y, np.log(chance), np.log1p(-chance))))
    constant = streamsgd.train(old, "y", **PLAIN).metrics["best_constant_loss"]
    half = streamsgd.evaluate(streamsgd.train(old, "y", **PLAIN), new, executor="inline")["log_loss"]
    monkeypatch.setattr(initial, "RARE", 0.0)
    whole = streamsgd.evaluate(streamsgd.train(old, "y", **PLAIN), new, executor="inline")["log_loss"]
    assert oracle < half < 0.95 * whole
    assert constant - half > 0.5 * (constant - oracle)


def test_numbers_with_few_positives_start_as_they_did(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20_000, 3))
    late = rng.random(20_000) < 1.0 / (1.0 + np.exp(5.0 - x @ [0.8, -0.5, 0.2]))
    data = pa.table({**{f"x{j}": x[:, j] for j in range(3)}, "y": late})
    model = streamsgd.train(data, "y", **PLAIN)
    monkeypatch.setattr(initial, "RARE", 0.0)
    assert model.weights.tobytes() == streamsgd.train(data, "y", **PLAIN).weights.tobytes()
