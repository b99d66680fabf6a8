"""Models side by side from one decode: each scores as alone, and their differences are those of the rows."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats
from sklearn.metrics import confusion_matrix, f1_score, log_loss, precision_score, recall_score

import streamsgd
from streamsgd.cli.main import main
from streamsgd.errors import DataError, SettingsError
from streamsgd.model.model import Model

pytestmark = pytest.mark.python_words

SETTINGS: dict[str, Any] = {"executor": "inline", "epochs": 1, "optimizer": "adam", "memory": "1GB"}
N = 3000


def make(seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    x, site = rng.normal(size=(N, 2)), rng.integers(0, 5, N)
    score = x @ [1.0, -0.5] + 0.4 * site - 1.0
    return pa.table(
        {
            "key": np.arange(N),
            "a": x[:, 0].astype(np.float32),
            "b": pa.array(x[:, 1], mask=rng.random(N) < 0.1),
            "site": [f"s{k}" for k in site],
            "w": rng.uniform(0.0, 2.0, N),
            "y": (rng.random(N) < 1 / (1 + np.exp(-score))).astype(np.int64),
            "number": 100.0 + 10.0 * (score + rng.normal(size=N)),
            "kind": np.array(["low", "mid", "high"])[np.digitize(score + rng.normal(size=N), [-0.5, 0.5])],
        }
    )


TABLE = make()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("compare") / "d.parquet"
    pq.write_table(TABLE, path, row_group_size=400)
    return path


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    def trained(target: str, *features: str, **more: Any) -> Model:
        return streamsgd.train(TABLE, target, features=list(features), id=["key"], **{**SETTINGS, **more})

    return {
        "one": trained("y", "a", "b"),
        "two": trained("y", "a", "b", "site"),
        "number": trained("number", "a", "b"),
        "number two": trained("number", "a", "site", scale=["none"]),
        "kind": trained("kind", "a", "b"),
        "kind two": trained("kind", "a", "site"),
    }


def per_row(model: Model, target: str) -> dict[str, np.ndarray]:
    """Return losses of rows, from predictions of the table alone."""
    y = TABLE[target].to_numpy(zero_copy_only=False)
    if target == "number":
        away = y - model.predict(TABLE)
        return {"squared_error": away**2, "absolute_error": abs(away)}
    chance = model.predict_proba(TABLE)
    index = np.array([model.classes.index(value) for value in y])
    return {
        "log_loss": -np.log(chance[np.arange(N), index]),
        "zero_one_loss": (chance.argmax(axis=1) != index).astype(float),
    }


@pytest.mark.parametrize(
    ("first", "second", "target"), [("one", "two", "y"), ("number", "number two", "number"), ("kind", "kind two", "kind")]
)
def test_differences_are_those_of_the_rows_and_their_errors_those_of_a_paired_t_test(
    first: str, second: str, target: str, data: Path, models: dict[str, Model]
) -> None:
    found = streamsgd.compare(models[first], {"other": models[second]}, data, executor="inline")
    alone = streamsgd.evaluate(models[second], data, executor="inline")
    first_alone = streamsgd.evaluate(models[first], data, executor="inline")
    for seen, truth in ((found["metrics"], first_alone), (found["also"]["other"]["metrics"], alone)):
        assert "loss" in seen
        assert seen == truth
    mine, theirs = per_row(models[first], target), per_row(models[second], target)
    for name, pair in found["also"]["other"]["differences"].items():
        if name == "loss":
            continue
        truth = stats.ttest_rel(theirs[name], mine[name])
        difference = (theirs[name] - mine[name]).mean()
        assert pair["difference"] == pytest.approx(difference, rel=1e-4, abs=1e-7), name
        assert pair["difference"] / pair["standard_error"] == pytest.approx(truth.statistic, rel=1e-4, abs=1e-6), name
    assert set(mine) <= set(found["also"]["other"]["differences"])


def test_weights_make_a_weighted_mean_with_a_linearised_error(data: Path, models: dict[str, Model]) -> None:
    found = streamsgd.compare(models["one"], models["two"], data, weight="w", executor="inline")
    pair = found["also"]["model2"]["differences"]["log_loss"]
    d = per_row(models["two"], "y")["log_loss"] - per_row(models["one"], "y")["log_loss"]
    w = TABLE["w"].to_numpy()
    mean = np.average(d, weights=w)
    error = np.sqrt(N / (N - 1) * (w**2 * (d - mean) ** 2).sum()) / w.sum()
    assert (pair["difference"], pair["standard_error"]) == pytest.approx((mean, error), rel=1e-4)
    assert pair["interval"] == pytest.approx([mean - 1.96 * error, mean + 1.96 * error], rel=1e-3)


def test_a_filter_and_blocks_of_any_size_change_nothing(data: Path, models: dict[str, Model]) -> None:
    small = streamsgd.compare(models["one"], models["two"], data, filter="key < 1000", memory="300MB", executor="threads")
    few = streamsgd.compare(models["one"], models["two"], TABLE.slice(0, 1000))
    numbers = {name: value for name, value in few["metrics"].items() if isinstance(value, float)}
    assert {name: small["metrics"][name] for name in numbers} == pytest.approx(numbers, rel=1e-6)
    assert small["metrics"]["rows"] == 1000


def test_models_that_do_not_predict_the_same_are_refused(data: Path, models: dict[str, Model]) -> None:
    with pytest.raises(SettingsError, match=r"also='other': its target is 'number', that of the first model is 'y'"):
        streamsgd.compare(models["one"], {"other": models["number"]}, data)
    with pytest.raises(DataError, match="no column 'site'"):
        streamsgd.compare(models["one"], models["two"], TABLE.drop_columns(["site"]))


# --- at a threshold


def test_confusion_and_what_follows_are_scikit_learns(data: Path, models: dict[str, Model]) -> None:
    y, chance = TABLE["y"].to_numpy(), models["two"].predict_proba(TABLE)[:, 1]
    for threshold in (0.3, 0.5, 0.9):
        found = streamsgd.evaluate(models["two"], data, threshold=threshold, confusion=True, executor="inline")
        guess = chance >= threshold
        assert found["confusion"]["actual_by_predicted"] == confusion_matrix(y, guess).tolist()
        assert found["precision"] == pytest.approx(precision_score(y, guess))
        assert found["recall"] == pytest.approx(recall_score(y, guess))
        assert found["f1"] == pytest.approx(f1_score(y, guess))
        assert found["log_loss"] == pytest.approx(log_loss(y, chance), rel=1e-5)
    kinds = streamsgd.evaluate(models["kind"], data, confusion=True, executor="inline")["confusion"]
    labels = [str(name) for name in kinds["classes"]]
    assert (
        kinds["actual_by_predicted"]
        == confusion_matrix(TABLE["kind"].to_pylist(), models["kind"].predict(TABLE), labels=labels).tolist()
    )


def test_a_threshold_is_for_two_classes(data: Path, models: dict[str, Model]) -> None:
    with pytest.raises(SettingsError, match=r"threshold=0.5 divides two classes"):
        streamsgd.evaluate(models["kind"], data, threshold=0.5)
    with pytest.raises(SettingsError, match="has none"):
        streamsgd.evaluate(models["number"], data, confusion=True)
    with pytest.raises(SettingsError, match="no probability"):
        streamsgd.evaluate(models["one"], data, threshold=1.5)


# --- predict --also


def test_several_models_score_as_each_alone(data: Path, models: dict[str, Model], tmp_path: Path) -> None:
    """Of other columns, other encodings and another target: one decode, the same bytes in every column."""
    also = {"b": models["two"], "n": models["number two"], "k": models["kind"]}
    streamsgd.predict(models["one"], data, tmp_path / "all.parquet", also=also, executor="inline")
    together = pq.read_table(tmp_path / "all.parquet")
    for prefix, model in {"": models["one"], **{f"{name}_": model for name, model in also.items()}}.items():
        streamsgd.predict(model, data, tmp_path / "alone.parquet", executor="inline")
        alone = pq.read_table(tmp_path / "alone.parquet")
        for name in alone.column_names[1:]:
            assert together[f"{prefix}{name}"].equals(alone[name]), name
        (tmp_path / "alone.parquet").unlink()
    assert together["key"].equals(TABLE["key"])


def test_other_models_make_outputs_anew_and_names_may_not_clash(data: Path, models: dict[str, Model], tmp_path: Path) -> None:
    out = tmp_path / "o.parquet"
    assert streamsgd.predict(models["one"], data, out, executor="inline").files == 1
    assert streamsgd.predict(models["one"], data, out, also=[models["two"]], executor="inline").files == 1
    assert streamsgd.predict(models["one"], data, out, also=[models["two"]], executor="inline").already_there == 1
    for folder in "ab":
        models["two"].save(tmp_path / folder / "m.sgd")
    with pytest.raises(SettingsError, match=r"also=.*two models have this name"):
        streamsgd.predict(models["one"], data, out, also=[tmp_path / "a" / "m.sgd", tmp_path / "b" / "m.sgd"])


def test_a_file_may_be_called_model(data: Path, models: dict[str, Model], tmp_path: Path) -> None:
    models["two"].save(tmp_path / "model.sgd")
    found = streamsgd.compare(models["one"], [tmp_path / "model.sgd"], data, executor="inline")
    truth = streamsgd.compare(models["one"], {"two": models["two"]}, data, executor="inline")
    assert (found["metrics"], found["also"]["model"]) == (truth["metrics"], truth["also"]["two"])


def test_the_commands_say_what_the_functions_return(
    data: Path, models: dict[str, Model], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        models[name].save(tmp_path / f"{name}.sgd")
    paths = [str(tmp_path / f"{name}.sgd") for name in ("one", "two")]
    truth = streamsgd.compare(models["one"], {"two": models["two"]}, data)
    assert main(["compare", *paths, str(data)]) == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert found["also"] == truth["also"]
    assert "two less one" in shown.err
    assert re.search(r"^ +one +two$", shown.err, re.MULTILINE)
    assert main(["evaluate", paths[0], str(data), "--also", paths[1]]) == 0
    same = json.loads(capsys.readouterr().out)
    assert [same[name] for name in ("metrics", "also", "rows")] == [found[name] for name in ("metrics", "also", "rows")]
    assert main(["evaluate", paths[0], str(data), "--also", paths[1], "--threshold", "0.4", "--confusion"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["also"]["two"]["differences"] == truth["also"]["two"]["differences"]
    assert found["metrics"]["threshold"] == 0.4
    assert main(["predict", paths[0], str(data), "-o", str(tmp_path / "p"), "--also", paths[1]]) == 0
    assert "two_probability" in pq.read_schema(tmp_path / "p" / "d.parquet").names
