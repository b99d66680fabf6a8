"""Sketches have the bins that they had when each digit was tried in turn, and take the memory that is declared for them."""

import time
import tracemalloc
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import streamsgd
from streamsgd.model.probability import sketch as module
from streamsgd.model.probability.conformal import ROWS_AT_A_TIME, sketch_rows
from streamsgd.model.probability.sketch import CLASS_SHIFT, MOST_BINS, ScoreSketch, new_sketch, read_sketch
from streamsgd.planning.tree import FAN, levels
from streamsgd.settings.fields import Settings
from streamsgd.training.phases.conformal import COPIES, AddScores, sketch_bytes


def digit_by_digit(keys: np.ndarray, counts: np.ndarray, dropped: np.ndarray) -> ScoreSketch:
    """Return what `_fitted` does, by its definition: one more digit of every class that has too many bins."""
    need = dropped.copy()
    while True:
        digits = need[keys >> CLASS_SHIFT]
        ends, where = np.unique(((keys - 1 >> digits) + 1) << digits, return_inverse=True)
        many = np.bincount(ends >> CLASS_SHIFT, minlength=len(need)) > module.MOST_BINS
        if not many.any():
            return ScoreSketch(ends, np.bincount(where, counts, len(ends)).astype(np.int64), need)
        need[many] += 1


def keys_of(classes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return a key of full digits for each score."""
    return (classes << CLASS_SHIFT) + module._bits_above(scores)


def check_same(one: ScoreSketch, other: ScoreSketch) -> None:
    """Hold that all arrays of two have the same values and types."""
    for name, array in one.arrays().items():
        np.testing.assert_array_equal(array, other.arrays()[name], strict=True)


@pytest.mark.parametrize("most", [1, 2, 7, 64])
@pytest.mark.parametrize("seed", range(12))
def test_bins_are_those_of_one_digit_after_another(monkeypatch: pytest.MonkeyPatch, most: int, seed: int) -> None:
    """Of scores, and of sketches that are merged: with classes of no row, of few and of many, ties, zeros and infinities."""
    monkeypatch.setattr(module, "MOST_BINS", most)
    rng, whole = np.random.default_rng(seed), new_sketch()
    for n in rng.integers(0, 300, size=5):
        classes = rng.choice(9, size=n, p=rng.dirichlet(np.full(9, 0.3)))
        scores = np.round(rng.lognormal(sigma=rng.choice([0.01, 4.0]), size=n), rng.integers(0, 9))
        scores[rng.random(n) < 0.05] = np.inf
        part = ScoreSketch.of(classes, scores)
        wanted = np.zeros(classes.max(initial=-1) + 1, np.int64)
        check_same(part, digit_by_digit(keys_of(classes, scores), np.ones(n, np.int64), wanted))
        dropped = np.zeros(max(len(whole.dropped), len(part.dropped)), np.int64)
        for one in (whole, part):
            np.maximum.at(dropped, np.arange(len(one.dropped)), one.dropped)
        keys, counts = np.append(whole.keys, part.keys), np.append(whole.counts, part.counts)
        check_same(part.merge(whole), digit_by_digit(keys, counts, dropped))
        whole = whole.merge(part)


def test_a_sketch_is_sorted_once() -> None:
    """Of scores that differ, of which ten digits and more are dropped: once for each it took ten times as long."""
    scores = np.random.default_rng(2).lognormal(sigma=3.0, size=5 * MOST_BINS)
    classes = np.zeros(len(scores), np.int64)

    def spent(make: Any) -> tuple[float, ScoreSketch]:
        began, made = time.process_time(), make()
        return time.process_time() - began, made

    ones, none = np.ones(len(scores), np.int64), np.zeros(1, np.int64)
    now = [spent(lambda: ScoreSketch.of(classes, scores)) for _ in range(3)]
    before, wanted = spent(lambda: digit_by_digit(keys_of(classes, scores), ones, none))
    check_same(now[0][1], wanted)
    assert wanted.dropped[0] >= 9
    assert min(seconds for seconds, _ in now) < 0.4 * before


def traced(make: Any) -> int:
    """Return the most bytes that are held at a time while something is made, beside what there is."""
    tracemalloc.start()
    try:
        _made = make()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def outline(n_classes: int, lanes: int = 1, n_rows: int = 10**9, **settings: Any) -> Any:
    """Return what is known before a run of so many classes and lanes."""
    given = Settings(target="y", **settings)
    return SimpleNamespace(n_outputs=n_classes, n_parameters=5 * n_classes, lanes=lanes, n_rows=n_rows, settings=given)


@pytest.mark.parametrize("n_classes", [2, 8, 24])
def test_many_classes_take_what_the_phase_declares(n_classes: int) -> None:
    rng = np.random.default_rng(3)
    classes = np.repeat(np.arange(n_classes), MOST_BINS - 500)
    one, other = (ScoreSketch.of(classes, rng.lognormal(size=len(classes))) for _ in range(2))
    declared = sketch_bytes(outline(n_classes))
    assert one.nbytes + other.nbytes > 0.99 * 2 * 16 * MOST_BINS * n_classes  # of what is declared, half of the copies
    assert COPIES + levels(FAN) == 4
    assert one.nbytes + other.nbytes + traced(lambda: one.merge(other)) < declared
    assert one.nbytes + traced(lambda: one.merge(new_sketch())) < declared
    few = rng.permutation(len(classes))[:ROWS_AT_A_TIME]
    scores = rng.lognormal(size=len(few))
    assert traced(lambda: ScoreSketch.of(classes[few], scores)) < 8 * 16 * MOST_BINS


def test_sketches_of_lanes_are_counted() -> None:
    one = 16 * MOST_BINS * 24
    alone = sketch_bytes(outline(24))
    assert sketch_bytes(outline(24, lanes=FAN)) == alone
    assert sketch_bytes(outline(24, lanes=64)) == alone + one, "the tree has two levels"
    assert sketch_bytes(outline(24, workers=2)) == alone + FAN * one, "a round of one lane is of so many chunks"
    assert sketch_bytes(outline(24, workers=2, lanes=64)) == alone + 65 * one
    assert sketch_bytes(outline(24, workers=2, lanes=64, n_rows=10**5)) == alone + one + 16 * 10**5, "a bin per row, at most"


def test_one_process_makes_one_sketch_at_a_time_whatever_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that none is planned for each thread."""
    rng, add, now, most = np.random.default_rng(5), AddScores._add, [0], [0]
    x = rng.normal(size=8_000)

    def counted(self: AddScores, job: Any, model: Any, filled: Any) -> Any:
        now[0] += 1
        most[0] = max(most[0], now[0])
        time.sleep(0.01)
        found = add(self, job, model, filled)
        now[0] -= 1
        return found

    monkeypatch.setattr(AddScores, "_add", counted)
    settings = {"validation": 0.3, "conformal": True, "executor": "threads", "threads": 4, "lanes": 9, "chunk_rows": 500}
    model = streamsgd.train(pa.table({"x": x, "y": x + rng.normal(size=len(x))}), "y", memory="1GB", epochs=2, **settings)
    assert model.conformal is not None
    assert most == [1]


def test_calibration_sorts_few_scores_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many rows a block has: what is made of them is in no plan, and the sketch is that of all of them."""
    rng, seen = np.random.default_rng(4), []
    x = rng.normal(size=3 * ROWS_AT_A_TIME + 77)
    table = pa.table({"x": x, "y": x + rng.normal(size=len(x))})
    model = streamsgd.train(table.slice(0, 2000), "y", memory="1GB", executor="inline", epochs=1)
    of = ScoreSketch.of

    def noted(classes: np.ndarray, scores: np.ndarray) -> ScoreSketch:
        seen.append((classes, scores))
        return of(classes, scores)

    monkeypatch.setattr(ScoreSketch, "of", noted)
    made = streamsgd.calibrate(model, table, memory="1GB", executor="inline")
    assert len(seen) >= 4
    assert max(len(scores) for _, scores in seen) <= ROWS_AT_A_TIME
    classes, scores = (np.concatenate(arrays) for arrays in zip(*seen, strict=True))
    assert made.conformal is not None
    check_same(made.conformal, of(classes, scores))
    assert made.conformal.rows == len(x)


def test_runs_of_rows_are_taken_whole_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamsgd.model.probability.conformal.ROWS_AT_A_TIME", 10)
    taken: list[tuple[int, int]] = []

    def scores_of(_model: Any, _block: Any, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        taken.append((start, stop))
        return np.zeros(stop - start, np.int64), np.arange(start, stop, dtype=np.float64)

    monkeypatch.setattr("streamsgd.model.probability.conformal._scores_of", scores_of)
    nothing: Any = None
    found = sketch_rows(nothing, nothing, [(0, 3), (5, 5), (7, 30), (40, 44), (50, 53)])
    assert taken == [(0, 3), (7, 14), (14, 24), (24, 30), (40, 44), (50, 53)]
    assert found.rows == 33
    assert sketch_rows(nothing, nothing, []).rows == 0


def old_bins(lowest: float, n_classes: int) -> dict[str, np.ndarray]:
    """Return arrays of an older file: a row in every bin of scores from `lowest` to 1, of each class."""
    first, last = (int(np.float32(score).view(np.uint32)) >> 12 for score in (lowest, 1.0))
    keys = (np.arange(n_classes)[:, None] * (1 << module.OLD_BITS) + np.arange(first, last)).ravel()
    return {"keys": keys, "counts": np.ones(len(keys), np.int64)}


def test_classifiers_of_older_files_hold_the_labels_that_they_held() -> None:
    """The end of a bin, of one minus the probability, is the same end in odds, and no higher."""
    arrays = old_bins(2.0**-13, 2)
    sketch = read_sketch({name: array.copy() for name, array in arrays.items()}, 2, "m")
    assert sketch is not None
    ends = (((arrays["keys"] & ((1 << module.OLD_BITS) - 1)) + 1) << 12).astype(np.uint32).view(np.float32).astype(np.float64)
    with np.errstate(divide="ignore"):
        odds = ends / (1.0 - ends)
    found = (sketch.keys & ((1 << CLASS_SHIFT) - 1)).astype(np.uint32).view(np.float32)
    assert len(found) == len(odds)
    assert ((odds <= found) & (np.nextafter(found, np.float32(0.0)) < odds)).all()
    at = np.searchsorted(ends[: len(ends) // 2], 0.1)
    assert ends[at] == pytest.approx(0.1000061)
    mine = sketch.quantile((at + 0.5) / (len(ends) // 2 + 1), of_class=1)
    assert mine.value == pytest.approx(0.11111865, abs=1e-8)


def test_regressions_of_older_files_keep_their_bins() -> None:
    arrays = old_bins(2.0**-20, 1)
    sketch = read_sketch({name: array.copy() for name, array in arrays.items()}, 0, "m")
    assert sketch is not None
    np.testing.assert_array_equal(sketch.keys, (arrays["keys"] + 1) << 12)
    np.testing.assert_array_equal(sketch.dropped, [12])
