"""Learn thirty daily partitions one by one, as a nightly job does, and compare with one run over all of them.

    python scripts/prove_days.py [--days 30] [--rows 8000] [--kills 10]

Four promises, each with what was found:

* bytes: with --shuffle none, a constant rate and the encoding of day 1, the model of the last day is that of one run over the
  days after the first, byte by byte of weights and memory.
* kills: the same where runs are killed with SIGKILL in the middle of a day and started again, and where another day begins with
  the same output after a kill: the checkpoint is dropped, which is said.
* loss: with all defaults, the mean progressive loss of the days is within 0.5 % of that of one run in the same order.
* columns: a value that no day had before is learned, a column that the first day had not is left out, one that is lost is
  refused by name.

Prints a table and, as the last line, JSON; exits with 1 if a promise is broken.
"""

import argparse
import json
import logging
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import streamsgd
from streamsgd.errors import DataError

EXACT: dict[str, Any] = {"shuffle": "none", "epochs": 1, "executor": "inline", "chunk_rows": 500}
RULES: dict[str, Any] = {"optimizer": "adam", "schedule": "constant", "batch_size": 20, "learning_rate": 0.01}

DRIVER = """
import json, logging, sys
import streamsgd
logging.basicConfig()
streamsgd.train(sys.argv[1], "y", out=sys.argv[2], checkpoint_chunks=1, **json.loads(sys.argv[3]))
"""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--rows", type=int, default=25_000, help="of a day")
    parser.add_argument("--kills", type=int, default=10, help="days that are killed in their middle")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="prove_days_") as folder:
        days = write_days(Path(folder), given.days, given.rows)
        found = {
            "bytes": same_bytes(days, Path(folder)),
            "kills": same_after_kills(days, Path(folder), given.kills),
            "loss": loss_apart(days, Path(folder)),
            "columns": columns_that_change(days, given.rows),
        }
    for name, result in found.items():
        print(f"{name:8} {'kept' if result['kept'] else 'BROKEN':7} {result}", file=sys.stderr)
    print(json.dumps({"days": given.days, "rows": given.rows, **found}))
    return 0 if all(result["kept"] for result in found.values()) else 1


def table_of(number: int, rows: int) -> pa.Table:
    """Return a day of clicks; each day brings values that no day before had."""
    rng = np.random.default_rng(number)
    x, site = rng.normal(size=rows), rng.choice(["a", "b", "c", f"new {number}"], rows)
    user = np.array([f"{value:x}" for value in rng.integers(0, 50_000, rows)])
    score = x + (site == "a") - 0.5 * np.array([int(value, 16) % 3 for value in user])
    return pa.table({"x": x, "site": site, "user": user, "y": (rng.random(rows) < 1 / (1 + np.exp(-score))).astype(int)})


def write_days(folder: Path, days: int, rows: int) -> list[str]:
    paths = [folder / f"{k + 1:02}" / "clicks.parquet" for k in range(days)]
    for k, path in enumerate(paths):
        path.parent.mkdir()
        pq.write_table(table_of(k, rows), path, row_group_size=max(1, rows // 4))
    return [str(path) for path in paths]


def bits(model: streamsgd.Model) -> list[bytes]:
    return [model.weights.tobytes(), *(array.tobytes() for array in model.memory or ())]


def same_bytes(days: list[str], folder: Path) -> dict[str, Any]:
    """Leave in `folder` the models of day 1 and of the whole."""
    first, out = folder / "first.sgd", folder / "one.sgd"
    streamsgd.train(days[0], "y", out=first, keep_memory=True, **EXACT, **RULES)
    whole = streamsgd.train(days[1:], "y", start=str(first), out=folder / "whole.sgd", **EXACT)
    at, began = first, time.monotonic()
    for day in days[1:]:
        streamsgd.train(day, "y", start=str(at), out=out, **EXACT)
        at = out
    model = streamsgd.load(out)
    runs = len(model.provenance["lineage"]) + 1
    return {
        "kept": bits(model) == bits(whole) and runs == len(days),
        "runs": runs,
        "seconds": round(time.monotonic() - began, 1),
    }


def same_after_kills(days: list[str], folder: Path, kills: int) -> dict[str, Any]:
    """Kill every few days once a checkpoint is there; go on, every other time by way of another day's data."""
    at, out = folder / "first.sgd", folder / "killed.sgd"
    chosen = {1 + (k * max(1, len(days) - 1)) // max(1, kills) for k in range(kills)}
    killed = dropped = resumed = 0
    for k in range(1, len(days)):
        settings = {**EXACT, "start": str(at)}
        if k in chosen and any(killed_in_the_middle(days[k], out, settings) for _ in range(5)):
            killed += 1
            if killed % 2:  # somebody runs another day first, with the same output
                other = days[k - 1]
                said = run(other, out, {**settings, "start": str(folder / "first.sgd")})
                dropped += "starts anew" in said
                out.unlink()
            else:
                resumed += bool(list(Path(f"{out}.ckpt").glob("*.ckpt")))
        run(days[k], out, settings)
        at = folder / f"at{k % 2}.sgd"
        at.write_bytes(out.read_bytes())
        out.unlink()
    same = bits(streamsgd.load(at)) == bits(streamsgd.load(folder / "whole.sgd"))
    kept = same and killed == len(chosen) and dropped == -(-killed // 2) and resumed == killed // 2
    return {"kept": kept, "killed": killed, "went_on": resumed, "of_another_day": dropped}


def command(day: str, out: Path, settings: dict[str, Any]) -> list[str]:
    return [sys.executable, "-c", DRIVER, day, str(out), json.dumps(settings)]


def run(day: str, out: Path, settings: dict[str, Any]) -> str:
    """Run a day to its end and return what it said."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("streamsgd").addHandler(handler)
    try:
        streamsgd.train(day, "y", out=out, checkpoint_chunks=1, **settings)
    finally:
        logging.getLogger("streamsgd").removeHandler(handler)
    return "\n".join(said)


def killed_in_the_middle(day: str, out: Path, settings: dict[str, Any]) -> bool:
    """Kill a run once it has saved a checkpoint; slow it down meanwhile, or it would be over first."""
    process = subprocess.Popen(command(day, out, settings), stderr=subprocess.DEVNULL)
    saved = Path(f"{out}.ckpt")
    while process.poll() is None:
        if any(saved.glob("*.ckpt")):
            process.send_signal(signal.SIGSTOP)
            there = any(saved.glob("*.ckpt"))
            process.kill()
            process.wait()
            return there and not out.exists()
        time.sleep(0.0005)
    out.unlink()  # it was over first
    return False


def loss_apart(days: list[str], folder: Path) -> dict[str, Any]:
    """Compare with all defaults, the race of the first day included."""
    given = {"epochs": 1, "executor": "inline", "shuffle": "none"}
    together = streamsgd.train(days, "y", **given).metrics["progressive_loss"]
    at, losses = folder / "default.sgd", []
    for k, day in enumerate(days):
        start = {"start": str(at)} if k else {"keep_memory": True}
        model = streamsgd.train(day, "y", **given, **start)
        model.save(at)
        losses.append(model.metrics["progressive_loss"])
    apart = float(np.mean(losses)) / together - 1.0
    return {
        "kept": abs(apart) <= 0.005,
        "one_by_one": round(float(np.mean(losses)), 6),
        "one_run": round(together, 6),
        "apart": apart,
    }


def columns_that_change(days: list[str], rows: int) -> dict[str, Any]:
    """A new value, a new column, a lost column."""
    model = streamsgd.train(days[0], "y", keep_memory=True, values=False, **EXACT, **RULES)
    wider = table_of(1, rows).append_column("more", pa.array(np.arange(rows)))
    model.partial_fit(wider, shuffle="none")
    seen, unseen = (model.decision_function({"x": 0.0, "site": site, "user": "5"})[0] for site in ("new 1", "never seen"))
    try:
        model.partial_fit(table_of(2, rows).drop(["site"]))
        refused = ""
    except DataError as error:
        refused = str(error)
    kept = seen != unseen and "more" not in model.encoding.sources and "'site'" in refused
    return {"kept": bool(kept), "new_value": float(seen - unseen), "lost_column": refused[:80]}


if __name__ == "__main__":
    sys.exit(main())
