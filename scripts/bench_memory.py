"""The memory contract: peak resident memory of the process tree against --memory, and what a small budget costs in speed.

    python scripts/bench_memory.py [--gigabytes 12] [--memory 1GB] [--cases narrow,wide,huge,tiny,clicks,strings] [--epochs 3]
    python scripts/bench_memory.py --shapes all [--budgets smallest,500MB,1GB] [--data FOLDER]
    python scripts/bench_memory.py --shapes all --verbs all [--budgets 700MB] [--data FOLDER]

Each case makes Parquet of about so many gigabytes (decoded), trains one epoch through the command line with the small
budget and with a large one, and watches the resident memory of all its processes 50 times a second. Prints a table and
one JSON object; exits with 1 if a peak exceeds its budget.

With `--shapes` it trains on data that is small in the file and large in memory (`memory_shapes.py`), in the smallest budget
that a refusal names and in others; exits with 1 too if that budget is refused when given, or if half of it would have done.
With `--verbs` as well, it filters, shuffles, scores, inspects and evaluates them (`memory_verbs.py`) in budgets that are given.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from memory_shapes import SHAPES, write_shape
from memory_verbs import VERBS, peak_of, words_of, wrong_of

from streamsgd.messages import parse_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CRITEO = Path(__file__).resolve().parents[1] / "datasets" / "criteo.py"
CLICK_BYTES = 470
"""Of a row of a click log, decoded as plain strings."""


@dataclass(frozen=True)
class Case:
    """A shape of data: columns of numbers, or the maker of its rows, and rows per row group."""

    columns: int
    group_rows: int
    about: str
    rows: Callable[[int, list[int]], pa.Table] | None = None
    row_bytes: int = 0
    """About, where they are not numbers."""


def strings(n: int, seed: list[int]) -> pa.Table:
    """Return n rows of ids of ten million values, unique strings of 50 to 650 letters, and texts of 32 words."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 10_000_000, n)
    letters = np.frombuffer(rng.bytes(700 * 64), np.uint8) % 26 + 97
    alphabet = letters.tobytes().decode()
    starts, sizes = rng.integers(0, 43_000, n), rng.integers(50, 650, n)
    unique = [f"{seed}{k}{alphabet[a : a + b]}" for k, (a, b) in enumerate(zip(starts.tolist(), sizes.tolist(), strict=True))]
    words = np.minimum(rng.zipf(1.2, (n, 32)), 200_000)
    texts = [" ".join(f"w{word}" for word in row) for row in words.tolist()]
    y = (rng.random(n) < 0.3 + 0.2 * (ids % 2)).astype(np.int8)
    return pa.table({"y": y, "id": [f"user-{k:07d}" for k in ids.tolist()], "unique": unique, "text": texts})


CASES = {
    "narrow": Case(28, 250_000, "28 float32 columns, row groups of 250 k rows"),
    "wide": Case(784, 10_000, "784 float32 columns, row groups of 10 k rows"),
    "huge": Case(28, 5_000_000, "28 float32 columns, row groups of 5 M rows"),
    "tiny": Case(28, 1_000, "28 float32 columns, row groups of 1 k rows"),
    "clicks": Case(0, 250_000, "13 numbers and 26 strings with nulls, of up to 10 M values (datasets/criteo.py)"),
    "strings": Case(0, 100_000, "ids of 10 M values, unique strings of 350 letters, texts of 32 words", strings, 600),
}


def make_data(folder: Path, case: Case, n_bytes: int) -> int:
    """Write random rows of a linear logistic model, a file of about 1 GB at a time; return the number of rows."""
    width = case.row_bytes or 4 * case.columns
    if not width:
        rows = max(case.group_rows, n_bytes // CLICK_BYTES)
        recipe = [sys.executable, str(CRITEO), str(folder / "clicks.parquet"), "--rows", str(rows)]
        subprocess.run(recipe, check=True, stdout=subprocess.DEVNULL)
        return rows
    rows = max(case.group_rows, n_bytes // width)
    weights = np.random.default_rng(0).standard_normal(case.columns).astype(np.float32) / max(1, case.columns) ** 0.5
    per_file = max(case.group_rows, (1 << 30) // width // case.group_rows * case.group_rows)
    written = 0
    while written < rows:
        n, writer = min(per_file, rows - written), None
        path = folder / f"part-{written // per_file:05d}.parquet"
        for at in range(0, n, case.group_rows):
            size = min(case.group_rows, n - at)
            table = case.rows(size, [written, at]) if case.rows else random_rows(size, weights, [written, at])
            writer = writer or pq.ParquetWriter(path, table.schema, compression="snappy", use_dictionary=bool(case.rows))
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


def measure(name: str, n_bytes: int, memory: str, large: str, scratch: Path, epochs: str) -> dict:
    """Make the data of a case and train with both budgets."""
    folder = scratch / name
    folder.mkdir()
    rows = make_data(folder, CASES[name], n_bytes)
    result: dict = {"case": CASES[name].about, "rows": rows}
    for label, budget in (("small", memory), ("large", large)):
        command = [sys.executable, "-m", "streamsgd", "train", str(folder), "--epochs", epochs, "--memory", budget, "--quiet"]
        command += ["--target", "y" if name != "clicks" else "label", "-o", str(scratch / f"{name}.sgd")]
        command += ["--batch-size", "256"] if CASES[name].columns else []
        seconds, peak, _ = watch(command)
        result[label] = {"budget": parse_bytes(budget), "peak": peak, "seconds": seconds, "rows_per_second": rows / seconds}
    for path in folder.glob("*.parquet"):
        path.unlink()
    return result


def smallest(command: list[str]) -> int:
    """Return the smallest budget that a refusal names, in bytes."""
    done = subprocess.run([*command, "--memory", "10MB"], capture_output=True, text=True, check=False)
    named = re.search(r"smallest budget that can is --memory (\w+)", done.stderr)
    if named is None:
        raise SystemExit(f"{' '.join(command)} in 10 MB names no budget:\n{done.stderr[-2000:]}")
    return parse_bytes(named[1])


def try_budget(command: list[str], budget: int) -> dict:
    """Train in a budget; return the peak, or why it was refused."""
    try:
        seconds, peak, _ = watch([*command, "--memory", str(budget)])
    except SystemExit as error:
        said = str(error).splitlines()[-1]
        return {"budget": budget, "refused": said} if "cannot hold this job" in said else {"budget": budget, "failed": said}
    return {"budget": budget, "peak": peak, "seconds": seconds}


def try_shape(name: str, budgets: list[str], folder: Path, epochs: str) -> dict:
    """Train on a shape in all budgets; return what each took, and what is wrong."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.parquet"
    if not path.exists():
        write_shape(path, SHAPES[name])
    command = [sys.executable, "-m", "streamsgd", "train", str(path), "--target", "y", "--epochs", epochs, "--quiet"]
    command += [*SHAPES[name].flags, "-o", str(folder / "model.sgd"), "--resume", "never"]
    least = smallest(command)
    runs = [try_budget(command, least if text == "smallest" else parse_bytes(text)) for text in budgets]
    return {"shape": name, "smallest": least, "runs": runs, "wrong": [*wrongs(least, runs)]}


def wrongs(least: int, runs: list[dict]) -> Iterator[str]:
    """Yield what breaks the contract."""
    for run in runs:
        mega = f"{run['budget'] / 1e6:.0f} MB"
        if "failed" in run:
            yield f"fails in {mega}: {run['failed'][:300]}"
        elif "refused" in run and run["budget"] >= least:
            yield f"{mega} are refused although {least / 1e6:.0f} MB were named: {run['refused'][:300]}"
        elif "peak" in run and run["peak"] > run["budget"]:
            yield f"takes {run['peak'] / 1e6:.0f} MB of {mega}"
        elif "peak" in run and run["budget"] == least and 2 * run["peak"] < least:
            yield f"asks for {mega} and takes {run['peak'] / 1e6:.0f} MB"


def try_shapes(names: list[str], budgets: list[str], folder: Path, epochs: str) -> int:
    """Try every shape and print."""
    results = []
    for name in names:
        results.append(try_shape(name, budgets, folder, epochs))
        took = [
            f"{r['budget'] / 1e6:.0f}: {r['peak'] / 1e6:.0f}" if "peak" in r else f"{r['budget'] / 1e6:.0f}: -"
            for r in results[-1]["runs"]
        ]
        print(f"{name:24s} {'  '.join(f'{text:>11s}' for text in took)}  {'; '.join(results[-1]['wrong'])}", flush=True)
    print(json.dumps(results))
    return int(any(result["wrong"] for result in results))


def try_verbs(names: list[str], verbs: list[str], budgets: list[str], folder: Path) -> int:
    """Do all that is asked with every shape, and print."""
    results: list[dict] = []
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        path, model = folder / f"{name}.parquet", folder / f"{name}.sgd"
        if not path.exists():
            write_shape(path, SHAPES[name])
        column = next(each for each in pq.read_schema(path).names if each != "y")
        if {"MODEL"} & {word for verb in verbs for word in VERBS[verb]} and not model.exists():
            train = [*words_of("train", path, model, folder / name, column), *SHAPES[name].flags]
            code, _, said = peak_of([*train, "--memory", "4GB"], tree_bytes)
            if code:
                sys.exit(said)
        for verb in verbs:
            flags = SHAPES[name].flags if VERBS[verb][0] == "train" else ()
            for budget in map(parse_bytes, budgets):
                with tempfile.TemporaryDirectory(dir=folder) as scratch:
                    words = [*words_of(verb, path, model, Path(scratch) / "new", column), *flags]
                    code, peak, said = peak_of([*words, "--memory", str(budget)], tree_bytes)
                wrong = wrong_of(code, peak, budget, said)
                results.append({"shape": name, "verb": verb, "budget": budget, "code": code, "peak": peak, "wrong": wrong})
                print(f"{name:24s} {verb:12s} {budget / 1e6:6.0f}: {peak / 1e6:6.0f}  rc {code}  {wrong}", flush=True)
    print(json.dumps(results))
    return int(any(result["wrong"] for result in results))


def main() -> int:
    """Measure every case and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=12.0)
    parser.add_argument("--memory", default="1GB")
    parser.add_argument("--large", default="16GB")
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--scratch", type=Path, help="where to make the data")
    parser.add_argument("--shapes", help="all, or names of them")
    parser.add_argument("--verbs", help="all, or names of them: what is done with shapes beside training")
    parser.add_argument("--budgets", default="smallest,500MB,1GB")
    parser.add_argument("--data", type=Path, help="where shapes are kept from run to run")
    parser.add_argument("--epochs", default="1", help="of more than one, encoded rows are kept in what the budget leaves")
    arguments = parser.parse_args()
    if arguments.shapes:
        names = list(SHAPES) if arguments.shapes == "all" else arguments.shapes.split(",")
        verbs = list(VERBS) if arguments.verbs == "all" else (arguments.verbs or "").split(",")
        with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
            folder, budgets = arguments.data or Path(scratch), arguments.budgets.split(",")
            if arguments.verbs:
                return try_verbs(names, verbs, [text for text in budgets if text != "smallest"], folder)
            return try_shapes(names, budgets, folder, arguments.epochs)
    results = []
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        for name in arguments.cases.split(","):
            sizes = (int(arguments.gigabytes * 1e9), arguments.memory, arguments.large)
            results.append(measure(name, *sizes, Path(scratch), arguments.epochs))
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
