"""Who has run holds no rows: the memory of a run is free when it ends, without waiting for Python's collector of circles."""

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streamsgd
from streamsgd.errors import DataError
from streamsgd.features.layout import Layout
from streamsgd.stream import encoded

RUNS: dict[str, dict[str, Any]] = {
    "one pass": {"epochs": 1},
    "rows held out, encoded rows kept in memory": {"epochs": 3, "cache": "memory"},
    "encoded rows kept on disk": {"epochs": 3, "cache": "disk"},
    "stopped by patience": {"epochs": 5, "patience": 1},
    "calling thread": {"executor": "inline", "epochs": 2},
    "tasks of Dask": {"executor": "dask", "epochs": 2},
    "external shuffle": {"shuffle": "external", "epochs": 2},
    "polished": {"polish": 4},
    "svrg": {"optimizer": "svrg", "epochs": 4},
    "lanes apart": {"lanes": 2, "epochs": 2, "optimizer": "adam"},
    "lanes in step": {"lanes": 2, "combine": "sync", "epochs": 3, "optimizer": "adam"},
    "full batch": {"batch_size": "full", "optimizer": "sgd", "epochs": 3},
    "noise": {"noise": True, "epochs": 2},
    "thinned": {"rare": "uniform:c=2", "polish": 3},
    "adaptive": {"batch_size": "adaptive", "optimizer": "sgd", "epochs": 2},
    "trust region": {"optimizer": "trust-region"},
    "pilot": {"batch_size": "pilot", "optimizer": "sgd"},
    "standard errors": {"polish": 4, "standard_errors": True},
    "machine": {"model": "fm"},
    "network": {"model": "mlp"},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(4_000, 3))
    columns = {f"x{j}": x[:, j] for j in range(3)} | {"s": np.array(list("abcdefgh"))[rng.integers(0, 8, len(x))]}
    folder = tmp_path_factory.mktemp("let_go")
    pq.write_table(pa.table(columns | {"y": x @ [1.0, -1.0, 0.5] + rng.normal(size=len(x)) > 0}), folder / "d.parquet", 500)
    return folder


@contextmanager
def nothing_held(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Check that blocks and encoded rows made meanwhile are gone at the end, and that nothing of ours was in a circle."""
    made: list[Callable[[], Any]] = []

    def seen(array: np.ndarray) -> None:
        while isinstance(array.base, np.ndarray):
            array = array.base
        made.append(weakref.ref(array))

    def allocate(layout: Layout, n_rows: int, precision: str) -> Any:
        block = plain_allocate(layout, n_rows, precision)
        seen(block.rows.values)
        return block

    def filled_once(shape: tuple[int, ...], kind: Any) -> np.ndarray:
        array = plain_filled_once(shape, kind)
        seen(array)
        return array

    plain_allocate, plain_filled_once = Layout.allocate, encoded.filled_once
    monkeypatch.setattr(Layout, "allocate", allocate)
    monkeypatch.setattr(encoded, "filled_once", filled_once)
    gc.collect()
    gc.disable()
    try:
        yield
        assert made
        assert [array for array in made if array() is not None] == []
        assert in_circles() == []
    finally:
        gc.enable()


def in_circles() -> list[str]:
    """Return what of ours only the collector frees."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        kinds = [type(one) for one in gc.garbage]
        # What Numba leaves where kernels are compiled is not of a run.
        return [k.__qualname__ for k in kinds if k.__module__.startswith("streamsgd") and ".compile." not in k.__module__]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


@pytest.mark.parametrize("run", RUNS)
def test_a_run_holds_nothing_when_it_has_ended(run: str, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the engine nor a phase, a backend, a cache or a model keeps a block, or the engine itself."""
    with nothing_held(monkeypatch):
        model = streamsgd.train(data, "y", **{"loss": "logistic", "memory": "1GB", "chunk_rows": 1_000, **RUNS[run]})
    assert model.provenance["rows_learned"]


@pytest.mark.parametrize(
    "verb", ["predict", "evaluate", "explain", "noise", "pilot", "tune", "train_many", "folds", "sample", "partial_fit"]
)
def test_no_verb_holds_rows_when_it_has_ended(verb: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a run: what scores, measures, compares or learns on lets go of what it read."""
    model = streamsgd.train(data, "y", loss="logistic", memory="1GB", epochs=1)
    usual: dict[str, Any] = {"loss": "logistic", "memory": "1GB", "chunk_rows": 1_000}
    table = pq.read_table(data)
    verbs: dict[str, Callable[[], Any]] = {
        "predict": lambda: streamsgd.predict(model, data, tmp_path / "scores.parquet", memory="1GB"),
        "evaluate": lambda: streamsgd.evaluate(model, data, memory="1GB"),
        "explain": lambda: streamsgd.explain(model, data, tmp_path / "why.parquet", memory="1GB"),
        "noise": lambda: streamsgd.noise(data, "y", at=model, memory="1GB"),
        "pilot": lambda: streamsgd.pilot(data, "y", batch_size=(16, 64), seeds=2, optimizer="sgd", **usual),
        "tune": lambda: streamsgd.tune(data, "y", {"learning_rate": [0.1, 1.0]}, optimizer="sgd", **usual),
        "train_many": lambda: streamsgd.train_many(data, "y", [{"penalty": "none"}, {"penalty": "l2:l2=0.01"}], **usual),
        "folds": lambda: streamsgd.cross_validate(data, "y", folds=3, **usual),
        "sample": lambda: streamsgd.sample(data, "y", prior="normal:sd=1", draws=8, chains=2, **usual),
        "partial_fit": lambda: streamsgd.Trainer("y", loss="logistic", memory="1GB").partial_fit(table),
    }
    with nothing_held(monkeypatch):
        verbs[verb]()


def test_a_run_that_fails_holds_nothing(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does one that ends in an error, once its traceback is gone."""

    broken = data.parent / f"{data.name}_broken"
    broken.mkdir()
    table = pq.read_table(data)
    y = table["y"].to_pylist()
    pq.write_table(table.set_column(4, "y", pa.array([*y[:-1], None])), broken / "d.parquet", 500)
    with nothing_held(monkeypatch), pytest.raises(DataError, match="row"):
        streamsgd.train(broken, "y", loss="logistic", memory="1GB", epochs=2, chunk_rows=1_000)
