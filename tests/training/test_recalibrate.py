"""Laws of losses that move the target, and of the maps that give probabilities back."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import finish_chunk_by_chunk
from scipy.special import expit
from sklearn.calibration import _SigmoidCalibration
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

import streamsgd
from streamsgd import serving
from streamsgd.errors import DataError, ModelError, SettingsError
from streamsgd.kernels.sums.calibration import PER_UNIT
from streamsgd.model.exporting.export import export_model
from streamsgd.model.probability.calibration import Calibration
from streamsgd.model.probability.recalibrate import fit_map
from streamsgd.model.probability.score_map import ScoreMap
from streamsgd.model.read import from_file

N = 20_000
QUICK: dict[str, Any] = {"executor": "inline", "memory": "2GB", "optimizer": "adam", "epochs": 2, "chunk_rows": 4000}
HELD = {"validation": 0.3}


def draw(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([seed, 5])
    x = rng.normal(size=(n, 2))
    return x, rng.random(n) < expit(-3.0 + x @ [1.0, -0.7])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    x, y = draw(N, 0)
    path = tmp_path_factory.mktemp("recalibrate") / "data.parquet"
    pq.write_table(pa.table({"a": x[:, 0], "b": x[:, 1], "y": y}), path, row_group_size=1000)
    return str(path)


@pytest.fixture(scope="module")
def models(data: str) -> dict[str, streamsgd.Model]:
    """Of focal loss, as it is and recalibrated."""
    settings = {**QUICK, **HELD, "loss": "focal:gamma=2,alpha=.25"}
    return {how: streamsgd.train(data, "y", **settings, recalibrate=how) for how in ("none", "platt", "isotonic")}


# --- the maps, by scikit-learn


def sums_of(scores: np.ndarray, y: np.ndarray, weight: np.ndarray) -> np.ndarray:
    found = Calibration()
    found.update(y, scores, weight)
    return found.levels


@pytest.fixture(scope="module")
def scored() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    scores = rng.normal(-1.0, 1.5, 30_000)
    y = (rng.random(30_000) < expit(2.0 * scores - 2.5)).astype(float)
    return scores, y, rng.integers(1, 4, 30_000).astype(float)


def test_platt_is_that_of_sklearn(scored: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    scores, y, weight = scored
    found, told = fit_map("platt", sums_of(scores, y, np.ones(len(y))))
    theirs = _SigmoidCalibration().fit(scores, y)
    assert (found.slope, found.shift) == pytest.approx((-theirs.a_, -theirs.b_), rel=1e-4)
    assert told["log_loss"] < told["log_loss_before"]
    # Rows of a weight of k are k rows.
    weighted, _ = fit_map("platt", sums_of(scores, y, weight))
    times = weight.astype(int)
    repeated, _ = fit_map("platt", sums_of(np.repeat(scores, times), np.repeat(y, times), np.ones(times.sum())))
    assert (weighted.slope, weighted.shift) == pytest.approx((repeated.slope, repeated.shift), rel=1e-8)


def test_isotonic_is_that_of_sklearn(scored: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """Of rows whose scores are levels' middles: the regression of levels is that of rows then."""
    scores, y, weight = scored
    middles = (np.floor(scores * PER_UNIT) + 0.5) / PER_UNIT
    found, _ = fit_map("isotonic", sums_of(middles, y, weight))
    least = 0.5 / (weight.sum() + 1.0)
    theirs = IsotonicRegression(y_min=least, y_max=1.0 - least).fit(middles, y, sample_weight=weight)
    np.testing.assert_allclose(expit(found.of(middles)), theirs.predict(middles), rtol=1e-8)
    assert (np.diff(found.of(np.linspace(-20, 20, 5001))) >= 0.0).all()


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_maps_of_nothing_are_refused(method: str) -> None:
    rng = np.random.default_rng(2)
    scores = rng.normal(size=2000)
    with pytest.raises(DataError, match="10 of each: hold more out"):
        fit_map(method, sums_of(scores, (scores > 3.2).astype(float), np.ones(2000)))
    backwards = (rng.random(2000) < expit(-5 * scores)).astype(float)
    with pytest.raises(DataError, match="the model has learned nothing"):
        fit_map(method, sums_of(scores, backwards, np.ones(2000)))


# --- models


def test_focal_moves_probabilities_and_recalibration_gives_them_back(models: dict[str, streamsgd.Model]) -> None:
    x, y = draw(60_000, 1)
    table = pa.table({"a": x[:, 0], "b": x[:, 1], "y": y})
    found = {how: model.evaluate(table) for how, model in models.items()}
    # What focal loss has done to the direction stays; the best that a line of its scores can do on these rows is the measure.
    scores = models["none"].decision_function(table)[:, None]
    best = log_loss(y, LogisticRegression(C=1e9).fit(scores, y).predict_proba(scores)[:, 1])
    assert found["none"]["calibration_error"] > 0.05
    assert found["none"]["log_loss"] > 1.2 * best
    for how in ("platt", "isotonic"):
        assert found[how]["calibration_error"] < 0.01
        # Within three standard errors of the held-out rows that the map is fitted to.
        assert found[how]["mean_prediction"] == pytest.approx(y.mean(), abs=3 * np.sqrt(y.mean() / (0.3 * N)))
        # What a table says is what is predicted.
        p = models[how].predict_proba(table)[:, 1]
        assert p.mean() == pytest.approx(found[how]["mean_prediction"], rel=1e-4)
        np.testing.assert_allclose(expit(models[how].decision_function(table)), p, rtol=1e-5)
    assert found["platt"]["log_loss"] < 1.005 * best
    # Isotonic regression has dozens of values to find in 480 positives.
    assert found["isotonic"]["log_loss"] < found["none"]["log_loss"] / 1.2
    # A line keeps the ranking; the numbers are each as far off as they say.
    off = found["platt"]["average_precision_error"] + found["none"]["average_precision_error"]
    assert found["platt"]["average_precision"] == pytest.approx(found["none"]["average_precision"], abs=off + 1e-6)


def test_platt_is_in_the_weights_and_isotonic_beside_them(models: dict[str, streamsgd.Model]) -> None:
    plain, platt, isotonic = (models[how] for how in ("none", "platt", "isotonic"))
    told = platt.metrics["recalibration"]
    wanted = plain.weights.astype(np.float64) * told["slope"]
    wanted[-1] += told["shift"]
    np.testing.assert_allclose(platt.weights, wanted, rtol=1e-6)
    assert platt.score_map is None
    np.testing.assert_array_equal(isotonic.weights, plain.weights)
    assert {type(model.loss).__name__ for model in (platt, isotonic)} == {"Logistic"}
    assert platt.provenance["parts"]["loss"] == "focal:gamma=2.0,alpha=0.25"
    assert "recalibrate" not in plain.settings


@pytest.mark.parametrize("how", ["platt", "isotonic"])
def test_files_exports_and_serving_predict_the_same(models: dict[str, streamsgd.Model], tmp_path: Path, how: str) -> None:
    model = models[how]
    x, _ = draw(50, 3)
    table = pa.table({"a": x[:, 0] * 3, "b": x[:, 1] * 3})
    p = model.predict_proba(table)
    model.save(tmp_path / "m.sgd")
    np.testing.assert_array_equal(streamsgd.load(tmp_path / "m.sgd").predict_proba(table), p)
    assert streamsgd.load(tmp_path / "m.sgd").to_bytes() == model.to_bytes()
    export_model(model, tmp_path / "m.json", "json")
    for name in ("m.sgd", "m.json"):
        np.testing.assert_allclose(serving.load(tmp_path / name).predict_proba(table.to_pylist()), p, atol=2e-6)


def test_what_bends_scores_has_no_sums(models: dict[str, streamsgd.Model], tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    assert onnx
    with pytest.raises(ModelError, match=r"--recalibrate isotonic.*bends its scores"):
        export_model(models["isotonic"], tmp_path / "m.onnx", "onnx")
    export_model(models["platt"], tmp_path / "m.onnx", "onnx")


def test_a_damaged_map_is_refused(models: dict[str, streamsgd.Model]) -> None:
    model = models["isotonic"]
    header, arrays = {"format": 1, "kind": "model", **model.header()}, {"weights": model.weights}
    for wrong, said in (
        ({"method": "isotonic", "scores": [0.0, 1.0], "log_odds": [1.0, 0.0]}, "falls somewhere"),
        ({"method": "isotonic", "scores": [0.0], "log_odds": []}, "has not a log-odds"),
        ({"method": "platt", "slope": -1.0}, "slope"),
        ({"method": "other"}, "score_map"),
    ):
        with pytest.raises(ModelError, match=said):
            from_file({**header, "score_map": wrong}, arrays)
    assert ScoreMap("platt", 2.0, 1.0).fault() == ""


def test_kills_and_places_leave_no_trace(data: str, tmp_path: Path, models: dict[str, streamsgd.Model]) -> None:
    def run(**settings: Any) -> streamsgd.Model:
        return streamsgd.train(data, "y", **settings)

    settings = {**QUICK, **HELD, "loss": "focal:gamma=2,alpha=.25", "recalibrate": "isotonic"}
    places = iter([{}, {"executor": "threads", "threads": 2}] * 50)
    model, stops = finish_chunk_by_chunk(run, tmp_path / "saved", places, **settings)
    assert stops >= 8
    assert model.to_bytes() == models["isotonic"].to_bytes()


def test_margins_get_probabilities(data: str) -> None:
    """Platt's own purpose."""
    model = streamsgd.train(data, "y", **QUICK, **HELD, loss="squared-hinge", recalibrate="platt")
    x, y = draw(20_000, 1)
    found = model.evaluate(pa.table({"a": x[:, 0], "b": x[:, 1], "y": y}))
    assert found["calibration_error"] < 0.02


def test_class_weights_are_undone_before(data: str) -> None:
    """So that the map has nothing to do."""
    model = streamsgd.train(data, "y", **QUICK, **HELD, class_weight=["balanced"], recalibrate="platt")
    told = model.metrics["recalibration"]
    assert told["slope"] == pytest.approx(1.0, abs=0.15)
    assert told["shift"] == pytest.approx(0.0, abs=0.3)


# --- logit adjustment


def test_adjusted_scores_are_as_of_classes_that_are_as_frequent(data: str, tmp_path: Path) -> None:
    """At the minimum, the intercept alone is another one: by the log-odds of the classes, which are counted and kept."""
    settings = {**QUICK, "polish": 30, "epochs": 1}
    plain = streamsgd.train(data, "y", **settings)
    model = streamsgd.train(data, "y", **settings, loss="logistic:adjust=1")
    _, y = draw(N, 0)
    odds = np.log(y.sum() / (~y).sum())
    assert model.loss.log_odds == pytest.approx(odds, rel=1e-12)
    np.testing.assert_allclose(model.weights[:-1], plain.weights[:-1], atol=2e-3)
    assert model.weights[-1, 0] == pytest.approx(plain.weights[-1, 0] - odds, abs=2e-3)
    assert model.metrics["best_constant_loss"] == pytest.approx(plain.metrics["best_constant_loss"])
    model.save(tmp_path / "m.sgd")
    again = streamsgd.load(tmp_path / "m.sgd")
    assert again.loss == model.loss
    # What is served has the same probabilities, those of equal shares.
    row = {"a": 0.3, "b": -1.0}
    p = model.predict_proba(pa.table({key: [value] for key, value in row.items()}))[0]
    assert serving.load(tmp_path / "m.sgd").predict_proba(row) == pytest.approx(p.tolist(), abs=1e-6)


def test_counted_log_odds_outlast_a_kill(data: str, tmp_path: Path) -> None:
    settings = {**QUICK, "loss": "logistic:adjust=0.5", "epochs": 1}
    alone = streamsgd.train(data, "y", **settings)
    run = lambda **given: streamsgd.train(data, "y", **given)  # noqa: E731
    model, stops = finish_chunk_by_chunk(run, tmp_path / "saved", iter([{}] * 50), **settings)
    assert stops >= 3
    assert model.to_bytes() == alone.to_bytes()


# --- bad input


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"recalibrate": "platt"}, "held out: pass --validation 0.1"),
        ({"recalibrate": "platt", **HELD, "patience": 2}, "choose the weights: leave --patience out"),
        ({"recalibrate": "platt", **HELD, "target": "a"}, "'a' has not two"),
        ({"recalibrate": "platt", **HELD, "conformal": True}, "--conformal: the same rows"),
        ({"recalibrate": "platt", **HELD, "polish": 3, "standard_errors": True}, "--standard-errors: they are of weights"),
        ({"recalibrate": "platt", **HELD, "keep_memory": True}, "--keep-memory"),
        ({"recalibrate": "plat", **HELD}, "did you mean 'platt'"),
        ({"recalibrate": "isotonic", **HELD, "rare": "targeted"}, "leave --recalibrate out"),
        ({"loss": "focal:gamma=-1"}, "gamma=-1 must be at least 0 and at most 100"),
        ({"loss": "focal:alpha=1"}, "alpha=1 must be above 0 and below 1"),
        ({"loss": "focal:delta=1"}, "no field 'delta'"),
        ({"loss": "logistic:adjust=nan"}, "loss 'logistic': adjust=nan must be a finite number at least -10 and at most 10"),
        ({"loss": "logistic:adjust=1", "class_weight": ["balanced"]}, "leave one of them out"),
        ({"loss": "logistic:adjust=1", "rare": "targeted"}, "take --loss logistic"),
        ({"loss": "focal", "target": "a", "task": "regression"}, "for a binary target"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(data: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        streamsgd.train(data, **{"target": "y", "executor": "inline", **settings})


def test_tables_that_come_one_by_one_must_say_the_log_odds() -> None:
    with pytest.raises(SettingsError, match="say log_odds"):
        streamsgd.Trainer("y", loss="logistic:adjust=1")
    with pytest.raises(SettingsError, match="--recalibrate needs all the data"):
        streamsgd.Trainer("y", recalibrate="platt", validation=0.1)
    streamsgd.Trainer("y", loss="logistic:adjust=1,log_odds=-4.6")
