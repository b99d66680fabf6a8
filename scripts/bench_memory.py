"""The memory contract: peak resident memory of the process tree against --memory, and what a small budget costs in speed.

    python scripts/bench_memory.py [--gigabytes 12] [--memory 1GB] [--cases narrow,wide,huge,tiny] [--json]

Each case makes Parquet of about so many gigabytes (decoded), trains one epoch through the command line with the small
budget and with a large one, and watches the resident memory of all its processes 50 times a second. Prints a table and
one JSON object; exits with 1 if a peak exceeds its budget.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from streamsgd.sizes import parse_bytes


@dataclass(frozen=True)
class Case:
    """A shape of data: columns, and rows per row group."""

    columns: int
    group_rows: int
    about: str


CASES = {
    "narrow": Case(28, 250_000, "28 float32 columns, row groups of 250 k rows"),
    "wide": Case(784, 10_000, "784 float32 columns, row groups of 10 k rows"),
    "huge": Case(28, 5_000_000, "28 float32 columns, row groups of 5 M rows"),
    "tiny": Case(28, 1_000, "28 float32 columns, row groups of 1 k rows"),
}


def make_data(folder: Path, case: Case, n_bytes: int) -> int:
    """Write random rows of a linear logistic model, a file of about 1 GB at a time; return the number of rows."""
    rows = max(case.group_rows, n_bytes // (4 * case.columns))
    weights = np.random.default_rng(0).standard_normal(case.columns).astype(np.float32) / case.columns**0.5
    per_file = max(case.group_rows, (1 << 30) // (4 * case.columns) // case.group_rows * case.group_rows)
    written = 0
    while written < rows:
        n, writer = min(per_file, rows - written), None
        path = folder / f"part-{written // per_file:05d}.parquet"
        for at in range(0, n, case.group_rows):
            table = random_rows(min(case.group_rows, n - at), weights, [written, at])
            writer = writer or pq.ParquetWriter(path, table.schema, compression="snappy", use_dictionary=False)
            writer.write_table(table, row_group_size=case.group_rows)
        writer.close()
        written += n
    return rows


def random_rows(n: int, weights: np.ndarray, seed: list[int]) -> pa.Table:
    """Return n rows: features x000 ... and a binary target y."""
    rng = np.random.default_rng(seed)
    columns = [rng.standard_normal(n, dtype=np.float32) for _ in weights]
    score = sum(w * x for w, x in zip(weights, columns, strict=True))
    y = (rng.random(n) < 1 / (1 + np.exp(-score))).astype(np.int8)
    return pa.table({"y": y, **{f"x{j:03d}": column for j, column in enumerate(columns)}})


def watch(command: list[str]) -> tuple[float, int, dict]:
    """Run a command; return its seconds, the peak of the summed resident memory of its processes, and its last line."""
    began = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process, peak = psutil.Process(child.pid), 0
    while child.poll() is None:
        peak = max(peak, tree_bytes(process))
        time.sleep(0.02)
    out, err = child.communicate()
    if child.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{err}")
    return time.perf_counter() - began, peak, json.loads(out.splitlines()[-1])


def tree_bytes(process: psutil.Process) -> int:
    """Return the resident bytes of a process and its descendants."""
    total = 0
    try:
        for one in [process, *process.children(recursive=True)]:
            total += one.memory_info().rss
    except psutil.Error:
        pass
    return total


def measure(name: str, n_bytes: int, memory: str, large: str, scratch: Path) -> dict:
    """Make the data of a case and train with both budgets."""
    folder = scratch / name
    folder.mkdir()
    rows = make_data(folder, CASES[name], n_bytes)
    result: dict = {"case": CASES[name].about, "rows": rows}
    for label, budget in (("small", memory), ("large", large)):
        command = [sys.executable, "-m", "streamsgd", "train", str(folder), "--target", "y", "--epochs", "1"]
        command += ["--memory", budget, "--batch-size", "256", "--quiet", "-o", str(scratch / f"{name}.sgd")]
        seconds, peak, _ = watch(command)
        result[label] = {"budget": parse_bytes(budget), "peak": peak, "seconds": seconds, "rows_per_second": rows / seconds}
    for path in folder.glob("*.parquet"):
        path.unlink()
    return result


def main() -> int:
    """Measure every case and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=12.0)
    parser.add_argument("--memory", default="1GB")
    parser.add_argument("--large", default="16GB")
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--scratch", type=Path, help="where to make the data")
    arguments = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        for name in arguments.cases.split(","):
            results.append(measure(name, int(arguments.gigabytes * 1e9), arguments.memory, arguments.large, Path(scratch)))
            show(results[-1])
    print(json.dumps(results))
    return int(any(run["peak"] > run["budget"] for result in results for run in (result["small"], result["large"])))


def show(result: dict) -> None:
    """Print one case."""
    small, large = result["small"], result["large"]
    print(f"{result['case']}, {result['rows']:,} rows")
    for run in (small, large):
        print(
            f"  budget {run['budget'] / 1e9:6.2f} GB  peak {run['peak'] / 1e9:6.3f} GB  "
            f"{run['seconds']:7.1f} s  {run['rows_per_second'] / 1e6:6.2f} M rows/s"
        )
    print(f"  speed with the small budget / large: {large['seconds'] / small['seconds']:.2f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
