"""Models beside the linear one on a click log, or on data of your own: rows per second, and progressive loss.

    python scripts/bench_models.py [DATA --target NAME] [--rows 200000] [--repeat 3] [--models linear,fm,fwfm] [--epochs 1]

Without DATA the rows are those of datasets/criteo.py: 13 numbers and 26 texts. Every model learns row by row at one rate,
without a race (`--optimizer normalized`), in one pass, in one thread of this process, whose first run compiles and does not
count. Rows per second are of processor time, with reading and encoding; of learning alone they are by the clock. Each is the
best of runs taken in turn, which on a machine with neighbours says most. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from streamsgd.settings.make import make_settings
from streamsgd.training.run import train_model

ROOT = Path(__file__).resolve().parents[1]


def click_log(folder: Path, rows: int) -> str:
    """Write a click log; return where it is."""
    path = str(folder / "clicks.parquet")
    subprocess.run([sys.executable, ROOT / "datasets" / "criteo.py", path, "--rows", str(rows)], check=True, stdout=sys.stderr)
    return path


def run(data: str, model: str, given: dict[str, Any]) -> dict[str, float]:
    """Train once; return processor seconds, those of learning, rows and loss."""
    settings = make_settings({**given, "model": model})
    began = time.process_time()
    made, report = train_model(data, settings)
    seconds = time.process_time() - began
    return {
        "cpu": seconds,
        "learn": report.fit_seconds,
        "rows": float(report.rows),
        "loss": float(made.metrics["progressive_loss"]),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?")
    parser.add_argument("--target", default="label")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--models", default="linear,fm,fwfm")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    options = parser.parse_args()
    given: dict[str, Any] = {
        "target": options.target,
        "epochs": options.epochs,
        "optimizer": "normalized",
        "executor": "inline",
        "threads": 1,
        "memory": "4GB",
        "bits": 20,
        **dict(pair.split("=", 1) for pair in options.set),
    }
    models = options.models.split(",")
    with tempfile.TemporaryDirectory() as folder:
        data = options.data or click_log(Path(folder), options.rows)
        taken: dict[str, list[dict[str, float]]] = {model: [] for model in models}
        for _ in range(options.repeat + 1):  # the first of each compiles
            for model in models:
                taken[model].append(run(data, model, given))
    found = {model: {key: min(one[key] for one in runs[1:]) for key in runs[0]} for model, runs in taken.items()}
    first = found[models[0]]
    print(f"{'model':28} {'rows/s':>10} {'of ' + models[0]:>10} {'learning':>10} {'of ' + models[0]:>10} {'loss':>10}")
    for model, one in found.items():
        speed = one["rows"] / one["cpu"]
        learning = one["rows"] / one["learn"]
        ratio, alone = first["cpu"] / one["cpu"], first["learn"] / one["learn"]
        print(f"{model:28} {speed:10,.0f} {ratio:10.2f} {learning:10,.0f} {alone:10.2f} {one['loss']:10.5f}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
