"""Callbacks for the tools that people track runs with, each held to what its own library reads back."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import streamsgd
from streamsgd.callbacks.libraries import library
from streamsgd.callbacks.mlflow import MLflow
from streamsgd.callbacks.optuna import OptunaPruning
from streamsgd.callbacks.pyfunc import _load_pyfunc, log_model, save_model
from streamsgd.callbacks.tensorboard import TensorBoard
from streamsgd.errors import SettingsError

RNG = np.random.default_rng(1)
X = RNG.normal(size=(4000, 2))
TABLE = pa.table({"a": X[:, 0], "b": X[:, 1], "y": X.sum(axis=1) + RNG.normal(size=4000) > 0})
SETTINGS: dict[str, Any] = {"optimizer": "adam", "epochs": 3, "validation": 0.2, "memory": "2GB", "executor": "inline"}


def test_a_library_that_is_missing_is_named_with_what_to_install() -> None:
    with pytest.raises(
        SettingsError, match=r"Nothing is not installed: .*: pip install '\.\[no_such_library\]' in the checkout"
    ):
        library("no_such_library.inside", "Nothing")


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of MLflow's without runs, whose tables take it seconds to make; it notes where it was made."""
    mlflow = pytest.importorskip("mlflow")
    path = tmp_path_factory.mktemp("mlflow") / "runs.db"
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(path.parent)
        mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def mlflow(empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """MLflow that keeps runs in a database of this test's own."""
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty, tmp_path / "runs.db")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/runs.db")
    return mlflow


@pytest.mark.filterwarnings("ignore")  # of its own libraries
def test_mlflow_has_settings_metrics_and_the_model(mlflow: Any, tmp_path: Path) -> None:
    model = streamsgd.train(TABLE, "y", callbacks=[MLflow()], **SETTINGS)
    assert mlflow.active_run() is None
    (run,) = mlflow.MlflowClient().search_runs(["0"])
    assert run.data.params["optimizer"] == "adam"
    assert run.data.metrics["valid.log_loss"] == pytest.approx(model.metrics["held_out"]["log_loss"])
    assert run.data.metrics["progressive_loss"] == pytest.approx(model.metrics["progressive_loss"])
    steps = [metric.step for metric in mlflow.MlflowClient().get_metric_history(run.info.run_id, "loss")]
    assert steps[0] == 1024
    saved = mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="model.sgd", dst_path=str(tmp_path))
    assert streamsgd.load(saved).to_bytes() == model.to_bytes()


@pytest.mark.filterwarnings("ignore")  # of its own libraries
def test_mlflow_logs_to_a_run_that_is_active(mlflow: Any) -> None:
    with mlflow.start_run() as run:
        streamsgd.train(TABLE, "y", callbacks=[MLflow(save_model=False)], **SETTINGS)
        assert mlflow.active_run() is not None
    assert "valid.loss" in mlflow.get_run(run.info.run_id).data.metrics


def test_tensorboard_reads_the_losses_back(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    model = streamsgd.train(TABLE, "y", callbacks=[TensorBoard(tmp_path / "run")], **SETTINGS)
    found = reader.EventAccumulator(str(tmp_path / "run"))
    found.Reload()
    tags = set(found.Tags()["tensors"]) | set(found.Tags()["scalars"])
    assert {"loss", "valid/log_loss", "progressive_loss"} <= tags
    steps = [event.step for event in (found.Tensors("loss") if "loss" in found.Tags()["tensors"] else found.Scalars("loss"))]
    assert steps == model.history["rows"].to_pylist()


class Trial:
    """What a pruning callback needs of a trial of Optuna."""

    def __init__(self, prune_at: int) -> None:
        self.told: list[tuple[float, int]] = []
        self.prune_at = prune_at

    def report(self, value: float, step: int) -> None:
        self.told.append((value, step))

    def should_prune(self) -> bool:
        return len(self.told) >= self.prune_at


def test_optuna_prunes_a_run_at_an_evaluation() -> None:
    optuna = pytest.importorskip("optuna")
    pruning = OptunaPruning(Trial(prune_at=2))
    model = streamsgd.train(TABLE, "y", callbacks=[pruning], **{**SETTINGS, "epochs": 5})
    assert [value for value, _ in pruning.trial.told] == model.metrics["held_out_losses"]
    assert pruning.value == model.metrics["held_out_losses"][1]
    assert model.provenance["rows_learned"] < 5 * 4000 * 0.8
    with pytest.raises(optuna.TrialPruned):
        pruning.check()


def test_a_study_finds_a_rate_and_prunes_others() -> None:
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.GridSampler({"rate": [0.003, 0.01, 1e-7]}))

    def objective(trial: Any) -> float:
        pruning = OptunaPruning(trial)
        streamsgd.train(TABLE, "y", learning_rate=trial.suggest_float("rate", 1e-7, 1.0), callbacks=[pruning], **SETTINGS)
        pruning.check()
        return pruning.value

    study.optimize(objective, n_trials=3)
    assert study.best_params["rate"] > 1e-6


def test_a_metric_that_never_came_is_said() -> None:
    pytest.importorskip("optuna")
    pruning = OptunaPruning(Trial(prune_at=99), metric="valid.log_los")
    streamsgd.train(TABLE, "y", callbacks=[pruning], **SETTINGS)
    with pytest.raises(SettingsError, match=r"did you mean 'valid\.log_loss'"):
        pruning.check()


@pytest.mark.filterwarnings("ignore")  # of its own libraries
def test_mlflow_loads_and_scores_a_model(mlflow: Any, tmp_path: Path) -> None:
    """Rows of frames, in which nulls are NaN, and of dicts; of another loss as values."""
    pyfunc = pytest.importorskip("mlflow.pyfunc")
    sites = pa.array([None if k % 5 == 0 else f"site {k % 3}" for k in range(TABLE.num_rows)])
    table = TABLE.append_column("site", sites)
    model = streamsgd.train(table, "y", **{**SETTINGS, "epochs": 1, "categorical": ["site"]})
    with mlflow.start_run():
        logged = log_model(model, "clicks")
    loaded = pyfunc.load_model(logged.model_uri)
    some = table.slice(0, 100).drop(["y"])
    assert loaded.predict(some.to_pandas()) == model.predict(some).tolist()
    save_model(model, str(tmp_path / "saved"))
    assert pyfunc.load_model(str(tmp_path / "saved")).predict(some.to_pandas()) == model.predict(some).tolist()
    scorer = _load_pyfunc(str(tmp_path / "saved" / "data" / "model.json"))
    assert np.allclose(scorer.predict(some.to_pylist(), {"probabilities": True}), model.predict_proba(some), atol=1e-6)
