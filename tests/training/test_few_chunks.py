"""Runs whose epochs are as long as a step, or shorter than there are lanes: chunks come again, and others never do."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streamsgd
from streamsgd.training.backends.inline import InlineBackend

N_ROWS = 6_000

RUNS: dict[str, dict[str, Any]] = {
    "two lanes in step": {"lanes": 2, "combine": "sync", "epochs": 6, "optimizer": "adam", "batch_size": 32},
    "five lanes in step": {"lanes": 5, "combine": "sync", "epochs": 6, "optimizer": "adam", "batch_size": 32},
    "lanes apart": {"lanes": 3, "epochs": 6, "optimizer": "adam", "batch_size": 32},
    "full batch": {"batch_size": "full", "optimizer": "sgd", "epochs": 6},
    "polished": {"optimizer": "adam", "epochs": 2, "polish": 4},
    "svrg": {"optimizer": "svrg", "epochs": 6},
    "trust region": {"optimizer": "trust-region", "epochs": 3},
    "noise": {"optimizer": "sgd", "noise": True, "epochs": 6},
    "thinned": {"optimizer": "adam", "rare": "uniform:c=1", "epochs": 6, "polish": 3},
    "standard errors": {"optimizer": "adam", "epochs": 2, "polish": 4, "standard_errors": True},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(14)
    x = rng.normal(size=(N_ROWS, 3))
    y = x @ [1.0, -1.0, 0.5] + rng.normal(size=N_ROWS) > 1.0
    path = tmp_path_factory.mktemp("few_chunks") / "data.parquet"
    pq.write_table(pa.table({f"x{j}": x[:, j] for j in range(3)} | {"y": y}), path, row_group_size=250)
    return path


@pytest.mark.parametrize("n_chunks", [1, 2, 4])
@pytest.mark.parametrize("run", RUNS)
def test_threads_learn_as_one_chunk_after_another_does(
    run: str, n_chunks: int, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever chunks stay in memory between rounds, and whatever is read ahead, weights have the bits of the plain backend."""
    usual: dict[str, Any] = {"loss": "logistic", "memory": "1GB", "validation": 0.1, "executor": "threads"}
    usual["chunk_rows"] = -(-N_ROWS // n_chunks)
    model = streamsgd.train(data, "y", **{**usual, **RUNS[run]})
    monkeypatch.setattr("streamsgd.training.backends.choose.ThreadsBackend", lambda job, _executor: InlineBackend(job))
    plain = streamsgd.train(data, "y", **{**usual, **RUNS[run]})
    assert model.weights.tobytes() == plain.weights.tobytes()
    assert model.provenance["counts"] == plain.provenance["counts"]
    assert model.metrics == plain.metrics


@pytest.mark.parametrize("n_chunks", [1, 2, 3])
def test_a_walk_through_a_posterior_is_that_of_the_plain_backend(
    n_chunks: int, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As training: its chunks are taken in turns that know no epochs."""
    usual: dict[str, Any] = {"loss": "logistic", "memory": "1GB", "chunk_rows": -(-N_ROWS // n_chunks), "executor": "threads"}
    walk: dict[str, Any] = {**usual, "prior": "normal:sd=1", "chains": 2, "draws": 20}
    model = streamsgd.sample(data, "y", **walk)
    monkeypatch.setattr("streamsgd.training.backends.choose.ThreadsBackend", lambda job, _executor: InlineBackend(job))
    plain = streamsgd.sample(data, "y", **walk)
    assert model.weights.tobytes() == plain.weights.tobytes()
    assert model.metrics == plain.metrics
