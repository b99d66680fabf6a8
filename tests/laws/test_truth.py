"""Shuffling: data sorted by label trains like shuffled data, where weaker samplers visibly fail."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import EXACT, as_columns

from streamsgd.settings.make import make_settings
from streamsgd.training.run import train_model

N, D, GROUPS = 20_000, 10, 100
SETTINGS = {
    "batch_size": 32,
    "epochs": 3,
    "learning_rate": 0.05,
    "chunk_rows": N // 10,
    "loss": "logistic",
    "validation": "none",
}


def gaussians(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two classes, sorted by class: gaussians of unit variance whose means are 2 apart."""
    rng = np.random.default_rng(seed)
    y = np.sort(rng.integers(0, 2, n))
    return rng.normal(size=(n, D)) + np.where(y[:, None] == 1, 1.0, -1.0) / np.sqrt(D), y


@pytest.fixture(scope="module")
def accuracy(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., float]:
    """Train on the sorted or the shuffled copy and return the accuracy on other rows, in per cent."""
    folder = tmp_path_factory.mktemp("sorted")
    x, y = gaussians(N, 0)
    mixed = np.random.default_rng(1).permutation(N)
    for name, order in (("sorted", np.arange(N)), ("shuffled", mixed)):
        table = pa.table(as_columns(x[order], y=y[order]))
        pa.parquet.write_table(table, folder / f"{name}.parquet", row_group_size=N // GROUPS)
    x_test, y_test = gaussians(20_000, 2)
    test = pa.table(as_columns(x_test))

    def accuracy(copy: str, **settings: Any) -> float:
        path = folder / f"{copy}.parquet"
        model, _ = train_model(path, make_settings({**EXACT, **SETTINGS, **settings}))
        return 100.0 * float((model.predict(test) == y_test).mean())

    return accuracy


@pytest.fixture(scope="module")
def best(accuracy: Callable[..., float]) -> float:
    """Accuracy after training on rows that were shuffled as a whole."""
    return accuracy("shuffled", shuffle="none")


def test_the_copy_that_was_shuffled_as_a_whole_learns_the_classes(best: float) -> None:
    assert best > 83.5  # the best possible is 84.1


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_corgi_on_sorted_rows_is_as_good_as_a_full_shuffle(seed: int, accuracy: Callable[..., float], best: float) -> None:
    """With 10 % of the rows in a chunk, to 0.3 points."""
    assert accuracy("sorted", shuffle="corgi", seed=seed) == pytest.approx(best, abs=0.3)


@pytest.mark.parametrize("name", ["none", "full-chunk"])
def test_weaker_samplers_visibly_fail(name: str, accuracy: Callable[..., float], best: float) -> None:
    assert accuracy("sorted", shuffle=name) < best - 2.0


def test_of_shuffled_rows_every_sampler_makes_the_same(accuracy: Callable[..., float], best: float) -> None:
    for name in ("corgi", "block", "full-chunk"):
        assert accuracy("shuffled", shuffle=name) == pytest.approx(best, abs=0.3)
