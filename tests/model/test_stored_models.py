"""Models that an old version wrote: each loads, and predicts what it did then."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import streamsgd
from streamsgd.model.posterior.intervals import IntervalColumns

MODELS = Path(__file__).resolve().parents[1] / "data" / "models"
NAMES = sorted(path.stem for path in MODELS.glob("*.sgd"))


def agree(found: Any, expected: Any) -> None:
    """Equal, if of text; to six digits of the largest, if of numbers: a small score is a difference of large ones."""
    found, expected = np.asarray(found), np.asarray(expected)
    if found.dtype.kind in "OUTSb":
        assert found.tolist() == expected.tolist()
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * np.nanmax(np.abs(expected)))


@pytest.mark.parametrize("name", NAMES)
def test_it_predicts_what_it_did(name: str) -> None:
    """From a table and from a file alike."""
    model = streamsgd.load(MODELS / f"{name}.sgd")
    expected = json.loads((MODELS / f"{name}.json").read_text())
    table = pq.read_table(MODELS / f"{name}.parquet")
    for data in (table, str(MODELS / f"{name}.parquet")):
        agree(model.predict(data), expected["predictions"])
        agree(model.decision_function(data), expected["scores"])
    assert model.has_probabilities == ("probabilities" in expected)
    if model.has_probabilities:
        agree(model.predict_proba(table), expected["probabilities"])
    if "standard_errors" in expected:
        for found, of in zip(model.standard_errors(), expected["standard_errors"], strict=True):
            agree(found, of)
    for level, told in expected.get("intervals", {}).items():
        found = IntervalColumns(model, float(level)).score(model.encode(table)[0], 0, table.num_rows)
        for column, values in told.items():
            if column == "labels":
                assert found[column].to_pylist() == values
            else:
                agree(found[column].to_pylist(), values)


@pytest.mark.parametrize("name", NAMES)
def test_saved_again_it_stays_what_it_is(name: str, tmp_path: Path) -> None:
    """What is loaded and saved loads as the same model."""
    model = streamsgd.load(MODELS / f"{name}.sgd")
    model.save(tmp_path / "again.sgd")
    again = streamsgd.load(tmp_path / "again.sgd")
    assert again.weights.tobytes() == model.weights.tobytes()
    assert again.to_bytes() == model.to_bytes()


def test_there_is_one_for_every_encoding() -> None:
    assert NAMES == ["bins", "calibrated", "classes", "crosses", "errors", "numbers", "ragged", "residuals", "text", "times"]
