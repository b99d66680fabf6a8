"""Metrics agree with scikit-learn, merge like sums, and never claim more than they know."""

import math
import pickle

import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax

from streamsgd.errors import ModelError, SettingsError
from streamsgd.kernels.sums import metrics as tallies
from streamsgd.model.metrics import METRICS, Metrics

TASKS = {"binary": 1, "margin": 1, "multiclass": 4, "regression": 1, "poisson": 1}
EXACT = {"rel": 1e-12, "abs": 1e-15}


def make(task, n, seed=0, weighted=True, dtype=np.float64):
    """Return y, mean, score, weight and loss of n rows of a plausible model."""
    rng = np.random.default_rng(seed)
    score = rng.normal(size=(n, 4) if task == "multiclass" else n) * 2
    if task in ("binary", "margin"):
        mean = expit(score)
        y = rng.random(n) < mean
    elif task == "multiclass":
        mean = softmax(score, axis=1)
        y = (rng.random((n, 1)) > mean.cumsum(axis=1)[:, :3]).sum(axis=1)
    elif task == "regression":
        mean = score + 5
        y = mean + rng.normal(size=n)
    else:
        mean = np.exp(score)
        y = rng.poisson(mean)
    weight = rng.gamma(2.0, size=n) if weighted else None
    columns = (y, mean, score, weight, rng.random(n))
    return [None if column is None else column.astype(dtype) for column in columns]


def rows(columns, start, stop):
    return [None if column is None else column[start:stop] for column in columns]


def filled(task, columns, block=None, **settings):
    metrics = Metrics.for_task(task, TASKS[task], **settings)
    n = len(columns[0])
    for start in range(0, n, block or max(n, 1)):
        metrics.update(*rows(columns, start, start + (block or n)))
    return metrics


def oracle(task, y, mean, score, weight, level=0.5):
    given = {"sample_weight": weight}
    if task in ("binary", "margin"):
        found = {"accuracy": sk.accuracy_score(y, score > 0, **given)}
        probability = np.stack([1 - mean, mean], axis=1)
        return found | ({"log_loss": sk.log_loss(y, probability, labels=[0, 1], **given)} if task == "binary" else {})
    if task == "multiclass":
        return {
            "accuracy": sk.accuracy_score(y, mean.argmax(axis=1), **given),
            "log_loss": sk.log_loss(y, mean, labels=range(mean.shape[1]), **given),
        }
    found = {
        "rmse": math.sqrt(sk.mean_squared_error(y, mean, **given)),
        "mae": sk.mean_absolute_error(y, mean, **given),
    }
    if task == "poisson":
        constant = np.full_like(mean, max(np.average(y, weights=weight), np.finfo(float).tiny))
        return found | {
            "poisson_deviance": sk.mean_poisson_deviance(y, mean, **given),
            "best_constant_poisson_deviance": sk.mean_poisson_deviance(y, constant, **given),
        }
    return found | {
        "r2": sk.r2_score(y, mean, **given),
        "pinball": sk.mean_pinball_loss(y, mean, alpha=level, **given),
        "best_constant_rmse": math.sqrt(np.cov(y, aweights=weight, ddof=0)),
    }


def assert_ranks(result, y, score, weight=None, largest=1e-3):
    auc = sk.roc_auc_score(y, score, sample_weight=weight)
    precision = sk.average_precision_score(y, score, sample_weight=weight)
    assert abs(result["auc"] - auc) <= result["auc_error"] + 1e-12
    assert abs(result["average_precision"] - precision) <= result["average_precision_error"] + 1e-12
    assert result["auc_error"] < largest
    assert result["average_precision_error"] < largest


@pytest.mark.parametrize("n", [1, 2, 7, 4095, 4097, 20_000])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("task", TASKS)
def test_equals_scikit_learn(task, weighted, n):
    """Every metric but the ranking ones is the oracle's to 12 digits."""
    columns = make(task, n, weighted=weighted)
    y, mean, score, weight, loss = columns
    result = filled(task, columns, block=6_000, quantile=0.2).result()
    if n > 1:
        expected = oracle(task, y, mean, score, weight, level=0.2)
        assert {name: result[name] for name in expected} == pytest.approx(expected, **EXACT)
    assert result["loss"] == pytest.approx(np.average(loss, weights=weight), **EXACT)
    assert result["weight"] == pytest.approx(n if weight is None else weight.sum(), **EXACT)
    assert (result["rows"], result["nonfinite_rows"]) == (n, 0)


@pytest.mark.parametrize("task", TASKS)
def test_float32_columns_are_summed_in_float64(task):
    """Single precision columns give what their values give in double precision."""
    columns = make(task, 30_000, dtype=np.float32)
    wide = [column.astype(np.float64) for column in columns]
    assert filled(task, columns).result() == pytest.approx(filled(task, wide).result(), **EXACT)


@pytest.mark.parametrize("task", TASKS)
def test_names_are_registered_and_results_are_finite(task):
    """Every result is finite and explained."""
    result = filled(task, make(task, 100)).result()
    assert result.keys() <= METRICS.keys()
    assert all(math.isfinite(value) for value in result.values())


SCORES = {
    "calibrated": lambda rng, n: rng.normal(size=n) * 2,
    "rare": lambda rng, n: rng.normal(size=n) * 1.5 - 10.5,
    "rare and weak": lambda rng, n: rng.normal(size=n) * 0.1 - 9.2,
    "margins of 100": lambda rng, n: rng.normal(size=n) * 100,
    "hinge": lambda rng, n: rng.choice([-1.0, 1.0], n) + rng.normal(size=n) * 0.1,
    "untrained": lambda rng, n: rng.normal(size=n) * 1e-5,
    "one outlier": lambda rng, n: np.append(rng.normal(size=n - 1), 1e12),
    "enormous": lambda rng, n: rng.normal(size=n) * 1e30,
    "few values": lambda rng, n: rng.integers(-3, 3, n) * 0.7,
    "one value": lambda rng, n: np.full(n, -3.3),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", SCORES)
def test_ranking_holds_its_bound(kind, weighted, dtype):
    """AUC and average precision are within their bounds, and these are small, for scores of any size."""
    rng = np.random.default_rng(5)
    n = 200_000
    score = SCORES[kind](rng, n).astype(dtype)
    y = (rng.random(n) < expit(score.astype(float))).astype(dtype)
    y[:2] = 0, 1
    weight = rng.gamma(2.0, size=n) if weighted else None
    metrics = Metrics.for_task("margin")
    for start in range(0, n, 30_000):
        metrics.update(*rows((y, None, score, weight), start, start + 30_000))
    assert_ranks(metrics.result(), y, score, weight)


def test_ranking_of_one_in_ten_thousand():
    """At a prevalence of 10^-4 over 10^6 rows the bounds stay below 10^-3."""
    rng = np.random.default_rng(6)
    score = rng.normal(size=1_000_000) * 1.2 - 9.9
    y = (rng.random(score.size) < expit(score)).astype(float)
    assert 0.5e-4 < y.mean() < 2e-4
    metrics = Metrics.for_task("binary")
    metrics.update(y, None, score)
    assert_ranks(metrics.result(), y, score)


def test_ties_are_exact():
    """A model of few distinct scores has an error bound of 0, however many rows share a score."""
    result = filled("binary", make_ties(50_000)).result()
    assert result["auc_error"] == 0.0
    assert result["average_precision_error"] < 1e-15


def make_ties(n):
    rng = np.random.default_rng(1)
    score = rng.integers(-4, 4, n).astype(float)
    y = (rng.random(n) < expit(score)).astype(float)
    return [y, expit(score), score]


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_ranking_bound_is_rigorous(data):
    """No scores, ties or weights take AUC or average precision out of their bounds."""
    score = st.floats(-1e130, 1e130) | st.sampled_from([0.0, -0.0, 1.0, 1.0 + 1e-15, -1e-300])
    row = st.tuples(st.booleans(), score, st.floats(0.01, 100.0))
    table = np.array(data.draw(st.lists(row, min_size=2, max_size=60)))
    y, score, weight = table.T
    y[:2] = 0, 1
    metrics = Metrics.for_task("margin")
    metrics.update(y, None, score, weight)
    assert_ranks(metrics.result(), y, score, weight, largest=1.0)


@settings(max_examples=300, deadline=None)
@given(a=st.floats(-1e300, 1e300), b=st.floats(-1e300, 1e300))
def test_bins_are_monotone(a, b):
    """The order of keys never contradicts the order of scores, and signs mirror."""
    low, high = sorted((a, b))
    assert tallies._key(low) <= tallies._key(high)
    assert tallies._key(-a) == -tallies._key(a)


def same_numbers(a, b, tolerance=1e-12):
    assert a.result() == pytest.approx(b.result(), rel=tolerance, abs=tolerance)
    assert np.array_equal(a.arrays()["counts"], b.arrays()["counts"])
    if "span" in a.arrays():
        assert np.array_equal(a.arrays()["span"], b.arrays()["span"])
        assert np.array_equal(a.arrays()["bins"][:, 2], b.arrays()["bins"][:, 2], equal_nan=True)


@pytest.mark.parametrize("task", TASKS)
@settings(max_examples=25, deadline=None)
@given(cuts=st.tuples(st.integers(0, 9_000), st.integers(0, 9_000)), shift=st.sampled_from([0.0, 1e3, 1e6]))
def test_merge_is_associative_and_is_the_whole(task, cuts, shift):
    """(a + b) + c == a + (b + c) == all rows at once, with empty parts and unlike parts."""
    columns = make(task, 9_000)
    if task == "regression":
        columns[0] = np.sort(columns[0]) + shift
        columns[1] = columns[1] + shift
    first, second = sorted(cuts)
    edges = [(0, first), (first, second), (second, 9_000)]
    a, b, c, d, e, f = (filled(task, rows(columns, *edge)) for edge in edges + edges)
    a.merge(b)
    a.merge(c)
    e.merge(f)
    d.merge(e)
    tolerance = max(1e-12, 1e-15 * shift)
    same_numbers(a, d, tolerance)
    same_numbers(a, filled(task, columns), tolerance)


def test_merge_of_unlike_histograms():
    """Coarse into fine, fine into coarse and empty into both agree with the whole."""
    y, score = np.array([0.0, 1.0] * 500), np.linspace(-1.0, 1.0, 1000)
    whole = filled("margin", [np.tile(y, 2), None, np.append(score * 1e-8, score * 1e8)])
    for first, second in ((1e-8, 1e8), (1e8, 1e-8)):
        merged = filled("margin", [y, None, score * first])
        merged.merge(filled("margin", [y, None, score * second]))
        merged.merge(Metrics.for_task("margin"))
        same_numbers(merged, whole)
        empty = Metrics.for_task("margin")
        empty.merge(merged)
        same_numbers(empty, whole)


@pytest.mark.parametrize("task", TASKS)
def test_same_blocks_give_the_same_bits(task):
    """The same blocks in the same order give the same bits."""
    columns = make(task, 20_000)
    a, b = filled(task, columns, block=3_000).arrays(), filled(task, columns, block=3_000).arrays()
    assert a.keys() == b.keys()
    assert all(a[name].tobytes() == b[name].tobytes() for name in a)


@pytest.mark.parametrize("task", TASKS)
def test_restored_metrics_go_on_bit_for_bit(task):
    """Saved, restored and continued equals uninterrupted; so does pickled and continued."""
    columns = make(task, 20_000)
    whole = filled(task, columns, block=10_000)
    half = filled(task, rows(columns, 0, 10_000))
    restored = Metrics.for_task(task, TASKS[task])
    restored.restore(half.arrays())
    for metrics in (restored, pickle.loads(pickle.dumps(half))):
        metrics.update(*rows(columns, 10_000, 20_000))
        assert all(metrics.arrays()[k].tobytes() == v.tobytes() for k, v in whole.arrays().items())


def test_arrays_are_copies():
    """What was saved does not change when the metrics go on."""
    metrics = filled("regression", make("regression", 10))
    saved = metrics.arrays()
    metrics.update([1.0], [2.0], None)
    assert saved["counts"][0] == 10
    metrics.restore(saved)
    metrics.update([1.0], [2.0], None)
    assert saved["counts"][0] == 10


@pytest.mark.parametrize("task", TASKS)
def test_empty_metrics_have_counts_only(task):
    """No rows: nothing but zeros, and an empty block changes nothing."""
    metrics = Metrics.for_task(task, TASKS[task])
    metrics.update(*rows(make(task, 5), 0, 0))
    assert metrics.result() == {"rows": 0, "nonfinite_rows": 0, "weight": 0.0}


@pytest.mark.parametrize("task", TASKS)
def test_rows_without_weight_count_as_rows_only(task):
    """Weights of 0 leave the other metrics undefined or, among weighted rows, unchanged."""
    y, mean, score, weight, loss = make(task, 1_000)
    metrics = Metrics.for_task(task, TASKS[task])
    metrics.update(y, mean, score, np.zeros(1_000), loss)
    assert metrics.result() == {"rows": 1_000, "nonfinite_rows": 0, "weight": 0.0}
    before = filled(task, [y, mean, score, weight, loss])
    metrics.update(y, mean, score, weight, loss)
    expected = before.result() | {"rows": 2_000}
    assert metrics.result() == pytest.approx(expected, rel=1e-12, abs=1e-3)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_one_class_has_no_auc(label):
    """With a single class AUC is absent, and average precision needs positives."""
    result = filled("binary", [np.full(5, label), None, np.arange(5.0)]).result()
    assert "auc" not in result
    assert ("average_precision" in result) == (label == 1.0)
    assert result["best_constant_log_loss"] == 0.0


@pytest.mark.parametrize("value", [0.0, 0.1, 1e9 + 0.1])
def test_constant_target_has_no_r2(value):
    """A constant target leaves R2 undefined and its best constant without error."""
    result = filled("regression", [np.full(9_999, value), np.zeros(9_999), None], block=5_000).result()
    assert "r2" not in result
    assert result["best_constant_rmse"] == 0.0


def test_r2_of_large_targets():
    """A mean 10^9 standard deviations away costs R2 no more digits than the targets themselves lost."""
    rng = np.random.default_rng(0)
    noise = np.round(rng.normal(size=100_000) * 1024) / 1024
    fit = np.round(noise * 0.5 * 1024) / 1024
    near = filled("regression", [noise, fit, None], block=7_000).result()
    far = filled("regression", [noise + 2.0**30, fit + 2.0**30, None], block=7_000).result()
    assert far["r2"] == pytest.approx(near["r2"], rel=1e-10)
    assert far["best_constant_rmse"] == pytest.approx(near["best_constant_rmse"], rel=1e-10)


def test_sums_are_compensated():
    """Blocks far below the rounding error of the total still count."""
    metrics = Metrics.for_task("regression")
    metrics.update([0.0], [1e8], None)
    for _ in range(1_000):
        metrics.update([0.0], [0.5], None)
    assert metrics._sum("squared_error") == 1e16 + 250.0


@pytest.mark.parametrize("blocks", [1, 50])
def test_long_streams_keep_their_digits(blocks):
    """A sum over many rows is the exactly rounded one to 12 digits, in one block or many."""
    rng = np.random.default_rng(0)
    y, mean = rng.lognormal(size=(2, 300_000))
    metrics = filled("regression", [y, mean, None], block=300_000 // blocks)
    assert metrics._sum("squared_error") == pytest.approx(math.fsum((y - mean) ** 2), rel=1e-13)


def test_saturated_scores_have_a_finite_log_loss():
    """Log loss comes from the log-odds: exact where the probability rounds to 0 or 1."""
    result = filled("binary", [np.array([0.0, 1.0]), np.array([1.0, 1.0]), np.array([800.0, 50.0])]).result()
    assert result["log_loss"] == pytest.approx((800.0 + math.exp(-50.0)) / 2)


def test_impossible_predictions_are_clipped():
    """A probability or a mean of 0 for what happened is a large loss, not an infinite one."""
    certain = filled("multiclass", [np.array([1.0]), np.array([[1.0, 0.0, 0.0, 0.0]]), None]).result()
    assert certain["log_loss"] == pytest.approx(-math.log(np.finfo(float).eps))
    nothing = filled("poisson", [np.array([3.0, 0.0]), np.zeros(2), None]).result()
    assert 1e3 < nothing["poisson_deviance"] < 1e4


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e200])
@pytest.mark.parametrize("task", TASKS)
def test_nonfinite_predictions_are_left_out(task, bad):
    """Rows whose terms are not finite are counted apart and change nothing else."""
    columns = make(task, 5_000)
    broken = [column.copy() for column in columns]
    column = 2 if task in ("binary", "margin") else 1
    broken[column][::50] = bad * 1e100 if task not in ("regression", "poisson") else bad
    kept = np.arange(5_000) % 50 > 0
    result = filled(task, broken).result()
    expected = filled(task, [c[kept] for c in columns]).result() | {"nonfinite_rows": 100}
    assert result == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_metrics_without_any_finite_row():
    """A diverged model gives counts, not a crash."""
    result = filled("binary", [np.ones(3), None, np.full(3, math.nan)]).result()
    assert result == {"rows": 0, "nonfinite_rows": 3, "weight": 0.0}


def test_loss_is_averaged_over_the_rows_that_have_one():
    """Blocks without losses do not dilute the mean loss."""
    metrics = Metrics.for_task("regression")
    metrics.update([1.0, 2.0], [0.0, 0.0], None, [1.0, 3.0], [4.0, 8.0])
    metrics.update([1.0, 2.0], [0.0, 0.0], None, [1.0, 3.0])
    assert metrics.result()["loss"] == 7.0


def test_columns_of_any_layout_are_taken():
    """Read-only, strided, integer and (n, 1) columns give what plain ones give."""
    y, mean, score, weight, loss = make("binary", 1_000)
    frozen = np.repeat(score, 2)
    frozen.flags.writeable = False
    odd = filled("binary", [y.astype(np.int64), mean, frozen[::2], weight, loss])
    column = filled("binary", [y, mean, score[:, None], weight, loss])
    plain = filled("binary", [y, mean, score, weight, loss])
    assert odd.result() == column.result() == plain.result()


def test_wrong_requests_are_refused():
    """Unknown tasks, levels, outputs, shapes and classes are errors that name the numbers."""
    with pytest.raises(SettingsError, match="known tasks: binary"):
        Metrics.for_task("ranking")
    with pytest.raises(SettingsError, match="between 0 and 1, not 1"):
        Metrics.for_task("regression", quantile=1.0)
    with pytest.raises(SettingsError, match="n_outputs=1"):
        Metrics.for_task("multiclass", 1)
    with pytest.raises(SettingsError, match="n_outputs=2"):
        Metrics.for_task("binary", 2)
    with pytest.raises(ValueError, match=r"mean must have the shape \(2,\), not \(3,\)"):
        Metrics.for_task("regression").update([1.0, 2.0], [1.0, 2.0, 3.0], None)
    for label in (3.0, -1.0, math.nan):
        with pytest.raises(ValueError, match=r"0 \.\.\. 2"):
            Metrics.for_task("multiclass", 3).update([label], [[0.2, 0.3, 0.5]], None)
    with pytest.raises(ValueError, match="cannot be merged"):
        Metrics.for_task("binary").merge(Metrics.for_task("margin"))


def test_arrays_of_another_job_are_refused():
    """Restoring arrays of other names, shapes or types names the difference."""
    arrays = Metrics.for_task("multiclass", 3).arrays()
    with pytest.raises(ModelError, match="need the arrays bins, counts"):
        Metrics.for_task("binary").restore(arrays)
    for span in ([0, 1 << 62, 0], [5, 4, 0], [0, 1, 64], [0, 1, -1]):  # merging these would take years
        with pytest.raises(ModelError, match="not that of a histogram"):
            Metrics.for_task("binary").restore(Metrics.for_task("binary").arrays() | {"span": np.array(span)})
    with pytest.raises(ModelError, match=r"'sums' must be float64 \(9, 2\), not float64 \(8, 2\)"):
        Metrics.for_task("multiclass", 4).restore(arrays)
