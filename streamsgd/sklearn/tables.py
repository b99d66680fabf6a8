"""Tables whose columns are more than numbers, and streams: learned as by `streamsgd.train`, given to an estimator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamsgd.data.sources.streams import table_of_rows
from streamsgd.data.sources.tables import as_table, of_numbers_only, with_columns
from streamsgd.kernels.parts.losses import Logistic
from streamsgd.settings.make import make_settings
from streamsgd.settings.registry import spec_of
from streamsgd.settings.words import speaks_python
from streamsgd.training.run import train_model

if TYPE_CHECKING:
    from streamsgd.kernels.structs.block import Parts
    from streamsgd.model.model import Model


def is_table(X: Any) -> bool:
    """Whether rows come as a table that scikit-learn cannot take as numbers: of text, dates, lists, or with missing values."""
    if isinstance(X, np.ndarray) or not hasattr(type(X), "__arrow_c_stream__"):
        return False
    if type(X).__module__.partition(".")[0] == "pandas":
        # By its types alone: objects that are numbers are scikit-learn's to convert, and NaN its to refuse.
        return hasattr(X, "columns") and any(kind.kind not in "biufO" or _holds_text(X, k) for k, kind in enumerate(X.dtypes))
    known = type(X).__module__.partition(".")[0] == "polars"
    return not (known and of_numbers_only(as_table(X, "X")))


def _holds_text(frame: Any, k: int) -> bool:
    column = frame.iloc[:, k]
    return column.dtype.kind == "O" and any(isinstance(value, str | bytes | list) for value in column.head(1000))


class TableModel(NamedTuple):
    """A model of streamsgd's as an estimator shows it."""

    model: Model
    names: list[str]
    """The columns that it was given."""

    @classmethod
    def fit(cls, how: tuple[Parts, Any], X: Any, y: np.ndarray, weight: np.ndarray, n_classes: int) -> TableModel:
        """Learn a table and its targets, indices of so many classes or numbers if that is 0, by parts in so many epochs."""
        parts, epochs = how
        table = _as_table(X)
        if len(y) != table.num_rows:
            raise ValueError(f"X has {table.num_rows} rows and y has {len(y)}")
        target, weights = _new_name("y", table.column_names), _new_name("weight", table.column_names)
        weighted = {weights: weight} if (weight != 1.0).any() else {}
        settings: dict[str, Any] = {"weight": weights if weighted else None, "executor": "inline", "threads": 1}
        if n_classes:
            settings |= {"task": "binary" if n_classes == 2 else "multiclass", "classes": [str(k) for k in range(n_classes)]}
        else:
            settings |= {"task": "poisson" if parts.loss.task == "poisson" else "regression"}
        whole = with_columns(table, {target: y, **weighted})
        found = cls.stream(_for_classes(parts, n_classes), epochs, whole, target, settings)
        return found._replace(names=table.column_names)

    @classmethod
    @speaks_python
    def stream(cls, parts: Parts, epochs: Any, source: Any, target: str, settings: dict[str, Any]) -> TableModel:
        """Learn what `streamsgd.train` takes."""
        asked = {"loss": _loss_of(parts.loss), "penalty": spec_of("penalty", parts.penalty), "epochs": epochs}
        asked["validation"] = 0.0  # scikit-learn fits all rows
        if hasattr(parts.loss, "epsilon"):
            raise ValueError("an epsilon-insensitive loss is for rows of numbers; of other tables take huber or quantile")
        made = make_settings({**asked, "target": target, **settings})
        model, _ = train_model(source, made)
        return cls(model, list(model.encoding.sources))

    @classmethod
    def scored(cls, model: Model, X: Any, names: Any) -> Scores:
        """Return a model beside rows: a table, or an array whose columns are those of training in their order."""
        if hasattr(type(X), "__arrow_c_stream__"):
            return Scores(model, _as_table(X))
        X = np.asarray(X)
        if X.ndim != 2 or X.shape[1] != len(names):
            raise ValueError(f"X has {X.shape[1:]} features, but the estimator is expecting {len(names)} features as input")
        return Scores(model, table_of_rows({name: X[:, k] for k, name in enumerate(names)}))

    @property
    def passes(self) -> int:
        """Passes made."""
        return int(self.model.provenance["epochs"])

    @property
    def coef(self) -> np.ndarray:
        """Weights of encoded columns, (n_outputs, n_coordinates), or (n_coordinates,) of a number, in units of the target."""
        weights = self.model.weights[:-1].T / self.model.target.scale
        return weights if self.model.classes else weights[0]

    @property
    def intercept(self) -> np.ndarray:
        """Intercepts, (n_outputs,)."""
        target = self.model.target
        shift = target.shift if target.task == "regression" else 0.0
        return np.array(self.model.weights[-1] / target.scale + shift)


@dataclass
class Scores:
    """A model and a table."""

    model: Model
    table: Any

    def decision_function(self) -> np.ndarray:
        """Return scores, (n_rows,) or (n_rows, n_classes)."""
        return self.model.decision_function(self.table)

    def predict_proba(self) -> np.ndarray:
        """Return probabilities, (n_rows, n_classes)."""
        return self.model.predict_proba(self.table)

    def predict(self) -> np.ndarray:
        """Return predictions, (n_rows,)."""
        return self.model.predict(self.table)


def _for_classes(parts: Parts, n_classes: int) -> Parts:
    if n_classes > 2 and not isinstance(parts.loss, Logistic):
        raise ValueError("of several classes tables of other columns than numbers are learned with loss='log_loss' only")
    return parts


def _loss_of(loss: Any) -> str:
    # As the target says: of two classes the log loss, of several that of softmax.
    return "auto" if isinstance(loss, Logistic) else spec_of("loss", loss)


def _as_table(X: Any) -> Any:
    if type(X).__module__.partition(".")[0] == "pandas":
        X = X.reset_index(drop=True)  # an index is no feature
    return as_table(X, "X")


def _new_name(name: str, taken: list[str]) -> str:
    while name in taken:
        name += "_"
    return name
