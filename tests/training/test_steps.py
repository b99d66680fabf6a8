"""`--steps N` ends a run after N updates: of as many rows, in as many passes as that takes."""

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

PLAIN: dict[str, Any] = {"optimizer": "sgd", "learning_rate": 0.01, "executor": "inline", "precision": "float64"}
PLAIN["validation"] = "none"


def rows_of(n: int) -> pa.Table:
    x = np.random.default_rng(0).normal(size=(n, 3))
    return pa.table({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "y": x.sum(axis=1) + 1.0})


@pytest.mark.parametrize(("size", "steps"), [(1, 37), (10, 7), (10, 100), (64, 40), (1000, 3)])
def test_so_many_updates_of_so_many_rows(size: int, steps: int) -> None:
    """Gradient descent in NumPy by the rows of the file in their order, as often as it takes; last batches are short."""
    table, n = rows_of(1000), 1000
    model = streamsgd.train(
        *(table, "y"),
        **{**PLAIN, "batch_size": size, "steps": steps, "shuffle": "none", "scale": ["none"], "transform": "none"},
        chunk_rows=333,
    )
    x = np.column_stack([*(table[name].to_numpy() for name in "abc"), np.ones(n)])
    y, w, at = table["y"].to_numpy(), np.zeros(4), 0
    for _ in range(steps):
        some = slice(at, min(n, at + size))
        rows = x[some]
        w -= 0.01 * (len(rows) / size) * rows.T @ (rows @ w - y[some]) / len(rows)
        at = (at + len(rows)) % n
    np.testing.assert_allclose(model.weights[:, 0], w, rtol=1e-12)
    assert model.provenance["steps"] == steps
    assert model.provenance["parts"]["schedule"] == "constant:warmup=0"


def test_steps_are_a_beginning_of_more_steps_and_the_same_bits_resumed(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    pq.write_table(rows_of(1000), path, row_group_size=100)
    settings: dict[str, Any] = {**PLAIN, "batch_size": 16, "steps": 90, "chunk_rows": 250, "validation": 0.1}
    del settings["executor"]
    alone = streamsgd.train(path, "y", **settings).to_bytes()
    run, places = partial(streamsgd.train, path, "y", **settings), cycle([{"executor": "inline"}, {"threads": 2}])
    resumed, stops = finish_chunk_by_chunk(run, tmp_path / "saved", places)
    assert stops > 3
    assert resumed.to_bytes() == alone
    assert streamsgd.train(path, "y", **{**settings, "epochs": 1}).provenance["steps"] < 90


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"optimizer": "normalized"}, "--steps counts updates by batches"),
        ({"optimizer": "svrg"}, "--steps counts updates by batches"),
        ({"batch_size": "full"}, "pass a number"),
        ({"batch_size": "adaptive"}, "pass a number"),
        ({"lanes": 2}, "leave --lanes out"),
        ({"steps": 0}, "whole number of at least 1"),
    ],
)
def test_what_has_no_steps_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError) as error:
        streamsgd.plan(rows_of(500), "y", **{"memory": "2GB", "steps": 3, "optimizer": "adam", **settings})
    assert words in str(error.value)
