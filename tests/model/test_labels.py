"""Rows as people have them: unseen classes, no weight column, weights of 0, missing values, filters of two kinds."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import streamsgd
from streamsgd.errors import DataError, StreamSGDError
from streamsgd.model.model import Model

N = 400


def table(seed: int = 0, n: int = N, **columns: Any) -> pa.Table:
    x = np.random.default_rng(seed).normal(size=n)
    return pa.table({"x": x, "y": np.where(x > 0, "a", "b"), "w": np.ones(n), **columns})


@pytest.fixture(scope="module")
def model() -> Model:
    return streamsgd.train(table(), "y", weight="w", id=["w"], epochs=1, threads=1)


@given(unseen=st.sets(st.integers(0, N - 1), max_size=9))
@settings(max_examples=8, deadline=None)
def test_unseen_classes_are_counted_and_in_no_metric(model: Model, unseen: set[int]) -> None:
    kept = [k for k in range(N) if k not in unseen]
    labels = ["new" if k in unseen else label for k, label in enumerate(table()["y"].to_pylist())]
    found = streamsgd.evaluate(model, table(y=pa.array(labels)), threads=1)
    assert found.pop("unseen_classes", 0.0) == len(unseen)
    assert found == streamsgd.evaluate(model, table().take(kept), threads=1)


def test_a_label_that_is_missing_is_no_unseen_one(model: Model) -> None:
    labels = pa.array([None, "new", *table()["y"].to_pylist()[2:]])
    with pytest.raises(DataError, match=r"'y' is null.* in 1 row, first in row 0"):
        streamsgd.evaluate(model, table(y=labels))
    assert streamsgd.evaluate(model, table(y=labels), bad_rows="skip")["unseen_classes"] == 1.0


def test_the_weight_column_may_lack_or_be_another(model: Model, caplog: pytest.LogCaptureFixture) -> None:
    expected = streamsgd.evaluate(model, table())
    assert streamsgd.evaluate(model, table().drop_columns(["w"])) == expected
    assert "no weight column 'w'" in caplog.text
    twice = table(v=np.repeat([1.0, 0.0], N // 2))
    assert streamsgd.evaluate(model, twice, weight="v")["weight"] == N / 2


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.binary(), pa.timestamp("us"), pa.date32(), pa.list_(pa.float64()), pa.time64("us")]
)
def test_weights_that_are_no_numbers_are_refused(kind: Any, model: Model) -> None:
    odd = table(w=pa.nulls(N, kind))
    for use in (lambda: streamsgd.train(odd, "y", weight="w"), lambda: streamsgd.evaluate(model, odd)):
        with pytest.raises(DataError, match="weight column 'w' is of type"):
            use()


def test_classes_come_in_whatever_holds_them() -> None:
    whole = table(y=np.arange(N) % 2)
    for classes in ([0, 1, 2], np.array([0, 1, 2]), np.array(["0", "1", "2"]), pa.array([0, 1, 2]), {0, 1, 2}, range(3)):
        assert streamsgd.plan(whole, "y", classes=classes).target.classes == (0, 1, 2)


# --- the task


@given(zeros=st.integers(0, 30), others=st.lists(st.sampled_from([0, 1, 2, 7]), min_size=1, max_size=5), flip=st.booleans())
@settings(max_examples=25, deadline=None)
def test_the_task_is_that_of_all_values(zeros: int, others: list[int], flip: bool) -> None:
    """However they lie: the first values decide nothing."""
    y = np.repeat([0, *others], [1000 * zeros + 1, *[3] * len(others)])
    y = y[::-1] if flip else y
    if len(set(y.tolist())) < 2:
        return
    target = streamsgd.plan(pa.table({"x": np.arange(len(y)) % 7, "y": y}), "y").target
    assert target.task == ("binary" if set(y.tolist()) <= {0, 1} else "regression")


def test_values_that_the_sample_misses_decide_too(tmp_path: Path) -> None:
    y = np.zeros(700_000, np.int8)
    y[-5:] = 3
    y[300_000:] += 1
    pq.write_table(pa.table({"x": y, "y": y}), tmp_path / "a.parquet", row_group_size=2_000)
    assert streamsgd.plan(tmp_path / "a.parquet", "y", seed=1).target.task == "regression"


# --- filters


def test_a_filter_is_for_the_rows_to_learn_from(tmp_path: Path) -> None:
    pq.write_table(table(1), tmp_path / "valid.parquet")
    valid = str(tmp_path / "valid.parquet")

    def judged(**options: Any) -> float:
        fitted = streamsgd.train(table(), "y", valid=valid, filter="x > -1", epochs=1, threads=1, **options)
        return float(fitted.metrics["valid"]["weight"])

    assert judged() == N
    assert judged(valid_filter="x > 0.5") == sum(x > 0.5 for x in table(1)["x"].to_pylist()) < N
    with pytest.raises(StreamSGDError, match="'z'"):
        judged(valid_filter="z > 0")


@pytest.mark.parametrize("target", ["x", "y"])
def test_a_filter_that_leaves_no_row_says_so(target: str) -> None:
    rows = table(z=np.arange(N) % 2)
    with pytest.raises(DataError, match=r"--filter 'z == 0.5' leaves no row: none of 400 rows fulfils it"):
        streamsgd.train(rows, target, filter="z == 0.5")


# --- missing values that are errors


def test_missing_is_an_error_in_every_row(tmp_path: Path) -> None:
    strict = streamsgd.train(table(), "y", missing=["error"], id=["w"], epochs=1, threads=1)
    hole = table(x=np.r_[np.full(3, np.nan), np.zeros(N - 3)])
    pq.write_table(hole, tmp_path / "a.parquet")
    for use in (
        lambda: strict.predict(hole),
        lambda: strict.predict(tmp_path / "a.parquet"),
        lambda: streamsgd.evaluate(strict, hole),
        lambda: streamsgd.predict(strict, tmp_path / "a.parquet", tmp_path / "o"),
        lambda: streamsgd.Trainer("y", missing=["error"], id=["w"]).partial_fit(table()).partial_fit(hole),
    ):
        with pytest.raises(DataError, match="'x' is missing in 3 rows, which --missing error forbids"):
            use()
    mixed = streamsgd.train(table(v=np.ones(N) + np.arange(N)), "y", missing=["error", "x=mean"], id=["w"], epochs=1, threads=1)
    assert len(mixed.predict(hole.append_column("v", pa.array(np.ones(N))))) == N


# --- tables one after another


@pytest.mark.parametrize(("bad", "n"), [(0, 3000), (999, 3000), (2500, 3000), (3, 400)])
def test_a_table_that_is_refused_has_changed_nothing(bad: int, n: int) -> None:
    """Of several chunks, or of one; what comes after it is learned as if it had never been there."""
    refusing, other = (
        streamsgd.Trainer("y", weight="w", chunk_rows=500, task="binary").partial_fit(table(0, 3000)) for _ in range(2)
    )
    labels = table(1, n)["y"].to_pylist()
    labels[bad] = None
    with pytest.raises(DataError, match="'y' is null"):
        refusing.partial_fit(table(1, n, y=pa.array(labels)))
    assert refusing.model.to_bytes() == other.model.to_bytes()
    ours, theirs = (trainer.partial_fit(table(2, 900)).model for trainer in (refusing, other))
    assert ours.weights.tobytes() == theirs.weights.tobytes()


def test_a_first_table_that_is_refused_decides_nothing() -> None:
    trainer = streamsgd.Trainer("y", weight="w", chunk_rows=500)
    with pytest.raises(DataError):
        trainer.partial_fit(table(0, 3000, w=np.r_[np.ones(2999), -1.0]))
    with pytest.raises(DataError, match="no model yet"):
        _ = trainer.model
    sound = trainer.partial_fit(table(0, 3000)).model
    assert (
        sound.weights.tobytes()
        == streamsgd.Trainer("y", weight="w", chunk_rows=500).partial_fit(table(0, 3000)).model.weights.tobytes()
    )


def test_rows_of_weight_0_change_nothing() -> None:
    trainer = streamsgd.Trainer("y", weight="w", optimizer="adam", batch_size=64).partial_fit(table(0, 640))
    before = trainer.model.weights.copy()
    after = trainer.partial_fit(table(1, 640, w=np.zeros(640))).model.weights
    assert np.array_equal(before, after)
