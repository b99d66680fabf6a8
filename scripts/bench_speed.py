"""Speed of one epoch against the floor (bare Parquet decode) and against peers, all in one run.

    python scripts/bench_speed.py [--rows 8000000] [--repeat 5] [--peers] [--encoding plain]

Dense float32, snappy, row groups of 250 k, logistic, batch 256, 2 threads. Columns are encoded as writers do unless told
otherwise, with a dictionary; `plain` is the least that a decoder can have to do. Prints a table and one JSON object. Figures on
a shared machine are noisy: read the ratios, which are of medians of runs taken in turn.
"""

from __future__ import annotations

import argparse
import json
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[1]
BATCH = 256


def make_data(folder: Path, rows: int, columns: int, encoding: str) -> list[Path]:
    """Write the synthetic data set."""
    command = [sys.executable, str(ROOT / "datasets/synthetic.py"), str(folder), "--rows", str(rows), "--encoding", encoding]
    subprocess.run([*command, "--columns", str(columns), "--files", "4"], check=True, stdout=subprocess.DEVNULL)
    return sorted(folder.glob("*.parquet"))


def bare_decode(files: list[Path], threads: int = 2) -> float:
    """Seconds to decode every row group with `read_row_group`, doing nothing with it."""
    work: queue.SimpleQueue[tuple[Path, int]] = queue.SimpleQueue()
    for path in files:
        for group in range(pq.read_metadata(path).num_row_groups):
            work.put((path, group))

    def drain() -> None:
        while not work.empty():
            try:
                path, group = work.get_nowait()
            except queue.Empty:
                return
            pq.ParquetFile(path).read_row_group(group, use_threads=False)

    return timed(lambda: run_threads(drain, threads))


def run_threads(work, threads: int) -> None:
    """Run `work` in several threads at once."""
    started = [threading.Thread(target=work) for _ in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()


def timed(work) -> float:
    """Seconds that `work()` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def ours(files: list[Path], memory: str, report: dict) -> float:
    """Seconds of one epoch of streamsgd: footers, first look, plan, Dask, training."""
    from streamsgd.settings.make import make_settings
    from streamsgd.training.run import train_model

    settings = make_settings(
        {"target": "y", "loss": "logistic", "batch_size": BATCH, "epochs": 1, "memory": memory, "threads": 2}
    )

    def run() -> None:
        _, done = train_model([str(path) for path in files], settings)
        report.update(
            train=done.seconds,
            fit=done.fit_seconds,
            wait=done.wait_seconds,
            decode=done.spent.decode,
            encode=done.spent.encode,
        )

    return timed(run)


def sklearn_loop(files: list[Path]) -> float:
    """Seconds of the usual loop: read a row group, to NumPy, partial_fit."""
    from sklearn.linear_model import SGDClassifier

    def run() -> None:
        model = SGDClassifier(loss="log_loss")
        for path in files:
            opened = pq.ParquetFile(path)
            for group in range(opened.num_row_groups):
                table = opened.read_row_group(group)
                features = np.column_stack([table[c].to_numpy() for c in table.column_names if c not in ("y", "id")])
                model.partial_fit(features, table["y"].to_numpy(), classes=[0, 1])

    return timed(run)


def vowpal_cache(files: list[Path], rows: int, folder: Path) -> float:
    """Seconds of one pass of Vowpal Wabbit over its own binary cache of the first rows."""
    text, cache = folder / "vw.txt", folder / "vw.cache"
    table = pq.ParquetFile(files[0]).read().slice(0, rows)
    names = [c for c in table.column_names if c not in ("y", "id")]
    features = np.column_stack([table[c].to_numpy() for c in names])
    labels = np.where(table["y"].to_numpy() > 0, 1, -1)
    with text.open("w") as sink:
        for row, label in zip(features, labels, strict=True):
            sink.write(f"{label} | " + " ".join(f"{j}:{x:.6g}" for j, x in enumerate(row)) + "\n")
    learn = (
        "import sys, time, vowpalwabbit\n"
        "began = time.perf_counter()\n"
        "w = vowpalwabbit.Workspace(sys.argv[1])\n"  # reads and learns all of -d, or of its cache where there is one
        "seconds = time.perf_counter() - began\n"
        "print(seconds, w.get_weighted_examples())\n"
    )
    command = [sys.executable, "-c", learn, f"--loss_function logistic --quiet --cache_file {cache} -d {text}"]
    for _ in range(2):  # the first run writes the cache
        shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        passed, examples = map(float, shown.split())
        if examples != len(labels):
            raise RuntimeError(f"Vowpal Wabbit learned {examples:g} of {len(labels)} examples")
    return passed


def main() -> None:
    """Measure in turn, then print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=8_000_000)
    parser.add_argument("--columns", type=int, default=28)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--memory", default="4GB")
    parser.add_argument("--peers", action="store_true", help="also scikit-learn and Vowpal Wabbit (1 M rows each)")
    parser.add_argument("--encoding", choices=("dictionary", "plain"), default="dictionary")
    parser.add_argument("--data", type=Path, help="Parquet made before, instead of synthetic rows")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        files = (
            sorted(arguments.data.glob("*.parquet"))
            if arguments.data
            else make_data(folder, arguments.rows, arguments.columns, arguments.encoding)
        )
        rows = sum(pq.read_metadata(path).num_rows for path in files)
        print(json.dumps(measure(files, rows, folder, arguments)))


def measure(files: list[Path], rows: int, folder: Path, arguments) -> dict:
    """Run everything in turn and print the table."""
    report: dict = {}
    ours(files, arguments.memory, report)
    bare_decode(files)
    seconds: dict[str, list[float]] = {"bare decode": [], "streamsgd": [], "streamsgd, training loop": []}
    for _ in range(arguments.repeat):
        seconds["bare decode"].append(bare_decode(files))
        seconds["streamsgd"].append(ours(files, arguments.memory, report))
        seconds["streamsgd, training loop"].append(report["train"])
    rate = {name: rows / statistics.median(values) for name, values in seconds.items()}
    if arguments.peers:
        part = min(rows, 1_000_000)
        rate["scikit-learn partial_fit"] = rows / len(files) / sklearn_loop(files[:1])
        rate["Vowpal Wabbit, its cache"] = part / vowpal_cache(files, part, folder)
    floor = rate["bare decode"]
    print(f"{'':28}{'M rows/s':>10}{'of bare decode':>16}{'streamsgd is':>14}")
    for name, value in rate.items():
        print(f"{name:28}{value / 1e6:10.2f}{value / floor:16.2f}{rate['streamsgd'] / value:13.1f}x")
    split = {key: round(value / rows * 1e9, 1) for key, value in report.items()}
    print("nanoseconds per row of the last run (decode and encode summed over 2 threads):", split)
    return {"rows": rows, "rows_per_second": rate, "ns_per_row": split, "seconds": seconds}


if __name__ == "__main__":
    main()
