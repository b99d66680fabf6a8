"""What a batch costs and brings: progressive loss of one pass, and rows per second, by the rows per update.

    python scripts/bench_batches.py [--data DIR] [--only adult,bank] [--batches 1,16,64,256,1024] [--rows 50000]
                                    [--speed 2000000]

The rule is the same at every size: steps divided by the root of the sum of squared gradients, row by row (`normalized`) or
of batches (`adagrad`), each at the best of its rates for that table and size, so that no size suffers from a rate that suits
another.
Losses are progressive, of one pass over shuffled real tables; shown is how far each is above that of learning row by row, in
percent. The last column is the default (`auto`: a race row by row, then batches of 64 if rows are dense). Speed is that of
fitting alone, of dense rows of 28 columns and of rows of 20 categories, in millions of rows per second of one thread.
"""

from __future__ import annotations

import argparse
import json
import math
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
UNTUNED = runpy.run_path(str(ROOT / "scripts" / "bench_untuned.py"))
RATES = {"normalized": (0.125, 0.25, 0.5, 1.0, 2.0, 4.0), "adagrad": (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)}


def rule(batch: int) -> tuple[str, dict[str, Any]]:
    """Return the optimizer of a size, and the settings for it."""
    if batch == 1:
        return "normalized", {}
    return "adagrad", {"batch_size": batch, "schedule": "constant"}


def best(table: pa.Table, target: str, batch: int) -> float:
    """Return the loss of a size at its best rate."""
    name, settings = rule(batch)
    losses = [UNTUNED["ours"](table, target, {"optimizer": f"{name}:learning_rate={rate}", **settings}) for rate in RATES[name]]
    return min(losses)


def speeds(batches: list[int], n_rows: int) -> dict[str, list[float]]:
    """Return millions of rows per second of fitting, by the kind of rows."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(28, n_rows)).astype(np.float32), rng.integers(0, 2, n_rows)
    tables = {
        "dense": pa.table({**{f"x{k}": column for k, column in enumerate(x)}, "y": y}),
        "categories": pa.table({**{f"c{k}": rng.integers(0, 10_000, n_rows // 4) for k in range(20)}, "y": y[: n_rows // 4]}),
    }
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for kind, table in tables.items():
            path = Path(scratch) / f"{kind}.parquet"
            pq.write_table(table, path, row_group_size=100_000)
            more = {"categorical": ["c*"], "bits": 20} if kind == "categories" else {}
            found[kind] = []
            for batch in batches:
                name, settings = rule(batch)
                given = {"target": "y", "optimizer": name, "epochs": 1, "memory": "4GB", **settings, **more}
                times = [train_model(path, make_settings(given))[1].fit_seconds for _ in range(3)]
                found[kind].append(len(table) / min(times) / 1e6)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=UNTUNED["SHARED"], help="folder of the raw files (default: %(default)s)")
    parser.add_argument("--only", default="", help="names of tables, or how they begin, by comma")
    parser.add_argument("--batches", default="1,16,64,256,1024")
    parser.add_argument("--rows", type=int, default=50_000, help="at most so many of each table (default: %(default)s)")
    parser.add_argument("--speed", type=int, default=2_000_000, help="dense rows to measure speed with, 0 for none")
    options = parser.parse_args()
    batches, wanted = [int(text) for text in options.batches.split(",")], options.only.split(",")
    found: dict[str, Any] = {}
    print(f"{'table':24}{'rows':>9}{'row by row':>12}" + "".join(f"{f'b={b}':>9}" for b in batches[1:]) + f"{'auto':>9}")
    for problem in UNTUNED["PROBLEMS"]:
        if not any(problem.name.startswith(name) for name in wanted):
            continue
        table = UNTUNED["shuffled"](problem, options.data, options.rows)
        losses = [best(table, problem.target, batch) for batch in batches]
        auto = UNTUNED["ours"](table, problem.target, {})
        found[problem.name] = {"batches": batches, "losses": losses, "auto": auto}
        above = [100.0 * (loss / losses[0] - 1.0) if math.isfinite(loss) else math.inf for loss in [*losses[1:], auto]]
        print(f"{problem.name:24}{len(table):9,}{losses[0]:12.6g}" + "".join(f"{value:+9.1f}" for value in above), flush=True)
    if options.speed:
        found["speed"] = speeds(batches, options.speed)
        for kind, values in found["speed"].items():
            print(f"{kind + ', M rows/s':33}" + "".join(f"{value:{12 if k == 0 else 9}.2f}" for k, value in enumerate(values)))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
