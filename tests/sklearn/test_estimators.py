"""Estimators against scikit-learn's own: its checks, its tools, its solutions."""

import pickle
import time
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is optional, and here the oracle")

import pyarrow as pa
import sklearn
from scipy import sparse
from sklearn import linear_model
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, make_classification, make_regression
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import check_estimator

from streamsgd.sklearn import SGDClassifier, SGDRegressor
from streamsgd.sklearn import parts as own_parts
from streamsgd.sklearn.callbacks import Supported
from streamsgd.testing import check_loss, check_schedule

PAIRS = [(SGDClassifier, linear_model.SGDClassifier), (SGDRegressor, linear_model.SGDRegressor)]


def failures(estimator: Any) -> set[str]:
    return {result["check_name"] for result in check_estimator(estimator, on_fail=None) if result["status"] == "failed"}


# --- law: the conventions


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_no_check_fails_that_scikit_learns_own_pass(ours: Any, theirs: Any) -> None:
    assert failures(ours()) <= failures(theirs())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("settings", [{"learning_rate": "invscaling"}, {"penalty": "elasticnet", "average": True}])
def test_other_settings_pass_too(settings: dict[str, Any]) -> None:
    assert failures(SGDRegressor(**settings)) <= failures(linear_model.SGDRegressor(**settings))


def test_linear_classifiers_own_check_holds() -> None:
    estimator_checks.check_class_weight_balanced_linear_classifier("SGDClassifier", SGDClassifier())


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_parameters_are_scikit_learns_in_its_order_and_so_are_their_defaults(ours: Any, theirs: Any) -> None:
    mine, its = ours().get_params(), theirs().get_params()
    assert set(its) <= set(mine) | {"n_jobs"}
    differing = {name for name, value in its.items() if mine[name] != value}
    assert differing <= {"learning_rate", "eta0", "power_t"}  # `auto` is ours, and the rest was tuned between its versions


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_attributes_have_scikit_learns_shapes(ours: Any, theirs: Any) -> None:
    X, y = make_classification(200, 6, n_classes=3, n_informative=4, random_state=0)
    for target in (y, (y > 0).astype(int)):
        mine, its = (kind(max_iter=10, tol=None, random_state=0).fit(X, target) for kind in (ours, theirs))
        for name in (
            "coef_",
            "intercept_",
            "n_features_in_",
            "t_",
            "n_iter_",
            *(["classes_"] if ours is SGDClassifier else []),
        ):
            assert np.shape(getattr(mine, name)) == np.shape(getattr(its, name)), name
        assert mine.t_ == its.t_
        assert mine.predict(X).shape == its.predict(X).shape


# --- law: solutions are those of converged solvers


def test_log_loss_reaches_the_optimum_of_another_solver() -> None:
    X, y = make_classification(5000, 8, random_state=3)
    alpha = 1e-2
    ours = SGDClassifier(loss="log_loss", alpha=alpha, tol=None, max_iter=200, average=500_000, random_state=0).fit(X, y)
    exact = LogisticRegression(C=1.0 / (alpha * len(y)), tol=1e-10, max_iter=1000).fit(X, y)
    assert objective(ours, X, y, alpha) == pytest.approx(objective(exact, X, y, alpha), rel=1e-4)
    np.testing.assert_allclose(ours.coef_, exact.coef_, atol=0.02)


def objective(model: Any, X: np.ndarray, y: np.ndarray, alpha: float) -> float:
    score = X @ model.coef_[0] + model.intercept_[0]
    return float(np.mean(np.logaddexp(0, score) - y * score) + alpha / 2 * (model.coef_**2).sum())


def test_squared_error_reaches_ridge() -> None:
    X, y = make_regression(3000, 5, noise=5.0, random_state=1)
    alpha = 1e-2
    ours = SGDRegressor(alpha=alpha, tol=None, max_iter=100, average=150_000, random_state=0).fit(X, y)
    exact = Ridge(alpha * len(y)).fit(X, y)
    np.testing.assert_allclose(ours.coef_, exact.coef_, rtol=0.01, atol=0.1)


def test_scale_of_columns_changes_nothing_without_a_penalty() -> None:
    X, y = make_classification(500, 5, random_state=0)
    scales = np.array([1e-3, 1.0, 1e3, 1e5, 1e-5])
    plain, scaled = (
        SGDClassifier(loss="log_loss", penalty=None, random_state=0).fit(each, y).decision_function(each)
        for each in (X, X * scales)
    )
    np.testing.assert_allclose(plain, scaled, rtol=1e-6)


def test_raw_columns_are_learned_as_well_as_by_scikit_learn() -> None:
    for load in (load_breast_cancer, load_digits):
        X, y = load(return_X_y=True)
        ours, theirs = (
            cross_val_score(kind(random_state=0), X, y, cv=3).mean() for kind in (SGDClassifier, linear_model.SGDClassifier)
        )
        assert ours >= theirs - 0.02


def test_sparse_and_dense_rows_learn_the_same() -> None:
    X, y = make_classification(300, 10, random_state=0)
    X[np.abs(X) < 0.7] = 0.0
    X = X.astype(np.float32)  # entries of sparse rows are
    found = [
        SGDClassifier(loss="log_loss", random_state=0).fit(kind(X), y).coef_
        for kind in (np.asarray, sparse.csr_matrix, sparse.csr_array, sparse.csc_matrix, sparse.coo_array, _of_64_bits)
    ]
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=1e-9)


def _of_64_bits(X: np.ndarray) -> Any:
    made = sparse.csr_array(X)
    made.indices, made.indptr = made.indices.astype(np.int64), made.indptr.astype(np.int64)
    return made


def test_entries_given_twice_count_as_their_sum() -> None:
    twice = sparse.csr_matrix((np.ones(6), np.array([0, 0, 1, 0, 1, 1]), np.array([0, 3, 6])), (2, 2))
    y = [0, 1]
    once = SGDClassifier(random_state=0).fit(twice.toarray(), y)
    np.testing.assert_allclose(SGDClassifier(random_state=0).fit(twice, y).coef_, once.coef_)
    assert twice.nnz == 6  # what came is left as it was


def test_no_intercept_means_none() -> None:
    X, y = make_regression(400, 4, bias=50.0, noise=1.0, random_state=0)
    X[:20] = 0.0
    fitted = SGDRegressor(fit_intercept=False, penalty=None, tol=None, max_iter=100, average=20_000, random_state=0).fit(X, y)
    assert fitted.intercept_.tolist() == [0.0]
    assert not fitted.predict(np.zeros((1, 4)))[0]
    np.testing.assert_allclose(fitted.coef_, np.linalg.lstsq(X, y, rcond=None)[0], rtol=0.02)


def test_class_weight_keeps_its_meaning_probabilities_are_of_the_weighted_data() -> None:
    X, y = make_classification(4000, 5, weights=[0.9], random_state=0)
    plain, weighted = (
        SGDClassifier(loss="log_loss", class_weight=each, random_state=0).fit(X, y).predict_proba(X)[:, 1].mean()
        for each in (None, "balanced")
    )
    reference = LogisticRegression(class_weight="balanced").fit(X, y).predict_proba(X)[:, 1].mean()
    assert weighted == pytest.approx(reference, abs=0.05)
    assert plain < 0.2 < weighted


RATES = [
    *(("optimal", loss) for loss in ("log_loss", "modified_huber", "hinge")),
    ("constant", "modified_huber"),
    ("invscaling", "hinge"),
    ("adaptive", "log_loss"),
]
"""... and of squared-hinge but `optimal`, whose weights leave for 1e12 in scikit-learn too, where every rounding decides."""


@pytest.mark.parametrize(("rate", "loss"), [*RATES, ("constant", "squared_hinge"), ("adaptive", "squared_hinge")])
def test_scikit_learns_rates_learn_as_scikit_learn(rate: str, loss: str) -> None:
    X, y = make_classification(600, 6, class_sep=1.5, random_state=2)
    given = {"loss": loss, "learning_rate": rate, "eta0": 0.01, "random_state": 0, "max_iter": 2000}
    ours, theirs = (kind(**given).fit(X, y) for kind in (SGDClassifier, linear_model.SGDClassifier))
    assert ours.score(X, y) >= theirs.score(X, y) - 0.02
    if loss == "log_loss" and rate == "constant":
        np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=0.15)


@pytest.mark.parametrize("loss", sorted(own_parts.REGRESSOR_LOSSES))
def test_every_loss_of_the_regressor_learns(loss: str) -> None:
    X, y = make_regression(500, 4, noise=1.0, random_state=0)
    y = np.exp(0.01 * y) // 0.1 if loss == "poisson" else y / 10.0
    assert SGDRegressor(loss=loss, penalty=None, random_state=0, tol=1e-4).fit(X, y).score(X, y) > 0.8


def test_parts_of_ours_are_checked_as_all_are() -> None:
    check_loss(own_parts.SquaredEpsilonInsensitive())
    check_schedule(own_parts.Optimal(2.0))


# --- law: scikit-learn's tools take them


def test_grid_search_of_ten_fits_is_fast_and_picks_what_is_best() -> None:
    X, y = load_breast_cancer(return_X_y=True)
    SGDClassifier(loss="log_loss").fit(X[:50], y[:50])  # kernels compiled
    began = time.perf_counter()
    pipeline = make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss", random_state=0))
    found = GridSearchCV(pipeline, {"sgdclassifier__alpha": [1e-4, 10.0]}, cv=5).fit(X, y)
    assert time.perf_counter() - began < 10.0
    assert found.best_params_ == {"sgdclassifier__alpha": 1e-4}
    assert found.best_score_ > 0.95


def test_calibration_and_importance() -> None:
    X, y = make_classification(600, 5, n_informative=2, n_redundant=0, shuffle=False, random_state=0)
    calibrated = CalibratedClassifierCV(SGDClassifier(random_state=0), cv=3).fit(X, y)
    assert calibrated.predict_proba(X).sum(axis=1) == pytest.approx(1.0)
    fitted = SGDClassifier(random_state=0).fit(X, y)
    importance = permutation_importance(fitted, X, y, n_repeats=3, random_state=0).importances_mean
    assert set(np.argsort(importance)[-2:]) == {0, 1}


@pytest.mark.parametrize("kind", [SGDClassifier, SGDRegressor])
def test_pickles_and_clones_go_on_with_the_same_bits(kind: Any) -> None:
    X, y = make_classification(200, 5, random_state=0)
    first = kind(random_state=0)
    first.partial_fit(X, y, **({"classes": [0, 1]} if kind is SGDClassifier else {}))
    again = pickle.loads(pickle.dumps(first))
    for estimator in (first, again):
        estimator.partial_fit(X, y)
    assert np.array_equal(first.coef_, again.coef_)
    with pytest.raises(NotFittedError):
        clone(first).predict(X)


def test_partial_fits_over_the_same_rows_are_passes_of_fit() -> None:
    X, y = make_classification(100, 5, random_state=0)
    whole = SGDClassifier(shuffle=False, max_iter=3, tol=None).fit(X, y)
    parts = SGDClassifier(shuffle=False)
    for _ in range(3):
        parts.partial_fit(X, y, classes=[0, 1])
    assert np.array_equal(whole.coef_, parts.coef_)
    assert whole.t_ == parts.t_


def test_warm_start_goes_on_from_the_weights() -> None:
    X, y = make_classification(300, 5, random_state=0)
    fitted = SGDClassifier(loss="log_loss", warm_start=True, random_state=0).fit(X, y)
    before, passes = fitted.coef_.copy(), fitted.n_iter_
    fitted.set_params(learning_rate="constant", eta0=1e-12, max_iter=1, tol=None).fit(X, y)
    np.testing.assert_allclose(fitted.coef_, before, rtol=1e-6)
    assert passes > 1
    given = SGDClassifier(learning_rate="constant", eta0=1e-12, max_iter=1, tol=None).fit(X, y, coef_init=before)
    np.testing.assert_allclose(given.coef_, before, rtol=1e-6)


def test_early_stopping_holds_rows_out() -> None:
    X, y = make_classification(500, 5, random_state=0)
    fitted = SGDClassifier(early_stopping=True, random_state=0, n_iter_no_change=3).fit(X, y)
    assert fitted.n_iter_ < 50
    assert fitted.t_ == 1 + fitted.n_iter_ * 450


def test_passes_that_were_too_few_are_said() -> None:
    X, y = make_regression(100, 5, random_state=0)
    with pytest.warns(ConvergenceWarning, match="max_iter=2"):
        SGDRegressor(max_iter=2).fit(X, y)


def test_weights_are_routed() -> None:
    X, y = make_classification(200, 5, random_state=0)
    weight = np.linspace(0, 1, 200)
    with sklearn.config_context(enable_metadata_routing=True):
        estimator = SGDClassifier(random_state=0).set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        found = GridSearchCV(estimator, {"alpha": [1e-3]}, cv=2).fit(X, y, sample_weight=weight)
    direct = SGDClassifier(alpha=1e-3, random_state=0).fit(X, y, sample_weight=weight)
    np.testing.assert_array_equal(found.best_estimator_.coef_, direct.coef_)


@pytest.mark.skipif(not hasattr(Supported, "set_callbacks"), reason="scikit-learn before 1.9 has no callbacks")
def test_callbacks_see_every_pass_and_may_stop() -> None:
    from sklearn.callback import ScoringMonitor  # noqa: PLC0415  of 1.9

    X, y = make_classification(200, 5, random_state=0)
    told = []

    class Watch:
        def setup(self, estimator: Any, context: Any) -> None:
            told.append("setup")

        def teardown(self, estimator: Any, context: Any) -> None:
            told.append("teardown")

        def on_fit_task_begin(
            self, estimator: Any, context: Any, *, X: Any = None, y: Any = None, metadata: Any = None
        ) -> None:
            told.append("begin")

        def on_fit_task_end(
            self, estimator: Any, context: Any, *, X: Any, y: Any, metadata: Any = None, fitted_estimator: Any
        ) -> bool:
            told.append(fitted_estimator.predict(X).shape)
            return len(told) > 8

    fitted = SGDClassifier(random_state=0).set_callbacks(Watch()).fit(X, y)
    assert (told[0], told[-1]) == ("setup", "teardown")
    assert told.count((200,)) == fitted.n_iter_ + 1
    assert fitted.n_iter_ < SGDClassifier(random_state=0).fit(X, y).n_iter_
    monitor = ScoringMonitor(scoring="accuracy")
    SGDClassifier(random_state=0, max_iter=5, tol=None).set_callbacks(monitor).fit(X, y)
    assert monitor.get_logs() is not None


# --- law: errors say what to do


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"loss": "log"}, "loss"),
        ({"learning_rate": "optimal", "alpha": 0}, "alpha must be > 0"),
        ({"learning_rate": "constant", "fit_intercept": False}, "learning_rate='auto'"),
        ({"penalty": "l3"}, "penalty"),
    ],
)
def test_wrong_parameters_are_refused(change: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        SGDClassifier(**change).fit(np.eye(3), [0, 1, 1])


def test_wrong_data_is_refused() -> None:
    X, y = np.eye(4), np.array([0, 1, 0, 1])
    with pytest.raises(ValueError, match="classes"):
        SGDClassifier().partial_fit(X, y)
    with pytest.raises(ValueError, match="not among"):
        SGDClassifier().partial_fit(X, y + 1, classes=[0, 1])
    with pytest.raises(ValueError, match="balanced"):
        SGDClassifier(class_weight="balanced").partial_fit(X, y, classes=[0, 1])
    with pytest.raises(ValueError, match="below 0"):
        SGDRegressor(loss="poisson").fit(X, -y)
    with pytest.raises(AttributeError, match="predict_proba"):
        SGDClassifier().fit(X, y).predict_proba  # noqa: B018
    with pytest.raises(ValueError, match="Trainer"):
        SGDClassifier().partial_fit(pa.table({"a": ["x", "y"]}), [0, 1], classes=[0, 1])


def test_diabetes_is_predicted_as_by_a_converged_solver() -> None:
    X, y = load_diabetes(return_X_y=True)
    ours = cross_val_score(SGDRegressor(random_state=0), X, y, cv=3).mean()
    assert ours == pytest.approx(cross_val_score(Ridge(0.04), X, y, cv=3).mean(), abs=0.02)
