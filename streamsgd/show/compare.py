"""Models side by side, as text."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from streamsgd.messages import counted
from streamsgd.show.tables import number, short, table

MOST_VALUES = 20
"""Values of a column that have a line; the JSON has all."""

OF_GROUPS = (
    "rows",
    "log_loss",
    "best_constant_log_loss",
    "poisson_deviance",
    "best_constant_poisson_deviance",
    "rmse",
    "best_constant_rmse",
    "mae",
    "accuracy",
    "auc",
    "prevalence",
    "mean_prediction",
)
"""Metrics of a value that have a column, where the task has them."""


def comparison_text(found: dict[str, Any], path: str) -> list[str]:
    """Return lines about the model of a path, others beside it, values of a column, and which classes are taken for which."""
    name = PurePath(path).stem  # as others are called
    name = path if name in found.get("also", {}) else name
    return [*_metrics(found, name), *_by(found), *_differences(found, name), *_confusion(found)]


def _metrics(found: dict[str, Any], first: str) -> list[str]:
    also = found.get("also", {})
    columns = [found["metrics"], *(other["metrics"] for other in also.values())]
    names = [name for name, value in columns[0].items() if "error" not in name and not isinstance(value, dict | list)]
    rows = [(name, *(number(metrics.get(name)) for metrics in columns)) for name in names]
    return table(("", first, *also), rows)


def _by(found: dict[str, Any]) -> list[str]:
    """Return a line for each value of a column, those of the most rows first."""
    by = found["metrics"].get("by")
    if not by:
        return []
    names = [name for name in OF_GROUPS if any(name in metrics for metrics in by.values())]
    often = sorted(by, key=lambda value: (-by[value]["rows"], value))
    values = [(short(value), *(number(by[value].get(name)) for name in names)) for value in often[:MOST_VALUES]]
    more = len(often) - len(values)
    rest = [f"... and {counted(more, 'more value')}; metrics.by of the JSON on stdout has all"] if more else []
    return ["", *table(("value", *names), values), *rest]


def _differences(found: dict[str, Any], first: str) -> list[str]:
    lines: list[str] = []
    for name, other in found.get("also", {}).items():
        rows = []
        for loss, pair in other["differences"].items():
            low, high = pair["interval"] or (None, None)
            cells = (number(pair["difference"]), "" if pair["standard_error"] is None else f"{pair['standard_error']:.3g}")
            rows.append(
                (loss, *cells, "" if low is None else f"{number(low)} .. {number(high)}", _verdict(low, high, name, first))
            )
        lines += ["", *table((f"{name} less {first}", "difference", "std. error", "95 % interval", ""), rows)]
    return lines


def _verdict(low: float | None, high: float | None, name: str, first: str) -> str:
    if low is None or high is None or low <= 0.0 <= high:
        return "no difference is certain"
    return f"{name if high < 0.0 else first} is better"


def _confusion(found: dict[str, Any]) -> list[str]:
    confusion = found["metrics"].get("confusion")
    if not confusion:
        return []
    classes = [str(name) for name in confusion["classes"]]
    rows = [(name, *map(number, counts)) for name, counts in zip(classes, confusion["actual_by_predicted"], strict=True)]
    return ["", "rows by their class, columns by the predicted one", *table(("", *classes), rows)]
