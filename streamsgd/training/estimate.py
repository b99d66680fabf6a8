"""The outlook of a job that was prepared but not started: what it reads, holds and roughly takes."""

from __future__ import annotations

import time
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from streamsgd.data.sizes import column_bytes, has_fixed_width
from streamsgd.data.timings import Timings
from streamsgd.errors import UnreadableError
from streamsgd.planning.chunks import Piece
from streamsgd.settings.registry import spec_of
from streamsgd.training.caching import cache_facts
from streamsgd.training.classes.rare import plain_loss
from streamsgd.training.holding import held_in_words
from streamsgd.training.job import size_in_words
from streamsgd.training.phases import wanted

if TYPE_CHECKING:
    from streamsgd.data.source import Reader
    from streamsgd.planning.budget import Budget
    from streamsgd.training.job import Job


SAMPLE_ROWS = 1 << 18
"""Rows whose decoding is timed."""

MOST_TRIES = 16
"""Units of reading that are tried where those before them are damaged."""

ROW_SECONDS, VALUE_SECONDS = 20e-9, 4e-9
"""What encoding and fitting add to decoding per row, and per value and output: 28 columns take 130 ns."""

REWRITE = 6
"""Passes that a shuffle on disk takes as long as: it encodes, writes and reads in one thread."""


def outlook(job: Job) -> dict[str, Any]:
    """Return sizes, plan, memory and an estimate of time, as plain JSON values.

    Footers of a few files are read again for the sizes of columns, and one piece of data is decoded to
    estimate time.
    """
    data, plan, budget, settings = job.dataset, job.plan, job.budget, job.settings
    kinds, parts = wanted(settings, job.parts), job.parts._replace(loss=plain_loss(job.parts.loss))
    learned = round(data.n_rows * (1.0 - job.recipe.held.share))
    batch = size_in_words(job)
    steps, measuring = -(-learned // job.batch_size), job.epochs - sum(kind.learns(job) for kind in kinds)
    return {
        "data": {
            "files": data.n_files,
            "row_groups": data.n_row_groups,
            "rows": data.n_rows,
            "file_bytes": data.compressed_bytes,
        },
        "target": {"name": job.target.name, "task": job.target.task, "classes": list(job.target.classes)},
        "columns": columns(job),
        "parts": {kind: spec_of(kind, part) for kind, part in zip(parts._fields, parts, strict=True)},
        "shuffle": spec_of("shuffle", plan.sampler),
        "seed": plan.seed,
        "order": job.order,
        "shuffled_on_disk_bytes": job.external.disk_bytes if job.external else 0,
        "chunks_per_epoch": plan.n_chunks(0),
        "rows_per_chunk": min(plan.chunk_rows, plan.n_rows),
        "units_of_reading": len(plan.rows),
        "streamed_in_slices": int(plan.sliced.sum()),
        "rows_per_tile": plan.tile_rows,
        "epochs": job.epochs,
        "batch_size": batch,
        "lanes": job.lanes._asdict(),
        "held_out": held_in_words(job),
        "chosen": job.chosen,
        "polish": sum(kind.passes(job.outline) for kind in kinds if kind.name in ("polish", "finish", "shrink")),
        "average_from": job.average_from if settings.average != "none" else None,
        "standard_errors": settings.standard_errors,
        "method": settings.method,
        "measuring": measuring,
        "steps": min((job.epochs - measuring) * steps, settings.steps or (1 << 62)),
        **(
            {"rare": job.thinner.header(), "rare_in_words": job.thinner.line, "distilled_bytes": job.distilled}
            if job.thinner
            else {}
        ),
        "threads": budget.threads,
        "memory": {
            "limit": budget.limit,
            "projected": budget.projected,
            "parts": memory_parts(budget),
            "decides": list(job.decided_by_memory),
        },
        "cache": cache_facts(job),
        "estimate": estimate(job),
    }


def memory_parts(budget: Budget) -> dict[str, int]:
    """Return the projected bytes of each part of a budget."""
    others = ("limit", "chunk_rows", "threads", "n_blocks", "useful_rows", "useful_limit")
    return {field.name: getattr(budget, field.name) for field in fields(budget) if field.name not in others}


def columns(job: Job) -> list[dict[str, Any]]:
    """Return role, type and bytes over all rows of every column that is read.

    Decoded bytes are exact for types of fixed width and None for others; encoded (compressed) ones are
    estimated from the footers of some files and None where there are none.
    """
    sizes, roles = job.dataset.source.encoded_bytes(), job.roles
    found = []
    for name in roles.read:
        kind = job.dataset.schema.field(name).type
        role = "target" if name == roles.target else "weight" if name == roles.weight else "feature"
        decoded = column_bytes(kind) * job.dataset.n_rows if has_fixed_width(kind) else None
        partition = name in job.dataset.partition_names
        found.append(
            {
                "name": name,
                "role": role,
                "type": str(kind),
                "decoded_bytes": 0 if partition else decoded,
                "encoded_bytes": 0 if partition else sizes.get(name),
            }
        )
    return found


def estimate(job: Job) -> dict[str, float]:
    """Time the decoding of one unit of reading from the middle of the data, and multiply.

    `read_seconds` is for decoding in all epochs and passes after them, if none is spared, on the job's threads, `seconds` for
    encoding and fitting too.
    """
    n_rows, seconds = _timed(job)
    per_row = seconds / n_rows
    learning = ROW_SECONDS + VALUE_SECONDS * job.encoding.width * job.n_outputs
    visits = (
        job.dataset.n_rows
        * ((REWRITE if job.external else 0) + sum(kind.passes(job.outline) for kind in wanted(job.settings, job.parts)))
        / job.budget.threads
    )
    return {
        "rows_decoded_to_estimate": n_rows,
        "rows_per_second_and_thread": 1.0 / per_row,
        "read_seconds": per_row * visits,
        "seconds": (per_row + learning) * visits,
    }


def _timed(job: Job) -> tuple[int, float]:
    """Return rows, and the seconds that their decoding takes: in the middle of the data, or what is not damaged next to it."""
    plan, reader = job.plan, job.dataset.reader(keeps_open=False)
    names = tuple(dict.fromkeys(job.roles.read))
    units = sorted(range(len(plan.rows)), key=lambda k: abs(k - len(plan.rows) // 2))[:MOST_TRIES]
    for k in units:
        first, last = int(plan.first[k]), int(plan.last[k])
        whole = last > first + 1  # several small row groups are read together or not at all
        rows = int(plan.rows[k]) if whole else min(int(plan.rows[k]), SAMPLE_ROWS)
        piece = Piece(0, first, last, 0, rows, 0)
        try:
            # The first reading also opens the file and wakes the decoder up.
            return rows, min(_decode_seconds(reader, piece, names) for _ in range(3))
        except UnreadableError:
            if job.settings.unreadable != "skip" or k == units[-1]:
                raise
    raise AssertionError("a plan has units")


def _decode_seconds(reader: Reader, piece: Piece, names: tuple[str, ...]) -> float:
    began = time.perf_counter()
    for _ in reader.read(piece, names, Timings()):
        pass
    return time.perf_counter() - began
