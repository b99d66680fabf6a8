"""Made the models of this folder and the checkpoints beside it, once; not to be run again.

A model that an old version wrote is only worth keeping as that version wrote it: at the commit that README.md names.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

import streamsgd

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "laws"))

from golden_runs import make_table, write_data  # noqa: E402  which lies elsewhere

COMMON: dict[str, Any] = {"chunk_rows": 500, "memory": "1GB", "executor": "inline", "bad_rows": "skip", "epochs": 1, "bits": 8}

MODELS: dict[str, dict[str, Any]] = {
    "numbers": {"target": "y", "features": ["x0", "x1", "x3", "digit"], "transform": ["none"], "missing": ["indicator"]},
    "bins": {
        "target": "label",
        "features": ["x0", "x1", "x2", "digit", "flag", "colour", "device"],
        "transform": ["auto", "x0=bins"],
        "categorical": ["digit"],
    },
    "crosses": {"target": "label", "features": ["x0", "site", "colour", "device"], "cross": ["site*device", "colour*x0"]},
    "text": {"target": "y", "features": ["x0", "words"], "text": ["words"], "ngrams": 2, "precision": "float64"},
    "ragged": {"target": "count", "task": "poisson", "features": ["x0", "tags", "bag", "vector"]},
    "times": {
        "target": "y",
        "features": ["x0", "when", "day"],
        "time_parts": ["when", "day.month"],
        "cross": ["when.hour*when.weekday"],
    },
    "classes": {"target": "kind", "features": ["x0", "x1", "site", "colour"], "optimizer": "adagrad", "penalty": "l2:l2=0.001"},
    "errors": {
        "target": "label",
        "features": ["x0", "x1", "colour"],
        "precision": "float64",
        "transform": ["none"],
        "penalty": "l2:l2=0.001",
        "optimizer": "adam",
        "polish": 40,
        "standard_errors": True,
    },
}

CHECKPOINT: dict[str, Any] = {
    "target": "y",
    "features": ["x0", "x1", "x2", "colour"],
    "optimizer": "adam",
    "validation": 0.2,
    "epochs": 2,
    "chunk_rows": 200,
    "bad_rows": "skip",
    "memory": "1GB",
    "executor": "inline",
}
"""Settings of the run whose checkpoints are kept."""


def make_models() -> None:
    """Train each model, and note what it says of some rows that it has not seen."""
    rows = make_table(40, 5)
    with tempfile.TemporaryDirectory() as folder:
        data = write_data(Path(folder, "data"), 4, 2000)
        for name, settings in MODELS.items():
            model = streamsgd.train(str(data), **{**COMMON, **settings})
            model.save(HERE / f"{name}.sgd")
            table = rows.select(settings["features"])
            pq.write_table(table, HERE / f"{name}.parquet")
            found: dict[str, Any] = {"predictions": model.predict(table).tolist()}
            found["scores"] = model.decision_function(table).tolist()
            if model.has_probabilities:
                found["probabilities"] = model.predict_proba(table).tolist()
            if model.covariance is not None:
                found["standard_errors"] = [array.tolist() for array in model.standard_errors()]
            (HERE / f"{name}.json").write_text(json.dumps(found) + "\n")


def make_checkpoints() -> None:
    """Stop a run three times, each after one chunk, and keep what it would go on from."""
    folder = HERE.parent / "checkpoints" / "old"
    data = folder / "data"
    table = make_table(900, 6).select(["x0", "x1", "x2", "colour", "y"])
    data.mkdir(parents=True)
    for k in range(2):
        pq.write_table(table.slice(450 * k, 450), data / f"{k}.parquet", row_group_size=150)
    for _ in range(3):
        try:
            streamsgd.train(str(data), **CHECKPOINT, checkpoint=str(folder / "checkpoints"), checkpoint_keep=1, time_limit=1e-9)
        except streamsgd.StreamSGDError as stop:
            if stop.exit_code != 75:
                raise
        else:
            raise AssertionError("it was not stopped")
    (folder / "settings.json").write_text(json.dumps(CHECKPOINT, indent=1) + "\n")


if __name__ == "__main__":
    make_models()
    make_checkpoints()
