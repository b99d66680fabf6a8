"""What a run costs before its first row: help, kernels cold and warm, and the plan of a million row groups.

    python scripts/bench_start.py [--row-groups 1000000]

Prints a table and, as the last line, JSON. The kernel cache is an empty folder of its own at first.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

TRAIN = """
import json, sys, time
import dask, distributed, numba, pyarrow.parquet
from streamsgd.settings.make import make_settings
from streamsgd.training.run import train_model
settings = make_settings({"target": "y", "epochs": 1, "memory": "1GB"})
began = time.perf_counter()
_, report = train_model(sys.argv[1], settings)
print(json.dumps({"seconds": time.perf_counter() - began, "compile": report.compile_seconds}))
"""

PLAN = """
import json, resource, sys, time
from streamsgd.training.prepare import prepare
from streamsgd.settings.make import make_settings
settings = make_settings({"target": "y", "memory": "2GB"})
import pyarrow.parquet, dask.system
from streamsgd.data.dataset import read_dataset
began = time.perf_counter()
dataset = read_dataset(sys.argv[1])
footers = time.perf_counter() - began
job = prepare(sys.argv[1], settings)
seconds = time.perf_counter() - began - footers
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"row_groups": dataset.n_row_groups, "footers": footers, "all": seconds, "peak": peak}))
"""


def run(code: str, *arguments: str, **variables: str) -> dict:
    """Run Python code in a new process and return its JSON."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def seconds_of_help() -> float:
    """Return the median wall seconds of `streamsgd train --help`."""
    times = []
    for _ in range(7):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "streamsgd", "train", "--help"], capture_output=True, check=True)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def write_row_groups(folder: Path, n: int) -> None:
    """Write files of a thousand row groups of two rows, all alike."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    per_file = min(n, 1000)
    table = pa.table({**{f"x{j}": rng.normal(size=2 * per_file) for j in range(4)}, "y": rng.normal(size=2 * per_file)})
    first = folder / "0000000.parquet"
    pq.write_table(table, first, row_group_size=2)
    for k in range(1, n // per_file):
        shutil.copyfile(first, folder / f"{k:07}.parquet")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--row-groups", type=int, default=1_000_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        small, large, cache = Path(scratch, "small"), Path(scratch, "large"), str(Path(scratch, "cache"))
        write_row_groups(small, 100)
        cold, warm = (run(TRAIN, str(small), NUMBA_CACHE_DIR=cache) for _ in range(2))
        result = {
            "help_seconds": seconds_of_help(),
            "cold_train_seconds": cold["seconds"],
            "cold_compile_seconds": cold["compile"],
        }
        result |= {"warm_train_seconds": warm["seconds"], "warm_compile_seconds": warm["compile"]}
        write_row_groups(large, arguments.row_groups)
        plan = run(PLAN, str(large))
        result |= {f"plan_{key}": value for key, value in plan.items()}
    print(f"--help                                      {result['help_seconds']:6.2f} s")
    print(f"first training, empty kernel cache          {cold['seconds']:6.2f} s, of which compiling {cold['compile']:.2f} s")
    print(f"first training of a process, kernels kept   {warm['seconds']:6.2f} s")
    print(f"footers of {plan['row_groups']:,} row groups        {plan['footers']:6.2f} s")
    print(f"the whole plan, footers again               {plan['all']:6.2f} s, peak memory {plan['peak'] / 1e6:.0f} MB")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
