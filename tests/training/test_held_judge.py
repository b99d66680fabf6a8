"""What kinds of polishing that nobody asked for share: who says something else is heard, and stops leave no trace."""

from itertools import repeat
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from conftest import finish_chunk_by_chunk
from small_tables import PLAIN, alike, train, values

import streamsgd
from streamsgd.model.model import Model
from streamsgd.training.estimate import outlook
from streamsgd.training.phases import finish, shrinking

KINDS = {"finish": (alike, finish.MOST_PASSES), "shrink": (values, shrinking.MOST_PASSES)}
"""By phase, a table that it is for, and its passes."""

ELSE: list[dict[str, Any]] = [
    *({"epochs": 1}, {"polish": 0}, {"polish": "none"}, {"optimizer": "adam"}, {"validation": "none"}, {"patience": 2}),
    *({"validation": 0.1}, {"keep_memory": True}),
]
"""Settings that say something about how to learn, or about rows held out ..."""

ELSE_OF: dict[str, list[dict[str, Any]]] = {
    "finish": [{"loss": "quantile"}, {"model": "mlp"}],
    "shrink": [{"penalty": "l2:l2=1e-4"}, {"loss": "hinge"}, {"model": "fm"}],
}
"""... and those of one kind."""


def passes(model: Model, name: str) -> int:
    return int(model.metrics.get(name, {}).get("passes", 0))


@pytest.fixture(params=KINDS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def data(name: str) -> pa.Table:
    """Return few rows of a table that the phase is for."""
    return KINDS[name][0](1_200)


@pytest.mark.parametrize(
    ("name", "settings"), [(name, settings) for name, own in ELSE_OF.items() for settings in ELSE + own], ids=str
)
def test_who_says_something_else_is_heard(name: str, data: pa.Table, settings: dict[str, Any]) -> None:
    assert not passes(train(data, **settings), name)


SAID = "these rows judge and choose nothing"


def test_what_rows_that_somebody_holds_out_do_not_choose_is_said(
    name: str, data: pa.Table, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "streamsgd")
    train(data, validation=0.1)
    assert SAID in caplog.text
    exclude = "z" if name == "shrink" else ()
    assert SAID in outlook(streamsgd.plan(data, "y", **PLAIN, exclude=exclude, validation=0.1))["held_out"]
    caplog.clear()
    for settings in (
        {},
        {"epochs": 1},
        {"validation": "none"},
        {"validation": 0.1, "optimizer": "adam"},
        {"validation": 0.1, "polish": 0},
    ):
        train(data, **settings)
    assert SAID not in caplog.text


def test_few_rows_are_left_as_they_are(name: str) -> None:
    assert not passes(train(KINDS[name][0](900)), name)


def test_plan_says_it(name: str, data: pa.Table) -> None:
    most = KINDS[name][1]
    assert outlook(streamsgd.plan(data, "y", **PLAIN))["polish"] == most
    assert outlook(streamsgd.plan(data, "y", **PLAIN, polish=0))["polish"] == 0


def test_several_runs_of_one_decode_are_not_polished() -> None:
    data = alike(1_200)
    (model,) = streamsgd.train_many(data, "y", [{"penalty": "l2:l2=0.1"}], **PLAIN)
    assert isinstance(model, Model)
    assert model.to_bytes() == train(data, penalty="l2:l2=0.1", polish=0).to_bytes()


def test_stopped_at_every_chunk_it_ends_with_the_same_bytes(name: str, tmp_path: Path) -> None:
    data = KINDS[name][0](1_500)
    whole = train(data, chunk_rows=800, epochs=2)
    assert passes(whole, name) > 1

    def run(**more: Any) -> Model:
        return train(data, chunk_rows=800, epochs=2, **more)

    again, stops = finish_chunk_by_chunk(run, tmp_path / "c", repeat({}))
    assert stops > 8
    assert again.to_bytes() == whole.to_bytes()
