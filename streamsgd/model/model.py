"""The model: weights, parts, encoding and where it came from. It holds no data and no plan."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa

from streamsgd.data.empty import is_empty
from streamsgd.data.normalise import deliver, refusal, tell_untold
from streamsgd.data.sources.streams import is_rows, table_of_rows
from streamsgd.data.sources.tables import as_table, table_dataset
from streamsgd.errors import ModelError
from streamsgd.features.conform import column_types
from streamsgd.features.encoder import Encoder
from streamsgd.features.layout import most_entries
from streamsgd.kernels.models.machines import LINEAR, compiled, is_linear
from streamsgd.kernels.structs.block import Block, new_scratch
from streamsgd.kernels.structs.rows import Mixed
from streamsgd.kernels.sums.score import score, score_modelled
from streamsgd.model import store
from streamsgd.model.card import card, one_line
from streamsgd.model.evaluate import evaluate_with
from streamsgd.model.format import folded, packed
from streamsgd.model.further import further_arrays
from streamsgd.model.interpret import HashedUse, Value
from streamsgd.model.labels import label_array
from streamsgd.model.learning import LearnsOn
from streamsgd.model.one_row import OneRow
from streamsgd.model.probability.score_map import mapped
from streamsgd.model.score_stream import score_source
from streamsgd.model.structure import need_linear, said
from streamsgd.model.validate import loss_name
from streamsgd.settings.words import speaks_python

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from streamsgd.features.encoding import Encoding
    from streamsgd.features.target import Target
    from streamsgd.model.memory import Memory
    from streamsgd.model.posterior.draws import Draws
    from streamsgd.model.probability.score_map import ScoreMap
    from streamsgd.model.probability.sketch import ScoreSketch, Spread


BATCH_ROWS = 1 << 16
"""Rows of a table that are scored at a time."""


@dataclass
class Model(LearnsOn, OneRow):
    """A trained model: linear, or of another structure.

    Attributes
    ----------
    loss
        The loss it was trained with, whose inverse link makes predictions.
    encoding, target
        How columns become numbers, frozen in training.
    weights
        float32 or float64, shape (encoding.n_coordinates, n_outputs): of the encoded numbers, of categories, of the hashed
        space; the last row is the intercept. Of a model that is not linear (its width of parameters in the columns), with what
        belongs to no coordinate in further rows.
    settings, metrics, provenance
        As trained, as measured, and of what: plain JSON values.
    covariance
        Of the weights, float64 (n_weights, n_weights), ordered [coordinate][output]; NaN for weights that are not determined.
        None unless trained with `standard_errors`; see `sandwich`.
    common
        The most frequent values of hashed columns, each with how often it was counted; see `common`.

    """

    loss: Any
    encoding: Encoding
    target: Target
    weights: np.ndarray
    settings: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    common: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    covariance: np.ndarray | None = None
    memory: Memory | None = None
    """What the optimizer remembers, if it was to be kept."""
    draws: Draws | None = None
    conformal: ScoreSketch | None = None
    spread: Spread | None = None
    """Of `sample`, from the posterior; of `calibrate`, scores of rows not seen before, and what residuals are divided by."""
    score_map: ScoreMap | None = None
    """Of `--recalibrate`, from the scores of the weights to log-odds, where it is none that the weights could take in."""
    structure: Any = LINEAR
    """What makes a score of a row's values and these weights: a model of `kernels.models.machines`, as people name it."""
    told: list[dict[str, Any]] = field(default_factory=list)
    """What the run printed that this process trained it in; in no file."""

    def __repr__(self) -> str:
        """Say in one line what it is."""
        return one_line(self)

    def _repr_html_(self) -> str:
        """Return a small card for notebooks."""
        return card(self)

    @property
    def history(self) -> Any:
        """What the run printed, an Arrow table: `kind`, `rows`, `seconds`, `loss`, `recent_loss`, ..., `valid.log_loss` ...

        A row for each line: at 1024, 2048, 4096 ... rows and at every evaluation. Empty for a model that was loaded.
        """
        names = dict.fromkeys(name for line in self.told for name in line)
        return pa.table({name: [line.get(name) for line in self.told] for name in names})

    @property
    def n_outputs(self) -> int:
        """Scores per row: the number of classes of a multinomial model, else 1."""
        return int(self.weights.shape[1]) if self.is_linear else 1

    @property
    def is_linear(self) -> bool:
        """Whether scores are sums of weights."""
        return bool(is_linear(self.structure))

    @property
    def classes(self) -> tuple[Any, ...]:
        """Classes of the target, sorted; none for numbers."""
        return self.target.classes

    # --- scoring

    def score_block(self, block: Block, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return scores and means, (n, n_outputs), and losses, (n,), of rows start to stop, in block units."""
        layout = self.encoding.layout(mixed=isinstance(block.rows, Mixed))
        part = layout.choose(block, slice(start, max(stop, start + 2)))  # columns of one row are of another type to kernels
        form = compiled(self.structure, columns=self.encoding.n_places)
        scratch = new_scratch(self.n_outputs, self.weights.dtype, most_entries(part, layout), form)
        scores = np.empty((stop - start, self.n_outputs), self.weights.dtype)
        means, losses = np.empty_like(scores), np.empty(stop - start)
        rest = part, 0, stop - start, self.weights.ravel(), scores, means, losses, scratch
        score(self.loss, *rest) if self.is_linear else score_modelled(self.loss, form, *rest)
        if self.score_map is not None:
            mapped(self.score_map, part.y[: stop - start], scores, means, losses)
        return scores, means, losses

    @speaks_python
    def encode(self, table: Any) -> tuple[Block, list[np.ndarray]]:
        """Turn a table (anything with `__arrow_c_stream__`) into a block without targets, and the memory that it points to.

        The block is of two rows at least; the second one of a table of one row is nothing.

        Raises
        ------
        DataError
            A column is missing or of another kind than in training, or infinite where training did not allow it.

        """
        table = as_table(table, "the table")
        data, n = table_dataset(table), table.num_rows
        block, encoder = self.encoding.layout().allocate(max(2, n), str(self.weights.dtype)), Encoder(self.encoding)
        nulls = self.settings.get("missing_columns") == "null"
        kinds = column_types(self.encoding, data.schema, "the table", nulls=nulls, is_empty=partial(is_empty, data))
        columns = [_delivered(table, name, kinds[name]) for name in encoder.sources]
        found = encoder.scatter(columns, np.arange(n, dtype=np.int32), block)
        if self.settings.get("infinite") != "missing":
            encoder.check_infinite(found.infinite, "the table", columns, "train with --infinite missing")
        encoder.check_missing(found.missing, self.settings.get("missing", ()), "the table")
        return block, found.pools

    @speaks_python
    def decision_function(self, data: Any) -> np.ndarray:
        """Return linear scores, (n_rows,) or (n_rows, n_classes); regression scores are in units of the target.

        `data` is as for `predict`.
        """
        if (served := self._served("decision_function", data)) is not None:
            return served
        scores, _ = self._scored(data)
        return scores[:, 0] if self.n_outputs == 1 else scores

    @speaks_python
    def predict_proba(self, data: Any) -> np.ndarray:
        """Return class probabilities, (n_rows, n_classes), in the order of `classes`; `data` is as for `predict`.

        Raises
        ------
        ModelError
            The model's loss has no probabilities.

        """
        if not self.has_probabilities:
            raise ModelError(f"a model of loss {type(self.loss).__name__} has no probabilities; use predict")
        if (served := self._served("predict_proba", data)) is not None:
            return served
        _, means = self._scored(data)
        return means if self.n_outputs > 1 else np.column_stack([1.0 - means[:, 0], means[:, 0]])

    @speaks_python
    def predict(self, data: Any) -> np.ndarray:
        """Return predictions, (n_rows,): values, expected counts, or the likeliest class.

        Parameters
        ----------
        data
            A table (anything with `__arrow_c_stream__`), or Parquet as in training, which is streamed: only the result is held
            in memory. `streamsgd.predict` writes results that are too large for that. A dict of one row is scored as
            `streamsgd.serving` does, in tens of microseconds, to about 1e-6 of what a table of the row says.

        Raises
        ------
        DataError
            A column is missing or is not a number, or the data cannot be read.

        """
        if (served := self._served("predict", data)) is not None:
            return served
        _, means = self._scored(data)
        return self.decide(means)

    @speaks_python
    def evaluate(self, data: Any, **options: Any) -> dict[str, float]:
        """Return the metrics of the model on labelled data; see `streamsgd.evaluate`."""
        return evaluate_with(self, data, options)

    @property
    def has_probabilities(self) -> bool:
        """Whether means are probabilities of classes."""
        return self.loss.task in ("binary", "multiclass")

    def with_own_weights(self) -> Model:
        """Return the same with weights in C order that may be written: what came by wire may be neither."""
        return replace(self, weights=np.require(self.weights, requirements=["C", "W"]))

    def decide(self, means: np.ndarray) -> np.ndarray:
        """Return predictions from means in units of the target: classes, or the means themselves."""
        if not self.classes:
            return means[:, 0]
        index = means.argmax(axis=1) if self.n_outputs > 1 else (means[:, 0] >= 0.5).astype(np.int64)
        classes: np.ndarray = label_array(self.classes)[index]
        return classes

    def in_target_units(self, values: np.ndarray) -> np.ndarray:
        """Return regression values in units of the target, others as they are."""
        if self.target.task != "regression":
            return values
        return values.astype(np.float64) / self.target.scale + self.target.shift

    def _scored(self, data: Any) -> tuple[np.ndarray, np.ndarray]:
        if is_rows(data):
            data = table_of_rows(self._as_rows(data), self.encoding.types, self.encoding.sources)
        if hasattr(data, "__arrow_c_stream__"):
            parts = list(self._score_table(as_table(data, "the table")))
        else:
            parts = list(score_source(self, data))
        none = np.empty((0, self.n_outputs), self.weights.dtype)  # there may be no rows
        scores, means = (np.concatenate([none, *(part[k] for part in parts)]) for k in (0, 1))
        return self.in_target_units(scores), self.in_target_units(means)

    def _score_table(self, table: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for first in range(0, table.num_rows, BATCH_ROWS):
            some = table.slice(first, BATCH_ROWS)
            block, _pools = self.encode(some)
            yield self.score_block(block, 0, some.num_rows)[:2]

    # --- interpretation

    def coefficients(self) -> tuple[np.ndarray, np.ndarray]:
        """Return weights of numbers (width, n_outputs) and intercepts (n_outputs,) in units of the columns and the target.

        Of the encoded z = (x - shift) * scale:  w z + b = (w scale) x + (b - w scale shift). A missing value counts as
        the value it was imputed with; a transformed column is in units of its transform.

        Raises
        ------
        ModelError
            Scores are no sums of weights.

        """
        need_linear(self.structure, "weight for each column", "its parameters are in `weights`")
        raw = self.weights.astype(np.float64)
        scale, shift = self.units()
        weights = raw[: self.encoding.width] * scale[:, None]
        intercepts = raw[-1] - (weights * shift[:, None]).sum(axis=0)
        if self.target.task == "regression":
            return weights / self.target.scale, intercepts / self.target.scale + self.target.shift
        return weights, intercepts

    def units(self) -> tuple[np.ndarray, np.ndarray]:
        """Return scale and shift of every number, (width,)."""
        numbers = self.encoding.numbers
        scale = np.array([1.0 if number.scale is None else number.scale for number in numbers])
        return scale, np.array([number.shift or 0.0 for number in numbers])

    @speaks_python
    def standard_errors(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return standard errors of all encoded weights, and of what `coefficients` returns; NaN where not determined.

        Those of the weights are (n_coordinates, n_outputs), of numbers (width, n_outputs) and intercepts (n_outputs,) in units
        of the columns and the target: a linear function a of the weights has the variance a V a. Scale and shift of columns
        count as constants.

        Raises
        ------
        ModelError
            The model has none.

        """
        if self.covariance is None:
            raise ModelError("the model has no standard errors: train it with --standard-errors and --polish, or --average")
        (scale, shift), width = self.units(), self.encoding.width
        encoded = np.sqrt(np.diagonal(self.covariance)).reshape(self.weights.shape)
        across, intercepts = np.zeros(len(self.weights)), np.zeros(self.n_outputs)
        across[:width], across[-1] = -scale * shift, 1.0
        used = np.flatnonzero(across)
        for k in range(self.n_outputs):
            of = used * self.n_outputs + k
            intercepts[k] = np.sqrt(max(across[used] @ self.covariance[np.ix_(of, of)] @ across[used], 0.0))
        unit = self.target.scale if self.target.task == "regression" else 1.0
        return encoded, encoded[:width] * scale[:, None] / unit, intercepts / unit

    def values(self) -> list[Value]:
        """Return the weights of categories and of the values, words and keys of hashed columns that were kept while training.

        A hashed weight is also that of any other value with the same hash; see `collisions`.

        Raises
        ------
        ModelError
            Scores are no sums of weights.

        """
        need_linear(self.structure, "weight for each value", "its parameters are in `weights`")
        # Of a regression in units of its target, of others of the score.
        raw, found = self.weights.astype(np.float64) / self.target.scale, []
        errors = None if self.covariance is None else self.standard_errors()[0] / self.target.scale
        for kind in Encoder(self.encoding).kinds:
            found += [
                Value(name, value, raw[place], rows, None if errors is None else errors[place])
                for name, value, place, rows in kind.labels(self.common)
            ]
        return found

    def hashed_use(self) -> HashedUse | None:
        """Return how full the hashed space is; None if there is none."""
        space = self.encoding.hashed
        if space is None:
            return None
        size = 1 << space.bits
        used = int((self.weights[space.first : space.first + size] != 0.0).any(axis=1).sum())
        # Of n values thrown into m slots m (1 - (1 - 1/m)^n) are taken, and each value is alone with (1 - 1/m)^(n-1).
        values = -size * np.log1p(-min(used, size - 1) / size)
        return HashedUse(size, used, round(values), float(1.0 - np.exp(-max(0.0, values - 1.0) / size)))

    # --- files

    def to_bytes(self) -> bytes:
        """Return the bytes of the model file; equal models give equal bytes."""
        return store.pack("model", self.header(), packed(self.weights) | folded(self.covariance) | further_arrays(self))

    def header(self) -> dict[str, Any]:
        """Return everything but the weights as JSON values."""
        return {
            "loss": {"name": loss_name(self.loss), "fields": self.loss._asdict()},
            **({} if self.is_linear else {"model": said(self.structure)}),
            **({} if self.score_map is None else {"score_map": msgspec.to_builtins(self.score_map)}),
            "encoding": msgspec.to_builtins(self.encoding),
            "target": msgspec.to_builtins(self.target),
            "settings": self.settings,
            "metrics": self.metrics,
            "provenance": self.provenance,
            "common": self.common,
        }

    @speaks_python
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to one file, atomically.

        Raises
        ------
        ModelError
            The storage refused.

        """
        store.write(path, self.to_bytes())


def _delivered(table: Any, name: str, kind: Any) -> Any:
    if name not in table.column_names:
        return pa.nulls(table.num_rows, kind)
    column = table.column(name)
    try:
        made = deliver(column, kind)
    except ValueError as error:
        raise refusal(name, "the table", column.type, kind, error) from error
    tell_untold(name, column, made)
    return made
