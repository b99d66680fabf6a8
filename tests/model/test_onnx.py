"""Models as ONNX graphs: onnxruntime predicts what the model does, and what ONNX cannot say is refused by name."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import streamsgd
from streamsgd.errors import ModelError
from streamsgd.kernels.models.machines import FM, compiled, rows_of
from streamsgd.kernels.models.networks import MLP
from streamsgd.kernels.models.pairs import FwFM

pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

N = 2000
FEW = {"epochs": 1, "executor": "inline", "optimizer": "adam"}


def table_of(seed: int, n: int = N) -> pa.Table:
    rng = np.random.default_rng(seed)
    x, heavy = rng.normal(size=n), np.exp(3 * rng.normal(size=n))
    site = pa.array(rng.choice(["a", "b", "é", "seldom"], n, p=[0.5, 0.3, 0.19, 0.01]), mask=rng.random(n) < 0.1)
    score = x + np.log(heavy) - 1.5 * (np.asarray(site.fill_null("")) == "a")
    columns = {"x": pa.array(x, mask=rng.random(n) < 0.1), "heavy": heavy, "flag": rng.random(n) < 0.5, "site": site}
    drawn = rng.random(n) < 1 / (1 + np.exp(-score))
    return pa.table(
        {**columns, "y": score, "two": drawn, "three": np.where(score > 1, "up", np.where(score < -1, "down", "mid"))}
    )


def feed(table: pa.Table, names: list[str]) -> dict[str, np.ndarray]:
    """Return the columns as the graph takes them: NaN and the empty text are null."""
    found = {}
    for name in names:
        column = table[name].combine_chunks()
        text = pa.types.is_string(column.type)
        plain = (
            np.array(column.fill_null("").to_pylist(), object)
            if text
            else column.cast(pa.float64()).to_numpy(zero_copy_only=False)
        )
        found[name] = plain.reshape(-1, 1)
    return found


def run(path: Path, table: pa.Table) -> dict[str, Any]:
    session = runtime.InferenceSession(str(path))
    outputs = [each.name for each in session.get_outputs()]
    return dict(zip(outputs, session.run(outputs, feed(table, [each.name for each in session.get_inputs()])), strict=True))


@pytest.mark.parametrize(
    "more", [{}, {"transform": ["log1p", "bins"], "missing": ["indicator"]}], ids=["as it comes", "all of numbers"]
)
@pytest.mark.parametrize("target", ["y", "two", "three"])
def test_onnxruntime_predicts_what_the_model_does(target: str, more: dict[str, Any], tmp_path: Path) -> None:
    columns = {"features": ["x", "heavy", "flag", "site"], "categorical": ["site"], **more}
    model = streamsgd.train(table_of(0), target, **columns, **FEW)
    streamsgd.export(model, tmp_path / "m.onnx", to="onnx")
    rows = pa.concat_tables([table_of(1, 10_000), table_of(2, 1).set_column(3, "site", pa.array(["never seen"]))])
    found = run(tmp_path / "m.onnx", rows)
    if target == "y":
        np.testing.assert_allclose(found["prediction"][:, 0], model.predict(rows), rtol=1e-6, atol=1e-5)
        return
    np.testing.assert_allclose(found["probabilities"], model.predict_proba(rows), atol=1e-6)
    assert np.mean(np.array(model.classes)[found["prediction"]] == model.predict(rows)) > 0.9999


@pytest.mark.parametrize("structure", [FM(3), FwFM(2, "none"), FwFM(3), MLP("4-3", "logistic"), MLP("5")], ids=str)
def test_onnxruntime_predicts_what_machines_and_networks_do(structure: Any, tmp_path: Path) -> None:
    """With parameters that nobody trained, so that each of them shows in what comes out."""
    columns = {
        "features": ["x", "heavy", "flag", "site"],
        "categorical": ["site"],
        "transform": ["log1p"],
        "missing": ["indicator"],
    }
    model = streamsgd.train(table_of(0), "two", **columns, **FEW)
    form, n = compiled(structure, columns=model.encoding.n_places), model.encoding.n_coordinates
    scale = 1.5 if isinstance(structure, MLP) else 0.4
    weights = scale * np.random.default_rng(5).normal(size=(rows_of(form, n), form.width()))
    model = replace(model, structure=structure, weights=weights)
    streamsgd.export(model, tmp_path / "m.onnx", to="onnx")
    found, table = run(tmp_path / "m.onnx", table_of(1, 200)), table_of(1, 200)
    np.testing.assert_allclose(found["probabilities"], model.predict_proba(table), rtol=0, atol=1e-7)
    assert np.ptp(found["probabilities"][:, 0]) > 0.1


def test_what_onnx_cannot_say_is_refused_by_name(tmp_path: Path) -> None:
    table = table_of(0).append_column("user", pa.array([f"u{k}" for k in range(N)]))
    for more, name in (
        ({"features": ["x", "user"]}, "'user' is in the hashed space"),
        ({"features": ["x", "site", "flag"], "categorical": ["site"], "cross": ["site*x"]}, "is a cross"),
    ):
        model = streamsgd.train(table, "two", **more, **FEW)
        with pytest.raises(ModelError, match=rf"{name}.*ONNX cannot say.*streamsgd\.serving"):
            streamsgd.export(model, tmp_path / "m.onnx", to="onnx")
    assert not (tmp_path / "m.onnx").exists()
