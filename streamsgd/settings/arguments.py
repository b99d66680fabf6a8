"""Arguments of functions that people call from Python: of the types that their annotations say, or refused by name."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from streamsgd.errors import SettingsError
from streamsgd.settings.scalars import number_in


def _is_model(value: Any) -> bool:
    return isinstance(value, str | os.PathLike) or hasattr(value, "score_block")


def _is_named(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(name, str) for name in value)


def _is_callback(value: Any) -> bool:
    return not inspect.isclass(value) and all(callable(getattr(value, name, None)) for name in CALLBACK)


def _no_callback(value: Any) -> str:
    """Return what is wrong with what was meant to be a callback, and what makes one of it."""
    if inspect.isclass(value):
        return f": {value.__name__} is a class; give an object of it, {value.__name__}(...)"
    if inspect.isroutine(value):
        return ": a function of events goes to on_progress"
    lacking = [name for name in CALLBACK if not callable(getattr(value, name, None))]
    return f": {type(value).__name__} lacks {' and '.join(lacking)}; it may do nothing"


CALLBACK = ("on_begin", "on_event", "on_end")
"""What is called of one, as `training.callbacks.Callback` has it."""


class Fit(NamedTuple):
    """How arguments of one annotation are taken."""

    kind: Any
    """What `msgspec` makes of them, as it does of settings; of what is taken as it is, object."""
    what: str
    several: bool = False
    fits: Callable[[Any], bool] | None = None
    """What must hold of what is taken as it is, or of each."""
    fault: Callable[[Any], str] | None = None
    """What is said of one that does not fit, behind what it should be."""


PATH = Fit(str, "a path")

FITS = {
    "int": Fit(int, "a whole number"),
    "float": Fit(float, "a number"),
    "bool": Fit(bool, "True or False"),
    "str": Fit(str, "text"),
    "str | os.PathLike[str]": PATH,
    "Model | str | os.PathLike[str]": Fit(object, "a model, or the path of one", fits=_is_model),
    "Sequence[str]": Fit(list[str], "a list of texts", several=True),
    "Sequence[int]": Fit(list[int], "a list of whole numbers", several=True),
    "Sequence[float]": Fit(list[float], "a list of numbers", several=True),
    "Callable": Fit(object, "a function", fits=callable),
    "Sequence[Callback]": Fit(
        object,
        "a list of callbacks, which are objects with on_begin(job), on_event(event) and on_end(report, model)",
        several=True,
        fits=_is_callback,
        fault=_no_callback,
    ),
    "Sequence[Mapping[str, Any]]": Fit(object, "a list of dicts of settings", several=True, fits=_is_named),
}
"""By annotation, without `| None` and what is called with what; others are for the function itself."""


class Fitter(NamedTuple):
    """What checks the arguments of one function."""

    names: tuple[str, ...]
    """Of parameters, in their order."""
    fits: Mapping[str, tuple[Fit, bool]]
    """By parameter: how it is taken, and whether it may be None."""

    def __call__(self, args: tuple[Any, ...], given: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments as the function wants them.

        Raises
        ------
        SettingsError
            One is of another type.

        """
        placed = tuple(self._one(name, value) for name, value in zip(self.names, args, strict=False))
        return placed + args[len(placed) :], {name: self._one(name, value) for name, value in given.items()}

    def _one(self, name: str, value: Any) -> Any:
        if name not in self.fits:
            return value
        fit, none = self.fits[name]
        return value if value is None and none else fitted(name, value, fit)


def fitter_of(function: Callable[..., Any]) -> Fitter | None:
    """Return what checks the arguments of a function by their annotations; None if there is nothing to check."""
    parameters = inspect.signature(function).parameters
    fits = {}
    for name, parameter in parameters.items():
        said = str(parameter.annotation)
        fit = FITS.get("Callable" if said.startswith("Callable[") else said.removesuffix(" | None"))
        # That no target is given is said better where settings are made.
        none = said.endswith(" | None") or name == "target"
        if fit is not None and parameter.kind is not parameter.VAR_KEYWORD:
            fits[name] = fit, none
    names = [name for name, parameter in parameters.items() if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
    return Fitter(tuple(names), fits) if fits else None


def fitted(name: str, value: Any, fit: Fit) -> Any:
    """Return an argument as plain Python: scalars and arrays of NumPy, Arrow and pandas, paths, and one where a list is wanted.

    Raises
    ------
    SettingsError
        It is of another type.

    """
    if fit.fits is not None:
        every = _listed(value) if fit.several else [value]
        if all(map(fit.fits, every)):
            return every if fit.several else value
        why = "" if fit.fault is None else fit.fault(next(one for one in every if not fit.fits(one)))
        raise SettingsError(f"{name}={shown(value)} is not {fit.what}{why}")
    plain = _listed(value) if fit.several else _plain(value)
    if fit.kind is str and isinstance(plain, int | float) and not isinstance(plain, bool) and fit is not PATH:
        plain = str(plain)
    if fit.kind in (int, float) and isinstance(plain, str):
        number = number_in(plain)
        plain = plain if number is None else number
    try:
        found = msgspec.convert(plain, fit.kind, strict=False)
    except (msgspec.ValidationError, OverflowError):
        raise SettingsError(f"{name}={shown(value)} is not {fit.what}") from None
    if not all(math.isfinite(one) for one in (found if fit.several else [found]) if isinstance(one, float)):
        raise SettingsError(f"{name}={shown(value)} is not {fit.what} that is finite")
    return found


def _plain(value: Any) -> Any:
    plain = getattr(value, "as_py", None) or (getattr(value, "item", None) if getattr(value, "ndim", None) == 0 else None)
    value = value if plain is None else plain()
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _listed(value: Any) -> list[Any]:
    if isinstance(value, str | bytes | dict) or not hasattr(value, "__iter__"):
        return [_plain(value)]
    return [_plain(item) for item in value]


def shown(value: Any) -> str:
    """Return a value as messages show it, shortened."""
    text = f"{value!r}".replace("\n", " ")
    return text if len(text) <= 60 else f"{text[:57]}..."
