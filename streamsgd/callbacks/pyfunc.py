"""A model as a flavour of MLflow: whatever serves models of MLflow scores it by `streamsgd.serving`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamsgd import serving
from streamsgd.callbacks.libraries import library
from streamsgd.version import __version__

if TYPE_CHECKING:
    from streamsgd.model.model import Model


def log_model(model: Model, name: str = "model", **options: Any) -> Any:
    """Log a model to the active run of MLflow so that `mlflow.pyfunc.load_model` loads it; return what MLflow says of it.

    Parameters
    ----------
    model
        Any model of streamsgd's own parts.
    name
        Of the model within the run.
    options
        More for `mlflow.pyfunc.log_model`, such as `registered_model_name`.

    Raises
    ------
    SettingsError
        MLflow is not installed.
    ModelError
        The model has parts of one's own, which nobody else could load.

    """
    return _written(model, lambda pyfunc, given: pyfunc.log_model(name=name, **given), options)


def save_model(model: Model, path: str, **options: Any) -> None:
    """Write a model to a folder as a model of MLflow; parameters and errors are those of `log_model`."""
    _written(model, lambda pyfunc, given: pyfunc.save_model(path=path, **given), options)


def _written(model: Model, write: Any, options: dict[str, Any]) -> Any:
    from streamsgd.model.exporting.export import export_model  # noqa: PLC0415  what loading a logged model need not pay

    pyfunc = library("mlflow.pyfunc", "MLflow")
    with tempfile.TemporaryDirectory() as folder:
        export_model(model, Path(folder) / "model.json", "json")
        asked = {"pip_requirements": [f"streamsgd=={__version__}"], **options}
        return write(pyfunc, {"loader_module": __name__, "data_path": f"{folder}/model.json", **asked})


class Scorer:
    """What MLflow loads."""

    def __init__(self, served: Any) -> None:
        self.served = served

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> list[Any]:
        """Return a value or class for each row of a frame of pandas, a dict, or a list of dicts.

        With `params={"probabilities": True}` it is the probabilities, a list in the order of classes.
        """
        rows: Any = [model_input] if isinstance(model_input, dict) else model_input
        if hasattr(rows, "to_dict"):  # of pandas, which has NaN for any null
            rows = rows.astype(object).where(rows.notna(), None).to_dict("records")
        wanted = self.served.predict_proba if (params or {}).get("probabilities") else self.served.predict
        found: list[Any] = wanted(list(rows))
        return found


def _load_pyfunc(path: str) -> Scorer:
    """Return what `mlflow.pyfunc.load_model` calls."""
    return Scorer(serving.load(path))
