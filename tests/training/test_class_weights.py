"""Laws of class weights: they are scikit-learn's while learning, and the intercept undoes them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import finish_chunk_by_chunk
from sklearn.linear_model import LogisticRegression
from sklearn.utils import compute_class_weight

import streamsgd
from streamsgd.errors import DataError, SettingsError, StreamSGDError

BASE: dict[str, Any] = {"precision": "float64", "scale": "none", "executor": "inline", "batch_size": 16, "memory": "2GB"}


def rare(n: int = 4000, seed: int = 0, classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([seed, 18])
    x = rng.normal(size=(n, 2))
    scores = np.column_stack([np.zeros(n), *(x @ np.roll([1.0, -0.5], k) - 2.0 - k for k in range(classes - 1))])
    return x, (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)


@pytest.fixture
def data(tmp_path: Path) -> Callable[..., str]:
    def write(classes: int = 2, names: Any = None, **others: Any) -> str:
        x, y = rare(classes=classes)
        path = str(tmp_path / f"{classes}.parquet")
        table = pa.table({"a": x[:, 0], "b": x[:, 1], "y": y if names is None else np.array(names)[y], **others})
        pq.write_table(table, path, row_group_size=500)
        return path

    return write


@pytest.mark.parametrize("classes", [2, 3])
def test_the_weighted_minimum_is_scikit_learns_and_its_intercept_is_undone_by_the_logarithms(
    data: Callable[..., str], classes: int
) -> None:
    path, (x, y) = data(classes), rare(classes=classes)
    task = "binary" if classes == 2 else "multiclass"
    polished = {**BASE, "polish": 200, "class_weight": "balanced", "optimizer": "sgd", "task": task}
    model = streamsgd.train(path, "y", **polished)
    kept = streamsgd.train(path, "y", **polished, keep_weights=True)
    weights = compute_class_weight("balanced", classes=np.arange(classes), y=y)
    np.testing.assert_allclose(model.provenance["class_weights"], weights, rtol=1e-14)
    theirs = LogisticRegression(C=np.inf, class_weight="balanced", tol=1e-12, max_iter=1000).fit(x, y)
    np.testing.assert_allclose(kept.predict_proba(path), theirs.predict_proba(x), atol=2e-6)
    shift = np.log(weights[1] / weights[0]) if classes == 2 else np.log(weights) - np.log(weights).mean()
    logits = kept.decision_function(path) - shift
    np.testing.assert_allclose(model.decision_function(path), logits, atol=1e-12)
    mean, shares = model.predict_proba(path).mean(axis=0), np.bincount(y) / len(y)
    np.testing.assert_allclose(mean, shares, rtol=0.1)
    assert abs(kept.predict_proba(path).mean(axis=0)[0] - shares[0]) > 0.1


def test_weights_of_classes_are_row_weights(data: Callable[..., str]) -> None:
    """To the last bit, those of rows that have weights of their own too."""
    _, y = rare()
    own = np.arange(4000) % 3 + 1.0
    by_class = {**BASE, "class_weight": ["no=0.5", "yes=8"], "keep_weights": True, "validation": 0.1}
    path = data(names=["no", "yes"], own=own, product=own * np.where(y, 8.0, 0.5))
    columns = {"features": ["a", "b"]}
    ours = streamsgd.train(path, "y", weight="own", **by_class, **columns)
    same = streamsgd.train(path, "y", weight="product", **BASE, validation=0.1, **columns)
    assert ours.weights.tobytes() == same.weights.tobytes()
    assert ours.metrics == same.metrics


def test_held_out_rows_are_judged_as_they_are(data: Callable[..., str]) -> None:
    """Without weights of classes, by the model that undoes them; patience keeps weights that are undone once."""
    path = data()
    balanced = {**BASE, "class_weight": ["balanced"], "epochs": 4}
    held = streamsgd.train(path, "y", **balanced, validation=0.3)
    found = held.metrics["held_out"]
    assert found["weight"] == found["rows"]
    assert found["log_loss"] < found["best_constant_log_loss"]
    patient = streamsgd.train(path, "y", **balanced, valid=path, patience=10)
    again = streamsgd.evaluate(patient, path)
    assert again["log_loss"] == pytest.approx(patient.metrics["valid"]["log_loss"], rel=1e-9)
    assert again["log_loss"] == pytest.approx(min(patient.metrics["valid_losses"]), rel=1e-9)


def test_a_run_that_is_killed_goes_on_with_the_same_weights(data: Callable[..., str], tmp_path: Path) -> None:
    path = data()
    settings = {**BASE, "class_weight": ["balanced"], "chunk_rows": 1000, "epochs": 2}

    def run(**settings: Any) -> streamsgd.Model:
        return streamsgd.train(path, "y", **settings)

    places: Iterator[dict[str, Any]] = iter(dict, None)
    model, stops = finish_chunk_by_chunk(run, tmp_path / "saved", places, **settings)
    assert stops >= 4
    assert model.to_bytes() == run(**settings).to_bytes()


def test_counts_are_of_rows_that_the_filter_leaves(data: Callable[..., str]) -> None:
    path, (x, y) = data(), rare()
    model = streamsgd.train(path, "y", **BASE, class_weight=["balanced"], filter="a > 0")
    counts = np.bincount(y[x[:, 0] > 0])
    np.testing.assert_allclose(model.provenance["class_weights"], counts.sum() / (2 * counts), rtol=1e-14)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"class_weight": ["ja=3"]}, "no class 'ja', did you mean|no class 'ja'"),
        ({"class_weight": ["yes=0"]}, "above 0; --filter"),
        ({"class_weight": ["yes=lots"]}, "above 0"),
        ({"class_weight": ["balancd"]}, "did you mean 'balanced'"),
        ({"class_weight": ["balanced", "yes=2"]}, "not both"),
        ({"class_weight": ["balanced"], "classes": ["no", "yes", "other"]}, "is 'other'"),
        ({"class_weight": ["balanced"], "target": "a"}, "'a' is a number.*--weight"),
    ],
)
def test_what_cannot_be_weighted_is_refused_by_name(data: Callable[..., str], settings: dict[str, Any], said: str) -> None:
    path = data(names=["no", "yes"])
    with pytest.raises(StreamSGDError, match=said) as error:
        streamsgd.train(path, **{"target": "y", **BASE, **settings})
    assert isinstance(error.value, SettingsError | DataError)


def test_margins_keep_their_weights(data: Callable[..., str]) -> None:
    """They are no probabilities, and have no logarithm of odds to be undone."""
    path = data()
    settings = {**BASE, "class_weight": ["1=5"], "loss": "hinge"}
    weights = [streamsgd.train(path, "y", **settings, keep_weights=keep).weights for keep in (False, True)]
    assert weights[0].tobytes() == weights[1].tobytes()
