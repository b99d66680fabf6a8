"""Kernels compile once, are kept on disk, and are plain Python."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamsgd.errors import DataError
from streamsgd.kernels.compile.jit import GivenFolder, NamedByKey

# --- law: kernels compile once, are kept on disk, and are plain Python

RUN = """
import json, sys
import numpy as np, pyarrow as pa, pyarrow.parquet as pq
from streamsgd.kernels.learn.fit import fit
from streamsgd.kernels.encode.shuffle import hold_out, merge, place
from streamsgd.kernels.encode.numbers import scatter_numbers
from streamsgd.settings.make import make_settings
from streamsgd.training.run import train_model

folder, changes = sys.argv[1], json.loads(sys.argv[2])
rng = np.random.default_rng(0)
x = rng.normal(size=(150, 3))
table = pa.table({**{f"x{j}": x[:, j] for j in range(3)}, "y": (x.sum(axis=1) > 0.1).astype(np.int8)})
table = table.append_column("whole", pa.array(np.arange(150) % 3)).append_column("real", pa.array(rng.random(150)))
pq.write_table(table, f"{folder}/data.parquet", row_group_size=40)
usual = dict(target="y", epochs=2, batch_size=8, precision="float64", executor="inline", memory="2GB",
             penalty="l2", optimizer="sgd", schedule="cosine", learning_rate=0.1, chunk_rows=60,
             validation=0.1, features=["x0", "x1", "x2"])
kernels = dict(fit=fit, place=place, merge=merge, scatter=scatter_numbers, hold_out=hold_out)
answer = []
for change in changes:
    model, _ = train_model(f"{folder}/data.parquet", make_settings({**usual, **change}))
    counts = {
        name: [len(k.signatures), sum(k.stats.cache_hits.values()), sum(k.stats.cache_misses.values())]
        for name, k in kernels.items() if hasattr(k, "signatures")
    }
    answer.append([model.weights.ravel().tolist(), counts])
print(json.dumps(answer))
"""
CHANGES = [
    {},
    {"executor": "dask", "threads": 2},
    {"learning_rate": 0.2, "penalty": "l2:l2=0.5", "schedule": "cosine:floor=0.5,warmup=3"},
    {"batch_size": 7, "epochs": 3, "chunk_rows": 25, "seed": 3, "shuffle": "none", "validation": 0.3},
    {"batch_size": "full", "scale": "none", "features": ["x0", "x2"], "validation": 0.0},
    {"clip_norm": 0.1, "clip_value": 1, "rate_scaling": "linear", "threads": 1, "memory": "1GB"},
    {"features": ["x0", "x1"], "weight": "whole"},
    {"features": ["x0", "x1"], "weight": "real", "infinite": "missing", "bad_rows": "skip"},
]


def run(folder: Path, changes: list[dict[str, Any]], **variables: str) -> Any:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder / "cache"), **variables}
    command = [sys.executable, "-c", RUN, str(folder), json.dumps(changes)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def cold(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("cold")
    return folder, run(folder, CHANGES)


def test_after_a_whole_run_each_kernel_has_one_signature_and_no_setting_compiles_another(
    cold: tuple[Path, Any],
) -> None:
    for change, (_, counts) in zip(CHANGES, cold[1], strict=True):
        assert {name: n for name, (n, _, _) in counts.items()} == dict.fromkeys(counts, 1), change


def test_the_second_process_finds_every_kernel_on_disk(cold: tuple[Path, Any]) -> None:
    folder, answers = cold
    [(weights, counts)] = run(folder, CHANGES[:1])
    assert weights == answers[0][0]
    for name, (n_signatures, hits, misses) in counts.items():
        assert (n_signatures, hits, misses) == (1, 1, 0), name


def test_inline_and_dask_give_the_same_bits(cold: tuple[Path, Any]) -> None:
    assert cold[1][0][0] == cold[1][1][0]


def test_without_numba_the_same_code_gives_the_same_weights(cold: tuple[Path, Any], tmp_path: Path) -> None:
    [(weights, counts)] = run(tmp_path, CHANGES[:1], NUMBA_DISABLE_JIT="1", PYTHONWARNINGS="ignore")
    assert not counts
    np.testing.assert_allclose(weights, cold[1][0][0], rtol=1e-9)


OWN = """
from typing import NamedTuple

class Own(NamedTuple):
    learning_rate: float = 0.5
    n_slots = 0

    def prepare(optimizer, step):
        return 0.0, 0.0

    def move(optimizer, w, g, slots, j, eta, shared):
        return w - FACTOR * eta * g, FACTOR * eta
"""
STEP = """
import numpy as np
from own import Own
from streamsgd.kernels.structs.block import Parts
from streamsgd.kernels.learn.fit import update
from streamsgd.kernels.structs.step import StepContext
from streamsgd.kernels.structs.state import State
from streamsgd.settings.registry import make
parts = Parts(make("loss", "squared"), make("penalty", "none"), Own(), make("schedule", "constant"))
state = State(np.zeros(1), np.zeros((1, 1)), np.ones(1), np.zeros(3, np.int64), np.zeros(3))
update(parts, state, StepContext(1, 1, 0.0, 0.0, 1.0), 1, 0.0)
print(state.weights[0], sum(update.stats.cache_hits.values()))
"""


def test_an_edited_part_of_ones_own_is_compiled_anew(tmp_path: Path) -> None:
    """Numba's own key does not see what a kernel calls: it would go on with the machine code of before."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(tmp_path)}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    seen = []
    for factor in ("1.0", "1.0", "3.0"):
        (tmp_path / "own.py").write_text(OWN.replace("FACTOR", factor))
        command = [sys.executable, "-c", STEP]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        seen.append([float(word) for word in done.stdout.split()])
    assert seen == [[-0.5, 0.0], [-0.5, 1.0], [-1.5, 0.0]]


def test_two_processes_that_compile_at_once_do_not_swap_their_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both read the index before either has written it."""
    files = [NamedByKey(str(tmp_path), "fit", "stamp") for _ in range(2)]
    with monkeypatch.context() as patched:
        for file in files:
            patched.setattr(file, "_load_index", dict)
        files[0].save(("first",), "code of the first")
        files[1].save(("second",), "code of the second")
    assert files[0].load(("second",)) == "code of the second"
    assert files[0].load(("first",)) is None  # forgotten, to be compiled again
    files[0].save(("first",), "code of the first")
    assert files[1].load(("second",)) == "code of the second"
    assert files[1].load(("first",)) == "code of the first"


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data.replace(b"streamsgd.errors", b"streamsgd.former"),  # of a version that named its modules otherwise
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: data[:-8] + b"\xff" * 8,
    ],
)
def test_an_index_of_another_version_or_a_damaged_one_is_made_anew(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    file = NamedByKey(str(tmp_path), "fit", "stamp")
    file.save((DataError,), "code")
    assert file.load((DataError,)) == "code"
    index = next(tmp_path.glob("*.nbi"))
    before = index.read_bytes()
    index.write_bytes(damage(before))
    assert index.read_bytes() != before
    assert file.load((DataError,)) is None
    file.save((DataError,), "code again")
    assert file.load((DataError,)) == "code again"


def test_damaged_code_is_compiled_again(tmp_path: Path) -> None:
    file = NamedByKey(str(tmp_path), "fit", "stamp")
    file.save(("key",), "code")
    next(tmp_path.glob("*.nbc")).write_bytes(b"half of")
    assert file.load(("key",)) is None


WITHOUT_FOLDERS = """
import sys
from streamsgd.kernels.compile import jit
jit._Places._locator_classes = []
from streamsgd.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_where_no_cache_can_be_written_one_line_says_so_and_how_to_mend_it(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [0.0, 1.0] * 50, "y": [0.5, 1.0] * 50}), tmp_path / "d.parquet")
    command = [sys.executable, "-c", WITHOUT_FOLDERS, "plan", str(tmp_path / "d.parquet"), "--target", "y", "--memory", "1GB"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    # What takes more than a moment is said while it lasts, as compiling does here.
    (line,) = (line for line in done.stderr.splitlines() if not line.endswith("..."))
    assert line.startswith("warning: compiled kernels are not kept on disk")
    assert "NUMBA_CACHE_DIR" in line


def test_a_folder_of_kernels_that_cannot_be_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an image whose file system is read-only: Numba takes a folder only if it can write there."""

    def refuse(**_options: Any) -> None:
        raise PermissionError

    monkeypatch.setattr("numba.core.caching.config.CACHE_DIR", str(tmp_path / "kernels"))
    assert GivenFolder.from_function(refuse, __file__) is not None  # it makes the folder
    monkeypatch.setattr("numba.core.caching.tempfile.TemporaryFile", refuse)
    assert GivenFolder.from_function(refuse, __file__) is not None
    monkeypatch.setattr("numba.core.caching.config.CACHE_DIR", str(tmp_path / "others"))
    assert GivenFolder.from_function(refuse, __file__) is None  # where nothing is, Numba goes on to look
