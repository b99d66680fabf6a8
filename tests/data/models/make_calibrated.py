"""Made the calibrated models of this folder, once; not to be run again.

Their quantiles are in bins of 0.05 %, as that version wrote them: at the commit that README.md names.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import streamsgd
from streamsgd.model.posterior.intervals import IntervalColumns

HERE = Path(__file__).resolve().parent

COMMON: dict[str, Any] = {"memory": "1GB", "executor": "inline", "epochs": 1, "validation": 0.4, "conformal": True}

LEVELS = ("0.5", "0.9", "0.97")


def rows(n: int, seed: int) -> pa.Table:
    """Return numbers, a category, a class of three, and a number whose noise grows."""
    rng = np.random.default_rng([seed, 16])
    x = rng.uniform(size=(n, 2))
    score = 2.0 * x[:, 0] - x[:, 1]
    kind = np.array(["common", "other", "rare"])[
        np.argmax(np.stack([score + 1.5, 0.0 * score, -score], 1) + rng.gumbel(size=(n, 3)), 1)
    ]
    y = 100.0 + 3.0 * score + (0.1 + x[:, 0]) * rng.normal(size=n)
    return pa.table({"x0": x[:, 0], "x1": x[:, 1], "colour": rng.choice(["red", "green"], n), "kind": kind, "y": y})


def make_models() -> None:
    """Train each, and note what it says of rows that it has not seen."""
    table, fresh = rows(4000, 0), rows(40, 1).select(["x0", "x1", "colour"])
    for name, target, other in (("calibrated", "kind", "y"), ("residuals", "y", "kind")):
        model = streamsgd.train(table, target, exclude=[other], **COMMON)
        model.save(HERE / f"{name}.sgd")
        pq.write_table(fresh, HERE / f"{name}.parquet")
        found: dict[str, Any] = {"predictions": model.predict(fresh).tolist()}
        found["scores"] = model.decision_function(fresh).tolist()
        if model.has_probabilities:
            found["probabilities"] = model.predict_proba(fresh).tolist()
        block, _ = model.encode(fresh)
        found["intervals"] = {level: intervals(model, block, level) for level in LEVELS}
        (HERE / f"{name}.json").write_text(json.dumps(found) + "\n")


def intervals(model: streamsgd.Model, block: Any, level: str) -> dict[str, Any]:
    """Return labels, or ends, by name."""
    told = IntervalColumns(model, float(level)).score(block, 0, len(block.y))
    return {name: told[name].to_pylist() for name in ("labels", "lower", "upper") if name in told.column_names}


if __name__ == "__main__":
    make_models()
