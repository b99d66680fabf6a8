"""Time zones of moments whose parts a model takes: those of training, or refused by name."""

import datetime as dt
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import streamsgd
from streamsgd import serving
from streamsgd.errors import ModelError
from streamsgd.serving.values import zone_named


@pytest.mark.parametrize("zone", ["+02:00", "-0330", "UTC", "Europe/Berlin", "Asia/Kolkata"])
def test_parts_of_moments_are_those_of_training_in_every_zone(zone: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    seconds = rng.integers(0, 10**9, 500)
    table = pa.table({"when": pa.array(seconds, pa.timestamp("s", zone)), "y": np.sin(seconds / 13751.0)})
    model = streamsgd.train(table, "y", time_parts=["when"], executor="inline", epochs=2)
    model.save(tmp_path / "m.sgd")
    rows = [{"when": dt.datetime.fromtimestamp(at, dt.UTC)} for at in seconds.tolist()]
    np.testing.assert_allclose(serving.load(tmp_path / "m.sgd").predict(rows), model.predict(table), atol=1e-6)


@pytest.mark.parametrize("zone", ["../../etc/passwd", "Europe", "Mars/Olympus", "+99:00", "\0", "x" * 500])
def test_a_zone_that_is_none_is_refused_when_a_model_is_loaded(zone: str, tmp_path: Path) -> None:
    table = pa.table({"when": pa.array([0, 10**6, 10**7] * 9, pa.timestamp("s", "UTC")), "y": np.arange(27.0)})
    model = streamsgd.train(table, "y", time_parts=["when"], executor="inline", epochs=1)
    streamsgd.export(model, tmp_path / "m.json", to="json")
    text = (tmp_path / "m.json").read_text()
    assert '"zone": "UTC"' in text
    (tmp_path / "m.json").write_text(text.replace('"zone": "UTC"', f'"zone": {json.dumps(zone)}'))
    with pytest.raises(ModelError, match=r"m\.json: takes parts of moments in the time zone .* not known here"):
        serving.load(tmp_path / "m.json")


@pytest.mark.parametrize("zone", ["+00:75", "-12:60", "+24:00"])
def test_an_offset_of_no_time_is_no_zone(zone: str) -> None:
    with pytest.raises(ModelError, match="not known here"):
        zone_named(zone)
