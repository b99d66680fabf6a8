"""Noise of gradients: NumPy's sums, exactly 0 of equal rows, the same bits anywhere; what batches make of it."""

import json
from collections.abc import Callable
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import finish_chunk_by_chunk
from scipy import stats
from test_polish import COLUMNS, TARGETS, WEIGHTS, design, learned, slopes_of, table_of

import streamsgd
from streamsgd.errors import DataError, SettingsError
from streamsgd.model.model import Model
from streamsgd.settings.make import make_settings
from streamsgd.stream.stream import read_chunk
from streamsgd.training.noise.gradient_noise import T95, covariance_diagonal, jackknife_error, ratio_at
from streamsgd.training.prepare import prepare
from streamsgd.training.tasks.noise import GROUPS, Group, NoiseSums, as_arrays, from_arrays
from streamsgd.training.tasks.with_noise import sample_of

N = len(WEIGHTS)
EXACT: dict[str, Any] = {"memory": "2GB", "executor": "inline", "precision": "float64", "validation": "none"}
LEARNED = {"epochs": 1, "optimizer": "adam", "transform": "none", "bits": 8, **EXACT}


def model_of(loss: str, *, wide: bool = False, **settings: Any) -> Model:
    return streamsgd.train(table_of(loss, wide=wide), "y", **{"loss": loss, "exclude": ["h"], **LEARNED, **settings})


def gradients(model: Model, table: pa.Table, weight: Any = 1.0) -> np.ndarray:
    """Those of all rows, (n_rows, n_weights)."""
    x = design(model, table)
    slopes = slopes_of(model, x, learned(model, table)) * np.reshape(weight, (-1, 1))
    return (x[:, :, None] * slopes[:, None, :]).reshape(len(x), -1)


def expected(g: np.ndarray) -> dict[str, float]:
    trace, mean = float(g.var(axis=0, ddof=1).sum()), g.mean(axis=0)
    norm = float(mean @ mean) - trace / len(g)
    return {"trace_covariance": trace, "gradient_norm_squared": norm, "noise_scale": trace / norm}


def agrees(found: dict[str, Any], truth: dict[str, float], rtol: float = 1e-12) -> None:
    for name, value in truth.items():
        if not (name == "noise_scale" and found[name] is None):
            np.testing.assert_allclose(found[name], value, rtol=rtol, err_msg=name)


# --- law: the sums are NumPy's


@pytest.mark.parametrize("loss", ["squared", "logistic", "poisson", "softmax"])
def test_it_is_numpys_at_a_model(loss: str) -> None:
    table, model = table_of(loss), model_of(loss)
    g = gradients(model, table)
    found = streamsgd.noise(table, at=model, memory="2GB", executor="inline")
    agrees(found, expected(g), rtol=1e-11)  # a unit in the last place of a score is more of a small slope
    assert (found["rows"], found["weights"], found["places"], found["groups"]) == (N, g.shape[1], g.shape[1], GROUPS)


def test_it_is_numpys_at_zero_weights_of_which_the_intercept_is_one() -> None:
    x = np.column_stack([*COLUMNS.values(), np.ones(N)])
    y = TARGETS["squared"]
    found = streamsgd.noise(pa.table({**COLUMNS, "y": y}), "y", scale=["none"], transform="none", **EXACT)
    agrees(found, expected(-y[:, None] * x))
    np.testing.assert_allclose(found["loss"], 0.5 * np.mean(np.square(y)), rtol=1e-12)


def test_a_row_of_weight_h_has_h_times_the_gradient() -> None:
    table, model = table_of("squared"), model_of("squared")
    found = streamsgd.noise(table, at=model, weight="h", memory="2GB", executor="inline")
    agrees(found, expected(gradients(model, table, WEIGHTS)))


@pytest.mark.parametrize("loss", ["squared", "softmax"])
def test_rows_of_few_entries_are_added_up_alike(loss: str) -> None:
    """Of 256 hashed weights; lists whose values share a hash add both."""
    table, model = table_of(loss, wide=True), model_of(loss, wide=True)
    found = streamsgd.noise(table, at=model, memory="2GB", executor="inline")
    assert found["places"] == found["weights"] == model.weights.size < 1024
    agrees(found, expected(gradients(model, table)), rtol=1e-11)


def test_of_many_weights_signed_sums_have_the_same_lengths() -> None:
    """1,024 of them: within 4 standard deviations, root of 2/1024, of a squared length."""
    table, model = table_of("squared", wide=True), model_of("squared", wide=True, bits=14)
    g = gradients(model, table)
    found = streamsgd.noise(table, at=model, memory="2GB", executor="inline")
    assert (found["places"], found["weights"]) == (1024, g.shape[1])
    agrees({**found, "noise_scale": None}, expected(g), rtol=4 * np.sqrt(2 / 1024))
    truth = expected(g)["trace_covariance"]
    assert found["trace_covariance"] != truth


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "normalized"])
def test_in_the_metric_of_the_step(optimizer: str) -> None:
    """One over the root of the mean squared gradient of a batch for Adam, the plain one for sgd, none row by row."""
    table, model = table_of("squared"), model_of("squared")
    batch = {} if optimizer == "normalized" else {"batch_size": 16}
    found = streamsgd.noise(table, at=model, optimizer=optimizer, **batch, memory="2GB", executor="inline")
    if optimizer == "normalized":
        assert found["metric"] is None
        return
    g = gradients(model, table)
    metric = np.ones(g.shape[1])
    if optimizer == "adam":
        metric = 1.0 / np.sqrt(np.square(g.mean(axis=0)) + g.var(axis=0, ddof=1) / 16)
    assert found["metric"]["optimizer"] == optimizer
    agrees(found["metric"], expected(g * np.sqrt(metric)), rtol=1e-10)


# --- law: of equal rows it is exactly 0


@pytest.mark.parametrize("target", [0.1, 3, 1, 0, True, "a"])
@pytest.mark.parametrize("wide", [False, True])
def test_of_one_row_many_times_over_it_is_exactly_zero(target: Any, wide: bool) -> None:
    n = 1000
    columns: dict[str, Any] = {"a": [0.1] * n, "b": [1 / 3] * n, **({"word": ["x"] * n} if wide else {})}
    table = pa.table({**columns, "y": [target] * n})
    for settings in ({"scale": ["none"]}, {"scale": ["none"], "chunk_rows": 64, "precision": "float32"}, {}):
        found = streamsgd.noise(table, "y", **{**EXACT, **settings})
        assert found["trace_covariance"] == 0.0
        assert found["noise_scale"] == 0.0
        assert found["interval"] == [0.0, 0.0]
        assert np.isfinite(found["gradient_norm_squared"])


def test_of_one_row_many_times_over_it_is_zero_at_any_weights() -> None:
    for wide in (False, True):
        model = model_of("logistic", wide=wide)
        one = table_of("logistic", wide=wide).slice(7, 1)
        found = streamsgd.noise(pa.concat_tables([one] * 500), at=model, memory="2GB", executor="inline", chunk_rows=100)
        assert found["trace_covariance"] == found["noise_scale"] == 0.0
        assert found["gradient_norm_squared"] > 0.0


def test_training_still_refuses_a_target_that_does_not_vary() -> None:
    with pytest.raises(DataError, match="constant"):
        streamsgd.train(pa.table({"a": [0.5, 1.0] * 50, "y": [2.0] * 100}), "y", memory="2GB")


# --- law: the same bits anywhere


def test_it_is_the_same_bits_on_threads_and_workers(tmp_path: Path, two_workers: Any) -> None:
    pq.write_table(table_of("logistic", wide=True), tmp_path / "d.parquet", row_group_size=100)
    settings: dict[str, Any] = {"exclude": ["h"], "chunk_rows": 250, "memory": "1GB"}
    alone = streamsgd.noise(tmp_path / "d.parquet", "y", executor="inline", **settings)
    for other in ({"executor": "threads", "threads": 2}, {"client": two_workers}):
        assert streamsgd.noise(tmp_path / "d.parquet", "y", **settings, **other) == alone


def test_sums_about_any_reference_are_the_same() -> None:
    rng = np.random.default_rng(4)
    g = rng.normal(size=(60, 5)) + 3.0

    def share(rows: np.ndarray, group: int) -> NoiseSums:
        away = rows - rows[0]
        tally = np.array([len(rows), len(rows), 0.0, 0.0])
        spread = np.array([1.0, away.sum(axis=0) @ away.sum(axis=0) / len(rows), 0.0, 0.0])
        return NoiseSums(rows[0], {group: Group(tally, away.sum(axis=0), np.square(away).sum(axis=0))}, spread)

    whole = share(g[:20], 0).merge(share(g[20:50], 1).merge(share(g[50:], 1)))
    np.testing.assert_allclose(covariance_diagonal(whole.total), g.var(axis=0, ddof=1), rtol=1e-12)
    parts = [g[:20], g[20:50], g[50:]]
    means = [part.mean(axis=0) - g[0] for part in parts]
    np.testing.assert_allclose(whole.spread[1], sum(len(p) * m @ m for p, m in zip(parts, means, strict=True)), rtol=1e-12)
    again = from_arrays(as_arrays(whole), 5)
    assert all(np.array_equal(a, b) for a, b in zip(as_arrays(again).values(), as_arrays(whole).values(), strict=True))
    with pytest.raises(ValueError, match="reference is"):
        from_arrays(as_arrays(whole), 4)


def test_a_run_may_end_with_the_pass_and_counts_its_rows_once() -> None:
    table = table_of("logistic")
    settings: dict[str, Any] = {**LEARNED, "exclude": ["h"], "filter": "x0 > 0"}
    model = streamsgd.train(table, "y", phases=["streamsgd.training.phases.noise:MEASURED_NOISE"], **settings)
    plain = streamsgd.train(table, "y", **settings)
    assert model.provenance["counts"] == plain.provenance["counts"]
    told = streamsgd.noise(table, at=plain, filter="x0 > 0", optimizer="adam", memory="2GB", executor="inline")
    assert told["counts"]["filtered"] == plain.provenance["counts"]["filtered"] > 0
    found = model.metrics["measured_noise"]
    assert found == {key: told[key] for key in found}


# --- law: errors and intervals


def test_quantiles_are_students() -> None:
    np.testing.assert_allclose(T95, stats.t.ppf(0.975, np.arange(1, len(T95) + 1)), atol=6e-5)


def test_the_jackknife_error_of_a_mean_is_the_known_one() -> None:
    x = np.random.default_rng(2).normal(size=24)
    without = [(x.sum() - value) / 23 for value in x]
    np.testing.assert_allclose(jackknife_error(float(x.mean()), without, [1.0] * 24), x.std(ddof=1) / np.sqrt(24))


def table_of_groups(g: np.ndarray) -> NoiseSums:
    groups = {}
    for k, rows in enumerate(np.array_split(g - g[0], GROUPS)):
        groups[k] = Group(np.array([len(rows), 0.0, 0.0, 0.0]), rows.sum(axis=0), np.square(rows).sum(axis=0))
    return NoiseSums(g[0], groups, np.zeros(4))


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """95 % of 400 tables, within 3 standard errors."""
    rng, mean = np.random.default_rng(6), np.array([0.5, -0.3, 0.0, 0.1])
    truth, held = 4.0 / float(mean @ mean), 0
    for _ in range(400):
        found = ratio_at(table_of_groups(rng.normal(size=(1600, 4)) + mean))
        assert found.interval is not None
        held += found.interval[0] <= truth <= found.interval[1]
    assert 0.95 - 3 * np.sqrt(0.95 * 0.05 / 400) <= held / 400 <= 0.95 + 3 * np.sqrt(0.95 * 0.05 / 400)


def test_without_a_signal_there_is_no_noise_scale_and_the_signal_is_unbiased() -> None:
    rng = np.random.default_rng(7)
    found = [ratio_at(table_of_groups(rng.normal(size=(640, 4)))) for _ in range(400)]
    assert np.mean([one.identified for one in found]) < 0.1
    norms = np.array([one.norm for one in found])
    assert abs(norms.mean()) < 3 * norms.std() / 20


# --- law: the design effect is the variance of the batches that are drawn


@pytest.mark.parametrize("per_chunk", [1, 4, 16, 64])
def test_batches_of_sorted_data_vary_as_it_says(per_chunk: int, tmp_path: Path) -> None:
    """Within 3 %: between chunks as the plan draws them, within each as rows drawn without replacement vary."""
    rng, m, n_groups, b = np.random.default_rng(3), 32, 64, 16
    y = np.sort(rng.normal(size=m * n_groups))
    table = pa.table({"x": rng.normal(size=len(y)), "y": y})
    path = tmp_path / "sorted.parquet"
    pq.write_table(table, path, row_group_size=m)
    settings: dict[str, Any] = {**EXACT, "chunk_rows": per_chunk * m, "batch_size": b, "scale": ["none"], "optimizer": "sgd"}
    found = streamsgd.noise(path, "y", **settings)
    g = -y[:, None] * np.column_stack([table["x"], np.ones(len(y))])
    plan = prepare(str(path), make_settings({"target": "y", **settings})).plan
    assert found["units"] == n_groups or per_chunk == n_groups
    mean, total, n = g.mean(axis=0), 0.0, 0
    for epoch in range(1 if per_chunk in (1, n_groups) else 4000):
        for chunk in plan.chunks(epoch):
            rows = np.concatenate([g[m * piece.first : m * piece.last] for piece in chunk.pieces])
            within = (1 / b - 1 / len(rows)) * rows.var(axis=0, ddof=1).sum()
            total, n = total + float(np.square(rows.mean(axis=0) - mean).sum()) + within, n + 1
    assert n % (n_groups // per_chunk) == 0
    np.testing.assert_allclose(found["design_effect"] * g.var(axis=0).sum() / b, total / n, rtol=0.03)


def test_slices_of_one_large_row_group_vary_as_they_are_mixed() -> None:
    """Half a chunk at a time, one after another: eight chunks of 128 rows."""
    rng, b = np.random.default_rng(5), 8
    table = pa.table({"x": rng.normal(size=1024), "y": np.sort(rng.normal(size=1024))})
    settings: dict[str, Any] = {**EXACT, "chunk_rows": 256, "batch_size": b, "scale": ["none"], "optimizer": "sgd"}
    found = streamsgd.noise(table, "y", **settings)
    parts = np.split(-np.asarray(table["y"])[:, None] * np.column_stack([table["x"], np.ones(1024)]), 8)
    whole = np.concatenate(parts)
    truth = np.mean([
        np.square(part.mean(axis=0) - whole.mean(axis=0)).sum() + (1 / b - 1 / 128) * part.var(axis=0, ddof=1).sum()
        for part in parts
    ])  # fmt: skip
    assert found["units"] == 8
    np.testing.assert_allclose(found["design_effect"] * whole.var(axis=0).sum() / b, truth, rtol=1e-9)


def test_chunks_in_the_order_of_the_data_vary_as_they_do() -> None:
    rng, b = np.random.default_rng(5), 8
    y = np.sort(rng.normal(size=1200))
    table = pa.table({"x": rng.normal(size=1200), "y": y})
    settings: dict[str, Any] = {**EXACT, "chunk_rows": 200, "batch_size": b, "scale": ["none"], "optimizer": "sgd"}
    found = streamsgd.noise(table, "y", shuffle="full-chunk", **settings)
    parts = np.split(-y[:, None] * np.column_stack([table["x"], np.ones(1200)]), 6)
    whole = np.concatenate(parts)
    truth = np.mean([
        np.square(part.mean(axis=0) - whole.mean(axis=0)).sum() + (1 / b - 1 / 200) * part.var(axis=0, ddof=1).sum()
        for part in parts
    ])  # fmt: skip
    np.testing.assert_allclose(found["design_effect"] * whole.var(axis=0).sum() / b, truth, rtol=1e-9)
    assert streamsgd.noise(table, "y", shuffle="none", **settings)["design_effect"] is None


# --- while learning


@pytest.mark.parametrize("optimizer", ["adam", "normalized", "race", "sgd", "ftrl"])
@pytest.mark.parametrize("wide", [False, True])
def test_it_leaves_the_weights_as_they_are(optimizer: str, wide: bool) -> None:
    table = table_of("logistic", wide=wide)
    settings: dict[str, Any] = {**LEARNED, "epochs": 2, "optimizer": optimizer, "exclude": ["h"], "chunk_rows": 500}
    plain, noisy = (streamsgd.train(table, "y", noise=noise, **settings) for noise in (False, True))
    assert plain.weights.tobytes() == noisy.weights.tobytes()
    found = noisy.metrics["noise"]
    assert found["rows"] == 2 * N
    assert 2 * 6 * 64 <= found["rows_measured"] < 2 * N
    assert found["trace_covariance"] > 0.0
    assert (found["metric"] is not None) == (wide or optimizer != "race")  # that goes on as normalized


def test_nothing_that_is_chosen_depends_on_it() -> None:
    """With nothing set: crosses, bins, and the finish of small data are those of the run without."""
    rng = np.random.default_rng(4)
    x = rng.integers(0, 8, size=(4000, 2))
    y = 1.0 * (x[:, 0] == x[:, 1]) + 0.1 * rng.normal(size=4000)
    table = pa.table({"a": [f"a{v}" for v in x[:, 0]], "b": [f"b{v}" for v in x[:, 1]], "c": rng.normal(size=4000), "y": y})
    plain, noisy = (streamsgd.train(table, "y", memory="1GB", executor="inline", noise=noise) for noise in (False, True))
    assert plain.encoding == noisy.encoding
    assert plain.weights.tobytes() == noisy.weights.tobytes()
    assert "noise" in noisy.metrics


def test_it_is_the_scatter_within_chunks_at_the_weights_of_their_start() -> None:
    """At a rate of next to nothing those are zeros; of chunks of 60 rows all are measured."""
    table = pa.table({**COLUMNS, "y": TARGETS["squared"]})
    settings: dict[str, Any] = {**EXACT, "scale": ["none"], "transform": "none", "chunk_rows": 60, "optimizer": "sgd"}
    settings |= {"learning_rate": 1e-300, "epochs": 2, "shuffle": "none"}
    found = streamsgd.train(table, "y", noise=True, **settings).metrics["noise"]
    g = -np.asarray(table["y"])[:, None] * np.column_stack([*COLUMNS.values(), np.ones(N)])
    parts = np.split(g, N // 60)
    agrees(found, {name: float(np.mean([expected(part)[name] for part in parts])) for name in list(expected(g))[:2]})
    np.testing.assert_allclose(found["noise_scale"], found["trace_covariance"] / found["gradient_norm_squared"])
    assert found["metric"] == {"optimizer": "sgd", **{key: found[key] for key in found["metric"] if key != "optimizer"}}
    assert found["rows_measured"] == 2 * N
    assert sum(1 for _ in found["path"]) == 16


def test_rows_to_measure_are_drawn_from_those_to_learn_each_at_most_once() -> None:
    job = prepare(table_of("logistic"), make_settings({"target": "y", **LEARNED, "validation": 0.3, "chunk_rows": 1000}))
    for epoch in range(3):
        for chunk in job.plan.chunks(epoch):
            block, room = job.recipe.allocate(1000), np.empty(1000, np.int32)
            filled = read_chunk(job.recipe, job.plan, chunk, block, room)
            rows = sample_of(filled, job.plan.key(epoch, chunk.number, 7))
            inside = [(s, s + c) for s, c in zip(filled.starts, filled.counts, strict=True)]
            assert len(rows) == 64 == len(np.unique(rows))
            assert all(any(s <= row < e for s, e in inside) for row in rows)


def test_a_batch_of_lanes_in_step_is_measured_too() -> None:
    table = table_of("logistic")
    settings: dict[str, Any] = {**LEARNED, "exclude": ["h"], "chunk_rows": 500, "lanes": 3}
    for combine in ("sync", "average"):
        plain, noisy = (streamsgd.train(table, "y", noise=noise, combine=combine, **settings) for noise in (False, True))
        assert plain.weights.tobytes() == noisy.weights.tobytes()
        assert noisy.metrics["noise"]["rows"] == N


def test_chunks_of_fewer_rows_than_weights_are_measured_now_and_then() -> None:
    """Of 4,110 weights and chunks of 125 rows one in 32, of 96."""
    settings: dict[str, Any] = {**LEARNED, "exclude": ["h"], "bits": 12, "chunk_rows": 250, "epochs": 4}
    model = streamsgd.train(table_of("logistic", wide=True), "y", noise=True, **settings)
    assert model.weights.size == 4110
    assert model.metrics["noise"]["rows_measured"] == 3 * 64
    assert model.metrics["noise"]["rows"] == 3 * 125


def test_while_learning_the_design_effect_is_told_by_units_that_came_together(tmp_path: Path) -> None:
    """All rows of every chunk are measured, at zeros: that of the pass within 3 %."""
    rng = np.random.default_rng(3)
    y = np.sort(rng.normal(size=4096))
    pq.write_table(pa.table({"x": rng.normal(size=4096), "y": y}), tmp_path / "d.parquet", row_group_size=8)
    settings: dict[str, Any] = {**EXACT, "scale": ["none"], "chunk_rows": 64, "batch_size": 16, "optimizer": "sgd"}
    settings["shuffle"] = "corgi"
    told = streamsgd.noise(tmp_path / "d.parquet", "y", **settings)["design_effect"]
    still = {**settings, "learning_rate": 1e-300}
    found = streamsgd.train(tmp_path / "d.parquet", "y", noise=True, epochs=4, **still).metrics["noise"]
    assert told > 1.5
    np.testing.assert_allclose(found["design_effect"], told, rtol=0.03)
    whole = {**settings, "chunk_rows": 4096}
    found = streamsgd.train(tmp_path / "d.parquet", "y", noise=True, epochs=1, **whole).metrics["noise"]
    np.testing.assert_allclose(found["design_effect"], (4096 - 16) / 4095)


@pytest.mark.parametrize("settings", [{"optimizer": "adam"}, {"optimizer": "normalized", "lanes": 2}])
def test_a_run_with_noise_is_the_same_bytes_stopped_anywhere_and_on_workers(
    settings: dict[str, Any], tmp_path: Path, two_workers: Any
) -> None:
    path = tmp_path / "d.parquet"
    pq.write_table(table_of("logistic", wide=True), path, row_group_size=100)
    run = partial(streamsgd.train, path, "y", noise=True, exclude=["h"], chunk_rows=500, epochs=2, memory="1GB", **settings)
    alone = run(executor="inline").to_bytes()
    places = cycle([{"executor": "inline"}, {"executor": "threads", "threads": 2}])
    resumed, stops = finish_chunk_by_chunk(run, tmp_path / "saved", places)
    assert stops >= 5
    assert resumed.to_bytes() == alone
    assert run(client=two_workers).to_bytes() == alone


# --- the command, and bad input


def test_the_command_says_it_in_its_last_line(tmp_path: Path, command_line: Callable[..., Any]) -> None:
    path = tmp_path / "d.parquet"
    pq.write_table(table_of("logistic"), path)
    model_of("logistic").save(tmp_path / "m.sgd")
    command = ["noise", path, "--memory", "2GB"]
    done = command_line(*command, "--at", tmp_path / "m.sgd")
    assert done.returncode == 0
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.keys() >= {"trace_covariance", "gradient_norm_squared", "noise_scale", "interval", "design_effect"}
    same = streamsgd.noise(path, at=tmp_path / "m.sgd", memory="2GB")
    assert {key: found[key] for key in same} == json.loads(json.dumps(same))
    assert "noise of 3,000 rows" in done.stderr
    refused = command_line(*command)
    assert refused.returncode == 2
    assert "--target" in refused.stderr


def test_what_cannot_be_is_refused() -> None:
    model, table = model_of("logistic"), table_of("logistic")
    with pytest.raises(SettingsError, match="--scale"):
        streamsgd.noise(table, at=model, scale=["none"])
    with pytest.raises(SettingsError, match="--target x0: the model was trained with y"):
        streamsgd.noise(table, "x0", at=model)
    with pytest.raises(DataError, match="is one row: take more rows"):
        streamsgd.noise(table.slice(0, 1), at=model, memory="2GB")
    with pytest.raises(SettingsError, match="which svrg corrects"):
        streamsgd.train(table, "y", optimizer="svrg", noise=True, epochs=4, memory="2GB")
    with pytest.raises(SettingsError, match="--noise needs all the data at once"):
        streamsgd.Trainer("y", noise=True)
