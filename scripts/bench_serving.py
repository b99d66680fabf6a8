"""What one row of a click log costs that nobody saw before: serving, `Model.predict`, scikit-learn's hasher, Vowpal Wabbit.

    python scripts/bench_serving.py [--rows 2000]

Prints a table of processor time per row, the medians of seven rounds, and, as the last line, JSON. Every round has new values.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

import streamsgd
from streamsgd import serving

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS, NUMBERS, STRINGS = 7, 13, 26

IMPORT = "import time; t = time.process_time(); import streamsgd.serving; print(time.process_time() - t)"


def clicks(rows: int, seed: int) -> list[dict[str, Any]]:
    """Return rows of 13 integers and 26 strings of eight digits."""
    rng = np.random.default_rng(seed)
    numbers = np.floor(rng.lognormal(2, 2, (rows, NUMBERS))).astype(int).tolist()
    strings = rng.integers(0, 1 << 32, (rows, STRINGS)).tolist()
    return [
        {f"I{k}": x for k, x in enumerate(number)} | {f"C{k}": f"{s:08x}" for k, s in enumerate(string)}
        for number, string in zip(numbers, strings, strict=True)
    ]


def per_row(score: Callable[[dict[str, Any]], Any], rows: int) -> float:
    """Return the processor time of a row in microseconds."""
    spent = []
    for seed in range(ROUNDS):
        given = clicks(rows, 100 + seed)
        began = time.process_time()
        for row in given:
            score(row)
        spent.append((time.process_time() - began) / rows * 1e6)
    return statistics.median(spent)


def hashed_by_scikit_learn(train: list[dict[str, Any]], y: np.ndarray) -> Callable[[dict[str, Any]], Any]:
    from sklearn.feature_extraction import FeatureHasher
    from sklearn.linear_model import SGDClassifier

    hasher = FeatureHasher(1 << 20)
    model = SGDClassifier(loss="log_loss", max_iter=2, tol=None).fit(hasher.transform(train), y)
    return lambda row: model.predict_proba(hasher.transform([row]))


def vowpal_wabbit(train: list[dict[str, Any]], y: np.ndarray) -> dict[str, Callable[[dict[str, Any]], Any]]:
    """Return what scores a row by Vowpal Wabbit, as text that is made of the dict; nothing where it is not installed."""
    try:
        import vowpalwabbit
    except ModuleNotFoundError:
        return {}
    model = vowpalwabbit.Workspace("--loss_function logistic --link logistic -b 20 --holdout_off --quiet")

    def text_of(row: dict[str, Any]) -> str:
        return "| " + " ".join([f"{k}:{v}" if k[0] == "I" else f"{k}={v}" for k, v in row.items()])

    for row, label in zip(train, y.tolist(), strict=True):
        model.learn(f"{2 * label - 1} {text_of(row)}")
    return {"Vowpal Wabbit, its text made of a dict": lambda row: model.predict(text_of(row))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2000)
    rows = parser.parse_args().rows
    train = clicks(20_000, 0)
    y = (np.random.default_rng(1).random(len(train)) < 0.2).astype(int)
    model = streamsgd.train(
        pa.Table.from_pylist(train).append_column("y", pa.array(y)), "y", categorical=["C*"], executor="inline"
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.sgd"
        model.save(path)
        began = time.process_time()
        served = serving.load(path)
        loading = time.process_time() - began
    some = clicks(500, 7)
    apart = float(np.abs(np.array(served.predict_proba(some)) - model.predict_proba(some)).max())
    imports = [float(subprocess.check_output([sys.executable, "-c", IMPORT], text=True)) for _ in range(ROUNDS)]
    found = {
        "streamsgd.serving": per_row(served.predict_proba, rows),
        "scikit-learn, FeatureHasher and SGDClassifier": per_row(hashed_by_scikit_learn(train, y), max(10, rows // 10)),
        **{name: per_row(score, rows) for name, score in vowpal_wabbit(train, y).items()},
        "streamsgd.Model.predict_proba of a dict": per_row(model.predict_proba, rows),
        "streamsgd.Model.predict_proba of a list of one": per_row(lambda row: model.predict_proba([row]), max(10, rows // 20)),
    }
    for name, micros in found.items():
        print(f"{name:50} {micros:10.1f} us")
    print(f"import {statistics.median(imports):.3f} s, load {loading:.3f} s, probabilities differ by at most {apart:.1e}")
    print(json.dumps({"us": found, "import_s": statistics.median(imports), "load_s": loading, "apart": apart}))


if __name__ == "__main__":
    main()
