"""A click log of texts and numbers: speed and log loss against Vowpal Wabbit and the floor (bare decode), in one run.

    python scripts/bench_clicks.py [--rows 2000000] [--repeat 3] [--folder DIR] [--cases decode,ours,text,cache] [--quick]

The rows are those of datasets/criteo.py: 13 numbers and 26 texts, both with nulls. Each learner passes over them once, in
their order, each in a process of its own; imports are not timed. Vowpal Wabbit has its default optimizer; it reads the same
rows as text (nulls left out, numbers as numbers), then from the cache that it made of the text, in time of its own. The loss
is progressive: of every row before it is learned. Bare decode reads every row group in 2 threads, texts as dictionaries.

Prints a table and, as the last line, JSON. Figures on a shared machine are noisy: read the ratios, which are of medians of
runs taken in turn. `--folder` keeps the data for the next run; `--quick` is a few seconds, to see that it works.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import runpy
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[1]
BITS = 22
OURS = {
    "target": "label",
    "shuffle": "none",
    "epochs": 1,
    "bits": BITS,
    "threads": 2,
    "memory": "4GB",
    "transform": ["log1p"],
    "optimizer": "normalized",
}
"""Settings of streamsgd: the rule and as many features as Vowpal Wabbit has; whatever is not here has its default."""
DEFAULTS = {key: value for key, value in OURS.items() if key not in ("transform", "optimizer")}
"""Numbers as themselves, as logarithms and as ranges, which is more features; six rates race for the first rows."""
VOWPAL = f"--quiet --loss_function logistic -b {BITS} --holdout_off"
NAMES = {
    "decode": "bare decode",
    "ours": "streamsgd",
    "defaults": "streamsgd, all defaults",
    "loop": "streamsgd, training loop",
    "text": "Vowpal Wabbit, text",
    "cache": "Vowpal Wabbit, its cache",
}

TRAIN = """
import dataclasses, json, sys, time
import dask, distributed, numba, pandas, pyarrow.dataset, pyarrow.parquet
from streamsgd.show.summary import where_time_went
from streamsgd.settings.make import make_settings
from streamsgd.training.run import train_model
settings = make_settings(json.loads(sys.argv[2]))
began, cpu_began = time.perf_counter(), time.process_time()
model, report = train_model(sys.argv[1], settings)
seconds, cpu = time.perf_counter() - began, time.process_time() - cpu_began
found = {"seconds": seconds, "cpu": cpu, "examples": report.rows, "loss": model.metrics["progressive_loss"]}
print(json.dumps({**found, "time": where_time_went(report), "report": dataclasses.asdict(report)}))
"""

DECODE = """
import json, sys, time
from concurrent.futures import ThreadPoolExecutor
import pyarrow.parquet as pq
path = sys.argv[1]
texts = [name for name in pq.read_schema(path).names if name.startswith("C")]
def decode(group):
    return pq.ParquetFile(path, read_dictionary=texts).read_row_group(group, use_threads=False).num_rows
began, cpu_began = time.perf_counter(), time.process_time()
with ThreadPoolExecutor(2) as pool:
    rows = sum(pool.map(decode, range(pq.read_metadata(path).num_row_groups)))
print(json.dumps({"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu_began, "examples": rows}))
"""

LEARN = """
import json, sys, time, vowpalwabbit
began, cpu_began = time.perf_counter(), time.process_time()
w = vowpalwabbit.Workspace(sys.argv[1])  # reads and learns all of -d, or of its cache where there is one
seconds, cpu = time.perf_counter() - began, time.process_time() - cpu_began
examples = w.get_weighted_examples()
print(json.dumps({"seconds": seconds, "cpu": cpu, "examples": examples, "loss": w.get_sum_loss() / examples}))
"""


class Data(NamedTuple):
    """Where the rows are, and what is known of them."""

    folder: Path
    rows: int
    bayes: float
    """Mean log loss of the model that drew the labels."""
    constant: float
    """And of the best constant prediction."""

    @property
    def parquet(self) -> Path:
        """A folder with one file."""
        return self.folder / "clicks"

    @property
    def text(self) -> Path:
        """The rows as Vowpal Wabbit reads them."""
        return self.folder / "clicks.vw"

    @property
    def cache(self) -> Path:
        """The cache that it makes."""
        return self.folder / "clicks.cache"


# --- the data


def prepare(folder: Path, rows: int, row_group_rows: int) -> Data:
    """Make the rows in `folder`, unless they are there."""
    about = folder / "about.json"
    script = ROOT / "datasets" / "criteo.py"
    digest = hashlib.sha256(script.read_bytes()).hexdigest()  # a folder made by another recipe is made anew
    wanted = {"rows": rows, "row_group_rows": row_group_rows, "recipe": digest}
    kept = json.loads(about.read_text()) if about.exists() else {}
    if {key: kept.get(key) for key in wanted} == wanted:
        return Data(folder, rows, kept["bayes"], kept["constant"])
    about.unlink(missing_ok=True)
    data = Data(folder, rows, 0.0, 0.0)
    data.cache.unlink(missing_ok=True)
    recipe = runpy.run_path(str(script))
    path = data.parquet / "part-00000.parquet"
    bayes = recipe["make"](recipe["Log"](rows, 0, row_group_rows), path)
    write_text(path, data.text)
    share = pc.mean(pq.read_table(path, columns=["label"])["label"]).as_py()
    constant = float(-share * np.log(share) - (1 - share) * np.log(1 - share))
    about.write_text(json.dumps({**wanted, "bayes": bayes, "constant": constant}))  # last: it says that all is whole
    return data._replace(bayes=bayes, constant=constant)


def write_text(source: Path, target: Path) -> None:
    """Write Parquet as lines of Vowpal Wabbit, a few megabytes at a time."""
    with pq.ParquetFile(source) as file, target.open("wb") as sink:
        for batch in file.iter_batches(1 << 16):
            text = lines(batch)
            sink.write(text.buffers()[2][: pc.sum(pc.binary_length(text)).as_py()])


def lines(batch: pa.RecordBatch) -> pa.StringArray:
    """Return a line for each row: `-1 |I I1:3 I2:5 |C C1=05db9164`, without its nulls."""
    join = pc.binary_join_element_wise
    parts = [pc.if_else(pc.equal(batch["label"], 1), "1", "-1")]
    for kind, separator in (("I", ":"), ("C", "=")):
        parts.append(pa.scalar(f"|{kind}"))
        names = [name for name in batch.schema.names if name.startswith(kind)]
        parts += [join(name, batch[name].cast(pa.string()), separator) for name in names]
    return join(join(*parts, " ", null_handling="skip"), "", "\n")


# --- the runs


def run(code: str, *arguments: str) -> dict:
    """Run Python code in a new process and return its JSON."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(arguments)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def bare_decode(data: Data) -> dict:
    """Decode every row group, doing nothing with it."""
    [path] = data.parquet.glob("*.parquet")
    return run(DECODE, str(path))


def ours(data: Data) -> dict:
    """One epoch of streamsgd: footers, first look, plan, training."""
    return run(TRAIN, str(data.parquet), json.dumps(OURS))


def defaults(data: Data) -> dict:
    """Do the same with more features."""
    return run(TRAIN, str(data.parquet), json.dumps(DEFAULTS))


def vowpal_text(data: Data) -> dict:
    """One pass of Vowpal Wabbit over text."""
    return run(LEARN, f"{VOWPAL} -d {data.text}")


def vowpal_cache(data: Data) -> dict:
    """One pass of Vowpal Wabbit over its cache; the first one makes it."""
    return run(LEARN, f"{VOWPAL} -d {data.text} --cache_file {data.cache}")


CASES = {"decode": bare_decode, "ours": ours, "defaults": defaults, "text": vowpal_text, "cache": vowpal_cache}


def measure(data: Data, cases: list[str], repeat: int) -> dict[str, list[dict]]:
    """Return the runs of each case, taken in turn; the first round warms up (kernels, page cache, cache) and is left out."""
    data.cache.unlink(missing_ok=True)
    runs: dict[str, list[dict]] = {case: [] for case in cases}
    for _ in range(repeat + 1):
        for case in cases:
            runs[case].append(CASES[case](data))
            if runs[case][-1]["examples"] != data.rows:
                sys.exit(f"{NAMES[case]}: {runs[case][-1]['examples']:g} of {data.rows} rows")
    return runs


def summary(data: Data, runs: dict[str, list[dict]]) -> dict:
    """Return what the runs say."""
    seconds = {case: [one["seconds"] for one in taken[1:]] for case, taken in runs.items()}
    if "ours" in runs:
        seconds["loop"] = [one["report"]["seconds"] for one in runs["ours"][1:]]
    rate = {case: data.rows / statistics.median(taken) for case, taken in seconds.items()}
    losses = {case: taken[-1]["loss"] for case, taken in runs.items() if "loss" in taken[-1]}
    ratios = {f"ours / {case}": rate["ours"] / rate[case] for case in runs if "ours" in rate and case != "ours"}
    files = {"parquet": next(data.parquet.glob("*.parquet")), "text": data.text, "cache": data.cache}
    return {
        "rows": data.rows,
        "settings": OURS,
        "rows_per_second": rate,
        "ratios": ratios,
        "loss": {**losses, "true model": data.bayes, "constant": data.constant},
        "bytes": {name: path.stat().st_size for name, path in files.items() if path.exists()},
        "cpu_ns_per_row": {
            case: statistics.median(one["cpu"] for one in taken[1:]) / data.rows * 1e9 for case, taken in runs.items()
        },
        "seconds": seconds,
        "first_seconds": {case: taken[0]["seconds"] for case, taken in runs.items()},
        "ours": runs["ours"][-1] if "ours" in runs else None,
    }


# --- the report


def show(found: dict) -> None:
    """Print the table."""
    rate, loss, cpu = found["rows_per_second"], found["loss"], found["cpu_ns_per_row"]
    floor = rate.get("decode")
    print(f"{found['rows']:,} rows; bytes: " + ", ".join(f"{name} {size:,}" for name, size in found["bytes"].items()))
    print(f"{'':28}{'M rows/s':>10}{'of bare decode':>16}{'streamsgd is':>14}{'CPU ns/row':>12}{'log loss':>12}")
    for case, value in rate.items():
        part = f"{value / floor:16.2f}" if floor else f"{'':16}"
        times = f"{rate['ours'] / value:13.2f}x" if "ours" in rate else f"{'':14}"
        work = f"{cpu[case]:12.0f}" if case in cpu else ""
        print(f"{NAMES[case]:28}{value / 1e6:10.3f}{part}{times}{work}" + (f"{loss[case]:12.6f}" if case in loss else ""))
    print(f"{'best constant':28}{loss['constant']:64.6f}")
    print(f"{'true model':28}{loss['true model']:64.6f}")
    if "cache" in rate:
        print(f"making the cache of Vowpal Wabbit, learning meanwhile: {found['first_seconds']['cache']:.1f} s")
    if found["ours"]:
        print(f"first run of streamsgd, compiling where kernels are not kept: {found['first_seconds']['ours']:.1f} s")
        print("where the time of its last run went:", found["ours"]["time"])


def main() -> None:
    """Measure in turn, then print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--row-group-rows", type=int, default=250_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the data is made, and found again (default: made anew)")
    parser.add_argument("--cases", default=",".join(CASES), help="which to run, by comma (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="60,000 rows in row groups of 10,000, once")
    given = parser.parse_args()
    if given.quick:
        given.rows, given.row_group_rows, given.repeat = 60_000, 10_000, 1
    cases = given.cases.split(",")
    if not set(cases) <= set(CASES) or given.repeat < 1:
        parser.error(f"--cases are of {', '.join(CASES)}, and --repeat at least 1")
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        data = prepare(folder, given.rows, given.row_group_rows)
        found = summary(data, measure(data, cases, given.repeat))
    show(found)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
