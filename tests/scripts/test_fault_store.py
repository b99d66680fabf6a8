"""Faults of an object store in small: one scenario of every kind; 1,500 faults are `scripts/fault_store.py`."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "fault_store.py"


def test_every_kind_of_fault_ends_in_time_with_rows_accounted_for_or_an_error_that_names_the_object() -> None:
    kinds = ["403", "404", "429", "503", "expired", "html", "reset", "cut short", "garbled", "damaged", "replaced", "silent"]
    command = [sys.executable, str(SCRIPT), "--scenarios", "12", "--faults", "100000", "--kinds", *kinds]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["scenarios"] == 12
    assert found["faults"] >= 12
    assert len({ended.partition(":")[0] for ended in found["ended"]}) == 12
    assert any(ended.endswith("Error") for ended in found["ended"])
    assert any(ended.endswith("done") for ended in found["ended"])
