"""Machines and networks beside those of other libraries: rows per second, all in one run on the same rows.

    python scripts/bench_model_peers.py [--rows 200000] [--repeat 3] [--only machines|networks]

Machines learn a click log (datasets/criteo.py): 13 numbers and 26 texts, k = 8. streamsgd reads and encodes Parquet files, at
one rate, without a race or a linear model beside; torch gets integers that are read and hashed already, in batches of 1,024, by
Adagrad with sparse gradients; Vowpal Wabbit reads its own cache of the rows and has --lrq for all pairs of values.

Networks of 320-64-32 units learn 320 numbers in batches of 256 by Adam: streamsgd and scikit-learn's partial_fit, both from the
same Parquet file, float32. Below stand the five products of matrices that such a batch is made of, alone: by BLAS on one thread
and on all. Each figure is the best of the repeated ones, by the clock and by seconds of processor time, which say more where
other work is done on the machine; what is learned alone, without reading and encoding, by the clock. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from bench_models import click_log
from threadpoolctl import threadpool_limits

from streamsgd.settings.make import make_settings
from streamsgd.training.run import train_model

if TYPE_CHECKING:
    from collections.abc import Callable

K, BITS, BATCH = 8, 20, 1024
INPUTS, FIRST, SECOND, NETWORK_BATCH = 320, 64, 32, 256
OF_MACHINES = {"target": "label", "epochs": 1, "optimizer": "normalized", "memory": "4GB", "bits": BITS}
OF_NETWORKS = {
    "target": "y",
    "epochs": 1,
    "batch_size": NETWORK_BATCH,
    "optimizer": "adam",
    "transform": "none",
    "memory": "4GB",
}


def best(repeat: int, learn: Callable[[], float]) -> list[float]:
    """Return the most rows per second of so many times, by the clock and of processor time, after one that does not count.

    `learn` returns how many rows.
    """
    learn()
    found = [0.0, 0.0]
    for _ in range(repeat):
        began = time.perf_counter(), time.process_time()
        rows = learn()
        took = time.perf_counter() - began[0], time.process_time() - began[1]
        found = [max(speed, rows / seconds) for speed, seconds in zip(found, took, strict=True)]
    return found


def ours(data: str, **given: Any) -> float:
    """Train; return rows."""
    return float(train_model(data, make_settings(given))[1].rows)


# --- machines


def hashed(data: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return hashed coordinates (n, columns) of texts and numbers, their factors, and targets."""
    table, index, x = pq.read_table(data), [], []
    for j, name in enumerate(name for name in table.column_names if name != "label"):
        column = table[name].combine_chunks()
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            coded = column.dictionary_encode()
            values = [zlib.crc32(f"{j} {value}".encode()) % (1 << BITS) for value in coded.dictionary.to_pylist()]
            index.append(np.append(values, 0)[coded.indices.fill_null(len(values)).to_numpy(zero_copy_only=False)])
            x.append(np.where(np.asarray(coded.indices.is_null()), 0.0, 1.0))
        else:
            numbers = np.nan_to_num(column.cast("float64").to_numpy(zero_copy_only=False))
            index.append(np.full(len(numbers), j))
            x.append(np.sign(numbers) * np.log1p(np.abs(numbers)))
    return np.column_stack(index), np.column_stack(x).astype(np.float32), table["label"].to_numpy().astype(np.float32)


def of_torch(data: str) -> Callable[[], float]:
    """Return what learns a machine of torch."""
    import torch

    index, x, y = (torch.from_numpy(one) for one in hashed(data))

    def learn() -> float:
        torch.manual_seed(0)
        weights, factors = (torch.nn.Embedding(1 << BITS, size, sparse=True) for size in (1, K))
        torch.nn.init.zeros_(weights.weight)
        torch.nn.init.normal_(factors.weight, std=0.05)
        optimizer = torch.optim.Adagrad([weights.weight, factors.weight], lr=0.05)
        cost = torch.nn.BCEWithLogitsLoss()
        for first in range(0, len(y), BATCH):
            rows, by = index[first : first + BATCH], x[first : first + BATCH, :, None]
            z = factors(rows) * by
            pairs = 0.5 * (z.sum(1).square() - z.square().sum(1)).sum(1)
            optimizer.zero_grad()
            cost((weights(rows) * by).sum((1, 2)) + pairs, y[first : first + BATCH]).backward()
            optimizer.step()
        return len(y)

    return learn


def of_vowpal_wabbit(data: str, folder: Path) -> Callable[[], float]:
    """Return what learns a machine of Vowpal Wabbit, whose cache the first call makes."""
    from vowpalwabbit import Workspace

    index, x, y = hashed(data)
    lines = folder / "clicks.vw"
    with lines.open("w") as out:
        for row, by, label in zip(index, x, y, strict=True):
            entries = " ".join(f"{j}:{value:.6g}" for j, value in zip(row, by, strict=True) if value)
            out.write(f"{1 if label else -1} |a {entries}\n")

    def learn() -> float:
        Workspace(f"-d {lines} -c --lrq aa{K} --loss_function logistic -b 24 --holdout_off --quiet").finish()
        return len(y)

    return learn


def machines(folder: Path, rows: int, repeat: int) -> dict[str, list[float]]:
    """Measure machines."""
    data = click_log(folder, rows)
    few = click_log_part(data, folder, rows // 10)
    return {
        "streamsgd linear": best(repeat, lambda: ours(data, **OF_MACHINES, model="linear")),
        "streamsgd fm": best(repeat, lambda: ours(data, **OF_MACHINES, model=f"fm:k={K},against=none")),
        "torch fm": best(repeat, of_torch(data)),
        "vowpal wabbit --lrq": best(repeat, of_vowpal_wabbit(few, folder)),
    }


def click_log_part(data: str, folder: Path, rows: int) -> str:
    """Write the first rows alone, for who is slow."""
    path = folder / "part.parquet"
    pq.write_table(pq.read_table(data).slice(0, rows), path)
    return str(path)


# --- networks


def numbers(folder: Path, rows: int) -> str:
    """Write rows of 320 numbers of which two classes follow; return where."""
    rng, path = np.random.default_rng(1), folder / "numbers.parquet"
    weights, writer = rng.normal(size=(2, INPUTS)) / INPUTS**0.5, None
    for first in range(0, rows, 20_000):
        x = rng.normal(size=(min(20_000, rows - first), INPUTS)).astype(np.float32)
        y = (np.prod(x @ weights.T, axis=1) + 0.1 * rng.normal(size=len(x)) > 0).astype(np.int32)
        table = pa.table({**{f"x{j}": x[:, j] for j in range(INPUTS)}, "y": y})
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer:
        writer.close()
    return str(path)


def of_scikit_learn(data: str) -> Callable[[], float]:
    """Return what learns a network of scikit-learn, batch after batch of the file."""
    from sklearn.neural_network import MLPClassifier

    def learn() -> float:
        model, rows = MLPClassifier((FIRST, SECOND), batch_size=NETWORK_BATCH, learning_rate_init=0.003, alpha=0.0), 0
        for batch in pq.ParquetFile(data).iter_batches(64 * NETWORK_BATCH):
            x = np.column_stack([batch.column(j) for j in range(INPUTS)])
            y = batch.column(INPUTS).to_numpy()
            for first in range(0, len(y), NETWORK_BATCH):
                model.partial_fit(x[first : first + NETWORK_BATCH], y[first : first + NETWORK_BATCH], classes=[0, 1])
            rows += len(y)
        return rows

    return learn


def products(rows: int) -> float:
    """Multiply the matrices of so many rows, in batches: forth through two layers, and back."""
    rng = np.random.default_rng(2)
    sizes = [(NETWORK_BATCH, INPUTS), (INPUTS, FIRST), (FIRST, SECOND), (NETWORK_BATCH, SECOND)]
    x, first, second, d = (rng.normal(size=size).astype(np.float32) for size in sizes)
    for _ in range(rows // NETWORK_BATCH):
        hidden = x @ first
        _ = hidden @ second, hidden.T @ d, x.T @ (d @ second.T)
    return rows // NETWORK_BATCH * NETWORK_BATCH


def networks(folder: Path, rows: int, repeat: int) -> dict[str, list[float]]:
    """Measure networks."""
    data = numbers(folder, rows)
    found = {
        "streamsgd mlp": best(repeat, lambda: ours(data, **OF_NETWORKS, model=f"mlp:hidden={FIRST}-{SECOND}")),
        "scikit-learn partial_fit": best(repeat, of_scikit_learn(data)),
        "products alone, all threads": best(repeat, lambda: products(rows)),
    }
    reports = [
        train_model(data, make_settings({**OF_NETWORKS, "model": f"mlp:hidden={FIRST}-{SECOND}"}))[1] for _ in range(repeat)
    ]
    alone = max(report.rows / report.fit_seconds for report in reports)
    found["streamsgd mlp, learning alone"] = [alone, alone]
    with threadpool_limits(1):
        found["products alone, one thread"] = best(repeat, lambda: products(rows))
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", choices=["machines", "networks"])
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning)  # of short last batches, and of a check that torch does not make
    all_found = {}
    for name, measure, first in (("machines", machines, "streamsgd fm"), ("networks", networks, "streamsgd mlp")):
        if options.only in (None, name):
            with tempfile.TemporaryDirectory() as folder:
                found = measure(Path(folder), options.rows, options.repeat)
            all_found[name] = found
            print(f"\n{name:32} {'rows/s':>12} {first + ' is':>20} {'rows/s of CPU':>14} {first + ' is':>20}")
            for who, speeds in found.items():
                ratios = [f"{speed:12,.0f} {one / speed:18.2f} x" for one, speed in zip(found[first], speeds, strict=True)]
                print(f"{who:32} " + "   ".join(ratios))
    print(json.dumps(all_found))


if __name__ == "__main__":
    main()
