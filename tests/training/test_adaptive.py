"""Batches that grow: equal rows never, the same bits anywhere, every layout; what cannot grow is refused."""

from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import finish_chunk_by_chunk
from test_polish import table_of

import streamsgd
from streamsgd.errors import SettingsError
from streamsgd.model.model import Model
from streamsgd.planning.batches import GROUPS, Adaptive
from streamsgd.settings.make import make_settings
from streamsgd.training.prepare import prepare

PLAIN: dict[str, Any] = {
    "optimizer": "sgd",
    "learning_rate": 0.05,
    "schedule": "constant",
    "precision": "float64",
    "executor": "inline",
    "memory": "2GB",
}


def rows_of(n: int, signal: float = 1.0, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 5))
    y = signal * x.sum(axis=1) + rng.normal(size=n)
    return pa.table({**{f"x{j}": x[:, j] for j in range(5)}, "y": y})


def found(model: Model) -> dict[str, Any]:
    return dict(model.metrics["epochs"])


# --- law: just as many rows as the noise calls for


@pytest.mark.parametrize("test", ["norm", "inner", "augmented"])
def test_equal_rows_never_make_a_step_grow(test: str) -> None:
    """Values like 0.1, whose sums are rounded: the trace is exactly 0. Another row, for a target must vary, is never judged."""
    table = pa.table({"x": np.full(2000, 0.1), "z": np.full(2000, -3.7), "y": np.full(2000, 0.3)})
    model = streamsgd.train(
        pa.concat_tables([table, pa.table({"x": [0.1], "z": [-3.7], "y": [0.4]})]),
        "y",
        **{**PLAIN, "batch_size": f"adaptive:start=16,test={test}", "epochs": 2, "scale": ["none"], "shuffle": "none"},
        transform="none",
        validation="none",
    )
    said = found(model)
    assert (said["largest"], said["judgements"], said["steps"]) == (16, 250, 252)
    assert set(model.provenance["ledger"]["trace_covariance"]) == {0.0}


def test_steps_grow_as_the_gradient_falls_and_the_ledger_says_why() -> None:
    model = streamsgd.train(rows_of(20_000), "y", **PLAIN, batch_size="adaptive:rate=none,start=16,most=4096", epochs=4)
    ledger, said = model.provenance["ledger"], found(model)
    rows = np.array(ledger["rows"])
    assert rows[0] < rows[-1] / 8
    assert rows.max() <= said["largest"] <= 4096
    passed = np.array(ledger["test"]) <= 1.0
    assert passed.mean() > 0.9
    assert ledger["step"][0] == 1
    assert len(rows) <= 256
    np.testing.assert_allclose(
        np.array(ledger["trace_covariance"]) / (0.81 * np.array(ledger["gradient_norm_squared"]) * rows),
        ledger["test"],
        rtol=1e-9,
    )


def test_more_noise_calls_for_more_rows() -> None:
    least, most = (
        found(streamsgd.train(rows_of(20_000, signal), "y", **PLAIN, batch_size="adaptive:start=16", epochs=1))["mean"]
        for signal in (3.0, 0.3)
    )
    assert least < most


def test_the_rate_follows_as_the_rule_has_it() -> None:
    """Of one step that starts at its most: the same as a batch of so many rows under --rate-scaling."""
    table, settings = rows_of(512), {**PLAIN, "epochs": 1}
    for rule in ("linear", "sqrt", "none"):
        grown = streamsgd.train(table, "y", **settings, batch_size=f"adaptive:start=256,most=256,rate={rule}")
        fixed = streamsgd.train(table, "y", **settings, batch_size=256, rate_scaling=rule)
        np.testing.assert_allclose(grown.weights, fixed.weights, rtol=1e-12)
        scaled = streamsgd.train(table, "y", **settings, batch_size="adaptive:start=256,most=256,rate=none", rate_scaling=rule)
        np.testing.assert_array_equal(scaled.weights, grown.weights)


# --- law: the same bits


def test_it_is_the_same_bytes_on_threads_and_resumed(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    pq.write_table(table_of("logistic"), path, row_group_size=100)
    settings: dict[str, Any] = {"exclude": ["h"], "memory": "1GB", "epochs": 3, "chunk_rows": 250}
    settings["optimizer"] = "adam:half_life1=421"  # whose memory fades by rows, however many a step has
    settings["batch_size"] = "adaptive:start=16"
    alone = streamsgd.train(path, "y", executor="inline", **settings).to_bytes()
    assert streamsgd.train(path, "y", executor="threads", threads=2, **settings).to_bytes() == alone
    run, places = partial(streamsgd.train, path, "y", **settings), cycle([{"executor": "inline"}, {"threads": 2}])
    resumed, stops = finish_chunk_by_chunk(run, tmp_path / "saved", places)
    assert stops > 3
    assert resumed.to_bytes() == alone


def test_steps_do_not_depend_on_chunks() -> None:
    table = rows_of(4000)
    settings = {**PLAIN, "epochs": 2, "shuffle": "none", "batch_size": "adaptive:start=16"}
    one, many = (streamsgd.train(table, "y", **settings, chunk_rows=rows) for rows in (4000, 333))
    np.testing.assert_array_equal(one.weights, many.weights)
    assert one.provenance["ledger"] == many.provenance["ledger"]


@pytest.mark.parametrize(("loss", "wide"), [("logistic", True), ("softmax", False)])
def test_every_layout_learns(loss: str, wide: bool) -> None:
    """Numbers, categories and hashed words, of one score and of several."""
    model = streamsgd.train(
        table_of(loss, wide=wide),
        *("y",),
        exclude=["h"],
        loss=loss,
        optimizer="adam",
        epochs=3,
        executor="inline",
        memory="2GB",
        batch_size="adaptive:start=16,theta=1",
    )
    assert model.metrics["training_loss"] < model.metrics["best_constant_loss"]
    assert found(model)["steps"] > 3


# --- law: what cannot grow is refused, and said


@pytest.mark.parametrize(
    ("size", "settings", "words"),
    [
        ("adaptive:theta=0", {}, "--batch-size: theta=0: it is above 0"),
        ("adaptive:theta=1.5", {}, "theta=1.5"),
        ("adaptive:theta=nan", {}, "theta=nan"),
        ("adaptive:test=nrom", {}, "did you mean 'norm'"),
        ("adaptive:most=32", {}, "most=32 is below the start of 64 rows"),
        ("adaptive:most=100", {}, "multiple of 16"),
        ("adaptive:half_life=-1", {}, "half_life=-1"),
        ("adaptive:nu=0", {}, "nu=0"),
        ("adaptive:rate=cubic", {}, "rate=cubic"),
        ("adaptive:tehta=1", {}, "did you mean 'theta'"),
        ("adaptive", {"optimizer": "normalized"}, "learns row by row: leave --batch-size adaptive out"),
        ("adaptive", {"optimizer": "svrg"}, "svrg"),
        ("adaptive", {"lanes": 2}, "leave --lanes out"),
        ("adaptive:start=1024", {}, "adaptive:start=16"),
        ("adaptable", {}, "is not a whole number of at least 1 or auto or full or adaptive"),
        (0, {}, "is not a whole number of at least 1"),
    ],
)
def test_bad_input_says_what_to_do(size: Any, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError) as error:
        prepare(rows_of(500), make_settings({"target": "y", "memory": "2GB", "batch_size": size, **settings}))
    assert words in str(error.value)


def test_the_most_follows_from_the_data_and_not_from_memory() -> None:
    assert Adaptive().largest(100_000) == 10_000 // GROUPS * GROUPS
    assert Adaptive().largest(300) == Adaptive().start
    sizes = set()
    for memory in ("700MB", "2GB"):
        model = streamsgd.train(rows_of(20_000), "y", **{**PLAIN, "memory": memory}, batch_size="adaptive", epochs=1)
        sizes.add((found(model)["most"], model.weights.tobytes()))
    assert len(sizes) == 1


def test_text_of_a_number_is_a_number() -> None:
    assert make_settings({"target": "y", "batch_size": "64"}).batch_size == 64
