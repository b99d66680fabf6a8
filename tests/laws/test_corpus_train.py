"""Files from the wild go through training: a model, or a refusal by name; never a crash or a hang."""

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "parquet"
pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data folder is absent"),
]
SECONDS = 120  # without a line from a child, which trains on hundreds of files in that time

CHILD = """
import json, sys
from streamsgd.data.types import is_number
from streamsgd.data.dataset import read_dataset
from streamsgd.errors import StreamSGDError
from streamsgd.settings.make import make_settings
from streamsgd.training.run import train_model

def outcome(path):
    try:
        dataset = read_dataset(path)
        numbers = [field.name for field in dataset.schema if is_number(field.type)]
        if len(numbers) < 2:
            return "no two numbers", ""
        *features, target = numbers
        settings = {"target": target, "features": features, "epochs": 1, "executor": "inline",
                    "bad_rows": "skip", "infinite": "missing", "memory": "2GB", "task": "regression"}
        model, _ = train_model(path, make_settings(settings))
        model.to_bytes()
        return "trained", model.provenance["rows_learned"]
    except StreamSGDError as error:
        return "refused", str(error)
    except Exception as error:
        import traceback
        return "bug", traceback.format_exc()

for line in sys.stdin:
    print(json.dumps(outcome(line.rstrip())), flush=True)
"""


class Fate(NamedTuple):
    kind: str
    detail: object


def fates(paths: list[str]) -> dict[str, Fate]:
    """Return what becomes of each path, in a process that is started again where it dies or hangs."""
    done: dict[str, Fate] = {}
    while len(done) < len(paths):
        rest = paths[len(done) :]
        try:
            child = subprocess.run(
                [sys.executable, "-W", "error::RuntimeWarning", "-c", CHILD],
                input="\n".join(rest),
                capture_output=True,
                check=False,
                text=True,
                timeout=SECONDS,
            )
            lines, end = child.stdout.splitlines(), f"exit code {child.returncode}: {child.stderr[-300:]}"
        except subprocess.TimeoutExpired as error:
            lines, end = (error.stdout or b"").decode().splitlines(), "hangs"
        done |= {path: Fate(*json.loads(line)) for path, line in zip(rest, lines, strict=False)}
        if len(lines) < len(rest):
            done[rest[len(lines)]] = Fate("bug", end)
    return done


@pytest.fixture(scope="module")
def files() -> dict[str, Fate]:
    return fates(sorted(str(p) for p in SHARED.rglob("*") if p.is_file() and "\n" not in str(p)))


def test_every_file_trains_or_is_refused(files: dict[str, Fate]) -> None:
    bugs = {path: fate.detail for path, fate in files.items() if fate.kind == "bug"}
    assert not bugs
    assert sum(fate.kind == "trained" for fate in files.values()) > 30


def test_a_refusal_names_the_file_or_the_column(files: dict[str, Fate]) -> None:
    unnamed = {
        path: fate.detail
        for path, fate in files.items()
        if fate.kind == "refused"
        and Path(path).name not in str(fate.detail)
        and not any(word in str(fate.detail) for word in ("target '", "feature '", "column '"))
    }
    assert not unnamed


def test_every_folder_trains_or_is_refused() -> None:
    """Delta, partitions, schemas that drift: whole folders at once."""
    found = fates(sorted(str(path) for path in SHARED.rglob("*") if path.is_dir()))
    bugs = {path: fate.detail for path, fate in found.items() if fate.kind == "bug"}
    assert not bugs
