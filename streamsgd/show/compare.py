"""Models side by side, as text."""

from __future__ import annotations

from typing import Any

from streamsgd.show.tables import number, table


def comparison_text(found: dict[str, Any]) -> list[str]:
    """Return lines about a model, others beside it, and about which classes are taken for which."""
    return [*_metrics(found), *_differences(found), *_confusion(found)]


def _metrics(found: dict[str, Any]) -> list[str]:
    also = found.get("also", {})
    columns = [found["metrics"], *(other["metrics"] for other in also.values())]
    names = [name for name, value in columns[0].items() if "error" not in name and not isinstance(value, dict | list)]
    rows = [(name, *(number(metrics.get(name)) for metrics in columns)) for name in names]
    return table(("", "MODEL", *also), rows)


def _differences(found: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    for name, other in found.get("also", {}).items():
        rows = []
        for loss, pair in other["differences"].items():
            low, high = pair["interval"] or (None, None)
            cells = (number(pair["difference"]), "" if pair["standard_error"] is None else f"{pair['standard_error']:.3g}")
            rows.append((loss, *cells, "" if low is None else f"{number(low)} .. {number(high)}", _verdict(low, high, name)))
        lines += ["", *table((f"{name} less MODEL", "difference", "std. error", "95 % interval", ""), rows)]
    return lines


def _verdict(low: float | None, high: float | None, name: str) -> str:
    if low is None or high is None or low <= 0.0 <= high:
        return "no difference is certain"
    return f"{name} is better" if high < 0.0 else "MODEL is better"


def _confusion(found: dict[str, Any]) -> list[str]:
    confusion = found["metrics"].get("confusion")
    if not confusion:
        return []
    classes = [str(name) for name in confusion["classes"]]
    rows = [(name, *map(number, counts)) for name, counts in zip(classes, confusion["actual_by_predicted"], strict=True)]
    return ["", "rows by their class, columns by the predicted one", *table(("", *classes), rows)]
