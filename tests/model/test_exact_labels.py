"""Labels come back as the data has them: of every type, from every place that predicts, and from other data than training's."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streamsgd
from streamsgd.errors import DataError, SettingsError, StreamSGDError
from streamsgd.model.labels import label_array, label_type
from streamsgd.model.model import Model

N = 300
X = np.random.default_rng(0).normal(size=N)
DAY = pa.array([0, 1, 2], pa.int32())


def of(low: int, high: int, kind: Any) -> pa.Array:
    return pa.array([low, high, high - 1], kind)


LABELS = {
    **{f"int{bits}": of(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1, getattr(pa, f"int{bits}")()) for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": of(3, 2**bits - 1, getattr(pa, f"uint{bits}")()) for bits in (8, 16, 32, 64)},
    "neighbours": pa.array([2**60 + 1, 2**60 + 2, 2**60 + 3]),
    "float32": pa.array([0.1, -2.5, 1e30], pa.float32()),
    "float64": pa.array([0.1, 1e300, 5e-324]),
    "bool": pa.array([False, True]),
    "NUL": pa.array(["a", "a\0", "a\0\0"]),
    "NUL, large": pa.array(["a\0", "b", "\0"], pa.large_string()),
    "view": pa.array(["a\0", "b", "c"], pa.string_view()),
    "empty": pa.array(["", "\0", " "]),
    "long": pa.array(["x" * 5000, "x" * 4999, "y"]),
    "like a surrogate": pa.array(["\ud7ff", "\ue000", "\U0010ffff"]),
    "digits": pa.array(["007", "7", "7.0"]),
    "decimal": pa.array([Decimal("0.1"), Decimal("7.25"), Decimal(-3)], pa.decimal128(10, 3)),
    "large decimal": pa.array([Decimal(10**22), Decimal(3), Decimal(2**60)], pa.decimal128(38, 0)),
    "decimal of more digits": pa.array([Decimal(10**22 + 1), Decimal(3), Decimal(4)], pa.decimal128(38, 0)),
    "bytes": pa.array([b"a", b"b\0", b"\xff"]),
    "date": DAY.cast(pa.date32()),
    "timestamp": DAY.cast(pa.int64()).cast(pa.timestamp("us", "UTC")),
    "infinite": pa.array([np.inf, 1.5, 2.5]),
}
REFUSED = ("bytes", "date", "timestamp", "infinite", "decimal of more digits")

LABELS |= {
    f"dictionary of {name}": LABELS[name].dictionary_encode() for name in ("NUL", "uint64", "neighbours", "bool", "empty")
}


def labelled(values: pa.Array, n: int) -> pa.Table:
    index = np.searchsorted([-0.3, 0.4][: n - 1], X)
    listed = values.to_pylist()  # `take` knows no views
    return pa.table({"x": X, "y": pa.array([listed[k] for k in index], values.type)})


def train(data: pa.Table, **options: Any) -> Model:
    return streamsgd.train(data, "y", **{"epochs": 1, "threads": 1, "memory": "1GB", "validation": 0.0, **options})


def same(found: Any, labels: set[Any]) -> bool:
    """Whether a prediction is a label, of its type; decimals are floats."""
    return any(
        found == label and isinstance(found, float if isinstance(label, Decimal) else type(label))
        for label in ({float(v) for v in labels} if isinstance(min(labels), Decimal) else labels)
    )


@pytest.mark.parametrize("task", ["binary", "multiclass"])
@pytest.mark.parametrize("name", LABELS)
def test_labels_come_back_as_they_are(name: str, task: str, tmp_path: Path) -> None:
    """What training makes is saved, loaded, and predicts values of the data; what it cannot is refused by it."""
    values = LABELS[name]
    data = labelled(values, min(len(values), 2 if task == "binary" else 3))
    labels = set(data["y"].to_pylist())
    if name in REFUSED:
        with pytest.raises(DataError, match=r"(target|column) 'y'"):
            train(data, task=task)
        return
    model = train(data, task=task)
    model.save(tmp_path / "m.sgd")
    pq.write_table(data, tmp_path / "t.parquet")
    loaded, served = streamsgd.load(tmp_path / "m.sgd"), streamsgd.serving.load(tmp_path / "m.sgd")
    assert loaded.classes == model.classes == served.classes
    found = loaded.predict(data.select(["x"]))
    streamsgd.predict(model, tmp_path / "t.parquet", tmp_path / "o", threads=1)
    written = pq.read_table(tmp_path / "o")["prediction"].to_pylist()
    assert written == found.tolist() == model.predict(data).tolist()
    rows = [{"x": float(x)} for x in (-3.0, 0.0, 3.0)]
    alone = [loaded.predict(row).tolist()[0] for row in rows]
    assert alone == served.predict(rows) == loaded.predict(rows).tolist()
    assert all(same(value, labels) for value in {*written, *alone})
    assert len(set(written)) == len(labels) or task == "multiclass"
    measured = loaded.evaluate(data)
    assert "unseen_classes" not in measured
    assert measured["weight"] == N
    equal = [a == (float(b) if isinstance(b, Decimal) else b) for a, b in zip(written, data["y"].to_pylist(), strict=True)]
    assert measured["accuracy"] == pytest.approx(np.mean(equal))


@pytest.mark.parametrize("name", ["NUL", "uint64", "neighbours", "long"])
def test_sets_of_labels_are_of_them(name: str, tmp_path: Path) -> None:
    data = labelled(LABELS[name], 3)
    model = train(data, task="multiclass", validation=0.3, conformal=True, seed=1)
    pq.write_table(data, tmp_path / "t.parquet")
    streamsgd.predict(model, tmp_path / "t.parquet", tmp_path / "o", intervals=0.9, threads=1)
    found = {label for labels in pq.read_table(tmp_path / "o")["labels"].to_pylist() for label in labels}
    assert found
    assert found <= set(LABELS[name].to_pylist())


@pytest.mark.parametrize("name", LABELS)
def test_the_type_of_labels_is_known_without_any(name: str) -> None:
    if name in REFUSED or "decimal" in name:
        return
    classes = tuple(sorted(LABELS[name].to_pylist()))
    assert label_array(classes).tolist() == list(classes)
    assert pa.array(label_array(classes), label_type(classes)).to_pylist() == list(classes)
    assert pa.array(label_array(classes)[:0], label_type(classes)).type == label_type(classes)


# --- labels of other data than training's


@pytest.mark.parametrize("kind", [pa.int64(), pa.uint64(), pa.decimal128(38, 0), pa.decimal128(38, 10)])
@pytest.mark.parametrize("value", [2**60 + 2, 2**60, 2**60 - 1, 7, 2**62])
def test_a_label_is_unseen_unless_it_is_equal(kind: Any, value: int) -> None:
    data = labelled(pa.array([2**60 + 1, 2**61 + 3]), 2)
    model = train(data, task="binary")
    some = pa.array([Decimal(v) if pa.types.is_decimal(kind) else v for v in [value] * 5 + data["y"].to_pylist()[5:]], kind)
    assert model.evaluate(data.set_column(1, "y", some))["unseen_classes"] == 5


def test_floats_that_stand_for_several_labels_are_refused() -> None:
    data = labelled(pa.array([2**60 + 1, 2**61 + 3]), 2)
    model = train(data, task="binary")
    with pytest.raises(DataError, match=r"'y' is of floats here, 300 of them from 2\^53 on.* 2.3\d*e\+18; .*as integers"):
        model.evaluate(data.set_column(1, "y", data["y"].cast(pa.float64(), safe=False)))


@pytest.mark.parametrize(
    ("kind", "classes"),
    [
        (pa.int64(), ["0.0", "1.0"]),
        (pa.int64(), [0.0, 1.0]),
        (pa.int8(), np.array([0.0, 1.0])),
        (pa.uint64(), [False, True]),
        (pa.int64(), np.array([False, True])),
        (pa.int64(), [Decimal(0), Decimal("1.0")]),
        (pa.bool_(), [0, 1]),
        (pa.bool_(), [0.0, 1.0]),
        (pa.bool_(), ["false", "true"]),
        (pa.float64(), [0, 1]),
        (pa.float32(), [False, True]),
        (pa.decimal128(30, 2), [0, 1]),
        (pa.float64(), pa.array([0, 1])),
    ],
)
def test_classes_that_are_equal_are_taken(kind: Any, classes: Any) -> None:
    y = pa.array((X > 0).astype(int)).cast(pa.bool_() if kind == pa.bool_() else kind)
    target = streamsgd.plan(pa.table({"x": X, "y": y}), "y", classes=classes).target
    expected = {pa.bool_(): bool, pa.float64(): float, pa.float32(): float, pa.decimal128(30, 2): float}.get(kind, int)
    assert target.classes == (0, 1)
    assert {type(value) for value in target.classes} == {expected}


@pytest.mark.parametrize("nothing", [None, float("nan"), np.nan, np.datetime64("NaT"), Decimal("nan"), b"a", "\ud800", "pd.NA"])
@pytest.mark.parametrize("values", [pa.array(["a", "b"]), pa.array([0, 1]), pa.array([0.0, 1.0])])
def test_classes_that_no_row_can_have_are_refused(nothing: Any, values: pa.Array) -> None:
    given = pytest.importorskip("pandas").NA if isinstance(nothing, str) and nothing == "pd.NA" else nothing
    with pytest.raises(SettingsError, match=r"^--classes"):
        streamsgd.plan(labelled(values, 2), "y", classes=[*values.to_pylist(), given])


@pytest.mark.parametrize(
    ("kind", "classes"),
    [
        (pa.int64(), [0.5, 1]),
        (pa.int8(), [0, 300]),
        (pa.bool_(), [0, 2]),
        (pa.float64(), ["inf", 1]),
        (pa.float32(), [0.1, 1.0]),
        (pa.float64(), ["nan", 1]),
        (pa.decimal128(38, 0), [10**22 + 1, 1]),
    ],
)
def test_classes_that_are_equal_to_no_value_are_refused(kind: Any, classes: Any) -> None:
    with pytest.raises(StreamSGDError, match="is not a value of target 'y', whose type is"):
        streamsgd.plan(pa.table({"x": X, "y": pa.array((X > 0).astype(int)).cast(kind)}), "y", classes=classes)


# --- the estimator


@pytest.mark.parametrize(
    "labels", [["a", "a\0"], ["a", "a\0", "b"], [3, 2**63 + 5], [2**63 + 5, 2**63 + 6, 3], [-1, 2**63 - 1]]
)
@pytest.mark.parametrize("way", [list, tuple, "array"])
def test_the_estimators_classes_are_labels(labels: list[Any], way: Any) -> None:
    estimator = pytest.importorskip("streamsgd.sklearn", reason="scikit-learn is optional").SGDClassifier(random_state=0)
    given = [labels[k] for k in np.searchsorted([-0.3, 0.4][: len(labels) - 1], X)]
    y = label_array(given) if way == "array" else way(given)
    assert estimator.fit(X[:, None], y).classes_.tolist() == sorted(labels)
    assert set(estimator.predict(X[:, None]).tolist()) <= set(labels)
    again = type(estimator)(random_state=0).partial_fit(X[:, None], y, classes=labels)
    again = again.partial_fit(X[:, None], y).partial_fit(X[:, None], y, classes=labels)
    assert again.classes_.tolist() == sorted(labels)
