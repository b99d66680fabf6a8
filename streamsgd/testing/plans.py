"""Checks of a sampler and of the plans it makes."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np

from streamsgd.planning.chunks import Plan, make_plan
from streamsgd.testing.laws import has, pickles, true


def check_sampler(sampler: Any) -> None:
    """Check a sampler: permutations that depend on the seeds alone, and plans that read every row once.

    Parameters
    ----------
    sampler
        A NamedTuple as `samplers` describes.

    Raises
    ------
    AssertionError
        An order is not a permutation, or not the same for the same seeds; a plan made with it breaks a law of
        `check_plan`; it does not survive pickling.

    """
    has(sampler, ("order",), ("mixes_rows", "side_by_side"))
    pickles(sampler)
    for n in (0, 1, 2, 7, 1000):
        order, again = (np.asarray(sampler.order(n, np.random.SeedSequence([3, n]))) for _ in range(2))
        is_permutation = order.shape == (n,) and np.array_equal(np.sort(order), np.arange(n))
        true(
            is_permutation,
            f"{sampler!r}: the order of {n} units is not a permutation of 0 .. {n - 1}: {order[:20]}",
        )
        true(np.array_equal(order, again), f"{sampler!r}: two orders of {n} units from the same seeds differ")
    rng = np.random.default_rng(1)
    for high, chunk_rows in ((2, 1), (5, 40), (50, 40), (300, 100), (1000, 7)):
        rows = rng.integers(0, high, 60)
        file = np.sort(rng.integers(0, 4, 60))
        plan = make_plan(rows, file, row_bytes=8, chunk_rows=chunk_rows, tile_rows=16, sampler=sampler, seed=chunk_rows)
        for epoch in (0, 3):
            check_plan(plan, rows, file, epoch)


def check_plan(plan: Plan, rows: np.ndarray, file: np.ndarray, epoch: int) -> None:
    """Check one epoch of a plan.

    Parameters
    ----------
    plan
        As of `make_plan`.
    rows, file
        int64 (n_row_groups,): rows of each row group, and the file it is in.
    epoch
        Which.

    Raises
    ------
    AssertionError
        A row is read twice or never; a chunk is larger than `plan.chunk_rows` or has gaps; a piece joins two
        files or cuts into a run of row groups; slices of a row group are not in order; the plan gives other
        chunks when it is asked for one alone or has been pickled.

    """
    begins = np.concatenate([[0], np.cumsum(rows)])
    seen = np.zeros(int(begins[-1]), np.int64)
    reached = np.zeros(len(rows), np.int64)
    before = 0
    chunks = list(plan.chunks(epoch))
    for number, chunk in enumerate(chunks):
        true((chunk.epoch, chunk.number) == (epoch, number), f"chunk {number} of epoch {epoch} says {chunk}")
        true(
            0 < chunk.rows <= plan.chunk_rows,
            f"{chunk} has {chunk.rows} rows; a chunk has 1 to {plan.chunk_rows}",
        )
        true(plan.rows_before(epoch, number) == before, f"rows before chunk {number} are not {before}")
        before += chunk.rows
        at = 0
        for position, piece in enumerate(chunk.pieces):
            true((piece.number, piece.rows_before) == (position, at), f"{piece} is not at {position}, row {at}")
            at += piece.rows
            inside = file[piece.first : piece.last]
            true(len(set(inside.tolist())) == 1, f"{piece} joins files {sorted(set(inside.tolist()))}")
            whole = int(begins[piece.last] - begins[piece.first])
            alone = piece.last == piece.first + 1
            true(
                alone or piece.rows == whole,
                f"{piece} cuts into a run of {piece.last - piece.first} row groups",
            )
            true(
                piece.start == reached[piece.first],
                f"{piece} does not begin where row {reached[piece.first]} is next",
            )
            reached[piece.first] = piece.stop
            first = int(begins[piece.first])
            seen[first + piece.start : first + piece.stop] += 1
    true(
        bool((seen == 1).all()),
        f"epoch {epoch}: {(seen == 0).sum()} rows never read, {(seen > 1).sum()} more than once",
    )
    true(plan.n_rows == len(seen), f"the plan says {plan.n_rows} rows, there are {len(seen)}")
    true(plan.n_chunks(epoch) == len(chunks), f"n_chunks says {plan.n_chunks(epoch)}, there are {len(chunks)}")
    copy = pickle.loads(pickle.dumps(plan))  # noqa: S301  made one line above
    for number in (0, len(chunks) // 2, len(chunks) - 1) if chunks else ():
        true(
            copy.chunk(epoch, number) == chunks[number],
            f"chunk {number} alone, of a copy, is {copy.chunk(epoch, number)}",
        )
        true(
            copy.key(epoch, number) == plan.key(epoch, number),
            f"the key of chunk {number} of a copy is another",
        )
