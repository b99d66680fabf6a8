"""What cross-validation came to, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamsgd.messages import counted
from streamsgd.show.tables import number, table

if TYPE_CHECKING:
    from streamsgd.training.together.crossvalidation import CrossValidated
    from streamsgd.training.together.many import Progress


def folds_line(progress: Progress) -> str:
    """Return a line about how far the folds are."""
    return f"{progress.rows:>14,} rows  {progress.passes:8.4g} passes  {counted(progress.going, 'model')} learn"


def folds_text(found: CrossValidated) -> list[str]:
    """Return a line for each fold, then mean and standard error of its metrics."""
    names = [name for name in found.metrics if "error" not in name and name != "loss"] or ["loss"]
    held = [model.metrics["held_out"] for model in found.folds]
    rows = [
        (f"fold {k}", f"{metrics['rows']:,.0f}", *(number(float(metrics[name])) for name in names))
        for k, metrics in enumerate(held, 1)
    ]
    rows.append(("mean", "", *(number(found.metrics[name].mean) for name in names)))
    rows.append(("std. error", "", *(f"{found.metrics[name].standard_error:.2g}" for name in names)))
    return table(("", "rows", *names), rows)
