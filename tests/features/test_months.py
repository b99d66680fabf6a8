"""Whole numbers that grow with the rows, such as months, have a bin for what comes after the last one."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import streamsgd

PLAIN: dict[str, Any] = {"executor": "inline", "memory": "1GB", "epochs": 1}


def months(n: int = 4_000, *, mixed: bool = False, step: float = 1.0) -> pa.Table:
    """Eight months, each as high as its number says or not, of which the last is far off."""
    rng = np.random.default_rng(0)
    month = 1 + np.arange(n) * 8 // n
    month = rng.permutation(month) if mixed else month
    effect = np.array([0.0, 0.4, -0.3, 0.2, -0.2, 0.3, -0.4, 0.1, 3.0])[month]
    colour = rng.integers(0, 3, n)
    value = pa.array(month) if step == 1.0 else pa.array(month * step)
    return pa.table({"month": value, "colour": [f"c{k}" for k in colour], "y": effect + 0.1 * rng.normal(size=n)})


def edges(data: pa.Table) -> list[float]:
    model = streamsgd.train(data, "y", **PLAIN)
    (found,) = [column for column in model.encoding.categories if column.name == "range of month"]
    return list(found.edges)


@pytest.mark.parametrize(("how", "more"), [({}, 1), ({"mixed": True}, 0), ({"step": 0.7}, 0)], ids=["grow", "mixed", "broken"])
def test_only_whole_numbers_that_grow_get_one_more(how: dict[str, Any], more: int) -> None:
    found = edges(months(**how))
    assert (found[-1] == 9.0) == bool(more)
    assert found[-2] == 8.0 or not more


def test_what_comes_next_has_not_the_weight_of_the_last_month() -> None:
    """December says nothing of January: only the line through all months is left."""
    new = pa.table({"month": [8, 9], "colour": ["c0"] * 2})
    grown, mixed = (streamsgd.train(months(mixed=mixed), "y", **PLAIN, shuffle="full-chunk") for mixed in (False, True))
    eighth, ninth = grown.predict(new)
    assert eighth == pytest.approx(3.0, abs=0.5)
    assert ninth < eighth - 0.5
    eighth, ninth = mixed.predict(new)
    assert ninth >= eighth, "as it was"
