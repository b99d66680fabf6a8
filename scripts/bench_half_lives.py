"""Whether memories should fade by rows or by steps where batches are not of 64 rows: held-out losses on real tables.

    python scripts/bench_half_lives.py [--data DIR] [--only adult,bank] [--batches 16,256,1024] [--rows 50000] [--log FILE]

Every optimizer learns each table with memories that fade by steps, as by default, and by rows, of the half-lives that are the
same at 64 rows; at the rate of 64 rows, and at that which `--rate-scaling auto` makes of it. All learn from one decode, in the
passes that are the default. Shown is by how many percent the loss of rows that were held out is above that of memories by steps
at the same rate: less than 0 is for rows. The last lines are means over tables, and on how many of them rows were ahead.
"""

from __future__ import annotations

import argparse
import json
import math
import runpy
from pathlib import Path
from typing import Any

import numpy as np

import streamsgd

ROOT = Path(__file__).resolve().parents[1]
UNTUNED = runpy.run_path(str(ROOT / "scripts" / "bench_untuned.py"))
BY_ROWS = {
    "adam": "adam:half_life1=421,half_life2=44339",
    "adam, second alone": "adam:half_life1={fast},half_life2=44339",
    "rmsprop": "rmsprop:half_life=4414",
    "momentum": "momentum:half_life=421",
}
"""By what is compared; where the first moment stays by steps, its half-life is that of 0.9 at the size: 6.58 steps."""

RULES = ("none", "auto")


def configurations(batches: list[int]) -> list[tuple[tuple[str, int, str], dict[str, Any]]]:
    """Return what is compared, and the settings of each run."""
    found: list[tuple[tuple[str, int, str], dict[str, Any]]] = []
    for batch in batches:
        for rule in RULES:
            common = {"batch_size": batch, "rate_scaling": rule}
            for name, spec in BY_ROWS.items():
                found.append(((name, batch, rule), {**common, "optimizer": spec.format(fast=6.578813 * batch)}))
            names = ("adam", "rmsprop", "momentum")
            found += [((f"{name} by steps", batch, rule), {**common, "optimizer": name}) for name in names]
    return found


def losses_of(table: Any, target: str, batches: list[int]) -> dict[str, float]:
    """Return the held-out loss of each run, by its name, size and rule."""
    each = configurations(batches)
    # The bins of a look are chosen where nothing is set: here all learn the same columns.
    models = streamsgd.train_many(table, target, [own for _key, own in each], memory="2GB", validation=0.2)
    losses = {}
    for (key, _own), model in zip(each, models, strict=True):
        held = math.inf if isinstance(model, Exception) else model.metrics["held_out"]["loss"]
        losses["/".join(map(str, key))] = float(held) if held is not None else math.inf
    return losses


def above(losses: dict[str, float], name: str, batch: int, rule: str) -> float:
    """Return by how many percent memories by rows are above those by steps."""
    steps = losses[f"{name.partition(',')[0]} by steps/{batch}/{rule}"]
    return 100.0 * (losses[f"{name}/{batch}/{rule}"] / steps - 1.0)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=UNTUNED["SHARED"], help="folder of the raw files (default: %(default)s)")
    parser.add_argument("--only", default="", help="names of tables, or how they begin, by comma")
    parser.add_argument("--batches", default="16,256,1024")
    parser.add_argument("--rows", type=int, default=50_000, help="at most so many of each table (default: %(default)s)")
    parser.add_argument("--log", type=Path, help="losses, table by table: a run that is stopped goes on from it")
    options = parser.parse_args()
    batches, wanted = [int(text) for text in options.batches.split(",")], options.only.split(",")
    lines = options.log.read_text().splitlines() if options.log and options.log.exists() else []
    found: dict[str, dict[str, float]] = dict(map(json.loads, lines))
    columns = [(name, batch, rule) for name in BY_ROWS for rule in RULES for batch in batches]
    for problem in UNTUNED["PROBLEMS"]:
        if not any(problem.name.startswith(name) for name in wanted):
            continue
        if problem.name not in found:
            table = UNTUNED["shuffled"](problem, options.data, options.rows)
            found[problem.name] = losses_of(table, problem.target, batches)
            if options.log:
                with options.log.open("a") as file:
                    file.write(json.dumps([problem.name, found[problem.name]]) + "\n")
        print(problem.name, " ".join(f"{above(found[problem.name], *column):+.2f}" for column in columns), flush=True)
    print(f"{'memory by rows':24}{'rate':>8}" + "".join(f"{f'b={batch}':>16}" for batch in batches))
    results = {}
    for name in BY_ROWS:
        for rule in RULES:
            shown = []
            for batch in batches:
                some = np.array([above(losses, name, batch, rule) for losses in found.values()])
                some = some[np.isfinite(some)]
                results[f"{name}/{batch}/{rule}"] = [
                    float(some.mean()),
                    float(np.median(some)),
                    int((some < 0.0).sum()),
                    len(some),
                ]
                shown.append(f"{some.mean():+.2f} %, {(some < 0.0).sum()} of {len(some)}")
            print(f"{name:24}{rule:>8}" + "".join(f"{text:>16}" for text in shown))
    print(json.dumps({"results": results}))


if __name__ == "__main__":
    main()
