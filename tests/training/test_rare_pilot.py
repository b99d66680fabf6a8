"""Laws of rare events: as many rows are kept as the plan says, and an intercept that chance does not move."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.special import expit

import streamsgd
from streamsgd.compute.executors import Inline
from streamsgd.kernels.sums.thin import LOCAL, TARGETED, Rule
from streamsgd.settings.make import make_settings
from streamsgd.stream.stream import Stream
from streamsgd.training.classes.population import Known, chances_of_negatives, missed, shift_to
from streamsgd.training.phases import rare
from streamsgd.training.phases.rare import as_thinned, beyond
from streamsgd.training.prepare import prepare
from streamsgd.training.tasks import thinned
from streamsgd.training.tasks.pilot import FEWEST_MEASURED, Seen, cut_of, next_rows, shift_of_pilot

SLOPES = np.array([0.8, -0.8, 0.8])
QUICK: dict[str, Any] = {"executor": "inline", "memory": "2GB", "epochs": 1}


def draw(n: int, intercept: float = -5.2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(88)
    x = rng.normal(size=(n, 3))
    return x, (rng.random(n) < expit(intercept + x @ SLOPES)).astype(float)


# --- how many rows are kept


def test_a_pilot_ends_with_its_chunk_where_too_few_rows_of_it_would_be_new_to_it() -> None:
    """Rows that a pilot has not learned tell how many it would keep: the next chunk's, if this one has too few of them."""
    x, y = draw(120_000)
    data = pa.table({**{f"x{j}": x[:, j] for j in range(3)}, "y": y.astype(np.int8)})
    settings = make_settings({"target": "y", **QUICK, "rare": "targeted", "chunk_rows": 12_000 + FEWEST_MEASURED - 1})
    job = prepare(data, settings)
    filled = next(Stream(job.recipe, job.plan, Inline()).chunks())
    cut, seen = cut_of(job, filled, Seen())
    assert cut == len(filled.order) < 12_000 + FEWEST_MEASURED
    assert seen == (cut, int((filled.block.y[next_rows(filled.order, filled.heads())] > 0.5).sum()))
    assert cut_of(job, filled, seen)[0] == 1


@pytest.mark.parametrize("gap", [0.0, 8.0])
@pytest.mark.parametrize("c", [5.0, 20.0, 500.0])
def test_a_pilot_keeps_as_many_negatives_as_the_rule_says(gap: float, c: float) -> None:
    """Also one that is far too sure of itself, by rows with more positives than their share; of 500 wanted, all there are."""
    rng = np.random.default_rng(3)
    n, share = 30_000, 0.005
    positive = rng.random(n) < 1.4 * share
    scores, lengths = rng.normal(-9.0, 3.0, n) + gap * positive, rng.uniform(1.0, 2.0, n)
    rule = Rule(TARGETED, c, float(lengths.mean()), weighs=False, mean=share)
    moved = scores + shift_of_pilot(rule, share, scores, lengths, positive)
    kept = chances_of_negatives(rule, expit(moved), lengths)[~positive].sum()
    assert kept == pytest.approx(min(c * share / (1.0 - share), 1.0) * (~positive).sum(), rel=1e-6)


def test_a_pilot_that_tells_classes_apart_is_not_moved_by_the_positives_that_came_by() -> None:
    """It predicts them, more or fewer than their share; of local case-control what it says of the negatives stays."""
    n, share = 20_000, 0.005
    positive = np.arange(n) < 0.8 * share * n
    scores = np.where(positive, 3.5, -9.0)
    assert abs(shift_of_pilot(Rule(LOCAL, 1.0, 1.0, weighs=False), share, scores, np.ones(n), positive)) < 1.0
    assert shift_to(scores, np.ones(n), share * n) > 2.0


def test_as_many_rows_are_kept_as_the_plan_says_also_by_a_pilot_that_knows_its_rows_by_heart() -> None:
    """Of ids that come by a few times a pilot knows its own rows too well: by these a third more were kept."""
    n = 60_000
    rng = np.random.default_rng(1)
    x, y = draw(n, intercept=-4.9)
    ids = {f"id{k}": rng.integers(0, 20_000, n).astype(str) for k in range(3)}
    table = pa.table({"x": x[:, 0], **ids, "y": y.astype(np.int8)})
    settings = {**QUICK, "rare": "targeted:c=10", "validation": "none"}
    plan = streamsgd.plan(table, "y", **settings)
    told = streamsgd.train(table, "y", **settings).metrics["rare"]
    thinner = plan.known_thinner
    assert told["pilot_rows"] == pytest.approx(thinner.pilot_rows, rel=0.2)
    assert told["kept"] == pytest.approx(thinner.expected_rows * told["rows"] / n, rel=0.1)
    assert f"a pilot learns about {thinner.pilot_rows:,}, and of those after it about" in thinner.line


# --- the intercept


def test_a_sample_with_more_positives_than_its_share_moves_nothing() -> None:
    """Of classes that are apart predictions are their targets: how many of either were drawn says nothing of the intercept."""
    rng = np.random.default_rng(4)
    n, share = 100_000, 0.25
    y = rng.random(n) < 0.01
    pilot, p = expit(np.where(y, 4.0, -7.0) + rng.normal(size=n)), expit(np.where(y, 6.0, -9.0) + rng.normal(size=n))
    away, errors, plain = [], [], []
    for seed in range(40):
        rows = np.random.default_rng([seed, 2]).random(n) < share
        each = np.full(rows.sum(), 1.0 / share)
        above, error = missed(p[rows], each, Known(y[rows], pilot[rows], y.sum(), pilot.sum()))
        plain.append((each * p[rows]).sum() - p.sum())
        away.append(plain[-1] - above)
        errors.append(error)
    assert np.std(away) < np.std(plain) / 50.0, "chance moved it by several log-odds"
    assert np.mean(errors) == pytest.approx(np.std(away), rel=0.3)


def test_what_is_within_its_error_moves_nothing() -> None:
    assert [beyond(found, 2.0) for found in (0.0, 1.0, -2.0)] == [0.0, 0.0, 0.0]
    assert [beyond(found, 1.0) for found in (10.0, -2.0)] == [9.9, -1.5]


# --- what is not done twice


def test_a_sample_is_the_same_whether_or_not_its_share_was_known_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks list no rows that the sample of those before them has no room for."""
    monkeypatch.setattr(thinned, "SAMPLE_ROWS", 400)
    x, y = draw(120_000)
    data, shares = pa.table({**{f"x{j}": x[:, j] for j in range(3)}, "y": y.astype(np.int8)}), list[float]()
    settings: dict[str, Any] = {**QUICK, "rare": "targeted:c=10", "chunk_rows": 20_000}

    def noted(work: Any, thinning: Any, **rest: Any) -> Any:
        shares.append(thinning.sampled)
        return as_thinned(work, thinning, **rest)

    def at_first(work: Any, thinning: Any, **rest: Any) -> Any:
        return as_thinned(work, thinning._replace(sampled=shares[0]), **rest)

    monkeypatch.setattr(rare, "as_thinned", noted)
    found = streamsgd.train(data, "y", **settings)
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < shares[0] < 1.0
    monkeypatch.setattr(rare, "as_thinned", at_first)
    assert streamsgd.train(data, "y", **settings).to_bytes() == found.to_bytes()


@pytest.mark.parametrize("words", [False, True])
def test_rows_without_a_target_are_of_no_class(*, words: bool) -> None:
    x, y = draw(120_000)
    targets: list[Any] = ["yes" if one else "no" for one in y] if words else list(y)
    targets[::10] = [None if words else np.nan] * len(targets[::10])
    table = pa.table({"x0": x[:, 0], "y": pa.array(targets)})
    thinner = streamsgd.plan(table, "y", **QUICK, rare="targeted", bad_rows="skip").thinner
    rest = np.delete(y, np.arange(0, len(y), 10))
    assert thinner is not None
    assert (thinner.negatives, thinner.positives) == ((rest == 0).sum(), (rest == 1).sum())
