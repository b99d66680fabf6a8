"""Is what a run reports of rows held out what it does on new rows? Over the tables of `bench_defaults.py`, by several seeds.

    python scripts/bench_honest.py [--data DIR] [--only adult;bank] [--rows 20000] [--seeds 5]

For each seed a table is shuffled and a fifth set apart as new rows; the rest is trained on with the defaults, which hold a
twentieth out. Printed is by how many standard errors of the difference the loss on rows held out is above that on new rows. If
both are drawn alike, these numbers are of mean 0 and deviation 1: the last column is what their mean is in its own standard
errors, beyond 2 in one table of twenty by chance.
"""

from __future__ import annotations

import argparse
import json
import math
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

BENCH = runpy.run_path(str(Path(__file__).with_name("bench_defaults.py")))


def offs(problem: Any, data: Path, rows: int, seeds: int) -> list[float]:
    """Return how far the report is from new rows, by seed; nothing where no rows were held out."""
    table, found = problem.make(data), []
    for seed in range(seeds):
        some = table.take(pa.array(np.random.default_rng([1, seed]).permutation(len(table))[:rows]))
        learned, judged = BENCH["divided"](some, BENCH["HELD_OUT"], seed)
        mine = BENCH["ours"](learned, judged, problem.target, {})
        found += [mine["off"]] if mine["told_by"] == "held out" else []
    return found


def line(name: str, found: list[float]) -> str:
    """Return a row of the table."""
    if not found:
        return f"| {name} | nothing is held out | | |"
    mean, beyond = sum(found) / len(found), sum(abs(off) > 2.0 for off in found)
    told = " ".join(f"{off:+.1f}" for off in found)
    return f"| {name} | {told} | {beyond} of {len(found)} | {mean * math.sqrt(len(found)):+.1f} |"


def main() -> None:
    """Measure all, print as it goes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=BENCH["SHARED"], help="folder of the raw files (default: %(default)s)")
    parser.add_argument("--only", default="", help="names of tables, or how they begin, by semicolon")
    parser.add_argument("--rows", type=int, default=20_000, help="of a table, at most (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=5, help="(default: %(default)s)")
    given = parser.parse_args()
    results = {}
    print("| table | off by, in standard errors | beyond 2 | mean |\n|---|---|---|---|")
    for problem in (p for p in BENCH["PROBLEMS"] if p.name.startswith(tuple(given.only.split(";")))):
        results[problem.name] = offs(problem, given.data, given.rows, given.seeds)
        print(line(problem.name, results[problem.name]), flush=True)
    everything = [off for found in results.values() for off in found]
    if everything:
        print(f"deviation of all {len(everything)}: {math.sqrt(float(np.square(everything).mean())):.2f}")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
