"""Messages in two languages: flags for the command line, arguments for Python, from one text."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import streamsgd
from streamsgd.cli.main import main
from streamsgd.errors import SettingsError
from streamsgd.settings.describe import describe
from streamsgd.settings.flags import with_flag
from streamsgd.settings.make import make_settings
from streamsgd.settings.words import in_arguments

pytestmark = pytest.mark.python_words

TABLE = pa.table({"x": [0.0, 1.0] * 50, "y": [0, 1] * 50})


@pytest.mark.parametrize(
    ("flags", "arguments"),
    [
        ("no target: say which column to predict with --target", "no target: say which column to predict with target="),
        ("Clean it, or pass --bad-rows skip to leave out", "Clean it, or pass bad_rows='skip' to leave out"),
        ("leave these out with: --exclude 's' --exclude 't'", "leave these out with: exclude=['s', 't']"),
        ("--epochs: '-1' is not a whole number", "epochs: '-1' is not a whole number"),
        ("--memory 1.00 GB cannot hold it; --memory 130MB can", "memory='1.00 GB' cannot hold it; memory='130MB' can"),
        ("--filter 'a > 1' leaves no row", "filter='a > 1' leaves no row"),
        ("--penalty l2 with --optimizer coin needs", "penalty='l2' with optimizer='coin' needs"),
        ("which --missing error forbids", "which missing=['error'] forbids"),
        ("--resume always needs --checkpoint FOLDER", "resume='always' needs checkpoint=FOLDER"),
        ("pass --polish 50. Lower --learning-rate, or", "pass polish=50. Lower learning_rate=, or"),
        ("as --strict asks; --no-values hides", "as strict=True asks; values=False hides"),
        ("--from a.sgd: that model", "start='a.sgd': that model"),
        ("--seeds 0: pass 1 or more", "seeds=0: pass 1 or more"),
        ("workers of Dask: --memory-limit 4GB", "workers of Dask: --memory-limit 4GB"),
    ],
)
def test_flags_become_arguments(flags: str, arguments: str) -> None:
    assert in_arguments(flags) == arguments


@pytest.mark.parametrize(
    ("name", "value", "flags", "arguments"),
    [
        ("exclude", ("key", "day"), "with --exclude 'key' --exclude 'day'", "with exclude=['key', 'day']"),
        ("exclude", (), "without --exclude", "without exclude="),
        ("cross", ["a*b"], "with --cross 'a*b'", "with cross=['a*b']"),
        ("learning_rate", None, "without --learning-rate", "without learning_rate="),
        ("learning_rate", 0.5, "with --learning-rate 0.5", "with learning_rate=0.5"),
        ("values", False, "with --no-values", "with values=False"),
        ("values", True, "with --values", "with values=True"),
        ("penalty", "l2:l2=1e-4", "with --penalty l2:l2=1e-4", "with penalty='l2:l2=1e-4'"),
        ("penalty", "own:Part,a=1", "with --penalty 'own:Part,a=1'", "with penalty='own:Part,a=1'"),
        ("filter", "x > 1", "with --filter 'x > 1'", "with filter='x > 1'"),
        ("start", "m.sgd", "with --from 'm.sgd'", "with start='m.sgd'"),
    ],
)
def test_values_of_settings_are_written_as_whoever_reads_them_writes_them(
    name: str, value: Any, flags: str, arguments: str
) -> None:
    assert with_flag(name, value) == flags
    assert in_arguments(flags) == arguments


def test_no_flag_of_a_setting_is_left() -> None:
    for setting in describe():
        for text in (f"pass {setting.flag}", f"pass {setting.flag} x, or none", f"{setting.flag} 'a': wrong"):
            assert "--" not in in_arguments(text)


def test_what_python_raises_speaks_of_arguments_and_the_command_line_of_flags(tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(SettingsError, match=re.escape("epochs: -1 is not a whole number")):
        streamsgd.train(TABLE, "y", epochs=-1)
    with pytest.raises(SettingsError, match="say which column to predict with target="):
        streamsgd.train(TABLE, None)  # type: ignore[arg-type]
    assert main(["train", "nowhere", "-o", str(tmp_path / "m"), "--target", "y", "--epochs", "-1"]) == 2
    assert "error: --epochs: '-1' is not a whole number" in capsys.readouterr().err
    model = str(tmp_path / "m.sgd")
    streamsgd.train(TABLE, "y", out=model, executor="inline", epochs=1, optimizer="adam")
    with pytest.raises(streamsgd.StreamSGDError, match=r"no standard errors: train it with standard_errors=True") as refused:
        streamsgd.load(model).standard_errors()
    assert refused.value.in_flags
    assert "--standard-errors" in refused.value.in_flags


def test_scalars_of_numpy_and_arrow_paths_and_numbers_are_settings(tmp_path: Path) -> None:
    made = make_settings(
        {
            "target": pa.scalar("y"),
            "epochs": np.int64(3),
            "learning_rate": np.float32(0.5),
            "batch_size": np.array(32),
            "polish": np.uint8(2),
            "strict": np.bool_(True),
            "memory": 2_000_000_000,
            "seed": pa.scalar(7),
            "valid": tmp_path,
            "classes": np.array([0, 1]),
        }
    )
    assert (made.target, made.epochs, made.learning_rate, made.batch_size) == ("y", 3, 0.5, 32)
    assert (made.polish, made.strict, made.memory, made.seed) == (2, True, "2000000000", 7)
    assert (made.valid, made.classes) == (str(tmp_path), ("0", "1"))
    assert type(made.epochs) is int
    with pytest.raises(SettingsError, match="--epochs"):
        make_settings({"target": "y", "epochs": np.float64(1.5)})
