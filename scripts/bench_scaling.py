"""How far lanes scale: worker processes on this machine, and a model of clusters that this machine does not have.

    python scripts/bench_scaling.py [--rows 8000000] [--workers 1,2] [--lanes 4] [--simulate 100,1000] [--seconds 1.0] [--json]

1. Training on data that is bound by decoding, with 1 and 2 worker processes of one thread: rows/s, and the ratio.
2. What a round costs apart from the work of the lanes: processor time of the driver, which holds the scheduler too, by task;
   bytes that lanes send. From these, the seconds of a round of V lanes on as many workers:

       round = task + tasks(V) * driver + depth(V) * hop          tasks(V) = V + those of the tree that adds up

3. The same for as many simulated workers: threads of a few processes whose tasks sleep for `--seconds` instead of learning, all
   in flight at once. Everything else is real: the scheduler, the tree, the gains.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from streamsgd.data.timings import Timings
from streamsgd.planning.stragglers import Straggler
from streamsgd.planning.tree import FAN
from streamsgd.settings.make import make_settings
from streamsgd.training.backends.dask import DaskBackend
from streamsgd.training.prepare import prepare
from streamsgd.training.run import train_model
from streamsgd.training.tasks.base import ChunkReport, Round
from streamsgd.training.tasks.merge import Delta

if TYPE_CHECKING:
    from streamsgd.stream.chunk import LoadedChunk
    from streamsgd.training.job import Job

COLUMNS = 28
CHUNK_ROWS = 500_000
"""A few tenths of a second of work, as lanes of large data have."""

PROCESSES = 4
"""That simulate workers."""


def write(path: Path, n_rows: int) -> None:
    """Write rows that take longer to decode than to learn: compressed, of columns that compress."""
    rng = np.random.default_rng(0)
    step = 250_000
    with pq.ParquetWriter(path, schema(), compression="zstd") as writer:
        for first in range(0, n_rows, step):
            n = min(step, n_rows - first)
            x = np.round(rng.normal(size=(COLUMNS, n)) * 64) / 64
            y = (x[:4].sum(axis=0) + rng.normal(size=n) > 0).astype(np.int64)
            writer.write_table(pa.table([*x.astype(np.float32), y], schema=schema()), row_group_size=step // 4)


def schema() -> pa.Schema:
    """Return the columns."""
    return pa.schema([*((f"x{k}", pa.float32()) for k in range(COLUMNS)), ("y", pa.int64())])


def measured(path: Path, lanes: int, workers: int) -> dict[str, float]:
    """Train with worker processes; return the speed of the second epoch, kernels and files being warm."""
    marks: list[tuple[float, int]] = []
    cpu: list[float] = []

    def emit(event: Any) -> None:
        if event.kind == "chunk":
            marks.append((event.seconds, event.rows))
            cpu.append(time.process_time())

    settings = {"target": "y", "lanes": lanes, "workers": workers, "epochs": 3, "memory": "3GB", "optimizer": "adam"}
    settings |= {"chunk_rows": CHUNK_ROWS}
    _, report = train_model(path, make_settings({**settings, "resume": "never"}), emit=emit)
    total = report.rows // 3
    start = next(k for k, (_, rows) in enumerate(marks) if rows >= total)
    seconds, rows = marks[-1][0] - marks[start][0], marks[-1][1] - marks[start][1]
    rounds = len(marks) - 1 - start
    sent = sum(work.bytes_sent for work in report.workers.values())
    n_lanes = sum(work.lanes for work in report.workers.values())
    return {
        "rows_per_second": rows / seconds,
        "seconds_per_round": seconds / rounds,
        "driver_per_round": (cpu[-1] - cpu[start]) / rounds,
        "bytes_per_lane": sent / n_lanes,
    }


# --- clusters that are not there


class Sleep:
    """A task that sleeps, then brings a delta of as many weights as the job has, without reading anything."""

    name, exact, nbytes = "sleep", False, 0

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def open(self, job: Job) -> Any:
        """Return what sleeps."""
        return partial(self._sleep, job)

    def _sleep(self, job: Job, filled: LoadedChunk) -> tuple[Delta, ChunkReport]:
        time.sleep(self.seconds)
        n = job.n_weights
        delta = Delta(1, np.zeros(3), None, np.zeros(0), np.zeros((3, n)), np.zeros((0, n)), np.zeros(4), np.zeros(2))
        return delta, ChunkReport(filled.chunk, [], Timings(), rows=1)


def simulated(path: Path, n: int, seconds: float, rounds: int) -> dict[str, float]:
    """Let n workers that sleep do some rounds; return what a round took."""
    from distributed import Client, LocalCluster

    job = prepare(path, make_settings({"target": "y", "lanes": n, "memory": "4TB", "chunk_rows": 200, "optimizer": "adam"}))
    assert job.plan.n_chunks(0) >= n, "the data has too few chunks"
    threads = -(-n // PROCESSES)
    with (
        LocalCluster(
            n_workers=PROCESSES,
            threads_per_worker=threads,
            processes=True,
            dashboard_address=None,
            memory_limit=0,
            silence_logs=logging.ERROR,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        backend = DaskBackend(job, client, Straggler())
        backend.run(Round(Sleep(0.01), 0, 0, n))  # the workers meet the job
        began, cpu = time.perf_counter(), time.process_time()
        for _ in range(rounds):
            backend.run(Round(Sleep(seconds), 0, 0, n))
        took, spent = (time.perf_counter() - began) / rounds, (time.process_time() - cpu) / rounds
        backend.close()
    return {"workers": n, "seconds_per_round": took, "driver_per_round": spent, "efficiency": seconds / took}


def tasks(n: int) -> int:
    """Return the tasks of a round of n lanes, those of the tree included."""
    total = n
    while n > 1:
        n = -(-n // FAN)
        total += n
    return total


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=8_000_000)
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--lanes", type=int, default=4)
    parser.add_argument("--simulate", default="100,1000")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found: dict[str, Any] = {"cores": os.cpu_count()}
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "rows.parquet"
        write(path, options.rows)
        one = 0.0
        for workers in [int(text) for text in options.workers.split(",") if text]:
            found[f"workers {workers}"] = got = measured(path, options.lanes, workers)
            one = one or got["rows_per_second"]
            print(
                f"{workers} workers: {got['rows_per_second']:12,.0f} rows/s, x {got['rows_per_second'] / one:.2f}; a round "
                f"{got['seconds_per_round']:.3f} s, of which driver {1e3 * got['driver_per_round']:.1f} ms of processor time; "
                f"{got['bytes_per_lane']:,.0f} bytes per lane",
                flush=True,
            )
        small = Path(scratch) / "small.parquet"
        write(small, 250_000)
        counts = [int(text) for text in options.simulate.split(",") if text]
        base = None
        for n in counts:
            found[f"simulated {n}"] = got = simulated(small, n, options.seconds, options.rounds)
            base = base or got
            per_task = base["driver_per_round"] / tasks(base["workers"])
            hop = max(0.0, base["seconds_per_round"] - options.seconds - base["driver_per_round"])
            depth = math.ceil(math.log(max(n, 2), FAN)) / math.ceil(math.log(max(base["workers"], 2), FAN))
            model = options.seconds + tasks(n) * per_task + hop * depth
            got["model"] = model
            print(
                f"{n:5} simulated workers, {options.seconds:g} s of work: {tasks(n)} tasks, a round "
                f"{got['seconds_per_round']:.3f} s (model {model:.3f}), driver {got['driver_per_round']:.3f} s, "
                f"efficiency {100 * got['efficiency']:.0f} %",
                flush=True,
            )
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
