"""What `show` prints of weights that were drawn from their posterior."""

from __future__ import annotations

from typing import Any

from streamsgd.show.tables import MOST_ROWS, number, short, table


def posterior_lines(summary: dict[str, Any]) -> list[str]:
    """Return a table of the weights of `model.posterior.uncertainty`, those the furthest from 0 in their own units first."""
    weights = summary["weights"]
    intercepts = [weight for weight in weights if weight["column"] is None]
    others = [weight for weight in weights if weight["column"] is not None]
    others.sort(key=lambda weight: -abs(weight["mean"]) / weight["sd"] if weight["sd"] else 0.0)
    shown = [*intercepts, *others[:MOST_ROWS]]
    valued, classes = any(weight["value"] is not None for weight in shown), "class" in weights[0]
    header = ["column", *(["value"] if valued else []), *(["class"] if classes else [])]
    rows = [[*_names(weight, valued=valued, classes=classes), *_numbers(weight)] for weight in shown]
    left = len(others) - MOST_ROWS
    more = [f"... and {left:,} more weights; --json has all"] if left > 0 else []
    return [*table([*header, "mean", "sd", "5 %", "50 %", "95 %", "R-hat", "ESS"], rows, left=len(header)), *more]


def _names(weight: dict[str, Any], *, valued: bool, classes: bool) -> list[str]:
    name = "(intercept)" if weight["column"] is None else weight["column"]
    return [
        name,
        *([short(weight["value"] or "")] if valued else []),
        *([short(str(weight["class"]))] if classes else []),
    ]


def _numbers(weight: dict[str, Any]) -> list[str]:
    sd, r_hat, ess = weight["sd"], weight["r_hat"], weight["ess"]
    return [
        number(weight["mean"]),
        "" if sd is None else f"{sd:.3g}",
        *(number(weight[key]) for key in ("low", "median", "high")),
        "" if r_hat is None else f"{r_hat:.3f}",
        "" if ess is None else f"{ess:,.0f}",
    ]
