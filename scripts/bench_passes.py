"""Passes after the first: from encoded rows in memory, and on a local disk, against a pass that reads and encodes the data.

    python scripts/bench_passes.py [--rows 8000000] [--click-rows 2000000] [--repeat 3] [--folder DIR] [--small]

`dense` is 28 float32 columns in row groups of 250 k, `clicks` the 13 numbers and 26 texts of datasets/criteo.py at 2^22 hashed
values. Three tables, with 2 threads:

* *blocks*: a pass of shuffled blocks that nobody learns from. `data` reads and encodes, `fills memory` and `fills disk` keep
  what they encode, `memory` and `disk` take it from there.
* *passes*: one pass that learns, after the first of a run of three epochs: from the data, and from memory.
* *runs*: whole runs by the command line, of one epoch, and of three with and without a cache.

The blocks of all kinds of passes, and the models of all runs of three epochs, must be the same bytes; else the script exits
with 1. Before the tables stands what memory costs here that was never touched, which a virtual machine may have to ask its host
for. Prints tables and, as the last line, JSON with seconds by the wall and of the processor. Figures on a shared machine are
noisy: read the ratios, which are of medians of runs taken in turn. The disk is read from what the system keeps of it in memory.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from streamsgd.compute.executors import Threads
from streamsgd.model.read import load
from streamsgd.settings.make import make_settings
from streamsgd.stream.cache import CacheSpec, RowCache
from streamsgd.stream.stream import Stream
from streamsgd.training.prepare import prepare
from streamsgd.training.run import train_model

if TYPE_CHECKING:
    from streamsgd.training.job import Job

ROOT = Path(__file__).resolve().parents[1]
THREADS = 2
SETTINGS = {
    "dense": {"target": "y", "batch_size": 256, "memory": "4GB", "threads": THREADS},
    "clicks": {"target": "label", "bits": 22, "memory": "8GB", "threads": THREADS, "optimizer": "normalized"},
}


def make_dense(folder: Path, rows: int) -> None:
    """Write 28 columns of float32."""
    command = [sys.executable, str(ROOT / "datasets/synthetic.py"), str(folder), "--rows", str(rows), "--columns", "28"]
    subprocess.run([*command, "--files", "4"], check=True, stdout=subprocess.DEVNULL)


def make_clicks(folder: Path, rows: int) -> None:
    """Write a click log."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(ROOT / "datasets/criteo.py"), str(folder / "clicks.parquet"), "--rows", str(rows)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


class Clock:
    """Seconds by the wall and of the processor, summed over threads."""

    def __init__(self) -> None:
        self.began = time.perf_counter(), time.process_time()

    def now(self) -> np.ndarray:
        """Return both since the beginning, float64 (2,)."""
        return np.array([time.perf_counter(), time.process_time()]) - self.began


def medians(seconds: dict[str, list[np.ndarray]]) -> dict[str, list[float]]:
    """Return the medians by kind."""
    return {name: np.median(values, axis=0).tolist() for name, values in seconds.items()}


def fresh_memory() -> float:
    """Return the processor seconds that a gigabyte takes which is touched for the first time."""
    clock, blocks = Clock(), []
    for _ in range(32):
        blocks.append(np.empty(1 << 22))
        blocks[-1][:: 1 << 9] = 1.0
    return float(clock.now()[1] / 2**30 * 1e9)


# --- blocks


def pass_of_blocks(stream: Stream, epoch: int, *, check: bool) -> tuple[np.ndarray, str]:
    """Return the seconds of a pass whose blocks are dropped, and, if asked for, the digest of their rows."""
    digest, clock = hashlib.sha256(), Clock()
    for filled in stream.chunks(epoch, 0, epoch + 1):
        if check:
            digest.update(filled.block.rows.values[: len(filled.order)])
            digest.update(filled.order)
    return clock.now(), digest.hexdigest()


def measure_blocks(job: Job, folder: Path, repeat: int) -> dict[str, list[float]]:
    """Return median seconds of passes of blocks; exit if their bytes differ.

    One stream gives all of them, as in a run: its two blocks were touched before.
    """
    seconds: dict[str, list[np.ndarray]] = defaultdict(list)
    executor = Threads(THREADS)
    stream = Stream(replace(job.recipe, cache=None), job.plan, executor)
    for k in range(repeat + 1):  # the first time warms up, and compares
        memory = RowCache(CacheSpec("memory", 1 << 40))
        disk = RowCache(CacheSpec("disk", 0, on_disk=True, folder=str(folder)))
        kinds = {"data": None, "fills memory": memory, "memory": memory, "fills disk": disk, "disk": disk}
        digests = set()
        for name, cache in kinds.items():
            if name == "fills disk":
                memory.close()
            stream.recipe.cache = cache
            found, digest = pass_of_blocks(stream, 0, check=not k)
            digests.add(digest)
            if k:
                seconds[name].append(found)
        disk.close()
        if len(digests) > 1:
            raise SystemExit("blocks differ")
    executor.close()
    return medians(seconds)


# --- passes and runs


def measure_passes(data: Path, settings: dict[str, Any], repeat: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Return seconds of passes that learn, and where the time of a run with rows in memory went."""
    seconds: dict[str, list[np.ndarray]] = defaultdict(list)
    spent: dict[str, float] = {}
    for _ in range(repeat):
        for cache in ("none", "memory"):
            clock, ends = Clock(), list[np.ndarray]()

            def note(event: Any, clock: Clock = clock, ends: list[np.ndarray] = ends) -> None:
                if event.kind == "chunk" and event.epoch > len(ends) + 1 - 1e-9:
                    ends.append(clock.now())

            made = make_settings({**settings, "epochs": 3, "cache": cache})
            _, report = train_model(str(data), made, emit=note)
            later = (ends[-1] - ends[0]) / (len(ends) - 1)
            seconds["data" if cache == "none" else "memory"].append(later)
            spent = {"fit": report.fit_seconds, "wait": report.wait_seconds, **vars(report.spent)}
    return medians(seconds), spent


def run(data: Path, out: Path, settings: dict[str, Any], **more: Any) -> tuple[np.ndarray, bytes]:
    """Return the seconds of a run by the command line, and the bytes of its weights."""
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in {**settings, **more}.items()]
    began, before = time.perf_counter(), os.times()
    command = [sys.executable, "-m", "streamsgd", "train", str(data), *flags, "--resume", "never", "-o", str(out)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return np.array([time.perf_counter() - began, cpu]), load(out).weights.tobytes()


def measure_runs(data: Path, scratch: Path, settings: dict[str, Any], repeat: int) -> dict[str, list[float]]:
    """Return median seconds of whole runs; exit if models of three epochs differ."""
    kinds: dict[str, dict[str, Any]] = {
        "one epoch": {"epochs": 1},
        "three, no cache": {"epochs": 3, "cache": "none"},
        "three, memory": {"epochs": 3, "cache": "memory"},
        "three, disk": {"epochs": 3, "cache": "disk", "cache_dir": str(scratch / "cache")},
    }
    seconds: dict[str, list[np.ndarray]] = defaultdict(list)
    for _ in range(repeat):
        models = {}
        for name, more in kinds.items():
            found, models[name] = run(data, scratch / "model.sgd", settings, **more)
            seconds[name].append(found)
        if len({models[name] for name in kinds if name != "one epoch"}) > 1:
            raise SystemExit("models differ")
    return medians(seconds)


def show(title: str, seconds: dict[str, list[float]], rows: int, base: str) -> None:
    """Print a table."""
    print(f"{title:20}{'s':>8}{'ns/row':>9}{f'{base} takes':>20}{'processor ns/row':>20}{f'{base} takes':>20}")
    for name, (wall, cpu) in seconds.items():
        of_wall, of_cpu = seconds[base][0] / wall, seconds[base][1] / cpu
        print(f"{name:20}{wall:8.2f}{wall / rows * 1e9:9.1f}{of_wall:18.2f} x{cpu / rows * 1e9:20.1f}{of_cpu:18.2f} x")
    print()


def measure(name: str, data: Path, scratch: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Measure one data set and print its tables."""
    settings = SETTINGS[name]
    job = prepare(str(data), make_settings({**settings, "epochs": 3}))
    rows = job.dataset.n_rows
    print(f"--- {name}: {rows:,} rows of {job.recipe.row_bytes} bytes in a block, {os.cpu_count()} processors\n")
    blocks = measure_blocks(job, scratch / "cache", given.repeat)
    show("blocks", blocks, rows, "data")
    passes, spent = measure_passes(data, settings, given.repeat)
    show("passes", passes, rows, "data")
    visits = 3 * rows
    told = {key: round(value / visits * 1e9, 1) for key, value in spent.items() if isinstance(value, float)}
    print("nanoseconds per row and pass of a run of three, threads added up:", told, "\n")
    runs = measure_runs(data, scratch, settings, given.repeat)
    show("runs", runs, rows, "one epoch")
    return {"rows": rows, "blocks": blocks, "passes": passes, "runs": runs, "ns_per_row_and_pass": told}


def main() -> None:
    """Make the data, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=8_000_000)
    parser.add_argument("--click-rows", type=int, default=2_000_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--cases", default="dense,clicks")
    parser.add_argument("--folder", type=Path, help="where the data is kept for the next time")
    parser.add_argument("--small", action="store_true", help="a few seconds, to see that it works")
    given = parser.parse_args()
    if given.small:
        given.rows, given.click_rows, given.repeat = 100_000, 20_000, 1
    found: dict[str, Any] = {"fresh_memory_seconds_per_gb": fresh_memory()}
    print(f"a gigabyte of fresh memory takes {found['fresh_memory_seconds_per_gb']:.2f} s\n")
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        for name in given.cases.split(","):
            rows = given.rows if name == "dense" else given.click_rows
            data = folder / f"{name}-{rows}"
            if not data.exists():
                {"dense": make_dense, "clicks": make_clicks}[name](data, rows)
            found[name] = measure(name, data, Path(temporary), given)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
