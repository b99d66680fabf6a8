"""Row groups are read whole where memory has room that nothing else wants: the same model, in less of the processor's time."""

from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamsgd.settings.make import make_settings
from streamsgd.training import run
from streamsgd.training.run import prepare_from, train_model
from streamsgd.training.whole_groups import with_whole_groups

COLUMNS, ROWS = 12, 250_000
"""A row group of 12 strings, a code of 12 bytes each: 36 MB, of which a budget of 1 GB reads 32 at once."""

PLAIN: dict[str, Any] = {"target": "y", "memory": "1GB", "epochs": 1, "optimizer": "normalized", "bits": 14, "threads": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("groups") / "strings.parquet"
    words = pa.array([f"a value of some length {k}" for k in range(2_000)])
    columns = {f"c{j}": words.take(pa.array(rng.integers(0, 2_000, ROWS))) for j in range(COLUMNS)}
    pq.write_table(pa.table({**columns, "y": rng.integers(0, 2, ROWS).astype(np.int8)}), path, row_group_size=ROWS)
    return path


def test_a_row_group_is_read_whole_where_there_is_room(data: Path) -> None:
    job = prepare_from(str(data), make_settings(PLAIN))
    usual = run._prepared(str(data), make_settings(PLAIN), None, None, None)
    assert job.recipe.at_once > usual.recipe.at_once
    assert usual.budget.decode < job.budget.decode
    assert job.budget.projected <= job.budget.limit
    assert (job.budget.chunk_rows, job.budget.threads) == (usual.budget.chunk_rows, usual.budget.threads)


@pytest.mark.parametrize(
    "settings", [{"epochs": 2}, {"workers": 2}, {"lanes": 2, "chunk_rows": 50_000}, {"memory": "620MB"}], ids=str
)
def test_it_takes_no_room_that_something_else_wants(settings: dict[str, Any], data: Path) -> None:
    job = run._prepared(str(data), make_settings({**PLAIN, **settings}), None, None, None)
    assert with_whole_groups(job) is job


def test_files_that_are_far_are_read_in_parts(data: Path) -> None:
    settings = make_settings(PLAIN)
    job = run._prepared(f"memory://{_copied(data)}", settings, None, None, None)
    assert with_whole_groups(job) is job


def _copied(path: Path) -> str:
    there = fsspec.filesystem("memory")
    there.put_file(str(path), f"/groups/{path.name}")
    return f"groups/{path.name}"


def test_it_changes_no_byte(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = make_settings({**PLAIN, "values": True})
    whole, _ = train_model(str(data), settings)
    monkeypatch.setattr(run, "with_whole_groups", lambda job: job)
    parts, _ = train_model(str(data), settings)
    assert whole.values
    assert whole.to_bytes() == parts.to_bytes()
