"""What the tests against Vowpal Wabbit share: rows as columns and as its lines, targets, its progressive loss."""

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest

N = 1500
PLAIN = {
    "optimizer": "normalized",
    "scale": "none",
    "transform": "none",
    "shuffle": "none",
    "epochs": 1,
    "precision": "float64",
    "executor": "inline",
    "memory": "2GB",
}
"""Rows as they are, once, in their order."""


class Data(NamedTuple):
    """Rows as columns and as lines of Vowpal Wabbit, and what drives their targets."""

    columns: dict[str, Any]
    lines: list[str]
    signal: np.ndarray
    settings: dict[str, Any]
    weight: np.ndarray | None = None


def scales_and_categories() -> Data:
    rng = np.random.default_rng(1)
    x = np.where(rng.random((N, 6)) < 0.1, 0.0, rng.normal(size=(N, 6))) * np.geomspace(1e-2, 1e2, 6)
    x = x.astype(np.float32)
    c, d = rng.integers(0, 20, N), rng.integers(0, 3, N)
    signal = x / np.geomspace(1e-2, 1e2, 6) @ rng.normal(size=6) * 0.7 + rng.normal(size=20)[c] - d
    numbers = [" ".join(f"x{j}:{x[i, j]:.9g}" for j in range(6) if x[i, j]) for i in range(N)]
    lines = [f"{numbers[i]} c={c[i]} d={d[i]}" for i in range(N)]
    columns = {f"x{j}": x[:, j] for j in range(6)} | {"c": pa.array(c).cast(pa.string()), "d": pa.array(d).cast(pa.string())}
    return Data(columns, lines, signal, {})


def words() -> Data:
    """Texts of words that follow Zipf's law, none twice in a text, of which it makes something else, and a map of numbers."""
    rng = np.random.default_rng(2)
    drawn = [np.unique(np.minimum(rng.zipf(1.3, rng.integers(1, 15)), 800)) for _ in range(N)]
    texts = [" ".join(f"word{k}" for k in row) for row in drawn]
    strength = rng.normal(size=801)
    factors = rng.normal(size=(N, 2)).astype(np.float32)
    signal = np.array([strength[row].mean() for row in drawn]) + factors[:, 0]
    maps = [[{"key": "a", "value": float(a)}, {"key": "b", "value": float(b)}] for a, b in factors]
    lines = [f"{text} |n a:{a:.9g} b:{b:.9g}" for text, (a, b) in zip(texts, factors, strict=True)]
    return Data({"t": texts, "m": maps}, lines, signal, {"text": ["t"], "bits": 22})


def weighted() -> Data:
    data = scales_and_categories()
    rng = np.random.default_rng(3)
    weight = np.where(rng.random(N) < 0.3, rng.gamma(0.5, 20.0, N), rng.uniform(0.1, 2.0, N)).astype(np.float32)
    return data._replace(weight=weight, columns={**data.columns, "h": weight}, settings={"weight": "h"})


DATA = {"scales and categories": scales_and_categories, "words": words, "weighted": weighted}


def targets(loss: str, signal: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(4)
    if loss in ("logistic", "hinge"):
        # Both classes come first: theirs confines a margin to the labels so far, ours to -1 and 1.
        return np.append([1, 0], rng.random(N - 2) < 1 / (1 + np.exp(-signal[2:]))).astype(int)
    if loss == "poisson":
        return np.minimum(np.floor(np.exp(signal / 3) * rng.random(N) * 2), 5).astype(int)
    return (signal + rng.normal(size=N)).astype(np.float32)


def progressive_loss_of_vowpal_wabbit(arguments: str, loss: str, data: Data, y: np.ndarray) -> float:
    """Each line predicted before it is learned, on their scale."""
    vowpal = pytest.importorskip("vowpalwabbit")
    vw = vowpal.Workspace(f"{arguments} --loss_function {loss} -b 24 --holdout_off --quiet")
    total = 0.0
    for i, line in enumerate(data.lines):
        label = 2 * y[i] - 1 if loss in ("logistic", "hinge") else y[i]
        example = vw.example(f"{label:.9g} {1.0 if data.weight is None else data.weight[i]:.9g} | {line}")
        vw.learn(example)
        total += example.get_loss()
        vw.finish_example(example)
    vw.finish()
    return total / (N if data.weight is None else float(data.weight.sum()))
