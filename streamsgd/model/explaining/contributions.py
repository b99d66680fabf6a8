"""What each column of a row adds to its score: weights times encoded values, summed by the column they come from."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from streamsgd.kernels.structs.block import Block, new_scratch
from streamsgd.kernels.structs.rows import OWN, Mixed
from streamsgd.kernels.sums.score import score
from streamsgd.model.labels import decided
from streamsgd.model.probability.score_map import need_sum
from streamsgd.model.structure import need_linear

if TYPE_CHECKING:
    from streamsgd.features.encoding import Encoding, Group
    from streamsgd.model.predictor import Predictor

INTERCEPT = "intercept"


SOME_BYTES = 8 << 20
"""Of contributions that are worked out at a time: a block has twice as many bytes of them as of itself, and they are copied."""


class Contributions:
    """A model, and the columns of what each column of a row adds to its score.

    The score of a row is the intercept and all contributions: of a number w (x - shift) scale, relative to a row whose
    numbers are as usual, of a category its weight, of a text or list the sum of the weights of its entries. Those of a
    regression are in units of the target.
    """

    prefix = ""
    mark = "contributions"
    """What makes its files others than those of predictions."""

    def __init__(self, model: Predictor) -> None:
        need_linear(
            model.structure,
            "contribution of each column",
            "'streamsgd importance' says which columns matter to it, or train with --model linear",
        )
        need_sum(model, "contribution of each column to them")
        self.model = model

    @cached_property
    def _places(self) -> list[list[str]]:
        """Columns of the data behind each number, slot and ragged column of a block."""
        groups = [_columns_of(self.model.encoding, group) for group in self.model.encoding.groups]
        return [[name for of_kind in groups for name in of_kind[place]] for place in range(3)]

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Columns and crosses that contribute, each once."""
        return tuple(dict.fromkeys(name for names in self._places for name in names))

    @cached_property
    def _bare_weights(self) -> np.ndarray:
        """The weights without the intercept, flat."""
        weights: np.ndarray = self.model.weights.copy()
        weights[-1] = 0.0
        return weights.ravel()

    def matrix(self, block: Block, start: int, stop: int) -> np.ndarray:
        """Return contributions of rows start to stop of a block, float64 (n, n_columns, n_outputs), in block units."""
        found = np.zeros((stop - start, len(self.columns), self.model.n_outputs))
        at = {name: k for k, name in enumerate(self.columns)}
        rows, weights = block.rows, self.model.weights
        values = rows.values[start:stop]
        numbers, slots, ragged = self._places
        for j, name in enumerate(numbers):
            found[:, at[name]] += values[:, j, None].astype(np.float64) * weights[j]
        if not isinstance(rows, Mixed):
            return found
        ids = rows.ids[start:stop]
        for f, name in enumerate(slots):
            by = int(rows.by[f])
            factor = np.ones(stop - start) if by < 0 else values[:, by].astype(np.float64)
            used = factor != 0.0
            found[used, at[name]] += factor[used, None] * weights[ids[used, len(numbers) + OWN + f]]
        for k, name in enumerate(ragged):
            found[:, at[name]] += self._of_entries(rows, start, stop, k)
        return found

    def _of_entries(self, rows: Mixed, start: int, stop: int, k: int) -> np.ndarray:
        """Return what the entries of one ragged column add, (n, n_outputs): scores of rows that have nothing else."""
        n, outputs, kind = stop - start, self.model.n_outputs, self.model.weights.dtype
        values = np.zeros((n, OWN), kind)
        tails = np.ascontiguousarray(rows.tails[start:stop, k : k + 1])
        ids = values.view(np.int32 if values.itemsize == 4 else np.int64)
        alone = Mixed(values, ids, np.zeros(0, np.int32), tails, 0, 0, rows.intercept, rows.doubles)
        block = Block(alone, values[:, 0], values[:, 1])
        scores = np.empty((n, outputs), kind)
        scratch = new_scratch(outputs, kind, int(tails[:, :, 1].max(initial=0)) + 1)
        score(self.model.loss, block, 0, n, self._bare_weights, scores, np.empty_like(scores), np.empty(n), scratch)
        return scores.astype(np.float64)

    # --- as columns of an output

    def fields(self) -> list[Any]:
        """Return the Arrow fields of the columns."""
        outputs = self.model.n_outputs
        empty = np.zeros((0, outputs), self.model.weights.dtype)
        return list(self._table(np.zeros((0, len(self.columns), outputs)), empty).schema)

    def score(self, block: Block, start: int, stop: int) -> Any:
        """Return an Arrow table for rows start to stop of a block of the model's encoding."""
        means = self.model.score_block(block, start, stop)[1]
        step = max(1, SOME_BYTES // (8 * max(1, len(self.columns) * self.model.n_outputs)))
        ends = [*range(start + step, stop, step), stop]
        return pa.concat_tables(
            self._table(self.matrix(block, first, last), means[first - start : last - start])
            for first, last in zip([start, *ends], ends, strict=False)
        )

    def _table(self, parts: np.ndarray, means: np.ndarray) -> Any:
        model, target = self.model, self.model.target
        intercept = model.weights[-1].astype(np.float64)
        if target.task == "regression":
            parts, intercept = parts / target.scale, intercept / target.scale + target.shift
        total = intercept + parts.sum(axis=1)
        columns = {"prediction": decided(model, model.in_target_units(means))}
        for k, ending in enumerate(self._endings):
            columns[f"score{ending}"] = pa.array(total[:, k])
            columns[f"{INTERCEPT}{ending}"] = pa.array(np.full(len(total), intercept[k]))
            columns |= {f"contribution_{name}{ending}": pa.array(parts[:, j, k]) for j, name in enumerate(self.columns)}
        return pa.table(columns)

    @property
    def _endings(self) -> list[str]:
        return [f"_{c}" for c in self.model.classes] if self.model.n_outputs > 1 else [""]

    @property
    def names(self) -> set[str]:
        """Names that no other column may have."""
        return {field.name for field in self.fields()}

    def with_own_weights(self) -> Contributions:
        """Return the same with weights that kernels take."""
        return Contributions(self.model.with_own_weights())


def _columns_of(encoding: Encoding, group: Group) -> tuple[list[str], list[str], list[str]]:
    """Return the columns behind the numbers, slots and ragged columns that one encoder writes."""
    needs, sources = group.needs, dict[str, str]()
    for config in group.configs:
        column = getattr(config, "column", config.name)
        sources |= {config.name: column, f"{config.name} is missing": column}
    names = [sources[config.name] for config in group.configs]
    alone = names[0] if len(set(names)) == 1 else group.kind.name
    numbers = [sources.get(number.name, alone if encoding.custom else number.name) for number in needs.numbers]
    slots = names if len(names) == len(needs.slots) else [alone] * len(needs.slots)
    return numbers, slots, names if len(names) == needs.ragged else [alone] * needs.ragged
