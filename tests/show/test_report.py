"""Reports: strict XML with its pictures inside, nothing from elsewhere, small, and true to the model."""

import re
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_curve

import streamsgd
from streamsgd.cli.main import main
from streamsgd.model.sampled import Sampled
from streamsgd.show.curves import judged
from streamsgd.show.report import HtmlReport
from streamsgd.show.svg import Axis, Line, bars, chart

SVG = "{http://www.w3.org/2000/svg}"
SETTINGS: dict[str, Any] = {"executor": "inline", "memory": "1GB", "epochs": 1}
N = 3000


def make() -> pa.Table:
    rng = np.random.default_rng(11)
    x, site = rng.normal(size=(N, 2)), rng.integers(0, 4, N)
    score = x @ [1.0, -1.0] + 0.5 * site - 0.7
    return pa.table(
        {
            "a": x[:, 0],
            "<b> & 'c'": x[:, 1],
            "site": [f"<s{k}>" for k in site],
            "y": (rng.random(N) < 1 / (1 + np.exp(-score))).astype(np.int64),
            "number": 10.0 + 5.0 * (score + rng.normal(size=N)),
            "kind": np.array(["low", "mid", "high"])[np.digitize(score + rng.normal(size=N), [-0.5, 0.5])],
        }
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "d.parquet"
    pq.write_table(make(), path, row_group_size=500)
    return path


def checked(path: Path) -> ET.Element:
    """Return a report as strict XML, after what any report must be."""
    text = path.read_text(encoding="utf-8")
    assert len(text) < 1_000_000
    assert set(re.findall(r"(?:https?:)?//[^\s\"'<)]+", text)) <= {"http://www.w3.org/2000/svg"}
    assert "<script" not in text
    page = ET.fromstring(text.removeprefix("<!DOCTYPE html>\n"))
    for picture in page.iter(f"{SVG}svg"):
        assert picture.find(f"{SVG}title") is not None
        for shape in picture.iter():
            for name in ("x", "y", "x1", "y1", "x2", "y2", "cx", "cy", "width", "height"):
                assert np.isfinite(float(shape.get(name, "0")))
    return page


def titles(page: ET.Element) -> list[str]:
    return [str(title.text) for title in page.iter("h2")]


def captions(page: ET.Element) -> list[str]:
    return [str(caption.text) for caption in page.iter("figcaption")]


def test_a_run_reports_itself(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["train", str(data), "--target", "y", "--exclude", "number,kind", "-o", str(tmp_path / "m.sgd"), "--quiet"]
    assert main([*args, "--epochs", "1", "--validation", "0.3", "--report", str(tmp_path / "r.html")]) == 0
    capsys.readouterr()
    page = checked(tmp_path / "r.html")
    assert {"Metrics", "Learning curve", "Predictions", "Weights", "Effects of numbers", "Time and memory", "Settings"} <= set(
        titles(page)
    )
    assert {"Calibration", "ROC", "Precision and recall", "Numbers", "Values", "<b> & 'c'", "Seconds"} <= set(captions(page))
    model = streamsgd.load(tmp_path / "m.sgd")
    (pre,) = list(page.iter("pre"))
    settings = tomllib.loads(str(pre.text))
    assert settings["target"] == "y"
    assert settings["validation"] == 0.3
    assert (
        main(["train", str(data), "-o", str(tmp_path / "n.sgd"), "--quiet", "--config", copied(str(pre.text), tmp_path)]) == 0
    )
    assert streamsgd.load(tmp_path / "n.sgd").weights.tobytes() == model.weights.tobytes()
    cells = [str(cell.text) for cell in page.iter("td")]
    assert f"{model.metrics['held_out']['log_loss']:.6g}" in cells


def copied(text: str, folder: Path) -> str:
    (folder / "c.toml").write_text(text)
    return str(folder / "c.toml")


@pytest.mark.parametrize(
    ("target", "pictures"),
    [
        ("y", {"Calibration", "ROC", "Precision and recall"}),
        ("number", {"Calibration", "Residuals", "What came by what was predicted"}),
        ("kind", {"Calibration", "Numbers, class low"}),
    ],
)
def test_a_model_is_reported_on_data(target: str, pictures: set[str], data: Path, tmp_path: Path) -> None:
    others = [name for name in ("y", "number", "kind") if name != target]
    streamsgd.train(data, target, exclude=others, out=tmp_path / "m.sgd", **SETTINGS)
    assert main(["report", str(tmp_path / "m.sgd"), str(data), "-o", str(tmp_path / "r.html"), "--quiet"]) == 0
    page = checked(tmp_path / "r.html")
    assert pictures <= set(captions(page))
    assert f"On {N:,} rows of the data." in [str(note.text) for note in page.iter("p")]
    streamsgd.report(tmp_path / "m.sgd", tmp_path / "alone.html")
    assert "Predictions" not in titles(checked(tmp_path / "alone.html"))


def test_a_validation_set_of_its_own_is_pictured(data: Path, tmp_path: Path) -> None:
    report = HtmlReport(tmp_path / "r.html")
    streamsgd.train(data, "y", exclude=["number", "kind"], valid=data, callbacks=[report], **SETTINGS)
    assert "of the validation set" in (tmp_path / "r.html").read_text()


# --- pictures


def points(picture: str) -> list[tuple[float, float]]:
    line = ET.fromstring(picture).find(f"{SVG}polyline")
    assert line is not None
    return [(float(a), float(b)) for a, b in (pair.split(",") for pair in str(line.get("points")).split())]


def test_the_roc_curve_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    p = np.round(rng.random(5000), 2)
    y = (rng.random(5000) < p).astype(float)
    drawn = points(judged("binary", (0, 1), Sampled(y, p[:, None], np.ones(5000)))["ROC"])
    truth = np.column_stack(roc_curve(y, p, drop_intermediate=False)[:2])
    (left, bottom), (right, top) = drawn[0], drawn[-1]
    for a, b in drawn:
        point = np.array([(a - left) / (right - left), (b - bottom) / (top - bottom)])
        assert np.abs(truth - point).max(axis=1).min() < 0.002


def test_values_that_cannot_be_drawn_are_left_out() -> None:
    line = Line("", [1.0, float("nan"), 10.0, 100.0, 0.0], [1.0, 2.0, float("inf"), 3.0, 4.0])
    assert len(points(chart([line], Axis("x", log=True), Axis("y"), "t"))) == 2
    assert chart([Line("", [], [])], Axis("x"), Axis("y"), "t") == ""
    assert bars([], [], "t") == ""
    ET.fromstring(bars(["<a>", "b & c"], [1.0, -2.0], "t"))
    ET.fromstring(bars(["a"], [0.0], "t"))
