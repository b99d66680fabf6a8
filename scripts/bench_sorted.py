"""Do sorted rows train to what shuffled ones do? Row groups x memory x passes, each against the same rows in random order.

    python scripts/bench_sorted.py [--rows 400000] [--groups 8,32,256] [--memory 600MB,1GB] [--passes 1,2] [--chunk-rows 40000]

Rows of 28 float32 columns, a logistic label, written sorted by it. Printed: the log loss on all rows of the default and of
`--shuffle corgi` (chunks of row groups as they are), in percent above that of a run over shuffled rows, and seconds. Rows that
fit into one chunk show nothing: `--chunk-rows` of a tenth is as of ten times the rows. `--least` is what the default may be
above shuffled rows, in percent; the script exits with 1 beyond it. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import streamsgd

WIDTH = 28


def write(folder: Path, n_rows: int, groups: list[int]) -> None:
    """Write the rows in random order, and sorted in so many row groups."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(n_rows, WIDTH)).astype(np.float32)
    y = (rng.random(n_rows) < 1.0 / (1.0 + np.exp(-x[:, :10].sum(axis=1) / 2.0))).astype(np.int32)
    order = np.argsort(y, kind="stable")
    shuffled = pa.table({**{f"x{j}": x[:, j] for j in range(WIDTH)}, "y": y})
    pq.write_table(shuffled, folder / "shuffled.parquet", row_group_size=min(n_rows // 32, 1 << 17))
    for n in groups:
        pq.write_table(shuffled.take(pa.array(order)), folder / f"sorted{n}.parquet", row_group_size=-(-n_rows // n))


def measure(path: Path, judged: Path, **settings: Any) -> dict[str, Any]:
    """Train, and return the log loss on all rows, seconds, and how rows were shuffled."""
    began = time.perf_counter()
    model = streamsgd.train(path, "y", **settings)
    seconds = time.perf_counter() - began
    found = streamsgd.evaluate(model, judged, memory=settings["memory"])
    return {"loss": found["log_loss"], "seconds": seconds, "shuffle": model.provenance["shuffle"]}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--groups", default="8,32,256")
    parser.add_argument("--memory", default="600MB,1GB")
    parser.add_argument("--passes", default="1,2")
    parser.add_argument("--chunk-rows", type=int)
    parser.add_argument("--least", type=float, default=0.5)
    given = parser.parse_args()
    groups, results = [int(n) for n in given.groups.split(",")], []
    logging.getLogger("streamsgd").setLevel(logging.ERROR)
    print(f"{'groups':>6} {'memory':>7} {'passes':>6} {'shuffled':>9} {'default':>9} {'corgi':>9} {'seconds':>23}  how")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, given.rows, groups)
        judged = folder / "shuffled.parquet"
        for memory in given.memory.split(","):
            for passes in [int(n) for n in given.passes.split(",")]:
                usual = {"memory": memory, "epochs": passes, "chunk_rows": given.chunk_rows}
                truth = measure(judged, judged, **usual)
                for n in groups:
                    path = folder / f"sorted{n}.parquet"
                    mine, apart = measure(path, judged, **usual), measure(path, judged, **usual, shuffle="corgi")
                    above = [100.0 * (one["loss"] / truth["loss"] - 1.0) for one in (mine, apart)]
                    seconds = [one["seconds"] for one in (truth, mine, apart)]
                    print(
                        f"{n:>6} {memory:>7} {passes:>6} {truth['loss']:>9.5f} {above[0]:>8.2f}% {above[1]:>8.2f}% "
                        f"{seconds[0]:>7.2f} {seconds[1]:>7.2f} {seconds[2]:>7.2f}  {mine['shuffle']}"
                    )
                    results.append(
                        {"groups": n, "memory": memory, "passes": passes, "default": above[0], "corgi": above[1]}
                        | {"seconds": seconds, "shuffle": mine["shuffle"]}
                    )
    print(json.dumps({"rows": given.rows, "results": results}))
    if max(one["default"] for one in results) > given.least:
        sys.exit(1)


if __name__ == "__main__":
    main()
