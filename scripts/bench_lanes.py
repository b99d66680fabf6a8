"""What lanes cost: held-out loss of V lanes against one, at equal rows, over passes and rounds.

    python scripts/bench_lanes.py [--only flights,kdd] [--lanes 2,4,8,16] [--passes 1,3] [--rounds 16,64]
                                  [--cases auto,adam] [--json]

Every cell is the loss on a fifth of the rows that no lane saw, in percent above that of one lane of the same settings and
passes. `rounds` is how many rounds of V chunks an epoch has: fewer rounds, longer apart.
"""

from __future__ import annotations

import argparse
import json
import runpy
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from streamsgd.settings.make import make_settings
from streamsgd.training.run import train_model

ROOT = Path(__file__).resolve().parents[1]
TABLES = runpy.run_path(str(ROOT / "scripts" / "bench_tables.py"))
PROBLEMS = {
    "flights": (TABLES["flights"], "delay"),
    "kdd": (TABLES["kdd"], "attack"),
    "adult": (TABLES["adult"], "income"),
    "diamonds": (TABLES["diamonds"], "price"),
}
CASES: dict[str, dict[str, Any]] = {
    "auto": {},
    "normalized": {"optimizer": "normalized"},
    "adam": {"optimizer": "adam"},
    "sgd": {"optimizer": "sgd"},
    "adagrad": {"optimizer": "adagrad"},
    "ftrl": {"optimizer": "ftrl"},
    "coin": {"optimizer": "coin"},
}


def halves(table: pa.Table, folder: Path) -> tuple[Path, pa.Table]:
    """Write four fifths of the rows in many row groups, shuffled; return the file and the rest."""
    order = np.random.default_rng(0).permutation(len(table))
    cut = len(table) * 4 // 5
    pq.write_table(table.take(order[:cut]), folder / "learn.parquet", row_group_size=max(256, cut // 512))
    return folder / "learn.parquet", table.take(order[cut:])


def loss_of(path: Path, judged: pa.Table, target: str, settings: dict[str, Any]) -> float:
    """Train and return the held-out loss."""
    model, _ = train_model(path, make_settings({"target": target, "memory": "4GB", **settings}))
    return float(model.evaluate(judged)["loss"])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=TABLES["SHARED"])
    parser.add_argument("--only", default=",".join(PROBLEMS))
    parser.add_argument("--lanes", default="2,4,8,16")
    parser.add_argument("--passes", default="1,3")
    parser.add_argument("--rounds", default="16,64")
    parser.add_argument("--cases", default="auto")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = []
    lanes, passes, rounds = ([int(v) for v in getattr(options, name).split(",")] for name in ("lanes", "passes", "rounds"))
    print(f"{'data':9} {'case':8} passes rounds      one " + " ".join(f"{v:>8}" for v in lanes))
    for name in options.only.split(","):
        make, target = PROBLEMS[name]
        with tempfile.TemporaryDirectory() as scratch:
            path, judged = halves(make(options.data), Path(scratch))
            n = pq.ParquetFile(path).metadata.num_rows
            for case in options.cases.split(","):
                for epochs in passes:
                    for many in rounds:
                        cells = {}
                        for v in [1, *lanes]:
                            settings = {
                                **CASES[case],
                                "epochs": epochs,
                                "lanes": v,
                                "chunk_rows": max(256, n // (many * v)),
                            }
                            cells[v] = loss_of(path, judged, target, settings)
                        above = [100.0 * (cells[v] / cells[1] - 1.0) for v in lanes]
                        found.append({"data": name, "case": case, "passes": epochs, "rounds": many, "losses": cells})
                        text = " ".join(f"{value:+8.2f}" for value in above)
                        print(f"{name:9} {case:8} {epochs:6} {many:6} {cells[1]:8.5f} {text}", flush=True)
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
