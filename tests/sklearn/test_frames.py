"""Estimators of scikit-learn's on tables of more than numbers, and on streams."""

import pickle
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is optional, and here the oracle")
from sklearn.datasets import make_classification
from sklearn.model_selection import cross_val_score

import streamsgd
from streamsgd.sklearn import SGDClassifier, SGDRegressor

pd = pytest.importorskip("pandas", reason="frames are pandas' and Polars'")
pl = pytest.importorskip("polars", reason="frames are pandas' and Polars'")


def flights(n: int = 3000) -> tuple[Any, np.ndarray]:
    rng = np.random.default_rng(0)
    city, hour = rng.choice(["ams", "ber", "cph"], n), rng.integers(0, 24, n).astype(float)
    late = (rng.random(n) < np.where(city == "ams", 0.8, 0.1 + 0.02 * hour)).astype(int)
    hour[::50] = np.nan
    return pd.DataFrame({"city": city, "hour": hour}, index=np.arange(n) * 7), late


def test_frames_of_text_are_learned_by_their_columns() -> None:
    frame, late = flights()
    labels = np.array(["no", "yes"])[late]
    fitted = SGDClassifier(loss="log_loss").fit(frame, labels)
    assert fitted.feature_names_in_.tolist() == ["city", "hour"]
    assert fitted.classes_.tolist() == ["no", "yes"]
    probability = fitted.predict_proba(frame)
    assert probability[frame["city"] == "ams", 1].mean() == pytest.approx(0.8, abs=0.05)
    assert set(fitted.predict(frame)) == {"no", "yes"}
    assert fitted.score(frame, labels) > 0.6
    for other in (pl.from_pandas(frame), pa.Table.from_pandas(frame, preserve_index=False)):
        np.testing.assert_array_equal(fitted.predict_proba(other), probability)
    np.testing.assert_allclose(pickle.loads(pickle.dumps(fitted)).predict_proba(frame), probability)
    assert cross_val_score(SGDClassifier(loss="log_loss"), frame, labels, cv=2).mean() > 0.6


def test_class_weight_counts_in_tables() -> None:
    frame, late = flights()
    weighted = SGDClassifier(loss="log_loss", class_weight={1: 10.0}).fit(frame, late)
    assert weighted.predict_proba(frame)[:, 1].mean() > 0.75


def test_regression_of_a_table() -> None:
    frame, late = flights()
    fitted = SGDRegressor().fit(frame, 100.0 * late)
    assert fitted.predict(frame)[frame["city"] == "ams"].mean() == pytest.approx(80.0, abs=6.0)


def test_several_classes_of_a_table() -> None:
    frame, _ = flights()
    fitted = SGDClassifier(loss="log_loss").fit(frame, frame["city"])
    assert fitted.score(frame, frame["city"]) == 1.0
    assert fitted.coef_.shape[0] == 3
    with pytest.raises(ValueError, match="log_loss"):
        SGDClassifier().fit(frame, frame["city"])


def test_frames_of_numbers_are_taken_as_arrays() -> None:
    X, y = make_classification(200, 3, n_redundant=0, random_state=0)
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    for each in (frame, pl.from_pandas(frame)):
        fitted = SGDClassifier(random_state=0).fit(each, y)
        assert fitted.feature_names_in_.tolist() == ["a", "b", "c"]
        np.testing.assert_array_equal(fitted.coef_, SGDClassifier(random_state=0).fit(X, y).coef_)
        with pytest.raises(ValueError, match="feature names"):
            fitted.predict(frame.rename(columns={"a": "z"}))


def test_a_stream_of_files(tmp_path: Any) -> None:
    frame, late = flights()
    for k in range(3):
        part = frame.iloc[k * 1000 : (k + 1) * 1000].assign(late=late[k * 1000 : (k + 1) * 1000])
        pq.write_table(pa.Table.from_pandas(part, preserve_index=False), tmp_path / f"{k}.parquet")
    fitted = SGDClassifier(loss="log_loss").fit_stream(str(tmp_path), "late", memory="1GB")
    direct = streamsgd.train(str(tmp_path), "late", loss="auto", penalty="l2:l2=1e-4", memory="1GB", validation=0)
    np.testing.assert_array_equal(fitted.predict_proba(frame), direct.predict_proba(frame))
    assert fitted.classes_.tolist() == [0, 1]
    with pytest.raises(ValueError, match="class_weight"):
        SGDClassifier(class_weight="balanced").fit_stream(str(tmp_path), "late")
