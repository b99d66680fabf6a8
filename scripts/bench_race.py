"""What the race of learning rates costs: a whole run with it, against one learner whose rate is known.

    python scripts/bench_race.py [--rows 10000000] [--repeats 3] [--json]

One pass, default settings but for the optimizer: `race` against `normalized` (what a learner of the race is) and, on dense
rows, `adagrad` in batches of 64 (what the winner becomes). Dense rows have 28 numbers; hashed rows 8 numbers and 12
categories of up to half a million values, 2^22 weights. Runs take turns; shown are medians of the seconds of the whole run,
and how many times as long the race takes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from streamsgd.settings.make import make_settings
from streamsgd.training.run import train_model

STEP = 250_000
CASES: dict[str, tuple[str, ...]] = {"dense": ("race", "normalized", "adagrad"), "hashed": ("race", "normalized")}


def dense(rng: np.random.Generator, n: int) -> pa.Table:
    """Return 28 numbers and a class."""
    x = rng.normal(size=(28, n)).astype(np.float32)
    y = (x[:5].sum(axis=0) + rng.normal(size=n) > 0).astype(np.int8)
    return pa.table({**{f"x{k}": column for k, column in enumerate(x)}, "y": y})


def hashed(rng: np.random.Generator, n: int) -> pa.Table:
    """Return 8 numbers, 12 categories whose values are as frequent as words are, and a class."""
    x = rng.normal(size=(8, n)).astype(np.float32)
    codes = [(rng.random(n) ** 4 * 10 ** (2 + k / 3)).astype(np.int64) for k in range(12)]
    y = (x[0] + 0.5 * (codes[3] % 2) + rng.normal(size=n) > 0.3).astype(np.int8)
    return pa.table({**{f"x{k}": c for k, c in enumerate(x)}, **{f"c{k}": c for k, c in enumerate(codes)}, "y": y})


def write(path: Path, make: Any, n_rows: int) -> None:
    """Write the rows."""
    rng, writer = np.random.default_rng(0), None
    for _ in range(0, n_rows, STEP):
        table = make(rng, STEP)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for kind, optimizers in CASES.items():
            path = Path(scratch) / f"{kind}.parquet"
            write(path, globals()[kind], options.rows)
            more = {"categorical": ["c*"], "bits": 22} if kind == "hashed" else {}
            seconds: dict[str, list[float]] = {name: [] for name in optimizers}
            fits: dict[str, list[float]] = {name: [] for name in optimizers}
            losses: dict[str, float] = {}
            for turn in range(options.repeats + 1):
                for name in optimizers:
                    given = {"target": "y", "optimizer": name, "epochs": 1, "memory": "6GB", "resume": "never", **more}
                    model, report = train_model(path, make_settings(given))
                    if turn:  # the first one compiles
                        seconds[name].append(report.seconds)
                        fits[name].append(report.fit_seconds)
                    losses[name] = model.metrics["progressive_loss"]
            whole = {name: statistics.median(values) for name, values in seconds.items()}
            fit = {name: statistics.median(values) for name, values in fits.items()}
            found[kind] = {"seconds": whole, "fit": fit, "loss": losses}
            for name in optimizers:
                print(
                    f"{kind:7} {name:8} {whole[name]:7.2f} s, fitting {fit[name]:6.2f} s, loss {losses[name]:.5f}; "
                    f"the race takes {whole['race'] / whole[name]:.2f} x as long, its fitting {fit['race'] / fit[name]:.2f} x",
                    flush=True,
                )
            path.unlink()
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
