"""Standard errors: those of statsmodels, in the units of the columns, or none where the data determines nothing."""

import json
import logging
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import LogisticRegression
from test_polish import COLUMNS, L2, TARGETS, WEIGHTS, design, learned, penalised, slopes_of, table_of
from test_polish import X as NUMBERS
from test_polish import train as polished

import streamsgd
from streamsgd.errors import ModelError, SettingsError
from streamsgd.kernels.sums.sandwich import lay_chunk
from streamsgd.model.model import Model
from streamsgd.show.model import model_summary, model_text
from streamsgd.training.phases.standard_errors import MOST_WEIGHTS, sandwich

N = len(NUMBERS)
FREE: dict[str, Any] = {"penalty": "none", "standard_errors": True}
CONSTANT = np.column_stack([np.ones(N), NUMBERS])


def train(loss: str, **settings: Any) -> Model:
    wide = bool(settings.pop("wide", False))
    return polished(table_of(loss, wide=wide), loss, **{**FREE, **settings})


def raw(model: Model) -> np.ndarray:
    """Standard errors in the units of the columns, the intercept's first."""
    _, weights, intercepts = model.standard_errors()
    return np.append(intercepts, weights[:, 0])


# --- law: without penalty they are HC0


@pytest.mark.parametrize("loss", ["squared", "logistic", "poisson"])
def test_they_are_those_of_statsmodels(loss: str) -> None:
    api = pytest.importorskip("statsmodels.api")
    family = {"squared": api.families.Gaussian, "logistic": api.families.Binomial, "poisson": api.families.Poisson}[loss]()
    y = np.asarray(TARGETS[loss], float)
    theirs = api.GLM(y, CONSTANT, family=family).fit(cov_type="HC0", tol=1e-13, maxiter=200)
    np.testing.assert_allclose(raw(train(loss)), theirs.bse, rtol=1e-6)
    if loss == "squared":
        np.testing.assert_allclose(raw(train(loss)), api.OLS(y, CONSTANT).fit(cov_type="HC0").bse, rtol=1e-6)
    if loss == "logistic":
        discrete = api.Logit(y, CONSTANT).fit(cov_type="HC0", disp=False, method="newton", tol=1e-12)
        np.testing.assert_allclose(raw(train(loss)), discrete.bse, rtol=1e-6)


def test_a_row_of_weight_h_is_one_row_that_counts_h_times() -> None:
    """As of weighted least squares, and of weights of the variance in generalised linear models."""
    api = pytest.importorskip("statsmodels.api")
    model = train("squared", weight="h", exclude=[])
    theirs = api.WLS(TARGETS["squared"], CONSTANT, weights=WEIGHTS).fit(cov_type="HC0")
    np.testing.assert_allclose(raw(model), theirs.bse, rtol=1e-6)
    model = train("poisson", weight="h", exclude=[])
    some = WEIGHTS > 0.0  # rows of weight 0 are no rows to statsmodels
    theirs = api.GLM(TARGETS["poisson"][some], CONSTANT[some], family=api.families.Poisson(), var_weights=WEIGHTS[some]).fit(
        cov_type="HC0", tol=1e-13, maxiter=200
    )
    np.testing.assert_allclose(raw(model), theirs.bse, rtol=1e-6)


def test_of_classes_they_are_of_differences_from_the_mean() -> None:
    """Those of differences between two classes are statsmodels'; weights sum to 0 over the classes."""
    api = pytest.importorskip("statsmodels.api")
    model = train("softmax")
    np.testing.assert_allclose(model.weights.sum(axis=1), 0.0, atol=1e-12)
    codes = np.unique(TARGETS["softmax"], return_inverse=True)[1]
    x = np.column_stack([np.ones(N), design(model, table_of("softmax"))[:, :-1]])
    theirs = api.MNLogit(codes, x).fit(cov_type="HC0", disp=False, method="newton", tol=1e-12)
    assert model.covariance is not None
    of = model.covariance.reshape(7, 3, 7, 3)
    for k in (1, 2):
        variances = [of[j, k, j, k] + of[j, 0, j, 0] - 2 * of[j, k, j, 0] for j in (6, 0, 1, 2, 3, 4, 5)]
        np.testing.assert_allclose(np.sqrt(variances), theirs.bse[:, k - 1], rtol=1e-6)
    np.testing.assert_allclose(of.sum(axis=1), 0.0, atol=1e-8 * np.abs(of).max())


# --- law: with penalty, other losses, categories and lists they are the formula


def textbook(model: Model, table: pa.Table, h: Any = 1.0, l2: float = 0.0) -> np.ndarray:
    """(n_weights, n_weights) in plain NumPy, second derivatives by differences of plain slopes."""
    x, y, k = design(model, table), learned(model, table), model.n_outputs
    h = np.broadcast_to(np.asarray(h, float), len(x))
    rows = np.einsum("ij,ik->ijk", x, slopes_of(model, x, y) * h[:, None]).reshape(len(x), -1)
    bread = np.zeros((rows.shape[1], rows.shape[1])).reshape(x.shape[1], k, x.shape[1], k)
    for q in range(k):
        moved = []
        for sign in (-1, 1):
            other = Model(model.loss, model.encoding, model.target, model.weights.copy())
            other.weights[-1, q] += sign * 1e-6
            moved.append(slopes_of(other, x, y))
        bent = (moved[1] - moved[0]) / 2e-6 * h[:, None]
        bread[:, :, :, q] = np.einsum("ij,ik,im->jkm", x, bent, x, optimize=True)
    bread = bread.reshape(rows.shape[1], -1)
    bread += len(x) * l2 * np.diag(np.repeat(np.arange(x.shape[1]) < x.shape[1] - 1, k).astype(float))
    filling = np.cov(rows.T, bias=True) * len(x)
    inverse = np.linalg.pinv(bread, rcond=1e-8, hermitian=True)  # nothing holds a shift of the intercepts of all classes
    return inverse @ filling @ inverse


@pytest.mark.parametrize("wide", [False, True], ids=["numbers", "wide"])
@pytest.mark.parametrize("loss", TARGETS)
def test_they_are_the_formula(loss: str, wide: bool) -> None:
    """With a penalty, weights and lists; what no row has is not determined."""
    table = table_of(loss, wide=wide)
    model = polished(table, loss, standard_errors=True, weight="h", exclude=[])
    expected, found = textbook(model, table, WEIGHTS, L2), model.covariance
    assert found is not None
    absent = np.repeat(~design(model, table).any(axis=0), model.n_outputs)
    assert np.array_equal(np.isnan(np.diagonal(found)), absent)
    assert np.array_equal(np.isnan(found), absent[:, None] | absent)
    scale = np.sqrt(np.outer(np.diagonal(expected), np.diagonal(expected)))[~absent][:, ~absent]
    # One row lies so near to the kink of a Huber loss that it counts in part.
    close = 5e-3 if loss.startswith("huber") else 1e-5
    np.testing.assert_allclose(found[~absent][:, ~absent] / scale, expected[~absent][:, ~absent] / scale, atol=close)
    told = model.metrics["standard_errors"]
    assert told == {"rows": N, "weights": found.shape[0], "determined": int((~absent).sum()), "off": told["off"]}
    assert told["off"] < 1e-4


def test_with_a_penalty_they_are_those_of_the_jackknife() -> None:
    """Which leaves one row out at a time, and knows no formula; what it does not share is of the order of 1 / rows."""
    n, l2 = 400, 0.05
    table = table_of("logistic").slice(0, n)
    model = polished(table, "logistic", standard_errors=True, penalty=f"l2:l2={l2}")
    x, y = design(model, table)[:, :-1], learned(model, table)
    assert np.abs(penalised(model, l2)[:-1]).max() > 0.003, "the penalty pulls"
    left_out = []
    for i in range(n):
        kept = np.arange(n) != i
        fit = LogisticRegression(C=1.0 / (n * l2), tol=1e-10, solver="newton-cholesky").fit(x[kept], y[kept])
        left_out.append(np.append(fit.coef_[0], fit.intercept_))
    spread = np.array(left_out) - np.mean(left_out, axis=0)
    jackknife = np.sqrt((n - 1) / n * (spread**2).sum(axis=0))
    np.testing.assert_allclose(model.standard_errors()[0][:, 0], jackknife, rtol=0.04)


def test_held_out_rows_do_not_count() -> None:
    model = train("logistic", validation=0.25)
    assert 0.7 * N < model.metrics["standard_errors"]["rows"] < 0.8 * N
    assert (raw(model) > 1.05 * raw(train("logistic"))).all()


def test_chunks_and_rows_as_entries_make_no_difference() -> None:
    """But for rounding."""
    whole = train("logistic").covariance
    np.testing.assert_allclose(train("logistic", chunk_rows=211).covariance, whole, rtol=1e-5)
    single = train("logistic", precision="float32")
    np.testing.assert_allclose(raw(single), raw(train("logistic")), rtol=1e-4)


def test_averaged_weights_have_them_too_and_how_far_they_are_off(caplog: pytest.LogCaptureFixture) -> None:
    good = {
        "average": 0.1,
        "optimizer": "sgd",
        "schedule": "inverse-scaling:power=0.6",
        "batch_size": 8,
        "features": ["x[0-2]"],
    }
    polished_, good = train("logistic", **good), {**good, "polish": 0}
    model = train("logistic", learning_rate=4.0, epochs=20, **good)
    assert model.metrics["standard_errors"]["off"] < 0.7
    assert not caplog.records
    np.testing.assert_allclose(raw(model), raw(polished_), rtol=0.05)
    with caplog.at_level(logging.WARNING):
        far = train("logistic", learning_rate=0.001, **good)
    assert far.metrics["standard_errors"]["off"] > 5.0
    assert "standard errors from the minimum, beyond what the errors tell: pass --polish 20" in caplog.text


# --- law: what the data does not determine has none


def test_columns_that_depend_on_one_another_have_none_and_the_others_keep_theirs() -> None:
    table = table_of("logistic")
    more = table.append_column("sum", pa.array(NUMBERS[:, 0] - 2 * NUMBERS[:, 1])).append_column("one", pa.array(np.ones(N)))
    for precision in ("float64", "float32"):
        plain = polished(table, "logistic", **FREE, precision=precision, optimizer="auto")
        model = polished(more, "logistic", **FREE, precision=precision, optimizer="auto")
        _, errors, intercept = model.standard_errors()
        found = dict(zip(model.encoding.names, errors[:, 0].tolist(), strict=True))
        assert {name for name, error in found.items() if np.isnan(error)} == {"x0", "x1", "sum", "one"}
        expected = dict(zip(plain.encoding.names, plain.standard_errors()[1][:, 0].tolist(), strict=True))
        for name in ("x2", "x3", "x4", "x5"):
            assert found[name] == pytest.approx(expected[name], rel=1e-3)
        assert np.isnan(intercept[0]), "it has a part of the columns that are not determined"
        assert model.metrics["standard_errors"]["determined"] == 5


def test_values_of_a_category_are_determined_by_a_penalty_only() -> None:
    """All of them rise as the intercept falls."""
    table = table_of("logistic").append_column("colour", table_of("logistic", wide=True)["colour"])
    bare, held = (polished(table, "logistic", standard_errors=True, penalty=penalty) for penalty in ("none", "l2:l2=1e-3"))
    known = {value.value: value.errors for value in bare.values()}
    assert known.keys() > {"red", "green", "blue"}
    assert all(errors is not None and np.isnan(errors[0]) for errors in known.values())
    assert np.isfinite(bare.standard_errors()[0][:6]).all()
    found = {value.value: value.errors for value in held.values()}
    for name, errors in found.items():
        assert errors is not None
        assert np.isfinite(errors[0]) == (name in ("red", "green", "blue", "grey", "white"))


def test_a_generalised_inverse_is_numpys() -> None:
    """Of matrices of less than full rank, whatever the units: where it is determined, as of the pseudo-inverse."""
    rng = np.random.default_rng(2)
    for rank in (0, 1, 5, 8):
        rows = np.zeros((40, 8))
        rows[:, :rank] = rng.normal(size=(40, rank)) * 10.0 ** rng.integers(-6, 6, rank)
        if rank == 5:
            rows[:, 5] = rows[:, 0] + rows[:, 1]
        bread, other = rows.T @ rows, rows * rng.normal(size=(40, 1))
        filling, gradient = other.T @ other, rows.sum(axis=0)
        covariance, step = sandwich(bread, filling, gradient, np.ones(8, bool))
        known = {0: [], 1: [0], 5: [2, 3, 4], 8: list(range(8))}[rank]
        assert np.array_equal(np.flatnonzero(np.isfinite(np.diagonal(covariance))), known)
        inverse = np.linalg.pinv(rows, rcond=1e-15) if rank == 8 else np.linalg.pinv(rows / _size(rows)) / _size(rows)[:, None]
        found, expected = covariance[np.ix_(known, known)], (inverse @ inverse.T @ filling @ inverse @ inverse.T)
        scale = np.sqrt(np.outer(np.diagonal(found), np.diagonal(found)))
        np.testing.assert_allclose(found / scale, expected[np.ix_(known, known)] / scale, atol=1e-8)
        np.testing.assert_allclose(
            step[known] / np.sqrt(np.diagonal(found)), (inverse @ np.ones(40))[known] / np.sqrt(np.diagonal(found)), atol=1e-7
        )


def _size(rows: np.ndarray) -> np.ndarray:
    size: np.ndarray = np.linalg.norm(rows, axis=0)
    return np.where(size > 0.0, size, 1.0)


# --- law: they are kept and shown


def test_show_has_intervals(tmp_path: Any) -> None:
    model = train("squared")
    model.save(tmp_path / "m.sgd")
    again = streamsgd.load(tmp_path / "m.sgd")
    np.testing.assert_array_equal(again.covariance, model.covariance)
    assert again.to_bytes() == model.to_bytes()
    summary = model_summary(again)
    assert json.loads(json.dumps(summary)) == json.loads(json.dumps(model_summary(model)))
    weights, _ = model.coefficients()
    for column in summary["columns"]:
        j = model.encoding.names.index(column["name"])
        assert column["error"] == raw(model)[1 + j]
        low, high = column["interval"]
        assert (low + high) / 2 == pytest.approx(weights[j, 0])
        assert high - low == pytest.approx(2 * 1.959964 * column["error"], rel=1e-6)
        assert column["standardised_error"] == model.standard_errors()[0][j, 0]
    assert summary["intercept_error"] == raw(model)[0]
    lines = model_text(summary)
    header = next(line for line in lines if line.startswith("column"))
    assert "std. error" in header
    assert "95 % interval" in header
    line = next(line for line in lines if line.startswith("x0 "))
    assert f"{raw(model)[1]:.3g}" in line
    assert " .. " in line


def test_show_says_what_is_not_determined_and_copes_with_classes() -> None:
    wide = polished(table_of("logistic", wide=True), "logistic", **FREE)
    summary = model_summary(wide)
    assert summary["intercept_error"] is None
    assert summary["intercept_interval"] == [None, None]
    assert any("red" in line and "not determined" in line for line in model_text(summary))
    classes = model_summary(polished(table_of("softmax", wide=True), "softmax", standard_errors=True))
    assert set(classes["columns"][0]["error"]) == {"a", "b", "c"}
    assert len(classes["columns"][0]["interval"]["b"]) == 2
    lines = model_text(classes)
    assert sum(line.startswith("column") and "95 % interval" in line for line in lines) == 4


def test_a_model_without_says_how_to_get_them() -> None:
    model = polished(table_of("logistic"), "logistic")
    assert model.covariance is None
    assert "error" not in model_summary(model)["columns"][0]
    with pytest.raises(ModelError, match="train it with --standard-errors and --polish"):
        model.standard_errors()


def test_a_model_of_no_column_has_that_of_a_mean() -> None:
    table = table_of("squared")
    model = streamsgd.train(
        pa.table({"one": np.ones(N), "y": table["y"]}),
        "y",
        polish=20,
        standard_errors=True,
        precision="float64",
        executor="inline",
    )
    assert model.metrics["standard_errors"]["determined"] in (0, 1)


# --- law: bad input


@pytest.mark.parametrize(
    ("loss", "settings", "message"),
    [
        ("logistic", {"polish": 0}, "not of the last step of SGD: pass --polish 20 too, or --average auto"),
        (
            "hinge",
            {"polish": 0, "average": 0.5},
            "--standard-errors needs a loss without kinks, and Hinge has some; take --loss squ",
        ),
        (
            "logistic",
            {"penalty": "l1"},
            "--standard-errors do not hold for weights that l1 selects: pass --penalty l2, or none",
        ),
        (
            "logistic",
            {"polish": 0, "average": 0.5, "optimizer": "ftrl:l2=1"},
            "--standard-errors minimises .* ftrl has l2 of its",
        ),
        (
            "logistic",
            {"wide": True, "bits": 11},
            r"pairs of up to 2,048 weights, and here are 2,\d\d\d \(6 numbers, .* 2,048 hash",
        ),
        ("logistic", {"standard_errors": "perhaps"}, "--standard-errors: 'perhaps' is not true or false"),
        ("softmax", {"wide": True, "bits": 10}, "here are 3,"),
    ],
)
def test_what_has_none_is_refused_before_it_starts(loss: str, settings: dict[str, Any], message: str) -> None:
    table = table_of({"hinge": "logistic"}.get(loss, loss), wide=bool(settings.pop("wide", False)))
    with pytest.raises(SettingsError, match=message):
        polished(table, loss, **{**FREE, **settings})


def test_tables_that_come_one_by_one_have_none() -> None:
    with pytest.raises(SettingsError, match="--standard-errors needs all the data at once"):
        streamsgd.Trainer("y", standard_errors=True, average="auto")


def test_the_matrices_are_part_of_the_plan() -> None:
    table = table_of("logistic", wide=True).drop_columns(["h"])
    usual = {"loss": "logistic", "bits": 10, "memory": "2GB", "average": "auto"}
    plain, more = (streamsgd.plan(table, "y", **usual, standard_errors=on) for on in (False, True))
    n = plain.encoding.n_coordinates
    assert n <= MOST_WEIGHTS
    assert more.budget.model - plain.budget.model == 12 * 8 * n * n


def test_no_setting_compiles_another_kernel() -> None:
    table = table_of("logistic", wide=True)
    for change in ({}, {"penalty": "none"}, {"validation": 0.3}, {"bits": 9}, {"average": 0.5, "polish": 0}):
        before = len(lay_chunk.signatures)
        polished(table, "logistic", **{"standard_errors": True, **change})
        assert len(lay_chunk.signatures) - before <= (change == {})


def test_columns_are_those_of_the_polished_model() -> None:
    assert list(COLUMNS) == list(train("logistic").encoding.names)
