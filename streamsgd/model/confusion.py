"""Which classes are taken for which: a table of weights, and what follows from it at a threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.errors import SettingsError

if TYPE_CHECKING:
    from streamsgd.features.target import Target


@dataclass
class Confusion:
    """Weights of rows by actual and predicted class.

    Parameters
    ----------
    classes
        Of the target.
    threshold
        Of two classes: the probability from which on a row counts as of the second.
    counts
        float64 (n_classes, n_classes): rows the actual classes, columns the predicted ones.

    """

    classes: tuple[Any, ...]
    threshold: float
    counts: np.ndarray

    @classmethod
    def of(cls, target: Target, threshold: float | None) -> Confusion:
        """Return an empty table.

        Raises
        ------
        SettingsError
            The target has no classes, or not the two that a threshold divides.

        """
        n = len(target.classes)
        if n < 2:
            raise SettingsError(f"--threshold and --confusion are for classes, and the target {target.name!r} has none")
        if threshold is not None and n > 2:
            raise SettingsError(f"--threshold {threshold:g} divides two classes, and the target {target.name!r} has {n}")
        if threshold is not None and not 0.0 <= threshold <= 1.0:
            raise SettingsError(f"--threshold {threshold:g} is no probability: give one from 0 to 1")
        return cls(tuple(target.classes), 0.5 if threshold is None else threshold, np.zeros((n, n)))

    def add(self, y: np.ndarray, mean: np.ndarray, weight: np.ndarray) -> None:
        """Count rows of class y, (n,), by what means, (n,) or (n, n_classes), make of them."""
        n = len(self.classes)
        found = mean.argmax(axis=1) if mean.ndim > 1 else (mean >= self.threshold).astype(np.int64)
        self.counts += np.bincount(y.astype(np.int64) * n + found, weight, n * n).reshape(n, n)

    def merge(self, other: Confusion) -> None:
        """Add the rows that another has counted."""
        self.counts += other.counts

    def table(self) -> dict[str, Any]:
        """Return the classes and the table, `actual[predicted]`, as plain values."""
        return {"classes": list(self.classes), "actual_by_predicted": self.counts.tolist()}

    def result(self) -> dict[str, float]:
        """Return what follows for two classes, the second being the one to be found; what is undefined is left out.

        precision = TP / (TP + FP), recall = TP / (TP + FN), specificity = TN / (TN + FP), F1 their harmonic mean
        2 TP / (2 TP + FP + FN).
        """
        if len(self.classes) != 2:
            return {}
        (tn, fp), (fn, tp) = self.counts.tolist()
        shares = {
            "accuracy_at_threshold": (tp + tn, tp + tn + fp + fn),
            "precision": (tp, tp + fp),
            "recall": (tp, tp + fn),
            "specificity": (tn, tn + fp),
            "f1": (2.0 * tp, 2.0 * tp + fp + fn),
            "predicted_positive": (tp + fp, tp + tn + fp + fn),
        }
        return {"threshold": self.threshold} | {name: part / whole for name, (part, whole) in shares.items() if whole > 0.0}
