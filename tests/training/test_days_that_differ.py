"""Days whose columns are not those of the model that a run goes on from: what is left out is said, what is lost has a way."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streamsgd
from streamsgd import serving
from streamsgd.errors import DataError, SettingsError
from streamsgd.settings.make import make_settings
from streamsgd.show.summary import describe_job
from streamsgd.training.run import prepare_from

ROWS = 300
PLAIN: dict[str, Any] = {"executor": "inline", "memory": "1GB", "epochs": 1}
COLUMNS = ["id", "price", "site", "y"]


def day(number: int, **more: Any) -> pa.Table:
    rng = np.random.default_rng(number)
    price, site = rng.normal(size=ROWS), rng.choice(["a", "b"], ROWS)
    y = (price + (site == "a") + rng.normal(size=ROWS) > 0).astype(int)
    return pa.table({"id": np.arange(ROWS), "price": price, "site": site, "y": y} | more)


def first(folder: Path, **settings: Any) -> str:
    streamsgd.train(day(0), "y", out=folder / "0.sgd", keep_memory=True, **{"id": ["id"], **settings}, **PLAIN)
    return str(folder / "0.sgd")


def on(table: Any, start: str, **settings: Any) -> streamsgd.Model:
    return streamsgd.train(table, "y", start=start, **{"id": ["id"], **settings}, **PLAIN)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# --- law: columns that the model does not know are said by name, and are no features

STRUCT = pa.array([{"a": 1}] * ROWS)


@pytest.mark.parametrize("learn", [on, lambda table, start: streamsgd.Trainer.load(start, id=["id"]).partial_fit(table)])
def test_new_columns_are_said_once_whatever_their_type(learn: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    start = first(tmp_path)
    learn(day(1), start)
    assert warnings(caplog) == []
    learn(day(1, x3=np.arange(ROWS), odd=STRUCT), start)
    (told,) = warnings(caplog)
    assert told.startswith("left out, columns that the model does not know: 'x3', 'odd'; ")


def test_the_line_about_the_data_counts_the_features_of_the_model(tmp_path: Path) -> None:
    settings = {"target": "y", "start": first(tmp_path), "id": ["id"], "memory": "1GB"}
    lines = describe_job(prepare_from(day(1, x3=np.arange(ROWS)), make_settings(settings)))
    assert "; 2 features as " in lines[0]
    assert any(line.startswith("left out, a column that the model does not know: 'x3'") for line in lines)


@pytest.mark.parametrize(
    ("of_model", "of_run"),
    [
        ({"exclude": ["x*"]}, {}),
        ({"features": ["price", "site"]}, {}),
        ({}, {"id": ["id", "x3"]}),
        ({}, {"weight": "x3"}),
    ],
    ids=str,
)
def test_what_was_left_out_on_purpose_or_has_a_role_is_not_said(
    of_model: dict[str, Any], of_run: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    streamsgd.train(day(0, x3=np.ones(ROWS)), "y", out=tmp_path / "of", keep_memory=True, id=["id"], **of_model, **PLAIN)
    start = str(tmp_path / "of") if of_model else first(tmp_path)
    on(day(1, x3=np.ones(ROWS)), start, **of_run)
    assert warnings(caplog) == []


# --- law: a lost column is refused with what to do, and that works


@pytest.mark.parametrize(
    "of_model",
    [{}, {"features": ["price", "site"]}, {"transform": ["price=bins"]}, {"categorical": ["site", "price"]}],
    ids=str,
)
def test_a_lost_column_is_null_where_the_message_says_so(
    of_model: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    start, renamed = first(tmp_path, **of_model), day(1).rename_columns(["id", "Price", "site", "y"])
    with pytest.raises(DataError) as refused:
        on(renamed, start)
    assert str(refused.value) == (
        "the data has no column 'price', which the model was trained with (if 'Price' is meant, write it under the name "
        "'price'); pass --missing-columns null to take it as null in every row"
    )
    model = on(renamed, start, missing_columns="null")
    assert "taken as null in every row; if 'Price' is meant" in caplog.text
    assert np.isfinite(model.predict(day(2).drop_columns(["price"]))).all(), "and the model does so too"
    same = on(renamed.rename_columns(COLUMNS), start)
    assert same.to_bytes() == on(day(1), start).to_bytes()


def test_scoring_says_how_the_model_must_be_trained(tmp_path: Path) -> None:
    start, lost = first(tmp_path), day(1).drop_columns(["price"])
    way = r"no column 'price', which .*; a model that is trained with --missing-columns null takes it as null"
    pq.write_table(lost, tmp_path / "lost.parquet")
    for score in (
        lambda: streamsgd.load(start).predict(lost),
        lambda: streamsgd.predict(start, tmp_path / "lost.parquet", tmp_path / "scored", executor="inline"),
        lambda: streamsgd.evaluate(start, tmp_path / "lost.parquet", executor="inline"),
        lambda: streamsgd.importance(start, tmp_path / "lost.parquet"),
        lambda: serving.load(start).predict({"site": "a"}),
    ):
        with pytest.raises(DataError, match=way):
            score()


def test_importance_takes_a_lost_column_as_null_where_the_model_does(tmp_path: Path) -> None:
    start = first(tmp_path, missing_columns="null")
    found = streamsgd.importance(start, day(1).drop_columns(["price"]))
    assert {entry["column"]: entry["increase"] for entry in found.columns}["price"] == 0.0


def test_a_target_or_weight_that_is_lost_or_a_feature_is_refused(tmp_path: Path) -> None:
    start = first(tmp_path)
    with pytest.raises(SettingsError, match="no column 'y', did you mean 'Y'"):
        on(day(1).rename_columns(["id", "price", "site", "Y"]), start)
    with pytest.raises(SettingsError, match="'price' is both a feature and the target or weight"):
        on(day(1), start, weight="price")


def test_a_job_is_done_where_its_columns_are_lost_or_new(tmp_path: Path, command_line: Callable[..., Any]) -> None:
    start = first(tmp_path, features=["price", "site"])
    pq.write_table(day(1, odd=STRUCT).drop_columns(["price"]), tmp_path / "1.parquet")
    given = ("--target", "y", "--from", start, "--missing-columns", "null", "--executor", "inline", "--epochs", "1")
    for status in ("done", "already done"):
        ended = command_line("train", str(tmp_path / "1.parquet"), *given, "-o", str(tmp_path / "1.sgd"), "--skip-if-done")
        assert f'"status": "{status}"' in ended.stdout, ended.stderr
