"""What `show` prints of a model whose scores are no sums of weights."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from streamsgd.model.explaining.pairs import TOP, compiled_of, strongest_pairs
from streamsgd.model.structure import said
from streamsgd.show.tables import number, short, table

if TYPE_CHECKING:
    from streamsgd.model.model import Model


def structure_summary(model: Model, top: int | None = None) -> dict[str, Any]:
    """Return what a model is, as plain JSON values, but for its parameters: no one of them says anything alone.

    Of a machine the `top` strongest pairs of columns and of values are there; see `model.explaining.pairs`.
    """
    use = model.hashed_use()
    machine = bool(getattr(compiled_of(model), "factored", False))
    columns, values = strongest_pairs(model, TOP if top is None else top) if machine else ([], [])
    return {
        "loss": type(model.loss).__name__,
        "model": said(model.structure),
        "target": model.target.name,
        "task": model.target.task,
        "classes": list(model.classes),
        "drawn": False,
        "n_columns": len(model.encoding.sources),
        "n_parameters": int(model.weights.size),
        **({"pairs": columns, "pairs_of_values": values} if machine else {}),
        "crosses": [cross.name for cross in model.encoding.crosses],
        "hashed": None if use is None else asdict(use),
        "metrics": model.metrics,
        "settings": model.settings,
        "provenance": model.provenance,
    }


def structure_lines(summary: dict[str, Any]) -> list[str]:
    """Return the lines about what it is made of."""
    found = summary["model"]
    fields = ", ".join(f"{key} {value}" for key, value in found["fields"].items())
    lines = [f"{found['name']} ({fields}) of {summary['n_parameters']:,} parameters, of which none says anything alone"]
    if "pairs" in summary:
        return [*lines, *_pair_lines(summary["pairs"]), *_value_lines(summary["pairs_of_values"])]
    return [*lines, "'streamsgd importance MODEL DATA' says which columns matter"]


def _pair_lines(pairs: list[dict[str, Any]]) -> list[str]:
    """Return the strongest pairs of columns."""
    if not pairs:
        return []
    weighted = "weight" in pairs[0]
    header = ("strongest pairs of columns", "", "adds, root mean square", *(("weight",) if weighted else ()))
    cells = ((*pair["columns"], number(pair["strength"]), *((number(pair["weight"]),) if weighted else ())) for pair in pairs)
    return ["", *table(header, cells, left=2)]


def _value_lines(pairs: list[dict[str, Any]]) -> list[str]:
    """Return the strongest pairs of values."""
    rows = []
    for pair in pairs:
        sides = zip(pair["columns"], pair["values"], strict=True)
        rows.append((*(name if value is None else f"{name} {short(value)}" for name, value in sides), number(pair["add"])))
    return ["", *table(("strongest pairs of values", "", "adds"), rows, left=2)] if rows else []
