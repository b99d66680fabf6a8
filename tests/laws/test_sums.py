"""Sums that decide bits are added up in one order: BLAS shares out what is long, and rounds otherwise on other processors."""

import ast
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import streamsgd
from streamsgd.planning.sums import dot

threadpoolctl = pytest.importorskip("threadpoolctl", reason="it says how many threads BLAS has")

PACKAGE = Path(streamsgd.__file__).parent

DECIDE = ("data", "features", "inspection", "planning", "stream", "training")
"""Packages that decide bits and do not compile what they add up."""

FEW = {"planning/sums.py", "training/together/pilot_fit.py", "training/together/pilot_time.py"}
"""Modules that multiply vectors of a few numbers, or block by block."""

BLAS = {"dot", "vdot", "inner", "matmul", "cov"}


def test_what_decides_bits_multiplies_no_vectors_by_blas() -> None:
    found = []
    for path in (path for package in DECIDE for path in sorted((PACKAGE / package).rglob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text())):
            by_name = isinstance(node, ast.Attribute) and node.attr in BLAS and ast.unparse(node.value) == "np"
            if by_name or (isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult)):
                found.append(f"{path.relative_to(PACKAGE).as_posix()}")
    assert {*found} <= FEW


def test_a_model_is_the_same_bytes_on_any_number_of_threads_of_blas() -> None:
    rng = np.random.default_rng(0)
    n = 60_000
    x, weight = rng.normal(size=(n, 2)), rng.gamma(2.0, size=n)
    table = pa.table({"a": x[:, 0], "b": x[:, 1], "w": weight, "y": x[:, 0] + rng.normal(size=n)})
    models, sums = set(), set()
    for threads in (1, 2):
        with threadpoolctl.threadpool_limits(threads, "blas"):
            sums.add(dot(weight, table["y"].to_numpy()))
            model = streamsgd.train(
                table, "y", weight="w", epochs=1, validation=0.3, executor="inline", memory="2GB", optimizer="normalized"
            )
            models.add(model.to_bytes())
    assert len(sums) == len(models) == 1


@pytest.mark.parametrize(("n", "m"), [(4096, 5000), (4096, 4095), (8192, 4096), (3, 4)])
def test_vectors_of_other_lengths_have_no_product(n: int, m: int) -> None:
    with pytest.raises(ValueError, match="products of vectors"):
        dot(np.ones(n), np.ones(m))


def test_partial_sums_are_added_up_one_after_another() -> None:
    """As Python's `sum` did before 3.12, which makes up for rounding: bits are those of any Python."""
    a = np.repeat([1e16, 1.0, -1e16], 4096)
    assert dot(a, np.ones(len(a))) == (1e16 * 4096 + 4096.0) - 1e16 * 4096
    total = 0.0
    for part in np.random.default_rng(0).normal(size=(50, 4096)):
        total += float(part @ np.ones(4096))
    assert dot(np.random.default_rng(0).normal(size=(50, 4096)).ravel(), np.ones(50 * 4096)) == total
