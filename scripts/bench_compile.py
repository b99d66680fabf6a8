"""What compiling costs: the first run of a machine, by combination of loss, optimizer and rows.

    python scripts/bench_compile.py [--cases "default;adam, dense"] [--repeat 1]

Each run is a process of its own, first with an empty kernel cache, then with the one that it filled. Seconds are of
training or predicting alone, without imports: of CPU, which other work on the machine changes little, and of the wall.
Prints a table and, as the last line, JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROWS = 140_000
"""Enough for a race to end and its best learner to go on."""

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "default, dense, two classes": ("binary", {}),
    "default, dense, a number": ("number", {}),
    "default, dense, three classes": ("classes", {}),
    "default, categories and texts": ("lists", {}),
    "adam, dense": ("binary", {"optimizer": "adam"}),
    "adam, dense, held-out rows": ("binary", {"optimizer": "adam", "validation": 0.1}),
    "adam, categories and texts, l2": ("lists", {"optimizer": "adam", "penalty": "l2"}),
    "nag, dense": ("binary", {"optimizer": "normalized"}),
    "nag, categories and texts": ("lists", {"optimizer": "normalized"}),
    "coin, categories and texts": ("lists", {"optimizer": "coin"}),
    "ftrl, categories and texts": ("lists", {"optimizer": "ftrl"}),
    "adam, dense, polished": ("binary", {"optimizer": "adam", "penalty": "l2", "polish": 5}),
    "predict, dense": ("predict", {}),
}

RUN = """
import json, resource, sys, time
import dask, distributed, numba, pyarrow.parquet
import streamsgd
from streamsgd.kernels.compile.jit import CompileClock, loaded_kernels
from streamsgd.settings.make import make_settings
from streamsgd.training.run import train_model

def cpu():
    each = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in each)

folder, name, settings = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
began, used = time.perf_counter(), cpu()
with CompileClock() as clock:
    if name == "predict":
        streamsgd.load(f"{folder}/model").predict(f"{folder}/binary.parquet")
    else:
        common = {"target": "y", "epochs": 1, "memory": "1GB"}
        model, _ = train_model(f"{folder}/{name}.parquet", make_settings({**common, **settings}))
found = {"wall": time.perf_counter() - began, "cpu": cpu() - used, "compile": clock.seconds}
found |= {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "kernels": loaded_kernels()}
if name == "binary" and not settings:
    model.save(f"{folder}/model")
print(json.dumps(found))
"""


def write_data(folder: Path) -> None:
    """Write four tables of one random matrix."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 8)).astype(np.float32)
    number = x.sum(axis=1) + rng.normal(size=ROWS)
    words = [f"w{k}" for k in range(300)]
    texts = [" ".join(words[k] for k in row) for row in rng.integers(0, 300, (ROWS, 4)).tolist()]
    lists = {"c": [f"c{k}" for k in rng.integers(0, 5000, ROWS).tolist()], "t": texts}
    three = np.array(["a", "b", "c"])[np.digitize(number, [-2, 2])]
    targets = {"binary": (number > 0).astype(np.int8), "number": number, "classes": three}
    targets["lists"] = targets["binary"]
    for name, y in targets.items():
        own = lists if name == "lists" else {}
        table = pa.table({**{f"x{j}": x[:, j] for j in range(8)}, **own, "y": y})
        pq.write_table(table, folder / f"{name}.parquet", row_group_size=20_000)


def run(folder: Path, cache: Path, case: str) -> dict[str, Any]:
    """Run a case in a new process."""
    name, settings = CASES[case]
    command = [sys.executable, "-c", RUN, str(folder), name, json.dumps(settings)]
    done = subprocess.run(
        command, env={**os.environ, "NUMBA_CACHE_DIR": str(cache)}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(folder: Path, case: str, repeat: int) -> dict[str, Any]:
    """Return medians of the cold runs, and of one warm run after each."""
    cold, warm = [], []
    for k in range(repeat):
        cache = folder / f"cache-{len(list(folder.iterdir()))}-{k}"
        cold.append(run(folder, cache, case))
        warm.append(run(folder, cache, case))
    median = {f"{when}_{key}": statistics.median(one[key] for one in runs)
              for when, runs in (("cold", cold), ("warm", warm)) for key in ("wall", "cpu", "compile", "peak")}  # fmt: skip
    return {**median, "kernels": cold[0]["kernels"]}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", help="parts of the names of cases, separated by semicolons; all if not given")
    parser.add_argument("--repeat", type=int, default=1)
    arguments = parser.parse_args()
    asked = arguments.cases.split(";") if arguments.cases else [""]
    cases = [case for case in CASES if any(part in case for part in asked)]
    results = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_data(folder)
        if "predict, dense" in cases:
            run(folder, folder / "cache-of-the-model", "default, dense, two classes")
        print("| run | kernels | compiling, s of CPU | cold, s of CPU | wall | warm, s of CPU | wall |")
        print("|---|---|---|---|---|---|---|")
        for case in cases:
            found = results[case] = measure(folder, case, arguments.repeat)
            found["compiling_cpu"] = found["cold_cpu"] - found["warm_cpu"]
            keys = ("compiling_cpu", "cold_cpu", "cold_wall", "warm_cpu", "warm_wall")
            numbers = " | ".join(f"{found[key]:.2f}" for key in keys)
            print(f"| {case} | {sum(found['kernels'].values())} | {numbers} |", flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
