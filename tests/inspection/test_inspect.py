"""Inspection: bounded, never a crash, and right about whether order is a risk."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streamsgd
from streamsgd.errors import SettingsError
from streamsgd.planning.variance import design_effect

Write = Callable[..., Path]
CHUNK = {"memory": "1GB", "chunk_rows": 2_000, "batch_size": 64}


def labels(n: int = 40_000) -> np.ndarray:
    return (np.arange(n) >= 0.6 * n).astype(np.int32)


@pytest.mark.parametrize(("per_chunk", "batch"), [(1, 8), (4, 32), (4, 128), (20, 64)])
def test_the_design_effect_is_the_variance_of_batches(per_chunk: int, batch: int) -> None:
    """Var of a batch's mean over sigma^2 / b, simulated by drawing units, then rows."""
    rng = np.random.default_rng(per_chunk * 1000 + batch)
    units, rows = 20, 100
    y = rng.normal(size=(units, rows)) + np.linspace(-2, 2, units)[:, None]
    draws = np.array(
        [rng.choice(y[rng.permutation(units)[:per_chunk]].ravel(), batch, replace=False).mean() for _ in range(8_000)]
    )
    between = y.mean(axis=1).var(ddof=1) / y.var()
    found = design_effect(between, units, per_chunk, rows, batch)
    assert found == pytest.approx(draws.var() / (y.var() / batch), rel=0.08)


def test_sorted_labels_are_a_risk_and_mixed_ones_are_not(write: Write) -> None:
    y = labels()
    x = np.random.default_rng(0).normal(size=len(y))
    risk = streamsgd.inspect(write({"x": x, "y": y}, row_group_size=500), "y", **CHUNK).order
    assert risk is not None
    assert risk.between_units == pytest.approx(1.0, abs=0.05)
    assert risk.neighbours is not None
    assert risk.neighbours > 0.9
    assert risk.design_effect["none"] == pytest.approx(64, rel=0.1)
    assert 1.1 < risk.design_effect["corgi"] < 40
    assert "would fail" in risk.verdict["none"]
    assert "sorted" in risk.summary
    mixed = np.random.default_rng(1).permutation(y)
    calm = streamsgd.inspect(write({"x": x, "y": mixed}, row_group_size=500), "y", **CHUNK).order
    assert calm is not None
    assert all(0.8 < effect < 1.1 for effect in calm.design_effect.values())
    assert all("fine" in words for words in calm.verdict.values())
    assert "random order" in calm.summary


def test_a_chunk_that_holds_all_makes_any_order_fine(write: Write) -> None:
    data = write({"x": np.arange(40_000.0), "y": labels()}, row_group_size=500)
    order = streamsgd.inspect(data, "y", memory="2GB").order
    assert order is not None
    assert order.verdict["corgi"].endswith("fine")
    assert "would fail" in order.verdict["none"]


def test_classes_of_strings_count_in_every_row_group(write: Write) -> None:
    names = np.repeat(["a", "b", "c"], 3_000)
    data = write({"x": np.arange(9_000.0), "y": names}, row_group_size=3_000)
    found = streamsgd.inspect(data, "y", memory="2GB")
    assert found.target is not None
    assert found.target.task == "multiclass"
    assert found.target.shares == pytest.approx([1 / 3] * 3)
    assert [group.shares for group in found.target.row_groups] == np.eye(3).tolist()
    assert [group.row_group for group in found.target.row_groups] == [0, 1, 2]


def test_a_regression_target_keeps_its_units(write: Write) -> None:
    y = np.repeat([10.0, 20.0, 30.0, 40.0], 1_000)
    found = streamsgd.inspect(write({"x": y, "y": y}, row_group_size=1_000), "y", **CHUNK)
    assert found.target is not None
    assert found.target.mean == pytest.approx(25.0)
    assert [group.mean for group in found.target.row_groups] == pytest.approx([10, 20, 30, 40])


def test_columns_of_every_kind_are_summarised(tmp_path: Path) -> None:
    table = pa.table(
        {
            "f": pa.array([1.0, None, float("nan"), float("inf")]),
            "i": pa.array([1, 2, 3, None], pa.int8()),
            "s": ["a", "b", "b", None],
            "d": pa.array([0, 1, 2, 3], pa.date32()),
            "t": pa.array([0, 1, 2, 3], pa.timestamp("us")),
            "nested": [{"a": [1]}, None, {"a": []}, {"a": None}],
            "list": [[1], [], None, [2, 3]],
            "null": pa.nulls(4),
            "a.b": [1.5, 2.5, 3.5, 4.5],
        }
    )
    pq.write_table(table, tmp_path / "all.parquet")
    found = streamsgd.inspect(tmp_path / "all.parquet")
    columns = {column.name: column for column in found.columns}
    assert list(columns) == table.column_names
    assert not any(column.problem for column in found.columns)
    f = columns["f"]
    assert (f.nulls, f.nans, f.infinite, f.min, f.max, f.mean) == (1, 1, 1, 1.0, 1.0, 1.0)
    assert (columns["i"].mean, columns["i"].nulls) == (2.0, 1)
    assert columns["s"].distinct == 2
    assert [column.name for column in found.columns if not column.usable] == ["nested"]
    assert (columns["d"].min, columns["d"].max) == ("1970-01-01", "1970-01-04")
    assert columns["t"].max == "1970-01-01T00:00:00"
    assert columns["nested"].nulls == columns["list"].nulls == 1
    assert all(column.encoded_bytes is not None and column.encoded_bytes > 0 for column in found.columns)
    json.dumps(found.to_dict())


def test_files_without_rows_and_partitions_are_reported(tmp_path: Path) -> None:
    for year, rows in (("2020", 3), ("2021", 0)):
        (tmp_path / f"year={year}").mkdir()
        pq.write_table(pa.table({"x": np.arange(float(rows))}), tmp_path / f"year={year}" / "a.parquet")
    found = streamsgd.inspect(tmp_path)
    assert (found.files, found.rows, found.empty_files) == (2, 3, 1)
    assert found.partition_columns == ("year",)
    assert found.columns[1].mean == 2020.0
    empty = streamsgd.inspect(tmp_path / "year=2021")
    assert (empty.rows, empty.sample_rows) == (0, 0)


def test_wide_row_groups_are_sampled(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": np.zeros(200_000)}), tmp_path / "a.parquet")
    found = streamsgd.inspect(tmp_path)
    assert found.sample_rows == 65_536
    assert found.columns[0].rows == 65_536


def test_a_target_that_cannot_be_used_is_a_problem_not_an_error(write: Write) -> None:
    found = streamsgd.inspect(write({"x": [1.0, 2.0], "y": [1, 1]}), "y")
    assert found.order is None
    assert "constant" in found.problems[0]
    with pytest.raises(SettingsError, match="no column 'z'"):
        streamsgd.inspect(write({"x": [1.0]}), "z")


def test_a_budget_that_is_too_small_is_a_problem(write: Write) -> None:
    found = streamsgd.inspect(write({"x": np.arange(9.0), "y": np.arange(9.0)}), "y", memory="10MB")
    assert "smallest budget" in found.problems[0]


CHILD = """
import contextlib, io, json, sys
from streamsgd.cli.main import main
for line in sys.stdin:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["inspect", "--json", line.rstrip("\\n")])
        if code == 0:
            columns = [column["name"] for column in json.loads(out.getvalue())["columns"]]
            targets = [main(["inspect", line.rstrip("\\n"), f"--target={name}"]) for name in columns[:2]]
            code = max([code, *targets], key=lambda c: c not in (0, 2))
    print(json.dumps([code, err.getvalue()[-600:]]), flush=True)
"""


@pytest.mark.shared
@pytest.mark.parametrize("part", range(4))
def test_files_from_the_wild_are_read_or_refused(shared_data: Path, part: int) -> None:
    """Parquet that breaks readers, much of it on purpose: exit code 0 or 2, never a crash or a traceback."""
    paths = sorted((shared_data / "parquet").rglob("*.parquet"))[part::4]
    lines = "".join(f"{path}\n" for path in paths)
    child: Any = subprocess.run(
        [sys.executable, "-c", CHILD], input=lines, capture_output=True, text=True, timeout=240, check=False
    )
    results = [json.loads(line) for line in child.stdout.splitlines()]
    assert child.returncode == 0, (paths[len(results)], child.stderr[-600:])
    assert len(results) == len(paths)
    wrong = [(path.name, *result) for path, result in zip(paths, results, strict=True) if result[0] not in (0, 2)]
    assert not wrong


@pytest.mark.parametrize("coded", [False, True], ids=["plain", "categories"])
def test_different_strings_are_counted_however_long_and_however_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, coded: bool
) -> None:
    monkeypatch.setattr("streamsgd.data.parquet.pieces.RUN_BYTES", 2_000)
    column = pa.array([None if k % 50 == 0 else ("long " * 60 if k % 2 else "short ") + str(k % 70) for k in range(3_000)])
    pq.write_table(pa.table({"s": column.dictionary_encode() if coded else column}), tmp_path / "s.parquet", row_group_size=900)
    (found,) = streamsgd.inspect(str(tmp_path / "s.parquet")).columns
    assert (found.rows, found.nulls, found.distinct) == (3_000, 60, len(set(column.drop_null().to_pylist())))
