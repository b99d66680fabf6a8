"""Every remedy that a message names exists on the commands that can print it."""

import ast
import re
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streamsgd
from streamsgd.cli.commands import cli
from streamsgd.errors import DataError, SchemaError

PACKAGE = Path(streamsgd.__file__).parent
FLAG = re.compile(r"--[a-z][a-z-]+")
FLAGS = {name: {option for param in command.params for option in param.opts} for name, command in cli.commands.items()}

PRINTED_BY = {
    "training/warmup.py": ("warmup",),
    "data/stores/output.py": ("train",),
    "data": ("train", "evaluate"),
    "stream": ("train", "evaluate"),
    "features/encoder.py": ("train", "evaluate"),
    "features/target.py": ("train", "evaluate"),
    "model/predict.py": ("predict",),
    "model/evaluate.py": ("evaluate",),
    "model/exporting/export.py": ("export",),
    "model/exporting/onnx.py": ("export",),
    "api.py": ("evaluate",),
    "model/confusion.py": ("evaluate",),
    "model/evaluation.py": ("evaluate",),
    "model/posterior/intervals.py": ("predict",),
    "model/explaining/importance.py": ("importance",),
    "model/judge.py": ("evaluate",),
    "model/outputs.py": ("predict", "evaluate"),
    "stream/held.py": ("train",),
    "stream/groups.py": ("evaluate",),
    "training/noise/measure.py": ("noise",),
    "training/together/pilot.py": ("pilot",),
    "training/together/many.py": ("tune",),
    "training/together/tuning.py": ("tune",),
    "settings/grid.py": ("tune",),
    "model/lines.py": ("tune",),
}
"""Which commands print what a package or module says; what is not here, `train` alone does."""

OTHERS = {
    ("features/encoder.py", "--missing"),  # these two say themselves that they are for training
    ("features/encoder.py", "--precision"),
    ("data/stores/folders.py", "--exclude"),  # these three say "train ..." themselves
    ("data/normalise.py", "--exclude"),
    ("data/schemas.py", "--missing-columns"),
    ("training/backends/choose.py", "--memory-limit"),  # of Dask workers, which it says
    ("model/posterior/intervals.py", "--polish"),  # these two say "train it with ..."
    ("model/posterior/intervals.py", "--standard-errors"),
    ("training/phases/noisy.py", "--at"),  # of `streamsgd noise`, which these two say
    ("training/judged/refusals.py", "--at"),
    ("kernels/parts/optimizers.py", "--coin"),  # of Vowpal Wabbit
}
"""What is no flag of ours, or no advice to who reads it."""


@cache
def messages() -> list[tuple[str, str]]:
    """Return every text of the package that is not a docstring and names a flag, with its module."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if name.startswith(("settings/fields", "cli/", "show/", "compute/local_cluster")):  # which starts another program
            continue
        tree = ast.parse(path.read_text())
        said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said:
                found += [(name, flag) for flag in FLAG.findall(node.value)]
    return sorted(set(found) - OTHERS)


def commands_of(module: str) -> tuple[str, ...]:
    return next((PRINTED_BY[key] for key in (module, module.partition("/")[0]) if key in PRINTED_BY), ("train",))


def test_there_are_messages() -> None:
    assert ("stream/loader.py", "--bad-rows") in messages()
    assert len(messages()) > 40


@pytest.mark.parametrize(("module", "flag"), messages())
def test_a_flag_that_a_message_names_is_there(module: str, flag: str) -> None:
    for command in commands_of(module):
        assert flag in FLAGS[command], f"{module} advises {flag}, which {command} does not have"


def test_predict_has_what_reading_advises() -> None:
    for flag in ("--infinite", "--unreadable", "--filter"):
        assert flag in FLAGS["predict"]


# --- law: what is advised works

N = 60
X = np.sin(np.arange(N))
PLAIN = {"executor": "inline", "memory": "1GB", "epochs": 1}


def table(**columns: object) -> pa.Table:
    return pa.table({"x": X, "y": 2 * X, "w": np.ones(N)} | columns)


@pytest.mark.parametrize("lacking", ["y", "w"])
@pytest.mark.parametrize("columns", ["error", "null"])
def test_nulls_are_not_advised_for_what_every_row_needs(lacking: str, columns: str, tmp_path: Path) -> None:
    pq.write_table(table(), tmp_path / "a.parquet")
    pq.write_table(table().drop_columns([lacking]), tmp_path / "b.parquet")
    with pytest.raises(SchemaError) as refused:
        streamsgd.train(tmp_path, "y", weight="w", missing_columns=columns, **PLAIN)
    assert str(refused.value) == (
        f"b.parquet: has no column {lacking!r}, which other files have; a target or weight is needed in every row: write it "
        "there, or leave the file out"
    )


def test_a_vector_with_missing_numbers_can_be_left_out_as_the_message_says() -> None:
    vectors = pa.FixedSizeListArray.from_arrays(pa.array([1.0, None] * N), 2)
    with pytest.raises(DataError, match=r"feature 'v\[1\]' has 60 missing values") as refused:
        streamsgd.train(table(v=vectors), "y", missing=["error"], **PLAIN)
    excluded = re.findall(r"--exclude '([^']+)'", str(refused.value))
    assert streamsgd.train(table(v=vectors), "y", missing=["error"], exclude=excluded, **PLAIN).encoding.sources == ("x", "w")


@pytest.mark.parametrize(
    ("name", "said"), [("w", "the weight of each row: write it there"), ("y", "to be predicted: write it")]
)
def test_a_validation_set_without_a_column_is_called_by_its_flag(name: str, said: str, tmp_path: Path) -> None:
    path = str(tmp_path / "valid.parquet")
    pq.write_table(table().drop_columns([name]), path)
    with pytest.raises(DataError, match=rf"--valid {path} has no column '{name}', {said}"):
        streamsgd.train(table(), "y", weight="w", valid=path, **PLAIN)
    if name == "w":
        streamsgd.train(table(), "y", valid=path, exclude=["w"], **PLAIN)


def test_a_target_of_another_type_is_named_with_its_file(tmp_path: Path) -> None:
    pq.write_table(table(y=["a"] * N), tmp_path / "odd.parquet")
    model = streamsgd.train(table(), "y", **PLAIN)
    with pytest.raises(DataError, match=r"column 'y' of the data \(odd\.parquet\) is of type string; the model needs a number"):
        model.evaluate(tmp_path / "odd.parquet")


def test_numbers_beyond_float32_are_told_from_infinite_ones() -> None:
    large = table(x=pa.array([*X[1:], -1e300]))
    with pytest.raises(DataError, match=r"feature 'x' is beyond what float32 holds, as -1e\+300 is, in 1 row; .*float64"):
        streamsgd.train(table(), "y", **PLAIN).predict(large)
    assert np.isfinite(streamsgd.train(table(), "y", precision="float64", **PLAIN).predict(large)).all()
    with pytest.raises(DataError, match="feature 'x' is infinite in 1 row; clean it, or take that as missing: train with"):
        streamsgd.train(table(), "y", **PLAIN).predict(table(x=pa.array([*X[1:], np.inf])))
