"""From data and settings to everything a run needs: the dry half of training, which `plan` prints."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from streamsgd import budget as budgets
from streamsgd.averaging import average_from, check_average
from streamsgd.columns import Roles, choose
from streamsgd.dataset import Dataset, require
from streamsgd.errors import SettingsError
from streamsgd.executors import usual_threads
from streamsgd.features import choose_encoding
from streamsgd.kernels.loops import Parts
from streamsgd.kernels.race import CELL
from streamsgd.lanes import CHUNK_BYTES, ROUNDS, Lanes, choose_lanes, lane_copies, n_blocks
from streamsgd.look import Look
from streamsgd.parquet import kept_bytes, reading_bytes, table_bytes, whole_bytes
from streamsgd.planning import Chunk, Plan, make_plan
from streamsgd.policies import policy_of
from streamsgd.polish import check_polish, polish_bytes
from streamsgd.racing import is_race
from streamsgd.rates import USUAL_BATCH, scale_rate
from streamsgd.recipe import Recipe
from streamsgd.registry import make
from streamsgd.samplers import Sequential
from streamsgd.sandwich import check_errors, errors_bytes
from streamsgd.survey import open_data
from streamsgd.svrg import BATCH, check_svrg, reduces, svrg_bytes
from streamsgd.targets import TASK_LOSS, choose_target

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamsgd.encode import Encoding, Target
    from streamsgd.settings import Settings

log = logging.getLogger("streamsgd")

RATE_WIDTH = 64
"""Columns up to which the optimizers' default rates hold."""

ENOUGH_ROWS = 1_000_000
"""Row visits that a run makes if nobody says, in no more than ..."""

MOST_EPOCHS, MOST_PASSES = 10, 3
"""... so many epochs: of batches, and of rows one by one."""

RACE_SHARE = 0.25
"""Share of the memory limit that a race may take."""

WHOLE_EPOCH = 1 << 62
"""A batch size that no epoch reaches: its one update is made when the epoch ends."""

VALID_BLOCK_BYTES = 16 << 20
"""Bytes of each block in which a validation set streams by."""


IN_ORDER = -1
"""The epoch of passes that take chunks in the order of the data."""


@dataclass(frozen=True)
class Job:
    """Everything decided before the first update."""

    settings: Settings
    dataset: Dataset
    roles: Roles
    encoding: Encoding
    target: Target
    parts: Parts
    budget: budgets.Budget
    plan: Plan
    recipe: Recipe
    epochs: int
    lanes: Lanes

    @cached_property
    def plan_in_order(self) -> Plan:
        """The same chunks in the order of the data, whatever the epoch."""
        return replace(self.plan, sampler=Sequential())  # type: ignore[call-arg]

    def plan_at(self, epoch: int) -> Plan:
        """Return the plan of an epoch, or of `IN_ORDER`."""
        return self.plan_in_order if epoch == IN_ORDER else self.plan

    def chunk_at(self, place: tuple[int, int]) -> Chunk:
        """Return the chunk of an epoch and number."""
        epoch, number = place
        return self.plan_at(epoch).chunk(max(epoch, 0), number)

    @property
    def batch_size(self) -> int:
        """Rows per update; of a full batch more than there are."""
        size = self.settings.batch_size
        if size == "auto":
            of_batches = BATCH if reduces(self.parts.optimizer) else USUAL_BATCH
            return 1 if is_sequential(self.parts.optimizer) else of_batches
        return WHOLE_EPOCH if size == "full" else int(size)

    @property
    def updates_alone(self) -> bool:
        """Whether the end of an epoch or the optimizer itself updates, not the count of rows."""
        return self.settings.batch_size == "full" or is_sequential(self.parts.optimizer)

    @property
    def clips(self) -> tuple[float, float]:
        """The most that the length and a coordinate of a batch's gradient may be."""
        return self.settings.clip_norm or math.inf, self.settings.clip_value or math.inf

    @property
    def average_from(self) -> float:
        """The epoch, as a fraction, from which on the weights are averaged."""
        return average_from(self.settings, self.epochs)

    @property
    def n_outputs(self) -> int:
        """Scores per row."""
        return int(getattr(self.parts.loss, "classes", 1))

    @property
    def n_weights(self) -> int:
        """Weights of the model, intercepts included."""
        return self.encoding.n_coordinates * self.n_outputs


def survey(
    data: Any, settings: Settings, progress: Callable[[int, int], None] | None = None
) -> tuple[Dataset, Roles, Any, tuple[str, ...]]:
    """Read the footers, prune by the filter, and give each column its role.

    Raises
    ------
    DataError
        The data is missing, damaged, empty, or without a column that is needed.

    """
    dataset, expression, columns = open_data(data, settings.filter, progress)
    roles = choose(settings, dataset.schema)
    require(dataset, [roles.target, *roles.features, *((roles.weight,) if roles.weight else ())])
    return dataset, roles, expression, columns


def prepare(
    data: Any,
    settings: Settings,
    *,
    frozen: dict[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Job:
    """Decide everything: columns, encoding, parts, budget, plan.

    Parameters
    ----------
    data
        Paths or URLs of Parquet.
    settings
        As checked.
    frozen
        `encoding`, `target`, `chunk_rows` and `optimizer` of a run to be resumed, instead of a new look.
    progress
        Called with (footers read, footers in all).

    Raises
    ------
    DataError, SettingsError, BudgetError
        The job cannot be done; nothing was started.

    """
    dataset, roles, expression, columns = survey(data, settings, progress)
    if frozen:
        encoding, target, chunk_rows = frozen["encoding"], frozen["target"], frozen["chunk_rows"]
    else:
        look = Look(dataset, settings, expression, columns)
        target = choose_target(look, roles.target, _task(settings))
        encoding, _ = choose_encoding(look, roles)
        chunk_rows = settings.chunk_rows
    spec = frozen["optimizer"] if frozen else settings.optimizer
    parts = choose_parts(msgspec.structs.replace(settings, optimizer=spec), target, encoding, dataset.n_rows)
    check_polish(settings, parts)
    check_svrg(settings, parts, wide=encoding.is_wide)
    check_average(settings, parts, encoding.n_coordinates, wide=encoding.is_wide)
    check_errors(settings, parts, encoding)
    epochs = choose_epochs(settings, dataset.n_rows, MOST_PASSES if is_sequential(parts.optimizer) else MOST_EPOCHS)
    if settings.epochs == "auto" and reduces(parts.optimizer):
        epochs *= 2  # before every pass that learns there is one that measures
    recipe = Recipe(
        dataset,
        encoding,
        target,
        roles.weight,
        expression,
        columns,
        held_share=settings.validation,
        skip_bad_rows=settings.bad_rows == "skip",
        skip_unreadable=settings.unreadable == "skip",
        infinite_is_missing=settings.infinite == "missing",
        precision=settings.precision,
        names_values=True,
        at_once=whole_bytes(budgets.parse_limit(settings.memory)),
        # What rows that learn one by one owe to penalties is kept by weight, which dense rows have no room for.
        by_entries=is_sequential(parts.optimizer) and bool(parts.penalty._fields),
    )
    recipe.tile_rows = budgets.tile_rows(recipe.row_bytes)
    alone = "svrg learns in one" if reduces(parts.optimizer) else ""
    alone = "the mean of the weights is kept in one" if settings.average != "none" and settings.combine != "sync" else alone
    lanes = choose_lanes(settings, dataset.n_rows * recipe.row_bytes, alone)
    check_lanes(lanes, settings, parts, encoding)
    if lanes.combine == "sync":
        parts = parts._replace(optimizer=scale_rate(parts.optimizer, settings, lanes.number))
    budget = size(settings, dataset, recipe, parts, chunk_rows, lanes=lanes)
    plan = make_plan(
        dataset.rows,
        dataset.file,
        row_bytes=recipe.row_bytes,
        chunk_rows=budget.chunk_rows,
        tile_rows=recipe.tile_rows,
        sampler=make("shuffle", settings.shuffle),
        seed=settings.seed,
    )
    if plan.sliced.any():
        log.warning(
            "%d row groups are larger than a chunk of %s rows and are streamed in slices, in their own order; more "
            "--memory, or smaller row groups, would shuffle better",
            int(plan.sliced.sum()),
            f"{budget.chunk_rows:,}",
        )
    return Job(settings, dataset, roles, encoding, target, parts, budget, plan, recipe, epochs, lanes)


def choose_epochs(settings: Settings, n_rows: int, most: int) -> int:
    """Return the passes: as set, or enough for a million row visits, but no more than so many."""
    if settings.epochs != "auto":
        return int(settings.epochs)
    return max(1, min(most, -(-ENOUGH_ROWS // n_rows)))


def choose_parts(settings: Settings, target: Target, encoding: Encoding, n_rows: int) -> Parts:
    """Build loss, penalty, optimizer and schedule for so many rows of this encoding.

    Raises
    ------
    SettingsError
        The loss does not fit the target.

    """
    spec = TASK_LOSS[target.task] if settings.loss == "auto" else settings.loss
    overrides = {"classes": len(target.classes)} if spec.split(":")[0] == "softmax" else {}
    loss = make("loss", spec, **overrides)
    fits = {"margin": "binary"}.get(loss.task, loss.task)
    if fits != target.task:
        raise SettingsError(f"--loss {spec} is for a {fits} target, but {target.name!r} is {target.task}; see --task")
    if hasattr(loss, "delta"):
        loss = loss._replace(delta=loss.delta * target.scale)
    penalty, spec = make("penalty", settings.penalty), settings.optimizer
    if spec == "auto":
        spec = best_optimizer(settings, loss, penalty, encoding, n_rows)
    optimizer = scale_rate(choose_optimizer(spec, settings.learning_rate, encoding.width), settings)
    if is_race(optimizer) and hasattr(loss, "slopes"):
        raise SettingsError(f"--optimizer race is for one score per row, and {target.name!r} has classes; pass --optimizer nag")
    _check_together(optimizer, penalty, settings, wide=encoding.is_wide)
    steady = is_sequential(optimizer) or reduces(optimizer) or type(optimizer).__name__ == "FTRL"
    spec = settings.schedule if settings.schedule != "auto" else ("constant" if steady else "cosine")
    return Parts(loss, penalty, optimizer, make("schedule", spec))


def is_sequential(optimizer: Any) -> bool:
    """Whether an optimizer moves after every row."""
    return bool(getattr(optimizer, "sequential", False))


def _check_together(optimizer: Any, penalty: Any, settings: Settings, *, wide: bool) -> None:
    """Refuse an optimizer and settings that contradict each other."""
    name = type(optimizer).__name__
    if is_sequential(optimizer) and settings.batch_size not in ("auto", 1):
        raise SettingsError(f"--optimizer {name.lower()} learns row by row: leave --batch-size {settings.batch_size} out")
    clips = [f"--{key.replace('_', '-')}" for key in ("clip_norm", "clip_value") if getattr(settings, key) is not None]
    if is_sequential(optimizer) and clips:
        raise SettingsError(
            f"--optimizer {name.lower()} learns row by row, and no step of its goes beyond what its row asks for: leave "
            f"{' and '.join(clips)} out, or take an optimizer of batches, such as adam"
        )
    if not penalty._fields:
        return
    if {"l1", "l2"} & set(optimizer._fields):
        raise SettingsError(f"--optimizer {name.lower()} has penalties of its own: {name.lower()}:l1=...,l2=..., not --penalty")
    if reduces(optimizer):
        return  # `check_svrg` knows what it needs
    if (wide or is_sequential(optimizer)) and not (hasattr(penalty, "settle") and hasattr(optimizer, "stretch")):
        lacking = "settle" if not hasattr(penalty, "settle") else "stretch"
        raise SettingsError(
            f"--penalty {settings.penalty} with --optimizer {settings.optimizer} needs {lacking}(...), by which weights that "
            "a row does not touch pay late"
        )


def best_optimizer(settings: Settings, loss: Any, penalty: Any, encoding: Encoding, n_rows: int) -> str:
    """Return the spec of the optimizer that suits, if nobody says: docs/defaults.md has the measurements.

    In one pass every row is new, and learning row by row is ahead of batches from the first row on; so it is with rows of a few
    of many weights. In several passes over dense rows batches at a falling rate come nearer to the optimum.
    """
    wide, several = encoding.is_wide, hasattr(loss, "slopes")
    once = choose_epochs(settings, n_rows, MOST_EPOCHS) == 1
    free = settings.learning_rate is None and settings.schedule in ("auto", "constant")
    plain = not several and not penalty._fields
    of_batches = settings.batch_size not in ("auto", 1) or settings.rate_scaling in ("linear", "sqrt")
    of_batches |= settings.combine == "sync" or settings.clip_norm is not None or settings.clip_value is not None
    of_batches |= settings.average != "none" and bool(penalty._fields)
    if of_batches or not (wide or (once and free and plain)):
        return "adam"
    bytes_ = model_bytes(encoding.n_coordinates, make("optimizer", "race"), settings.precision)
    fits = bytes_ <= RACE_SHARE * budgets.parse_limit(settings.memory)
    return "race" if free and plain and fits else "nag"


def choose_optimizer(spec: str, learning_rate: float | None, width: int) -> Any:
    """Build the optimizer; a rate that nobody set falls with the width of the rows beyond `RATE_WIDTH`.

    A step moves a score by about the rate times the width: at 784 columns the rates that suit 8 to 64 end at a log loss of
    0.85 where a converged solver has 0.47, and at 0.48 with this rule.
    """
    if learning_rate is not None:
        return make("optimizer", spec, learning_rate=learning_rate)
    optimizer = make("optimizer", spec)
    if "learning_rate=" in spec or is_sequential(optimizer):
        return optimizer
    return optimizer._replace(learning_rate=optimizer.learning_rate * RATE_WIDTH / max(width, RATE_WIDTH))


def _task(settings: Settings) -> str:
    if settings.loss == "auto":
        return settings.task
    loss = make("loss", settings.loss)
    task = {"margin": "binary"}.get(loss.task, loss.task)
    if settings.task not in ("auto", task):
        raise SettingsError(f"--loss {settings.loss} is for a {task} target, but --task says {settings.task}")
    return str(task)


def check_lanes(lanes: Lanes, settings: Settings, parts: Parts, encoding: Encoding) -> None:
    """Refuse lanes that cannot do what was asked for.

    Raises
    ------
    SettingsError
        There is one update per epoch, which lanes can only make together; or one per row, which they cannot; or variance
        reduction.

    """
    elsewhere = settings.workers is not None or settings.scheduler is not None
    if reduces(parts.optimizer) and (lanes.number > 1 or elsewhere):
        raise SettingsError(
            "--optimizer svrg learns in one lane and in one process: leave --lanes, --workers and --scheduler out, or take "
            "--polish, which comes as near"
        )
    if lanes.number == 1:
        return
    if settings.average != "none" and lanes.combine == "average":
        raise SettingsError("--average keeps the mean of all steps, which lanes that step apart have not: pass --combine sync")
    if lanes.combine == "average" and settings.batch_size == "full":
        raise SettingsError("--batch-size full makes one update per epoch, by all lanes together: pass --combine sync")
    if lanes.combine == "sync" and is_sequential(parts.optimizer):
        name = type(parts.optimizer).__name__.lower()
        raise SettingsError(
            f"--combine sync adds up the gradients of lanes, and --optimizer {name} learns row by row: pass --combine average, "
            "or an optimizer of batches, such as adam"
        )
    if lanes.combine == "sync" and parts.penalty._fields and encoding.is_wide:
        raise SettingsError(
            f"--combine sync with --penalty {settings.penalty} needs rows that meet all weights, and these meet a few of many: "
            "pass --combine average, or an optimizer with a penalty of its own (ftrl, adamw)"
        )


ONE_LANE = Lanes(1, "average", "as set")


def size(
    settings: Settings,
    dataset: Dataset,
    recipe: Recipe,
    parts: Parts,
    chunk_rows: int | None,
    *,
    lanes: Lanes = ONE_LANE,
) -> budgets.Budget:
    """Make the budget of a job."""
    limit = budgets.parse_limit(settings.memory)
    weights = recipe.encoding.n_coordinates * int(getattr(parts.loss, "classes", 1))
    valid = budgets.N_BLOCKS * VALID_BLOCK_BYTES * 2 if settings.valid else 0
    useful = None
    if lanes.number > 1:
        data = dataset.n_rows * (recipe.row_bytes + 4)
        useful = min(CHUNK_BYTES, max(budgets.LEAST_CHUNK, data // (ROUNDS * lanes.number)))
    further = polish_bytes(weights) if settings.polish else 0
    further += svrg_bytes(weights, recipe.encoding.n_coordinates) if reduces(parts.optimizer) else 0
    further += errors_bytes(weights) if settings.standard_errors else 0
    further += 2 * 8 * weights if settings.average != "none" else 0
    names = list(recipe.encoding.sources)
    return budgets.make_budget(
        limit=limit,
        decode_per_thread=reading_bytes(dataset, names, recipe.at_once),
        threads=usual_threads(settings.threads),
        footers=kept_bytes(dataset),
        model=model_bytes(weights, parts.optimizer, settings.precision) * lane_copies(lanes) + valid + further,
        row_bytes=recipe.row_bytes,
        data_rows=dataset.n_rows,
        chunk_rows=chunk_rows,
        interpreter=budgets.INTERPRETER + (budgets.WIDE_KERNELS if recipe.encoding.is_wide else 0),
        n_blocks=n_blocks(lanes),
        useful=useful,
        table_bytes=table_bytes(dataset, names),
    )


def model_bytes(n_weights: int, optimizer: Any, precision: str) -> int:
    """Return the bytes of weights, gradient and memory of an optimizer, of their copy for a checkpoint, and of a model."""
    if is_race(optimizer):
        return n_weights * (2 * CELL * np.dtype(precision).itemsize + 16)
    return n_weights * 8 * (4 + 2 * int(optimizer.n_slots))


def start_at_best_constant(job: Job, weights: np.ndarray) -> None:
    """Set the intercepts to the score of the best constant prediction of the first look."""
    if policy_of("scale", job.settings.scale) == "none":
        return
    look = Look(job.dataset, job.settings, job.recipe.filter, job.recipe.filter_columns)
    shares = target_shares(look, job.target)
    if job.target.task == "multiclass":
        weights[-1] = np.log(np.maximum(shares, 1e-9))
    elif job.parts.loss.task == "binary":
        weights[-1, 0] = np.log(shares[1] / shares[0])
    elif job.target.task == "poisson":
        weights[-1, 0] = np.log(max(shares[0], 1e-9))


def target_shares(look: Look, target: Target) -> np.ndarray:
    """Return the share of each class in the first look, each at least one row's, or the mean of a number."""
    from streamsgd.encode import encode_target  # noqa: PLC0415

    counts = np.ones(max(1, len(target.classes)))
    total, n = 0.0, 0
    for piece in look.sample((target.name,)):
        y, usable = encode_target(target, look.columns(piece, (target.name,))[target.name])
        if target.classes:
            counts += np.bincount(y[usable].astype(np.int64), minlength=len(counts))
        total, n = total + float(y[usable].sum()), n + int(usable.sum())
    return counts / counts.sum() if target.classes else np.array([total / max(n, 1)])
