"""What one slow worker costs, by policy: seconds per round, rows lost, losses.

    python scripts/bench_stragglers.py [--lanes 4] [--workers 5] [--seconds 0.5] [--times 10] [--rounds 32] [--json]

Every worker is made to wait `--seconds` before it reads a chunk, one of them `--times` as long, so that what is measured is who
waits for whom and not how many processors there are. `usual` is the time per round with no slow worker, in the same run.
Seconds are of the rounds of all lanes, from the second on: in the first, kernels are loaded.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from workers import Slow  # noqa: E402

from streamsgd.compute.local_cluster import LocalWorkers  # noqa: E402
from streamsgd.settings.make import make_settings  # noqa: E402
from streamsgd.training.run import train_model  # noqa: E402

if TYPE_CHECKING:
    from streamsgd.training.events import Event

CHUNK = 1000


def write_data(path: Path, n_chunks: int) -> Path:
    """Write as many row groups as there are to be chunks."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n_chunks * CHUNK, 6)).astype(np.float32)
    y = (x @ np.arange(1.0, 7.0) + 3.0 * rng.normal(size=len(x)) > 0).astype(int)
    pq.write_table(pa.table({**{f"x{j}": x[:, j] for j in range(6)}, "y": y}), path, row_group_size=CHUNK)
    return path


def measure(data: Path, client: Any, lanes: int, straggler: str) -> dict[str, Any]:
    """Train once; return what the rounds of all lanes took, and what was lost."""
    ends: list[tuple[int, float]] = []

    def emit(event: Event) -> None:
        if event.kind == "chunk":
            ends.append((event.rows, time.monotonic()))

    settings = make_settings(
        {
            "target": "y",
            "epochs": 2,
            "chunk_rows": CHUNK,
            "memory": "2GB",
            "lanes": lanes,
            "optimizer": "adagrad",
            "straggler": straggler,
            "validation": 0.1,
        }
    )
    model, report = train_model(data, settings, client=client, emit=emit)
    n = pq.ParquetFile(data).metadata.num_rows // CHUNK // lanes
    rounds = [after[1] - before[1] for before, after in zip(ends[-n:], ends[-n + 1 :], strict=False)]
    return {
        "mean": mean(rounds),
        "median": median(rounds),
        "worst": max(rounds),
        "rounds": len(rounds),
        "learned": report.rows,
        "lost": model.provenance["counts"]["lost"],
        "loss": model.metrics["held_out"]["loss"],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lanes", type=int, default=4)
    parser.add_argument("--workers", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--times", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=32)
    parser.add_argument("--policies", default="again,wait,drop:1,deadline")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = []
    print(
        f"{'slow':5} {'policy':14} {'s/round':>8} {'vs usual':>8} {'median':>8} {'worst':>7} {'lost rows':>10} {'held-out':>9}"
    )
    with tempfile.TemporaryDirectory() as folder, LocalWorkers(given.workers) as workers:
        data = write_data(Path(folder) / "data.parquet", given.lanes * given.rounds)
        client = workers.client
        client.wait_for_workers(given.workers, timeout=120)
        measure(data, client, given.lanes, "wait")  # loads kernels
        slow = max(client.nthreads())
        usual = None
        for policy in ["none", *given.policies.split(",")]:
            times = {} if policy == "none" else {slow: given.times}
            client.register_plugin(Slow(given.seconds, times))
            named = {"none": "again", "deadline": f"deadline:{3 * given.seconds:g}"}.get(policy, policy)
            one = measure(data, client, given.lanes, named)
            client.unregister_worker_plugin("slow")
            usual = usual or one["mean"]
            found.append({"slow": bool(times), "policy": named, **one, "ratio": one["mean"] / usual})
            print(
                f"{'one' if times else 'none':5} {named:14} {one['mean']:8.3f} {one['mean'] / usual:8.2f} {one['median']:8.3f} "
                f"{one['worst']:7.2f} {one['lost']:8,} {one['loss']:9.5f}",
                flush=True,
            )
    if given.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
