"""sample, show of what it saves, calibrate, and predict --intervals, as people type them."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streamsgd.cli.main import main


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 2))
    y = x @ [1.0, -0.5] + rng.logistic(size=3000) > 0
    path = tmp_path_factory.mktemp("sample") / "rows.parquet"
    pq.write_table(pa.table({"a": 10.0 * x[:, 0], "b": x[:, 1], "c": rng.choice(["u", "v"], 3000), "y": y}), path)
    return path


def test_a_posterior_is_drawn_shown_calibrated_and_scored_with(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(data.parent / "posterior.sgd")
    usual = ["--memory", "1GB", "--executor", "inline"]
    assert main(["sample", str(data), "--target", "y", "--prior", "normal:sd=1", "-o", out, *usual]) == 0
    done = capsys.readouterr()
    assert json.loads(done.out.splitlines()[-1])["metrics"]["posterior"]["chains"] == 4
    assert "R-hat at most 1.0" in done.err

    assert main(["show", out, "--json"]) == 0
    weights = json.loads(capsys.readouterr().out)["weights"]
    assert weights[0]["column"] is None
    assert {(w["column"], w["value"]) for w in weights} >= {("a", None), ("b", None), ("c", "u"), ("c", "v")}
    assert all(w["low"] < w["high"] and w["sd"] > 0.0 and w["ess"] > 100 for w in weights)
    a = weights[1]
    assert a["mean"] == pytest.approx(0.1, abs=0.03)  # in the units of the column
    assert a["high"] - a["low"] == pytest.approx(2 * 1.645 * a["sd"], rel=0.1)
    assert main(["show", out]) == 0
    shown = capsys.readouterr().out
    assert "R-hat" in shown
    assert "(intercept)" in shown

    assert main(["calibrate", out, str(data), *usual]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["rows"] == 3000
    scored = data.parent / "scored.parquet"
    assert main(["predict", out, str(data), "-o", str(scored), "--intervals", "0.9", *usual]) == 0
    found = pq.read_table(scored)
    assert {"labels", "mean", "mean_lower", "mean_upper", "standard_error", "total_entropy"} <= set(found.column_names)
    lower, mean, upper = (found[name].to_numpy() for name in ("mean_lower", "mean", "mean_upper"))
    assert ((lower < mean) & (mean < upper)).all()


def test_standard_errors_are_shown_with_z_and_p(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(data.parent / "errors.sgd")
    usual = ["--memory", "1GB", "--executor", "inline", "--exclude", "c"]
    assert main(["train", str(data), "--target", "y", "--polish", "20", "--standard-errors", "-o", out, *usual]) == 0
    capsys.readouterr()
    assert main(["show", out, "--json"]) == 0
    a = json.loads(capsys.readouterr().out)["weights"][1]
    assert a["z"] == pytest.approx(a["mean"] / a["sd"])
    assert a["p"] < 1e-10
    assert a["high"] - a["low"] == pytest.approx(2 * 1.6449 * a["sd"], rel=1e-3)
    assert a["ess"] is None
