"""A loss and an optimizer of one's own, in a module, by name: trained, scored and shown by processes that know nothing else."""

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

import streamsgd
from streamsgd.cli.main import main
from streamsgd.errors import ModelError
from streamsgd.settings.registry import PARTS
from streamsgd.show.parts import list_parts

MODULE = '''
from typing import NamedTuple


class Pinball(NamedTuple):
    """streamsgd's quantile loss, as somebody else would write it."""

    level: float = 0.5
    task = "regression"

    def value(loss, y, score):
        error = y - score
        return max(loss.level * error, (loss.level - 1.0) * error)

    def slope(loss, y, score):
        if y > score:
            return -loss.level
        return 1.0 - loss.level if y < score else 0.0

    def mean(loss, score):
        return score


class Other(Pinball):
    pass


class Plain(NamedTuple):
    """Its sgd."""

    learning_rate: float = 0.5
    n_slots = 0

    def prepare(optimizer, step):
        return 0.0, 0.0

    def move(optimizer, w, g, slots, j, eta, shared):
        return w - eta * g, eta
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, a package with parts, a model trained with them, and one with ours."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "ownpkg").mkdir()
    (folder / "ownpkg" / "__init__.py").write_text("")
    (folder / "ownpkg" / "parts.py").write_text(MODULE)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1000, 2))
    pq.write_table(pa.table({"a": x[:, 0], "b": x[:, 1], "y": x @ [1.0, 2.0] + rng.normal(size=1000)}), folder / "d.parquet")
    for out, loss, optimizer in (
        ("own", "ownpkg.parts:Pinball,level=0.8", "ownpkg.parts:Plain"),
        ("ours", "quantile:level=0.8", "sgd"),
    ):
        told = run(
            folder,
            *("train", "d.parquet", "--target", "y", "--epochs", "2", "--loss", loss, "--optimizer", optimizer),
            *("--learning-rate", "0.05", "-o", f"{out}.sgd"),
        )
        assert told["status"] == "done"
    return folder


def process(folder: Path, *args: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    files = [str(folder / arg) if arg.endswith((".sgd", ".parquet", ".toml")) else arg for arg in args]
    command = [sys.executable, "-m", "streamsgd", *files]
    env = {**os.environ, "PYTHONPATH": path, **environ}
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=120, check=False)


def run(folder: Path, *args: str, **environ: str) -> dict[str, Any]:
    done = process(folder, *args, **environ)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


# --- law: they learn and score as the same parts of ours do


def test_parts_of_ones_own_learn_what_ours_learn(folder: Path) -> None:
    sys.path.insert(0, str(folder))
    try:
        own = streamsgd.load(folder / "own.sgd", loss="ownpkg.parts:Pinball")
    finally:
        sys.path.remove(str(folder))
    ours = streamsgd.load(folder / "ours.sgd")
    assert np.array_equal(own.weights, ours.weights)
    assert own.metrics == ours.metrics
    assert own.loss == ours.loss == (0.8,)
    assert own.provenance["parts"]["optimizer"] == "ownpkg.parts:Plain,learning_rate=0.05"


@pytest.mark.parametrize("where", ["flag", "variable", "file"])
def test_another_process_scores_with_them(folder: Path, where: str) -> None:
    (folder / "own.toml").write_text('loss = "ownpkg.parts:Pinball"\n')
    flags = {"flag": ("--loss", "ownpkg.parts:Pinball"), "variable": (), "file": ("--config", "own.toml")}[where]
    environ = {"STREAMSGD_LOSS": "ownpkg.parts:Pinball,level=0.8"} if where == "variable" else {}
    assert run(folder, "predict", "own.sgd", "d.parquet", "-o", f"{where}.parquet", *flags, **environ)["rows"] == 1000
    run(folder, "predict", "ours.sgd", "d.parquet", "-o", "ours.parquet")
    assert pq.read_table(folder / f"{where}.parquet").equals(pq.read_table(folder / "ours.parquet"))


def test_another_process_evaluates_and_shows_them(folder: Path) -> None:
    own = run(folder, "evaluate", "own.sgd", "d.parquet", "--loss", "ownpkg.parts:Pinball")
    assert own["metrics"] == run(folder, "evaluate", "ours.sgd", "d.parquet")["metrics"]
    assert run(folder, "show", "own.sgd", "--loss", "ownpkg.parts:Pinball", "--json")["loss"] == "Pinball"


# --- law: no file makes us import code


@pytest.mark.parametrize("command", [("predict", "-o", "none.parquet"), ("evaluate",)])
def test_a_model_alone_says_what_to_pass(folder: Path, command: tuple[str, ...]) -> None:
    done = process(folder, command[0], "own.sgd", "d.parquet", *command[1:])
    assert done.returncode == 2
    assert "no file makes us import code: say where it is with --loss ownpkg.parts:Pinball" in done.stderr


def test_another_loss_is_refused(folder: Path) -> None:
    done = process(folder, "evaluate", "own.sgd", "d.parquet", "--loss", "ownpkg.parts:Other")
    assert done.returncode == 2
    assert "was trained with the loss ownpkg.parts:Pinball, not with ownpkg.parts:Other" in done.stderr
    done = process(folder, "evaluate", "own.sgd", "d.parquet", "--loss", "ownpkg.part:Pinball")
    assert done.returncode == 2
    assert "cannot be imported" in done.stderr
    with pytest.raises(ModelError, match="was trained with the loss quantile, not with huber"):
        streamsgd.load(folder / "ours.sgd", loss="huber")


# --- law: `parts` tells all


def test_parts_lists_fields_defaults_and_sources(capsys: pytest.CaptureFixture[str]) -> None:
    found = list_parts()
    assert main(["parts", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found
    assert main(["parts"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for kind, parts in PARTS.items():
        assert f"--{kind.replace('_', '-')}" in lines
        for name, part in parts.items():
            told = found[kind][name]
            assert tuple(told["fields"]) == part._fields
            assert part(**told["fields"]) == part()
            assert told["title"].endswith(".")
            assert told["source"] or name == "none"
            values = {key: value if isinstance(value, str) else f"{value:g}" for key, value in told["fields"].items()}
            fields = ",".join(f"{key}={value}" for key, value in values.items())
            assert f"  {name}:{fields}".rstrip(":") in lines
            assert f"      {told['title']}" in lines
            assert not told["source"] or f"      {told['source']}" in lines
