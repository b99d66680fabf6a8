"""Field-weighted machines beside a tuned one of torch: log loss of rows held out.

    python scripts/bench_fwfm.py [--data DIR] [--tables adult,bank,flights] [--rows 100000] [--seeds 1] [--quick]

A fifth of the rows of each table is held out. streamsgd learns the others once at its defaults (`--model fwfm`), untuned. The
machine of torch has as many factors and every pair of columns weighted, learns batches of 512 by Adam, and has the best
of a grid of rates and weight decays after one to five passes, chosen by the very rows that are held out, which is more than
anybody can do. It gets categories as they are, those of training that come once and unknown ones as one value, and numbers both
as 32 bins of equal counts and as they are, standardised: as value times factors. The last line is JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

import streamsgd

TABLES = runpy.run_path(str(Path(__file__).with_name("bench_tables.py")))
TARGETS = {"adult": "income", "bank": "y", "flights": "delay"}
K, BATCH, PASSES, BINS = 8, 512, 5, 32
RATES, DECAYS = (0.001, 0.003, 0.01, 0.03), (0.0, 1e-6, 1e-5)


def parted(table: pa.Table, seed: int) -> tuple[pa.Table, pa.Table]:
    """Return rows to learn and rows held out."""
    order = np.random.default_rng(seed).permutation(len(table))
    return table.take(order[len(order) // 5 :]), table.take(order[: len(order) // 5])


def ours(learned: pa.Table, judged: pa.Table, target: str) -> dict[str, float]:
    """Return the log loss of rows held out, of the machine and of the linear model."""
    found = {}
    for name in ("fwfm", "linear"):
        model = streamsgd.train(learned, target, model=name, epochs=1, executor="inline", memory="2GB")
        found[name] = float(model.evaluate(judged, executor="inline")["log_loss"])
    return found


def numbers_of(column: pa.ChunkedArray) -> np.ndarray | None:
    """Return a column of numbers or moments as float64, missing ones as nan; None of texts."""
    if pt.is_timestamp(column.type) or pt.is_date(column.type):
        column = column.cast("timestamp[us]").cast("int64")
    if not (pt.is_integer(column.type) or pt.is_floating(column.type)):
        return None
    numbers: np.ndarray = column.cast("float64", safe=False).to_numpy()
    return numbers


def columns_of(learned: pa.Table, judged: pa.Table, target: str) -> tuple[list[np.ndarray], list[np.ndarray], int]:
    """Return coordinates and factors of both tables, (rows, columns), and how many coordinates there are."""
    index: list[list[np.ndarray]] = [[], []]
    factors: list[list[np.ndarray]] = [[], []]
    n = 0

    def put(codes: list[np.ndarray], size: int, x: list[np.ndarray] | None = None) -> None:
        nonlocal n
        for part in (0, 1):
            index[part].append(codes[part] + n)
            factors[part].append(np.ones(len(codes[part])) if x is None else x[part])
        n += size

    for name in learned.column_names:
        both = [learned[name], judged[name]]
        numbers = [numbers_of(column) for column in both]
        if name == target:
            continue
        if numbers[0] is None or numbers[1] is None:
            texts = [column.cast("string").fill_null("").combine_chunks() for column in both]
            counts = pc.value_counts(texts[0])
            known = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
            put([pc.index_in(text, known).fill_null(len(known)).to_numpy() for text in texts], len(known) + 1)
            continue
        edges = np.unique(np.nanquantile(numbers[0], np.linspace(0, 1, BINS + 1)[1:-1]))
        put([np.where(np.isnan(x), len(edges) + 1, np.searchsorted(edges, x)) for x in numbers], len(edges) + 2)
        mean, deviation = np.nanmean(numbers[0]), np.nanstd(numbers[0]) or 1.0
        put([np.zeros(len(x), int) for x in numbers], 1, [np.nan_to_num((x - mean) / deviation).clip(-5, 5) for x in numbers])
    return *([np.column_stack(one) for one in parts] for parts in (index, factors)), n  # type: ignore[return-value]


def of_torch(
    data: tuple[list[np.ndarray], list[np.ndarray], int], y: list[np.ndarray], rate: float, decay: float
) -> list[float]:
    """Return the log loss of rows held out after every pass."""
    import torch

    torch.manual_seed(0)
    index, x = ([torch.from_numpy(one) for one in kind] for kind in data[:2])
    x = [one.float()[:, :, None] for one in x]
    targets = [torch.from_numpy(one).float() for one in y]
    columns = index[0].shape[1]
    weights, factors = torch.nn.Embedding(data[2], 1), torch.nn.Embedding(data[2], K)
    pairs, bias = torch.nn.Parameter(torch.ones(columns, columns)), torch.nn.Parameter(torch.zeros(1))
    torch.nn.init.zeros_(weights.weight)
    torch.nn.init.normal_(factors.weight, std=0.05)
    optimizer = torch.optim.Adam([weights.weight, factors.weight, pairs, bias], lr=rate, weight_decay=decay)
    cost, above = torch.nn.BCEWithLogitsLoss(), torch.triu(torch.ones(columns, columns), 1)

    def scores(part: int, rows: Any) -> Any:
        v = factors(index[part][rows]) * x[part][rows]
        products = (v @ v.transpose(1, 2)) * (pairs * above)
        return bias + (weights(index[part][rows]) * x[part][rows]).sum((1, 2)) + products.sum((1, 2))

    found = []
    for _ in range(PASSES):
        order = torch.randperm(len(targets[0]))
        for first in range(0, len(order), BATCH):
            rows = order[first : first + BATCH]
            optimizer.zero_grad()
            cost(scores(0, rows), targets[0][rows]).backward()
            optimizer.step()
        with torch.no_grad():
            found.append(
                float(cost(torch.cat([scores(1, rows) for rows in torch.arange(len(targets[1])).split(8192)]), targets[1]))
            )
    return found


def measure(name: str, data: Path, most: int, seed: int, grid: list[tuple[float, float]]) -> dict[str, Any]:
    """Return what both came to on a table."""
    target = TARGETS[name]
    learned, judged = parted(TABLES[name](data).slice(0, most), seed)
    found: dict[str, Any] = ours(learned, judged, target)
    classes = learned[target].cast("string").unique().to_pylist()
    y = [np.asarray(pc.equal(part[target].cast("string"), max(classes))).astype(float) for part in (learned, judged)]
    prepared = columns_of(learned, judged, target)
    losses = {setting: of_torch(prepared, y, *setting) for setting in grid}
    best = min(losses, key=lambda setting: min(losses[setting]))
    passes = int(np.argmin(losses[best])) + 1
    found |= {"torch": min(losses[best]), "rate": best[0], "decay": best[1], "passes": passes}
    found["torch, one pass"] = min(one[0] for one in losses.values())
    return found | {"ratio": found["fwfm"] / found["torch"]}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=TABLES["SHARED"])
    parser.add_argument("--tables", default=",".join(TARGETS))
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="one setting of the grid, to see that it works")
    options = parser.parse_args()
    grid = [(0.003, 0.0)] if options.quick else list(itertools.product(RATES, DECAYS))
    found = {}
    for name, seed in itertools.product(options.tables.split(","), range(options.seeds)):
        found[f"{name} {seed}"] = one = measure(name, options.data, options.rows, seed, grid)
        best = f"rate {one['rate']:g}, decay {one['decay']:g}, {one['passes']} passes"
        print(
            f"{name:8} fwfm {one['fwfm']:.4f}, linear {one['linear']:.4f}; torch {one['torch']:.4f} ({best}), in one pass "
            f"{one['torch, one pass']:.4f}; fwfm is {one['ratio']:.4f} of it",
            flush=True,
        )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
