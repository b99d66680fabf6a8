"""Every remedy that a message names exists on the commands that can print it."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import streamsgd
from streamsgd.cli.commands import cli

PACKAGE = Path(streamsgd.__file__).parent
FLAG = re.compile(r"--[a-z][a-z-]+")
FLAGS = {name: {option for param in command.params for option in param.opts} for name, command in cli.commands.items()}

PRINTED_BY = {
    "training/warmup.py": ("warmup",),
    "data": ("train", "evaluate"),
    "stream": ("train", "evaluate"),
    "features/encoder.py": ("train", "evaluate"),
    "features/target.py": ("train", "evaluate"),
    "model/predict.py": ("predict",),
    "model/evaluate.py": ("evaluate",),
    "model/export.py": ("export",),
    "model/onnx.py": ("export",),
    "api.py": ("evaluate",),
    "model/confusion.py": ("evaluate",),
    "model/evaluation.py": ("evaluate",),
    "model/intervals.py": ("predict",),
    "model/importance.py": ("importance",),
    "model/judge.py": ("evaluate",),
    "model/outputs.py": ("predict", "evaluate"),
    "stream/held.py": ("train",),
    "training/measure.py": ("noise",),
    "training/together/pilot.py": ("pilot",),
    "training/together/many.py": ("tune",),
    "training/together/tuning.py": ("tune",),
    "settings/grid.py": ("tune",),
    "model/lines.py": ("tune",),
}
"""Which commands print what a package or module says; what is not here, `train` alone does."""

OTHERS = {
    ("features/encoder.py", "--missing"),  # says itself that it is for training
    ("data/folders.py", "--exclude"),  # these three say "train ..." themselves
    ("data/normalise.py", "--exclude"),
    ("data/schemas.py", "--missing-columns"),
    ("training/backends/choose.py", "--memory-limit"),  # of Dask workers, which it says
    ("model/intervals.py", "--polish"),  # these two say "train it with ..."
    ("model/intervals.py", "--standard-errors"),
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
