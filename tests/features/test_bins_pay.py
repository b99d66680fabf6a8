"""Numbers alone get quantile bins where a bounded look says that they pay, and stay as they are elsewhere."""

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streamsgd
from streamsgd.data.open import open_data
from streamsgd.errors import Stopped
from streamsgd.features.choose import choose_encoding
from streamsgd.features.choose_target import choose_target
from streamsgd.features.look.advice import Advice
from streamsgd.features.look.quick_fit import Rows, fit_class, fit_squares
from streamsgd.features.sample import Sample
from streamsgd.features.shapes import choose_roles
from streamsgd.settings.make import make_settings

PLAIN: dict[str, Any] = {"executor": "inline", "memory": "1GB"}


def table(shape: str, n: int = 6_000, d: int = 4, seed: int = 0) -> pa.Table:
    """Waves that no line follows, or a line."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    score = {"waves": np.sin(3.0 * x[:, 0]) + (x[:, 1] > 0.5), "line": x[:, 0] - 0.5 * x[:, 1], "nothing": 0.0 * x[:, 0]}[shape]
    return pa.table({**{f"x{j}": x[:, j] for j in range(d)}, "y": score + rng.normal(size=n) / 2, "late": score > 0.3})


def look_at(data: Any, target: str = "y", **settings: Any) -> tuple[Any, Advice]:
    """How the columns of data would be encoded, and what was asked."""
    made = make_settings({"target": target, "memory": "1GB", **settings})
    dataset, _, _ = open_data(data, None)
    dataset, roles = choose_roles(Sample(dataset, made))
    look = Sample(dataset, made)
    asked = Advice(look, choose_target(look, target, "auto"))
    return choose_encoding(look, roles, asked)[0], asked


@pytest.mark.parametrize("target", ["y", "late"])
def test_bins_come_where_lines_do_not_follow(target: str) -> None:
    other = "late" if target == "y" else "y"
    waves, asked = look_at(table("waves").drop([other]), target)
    assert len(waves.categories) == len(waves.columns) == 4
    assert "--transform tails leaves them" in asked.line
    for shape in ("line", "nothing") if target == "y" else ("line",):
        encoding, asked = look_at(table(shape).drop([other]), target)
        assert not encoding.categories
        assert not asked.line


@pytest.mark.parametrize(
    "settings",
    [
        *({"epochs": 1}, {"optimizer": "adam"}, {"learning_rate": 0.1}, {"polish": 5}),
        *({"transform": "tails"}, {"transform": "none"}, {"scale": "none"}, {"batch_size": 32}),
    ],
)
def test_whoever_sets_how_to_learn_has_the_columns_as_they_are(settings: dict[str, Any]) -> None:
    assert not look_at(table("waves").drop(["late"]), **settings)[0].categories


def test_few_rows_say_nothing() -> None:
    assert not look_at(table("waves", 300).drop(["late"]))[0].categories


def test_it_fits_what_ridge_regression_fits() -> None:
    """Against normal equations, solved by LAPACK."""
    rng = np.random.default_rng(0)
    n = 2_000
    numbers, codes = np.column_stack([rng.normal(size=(n, 3)), np.ones(n)]), rng.integers(0, 6, (n, 2)) + np.array([0, 6])
    whole = np.column_stack([numbers, *((codes == k).any(axis=1).astype(float) for k in range(12))])
    y = whole @ rng.normal(size=16) + rng.normal(size=n)
    exact = np.linalg.solve(whole.T @ whole + 10.0 * np.eye(16), whole.T @ y)
    np.testing.assert_allclose(fit_squares(Rows(numbers, codes, 12), y), exact, atol=2e-4)
    late, weights = (y > y.mean()).astype(float), fit_class(Rows(numbers, codes, 12), (y > y.mean()).astype(float))
    slope = whole.T @ (late - 1.0 / (1.0 + np.exp(-whole @ weights))) - 10.0 * weights
    assert np.abs(slope).max() < 1e-2 * np.abs(whole.T @ (late - 0.5)).max(), "near the minimum of a convex loss"


def test_all_looks_together_take_a_second_at_most(tmp_path: Path) -> None:
    """At bins, names, sentinels, crosses and shrinkage: 0.4 s of processor time here; a machine of CI may be half as fast."""
    wide, rng = table("line", 60_000, 60).drop(["late"]), np.random.default_rng(0)
    for k in range(10):
        wide = wide.append_column(f"c{k}", pa.array(rng.integers(0, 20, 60_000).astype(str)))
        wide = wide.append_column(f"u{k}", pa.array(rng.integers(0, 5_000, 60_000)))
    pq.write_table(wide, tmp_path / "t.parquet", row_group_size=10_000)
    every = {"transform": ["tails"], "sentinels": ["none"], "cross": ["none"], "learning_rate": 0.1}

    def seconds(**settings: Any) -> float:
        began = time.process_time()
        streamsgd.plan(str(tmp_path / "t.parquet"), "y", memory="1GB", executor="inline", **settings)
        return time.process_time() - began

    (looked, plain) = (min(seconds(**settings) for _ in range(3)) for settings in ({}, every))
    assert 0.05 < looked - plain < 1.5


def test_rows_sorted_by_their_label_are_looked_at_alike(tmp_path: Path) -> None:
    rows = table("waves").drop(["y"]).sort_by("late")
    pq.write_table(rows, tmp_path / "t.parquet", row_group_size=500)
    assert look_at(str(tmp_path / "t.parquet"), "late")[0].categories


def test_the_default_is_better_for_it_says_so_and_survives_stops(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data, new = table("waves").drop(["late"]), table("waves", seed=1).drop(["late"])
    with caplog.at_level(logging.INFO, "streamsgd"):
        model = streamsgd.train(data, "y", **PLAIN, chunk_rows=2_000)
    assert sum("quantile bins" in record.getMessage() for record in caplog.records) == 1
    plain = streamsgd.train(data, "y", **PLAIN, chunk_rows=2_000, transform="tails")
    found, before = (streamsgd.evaluate(one, new, **PLAIN)["rmse"] for one in (model, plain))
    assert found < 0.75 * before
    assert found == pytest.approx(model.metrics["held_out"]["rmse"], rel=0.1)
    for _ in range(200):
        try:
            again = streamsgd.train(*(data, "y"), **PLAIN, chunk_rows=2_000, checkpoint=str(tmp_path / "c"), time_limit=1e-9)
        except Stopped:
            continue
        break
    assert again.to_bytes() == model.to_bytes()


@pytest.mark.parametrize(("n", "optimizer"), [(1_500, "normalized"), (6_000, "adam")])
def test_many_rows_per_weight_are_learned_in_batches(n: int, optimizer: str) -> None:
    model = streamsgd.train(table("waves", n).drop(["late"]), "y", **PLAIN)
    assert model.encoding.categories
    assert model.provenance["parts"]["optimizer"].partition(":")[0] in (optimizer, "race")
    assert (optimizer == "adam") == model.provenance["parts"]["optimizer"].startswith("adam")
