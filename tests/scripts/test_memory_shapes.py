"""Data that is small in a file and large in memory, in the smallest budget that is named; all shapes are the script's."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_smallest_budget_that_is_named_holds_a_list_of_two_million_among_short_ones(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "bench_memory.py"), "--shapes", "giant_list", "--budgets", "smallest"]
    done = subprocess.run([*command, "--data", str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = json.loads(done.stdout.splitlines()[-1])
    assert found["runs"][0]["peak"] <= found["smallest"]
