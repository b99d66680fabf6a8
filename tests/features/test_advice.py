"""The look finds what values stand for: each a copy of a situation, found, said once, undone by the setting that is named."""

import datetime as dt
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import streamsgd
from streamsgd import serving
from streamsgd.errors import SettingsError, Stopped
from streamsgd.features.look.ids import compare
from streamsgd.features.look.sentinels import find_spikes, without
from streamsgd.settings.make import make_settings
from streamsgd.training.look import look_at

EFFECTS = np.random.default_rng(9).normal(size=(20, 24))


def lines_of(table: pa.Table, **settings: Any) -> tuple[Any, str]:
    """What the look came to, and what it says."""
    look = look_at(table, make_settings({"target": "y", "memory": "1GB", **settings}))
    return look.encoding, look.chosen


# --- sentinels


def spiky(values: Any, spike: float, share: float = 0.05) -> np.ndarray:
    values = np.array(values, float)
    values[:: round(1 / share)] = spike
    return values


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (spiky(np.random.default_rng(0).normal(50, 20, 4000), -999999), [-999999.0]),
        (spiky(np.random.default_rng(0).normal(50, 20, 4000), 9999), [9999.0]),
        (spiky(np.random.default_rng(0).integers(0, 5_000_000, 4000), -999999), [-999999.0]),
        (spiky(np.random.default_rng(0).integers(0, 100, 4000), -(2.0**31)), [-(2.0**31)]),
        (spiky(spiky(np.random.default_rng(0).normal(0, 1, 4000), 9999), -9999, 0.01), [-9999.0, 9999.0]),
        (np.random.default_rng(0).normal(50, 20, 4000), []),
        (np.exp(3 * np.random.default_rng(0).normal(size=4000)), []),
        (spiky(np.random.default_rng(0).normal(50, 20, 4000), -999999, 0.0005), []),  # two rows are no habit
        (spiky(np.random.default_rng(0).integers(0, 9998, 4000), 9999), []),  # a cap: not far from the others
        (np.array([0.0, 9999.0] * 2000), []),
        (np.array([1.0, 2.0, 3.0, 999999.5] * 1000), []),
    ],
)
def test_spikes_far_from_all_others_are_found(values: np.ndarray, found: list[float]) -> None:
    assert [spike.value for spike in find_spikes(values)] == found


@pytest.mark.parametrize("learn", ["train", "train_many", "cross_validate"])
def test_what_changes_the_data_is_a_warning_once_whoever_learns(learn: str, caplog: Any) -> None:
    """Python shows warnings where nobody asked for more."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=2000)
    columns = {"x": spiky(rng.normal(50, 20, 2000), -9999), "name": [f"n{k}" for k in range(2000)], "z": z, "y": z + 0.1}
    more: dict[str, Any] = {"train_many": {"settings": [{}, {"schedule": "constant"}]}, "cross_validate": {"folds": 2}}.get(
        learn, {}
    )
    getattr(streamsgd, learn)(pa.table(columns), "y", memory="1GB", executor="inline", **more)
    told = [
        record.message
        for record in caplog.records
        if record.levelno == logging.WARNING and "runs learn in" not in record.message
    ]
    assert [line.partition(" ")[0] for line in told] == ["left", "taken"]
    assert "'name'" in told[0]
    assert "-9999 in 'x' (5.00% of its values)" in told[1]


@pytest.mark.parametrize("kind", [pa.int16(), pa.int64(), pa.float32(), pa.float64()])
def test_sentinels_are_null_in_every_width(kind: Any) -> None:
    column = pa.array([1, -9999, None, 3], kind)
    assert without(column, (-9999.0, 1e12)).to_pylist() == [1, None, None, 3]
    assert without(pa.array([1, 255], pa.uint8()), (-9999.0,)).to_pylist() == [1, 255]


def gaps(seed: int, n: int = 3000) -> pa.Table:
    """A number whose missing values say something, in a table of numbers alone and of few weights."""
    rng = np.random.default_rng(seed)
    x, z, missing = rng.normal(50, 20, n), rng.normal(size=n), rng.random(n) < 0.1
    y = 0.1 * (x - 50) * ~missing + 3.0 * missing + z + 0.1 * rng.normal(size=n)
    return pa.table({"x": np.where(missing, -999999.0, x), "z": z, "y": y})


def test_what_stands_for_missing_is_missing_in_training_scoring_and_serving(caplog: Any, tmp_path: Path) -> None:
    common: dict[str, Any] = {"target": "y", "memory": "1GB", "executor": "inline", "epochs": 1}
    with caplog.at_level(logging.INFO, "streamsgd"):
        model = streamsgd.train(gaps(0), **common)
    told = [record.message for record in caplog.records if "taken as missing" in record.message]
    assert len(told) == 1
    assert "-999999 in 'x' (10" in told[0] or "-999999 in 'x' (9" in told[0]
    plain = streamsgd.train(gaps(0), **common, sentinels="none")
    assert plain.encoding.sentinels is not model.encoding.sentinels
    after = gaps(1)
    assert model.evaluate(after)["rmse"] < 0.5 * plain.evaluate(after)["rmse"]
    nulls = after.set_column(0, "x", pa.array(after["x"].to_numpy(), mask=after["x"].to_numpy() < -1000))
    np.testing.assert_array_equal(model.predict(after), model.predict(nulls))
    model.save(tmp_path / "m.sgd")
    served = serving.load(tmp_path / "m.sgd")
    rows = after.drop(["y"]).slice(0, 50).to_pylist()
    np.testing.assert_allclose(served.predict(rows), model.predict(after.slice(0, 50)), rtol=1e-5, atol=1e-5)
    with pytest.raises(SettingsError, match=r"none of auto, none, NUMBER"):
        streamsgd.train(gaps(0), **common, sentinels="x=gone")


def test_sentinels_can_be_named_and_errors_of_missing_values_are_not_made() -> None:
    encoding, told = lines_of(gaps(0), sentinels=["z=0.5", "x=none"])
    assert encoding.nulls == {"z": (0.5,)}
    assert "taken as missing" not in told
    assert not lines_of(gaps(0), missing=["error"])[0].nulls


# --- ids


def test_integers_are_names_where_their_values_say_more_than_their_order() -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 300, 6000)
    effects = rng.normal(size=300)
    assert compare(ids.astype(float), effects[ids] + rng.normal(size=6000)).is_id  # type: ignore[union-attr]
    assert not compare(ids.astype(float), ids / 100 + rng.normal(size=6000)).is_id  # type: ignore[union-attr]
    assert not compare(ids.astype(float), np.sin(ids / 30) + rng.normal(size=6000)).is_id  # type: ignore[union-attr]
    assert not compare(ids.astype(float), rng.normal(size=6000)).is_id  # type: ignore[union-attr]
    assert compare(np.arange(6000.0), rng.normal(size=6000)) is None


def test_ids_become_categories_and_are_said() -> None:
    rng = np.random.default_rng(0)
    store = rng.integers(0, 200, 4000)
    x = rng.normal(size=4000)
    table = pa.table({"store": 7 * store, "x": x, "y": x + EFFECTS.ravel()[store] + 0.5 * rng.normal(size=4000)})
    encoding, told = lines_of(table)
    assert [(c.column, len(c.values)) for c in encoding.categories if c.values] == [("store", 200)]
    assert "'store' (200 values:" in told
    assert "--transform COLUMN=tails" in told
    kept, told = lines_of(table, transform=["store=tails"])
    assert "store" in [c.column for c in kept.columns]
    assert "names" not in told
    assert "store" in [c.column for c in lines_of(table, optimizer="adam")[0].columns]


# --- strings


def named(n: int = 3000, seed: int = 0) -> pa.Table:
    """Moments as strings, names of rows, names of which most come once, and ones that come back."""
    rng = np.random.default_rng(seed)
    seconds = rng.integers(0, 86400 * 300, n)
    moments = [(dt.datetime(2024, 1, 1) + dt.timedelta(seconds=int(k))).isoformat(" ") for k in seconds]  # noqa: DTZ001
    rare = np.minimum(rng.zipf(1.3, n), 10**9)
    y = seconds / 86400 / 100 + 1.0 * (rare > 300) + rng.normal(size=n)
    return pa.table(
        {
            "when": moments,
            "row": [f"{seed} {k}" for k in range(n)],
            "name": [f"n{k}" for k in rare],
            "day": [text[:7] for text in moments],
            "y": y,
        }
    )


def test_strings_that_do_not_come_back_take_no_signal(caplog: Any) -> None:
    with caplog.at_level(logging.INFO, "streamsgd"):
        encoding, told = lines_of(named())
    assert "'when': strings that say moments" in caplog.text
    assert encoding.moments == ("when",)
    assert "when" in [c.column for c in encoding.columns]
    assert "row" not in encoding.sources
    assert "left out, for hardly a value comes back: 'row'" in told
    values = {c.column: c.values for c in encoding.categories if c.values}
    assert set(values) == {"name", "day"}
    assert len(values["name"]) < 400 < len(set(named()["name"].to_pylist()))
    assert "'name' (" in told
    asked, told = lines_of(named(), categorical=["when", "row", "name"])
    assert {c.column for c in asked.categories if not c.own} >= {"when", "row"}
    assert told == ""


def test_moments_as_strings_score_as_moments_and_what_says_none_is_missing(tmp_path: Path) -> None:
    model = streamsgd.train(named(), target="y", memory="1GB", executor="inline", epochs=1, features=["when", "day"])
    strings = named(40, 1)
    kind = pa.timestamp("us")
    moments = strings.set_column(0, "when", pa.array([dt.datetime.fromisoformat(t) for t in strings["when"].to_pylist()], kind))
    np.testing.assert_array_equal(model.predict(strings), model.predict(moments))
    odd = strings.set_column(0, "when", pa.array(["2024-02-30 10:00:00", "soon"] * 20))
    none = strings.set_column(0, "when", pa.nulls(40, kind))
    np.testing.assert_array_equal(model.predict(odd), model.predict(none))
    model.save(tmp_path / "m.sgd")
    served = serving.load(tmp_path / "m.sgd")
    for table in (strings, odd):
        rows = table.drop(["y"]).to_pylist()
        np.testing.assert_allclose(served.predict(rows), model.predict(table), rtol=1e-4, atol=1e-4)


# --- crosses


def pairs(n: int = 8000, task: str = "counts", seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    a, b, c = rng.integers(0, 20, n), rng.integers(0, 24, n), rng.integers(0, 5, n)
    score = EFFECTS[a, b] + 0.2 * c
    y = {"counts": rng.poisson(np.exp(score)), "class": rng.random(n) < 1 / (1 + np.exp(-2 * score)), "line": score}[task]
    return pa.table(
        {"a": [f"a{k}" for k in a], "b": [f"b{k}" for k in b], "c": [f"c{k}" for k in c], "x": score * 0 + b, "y": y}
    )


@pytest.mark.parametrize(("task", "settings"), [("counts", {"task": "poisson"}), ("class", {}), ("line", {})])
def test_pairs_that_say_something_together_are_crossed(task: str, settings: dict[str, Any]) -> None:
    encoding, told = lines_of(pairs(task=task).drop(["x"]), **settings)
    assert [cross.members for cross in encoding.crosses] == [("a", "b")]
    assert "crossed: 'a*b' (loss" in told
    assert "--cross none" in told
    for off in ({"cross": "none"}, {"cross": ["a*c"]}, {"optimizer": "adagrad"}):
        assert "a*b" not in [cross.name for cross in lines_of(pairs(task=task).drop(["x"]), **settings, **off)[0].crosses]


def test_what_adds_up_is_not_crossed() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.integers(0, 20, 8000), rng.integers(0, 24, 8000)
    y = EFFECTS[0][b] + EFFECTS[:, 0][a] + rng.normal(size=8000)
    assert not lines_of(pa.table({"a": [f"a{k}" for k in a], "b": [f"b{k}" for k in b], "y": y}))[0].crosses


# --- wide and little


def test_wide_and_little_data_is_shrunk_and_a_resumed_run_is_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1200, 150))
    y = rng.random(1200) < 1 / (1 + np.exp(-x[:, 0] + 2.5))
    table = pa.table({**{f"x{k}": column for k, column in enumerate(x.T)}, "y": y})
    learned, judged = table.slice(0, 600), table.slice(600)
    common: dict[str, Any] = {"target": "y", "memory": "1GB", "executor": "inline"}
    whole = streamsgd.train(learned, **common)
    share = float(np.mean(learned["y"].to_numpy()))
    truth = judged["y"].to_numpy()
    constant = -np.mean(np.where(truth, np.log(share), np.log(1 - share)))
    assert whole.provenance["parts"]["penalty"].startswith("l2:l2=")
    assert (
        whole.evaluate(judged)["log_loss"]
        < constant
        < streamsgd.train(learned, **common, penalty="l2:l2=0").evaluate(judged)["log_loss"]
    )
    pq.write_table(learned, tmp_path / "d.parquet")
    settings = {**common, "checkpoint": str(tmp_path / "c"), "checkpoint_chunks": 1, "chunk_rows": 200, "resume": "auto"}
    with pytest.raises(Stopped):
        streamsgd.train(str(tmp_path / "d.parquet"), **settings, time_limit=1e-9)
    again = streamsgd.train(str(tmp_path / "d.parquet"), **settings)
    once = streamsgd.train(str(tmp_path / "d.parquet"), **{**settings, "resume": "never", "checkpoint": str(tmp_path / "e")})
    assert json.dumps(again.provenance["parts"]) == json.dumps(once.provenance["parts"])
    np.testing.assert_array_equal(again.weights, once.weights)
