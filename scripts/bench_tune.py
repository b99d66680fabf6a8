"""What many configurations of one decode cost, against one run alone.

    python scripts/bench_tune.py [--rows 8000000] [--folder DIR] [--repeat 3] [--small] [--json]

28 float32 columns (datasets/synthetic.py), logistic, batches of 256 by Adam, one pass, nothing held out, 2 threads. `one` is a
run alone; `twenty` are twenty rates and penalties in one decode; `hundred` a hundred of them of which one in three goes on
after each comparison. Seconds are by the wall and of the processor, of whole calls with the first look, least of the repeats,
in turn; read the ratios. Of the twenty, the first and the last model must be the bytes of their solo runs, else the script
exits with 1, and so must the best of the hundred.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import streamsgd

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[1]
COMMON: dict[str, Any] = {
    "optimizer": "adam",
    "batch_size": 256,
    "epochs": 1,
    "validation": 0.0,
    "memory": "2GB",
    "threads": 2,
}


def grid(n: int) -> dict[str, list[Any]]:
    """Return n combinations: five penalties, and rates."""
    penalties = ["none", *(f"l2:l2={10.0**-k}" for k in range(3, 7))]
    return {"learning_rate": [float(f"{rate:.3g}") for rate in np.geomspace(1e-4, 0.3, n // 5)], "penalty": penalties}


def measured(run: Callable[[], Any]) -> tuple[float, float, Any]:
    """Return seconds by the wall and of the processor, and what came out."""
    began = time.perf_counter(), time.process_time()
    found = run()
    return time.perf_counter() - began[0], time.process_time() - began[1], found


def each_of(some: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Return the combinations."""
    return [{"learning_rate": rate, "penalty": penalty} for rate in some["learning_rate"] for penalty in some["penalty"]]


def compare(path: Path, sizes: tuple[int, int], repeat: int) -> dict[str, Any]:
    """Measure all three in turn, and compare bytes."""
    few, many = grid(sizes[0]), grid(sizes[1])
    each = each_of(few)
    wall, cpu = defaultdict[str, list[float]](list), defaultdict[str, list[float]](list)
    cases: dict[str, Callable[[], Any]] = {
        "one": lambda: streamsgd.train(path, "y", **COMMON, **each[0]),
        "twenty": lambda: streamsgd.train_many(path, "y", each, **COMMON),
        "hundred": lambda: streamsgd.tune(path, "y", many, halving=3, **COMMON),
    }
    found: dict[str, Any] = {}
    streamsgd.train(path, "y", **COMMON, **each[1])  # compiles with a penalty; the first run compiles without
    for _ in range(repeat):
        for name, run in cases.items():
            seconds, of_processor, found[name] = measured(run)
            wall[name].append(seconds)
            cpu[name].append(of_processor)
    best = found["hundred"]
    last = streamsgd.train(path, "y", **COMMON, **each[-1])
    again = streamsgd.train(path, "y", **COMMON, **best.settings)
    same = [
        found["twenty"][0].to_bytes() == found["one"].to_bytes(),
        found["twenty"][-1].to_bytes() == last.to_bytes(),
        best.model.to_bytes() == again.to_bytes(),
    ]
    return {
        "configurations": {"one": 1, "twenty": len(each), "hundred": len(each_of(many))},
        "wall": {name: min(seconds) for name, seconds in wall.items()},
        "cpu": {name: min(seconds) for name, seconds in cpu.items()},
        "ratio": {name: min(seconds) / min(wall["one"]) for name, seconds in wall.items()},
        "best": best.settings,
        "rows_learned": sum(line["rows"] for line in best.table),
        "same": same,
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=8_000_000)
    parser.add_argument("--folder", type=Path, help="where the table is made, or was")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="40,000 rows, 5 and 10 configurations, once")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    COMMON.update({"chunk_rows": 4000} if options.small else {})
    rows, sizes, repeat = (40_000, (5, 10), 1) if options.small else (options.rows, (20, 100), options.repeat)
    with tempfile.TemporaryDirectory() as scratch:
        folder = (options.folder or Path(scratch)) / f"dense-{rows}"
        if not folder.exists():
            command = [sys.executable, str(ROOT / "datasets/synthetic.py"), str(folder), "--rows", str(rows), "--columns", "28"]
            subprocess.run([*command, "--files", "4"], check=True, stdout=subprocess.DEVNULL)
        found = compare(folder, sizes, repeat)
    for name, n in found["configurations"].items():
        print(
            f"{name:>8} {n:4d} configurations: {found['wall'][name]:7.2f} s, {found['cpu'][name]:7.2f} s of processors, "
            f"{found['ratio'][name]:5.2f} x one"
        )
    passes = found["rows_learned"] / rows
    print(f"the hundred learned {passes:.1f} passes in all; best {found['best']}; same bytes {found['same']}")
    if options.json or options.small:
        print(json.dumps(found))
    return 0 if all(found["same"]) else 1


if __name__ == "__main__":
    sys.exit(main())
