"""Every command on every fault of data: it says what is wrong, and each remedy that it names is one of its own options."""

import logging
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

import streamsgd
from streamsgd.cli.commands import cli

N = 200
X = np.sin(np.arange(N))
OPTIONS = {name: {option for param in command.params for option in param.opts} for name, command in cli.commands.items()}


def table(**columns: object) -> pa.Table:
    return pa.table(
        {"x": X, "v": pa.FixedSizeListArray.from_arrays(pa.array(np.cos(np.arange(2.0 * N))), 2), "y": 2 * X} | columns
    )


def put(folder: Path, second: pa.Table) -> None:
    folder.mkdir()
    pq.write_table(table(), folder / "a.parquet")
    pq.write_table(second, folder / "b.parquet", compression="none", use_dictionary=False)


def damaged(folder: Path) -> None:
    put(folder, table())
    path = folder / "b.parquet"
    raw, at = bytearray(path.read_bytes()), pq.ParquetFile(path).metadata.row_group(0).column(0).data_page_offset
    raw[at : at + 30] = b"\xff" * 30
    path.write_bytes(raw)


def truncated(folder: Path) -> None:
    put(folder, table())
    path = folder / "b.parquet"
    path.write_bytes(path.read_bytes()[:-100])


def with_value(value: float | None) -> pa.Array:
    return pa.array([*X[1:], value])


FAULTS: dict[str, Callable[[Path], None]] = {
    "damaged": damaged,
    "truncated": truncated,
    "infinite": lambda folder: put(folder, table(x=with_value(np.inf))),
    "too large": lambda folder: put(folder, table(x=with_value(1e300))),
    "no target in a row": lambda folder: put(folder, table(y=with_value(None))),
    "no target in a file": lambda folder: put(folder, table().drop_columns(["y"])),
    "no feature in a file": lambda folder: put(folder, table().drop_columns(["x"])),
    "another type": lambda folder: put(folder, table(x=pa.array(["a"] * N))),
    "a nested feature": lambda folder: put(folder, table(s=pa.array([{"a": 1}] * N))),
}

COMMANDS = {
    **{name: ["--target", "y"] for name in ("plan", "inspect", "noise")},
    **{name: ["--target", "y", "-o", "OUT/m.sgd", "--epochs", "1"] for name in ("train", "tune")},
    **{name: ["-o", "OUT/scores"] for name in ("predict", "explain")},
    **{name: [] for name in ("evaluate", "importance", "compare", "shuffle")},
    "report": ["-o", "OUT/r.html"],
    "calibrate": ["-o", "OUT/c.sgd"],
}
OF_MODELS = ("predict", "explain", "evaluate", "importance", "report", "calibrate", "compare")

REMEDIES = {
    "damaged": ["--unreadable", "skip"],
    "infinite": ["--infinite", "missing"],
    "no target in a row": ["--bad-rows", "skip"],
}

FLAG = re.compile(r"--[a-z][a-z-]+")

OF_TRAINING = re.compile(r"train with --[a-z-]+ |train without it: --exclude|--shuffle (none|block|corgi) |\(--shuffle corgi\)")
"""Advice for another run, which says so; and what inspect says of orders."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "m.sgd"
    streamsgd.train(table(), "y", out=str(path), epochs=1, executor="inline", memory="1GB")
    return path


def run(command: str, data: Path, model: Path, out: Path, *more: str) -> Result:
    first = [str(model)] * (2 if command == "compare" else 1) if command in OF_MODELS else []
    rest = [part.replace("OUT", str(out)) for part in COMMANDS[command]]
    rest += [str(out / "rows")] if command == "shuffle" else ["--grid", "learning_rate=0.1,0.01"] if command == "tune" else []
    place = ["--memory", "1GB"] if "--memory" in OPTIONS[command] else []
    return CliRunner().invoke(cli, [command, *first, str(data), *rest, *place, *more])


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("command", COMMANDS)
def test_what_a_message_advises_is_an_option_of_its_command(
    command: str, fault: str, models: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    FAULTS[fault](tmp_path / "data")
    with caplog.at_level(logging.WARNING, "streamsgd"):
        done = run(command, tmp_path / "data", models, tmp_path)
    said = f"{done.exception or ''}\n{done.output}\n{caplog.text}"
    advice = OF_TRAINING.sub("", said)
    assert set(FLAG.findall(advice)) <= OPTIONS[command], advice
    if fault in REMEDIES and all(word in said for word in REMEDIES[fault]):
        (tmp_path / "again").mkdir()
        again = run(command, tmp_path / "data", models, tmp_path / "again", *REMEDIES[fault])
        assert again.exit_code == 0, again.exception


@pytest.mark.parametrize("command", ["predict", "explain"])
@pytest.mark.parametrize("condition", ["x > 5", "x * 1.0 > 5"], ids=["by statistics", "by reading"])
def test_a_filter_that_leaves_no_row_is_said(
    command: str, condition: str, models: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path / "data", table())
    with caplog.at_level(logging.WARNING, "streamsgd"):
        done = run(command, tmp_path / "data", models, tmp_path, "--filter", condition)
    assert done.exit_code == 0
    assert re.search(
        rf"--filter '{re.escape(condition)}' leaves no row: (none of 400 rows fulfils|no row group can)", caplog.text
    )
    with caplog.at_level(logging.WARNING, "streamsgd"):
        caplog.clear()
        run(command, tmp_path / "data", models, tmp_path, "--filter", "x > 0.9")
    assert "leaves no row" not in caplog.text
