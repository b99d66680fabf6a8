"""What is chosen where nobody set it: parts, epochs, lanes."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

import msgspec

from streamsgd.compute.memory import parse_limit
from streamsgd.errors import SettingsError
from streamsgd.features.choose_target import TASK_LOSS
from streamsgd.kernels.models.machines import is_linear
from streamsgd.kernels.parts.by_rows import USUAL_BATCH
from streamsgd.kernels.parts.traits import is_race, is_sequential, judges, reduces
from streamsgd.kernels.structs.block import Parts
from streamsgd.messages import format_bytes
from streamsgd.planning.budget import INTERPRETER, RESERVE, WIDE_KERNELS
from streamsgd.planning.lanes import LANE_BYTES, LARGE_BATCH, MOST_LANES, Lanes
from streamsgd.settings.needs import is_set
from streamsgd.settings.registry import make
from streamsgd.training.classes.strata import wants_strata
from streamsgd.training.memory import long_row_bytes, model_bytes
from streamsgd.training.race import RACE_ROWS
from streamsgd.training.rates import scale_rate
from streamsgd.training.structure import model_of_kernels, name_of, usual_optimizer, usual_rate, with_factors, with_noise

if TYPE_CHECKING:
    from streamsgd.features.encoding import Encoding
    from streamsgd.features.target import Target
    from streamsgd.settings.fields import Settings
    from streamsgd.training.job import Job


log = logging.getLogger("streamsgd")

RATE_WIDTH = 64
"""Columns up to which the optimizers' default rates hold."""

ENOUGH_ROWS = 1_000_000
"""Row visits that a run makes if nobody says, in no more than ..."""

MOST_EPOCHS, MOST_PASSES = 10, 3
"""... so many epochs: of batches, and of rows one by one."""

UNLIMITED = 1 << 62
"""Bytes that hold any job."""

ROWS_PER_WEIGHT = 50
"""Rows of data per weight from which on numbers and their bins are learned in batches: several passes row by row, which stop
short of the optimum, are ahead of it on fewer (docs/defaults.md)."""

RACE_SHARE = 0.25
"""Share of the memory limit that a race may take ..."""

RACE_ROOM = 64 * 10**6
"""... and bytes that it leaves to reading, beside what the interpreter takes."""


def choose_epochs(settings: Settings, n_rows: int, most: int, held: float = 0.0) -> int:
    """Return the passes: as set, or enough for a million row visits, but no more than so many; `held` is not learned."""
    if settings.epochs != "auto":
        return int(settings.epochs)
    if settings.steps is not None:
        return max(1, math.ceil(settings.steps * _as_number(settings) / max(1.0, n_rows * (1.0 - held))))
    return max(1, min(most, -(-ENOUGH_ROWS // n_rows)))


def _as_number(settings: Settings) -> int:
    """Return the rows of a batch that has a number, for `check_steps` sees to that."""
    return settings.batch_size if isinstance(settings.batch_size, int) else USUAL_BATCH


def check_steps(settings: Settings, parts: Parts, lanes: Lanes) -> None:
    """Refuse to count steps that have no number of rows, or that lanes make apart.

    Raises
    ------
    SettingsError
        There are such.

    """
    if settings.steps is None:
        return
    if is_sequential(parts.optimizer) or reduces(parts.optimizer) or judges(parts.optimizer):
        name = name_of(parts.optimizer).lower()
        raise SettingsError(
            f"--steps counts updates by batches, and --optimizer {name} makes none: take adam or sgd, or --epochs"
        )
    if isinstance(settings.batch_size, str) and settings.batch_size != "auto":
        raise SettingsError(f"--steps with --batch-size {settings.batch_size} says not how many rows that is: pass a number")
    if lanes.number > 1:
        raise SettingsError("--steps counts updates one after another, which several lanes make apart: leave --lanes out")


def choose_parts(settings: Settings, target: Target, encoding: Encoding, n_rows: int, *, goes_on: bool = False) -> Parts:
    """Build loss, penalty, optimizer and schedule for so many rows of this encoding.

    Where a run goes on, the rate of its optimizer is what was made of the settings when it began.

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
    if settings.method and not hasattr(loss, "likelihood"):
        raise SettingsError(
            f"a posterior needs a loss that is the logarithm of a likelihood, and {type(loss).__name__} is none: leave --loss "
            "out, or take squared, logistic, poisson or softmax"
        )
    if hasattr(loss, "delta"):
        loss = loss._replace(delta=loss.delta * target.scale)
    penalty, spec = penalty_of(settings, n_rows), settings.optimizer
    model = model_of_kernels(settings, encoding)
    if spec == "auto":
        spec = best_optimizer(settings, loss, penalty, encoding, n_rows)
    if goes_on and "learning_rate=" in spec:
        optimizer = make("optimizer", spec)
    else:
        rate = usual_rate(settings, spec) if settings.learning_rate is None else settings.learning_rate
        optimizer = scale_rate(choose_optimizer(spec, rate, encoding.width), settings)
    optimizer = with_noise(settings, with_factors(settings, model, optimizer, penalty))
    if is_race(optimizer) and hasattr(loss, "slopes"):
        raise SettingsError(
            f"--optimizer race is for one score per row, and {target.name!r} has classes; pass --optimizer normalized"
        )
    _check_together(optimizer, penalty, settings, wide=encoding.is_wide)
    steady = settings.steps is not None or is_sequential(optimizer) or reduces(optimizer) or judges(optimizer)
    steady |= type(optimizer).__name__ == "FTRL"
    spec = settings.schedule if settings.schedule != "auto" else ("constant" if steady else "cosine")
    return Parts(loss, penalty, optimizer, make("schedule", spec), model)


def penalty_of(settings: Settings, n_rows: int) -> Any:
    """Return the penalty of training: as set, or the one whose minimum is near the mode of the posterior under the prior.

    Sampling goes on from there to the mode itself.
    """
    precision = make("prior", settings.prior).precision if settings.method else 0.0
    if precision > 0.0 and settings.penalty == "none":
        return make("penalty", "l2", l2=precision / n_rows)
    return make("penalty", settings.penalty)


def _check_together(optimizer: Any, penalty: Any, settings: Settings, *, wide: bool) -> None:
    """Refuse an optimizer and settings that contradict each other."""
    name = name_of(optimizer)
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
    if reduces(optimizer) or judges(optimizer):
        return  # `check_svrg` and `check_judged` know what they need
    late = hasattr(penalty, "settle") and (hasattr(optimizer, "stretch") or is_race(optimizer))
    if (wide or is_sequential(optimizer)) and not late:
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
    plain = not several and (not penalty._fields or hasattr(penalty, "settle"))
    of_batches = settings.batch_size not in ("auto", 1) or settings.rate_scaling in ("linear", "sqrt")
    of_batches |= (
        settings.steps is not None
        or settings.combine == "sync"
        or settings.clip_norm is not None
        or settings.clip_value is not None
        or wants_strata(settings)
    )
    of_batches |= settings.average != "none" and bool(penalty._fields)
    model = model_of_kernels(settings, encoding)
    if not is_linear(model):
        return usual_optimizer(model, of_batches=of_batches or bool(penalty._fields) or settings.average != "none")
    # Row by row no step goes beyond what its row asks for; a mean of exponentials does, and far rows then decide the weights.
    steep = getattr(loss, "steep", False)
    if of_batches or not (wide or ((once or steep) and free and plain)):
        return "adam"
    if not once and _in_bins(encoding) and n_rows >= ROWS_PER_WEIGHT * encoding.n_coordinates:
        return "adam"
    fits = race_limit(settings, encoding) <= parse_limit(settings.memory)
    averaged = settings.average != "none" and once and n_rows <= RACE_ROWS  # a race would last as long as the run
    return "race" if free and plain and fits and not averaged else "normalized"


def _in_bins(encoding: Encoding) -> bool:
    """Whether rows are of numbers and the bins of numbers alone."""
    others = encoding.crosses or encoding.tails or encoding.custom
    return bool(encoding.columns and encoding.categories) and not others and all(c.edges for c in encoding.categories)


def race_limit(settings: Settings, encoding: Encoding) -> int:
    """Return the smallest memory limit in bytes within which there is a race if nobody says."""
    bytes_ = model_bytes(encoding.n_coordinates, make("optimizer", "race"), settings.precision)
    all_ = bytes_ + INTERPRETER + WIDE_KERNELS + RACE_ROOM + long_row_bytes(encoding, settings.precision, races=True)
    return max(math.ceil(bytes_ / RACE_SHARE), all_ + -(-all_ // (RESERVE - 1)))


def decided_by_memory(job: Job) -> tuple[str, ...]:
    """Return what would be another model if `--memory` were larger, in words that say how to do without."""
    settings, budget, lines = job.settings, job.budget, list[str]()
    limit = format_bytes(budget.limit)
    if budget.chunk_rows < budget.useful_rows:
        lines.append(
            f"--memory {limit} decides bits: chunks mix {budget.chunk_rows:,} rows, from about {_size(budget.useful_limit)} on "
            f"{budget.useful_rows:,}; --chunk-rows {budget.chunk_rows} makes this model in any memory"
        )
    if settings.optimizer == "auto" and type(job.parts.optimizer).__name__ == "Normalized":
        rich = msgspec.structs.replace(settings, memory=str(UNLIMITED))
        if is_race(choose_parts(rich, job.target, job.encoding, job.dataset.n_rows).optimizer):
            least = _size(race_limit(settings, job.encoding))
            lines.append(
                f"--memory {limit} decides bits: normalized learns alone, from {least} on it would race with five other rates; "
                "--optimizer normalized makes this model in any memory, --optimizer race the other"
            )
    return tuple(lines)


def _size(n_bytes: int) -> str:
    """Return a size as `--memory` takes it, rounded up."""
    return f"{-(-n_bytes // 10**6)}MB"


def choose_optimizer(spec: str, learning_rate: float | None, width: int) -> Any:
    """Build the optimizer; a rate that nobody set falls with the width of the rows beyond `RATE_WIDTH`.

    A step moves a score by about the rate times the width: at 784 columns the rates that suit 8 to 64 end at a log loss of
    0.85 where a converged solver has 0.47, and at 0.48 with this rule.
    """
    if learning_rate is not None:
        return make("optimizer", spec, learning_rate=learning_rate)
    optimizer = make("optimizer", spec)
    if "learning_rate=" in spec or is_sequential(optimizer) or judges(optimizer):
        return optimizer
    return optimizer._replace(learning_rate=optimizer.learning_rate * RATE_WIDTH / max(width, RATE_WIDTH))


def task_of(settings: Settings) -> str:
    """Return the task: as set, or as the loss says, or `auto`.

    Raises
    ------
    SettingsError
        The loss is for another task.

    """
    if settings.loss == "auto":
        return settings.task
    loss = make("loss", settings.loss)
    task = {"margin": "binary"}.get(loss.task, loss.task)
    if settings.task not in ("auto", task):
        raise SettingsError(f"--loss {settings.loss} is for a {task} target, but --task says {settings.task}")
    return str(task)


def _say_alone(settings: Settings) -> None:
    """Say which settings of lanes have no effect on one."""
    for name in ("combine", "straggler"):
        if is_set(settings, name):
            log.warning("--%s %s is for several lanes, and there is one: --lanes 4 has four", name, getattr(settings, name))


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
        _say_alone(settings)
        return
    if settings.average != "none" and lanes.combine == "average":
        raise SettingsError("--average keeps the mean of all steps, which lanes that step apart have not: pass --combine sync")
    if lanes.combine == "average" and settings.batch_size == "full":
        raise SettingsError("--batch-size full makes one update per epoch, by all lanes together: pass --combine sync")
    if lanes.combine == "sync" and is_sequential(parts.optimizer):
        name = name_of(parts.optimizer).lower()
        raise SettingsError(
            f"--combine sync adds up the gradients of lanes, and --optimizer {name} learns row by row: pass --combine average, "
            "or an optimizer of batches, such as adam"
        )
    if lanes.combine == "sync" and parts.penalty._fields and encoding.is_wide:
        raise SettingsError(
            f"--combine sync with --penalty {settings.penalty} needs rows that meet all weights, and these meet a few of many: "
            "pass --combine average, or an optimizer with a penalty of its own (ftrl, adamw)"
        )


def choose_lanes(settings: Settings, data_bytes: int, alone: str = "") -> Lanes:
    """Return the lanes of a run over so many bytes of rows; `alone` is why nobody gets several who did not ask for them."""
    number, many = settings.lanes, max(1, min(MOST_LANES, data_bytes // LANE_BYTES))
    lanes = 1 << (many.bit_length() - 1) if number == "auto" else int(number)
    if alone and number == "auto":
        return Lanes(1, "average", alone)
    if lanes == 1:  # of which all ways to combine are the same
        why = "as set" if number != "auto" else f"below {2 * LANE_BYTES >> 30} GiB of rows"
        return Lanes(1, "average", why)
    size = settings.batch_size
    large = size == "full" or (isinstance(size, int) and size >= LARGE_BATCH)
    if settings.combine != "auto":
        return Lanes(lanes, settings.combine, "as set")
    if large:
        return Lanes(lanes, "sync", f"batches of {size} rows are worth a message each")
    return Lanes(lanes, "average", "steps of few rows are made apart, and merged after every chunk")
