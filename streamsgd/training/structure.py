"""What a model that is not linear asks of a run: its numbers for kernels, usual optimizer and rates, and what it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from streamsgd.errors import SettingsError
from streamsgd.kernels.models.factored import NormalizedFactors
from streamsgd.kernels.models.machines import compiled, is_linear, key_of
from streamsgd.kernels.parts.optimizers import Normalized
from streamsgd.kernels.parts.traits import is_sequential, judges, reduces
from streamsgd.settings.registry import make

if TYPE_CHECKING:
    from streamsgd.features.encoding import Encoding
    from streamsgd.kernels.structs.block import Parts
    from streamsgd.settings.fields import Settings


def model_of_kernels(settings: Settings, encoding: Encoding) -> Any:
    """Return what kernels take of the model of the settings, for rows of this encoding.

    Raises
    ------
    SettingsError
        A field of it is out of range.

    """
    try:
        return compiled(make("model", settings.model), settings.seed, encoding.n_places)
    except ValueError as error:
        raise SettingsError(f"--model {settings.model}: {error}") from None


def name_of(optimizer: Any) -> str:
    """Return the class of an optimizer as people name it: what kernels take of it may be another."""
    return type(getattr(optimizer, "named", optimizer)).__name__


def usual_optimizer(model: Any, *, of_batches: bool) -> str:
    """Return the spec of the optimizer of a model that is not linear, if nobody says."""
    return "normalized" if getattr(model, "factored", False) and not of_batches else "adam"


def usual_rate(settings: Settings, spec: str) -> float | None:
    """Return the learning rate that suits a model and an optimizer, if nobody says; None for that of the optimizer."""
    rates = getattr(make("model", settings.model), "usual_rates", {})
    return None if "learning_rate=" in spec else rates.get(spec.partition(":")[0])


def most_passes(settings: Settings, encoding: Encoding, usual: int) -> int:
    """Return the passes that a run makes at most, if nobody says: factors of hashed values overfit from the second one on."""
    named = make("model", settings.model)
    if is_linear(named):
        return usual
    return 1 if encoding.hashed is not None else int(getattr(named, "most_epochs", usual))


def with_factors(settings: Settings, model: Any, optimizer: Any, penalty: Any) -> Any:
    """Return the optimizer that learns a model: row by row it keeps factors beside its weights.

    Raises
    ------
    SettingsError
        There is a penalty then, which is for batches.

    """
    if getattr(model, "factored", False) and type(optimizer) is Normalized:
        if penalty._fields:
            raise SettingsError(
                f"--penalty {settings.penalty} is for batches with --model {settings.model}: pass --optimizer adagrad or adam "
                "with it, or leave it out"
            )
        cls: Any = NormalizedFactors
        return cls(optimizer.learning_rate, model.k)
    return optimizer


def with_noise(settings: Settings, optimizer: Any) -> Any:
    """Return an optimizer that brings noise of its own with the key of that, which follows from the seed.

    Raises
    ------
    SettingsError
        A field of it is out of range, or steps grow, which know nothing of the noise.

    """
    if not hasattr(optimizer, "stirred"):
        return optimizer
    if settings.batch_size not in ("auto", "full") and not isinstance(settings.batch_size, int):
        raise SettingsError(
            f"--optimizer {settings.optimizer} brings noise of its own, which --batch-size {settings.batch_size} would take "
            "for that of the data: pass a number"
        )
    try:
        return optimizer.stirred(key_of(settings.seed, STIRRED))
    except ValueError as error:
        raise SettingsError(f"--optimizer {settings.optimizer}: {error}") from None


STIRRED = 0x571
"""Of the key of that noise, beside those of starts."""


UNLESS_LINEAR = {
    "polish": "L-BFGS would end in a minimum that is no better than others",
    "standard_errors": "they are of weights that are determined, and factors are not",
    "method": "draws are of weights that are determined, and factors are not",
    "keep_memory": "a run that goes on knows the memories of sums of weights",
}
"""Settings that are for linear models, and why."""


def check_structure(settings: Settings, parts: Parts, encoding: Encoding) -> None:
    """Refuse what a model that is not linear does not support.

    Raises
    ------
    SettingsError
        Something of it was asked for; the message names it, and the way out.

    """
    if is_linear(parts.model):
        return
    name = f"--model {settings.model}"
    for key, why in UNLESS_LINEAR.items():
        if getattr(settings, key):
            flag = "sample (--method)" if key == "method" else f"--{key.replace('_', '-')}"
            raise SettingsError(f"{flag} is for linear models: {why}; leave it out, or take --model linear")
    if settings.rare != "none":
        raise SettingsError(f"--rare thins rows for linear models only: leave it out, or --model linear in the place of {name}")
    if settings.class_weight and not settings.keep_weights:
        raise SettingsError(f"--class-weight is undone by an intercept that {name} may not have: pass --keep-weights with it")
    if settings.batch_size not in ("auto", "full") and not isinstance(settings.batch_size, int):
        raise SettingsError(
            f"--batch-size {settings.batch_size} tells the noise of linear models only: pass a number with {name}"
        )
    if hasattr(parts.loss, "slopes"):
        raise SettingsError(
            f"{name} makes one score per row, and {settings.target!r} has {parts.loss.classes} classes: take --model linear, "
            "or train one model for each class, with a target that says whether a row is of it"
        )
    _check_optimizer(name, settings, parts)
    if getattr(parts.model, "factored", False) and len(encoding.sources) == 1 and not encoding.tails:
        raise SettingsError(
            f"{name} learns from pairs of values, and a row has one, of {encoding.sources[0]!r}: take --model linear"
        )


def _check_optimizer(name: str, settings: Settings, parts: Parts) -> None:
    optimizer = parts.optimizer
    said = name_of(optimizer).lower()
    factored = isinstance(optimizer, NormalizedFactors)
    if reduces(optimizer) or judges(optimizer) or (is_sequential(optimizer) and not factored):
        way = "normalized or adam" if getattr(parts.model, "factored", False) else "adam"
        raise SettingsError(f"--optimizer {said} learns linear models only: take {way} for {name}, or leave it out")
    if factored and settings.average != "none":
        raise SettingsError(f"--average is for batches with {name}: pass --optimizer adagrad or adam with it, or leave it out")
