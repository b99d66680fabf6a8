"""Real tables with no preparation: default settings against a converged solver on a standard encoding, held out."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"
MOST_ROWS = 200_000
"""Of the flights and the connections, whose reference takes a minute."""

pytest.importorskip("sklearn")


def load_bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_tables", ROOT / "scripts/bench_tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_tables"] = module
    spec.loader.exec_module(module)
    return module


bench = load_bench()


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data folder is absent")
@pytest.mark.parametrize("problem", bench.PROBLEMS, ids=lambda problem: problem.name)
def test_defaults_are_within_two_percent_and_no_worse_than_standardised_numbers(problem: Any) -> None:
    fit = bench.measure(problem, SHARED, ["auto", "none"], MOST_ROWS)
    assert fit.epochs <= 3 or not problem.bar
    assert fit.excess() <= 2.0, f"{fit.losses['auto']:.6g}, the reference is {fit.reference:.6g}"
    assert fit.losses["auto"] <= 1.005 * fit.losses["none"]


def test_the_default_is_measured_beside_a_converged_solver() -> None:
    """On the one table that needs no file."""
    script = ROOT / "scripts" / "bench_defaults.py"
    command = [sys.executable, str(script), "--only", "diabetes", "--cases", "one,converged"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])["diabetes"]
    assert 40.0 < found["one"]["loss"] < 1.1 * found["converged"]
    assert abs(found["one"]["off"]) < 3.0
