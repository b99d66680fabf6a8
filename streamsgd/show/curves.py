"""Charts of how good predictions are: calibration, ROC, precision and recall, residuals, confusion."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from streamsgd.show.svg import Axis, Line, chart

if TYPE_CHECKING:
    from streamsgd.model.sampled import Sampled

GROUPS = 20
"""Of rows with alike predictions."""

POINTS = 200
"""Of a curve."""

CLOUD = 1500
"""Points of a cloud."""


def judged(task: str, classes: tuple[object, ...], rows: Sampled) -> dict[str, str]:
    """Return the charts of a task, by title."""
    if len(rows.y) < 2:
        return {}
    if task == "binary":
        return _of_two(rows.y, rows.mean[:, 0], rows.weight, str(classes[1]) if len(classes) > 1 else "1")
    if task == "multiclass":
        return _of_many(classes, rows)
    return _of_numbers(rows.y, rows.mean[:, 0], rows.weight)


def _of_two(y: np.ndarray, p: np.ndarray, w: np.ndarray, name: str) -> dict[str, str]:
    order = np.argsort(-p, kind="stable")
    hits, misses = np.cumsum((w * y)[order]), np.cumsum((w * (1.0 - y))[order])
    if not hits[-1] or not misses[-1]:
        return {"Calibration": _calibration(y, p, w, "predicted probability", "share that came")}
    ends = np.append(np.flatnonzero(np.diff(p[order]) != 0.0), len(p) - 1)  # ties are one step
    some = ends[np.unique(np.linspace(0, len(ends) - 1, POINTS).round().astype(int))]
    recall, false = hits[some] / hits[-1], misses[some] / misses[-1]
    precision, base = hits[some] / (hits[some] + misses[some]), hits[-1] / (hits[-1] + misses[-1])
    roc = [Line("", [0.0, *false], [0.0, *recall]), Line("", [0.0, 1.0], [0.0, 1.0], "dashes")]
    return {
        "Calibration": _calibration(y, p, w, f"predicted probability of {name}", f"share of {name}"),
        "ROC": chart(roc, Axis("false positives"), Axis("true positives"), "ROC curve"),
        "Precision and recall": chart(
            [Line("", recall, precision), Line("", [0.0, 1.0], [base, base], "dashes")],
            Axis("recall"),
            Axis("precision"),
            "Precision by recall",
        ),
    }


def _of_many(classes: tuple[object, ...], rows: Sampled) -> dict[str, str]:
    """Return calibration by class, of the heaviest ones."""
    shares = np.bincount(rows.y.astype(int), rows.weight, len(classes))
    lines = []
    for k in np.argsort(-shares, kind="stable")[:6].tolist():
        x, share = _grouped((rows.y == k).astype(float), rows.mean[:, k], rows.weight)
        lines.append(Line(str(classes[k]), x, share))
    lines.append(Line("", [0.0, 1.0], [0.0, 1.0], "dashes"))
    return {"Calibration": chart(lines, Axis("predicted probability"), Axis("share that came"), "Calibration by class")}


def _of_numbers(y: np.ndarray, mean: np.ndarray, w: np.ndarray) -> dict[str, str]:
    step = max(1, len(y) // CLOUD)
    ends = [float(min(mean.min(), y.min())), float(max(mean.max(), y.max()))]
    cloud = [Line("", mean[::step], y[::step], "points"), Line("", ends, ends, "dashes")]
    counts, edges = np.histogram(y - mean, bins=60, range=tuple(np.quantile(y - mean, [0.002, 0.998])), weights=w)
    return {
        "Calibration": _calibration(y, mean, w, "predicted", "mean of what came"),
        "What came by what was predicted": chart(cloud, Axis("predicted"), Axis("came"), "Values by predictions"),
        "Residuals": chart(
            [Line("", (edges[1:] + edges[:-1]) / 2, counts)],
            Axis("came less predicted"),
            Axis("rows"),
            "Histogram of residuals",
        ),
    }


def _calibration(y: np.ndarray, p: np.ndarray, w: np.ndarray, x_name: str, y_name: str) -> str:
    x, share = _grouped(y, p, w)
    ends = [min(*x, *share), max(*x, *share)] if len(x) > 1 else [0.0, 1.0]
    return chart([Line("", x, share), Line("", ends, ends, "dashes")], Axis(x_name), Axis(y_name), "Calibration")


def _grouped(y: np.ndarray, p: np.ndarray, w: np.ndarray) -> tuple[list[float], list[float]]:
    """Return means of predictions and of what came, in groups of as many rows with alike predictions."""
    x, share = [], []
    for some in np.array_split(np.argsort(p, kind="stable"), GROUPS):
        if len(some) and w[some].sum() > 0.0:
            x.append(float(np.average(p[some], weights=w[some])))
            share.append(float(np.average(y[some], weights=w[some])))
    return x, share
