"""What optimizers that judge their steps take of memory, and what they cannot be combined with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamsgd.errors import SettingsError
from streamsgd.kernels.parts.traits import judges
from streamsgd.planning.samplers import replaces
from streamsgd.settings.registry import PARTS, make
from streamsgd.training.judged.steps import COLUMNS, MOST_LINES, MOST_PAIRS

if TYPE_CHECKING:
    from streamsgd.kernels.structs.block import Parts
    from streamsgd.settings.fields import Settings

VECTORS = 12
"""Numbers per weight: weights, steps, three gradients and curvatures, and what a proposal is worked out with."""

MATRICES = 6
"""Of pairs of weights: of three sums, and while a proposal is worked out."""

COPIES = 3
"""Of all that, for a checkpoint and on the way between processes."""


def judged_bytes(parts: Parts, n_weights: int) -> int:
    """Return the bytes of sums and proposals of so many weights; 0 for other optimizers."""
    if not judges(parts.optimizer):
        return 0
    pairs = n_weights * n_weights if n_weights <= MOST_PAIRS else 0
    return 8 * COPIES * (VECTORS * n_weights + MATRICES * pairs + MOST_LINES * len(COLUMNS))


def check_judged(settings: Settings, parts: Parts, lanes: int) -> None:
    """Refuse what makes no sense with steps that are judged.

    Raises
    ------
    SettingsError
        There is such a setting, or a field is out of range.

    """
    if judges(parts.optimizer) and (said := next((words for wrong, words in _problems(settings, parts, lanes) if wrong), "")):
        raise SettingsError(f"--optimizer {settings.optimizer}: {said}")


def _problems(settings: Settings, parts: Parts, lanes: int) -> list[tuple[bool, str]]:
    optimizer, by_itself = parts.optimizer, "steps and their rows follow from what is measured: leave"
    drawn = settings.shuffle != "auto" and replaces(make("shuffle", settings.shuffle))
    return [
        (
            not 0.0 < optimizer.alpha <= 0.5,
            f"alpha={optimizer.alpha:g}: it is the share of wrong decisions, above 0, at most 0.5",
        ),
        (optimizer.start < 2, f"start={optimizer.start}: a decision needs 2 rows at least"),
        (not 0.0 < optimizer.learning_rate < float("inf"), "learning_rate, what the radius begins with, is above 0"),
        (settings.batch_size != "auto", f"{by_itself} --batch-size out"),
        (settings.rate_scaling != "none", f"{by_itself} --rate-scaling out"),
        (settings.clip_norm is not None or settings.clip_value is not None, f"{by_itself} --clip-norm and --clip-value out"),
        (settings.schedule not in ("auto", "constant"), f"{by_itself} --schedule out"),
        (
            settings.average != "none",
            "steps are taken only where the loss falls, so there is no noise to average: leave --average out",
        ),
        (settings.noise, "--noise is that of steps by batches: leave it out, and measure the model with streamsgd noise --at"),
        (lanes > 1, "steps are judged one after another, which lanes cannot do apart: leave --lanes out"),
        (drawn, "a decision is exact once all rows have judged it, each once: leave --shuffle iid out"),
        (settings.keep_memory, "what it knows of curvature is not kept in models: leave --keep-memory and --from out"),
        (not getattr(parts.loss, "smooth", True), f"needs a loss without kinks, and {type(parts.loss).__name__} has some"),
        (
            type(parts.penalty) not in (PARTS["penalty"]["none"], PARTS["penalty"]["l2"]),
            f"knows --penalty l2 only, not {settings.penalty}",
        ),
    ]
