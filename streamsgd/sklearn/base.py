"""What the classifier and the regressor share: parameters, passes until the loss stops falling, linear scores."""

from __future__ import annotations

import logging
import warnings
from abc import ABC, abstractmethod
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.extmath import safe_sparse_dot
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from streamsgd.sklearn.callbacks import Passes, Supported
from streamsgd.sklearn.descent import Descent, Rows
from streamsgd.sklearn.parts import LEARNING_RATES, Rate, in_units, parts_of, penalty_of
from streamsgd.sklearn.tables import TableModel, is_table

log = logging.getLogger("streamsgd")

FALL = 5.0
"""What an adaptive rate is divided by when the loss stops falling ..."""

LEAST_RATE = 1e-6
"""... until it is no larger."""


class Problem(NamedTuple):
    """One linear function to be learned."""

    y: np.ndarray
    """float64 (n_rows,): 0 or 1, or numbers."""
    weight: np.ndarray
    """float64 (n_rows,)."""


class BaseSGD(Supported, BaseEstimator, ABC):
    """Parameters are those of scikit-learn's estimators of the same names; `learning_rate="auto"` is ours."""

    _losses: dict[str, Any]
    _shift, _unit = 0.0, 1.0
    """A target y is learned as (y - shift) / unit."""
    coef_: Any
    intercept_: Any
    _numeric_target: bool
    _parameter_constraints: dict[str, list[Any]] = {
        "penalty": [StrOptions({"l2", "l1", "elasticnet"}), None],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "l1_ratio": [Interval(Real, 0, 1, closed="both"), None],
        "fit_intercept": ["boolean"],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left"), None],
        "shuffle": ["boolean"],
        "verbose": ["verbose"],
        "epsilon": [Interval(Real, 0, None, closed="left")],
        "random_state": ["random_state"],
        "learning_rate": [StrOptions(set(LEARNING_RATES))],
        "eta0": [Interval(Real, 0, None, closed="neither")],
        "power_t": [Interval(Real, None, None, closed="neither")],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "warm_start": ["boolean"],
        "average": [Interval(Integral, 0, None, closed="left"), "boolean"],
    }

    # --- learning

    def _partial_fit(self, X: Any, y: Any, classes: Any, sample_weight: Any) -> Any:
        self._check_parameters()
        if is_table(X):
            raise ValueError("partial_fit takes numbers; for tables of other columns use streamsgd.Trainer")
        first = not hasattr(self, "coef_") or hasattr(self, "model_")
        X, y = self._arrays(X, y, reset=first)
        if first:
            self._forget()
        y = self._begin(y, classes, whole=False)
        rows, problems = Rows(X), self._problems(y, self._weights_of(X, sample_weight))
        self._start(len(problems), X.shape[1], None if first else (self.coef_, self.intercept_))
        order = self._order(check_random_state(self.random_state), len(y))
        for problem, descent in zip(problems, self._descents, strict=True):
            descent.learn(rows, *problem, order)
        self.n_iter_ = 1
        self.t_ = getattr(self, "t_", 1.0) + len(y)
        return self._take_weights()

    def _fit(self, X: Any, y: Any, start: Any, sample_weight: Any) -> Any:
        self._check_parameters()
        if is_table(X):
            return self._fit_table(X, y, sample_weight)
        given = {"X": X, "y": y, "metadata": {} if sample_weight is None else {"sample_weight": sample_weight}}
        X, y = self._arrays(X, y, reset=True)
        warm = self.warm_start and hasattr(self, "coef_") and not hasattr(self, "model_")
        again = (self.coef_, self.intercept_) if warm else (None, None)
        start = tuple(before if now is None else now for now, before in zip(start, again, strict=True))
        self._forget()
        y = self._begin(y, None, whole=True)
        learned, held = self._held_out(X, y, self._weights_of(X, sample_weight))
        X, y, weight = learned
        problems = self._problems(y, weight)
        self._start(len(problems), X.shape[1], start)
        passes = Passes(self, self.max_iter, given, self._attributes)
        self._descend(Rows(X), problems, held, passes)
        self._take_weights()
        passes.finish()
        return self

    def _descend(self, rows: Rows, problems: list[Problem], held: Any, passes: Passes) -> None:
        """Make passes until no loss, or no held-out score, gets better any more."""
        random, patience = check_random_state(self.random_state), [Patience(self) for _ in problems]
        means: list[list[np.ndarray]] = [[] for _ in problems]
        for number in range(1, self.max_iter + 1):
            passes.begin()
            order = self._order(random, rows.n)
            for k, (problem, descent) in enumerate(zip(problems, self._descents, strict=True)):
                if patience[k].over:
                    continue
                loss = descent.learn(rows, *problem, order)
                if self.average and number * rows.n >= self.average:
                    means[k].append(descent.weights())
                score = -loss if held is None else self._held_score(held)
                patience[k].take(score, descent)
                if self.verbose:
                    log.info("pass %d, output %d: mean loss %g", number, k, loss)
            self.n_iter_, self.t_ = number, 1.0 + number * rows.n
            if passes.end() or all(each.over for each in patience):
                break
        else:
            if self.tol is not None:
                warnings.warn(
                    f"{type(self).__name__}: the loss still fell after max_iter={self.max_iter} passes; raise it, or tol",
                    ConvergenceWarning,
                    stacklevel=4,
                )
        self._means = [np.mean(each, axis=0) if each else None for each in means]

    def _start(self, n: int, width: int, start: Any) -> None:
        """Make what learns each output, unless it goes on from partial_fit."""
        if not getattr(self, "_descents", None):
            weights = np.zeros((n, width + 1))
            coef, intercept = start or (None, None)
            if coef is not None:
                weights[:, :width] = np.reshape(coef, (n, width)) / self._unit
            if intercept is not None:
                weights[:, width] = (np.reshape(intercept, n) - self._shift) / self._unit
            self._descents = [Descent(self._parts(), each, fixed=not self.fit_intercept) for each in weights]
        for descent in self._descents:
            descent.parts = self._parts()

    def _parts(self) -> Any:
        loss = self._losses[self.loss](self.epsilon)
        penalty = penalty_of(self.penalty, self.alpha, 0.15 if self.l1_ratio is None else self.l1_ratio)
        loss, penalty = in_units(loss, penalty, self._unit)
        return parts_of(loss, penalty, self.learning_rate, Rate(self.alpha, self.eta0, self.power_t))

    def _order(self, random: Any, n: int) -> np.ndarray:
        order: np.ndarray = (random.permutation(n) if self.shuffle else np.arange(n)).astype(np.int32)
        return order

    def _forget(self) -> None:
        for name in ("_descents", "_means", "_shift", "_unit", "model_", "t_"):
            self.__dict__.pop(name, None)

    # --- data and parameters

    def _check_parameters(self) -> None:
        self._validate_params()
        if not self.fit_intercept and self.learning_rate != "auto":
            raise ValueError(f"fit_intercept=False needs learning_rate='auto', and it is {self.learning_rate!r}")
        if self.learning_rate == "optimal" and self.alpha == 0:
            raise ValueError("alpha must be > 0 since learning_rate is 'optimal'. alpha is used to compute the optimal rate.")

    def _arrays(self, X: Any, y: Any, *, reset: bool) -> tuple[Any, np.ndarray]:
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse="csr",
            dtype=np.float64,
            reset=reset,
            y_numeric=self._numeric_target,
        )
        if X.shape[1] > np.iinfo(np.int32).max:
            raise ValueError(f"X has {X.shape[1]:,} columns; up to 2^31 - 1 can be learned")
        if hasattr(X, "indptr") and not X.has_canonical_format:
            X = X.copy()
            X.sum_duplicates()
        return X, y

    def _weights_of(self, X: Any, sample_weight: Any) -> np.ndarray:
        weight: np.ndarray = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        if not weight.any():
            raise ValueError("Sample weights must contain at least one non-zero number.")
        return weight

    def _held_out(self, X: Any, y: np.ndarray, weight: np.ndarray) -> tuple[Any, Any]:
        """Return the rows to learn, and those that say when to stop, if that is wanted."""
        if not self.early_stopping:
            return (X, y, weight), None
        learned, held = train_test_split(
            np.arange(len(y)), test_size=self.validation_fraction, random_state=self.random_state, stratify=self._strata(y)
        )
        return (X[learned], y[learned], weight[learned]), (X[held], y[held], weight[held])

    # --- what was learned

    def _take_weights(self) -> Any:
        for name, value in self._attributes().items():
            setattr(self, name, value)
        if not (np.isfinite(self.coef_).all() and np.isfinite(self.intercept_).all()):
            raise ValueError(
                "Floating-point under-/overflow occurred while learning. Scaling input data with StandardScaler or "
                "MinMaxScaler might help, or learning_rate='auto'."
            )
        return self

    def _attributes(self) -> dict[str, Any]:
        """Return what makes this a fitted estimator as it is now."""
        means = getattr(self, "_means", None) or [None] * len(self._descents)
        weights = np.array([d.weights() if mean is None else mean for d, mean in zip(self._descents, means, strict=True)])
        intercept = weights[:, -1] * self._unit + self._shift if self.fit_intercept else np.zeros(len(weights))
        return {"coef_": self._shaped(weights[:, :-1] * self._unit), "intercept_": intercept}

    def _held_score(self, held: Any) -> float:
        X, y, weight = held
        found = self._attributes()
        return self._score_of(safe_sparse_dot(X, np.atleast_2d(found["coef_"]).T) + found["intercept_"], y, weight)

    def _linear(self, X: Any) -> np.ndarray:
        """Return scores (n_rows, n_outputs) of numbers."""
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse="csr", reset=False)
        coef = self.coef_ if hasattr(self.coef_, "toarray") else np.atleast_2d(self.coef_)
        scores: np.ndarray = safe_sparse_dot(X, coef.T, dense_output=True) + self.intercept_
        return scores

    def densify(self) -> Any:
        """Turn `coef_` into an array; return self."""
        check_is_fitted(self)
        self.coef_ = self.coef_.toarray() if hasattr(self.coef_, "toarray") else self.coef_
        return self

    def sparsify(self) -> Any:
        """Turn `coef_` into a sparse matrix, which pays where an l1 penalty made most of it 0; return self."""
        from scipy.sparse import csr_matrix  # noqa: PLC0415  as late as it is needed

        check_is_fitted(self)
        self.coef_ = csr_matrix(self.coef_)
        return self

    # --- tables and streams

    def fit_stream(self, source: Any, target: str, **settings: Any) -> Any:
        """Learn Parquet of any size, or what else `streamsgd.train` takes, within a memory budget; return self.

        Loss and penalty are those of the estimator; everything else is a setting of `streamsgd.train`, also `weight`, the
        column of row weights. Columns are encoded as they are by it, so that `predict` takes tables of the same columns.
        `model_` is the `streamsgd.Model`.

        Raises
        ------
        ValueError
            `class_weight` is set, which a stream has no rows yet to work out for.
        StreamSGDError
            The data, the settings or the storage is at fault.

        """
        self._check_parameters()
        if getattr(self, "class_weight", None) is not None:
            raise ValueError("class_weight is for fit; of a stream name a column of row weights: fit_stream(..., weight='w')")
        return self._take_model(TableModel.stream(self._parts(), self._table_passes, source, target, settings))

    @property
    def _table_passes(self) -> int | str:
        """Passes over a table: those of streamsgd, unless fewer are asked for than it would make."""
        return "auto" if self.max_iter >= 10 else int(self.max_iter)

    def _take_model(self, found: TableModel) -> Any:
        self._forget()
        self.model_ = found.model
        self.coef_, self.intercept_ = found.coef, found.intercept
        self.feature_names_in_ = np.array(found.names, dtype=object)
        self.n_features_in_, self.n_iter_ = len(found.names), found.passes
        self._take_classes(found)
        return self

    @abstractmethod
    def _fit_table(self, X: Any, y: Any, sample_weight: Any) -> Any: ...

    @abstractmethod
    def _take_classes(self, found: TableModel) -> None: ...

    @abstractmethod
    def _begin(self, y: np.ndarray, classes: Any, *, whole: bool) -> np.ndarray: ...

    @abstractmethod
    def _problems(self, y: np.ndarray, weight: np.ndarray) -> list[Problem]: ...

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


class Patience:
    """Says when a score has stopped getting better, as scikit-learn does."""

    def __init__(self, estimator: BaseSGD) -> None:
        self.over = False
        self._tol, self._most = estimator.tol, estimator.n_iter_no_change
        self._adaptive = estimator.learning_rate == "adaptive"
        self._best, self._count = -np.inf, 0

    def take(self, score: float, descent: Descent) -> None:
        """Take the score of a pass; lower an adaptive rate, or be over, once too many brought nothing."""
        if self._tol is None:
            return
        self._count = self._count + 1 if score < self._best + self._tol else 0
        self._best = max(self._best, score)
        if self._count < self._most:
            return
        optimizer = descent.parts.optimizer
        if self._adaptive and optimizer.learning_rate > LEAST_RATE:
            slower = optimizer._replace(learning_rate=optimizer.learning_rate / FALL)
            descent.parts, self._count = descent.parts._replace(optimizer=slower), 0
        else:
            self.over = True
