"""Small runs through the public interface alone, and a digest of every bit that comes out of each.

`python tests/laws/golden_runs.py --write` notes in `golden.json` what this machine makes of them. Do that only on purpose:
where numbers are meant to change, where runs are added, or on a machine that the file does not know, from code that is trusted.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import llvmlite.binding
import numba
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import streamsgd
from streamsgd.model.metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Callable

GOLDEN = Path(__file__).with_name("golden.json")

MEASURED = {*METRICS, "unseen_classes"}
"""Of an evaluation, what is part of a digest: what else it tells has tests of its own."""

# --- data


def make_table(n_rows: int, seed: int) -> pa.Table:
    """Make columns of every kind, and a target for every task; sums are written out, for BLAS rounds as it likes."""
    rng = np.random.default_rng([seed, 20])
    x0, x1, x2, x3 = (rng.normal(size=n_rows) for _ in range(4))
    x2, digit = np.exp(1.5 * x2), rng.integers(0, 10, n_rows)
    colours, devices = np.array(["red", "green", "blue", "grey", "white"]), np.array([f"device {k}" for k in range(12)])
    colour, device = (rng.integers(0, size, n_rows) for size in (5, 12))
    site = np.floor(np.exp(rng.uniform(0.0, 11.0, n_rows))).astype(np.int64)
    second = rng.integers(0, 400 * 86400, n_rows)
    vector = [rng.normal(size=n_rows) for _ in range(3)]
    spoken = [rng.integers(0, 60, size) for size in rng.integers(2, 9, n_rows)]
    tagged = [rng.choice(40, size, replace=False) for size in rng.integers(0, 5, n_rows)]
    logit = 0.9 * x0 - 0.6 * x1 + 0.2 * np.log(x2) + 0.4 * vector[0] - 0.1 * digit + 0.5 * (colour == 2) - 0.3 * (device == 3)
    logit += 0.2 * (site % 3 - 1) + 0.4 * (second // 3600 % 24 > 12) + np.array([0.3 * (words < 10).sum() for words in spoken])
    logit += np.array([0.5 * (tags < 5).sum() for tags in tagged]) - 0.6
    y = 1.0 + 3.0 * (logit + rng.normal(size=n_rows))
    gumbels = np.stack([logit, x1 / 2, np.zeros(n_rows)]) + rng.gumbel(size=(3, n_rows))
    columns: dict[str, Any] = {
        "x0": pa.array(x0),
        "x1": pa.array(x1, mask=rng.random(n_rows) < 0.05),
        "x2": pa.array(x2),
        "x3": pa.array(x3.astype(np.float32)),
        "broken": pa.array(np.where(rng.random(n_rows) < 0.03, np.inf, np.where(rng.random(n_rows) < 0.03, np.nan, x0 * x3))),
        "digit": pa.array(digit.astype(np.int32)),
        "flag": pa.array(rng.random(n_rows) < 0.3, mask=rng.random(n_rows) < 0.02),
        "colour": pa.array(colours[colour]),
        "device": pa.array(devices[device], mask=rng.random(n_rows) < 0.04),
        "site": pa.array([f"site{k}" for k in site]),
        "when": pa.array(1_700_000_000_000_000 + second * 1_000_000, pa.timestamp("us")),
        "day": pa.array((19_000 + second // 86400).astype(np.int32), pa.date32()),
        "words": pa.array([" ".join(f"w{k}" for k in words) for words in spoken]),
        "tags": pa.array([[f"t{k}" for k in tags] for tags in tagged], pa.list_(pa.string())),
        "bag": pa.array([[(f"k{k}", 1.0 + k % 3) for k in tags] for tags in tagged[::-1]], pa.map_(pa.string(), pa.float64())),
        "vector": pa.array(np.stack(vector, axis=1).astype(np.float32).tolist(), pa.list_(pa.float32(), 3)),
        "y": pa.array(y, mask=rng.random(n_rows) < 0.01),
        "label": pa.array(logit + rng.logistic(size=n_rows) > 0.0),
        "count": pa.array(rng.poisson(np.exp(0.3 * logit))),
        "kind": pa.array(np.array(["a", "b", "c"])[gumbels.argmax(axis=0)]),
        "weight": pa.array(rng.integers(0, 4, n_rows) / 2.0),
    }
    return pa.table(columns)


def write_data(folder: Path, seed: int, n_rows: int) -> Path:
    """Write three files in row groups that are merged, read whole, and streamed in slices."""
    folder.mkdir(parents=True)
    table = make_table(3 * n_rows, seed)
    for k, group in enumerate((90, 400, 1600)):
        pq.write_table(table.slice(k * n_rows, n_rows), folder / f"{k}.parquet", row_group_size=group)
    return folder


def write_all(folder: Path) -> Path:
    """Write what the runs learn from, and what one of them is judged on."""
    write_data(folder / "learn", 1, 2000)
    write_data(folder / "valid", 2, 500)
    return folder


# --- runs

NUMBERS = ["x0", "x1", "x2", "x3", "digit"]
STRINGS = ["x0", "x1", "x2", "colour", "device", "site"]
RAGGED = ["words", "tags", "bag", "vector", "flag"]
TIMES = ["when", "day"]

COMMON: dict[str, Any] = {
    "chunk_rows": 1000,
    "memory": "1GB",
    "executor": "inline",
    "bad_rows": "skip",
    "epochs": 2,
    "bits": 10,
    "validation": 0.0,  # the same rows in one pass and in several
}
DENSE: dict[str, Any] = {"features": NUMBERS, "transform": ["none"]}
WIDE: dict[str, Any] = {"features": STRINGS, "cross": ["colour*device"]}
DOUBLE: dict[str, Any] = {**DENSE, "precision": "float64"}
CAREFUL: dict[str, Any] = {**DENSE, "precision": "float64", "target": "label", "penalty": "l2:l2=0.001"}


def run_train(data: Path, **settings: Any) -> streamsgd.Model:
    """Train in one go."""
    if "valid" in settings:
        settings["valid"] = str(data / settings["valid"])
    return streamsgd.train(str(data / "learn"), **{**COMMON, **settings})


def run_in_pieces(data: Path, **settings: Any) -> streamsgd.Model:
    """Stop wherever it can be stopped, each start with other threads and memory."""
    places = ({"executor": "dask", "threads": 2}, {"executor": "inline", "memory": "700MB"})
    with tempfile.TemporaryDirectory() as folder:
        for start in range(200):
            try:
                where = {**settings, **places[start % 2], "checkpoint": f"{folder}/checkpoints", "time_limit": 1e-9}
                model = run_train(data, **where)
            except streamsgd.StreamSGDError as stop:
                if stop.exit_code != 75:
                    raise
            else:
                assert start > 3, "it was not stopped"
                return model
    raise AssertionError("it does not end")


def run_command(data: Path, **settings: Any) -> streamsgd.Model:
    """Train by the command line, which is stopped once and started again."""
    with tempfile.TemporaryDirectory() as folder:
        flags = [f"--{key.replace('_', '-')}={','.join(value) if isinstance(value, list) else value}" for key, value in
                 {**COMMON, **settings}.items()]  # fmt: skip
        command = [
            sys.executable,
            "-m",
            "streamsgd",
            "train",
            str(data / "learn"),
            "--out",
            f"{folder}/m.sgd",
            "--quiet",
            *flags,
        ]
        for more, expected in ((["--time-limit=1e-9"], 75), ([], 0)):
            done = subprocess.run([*command, *more], capture_output=True, check=False, text=True)
            assert done.returncode == expected, done.stderr
        return streamsgd.load(f"{folder}/m.sgd")


def run_tables(data: Path, **settings: Any) -> streamsgd.Model:
    """Learn from tables as they come."""
    trainer = streamsgd.Trainer(**{**COMMON, "epochs": 1, **settings})
    for path in sorted((data / "learn").iterdir()):
        trainer.partial_fit(pq.read_table(path))
    return trainer.model


def run_table(data: Path, **settings: Any) -> streamsgd.Model:
    """Train on a table in memory."""
    return streamsgd.train(pq.read_table(data / "learn"), **{**COMMON, **settings})


Run = tuple["Callable[..., streamsgd.Model]", dict[str, Any]]

RUNS: dict[str, Run] = {
    "sgd": (run_train, {**DOUBLE, "target": "y", "optimizer": "sgd", "schedule": "constant", "shuffle": "none"}),
    "momentum huber l2 step": (
        run_train,
        {**DENSE, "target": "y", "loss": "huber:delta=0.8", "optimizer": "momentum", "learning_rate": 0.01,
         "penalty": "l2:l2=0.01", "schedule": "step:gamma=0.5"},
    ),
    "nesterov quantile warm-up block": (
        run_train,
        {**DENSE, "target": "y", "loss": "quantile:level=0.8", "optimizer": "nesterov", "learning_rate": 0.01,
         "schedule": "warm-up:warmup=40", "shuffle": "block"},
    ),
    "adagrad softmax l1 strings": (
        run_train,
        {**WIDE, "target": "kind", "optimizer": "adagrad", "penalty": "l1:l1=0.0005", "chunk_rows": 700},
    ),
    "rmsprop hinge inverse-scaling clipped": (
        run_train,
        {**DENSE, "target": "label", "loss": "hinge", "optimizer": "rmsprop", "schedule": "inverse-scaling:power=0.3",
         "clip_norm": 0.5, "clip_value": 0.2, "batch_size": 48, "rate_scaling": "sqrt", "shuffle": "full-chunk"},
    ),
    "adam held out": (
        run_train,
        {"features": [*NUMBERS, "flag"], "target": "label", "optimizer": "adam", "validation": 0.2, "validate_every": 1500,
         "epochs": 3, "transform": ["auto", "x3=bins"]},
    ),
    "adamw squared-hinge elastic-net cosine": (
        run_train,
        {**DENSE, "target": "label", "loss": "squared-hinge", "optimizer": "adamw", "penalty": "elastic-net:l1=0.001,l2=0.01",
         "schedule": "cosine:floor=0.1,warmup=20", "seed": 7},
    ),
    "amsgrad poisson weights": (
        run_train,
        {**DENSE, "target": "count", "task": "poisson", "weight": "weight", "optimizer": "amsgrad",
         "learning_rate": 0.02, "scale": ["robust", "x0=max-abs"]},
    ),
    "ftrl strings crosses": (
        run_train,
        {**WIDE, "target": "label", "optimizer": "ftrl:l1=0.5,l2=0.1", "cross": ["site*device", "colour*x0"], "batch_size": 1},
    ),
    "svrg": (run_train, {**CAREFUL, "optimizer": "svrg", "epochs": 6}),
    "svrg strings": (
        run_train, {**WIDE, "target": "y", "optimizer": "svrg", "penalty": "l2:l2=0.01", "epochs": 4, "precision": "float64"}
    ),
    "race everything": (
        run_train,
        {"features": [*STRINGS, *RAGGED, *TIMES], "target": "label", "epochs": 1, "text": ["words"], "ngrams": 2,
         "time_parts": ["when", "day.month"], "categorical": ["flag"], "cross": ["colour*when.hour"]},
    ),
    "race numbers": (run_train, {**DENSE, "target": "y", "optimizer": "race", "epochs": 1}),
    "race softmax ragged": (
        run_train, {"features": ["x0", *RAGGED], "target": "kind", "text": ["words"], "validation": 0.1, "epochs": 2}
    ),
    "nag row by row strings": (run_train, {**WIDE, "target": "label", "optimizer": "normalized", "batch_size": 1}),
    "nag numbers": (run_train, {**DENSE, "target": "y", "optimizer": "normalized", "scale": ["none"]}),
    "coin strings": (run_train, {**WIDE, "target": "label", "optimizer": "coin"}),
    "coin numbers": (run_train, {**DENSE, "target": "y", "loss": "huber:delta=1", "optimizer": "coin"}),
    "adam times strings": (
        run_train,
        {"features": ["x0", "x1", *TIMES, "colour", "site"], "target": "y", "optimizer": "adam", "time_parts": ["when"]},
    ),
    "sgd strings l2": (run_train, {**WIDE, "target": "y", "optimizer": "sgd", "penalty": "l2:l2=0.001"}),
    "momentum strings l1": (
        run_train, {**WIDE, "target": "label", "optimizer": "momentum", "learning_rate": 0.02, "penalty": "l1:l1=0.0002"}
    ),
    "nesterov strings elastic-net": (
        run_train,
        {**WIDE, "target": "label", "optimizer": "nesterov", "learning_rate": 0.02,
         "penalty": "elastic-net:l1=0.0001,l2=0.001"},
    ),
    "adagrad numbers": (run_train, {**DENSE, "target": "y", "optimizer": "adagrad"}),
    "rmsprop strings": (
        run_train, {**WIDE, "target": "count", "task": "poisson", "optimizer": "rmsprop", "learning_rate": 0.01}
    ),
    "adamw strings": (run_train, {**WIDE, "target": "label", "optimizer": "adamw", "precision": "float64"}),
    "amsgrad strings": (run_train, {**WIDE, "target": "y", "optimizer": "amsgrad", "penalty": "l2:l2=0.001"}),
    "ftrl numbers": (run_train, {**DENSE, "target": "label", "optimizer": "ftrl:l1=0.2"}),
    "lanes in step strings": (
        run_train, {**WIDE, "target": "label", "optimizer": "adagrad", "lanes": 3, "combine": "sync", "batch_size": 256}
    ),
    "lanes averaged": (
        run_train, {**WIDE, "target": "label", "optimizer": "adam", "lanes": 4, "combine": "average", "validation": 0.1}
    ),
    "lanes averaged nag": (run_train, {**WIDE, "target": "y", "optimizer": "normalized", "batch_size": 1, "lanes": 3}),
    "lanes in step": (
        run_train,
        {**DENSE, "target": "label", "optimizer": "adam", "lanes": 4, "combine": "sync", "batch_size": 512, "epochs": 4},
    ),
    "lanes in step full batch": (
        run_train,
        {**DENSE, "target": "y", "optimizer": "momentum", "learning_rate": 0.05, "lanes": 4, "combine": "sync",
         "batch_size": "full", "epochs": 5},
    ),
    "polish standard errors": (
        run_train, {**CAREFUL, "optimizer": "adam", "epochs": 1, "polish": 60, "standard_errors": True, "weight": "weight"}
    ),
    "polish l1 strings": (
        run_train,
        {**WIDE, "target": "y", "optimizer": "adam", "penalty": "elastic-net:l1=0.01,l2=0.01", "epochs": 1, "polish": 40,
         "precision": "float64"},
    ),
    "polish lanes softmax": (
        run_train,
        {**DOUBLE, "target": "kind", "optimizer": "adam", "penalty": "l2:l2=0.01", "epochs": 1, "polish": 40, "lanes": 3},
    ),
    "average standard errors": (
        run_train, {**DOUBLE, "target": "y", "optimizer": "sgd", "average": "auto", "standard_errors": True, "epochs": 3}
    ),
    "patience": (
        run_train,
        {**DENSE, "target": "label", "optimizer": "adam", "valid": "valid", "patience": 1, "min_improvement": 0.01,
         "epochs": 9},
    ),
    "filter missing infinite": (
        run_train,
        {"features": [*NUMBERS, "broken", "device"], "target": "y", "filter": "x0 > -1 and digit < 8",
         "missing": ["indicator", "x0=zero"],
         "infinite": "missing", "optimizer": "adam", "batch_size": 77},
    ),
    "table in memory": (run_table, {**WIDE, "target": "label", "epochs": 1}),
    "tables as they come": (run_tables, {**WIDE, "target": "label", "optimizer": "adam"}),
    "tables as they come row by row": (run_tables, {"features": [*STRINGS, "words"], "target": "y", "text": ["words"]}),
}  # fmt: skip

ALIKE: dict[str, tuple[Callable[..., streamsgd.Model], str, dict[str, Any]]] = {
    "adam held out, stopped": (run_in_pieces, "adam held out", {}),
    "svrg, stopped": (run_in_pieces, "svrg", {}),
    "polish standard errors, stopped": (run_in_pieces, "polish standard errors", {}),
    "race everything, stopped": (run_in_pieces, "race everything", {}),
    "lanes averaged, stopped": (run_in_pieces, "lanes averaged", {}),
    "lanes averaged, on workers": (run_train, "lanes averaged", {"workers": 2}),
    "lanes in step, on workers": (run_train, "lanes in step", {"workers": 2}),
    "filter missing infinite, by threads": (run_train, "filter missing infinite", {"executor": "dask", "threads": 2}),
    "race numbers, by the command line": (run_command, "race numbers", {}),
}
"""Other ways to a run's bits: how, which run, and what is set otherwise."""


# --- what came out


def digest(model: streamsgd.Model, data: Path) -> str:
    """Return the sha256 of all that was learned and of what it predicts, without places, times and versions."""
    found = hashlib.sha256(f"{model.weights.dtype.str} {model.weights.shape}".encode())
    found.update(np.ascontiguousarray(model.weights).tobytes())
    if model.covariance is not None:
        found.update(np.ascontiguousarray(model.covariance).tobytes())
    counts = {key: model.provenance[key] for key in ("rows", "rows_learned", "steps", "epochs", "counts")}
    measured = streamsgd.evaluate(model, str(data / "valid"), executor="inline", memory="1GB")
    measured = {key: value for key, value in measured.items() if key in MEASURED}
    known = {"metrics": model.metrics, "counts": counts, "common": model.common, "measured": measured}
    found.update(json.dumps(known, sort_keys=True).encode())  # floats as their repr
    found.update(np.ascontiguousarray(model.decision_function(pq.read_table(data / "valid"))).tobytes())
    with tempfile.TemporaryDirectory() as folder:
        streamsgd.predict(model, str(data / "valid"), f"{folder}/out", executor="inline", memory="1GB")
        for path in sorted(Path(folder, "out").rglob("*.parquet")):
            found.update(json.dumps(pq.read_table(path).to_pydict(), sort_keys=True).encode())
    return found.hexdigest()


def plain(model: streamsgd.Model, data: Path) -> list[float]:
    """Return the progressive loss, the length of the weights, and the mean size of the scores.

    A shift that all classes share means nothing, and rounding decides it where nothing penalises intercepts: it is taken out.
    """
    scores = model.decision_function(pq.read_table(data / "learn")).astype(np.float64)
    weights = model.weights.astype(np.float64)
    if scores.ndim > 1:
        scores -= scores.mean(axis=1, keepdims=True)
        weights -= weights.mean(axis=1, keepdims=True)
    return [model.metrics["progressive_loss"], math.sqrt(float(np.square(weights).sum())), float(np.abs(scores).mean())]


def outcome(name: str, data: Path) -> tuple[str, list[float]]:
    """Do a run; return its digest and three plain floats."""
    if name in RUNS:
        how, settings = RUNS[name]
    else:
        how, same, others = ALIKE[name]
        settings = {**RUNS[same][1], **others}
    model = how(data, **settings)
    return digest(model, data), plain(model, data)


def machine() -> str:
    """Name what rounding depends on: the processor that kernels are compiled for, and who compiles."""
    processor = numba.config.CPU_NAME or llvmlite.binding.get_host_cpu_name()
    features = numba.config.CPU_FEATURES
    features = llvmlite.binding.get_host_cpu_features().flatten() if features is None else features
    mark = hashlib.sha256(features.encode()).hexdigest()[:12]
    versions = f"numpy {np.__version__}, numba {numba.__version__}, llvmlite {llvmlite.__version__}, pyarrow {pa.__version__}"
    libc = "-".join(platform.libc_ver())
    return f"{processor} {mark}, python {sys.version_info.major}.{sys.version_info.minor}, {versions}, {libc}"


def read_golden() -> dict[str, Any]:
    """Return what was noted: digests by machine and run, floats by run."""
    return json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {"digests": {}, "floats": {}}


def main(arguments: list[str]) -> int:
    """Do all runs, and note or compare what they come to."""
    golden, here = read_golden(), machine()
    digests, floats = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        data = write_all(Path(folder))
        for name in [*RUNS, *ALIKE]:
            began = time.monotonic()
            found, numbers = outcome(name, data)
            seconds = time.monotonic() - began
            if name in RUNS:
                digests[name], floats[name] = found, numbers
                good = found == golden["digests"].get(here, {}).get(name, found)
            else:
                good = found == digests[ALIKE[name][1]]
            sys.stdout.write(f"{seconds:6.1f} s  {'' if good else 'OTHER BITS '}{name}  {numbers}\n")
            sys.stdout.flush()
    if "--write" in arguments:
        golden = {"digests": {**golden["digests"], here: digests}, "floats": floats}
        GOLDEN.write_text(json.dumps(golden, indent=1, sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
