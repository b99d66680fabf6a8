"""Conformal quantiles are those of the sorted scores, as near as bins are wide, and intervals hold what they say."""

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streamsgd
from streamsgd.errors import ModelError, SettingsError
from streamsgd.model import store
from streamsgd.model.probability.sketch import CLASS_SHIFT, MOST_BINS, ScoreSketch, new_sketch, sketch_arrays

USUAL: dict[str, Any] = {"memory": "1GB", "executor": "inline", "polish": 20, "epochs": 1, "precision": "float64"}


SCORES: dict[str, Any] = {
    "wide": lambda rng, n: rng.lognormal(sigma=4.0, size=n),
    "residuals": lambda rng, n: np.abs(rng.normal(size=n)),
    "narrow": lambda rng, n: 7.0 + 0.1 * rng.uniform(size=n),
    "odds of a rare class": lambda rng, n: np.exp(8.0 + 0.2 * rng.normal(size=n)),
    "mixed": lambda rng, n: np.where(rng.random(n) < 0.5, np.exp(3.0 * rng.normal(size=n)), 1.0 + 1e-3 * rng.uniform(size=n)),
}
"""Of ties in float32 by chance alone."""


@pytest.mark.parametrize("kind", SCORES)
def test_quantiles_are_those_of_the_sorted_scores_and_sketches_add_up(kind: str) -> None:
    """Of few scores exactly, of many within 0.1 % of rank; in any parts and any order the same bits."""
    rng = np.random.default_rng(1)
    for n, most in ((MOST_BINS, 0.0), (10 * MOST_BINS, 1e-3)):
        scores, classes = SCORES[kind](rng, n), (rng.random(n) < 0.01).astype(np.int64)
        whole, parts = ScoreSketch.of(classes, scores), new_sketch()
        for part in rng.permutation(np.array_split(rng.permutation(n), 16)):
            parts = ScoreSketch.of(classes[part], scores[part]).merge(parts)
        for array, other in zip(sketch_arrays(whole, None).values(), sketch_arrays(parts, None).values(), strict=True):
            np.testing.assert_array_equal(array, other)
        assert max(np.bincount(whole.keys >> CLASS_SHIFT)) <= MOST_BINS
        for of_class in (0, 1):
            mine = np.sort(scores[classes == of_class])
            for level in (0.05, 0.5, 0.9, 0.99):
                found, rank = whole.quantile(level, of_class), math.ceil((len(mine) + 1) * level)
                held = int((mine <= found.value).sum())
                assert rank <= held <= rank + round(found.rank_error * len(mine))
                assert found.rows == len(mine)
                # Where half of many rows are within 0.1 % of one another and half all over, it is more, and told.
                assert found.rank_error <= most + 3.0 / len(mine) or (kind, most) == ("mixed", 1e-3)


def test_ties_and_ends_of_bins_are_held_as_counted() -> None:
    """What is the end of a bin is in it: a rank error that left it to the next would be told too small."""
    scores = np.repeat([0.0, 0.5, np.nextafter(0.5, 1.0), 1.0, 3.5e38, np.nan], [300, 300, 300, 60, 30, 10])
    sketch = ScoreSketch.of(np.zeros(1000, np.int64), scores)
    assert [sketch.quantile(level).value for level in (0.1, 0.59, 0.95, 0.98)] == [
        pytest.approx(0.0, abs=1e-44),
        0.5,
        1.0,
        math.inf,
    ]
    assert sketch.quantile(0.89).value == np.nextafter(np.float32(0.5), np.float32(1.0))
    assert sketch.quantile(0.4).rank_error == pytest.approx(0.6 - 0.401)


def test_few_rows_have_no_end() -> None:
    sketch = ScoreSketch.of(np.zeros(8, np.int64), np.arange(8.0))
    assert sketch.quantile(0.9).value == math.inf
    assert sketch.quantile(0.8).value >= 7.0
    assert sketch.quantile(0.8, of_class=1).rows == 0


def rows(kind: str, n: int, seed: int) -> pa.Table:
    rng = np.random.default_rng([4, seed])
    x = rng.normal(size=(n, 2))
    score = x @ [1.0, -0.5]
    y: Any = {
        "regression": 3.0 + 2.0 * (score + rng.standard_t(3, size=n)),
        "poisson": rng.poisson(np.exp(1.0 + 0.5 * score)),
        "multiclass": np.array(["a", "b", "c"])[
            np.argmax(np.stack([score, -score, 0 * score], 1) + rng.gumbel(size=(n, 3)), 1)
        ],
    }[kind]
    return pa.table({"x0": x[:, 0], "x1": x[:, 1], "y": y})


@pytest.mark.parametrize("kind", ["regression", "poisson", "multiclass"])
def test_nine_of_ten_outcomes_are_held(tmp_path: Path, kind: str) -> None:
    model = streamsgd.train(rows(kind, 2000, 0), "y", task=kind, **USUAL)
    made = streamsgd.calibrate(model, rows(kind, 20_000, 1), out=tmp_path / "m.sgd", memory="1GB", executor="inline")
    again, fresh = streamsgd.load(tmp_path / "m.sgd"), rows(kind, 20_000, 2)
    assert again.to_bytes() == made.to_bytes()
    pq.write_table(fresh, tmp_path / "in.parquet")
    streamsgd.predict(again, tmp_path / "in.parquet", tmp_path / "out.parquet", intervals=0.9, executor="inline", memory="1GB")
    found, y = pq.read_table(tmp_path / "out.parquet"), fresh["y"].to_numpy()
    if kind == "multiclass":
        held = np.array([label in labels for label, labels in zip(y, found["labels"].to_pylist(), strict=True)])
        assert [held[y == label].mean() for label in "abc"] == pytest.approx([0.9] * 3, abs=0.015)
    else:
        held = (found["lower"].to_numpy() <= y) & (y <= found["upper"].to_numpy())
        assert held.mean() == pytest.approx(0.9, abs=0.012)
    assert made.metrics["calibration"]["rank_error"] < (1e-3 if kind == "regression" else 0.05)


def test_rows_that_training_held_out_calibrate(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = rows("regression", 5000, 3)
    model = streamsgd.train(table, "y", validation=0.2, conformal=True, **USUAL)
    assert model.conformal is not None
    held = model.provenance["counts"]["held"]
    assert model.metrics["calibration"]["rows"] == held == model.conformal.rows
    assert model.spread is None  # residuals are of one size here
    rare = pa.table({"x": np.arange(400.0), "y": ["a" if k % 80 == 0 else "b" for k in range(400)]})
    with caplog.at_level(logging.WARNING, "streamsgd"):
        streamsgd.train(rare, "y", validation=0.3, conformal=True, **USUAL)
    assert "1 of 2 classes have too few rows" in caplog.text


def test_intervals_follow_the_size_of_residuals_where_that_shortens_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    x = rng.uniform(0.0, 1.0, size=40_000)
    table = pa.table({"x": x, "y": 2.0 * x + (0.1 + x) * rng.normal(size=40_000)})
    model = streamsgd.train(table.slice(0, 20_000), "y", validation=0.3, conformal=True, **USUAL)
    assert model.spread is not None
    model.save(tmp_path / "m.sgd")
    again = streamsgd.load(tmp_path / "m.sgd")
    assert again.to_bytes() == model.to_bytes()
    fresh = table.slice(20_000)
    pq.write_table(fresh, tmp_path / "in.parquet")
    streamsgd.predict(again, tmp_path / "in.parquet", tmp_path / "out.parquet", intervals=0.9, executor="inline", memory="1GB")
    found, y = pq.read_table(tmp_path / "out.parquet"), fresh["y"].to_numpy()
    lower, upper = found["lower"].to_numpy(), found["upper"].to_numpy()
    for part in (fresh["x"].to_numpy() < 0.3, fresh["x"].to_numpy() > 0.7):  # alike at both ends, as plain ones are not
        assert ((lower <= y) & (y <= upper))[part].mean() == pytest.approx(0.9, abs=0.03)
    assert (upper - lower).min() < 0.4 * (upper - lower).max()


def test_rows_that_chose_the_weights_do_not_calibrate() -> None:
    table = rows("regression", 500, 3)
    with pytest.raises(SettingsError, match="choose the weights"):
        streamsgd.train(table, "y", validation=0.2, conformal=True, patience=2, memory="1GB")
    with pytest.raises(SettingsError, match="held out"):
        streamsgd.train(table, "y", conformal=True, memory="1GB")


def test_a_file_that_was_changed_is_refused(tmp_path: Path) -> None:
    model = streamsgd.train(rows("multiclass", 600, 5), "y", validation=0.3, conformal=True, **USUAL)
    header, arrays = store.unpack("model", model.to_bytes(), "m")
    ends = arrays["conformal.ends"]
    wrong = {
        "ends": [ends[::-1].copy(), ends + (3 << 32), np.append(ends[:-1], (2 << 32) + 0x7F800001), np.append(0, ends[1:])],
        "counts": [np.zeros(len(ends), np.int64), arrays["conformal.counts"][1:]],
        "dropped": [np.zeros(2, np.int64), np.full(3, 24), np.full(3, -1)],
    }
    for name, changed in wrong.items():
        for array in changed:
            (tmp_path / "m.sgd").write_bytes(store.pack("model", header, {**arrays, f"conformal.{name}": array}))
            with pytest.raises(ModelError, match=name):
                streamsgd.load(tmp_path / "m.sgd")
