"""Mutants of checkpoints, checksums repaired, resumed: every one is refused by name or goes on.

    python scripts/fuzz_checkpoints.py --mutants 5000

Runs of many kinds are stopped in the middle: with a race, averages, patience, polish, measured noise, rare classes, draws of a
posterior and more. A mutant is a checkpoint of one with its header or an array changed in one to three places, as
`fuzz_models.py` changes models, its checksum made anew. The run is prepared from it, restored and checked as resuming does.
What must never happen: an exception that is not one of ours, a crash or a hang. Exit code 1 if one did.
"""

from __future__ import annotations

import argparse
import copy
import faulthandler
import json
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from streamsgd.compute.executors import Inline
from streamsgd.errors import ModelError, Stopped, StreamSGDError
from streamsgd.model import store
from streamsgd.settings.make import make_settings
from streamsgd.training.backends.choose import choose_backend
from streamsgd.training.callbacks import Callbacks
from streamsgd.training.checkpoint import Checkpoints
from streamsgd.training.engine import Engine
from streamsgd.training.phases import wanted
from streamsgd.training.resuming.partition import of_this
from streamsgd.training.run import _prepared, _set_out, saved_in, train_model

sys.path.insert(0, str(Path(__file__).parent))
import fuzz_models as fuzz

SECONDS = 60.0
"""What one mutant may take before it counts as a hang."""

DRAWN = {"method": "sgld-cv", "chains": 2, "draws": 8}

RUNS: dict[str, dict[str, Any]] = {
    "race": {"optimizer": "race"},
    "averages": {"optimizer": "sgd", "average": 0.0, "epochs": 3},
    "patience": {"optimizer": "adam", "validation": 0.3, "patience": 2, "epochs": 4},
    "polish": {"optimizer": "adam", "polish": 5, "epochs": 1},
    "noise": {"optimizer": "adam", "noise": True, "epochs": 1},
    "rare": {"target": "seldom", "optimizer": "adam", "rare": "uniform:c=2", "epochs": 2},
    "standard errors": {"optimizer": "adam", "standard_errors": True, "average": 0.5, "epochs": 1},
    "posterior": {
        "target": "seldom",
        "optimizer": "adam",
        "epochs": 1,
        "method": "sgld-cv",
        "polish": 100,
        "chains": 2,
        "draws": 8,
    },
    "calibrated": {"optimizer": "adam", "validation": 0.3, "conformal": True, "epochs": 1},
    "classes": {"target": "class3", "task": "multiclass", "optimizer": "adam"},
    "words": {"target": "class2", "optimizer": "adagrad", "exclude": fuzz.TARGETS, "bits": 10},
}
"""Settings of runs of many kinds."""

PARTS = (None, "phases", "phases", "phases", "validation", "totals", "settings", "rare", "order", "target", "encoding")
"""Of a header, by how often they are changed."""


@dataclass
class Base:
    """A checkpoint, and the run that it is of."""

    header: dict[str, Any]
    arrays: dict[str, np.ndarray]
    data: str
    settings: Any


class Enough(Exception):
    """A run has come far enough."""


def bases(folder: Path, names: tuple[str, ...] = tuple(RUNS), each: int = 3) -> list[Base]:
    """Return checkpoints of all kinds of runs, from several places in each."""
    import pyarrow.parquet as pq

    table = fuzz.sample_table(6000)
    seldom = np.random.default_rng(5).random(6000) < 0.2
    data = folder / "data.parquet"
    pq.write_table(table.append_column("seldom", [seldom]), data, row_group_size=500)
    found = []
    for name in names:
        usual = {"target": "class2", "epochs": 2, "exclude": fuzz.PLAIN, "chunk_rows": 1000, "memory": "1GB"}
        given = {**usual, "executor": "inline", "checkpoint_chunks": 1, "checkpoint_keep": 100, **RUNS[name]}
        given["exclude"] = [c for c in {*given["exclude"], *fuzz.TARGETS, "seldom"} if c != given["target"]]
        place = folder / name
        settings = make_settings({**given, "checkpoint": str(place)})
        saved = _saved(str(data), settings, place)
        chosen = np.linspace(0, len(saved) - 1, each).astype(int) if saved else ()
        found += [Base(*saved[k], str(data), settings) for k in sorted({*map(int, chosen)})]
    return found


def _saved(data: str, settings: Any, place: Path) -> list[tuple[dict[str, Any], dict[str, np.ndarray]]]:
    """Run once; return all checkpoints that were saved."""
    kept: list[tuple[dict[str, Any], dict[str, np.ndarray]]] = []
    usual = Checkpoints.save

    def save(self: Any, epoch: int, chunk: int, header: Any, arrays: Any) -> str:
        name = usual(self, epoch, chunk, header, arrays)
        read, own = store.unpack("checkpoint", (place / name).read_bytes(), name)
        kept.append((read, own))
        return name

    Checkpoints.save = save  # type: ignore[method-assign]
    try:
        train_model(data, settings)
    finally:
        Checkpoints.save = usual  # type: ignore[method-assign]
    return kept


def mutant(base: Base, rng: np.random.Generator) -> tuple[bytes, str]:
    """Return the bytes of a mutant, and what was done."""
    header, arrays = copy.deepcopy(base.header), dict(base.arrays)
    in_header = rng.random() < 0.75

    def change() -> str:
        return fuzz.change_header(header, rng, PARTS) if in_header else fuzz.change_arrays(arrays, rng)

    told = [change() for _ in range(int(rng.integers(1, 4)))]
    try:
        return fuzz.repacked(header, arrays), "; ".join(told)
    except (UnicodeEncodeError, KeyError):  # safetensors itself holds no such text or type
        return fuzz.repacked(base.header, base.arrays), "nothing"


def resume(base: Base) -> str:
    """Go to where the checkpoint in the folder says, and do one round from there; say how that ended."""
    settings = base.settings
    try:
        saved = saved_in(Checkpoints(settings.checkpoint, settings.checkpoint_keep), settings)
        data, saved = of_this(base.data, saved, settings)
        job = _prepared(data, settings, saved, None, None)
        executor = Inline()
        with choose_backend(job, executor, None) as backend:
            engine = Engine(job, wanted(settings, job.parts), backend, executor, checkpoints=None, callbacks=Callbacks([]))
            _set_out(engine, saved, None)
            engine.stop.set()  # after a round
            engine.run()
    except Stopped:
        return "went on"
    except ModelError as error:
        return "refused" if saved_where(str(error), settings) else f"not named: {error}"
    except StreamSGDError:
        return "refused in use"
    return "went on"


def saved_where(said: str, settings: Any) -> bool:
    """Whether an error names where the checkpoint is."""
    return str(settings.checkpoint) in said


def run(first: int, n: int, names: tuple[str, ...] = tuple(RUNS)) -> tuple[Counter[str], list[str]]:
    """Make and resume the mutants of some seeds."""
    ends: Counter[str] = Counter()
    bugs: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        known = bases(Path(folder), names)
        for seed in range(first, first + n):
            base = known[seed % len(known)]
            data, told = mutant(base, np.random.default_rng([12, seed]))
            place = Path(base.settings.checkpoint)
            place.mkdir(exist_ok=True)
            (place / "epoch000000-chunk000000001.ckpt").write_bytes(data)
            faulthandler.dump_traceback_later(SECONDS, exit=True)
            try:
                with np.errstate(all="ignore"):
                    ends[resume(base)] += 1
            except Exception as error:  # noqa: BLE001  any that is not ours is what is looked for
                bugs.append(f"mutant {seed} ({place.name}: {told}): {type(error).__name__}: {str(error)[:300]}")
            faulthandler.cancel_dump_traceback_later()
    return ends, bugs


def main() -> int:
    """Run; print what became of the mutants, and the bugs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutants", type=int, default=5000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--runs", nargs="+", default=tuple(RUNS), choices=RUNS)
    given = parser.parse_args()
    ends, bugs = run(given.first, given.mutants, tuple(given.runs))
    print(*bugs[:100], sep="\n")
    print(json.dumps({"mutants": given.mutants, "ended": ends, "bugs": len(bugs)}))
    return 1 if bugs else 0


if __name__ == "__main__":
    sys.exit(main())
