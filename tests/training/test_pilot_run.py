"""`train --batch-size pilot`: the run is that of the size that was found, to the byte, after stops too; nothing is hidden."""

import json
import logging
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import finish_chunk_by_chunk

import streamsgd
from streamsgd.cli.main import main
from streamsgd.errors import DivergedError, ModelError, SettingsError
from streamsgd.model.model import Model
from streamsgd.settings.make import make_settings
from streamsgd.training.prepare import prepare
from streamsgd.training.resuming.done import is_done

PILOT = "pilot:sizes=16-128,seeds=2,rows=700"
SETTINGS: dict[str, Any] = {
    "optimizer": "sgd",
    "learning_rate": 0.3,
    "memory": "2GB",
    "executor": "inline",
    "chunk_rows": 500,
    "epochs": 2,
    "validation": 0.1,
    "precision": "float64",
}


def rows_of(n: int, noise: float = 1.0) -> pa.Table:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 3))
    return pa.table({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "y": x.sum(axis=1) + noise * rng.normal(size=n)})


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("pilot") / "d.parquet"
    pq.write_table(rows_of(3000), file, row_group_size=250)
    return file


def without_pilot(model: Model) -> bytes:
    said = dict(model.provenance)
    said.pop("pilot", None)
    model.provenance = said
    return model.to_bytes()


# --- law: no row is wasted, and no bit is another


def test_the_run_is_that_of_the_size_that_was_found_and_goes_on_after_any_stop(path: Path, tmp_path: Path) -> None:
    """Stops within the pilot, with branches of both seeds under way, and behind it; polished, with standard errors."""
    settings = {**SETTINGS, "polish": 3, "standard_errors": True}
    model = streamsgd.train(path, "y", **settings, batch_size=PILOT)
    found = model.provenance["pilot"]
    bytes_ = model.to_bytes()
    assert found["chosen"] in (16, 128)
    assert found["rows"] >= 5 * 128 == found["steps"] * 128
    resumed, stops = finish_chunk_by_chunk(
        partial(streamsgd.train, path, "y", **settings, batch_size=PILOT),
        tmp_path / "saved",
        cycle([{}, {"executor": "threads"}]),
    )
    assert stops > 8
    assert resumed.to_bytes() == bytes_
    alone = streamsgd.train(path, "y", **settings, batch_size=found["chosen"])
    assert without_pilot(model) == alone.to_bytes()
    assert alone.provenance["rows_learned"] == model.provenance["rows_learned"]


def test_what_is_found_is_what_the_losses_say(path: Path) -> None:
    """By much noise the largest size is taken, by none the smallest; after the same steps, by rows that are held out."""
    chosen = {}
    for noise in (0.001, 30.0):
        found = streamsgd.train(rows_of(3000, noise), "y", **{**SETTINGS, "epochs": 1}, batch_size=PILOT).provenance["pilot"]
        losses = {line["batch_size"]: np.array(line["losses"]) for line in found["branches"]}
        assert {size: len(some) for size, some in losses.items()} == {16: 2, 128: 2}
        slope = (losses[16].mean() - losses[128].mean()) / (1 / 16 - 1 / 128)  # two sizes: the line goes through both
        np.testing.assert_allclose(found["fit"]["c"], slope, rtol=1e-9)
        needed = slope / 2.0 / max(found["fit"]["loss_se"], 0.005 * abs(found["fit"]["a"]))
        assert found["recommended"] == max(16, 2 ** int(np.ceil(np.log2(max(needed, 1.0)))))
        chosen[noise] = found["chosen"]
        # Of the other seed and of this one, 5 steps of each size; and the run that did not go on, of as many rows.
        assert found["rows_of_others"] == 2 * 5 * (16 + 128) + found["rows"]
    assert chosen == {0.001: 16, 30.0: 128}


def test_a_branch_that_diverges_is_left_out(path: Path) -> None:
    settings = {**SETTINGS, "learning_rate": 1e30, "epochs": 1}
    with pytest.raises(DivergedError, match="leave the sizes out that do"):
        streamsgd.train(path, "y", **settings, batch_size=PILOT)


# --- law: it says what it did


def test_the_command_says_what_was_chosen_and_why(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "m.sgd"
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in SETTINGS.items()]
    command = ["train", str(path), "--target", "y", "-o", str(out), "--batch-size", PILOT, *flags]
    assert main(command) == 0
    said = capsys.readouterr()
    result = json.loads(said.out.splitlines()[-1])
    assert result["pilot"] == streamsgd.load(out).provenance["pilot"]
    assert f"pilot: batches of {result['pilot']['chosen']} rows, of 16, 128" in said.err
    assert result["rows"] > result["pilot"]["rows"]
    settings = make_settings({"target": "y", **SETTINGS, "batch_size": PILOT})
    assert is_done(out, str(path), settings)
    assert not is_done(out, str(path), msgspec.structs.replace(settings, batch_size="pilot:sizes=16-64,seeds=2,rows=700"))
    assert main([*command, "--dry-run"]) == 0


def test_a_checkpoint_of_another_pilot_is_refused(path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = {**SETTINGS, "checkpoint": str(tmp_path / "saved"), "time_limit": 1e-9}
    with caplog.at_level(logging.WARNING), pytest.raises(streamsgd.errors.Stopped):
        streamsgd.train(path, "y", **settings, batch_size=PILOT)
    with pytest.raises(ModelError, match="another pilot"):
        streamsgd.train(path, "y", **settings, batch_size="pilot:sizes=16-128,seeds=2,rows=400")
    with pytest.raises(ModelError, match="several runs that shared a decode"):
        streamsgd.train(path, "y", **settings, batch_size=64)


# --- law: what has no size to find is refused


@pytest.mark.parametrize(
    ("size", "settings", "words"),
    [
        ("pilot:sizes=64", {}, "a pilot compares two sizes"),
        ("pilot:sizes=a-b", {}, "a pilot compares two sizes"),
        ("pilot:sizes=0-64", {}, "a pilot compares two sizes"),
        ("pilot:seeds=0", {}, "seeds=0"),
        ("pilot:rows=100", {}, "rows=100"),
        ("pilot:size=100", {}, "did you mean 'sizes'"),
        ("pilot:sizes=64-4096", {}, "leave the largest sizes out"),
        (PILOT, {"optimizer": "normalized"}, "has no size of batches that a pilot could find"),
        (PILOT, {"optimizer": "trust-region"}, "has no size of batches"),
        (PILOT, {"steps": 10}, "pass --epochs"),
        (PILOT, {"workers": 2}, "leave --workers out"),
        (PILOT, {"noise": True}, "leave --noise out"),
        (PILOT, {"lanes": 2}, "pass --lanes 1"),
    ],
)
def test_bad_input_says_what_to_do(size: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError) as error:
        streamsgd.train(rows_of(500), "y", **{**SETTINGS, **settings}, batch_size=size)
    assert words in str(error.value)


@pytest.mark.parametrize("epochs", [1, 2])
def test_all_sizes_make_the_steps_that_are_told(epochs: int) -> None:
    """Passes that are asked for have so many steps of the largest size, which all sizes make then."""
    found = streamsgd.pilot(rows_of(3000), "y", **{**SETTINGS, "epochs": epochs}, batch_size=(16, 512), seeds=1)
    steps = {line["batch_size"]: line["steps"] for line in found["branches"] if line["comparison"] == "steps"}
    assert set(steps) == {16, 512}
    assert set(steps.values()) == {epochs * 2700 // 512}
    with pytest.raises(SettingsError, match="leave epochs out"):
        streamsgd.pilot(rows_of(3000), "y", **{**SETTINGS, "epochs": epochs}, batch_size=(16, 512), steps=40)


def test_only_train_goes_on_from_a_pilot() -> None:
    with pytest.raises(SettingsError, match="is for train"):
        prepare(rows_of(500), make_settings({"target": "y", "batch_size": "pilot"}))
    with pytest.raises(SettingsError, match="is for train"):
        streamsgd.sample(rows_of(500), "y", prior="normal:sd=1", batch_size="pilot", memory="2GB")
