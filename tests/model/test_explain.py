"""What each column adds: contributions sum to the score, and are what the score loses without the column."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streamsgd
from streamsgd.cli.main import main
from streamsgd.model.explaining.effects import numeric_effects
from streamsgd.model.model import Model

SETTINGS: dict[str, Any] = {"executor": "inline", "epochs": 1, "memory": "1GB", "id": ["key"]}
N = 1200


def make(dense: bool = False) -> pa.Table:
    rng = np.random.default_rng(5)
    x, site = rng.normal(size=(N, 3)), rng.integers(0, 8, N)
    score = x[:, 0] - 0.5 * x[:, 1] + 0.3 * (site % 3) - 0.5
    columns: dict[str, Any] = {
        "key": np.arange(N),
        "a": x[:, 0],
        "b": pa.array(x[:, 1], mask=rng.random(N) < 0.2),
        "heavy": np.exp(3 * x[:, 2]),
        "y": (rng.random(N) < 1 / (1 + np.exp(-score))).astype(np.int64),
        "number": 50.0 + 20.0 * (score + rng.normal(size=N)),
        "kind": np.array(["low", "mid", "high"])[np.digitize(score + rng.normal(size=N), [-0.5, 0.5])],
    }
    if not dense:
        columns |= {
            "site": [f"s{k}" for k in site],
            "text": [f"word{k} of some words{k % 4}" for k in site],
            "tags": [[f"t{k}", "t1"][: k % 3] for k in site],
        }
    return pa.table(columns)


def trained(table: pa.Table, target: str, **more: Any) -> Model:
    others = [name for name in ("y", "number", "kind") if name != target]
    return streamsgd.train(table, target, exclude=others, **{**SETTINGS, **more})


@pytest.mark.parametrize(
    ("target", "dense", "more"),
    [
        ("y", True, {"optimizer": "adam", "missing": ["indicator"]}),
        ("number", True, {"optimizer": "adam"}),
        ("kind", True, {"optimizer": "adam"}),
        ("y", False, {"text": ["text"], "cross": ["site*tags", "site*a"][1:]}),
        ("number", False, {}),
    ],
)
def test_contributions_sum_to_the_score(target: str, dense: bool, more: dict[str, Any], tmp_path: Path) -> None:
    table = make(dense)
    model = trained(table, target, **more)
    pq.write_table(table, tmp_path / "d.parquet", row_group_size=500)
    done = streamsgd.explain(model, tmp_path / "d.parquet", tmp_path / "why.parquet", executor="inline")
    found = pq.read_table(tmp_path / "why.parquet")
    assert (done.rows, found.num_rows) == (N, N)
    assert found["key"].equals(table["key"])
    scores = model.decision_function(table).reshape(N, -1)
    for k, ending in enumerate([f"_{c}" for c in model.classes] if model.n_outputs > 1 else [""]):
        parts = [name for name in found.column_names if name.startswith("contribution_") and name.endswith(ending)]
        if target != "kind":
            features = {name.removeprefix("contribution_") for name in parts}
            assert set(model.encoding.sources) | {cross.name for cross in model.encoding.crosses} == features
        total = sum(found[name].to_numpy() for name in parts) + found[f"intercept{ending}"].to_numpy()
        np.testing.assert_allclose(total, found[f"score{ending}"].to_numpy(), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(total, scores[:, k], rtol=2e-5, atol=2e-4 * np.abs(scores).max())
    assert found["prediction"].to_pylist() == pytest.approx(model.predict(table).tolist()) or target == "kind"


def test_a_contribution_is_what_the_score_changes_by_with_the_column(tmp_path: Path) -> None:
    """Of a column that is emptied: what it adds changes to that of null, and nothing else does."""
    table = make()
    model = trained(table, "y")
    emptied = table.set_column(table.schema.get_field_index("site"), "site", pa.nulls(N, pa.string()))
    found = []
    for k, some in enumerate((table, emptied)):
        pq.write_table(some, tmp_path / f"{k}.parquet")
        streamsgd.explain(model, tmp_path / f"{k}.parquet", tmp_path / f"w{k}.parquet", executor="inline")
        found.append(pq.read_table(tmp_path / f"w{k}.parquet"))
    for name in found[0].column_names:
        if name.startswith("contribution_") and name != "contribution_site":
            np.testing.assert_array_equal(found[0][name], found[1][name])
    change = found[1]["contribution_site"].to_numpy() - found[0]["contribution_site"].to_numpy()
    scores = [model.decision_function(some) for some in (table, emptied)]
    np.testing.assert_allclose(change, scores[1] - scores[0], atol=1e-5)


def test_the_command_writes_what_the_function_does(tmp_path: Path) -> None:
    table = make(dense=True)
    pq.write_table(table, tmp_path / "d.parquet")
    trained(table, "y", optimizer="adam").save(tmp_path / "m.sgd")
    args = [
        "explain",
        str(tmp_path / "m.sgd"),
        str(tmp_path / "d.parquet"),
        "-o",
        str(tmp_path / "o"),
        "--id",
        "key",
        "--quiet",
    ]
    assert main(args) == 0
    streamsgd.explain(tmp_path / "m.sgd", tmp_path / "d.parquet", tmp_path / "f.parquet", id=["key"])
    assert pq.ParquetFile(tmp_path / "o" / "d.parquet").read().equals(pq.read_table(tmp_path / "f.parquet"))


# --- models in notebooks


def test_a_model_says_in_one_line_what_it_is_and_shows_a_card() -> None:
    model = trained(make(dense=True), "y", optimizer="adam", validation=0.2)
    line = repr(model)
    assert "\n" not in line
    assert line.startswith("<Model binary of y, Logistic, 3 columns as ")
    assert "held_out log_loss" in line
    card = model._repr_html_()
    assert "standardised weight" in card
    assert card.count("<table") == card.count("</table>") == 2


def test_effects_are_the_scores_of_rows_that_differ_in_one_column() -> None:
    table = make()
    model = trained(table, "number")
    effects = {effect.column: effect for effect in numeric_effects(model)}
    assert effects.keys() == {"a", "b", "heavy"}
    effect = effects["heavy"]
    row = table.slice(0, 1)
    place = table.schema.get_field_index("heavy")
    rows = [row.set_column(place, "heavy", pa.array([value])) for value in effect.x[[10, 50]]]
    scores = [float(model.decision_function(some)[0]) for some in rows]
    assert effect.score[50, 0] - effect.score[10, 0] == pytest.approx(scores[1] - scores[0], rel=1e-3, abs=1e-3)
