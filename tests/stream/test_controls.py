"""What decides which rows are learned is the same however it is read: at once, or some rows at a time."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streamsgd

N = 3_000
ASKED: list[dict[str, Any]] = [
    {"filter": "word != 'word 3'"},
    {"filter": "x > 0 and word >= 'word 5'"},
    {"validation_group": "word", "validation": 0.2},
    {"validation": "word == 'word 4'"},
    {"weight": "w"},
    {"bad_rows": "skip"},
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    rng = np.random.default_rng(3)
    path = tmp_path_factory.mktemp("controls") / "data.parquet"
    y = pa.array((rng.random(N) < 0.4).astype(np.int8), mask=rng.random(N) < 0.01)
    words = [f"word {k}" for k in rng.integers(0, 9, N).tolist()]
    table = pa.table({"x": rng.normal(size=N), "w": rng.uniform(0.5, 2.0, N), "word": words, "y": y})
    pq.write_table(table, path, row_group_size=1_100)
    return str(path)


def cut(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("streamsgd.data.parquet.pieces.RUN_BYTES", 2_000)
    patch.setattr("streamsgd.data.parquet.row_stream.BATCH_BYTES", 3_000)


@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_a_model_is_the_same_however_its_rows_are_read(data: str, asked: dict[str, Any]) -> None:
    settings = {"executor": "inline", "memory": "1GB", "epochs": 1, "bad_rows": "skip", "features": ["x", "word"], **asked}
    whole = streamsgd.train(data, "y", **settings).to_bytes()
    with pytest.MonkeyPatch.context() as patch:
        cut(patch)
        assert streamsgd.train(data, "y", **settings).to_bytes() == whole


def test_rows_are_told_apart_the_same_however_they_are_read(data: str) -> None:
    model = streamsgd.train(data, "y", executor="inline", memory="1GB", epochs=1, bad_rows="skip", features=["x"])
    whole = streamsgd.evaluate(model, data, by="word", memory="1GB", bad_rows="skip")
    with pytest.MonkeyPatch.context() as patch:
        cut(patch)
        found = streamsgd.evaluate(model, data, by="word", memory="1GB", bad_rows="skip")
    assert found["by"].keys() == whole["by"].keys() == {f"word {k}" for k in range(9)}
    for word, metrics in whole["by"].items():
        assert found["by"][word]["rows"] == metrics["rows"]
        assert found["by"][word]["loss"] == pytest.approx(metrics["loss"], rel=1e-12)
