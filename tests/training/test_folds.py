"""Cross-validation: folds cut the rows once, every model is its solo run to the byte, and a stop changes nothing."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import sem
from test_many import COMMON, until_done
from test_polish import table_of

import streamsgd
from streamsgd.cli.main import main
from streamsgd.compute.executors import Inline
from streamsgd.errors import DataError, DivergedError, SettingsError
from streamsgd.settings.make import make_settings
from streamsgd.stream.held import HeldFold
from streamsgd.stream.stream import Stream
from streamsgd.training.prepare import prepare
from streamsgd.training.together.crossvalidation import _in_folds, settings_of
from streamsgd.training.together.learn import block_bytes, blocks_apart, groups_of, together_bytes

FOLDS = {name: value for name, value in COMMON.items() if name != "validation"}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("folds") / "d.parquet"
    table = table_of("logistic", wide=True)
    some = np.arange(table.num_rows)
    table = table.append_column("who", pa.array(some % 17, mask=some % 29 == 0))
    pq.write_table(table, path, row_group_size=100)
    return path


def held_of(path: Path, text: str, **more: Any) -> set[int]:
    """Return the numbers of the rows that are held out, which the target says."""
    job = prepare(
        str(path), make_settings({"target": "y", "validation": text, "precision": "float64", "scale": "none", **more})
    )
    found = [block.y.copy() for filled in Stream(job.recipe, job.plan, Inline()).chunks() for block in filled.held_blocks()]
    return {round(y) for y in np.concatenate(found).tolist()}


@pytest.mark.parametrize("group", [None, "g"])
def test_every_row_is_in_one_fold(group: str | None, tmp_path: Path) -> None:
    """With groups every value is in one; the first fold is the share of its size, whoever asks."""
    n = 3000
    table = pa.table(
        {"x": np.arange(n) * 1.0, "g": [None if k % 50 == 0 else f"g{k % 37}" for k in range(n)], "y": np.arange(n) * 1.0}
    )
    pq.write_table(table, tmp_path / "d.parquet", row_group_size=450)
    more = {"validation_group": group, "exclude": ["g"]}
    folds = [held_of(tmp_path / "d.parquet", f"fold:{k}/6", **more) for k in range(1, 7)]
    assert sorted(row for fold in folds for row in fold) == list(range(n))
    assert folds[0] == held_of(tmp_path / "d.parquet", str(1 / 6), **more)
    if group is None:
        assert all(abs(len(fold) - 500) < 5 * np.sqrt(500) for fold in folds)
    else:
        values = [set(table["g"].take(list(fold)).to_pylist()) for fold in folds]
        assert sum(map(len, values)) == 38  # the missing one is a group, too


EVERY: dict[str, dict[str, Any]] = {
    "numbers": {"exclude": ["h", "who", "colour", "tags"], "executor": "threads", "threads": 3},
    "everything": {
        "weight": "h",
        "class_weight": "balanced",
        "validation_group": "who",
        "exclude": ["who"],
        "filter": "who != 3 or who is None",
        "optimizer": "auto",
    },
    "drawn": {"exclude": ["h", "who", "colour", "tags"], "shuffle": "iid", "chunk_rows": 10**6, "epochs": 1},
}


@pytest.mark.parametrize("name", EVERY)
def test_every_model_is_its_solo_run_to_the_byte(name: str, path: Path) -> None:
    settings = {**FOLDS, **EVERY[name]}
    found = streamsgd.cross_validate(path, "y", folds=3, **settings)
    for k, model in enumerate(found.folds, 1):
        assert model.to_bytes() == streamsgd.train(path, "y", validation=f"fold:{k}/3", **settings).to_bytes(), k
    settings.pop("validation_group", None)
    assert found.model.to_bytes() == streamsgd.train(path, "y", validation="none", **settings).to_bytes()


def test_rows_left_out_and_row_groups_that_cannot_be_read_are_left_out_of_all(tmp_path: Path) -> None:
    table = table_of("squared").append_column("k", pa.array(np.arange(3000) % 1000))
    y = pa.array([None if k % 11 == 0 else v for k, v in enumerate(table["y"].to_pylist())])
    pq.write_table(table.set_column(table.column_names.index("y"), "y", y), tmp_path / "d.parquet", row_group_size=50)
    with (tmp_path / "d.parquet").open("r+b") as file:
        at = pq.read_metadata(tmp_path / "d.parquet").row_group(3).column(0).data_page_offset
        file.seek(at)
        file.write(b"\xff" * 16)
    settings = {**FOLDS, "exclude": ["h", "k"], "bad_rows": "skip", "unreadable": "skip", "filter": "k < 950"}
    found = streamsgd.cross_validate(tmp_path / "d.parquet", "y", folds=2, **settings)
    assert found.model.provenance["left_out"]
    for k, model in enumerate(found.folds, 1):
        assert model.to_bytes() == streamsgd.train(tmp_path / "d.parquet", "y", validation=f"fold:{k}/2", **settings).to_bytes()


def test_a_run_of_folds_goes_on_after_every_stop(path: Path, tmp_path: Path) -> None:
    settings = {**FOLDS, **EVERY["numbers"]}
    whole = streamsgd.cross_validate(path, "y", folds=2, **settings)
    parts: list[Any] = []
    again = {**settings, "out": tmp_path / "m.sgd", "time_limit": 1e-9}
    assert until_done(lambda: parts.append(streamsgd.cross_validate(path, "y", folds=2, **again))) >= 4
    assert [m.to_bytes() for m in [*parts[0].folds, parts[0].model]] == [m.to_bytes() for m in [*whole.folds, whole.model]]
    assert parts[0].metrics == whole.metrics
    assert [p.name for p in tmp_path.iterdir()] == ["m.sgd"]
    assert streamsgd.load(tmp_path / "m.sgd").to_bytes() == whole.model.to_bytes()


def test_the_block_of_a_run_is_in_the_plan(path: Path) -> None:
    """Folds that memory does not hold beside a block of their own are decoded apart; more blocks are for more threads."""
    whole, each = settings_of({**FOLDS, **EVERY["numbers"], "target": "y"}, 3, None, {})
    jobs = [_in_folds(prepare(str(path), own), HeldFold(folds=3)) for own in (*each, whole)]
    assert groups_of(jobs) == [[0, 1, 2, 3]]
    assert blocks_apart(jobs) == jobs[0].budget.threads
    assert block_bytes(jobs[0]) > jobs[0].plan.chunk_rows * jobs[0].recipe.row_bytes
    least = together_bytes(jobs) + 4 * 8 * jobs[0].n_weights
    tight = [replace(job, budget=replace(job.budget, limit=least)) for job in jobs]
    assert groups_of(tight) == [[0, 1, 2, 3]]
    assert blocks_apart(tight) == 1
    assert groups_of([replace(job, budget=replace(job.budget, limit=least - 1)) for job in jobs]) == [[0, 1, 2], [3]]


def test_the_command_tells_mean_and_standard_error(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", str(path), "--target", "y", "-o", str(tmp_path / "m.sgd"), "--folds", "3", "--epochs", "2"]
    command += ["--exclude", "h,who,colour,tags", "--optimizer", "adam", "--chunk-rows", "300", "--memory", "2GB"]
    assert main(command) == 0
    shown = capsys.readouterr()
    said = json.loads(shown.out.splitlines()[-1])
    losses = [
        streamsgd.train(path, "y", validation=f"fold:{k}/3", **{**FOLDS, **EVERY["numbers"]}).metrics["held_out"]["log_loss"]
        for k in (1, 2, 3)
    ]
    log_loss = said["cross_validation"]["log_loss"]
    assert log_loss["folds"] == losses
    np.testing.assert_allclose([log_loss["mean"], log_loss["standard_error"]], [np.mean(losses), sem(losses)], rtol=1e-12)
    lines = shown.err.splitlines()
    assert any(line.startswith("fold 3") for line in lines)
    assert any(line.startswith("std. error") and f"{sem(losses):.2g}" in line for line in lines)
    assert main([*command, "--skip-if-done", "--skip-code", "9", "--quiet"]) == 9


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--folds", "3", "--validation", "0.1"], "leave --validation out"),
        (["--folds", "3", "--patience", "2"], "pass --epochs"),
        (["--folds", "3", "--report", "r.html"], "leave one of them out"),
        (["--folds", "3", "--valid", "x"], "leave --valid out"),
        (["--folds", "3", "--shuffle", "stratified:share=0.5"], "stratified:share=0.5 is for one run"),
        (["--folds", "3", "--batch-size", "pilot"], "--batch-size pilot"),
        (["--folds", "1"], "2<=x<=100"),
        (["--validation", "fold:4/3"], "fold:1/3 to fold:3/3"),
        (["--validation", "fold:a/3"], "write fold:NUMBER/FOLDS"),
        (["--validation", "fold:1/1"], "2 to 100 folds"),
        (["--folds", "3", "--validation-group", "nobody"], "no such column"),
    ],
)
def test_what_folds_cannot_be_says_what_to_do(
    more: list[str], words: str, path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(path), "--target", "y", "-o", str(tmp_path / "m.sgd"), *more]) == 2
    assert words in capsys.readouterr().err


def test_a_fold_without_rows_and_one_that_diverges_are_errors(path: Path) -> None:
    constant = pa.table({"x": np.arange(500.0), "g": ["a"] * 500, "y": np.arange(500.0) % 7})
    constant = constant.set_column(1, "g", pa.array(["a", "b"] * 250))
    with pytest.raises(DataError, match="no row is in fold"):
        streamsgd.cross_validate(constant, "y", folds=9, validation_group="g", exclude=["g"], optimizer="adam", epochs=1)
    with pytest.raises(DivergedError, match="fold 1"):
        streamsgd.cross_validate(constant, "y", folds=2, exclude=["g"], optimizer="sgd", learning_rate=1e30, epochs=2)
    with pytest.raises(SettingsError, match="--folds 500: rows are cut"):
        streamsgd.cross_validate(path, "y", folds=500)
