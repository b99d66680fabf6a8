"""Moments that are numbers and grow with the rows: later ones lie beyond all that is learned, which is said."""

import datetime as dt
import logging
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import streamsgd
from streamsgd.features.look.advice import GROWING
from streamsgd.settings.make import make_settings
from streamsgd.training.look import look_at

PLAIN: dict[str, Any] = {"executor": "inline", "memory": "1GB"}


def day(number: int, *, seed: int | None = None, n: int = 2000) -> pa.Table:
    """Clicks of a day, more likely in the evening; in the order in which they came, or in that of a seed."""
    rng = np.random.default_rng(number)
    start = dt.datetime(2026, 1, number, tzinfo=dt.UTC)
    ts = [start + dt.timedelta(seconds=86400 * k / n) for k in range(n)]
    x, hour = rng.normal(size=n), np.array([moment.hour for moment in ts])
    y = rng.random(n) < 1 / (1 + np.exp(-x - 0.2 * (hour - 12)))
    made = pa.table({"ts": ts, "x": x, "site": rng.choice(["a", "b"], n), "y": y.astype(int)})
    return made if seed is None else made.take(np.random.default_rng(seed).permutation(n))


def said(data: pa.Table, **settings: Any) -> list[str]:
    chosen = look_at(data, make_settings({"target": "y", "memory": "1GB", **settings})).chosen
    return [line for line in chosen.splitlines() if line.startswith(GROWING)]


KINDS = [pa.timestamp("ns", "UTC"), pa.timestamp("us", "Europe/Berlin"), pa.date64(), pa.string()]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_moments_that_grow_with_the_rows_are_named(kind: Any) -> None:
    table = day(1)
    dates = pa.array([dt.datetime(2000, 1, 1, tzinfo=dt.UTC) + dt.timedelta(days=k) for k in range(len(table))])
    texts = pa.array([moment.isoformat() for moment in table["ts"].to_pylist()])
    column = {"date64[ms]": dates.cast(pa.timestamp("ms")), "string": texts}.get(str(kind), table["ts"]).cast(kind)
    (line,) = said(table.set_column(0, "ts", column))
    assert "'ts'" in line
    assert "'x'" not in line


@pytest.mark.parametrize(
    ("table", "settings"),
    [
        (day(1, seed=0), {}),
        (day(1), {"exclude": ["ts"]}),
        (day(1), {"transform": ["ts=bins"], "time_parts": ["ts"]}),
        (day(1).set_column(0, "ts", day(1)["ts"].take([5] * 2000)), {}),
        (day(1).set_column(0, "ts", pa.array(np.arange(2000.0))), {}),
    ],
    ids=["no order", "left out", "bins", "constant", "numbers"],
)
def test_nothing_is_said_where_it_does_not_matter(table: pa.Table, settings: dict[str, Any]) -> None:
    assert said(table, **settings) == []


def test_it_is_a_warning_once_and_the_ways_out_are_ways_out(caplog: pytest.LogCaptureFixture) -> None:
    later = day(30)

    def loss(**settings: Any) -> float:
        model = streamsgd.train(day(1), "y", **settings, **PLAIN)
        return float(model.evaluate(later, executor="inline")["log_loss"])

    with caplog.at_level(logging.WARNING, "streamsgd"):
        beyond = loss()
    (told,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith(GROWING)]
    assert "--exclude 'ts' " in told
    assert "--transform 'ts=bins' " in told
    assert "--time-parts 'ts' " in told
    assert "'ts' in 2,000 of 2,000 rows; train without them (--exclude 'ts')" in caplog.text
    caplog.clear()
    without, bins = loss(exclude=["ts"]), loss(transform=["ts=bins"], time_parts=["ts"])
    assert not caplog.records
    assert max(without, bins) < 0.7 < 2.0 < beyond


def far(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record.getMessage() for record in caplog.records if "beyond those that training saw" in record.getMessage()]
    caplog.clear()
    return found


@pytest.mark.parametrize("how", [{}, {"by": "site"}, {"threshold": 0.5}, {"executor": "threads", "memory": "1GB"}], ids=str)
def test_evaluating_counts_moments_far_beyond_those_of_training(how: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    model = streamsgd.train(day(1), "y", epochs=1, valid=None, **PLAIN)
    assert far(caplog) == []
    for later, n in ((day(1), 0), (day(3), 0), (pa.concat_tables([day(1), day(30)]), 2000)):
        streamsgd.evaluate(model, later, **how)
        assert [f"'ts' in {n:,} of {len(later):,} rows" in text for text in far(caplog)] == [True] * bool(n)


@pytest.mark.parametrize("settings", [{"scale": ["none"]}, {"scale": ["ts=robust"]}, {"exclude": ["ts"]}], ids=str)
def test_nothing_is_counted_where_the_model_cannot_tell(settings: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    model = streamsgd.train(day(1), "y", epochs=1, learning_rate=1e-12, optimizer="adam", **settings, **PLAIN)
    caplog.clear()
    streamsgd.evaluate(model, day(30))
    assert far(caplog) == []
