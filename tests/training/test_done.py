"""Whether a run was made before: files that were replaced by others of their size and footer are noticed, in scoring too."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streamsgd
from streamsgd.errors import SettingsError
from streamsgd.settings.make import make_settings
from streamsgd.training.resuming.done import is_done

SETTINGS: dict[str, Any] = {"epochs": 1, "executor": "inline", "memory": "1GB", "batch_size": 64, "optimizer": "adam"}


def put(seed: int, place: Path) -> Path:
    """Write rows of a seed so that no other seed has another size or footer, and put them in their place at once."""
    x = np.random.default_rng(seed).normal(size=(1000, 2))
    table = pa.table({"a": x[:, 0], "b": x[:, 1], "y": x[:, 0] + 1.0})
    new = place.with_name("new")
    pq.write_table(table, new, compression="none", use_dictionary=False, write_statistics=False)
    new.rename(place)
    return place


def replace(place: Path) -> None:
    size = place.stat().st_size
    put(77, place)
    assert place.stat().st_size == size


def restore_older(place: Path) -> None:
    """Put another file there whose time of modification is long ago, as a copy from a backup has it."""
    replace(place)
    os.utime(place, ns=(10**18, 10**18))


def done_by_train(data: Path, out: Path) -> bool:
    there = is_done(out, str(data), make_settings({"target": "y", **SETTINGS}))
    streamsgd.train(str(data), "y", out=out, **SETTINGS)
    return there


def done_by_predict(data: Path, out: Path) -> bool:
    model = out.with_name("model.sgd")
    if not model.exists():
        streamsgd.train(str(data), "y", out=model, **SETTINGS)
    scored = streamsgd.predict(model, str(data), out, executor="inline", memory="1GB")
    truth = streamsgd.load(model).predict(pq.read_table(data))
    assert np.allclose(pq.read_table(out / data.name)["prediction"], truth)
    return scored.already_there == 1


def done_by_shuffle(data: Path, out: Path) -> bool:
    there = streamsgd.shuffle(str(data), out).already_there
    assert sorted(pq.read_table(out)["a"].to_pylist()) == sorted(pq.read_table(data)["a"].to_pylist())
    return there


@pytest.mark.parametrize("change", [replace, restore_older, os.utime], ids=["replaced", "older", "touched"])
@pytest.mark.parametrize("done", [done_by_train, done_by_predict, done_by_shuffle])
def test_what_was_made_of_files_that_were_written_since_is_made_again_and_that_is_said(
    done: Callable[[Path, Path], bool], change: Callable[[Path], Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data, out = put(1, tmp_path / "d.parquet"), tmp_path / "out"
    assert not done(data, out)
    assert done(data, out)
    assert done(data, out)
    change(data)
    with caplog.at_level(logging.WARNING, logger="streamsgd"):
        assert not done(data, out)
    assert any("d.parquet was written since" in record.getMessage() for record in caplog.records)
    assert done(data, out)


def test_a_folder_of_older_rows_with_files_of_others_is_not_replaced(tmp_path: Path) -> None:
    data, out = put(1, tmp_path / "d.parquet"), tmp_path / "out"
    streamsgd.shuffle(str(data), out)
    (out / "mine").write_text("mine")
    replace(data)
    with pytest.raises(SettingsError, match="holds other files too"):
        streamsgd.shuffle(str(data), out)
    assert (out / "mine").exists()
    assert list(out.glob("part-*"))
