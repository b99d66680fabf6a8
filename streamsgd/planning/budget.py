"""The memory budget: what a job will take, part by part, and whether that holds. Integers in, integers out."""

from __future__ import annotations

from dataclasses import dataclass

from streamsgd.errors import BudgetError

INTERPRETER = 400 * 10**6
"""Resident bytes of Python with numpy, pyarrow, numba and an in-process Dask: 285 MB, 395 MB if kernels are compiled. A
constant, not a reading of this moment: chunks are sized from it, and the model's bits depend on chunks."""

WIDE_KERNELS = 50 * 10**6
"""What more it takes to compile kernels for categories and texts."""

RESERVE = 16
"""One part in so many is left for what allocators keep and page tables take: 12 GB of 784 columns in small row groups took 6 %
of 1 GB more than the sum of the other parts."""

N_BLOCKS = 2
"""Blocks that take turns: one trains while the next is read."""

BLOCK_SHARE = 0.7
"""Share of what interpreter and model leave that goes to blocks; the rest decodes."""

LARGEST_SHARE = 0.10
"""A chunk of this share of the data shuffles as well as all of it (arXiv 2206.05830, table 4) ..."""

LARGE_ENOUGH = 128 << 20
"""... and for small data so many bytes do: more would only delay the first update."""

LEAST_CHUNK = 4 << 20
"""Bytes of a chunk below which a budget is refused: the shuffle would be worth nothing."""

TILE_BYTES = 256 << 10
"""Bytes of a tile, which is shuffled in the L2 cache."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Projected peak of resident memory by part, in bytes."""

    limit: int
    interpreter: int
    """Python with its libraries, an in-process Dask and compiled kernels."""
    decode: int
    """Bytes of Parquet and Arrow in flight."""
    blocks: int
    """The chunks that train and are being read, with their order."""
    footers: int
    """Parsed Parquet footers that are kept."""
    model: int
    """Weights, gradients, optimizer memory, and a copy for a checkpoint."""
    reserve: int
    """What allocators may keep."""
    chunk_rows: int
    threads: int
    n_blocks: int = N_BLOCKS
    """Chunks that are held at a time."""
    useful_rows: int = 0
    """Rows of a chunk if the limit did not matter; 0 if it did not choose the chunks."""
    useful_limit: int = 0
    """About the smallest limit that does not matter to the chunks; 0 if it did not choose them."""
    cache: int = 0
    """Encoded rows that are kept for later passes: what all else leaves, which decides nothing."""

    @property
    def projected(self) -> int:
        """The sum of all parts."""
        return self.needed + self.cache

    @property
    def needed(self) -> int:
        """The sum of the parts without which there is no run."""
        return self.interpreter + self.decode + self.blocks + self.footers + self.model + self.reserve


def make_budget(
    *,
    limit: int,
    decode_per_thread: int,
    threads: int,
    footers: int,
    model: int,
    row_bytes: int,
    data_rows: int,
    chunk_rows: int | None = None,
    interpreter: int = INTERPRETER,
    n_blocks: int = N_BLOCKS,
    useful: int | None = None,
    table_bytes: int = 0,
    look: int = 0,
    given: int | None = None,
) -> Budget:
    """Share out a limit. Chunks are sized first and never by the number of threads, then threads fill the rest.

    Parameters
    ----------
    limit, decode_per_thread, footers, model
        Bytes.
    threads
        The most reading threads.
    row_bytes
        Bytes of one row in a block.
    data_rows
        Rows of the data set.
    chunk_rows
        As set by the user, or None.
    interpreter
        Bytes of Python, libraries and compiled kernels.
    n_blocks
        Chunks that are held at a time.
    useful
        Bytes beyond which a chunk is of no more use; None for a tenth of the data.
    table_bytes
        Bytes of a row that are held elsewhere as long as its chunk is.
    look
        Bytes that the first look took, before anything else was there.
    given
        The limit as it was given, for messages.

    Raises
    ------
    BudgetError
        The limit cannot hold the job; the message names the smallest one that can.

    """
    per_row = row_bytes + 4
    held_row = per_row + table_bytes
    fixed = interpreter + footers + model + decode_per_thread
    wanted = max(1, min(LEAST_CHUNK // per_row, data_rows)) if chunk_rows is None else min(chunk_rows, data_rows)
    useful_rows = useful_limit = 0
    blocks = n_blocks * held_row * wanted
    reserve = limit // RESERVE
    usable = limit - reserve
    needed = max(fixed + blocks, interpreter + look)
    if needed > usable:
        least = -(-needed * RESERVE // (RESERVE - 1))
        error = BudgetError(
            f"--memory {_text(given or limit)} cannot hold this job: interpreter {_text(interpreter)}, decoding on one thread "
            f"{_text(decode_per_thread)}, footers {_text(footers)}, model {_text(model)}, "
            f"{n_blocks} chunks of {wanted:,} rows {_text(blocks)}, "
            f"reserve {_text(least // RESERVE)}{f', or the first look {_text(look)}' if look else ''}. "
            f"The smallest budget that can is --memory {-(-least // 10**6)}MB"
        )
        error.least = -(-least // 10**6) * 10**6
        raise error
    if chunk_rows is None:
        left = usable - interpreter - footers - model
        share = int(min(BLOCK_SHARE * left, left - decode_per_thread)) // n_blocks
        useful = max(LARGE_ENOUGH, int(LARGEST_SHARE * data_rows * per_row)) if useful is None else useful
        # More rows than there are take no memory, but units of reading follow from them: the limit has no say there.
        chunk_rows = max(wanted, useful // per_row)
        useful_rows = min(data_rows, chunk_rows)
        if share // held_row < useful_rows:
            chunk_rows = max(wanted, share // held_row)
        wish = n_blocks * held_row * useful_rows
        wish = max(int(wish / BLOCK_SHARE), wish + decode_per_thread) + interpreter + footers + model
        useful_limit = -(-wish * RESERVE // (RESERVE - 1))
    blocks = n_blocks * held_row * min(chunk_rows, data_rows)
    threads = max(1, min(threads, (usable - interpreter - footers - model - blocks) // max(1, decode_per_thread)))
    decode = decode_per_thread * threads
    return Budget(
        limit, interpreter, decode, blocks, footers, model, reserve, chunk_rows, threads, n_blocks, useful_rows, useful_limit
    )


def cache_bytes(budget: Budget) -> int:
    """Return what the parts of a budget leave to rows that are kept for later passes."""
    return max(0, budget.limit - budget.needed)


def slots_per_worker(budget: Budget) -> int:
    """Return how many lanes a worker can learn side by side, each with a chunk in use and one that is read ahead."""
    left = budget.limit - budget.reserve - budget.interpreter - budget.footers - budget.model
    each = 2 * (budget.blocks // budget.n_blocks + budget.decode // max(1, budget.threads))
    return max(1, left // max(1, each))


def share_of_worker(budget: Budget, slots: int, limit: int, wanted: int) -> tuple[int, int]:
    """Share out what a worker has beside interpreter and model.

    Parameters
    ----------
    budget
        Of the job.
    slots
        Lanes that it learns side by side.
    limit
        Bytes that it may take.
    wanted
        Bytes of rows that are worth keeping for later passes.

    Returns
    -------
    n_blocks
        Chunks that it may hold: two for each lane, and those that the rows leave room for.
    cache
        Bytes of rows that it may keep.

    """
    block = budget.blocks // max(1, budget.n_blocks)
    left = limit - limit // RESERVE - budget.interpreter - budget.footers - budget.model
    left -= slots * 2 * (block + budget.decode // max(1, budget.threads))
    cache = max(0, min(left, wanted))
    return 2 * slots + max(0, left - cache) // max(1, block), cache


def tile_rows(row_bytes: int) -> int:
    """Return the rows of a tile: a power of two that fits the L2 cache, at least 16."""
    return 1 << max(4, min(12, (TILE_BYTES // row_bytes).bit_length() - 1))


def _text(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes >= 10**9 else f"{n_bytes / 1e6:.0f} MB"
