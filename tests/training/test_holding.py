"""Runs of several passes hold rows out if nobody says otherwise, and say so."""

import logging
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
from streamsgd.training.holding import held_share
from streamsgd.training.prepare import prepare

PLAIN: dict[str, Any] = {"executor": "inline", "memory": "1GB"}


def table(n: int = 4_000, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4))
    return pa.table({**{f"x{j}": x[:, j] for j in range(4)}, "y": x @ [1.0, -2.0, 0.5, 0.0] + rng.normal(size=n)})


def train(data: Any, **settings: Any) -> streamsgd.Model:
    return streamsgd.train(data, "y", **{**PLAIN, **settings})


def held(**settings: Any) -> int:
    n: int = train(table(), optimizer="adam", epochs=2, **settings).provenance["counts"]["held"]
    return n


def test_several_passes_are_judged_by_rows_that_they_did_not_learn() -> None:
    model = train(table(), epochs=3)
    rows, counts = model.metrics["held_out"]["rows"], model.provenance["counts"]
    assert counts["held"] == rows
    assert 150 < rows < 250
    assert model.provenance["rows_learned"] == 3 * (4_000 - rows)
    # In squared errors of the standardised target, as losses are; of 10,000 rows that nobody saw.
    new = table(10_000, 1)
    errors = (np.asarray(model.predict(new.drop(["y"]))) - new["y"].to_numpy()) ** 2
    told = model.metrics["held_out"]["rmse"] ** 2
    assert abs(told - errors.mean()) < 2.0 * errors.std() / np.sqrt(rows)


def test_nothing_is_held_out_where_it_would_judge_nothing_or_cost_more_than_it_tells(tmp_path: Path) -> None:
    pq.write_table(table(500, 1), tmp_path / "valid.parquet")
    assert held() > 0
    assert held(validation="none") == held(validation=0) == held(validation="0") == 0
    assert held(valid=str(tmp_path / "valid.parquet")) == held(polish=3) == 0
    assert train(table(), epochs=1).provenance["counts"]["held"] == 0
    trainer = streamsgd.Trainer("y", **{**PLAIN, "optimizer": "adam", "epochs": 2})
    assert trainer.partial_fit(table()).model.provenance["counts"]["held"] == 0


def test_none_is_the_model_of_all_rows() -> None:
    one, other = (train(table(), optimizer="adam", epochs=2, validation=how) for how in ("none", 0.0))
    assert one.weights.tobytes() == other.weights.tobytes()


def test_the_share_is_a_twentieth_up_to_a_hundred_thousand_rows() -> None:
    settings = make_settings({"target": "y", "epochs": 2})
    parts = prepare(table(1_000), settings).parts
    shares = [held_share(settings, parts, n, 2) * n for n in (999, 1_000, 1_000_000, 2_000_000, 10**9)]
    assert shares == pytest.approx([0, 50, 50_000, 100_000, 100_000])
    assert held_share(settings, parts, 10**9, 1) == 0.0


def test_the_same_rows_are_held_out_of_a_table_and_of_its_file(tmp_path: Path) -> None:
    """Whatever the file is called, and however its rows are grouped."""
    models = [train(table(), epochs=2, optimizer="adam", chunk_rows=4_000, shuffle="none")]
    for size in (700, 4_000):
        pq.write_table(table(), tmp_path / f"{size}.parquet", row_group_size=size)
        models.append(train(str(tmp_path / f"{size}.parquet"), epochs=2, optimizer="adam", chunk_rows=4_000, shuffle="none"))
    assert len({model.weights.tobytes() for model in models}) == 1


def test_steps_are_counted_over_the_rows_that_are_learned() -> None:
    job = prepare(table(), make_settings({"target": "y", "steps": 120}))
    assert job.recipe.held.share == 0.05
    assert job.epochs == 3, "120 batches of 64 are 7,680 rows, of 3,800 in a pass"


@pytest.mark.parametrize(("n", "words"), [(4_000, "about 200 of 4,000 rows"), (999, "nothing, for 999 rows are fewer")])
def test_it_is_said_once(n: int, words: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "streamsgd"):
        train(table(n), optimizer="adam", epochs=2)
        train(table(n), optimizer="adam", epochs=2, validation="none")
    (said,) = [record.getMessage() for record in caplog.records if "held out" in record.getMessage()]
    assert words in said
    assert "--validation" in said


def test_the_command_line_says_it_too(tmp_path: Path, command_line: Callable[..., Any]) -> None:
    pq.write_table(table(), tmp_path / "t.parquet")
    command = ["train", tmp_path / "t.parquet", "--target", "y", "--optimizer", "adam"]
    command += ["-o", tmp_path / "m.sgd", "--epochs", "2", "--memory", "1GB"]
    done = command_line(*command)
    assert done.stderr.count("about 200 of 4,000 rows, which are not learned") == 1
    plan = command_line(*command, "--dry-run")
    assert plan.stdout.count("about 200 of 4,000 rows, which are not learned") == 1
    none = command_line(*command, "--validation", "none")
    assert none.returncode == 0
    assert "held out" not in none.stderr


def test_what_names_held_out_rows_asks_for_some_by_name() -> None:
    with pytest.raises(SettingsError, match="validation"):
        train(table(), epochs=2, validation_group="x0")
    with pytest.raises(SettingsError, match="calibrates on rows that are held out"):
        train(table(), epochs=2, conformal=True)


def test_scikit_learn_fits_all_rows() -> None:
    pytest.importorskip("sklearn")
    from streamsgd.sklearn import SGDRegressor  # noqa: PLC0415

    model = SGDRegressor(max_iter=3).fit_stream(table(), "y", **PLAIN)
    assert model.model_.provenance["counts"]["held"] == 0
    model = SGDRegressor(max_iter=3).fit_stream(table(), "y", **PLAIN, validation=0.1)
    assert model.model_.provenance["counts"]["held"] > 0
