"""What Numba's frontend does over and over while a kernel compiles, done once.

Of the seconds that a kernel takes to compile most go to finding out types, in Python. By profile, the same questions are asked
again and again:

* Which signature has this operator for these types? Numba asks each of its templates in turn, thirty for an addition, at every
  call, in every sweep over a function, and once more wherever the function is inlined.
* Which variables does this statement name? Every pass asks; each answer goes through all that the statement holds, its
  place in the source included.
* Are these options the same as those? They are the key of caches; each comparison reads 25 properties of two objects.

The answers depend on the question alone. Here signatures are kept, as long as the process lives, and the others are found with
less work. That holds while a kernel of this package compiles; otherwise Numba is as it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numba.core.ir import Inst, Loc, Scope, Var
from numba.core.targetconfig import TargetConfig
from numba.core.types.functions import BaseFunction

if TYPE_CHECKING:
    from collections.abc import Callable

_ask: Callable[..., Any] = BaseFunction.get_call_type

_known: dict[int, tuple[Any, dict[Any, Any]]] = {}
"""By the id of a function's type: the type itself, which keeps the id from being given again, and what its calls are."""


def _remembered(function: Any, context: Any, args: Any, kws: Any) -> Any:
    """Return the signature of a call, from memory if it has been asked for.

    What an `overload` answers is not kept: it compiles code, by the options of the kernel at hand.
    """
    known = _known.setdefault(id(function), (function, {}))[1]
    key = context, args, tuple(kws.items())
    signature = known.get(key)
    if signature is None:
        signature = _ask(function, context, args, kws)
        builtin = signature is not None and function.get_impl_key(signature) is function.typing_key
        if builtin and all(kind.is_precise() for kind in args):
            known[key] = signature
    return signature


def _values(options: Any) -> dict[str, Any]:
    """Return all options by name, in their order, as `TargetConfig.values`."""
    values = dict(_defaults(type(options)))
    values.update(options._values)  # noqa: SLF001
    return values


_all_defaults: dict[type, dict[str, Any]] = {}


def _defaults(kind: Any) -> dict[str, Any]:
    if kind not in _all_defaults:
        _all_defaults[kind] = {name: option.default for name, option in kind.options.items()}
    return _all_defaults[kind]


PLAIN = (Loc, Scope, str, int, bool, type(None))
"""What statements hold that names no variable."""


def _variables(statement: Any, held: Any) -> list[Var]:
    """Return the variables in what a statement holds, in their order, as `Inst._rec_list_vars`."""
    found: list[Var] = []
    for value in held.values() if isinstance(held, dict) else held if isinstance(held, (list, tuple)) else (held,):
        kind = type(value)
        if kind is Var:
            found.append(value)
        elif kind in PLAIN:
            continue
        elif isinstance(value, Inst):
            found += value.list_vars()
        elif isinstance(value, (list, tuple, dict)):
            found += _variables(statement, value)
    return found


SWAPS = (
    (BaseFunction, "get_call_type", _ask, _remembered),
    (TargetConfig, "values", TargetConfig.values, _values),
    (Inst, "_rec_list_vars", Inst._rec_list_vars, _variables),  # noqa: SLF001
)
"""Class, name of a method, Numba's, and ours."""


def remember() -> None:
    """Let Numba remember, until `forget`."""
    for owner, name, _, ours in SWAPS:
        setattr(owner, name, ours)


def forget() -> None:
    """Let Numba be as it was."""
    for owner, name, numbas, _ in SWAPS:
        setattr(owner, name, numbas)
