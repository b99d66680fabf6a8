"""Arrow's allocator and its settings: what whole runs take with each, and how much memory.

    python scripts/bench_allocators.py [--rows 4000000] [--click-rows 500000] [--repeat 3] [--folder DIR] [--json]

Settings are of the environment, before Arrow is loaded. Runs are those of `scripts/bench_passes.py`, of one epoch at
--memory 1GB, taken in turn; shown are medians of seconds by the wall, of the processor as user and as system, and the largest
resident memory of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import resource

PASSES = runpy.run_path(str(Path(__file__).with_name("bench_passes.py")))
ALLOCATORS: dict[str, dict[str, str]] = {
    "as it is": {},
    "mimalloc keeps": {"MIMALLOC_PURGE_DELAY": "-1"},
    "mimalloc keeps, large pages": {"MIMALLOC_PURGE_DELAY": "-1", "MIMALLOC_ALLOW_LARGE_OS_PAGES": "1"},
    "jemalloc": {"ARROW_DEFAULT_MEMORY_POOL": "jemalloc"},
    "system": {"ARROW_DEFAULT_MEMORY_POOL": "system"},
}


def run(data: Path, settings: dict[str, Any], environment: dict[str, str]) -> dict[str, float]:
    """Return what one run takes."""
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in settings.items()]
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "streamsgd", "train", str(data), *flags, "--resume", "never", "-o", f"{scratch}/m.sgd"]
        quiet = os.open(os.devnull, os.O_WRONLY)
        began = time.perf_counter()
        actions = [(os.POSIX_SPAWN_DUP2, quiet, 1), (os.POSIX_SPAWN_DUP2, quiet, 2)]
        child = os.posix_spawn(sys.executable, command, {**os.environ, **environment}, file_actions=actions)
        _pid, status, used = os.wait4(child, 0)
        os.close(quiet)
    if status:
        raise SystemExit(f"a run ended with {status}: {' '.join(command)}")
    return {"wall": time.perf_counter() - began, **_of(used)}


def _of(used: resource.struct_rusage) -> dict[str, float]:
    return {"user": used.ru_utime, "system": used.ru_stime, "peak": used.ru_maxrss * 1024.0}


def main() -> None:
    """Make the data, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4_000_000)
    parser.add_argument("--click-rows", type=int, default=500_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the data is kept for the next time")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        for name, rows in (("dense", given.rows), ("clicks", given.click_rows)):
            data = folder / f"{name}-{rows}"
            if not data.exists():
                PASSES[f"make_{name}"](data, rows)
            settings = {**PASSES["SETTINGS"][name], "memory": "1GB", "epochs": 1}
            runs: dict[str, list[dict[str, float]]] = {allocator: [] for allocator in ALLOCATORS}
            run(data, settings, {})  # compiles, and reads the files once
            for _ in range(given.repeat):
                for allocator, environment in ALLOCATORS.items():
                    runs[allocator].append(run(data, settings, environment))
            print(f"{name + f', {rows:,} rows':30}{'wall, s':>9}{'user':>8}{'system':>8}{'peak, MB':>10}")
            for allocator, times in runs.items():
                one = {key: statistics.median(each[key] for each in times) for key in times[0]}
                found.setdefault(name, {})[allocator] = one
                print(
                    f"{allocator:30}{one['wall']:9.2f}{one['user']:8.2f}{one['system']:8.2f}{one['peak'] / 1e6:10.0f}",
                    flush=True,
                )
    if given.json:
        print(json.dumps({"results": found}))


if __name__ == "__main__":
    main()
