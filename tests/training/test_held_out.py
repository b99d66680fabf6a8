"""Validation as people do it: by a condition, by groups that stay together, and what was printed as a table."""

import logging
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import streamsgd
from streamsgd.errors import DataError, SettingsError
from streamsgd.settings.make import make_settings
from streamsgd.stream.held import held_out

pytestmark = pytest.mark.python_words

SETTINGS: dict[str, Any] = {"executor": "inline", "optimizer": "adam", "memory": "1GB", "epochs": 2}
N = 4000


def make() -> pa.Table:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(N, 2))
    y = (rng.random(N) < 1 / (1 + np.exp(-(x @ [1.0, -1.0])))).astype(np.int64)
    days = np.datetime64("2026-01-01") + np.arange(N) // 100
    user = rng.integers(0, 200, N)
    names = pa.array([f"u{k}" for k in user], mask=user == 7)
    return pa.table({"a": x[:, 0], "b": x[:, 1], "y": y, "day": days, "user": names, "number": user.astype(np.int32)})


TABLE = make()
ROLES = {"features": ["a", "b"]}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("held") / "d.parquet"
    pq.write_table(TABLE, path, row_group_size=500)
    return path


def test_a_condition_holds_out_its_rows_and_learns_from_the_others(data: Path) -> None:
    """The model is that of the other rows alone, and the metrics those of evaluate on the rows held out."""
    model = streamsgd.train(data, "y", validation="day >= '2026-02-01'", **ROLES, **SETTINGS)
    late = pc.greater_equal(TABLE["day"], pa.scalar(date(2026, 2, 1)))
    held = TABLE.filter(late)
    assert model.provenance["counts"]["held"] == held.num_rows
    assert model.provenance["rows_learned"] == 2 * (N - held.num_rows)
    judged = model.metrics["held_out"]
    assert judged["rows"] == held.num_rows
    found = model.evaluate(held)  # and of what is rare, which only `evaluate` tells
    assert {"log_loss", "auc", "accuracy"} <= set(judged)
    assert judged == pytest.approx({name: found[name] for name in judged}, rel=0.05)
    assert model.settings["validation"] == "day >= '2026-02-01'"


def test_what_is_held_out_does_not_depend_on_chunks_and_order(data: Path, tmp_path: Path) -> None:
    found = []
    for rows in (500, 1300, None):
        model = streamsgd.train(data, "y", validation="number % 3 == 0", chunk_rows=rows, **ROLES, **SETTINGS)
        found.append((model.metrics["held_out"]["rows"], model.provenance["rows_learned"]))
    assert len(set(found)) == 1
    assert found[0][0] == int((TABLE["number"].to_numpy() % 3 == 0).sum())


@pytest.mark.parametrize("column", ["user", "number", "day"])
def test_groups_stay_together_whatever_order_and_type_they_come_in(column: str) -> None:
    """The same values are held out of the data, of a permutation of it, and of a copy in another type."""
    settings = make_settings({"target": "y", "validation": 0.3, "validation_group": column})

    def held_values(table: pa.Table) -> set[Any]:
        held = held_out(settings, table.schema, 0.3).rows(None, None, {column: table[column].combine_chunks()})  # type: ignore[arg-type]
        values = {value for value, out in zip(table[column].to_pylist(), held, strict=True) if out}
        assert not values & {value for value, out in zip(table[column].to_pylist(), held, strict=True) if not out}
        return values

    truth = held_values(TABLE)
    groups = pc.count_distinct(TABLE[column], "all").as_py()
    assert len(truth) / groups == pytest.approx(0.3, abs=4 * np.sqrt(0.21 / groups))
    assert held_values(TABLE.take(np.random.default_rng(0).permutation(N))) == truth
    if column == "user":
        coded = TABLE.set_column(TABLE.schema.get_field_index("user"), "user", TABLE["user"].dictionary_encode())
        assert held_values(coded) == truth
    if column == "number":
        wide = TABLE.set_column(TABLE.schema.get_field_index("number"), "number", TABLE["number"].cast(pa.int64()))
        assert held_values(wide) == truth


def test_a_run_holds_out_whole_groups(data: Path) -> None:
    model = streamsgd.train(data, "y", validation=0.3, validation_group="user", **ROLES, **SETTINGS)
    sizes = {value["values"]: value["counts"] for value in TABLE["user"].value_counts().to_pylist()}
    assert 0 < model.metrics["held_out"]["rows"] < N
    learned = model.provenance["rows_learned"] // 2
    assert learned + model.metrics["held_out"]["rows"] == N
    assert sum(sizes.values()) == N


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"validation": "day >"}, SettingsError, "validation='day >': it ends with '>' at character 5"),
        ({"validation": "nothing > 1"}, SettingsError, "nothing"),
        ({"validation": 1.5}, SettingsError, "validation: 1.5 is not a number of at least 0 and below 1"),
        ({"validation": "a > -100"}, DataError, "none is left to learn from: .* were held out"),
        ({"validation_group": "user"}, SettingsError, r"pass validation=0\.1"),
        ({"validation_group": "user", "validation": "a > 1"}, SettingsError, "keeps values together in a share"),
        ({"validation_group": "users", "validation": 0.1}, SettingsError, "did you mean 'user'"),
    ],
)
def test_what_cannot_be_held_out_is_said(more: dict[str, Any], error: Any, message: str, data: Path) -> None:
    with pytest.raises(error, match=message):
        streamsgd.train(data, "y", **more, **ROLES, **SETTINGS)


def test_a_condition_that_holds_out_nothing_is_said(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "streamsgd"):
        streamsgd.train(data, "y", validation="a > 100", **ROLES, **SETTINGS)
    assert "held out no row" in caplog.text


def test_text_that_is_a_number_is_a_share(data: Path) -> None:
    found = [streamsgd.train(data, "y", validation=share, **ROLES, **SETTINGS) for share in (0.25, "0.25")]
    assert found[0].to_bytes() == found[1].to_bytes()


# --- what was printed


def test_the_history_is_what_was_printed(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = streamsgd.train(data, "y", out=tmp_path / "m.sgd", validation=0.2, progress=True, **ROLES, **SETTINGS)
    printed = capsys.readouterr().err
    history = model.history
    for rows, loss in zip(history["rows"].to_pylist(), history["loss"].to_pylist(), strict=True):
        assert f"{rows:>13,}" in printed
        assert f"{loss:.6f}" in printed
    judged = history.filter(pc.equal(history["kind"], "evaluation"))
    assert judged["valid.log_loss"].to_pylist()[-1] == model.metrics["held_out"]["log_loss"]
    assert [row["valid.loss"] for row in judged.to_pylist()] == model.metrics["held_out_losses"]
    assert history["rows"].to_pylist()[:2] == [1024, 2048]
    assert streamsgd.load(tmp_path / "m.sgd").history.num_rows == 0
    assert model.to_bytes() == streamsgd.train(data, "y", validation=0.2, **ROLES, **SETTINGS).to_bytes()
    assert capsys.readouterr().err == ""
