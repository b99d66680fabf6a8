"""Kill a training run with SIGKILL at random instants, start it again until it ends, compare the bytes.

    python scripts/prove_kills.py --kills 200 [--sample] [--model fm]

One run is left alone and timed. Then runs are killed at times drawn uniformly from that duration (start-up,
reading, learning, writing a checkpoint, saving the model) and started again, each time with another executor,
number of threads, memory budget and cache of encoded rows, some of which all runs share, until they end; as many runs as
the kills need. Every model file must be the same bytes; with --sample it has draws from a posterior, and is calibrated;
with --model it learns two columns of texts beside the numbers, in one pass, as machines beside linear models do.
Prints a table and, as the last line, JSON; exits with 1 if a model differs.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

DRIVER = """
import json, sys
from streamsgd.settings.make import make_settings
from streamsgd.training.run import train_model
train_model(sys.argv[1], make_settings(json.loads(sys.argv[2])), out=sys.argv[3])
"""

SETTINGS: dict[str, Any] = {
    "target": "y",
    "epochs": 2,
    "chunk_rows": 1000,
    "checkpoint_chunks": 1,
    "validation": 0.1,
    "validate_every": 4000,
    "patience": 1000,
}

SAMPLED: dict[str, Any] = {
    "patience": None,
    "validate_every": None,
    "polish": 5,
    "method": "sgld-cv:steps=4000",
    "prior": "normal:sd=1",
    "conformal": True,
}
"""Settings of --sample, beside those."""

MODELLED: dict[str, Any] = {"epochs": 1, "validate_every": None, "patience": None}
"""Settings of --model, beside those."""

PLACES = [
    {"executor": "dask", "threads": 2, "memory": "2GB", "cache": "none"},
    {"executor": "inline", "memory": "4GB", "cache": "memory"},
    {"executor": "dask", "threads": 1, "memory": "900MB", "keep_cache": True},
    {"executor": "dask", "threads": 4, "memory": "3GB", "cache": "disk", "keep_cache": True},
]
"""What may differ from one start to the next without a trace in the model; the first has no cache of encoded rows."""

HANGS = 600.0
"""Seconds after which a start that is not to be killed counts as a hang."""


@dataclass
class Outcome:
    """One run: how often it was killed, where, and whether its model is the right one."""

    kills: int = 0
    starts: int = 0
    killed_in: Counter[str] = field(default_factory=Counter)
    same: bool = False


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200, help="how many in all (default: 200)")
    parser.add_argument("--rows", type=int, default=24_000, help="rows of the data set (default: 24000)")
    parser.add_argument("--seed", type=int, default=0, help="of the data and of the instants")
    parser.add_argument("--sample", action="store_true", help="draw from a posterior too, and calibrate")
    parser.add_argument("--model", help="another model than the linear one, such as fm, fwfm or mlp")
    given = parser.parse_args(arguments)
    SETTINGS.update(SAMPLED if given.sample else {})
    SETTINGS.update({**MODELLED, "model": given.model} if given.model else {})
    with tempfile.TemporaryDirectory(prefix="prove_kills_") as folder:
        began = time.monotonic()
        outcomes, sha, alone = prove(Path(folder), given.kills, given.rows, given.seed)
    print_table(outcomes)
    where = sum((outcome.killed_in for outcome in outcomes), Counter())
    result = {
        "kills": sum(outcome.kills for outcome in outcomes),
        "runs": len(outcomes),
        "starts": sum(outcome.starts for outcome in outcomes),
        "identical": sum(outcome.same for outcome in outcomes),
        "killed_in": dict(where),
        "sha256": sha,
        "seconds_alone": round(alone, 2),
        "seconds": round(time.monotonic() - began, 1),
    }
    print(json.dumps(result))
    return 0 if result["identical"] == result["runs"] else 1


def prove(folder: Path, kills: int, rows: int, seed: int) -> tuple[list[Outcome], str, float]:
    """Return what became of every run, and digest and seconds of the one that was left alone."""
    data = write_data(folder / "data", rows, seed)
    run_alone(data, folder / "alone.sgd")  # compiles, once
    alone = run_alone(data, folder / "timed.sgd")
    sha = digest(folder / "alone.sgd")
    print(f"left alone: {alone:.2f} s, sha256 {sha[:16]}", file=sys.stderr)
    rng, left, outcomes = np.random.default_rng([seed, 1]), kills, []
    while left:
        outcomes.append(run_killed(data, folder / f"run{len(outcomes)}", lambda: rng.uniform(0.0, alone), left))
        outcomes[-1].same = digest(folder / f"run{len(outcomes) - 1}" / "model.sgd") == sha
        left -= outcomes[-1].kills
        print(f"run {len(outcomes)}: {outcomes[-1].kills} kills, {left} left", file=sys.stderr)
    return outcomes, sha, alone


def write_data(folder: Path, rows: int, seed: int) -> Path:
    """Write files with row groups that are tiny, of middling size, and larger than a chunk."""
    rng = np.random.default_rng([seed, 0])
    folder.mkdir()
    for k, row_group_size in enumerate((40, 500, 2500)):
        n = rows // 3
        x = rng.normal(size=(n, 6)).astype(np.float32)
        y = x @ np.arange(1.0, 7.0) + rng.normal(size=n)
        columns = {f"x{j}": pa.array(x[:, j], mask=rng.random(n) < 0.02) for j in range(6)}
        if "model" in SETTINGS:
            columns |= {
                name: pa.array([f"{name}{v}" for v in rng.integers(0, size, n)]) for name, size in (("a", 9), ("b", 300))
            }
        pq.write_table(pa.table({**columns, "y": y}), folder / f"{k}.parquet", row_group_size=row_group_size)
    return folder


def command(data: Path, out: Path, place: dict[str, Any]) -> list[str]:
    kept = {"cache_dir": str(data.with_name("kept"))} if place.get("keep_cache") else {}
    return [sys.executable, "-c", DRIVER, str(data), json.dumps(SETTINGS | place | kept), str(out)]


def run_alone(data: Path, out: Path) -> float:
    """Train without a kill and return the seconds it took."""
    began = time.monotonic()
    subprocess.run(command(data, out, PLACES[0]), check=True)
    return time.monotonic() - began


def run_killed(data: Path, folder: Path, delay: Callable[[], float], most: int) -> Outcome:
    """Start a run and kill it, at most so many times, until it ends before its time has come."""
    outcome = Outcome()
    while True:
        place = PLACES[outcome.starts % len(PLACES)]
        outcome.starts += 1
        began = time.time()
        process = subprocess.Popen(command(data, folder / "model.sgd", place), stderr=subprocess.PIPE)
        try:
            _, stderr = process.communicate(timeout=delay() if outcome.kills < most else HANGS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            if outcome.kills == most:
                sys.exit(f"start {outcome.starts} in {folder} did not end within {HANGS:.0f} s")
            outcome.kills += 1
            outcome.killed_in[stage(folder, began)] += 1
            continue
        if process.returncode:
            sys.exit(f"start {outcome.starts} in {folder} failed:\n{stderr.decode()}")
        return outcome


def stage(folder: Path, began: float) -> str:
    """Say from what a killed process left behind since it was started (`began`, Unix time) what it was doing."""
    files = [path for path in folder.rglob("*") if path.is_file()] if folder.exists() else []
    names = [path.name for path in files if path.stat().st_mtime >= began and path.suffix != ".lock"]
    if "model.sgd" in names:
        return "after the model was saved"
    if any(name.startswith(".model.sgd.") and name.endswith(".partial") for name in names):
        return "saving the model"
    if any(name.endswith(".partial") for name in names):
        return "writing a checkpoint"
    return "between checkpoints" if names else "before its first checkpoint"


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def print_table(outcomes: list[Outcome]) -> None:
    print(f"{'run':>4} {'kills':>6} {'starts':>7}  model")
    for number, outcome in enumerate(outcomes, 1):
        print(f"{number:4} {outcome.kills:6} {outcome.starts:7}  {'identical' if outcome.same else 'DIFFERS'}")


if __name__ == "__main__":
    sys.exit(main())
