"""Whole runs over strings, text and lists: the same bytes however they are read, resumed or given; files, tables, names."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import finish_chunk_by_chunk
from wide import slot

import streamsgd
from streamsgd.api import plan
from streamsgd.cli.main import main
from streamsgd.data import sizes
from streamsgd.data.parquet import row_stream
from streamsgd.errors import DataError
from streamsgd.features import sample as look
from streamsgd.features.hashing import NULL
from streamsgd.model.model import Model
from streamsgd.model.read import load
from streamsgd.settings.make import make_settings
from streamsgd.show.model import model_summary
from streamsgd.training.phases import shrinking
from streamsgd.training.run import train_model

N = 3000
N_CHUNKS = 6
BASE: dict[str, Any] = {
    "target": "y",
    "exclude": ["label"],
    "epochs": 2,
    "chunk_rows": 500,
    "executor": "inline",
    "memory": "2GB",
    "precision": "float64",
    "bits": 14,
    "text": ["words"],
    "categorical": ["site"],
    "time_parts": ["when"],
    "cross": ["site*device", "site*x"],
}
PLACES = (
    {"executor": "dask", "threads": 2, "memory": "3GB"},
    {"executor": "inline", "memory": "800MB"},
    {"executor": "dask", "threads": 1, "memory": "20GB"},
)
"""What a run may be resumed with without a trace in the model."""

SITES = [f"site {k}" for k in range(1500)]
VOCABULARY = ["Ärger", "naïve", "the", "Quick", "brown", "fox", *(f"word{k}" for k in range(300))]
TAGS = ["a", "b", "ü", *(f"tag{k}" for k in range(40))]


def make_rows(n: int, seed: int) -> pa.Table:
    """Strings of many and of few values, a text, a list, pairs, a moment, a number; nulls in all of them."""
    rng = np.random.default_rng([seed, 5])
    x = rng.normal(size=n)
    site, device = rng.integers(0, len(SITES), n), rng.integers(0, 4, n)
    drawn = [rng.integers(0, len(VOCABULARY), rng.integers(0, 9)) for _ in range(n)]
    bags = [rng.integers(0, len(TAGS), rng.integers(0, 5)) for _ in range(n)]
    y = x + np.sin(site) + (device == 1) + np.array([np.cos(row).sum() for row in drawn]) / 4 + rng.normal(size=n) / 4
    null = rng.random((5, n)) < 0.05
    pairs = [[{"key": TAGS[k], "value": float(k + 1) / 8} for k in row] for row in bags]
    columns = {
        "x": pa.array(x, mask=null[0]),
        "site": pa.array(np.array(SITES, object)[site], mask=null[1]),
        "device": pa.array(np.array(["phone", "tablet", "", "tv"], object)[device], mask=null[2]),
        "words": pa.array([" ".join(VOCABULARY[k] for k in row) for row in drawn], mask=null[3]),
        "tags": pa.array([None if off else [TAGS[k] for k in row] for row, off in zip(bags, null[4], strict=True)]),
        "pairs": pa.array(pairs, pa.list_(pa.struct([("key", pa.string()), ("value", pa.float64())]))),
        "when": pa.array((1.7e9 + rng.integers(0, 10**7, n)).astype("datetime64[s]")),
        "y": y,
        "label": np.array(["no", "perhaps", "yes"])[np.digitize(y, [-0.5, 0.8])],
    }
    return pa.table(columns)


def write_data(folder: Path, seed: int = 0) -> Path:
    """Row groups that are merged, read whole, and streamed in slices."""
    folder.mkdir()
    for k, row_group_size in enumerate((100, 400, 1000)):
        pq.write_table(make_rows(N // 3, seed + k), folder / f"{k}.parquet", row_group_size=row_group_size)
    return folder


@pytest.fixture(scope="module", autouse=True)
def few_ridges() -> Iterator[None]:
    """Runs end by shrinking as they do elsewhere, along a shorter path: each of its passes is one more stop."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(shrinking, "RIDGES", shrinking.RIDGES[-3:-1])
        patched.setattr(shrinking, "PASSES", 2)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("wide") / "data")


@pytest.fixture(scope="module")
def model(data: Path) -> Model:
    return train(data)


@pytest.fixture(scope="module")
def fresh() -> pa.Table:
    """Rows that were not learned from, with values that were not."""
    table = make_rows(400, 77)
    unseen = pa.array([f"unseen {k}" if k % 9 == 0 else v for k, v in enumerate(table["device"].to_pylist())])
    return table.set_column(table.column_names.index("device"), "device", unseen)


def train(data: Any, **settings: Any) -> Model:
    return train_model(data, make_settings({**BASE, **settings}))[0]


# --- law: same data and settings, same bytes

CASES: dict[str, dict[str, Any]] = {
    "row by row": {},
    "betting": {"optimizer": "coin"},
    "clipped": {"optimizer": "adam", "batch_size": 77, "clip_norm": 0.1, "clip_value": 0.01},
    "in order, two words": {"shuffle": "none", "ngrams": 2, "polish": 0},
    "batches that span chunks": {"optimizer": "sgd", "learning_rate": 0.01, "batch_size": 77, "schedule": "constant"},
    "a penalty paid late": {
        "optimizer": "sgd",
        "batch_size": 8,
        "penalty": "elastic-net:l1=0.001,l2=0.01",
        "schedule": "inverse-scaling",
        "learning_rate": 0.01,
    },
    "held out": {"validation": 0.2, "validate_every": 700, "patience": 50},
}


@pytest.mark.parametrize("case", CASES)
def test_stopped_at_every_chunk_it_ends_with_the_same_bytes(data: Path, tmp_path: Path, case: str) -> None:
    """Also where each start has another executor, other threads and another memory budget."""
    settings = CASES[case]
    alone = train(data, **settings)
    model, stops = finish_chunk_by_chunk(partial(train, data), tmp_path / "saved", cycle(PLACES), **settings)
    result = model.to_bytes()
    assert result == alone.to_bytes()
    assert stops >= 2 * N_CHUNKS - 1
    assert ("shrink" in alone.metrics) == (case == "row by row")
    assert alone.metrics["progressive_loss"] < alone.metrics["best_constant_loss"]


def test_what_the_package_offers_is_there_also_after_a_run(model: Model) -> None:
    """And not one of its modules of the same name."""
    assert all(callable(getattr(streamsgd, name)) for name in streamsgd.__all__)


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_who_reads_with_how_much_does_not_matter(place: dict[str, Any], data: Path, model: Model) -> None:
    assert train(data, **place).to_bytes() == model.to_bytes()


@pytest.mark.parametrize("batch", [2000, 100_000])
def test_nor_does_it_matter_how_much_is_read_at_once(batch: int, data: Path, model: Model, monkeypatch: Any) -> None:
    """Pieces larger than a part of the budget come in batches of rows, each with its own dictionary."""
    monkeypatch.setattr(sizes, "WHOLE_BYTES", 1)
    monkeypatch.setattr(sizes, "MOST_WHOLE_BYTES", 1)
    monkeypatch.setattr(row_stream, "BATCH_BYTES", batch)
    assert train(data).to_bytes() == model.to_bytes()


@pytest.mark.parametrize("optimizer", ["normalized", "coin", "sgd"])
def test_in_order_the_chunks_do_not_matter(optimizer: str, data: Path) -> None:
    """To rounding: rows of a batch are taken sixteen at a time from where a chunk begins."""
    settings = {"shuffle": "none", "optimizer": optimizer, "batch_size": 8 if optimizer == "sgd" else "auto"}
    settings |= {"schedule": "constant", "learning_rate": 0.05}
    expected = train(data, **settings).weights
    for rows in (37, 10_000):
        np.testing.assert_allclose(train(data, chunk_rows=rows, **settings).weights, expected, rtol=1e-12, atol=1e-12)


# --- law: files and tables are the same to a model


def test_files_and_tables_are_scored_the_same(model: Model, fresh: pa.Table, tmp_path: Path) -> None:
    pq.write_table(fresh, tmp_path / "new.parquet", row_group_size=70)
    expected = model.predict(fresh)
    assert np.array_equal(model.predict(tmp_path / "new.parquet"), expected)
    scored = streamsgd.predict(model, tmp_path / "new.parquet", tmp_path / "out.parquet", executor="inline", id=["site"])
    written = pq.read_table(tmp_path / "out.parquet")
    assert (scored.rows, written.column_names) == (400, ["site", "prediction"])
    assert np.array_equal(written["prediction"], expected)
    assert written["site"].to_pylist() == fresh["site"].to_pylist()
    assert model.evaluate(tmp_path / "new.parquet") == model.evaluate(fresh)
    y = np.array(fresh["y"])
    assert model.evaluate(fresh)["rmse"] == pytest.approx(np.sqrt(np.mean((expected - y) ** 2)), rel=1e-9)
    assert np.corrcoef(expected, y)[0, 1] > 0.7


def test_a_table_is_learned_as_its_file_is(tmp_path: Path) -> None:
    table = make_rows(1000, 3)
    pq.write_table(table, tmp_path / "data.parquet")
    from_file, from_table = train(tmp_path / "data.parquet"), train(table)
    assert np.array_equal(from_file.weights, from_table.weights)
    assert from_file.common == from_table.common


def test_a_saved_model_is_the_same_model_and_no_larger_than_what_it_uses(model: Model, fresh: pa.Table, tmp_path: Path) -> None:
    model.save(tmp_path / "m.sgd")
    again = load(tmp_path / "m.sgd")
    assert again.to_bytes() == model.to_bytes() == (tmp_path / "m.sgd").read_bytes()
    assert np.array_equal(again.weights, model.weights)
    assert np.array_equal(again.predict(fresh), model.predict(fresh))
    assert [(v.column, v.value, v.rows) for v in again.values()] == [(v.column, v.value, v.rows) for v in model.values()]
    wide = train(make_rows(200, 1), bits=20, epochs=1)
    used = int((wide.weights != 0).sum())
    assert len(wide.to_bytes()) < 20_000 + 16 * used < 8 * 2**20 / 10


def test_a_model_of_several_classes_too(data: Path, fresh: pa.Table, tmp_path: Path) -> None:
    model = train(data, target="label", exclude=["y"])
    model.save(tmp_path / "m.sgd")
    again = load(tmp_path / "m.sgd")
    assert np.array_equal(again.predict_proba(fresh), model.predict_proba(fresh))
    assert (model.predict(fresh) == np.array(fresh["label"])).mean() > 0.55
    summary = json.loads(json.dumps(model_summary(model)))
    assert all(value["weight"].keys() == {"no", "perhaps", "yes"} for value in summary["values"])


# --- law: what a model is said to hold is what it holds


def test_shown_values_have_the_weights_of_their_coordinates(model: Model) -> None:
    """In units of the target; worked out by the documented hash."""
    summary = json.loads(json.dumps(model_summary(model)))
    space, unit = model.encoding.hashed, model.target.scale
    hashed = {"site", "words", "tags", "pairs"}
    shown = {column: {v["value"]: v["weight"] for v in summary["values"] if v["column"] == column} for column in hashed}
    for column, values in shown.items():
        assert len(values) >= len(TAGS)
        for value, weight in values.items():
            text = NULL if value == "is missing" else value.lower().encode() if column == "words" else value.encode()
            assert weight == model.weights[slot(text, column, space), 0] / unit, (column, value)
            assert weight != 0.0 or value == "is missing"
    for category in model.encoding.categories:
        own = {v["value"]: v["weight"] for v in summary["values"] if v["column"] == category.name}
        for k, name in enumerate(category.own_names):
            assert own[name] == model.weights[category.first + k, 0] / unit
    assert {*shown["tags"]} == {*TAGS}
    assert summary["crosses"] == ["site*device", "site*x"]


def test_counts_are_those_of_the_rows(data: Path) -> None:
    """Exact where a piece holds no more values than it reports."""
    table, model = pq.read_table(data), train(data, epochs=1)
    tags = [tag for row in table["tags"].to_pylist() for tag in row or ()]
    assert {v.value: v.rows for v in model.values() if v.column == "tags"} == Counter(tags)


def test_the_hashed_space_is_as_full_as_it_is_said_to_be(data: Path) -> None:
    model, table = train(data, cross=[], bits=11, validation="none"), pq.read_table(data)
    found = {(NULL if v is None else v.encode(), "site") for v in table["site"].to_pylist()}
    found |= {(word.lower().encode(), "words") for t in table["words"].to_pylist() for word in (t or "").split()}
    found |= {(tag.encode(), "tags") for row in table["tags"].to_pylist() for tag in row or ()}
    found |= {(p["key"].encode(), "pairs") for row in table["pairs"].to_pylist() for p in row or () if p["value"]}
    places = np.array([slot(value, column, model.encoding.hashed) for value, column in found])
    counts = np.unique(places, return_counts=True)[1]
    use = model.hashed_use()
    assert use is not None
    assert (use.slots, use.used) == (2**11, len(counts))
    assert use.values == pytest.approx(len(found), rel=0.05)
    assert use.collisions == pytest.approx(counts[counts > 1].sum() / len(found), abs=0.05)


PROSE = ["«Hello» — naïve world…", "né·en straße; İstanbul", "ΟΔΟΣ ẞ", "plain WORDS here"] * 50


def test_words_that_are_named_are_words_that_were_learned() -> None:
    """Quotation marks and dashes beyond ASCII are parts of words to the hash, and so must be in their names."""
    table = pa.table({"t": PROSE, "y": np.tile([3.0, -1.0, 2.0, 0.5], 50)})
    model = train(table, exclude=[], text=["t"], categorical=[], time_parts=[], cross=[], bits=18)
    named = [value for value in model.values() if value.column == "t"]
    assert len(named) >= 9
    assert [value.value for value in named if value.weights[0] == 0.0] == []


def test_inspect_says_what_would_be_chosen(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(data), "--target", "y", "--exclude", "label", "--json"]) == 0
    columns = {column["name"]: column for column in json.loads(capsys.readouterr().out)["columns"]}
    encoding = plan(data, "y", exclude=["label"]).encoding
    assert {name: column["taken_as"] for name, column in columns.items() if column["taken_as"]} == encoding.taken_as()
    assert columns["device"]["taken_as"] == ["category, one-hot, 4 values"]
    assert re.match(r"category, one-hot, \d{3} values", columns["site"]["taken_as"][0])  # rare ones share a weight
    assert columns["tags"]["taken_as"][0].startswith("list, hashed, ")
    assert columns["x"]["taken_as"][1:] == ["16 quantile bins, one-hot"]
    assert columns["y"]["taken_as"] == columns["label"]["taken_as"] == []
    assert re.match(r"1,\d{3} values in 3,000 rows, all of them", columns["site"]["why"])


def test_the_command_line_makes_the_same_model(data: Path, model: Model, tmp_path: Path) -> None:
    flags = [f"--{k.replace('_', '-')}={','.join(v) if isinstance(v, list) else v}" for k, v in BASE.items()]
    assert main(["train", str(data), "-o", str(tmp_path / "m.sgd"), "--quiet", *flags]) == 0
    assert (tmp_path / "m.sgd").read_bytes() == model.to_bytes()


# --- law: new data need not be like the old


def test_a_missing_column_or_one_of_another_type_is_named(model: Model, fresh: pa.Table, tmp_path: Path) -> None:
    for name in ("site", "device", "words", "tags", "pairs", "when", "x"):
        pq.write_table(fresh.drop_columns([name]), tmp_path / "without.parquet")
        for source in (fresh.drop_columns([name]), tmp_path / "without.parquet"):
            with pytest.raises(DataError, match=f"has no column '{name}', which the model was trained with"):
                model.predict(source)
    others = {"x": fresh["device"], "words": fresh["tags"], "tags": fresh["x"], "pairs": fresh["tags"], "device": fresh["tags"]}
    for name, column in others.items():
        changed = fresh.set_column(fresh.column_names.index(name), name, column)
        pq.write_table(changed, tmp_path / "changed.parquet")
        for source in (changed, tmp_path / "changed.parquet"):
            with pytest.raises(
                DataError, match=rf"column '{name}' of .* is of type .*(; in training it was of type |; the model needs )"
            ):
                model.predict(source)


def test_a_new_column_is_left_alone_and_unseen_values_are_scored(model: Model, fresh: pa.Table) -> None:
    extended = fresh.append_column("new", pa.array(["?"] * 400)).select(["new", *reversed(fresh.column_names)])
    assert np.array_equal(model.predict(extended), model.predict(fresh))
    device = next(c for c in model.encoding.categories if c.name == "device")
    changed = fresh.set_column(fresh.column_names.index("device"), "device", pa.array(["another"] * 400))
    unseen = fresh.set_column(fresh.column_names.index("device"), "device", pa.array([f"{k}" for k in range(400)]))
    bare = Model(
        model.loss,
        model.encoding,
        model.target,
        np.where(np.arange(len(model.weights))[:, None] < device.first + device.own, model.weights, 0.0),
    )
    assert np.array_equal(bare.predict(changed), bare.predict(unseen))


def test_categories_of_numbers_that_come_as_strings_are_refused_by_both_types() -> None:
    """ "007" is no 7: who writes numbers as strings may mean either, so nobody guesses."""
    codes = np.random.default_rng(1).integers(0, 9, 500)
    table = pa.table({"code": codes, "y": np.sin(codes) + 0.1})
    own = {"exclude": [], "text": [], "time_parts": [], "cross": []}
    model = train(table, categorical=["code"], **own)
    strings = pa.table({"code": pa.array(codes).cast(pa.string())})
    with pytest.raises(DataError, match=r"column 'code' of the table is of type string.* in training it was of type int64"):
        model.predict(strings)
    narrow = pa.table({"code": pa.array(codes).cast(pa.int8())})
    assert np.array_equal(model.predict(narrow), model.predict(table))


# --- law: a trainer learns tables as they come


def trainer() -> streamsgd.Trainer:
    settings = {key: value for key, value in BASE.items() if key not in ("target", "epochs", "chunk_rows", "executor")}
    return streamsgd.Trainer("y", **settings)


def test_a_trainer_learns_strings_whatever_holds_them(fresh: pa.Table) -> None:
    tables = [make_rows(600, seed) for seed in (20, 21, 22)]
    plain, encoded = trainer(), trainer()
    losses = []
    for table in tables:
        plain.partial_fit(table)
        encoded.partial_fit(table.set_column(1, "site", table["site"].dictionary_encode()))
        losses.append(plain.model.evaluate(fresh, executor="inline")["rmse"])
    assert np.array_equal(plain.model.weights, encoded.model.weights)
    assert losses[2] < losses[0]


def test_a_trainer_names_values_of_all_its_tables() -> None:
    learner = trainer()
    for k in range(3):
        table = make_rows(1500, 30 + k)
        sites = [f"day {k}"] * 200 + [f"site {k}-{j}" for j in range(1300)]
        learner.partial_fit(table.set_column(1, "site", pa.array(sites)))
    named = {value.value: value for value in learner.model.values() if value.column == "site"}
    assert all(named[f"day {k}"].weights[0] != 0.0 for k in range(3))
    assert all(named[f"day {k}"].rows == 200 for k in range(3))


def test_the_first_look_at_a_part_decides_the_same_however_it_is_read(data: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(look, "SAMPLE_ROWS", 800)
    expected = plan(data, "y", exclude=["label"], threads=1).encoding
    assert plan(data, "y", exclude=["label"], threads=2, memory="20GB").encoding == expected
