"""Kill workers and drivers of a run at random instants, and compare the bytes of the models that come out.

    python scripts/prove_lanes.py [--kills 200] [--every 1.5] [--workers 1,2,3,5,8] [--lanes 4] [--rows 48000] [--model fm]

A worker process, chosen at random, gets SIGKILL every few seconds (0.2 to 1.8 times `--every`), unless as many kills as there
are workers have gone by without a new checkpoint: who is killed before it is up cannot do anything. One kill in ten is the
driver's, which is started again with another number of workers and goes on from its checkpoint. Every run must end with the
bytes of one thread. Prints a table and JSON; exits with 1 if any model differs, any run fails, or any process outlives its
driver.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[1]
DRIVER = """
import json, sys
from streamsgd.settings.make import make_settings
from streamsgd.training.run import train_model
if __name__ == "__main__":
    data, settings, out = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
    model, report = train_model(data, make_settings(settings), out=out)
"""
SETTINGS: dict[str, Any] = {
    "target": "y",
    "epochs": 3,
    "chunk_rows": 1000,
    "validation": 0.1,
    "memory": "2GB",
    "checkpoint_chunks": 3,
}
PER_DRIVER = 10
"""Kills per kill of a driver."""


@dataclass
class Outcome:
    """One run, from its first start to its end."""

    workers: list[int] = field(default_factory=list)
    worker_kills: int = 0
    driver_kills: int = 0
    orphans: int = 0
    seconds: float = 0.0
    same: bool = False
    error: str = ""


def main(arguments: list[str] | None = None) -> int:
    """Prove, print, and say whether all was well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--every", type=float, default=1.5)
    parser.add_argument("--workers", default="1,2,3,5,8")
    parser.add_argument("--lanes", type=int, default=4)
    parser.add_argument("--rows", type=int, default=48_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=120.0, help="after which no new run is begun")
    parser.add_argument("--model", default="linear", help="such as fm, fwfm or mlp (default: linear)")
    given = parser.parse_args(arguments)
    SETTINGS["model"] = given.model
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="prove_lanes_") as folder:
        outcomes, sha, alone = prove(Path(folder), given)
    print_table(outcomes)
    result = {
        "kills": sum(one.worker_kills + one.driver_kills for one in outcomes),
        "worker_kills": sum(one.worker_kills for one in outcomes),
        "driver_kills": sum(one.driver_kills for one in outcomes),
        "runs": len(outcomes),
        "identical": sum(one.same for one in outcomes),
        "orphans": sum(one.orphans for one in outcomes),
        "errors": [one.error for one in outcomes if one.error],
        "sha256": sha,
        "seconds_alone": round(alone, 2),
        "seconds": round(time.monotonic() - began, 1),
    }
    print(json.dumps(result))
    return 0 if result["identical"] == result["runs"] and not result["orphans"] else 1


def prove(folder: Path, given: argparse.Namespace) -> tuple[list[Outcome], str, float]:
    """Return what became of every run, and digest and seconds of the one in one thread."""
    data = write_data(folder / "data", given.rows, given.seed)
    began = time.monotonic()
    place = {"lanes": given.lanes, "executor": "inline", "cache": "none"}
    subprocess.run(command(data, folder / "alone.sgd", place), check=True)
    alone, sha = time.monotonic() - began, digest(folder / "alone.sgd")
    print(f"alone: {alone:.2f} s, sha256 {sha[:16]}", file=sys.stderr)
    rng, places = np.random.default_rng([given.seed, 1]), cycle(int(text) for text in given.workers.split(","))
    left, outcomes = given.kills, []
    end = time.monotonic() + 60.0 * given.minutes
    while left > 0 and time.monotonic() < end:
        out = folder / f"run{len(outcomes)}" / "model.sgd"
        outcomes.append(run_killed(data, out, given, rng, places, left))
        one = outcomes[-1]
        one.same = out.exists() and digest(out) == sha
        left -= one.worker_kills + one.driver_kills
        print(f"run {len(outcomes)}: {one}, {left} kills left", file=sys.stderr, flush=True)
    return outcomes, sha, alone


def write_data(folder: Path, rows: int, seed: int) -> Path:
    """Write files with row groups that are tiny, of middling size, and larger than a chunk."""
    rng = np.random.default_rng([seed, 0])
    folder.mkdir()
    for k, row_group_size in enumerate((40, 500, 2500)):
        n = rows // 3
        x = rng.normal(size=(n, 6)).astype(np.float32)
        y = x @ np.arange(1.0, 7.0) + rng.normal(size=n) > 0
        columns = {f"x{j}": pa.array(x[:, j], mask=rng.random(n) < 0.02) for j in range(6)}
        columns["s"] = pa.array([f"v{v}" for v in rng.integers(0, 50, n)])
        pq.write_table(pa.table({**columns, "y": y}), folder / f"{k}.parquet", row_group_size=row_group_size)
    return folder


def command(data: Path, out: Path, place: dict[str, Any]) -> list[str]:
    """Return what trains on the data at some place."""
    out.parent.mkdir(exist_ok=True)
    return [sys.executable, "-c", DRIVER, str(data), json.dumps(SETTINGS | place), str(out)]


def run_killed(data: Path, out: Path, given: argparse.Namespace, rng: np.random.Generator, places: Any, most: int) -> Outcome:
    """Start a run, kill its workers and itself at most so many times, and see it end."""
    outcome, began = Outcome(), time.monotonic()
    while True:
        outcome.workers.append(next(places))
        place = {"lanes": given.lanes, "workers": outcome.workers[-1]}
        process = subprocess.Popen(command(data, out, place), stderr=subprocess.PIPE, text=True, cwd=ROOT)
        driver, since, kept = psutil.Process(process.pid), 0, checkpoints(out)
        while process.poll() is None:
            pause = given.every * rng.uniform(0.2, 1.8)
            try:
                process.communicate(timeout=pause)
            except subprocess.TimeoutExpired:
                kept, before = checkpoints(out), kept
                since = 0 if kept != before else since
                if since >= outcome.workers[-1] or outcome.worker_kills + outcome.driver_kills >= most:
                    continue
                since += 1
                if strike(process, driver, outcome, rng):
                    break
        outcome.seconds = time.monotonic() - began
        if process.returncode != -signal.SIGKILL:
            if process.returncode:
                outcome.error = (process.communicate()[1] or "").strip().split("\n")[-1] or str(process.returncode)
            return outcome


def strike(process: Any, driver: psutil.Process, outcome: Outcome, rng: np.random.Generator) -> bool:
    """Kill a worker, or the driver, which is what it returns."""
    try:
        workers = [child for child in driver.children() if "dask_worker" in " ".join(child.cmdline())]
    except psutil.Error:
        return False
    if rng.random() < 1 / PER_DRIVER and checkpoints(Path(process.args[-1])):
        process.kill()
        process.communicate()
        outcome.driver_kills += 1
        _gone, alive = psutil.wait_procs(workers, timeout=60)
        outcome.orphans += len(alive)
        return True
    if workers:
        os.kill(workers[int(rng.integers(len(workers)))].pid, signal.SIGKILL)
        outcome.worker_kills += 1
    return False


def checkpoints(out: Path) -> list[str]:
    """Return the names of a run's checkpoints."""
    return sorted(path.name for path in Path(f"{out}.ckpt").glob("*.ckpt"))


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def print_table(outcomes: list[Outcome]) -> None:
    """Print a line per run."""
    print(f"{'run':>3} {'workers':14} {'killed workers':>14} {'drivers':>7} {'seconds':>8}  same bytes")
    for number, one in enumerate(outcomes, 1):
        text = ",".join(map(str, one.workers))
        print(
            f"{number:3} {text:14} {one.worker_kills:14} {one.driver_kills:7} {one.seconds:8.1f}  "
            f"{'yes' if one.same else 'NO'} {one.error}"
        )


if __name__ == "__main__":
    sys.exit(main())
