"""Shuffles: every row once, every order equally likely, held-out rows a stable share of their own."""

import itertools
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import EXACT
from scipy import stats

from streamsgd.compute.executors import Inline
from streamsgd.kernels.encode.shuffle import N_BUCKETS, hold_out, merge, place
from streamsgd.settings.make import make_settings
from streamsgd.stream.stream import Stream
from streamsgd.training.prepare import prepare


def key(*words: int) -> np.uint64:
    return np.uint64(np.random.SeedSequence([17, *words]).generate_state(1, np.uint64)[0])


def visit(
    sizes: list[int],
    tile_rows: int,
    draw: int = 0,
    *,
    shuffled: bool = True,
    keep: np.ndarray | None = None,
    held: np.ndarray | None = None,
) -> tuple[list[int], list[int]]:
    """Return the rows of a chunk of pieces in the order of learning, and those held out."""
    n = sum(sizes)
    keep = np.ones(n, np.bool_) if keep is None else keep
    held = np.zeros(n, np.bool_) if held is None else held
    where, tiles, base = np.full(n, -1, np.int64), [], 0
    for number, size in enumerate(sizes):
        some = slice(base, base + size)
        dest = np.full(size, -7, np.int32)
        tile = [np.zeros(-(-size // tile_rows), np.int64) for _ in range(3)]
        place(
            keep[some], held[some], tile_rows, base, key(draw, 2 + number), shuffled, dest, *tile, np.empty(tile_rows, np.int32)
        )
        kept = dest >= 0
        where[dest[kept]] = np.flatnonzero(kept) + base
        tiles.append(tile)
        base += size
    starts, counts, helds = (np.concatenate([tile[k] for tile in tiles]) for k in range(3))
    order = np.empty(int(counts.sum()), np.int32)
    merge(counts, key(draw, 1), shuffled, order, *np.empty((2, N_BUCKETS + 1), np.int64))
    heads, learned = starts.copy(), []
    for tile in order.tolist():
        learned.append(int(where[heads[tile]]))
        heads[tile] += 1
    assert np.array_equal(heads, starts + counts)
    out = [int(where[i]) for s, h in zip(heads, helds, strict=True) for i in range(s, s + h)]
    return learned, out


# --- law: every row exactly once


@pytest.mark.parametrize("shuffled", [True, False])
@pytest.mark.parametrize("sizes", [[1], [4], [5, 3], [16, 16, 1], [100, 37, 64, 1, 1]])
def test_every_row_is_visited_once(sizes: list[int], shuffled: bool) -> None:
    for tile_rows in (1, 4, 16, 64):
        learned, out = visit(sizes, tile_rows, shuffled=shuffled)
        assert sorted(learned) == list(range(sum(sizes)))
        assert not out
        assert shuffled or learned == list(range(sum(sizes)))


@pytest.mark.parametrize("shuffled", [True, False])
def test_dropped_rows_are_nowhere_and_held_out_rows_are_not_learned(shuffled: bool) -> None:
    rng = np.random.default_rng(0)
    for share in (0.0, 0.3, 1.0):
        keep, held = rng.random(150) < 0.8, rng.random(150) < share
        learned, out = visit([70, 80], 16, shuffled=shuffled, keep=keep, held=held)
        assert sorted(learned) == np.flatnonzero(keep & ~held).tolist()
        assert out == np.flatnonzero(keep & held).tolist()
        assert shuffled or learned == sorted(learned)


# --- law: every permutation is equally likely


@pytest.mark.parametrize(
    ("sizes", "tile_rows"),
    [([4], 4), ([4], 2), ([4], 1), ([2, 2], 1), ([3, 1], 2), ([5], 2), ([3, 2], 2), ([5], 16)],
)
def test_every_permutation_is_equally_likely(sizes: list[int], tile_rows: int) -> None:
    """A chi-square test over all n! orders: of tiles of several sizes, alone and in several pieces."""
    n = sum(sizes)
    draws = 60 * math.factorial(n)
    seen = Counter(tuple(visit(sizes, tile_rows, draw)[0]) for draw in range(draws))
    counts = [seen[order] for order in itertools.permutations(range(n))]
    assert sum(counts) == draws
    assert stats.chisquare(counts).pvalue > 1e-4


def test_held_out_rows_leave_the_others_uniform() -> None:
    held = np.array([False, True, False, False, True, False])
    seen = Counter(tuple(visit([6], 2, draw, held=held)[0]) for draw in range(1500))
    counts = [seen[order] for order in itertools.permutations([0, 2, 3, 5])]
    assert sum(counts) == 1500
    assert stats.chisquare(counts).pvalue > 1e-4


def test_every_row_comes_to_every_place() -> None:
    """Rows by tenths against places by tenths, and neighbours stay together once in n times."""
    sizes, draws = [900, 700, 400], 400
    n = sum(sizes)
    table, together = np.zeros((10, 10)), 0
    for draw in range(draws):
        learned = np.array(visit(sizes, 128, draw)[0])
        np.add.at(table, (learned * 10 // n, np.arange(n) * 10 // n), 1)
        together += int((np.diff(learned) == 1).sum())
    assert stats.chisquare(table.ravel(), ddof=18).pvalue > 1e-4
    assert abs(together - draws * (n - 1) / n) < 5 * math.sqrt(draws)


def test_the_order_is_a_function_of_the_key_alone() -> None:
    first, again, other = (visit([50, 50], 16, draw)[0] for draw in (1, 1, 2))
    assert first == again
    assert first != other


# --- law: the hold-out set is a stable share of the rows


@pytest.mark.parametrize("share", [0.001, 0.05, 0.5])
def test_the_hold_out_share_is_binomial_and_does_not_depend_on_slices(share: float) -> None:
    n, threshold = 200_000, np.uint64(share * 2.0**64)
    held = np.zeros(n, np.bool_)
    hold_out(key(1), 0, threshold, held)
    assert abs(int(held.sum()) - n * share) < 5 * math.sqrt(n * share * (1 - share))
    for first, last in itertools.pairwise([0, 1, 70_000, 70_001, n]):
        part = np.zeros(last - first, np.bool_)
        hold_out(key(1), first, threshold, part)
        assert np.array_equal(part, held[first:last])
    other = np.zeros(n, np.bool_)
    hold_out(key(2), 0, threshold, other)
    both = n * share * share
    assert abs(int((held & other).sum()) - both) < 5 * math.sqrt(both) + 1


def held_out_and_learned(data: Path, **settings: Any) -> tuple[list[int], list[int]]:
    """Return the ids that one epoch's chunks hold out, and those that they learn."""
    job = prepare(data, make_settings({**EXACT, "validation": 0.2, "epochs": 1, **settings}))
    out, learned = [], []
    for filled in Stream(job.recipe, job.plan, Inline()).chunks(0, 0, 1):
        ids = filled.block.rows.values[:, 0].round().astype(int)
        for first, n in zip(filled.starts + filled.counts, filled.helds, strict=True):
            out += ids[first : first + n].tolist()
        heads = filled.starts.copy()
        for tile in filled.order:
            learned.append(int(ids[heads[tile]]))
            heads[tile] += 1
    return out, learned


def test_through_files_the_same_rows_are_held_out_whatever_chunks_seed_and_sampler(
    write: Callable[..., Path],
) -> None:
    n = 2000
    y = np.random.default_rng(1).normal(size=n)
    data = write({"id": np.arange(n), "y": y}, row_group_size=150, files=2)
    out, learned = held_out_and_learned(data)
    assert abs(len(out) - 0.2 * n) < 5 * math.sqrt(n * 0.16)
    assert sorted(out + learned) == list(range(n))
    for other in (
        {"chunk_rows": 40},
        {"chunk_rows": 3000, "seed": 5},
        {"shuffle": "none"},
        {"filter": "id >= 0"},
    ):
        again, rest = held_out_and_learned(data, **other)
        assert sorted(again) == sorted(out)
        assert sorted(rest) == sorted(learned)
