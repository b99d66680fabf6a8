"""What warmup compiled, later commands find: in another process, on other data, with other numbers."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from distributed import LocalCluster

import streamsgd
from streamsgd.errors import SettingsError

LATER = """
import json, sys
import streamsgd
from streamsgd.kernels.compile.jit import _kernels
from streamsgd.settings.make import make_settings
from streamsgd.training.run import train_model

folder = sys.argv[1]
settings = {"target": "late", "memory": "1GB", "optimizer": "adam:learning_rate=0.02", "epochs": 2, "validation": "none"}
model, _ = train_model(folder, make_settings(settings))
model.save(f"{folder}/../m.sgd")
streamsgd.predict(f"{folder}/../m.sgd", folder, f"{folder}/../scores")
streamsgd.evaluate(model, folder)
stats = {name: kernel.stats for name, kernel in _kernels()}
print(json.dumps([{name: [len(one.cache_misses), len(one.cache_hits)] for name, one in stats.items()}]))
"""


def run(cache: Path, *words: str) -> Any:
    """Run Python in a process of its own whose kernels are in a folder; return the JSON that it prints."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_run_after_warmup_compiles_nothing(tmp_path: Path) -> None:
    rng, data = np.random.default_rng(1), tmp_path / "data"
    data.mkdir()
    x = rng.normal(size=(5000, 3))
    table = pa.table({"a": x[:, 0], "b": x[:, 1].astype(np.float32), "n": rng.integers(0, 9, 5000), "late": x[:, 2] > 0})
    pq.write_table(table, data / "part.parquet", row_group_size=700)
    flags = ["--columns", "numbers", "--task", "binary", "--optimizer", "adam", "--json", "--quiet"]
    first = run(tmp_path / "kernels", "-m", "streamsgd", "warmup", *flags)
    assert first["compiled"] > 5
    assert first["folder"] == str(tmp_path / "kernels")
    (counts,) = run(tmp_path / "kernels", "-c", LATER, str(data))
    assert not {name for name, (compiled, _) in counts.items() if compiled}
    assert sum(found for _, found in counts.values()) > 5


def test_an_unknown_kind_of_columns_is_refused_with_those_there_are() -> None:
    with pytest.raises(SettingsError, match=r"columns.*valeus.*numbers or of values.*did you mean 'values'"):
        streamsgd.warmup(columns=["valeus"])


def test_every_worker_of_a_cluster_compiles() -> None:
    settings: dict[str, Any] = {"task": "binary", "optimizer": "adam", "executor": "inline"}
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None) as cluster:
        found = streamsgd.warmup(columns=["numbers"], scheduler=cluster.scheduler_address, **settings)
    assert found.workers == 2
    assert found.runs == ("numbers, two classes",)
    again = streamsgd.warmup(columns=["numbers"], **settings)
    assert (again.compiled, again.workers) == (0, 0)
