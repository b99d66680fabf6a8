"""Intervals beside predictions: of the mean that a model predicts, as far as its weights are known.

From a covariance V of the weights: the score has the variance x'Vx, and the interval is that of a normal score behind the
inverse link; the standard error is that of the first order (delta method). From draws: mean, quantiles and standard deviation
of the predictions of some of them, evenly chosen. Neither holds the outcome of a row, which scatters around its mean.

A model that was calibrated has intervals of the outcome instead, or sets of labels, and those of the mean are called
`mean_lower` and `mean_upper`.
"""

from __future__ import annotations

import math
from functools import cached_property
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from streamsgd.errors import ModelError, SettingsError
from streamsgd.features.layout import most_entries
from streamsgd.kernels.algebra.sorting import selection_network
from streamsgd.kernels.compile.memory import LINE
from streamsgd.kernels.structs.block import new_scratch
from streamsgd.kernels.sums.draws import DrawnWeights, DrawRoom, draw_spread
from streamsgd.kernels.sums.spread import (
    ERROR,
    LOWER,
    MEAN,
    TILE,
    UPPER,
    CovarianceLines,
    link,
    link_beside,
    score_covariances,
    score_variances,
    touches,
)
from streamsgd.model.labels import label_array, label_type
from streamsgd.model.outputs import ScoreColumns
from streamsgd.model.probability.conformal import fits_of, spread_of
from streamsgd.model.probability.sketch import odds_against

if TYPE_CHECKING:
    from streamsgd.kernels.structs.block import Block
    from streamsgd.model.predictor import Predictor

DRAWS = 64
"""By which predictions are made, of all that a model keeps."""

NAMES = ("mean", "lower", "upper", "standard_error")
"""Columns of the output, in the order of the kernel's places."""

ENTROPIES = ("total_entropy", "aleatoric_entropy")

NEAR = 1e-3
"""Standard errors of the score, over which the slope of the link is taken, ..."""

LEAST_ERROR = 1e-12
"""... at least of this one."""


class Intervals:
    """What works out intervals of one model.

    Parameters
    ----------
    model
        With draws, or else a covariance.
    level
        Above 0, below 1.

    """

    def __init__(self, model: Predictor, level: float) -> None:
        if not 0.0 < level < 1.0:
            raise SettingsError(f"--intervals {level:g} is no share between 0 and 1 that intervals are to hold, such as 0.9")
        self._of_mean = model.draws is not None or model.covariance is not None
        if not self._of_mean and model.conformal is None:
            raise ModelError(
                "--intervals needs a model that was calibrated, or whose weights have draws or standard errors: use streamsgd "
                "calibrate or streamsgd sample, or train it with --standard-errors and --polish 20"
            )
        self.model, self.level = model, level
        self._covariance, self._unknown = np.zeros((0, 0)), np.zeros(0, np.bool_)
        if model.draws is None and model.covariance is not None:
            self._unknown = np.isnan(np.diagonal(model.covariance))
            self._covariance = _in_tiles(model.covariance)

    @cached_property
    def _draws(self) -> DrawnWeights | None:
        return _drawn(self.model, self.level) if self.model.draws is not None else None

    @property
    def fields(self) -> list[Any]:
        """Columns of the output, as fields of Arrow."""
        return [*self._outcome_fields, *(pa.field(name, pa.from_numpy_dtype(self._kind)) for name in self._names)]

    @property
    def _kind(self) -> Any:
        """Of the columns about the mean: that of predictions, half as much to write as float64 where weights are float32."""
        return np.dtype(np.float64) if self.model.target.task == "regression" else self.model.weights.dtype

    @property
    def _names(self) -> list[str]:
        """Columns about the mean."""
        if not self._of_mean:
            return []
        names = [f"mean_{name}" if name in ("lower", "upper") and self.model.conformal else name for name in NAMES]
        classes = self.model.classes if self.model.n_outputs > 1 else None
        found = names if classes is None else [f"{name}_{c}" for c in classes for name in names]
        return found + (list(ENTROPIES) if self._has_entropies else [])

    @property
    def _outcome_fields(self) -> list[Any]:
        """Columns about the outcome."""
        if self.model.conformal is None:
            return []
        if self.model.classes:
            return [pa.field("labels", pa.list_(label_type(self.model.classes)))]
        return [pa.field("lower", pa.float64()), pa.field("upper", pa.float64())]

    @property
    def _has_entropies(self) -> bool:
        return self.model.draws is not None and self.model.has_probabilities

    def of_block(self, block: Block, start: int, stop: int, scores: np.ndarray, means: np.ndarray) -> dict[str, Any]:
        """Return the columns, as of Arrow, of rows start to stop, given scores and means (n, n_outputs) in block units."""
        found = self._of_outcome(block, start, stop, scores, means) | (
            self._about_mean(block, start, stop, scores) if self._of_mean else {}
        )
        return {field.name: found[field.name] for field in self.fields}

    def _of_outcome(self, block: Block, start: int, stop: int, scores: np.ndarray, means: np.ndarray) -> dict[str, Any]:
        """Return what calibration says."""
        model, sketch = self.model, self.model.conformal
        if sketch is None:
            return {}
        if model.classes:
            ends = np.array([sketch.quantile(self.level, k).value for k in range(len(model.classes))])
            inside = odds_against(fits_of(model, scores, means)) <= ends
            offsets = np.append(0, np.cumsum(inside.sum(axis=1))).astype(np.int32)
            labels = pa.array(label_array(model.classes)[np.nonzero(inside)[1]], label_type(model.classes))
            return {"labels": pa.ListArray.from_arrays(offsets, labels)}
        width = sketch.quantile(self.level).value * spread_of(model, block, start, stop, means)
        center = model.in_target_units(means)[:, 0].astype(np.float64)
        lower = np.maximum(center - width, 0.0) if model.target.task == "poisson" else center - width
        return {"lower": pa.array(lower), "upper": pa.array(center + width)}

    def _about_mean(self, block: Block, start: int, stop: int, scores: np.ndarray) -> dict[str, Any]:
        """Return what draws or standard errors say."""
        layout = self.model.encoding.layout(mixed=hasattr(block.rows, "ids"))
        part = layout.choose(block, slice(start, stop))
        kind = np.float64 if self._draws is None else self._draws.values.dtype
        scratch = new_scratch(self.model.n_outputs, kind, most_entries(part, layout))
        n, n_outputs = stop - start, self.model.n_outputs
        of_columns = np.float64 if self._draws is None else self._kind
        out = np.empty((n_outputs, len(NAMES), n), of_columns)
        entropies = np.empty((2 if self._has_entropies else 0, n), of_columns)
        if self._draws is not None:
            draw_spread(self.model.loss, part, 0, n, self._draws, out, entropies, _new_room(self._draws, part), scratch)
        elif n_outputs == 1:
            self._fill_one(part, scores.astype(np.float64), out, scratch)
        else:
            self._fill_many(part, scores.astype(np.float64), out.transpose(2, 0, 1), scratch)
        kind = pa.from_numpy_dtype(self._kind)
        found = self._columns(out, entropies)
        columns = (pa.array(values, kind, from_pandas=bool(np.isnan(values).any())) for values in found)  # else no copy
        return dict(zip(self._names, columns, strict=True))

    def _columns(self, out: np.ndarray, entropies: np.ndarray) -> list[np.ndarray]:
        target = self.model.target
        if target.task == "regression":
            out /= target.scale
            out[:, :ERROR] += target.shift
        return [*out.reshape(-1, out.shape[2]), *entropies]

    def _fill_one(self, block: Block, scores: np.ndarray, out: np.ndarray, scratch: Any) -> None:
        """Fill in what a covariance says of one output."""
        found = np.empty(len(scores))
        score_variances(block, 0, len(scores), _in_lines(self._covariance), found, scratch)
        errors = np.sqrt(np.maximum(found, 0.0, out=found), out=found)
        width = NormalDist().inv_cdf(0.5 + self.level / 2.0)
        for place, away in ((MEAN, 0.0), (LOWER, -width), (UPPER, width)):
            out[0, place] = self._beside(scores, errors, away)
        least = np.maximum(errors, LEAST_ERROR)
        slope = (self._beside(scores, least, NEAR) - self._beside(scores, least, -NEAR)) / (2.0 * NEAR * least)
        np.multiply(np.abs(slope), errors, out=out[0, ERROR], casting="same_kind")
        self._blank(block, out.transpose(2, 0, 1), scratch)

    def _beside(self, scores: np.ndarray, errors: np.ndarray, width: float) -> np.ndarray:
        """Return the predictions of scores (n, 1), each so many of its errors away."""
        out = np.empty(len(scores))
        link_beside(self.model.loss, scores[:, 0], errors, width, out)
        return out

    def _fill_many(self, block: Block, scores: np.ndarray, out: np.ndarray, scratch: Any) -> None:
        """Fill in what a covariance says of classes: intervals of probabilities, to first order, within 0 and 1."""
        n, k = scores.shape
        covariances, means = np.empty((n, k, k)), np.empty((n, k))
        score_covariances(block, 0, n, self._covariance, covariances, scratch)
        link(self.model.loss, scores, means)
        slopes = means[:, :, None] * (np.eye(k) - means[:, None, :])
        errors = np.sqrt(np.maximum(np.einsum("nkq,nqr,nkr->nk", slopes, covariances, slopes), 0.0))
        z = NormalDist().inv_cdf(0.5 + self.level / 2.0)
        out[:, :, MEAN], out[:, :, ERROR] = means, errors
        out[:, :, LOWER], out[:, :, UPPER] = np.maximum(means - z * errors, 0.0), np.minimum(means + z * errors, 1.0)
        self._blank(block, out, scratch)

    def _blank(self, block: Block, out: np.ndarray, scratch: Any) -> None:
        """Say nothing of rows that have a value whose weight is not determined."""
        if not self._unknown.any():
            return
        found = np.zeros(len(out), np.bool_)
        marked = self._unknown.reshape(-1, self.model.n_outputs).any(axis=1)
        touches(block, 0, len(out), marked, found, scratch)
        out[found, :, LOWER:] = np.nan


def _drawn(model: Predictor, level: float) -> DrawnWeights:
    """Return some draws, evenly chosen, in the precision of the model, and where intervals of this level end.

    Between two of the ordered predictions: the quantile of type 7 of Hyndman and Fan 1996.
    """
    assert model.draws is not None, "the caller looks"  # noqa: S101  for the type checker
    store = model.draws.store.reshape(-1, len(model.draws.mode))
    places = np.unique(np.linspace(0, len(store) - 1, min(DRAWS, len(store))).round().astype(np.int64))
    values, n = (model.draws.mode + store[places].astype(np.float64)).T, len(places)
    padded = np.zeros((len(values), n + -n % (2 * _line_length(model.weights.dtype))), model.weights.dtype)
    padded[:, :n] = values
    place = max((1.0 - level) / 2.0 * (n - 1), 0.0)
    outer, inner = math.floor(place), min(math.floor(place) + 1, n - 1)
    ends = (outer, inner, n - 1 - outer, n - 1 - inner)
    return DrawnWeights(padded.ravel(), n, model.n_outputs, selection_network(n, ends), np.array(ends), place % 1.0)


def _in_tiles(covariance: np.ndarray) -> np.ndarray:
    """Return a covariance with 0 for what is not determined, and for what makes its tiles whole."""
    n = len(covariance)
    found = np.zeros((n + -n % TILE,) * 2)
    np.copyto(found[:n, :n], covariance, where=~np.isnan(covariance))
    return found


def _in_lines(covariance: np.ndarray) -> CovarianceLines:
    """Return what variances of rows are worked out from."""
    size, step = len(covariance), _line_length(covariance.dtype)
    return CovarianceLines(covariance.ravel(), size, np.zeros(size * step), np.zeros(step))


def _line_length(kind: Any) -> int:
    """Return how many numbers a line holds."""
    return LINE // int(kind.itemsize)


def _new_room(draws: DrawnWeights, block: Block) -> DrawRoom:
    """Return room for as many rows of a block as a line holds."""
    kind, values = draws.values.dtype, block.rows.values
    length = _line_length(kind)
    size = (draws.number + -draws.number % (2 * length)) * length
    many = draws.outputs * size
    sizes = values.shape[1] * length, many, many, size, max(3 * size, many), 2 * length
    return DrawRoom(*(np.zeros(n, kind) for n in sizes))


class IntervalColumns(NamedTuple):
    """The columns of a model's scores, and of its intervals beside them; see `outputs.ScoreColumns`."""

    model: Predictor
    level: float
    prefix: str = ""

    @property
    def mark(self) -> str:
        """What makes its files others than those of other columns."""
        return f"intervals {self.level!r}"

    def fields(self) -> list[Any]:
        """Return the Arrow fields of the columns."""
        return [*ScoreColumns(self.model).fields(), *Intervals(self.model, self.level).fields]

    def score(self, block: Block, start: int, stop: int) -> Any:
        """Return an Arrow table for rows start to stop of a block of the model's encoding."""
        scores, means, _ = self.model.score_block(block, start, stop)
        table = ScoreColumns(self.model).of(scores, means)
        for name, column in Intervals(self.model, self.level).of_block(block, start, stop, scores, means).items():
            table = table.append_column(name, column)
        return table

    @property
    def names(self) -> set[str]:
        """Names that no other column may have."""
        return ScoreColumns(self.model).names | {field.name for field in Intervals(self.model, self.level).fields}

    def with_own_weights(self) -> IntervalColumns:
        """Return the same with weights that kernels take: what came by wire may not be so."""
        return self._replace(model=self.model.with_own_weights())
