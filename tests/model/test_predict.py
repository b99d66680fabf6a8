"""Laws of scoring: every row once, beside its own keys; outputs whole or absent; files and tables agree."""

import hashlib
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import (
    accuracy_score,
    log_loss,
    mean_absolute_error,
    mean_squared_error,
    r2_score,
    roc_auc_score,
)

from streamsgd.compute.executors import Dask, Inline
from streamsgd.errors import DataError, ModelError, SettingsError
from streamsgd.model import manifest
from streamsgd.model.evaluate import Evaluator
from streamsgd.model.model import Model
from streamsgd.model.options import ScoringOptions
from streamsgd.model.predict import Scored, score_data
from streamsgd.settings.make import make_settings
from streamsgd.training.run import train_model

BLOCK = 1 << 20


def rows(n: int, seed: int = 0, first_key: int = 0) -> pa.Table:
    """Return `n` rows with keys, three features (one with nulls), a number and a label."""
    rng = np.random.default_rng([seed, 1])
    x = rng.normal(size=(n, 3))
    number = x @ [1.0, -2.0, 0.5] + rng.normal(size=n)
    key = np.arange(first_key, first_key + n)
    return pa.table(
        {
            "key": key,
            "name": [f"row {k}" for k in key],
            "a": x[:, 0],
            "b": pa.array(x[:, 1], mask=rng.random(n) < 0.1),
            "c": x[:, 2].astype(np.float32),
            "number": number,
            "label": np.where(number > 0, "yes", "no"),
        }
    )


def write(table: pa.Table, path: Path, row_group_size: int = 700) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


def trained(folder: Path, target: str) -> Model:
    exclude = [name for name in ("number", "label") if name != target]
    settings = {
        "target": target,
        "exclude": exclude,
        "id": ["key", "name"],
        "executor": "inline",
        "epochs": 2,
    }
    return train_model(write(rows(3000), folder / "train.parquet"), make_settings(settings))[0]


@pytest.fixture(scope="module")
def number_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return trained(tmp_path_factory.mktemp("number"), "number")


@pytest.fixture(scope="module")
def label_model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return trained(tmp_path_factory.mktemp("label"), "label")


def score(model: Model, data: Any, out: Path, **more: Any) -> Scored:
    given = {"executor": Inline(), "block_bytes": BLOCK, **more}
    return score_data(model, data if isinstance(data, list) else str(data), str(out), **given)


def leftovers(folder: Path) -> list[str]:
    names = sorted(path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".parquet")
    return [name for name in names if name != manifest.NAME]


# --- what is in the outputs


@pytest.mark.parametrize("block_bytes", [400, 30_000, BLOCK])
@pytest.mark.parametrize("make_executor", [Inline, lambda: Dask(3)], ids=["inline", "dask"])
def test_one_output_per_file_with_every_row_beside_its_key(
    number_model: Model, tmp_path: Path, block_bytes: int, make_executor: Callable[[], Any]
) -> None:
    """Whatever the blocks and their slices, the rows come out in the order of the file, keys and all."""
    sizes = {"x.parquet": 1500, "deep/y.parquet": 2600, "z.parquet": 3}
    tables = {name: rows(n, seed=n, first_key=10 * n) for name, n in sizes.items()}
    for name, table in tables.items():
        write(table, tmp_path / "data" / name)
    executor = make_executor()
    try:
        scored = score(number_model, tmp_path / "data", tmp_path / "out", block_bytes=block_bytes, executor=executor)
    finally:
        executor.close()
    assert scored == Scored(files=3, already_there=0, rows=sum(sizes.values()))
    for name, table in tables.items():
        got = pq.read_table(tmp_path / "out" / name)
        assert got.column_names == ["key", "name", "prediction"]
        assert got["key"].equals(table["key"])
        assert got["name"].equals(table["name"])
        np.testing.assert_array_equal(got["prediction"], number_model.predict(table))
    assert leftovers(tmp_path / "out") == []


def test_a_label_is_predicted_with_its_probability(label_model: Model, tmp_path: Path) -> None:
    table = rows(1000, seed=5)
    out = tmp_path / "scores.parquet"
    score(label_model, write(table, tmp_path / "d.parquet"), out)
    got = pq.read_table(out)
    assert got["prediction"].to_pylist() == label_model.predict(table).tolist()
    probability = got["probability"].to_numpy()
    np.testing.assert_array_equal(probability, label_model.predict_proba(table)[:, 1])
    assert ((probability >= 0.5) == (np.array(got["prediction"].to_pylist()) == "yes")).all()


def test_outputs_of_dask_and_inline_are_the_same_bytes(label_model: Model, tmp_path: Path) -> None:
    data = write(rows(2500, seed=6), tmp_path / "d.parquet", row_group_size=300)
    executor = Dask(4)
    try:
        score(label_model, data, tmp_path / "a.parquet", executor=executor, block_bytes=9000)
    finally:
        executor.close()
    score(label_model, data, tmp_path / "b.parquet", block_bytes=9000)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


@pytest.mark.parametrize("block_bytes", [2000, BLOCK])
def test_a_filter_keeps_keys_beside_their_rows(number_model: Model, tmp_path: Path, block_bytes: int) -> None:
    table = rows(2000, seed=7)
    data = write(table, tmp_path / "d.parquet")
    score(
        number_model,
        data,
        tmp_path / "o.parquet",
        filter_text="number > 0 and key != 5",
        block_bytes=block_bytes,
    )
    number = table["number"].to_numpy()
    kept = table.filter(pa.array((number > 0) & (table["key"].to_numpy() != 5)))
    got = pq.read_table(tmp_path / "o.parquet")
    assert got["key"].equals(kept["key"])
    np.testing.assert_array_equal(got["prediction"], number_model.predict(kept))


@pytest.mark.parametrize("label", [False, True])
def test_files_without_rows_get_outputs_without_rows(
    number_model: Model, label_model: Model, tmp_path: Path, label: bool
) -> None:
    """No row group, a row group of no rows, and all rows dropped by the filter: one schema for all."""
    model = label_model if label else number_model
    table = rows(50)
    write(table, tmp_path / "data" / "full.parquet")
    write(table.filter(pa.array(np.zeros(50, np.bool_))), tmp_path / "data" / "no_rows.parquet")
    with pq.ParquetWriter(tmp_path / "data" / "no_group.parquet", table.schema):
        pass
    write(rows(50, first_key=1000), tmp_path / "data" / "filtered.parquet")
    scored = score(model, tmp_path / "data", tmp_path / "out", filter_text="key < 1000")
    assert scored.files == 4
    full = pq.read_table(tmp_path / "out" / "full.parquet")
    assert full.num_rows == 50
    for name in ("no_rows", "no_group", "filtered"):
        empty = pq.read_table(tmp_path / "out" / f"{name}.parquet")
        assert empty.num_rows == 0
        assert empty.schema.equals(full.schema), name


def test_partition_folders_are_features_keys_and_places_of_outputs(number_model: Model, tmp_path: Path) -> None:
    for day in (3, 4):
        write(rows(40, seed=day).drop_columns(["key"]), tmp_path / "data" / f"key={day}" / "p.parquet")
    score(number_model, tmp_path / "data", tmp_path / "out", ids=("key", "name"))
    got = pq.ParquetFile(tmp_path / "out" / "key=4" / "p.parquet").read()
    assert set(got["key"].to_pylist()) == {4}
    np.testing.assert_array_equal(got["prediction"], number_model.predict(rows(40, seed=4)))


def test_ids_are_chosen_by_the_call_over_the_training(number_model: Model, tmp_path: Path) -> None:
    data = write(rows(10), tmp_path / "d.parquet")
    score(number_model, data, tmp_path / "o.parquet", ids=("n*",))
    assert pq.read_schema(tmp_path / "o.parquet").names == ["name", "number", "prediction"]
    score(number_model, data, tmp_path / "p.parquet", ids=())
    assert pq.read_schema(tmp_path / "p.parquet").names == ["prediction"]


def test_widened_types_score_as_their_values(number_model: Model, tmp_path: Path) -> None:
    """A feature that is an integer in one file and a double in the next is the same number."""
    table = rows(100, seed=9)
    whole = pa.array(np.rint(table["a"].to_numpy()).astype(np.int32))
    as_int = table.set_column(table.schema.get_field_index("a"), "a", whole.cast(pa.decimal128(12, 2)))
    as_float = table.set_column(table.schema.get_field_index("a"), "a", whole.cast(pa.float64()))
    write(as_int, tmp_path / "data" / "i.parquet")
    write(as_float, tmp_path / "data" / "j.parquet")
    score(number_model, tmp_path / "data", tmp_path / "out", filter_text="a < 1e9", ids=("a",))
    types = [pq.read_schema(tmp_path / "out" / f"{name}.parquet").field("a").type for name in "ij"]
    assert types == [pa.decimal128(12, 2), pa.float64()]  # as ids they are what went in
    i, j = (pq.read_table(tmp_path / "out" / f"{name}.parquet")["prediction"] for name in "ij")
    assert i.equals(j)


# --- refusals


def test_an_output_never_replaces_its_input(number_model: Model, tmp_path: Path) -> None:
    data = write(rows(100), tmp_path / "data" / "d.parquet")
    before = data.read_bytes()
    for out in (tmp_path / "data", data):
        with pytest.raises(SettingsError, match=r"d\.parquet: the output would replace its own input; choose another"):
            score(number_model, tmp_path / "data", out)
    assert data.read_bytes() == before


def test_two_files_that_would_be_one_output_are_refused(number_model: Model, tmp_path: Path) -> None:
    paths = [write(rows(10), tmp_path / "data" / name) for name in ("d.pq", "d.pq.parquet")]
    with pytest.raises(DataError, match=r"d\.pq\.parquet: would be the output of two files"):
        score(number_model, [str(path) for path in paths], tmp_path / "out")


def test_an_id_named_like_an_output_is_refused(number_model: Model, tmp_path: Path) -> None:
    data = write(
        rows(10).rename_columns(["prediction", "name", "a", "b", "c", "number", "label"]),
        tmp_path / "d.parquet",
    )
    with pytest.raises(DataError, match="id column 'prediction' has the name of an output column; rename it"):
        score(number_model, data, tmp_path / "o.parquet", ids=("prediction",))


def test_data_without_a_feature_is_refused_by_name(number_model: Model, tmp_path: Path) -> None:
    data = write(rows(10).drop_columns(["b"]), tmp_path / "d.parquet")
    with pytest.raises(DataError, match="the data has no column 'b', which the model was trained with"):
        score(number_model, data, tmp_path / "o.parquet")
    text = rows(10).set_column(2, "a", pa.array(["?"] * 10))
    with pytest.raises(
        DataError, match=r"column 'a' of the data \(t\.parquet\) is of type string, .* in training it was of type double"
    ):
        score(number_model, write(text, tmp_path / "t.parquet"), tmp_path / "o.parquet")


@pytest.mark.parametrize("executor", ["inline", "dask"])
def test_a_damaged_file_ends_the_run_with_finished_outputs_and_no_partial_one(
    number_model: Model, tmp_path: Path, executor: str
) -> None:
    for name in "abc":
        write(rows(1500, seed=1), tmp_path / "data" / f"{name}.parquet", row_group_size=100)
    broken = tmp_path / "data" / "b.parquet"
    good = broken.read_bytes()
    at = pq.ParquetFile(broken).metadata.row_group(9).column(3).data_page_offset
    broken.write_bytes(good[:at] + b"\xff" * 40 + good[at + 40 :])
    runner = Inline() if executor == "inline" else Dask(2)
    try:
        with pytest.raises(DataError, match=r"b\.parquet, row group 9: columns a, b, c cannot be read"):
            score(number_model, tmp_path / "data", tmp_path / "out", block_bytes=6000, executor=runner)
    finally:
        runner.close()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.parquet"]
    broken.write_bytes(good)
    assert score(number_model, tmp_path / "data", tmp_path / "out") == Scored(files=2, already_there=1, rows=3000)


def test_a_place_that_cannot_be_written_is_an_error_that_names_it(number_model: Model, tmp_path: Path) -> None:
    data = write(rows(10), tmp_path / "d.parquet")
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ModelError, match=r"file/d\.parquet: cannot be written: .*finished files stay"):
        score(number_model, data, tmp_path / "file")


# --- starting again


def test_finished_outputs_are_kept_until_model_data_or_columns_change(
    number_model: Model, label_model: Model, tmp_path: Path
) -> None:
    for name in "ab":
        write(rows(30, seed=ord(name)), tmp_path / "data" / f"{name}.parquet")
    out = tmp_path / "out"

    def again(model: Model = number_model, **more: Any) -> tuple[int, int]:
        scored = score(model, tmp_path / "data", out, **more)
        return scored.files, scored.already_there

    assert again() == (2, 0)
    stamps = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert again() == (0, 2)
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == stamps
    (out / "a.parquet").write_bytes((out / "a.parquet").read_bytes()[:-20])
    assert again() == (1, 1)
    assert again(ids=("key",)) == (2, 0)
    assert again(ids=("key",), filter_text="key >= 0") == (2, 0)
    assert again(label_model) == (2, 0)
    assert again() == (2, 0)
    other = rows(30, seed=99)
    size = (tmp_path / "data" / "b.parquet").stat().st_size
    pq.write_table(other, tmp_path / "data" / "b.parquet", row_group_size=700)
    assert again() == (1, 1), f"a rewritten file, even of the same length ({size} bytes), is scored again"
    write(rows(30, seed=100), tmp_path / "data" / "c.parquet")
    assert again() == (1, 2)


DRIVER = """
import sys, time
from streamsgd.compute.executors import Inline
from streamsgd.model.model import Model
from streamsgd.model.read import load
from streamsgd.model.predict import score_data
model, data, out, pause = sys.argv[1:]
class Slow(Model):
    def score_block(self, *some):
        time.sleep(float(pause))
        return super().score_block(*some)
model = load(model)
model.__class__ = Slow
scored = score_data(model, data, out, executor=Inline(), block_bytes=3000)
print(scored.files, scored.already_there)
"""


def test_killed_and_started_again_it_finishes_what_was_left(number_model: Model, tmp_path: Path) -> None:
    """Whatever is there after a SIGKILL under its final name is whole, and is not made again."""
    for k in range(6):
        write(rows(600, seed=k), tmp_path / "data" / f"{k}.parquet", row_group_size=50)
    score(number_model, tmp_path / "data", tmp_path / "whole", block_bytes=3000)
    number_model.save(tmp_path / "m.sgd")
    out = tmp_path / "out"
    command = [sys.executable, "-c", DRIVER, str(tmp_path / "m.sgd"), str(tmp_path / "data"), str(out)]
    process = subprocess.Popen([*command, "0.04"], stdout=subprocess.PIPE)
    while not (out / "2.parquet").exists():
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.1)
    process.kill()
    process.communicate()
    finished = [path for path in sorted(out.iterdir()) if path.suffix == ".parquet"]
    assert 3 <= len(finished) < 6
    stamps = [path.stat().st_mtime_ns for path in finished]
    for path in finished:
        assert path.read_bytes() == (tmp_path / "whole" / path.name).read_bytes()
    done = subprocess.run([*command, "0"], capture_output=True, check=True, text=True)
    assert done.stdout.split() == [str(6 - len(finished)), str(len(finished))]
    assert [path.stat().st_mtime_ns for path in finished] == stamps
    digests = [
        {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
        for folder in (out, tmp_path / "whole")
    ]
    assert digests[0] == digests[1]


# --- evaluation


@pytest.mark.parametrize("block_bytes", [2000, BLOCK])
def test_evaluation_of_numbers_is_that_of_scikit_learn(number_model: Model, tmp_path: Path, block_bytes: int) -> None:
    table = rows(3000, seed=21)
    write(table.slice(0, 1000), tmp_path / "data" / "a.parquet")
    write(table.slice(1000), tmp_path / "data" / "b.parquet")
    data = str(tmp_path / "data")
    got = Evaluator.for_model(number_model, data, Inline(), block_bytes=block_bytes).evaluate(number_model)
    y, predicted = table["number"].to_numpy(), number_model.predict(table)
    assert got["rmse"] == pytest.approx(mean_squared_error(y, predicted) ** 0.5, rel=1e-6)
    assert got["mae"] == pytest.approx(mean_absolute_error(y, predicted), rel=1e-6)
    assert got["r2"] == pytest.approx(r2_score(y, predicted), rel=1e-6)
    assert got["rows"] == 3000


def test_evaluation_of_labels_is_that_of_scikit_learn(label_model: Model, tmp_path: Path) -> None:
    table = rows(3000, seed=22)
    data = write(table, tmp_path / "d.parquet")
    evaluator = Evaluator.for_model(
        label_model, str(data), Inline(), block_bytes=20_000, options=ScoringOptions(filter="key >= 100")
    )
    got, table = evaluator.evaluate(label_model), table.slice(100)
    truth = np.array(table["label"].to_pylist()) == "yes"
    probability = label_model.predict_proba(table)[:, 1]
    assert got["log_loss"] == pytest.approx(log_loss(truth, probability), rel=1e-5)
    assert got["accuracy"] == pytest.approx(accuracy_score(truth, probability >= 0.5), abs=1e-12)
    assert got["auc"] == pytest.approx(roc_auc_score(truth, probability), abs=1e-3)
    assert got["rows"] == 2900


def test_rows_skipped_in_training_are_skipped_in_evaluation(tmp_path: Path) -> None:
    """A model trained with --bad-rows skip can be evaluated on the very data it was trained on."""
    table = rows(1000, seed=23).drop_columns(["label"])
    bad = table.set_column(5, "number", pa.array(table["number"].to_numpy(), mask=np.arange(1000) % 10 == 0))
    data = write(bad, tmp_path / "d.parquet")
    settings = make_settings({"target": "number", "id": ["key", "name"], "executor": "inline", "bad_rows": "skip"})
    model, _ = train_model(data, settings)
    got = Evaluator.for_model(model, str(data), Inline(), block_bytes=BLOCK).evaluate(model)
    assert got["rows"] == 900
    none = table.set_column(5, "number", pa.nulls(1000, pa.float64()))
    write(none, tmp_path / "none.parquet")
    with pytest.raises(DataError, match=r"of 1,000 rows none is left to measure the model on: 1,000 were skipped"):
        Evaluator.for_model(model, str(tmp_path / "none.parquet"), Inline(), block_bytes=BLOCK).evaluate(model)


# --- law: a model takes tables and files alike


@pytest.mark.parametrize("fixture", ["number_model", "label_model"])
def test_a_source_is_predicted_as_its_table_is(fixture: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(fixture)
    whole = rows(1500, seed=5)
    paths = [write(whole.slice(k * 500, 500), tmp_path / f"{k}.parquet", 130) for k in range(3)]
    for source in (tmp_path, [str(path) for path in paths]):
        assert (model.predict(source) == model.predict(whole)).all()
        assert (model.decision_function(source) == model.decision_function(whole)).all()
    wanted = accuracy_score(whole["label"], model.predict(whole)) if model.classes else None
    found = model.evaluate(tmp_path, executor="inline")
    if wanted is None:
        assert found["rmse"] == pytest.approx(mean_squared_error(whole["number"], model.predict(whole)) ** 0.5)
    else:
        assert found["accuracy"] == pytest.approx(wanted)


def test_an_infinite_feature_of_a_table_is_refused_as_that_of_a_file_is(number_model: Model) -> None:
    table = rows(10)
    infinite = table.set_column(table.column_names.index("a"), "a", pa.array([np.inf] * 10))
    with pytest.raises(DataError, match="the table: feature 'a' is infinite in 10 rows"):
        number_model.predict(infinite)
