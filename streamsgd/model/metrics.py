"""Metrics of a stream of blocks: small mergeable sums, and one histogram of scores for the ranking metrics.

Everything is exact up to rounding except AUC and average precision. These come from a histogram of at most
2^16 bins over the scores, and each is reported with a bound on its error that needs no assumption: whatever
the order of the rows within the bins, the exact metric is no further away. A bin in which all rows have the
same score is a tie and costs nothing, so a model with few distinct scores, such as a constant one, is
exact.

The bins are equal steps of sign(s) log2(1 + |s|), made linear within octaves, and as narrow as the power of
two that still covers the scores seen so far: far scores cost little, and crowded ones get all bins. Bounds
on AUC for 10^6 normal log-odds, beside the fixed maps of 2^16 bins that lost (the top bits are those of a
float32; the fixed logarithm reaches 2^16, the fixed line 32):

    mean  deviation  positives    these bins  top 16 bits  fixed logarithm  fixed line
       0          2        0.5       8.4e-06      2.4e-04          3.4e-05     5.0e-05
      -9          1     2.0e-4       2.6e-05      5.6e-03          4.1e-04     1.0e-04
      -9        0.1     1.3e-4       2.1e-05      8.8e-02          5.5e-03     1.4e-03
       0      0.001        0.5       3.4e-05      4.5e-04          1.0e-01     1.3e-01
       0        100        0.5       2.6e-08      2.4e-07          2.6e-08     3.0e-08

Counting a row of a binary task takes about 11 ns beside its exp and log1p.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from streamsgd.errors import ModelError, SettingsError
from streamsgd.kernels.sums import metrics as tallies
from streamsgd.model.ranking import ranking

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import ArrayLike

    from streamsgd.model.ranking import Arrays, Floats


class Metric(NamedTuple):
    """What a name in `Metrics.result()` means, and which way is better (0: neither)."""

    title: str
    better: int


METRICS: Mapping[str, Metric] = {
    "rows": Metric("rows that were counted", 0),
    "nonfinite_rows": Metric("rows left out because target, weight, prediction or loss is not finite", 0),
    "weight": Metric("sum of the weights, rows without one counting 1", 0),
    "loss": Metric("weighted mean of the training loss", -1),
    "log_loss": Metric("weighted mean of -log(probability of the class), in nats", -1),
    "accuracy": Metric("weighted share of rows whose most probable class is right", 1),
    "auc": Metric("area under the ROC curve, ties counting one half", 1),
    "auc_error": Metric("bound on the error of auc", -1),
    "average_precision": Metric("sum over thresholds of precision times the gain in recall", 1),
    "average_precision_error": Metric("bound on the error of average_precision", -1),
    "rmse": Metric("root of the weighted mean squared error, in units of the target", -1),
    "mae": Metric("weighted mean absolute error, in units of the target", -1),
    "r2": Metric("1 - squared error / squared error of the mean", 1),
    "pinball": Metric("weighted mean pinball loss at the quantile, in units of the target", -1),
    "poisson_deviance": Metric("weighted mean of 2 (y log(y / mean) - y + mean)", -1),
    "best_constant_log_loss": Metric("log_loss of predicting the class shares: their entropy", 0),
    "best_constant_accuracy": Metric("accuracy of predicting the heaviest class", 0),
    "best_constant_rmse": Metric("rmse of predicting the mean: the target's standard deviation", 0),
    "best_constant_poisson_deviance": Metric("poisson_deviance of predicting the mean", 0),
}


class _Block(NamedTuple):
    """The columns of one call of `update`, checked; a size of 0 stands for "not given"."""

    y: Floats
    prediction: Floats  # score or mean, whichever the task reads
    weight: Floats
    loss: Floats


class _Tally(NamedTuple):
    """How one task counts: columns of the tile sums, arrays beside them, kernel and results."""

    sums: tuple[str, ...]
    beside: Callable[[], Arrays]
    tally: Callable[[Metrics, _Block, Floats, Floats], None]
    report: Callable[[Metrics, dict[str, float]], dict[str, float]]


@dataclass(slots=True, eq=False)
class Metrics:
    """Accumulators of every metric of one task, to be updated block by block, merged, saved and restored.

    Sums are taken over tiles of 4096 rows, added exactly within a block (`math.fsum`) and with TwoSum (Knuth,
    The Art of Computer Programming vol. 2, 4.2.2) across blocks: the relative error of a sum of terms of one
    sign is below 10^-12 after any number of rows. The same blocks in the same order give the same bits.

    task       binary, margin (binary, but scores are no log-odds), multiclass, regression or poisson
    n_outputs  linear outputs per row: the number of classes for multiclass, otherwise 1
    quantile   the level of the pinball metric
    """

    task: str
    n_outputs: int = 1
    quantile: float = 0.5
    _arrays: Arrays = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.task not in _TASKS:
            raise SettingsError(f"no metrics for the task {self.task!r}; known tasks: {', '.join(_TASKS)}")
        if not 0.0 < self.quantile < 1.0:
            raise SettingsError(f"quantile must lie between 0 and 1, not {self.quantile}")
        least, most = (2, None) if self.task == "multiclass" else (1, 1)
        if self.n_outputs < least or (most and self.n_outputs > most):
            raise SettingsError(f"task {self.task!r} cannot have n_outputs={self.n_outputs}")
        n_sums = len(_TASKS[self.task].sums) + (self.n_outputs if self.n_outputs > 1 else 0)
        counters: Arrays = {"counts": np.zeros(2, np.int64), "sums": np.zeros((n_sums, 2))}
        self._arrays = counters | _TASKS[self.task].beside()

    @classmethod
    def for_task(cls, task: str, n_outputs: int = 1, *, quantile: float = 0.5) -> Self:
        """Return empty metrics for `task`.

        Raises SettingsError for an unknown task, a number of outputs it cannot have, or a quantile that is
        not between 0 and 1.
        """
        return cls(task, n_outputs, quantile)

    def update(
        self,
        y: ArrayLike,
        mean: ArrayLike | None,
        score: ArrayLike | None,
        weight: ArrayLike | None = None,
        loss: ArrayLike | None = None,
    ) -> None:
        """Count the n rows of one block, float32 or float64.

        y       (n,) target; 0 or 1 if binary, the index of the class if multiclass
        mean    (n,) or (n, n_outputs) prediction behind the inverse link; not read by binary and margin
        score   (n,) linear output; read by binary, where it is the log-odds, and margin only
        weight  (n,) weights >= 0, or None for 1
        loss    (n,) training loss of each row, or None

        Raises ValueError if shapes disagree or a class index is outside 0 ... n_outputs - 1.
        """
        block = self._block(y, score if self._ranks else mean, weight, loss)
        n_tiles = -(-block.y.size // tallies.TILE)
        sums = np.zeros((n_tiles, self._arrays["sums"].shape[0]))
        targets = np.zeros((n_tiles, 2))
        _TASKS[self.task].tally(self, block, sums, targets)
        if self._spreads:
            for tile_weight, (mean_y, spread) in zip(sums[:, 0].tolist(), targets.tolist(), strict=True):
                self._join_target(tile_weight, mean_y, spread)
        _add(self._arrays["sums"], np.array([math.fsum(column) for column in sums.T.tolist()]))

    def merge(self, other: Metrics) -> None:
        """Add the rows that `other` has counted; `other` stays as it is.

        Counts, ties and bins become those of all rows together; sums agree to 10^-12 whatever the grouping.

        Raises ValueError unless both are of the same task, outputs and quantile.
        """
        mine = (self.task, self.n_outputs, self.quantile)
        theirs = (other.task, other.n_outputs, other.quantile)
        if mine != theirs:
            raise ValueError(f"metrics of {theirs} cannot be merged into metrics of {mine}")
        a, b = self._arrays, other._arrays
        a["counts"] += b["counts"]
        if self._spreads:
            self._join_target(*b["target"].sum(axis=1).tolist())
            a["target_range"][0] = min(a["target_range"][0], b["target_range"][0])
            a["target_range"][1] = max(a["target_range"][1], b["target_range"][1])
        if self._ranks:
            tallies.merge_histogram(a["bins"], a["span"], b["bins"], b["span"])
        _add(a["sums"], b["sums"][:, 0])
        _add(a["sums"], b["sums"][:, 1])

    def arrays(self) -> Arrays:
        """Return copies of the accumulators by name: float64 and int64, all that `restore` needs."""
        return {name: array.copy() for name, array in self._arrays.items()}

    def restore(self, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Replace the accumulators by saved ones, bit for bit; a ModelError says what is not of this task."""
        if arrays.keys() != self._arrays.keys():
            need, found = ", ".join(sorted(self._arrays)), ", ".join(sorted(arrays))
            raise ModelError(f"metrics of {self.task} need the arrays {need}, but the file has {found}")
        for name, own in self._arrays.items():
            saved = arrays[name]
            if (saved.shape, saved.dtype) != (own.shape, own.dtype):
                raise ModelError(f"metric array {name!r} must be {own.dtype} {own.shape}, not {saved.dtype} {saved.shape}")
        if "span" in arrays and not tallies.is_span(*arrays["span"].tolist()):
            raise ModelError("metric array 'span' is not that of a histogram")
        self._arrays = {name: np.array(arrays[name]) for name in self._arrays}

    def swap(self, arrays: Arrays) -> Arrays:
        """Return the accumulators, and go on with others."""
        own, self._arrays = self._arrays, arrays
        return own

    def result(self) -> dict[str, float]:
        """Return every metric that is defined for the rows so far; `METRICS` says what the names mean.

        Undefined ones are absent: all but the counts without any weight, `auc` without both classes,
        `average_precision` without positives, `r2` for a constant target, `loss` where none was given.
        """
        rows, nonfinite_rows = self._arrays["counts"].tolist()
        sums = {name: self._sum(name) for name in _TASKS[self.task].sums}
        result: dict[str, float] = {"rows": rows, "nonfinite_rows": nonfinite_rows, "weight": sums["weight"]}
        if sums["loss_weight"] > 0.0:
            result["loss"] = sums["loss"] / sums["loss_weight"]
        if sums["weight"] > 0.0:
            result |= _TASKS[self.task].report(self, sums)
        return result

    @property
    def histogram(self) -> tuple[Floats, Any]:
        """Bins and span of the scores, of a binary task; see `kernels.sums.metrics`."""
        return self._arrays["bins"], self._arrays["span"]

    def _sum(self, name: str) -> float:
        return float(self._arrays["sums"][_TASKS[self.task].sums.index(name)].sum())

    @property
    def _ranks(self) -> bool:
        return "bins" in self._arrays

    @property
    def _spreads(self) -> bool:
        return "target" in self._arrays

    def _block(self, y: ArrayLike, prediction: ArrayLike | None, weight: ArrayLike | None, loss: ArrayLike | None) -> _Block:
        target = _column("y", y, (np.size(y),))
        rows = (target.size,)
        classes = self.n_outputs if self.task == "multiclass" else 0
        if classes and target.size and not (target.min() >= 0 and target.max() < classes):
            raise ValueError(f"class indices must lie in 0 ... {classes - 1}")
        name, shape = "score" if self._ranks else "mean", (*rows, classes) if classes else rows
        # The empty stand-ins share one type with the predictions, so a run compiles one signature.
        read = _column(name, prediction, shape)
        nothing = np.empty(0, read.dtype)
        return _Block(
            target,
            read,
            nothing if weight is None else _column("weight", weight, rows),
            nothing if loss is None else _column("loss", loss, rows),
        )

    def _join_target(self, weight: float, mean: float, spread: float) -> None:
        """Join a part of given weight, mean and spread (Chan, Golub and LeVeque 1983).

        spread += W_a D(m_a, m) + W_b D(m_b, m), m the joint mean and D the squared distance or the deviance.
        """
        if weight == 0.0:
            return
        before, own, _ = self._arrays["target"].sum(axis=1).tolist()
        delta = mean - own
        step = delta * (weight / (before + weight))
        if self.task == "poisson":
            between = before * _deviance(-step, own + step) + weight * _deviance(delta - step, own + step)
        else:
            between = delta * step * before
        _add(self._arrays["target"], np.array([weight, step, spread + between]))


def _deviance(difference: float, mean: float) -> float:
    """Return the Poisson deviance of `mean + difference` from `mean`, without cancellation near 0."""
    ratio = difference / mean if mean > 0.0 else 0.0
    if ratio <= -1.0:
        return 2.0 * mean
    return 2.0 * mean * max((1.0 + ratio) * math.log1p(ratio) - ratio, 0.0)


def _histogram() -> Arrays:
    arrays: Arrays = {"bins": np.empty((tallies.N_BINS, 3)), "span": np.empty(3, np.int64)}
    tallies.clear_histogram(arrays["bins"], arrays["span"])
    return arrays


def _target() -> Arrays:
    # Rows of "target": weight, mean and spread of y, each with its carry.
    return {"target": np.zeros((3, 2)), "target_range": np.array([math.inf, -math.inf])}


def _column(name: str, values: ArrayLike | None, shape: tuple[int, ...]) -> Floats:
    """Return `values` as kernels take them: float32 or float64, C order, writable; a copy only if needed."""
    array = np.asarray(values)
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float64)
    if array.size != math.prod(shape) or array.shape[:1] != shape[:1]:
        raise ValueError(f"{name} must have the shape {shape}, not {array.shape}")
    return np.require(array.reshape(shape), requirements=["C", "W"])


def _add(total: Floats, terms: Floats) -> None:
    """Add `terms` to the first column of `total` and what rounding lost to the second (TwoSum)."""
    before = total[:, 0].copy()
    total[:, 0] += terms
    part = total[:, 0] - before
    total[:, 1] += (before - (total[:, 0] - part)) + (terms - part)


def _tally_binary(self: Metrics, block: _Block, sums: Floats, _: Floats) -> None:
    own, logistic = self._arrays, self.task == "binary"
    tallies.tally_binary(*block, logistic, sums, own["counts"], own["bins"], own["span"])


def _tally_multiclass(self: Metrics, block: _Block, sums: Floats, _: Floats) -> None:
    tallies.tally_multiclass(*block, sums, self._arrays["counts"])


def _tally_regression(self: Metrics, block: _Block, sums: Floats, targets: Floats) -> None:
    own = self._arrays
    tallies.tally_regression(*block, self.quantile, sums, targets, own["counts"], own["target_range"])


def _tally_poisson(self: Metrics, block: _Block, sums: Floats, targets: Floats) -> None:
    own = self._arrays
    tallies.tally_poisson(*block, sums, targets, own["counts"], own["target_range"])


def _report_margin(self: Metrics, sums: dict[str, float]) -> dict[str, float]:
    share = sums["positive"] / sums["weight"]
    return {
        "accuracy": sums["correct"] / sums["weight"],
        "best_constant_accuracy": max(share, 1.0 - share),
    } | ranking(self._arrays["bins"], self._arrays["span"])


def _report_binary(self: Metrics, sums: dict[str, float]) -> dict[str, float]:
    share = sums["positive"] / sums["weight"]
    return {
        "log_loss": sums["log_loss"] / sums["weight"],
        "best_constant_log_loss": _entropy(np.array([1.0 - share, share])),
    } | _report_margin(self, sums)


def _report_multiclass(self: Metrics, sums: dict[str, float]) -> dict[str, float]:
    shares = self._arrays["sums"][-self.n_outputs :].sum(axis=1) / sums["weight"]
    return {
        "log_loss": sums["log_loss"] / sums["weight"],
        "accuracy": sums["correct"] / sums["weight"],
        "best_constant_log_loss": _entropy(shares),
        "best_constant_accuracy": float(shares.max()),
    }


def _report_regression(self: Metrics, sums: dict[str, float]) -> dict[str, float]:
    weight, spread = sums["weight"], float(self._arrays["target"][2].sum())
    low, high = self._arrays["target_range"]
    result = {
        "rmse": math.sqrt(sums["squared_error"] / weight),
        "mae": sums["absolute_error"] / weight,
        "pinball": sums["pinball"] / weight,
        "best_constant_rmse": math.sqrt(spread / weight) if low < high else 0.0,
    }
    # The range, not the spread, knows a constant target: rounding may leave a spread of 10^-32.
    if low < high and spread > 0.0:
        result["r2"] = 1.0 - sums["squared_error"] / spread
    return result


def _report_poisson(self: Metrics, sums: dict[str, float]) -> dict[str, float]:
    weight, spread = sums["weight"], float(self._arrays["target"][2].sum())
    low, high = self._arrays["target_range"]
    return {
        "poisson_deviance": sums["deviance"] / weight,
        "rmse": math.sqrt(sums["squared_error"] / weight),
        "mae": sums["absolute_error"] / weight,
        "best_constant_poisson_deviance": spread / weight if low < high else 0.0,
    }


_COMMON = ("weight", "loss", "loss_weight")

_BINARY = (*_COMMON, "positive", "correct", "log_loss")

_MULTICLASS = (*_COMMON, "correct", "log_loss")

_REGRESSION = (*_COMMON, "squared_error", "absolute_error", "pinball")

_POISSON = (*_COMMON, "squared_error", "absolute_error", "deviance")

_TASKS: Mapping[str, _Tally] = {
    "binary": _Tally(_BINARY, _histogram, _tally_binary, _report_binary),
    "margin": _Tally(_BINARY, _histogram, _tally_binary, _report_margin),
    "multiclass": _Tally(_MULTICLASS, dict, _tally_multiclass, _report_multiclass),
    "regression": _Tally(_REGRESSION, _target, _tally_regression, _report_regression),
    "poisson": _Tally(_POISSON, _target, _tally_poisson, _report_poisson),
}


def _entropy(shares: Floats) -> float:
    """Return -sum p log p in nats: the log loss of the best constant prediction."""
    present = shares[shares > 0.0]
    return max(float(-(present * np.log(present)).sum()), 0.0)
