"""`SGDClassifier`."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from scipy.special import expit
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import column_or_1d, compute_class_weight
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import _check_partial_fit_first_call, check_classification_targets
from sklearn.utils.validation import check_is_fitted

from streamsgd.model.labels import label_array
from streamsgd.sklearn.base import BaseSGD, Problem
from streamsgd.sklearn.callbacks import with_callbacks
from streamsgd.sklearn.parts import CLASSIFIER_LOSSES
from streamsgd.sklearn.tables import TableModel


def _has_probabilities(estimator: SGDClassifier) -> bool:
    if estimator.loss not in ("log_loss", "modified_huber"):
        raise AttributeError(f"probability estimates are not available for loss={estimator.loss!r}")
    return True


def _labels(y: Any) -> Any:
    """Return a list of strings, or of integers, as an array that keeps each: NumPy would drop NULs, and make floats."""
    alike = isinstance(y, list | tuple) and {type(value) for value in y} in ({str}, {int})
    return label_array(y) if alike else y


class SGDClassifier(ClassifierMixin, BaseSGD):
    """A linear classifier learned row by row, one output against the rest for each of several classes.

    The objective is the mean of the weighted losses, plus alpha times the penalty of the weights; `class_weight` multiplies
    the weights of rows, and probabilities are those of the weighted data, as in scikit-learn. Arrays, sparse matrices and
    frames of numbers are learned in memory, as they are: nothing is centred or scaled, and the default rate needs no scaling.
    Tables with other columns (strings, dates, lists, missing values), and streams, are encoded and learned as by
    `streamsgd.train`; `model_` is its model then, and `coef_` the weights of its encoded columns.

    Parameters
    ----------
    loss
        hinge, log_loss, modified_huber or squared_hinge.
    learning_rate
        auto: the normalized optimizer, without a rate to tune; or constant, optimal, invscaling or adaptive with `eta0` and
        `power_t`, plain SGD as in scikit-learn.
    average
        Whether to take the mean of the weights after every pass; a number: of those after so many rows.
    penalty, alpha, l1_ratio, fit_intercept, max_iter, tol, shuffle, verbose, epsilon, n_jobs, random_state, eta0, power_t
        As in scikit-learn; nothing runs in parallel.
    early_stopping, validation_fraction, n_iter_no_change, class_weight, warm_start
        As in scikit-learn.

    Attributes
    ----------
    coef_, intercept_
        (1, n_features) and (1,) of two classes, else (n_classes, n_features) and (n_classes,).
    classes_, n_iter_, t_, n_features_in_, feature_names_in_
        As in scikit-learn.

    """

    _losses = CLASSIFIER_LOSSES
    _numeric_target = False
    _parameter_constraints = {
        **BaseSGD._parameter_constraints,  # noqa: SLF001
        "loss": [StrOptions(set(CLASSIFIER_LOSSES))],
        "n_jobs": [None, Integral],
        "class_weight": [StrOptions({"balanced"}), dict, None],
    }

    def __init__(
        self,
        loss: str = "hinge",
        *,
        penalty: str | None = "l2",
        alpha: float = 0.0001,
        l1_ratio: float | None = 0.15,
        fit_intercept: bool = True,
        max_iter: int = 1000,
        tol: float | None = 1e-3,
        shuffle: bool = True,
        verbose: int = 0,
        epsilon: float = 0.1,
        n_jobs: int | None = None,
        random_state: Any = None,
        learning_rate: str = "auto",
        eta0: float = 0.01,
        power_t: float = 0.5,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
        class_weight: Any = None,
        warm_start: bool = False,
        average: bool | int = False,
    ) -> None:
        self.loss = loss
        self.penalty = penalty
        self.alpha = alpha
        self.l1_ratio = l1_ratio
        self.fit_intercept = fit_intercept
        self.max_iter = max_iter
        self.tol = tol
        self.shuffle = shuffle
        self.verbose = verbose
        self.epsilon = epsilon
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.learning_rate = learning_rate
        self.eta0 = eta0
        self.power_t = power_t
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.class_weight = class_weight
        self.warm_start = warm_start
        self.average = average

    @with_callbacks
    def fit(self, X: Any, y: Any, coef_init: Any = None, intercept_init: Any = None, sample_weight: Any = None) -> Any:
        """Learn rows (n_rows, n_features) and their classes (n_rows,), pass after pass; return self."""
        return self._fit(X, _labels(y), (coef_init, intercept_init), sample_weight)

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Any:
        """Learn rows (n_rows, n_features) once, going on from those before; return self.

        `classes` is needed in the first call: all that will ever come.
        """
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight 'balanced' is not supported for partial_fit: pass the weights as a dict, which "
                "compute_class_weight('balanced', classes=classes, y=y) makes of a large enough sample"
            )
        return self._partial_fit(X, _labels(y), _labels(classes), sample_weight)

    # --- what is predicted

    def decision_function(self, X: Any) -> np.ndarray:
        """Return scores, (n_rows,) of two classes, else (n_rows, n_classes)."""
        check_is_fitted(self)
        if hasattr(self, "model_"):
            return self._of_table(X).decision_function()
        scores = self._linear(X)
        return scores.ravel() if scores.shape[1] == 1 else scores

    def predict(self, X: Any) -> np.ndarray:
        """Return the classes, (n_rows,)."""
        scores = self.decision_function(X)
        index = (scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)
        classes: np.ndarray = self.classes_[index]
        return classes

    @available_if(_has_probabilities)
    def predict_proba(self, X: Any) -> np.ndarray:
        """Return probabilities, (n_rows, n_classes); of several classes those of each against the rest, normalised."""
        check_is_fitted(self)
        if hasattr(self, "model_") and self.loss == "log_loss":
            return self._of_table(X).predict_proba()
        scores = self.decision_function(X)
        means = expit(scores) if self.loss == "log_loss" else (np.clip(scores, -1.0, 1.0) + 1.0) / 2.0
        if means.ndim == 1:
            return np.column_stack([1.0 - means, means])
        total = means.sum(axis=1, keepdims=True)
        found: np.ndarray = np.where(total > 0.0, means / np.where(total > 0.0, total, 1.0), 1.0 / means.shape[1])
        return found

    @available_if(_has_probabilities)
    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return the logarithms of probabilities, (n_rows, n_classes)."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    # --- what is learned

    def _begin(self, y: np.ndarray, classes: Any, *, whole: bool) -> np.ndarray:
        """Take the classes, those of the rows if they are the whole; return the index of each row's."""
        if whole:
            check_classification_targets(y)
            self.classes_ = np.unique(y)
        else:
            self._take_given(classes)
        if len(self.classes_) < 2:
            raise ValueError(f"The number of classes has to be greater than one; got {len(self.classes_)} class")
        index = np.searchsorted(self.classes_, y).clip(0, len(self.classes_) - 1)
        if (self.classes_[index] != y).any():
            raise ValueError(f"y has classes that are not among {self.classes_!r}: {np.setdiff1d(y, self.classes_)!r}")
        return index

    def _take_given(self, classes: Any) -> None:
        """Take the classes of `partial_fit`, as scikit-learn does but for strings that it would cut."""
        given = None if classes is None else np.asarray(classes)
        if given is None or given.dtype != np.object_ or not all(isinstance(value, str) for value in given):
            _check_partial_fit_first_call(self, classes)
            return
        found = np.unique(given)
        if not np.array_equal(getattr(self, "classes_", found), found):
            raise ValueError(f"`classes={given!r}` is not the same as on last call to partial_fit, was: {self.classes_!r}")
        self.classes_ = found

    def _class_weights(self, index: np.ndarray, sample_weight: Any = None) -> np.ndarray:
        """Return the weight of every class."""
        y, given = self.classes_[index], self.class_weight
        extra = {"sample_weight": sample_weight} if given == "balanced" and sample_weight is not None else {}
        weights: np.ndarray = compute_class_weight(given, classes=self.classes_, y=y, **extra)
        return weights

    def _problems(self, y: np.ndarray, weight: np.ndarray) -> list[Problem]:
        of = self._class_weights(y)
        if len(of) == 2:
            return [Problem(y.astype(np.float64), weight * of[y])]
        return [Problem((y == k).astype(np.float64), weight * np.where(y == k, of[k], 1.0)) for k in range(len(of))]

    def _shaped(self, weights: np.ndarray) -> np.ndarray:
        return weights

    def _strata(self, y: np.ndarray) -> np.ndarray:
        return y

    def _score_of(self, scores: np.ndarray, y: np.ndarray, weight: np.ndarray) -> float:
        found = (scores[:, 0] > 0).astype(int) if scores.shape[1] == 1 else scores.argmax(axis=1)
        return float(accuracy_score(y, found, sample_weight=weight))

    # --- tables

    def _fit_table(self, X: Any, y: Any, sample_weight: Any) -> Any:
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        self.classes_, index = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"The number of classes has to be greater than one; got {len(self.classes_)} class")
        weight = np.ones(len(y)) if sample_weight is None else self._weights_of(np.empty((len(y), 1)), sample_weight)
        how, classes = (self._parts(), self._table_passes), self.classes_
        found = TableModel.fit(how, X, index, weight * self._class_weights(index)[index], len(classes))
        self._take_model(found)
        self.classes_ = classes
        return self

    def _take_classes(self, found: TableModel) -> None:
        self.classes_ = label_array(found.model.classes)

    def _of_table(self, X: Any) -> Any:
        return TableModel.scored(self.model_, X, self.feature_names_in_)
