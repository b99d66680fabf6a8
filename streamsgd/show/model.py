"""What `show` prints: a model in the words of its data."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.messages import counted
from streamsgd.model.posterior.uncertainty import weights_of
from streamsgd.show.posterior import posterior_lines
from streamsgd.show.structure import structure_lines, structure_summary
from streamsgd.show.tables import MOST_ROWS, number, short, table

if TYPE_CHECKING:
    from streamsgd.model.model import Model


TWO_SIDED = 1.959963984540054
"""Standard errors to either side of a weight that hold 95 % of a normal distribution."""

DOUBTS = ("std. error", "z", "p", "95 % interval")
"""What stands beside weights that have standard errors."""


def model_summary(model: Model, top: int | None = None) -> dict[str, Any]:
    """Return what a model is, as plain JSON values.

    If there are standard errors, `error` and `interval`, of 95 % of a normal distribution, go with each weight; None where
    the data does not determine it. Weights are per unit of the column (days of dates, seconds of times), standardised ones per
    standard deviation of it; columns come by the largest standardised weight, the `top` first.
    """
    if not model.is_linear:
        return structure_summary(model, top)
    weights, intercepts = model.coefficients()
    errors = None if model.covariance is None else model.standard_errors()
    encoded = model.weights[: model.encoding.width].astype(float)
    names = [str(c) for c in model.classes] if model.n_outputs > 1 else [""]

    def told(values: np.ndarray) -> Any:
        """Return the number, or the numbers by class."""
        found = [value if np.isfinite(value) else None for value in values.tolist()]
        return dict(zip(names, found, strict=True)) if model.n_outputs > 1 else found[0]

    def doubt(weights: np.ndarray, errors: np.ndarray | None) -> dict[str, Any]:
        if errors is None:
            return {}
        ends = [told(weights + sign * TWO_SIDED * errors) for sign in (-1.0, 1.0)]
        interval = {name: [end[name] for end in ends] for name in names} if model.n_outputs > 1 else ends
        return {"error": told(errors), "interval": interval}

    columns = []
    for j, entry in enumerate(model.encoding.numbers):
        columns.append(
            {
                "name": entry.name,
                "type": entry.type,
                "weight": told(weights[j]),
                **doubt(weights[j], None if errors is None else errors[1][j]),
                "standardised": told(encoded[j]),
                **({} if errors is None else {"standardised_error": told(errors[0][j])}),
                "imputed": entry.imputed,
                "mean": entry.shift,
                "std": entry.scale and 1.0 / entry.scale,
            }
        )
    order = sorted(range(len(columns)), key=lambda j: (-abs(encoded[j]).max(), j))
    values = sorted(model.values(), key=lambda value: -np.abs(value.weights).max())
    use = model.hashed_use()
    return {
        "loss": type(model.loss).__name__,
        "target": model.target.name,
        "task": model.target.task,
        "classes": list(model.classes),
        "intercept": told(intercepts),
        **{f"intercept_{key}": value for key, value in doubt(intercepts, None if errors is None else errors[2]).items()},
        "drawn": model.draws is not None,
        "n_sources": len(model.encoding.sources),
        "n_columns": len(columns),
        "columns": [columns[j] for j in order[:top]],
        "n_values": len(values),
        "values": [
            {
                "column": value.column,
                "value": value.value,
                "weight": told(value.weights),
                **doubt(value.weights, value.errors),
                "counted": value.rows or None,
            }
            for value in values[:top]
        ],
        "crosses": [cross.name for cross in model.encoding.crosses],
        "hashed": None if use is None else asdict(use),
        **({"weights": known} if (known := weights_of(model)) else {}),
        "metrics": model.metrics,
        "settings": model.settings,
        "provenance": model.provenance,
    }


def lineage_text(found: dict[str, Any]) -> list[str]:
    """Return the lines of `show --lineage`: a run each."""
    counts = ("files", "rows", "rows_learned", "epochs")
    runs = found["lineage"]
    rows = [[str(k), *(f"{run[key] or 0:,}" for key in counts), str(run["fingerprint"])[:12]] for k, run in enumerate(runs, 1)]
    heads = ["run", "files", "rows", "learned", "passes", "fingerprint"]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in (heads, *rows)]
    told = ["data", *map(_data_of, runs)]
    return [f"{line}  {data}".rstrip() for line, data in zip(lines, told, strict=True)] if any(told[1:]) else lines


def _data_of(run: dict[str, Any]) -> str:
    """Return what is known of the data of a run: its first file, its version, the filter."""
    more = (run["files"] or 1) - 1
    named = f"{run['data']}{f' and {more:,} more' if more else ''}" if run.get("data") else ""
    return ", ".join(filter(None, [named, run.get("version"), f"--filter {run['filter']!r}" if run.get("filter") else ""]))


def model_text(summary: dict[str, Any]) -> list[str]:
    """Return the lines of `show`."""
    origin, settings = summary["provenance"], summary["settings"]
    classes = f" ({', '.join(map(str, summary['classes'][:10]))})" if summary["classes"] else ""
    columns = counted(summary.get("n_sources", summary["n_columns"]), "column")
    lines = [f"{summary['task']} model of {summary['target']}{classes}, {columns}"]
    if origin:
        mixed = min(origin["chunk_rows"], origin["rows"])
        files, epochs = counted(origin["files"], "file"), counted(origin["epochs"], "epoch")
        named = ("filter", "weight", "scale", "missing", "seed")
        lines += [
            (
                f"trained on {counted(origin['rows'], 'row')} in {files}, {epochs}, {counted(origin['steps'], 'step')}, "
                f"batch size {settings['batch_size']}, chunks of up to {mixed:,} rows"
            ),
            *([f"  {'data':10} {origin['version']}"] if origin.get("version") else []),
            *(f"  {kind:10} {spec}" for kind, spec in origin["parts"].items()),
            *_race_lines(origin.get("race")),
            f"  {'shuffle':10} {origin.get('shuffle') or settings.get('shuffle', '')}",
            *(f"  {name:10} {settings[name]}" for name in named if settings.get(name) not in (None, [])),
            *(f"  {name:10} {counted(n, 'row')}" for name, n in origin["counts"].items() if n and name != "missing"),
        ]
    lines += ["", "metrics", *_metric_lines(summary["metrics"]), ""]
    if "model" in summary:
        return [*lines, *structure_lines(summary), *_hashed_lines(summary)]
    if summary["drawn"]:
        return [*lines, *posterior_lines(summary), *_hashed_lines(summary)]
    return [*lines, *_weight_lines(summary), *_value_lines(summary), *_hashed_lines(summary)]


def _race_lines(race: dict[str, Any] | None) -> list[str]:
    """Return what each rate of a race came to."""
    if not race:
        return []
    found = ", ".join(f"{rate:g}: {loss:.5g}" for rate, loss in zip(race["rates"], race["losses"], strict=True))
    return [f"  {'race':10} {race['rows']:,} rows, loss by rate {found}; all mixed {race['mixture']:.5g}"]


def _value_lines(summary: dict[str, Any]) -> list[str]:
    """Return the weights of values, the heaviest first; of several classes each has its own column."""
    values, many = summary["values"], isinstance(summary["intercept"], dict)
    if not values:
        return []
    outputs = list(summary["intercept"]) if many else []
    shown = values[:MOST_ROWS]
    doubtful = "error" in values[0]
    rows = [
        (
            v["column"],
            short(v["value"]),
            *(cell for name in outputs or [""] for cell in _weight_cells(v, name)),
            "" if v["counted"] is None else f"{v['counted']:,}",
        )
        for v in shown
    ]
    titles = [cell for name in outputs or ["weight"] for cell in (name, *(DOUBTS if doubtful else ()))]
    left = summary["n_values"] - len(shown)
    header = ("column", "value", *titles, "counted")
    return ["", *table(header, rows, left=2), *([f"... and {left:,} more values; --json has all"] if left else [])]


def _weight_cells(of: dict[str, Any], name: str, key: str = "weight", prefix: str = "") -> list[str]:
    """Return a weight, that of a class if there are several, with its standard error, z, p and interval where there are any."""
    found = [of.get(part) for part in (key, f"{prefix}error", f"{prefix}interval")]
    weight, error, interval = (part[name] if isinstance(part, dict) else part for part in found)
    if f"{prefix}error" not in of:
        return [number(weight)]
    if error is None:
        return [number(weight), "not determined", "", "", ""]
    low, high = interval or (None, None)
    z = weight / error if error else math.inf
    return [number(weight), f"{error:.3g}", f"{z:.2f}", f"{math.erfc(abs(z) / 2**0.5):.2g}", f"{number(low)} .. {number(high)}"]


def _hashed_lines(summary: dict[str, Any]) -> list[str]:
    use = summary["hashed"]
    if use is None:
        return []
    share = use["used"] / use["slots"]
    return [
        "",
        (
            f"hashed: {use['used']:,} of {use['slots']:,} slots in use ({share:.1%}) by about {use['values']:,} values, "
            f"of which {use['collisions']:.1%} share theirs with another"
        ),
        *([f"crosses in it: {', '.join(summary['crosses'])}"] if summary["crosses"] else []),
    ]


def _metric_lines(metrics: dict[str, Any], indent: str = "  ") -> list[str]:
    lines = []
    for name, value in metrics.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}", *_metric_lines(value, indent + "  ")]
        elif isinstance(value, list):
            lines.append(f"{indent}{name:28} {', '.join(map(number, value[-10:]))}")
        else:
            lines.append(f"{indent}{name:28} {number(value)}")
    return lines


def _weight_lines(summary: dict[str, Any]) -> list[str]:
    columns, many = summary["columns"], isinstance(summary["intercept"], dict)
    outputs = list(summary["intercept"]) if many else [""]
    doubts = DOUBTS if "intercept_error" in summary else ()
    lines: list[str] = []
    for name in outputs:
        rows = [
            (
                "(intercept)",
                *_weight_cells(summary, name, "intercept", "intercept_"),
                "",
                "",
                "",
                "",
            )
        ]
        rows += [
            (
                c["name"],
                *_weight_cells(c, name),
                number(c["standardised"][name] if many else c["standardised"]),
                *(number(c[key]) for key in ("imputed", "mean", "std")),
            )
            for c in columns
        ]
        lines += [
            *([f"class {name}"] if many else []),
            *table(("column", "weight", *doubts, "standardised", "missing as", "mean", "std"), rows),
            "",
        ]
    left = summary["n_columns"] - len(columns)
    if not columns and not left and not many:
        lines = ["  ".join(["intercept", *filter(None, _weight_cells(summary, "", "intercept", "intercept_"))]), ""]
    return [*lines[:-1], *([f"... and {counted(left, 'more column')}; --top shows more"] if left else [])]
