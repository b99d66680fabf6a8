"""What evaluation finds beyond the metrics of training: scikit-learn's numbers, in sums that merge, by group as if alone."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sklearn.metrics as sk
from click.testing import CliRunner
from scipy.special import expit
from sklearn.calibration import calibration_curve

import streamsgd
from streamsgd.cli.main import cli
from streamsgd.errors import DataError, SettingsError, StreamSGDError
from streamsgd.model.metrics import Metrics
from streamsgd.model.packed import pack, unpack
from streamsgd.model.probability.calibration import Calibration
from streamsgd.model.ranking import at_precision, at_top, score_of

RARE: dict[str, Any] = {"loc": -5.0, "scale": 1.5}


def scored(n: int = 30_000, seed: int = 0, loc: float = -3.0, scale: float = 1.5, digits: int = 12) -> tuple[np.ndarray, ...]:
    """Return targets, scores and weights of a calibrated model; few digits make ties."""
    rng = np.random.default_rng([seed, 5])
    score = np.round(rng.normal(loc, scale, n), digits)
    return (rng.random(n) < expit(score)).astype(float), score, rng.gamma(2.0, size=n)


def histogram(y: np.ndarray, score: np.ndarray, weight: np.ndarray) -> tuple[Any, Any]:
    metrics = Metrics.for_task("binary")
    metrics.update(y, None, score, weight)
    return metrics.histogram


@pytest.mark.parametrize("digits", [12, 1])
@pytest.mark.parametrize("level", [0.02, 0.3, 0.5, 0.7])
def test_recall_at_a_precision_is_that_of_the_curve_within_its_bound(level: float, digits: int) -> None:
    y, score, weight = scored(digits=digits)
    precision, recall, _ = sk.precision_recall_curve(y, score, sample_weight=weight)
    found = at_precision(*histogram(y, score, weight), level)
    truth = recall[precision >= level].max()
    assert found["recall"] - 1e-9 <= truth <= found["recall"] + found["error"] + 1e-9
    assert found["error"] < (1e-3 if digits > 1 else 1e-12)
    if found["recall"]:
        taken = score >= found["threshold"]
        assert sk.recall_score(y, taken, sample_weight=weight) == pytest.approx(found["recall"], rel=1e-12)
        assert sk.precision_score(y, taken, sample_weight=weight) >= level - 1e-12


def test_precision_and_lift_at_the_top_are_those_of_sorted_rows() -> None:
    y, score, _ = scored()
    order = np.argsort(-score)
    for size in (10, 300, 3000, 30_000):
        found = at_top(*histogram(y, score, np.ones(len(y))), size)
        precision = y[order[:size]].mean()
        assert abs(found["precision"] - precision) <= found["error"] + 1e-12
        assert found["error"] <= 1.0 / size
        assert found["recall"] == pytest.approx(found["precision"] * size / y.sum())
        assert found["lift"] == pytest.approx(found["precision"] / y.mean())


def test_of_rows_that_tie_a_random_part_counts() -> None:
    """The mean over random orders of the rows with one score."""
    y, score, _ = scored(3000, digits=0)
    rng, size = np.random.default_rng(0), 100
    means = []
    for _ in range(2000):
        order = np.lexsort((rng.random(len(y)), -score))
        means.append(y[order[:size]].mean())
    found = at_top(*histogram(y, score, np.ones(len(y))), size)
    assert found["error"] == 0.0
    assert abs(found["precision"] - np.mean(means)) < 4 * np.std(means) / np.sqrt(len(means))


def test_keys_of_scores_turn_back() -> None:
    for score in (-17.25, -1.0, -1e-3, 0.0, 2.5e-7, 3.75, 900.5):
        key = int(np.float64(1.0 + abs(score)).view(np.int64)) - int(np.float64(1.0).view(np.int64))
        assert score_of(key if score >= 0 else -key) == pytest.approx(score, abs=1e-15)


def counted(y: np.ndarray, score: np.ndarray, weight: np.ndarray | None) -> Calibration:
    found = Calibration()
    found.update(y, score, weight)
    return found


def test_calibration_is_scikit_learns_in_the_same_groups() -> None:
    """Groups of about equal weight; within the limits that are told, the sums are exact."""
    y, score, _ = scored(**RARE)
    p = expit(score)
    found = counted(y, score, None).result()
    assert found["brier"] == pytest.approx(sk.brier_score_loss(y, p), rel=1e-10)
    assert found["mean_prediction"] == pytest.approx(p.mean(), rel=1e-10)
    assert found["prevalence"] == pytest.approx(y.mean(), rel=1e-10)
    observed, predicted = calibration_curve(y, p, n_bins=20, strategy="quantile")
    groups = found["calibration"]
    assert [group["weight"] for group in groups] == pytest.approx([1500.0] * 20, rel=0.15)
    assert [group["predicted"] for group in groups] == pytest.approx(predicted, rel=0.03)
    away = 0.0
    for group in groups:
        inside = (p >= group["low"]) & (p < group["high"])
        assert inside.sum() == group["weight"]
        assert group["predicted"] == pytest.approx(p[inside].mean(), rel=1e-10)
        assert group["observed"] == pytest.approx(y[inside].mean(), abs=1e-12)
        away += inside.mean() * abs(y[inside].mean() - p[inside].mean())
    assert found["calibration_error"] == pytest.approx(away, rel=1e-9)
    theirs = np.abs(observed - predicted).mean()
    assert found["calibration_error"] == pytest.approx(theirs, rel=0.5)
    off = counted(y, score + 1.0, None).result()
    assert off["calibration_error"] > 4 * found["calibration_error"]


def test_parts_merge_to_the_whole_and_odd_rows_are_left_out() -> None:
    y, score, weight = scored()
    whole, parts = counted(y, score, weight), Calibration()
    for part in np.array_split(np.arange(len(y)), 7):
        parts.merge(counted(y[part], score[part], weight[part]))
    np.testing.assert_allclose(parts.levels, whole.levels, rtol=1e-12)
    odd = counted(np.append(y, [1.0, 0.0]), np.append(score, [np.nan, np.inf]), np.append(weight, [1.0, 1.0]))
    np.testing.assert_array_equal(odd.levels, whole.levels)
    assert Calibration().result() == {}
    far = counted(np.array([0.0, 1.0]), np.array([-900.0, 900.0]), None).result()
    assert (far["calibration"][0]["low"], far["calibration"][-1]["high"]) == (0.0, 1.0)


# --- of a model


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, streamsgd.Model, pa.Table]:
    rng = np.random.default_rng(3)
    n = 6000
    x, site = rng.normal(size=(n, 2)), rng.choice(["a", "b", "c"], n)
    y = rng.random(n) < expit(x @ [1.2, -0.8] - 2.5 + (site == "b"))
    number = pa.array(rng.integers(0, 3, n), mask=rng.random(n) < 0.1)
    table = pa.table({"x0": x[:, 0], "x1": x[:, 1], "site": pa.array(site).dictionary_encode(), "number": number, "y": y})
    path = str(tmp_path_factory.mktemp("by") / "data.parquet")
    pq.write_table(table, path, row_group_size=700)
    model = streamsgd.train(path, "y", features=["x0", "x1"], executor="inline", batch_size=64)
    return path, model, table


def test_by_a_column_each_value_is_measured_as_if_alone(trained: tuple[str, streamsgd.Model, pa.Table]) -> None:
    """A column that the model does not read, of texts, and of numbers with nulls; filtered rows are in no group."""
    path, model, table = trained
    found = streamsgd.evaluate(model, path, by="site", filter="x0 > -1")
    whole = streamsgd.evaluate(model, path, filter="x0 > -1")
    assert sorted(found["by"]) == ["a", "b", "c"]
    assert found["log_loss"] == pytest.approx(whole["log_loss"], rel=1e-12)
    assert found["calibration"] == whole["calibration"]
    for value, group in found["by"].items():
        same = streamsgd.evaluate(model, path, filter=f"x0 > -1 and site == '{value}'")
        assert group.keys() == same.keys()
        for key in group.keys() - {"calibration"}:
            assert group[key] == pytest.approx(same[key], rel=1e-9), key
        assert len(group["calibration"]) == len(same["calibration"])
    numbers = streamsgd.evaluate(model, path, by="number")["by"]
    assert {key: group["rows"] for key, group in numbers.items()} == {
        "(null)" if value is None else str(value): count
        for value, count in ((entry["values"], entry["counts"]) for entry in table["number"].value_counts().to_pylist())
    }


def test_numbers_of_an_evaluation_are_scikit_learns(trained: tuple[str, streamsgd.Model, pa.Table]) -> None:
    path, model, table = trained
    y, p = table["y"].to_numpy(zero_copy_only=False), model.predict_proba(path)[:, 1].astype(float)
    found = streamsgd.evaluate(model, path, at_precision=[0.4], top=[100, 0.1])
    assert found["brier"] == pytest.approx(sk.brier_score_loss(y, p), rel=1e-5)
    prevalence = y.mean()
    entropy = -(prevalence * np.log(prevalence) + (1 - prevalence) * np.log(1 - prevalence))
    assert found["normalized_cross_entropy"] == pytest.approx(sk.log_loss(y, p) / entropy, rel=1e-5)
    average = sk.average_precision_score(y, p)
    assert abs(found["average_precision"] - average) <= found["average_precision_error"] + 1e-6
    order = np.argsort(-p)
    for name, size in (("100", 100), ("0.1", 600)):
        error = found[f"precision_at_top_{name}_error"]
        assert abs(found[f"precision_at_top_{name}"] - y[order[:size]].mean()) <= error + 1e-9
        assert found[f"lift_at_top_{name}"] == pytest.approx(found[f"precision_at_top_{name}"] / prevalence)
    precision, recall, _ = sk.precision_recall_curve(y, p)
    assert found["recall_at_precision_0.4"] == pytest.approx(recall[precision >= 0.4].max(), abs=1e-3)


def test_the_command_prints_them_as_json(trained: tuple[str, streamsgd.Model, pa.Table], tmp_path: Path) -> None:
    path, model, _ = trained
    model.save(tmp_path / "m.sgd")
    run = CliRunner().invoke(cli, ["evaluate", str(tmp_path / "m.sgd"), path, "--by", "site", "--top", "50", "--quiet"])
    assert run.exit_code == 0, run.output
    metrics = json.loads(run.stdout.splitlines()[-1])["metrics"]
    assert {"lift_at_top_50", "recall_at_precision_0.9", "brier", "calibration", "by"} <= metrics.keys()
    assert "lift_at_top_0.1" not in metrics
    wrong = CliRunner().invoke(cli, ["evaluate", str(tmp_path / "m.sgd"), path, "--top", "few"])
    assert wrong.exit_code == 2
    assert "is not a list of numbers" in wrong.stderr


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"by": "sit"}, StreamSGDError, "did you mean site"),
        ({"by": "x0"}, DataError, r"more than [\d,]+ values, as it is a continuous one \(double\): name a column of few"),
        ({"at_precision": [1.5]}, SettingsError, "--at-precision 1.5"),
        ({"top": [0]}, SettingsError, "--top 0"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    trained: tuple[str, streamsgd.Model, pa.Table], options: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        streamsgd.evaluate(trained[1], trained[0], **options)


def test_many_values_fit_where_one_histogram_each_would_not(tmp_path: Path) -> None:
    """500 values of 60 rows: a histogram of bins for each would be 860 MB. The most frequent ones are shown."""
    rng = np.random.default_rng(0)
    n = 30_000
    x, user = rng.normal(size=n), np.minimum(rng.integers(0, 510, n), 499)
    y = rng.random(n) < expit(x)
    pq.write_table(pa.table({"x": x, "user": user, "y": y}), tmp_path / "d.parquet", row_group_size=7000)
    streamsgd.train(tmp_path / "d.parquet", "y", features=["x"], executor="inline").save(tmp_path / "m.sgd")
    words = ["evaluate", str(tmp_path / "m.sgd"), str(tmp_path / "d.parquet"), "--by", "user", "--memory", "250MB"]
    run = CliRunner().invoke(cli, words)
    assert run.exit_code == 0, run.output
    by = json.loads(run.stdout.splitlines()[-1])["metrics"]["by"]
    assert {int(value): group["rows"] for value, group in by.items()} == dict(enumerate(np.bincount(user)))
    table = run.stderr.splitlines()
    at = next(k for k, line in enumerate(table) if line.startswith("value "))
    often = sorted(by, key=lambda value: -by[value]["rows"])
    assert table[at + 1].split()[:2] == [often[0], str(by[often[0]]["rows"])]
    assert table[at + 21].startswith("... and 480 more values; metrics.by of the JSON")


def test_rows_that_are_left_out_have_no_value(tmp_path: Path) -> None:
    """10,000 users, of 100 of whom the target is known: `--by` tells apart those that are judged."""
    rng = np.random.default_rng(0)
    user = np.arange(20_000) % 10_000
    x = rng.normal(size=len(user))
    y = pa.array(x + rng.normal(size=len(user)) > 0, mask=user >= 100)
    table = pa.table({"x": x, "user": user, "y": y})
    pq.write_table(table, tmp_path / "d.parquet")
    model = streamsgd.train(table, "y", features=["x"], executor="inline", bad_rows="skip")
    found = streamsgd.evaluate(model, tmp_path / "d.parquet", by="user", bad_rows="skip")["by"]
    assert sorted(map(int, found)) == list(range(100))
    assert {group["rows"] for group in found.values()} == {2}


def test_too_many_values_say_what_each_costs(trained: tuple[str, streamsgd.Model, pa.Table], tmp_path: Path) -> None:
    _, model, table = trained
    n = len(table) // 2
    more = table.append_column("row", pa.array(np.arange(len(table)) % n))
    pq.write_table(pa.concat_tables([more] * 20), tmp_path / "rows.parquet", row_group_size=10_000)
    told = r"they need 1\d\.\d kB each, and may have 16\.8 MB: give more --memory, of which they get a sixteenth"
    with pytest.raises(DataError, match=told):
        streamsgd.evaluate(model, tmp_path / "rows.parquet", by="row", memory="200MB")


@pytest.mark.parametrize("task", ["binary", "regression", "multiclass", "poisson"])
def test_packed_sums_are_the_same_bits(task: str) -> None:
    rng = np.random.default_rng(1)
    outputs = 3 if task == "multiclass" else 1
    whole, parts = Metrics.for_task(task, outputs), Metrics.for_task(task, outputs)
    levels, others = Calibration(), Calibration()
    for _ in range(5):
        y = rng.integers(0, 2, 900).astype(float)
        score, weight = rng.normal(size=900), rng.gamma(2.0, size=900)
        mean = rng.dirichlet(np.ones(3), 900) if outputs > 1 else expit(score)
        for metrics, calibration in ((whole, levels), (parts, others)):
            metrics.update(y, mean, score, weight)
            calibration.update(y, score, weight)
        packed = pack(parts, others)
        assert not others.levels.any()
        parts, others = Metrics.for_task(task, outputs), Calibration()
        unpack(packed, parts, others)
    for name, array in whole.arrays().items():
        np.testing.assert_array_equal(parts.arrays()[name], array)
    np.testing.assert_array_equal(others.levels, levels.levels)


def test_long_values_of_a_column_count_for_what_they_take(tmp_path: Path) -> None:
    """Few values of 100 kB take as much as thousands of short ones."""
    n = 400
    table = pa.table({"x": np.arange(n) / n, "y": np.arange(n) % 2, "long": ["p" * 100_000 + str(k) for k in range(n)]})
    model = streamsgd.train(table.drop(["long"]), "y", executor="inline", epochs=1)
    with pytest.raises(DataError, match=r"--by long: the column has more than \d\d values, .* need 41\d kB each"):
        streamsgd.evaluate(model, table, by="long", memory="200MB", executor="inline")
    assert len(streamsgd.evaluate(model, table, by="long", memory="4GB", executor="inline")["by"]) == n


def test_ids_are_refused_before_each_becomes_an_object(tmp_path: Path) -> None:
    """A hundred thousand values of a piece as Python's strings took more than all else that an evaluation has."""
    n = 100_000
    table = pa.table({"x": np.arange(n) / n, "y": np.arange(n) % 2, "id": [f"visitor-{k:09d}" for k in range(n)]})
    model = streamsgd.train(table.drop(["id"]).slice(0, 1000), "y", executor="inline", epochs=1)
    tracemalloc.start()
    with pytest.raises(DataError, match=r"--by id: the column has more than 4,096 values, which is the most"):
        streamsgd.evaluate(model, table, by="id", executor="inline")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 80 * n, "less than two objects each"


def test_values_of_rows_that_the_filter_leaves_out_are_no_groups() -> None:
    n = 10_000
    table = pa.table({"x": np.arange(n) / n, "y": np.arange(n) % 2, "id": np.arange(n)})
    model = streamsgd.train(table.drop(["id"]), "y", executor="inline", epochs=1)
    found = streamsgd.evaluate(model, table, by="id", filter="id<5", executor="inline")["by"]
    assert {label: group["rows"] for label, group in found.items()} == dict.fromkeys("01234", 1.0)
