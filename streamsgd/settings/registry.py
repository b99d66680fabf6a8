"""Names to parts: the one table that the command line, settings, docs and conformance tests read.

A *spec* is how a person writes a part: `adam`, `huber:delta=2`, `cosine:floor=0.1,warmup=500`, or
`module:Class,field=value` (or `package.module:Class`) for a part of their own.
"""

from __future__ import annotations

import importlib
import math
import re
from dataclasses import is_dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, get_type_hints

from streamsgd.errors import SettingsError
from streamsgd.kernels.models import machines, networks, pairs
from streamsgd.kernels.parts import (
    by_rows,
    judged,
    losses,
    methods,
    noisy_optimizers,
    optimizers,
    penalties,
    priors,
    schedules,
    thinned,
)
from streamsgd.kernels.parts.ranges import Range
from streamsgd.kernels.sums.adjusted import AdjustedLogistic
from streamsgd.messages import nearest
from streamsgd.planning import batches, samplers

if TYPE_CHECKING:
    from collections.abc import Mapping

PARTS: dict[str, dict[str, Any]] = {
    "model": {
        "linear": machines.Linear,
        "fm": machines.FM,
        "fwfm": pairs.FwFM,
        "mlp": networks.MLP,
    },
    "loss": {
        "squared": losses.Squared,
        "huber": losses.Huber,
        "quantile": losses.Quantile,
        "logistic": losses.Logistic,
        "adjusted-logistic": AdjustedLogistic,
        "focal": losses.Focal,
        "hinge": losses.Hinge,
        "squared-hinge": losses.SquaredHinge,
        "poisson": losses.Poisson,
        "softmax": losses.Softmax,
    },
    "penalty": {
        "none": penalties.Free,
        "l1": penalties.Lasso,
        "l2": penalties.Ridge,
        "elastic-net": penalties.ElasticNet,
    },
    "optimizer": {
        "sgd": optimizers.SGD,
        "momentum": optimizers.Momentum,
        "nesterov": optimizers.Nesterov,
        "adagrad": optimizers.Adagrad,
        "rmsprop": optimizers.RMSprop,
        "adam": optimizers.Adam,
        "adamw": optimizers.AdamW,
        "amsgrad": optimizers.AMSGrad,
        "ftrl": optimizers.FTRL,
        "svrg": optimizers.SVRG,
        "normalized": optimizers.Normalized,
        "race": optimizers.Race,
        "coin": optimizers.Coin,
        "trust-region": judged.TrustRegion,
        "armijo": judged.Armijo,
        "perturbed": noisy_optimizers.Perturbed,
        "langevin": noisy_optimizers.Heated,
    },
    "schedule": {
        "constant": schedules.Constant,
        "inverse-scaling": schedules.InverseScaling,
        "cosine": schedules.Cosine,
        "step": schedules.Step,
        "warm-up": schedules.WarmUp,
    },
    "shuffle": {
        "corgi": samplers.Corgi,
        "external": samplers.External,
        "none": samplers.Sequential,
        "block": samplers.Block,
        "full-chunk": samplers.FullChunk,
        "iid": samplers.Independent,
        "stratified": samplers.Stratified,
    },
    "batch_size": {"adaptive": batches.Adaptive, "pilot": batches.Pilot},
    "prior": {
        "none": priors.Flat,
        "normal": priors.Normal,
    },
    "method": {
        "sgld-cv": methods.ControlledLangevin,
        "sgld": methods.Langevin,
        "sghmc": methods.HamiltonianLangevin,
        "constant-sgd": methods.ConstantRate,
        "laplace": methods.Laplace,
    },
    "rare": {
        "none": thinned.Everything,
        "targeted": thinned.Targeted,
        "uniform": thinned.Uniform,
        "local-case-control": thinned.LocalCaseControl,
    },
}


BY_ROWS: dict[str, Any] = {
    "momentum": by_rows.MomentumByRows,
    "nesterov": by_rows.NesterovByRows,
    "rmsprop": by_rows.RMSpropByRows,
    "adam": by_rows.AdamByRows,
    "adamw": by_rows.AdamWByRows,
}
"""What an optimizer of this name is where one of its half-lives is given."""
WITH_FIELDS = {"loss": {"logistic": "adjusted-logistic"}}
"""What names with fields are, by kind, where what has the name alone takes none: logistic:adjust=1."""

ALIASES = {"optimizer": {"nag": "normalized"}}
"""Names of before, by kind: they still work, and will go with the next version but one."""


def make(kind: str, spec: str, **overrides: Any) -> Any:
    """Build the part that a spec names.

    Raises
    ------
    SettingsError
        The name, a field or a value is unknown; the message names the nearest one.

    """
    name, _, rest = spec.partition(":")
    name = ALIASES.get(kind, {}).get(name, name)
    part = WITH_FIELDS.get(kind, {}).get(name, name) if rest else name
    if part in PARTS[kind]:
        given: dict[str, Any] = {**_fields(rest, spec, _like(kind, spec)), **overrides}
        return _build(kind, name, _class_of(kind, part, given), given)
    class_name, _, fields = rest.partition(",")
    if class_name.isidentifier():
        return _build(kind, spec, _load(kind, name, class_name), {**_fields(fields, spec), **overrides})
    raise SettingsError(f"unknown {kind.replace('_', ' ')} {name!r}{_like(kind, spec) or nearest(name, PARTS[kind])}")


def _like(kind: str, spec: str) -> str:
    """Return how a part is written that was given in another way, such as l2=0.1 or huber(delta=2); empty if none is known."""
    name = re.split(r"[^\w-]", spec, maxsplit=1)[0]
    part = WITH_FIELDS.get(kind, {}).get(name, name)
    known = getattr(PARTS[kind].get(part), "_fields", ())
    values = [value for value in re.split(r"[\s=:,;()]+", spec[len(name) :]) if value]
    if not known or not values:
        return ""
    fields = [f"{key}={value}" for key, value in pairwise(values) if key in known]
    way = "write it as" if fields or len(known) == 1 else "write fields by name, e.g."
    return f"; {way} {name}:{','.join(fields or [f'{known[0]}={values[0]}'])}"


def _class_of(kind: str, name: str, fields: Mapping[str, Any]) -> Any:
    """Return the class of a name: of an optimizer whose half-lives are given another.

    Raises
    ------
    SettingsError
        It has no half-lives, or one stands beside a factor per step, which it is instead of.

    """
    given = [key for key in fields if key.startswith("half_life")] if kind == "optimizer" else []
    usual = PARTS[kind][name]
    if not given or set(given) & set(usual._fields):
        return usual
    if name not in BY_ROWS:
        raise SettingsError(f"optimizer {name!r} has no memory that fades by rows: {given[0]} is for {', '.join(BY_ROWS)}")
    instead = sorted(set(fields) & (set(usual._fields) - set(BY_ROWS[name]._fields)))
    if instead:
        raise SettingsError(f"optimizer {name!r}: {instead[0]} is per step and {given[0]} in rows: pass one kind of them")
    return BY_ROWS[name]


def make_own(kind: str, spec: str) -> Any:
    """Build a part of one's own, of a kind of which there are no names: a frozen dataclass, package.module:Class,field=value.

    Raises
    ------
    SettingsError
        It cannot be imported, or built with these fields.

    """
    module, _, rest = spec.partition(":")
    class_name, _, fields = rest.partition(",")
    cls = _load(kind, module, class_name)
    if not (is_dataclass(cls) and vars(cls)["__dataclass_params__"].frozen):
        raise SettingsError(f"{kind} {module}:{class_name} is no frozen dataclass, whose fields a model file can keep")
    return _build(kind, f"{module}:{class_name}", cls, _fields(fields, spec))


def spec_of(kind: str, part: Any) -> str:
    """Return the spec that builds this part again, every field written out."""
    part = getattr(part, "named", part)  # what kernels take of a part may be another
    names = {cls: name for name, cls in PARTS[kind].items()}
    names |= {cls: name for name, cls in BY_ROWS.items() if kind == "optimizer"}
    values = {key: value if isinstance(value, str) else repr(value) for key, value in part._asdict().items()}
    fields = ",".join(f"{key}={value}" for key, value in values.items())
    if type(part) in names:
        return f"{names[type(part)]}:{fields}" if fields else names[type(part)]
    own = f"{type(part).__module__}:{type(part).__qualname__}"
    return f"{own},{fields}" if fields else own


def _fields(text: str, spec: str, like: str = "") -> dict[str, str]:
    pairs = [pair.partition("=") for pair in text.split(",") if pair]
    wrong = [key for key, equals, _ in pairs if not equals]
    if wrong:
        raise SettingsError(f"in {spec!r}: {wrong[0]!r} has no value{like or '; write it as name:field=value,field=value'}")
    return {key.strip(): value.strip() for key, _, value in pairs}


def _build(kind: str, name: str, cls: Any, fields: Mapping[str, Any]) -> Any:
    hints = get_type_hints(cls, include_extras=True)
    known = tuple(cls.__dataclass_fields__) if is_dataclass(cls) else getattr(cls, "_fields", ())
    for key in fields:
        if key not in known:
            raise SettingsError(f"{kind} {name!r} has no field {key!r}{nearest(key, known)}")
    return cls(**{key: _value(f"{kind} {name!r}: {key}", hints[key], value) for key, value in fields.items()})


def _value(what: str, hint: Any, given: Any) -> Any:
    """Return what was given for a field as its type, in its range (see `streamsgd.kernels.parts.ranges`).

    Raises
    ------
    SettingsError
        It is not of that type, or out of the range.

    """
    of_type, ranges = (hint.__origin__, hint.__metadata__) if hasattr(hint, "__metadata__") else (hint, ())
    try:
        value = of_type(given)
    except ValueError:
        raise SettingsError(f"{what}={given!r} is not a number of type {of_type.__name__}") from None
    for allowed in ranges:
        if isinstance(allowed, Range) and not allowed.holds(value):
            finite = "" if math.isfinite(value) else "a finite number "
            raise SettingsError(f"{what}={given} must be {finite}{allowed}")
    return value


def _load(kind: str, module: str, class_name: str) -> Any:
    try:
        return getattr(importlib.import_module(module), class_name)
    except (ImportError, AttributeError) as error:
        raise SettingsError(
            f"{kind} {module}:{class_name} cannot be imported: {error}; it is looked for on PYTHONPATH"
        ) from error
