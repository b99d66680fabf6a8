"""`SGDRegressor`."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils import column_or_1d
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted

from streamsgd.sklearn.base import BaseSGD, Problem
from streamsgd.sklearn.callbacks import with_callbacks
from streamsgd.sklearn.parts import REGRESSOR_LOSSES
from streamsgd.sklearn.tables import TableModel


class SGDRegressor(RegressorMixin, BaseSGD):
    """A linear regression learned row by row; see `SGDClassifier` for what both share.

    Parameters
    ----------
    loss
        squared_error, huber, epsilon_insensitive or squared_epsilon_insensitive; and ours, quantile (the median) and poisson
        (counts, with a log link).
    penalty, alpha, l1_ratio, fit_intercept, max_iter, tol, shuffle, verbose, epsilon, random_state, eta0, power_t
        As in scikit-learn.
    learning_rate, average
        As of `SGDClassifier`; with `auto` the target is centred and divided by its deviation first, and `tol`
        is in those units.
    early_stopping, validation_fraction, n_iter_no_change, warm_start
        As in scikit-learn.

    Attributes
    ----------
    coef_, intercept_
        (n_features,) and (1,).
    n_iter_, t_, n_features_in_, feature_names_in_
        As in scikit-learn.

    """

    _losses = REGRESSOR_LOSSES
    _numeric_target = True
    _parameter_constraints = {
        **BaseSGD._parameter_constraints,  # noqa: SLF001
        "loss": [StrOptions(set(REGRESSOR_LOSSES))],
    }

    def __init__(
        self,
        loss: str = "squared_error",
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
        random_state: Any = None,
        learning_rate: str = "auto",
        eta0: float = 0.01,
        power_t: float = 0.25,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
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
        self.random_state = random_state
        self.learning_rate = learning_rate
        self.eta0 = eta0
        self.power_t = power_t
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.warm_start = warm_start
        self.average = average

    @with_callbacks
    def fit(self, X: Any, y: Any, coef_init: Any = None, intercept_init: Any = None, sample_weight: Any = None) -> Any:
        """Learn rows (n_rows, n_features) and their targets (n_rows,), pass after pass; return self."""
        return self._fit(X, y, (coef_init, intercept_init), sample_weight)

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Learn rows (n_rows, n_features) once, going on from those before; return self."""
        return self._partial_fit(X, y, None, sample_weight)

    def predict(self, X: Any) -> np.ndarray:
        """Return predictions, (n_rows,)."""
        check_is_fitted(self)
        if hasattr(self, "model_"):
            return TableModel.scored(self.model_, X, self.feature_names_in_).predict()
        scores = self._linear(X)[:, 0]
        return np.exp(scores) if self.loss == "poisson" else scores

    def _begin(self, y: np.ndarray, classes: Any, *, whole: bool) -> np.ndarray:  # noqa: ARG002
        if self.loss == "poisson" and (y < 0).any():
            raise ValueError("y has values below 0, which loss='poisson' has no place for")
        y = y.astype(np.float64)
        if self.learning_rate == "auto" and self.loss != "poisson" and not hasattr(self, "_descents"):
            self._shift, self._unit = float(y.mean()) if self.fit_intercept else 0.0, float(y.std()) or 1.0
        return y

    def _problems(self, y: np.ndarray, weight: np.ndarray) -> list[Problem]:
        return [Problem((y - self._shift) / self._unit, weight)]

    def _shaped(self, weights: np.ndarray) -> np.ndarray:
        return weights[0]

    def _strata(self, y: np.ndarray) -> None:  # noqa: ARG002
        return None

    def _score_of(self, scores: np.ndarray, y: np.ndarray, weight: np.ndarray) -> float:
        found = np.exp(scores[:, 0]) if self.loss == "poisson" else scores[:, 0]
        return float(r2_score(y, found, sample_weight=weight))

    def _fit_table(self, X: Any, y: Any, sample_weight: Any) -> Any:
        y = column_or_1d(y, warn=True).astype(np.float64)
        weight = np.ones(len(y)) if sample_weight is None else self._weights_of(np.empty((len(y), 1)), sample_weight)
        return self._take_model(TableModel.fit((self._parts(), self._table_passes), X, y, weight, 0))

    def _take_classes(self, found: TableModel) -> None:
        """Do nothing: a number has none."""
