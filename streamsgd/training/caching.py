"""What a run keeps of encoded rows for its later passes: how much, and where. It decides no bit."""

from __future__ import annotations

import tempfile
import uuid
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamsgd.data.stores.output import local_path
from streamsgd.errors import SettingsError
from streamsgd.messages import parse_bytes
from streamsgd.planning.budget import cache_bytes
from streamsgd.stream.cache import CacheSpec, RowCache, shared_cache
from streamsgd.stream.distilled import OVERHEAD
from streamsgd.stream.encoded import ENTRY_BYTES
from streamsgd.training.phases import wanted

if TYPE_CHECKING:
    from streamsgd.settings.fields import Settings
    from streamsgd.training.job import Job

LEAST_PASSES = 3
"""Passes from which on it is worth to write rows to a temporary folder: each is written once, and spares one pass less."""

IN_MEMORY = frozenset(["tmpfs", "ramfs", "devtmpfs"])
"""File systems that are memory."""


def check_cache(settings: Settings) -> None:
    """Refuse settings of the cache that contradict each other.

    Raises
    ------
    SettingsError
        They do.

    """
    if settings.cache_size is not None:
        parse_bytes(settings.cache_size)
    if not settings.keep_cache:
        return
    if settings.cache_dir is None:
        raise SettingsError("--keep-cache: name the folder in which later runs find encoded rows with --cache-dir")
    if settings.cache in ("none", "memory"):
        raise SettingsError(f"--keep-cache keeps files, and --cache {settings.cache} writes none: leave one of them out")


def with_cache(job: Job) -> Job:
    """Return a job that keeps encoded rows for its later passes, if it has any, as its settings say.

    Raises
    ------
    SettingsError
        The folder that they name is no place on this machine.

    """
    settings = job.settings
    check_cache(settings)
    n_passes = sum(kind.passes(job.outline) for kind in wanted(settings, job.parts))
    if settings.cache == "none" or (n_passes < 2 and not settings.keep_cache):
        return replace(job, recipe=replace(job.recipe, cache=None))
    if (distilled := distilled_bytes(job)) and not settings.keep_cache and settings.cache != "disk":
        budget = replace(job.budget, cache=distilled)
        return replace(job, budget=budget, distilled=distilled, recipe=replace(job.recipe, cache=None))
    wanted_bytes = 0 if settings.cache == "disk" else bytes_of(job) if settings.valid is None else job.budget.limit
    memory = min(cache_bytes(job.budget), wanted_bytes)  # rows of a validation set are kept as well, and nobody knows how many
    on_disk = settings.cache == "disk" or (settings.cache == "auto" and _finds_room(settings, n_passes))
    n_sharing = 1 if settings.keep_cache else settings.workers or 1
    spec = CacheSpec(
        uuid.uuid4().hex,
        memory,
        wanted_bytes,
        on_disk,
        folder_of(settings),
        # Of workers on this machine each has its share, but where they see what others keep.
        None if settings.cache_size is None else parse_bytes(settings.cache_size) // n_sharing,
        keep=settings.keep_cache,
        patient=settings.cache != "auto",
        passes=max(1, n_passes - 1),
    )
    budget = replace(job.budget, cache=memory)
    return replace(job, budget=budget, recipe=replace(job.recipe, cache=shared_cache(spec)))


def bytes_of(job: Job) -> int:
    """Return about what all encoded rows take."""
    return int(job.dataset.n_rows) * (job.recipe.row_bytes + 2) + len(job.plan.rows) * ENTRY_BYTES


def distilled_bytes(job: Job) -> int:
    """Return the bytes in memory for what thinning leaves; 0 where rows are not thinned, or it is not expected to fit.

    Twice what is expected, or what room there is: how many rows are kept is known only once a pilot is, and a chunk for which
    no room is left is read again. Rows with texts or lists point to the memory of all that were read with them, and are not
    kept apart.
    """
    if job.thinner is None or job.recipe.layout.n_tails:
        return 0
    rows = job.thinner.expected_rows + job.recipe.held.share * job.dataset.n_rows
    if job.recipe.held.condition is not None:
        return 0  # nobody knows how many it holds out
    tiles = job.dataset.n_rows / job.recipe.tile_rows + 16 * len(job.plan.rows)
    expected = round(rows * (job.recipe.row_bytes + 8) + 24 * tiles) + OVERHEAD * job.plan.n_chunks(0)
    room = cache_bytes(job.budget)
    return min(2 * expected, room) if expected <= room else 0


def folder_of(settings: Settings) -> str | None:
    """Return the folder that the settings name.

    Raises
    ------
    SettingsError
        It is not on this machine.

    """
    if settings.cache_dir is None:
        return None
    if (folder := local_path(settings.cache_dir)) is None:
        raise SettingsError(f"--cache-dir {settings.cache_dir}: is no folder of this machine; name one, or leave it out")
    return str(folder)


def _finds_room(settings: Settings, n_passes: int) -> bool:
    """Whether rows that memory does not hold go to a disk where nobody asked for it."""
    if settings.cache_dir is not None:
        return True
    return n_passes >= LEAST_PASSES and not is_memory(Path(tempfile.gettempdir()))


def is_memory(folder: Path, mounts: Path = Path("/proc/mounts")) -> bool:
    """Whether what is written to a folder stays in memory; taken to be so where nobody knows."""
    try:
        lines = [line.split() for line in mounts.read_text().splitlines()]
        place = folder.resolve()
    except OSError:
        return True
    above = [(len(line[1]), line[2]) for line in lines if len(line) > 2 and place.is_relative_to(line[1])]
    return max(above, default=(0, "tmpfs"))[1] in IN_MEMORY


def cache_facts(job: Job) -> dict[str, Any] | None:
    """Return what is kept where, as plain values; None where nothing is."""
    cache: RowCache | None = job.recipe.cache
    if cache is None:
        return None
    spec = cache.spec
    return {
        "encoded_bytes": bytes_of(job),
        "memory_bytes": spec.memory,
        "in_memory": min(1.0, spec.memory / max(1, bytes_of(job))),
        "on_disk": spec.on_disk,
        "folder": spec.folder,
        "most_on_disk": spec.disk,
        "kept": spec.keep,
    }
