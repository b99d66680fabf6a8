"""What scoring writes of a row: the columns that a model's scores become, alone or beside those of other models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from streamsgd.errors import SettingsError
from streamsgd.messages import few
from streamsgd.model.labels import decided

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from streamsgd.kernels.structs.block import Block
    from streamsgd.model.predictor import Predictor


class ScoreColumns(NamedTuple):
    """A model, and what the columns of its scores are called."""

    model: Predictor
    prefix: str = ""
    """Before every name."""

    @property
    def mark(self) -> str:
        """What makes its files others than those of other columns: nothing beside the model."""
        return ""

    def fields(self) -> list[Any]:
        """Return the Arrow fields of the columns."""
        return list(self.of(*np.zeros((2, 0, self.model.n_outputs), self.model.weights.dtype)).schema)

    def score(self, block: Block, start: int, stop: int) -> Any:
        """Return an Arrow table for rows start to stop of a block of the model's encoding."""
        scores, means, _ = self.model.score_block(block, start, stop)
        return self.of(scores, means)

    def of(self, scores: np.ndarray, means: np.ndarray) -> Any:
        """Return an Arrow table for scores and means (n, n_outputs) in block units."""
        model = self.model
        means, scores = model.in_target_units(means), model.in_target_units(scores)
        columns = {"prediction": decided(model, means)}
        if model.has_probabilities and model.n_outputs == 1:
            columns["probability"] = pa.array(means[:, 0])
        elif model.has_probabilities:
            columns |= {f"probability_{c}": pa.array(means[:, k]) for k, c in enumerate(model.classes)}
        elif model.classes:
            columns["score"] = pa.array(scores[:, 0])
        return pa.table({f"{self.prefix}{name}": column for name, column in columns.items()})

    @property
    def names(self) -> set[str]:
        """Names that no other column may have."""
        of_classes = {f"probability_{c}" for c in self.model.classes}
        return {f"{self.prefix}{name}" for name in {"prediction", "probability", "score"} | of_classes}

    def with_own_weights(self) -> ScoreColumns:
        """Return the same with weights that kernels take: what came by wire may not be so."""
        return self._replace(model=self.model.with_own_weights())


def named_models(also: Any) -> dict[str, Any]:
    """Return other models by the names that their columns begin with.

    Parameters
    ----------
    also
        Models or their paths: one, several, or a dict of names to them. A path is called by its file without the ending, a
        model model2, model3, ...

    Raises
    ------
    SettingsError
        Two have one name.

    """
    if hasattr(also, "items"):
        return dict(also.items())
    given = [also] if isinstance(also, str | Path) or hasattr(also, "score_block") else list(also or ())
    names = [f"model{k}" if hasattr(one, "score_block") else Path(str(one)).stem for k, one in enumerate(given, 2)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SettingsError(f"--also {few(twice)}: two models have this name, and columns are called by it; rename a file")
    return dict(zip(names, given, strict=True))


def score_columns(model: Predictor, others: Mapping[str, Predictor]) -> tuple[ScoreColumns, ...]:
    """Return the columns of a model, and of others, each with its name before its columns."""
    return (ScoreColumns(model), *(ScoreColumns(other, f"{name}_") for name, other in others.items()))


def beside(tables: Iterable[Any]) -> Any:
    """Return tables of as many rows as one."""
    columns: dict[str, Any] = {}
    for table in tables:
        columns |= dict(zip(table.column_names, table.columns, strict=True))
    return pa.table(columns)


def own_names(columns: Sequence[Any]) -> set[str]:
    """Return names that no id column may have."""
    return set().union(*(some.names for some in columns))
