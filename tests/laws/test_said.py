"""What is said beside results reaches who calls from Python, in the words of Python, and nobody twice."""

import logging
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
from streamsgd.errors import DataError, SettingsError
from streamsgd.features.moments import Moments
from streamsgd.redact import Redactor

N = 60

CODE = """
import logging, streamsgd.api
{setup}
logging.getLogger("streamsgd").warning("--validation %r held out no row: pass --shuffle external", "x > 100")
"""


@pytest.mark.parametrize(
    ("setup", "shown"),
    [("", ""), ("logging.basicConfig()", "WARNING:streamsgd:"), ("logging.lastResort = None", None)],
)
def test_python_shows_warnings_in_its_own_words_and_once(setup: str, shown: str | None) -> None:
    ended = subprocess.run([sys.executable, "-c", CODE.format(setup=setup)], capture_output=True, text=True, check=True)
    told = "validation='x > 100' held out no row: pass shuffle='external'\n"
    assert ended.stderr == ("" if shown is None else shown + told)


@pytest.mark.python_words
def test_progress_in_python_speaks_its_words(capsys: pytest.CaptureFixture[str]) -> None:
    streamsgd.train(table(), "y", validation="x > 100", epochs=2, executor="inline", progress=True)
    shown = capsys.readouterr().err
    assert shown.count("validation='x > 100' held out no row") == 1
    assert "--" not in shown


def test_the_command_line_speaks_flags(tmp_path: Path, command_line: Any) -> None:
    pq.write_table(pa.table({"x": np.arange(N), "y": np.arange(N) * 2.0}), tmp_path / "a.parquet")
    held = ("--validation", "x > 100", "--epochs", "2")
    ended = command_line("train", str(tmp_path / "a.parquet"), "--target", "y", *held, "-o", str(tmp_path / "m.sgd"))
    assert ended.returncode == 0
    assert ended.stderr.count("--validation 'x > 100' held out no row") == 1


def test_the_handler_that_hides_secrets_shows_only_what_nobody_else_does(capsys: pytest.CaptureFixture[str]) -> None:
    """Python's last resort is for loggers without handlers, and this one has one of ours."""
    logger = logging.Logger("apart")  # noqa: LOG001  one that no other handler is above
    logging.Logger.manager.loggerDict["apart"] = logger
    try:
        logger.addHandler(Redactor())
        logger.warning("one")
        logger.info("two")
        logger.addHandler(logging.NullHandler())
        logger.warning("three")
    finally:
        del logging.Logger.manager.loggerDict["apart"]
    assert capsys.readouterr().err == "one\n"


# --- what is said


def table(**columns: Any) -> pa.Table:
    rng = np.random.default_rng(0)
    return pa.table({"x": rng.normal(size=N), "y": rng.normal(size=N), **columns})


@pytest.mark.parametrize("offset", [1 << 58, 1 << 60, -(1 << 61)])
def test_whole_numbers_of_which_float64_loses_the_last_digits_are_said(offset: int, caplog: Any) -> None:
    streamsgd.train(table(key=pa.array([offset + 97 * k for k in range(N)])), "y", executor="inline", epochs=1)
    assert sum("'key' has values of about" in message for message in caplog.messages) == 1


@pytest.mark.parametrize("column", [np.arange(N), np.full(N, 0.1), np.full(N, 1e18), 1.7e9 + np.arange(N) / 1e3, [None] * N])
def test_other_numbers_are_not(column: Any, caplog: Any) -> None:
    streamsgd.train(table(key=pa.array(column)), "y", executor="inline", epochs=1)
    assert not [message for message in caplog.messages if "has values of about" in message]


@pytest.mark.parametrize("size", [0.0, 1.0, 1e3, 1e9, 1e15])
def test_a_target_far_from_0_is_learned_as_one_near_it(size: float) -> None:
    """Deviations are lost in rounding below 1e-14 of the mean only; one of 2^50 and some was learned in units of its own."""
    x = np.arange(400.0)
    model = streamsgd.train({"x": x, "y": size + x}, "y", executor="inline")
    off = model.predict(pa.table({"x": x})) - (size + x)
    assert np.sqrt(np.mean(off**2)) < 8.0
    for value in (0.1, 1e18, 1 / 3):
        same = Moments()
        for part in range(1, 9):
            same.add(np.full(part * 1000, value))
        assert same.deviation == 1.0


def test_a_target_that_float64_cannot_tell_apart_is_refused_with_the_reason() -> None:
    with pytest.raises(DataError, match="beyond 2\\^53: subtract the least"):
        streamsgd.train(table().set_column(1, "y", pa.array([(1 << 62) + k for k in range(N)])), "y")


def test_columns_that_folders_hide_are_said(tmp_path: Path, caplog: Any) -> None:
    (tmp_path / "x=1").mkdir()
    pq.write_table(table(), tmp_path / "x=1" / "a.parquet")
    model = streamsgd.train(str(tmp_path), "y", features=["x"], executor="inline", epochs=1)
    assert caplog.messages.count("columns of files that the names of their folders hide: 'x'") == 1
    assert [column.shift for column in model.encoding.columns] == [1.0]


@pytest.mark.parametrize(("settings", "said"), [({}, 1), ({"validation": 0.3}, 0)])
def test_patience_without_rows_to_judge_by_is_said(settings: dict[str, Any], said: int, caplog: Any) -> None:
    streamsgd.train(table(), "y", patience=1, epochs=2, executor="inline", **settings)
    assert sum("--patience 1 had no held-out rows" in message for message in caplog.messages) == said


def test_a_column_that_float64_makes_constant_is_said(caplog: Any) -> None:
    streamsgd.train(table(key=pa.array([(1 << 63) + k for k in range(N)], pa.uint64())), "y", executor="inline", epochs=1)
    assert sum("'key' is 9.22337e+18 in every row" in message for message in caplog.messages) == 1


def test_files_that_are_named_twice_are_said(tmp_path: Path, caplog: Any) -> None:
    path = str(tmp_path / "a.parquet")
    pq.write_table(table(), path)
    model = streamsgd.train([path, path, str(tmp_path)], "y", executor="inline", epochs=1)
    assert model.provenance["rows_learned"] == N
    assert caplog.messages.count("2 files are named more than once, and are read once") == 1
    caplog.clear()
    streamsgd.train([path, path], "y", executor="inline", epochs=1)
    assert caplog.messages.count("1 file is named more than once, and is read once") == 1


def test_scores_among_the_data_are_said(tmp_path: Path, caplog: Any) -> None:
    for name in "ab":
        pq.write_table(table(), tmp_path / f"{name}.parquet")
    model = streamsgd.train(str(tmp_path), "y", executor="inline", epochs=1)
    for out, said in (("scores", 1), ("_scores", 0), (f"../{tmp_path.name}_scores", 0)):
        caplog.clear()
        streamsgd.predict(model, [str(tmp_path / f"{name}.parquet") for name in "ab"], os.path.normpath(tmp_path / out))
        assert sum("lies in the folder of the data" in message for message in caplog.messages) == said


# --- what was silent, and is refused


@pytest.mark.parametrize("weight", [1e13, 1e30, 1e308])
def test_weights_whose_squares_overflow_are_bad_rows(weight: float) -> None:
    data = table(w=np.full(N, weight))
    with pytest.raises(DataError, match="at most 1e12"):
        streamsgd.train(data, "y", weight="w", executor="inline")


def test_configurations_without_a_held_out_row_are_not_compared() -> None:
    with pytest.raises(SettingsError, match="no configuration has a loss of held-out rows"):
        streamsgd.tune(table().slice(0, 3), "y", {"learning_rate": [0.1, 0.2]}, validation="x > 100", executor="inline")


@pytest.mark.parametrize("flag", ["validation", "valid_filter"])
@pytest.mark.parametrize("condition", ["nothing > 1", "x >", "x + 1", "x.y > 1"])
@pytest.mark.python_words
def test_conditions_are_named_by_who_was_given_them(flag: str, condition: str, tmp_path: Path) -> None:
    pq.write_table(table(), tmp_path / "v.parquet")
    valid = {"valid": str(tmp_path / "v.parquet")} if flag == "valid_filter" else {}
    with pytest.raises(SettingsError, match=rf"^{flag}='{condition[0]}"):
        streamsgd.train(table(), "y", **valid, **{flag: condition})


# --- what was read otherwise from files than from tables


@pytest.mark.parametrize(
    "values",
    [
        pa.array([k % 3 for k in range(N)]),
        pa.array([k % 3 for k in range(N)], pa.int8()),
        pa.array(["abc"[k % 3] for k in range(N)]),
    ],
)
def test_dictionaries_are_categories_in_files_as_in_tables(values: Any, tmp_path: Path) -> None:
    whole = table(code=values.dictionary_encode())
    pq.write_table(whole, tmp_path / "a.parquet")
    pd = pytest.importorskip("pandas")
    frame = whole.to_pandas()
    frame.to_parquet(tmp_path / "b.parquet")
    assert isinstance(frame["code"].dtype, pd.CategoricalDtype)
    settings: dict[str, Any] = {"executor": "inline", "epochs": 1}
    first, *others = [
        streamsgd.train(data, "y", **settings) for data in (whole, str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet"))
    ]
    for other in others:
        assert other.encoding.taken_as() == first.encoding.taken_as()
        np.testing.assert_array_equal(other.predict(whole), first.predict(whole))
