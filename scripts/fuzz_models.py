"""Mutants of model files, checksums repaired, loaded and used: every one is refused by name or works.

    python scripts/fuzz_models.py --mutants 100000 --processes 2

A mutant is a header or an array changed in one to three places (another type, a huge or negative number, NaN, a field gone or
new, a shape, a coordinate beyond the weights ...) with the checksum made anew, as someone hostile would. It is loaded, shown,
and asked for predictions, in a process of its own batch. What must never happen: a crash, a hang, an exception that is not one
of ours, and a flipped bit that goes unseen where the checksum was left alone. Exit code 1 if one did.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import faulthandler
import json
import math
import os
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from safetensors.numpy import save as pack_arrays

from streamsgd import serving
from streamsgd.errors import ModelError, StreamSGDError
from streamsgd.model import store
from streamsgd.model.exporting.export import export_model
from streamsgd.model.model import Model
from streamsgd.model.read import from_file
from streamsgd.settings.make import identity, make_settings
from streamsgd.show.model import model_summary, model_text
from streamsgd.show.report import report
from streamsgd.show.reporters import to_json
from streamsgd.training.prepare import prepare

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 30.0
"""What one mutant may take before it counts as a hang."""

HOSTILE: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 7, 31, 32, 63, 64, 2**31 - 1, 2**31, -(2**31), 2**62, 2**63 - 1, 2**64, -(2**70), 10**30),
    *(0.0, -0.0, 0.5, -1.5, 1e-320, 1e308, -1e308, math.nan, math.inf, -math.inf),
    *("", "x", "none", "0", "nan", "\x00", "\ud800", "é" * 50, "../../etc/passwd", "os:system", "hour", "log1p", "text"),
    *([], {}, [[]], [1, 2], ["a", "a"], {"name": "x"}, {"a": {"b": 1}}),
)
"""What is put where something else was."""

PARTS = ("encoding", "encoding", "target", "loss", "settings", "provenance", "provenance", "metrics", "common", None)
"""Of a header, by how often they are changed."""

DTYPES = ("float16", "float32", "float64", "int8", "int32", "int64", "uint64", "bool")


@dataclass
class Base:
    """A model that is mutated, and a table that it can score."""

    header: dict[str, Any]
    arrays: dict[str, np.ndarray]
    table: Any

    @property
    def data(self) -> bytes:
        """The file."""
        return repacked(self.header, self.arrays)


@dataclass
class Outcome:
    """What became of some mutants."""

    counts: Counter[str] = field(default_factory=Counter)
    bugs: list[str] = field(default_factory=list)


def sample_table(n: int = 200) -> Any:
    """Return a table with a column of every kind, and targets of every task."""
    rng = np.random.default_rng(0)
    words = np.array(["red", "green", "blue", "a b", "the c d"])
    x = rng.normal(size=n)
    return pa.table(
        {
            "x": x,
            "z": pa.array(np.where(rng.random(n) < 0.1, None, rng.lognormal(size=n) * 100)),  # type: ignore[call-overload]
            "color": words[rng.integers(0, 3, n)],
            "user": [f"u{k}" for k in rng.integers(0, 10**6, n)],
            "note": [" ".join(words[rng.integers(0, 5, 4)]) for _ in range(n)],
            "tags": [words[rng.integers(0, 5, k)].tolist() for k in rng.integers(0, 4, n)],
            "when": pa.array(rng.integers(0, 10**9, n), pa.timestamp("s")),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(rng.normal(size=3 * n)), 3),
            "number": x + 1.0,
            "class2": np.where(x > 0, "yes", "no"),
            "class3": rng.integers(0, 3, n),
            "count": rng.poisson(2.0, n),
        }
    )


TARGETS = ("number", "class2", "class3", "count")

PLAIN = [*TARGETS, "color", "user", "note", "tags", "when"]

SHAPES: dict[str, dict[str, Any]] = {
    "numbers": {"target": "number", "exclude": PLAIN, "missing": ["indicator"]},
    "classes": {"target": "class3", "task": "multiclass", "exclude": PLAIN, "precision": "float64"},
    "wide": {
        "target": "class2",
        "exclude": TARGETS,
        "text": ["note"],
        "ngrams": 2,
        "time_parts": ["when"],
        "bits": 10,
        "cross": ["color*user", "color*x"],
        "transform": ["z=bins"],
        "loss": "hinge",
    },
    "wide classes": {
        "target": "class3",
        "task": "multiclass",
        "exclude": [*TARGETS, "note"],
        "bits": 8,
        "cross": ["color*user"],
    },
    "counts": {"target": "count", "task": "poisson", "exclude": [*TARGETS, "user", "note", "tags", "when"]},
}
"""The models that are mutated: all kinds of columns and targets, dense and wide."""


METRICS: dict[str, Any] = {
    "progressive_loss": 0.5,
    "training_loss": 0.4,
    "best_constant_loss": 0.6,
    "valid": {"rows": 9, "loss": 0.5, "auc": 0.5, "by": [1.0, None], "confusion": [[1, 2], [3, 4]]},
    "valid_losses": [0.6, 0.5],
    "held_out": {"rows": 9, "loss": 0.5, "log_loss": 0.5},
    "noise": {"trace": 1.0, "interval": [0.5, 2.0], "known": True},
    "polish": {"passes": 3, "gradient": 1e-6},
}
"""What a model says that it came to."""


def bases(names: tuple[str, ...] = tuple(SHAPES)) -> list[Base]:
    """Return models with weights at random, as files: whole and sparse ones, some with a covariance."""
    found, table, rng = [], sample_table(), np.random.default_rng(1)
    for name in names:
        settings = dict(SHAPES[name])
        settings["exclude"] = [c for c in settings["exclude"] if c != settings["target"]]
        job = prepare(table, make_settings({**settings, "memory": "2GB"}))
        n, k = job.encoding.n_coordinates, job.n_outputs
        weights = rng.normal(size=(n, k)).astype(job.settings.precision)
        if "wide" in name:
            weights[rng.random(n) < 0.8] = 0.0
        covariance = np.eye(n * k) if n * k < 40 else None
        origin = {
            "files": 1,
            "rows": table.num_rows,
            "chunk_rows": 100,
            "epochs": 1,
            "steps": 9,
            "parts": {"loss": "squared"},
            "counts": {"filtered": 0, "skipped": 1},
            "race": {"rates": [1.0], "losses": [2.0], "rows": 3, "mixture": 1.0},
            "rows_learned": 190,
            "left_out": ["a.parquet, row group 1: damaged"],
            "order": {"units": 4, "between_units": 0.5, "risk": False},
            "versions": {"streamsgd": "0.1", "cpu": "x"},
            "lineage": [{"files": 1, "rows": 9, "rows_learned": 8, "epochs": 1, "fingerprint": "ab"}],
        }
        counted = {"user": [("u1", 5), ("u2", 3)], "tags": [("red", 9)]}
        model = Model(
            *(job.parts.loss, job.encoding, job.target, weights, {**identity(job.settings), "batch_size": 64}),
            *(METRICS, origin, counted, covariance),
        )
        header, arrays = store.unpack("model", model.to_bytes(), name)
        found.append(Base(header, arrays, table.slice(0, 60)))
    return found


def repacked(header: Any, arrays: dict[str, np.ndarray], text: str | None = None) -> bytes:
    """Return the file of any header and arrays, its checksum right."""
    text = json.dumps(header, sort_keys=True) if text is None else text
    return bytes(pack_arrays(arrays, {"streamsgd": f"{store.digest(text, arrays)} {text}"}))


# --- mutants


def mutant(base: Base, rng: np.random.Generator) -> tuple[bytes, bool, str]:
    """Return the bytes of a mutant, whether its checksum was repaired, and what was done."""
    kind = rng.random()
    if kind < 0.05:
        return _flipped(base.data, rng), False, "bytes"
    header, arrays, told = copy.deepcopy(base.header), dict(base.arrays), []
    for _ in range(int(rng.integers(1, 4))):
        if kind < 0.7:
            told.append(change_header(header, rng))
        else:
            told.append(change_arrays(arrays, rng))
    text = json.dumps(header, sort_keys=True)
    if kind > 0.97:
        text = _changed_text(text, rng)
        told.append("text")
    try:
        return repacked(header, arrays, text), True, "; ".join(told)
    except (UnicodeEncodeError, KeyError):  # safetensors itself holds no such text or type
        return _flipped(base.data, rng), False, "bytes"


def _flipped(data: bytes, rng: np.random.Generator) -> bytes:
    at = int(rng.integers(len(data)))
    if rng.random() < 0.3:
        return data[:at]
    return data[:at] + bytes([data[at] ^ (1 << int(rng.integers(8)))]) + data[at + 1 :]


def _changed_text(text: str, rng: np.random.Generator) -> str:
    at = int(rng.integers(len(text)))
    ways = (
        "",
        "[" * 100_000,
        "9" * 5000,
        "null",
        text[:at],
        text[:at] + "," + text[at:],
        '{"format": 1, "kind": "model"}',
        "[]",
    )
    return ways[int(rng.integers(len(ways)))]


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Return every (container, key) of a JSON value."""
    found, waiting = [], [value]
    while waiting:
        one = waiting.pop()
        keys = list(one) if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else ()
        for key in keys:
            found.append((one, key))
            waiting.append(one[key])
    return found


def change_header(header: dict[str, Any], rng: np.random.Generator, parts: tuple[str | None, ...] = PARTS) -> str:
    """Change a header in one place, in one of these parts or anywhere; return where."""
    part = parts[int(rng.integers(len(parts)))]
    places = _places(header.get(part)) if part else _places(header)
    if not places:
        return "nothing"
    where, key = places[int(rng.integers(len(places)))]
    way = rng.random()
    if way < 0.6:
        where[key] = copy.deepcopy(HOSTILE[int(rng.integers(len(HOSTILE)))])
    elif way < 0.7:
        del where[key]
    elif way < 0.8:
        _nudge(where, key, rng)
    elif way < 0.9:
        other, at = places[int(rng.integers(len(places)))]
        where[key] = copy.deepcopy(other[at]) if not isinstance(other[at], dict | list) or len(str(other[at])) < 5000 else 1
    elif isinstance(where, list):
        where.insert(key, copy.deepcopy(where[key]))
    else:
        where[f"{key}2"] = 1
    return f"{part}.{key}"


def _nudge(where: Any, key: Any, rng: np.random.Generator) -> None:
    value = where[key]
    if isinstance(value, bool):
        where[key] = not value
    elif isinstance(value, int):
        where[key] = value + int(rng.choice([-2, -1, 1, 2, 1000, 10**9]))
    elif isinstance(value, float):
        where[key] = value * float(rng.choice([-1.0, 0.0, 1e300, 1e-300]))
    elif isinstance(value, list):
        where[key] = value[::-1] if rng.random() < 0.5 else value * 2
    elif isinstance(value, str):
        where[key] = value + "x"


def change_arrays(arrays: dict[str, np.ndarray], rng: np.random.Generator) -> str:
    """Change one array; return which, and how."""
    key = sorted(arrays)[int(rng.integers(len(arrays)))] if arrays else ""
    if not key:
        return "nothing"
    array = arrays[key]
    ways = ("dtype", "shape", "cut", "grow", "values", "gone", "new", "renamed", "empty", "flat")
    way = ways[int(rng.integers(len(ways)))]
    with np.errstate(all="ignore"):
        if way == "dtype":
            arrays[key] = array.astype(DTYPES[int(rng.integers(len(DTYPES)))])
        elif way == "shape":
            arrays[key] = np.ascontiguousarray(array.T if array.ndim > 1 else array[None])
        elif way == "cut":
            arrays[key] = array[: int(rng.integers(len(array)))] if array.ndim and len(array) else array
        elif way == "grow":
            arrays[key] = np.concatenate([array, array[:3]]) if array.ndim else array
        elif way == "values" and array.size:
            changed = array.copy()
            if changed.dtype.kind in "iu":
                odd: Any = (-1, 2**31, 2**40, len(array), 10**18)
            elif changed.dtype.kind == "f":
                odd = (np.nan, np.inf, -1e300)
            else:
                odd = (1,)
            changed.ravel()[int(rng.integers(array.size))] = np.array(odd[int(rng.integers(len(odd)))]).astype(changed.dtype)
            arrays[key] = changed
        elif way == "gone":
            del arrays[key]
        elif way == "new":
            arrays[f"{key}2"] = array
        elif way == "renamed":
            arrays[("weights", "used", "covariance", "shape")[int(rng.integers(4))]] = arrays.pop(key)
        elif way == "empty":
            arrays[key] = np.zeros((0,) * max(1, array.ndim), array.dtype)
        elif way == "flat":
            arrays[key] = array.ravel()
    return f"{key}: {way}"


# --- what is done with one


def use(data: bytes, table: Any) -> tuple[str, Any]:
    """Load a file's bytes and do with the model whatever is done with models; say how that ended."""
    _load_to_serve(data)
    try:
        header, arrays = store.unpack("model", data, "mutant.sgd")
        model = from_file(header, arrays, None, "mutant.sgd")
    except ModelError as error:
        if not str(error).startswith(("mutant.sgd: ", "the model was trained with the loss")):
            raise AssertionError(f"an error that does not name the file: {error}") from error
        return "refused", None
    ended = "used"
    with tempfile.TemporaryDirectory() as folder:
        for name, used in USES.items():
            try:
                with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
                    used(model, table, Path(folder))
            except StreamSGDError:
                ended = "refused in use"
            except Exception as error:
                raise AssertionError(f"{name}: {type(error).__name__}: {error}") from error
    return ended, (header, {key: array.tobytes() for key, array in arrays.items()}) if ended == "used" else None


def _load_to_serve(data: bytes) -> None:
    """Read the file as serving does, which has its own reader."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.sgd"
        path.write_bytes(data)
        with contextlib.suppress(StreamSGDError):
            serving.load(path)


def _predict(model: Model, table: Any, _folder: Path) -> None:
    model.decision_function(table)
    model.predict(table)
    if model.has_probabilities:
        model.predict_proba(table)


def _serve(model: Model, table: Any, folder: Path) -> None:
    model.save(folder / "m.sgd")
    serving.load(folder / "m.sgd").predict(table.slice(0, 1).to_pylist()[0])


def _export(model: Model, _table: Any, folder: Path) -> None:
    for form in ("json", "numpy"):
        export_model(model, folder / form, form)


USES: dict[str, Callable[[Model, Any, Path], Any]] = {
    "repr": lambda model, _table, _folder: repr(model),
    "card": lambda model, _table, _folder: model._repr_html_(),
    "show": lambda model, _table, _folder: (model_text(model_summary(model)), to_json(model_summary(model))),
    "report": lambda model, _table, folder: report(model, folder / "r.html"),
    "save": lambda model, _table, _folder: model.to_bytes(),
    "predict": _predict,
    "evaluate": lambda model, table, _folder: model.evaluate(table, memory="1GB"),
    "export": _export,
    "serve": _serve,
}
"""What is done with a model that was read."""


def run_batch(first: int, n: int, progress: Path, names: tuple[str, ...] = tuple(SHAPES)) -> Outcome:
    """Make and use the mutants of some seeds in this process; the seed at hand is in the file `progress`."""
    outcome, known = Outcome(), bases(names)
    for base in known:
        ended, content = use(base.data, base.table)
        if ended != "used":
            raise AssertionError("a model that is no mutant was refused")
        base.content = content  # type: ignore[attr-defined]
    with progress.open("w") as at:
        for seed in range(first, first + n):
            at.seek(0)
            at.write(f"{seed:12}")
            at.flush()
            faulthandler.dump_traceback_later(SECONDS, exit=True)
            rng = np.random.default_rng([2026, seed])
            base = known[int(rng.integers(len(known)))]
            data, repaired, told = mutant(base, rng)
            try:
                ended, content = use(data, base.table)
                if not repaired and ended != "refused" and content != base.content:  # type: ignore[attr-defined]
                    outcome.bugs.append(f"mutant {seed} ({told}): a change that the checksum should tell was accepted")
                outcome.counts[ended if repaired else f"{ended}, checksum as it was"] += 1
            except Exception as error:  # noqa: BLE001  any that is not ours is what is looked for
                outcome.bugs.append(f"mutant {seed} ({told}): {type(error).__name__}: {str(error)[:300]}")
    faulthandler.cancel_dump_traceback_later()
    return outcome


def run_apart(first: int, n: int, names: tuple[str, ...] = tuple(SHAPES)) -> Outcome:
    """Do the same in a process of its own, and go on behind a mutant that kills it or makes it hang."""
    outcome, stop = Outcome(), first + n
    with tempfile.TemporaryDirectory() as folder:
        progress = Path(folder) / "seed"
        while first < stop:
            progress.write_text("")
            command = [sys.executable, __file__, "--batch", str(first), str(stop - first), str(progress), *names]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                found = json.loads(done.stdout.splitlines()[-1])
                outcome.counts.update(found["counts"])
                outcome.bugs += found["bugs"]
                break
            if not (seed := progress.read_text().strip()):
                raise AssertionError(f"a batch did not begin: {done.stderr[-2000:]}")
            outcome.bugs.append(f"mutant {seed}: killed the process or hung, exit {done.returncode}: {done.stderr[-1500:]}")
            first = int(seed) + 1
    return outcome


def main() -> int:
    """Run all batches; print what became of the mutants, and the bugs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutants", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--batch", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.batch:
        first, n, progress, *names = given.batch
        outcome = run_batch(int(first), int(n), Path(progress), tuple(names) or tuple(SHAPES))
        print(json.dumps({"counts": outcome.counts, "bugs": outcome.bugs}))
        return 0
    size = max(1, -(-given.mutants // (given.processes * 4)))
    firsts = range(given.first, given.first + given.mutants, size)
    stop = given.first + given.mutants
    with ThreadPoolExecutor(given.processes) as pool:
        parts = list(pool.map(lambda first: run_apart(first, min(size, stop - first)), firsts))
    counts: Counter[str] = sum((part.counts for part in parts), Counter())
    bugs = [bug for part in parts for bug in part.bugs]
    print(*bugs[:50], sep="\n")
    print(json.dumps({"mutants": counts.total(), "ended": counts, "bugs": len(bugs)}))
    return 1 if bugs else 0


if __name__ == "__main__":
    sys.exit(main())
