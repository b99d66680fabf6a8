"""What is said of machines and networks: the strongest pairs, and which columns matter, against sums written out."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streamsgd
from streamsgd.cli.main import main
from streamsgd.errors import DataError, ModelError, SettingsError
from streamsgd.kernels.models.machines import FM, compiled, rows_of
from streamsgd.kernels.models.pairs import FwFM
from streamsgd.model.explaining.contributions import Contributions
from streamsgd.model.explaining.pairs import strongest_pairs
from streamsgd.model.model import Model
from streamsgd.show.model import model_summary, model_text

N = 900
SETTINGS: dict[str, Any] = {"executor": "inline", "epochs": 1, "memory": "1GB", "bits": 10, "transform": ["none"]}


def make() -> pa.Table:
    rng = np.random.default_rng(5)
    x, site, shop = rng.normal(size=N), rng.integers(0, 4, N), rng.integers(0, 300, N)
    score = 2.0 * x - 1.5 * (site == 1)
    columns = {"x": x, "site": [f"s{k}" for k in site], "shop": [f"h{k}" for k in shop], "noise": rng.normal(size=N)}
    return pa.table({**columns, "y": (rng.random(N) < 1 / (1 + np.exp(-score))).astype(int), "price": 50.0 + 20.0 * score})


@pytest.fixture(scope="module")
def linear() -> Model:
    return streamsgd.train(make(), "y", exclude=["price"], optimizer="adam", **SETTINGS)


def of(linear: Model, structure: Any) -> Model:
    """Return a model with parameters that nobody trained."""
    form, n = compiled(structure, columns=linear.encoding.n_places), linear.encoding.n_coordinates
    weights = np.random.default_rng(1).normal(size=(rows_of(form, n), form.width())).astype(np.float32)
    return replace(linear, structure=structure, weights=weights)


@pytest.mark.parametrize("structure", [FM(3), FwFM(3)], ids=str)
def test_the_strength_of_a_pair_is_the_root_mean_square_of_what_it_adds(linear: Model, structure: Any) -> None:
    """Of two categories over all pairs of their values, of a number and a category over its values."""
    model = of(linear, structure)
    pairs, values = strongest_pairs(model, 100)
    v, n = model.weights[:, 1:].astype(float), model.encoding.n_coordinates
    places = {"x": 0, "noise": 1, **model.encoding.places}
    sides: dict[str, tuple[np.ndarray, np.ndarray]] = {"x": (v[:1], np.ones(1)), "noise": (v[1:2], np.ones(1))}
    for value in ("site", "shop"):
        labels = [label for label in labels_of(model) if label[0] == value]
        counts = np.array([label[3] for label in labels], float)
        sides[value] = (
            v[[label[2] for label in labels]],
            counts / counts.sum() if counts.any() else np.full(len(labels), 1 / len(labels)),
        )
    r = np.ones((4, 4))
    if isinstance(structure, FwFM):
        r[np.triu_indices(4)] = model.weights[n:].ravel()[:10]
    assert len(pairs) == 6
    for pair in pairs:
        a, b = sorted(pair["columns"], key=places.__getitem__)
        added = r[places[a], places[b]] * sides[a][0] @ sides[b][0].T
        expected = np.sqrt(sides[a][1] @ added**2 @ sides[b][1])
        assert pair["strength"] == pytest.approx(expected, rel=1e-9)
        assert pair.get("weight", 1.0) == pytest.approx(r[places[a], places[b]], rel=1e-6)
    strengths = [pair["strength"] for pair in pairs]
    assert strengths == sorted(strengths, reverse=True)
    of_two = [entry for entry in values if set(entry["columns"]) == {"site", "shop"}]
    largest = max(np.abs(r[places["site"], places["shop"]] * sides["site"][0] @ sides["shop"][0].T).ravel())
    assert abs(of_two[0]["add"]) == pytest.approx(largest, rel=1e-9)


def labels_of(model: Model) -> list[Any]:
    from streamsgd.features.encoder import Encoder  # noqa: PLC0415

    return [label for kind in Encoder(model.encoding).kinds for label in kind.labels(model.common)]


def test_what_a_pair_of_values_adds_is_what_scores_lose_without_the_pair(linear: Model) -> None:
    model = of(linear, FwFM(3))
    of_two = (e for e in strongest_pairs(model, 5000)[1] if set(e["columns"]) == {"site", "shop"})
    entry = next(e for e in of_two if "is missing" not in e["values"] and "other values" not in e["values"])
    row = {"x": 0.3, "noise": 0.1, **dict(zip(entry["columns"], entry["values"], strict=True))}
    a, b = sorted(model.encoding.places[name] for name in ("site", "shop"))
    without = replace(model, weights=model.weights.copy())
    without.weights[model.encoding.n_coordinates :].reshape(-1)[a * (2 * 4 - a - 1) // 2 + b] = 0.0
    lost = model.decision_function(row)[0] - without.decision_function(row)[0]
    assert entry["add"] == pytest.approx(lost, rel=1e-5)


def test_show_lists_the_strongest_pairs(linear: Model) -> None:
    summary = model_summary(of(linear, FwFM(3)), 2)
    assert len(summary["pairs"]) == len(summary["pairs_of_values"]) == 2
    text = "\n".join(model_text(json.loads(json.dumps(summary))))
    assert "strongest pairs of columns" in text
    assert "strongest pairs of values" in text


# --- permutation importance


def test_importance_is_the_loss_of_shuffled_rows(linear: Model) -> None:
    """The column that makes the target is first, noise is none, and the figures are those of rows shuffled by hand."""
    table = make()
    found = streamsgd.importance(linear, table, rows=10_000, repeats=1)
    by = {entry["column"]: entry for entry in found.columns}
    assert found.rows == N
    assert [entry["column"] for entry in found.columns][:2] == ["x", "site"]
    assert abs(by["noise"]["increase"]) <= 3.0 * by["noise"]["standard_error"] + 1e-3
    y = table["y"].to_numpy()

    def log_loss(rows: pa.Table) -> np.ndarray:
        p = linear.predict_proba(rows)[:, 1].astype(float)
        return -np.where(y > 0, np.log(p), np.log1p(-p))

    assert found.value == pytest.approx(log_loss(table).mean(), rel=1e-6)
    k = linear.encoding.sources.index("x")
    order = np.random.default_rng(np.random.SeedSequence([0, 0x1397, k, 0])).permutation(N)
    grown = log_loss(table.set_column(0, "x", table["x"].take(pa.array(order)))) - log_loss(table)
    assert by["x"]["increase"] == pytest.approx(grown.mean(), rel=1e-6)
    assert by["x"]["standard_error"] == pytest.approx(grown.std(ddof=1) / np.sqrt(N), rel=1e-6)
    again = streamsgd.importance(linear, table, rows=200, repeats=1)
    assert again == streamsgd.importance(linear, table, rows=200, repeats=1)
    assert again.rows == 200


def test_the_command_line_says_which_columns_matter(linear: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pq.write_table(make(), tmp_path / "d.parquet")
    linear.save(tmp_path / "m.sgd")
    assert main(["importance", str(tmp_path / "m.sgd"), str(tmp_path / "d.parquet"), "--rows", "300"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["columns"][0]["column"] == "x"
    assert "log loss" in said.err
    assert main(["importance", str(tmp_path / "m.sgd"), str(tmp_path / "d.parquet"), "--rows", "1"]) != 0
    assert "--rows 1: from 2 to 65,536" in capsys.readouterr().err


def test_what_cannot_be_measured_is_refused(linear: Model) -> None:
    with pytest.raises(SettingsError, match="--repeats 0: each column is shuffled"):
        streamsgd.importance(linear, make(), repeats=0)
    with pytest.raises(DataError, match="'y' is usable in none of 900 rows"):
        streamsgd.importance(linear, make().set_column(4, "y", pa.array([7] * N)))
    with pytest.raises(ModelError, match="'streamsgd importance' says which columns matter"):
        Contributions(of(linear, FM(3)))
