"""Where a run writes: refused before any work, held while it lasts, and nothing of others is touched."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streamsgd
from streamsgd.errors import SettingsError, Stopped

COMMON: dict[str, Any] = {"executor": "inline", "memory": "2GB", "epochs": 2, "chunk_rows": 200, "optimizer": "adam"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "d.parquet"
    pq.write_table(pa.table({"x": rng.normal(size=2000), "y": rng.normal(size=2000)}), path, row_group_size=100)
    return path


def refused(data: Path, match: str, **settings: Any) -> None:
    """Check that a run is refused before its first event."""
    events: list[Any] = []
    with pytest.raises(SettingsError, match=match):
        streamsgd.train(data, "y", on_progress=events.append, **{**COMMON, **settings})
    assert not events


def test_places_that_cannot_hold_a_model_or_checkpoints_are_refused_first(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "m.sgd.ckpt").write_bytes(b"mine")
    (tmp_path / "link.sgd").symlink_to(tmp_path / "file")
    refused(data, "is a folder; name a file in it", out=tmp_path)
    refused(data, "is a device", out="/dev/null")
    refused(data, "is a link", out=tmp_path / "link.sgd")
    refused(data, "cannot be written: ", out=tmp_path / "file" / "m.sgd")
    refused(data, r"m\.sgd\.ckpt: is a file, and checkpoints need a folder", out=tmp_path / "m.sgd")
    refused(data, "is a file, and checkpoints need a folder", out=tmp_path / "n.sgd", checkpoint=str(tmp_path / "file"))
    assert {path.name for path in tmp_path.iterdir()} == {"file", "m.sgd.ckpt", "link.sgd"}
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_of_two_runs_on_one_output_the_second_is_refused_and_the_first_goes_on(data: Path, tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def wait(_event: Any) -> None:
        begun.set()
        assert go_on.wait(60)

    def first() -> None:
        streamsgd.train(data, "y", out=tmp_path / "m.sgd", checkpoint=str(tmp_path / "c"), on_progress=wait, **COMMON)

    thread = threading.Thread(target=first)
    thread.start()
    try:
        assert begun.wait(60)
        refused(data, r"--out .*m\.sgd: another run is writing it", out=tmp_path / "m.sgd")
        refused(data, "--checkpoint .*c: another run is writing it", out=tmp_path / "n.sgd", checkpoint=str(tmp_path / "c"))
    finally:
        go_on.set()
        thread.join()
    assert [path.name for path in tmp_path.iterdir()] == ["m.sgd"]


def test_starting_anew_deletes_checkpoints_of_ours_and_nothing_else(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    with pytest.raises(Stopped):
        streamsgd.train(data, "y", checkpoint=str(folder), time_limit=1e-9, **COMMON)
    (ours,) = [path.name for path in folder.iterdir()]
    (folder / f".{ours}.0123456789abcdef.partial").write_bytes(b"half")
    theirs = {"epoch3.ckpt", "model.ckpt", "upload.partial", ".hidden.partial", f"{ours}.bak", f"my-{ours}"}
    for name in theirs:
        (folder / name).write_bytes(b"precious")
    streamsgd.train(data, "y", checkpoint=str(folder), resume="never", **COMMON)
    assert {path.name for path in folder.iterdir()} == theirs
