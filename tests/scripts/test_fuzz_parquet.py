"""The fuzzer in small: mutants of Parquet files end as they should, and one that does not is found."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MUTANTS = 150


def test_no_mutant_crashes_hangs_or_is_a_bug() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "fuzz_parquet.py"), "--mutants", str(MUTANTS), "--seconds", "60"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    ends = json.loads(done.stdout.splitlines()[-1])["ends"]
    assert sum(ends.values()) == MUTANTS
    assert ends["ok"] > 0
    assert ends["refused"] > MUTANTS // 4
    assert ends["skipped"] > 0


def test_a_worker_that_dies_or_hangs_is_a_finding_and_the_rest_goes_on(tmp_path: Path) -> None:
    program = f"""
import os, sys, time
sys.path.insert(0, {str(ROOT / "scripts")!r})
import fuzz_parquet
def attempt(number, *_):
    if number == 2:
        os.kill(os.getpid(), 11)
    if number == 4:
        time.sleep(60)
    return "ok", ""
fuzz_parquet.attempt = attempt
from pathlib import Path
for number, end, _ in fuzz_parquet.batch(list(range(6)), 0, [], Path({str(tmp_path)!r}), 2.0):
    print(number, end.split(";")[0])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert said == {
        **{str(number): "ok" for number in (0, 1, 3, 5)},
        "2": "finding: dies of signal 11, status 0",
        "4": "finding: hangs for 2 s",
    }
