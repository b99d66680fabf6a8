"""What `show` prints of a model whose scores are no sums of weights."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from streamsgd.model.structure import said

if TYPE_CHECKING:
    from streamsgd.model.model import Model


def structure_summary(model: Model) -> dict[str, Any]:
    """Return what a model is, as plain JSON values, but for its parameters: no one of them says anything alone."""
    use = model.hashed_use()
    return {
        "loss": type(model.loss).__name__,
        "model": said(model.structure),
        "target": model.target.name,
        "task": model.target.task,
        "classes": list(model.classes),
        "drawn": False,
        "n_columns": len(model.encoding.sources),
        "n_parameters": int(model.weights.size),
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
    return [f"{found['name']} ({fields}) of {summary['n_parameters']:,} parameters, of which none says anything alone"]
