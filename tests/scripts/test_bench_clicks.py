"""The bench of click logs in small: it runs, and says what it measured."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str) -> Any:
    command = [sys.executable, str(ROOT / "scripts" / "bench_clicks.py"), "--quick", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_clicks_are_learned_at_a_speed_that_is_measured_against_decoding_and_vowpal_wabbit() -> None:
    pytest.importorskip("vowpalwabbit")
    found = run()
    assert set(found["rows_per_second"]) == {"decode", "ours", "defaults", "loop", "text", "cache"}
    assert all(rate > 0 for rate in found["rows_per_second"].values())
    assert set(found["ratios"]) == {"ours / decode", "ours / defaults", "ours / text", "ours / cache"}
    loss = found["loss"]
    assert loss["true model"] < loss["ours"] < loss["constant"]
    assert loss["true model"] < loss["text"] < loss["constant"]
    assert loss["cache"] == pytest.approx(loss["text"], abs=1e-6)


def test_the_text_of_vowpal_wabbit_has_the_rows_of_the_parquet_and_is_found_again(tmp_path: Path) -> None:
    run("--cases", "decode", "--folder", str(tmp_path))
    files = [tmp_path / "clicks" / "part-00000.parquet", tmp_path / "clicks.vw"]
    table, made = pq.read_table(files[0]), [file.stat().st_mtime_ns for file in files]
    numbers = [name for name in table.column_names if name.startswith("I")]
    texts = [name for name in table.column_names if name.startswith("C")]
    with files[1].open() as lines:
        for row, line in zip(table.to_pylist(), lines, strict=True):
            kept = {name: value for name, value in row.items() if value is not None}
            counts = "".join(f" {name}:{kept[name]}" for name in numbers if name in kept)
            words = "".join(f" {name}={kept[name]}" for name in texts if name in kept)
            assert line == f"{'1' if row['label'] else '-1'} |I{counts} |C{words}\n"
    run("--cases", "decode", "--folder", str(tmp_path))
    assert [file.stat().st_mtime_ns for file in files] == made
