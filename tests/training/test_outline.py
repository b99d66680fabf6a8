"""Phases reserve memory where they run, and nothing where what is known before they do says that they will not."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from small_tables import PLAIN, alike, values

import streamsgd
from streamsgd.errors import BudgetError
from streamsgd.training import memory
from streamsgd.training.job import Job
from streamsgd.training.phases import PHASES, finish, shrinking, wanted
from streamsgd.training.together.learn import unpolished

IDLE: dict[str, list[tuple[pa.Table, dict[str, Any]]]] = {
    "finish": [(alike(900), {}), (values(1_200), {"exclude": "z"})],
    "shrink": [(values(900), {"exclude": "z"}), (alike(1_200), {})],
    "residual_scale": [
        (values(1_200, each=900), {"target": "z", "exclude": "y", "categorical": "c*", "conformal": True, "validation": 0.1})
    ],
}
"""By phase, data and settings for which it makes no pass though it is wanted; the others are only wanted where they make some.
"""


def plan(table: pa.Table, **settings: Any) -> Job:
    return streamsgd.plan(table, settings.pop("target", "y"), **{**PLAIN, **settings})


def leave_out(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Plan the memory as if there were no such phases."""
    monkeypatch.setattr(memory, "wanted", lambda *given: [kind for kind in wanted(*given) if kind.name not in names])


@pytest.mark.parametrize("name", [kind.name for kind in PHASES])
def test_a_phase_that_makes_no_pass_reserves_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for table, settings in IDLE.get(name, [(alike(1_200), {"polish": "none"})]):
        job = plan(table, **settings)
        if name in IDLE:
            (kind,) = [kind for kind in wanted(job.settings, job.parts) if kind.name == name]
            assert not kind.passes(job.outline)
        with monkeypatch.context() as patch:
            leave_out(patch, name)
            assert plan(table, **settings).budget == job.budget


@pytest.mark.parametrize(("name", "table"), [("finish", alike(1_200)), ("shrink", values(1_200).drop_columns("z"))], ids=str)
def test_a_phase_that_runs_reserves_what_it_takes(name: str, table: pa.Table, monkeypatch: pytest.MonkeyPatch) -> None:
    job = plan(table)
    (kind,) = [kind for kind in PHASES if kind.name == name]
    leave_out(monkeypatch, name)
    assert job.budget.model - plan(table).budget.model == kind.memory(job.outline) > 8 * 6 * job.n_weights


@pytest.mark.parametrize("most", ["MOST_NUMBERS", "MOST_WEIGHTS"])
def test_data_too_large_to_be_shrunk_is_learned_in_as_little_memory_as_without(
    most: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pa.table({"t": [f"w{k} w{k % 7}" for k in range(1_200)], "y": np.arange(1_200) % 2})

    def least() -> int:
        with pytest.raises(BudgetError) as refused:
            plan(table, text="t", bits=18, memory="20MB")
        return refused.value.least

    runs = least()
    monkeypatch.setattr(shrinking, most, 1_000)
    found = least()
    leave_out(monkeypatch, "shrink")
    assert found == least() < runs - 40_000_000


def test_one_pass_of_much_data_reserves_nothing_for_passes_after_several(monkeypatch: pytest.MonkeyPatch) -> None:
    """How many passes there are follows from the rows."""
    monkeypatch.setattr("streamsgd.training.prepare.choose_passes", lambda *_given: (1, 0.0))
    for table in (alike(1_200), values(1_200).drop_columns("z")):
        assert not memory.phases_bytes(plan(table).outline)


def test_runs_of_one_decode_take_nothing_for_what_they_leave_out() -> None:
    job = plan(values(1_200).drop_columns("z"))
    plain = plan(values(1_200).drop_columns("z"), polish=0)
    assert job.budget.model > plain.budget.model == unpolished(job).budget.model


def test_the_outline_says_what_the_job_is() -> None:
    for table, settings in ((alike(1_200), {}), (values(1_200), {"exclude": "z", "model": "fm"})):
        job = plan(table, **settings)
        outline = job.outline
        assert (outline.n_rows, outline.epochs, outline.row_bytes) == (1_200, job.epochs, job.recipe.row_bytes)
        assert outline.held == bool(job.recipe.held)
        assert (outline.n_weights, outline.n_parameters, outline.shape) == (job.n_weights, job.n_parameters, job.shape)
        assert finish.is_small(outline) == (not settings)
