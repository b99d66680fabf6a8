"""Standard errors: the covariance of the weights by the sandwich estimator, in one more pass over the data.

Weights w that minimise the mean over n rows of a loss, plus a penalty, have in large samples the covariance

    V = H^-1 C H^-1 / n,   H = mean of h_i d^2 loss_i + l2,   C = mean of (h_i d loss_i - m) (h_i d loss_i - m)^T

over the rows i with weights h_i, m being the mean of h_i d loss_i, which is 0 at the minimum without a penalty (Huber 1967,
Berkeley Symposium 5; White 1980, Econometrica 48, and 1982, Econometrica 50). It is right whether or not the loss is the right
likelihood. Without penalty it is HC0. Rows are taken to be independent, and a row of weight h as one row that counts h times,
not as h rows. The mean of the iterates of SGD has the same covariance (Polyak and Juditsky 1992).

Columns that depend on one another leave some weights undetermined: whatever they are, predictions are the same. Such weights
have no standard error; that of the others does not depend on it.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.errors import SettingsError
from streamsgd.features.layout import most_entries
from streamsgd.kernels.algebra.factor import factorise_pivoted, solve_back, solve_forth
from streamsgd.kernels.structs.block import new_scratch
from streamsgd.kernels.sums.sandwich import Sandwich, lay_chunk, new_sandwich
from streamsgd.planning.samplers import Sequential
from streamsgd.stream.stream import Stream
from streamsgd.training.phases.smooth import check_objective

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamsgd.compute.executors import Executor
    from streamsgd.features.encoding import Encoding
    from streamsgd.kernels.structs.block import Parts
    from streamsgd.settings.fields import Settings
    from streamsgd.stream.chunk import LoadedChunk
    from streamsgd.training.job import Job

log = logging.getLogger("streamsgd")


MOST_WEIGHTS = 2048
"""Weights whose pairs are added up: two matrices of 34 MB."""

MATRICES = 12
"""Of that size at the same time at most: the two, and their copies for a checkpoint, or what the algebra takes."""

LEAST_PIVOT = 1e-11
"""What is left of a column's curvature once others are accounted for, as a share, below which it depends on them; single
precision leaves some 1e-14 of a column that is the sum of others."""

LEAST_PART = 1e-5
"""Of a direction in which nothing changes: the least part of a weight in it, in units in which every curvature is 1."""

FAR = 0.7
"""Standard errors from the minimum, beyond which a warning says so: an interval of 95 % then holds 89 %."""


class StandardErrors:
    """The pass that adds up, and what comes of it.

    Attributes
    ----------
    epochs
        Epochs learned before.

    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.plan = replace(job.plan, sampler=Sequential())  # type: ignore[call-arg]
        self.epochs = 0
        self._first_epoch, self._chunk, self._rows = 0, 0, 0
        self._weights = np.zeros(0)
        self._sums: Sandwich | None = None
        self._scratch: Any = None
        self._entries = -1

    @property
    def begun(self) -> bool:
        """Whether the pass has begun."""
        return self._sums is not None

    @property
    def at_end(self) -> bool:
        """Whether the pass has seen every chunk."""
        return self._chunk == self.plan.n_chunks(0)

    @property
    def cursor(self) -> tuple[int, int]:
        """Epoch and number of the next chunk, the pass counting as an epoch."""
        return self._first_epoch, self._chunk

    def begin(self, weights: np.ndarray, first_epoch: int, epochs: int) -> None:
        """Start at these weights, (n_coordinates, n_outputs), `first_epoch` being the number of the pass as an epoch.

        Scores of classes may all rise together without any change; the weights are shifted to a mean of 0 over the classes, so
        that they and their errors are those of differences from the mean.
        """
        self._first_epoch, self.epochs = first_epoch, epochs
        if self._shiftable:
            weights = weights - weights.mean(axis=1, dtype=np.float64, keepdims=True)
        self._weights = weights.astype(self.job.settings.precision).astype(np.float64).ravel()
        self._sums = new_sandwich(self._weights.size, self.job.n_outputs)

    @property
    def _shiftable(self) -> bool:
        return bool(getattr(self.job.parts.loss, "shiftable", False))

    def chunks(self, executor: Executor) -> Iterator[LoadedChunk]:
        """Yield the chunks that are still to be added."""
        yield from Stream(self.job.recipe, self.plan, executor).chunks(*self.cursor, self._first_epoch + 1)

    def add(self, filled: LoadedChunk) -> None:
        """Add a chunk."""
        entries = most_entries(filled.block, filled.layout)
        if entries > self._entries:
            self._entries = entries
            self._scratch = new_scratch(self.job.n_outputs, np.float64, entries)
        loss, block = self.job.parts.loss, filled.block
        lay_chunk(loss, block, filled.starts, filled.counts, self._weights, self._sums, self._scratch)
        self._chunk += 1
        self._rows += int(filled.counts.sum())

    # --- what comes out

    def result(self) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        """Return the weights, (n_coordinates, n_outputs), their covariance, and what there is to say about it.

        The covariance is float64 (n_weights, n_weights), NaN for weights that are not determined.
        """
        assert self._sums is not None, "begin or restore comes first"  # noqa: S101  for the type checker
        weights, n_outputs = self._weights, self.job.n_outputs
        gradient = self._sums.gradient.copy()
        bread, filling = _whole(self._sums.bread), _whole(self._sums.filling)
        n = max(self._rows, 1)
        filling -= gradient[:, None] * (gradient / n)
        penalised = np.arange(weights.size) < weights.size - n_outputs
        l2 = n * float(getattr(self.job.parts.penalty, "l2", 0.0))
        seen = np.diagonal(bread) > 0.0  # of what no row has, a penalty alone determines nothing
        bread[np.diag_indices(weights.size)] += np.where(penalised, l2, 0.0)
        gradient += np.where(penalised, l2 * weights, 0.0)
        if self._shiftable:
            bread = _shift_back(bread, n_outputs)
        covariance, step = sandwich(bread, filling, gradient, seen)
        errors = np.sqrt(np.diagonal(covariance))
        known = np.isfinite(errors) & (errors > 0.0)
        off = float(np.max(np.abs(step[known]) / errors[known], initial=0.0))
        if not known.any():
            log.warning("standard errors: no weight is determined by these rows")
        elif off > FAR:
            log.warning(
                "the weights are up to %.2g standard errors from the minimum, beyond what the errors tell: pass --polish 20, "
                "more --epochs, or another --learning-rate",
                off,
            )
        told = {"rows": self._rows, "weights": int(weights.size), "determined": int(np.isfinite(errors).sum()), "off": off}
        return weights.astype(self.job.settings.precision).reshape(-1, n_outputs), covariance, told

    # --- checkpoints

    def header(self) -> dict[str, Any] | None:
        """Return what a checkpoint keeps as JSON; None before it began."""
        if self._sums is None:
            return None
        return {"first_epoch": self._first_epoch, "epochs": self.epochs, "chunk": self._chunk, "rows": self._rows}

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what a checkpoint keeps as arrays."""
        if self._sums is None:
            return {}
        kept = {"weights": self._weights, **{name: getattr(self._sums, name) for name in ("gradient", "bread", "filling")}}
        return {f"errors.{name}": value for name, value in kept.items()}

    def restore(self, header: dict[str, Any] | None, arrays: dict[str, np.ndarray]) -> None:
        """Take back what a checkpoint kept."""
        if header is None:
            return
        self._weights = arrays["errors.weights"].copy()
        self._first_epoch, self.epochs = header["first_epoch"], header["epochs"]
        self._chunk, self._rows = header["chunk"], header["rows"]
        self._sums = new_sandwich(self._weights.size, self.job.n_outputs)
        for name in ("gradient", "bread", "filling"):
            getattr(self._sums, name)[...] = arrays[f"errors.{name}"]


def sandwich(bread: np.ndarray, filling: np.ndarray, gradient: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return bread^-1 filling bread^-1, and bread^-1 gradient: how far from the minimum a parabola says that we are.

    Where the bread has no inverse, rows and columns of weights that are not determined are NaN, and the others as of any
    generalised inverse, all of which agree there.

    Parameters
    ----------
    bread, filling
        float64 (n, n), symmetric.
    gradient
        float64 (n,).
    seen
        bool (n,): which weights the rows say anything about.

    """
    n = len(gradient)
    covariance, step = np.full((n, n), np.nan), np.full(n, np.nan)
    if not (np.isfinite(bread).all() and np.isfinite(filling).all()):
        return covariance, step
    curvature = np.diagonal(bread)
    seen = seen & (curvature > 0.0)
    unit = np.where(seen, 1.0 / np.sqrt(np.where(seen, curvature, 1.0)), 0.0)
    factor, order = bread * unit[:, None] * unit, np.zeros(n, np.int64)
    rank = factorise_pivoted(factor, order, LEAST_PIVOT, np.zeros(n))
    kept = order[:rank]
    # With the pivots' rows first, every direction without curvature is one of -inv(H11) H12 above a column of the identity.
    flat = np.ascontiguousarray(factor[rank:, :rank].T)
    solve_back(factor, rank, flat)
    determined = ~(np.abs(flat) > LEAST_PART).any(axis=1)
    parts = np.ascontiguousarray((gradient * unit)[kept, None])
    middle = np.ascontiguousarray((filling * unit[:, None] * unit)[np.ix_(kept, kept)])
    for columns in (parts, middle):
        solve_forth(factor, rank, columns)
        solve_back(factor, rank, columns)
    middle = np.ascontiguousarray(middle.T)
    solve_forth(factor, rank, middle)
    solve_back(factor, rank, middle)
    parts, middle = unit[kept] * parts[:, 0], middle * unit[kept][:, None] * unit[kept]
    middle[~determined], middle[:, ~determined], parts[~determined] = np.nan, np.nan, np.nan
    covariance[np.ix_(kept, kept)], step[kept] = middle, parts
    return _whole(covariance), step  # but for rounding it is symmetric already


def _whole(lower: np.ndarray) -> np.ndarray:
    """Return a symmetric matrix from its lower triangle."""
    whole: np.ndarray = np.tril(lower) + np.tril(lower, -1).T
    return whole


def _shift_back(bread: np.ndarray, n_outputs: int) -> np.ndarray:
    """Give the directions in which all outputs of a coordinate rise together, which have no curvature, that of the others."""
    of = bread.reshape(len(bread) // n_outputs, n_outputs, -1, n_outputs)
    shared = np.einsum("akbk->ab", of) / n_outputs**2
    whole: np.ndarray = (of + shared[:, None, :, None]).reshape(bread.shape)
    return whole


def errors_bytes(n_weights: int) -> int:
    """Return the bytes that adding up takes, checkpoints included."""
    return 8 * MATRICES * min(n_weights, MOST_WEIGHTS) ** 2


def check_errors(settings: Settings, parts: Parts, encoding: Encoding) -> None:
    """Refuse standard errors of what has none.

    Raises
    ------
    SettingsError
        The weights are no minimum and no average, the loss has kinks, l1 selects weights, or there are too many of them.

    """
    if not settings.standard_errors:
        return
    if not settings.polish and settings.average == "none":
        raise SettingsError(
            "--standard-errors are those of the minimum or of an average, not of the last step of SGD: pass --polish 20 too, "
            "or --average auto"
        )
    check_objective("--standard-errors", parts)
    if getattr(parts.penalty, "l1", 0.0):
        raise SettingsError("--standard-errors do not hold for weights that l1 selects: pass --penalty l2, or none")
    n_weights = encoding.n_coordinates * int(getattr(parts.loss, "classes", 1))
    if n_weights > MOST_WEIGHTS:
        raise SettingsError(
            f"--standard-errors adds up the pairs of up to {MOST_WEIGHTS:,} weights, and here are {n_weights:,} "
            f"({encoding.sizes}): leave columns out with --exclude, or set --bits lower"
        )
