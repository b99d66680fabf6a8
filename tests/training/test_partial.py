"""Learning table by table: whatever holds them, and all or nothing."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

import streamsgd
from streamsgd.errors import DataError, DivergedError, StreamSGDError
from streamsgd.training.learner import Learner

polars = pytest.importorskip("polars")

N = 300
X = np.random.default_rng(0).normal(size=N)
TABLE = pa.table({"x": X, "z": X**2, "y": 2 * X})
WILD = TABLE.set_column(0, "x", pa.array(X * 1e36))


def bits(model: streamsgd.Model) -> tuple[Any, ...]:
    memory = () if model.memory is None else tuple(array.tobytes() for array in model.memory)
    return (model.weights.tobytes(), *memory, model.metrics)


def trainer(**settings: Any) -> streamsgd.Trainer:
    return streamsgd.Trainer("y", **{"memory": "1GB", **settings})


SOURCES: dict[str, Callable[[Path], Any]] = {
    "table": lambda _: TABLE,
    "frame": lambda _: TABLE.to_pandas(),
    "list": lambda _: [TABLE.slice(0, 100), TABLE.slice(100)],
    "generator": lambda _: iter([TABLE]),
    "reader": lambda _: TABLE.to_reader(),
    "dict": lambda _: TABLE.to_pydict(),
    "dicts": lambda _: TABLE.to_pylist(),
    "path": lambda folder: folder,
    "text": str,
    "data set": pads.dataset,
    "lazy frame": lambda folder: polars.scan_parquet(folder / "*.parquet"),
}


@pytest.mark.parametrize("way", SOURCES)
def test_a_later_table_comes_as_any_other(way: str, tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "a.parquet")
    expected = trainer().partial_fit(TABLE).partial_fit(TABLE).model
    model = trainer().partial_fit(SOURCES[way](tmp_path)).partial_fit(SOURCES[way](tmp_path)).model
    assert np.array_equal(model.weights, expected.weights)


WAYS_TO_LEARN: dict[str, dict[str, Any]] = {
    "auto": {},
    "adam": {"optimizer": "adam"},
    "chunks": {"optimizer": "adam", "chunk_rows": 64},
    "averaged": {"optimizer": "sgd", "average": 1.0},
    "validated": {"validation": 0.2},
    "remembered": {"keep_memory": True},
}


@pytest.mark.parametrize("way", WAYS_TO_LEARN)
def test_a_refused_table_and_one_without_rows_leave_nothing_behind(way: str) -> None:
    settings = WAYS_TO_LEARN[way]
    tried, spared = trainer(**settings).partial_fit(TABLE), trainer(**settings).partial_fit(TABLE)
    before = bits(tried.model)
    with pytest.raises(DivergedError):
        tried.partial_fit(WILD)
    assert bits(tried.model) == before
    tried.partial_fit(TABLE.slice(0, 0)).partial_fit([TABLE.slice(0, 0)] * 2)
    assert bits(tried.model) == before
    for _ in range(2):
        tried.partial_fit(TABLE)
        spared.partial_fit(TABLE)
        assert bits(tried.model) == bits(spared.model)
    with pytest.raises(StreamSGDError):
        tried.partial_fit(WILD)
    assert bits(pickle.loads(pickle.dumps(tried)).partial_fit(TABLE).model) == bits(spared.partial_fit(TABLE).model)


def test_an_interrupted_table_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    tried, spared = (trainer(chunk_rows=64).partial_fit(TABLE) for _ in range(2))

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "check_finite", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tried.partial_fit(TABLE)
    assert bits(tried.partial_fit(TABLE).model) == bits(spared.partial_fit(TABLE).model)


def test_a_filter_holds_for_every_table_and_an_empty_one_is_compared() -> None:
    learned = trainer(filter="x > -100").partial_fit(TABLE)
    before = learned.model.weights.copy()
    learned.partial_fit(TABLE.set_column(0, "x", pa.array(X - 1000)))
    assert np.array_equal(learned.model.weights, before)
    with pytest.raises(DataError, match="'y'"):
        learned.partial_fit(TABLE.slice(0, 0).set_column(2, "y", pa.array([], pa.string())))
