"""With --cpu portable the bits do not depend on the processor; without it they may, which is written down and said."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streamsgd
from streamsgd.errors import ClusterError, SettingsError, Stopped
from streamsgd.kernels.compile.jit import cpu_target
from streamsgd.portable import PORTABLE, asked_for
from streamsgd.training.backends import pool

TARGETS = ("nehalem", "haswell", "x86-64")
"""Names of processors that Numba is told to compile for, all of which this one can stand for."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 5)).astype(np.float32)
    table = pa.table({f"x{j}": x[:, j] for j in range(5)} | {"y": x @ rng.normal(size=5) + rng.normal(size=3000) > 0})
    path = tmp_path_factory.mktemp("data") / "d.parquet"
    pq.write_table(table, path, row_group_size=500)
    return path


def trained(data: Path, out: Path, *flags: str, **variables: str) -> tuple[bytes, str]:
    """Train by the command line in an environment; return the bytes of the weights and the processor that is noted."""
    command = [sys.executable, "-m", "streamsgd", "train", str(data), "--target", "y", "-o", str(out), "--memory", "1GB"]
    command += ["--epochs", "2", "--optimizer", "adam", "--quiet", *flags]
    done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert json.loads(done.stdout.splitlines()[-1])["status"] == "done"
    model = streamsgd.load(out)
    return out.read_bytes(), model.provenance["versions"]["cpu"]


@pytest.mark.skipif("x86_64" not in os.uname().machine, reason="portable is a promise about x86-64")
def test_portable_gives_the_same_file_whatever_numba_and_numpy_are_told_of_the_processor(data: Path, tmp_path: Path) -> None:
    runs = {
        name: trained(data, tmp_path / f"{name}.sgd", "--cpu=portable", NUMBA_CPU_NAME=name, NPY_DISABLE_CPU_FEATURES=disabled)
        for name, disabled in zip(TARGETS, ("", "X86_V4", "X86_V3 X86_V4"), strict=True)
    }
    assert len({hashlib.sha256(model).hexdigest() for model, _ in runs.values()}) == 1
    assert {cpu for _, cpu in runs.values()} == {f"x86-64-v2 {hashlib.sha256(b'').hexdigest()[:12]}"}


def test_what_is_asked_for_is_found_in_every_spelling() -> None:
    portable = {"STREAMSGD_CPU": "portable"}
    assert asked_for(["train", "--cpu", "portable"], {})
    assert asked_for(["train", "--cpu=portable"], {})
    assert asked_for(["train"], portable)
    assert not asked_for(["train", "--cpu", "native"], portable)
    assert not asked_for(["train", "portable", "--cpu"], {})


def test_a_file_of_settings_asks_for_it_where_nothing_else_says_otherwise(tmp_path: Path) -> None:
    file, nothing, broken = (tmp_path / name for name in ("cpu.toml", "none.toml", "broken.toml"))
    file.write_text('cpu = "portable"\n')
    nothing.write_text("epochs = 2\n")
    broken.write_bytes(b"cpu = \xff")
    assert asked_for(["train", "--config", str(file)], {})
    assert asked_for(["train", f"--config={file}"], {})
    assert asked_for(["train"], {"STREAMSGD_CONFIG": str(file)})
    assert not asked_for(["train", "--config", str(file), "--cpu", "native"], {})
    assert not asked_for(["train", "--config", str(file)], {"STREAMSGD_CPU": "native"})
    assert not asked_for(["train", "--config", str(nothing)], {"STREAMSGD_CONFIG": str(file)})
    for path in (nothing, broken, tmp_path, tmp_path / "gone"):
        assert not asked_for(["train", "--config", str(path)], {})


def test_in_python_it_must_be_known_before_and_the_message_says_how(data: Path) -> None:
    with pytest.raises(SettingsError, match=r"before NumPy and Numba are loaded: .*NUMBA_CPU_NAME='x86-64-v2'"):
        streamsgd.train(data, "y", cpu="portable")
    assert {*PORTABLE} >= {"NUMBA_CPU_NAME", "NPY_DISABLE_CPU_FEATURES", "GLIBC_TUNABLES"}


def test_going_on_by_other_code_is_said(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    common = {"checkpoint": str(tmp_path / "c"), "optimizer": "adam", "chunk_rows": 500, "executor": "inline", "memory": "1GB"}
    monkeypatch.setattr("streamsgd.training.checkpoint.cpu_target", lambda: "haswell 0123")
    with pytest.raises(Stopped):
        streamsgd.train(data, "y", time_limit=1e-9, **common)
    assert streamsgd.train(data, "y", **common).provenance["versions"]["cpu"] == cpu_target()
    (line,) = [record.getMessage() for record in caplog.records if "last bits" in record.getMessage()]
    assert re.search(f"made by code for haswell 0123, this machine's is for {cpu_target()}", line)


def test_workers_of_another_processor_are_refused() -> None:
    class Worker:
        address = "tcp://10.0.0.2:1"

    compare = pool.WorkerPool._compare
    error = compare(pool.WorkerPool.__new__(pool.WorkerPool), Worker(), {**pool.versions(), pool.PROCESSOR: "znver4 0123"})
    assert isinstance(error, ClusterError)
    assert "compiled for znver4 0123" in str(error)
