"""What is compiled: on the default path these kernels and no other, for no parameter anew, and each verb typed once."""

import gc
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pyarrow as pa
import pytest
from numba import njit, typeof
from numba.core import event
from numba.core.caching import NullCache
from numba.core.errors import TypingError
from numba.extending import overload

import streamsgd
from streamsgd.kernels.compile.inlining import inlined
from streamsgd.kernels.compile.jit import inline, kernel, lean, loaded_kernels
from streamsgd.kernels.structs.state import make_state
from streamsgd.kernels.structs.step import StepContext
from streamsgd.settings.make import make_settings
from streamsgd.settings.registry import PARTS, make
from streamsgd.training.prepare import prepare
from streamsgd.training.tasks.learn import compile_for

RUN = """
import json, sys
import numpy as np, pyarrow as pa, pyarrow.parquet as pq
from streamsgd.kernels.compile.jit import CompileClock, loaded_kernels
from streamsgd.settings.make import make_settings
from streamsgd.training.run import train_model

n, rng = 140_000, np.random.default_rng(0)
x = rng.normal(size=(n, 2)).astype(np.float32)
table = pa.table({"a": x[:, 0], "b": x[:, 1], "y": (x.sum(axis=1) + rng.normal(size=n) > 0).astype(np.int8)})
pq.write_table(table, f"{sys.argv[1]}/data.parquet", row_group_size=20_000)
answer = []
for change in json.loads(sys.argv[2]):
    with CompileClock() as clock:
        train_model(f"{sys.argv[1]}/data.parquet", make_settings({"target": "y", "epochs": 1, "memory": "1GB", **change}))
    answer.append([clock.seconds, loaded_kernels()])
print(json.dumps(answer))
"""
DEFAULT = {
    "learn.fit.fit": 2,  # the race, and its best learner in batches
    "compile.maths.signed_log1p": 1,
    "encode.shuffle.merge": 1,
    "encode.shuffle.place": 1,
    "encode.numbers.scatter_numbers": 1,
}
CHANGES = [
    {},
    {"optimizer": "race:learning_rate=2", "seed": 5, "schedule": "constant:warmup=9", "chunk_rows": 70_001},
    {"shuffle": "none", "scale": "none", "threads": 1, "executor": "inline"},
]


CALLED = """
import re, sys
import numpy as np, pyarrow as pa
from numba.core.registry import CPUDispatcher
import streamsgd

rng = np.random.default_rng(0)
table = pa.table({"a": rng.normal(size=500), "s": [f"v{k % 7}" for k in range(500)], "y": rng.normal(size=500)})
settings = {"target": "y", "epochs": 1, "optimizer": "adam", "executor": "inline", "standard_errors": True}
streamsgd.train(table, penalty="l2", polish=1, **settings)
dense = pa.table({**{f"x{k}": rng.normal(size=500) for k in range(9)}, "y": rng.integers(0, 2, 500)})
streamsgd.train(dense, polish=1, noise=True, **settings)
x = rng.normal(size=(40_000, 2))
rare = pa.table({"a": x[:, 0], "b": x[:, 1], "y": (x.sum(axis=1) + rng.logistic(size=40_000) > 3.0).astype(np.int8)})
streamsgd.train(rare, polish=1, rare="targeted:c=2", chunk_rows=4_000, **settings)
names = 0
for module in [m for name, m in sorted(sys.modules.items()) if name.startswith("streamsgd.kernels.")]:
    for kernel in [k for k in vars(module).values() if isinstance(k, CPUDispatcher)]:
        if "no_cpython_wrapper" in kernel.targetoptions or kernel.py_func.__module__ != module.__name__:
            continue
        for signature in kernel.signatures:
            code = kernel.inspect_asm(signature)
            named = set(re.findall(r"[$ \\t](_ZN9streamsgd[A-Za-z0-9_]+)", code))
            names += len(named)
            for other in named - set(re.findall(rf"(_ZN9streamsgd\\w*{kernel.py_func.__name__}\\w*)", code)):
                print(kernel.py_func.__name__, "calls", other)
print(names)
"""


def test_a_kernel_calls_no_helper_by_name(tmp_path: Path) -> None:
    """Two kernels that both hold a helper hold it compiled in two ways, and whoever comes first in a process would serve both.

    The last bit of a sum then depends on what the process had compiled and what it had found in the cache.
    """
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", CALLED], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *calls, names = done.stdout.splitlines()
    assert int(names) > 5, "the code of kernels was not found"
    assert calls == []


def test_the_default_path_compiles_these_kernels_once_and_no_setting_another(tmp_path: Path) -> None:
    """A kernel more is a quarter of a second of everybody's first run."""
    command = [sys.executable, "-c", RUN, str(tmp_path), json.dumps(CHANGES)]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (first, kernels), *others = json.loads(done.stdout)
    assert first > 0.0
    assert kernels == DEFAULT
    assert others == [[0.0, DEFAULT]] * len(others)


# --- law: a parameter is not a type


def parameters() -> list[tuple[str, str, str]]:
    return [(kind, name, key) for kind in ("loss", "penalty", "optimizer", "schedule") for name, cls in PARTS[kind].items()
            for key in get_type_hints(cls)]  # fmt: skip


@pytest.mark.parametrize(("kind", "name", "key"), parameters())
def test_a_value_of_a_parameter_is_no_type_of_its_own(kind: str, name: str, key: str) -> None:
    """Signatures are types: of equal ones Numba compiles one."""
    cls, kinds = PARTS[kind][name], {typeof(make(kind, name))}
    allowed = get_type_hints(cls, include_extras=True)[key].__metadata__[0]
    values = [
        value for value in (0.25, 0.5, 1, 2, 3) if allowed.holds(value) and isinstance(value, get_type_hints(cls)[key] | int)
    ]
    assert len(values) > 1
    for value in values:
        kinds.add(typeof(make(kind, f"{name}:{key}={value}")))
    assert len(kinds) == 1


def test_no_pace_of_a_run_is_a_type_of_its_own() -> None:
    paces = [
        StepContext(64, 3, 0.0, 0.1, 1.0),
        StepContext(1 << 62, 1 << 40, 3.5, 0.0, 100.0, 0.1, float("inf")),
        StepContext(1, 0, 0.5, 1e-9, 2.0, 1.0, 2.0),
    ]
    assert len({typeof(pace) for pace in paces}) == 1


@pytest.mark.parametrize("features", [["x"], ["x", "s"]])
def test_what_a_worker_compiles_before_it_learns_is_what_it_learns_by(features: list[str]) -> None:
    """And what is compiled for many rows is for one row too, whose columns are contiguous to NumPy."""
    x = np.random.default_rng(0).normal(size=200)
    table = pa.table({"x": x, "s": [f"v{k % 9}" for k in range(200)], "y": x > 0.0})
    given: dict[str, Any] = {"features": features, "optimizer": "adam", "epochs": 1, "executor": "inline", "memory": "1GB"}
    model = streamsgd.train(table, "y", **given)
    model.predict_proba(table)
    before, job = loaded_kernels(), prepare(table, make_settings({"target": "y", **given}))
    compile_for(job)
    model.predict_proba(table.slice(0, 1))
    assert loaded_kernels() == before
    assert typeof(job.recipe.allocate(1)) == typeof(job.recipe.allocate(0)) == typeof(job.recipe.allocate(100))


def test_states_in_which_all_weights_move_are_a_type_that_needs_no_list() -> None:
    some, all_ = (make_state(np.zeros(5), 2, np.float64, few=few) for few in (True, False))
    assert (some.touched.ndim, all_.touched.ndim) == (1, 2)


# --- law: a verb is typed once, and its statements are those of Numba's own inlining


def blend(x, y):
    return x * 0.3 + y


def blend_by_numba(x, y):
    return x * 0.3 + y


def twice(x, y):
    return x * 0.3 + y


def twice_by_numba(x, y):
    return x * 0.3 + y


def _blended(x, y):
    return blend(y, x) + blend(x, x)


def _blended_by_numba(x, y):
    return blend_by_numba(y, x) + blend_by_numba(x, x)


def _step(x, y):
    return x * 0.3 + y if x > y else y - x


inlined(blend)(lambda x, y: _step)
overload(blend_by_numba, inline="always")(lambda x, y: _step)
inlined(twice)(lambda x, y: _blended)
overload(twice_by_numba, inline="always")(lambda x, y: _blended_by_numba)


def loop(x, y):
    total = 0.0
    for i in range(x.shape[0]):
        total += twice(x[i], y[i]) * blend(y[i], total)
    return total


def loop_by_numba(x, y):
    total = 0.0
    for i in range(x.shape[0]):
        total += twice_by_numba(x[i], y[i]) * blend_by_numba(y[i], total)
    return total


@pytest.mark.filterwarnings("ignore:variable .* is not in scope")  # of Numba, about its own inlining as well
def test_what_is_inlined_rounds_as_if_numba_had_done_it_and_compiles_once() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 100)).astype(np.float32)
    answers, compiled = [], []
    for function in (loop, loop_by_numba):
        with event.install_recorder("numba:compile") as recorder:
            answers.append(njit(function)(x, y))
        compiled.append(len([None for _, found in recorder.buffer if found.is_start]))
    assert answers[0] == answers[1]
    assert compiled[0] == 1 < compiled[1]


def test_verbs_take_no_names() -> None:
    with pytest.raises((TypingError, TypeError), match="by position"):
        njit(lambda x: blend(x, y=x))(1.0)


@pytest.mark.parametrize("make_helper", [inline, lean])
def test_a_helper_of_kernels_can_be_called_from_python(make_helper: Any) -> None:
    """What kernels have of it has no code for Python, and Numba would jump to what is not there."""
    half = make_helper(lambda x: x / 2.0)
    for _ in range(2):
        assert kernel(lambda x: half(x) + 1.0)(3.0) == 2.5
        assert half(1.0) == 0.5


# --- law: the collector of garbage rests while anything compiles, and not longer


def test_garbage_is_collected_again_after_compiling() -> None:
    seen: list[bool] = []

    def watch(_event: Any) -> None:
        seen.append(gc.isenabled())

    class Watch(event.Listener):
        def on_start(self, event: Any) -> None:
            watch(event)

        def on_end(self, event: Any) -> None:
            watch(event)

    fresh = kernel(lambda x: x + 1.0)
    fresh._cache = NullCache()
    with event.install_listener("numba:run_pass", Watch()):
        fresh(1.0)
    assert seen
    assert not any(seen)
    assert gc.isenabled()
    with pytest.raises(TypingError):
        kernel(lambda x: x + "")(1.0)
    assert gc.isenabled()


def test_who_keeps_it_off_finds_it_off() -> None:
    gc.disable()
    try:
        kernel(lambda x: x + 2.0)(1.0)
        assert not gc.isenabled()
    finally:
        gc.enable()
