"""Machines and networks on real tables: the tables of docs/interactions.md.

    python scripts/bench_interactions.py [--data DIR] [--only race|machines|networks] [--cross auto,none] [--rates 1]

Of the race of machines of three rates with the linear model, on every table with two columns of categories or more, the figures
are the losses of rows when they were new: of the linear model, of the machine that led, of the mixture, and ln 2 / n (or what
stands for it of squared losses), by which the mixture may be above the linear model; a run that breaks that is an error.

Machines alone (`against=none`) learn rows once at `--rates`, multiples of the default rate of the factors. Networks have one
hidden layer of 50 units, as those that are published for these splits (means of 20 splits), and everything else as it is by
default; the figure is the mean of the RMSE of the rows held out of `--splits`. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import runpy
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from streamsgd.kernels.models.machines import FM
from streamsgd.settings.make import make_settings
from streamsgd.training.run import train_model

if TYPE_CHECKING:
    from collections.abc import Callable

TABLES = runpy.run_path(str(Path(__file__).with_name("bench_tables.py")))
ROWS = 200_000
MACHINES = {
    "adult": ("adult", "income"),
    "bank": ("bank", "y"),
    "flights": ("flights", "delay"),
    "kdd": ("kdd", "attack"),
    "diamonds": ("diamonds", "price"),
}
NETWORKS = {"power-plant": 4.18, "concrete": 5.45, "wine-quality-red": 0.657}
"""Published: a hidden layer of 50 units."""


def write(table: pa.Table, folder: Path, name: str) -> str:
    """Write a table; return where."""
    path = folder / f"{name}.parquet"
    pq.write_table(table, path, row_group_size=50_000)
    return str(path)


def loss(data: str, target: str, **given: Any) -> float:
    """Train in one pass; return the loss of rows when they were new."""
    settings = make_settings({"target": target, "epochs": 1, "executor": "inline", "memory": "2GB", **given})
    return float(train_model(data, settings)[0].metrics["progressive_loss"])


def race(data: Path, folder: Path, say: Callable[..., None]) -> dict[str, Any]:
    """Learn every table at the defaults; return what machines and the linear model came to.

    Raises
    ------
    AssertionError
        The mixture is further above the linear model than it may be.

    """
    found = {}
    for name, (make, target) in MACHINES.items():
        path = write(TABLES[make](data).slice(0, ROWS), folder, name)
        for model in ("fm", "fwfm"):
            given = {"target": target, "epochs": 1, "executor": "inline", "memory": "3GB", "model": model}
            one = train_model(path, make_settings(given))[0].metrics["epochs"]["beside"]
            found[f"{name}, {model}"] = one
            rates = f"rate {one['rates']['rate']:g} of {one['rates']['rows']:,} rows, kept {one['kept']}"
            say(f"{name}, linear beside {model}", one["linear"])
            say(f"{name}, {model} ({rates})", one[model])
            say(f"{name}, {model}, mixture", one["mixture"])
            say(f"{name}, {model}, at most above linear", one["at_most_above_linear"])
            if not one["mixture"] <= one["linear"] + one["at_most_above_linear"]:
                raise AssertionError(f"{name}: {one}")
    return found


def machines(data: Path, folder: Path, crosses: list[str], rates: list[float], say: Callable[..., None]) -> dict[str, float]:
    """Learn every table by every model."""
    found = {}
    usual = FM._field_defaults["rate"]
    models = {"linear": "linear"}
    for name in ("fm", "fwfm"):
        models |= {f"{name} x{by:g}": f"{name}:rate={by * usual:g},against=none" for by in rates}
    for name, (make, target) in MACHINES.items():
        path = write(TABLES[make](data).slice(0, ROWS), folder, name)
        for cross in crosses:
            for said, model in models.items():
                given = {} if cross == "auto" else {"cross": [cross]}
                key = f"{name}, cross {cross}, {said}"
                found[key] = loss(path, target, model=model, **given)
                say(key, found[key])
    return found


def networks(data: Path, folder: Path, splits: int, say: Callable[..., None]) -> dict[str, float]:
    """Learn splits of every table; return mean RMSE of the rows held out."""
    found = {}
    for name, published in NETWORKS.items():
        home, errors = data / "regression_splits" / name, []
        rows = np.loadtxt(home / "data.txt")
        for k in range(splits):
            parts = [np.loadtxt(home / f"index_{part}_{k}.txt").astype(int) for part in ("train", "test")]
            learned, judged = (
                pa.table({**{f"x{j}": rows[part, j] for j in range(rows.shape[1] - 1)}, "y": rows[part, -1]}) for part in parts
            )
            path = write(learned, folder, f"{name}{k}")
            given = {"target": "y", "model": "mlp:hidden=50", "executor": "inline", "memory": "2GB"}
            model = train_model(path, make_settings(given))[0]
            errors.append(float(np.sqrt(np.mean((np.asarray(model.predict(judged)) - judged["y"].to_numpy()) ** 2))))
        found[name] = float(np.mean(errors))
        say(f"{name}, published {published}, {splits} splits", found[name])
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=TABLES["SHARED"])
    parser.add_argument("--only", choices=["race", "machines", "networks"])
    parser.add_argument("--cross", default="auto,none")
    parser.add_argument("--rates", default="1")
    parser.add_argument("--splits", type=int, default=3)
    options = parser.parse_args()

    def say(what: str, figure: float) -> None:
        print(f"{what:64} {figure:.5g}", flush=True)

    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        if options.only in (None, "race"):
            found |= race(options.data, Path(folder), say)
        if options.only in (None, "machines"):
            rates = [float(rate) for rate in options.rates.split(",")]
            found |= machines(options.data, Path(folder), options.cross.split(","), rates, say)
        if options.only in (None, "networks"):
            found |= networks(options.data, Path(folder), options.splits, say)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
