"""A model in one line, and as a small card for notebooks."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.messages import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

SHOWN = 8
"""Columns on a card."""

JUDGED = ("valid", "held_out")
"""Metrics of rows that were not learned, the best to go by first."""

STYLE = "border-collapse:collapse;font-size:90%"


def headline(model: Any) -> tuple[str, float] | None:
    """Return the metric to go by, and its value: of rows held out, else the progressive loss."""
    for name in JUDGED:
        for metric in ("log_loss", "rmse", "loss"):
            if (value := (model.metrics.get(name) or {}).get(metric)) is not None:
                return f"{name} {metric}", float(value)
    value = model.metrics.get("progressive_loss")
    return None if value is None else ("progressive loss", float(value))


def one_line(model: Any) -> str:
    """Return what a model predicts from what, and how well."""
    rows, judged = model.provenance.get("rows_learned"), headline(model)
    facts = [
        f"{model.target.task} of {model.target.name}",
        type(model.loss).__name__,
        *([] if model.is_linear else [type(model.structure).__name__]),
        f"{counted(len(model.encoding.sources), 'column')} as {model.encoding.sizes}",
        *([f"{counted(rows, 'row')} learned"] if rows is not None else []),
        *([f"{judged[0]} {judged[1]:.6g}"] if judged else []),
    ]
    return f"<Model {', '.join(facts)}>"


def card(model: Any) -> str:
    """Return HTML: the line, metrics, and the numbers of the largest standardised weights."""
    encoded = model.weights[: model.encoding.width if model.is_linear else 0].astype(float)
    sizes = np.abs(encoded).max(axis=1, initial=0.0)
    order = np.argsort(-sizes, kind="stable")[:SHOWN]
    names = [number.name for number in model.encoding.numbers]
    numbers = [(names[j], *(f"{weight:.4g}" for weight in encoded[j][:SHOWN])) for j in order.tolist()]
    metrics = [(name, f"{value:.6g}") for name, value in _flat(model.metrics) if isinstance(value, float)]
    heads = [str(c) for c in model.classes[:SHOWN]] if model.n_outputs > 1 else ["standardised weight"]
    return (
        f"<div><b>{escape(one_line(model)[1:-1])}</b>"
        f"<div style='display:flex;gap:2em'>{_table(('metric', 'value'), metrics[: 2 * SHOWN])}"
        f"{_table(('number', *heads), numbers)}</div></div>"
    )


def _flat(metrics: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in metrics.items():
        found += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(f"{prefix}{name}", value)]
    return found


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th style='text-align:left'>{escape(name)}</th>" for name in header)
    body = "".join(f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table style='{STYLE}'><tr>{head}</tr>{body}</table>"
