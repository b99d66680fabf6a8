"""A model that learns on: the one step up the layers, by the name that any program would call."""

from __future__ import annotations

from typing import Any, Self

from streamsgd.settings.words import speaks_python


class LearnsOn:
    """What a model that was trained with `keep_memory` can do besides."""

    @speaks_python
    def partial_fit(self, table: Any, **settings: Any) -> Self:
        """Learn from a table (anything with `__arrow_c_stream__`) too, and return the model, which is another one then.

        Metrics are those of this table, `provenance["lineage"]` says of what was learned before. For table after table
        `streamsgd.Trainer.of(model)` is quicker.

        Parameters
        ----------
        table
            With the columns that the model knows.
        settings
            A run's own, as `seed` and `shuffle`: how rows are encoded and learned is the model's.

        Raises
        ------
        ModelError
            The model does not hold what its optimizer remembers.
        SettingsError
            The settings ask for other columns, losses or rules than the model's.
        DataError
            The table lacks a column, or holds values that the settings do not allow; nothing of it was learned.

        """
        import streamsgd  # noqa: PLC0415  as whoever calls it

        model: Any = self
        learned = streamsgd.Trainer.of(model, **settings).partial_fit(table).model
        vars(self).update(vars(learned))
        return self
