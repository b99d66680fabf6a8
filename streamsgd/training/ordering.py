"""In which order rows are learned: chosen from a look at the target, said where it is a risk, and produced on disk."""

from __future__ import annotations

import logging
import math
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from streamsgd.compute.local_files import OwnFolder
from streamsgd.compute.memory import parse_limit
from streamsgd.data.exact_types import NoOneTypeError
from streamsgd.data.shuffled.shuffle_layout import layout_of
from streamsgd.data.shuffled.shuffling import delete_rows, open_shuffled, shuffle_rows
from streamsgd.data.stores.output import local_path
from streamsgd.errors import SettingsError, Stopped
from streamsgd.inspection.risk import RISKY, UNIT_ROWS, OrderLook, look_at_order
from streamsgd.messages import format_bytes, stage
from streamsgd.planning.budget import INTERPRETER
from streamsgd.settings.registry import make

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from streamsgd.data.dataset import Dataset
    from streamsgd.data.shuffled.shuffle_layout import ShuffleLayout
    from streamsgd.planning.chunks import Plan
    from streamsgd.settings.fields import Settings
    from streamsgd.stream.loader import Loader

log = logging.getLogger("streamsgd")

OWN_PREFIX = "streamsgd-rows-"
"""Of temporary folders of shuffled rows, where nothing says a better place."""

CORGI = "pass --shuffle corgi to learn from chunks as they are"


class Order(NamedTuple):
    """What was chosen, and why."""

    sampler: Any
    facts: dict[str, Any] | None = None
    """What the look found, as plain values; None where nothing was looked at."""
    layout: ShuffleLayout | None = None
    """Of the rows on disk, where they are shuffled there first."""


class OrderLooks:
    """Looks at the order of one data set, each made once, and what was said about it."""

    def __init__(self) -> None:
        self._looks: dict[int, OrderLook | None] = {}
        self._said: set[str] = set()

    def of(self, recipe: Loader, reference: Plan, threads: int) -> OrderLook | None:
        """Return the look at the target in chunks of a plan, if there is anything to see."""
        assert recipe.target is not None, "training has one"  # noqa: S101  for the type checker
        if reference.chunk_rows not in self._looks:
            with stage("looking at how rows are ordered"):
                self._looks[reference.chunk_rows] = look_at_order(
                    recipe.dataset, recipe.target, reference, recipe.filter, recipe.filter_columns, threads=threads
                )
        return self._looks[reference.chunk_rows]

    def new(self, what: str) -> bool:
        """Whether something is to be said for the first time."""
        first = what not in self._said
        self._said.add(what)
        return first


DECODED_BYTES = 8
"""Bytes that a value of the target takes while it is decoded."""


def choose_order(settings: Settings, recipe: Loader, plan: Plan, reference: Plan, batch: int, *, looks: OrderLooks) -> Order:
    """Look at the target and choose the sampler; say what is a risk.

    Parameters
    ----------
    settings, recipe
        As set, and what reads.
    plan
        What the memory limit leaves.
    reference
        The same data in chunks as large as are of use, by which the choice is made, so that no limit has a part in it.
    batch
        Rows per update.
    looks
        Those of the data so far.

    Raises
    ------
    SettingsError
        The sampler that was asked for cannot be.

    """
    auto, look = settings.shuffle == "auto", None
    if settings.batch_size != "full":
        look = looks.of(recipe, reference, _threads(settings, recipe))
    risky = look is not None and look.drift(reference.chunk_rows) > RISKY
    external = auto and risky and settings.unreadable == "error"
    sampler = make("shuffle", "external" if external else "corgi" if auto else settings.shuffle)
    rewrites = bool(getattr(sampler, "rewrites", False))
    if rewrites and settings.unreadable == "skip":
        raise SettingsError("--shuffle external copies all rows, and --unreadable skip leaves some out: pass --shuffle corgi")
    layout, refused = _layout(settings, recipe) if rewrites else (None, "")
    if refused:
        sampler, rewrites = make("shuffle", "corgi"), False
    if look is None:
        return Order(sampler, None, layout)
    facts = look.to_dict(plan.chunk_rows, batch, mixed=sampler.mixes_rows and sampler.side_by_side)
    facts["shuffled_on_disk"] = rewrites
    if facts["risk"] and looks.new(sampler.__class__.__name__):
        log.warning(_warning(facts, look, settings, layout, refused))
    return Order(sampler, facts, layout)


def _layout(settings: Settings, recipe: Loader) -> tuple[ShuffleLayout | None, str]:
    """Return how rows are shuffled on disk; or None, and why they cannot be, where nobody asked for it.

    Raises
    ------
    NoOneTypeError
        They cannot be, and somebody did.

    """
    try:
        return layout_of(recipe.dataset, recipe.columns, settings.seed), ""
    except NoOneTypeError as error:
        if settings.shuffle == "auto":
            return None, str(error)
        raise NoOneTypeError(f"{error}; or {CORGI}") from error


def _threads(settings: Settings, recipe: Loader) -> int:
    """Return how many threads may read the target at once within half of what the budget leaves to reading."""
    assert recipe.target is not None, "training has one"  # noqa: S101  for the type checker
    spare = (parse_limit(settings.memory) - INTERPRETER) // 2
    cost = recipe.dataset.source.cost((recipe.target.name, *recipe.filter_columns)).per_thread
    # A column of a byte per row is decoded a whole row group at a time, through wider numbers.
    cost += DECODED_BYTES * min(int(recipe.dataset.rows.max(initial=0)), UNIT_ROWS * DECODED_BYTES)
    return max(1, spare // cost)


def _warning(facts: dict[str, Any], look: OrderLook, settings: Settings, layout: ShuffleLayout | None, refused: str) -> str:
    runs = f"{look.units:,} runs of {look.rows_per_unit:,.0f} rows"
    mixes = f"a chunk mixes {facts['units_per_chunk']:.1f} of {runs}"
    if facts["units_per_chunk"] == 1.0:
        mixes = f"{runs} are learned one after another"
    found = (
        f"the order of the rows follows the target: {mixes}, so that {facts['between_chunks']:.1%} of the target's variance "
        f"lies between chunks ({RISKY:.1%} is a risk) and batches are {facts['batch_noise']:.0f} times noisier than of "
        "shuffled rows"
    )
    if layout is not None:
        return (
            f"{found}; therefore the rows are shuffled on disk first, about {format_bytes(layout.disk_bytes)} while it lasts "
            f"({_where(settings)}); {CORGI}"
        )
    if refused:
        return f"{found}: the model may be much worse than of shuffled rows, and they cannot be shuffled on disk: {refused}"
    return (
        f"{found}: the model may be much worse than of shuffled rows. Pass --shuffle external, or write the rows anew once "
        f"with 'streamsgd shuffle DATA OUT', or give --memory for chunks of {look.needed():,} rows"
    )


def _where(settings: Settings) -> str:
    if settings.cache_dir is not None:
        return f"kept in {settings.cache_dir}"
    return f"{settings.checkpoint}.rows" if settings.checkpoint else "a temporary folder"


# --- produced


@contextmanager
def rows_on_disk(
    settings: Settings,
    dataset: Dataset,
    layout: ShuffleLayout,
    *,
    elsewhere: bool,
    progress: Callable[[int, int], None] | None = None,
    ends: float = math.inf,
) -> Iterator[Dataset]:
    """Give the rows of a data set, shuffled on disk, for as long as a run takes.

    A stop keeps them, so that the same run goes on without shuffling again; so does `--cache-dir`.

    Parameters
    ----------
    settings
        Which say where.
    dataset, layout
        What is shuffled, and how.
    elsewhere
        Whether workers read that may be on other machines.
    progress
        Called with (rows shuffled, rows in all).
    ends
        When to stop, on the monotonic clock.

    Raises
    ------
    SettingsError
        The rows cannot be shuffled; nothing was learned.
    Stopped
        The time is over.

    """
    if elsewhere and settings.cache_dir is None:
        raise SettingsError(
            "the rows are to be shuffled on disk, and workers of a cluster may not see this machine's: name a folder that all "
            f"of them see with --cache-dir, or {CORGI}"
        )
    with _place(settings, layout) as folder:
        kept = settings.cache_dir is not None
        try:
            told = _timed(ends, progress, kept=kept or settings.checkpoint is not None)
            made = _shuffled(settings, dataset, layout, folder, told)
            log.info("%s shuffled rows in %s", "wrote" if made else "found", folder)
            yield open_shuffled(folder, dataset)
        except (Stopped, KeyboardInterrupt):
            kept = True
            raise
        finally:
            if not kept:
                delete_rows(folder)


def _timed(ends: float, progress: Callable[[int, int], None] | None, *, kept: bool) -> Callable[[int, int], None]:
    """Return a `progress` of a shuffle that stops it from a moment of the monotonic clock on."""
    then = "start again to go on from there" if kept else "nothing is kept without --checkpoint or --cache-dir"

    def told(done: int, rows: int) -> None:
        if progress:
            progress(done, rows)
        if done < rows and time.monotonic() >= ends:
            raise Stopped(f"stopped by the time limit while rows are shuffled on disk, at {done:,} of {rows:,}: {then}")

    return told


def _shuffled(
    settings: Settings, dataset: Dataset, layout: ShuffleLayout, folder: Path, progress: Callable[[int, int], None]
) -> bool:
    """Shuffle rows, unless they are there; where that cannot be, say what can be done without."""
    try:
        return shuffle_rows(dataset, layout, folder, memory=settings.memory, progress=progress, what="shuffled rows")
    except SettingsError as error:
        again = type(error)(f"{error}; or {CORGI}")
        again.__dict__.update(error.__dict__)
        raise again from error


@contextmanager
def _place(settings: Settings, layout: ShuffleLayout) -> Iterator[Path]:
    if settings.cache_dir is not None:
        folder = local_path(settings.cache_dir)
        if folder is None:
            raise SettingsError(f"--cache-dir {settings.cache_dir}: is no folder of this machine; name one, or {CORGI}")
        yield folder / f"streamsgd-{layout.digest[:16]}"
        return
    beside = None if settings.checkpoint is None else local_path(settings.checkpoint)
    if beside is not None:
        yield beside.with_name(f"{beside.name}.rows")
        return
    own = OwnFolder(OWN_PREFIX)
    try:
        yield own.path / "rows"
    finally:
        own.close()
