"""Files from the wild, many broken on purpose: read, or refused by name; never a crash or a hang."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "parquet"
pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data folder is absent"),
]
SECONDS = 60  # for one file; all of them take a few

CHILD = """
import json, sys
from streamsgd.data.dataset import read_dataset, require
from streamsgd.errors import DataError
from streamsgd.data.filters import row_filter
from streamsgd.data.parquet.pruning import prune

def outcome(path):
    try:
        dataset = read_dataset(path)
        for column in dataset.schema.names:
            condition = row_filter(f"`{column}` is not None", dataset.schema)
            assert prune(dataset, condition).shape == (dataset.n_row_groups,)
        require(dataset, dataset.schema.names)
        return "read", dataset.n_rows
    except DataError as error:
        return "refused", str(error)
    except Exception as error:
        return "bug", f"{type(error).__name__}: {error}"

for line in sys.stdin:
    print(json.dumps(outcome(line.rstrip())), flush=True)
"""


def outcomes(paths: list[str]) -> dict[str, tuple[str, object]]:
    """Return what becomes of each path, in a process that is started again where it dies."""
    done: dict[str, tuple[str, object]] = {}
    while len(done) < len(paths):
        rest = paths[len(done) :]
        try:
            child = subprocess.run(
                [sys.executable, "-c", CHILD],
                input="\n".join(rest),
                capture_output=True,
                check=False,
                text=True,
                timeout=SECONDS,
            )
            lines, end = child.stdout.splitlines(), f"exit code {child.returncode}: {child.stderr[-300:]}"
        except subprocess.TimeoutExpired as error:
            lines, end = (error.stdout or b"").decode().splitlines(), "hangs"
        done |= {path: tuple(json.loads(line)) for path, line in zip(rest, lines, strict=False)}
        if len(lines) < len(rest):
            done[rest[len(lines)]] = ("bug", end)
    return done


@pytest.fixture(scope="module")
def found() -> dict[str, tuple[str, object]]:
    return outcomes(sorted(str(path) for path in SHARED.rglob("*") if path.is_file() and "\n" not in str(path)))


def test_every_file_is_read_or_refused_by_name(found: dict[str, tuple[str, object]]) -> None:
    bugs = {path: what for path, what in found.items() if what[0] == "bug"}
    assert not bugs
    unnamed = [path for path, (kind, text) in found.items() if kind == "refused" and Path(path).name not in text]
    assert not unnamed
    read = [path for path, what in found.items() if what[0] == "read"]
    assert len(read) > 250, "most of the corpus is sound"


def test_what_is_not_parquet_is_refused(found: dict[str, tuple[str, object]]) -> None:
    for path, (kind, _) in found.items():
        if path.endswith((".json", ".md", ".crc", ".gitkeep")):
            assert kind == "refused", path


def test_every_folder_is_read_or_refused_by_name() -> None:
    folders = sorted(str(path) for path in SHARED.rglob("*") if path.is_dir())
    bugs = {path: what for path, what in outcomes(folders).items() if what[0] == "bug"}
    assert not bugs


def test_counts_are_those_of_a_full_read(found: dict[str, tuple[str, object]]) -> None:
    """Rows that hyparquet's own tests expect, for the files that carry them."""
    checked = 0
    for path in (SHARED / "hyparquet").glob("*.parquet"):
        kind, rows = found[str(path)]
        expected = path.with_suffix(".metadata.json")
        if kind == "read" and expected.exists():
            assert rows == int(json.loads(expected.read_text())["num_rows"]), path.name
            checked += 1
    assert checked > 20
